//! The store on real files. A `Host` is a root in a temporary directory; a tree is a list of paths with what is there.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside, as a neighbour would")]

mod capture;
mod link;
mod prune;
mod seal;
mod spare;
mod transfer;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::stored::Proof;
use super::*;
use crate::op::{Begin, Begun, CacheLink, Content, DifferenceKind, Links, ManifestSource, Written};
use crate::release::NewRelease;
use crate::tree::manifest::{EXECUTABLE, FILE};
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};

const COMMIT: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f9001020304";

#[derive(Clone, Debug)]
enum What {
    File(Vec<u8>, u32),
    Link(&'static str),
    Directory,
}

type Tree = BTreeMap<Vec<u8>, What>;

fn tree(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, content)| (path.as_bytes().to_vec(), What::File(content.as_bytes().to_vec(), FILE))).collect()
}

fn manifest_of(tree: &Tree) -> Manifest {
    let entries = tree.iter().map(|(path, what)| {
        let kind = match what {
            What::File(content, mode) => {
                Kind::File { mode: *mode, size: content.len() as u64, digest: Digest::of(content), mtime: 1_700_000_000 }
            }
            What::Link(target) => Kind::Link { target: target.as_bytes().to_vec() },
            What::Directory => Kind::Directory,
        };
        Entry { path: TreePath::new(path.clone()).unwrap(), kind }
    });
    Manifest::from_unsorted(entries.collect()).unwrap()
}

struct Host {
    dir: TempDir,
    root: Root,
    memory: Memory,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path().to_str().unwrap()).unwrap();
        root.ensure_control().unwrap();
        Self { dir, root, memory: Memory::default() }
    }

    fn path(&self, rel: impl AsRef<[u8]>) -> PathBuf {
        self.dir.path().join(std::ffi::OsStr::from_bytes(rel.as_ref()))
    }

    fn in_release(&self, name: &str, rel: &str) -> PathBuf {
        self.path(format!("releases/{name}/{rel}"))
    }

    fn begin(&self, name: &str, tree: &Tree) -> Result<Begun, Failure> {
        let encoded = manifest_of(tree).encode();
        let request = Begin { release: release(name, tree), source: ManifestSource::Whole { size: encoded.len() as u64 }, group: None };
        super::begin(&self.root, &self.memory, &request, None, &*zstd::encode_all(&*encoded, 1).unwrap())
    }

    fn send(&self, name: &str, tree: &Tree, missing: &[(u32, u32)]) -> Result<Written, Failure> {
        let bytes = stream(tree, missing);
        self.send_bytes(name, bytes.len(), &bytes)
    }

    fn send_bytes(&self, name: &str, size: usize, bytes: &[u8]) -> Result<Written, Failure> {
        let request = Content { release: id(name), size: size as u64 };
        super::content(&self.root, &self.memory, &request, &*zstd::encode_all(bytes, 1).unwrap(), &|_| {})
    }

    fn push(&self, name: &str, tree: &Tree) -> Begun {
        let begun = self.begin(name, tree).unwrap();
        if !begun.missing.is_empty() {
            assert_eq!(self.send(name, tree, &begun.missing).unwrap().missing, []);
        }
        begun
    }

    fn deploy(&self, name: &str, tree: &Tree) -> Begun {
        let begun = self.push(name, tree);
        seal(&self.root, &self.memory, &id(name), false).unwrap();
        begun
    }

    fn state(&self, name: &str) -> State {
        record(&self.root, &id(name)).unwrap().state
    }

    fn set(&self, name: &str, change: impl FnOnce(&mut Record)) {
        let mut record = record(&self.root, &id(name)).unwrap();
        change(&mut record);
        write_record(&self.root, &record).unwrap();
    }

    fn differences(&self, name: &str) -> Vec<(String, DifferenceKind)> {
        let (differences, _) = verify(&self.root, &id(name)).unwrap();
        differences.into_iter().map(|found| (String::from_utf8(found.path).unwrap(), found.kind)).collect()
    }

    fn names(&self, rel: &str) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(self.path(rel)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn id(name: &str) -> ReleaseId {
    name.parse().unwrap()
}

fn release(name: &str, tree: &Tree) -> NewRelease {
    let manifest = manifest_of(tree);
    NewRelease {
        id: id(name),
        project: "boskel".into(),
        environment: "staging".into(),
        commit: Some(COMMIT.into()),
        reference: None,
        tree: manifest.tree_digest(),
        manifest: manifest.manifest_digest(),
        build_key: Digest::of(b""),
        run: "run".into(),
        by: "ada@laptop".into(),
        created: 0,
        origin: None,
    }
}

fn stream(tree: &Tree, missing: &[(u32, u32)]) -> Vec<u8> {
    let manifest = manifest_of(tree);
    let mut bytes = Vec::new();
    for index in missing.iter().flat_map(|(first, count)| *first..first + count) {
        let path = manifest.entries()[index as usize].path.as_bytes();
        let What::File(content, _) = &tree[path] else { panic!("only files are missing") };
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

fn links(name: &str, directories: &[&str], files: &[&str]) -> Links {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    Links { release: id(name), directories: owned(directories), files: owned(files), cache: None, replace: false }
}

/// Content that no other name has.
fn large(seed: u8, size: usize) -> String {
    (0..size).map(|at| char::from(b"abcdefghijklmnopqrstuvwxyz"[(at / 7 + at % 11 + usize::from(seed)) % 26])).collect()
}
