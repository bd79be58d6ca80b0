//! Exports a commit: the same paths, modes and bytes as `git archive`, as a manifest and the content behind it.
//!
//! Equal to `git --no-replace-objects -c core.autocrlf=false -c core.eol=lf -c core.attributesFile=/dev/null archive REV`, with
//! `info/attributes` ignored and no filter run. With `path` it equals `git archive REV:path`: attributes come from that directory and
//! below, never from its parents, and `export-subst` has no commit to expand. `%aN` in `export-subst` uses the commit's own mailmap.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use git2::{ObjectType, Oid};

use crate::tree::manifest::{EXECUTABLE, FILE, MAX_TARGET, ManifestError};
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};

use super::archive::{self, Piece};
use super::attributes::{self, Attributes, above};
use super::contents::{self, Content, Contents, LARGE, Source};
use super::digests::{Digests, Known};
use super::error::GitError;
use super::listing::{self, Item, Mode};
use super::objects::{Objects, read};
use super::{Artifact, ExportOptions, lfs, oddities, submodule, threads};

/// What is gathered from a repository and its submodules before anything is hashed.
#[derive(Default)]
struct Gathered {
    repositories: Vec<Arc<Objects>>,
    spools: Vec<File>,
    items: Vec<Planned>,
    /// Directories with nothing in them.
    hollow: Vec<TreePath>,
}

/// One leaf of the export, its content not hashed yet.
struct Planned {
    path: TreePath,
    mode: Mode,
    repository: usize,
    origin: Origin,
}

enum Origin {
    Blob(Oid),
    Spooled { spool: usize, piece: Piece },
}

/// Exports `commit`; digests of blobs are remembered under `cache`.
pub fn export(objects: &Arc<Objects>, commit: Oid, options: &ExportOptions, cache: &Path) -> Result<Artifact, GitError> {
    let mut gathered = Gathered::default();
    gathered.add(objects, commit, options, None)?;
    let time = objects.with(|repository| Ok(repository.find_commit(commit)?.time().seconds()))?;
    let digests = gathered.repositories.iter().map(|objects| Digests::load(cache, objects.path())).collect::<Vec<_>>();
    let hashed = gathered.hash(options, &digests)?;
    let mut fresh: Vec<HashMap<Oid, Known>> = digests.iter().map(|_| HashMap::new()).collect();
    for (planned, hashed) in gathered.items.iter().zip(&hashed) {
        if let (Some(known), Origin::Blob(id)) = (hashed.fresh, &planned.origin) {
            fresh[planned.repository].insert(*id, known);
        }
    }
    digests.iter().zip(&fresh).for_each(|(digests, fresh)| digests.remember(fresh));
    refuse_pointers(&gathered, &hashed, options)?;
    gathered.assemble(hashed, time)
}

fn refuse_pointers(gathered: &Gathered, hashed: &[Hashed], options: &ExportOptions) -> Result<(), GitError> {
    let pointers = gathered.items.iter().zip(hashed).filter(|(_, hashed)| hashed.pointer && !options.lfs);
    let mut paths: Vec<TreePath> = pointers.map(|(planned, _)| planned.path.clone()).collect();
    paths.sort();
    if paths.is_empty() { Ok(()) } else { Err(GitError::LfsPointers { paths }) }
}

impl Gathered {
    /// Adds what `commit` of `objects` exports, beneath `prefix`.
    fn add(&mut self, objects: &Arc<Objects>, commit: Oid, options: &ExportOptions, prefix: Option<&TreePath>) -> Result<(), GitError> {
        let repository = self.repositories.len();
        self.repositories.push(Arc::clone(objects));
        let root = Root::find(objects, commit, if prefix.is_none() { options.path.as_ref() } else { None })?;
        let spool = self.spools.len();
        let mut pieces = HashMap::new();
        if !root.attributes.converted.is_empty() {
            let paths = root.items.iter().filter(|item| root.attributes.converts(item)).map(|item| item.path.clone()).collect();
            let spooled = archive::convert(&*objects.isolated()?, &root.treeish.to_string(), &format!("{commit}:.mailmap"), &paths)?;
            pieces = spooled.pieces;
            self.spools.push(spooled.file);
        }
        let mut submodules = Vec::new();
        for path in root.hollow {
            self.hollow.push(beneath(prefix, &path)?);
        }
        for item in root.items {
            let origin = match pieces.get(&item.path) {
                Some(piece) => Origin::Spooled { spool, piece: *piece },
                None => Origin::Blob(item.id),
            };
            let Item { path, mode, id } = item;
            match mode {
                Mode::Submodule => submodules.push((path, id)),
                Mode::File | Mode::Executable | Mode::Link => {
                    self.items.push(Planned { path: beneath(prefix, &path)?, mode, repository, origin });
                }
            }
        }
        self.add_submodules(objects, submodules, options, prefix)
    }

    fn add_submodules(
        &mut self,
        objects: &Arc<Objects>,
        found: Vec<(TreePath, Oid)>,
        options: &ExportOptions,
        prefix: Option<&TreePath>,
    ) -> Result<(), GitError> {
        if !found.is_empty() && !options.submodules {
            let mut paths = found.into_iter().map(|(path, _)| beneath(prefix, &path)).collect::<Result<Vec<_>, _>>()?;
            paths.sort();
            return Err(GitError::Submodules { paths });
        }
        for (path, commit) in found {
            let shown = beneath(prefix, &path)?;
            // Where a directory of the repository is exported, the submodule's place is still told from the top.
            let place = if prefix.is_none() { beneath(options.path.as_ref(), &path)? } else { path };
            let submodule =
                submodule::find(objects, &place, commit)?.ok_or_else(|| GitError::SubmoduleAbsent { path: shown.clone(), commit })?;
            self.add(&submodule, commit, options, Some(&shown))?;
        }
        Ok(())
    }

    /// Finds the digest of every item.
    fn hash(&self, options: &ExportOptions, digests: &[Digests]) -> Result<Vec<Hashed>, GitError> {
        threads::each(&self.items, |planned| self.hash_one(planned, options, &digests[planned.repository]))
    }

    fn hash_one(&self, planned: &Planned, options: &ExportOptions, digests: &Digests) -> Result<Hashed, GitError> {
        let repository = planned.repository;
        let objects = &self.repositories[repository];
        let id = match &planned.origin {
            Origin::Spooled { spool, piece } => {
                let source = Source::Spooled { spool: *spool, offset: piece.offset };
                let content = Content { size: piece.size, digest: piece.digest, source };
                return Ok(Hashed { content, target: Vec::new(), fresh: None, pointer: false });
            }
            Origin::Blob(id) => *id,
        };
        if planned.mode == Mode::Link {
            let target = objects.with(|repository| {
                let odb = repository.odb()?;
                let (size, _) = odb.read_header(id).map_err(|source| GitError::Object { id, source })?;
                // Refused before it is read: a link's target may be a blob of any size.
                if size > MAX_TARGET { Err(ManifestError::Target(planned.path.clone()).into()) } else { read(&odb, id, ObjectType::Blob) }
            })?;
            let content = Content { size: 0, digest: Digest([0; 32]), source: Source::Nothing };
            return Ok(Hashed { content, target, fresh: None, pointer: false });
        }
        let remembered = digests.find(id);
        let known = remembered.map_or_else(|| hash_blob(objects, id), Ok)?;
        let content = if known.pointer && options.lfs {
            lfs::content(objects, &planned.path, id)?
        } else {
            Content { size: known.size, digest: known.digest, source: Source::Blob { repository, id, remembered: remembered.is_some() } }
        };
        Ok(Hashed { content, target: Vec::new(), fresh: remembered.is_none().then_some(known), pointer: known.pointer })
    }

    /// Sorts everything into a manifest and the content behind it.
    fn assemble(self, hashed: Vec<Hashed>, time: i64) -> Result<Artifact, GitError> {
        let entry = |(planned, hashed): (Planned, Hashed)| {
            let Content { size, digest, .. } = hashed.content;
            let kind = match planned.mode {
                Mode::Link => Kind::Link { target: hashed.target },
                Mode::Executable => Kind::File { mode: EXECUTABLE, size, digest, mtime: time },
                Mode::File | Mode::Submodule => Kind::File { mode: FILE, size, digest, mtime: time },
            };
            (Entry { path: planned.path, kind }, hashed.content)
        };
        let mut both: Vec<(Entry, Content)> = self.items.into_iter().zip(hashed).map(entry).collect();
        let nothing = Content { size: 0, digest: Digest([0; 32]), source: Source::Nothing };
        both.extend(self.hollow.into_iter().map(|path| (Entry { path, kind: Kind::Directory }, nothing.clone())));
        both.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        let (entries, contents) = both.into_iter().unzip();
        let manifest = Manifest::new(entries)?;
        let warnings = oddities::find(&manifest);
        Ok(Artifact { manifest, contents: Contents::new(contents, self.repositories, self.spools), warnings })
    }
}

/// One item's content, and what is to be remembered of it.
struct Hashed {
    content: Content,
    /// Of a link.
    target: Vec<u8>,
    fresh: Option<Known>,
    pointer: bool,
}

/// Reads and hashes a blob.
fn hash_blob(objects: &Objects, id: Oid) -> Result<Known, GitError> {
    let in_memory = objects.with(|repository| {
        let odb = repository.odb()?;
        let unreadable = |source| GitError::Object { id, source };
        let (size, kind) = odb.read_header(id).map_err(unreadable)?;
        if kind != ObjectType::Blob {
            return Err(GitError::Kind { id, is: kind, expected: ObjectType::Blob });
        }
        if size as u64 > LARGE {
            return Ok(Err(size as u64));
        }
        let blob = odb.read(id).map_err(unreadable)?;
        Ok(Ok(Known { size: size as u64, digest: Digest::of(blob.data()), pointer: lfs::Pointer::read(blob.data()).is_some() }))
    })?;
    let size = match in_memory {
        Ok(known) => return Ok(known),
        Err(size) => size,
    };
    let failed = |error| GitError::Io { what: "a large blob could not be read", path: objects.path().to_owned(), error };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(contents::open_blob(objects, id, size)?).map_err(failed)?;
    if hasher.count() == size {
        Ok(Known { size, digest: hasher.finalize().into(), pointer: false })
    } else {
        Err(failed(ErrorKind::UnexpectedEof.into()))
    }
}

/// What is exported of one commit.
struct Root {
    /// What `git archive` is given: the commit, or the tree of `source.path`.
    treeish: Oid,
    items: Vec<Item>,
    hollow: Vec<TreePath>,
    attributes: Attributes,
}

impl Root {
    fn find(objects: &Objects, commit: Oid, path: Option<&TreePath>) -> Result<Self, GitError> {
        let (treeish, listing, asked) = objects.with(|repository| {
            let tree = repository.find_commit(commit).map_err(|source| GitError::Object { id: commit, source })?.tree_id();
            let odb = repository.odb()?;
            let (treeish, tree) = match path {
                None => (commit, tree),
                Some(path) => {
                    let missing = || GitError::NoSuchPath { path: path.clone(), commit };
                    let tree = listing::descend(&odb, tree, path)?.ok_or_else(missing)?;
                    (tree, tree)
                }
            };
            let listing = listing::list(&odb, tree)?;
            let asked = attributes::matter(&odb, &listing)?;
            Ok((treeish, listing, asked))
        })?;
        if !asked {
            return Ok(Self { treeish, items: listing.items, hollow: Vec::new(), attributes: Attributes::default() });
        }
        let attributes = attributes::find(&*objects.isolated()?, &treeish.to_string(), &listing)?;
        let reached = listing.items.into_iter().filter(|item| !attributes.ignores_above(&item.path));
        let (ignored, items): (Vec<Item>, Vec<Item>) = reached.partition(|item| attributes.ignores(&item.path));
        Ok(Self { treeish, hollow: hollow(&ignored, &items)?, items, attributes })
    }
}

/// Finds the directories that stay with nothing in them: `git archive` writes a directory before it looks whether to leave out a file.
fn hollow(ignored: &[Item], exported: &[Item]) -> Result<Vec<TreePath>, GitError> {
    let left: HashSet<&[u8]> = ignored.iter().filter_map(|item| item.path.split().0).collect();
    let filled = exported.iter().flat_map(|item| above(item.path.as_bytes()));
    let filled: HashSet<&[u8]> = filled.chain(left.iter().flat_map(|path| above(path))).collect();
    let hollow = left.into_iter().filter(|path| !filled.contains(path));
    hollow.map(|path| TreePath::new(path).map_err(|why| GitError::Archive(why.to_string()))).collect()
}

fn beneath(prefix: Option<&TreePath>, path: &TreePath) -> Result<TreePath, GitError> {
    let Some(prefix) = prefix else { return Ok(path.clone()) };
    let joined = [prefix.as_bytes(), b"/", path.as_bytes()].concat();
    TreePath::new(joined).map_err(|why| GitError::LongPath { path: path.clone(), why })
}
