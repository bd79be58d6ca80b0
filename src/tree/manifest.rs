//! The manifest: what a tree holds, to the byte. Sorted by path, unique, no entry beneath a file or link.
//!
//! Two digests name it. The *tree* digest covers paths, modes, sizes, content and link targets: equal trees are equal code.
//! The *manifest* digest covers the modification times too: hosts that agree on it hold the same release.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Digest, TreePath};

/// The mode of a file that is not executable, of one that is, and of a directory. Other bits never travel.
pub const FILE: u32 = 0o644;
pub const EXECUTABLE: u32 = 0o755;
/// The same of what a build made for its owner alone.
pub const PRIVATE: u32 = 0o600;
pub const PRIVATE_EXECUTABLE: u32 = 0o700;
/// The most entries one tree may have; a wire length is checked against it before anything is allocated.
pub const MAX_ENTRIES: usize = 4_000_000;
/// The longest target of a symbolic link, in bytes (`PATH_MAX`).
pub const MAX_TARGET: usize = 4096;

/// What one path of a tree is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    File {
        mode: u32,
        size: u64,
        digest: Digest,
        /// Seconds since 1970. Kept while the content is the same as in the manifest it was compared with.
        mtime: i64,
    },
    Link {
        target: Vec<u8>,
    },
    /// Listed only where nothing lies beneath it; other directories follow from their entries.
    Directory,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: TreePath,
    pub kind: Kind,
}

/// A checked, sorted list of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// Says why entries are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("{0} is listed twice")]
    Duplicate(TreePath),
    #[error("{0} is out of order")]
    Unsorted(TreePath),
    #[error("{path} lies beneath {ancestor}, which is not a directory")]
    BeneathFile { path: TreePath, ancestor: TreePath },
    #[error("{path} has the mode {mode:o}")]
    Mode { path: TreePath, mode: u32 },
    #[error("the target of the link {0} is empty, has a NUL or is too long")]
    Target(TreePath),
    #[error("a tree of more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("not a manifest: {0}")]
    Malformed(String),
    #[error("the difference does not fit the manifest it is for")]
    WrongBase,
}

/// What turns one manifest into another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Indices into the base of the entries that go or are replaced.
    pub removed: Vec<u32>,
    /// The new and replaced entries, sorted by path.
    pub added: Vec<Entry>,
}

impl Manifest {
    /// Sorts `entries` and checks them.
    ///
    /// # Errors
    /// Names the first entry that cannot be part of a tree.
    pub fn from_unsorted(mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self::new(entries)
    }

    /// Checks `entries`, which must be sorted by the bytes of their paths.
    ///
    /// # Errors
    /// Names the first entry that cannot be part of a tree.
    pub fn new(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if entries.len() > MAX_ENTRIES {
            return Err(ManifestError::TooMany);
        }
        for pair in entries.windows(2) {
            match pair[0].path.cmp(&pair[1].path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(ManifestError::Duplicate(pair[1].path.clone())),
                std::cmp::Ordering::Greater => return Err(ManifestError::Unsorted(pair[1].path.clone())),
            }
        }
        entries.iter().try_for_each(check_entry)?;
        check_ancestors(&entries)?;
        Ok(Self { entries })
    }

    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Finds what `path` is.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<&Kind> {
        self.entries.binary_search_by(|entry| entry.path.as_bytes().cmp(path)).ok().map(|at| &self.entries[at].kind)
    }

    /// Tells whether `path` is listed or is a directory that follows from the entries.
    #[must_use]
    pub fn holds(&self, path: &TreePath) -> bool {
        let at = self.entries.partition_point(|entry| entry.path < *path);
        self.entries.get(at).is_some_and(|entry| entry.path == *path)
            || self.entries[at..]
                .iter()
                .take_while(|entry| entry.path.as_bytes().starts_with(path.as_bytes()))
                .any(|entry| entry.path.is_beneath(path))
    }

    /// Counts files (links not included) and the bytes in them.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.entries.iter().fold((0, 0), |(files, bytes), entry| match &entry.kind {
            Kind::File { size, .. } => (files + 1, bytes + size),
            Kind::Link { .. } | Kind::Directory => (files, bytes),
        })
    }

    /// Names the code: everything but the modification times.
    #[must_use]
    pub fn tree_digest(&self) -> Digest {
        self.digest(false)
    }

    /// Names the release's files: modification times included.
    #[must_use]
    pub fn manifest_digest(&self) -> Digest {
        self.digest(true)
    }

    fn digest(&self, times: bool) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut line = Vec::with_capacity(256);
        for Entry { path, kind } in &self.entries {
            line.clear();
            let mut bytes = |bytes: &[u8]| {
                line.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                line.extend_from_slice(bytes);
            };
            bytes(path.as_bytes());
            match kind {
                Kind::File { mode, size, digest, mtime } => {
                    bytes(b"file");
                    line.extend_from_slice(&mode.to_le_bytes());
                    line.extend_from_slice(&size.to_le_bytes());
                    line.extend_from_slice(&digest.0);
                    if times {
                        line.extend_from_slice(&mtime.to_le_bytes());
                    }
                }
                Kind::Link { target } => {
                    bytes(b"link");
                    bytes(target);
                }
                Kind::Directory => bytes(b"directory"),
            }
            hasher.update(&line);
        }
        hasher.finalize().into()
    }

    /// Gives every file whose content and mode `base` has at the same path the time it has there.
    #[must_use]
    pub fn with_times_of(mut self, base: &Self) -> Self {
        let mut known = base.entries.iter().peekable();
        for entry in &mut self.entries {
            while known.next_if(|old| old.path < entry.path).is_some() {}
            let Some(old) = known.next_if(|old| old.path == entry.path) else { continue };
            if let (Kind::File { digest, mode, mtime, .. }, Kind::File { digest: before, mode: mode_before, mtime: time, .. }) =
                (&mut entry.kind, &old.kind)
                && digest == before
                && mode == mode_before
            {
                *mtime = *time;
            }
        }
        self
    }

    /// Finds what turns `base` into this manifest.
    #[must_use]
    pub fn delta_from(&self, base: &Self) -> Delta {
        let mut delta = Delta::default();
        let mut new = self.entries.iter().peekable();
        for (index, old) in (0_u32..).zip(&base.entries) {
            while let Some(entry) = new.next_if(|entry| entry.path < old.path) {
                delta.added.push(entry.clone());
            }
            match new.next_if(|entry| entry.path == old.path) {
                Some(entry) if entry == old => {}
                Some(entry) => {
                    delta.removed.push(index);
                    delta.added.push(entry.clone());
                }
                None => delta.removed.push(index),
            }
        }
        delta.added.extend(new.cloned());
        delta
    }

    /// Applies `delta` to this manifest.
    ///
    /// # Errors
    /// Says that the difference is for another manifest, or that the result is not a tree.
    pub fn apply(&self, delta: &Delta) -> Result<Self, ManifestError> {
        let mut keep = vec![true; self.entries.len()];
        for index in &delta.removed {
            let slot = usize::try_from(*index).ok().and_then(|index| keep.get_mut(index)).ok_or(ManifestError::WrongBase)?;
            *slot = false;
        }
        let kept = self.entries.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(entry, _)| entry.clone());
        let mut entries: Vec<Entry> = kept.chain(delta.added.iter().cloned()).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self::new(entries)
    }

    /// Maps each content digest to the index of a file that has it.
    #[must_use]
    pub fn by_digest(&self) -> HashMap<Digest, u32> {
        (0_u32..)
            .zip(&self.entries)
            .filter_map(|(index, entry)| match &entry.kind {
                Kind::File { digest, .. } => Some((*digest, index)),
                Kind::Link { .. } | Kind::Directory => None,
            })
            .collect()
    }

    /// Encodes the manifest for the wire and the disk (before compression).
    ///
    /// # Panics
    /// Never: a manifest is plain data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.entries).expect("a manifest is plain data")
    }

    /// Decodes and checks a manifest.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let entries = postcard::from_bytes(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        Self::new(entries)
    }
}

fn check_entry(entry: &Entry) -> Result<(), ManifestError> {
    match &entry.kind {
        Kind::File { mode: FILE | EXECUTABLE | PRIVATE | PRIVATE_EXECUTABLE, .. } | Kind::Directory => Ok(()),
        Kind::File { mode, .. } => Err(ManifestError::Mode { path: entry.path.clone(), mode: *mode }),
        Kind::Link { target } if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) => {
            Err(ManifestError::Target(entry.path.clone()))
        }
        Kind::Link { .. } => Ok(()),
    }
}

/// Refuses a path beneath a file, a link or a listed directory. Other names may sort between the two (`a`, `a-b`, `a/c`), hence the set.
fn check_ancestors(entries: &[Entry]) -> Result<(), ManifestError> {
    let listed: std::collections::HashSet<&[u8]> = entries.iter().map(|entry| entry.path.as_bytes()).collect();
    let mut parent_before: &[u8] = b"";
    for entry in entries {
        let (Some(parent), _) = entry.path.split() else { continue };
        if parent == parent_before {
            continue;
        }
        parent_before = parent;
        let bytes = entry.path.as_bytes();
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if listed.contains(&bytes[..at]) {
                let ancestor = TreePath::new(&bytes[..at]).expect("the start of a checked path, cut at a slash, is a path");
                return Err(ManifestError::BeneathFile { path: entry.path.clone(), ancestor });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, content: &str, mtime: i64) -> Entry {
        let kind = Kind::File { mode: FILE, size: content.len() as u64, digest: Digest::of(content.as_bytes()), mtime };
        Entry { path: TreePath::new(path).unwrap(), kind }
    }

    #[test]
    fn duplicates_disorder_and_entries_beneath_files_are_refused() {
        let (a, b) = (file("a", "1", 0), file("b", "2", 0));
        assert!(matches!(Manifest::new(vec![a.clone(), a.clone()]), Err(ManifestError::Duplicate(_))));
        assert!(matches!(Manifest::new(vec![b, a.clone()]), Err(ManifestError::Unsorted(_))));
        let nested = vec![a, file("a-b", "", 0), file("a/c", "", 0)];
        assert!(matches!(Manifest::new(nested), Err(ManifestError::BeneathFile { .. })));
    }

    #[test]
    fn a_file_that_did_not_change_keeps_its_time_and_a_changed_one_does_not() {
        let old = Manifest::new(vec![file("a", "same", 10), file("b", "old", 10)]).unwrap();
        let new = Manifest::new(vec![file("a", "same", 20), file("b", "new", 20)]).unwrap().with_times_of(&old);
        assert_eq!(new.entries()[0], file("a", "same", 10));
        assert_eq!(new.entries()[1], file("b", "new", 20));
    }

    #[test]
    fn directories_that_follow_from_entries_are_held() {
        let manifest = Manifest::new(vec![file("a-b", "", 0), file("a/c/d", "", 0)]).unwrap();
        for path in ["a", "a/c", "a/c/d", "a-b"] {
            assert!(manifest.holds(&TreePath::new(path).unwrap()), "{path}");
        }
        assert!(!manifest.holds(&TreePath::new("a/c/e").unwrap()));
    }

    fn manifests() -> impl Strategy<Value = Manifest> {
        proptest::collection::btree_map("[a-c]{1,2}", ("[xy]{0,2}", 0_i64..3), 0..12)
            .prop_map(|files| Manifest::new(files.iter().map(|(path, (content, mtime))| file(path, content, *mtime)).collect()).unwrap())
    }

    proptest! {
        #[test]
        fn a_difference_applied_to_its_base_gives_the_manifest(base in manifests(), new in manifests()) {
            prop_assert_eq!(base.apply(&new.delta_from(&base)).unwrap(), new.clone());
            prop_assert_eq!(Manifest::decode(&new.encode()).unwrap(), new);
        }

        #[test]
        fn bytes_that_are_no_manifest_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&bytes);
        }
    }
}
