//! Throw-away git repositories, made with the system's git and none of the user's settings.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deployer::config::environment::Source;
use deployer::git::{Artifact, ExportOptions, GitError, Repository, Revision};
use deployer::tree::Kind;
use deployer::tree::path::Shown;
use tempfile::TempDir;

/// A repository with a work tree, and a cache for the exports from it.
pub struct Scratch {
    pub directory: TempDir,
    pub cache: TempDir,
}

/// One leaf of a tree, in a form that `tar x` and a manifest share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    File { executable: bool, content: Vec<u8> },
    Link(Vec<u8>),
    EmptyDirectory,
}

pub type Tree = BTreeMap<Vec<u8>, Leaf>;

impl Scratch {
    pub fn new() -> Self {
        let scratch = Self { directory: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
        scratch.git(["init", "-q", "-b", "master"]);
        scratch
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        String::from_utf8(git_in(self.path(), arguments, b"")).unwrap().trim().to_owned()
    }

    pub fn git_with<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: &[u8]) -> String {
        String::from_utf8(git_in(self.path(), arguments, input)).unwrap().trim().to_owned()
    }

    pub fn write(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
        let path = self.path().join(OsStr::from_bytes(path.as_ref()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn make_executable(&self, path: impl AsRef<[u8]>) {
        fs::set_permissions(self.path().join(OsStr::from_bytes(path.as_ref())), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Commits the work tree to the byte: attributes on the way in would hide what they do on the way out.
    pub fn commit(&self, message: &str) -> String {
        let mut index = Vec::new();
        let mut blobs: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        let mut leaves = Tree::new();
        read_directory(self.path(), Path::new(""), &mut leaves);
        for (path, leaf) in leaves {
            let (mode, content) = match leaf {
                Leaf::File { executable, content } => (if executable { "100755" } else { "100644" }, content),
                Leaf::Link(target) => ("120000", target),
                Leaf::EmptyDirectory => continue,
            };
            let id = blobs.entry(content).or_insert_with_key(|content| self.blob(content)).clone();
            index.extend_from_slice(format!("{mode} {id}\t").as_bytes());
            index.extend_from_slice(&path);
            index.push(0);
        }
        self.git(["read-tree", "--empty"]);
        self.git_with(["update-index", "-z", "--index-info"], &index);
        self.git(["commit", "-q", "--allow-empty", "-m", message]);
        self.git(["rev-parse", "HEAD"])
    }

    /// Makes a tree object of raw entries, however malformed, and a commit of it.
    pub fn commit_raw_tree(&self, entries: &[(&str, &[u8], &str)]) -> (String, String) {
        let mut raw = Vec::new();
        for (mode, name, id) in entries {
            raw.extend_from_slice(mode.as_bytes());
            raw.push(b' ');
            raw.extend_from_slice(name);
            raw.push(0);
            raw.extend((0..20).map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap()));
        }
        let tree = self.git_with(["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], &raw);
        let commit = self.git(["commit-tree", "-m", "raw", &tree]);
        (tree, commit)
    }

    pub fn blob(&self, content: &[u8]) -> String {
        self.git_with(["hash-object", "-w", "--stdin", "--no-filters"], content)
    }

    pub fn open(&self) -> Repository {
        self.open_as(self.path().to_str().unwrap()).unwrap()
    }

    pub fn open_as(&self, source: &str) -> Result<Repository, GitError> {
        let source = Source { git: source.to_owned(), path: None, submodules: false, lfs: false };
        deployer::git::open(&source, self.path(), self.cache.path(), &|_| {})
    }

    pub fn export(&self, rev: &str) -> Artifact {
        self.try_export(rev, &ExportOptions::default()).unwrap()
    }

    pub fn try_export(&self, rev: &str, options: &ExportOptions) -> Result<Artifact, GitError> {
        let repository = self.open();
        let revision = repository.resolve(rev)?;
        repository.export(&revision, options, self.cache.path())
    }

    pub fn resolve(&self, rev: &str) -> Result<Revision, GitError> {
        self.open().resolve(rev)
    }

    /// What `git archive` gives, in the form that DESIGN names as the standard.
    pub fn archive(&self, treeish: &str) -> Tree {
        self.archive_with(&["-c", "core.eol=lf"], treeish)
    }

    pub fn archive_with(&self, options: &[&str], treeish: &str) -> Tree {
        let arguments = ["--no-replace-objects", "-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null"];
        let tar = git_in(self.path(), arguments.iter().chain(options).chain(&["archive", treeish]), b"");
        let target = tempfile::tempdir().unwrap();
        feed(Command::new("tar").arg("x").current_dir(target.path()), &tar);
        let mut tree = Tree::new();
        read_directory(target.path(), Path::new(""), &mut tree);
        tree
    }
}

/// Reads an artifact as a tree, and checks every digest and size on the way.
pub fn tree_of(artifact: &Artifact) -> Tree {
    let mut tree = Tree::new();
    for (index, entry) in (0..).zip(artifact.manifest.entries()) {
        let mut content = Vec::new();
        artifact.contents.open(index).unwrap().read_to_end(&mut content).unwrap();
        let leaf = match &entry.kind {
            Kind::File { mode, size, digest, .. } => {
                assert_eq!((*size, *digest), (content.len() as u64, deployer::tree::Digest::of(&content)), "{}", entry.path);
                Leaf::File { executable: *mode == 0o755, content }
            }
            Kind::Link { target } => Leaf::Link(target.clone()),
            Kind::Directory => Leaf::EmptyDirectory,
        };
        tree.insert(entry.path.as_bytes().to_vec(), leaf);
    }
    tree
}

/// Compares two trees and names the first path that differs: whole trees are no message.
pub fn same(left: &Tree, right: &Tree) {
    for path in left.keys().chain(right.keys()) {
        assert_eq!(left.get(path), right.get(path), "{}", Shown(path));
    }
}

pub fn read_directory(root: &Path, below: &Path, into: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if path == Path::new(".git") {
            continue;
        }
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let leaf = if metadata.is_symlink() {
            Leaf::Link(fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec())
        } else if metadata.is_dir() {
            if fs::read_dir(&full).unwrap().next().is_some() {
                read_directory(root, &path, into);
                continue;
            }
            Leaf::EmptyDirectory
        } else {
            Leaf::File { executable: metadata.permissions().mode() & 0o100 != 0, content: fs::read(&full).unwrap() }
        };
        into.insert(path.as_os_str().as_bytes().to_vec(), leaf);
    }
}

pub fn git_in<S: AsRef<OsStr>>(directory: &Path, arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"GIT_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(directory);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.net"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.net"),
        ("GIT_AUTHOR_DATE", "1700000000 +0100"),
        ("GIT_COMMITTER_DATE", "1700000000 +0100"),
    ] {
        command.env(name, value);
    }
    feed(&mut command, input)
}

fn feed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Clones `from`, as a colleague would.
pub fn clone(from: &Path, options: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", from.display());
    git_in(directory.path(), ["clone", "-q"].iter().chain(options).chain(&[url.as_str(), "clone"]), b"");
    let path = directory.path().join("clone");
    (directory, path)
}
