//! What the index keeps of one upstream: files under their digest, and pages. Everything appears whole, by one rename, or not at all.
//!
//! ```text
//! <directory>/<kind>-<digest of the upstream's url>/
//!   pages/<package>
//!   files/<package>/<digest>/<file name>
//!   tmp/
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::error::IndexError;
use super::hash::{Hash, Hasher};

/// The longest file name that every file system takes, less what an escape may add.
const LONGEST_NAME: usize = 200;
/// How old what a dead process left half-written must be before it is removed.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

pub struct Store {
    root: PathBuf,
    /// Files whose content was compared with their digest since this process began.
    verified: Mutex<HashSet<PathBuf>>,
}

/// A file that is being written.
pub struct Filling {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    size: u64,
    name: String,
    wanted: Hash,
    to: PathBuf,
}

impl Store {
    /// Opens the part of `directory` that belongs to one upstream, and makes it where it is missing.
    pub fn open(directory: &Path, kind: &str, upstream: &str) -> Result<Self, IndexError> {
        let digest = crate::tree::Digest::of(upstream.as_bytes()).to_string();
        let root = directory.join(format!("{kind}-{}", digest.get(..16).unwrap_or(&digest)));
        for part in ["pages", "files", "tmp"] {
            make(&root.join(part))?;
        }
        let owner = fs::metadata(&root).map_err(|error| IndexError::disk(&root, "read", &error))?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(IndexError::Foreign { path: root.display().to_string() });
        }
        let store = Self { root, verified: Mutex::default() };
        store.sweep();
        Ok(store)
    }

    /// Removes what a process that died left half-written. Young files may be another process's.
    fn sweep(&self) {
        for entry in fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|data| data.modified());
            let age = modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Finds a file by its digest. What is not the same as it was is removed.
    pub fn held(&self, package: &str, hash: &Hash, name: &str) -> Option<PathBuf> {
        let path = self.place(package, hash, name);
        if self.verified.lock().unwrap_or_else(PoisonError::into_inner).contains(&path) && path.is_file() {
            return Some(path);
        }
        let found = digest(&path, hash.hasher()).ok()?;
        if &found != hash {
            let _ = fs::remove_file(&path);
            return None;
        }
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        Some(path)
    }

    /// Names the files that are held of a package, with their digests.
    pub fn files(&self, package: &str) -> BTreeMap<String, Vec<Hash>> {
        let mut found: BTreeMap<String, Vec<Hash>> = BTreeMap::new();
        for entry in fs::read_dir(self.root.join("files").join(escaped(package))).into_iter().flatten().flatten() {
            let Some(hash) = entry.file_name().to_str().and_then(Hash::parse) else { continue };
            for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                if let Ok(name) = file.file_name().into_string() {
                    found.entry(name).or_default().push(hash.clone());
                }
            }
        }
        found
    }

    fn place(&self, package: &str, hash: &Hash, name: &str) -> PathBuf {
        self.root.join("files").join(escaped(package)).join(hash.to_string()).join(name)
    }

    /// Begins a file. Dropped before it is finished, it leaves nothing.
    pub fn begin(&self, package: &str, hash: &Hash, name: &str) -> Result<Filling, IndexError> {
        let to = self.place(package, hash, name);
        let file = self.temporary()?;
        Ok(Filling { file, hasher: hash.hasher(), size: 0, name: name.to_owned(), wanted: hash.clone(), to })
    }

    fn temporary(&self) -> Result<tempfile::NamedTempFile, IndexError> {
        let directory = self.root.join("tmp");
        tempfile::NamedTempFile::new_in(&directory).map_err(|error| IndexError::disk(&directory, "written", &error))
    }

    /// Reads what was kept of a page.
    pub fn page(&self, package: &str) -> Option<Vec<u8>> {
        fs::read(self.page_place(package)).ok()
    }

    /// Keeps a page in place of the one before.
    pub fn keep_page(&self, package: &str, bytes: &[u8]) -> Result<(), IndexError> {
        let to = self.page_place(package);
        let mut file = self.temporary()?;
        let written = file.write_all(bytes).and_then(|()| file.as_file().sync_all());
        written.map_err(|error| IndexError::disk(&to, "written", &error))?;
        file.persist(&to).map_err(|error| IndexError::disk(&to, "written", &error.error)).map(drop)
    }

    fn page_place(&self, package: &str) -> PathBuf {
        self.root.join("pages").join(escaped(package))
    }
}

impl Filling {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| IndexError::disk(&self.to, "written", &error))
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Publishes the file if it is what it must be.
    pub fn finish(self) -> Result<PathBuf, IndexError> {
        let got = self.hasher.finish();
        if got != self.wanted {
            return Err(IndexError::Poisoned { name: self.name, wanted: self.wanted.to_string(), got: got.to_string() });
        }
        let to = self.to;
        let failed = |error: &io::Error| IndexError::disk(&to, "written", error);
        let directory = to.parent().unwrap_or(&to);
        make(directory)?;
        self.file.as_file().sync_all().map_err(|error| failed(&error))?;
        self.file.persist(&to).map_err(|error| failed(&error.error))?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| failed(&error))?;
        Ok(to)
    }
}

fn make(directory: &Path) -> Result<(), IndexError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| IndexError::disk(directory, "made", &error))
}

fn digest(path: &Path, mut hasher: Hasher) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Tells whether a text can be a file's name here and in a URL without any surprise.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"/\\?#%<>\"'`&".contains(c);
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('.') && name.chars().all(plain)
}

/// A package's name as one component of a path: a scope has a slash in it.
fn escaped(package: &str) -> String {
    package.replace('%', "%25").replace('/', "%2f")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::hash::Kind;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "pypi", "https://example.net/simple/").unwrap();
        let hash = Hash::from_hex(Kind::Sha256, ABC).unwrap();
        let mut filling = store.begin("a", &hash, "a-1.whl").unwrap();
        filling.write(b"ab").unwrap();
        drop(filling);
        let mut filling = store.begin("a", &hash, "a-1.whl").unwrap();
        filling.write(b"ab").unwrap();
        assert!(matches!(filling.finish(), Err(IndexError::Poisoned { .. })));
        assert_eq!((store.held("a", &hash, "a-1.whl"), store.files("a").len()), (None, 0));
        let mut filling = store.begin("a", &hash, "a-1.whl").unwrap();
        filling.write(b"abc").unwrap();
        let path = filling.finish().unwrap();
        assert_eq!(store.held("a", &hash, "a-1.whl"), Some(path));
        assert_eq!(store.files("a").into_keys().collect::<Vec<_>>(), ["a-1.whl"]);
        assert_eq!(fs::read_dir(store.root.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_changed_on_the_disk_is_not_served_again() {
        let directory = tempfile::tempdir().unwrap();
        let hash = Hash::from_hex(Kind::Sha256, ABC).unwrap();
        let path = {
            let store = Store::open(directory.path(), "pypi", "u").unwrap();
            let mut filling = store.begin("a", &hash, "a-1.whl").unwrap();
            filling.write(b"abc").unwrap();
            filling.finish().unwrap()
        };
        fs::write(&path, b"abd").unwrap();
        let store = Store::open(directory.path(), "pypi", "u").unwrap();
        assert_eq!(store.held("a", &hash, "a-1.whl"), None);
        assert!(!path.exists());
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "a b", "a?b", "a#b", "a%2fb", "<a>", &"a".repeat(300)] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["a-1.0-py3-none-any.whl", "a-1!2.0+local.tar.gz", "a_b.zip", "näme.tgz"] {
            assert!(is_name(name), "{name}");
        }
    }
}
