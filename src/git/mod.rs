//! From a source to an artifact: opens or mirrors a repository, resolves a revision once, exports exactly what `git archive` would.
//!
//! Objects are read in-process. The system's git is started for the network (credentials, proxies and ssh then work as the user
//! knows them) and for the few paths whose attributes need git's own formats. Everything here blocks.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ErrorCode, Oid};

use crate::config::environment::Source;
use crate::tree::{Kind, Manifest, TreePath};

mod archive;
mod attributes;
mod bundle;
mod command;
mod contents;
mod digests;
mod error;
mod export;
mod history;
mod isolated;
mod lfs;
mod listing;
mod mirror;
mod objects;
mod oddities;
mod resolve;
mod submodule;
mod threads;
mod url;
mod versions;

pub use command::CommandError;
pub use contents::Contents;
pub(crate) use contents::{Content, Source as ContentSource, open_file};
pub use error::GitError;
pub use history::{Changes, CommitLine};
pub use listing::TreeFault;
pub(crate) use oddities::find as oddities;
pub(crate) use threads::each as on_two_threads;

use objects::Objects;

/// An opened repository: the user's own, or our mirror of a URL.
#[derive(Debug)]
pub struct Repository {
    objects: Arc<Objects>,
    /// How people are told of it: a path or a URL without credentials.
    place: String,
    mirror: bool,
}

/// A commit, resolved once: only its id travels from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The full id, in lower-case hex.
    pub commit: String,
    /// What the user typed.
    pub reference: String,
    pub subject: String,
    pub author: String,
    /// Seconds since 1970.
    pub committed: i64,
    pub warnings: Vec<String>,
}

/// What is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// One directory instead of the whole tree.
    pub path: Option<TreePath>,
    pub submodules: bool,
    pub lfs: bool,
}

impl From<&Source> for ExportOptions {
    fn from(source: &Source) -> Self {
        Self { path: source.path.clone(), submodules: source.submodules, lfs: source.lfs }
    }
}

/// A tree that is ready to be sent: what it holds, and the bytes behind it.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub manifest: Manifest,
    pub contents: Contents,
    pub warnings: Vec<String>,
}

impl Artifact {
    /// The text of a file of the tree; none where there is no such file, or it is larger than a config can be.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        let entries = self.manifest.entries();
        let index = entries.binary_search_by(|entry| entry.path.as_bytes().cmp(path.as_bytes())).ok()?;
        if !matches!(entries[index].kind, Kind::File { size, .. } if size <= TEXT) {
            return None;
        }
        let mut text = String::new();
        self.contents.open(u32::try_from(index).ok()?).ok()?.take(TEXT).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

/// The largest file that is read as a config.
const TEXT: u64 = 1 << 20;

/// Tells whether `source` is mirrored (a URL or a bundle) rather than opened where it lies.
#[must_use]
pub fn is_mirrored(source: &Source, base: &Path) -> bool {
    url::is_url(&source.git) || base.join(&source.git).is_file()
}

/// Opens `source`: a path relative to `base`, or a URL (or bundle file), of which a mirror under `cache` is brought up to date.
pub fn open(source: &Source, base: &Path, cache: &Path, note: &dyn Fn(&str)) -> Result<Repository, GitError> {
    if is_mirrored(source, base) {
        return mirror::update(&source.git, base, cache, note);
    }
    // Without the `.` of a source that is the directory itself.
    let path: PathBuf = base.join(&source.git).components().collect();
    let found = git2::Repository::discover(&path).map_err(|error| unopened(error, path.clone()))?;
    Ok(Repository::new(found, path.display().to_string(), false))
}

/// Asks the system's git what it is.
pub fn version() -> Result<String, GitError> {
    let call = command::Call { arguments: vec!["version".into()], ..command::Call::default() };
    let output = command::output(call, Path::new("."))?;
    Ok(String::from_utf8_lossy(&output).trim().trim_start_matches("git version ").to_owned())
}

/// Says why libgit2 did not open the repository at `path`.
fn unopened(error: git2::Error, path: PathBuf) -> GitError {
    match (error.code(), error.message()) {
        (ErrorCode::NotFound, _) => GitError::NoRepository { path },
        (ErrorCode::Owner, _) => GitError::ForeignOwner { path },
        (_, message) if message.contains("object format") || message.contains("objectformat") => {
            GitError::Format { path, what: "SHA-256 objects".to_owned() }
        }
        (_, message) if message.contains("extension") || message.contains("repository version") => {
            GitError::Format { path, what: format!("a repository format of its own ({message})") }
        }
        _ => GitError::Git(error),
    }
}

impl Repository {
    fn new(repository: git2::Repository, place: String, mirror: bool) -> Self {
        Self { objects: Arc::new(Objects::new(repository)), place, mirror }
    }

    /// Resolves what the user typed to a commit.
    pub fn resolve(&self, rev: &str) -> Result<Revision, GitError> {
        self.objects.with(|repository| resolve::resolve(repository, rev, &self.place, self.mirror))
    }

    /// Exports `revision`, validated. What is learned of its objects is remembered under `cache`.
    pub fn export(&self, revision: &Revision, options: &ExportOptions, cache: &Path) -> Result<Artifact, GitError> {
        export::export(&self.objects, Oid::from_str(&revision.commit)?, options, cache)
    }

    /// Compares two commits by their ids. None where one is unknown here, or the history between them is cut off.
    pub fn changes(&self, from: &str, to: &str) -> Result<Option<Changes>, GitError> {
        self.objects.with(|repository| history::changes(repository, from, to))
    }

    /// Counts the commits that `from` has and `to` does not, and the other way round. None as for `changes`.
    pub fn distance(&self, from: &str, to: &str) -> Result<Option<(usize, usize)>, GitError> {
        self.objects.with(|repository| history::distance(repository, from, to))
    }

    /// Writes a commit and its history as a bundle, on a branch of that name.
    pub fn bundle(&self, commit: &str, branch: &str, to: &Path) -> Result<(), GitError> {
        bundle::write(&*self.objects.isolated()?, commit, branch, to)
    }

    /// Tells whether tracked files of the work tree, or the index, differ from `HEAD`.
    pub fn dirty(&self) -> Result<bool, GitError> {
        self.objects.with(history::dirty)
    }
}
