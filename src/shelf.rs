//! What this machine keeps for the download caches of hosts: contents by their digest, and which files each set consists of.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::git::{Artifact, Content, ContentSource, Contents};
use crate::tree::manifest::ManifestError;
use crate::tree::path::PathError;
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};

/// The format of a set's record.
const FORMAT: u32 = 1;

/// The shelf of this user, below the cache directory.
#[derive(Clone, Debug)]
pub struct Shelf {
    directory: PathBuf,
}

/// All files that builds of some revisions need, and where that is known from.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    pub key: Digest,
    pub files: Manifest,
    /// None where only the list is known, from a host.
    pub about: Option<About>,
    /// What each kind of host needs of it, as far as that is known.
    pub parts: Vec<Part>,
}

/// The files of a set that one kind of host needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `x86_64-linux`.
    pub platform: String,
    /// `CPython 3.11 (x86_64, glibc 2.36)`; none where the files do not depend on one.
    pub python: Option<String>,
    /// The host that filled it.
    pub on: String,
    /// A build on a host of this kind passed with nothing but these files.
    #[serde(default)]
    pub proven: bool,
    pub files: Vec<String>,
}

/// How a set came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub project: String,
    pub recipe: String,
    pub commit: String,
    /// What the files were chosen for: `x86_64-linux`.
    pub platform: String,
    /// Seconds since 1970.
    pub filled: i64,
    pub by: String,
    /// The host that filled it.
    pub on: String,
    /// A build with nothing but these files passed, without network.
    pub proven: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    key: Digest,
    about: Option<About>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part>,
    files: Vec<Listed>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    path: String,
    mode: u32,
    size: u64,
    digest: Digest,
    mtime: i64,
}

/// Says why a record or a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error("`{}` cannot be used", path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{path}` did not arrive as it is: its digest is not {digest}")]
    Corrupt { path: TreePath, digest: Digest },
    #[error("the record of a set cannot be read")]
    Record(#[from] serde_json::Error),
    #[error("the record of a set is of format {0}, where {FORMAT} is the newest known")]
    Newer(u32),
    #[error("the record of a set names what is no file of a cache: {0}")]
    Path(#[from] PathError),
    #[error("the record of a set is no list: {0}")]
    List(#[from] ManifestError),
    #[error("a set holds only files, and `{0}` is none")]
    NotFile(TreePath),
}

impl Part {
    /// Whether both are for the same kind of host.
    #[must_use]
    pub fn is_for(&self, other: &Self) -> bool {
        (&self.platform, &self.python) == (&other.platform, &other.python)
    }
}

impl Set {
    /// Adds what `older` knows that hosts of other kinds need. A file that both have is the newer one.
    pub fn beside(mut self, older: &Self) -> Result<Self, ShelfError> {
        let others: Vec<Part> = older.parts.iter().filter(|part| !self.parts.iter().any(|own| own.is_for(part))).cloned().collect();
        let named = |entry: &Entry| others.iter().flat_map(|part| &part.files).any(|file| file.as_bytes() == entry.path.as_bytes());
        let mut entries = self.files.entries().to_vec();
        let own: HashSet<&[u8]> = self.files.entries().iter().map(|entry| entry.path.as_bytes()).collect();
        entries.extend(older.files.entries().iter().filter(|entry| named(entry) && !own.contains(entry.path.as_bytes())).cloned());
        self.files = Manifest::from_unsorted(entries)?;
        self.parts.extend(others);
        Ok(self)
    }

    /// Writes the record.
    pub fn encode(&self) -> Result<Vec<u8>, ShelfError> {
        let mut files = Vec::with_capacity(self.files.entries().len());
        for Entry { path, kind } in self.files.entries() {
            let Kind::File { mode, size, digest, mtime } = kind else { return Err(ShelfError::NotFile(path.clone())) };
            let text = String::from_utf8(path.as_bytes().to_vec()).map_err(|_| ShelfError::NotFile(path.clone()))?;
            files.push(Listed { path: text, mode: *mode, size: *size, digest: *digest, mtime: *mtime });
        }
        Ok(serde_json::to_vec_pretty(&Record {
            format: FORMAT,
            key: self.key,
            about: self.about.clone(),
            parts: self.parts.clone(),
            files,
        })?)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShelfError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_slice(bytes)?;
        if format > FORMAT {
            return Err(ShelfError::Newer(format));
        }
        let record: Record = serde_json::from_slice(bytes)?;
        let entry = |file: Listed| {
            let kind = Kind::File { mode: file.mode, size: file.size, digest: file.digest, mtime: file.mtime };
            Ok::<_, ShelfError>(Entry { path: TreePath::new(file.path.into_bytes())?, kind })
        };
        let files = Manifest::from_unsorted(record.files.into_iter().map(entry).collect::<Result<_, _>>()?)?;
        Ok(Self { key: record.key, files, about: record.about, parts: record.parts })
    }
}

impl Shelf {
    #[must_use]
    pub fn at(cache: &Path) -> Self {
        Self { directory: cache.join("shelf") }
    }

    /// Finds a set; none where it is not known here, or cannot be read.
    #[must_use]
    pub fn set(&self, key: Digest) -> Option<Set> {
        let set = Set::decode(&fs::read(self.set_path(key)).ok()?).ok()?;
        (set.key == key).then_some(set)
    }

    /// Keeps a set's record. Its contents are kept before it.
    pub fn keep(&self, set: &Set) -> Result<(), ShelfError> {
        let path = self.set_path(set.key);
        let bytes = set.encode()?;
        self.write(&path, |file| file.write_all(&bytes)).map_err(|error| ShelfError::Io { path, error })
    }

    /// Tells whether the content of a file is here.
    #[must_use]
    pub fn holds(&self, kind: &Kind) -> bool {
        match kind {
            Kind::File { size, digest, .. } => fs::metadata(self.content_path(*digest)).is_ok_and(|found| found.len() == *size),
            Kind::Link { .. } | Kind::Directory => true,
        }
    }

    /// Keeps the content of one file, as soon as it turned out to be that.
    pub fn take(&self, entry: &Entry, content: &mut dyn Read) -> Result<(), ShelfError> {
        let Kind::File { size, digest, .. } = &entry.kind else { return Err(ShelfError::NotFile(entry.path.clone())) };
        let path = self.content_path(*digest);
        let mut hasher = blake3::Hasher::new();
        let mut content = content.take(*size);
        let written = self.write(&path, |file| {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match content.read(&mut buffer)? {
                    0 => break,
                    count => {
                        hasher.update(&buffer[..count]);
                        file.write_all(&buffer[..count])?;
                    }
                }
            }
            if Digest::from(hasher.finalize()) == *digest { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
        });
        written.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ShelfError::Corrupt { path: entry.path.clone(), digest: *digest },
            _ => ShelfError::Io { path, error },
        })
    }

    /// Opens the content of a file to read it.
    pub fn open(&self, digest: Digest) -> Result<File, ShelfError> {
        let path = self.content_path(digest);
        File::open(&path).map_err(|error| ShelfError::Io { path, error })
    }

    /// The files of a list, ready to be sent: those that are here.
    #[must_use]
    pub fn artifact(&self, files: &Manifest) -> Artifact {
        let content = |entry: &Entry| match &entry.kind {
            Kind::File { size, digest, .. } => {
                Content { size: *size, digest: *digest, source: ContentSource::File(self.content_path(*digest)) }
            }
            Kind::Link { .. } | Kind::Directory => Content { size: 0, digest: Digest([0; 32]), source: ContentSource::Nothing },
        };
        let contents = files.entries().iter().map(content).collect();
        Artifact { manifest: files.clone(), contents: Contents::new(contents, Vec::new(), Vec::new()), warnings: Vec::new() }
    }

    fn set_path(&self, key: Digest) -> PathBuf {
        self.directory.join("sets").join(format!("{key}.json"))
    }

    fn content_path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.directory.join("content").join(&name[..2]).join(name)
    }

    /// Writes a file aside, and names it when it is whole.
    fn write(&self, path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(&self.directory))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        write(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &[u8]) -> Entry {
        let kind = Kind::File { mode: 0o644, size: content.len() as u64, digest: Digest::of(content), mtime: 7 };
        Entry { path: TreePath::new(path.as_bytes()).unwrap(), kind }
    }

    #[test]
    fn content_that_is_not_what_was_listed_gets_no_place() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(directory.path());
        let wanted = entry("dist/a.whl", b"wheel");
        for content in [&b"wheem"[..], b"whee", b""] {
            assert!(matches!(shelf.take(&wanted, &mut &*content), Err(ShelfError::Corrupt { .. })), "{content:?}");
            assert!(!shelf.holds(&wanted.kind));
        }
        shelf.take(&wanted, &mut &b"wheel"[..]).unwrap();
        assert!(shelf.holds(&wanted.kind));
    }

    #[test]
    fn a_set_is_kept_and_found_again_and_a_newer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(directory.path());
        let about = About {
            project: "boskel".into(),
            recipe: "pip".into(),
            commit: "a1b2".into(),
            platform: "x86_64-linux".into(),
            filled: 1,
            by: "ada".into(),
            on: "app1".into(),
            proven: true,
        };
        let files = Manifest::from_unsorted(vec![entry("dist/b.whl", b"b"), entry("dist/a.whl", b"a")]).unwrap();
        let set = Set { key: Digest::of(b"key"), files, about: Some(about), parts: Vec::new() };
        shelf.keep(&set).unwrap();
        assert_eq!(shelf.set(set.key), Some(set.clone()));
        let newer = String::from_utf8(set.encode().unwrap()).unwrap().replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(Set::decode(newer.as_bytes()), Err(ShelfError::Newer(2))));
    }

    #[test]
    fn what_hosts_of_another_kind_need_stays_and_what_this_kind_needed_before_goes() {
        let part = |minor: u32, files: &[&str]| Part {
            platform: "x86_64-linux".into(),
            python: Some(format!("CPython 3.{minor}")),
            on: format!("app{minor}"),
            proven: true,
            files: files.iter().map(|file| (*file).to_owned()).collect(),
        };
        let set = |minor: u32, files: &[(&str, &[u8])]| Set {
            key: Digest::of(b"key"),
            files: Manifest::from_unsorted(files.iter().map(|(path, content)| entry(path, content)).collect()).unwrap(),
            about: None,
            parts: vec![part(minor, &files.iter().map(|(path, _)| *path).collect::<Vec<_>>())],
        };
        let names = |set: &Set| set.files.entries().iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>();
        let old = set(9, &[("a-cp39.whl", b"9"), ("b.whl", b"old")]);
        let both = set(11, &[("a-cp311.whl", b"11"), ("b.whl", b"new")]).beside(&old).unwrap();
        assert_eq!(names(&both), ["a-cp311.whl", "a-cp39.whl", "b.whl"]);
        assert_eq!(both.files.entries()[2], entry("b.whl", b"new"));
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(directory.path());
        shelf.keep(&both).unwrap();
        assert_eq!(shelf.set(both.key), Some(both.clone()));
        let again = set(11, &[("c-cp311.whl", b"c")]).beside(&both).unwrap();
        assert_eq!(names(&again), ["a-cp39.whl", "b.whl", "c-cp311.whl"]);
        assert_eq!(again.parts.len(), 2);
        // Whatever is of no known kind is not kept.
        assert_eq!(names(&set(11, &[("c", b"c")]).beside(&Set { parts: Vec::new(), ..both }).unwrap()), ["c"]);
    }
}
