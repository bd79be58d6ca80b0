//! Lists a tree of git's, validated: git itself passes malformed trees on (only `fsck` complains), so whoever reads them checks.

use std::collections::HashSet;

use git2::{ObjectType, Oid};

use crate::tree::TreePath;
use crate::tree::manifest::MAX_ENTRIES;
use crate::tree::path::PathError;

use super::error::GitError;
use super::objects::read;

/// The type of an entry. Rights other than the owner's `x` never travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    File,
    Executable,
    Link,
    Submodule,
}

/// What an entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Tree,
    Leaf(Mode),
}

/// One leaf of the tree.
#[derive(Clone, Debug)]
pub struct Item {
    pub path: TreePath,
    pub mode: Mode,
    pub id: Oid,
}

/// Everything beneath one tree, in the order of the walk.
#[derive(Debug, Default)]
pub struct Listing {
    pub items: Vec<Item>,
    pub directories: Vec<TreePath>,
}

/// Says what is wrong with a tree object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeFault {
    #[error("is cut short or has a malformed entry")]
    Malformed,
    #[error("has an entry whose name holds a slash: `{0}`")]
    Slash(String),
    #[error("has the entry `{name}`: {why}")]
    Path { name: String, why: PathError },
    #[error("has the entry `{0}` twice")]
    Duplicate(String),
    #[error("has its entries out of order at `{0}`")]
    Unsorted(String),
    #[error("gives `{name}` the unknown mode {mode:o}")]
    Mode { name: String, mode: u32 },
    #[error("leads to more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// Lists what lies beneath the tree `root`.
pub fn list(odb: &git2::Odb<'_>, root: Oid) -> Result<Listing, GitError> {
    let mut listing = Listing::default();
    let mut waiting: Vec<(Vec<u8>, Oid)> = vec![(Vec::new(), root)];
    while let Some((prefix, tree)) = waiting.pop() {
        let object = read(odb, tree, ObjectType::Tree)?;
        let fault = |fault| GitError::Tree { id: tree, fault };
        let mut order = Order::default();
        let mut rest = object.as_slice();
        while !rest.is_empty() {
            let raw = next(&mut rest).ok_or_else(|| fault(TreeFault::Malformed))?;
            order.check(&raw).map_err(fault)?;
            let path = join(&prefix, raw.name).map_err(|why| fault(TreeFault::Path { name: shown(raw.name), why }))?;
            match kind(raw.mode).ok_or_else(|| fault(TreeFault::Mode { name: shown(raw.name), mode: raw.mode }))? {
                Type::Tree => {
                    waiting.push(([path.as_bytes(), b"/"].concat(), raw.id));
                    listing.directories.push(path);
                }
                Type::Leaf(mode) => listing.items.push(Item { path, mode, id: raw.id }),
            }
            if listing.items.len() + listing.directories.len() > MAX_ENTRIES {
                return Err(fault(TreeFault::TooMany));
            }
        }
    }
    Ok(listing)
}

/// Finds the tree that lies at `path` beneath the tree `root`.
pub fn descend(odb: &git2::Odb<'_>, root: Oid, path: &TreePath) -> Result<Option<Oid>, GitError> {
    let mut tree = root;
    for name in path.components() {
        let object = read(odb, tree, ObjectType::Tree)?;
        let mut rest = object.as_slice();
        let mut found = None;
        while let Some(raw) = next(&mut rest) {
            if raw.name == name && kind(raw.mode) == Some(Type::Tree) {
                found = Some(raw.id);
            }
        }
        match found {
            Some(id) => tree = id,
            None => return Ok(None),
        }
    }
    Ok(Some(tree))
}

struct Raw<'a> {
    mode: u32,
    name: &'a [u8],
    id: Oid,
}

/// Takes one entry, `mode SP name NUL id`, off `rest`.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Raw<'a>> {
    let space = rest.iter().position(|byte| *byte == b' ').filter(|at| (1..=7).contains(at))?;
    let mode = u32::from_str_radix(std::str::from_utf8(&rest[..space]).ok()?, 8).ok()?;
    let after = &rest[space + 1..];
    let nul = after.iter().position(|byte| *byte == 0)?;
    let (name, after) = (&after[..nul], &after[nul + 1..]);
    let (id, after) = after.split_at_checked(20)?;
    *rest = after;
    Some(Raw { mode, name, id: Oid::from_bytes(id).ok()? })
}

/// Reads the type of a mode. Old rights such as 0100664 are normalised.
fn kind(mode: u32) -> Option<Type> {
    match mode & !0o7777 {
        0o040_000 => Some(Type::Tree),
        0o100_000 if mode & 0o100 == 0 => Some(Type::Leaf(Mode::File)),
        0o100_000 => Some(Type::Leaf(Mode::Executable)),
        0o120_000 => Some(Type::Leaf(Mode::Link)),
        0o160_000 => Some(Type::Leaf(Mode::Submodule)),
        _ => None,
    }
}

fn join(prefix: &[u8], name: &[u8]) -> Result<TreePath, PathError> {
    if name.is_empty() {
        return Err(PathError::EmptyComponent);
    }
    TreePath::new([prefix, name].concat())
}

fn shown(name: &[u8]) -> String {
    crate::tree::path::Shown(name).to_string()
}

/// The order git keeps: by bytes, a directory as if its name ended in a slash. A name that is a file and a directory need not be adjacent.
#[derive(Default)]
struct Order<'a> {
    before: Option<(&'a [u8], bool)>,
    names: HashSet<&'a [u8]>,
}

impl<'a> Order<'a> {
    fn check(&mut self, raw: &Raw<'a>) -> Result<(), TreeFault> {
        let directory = kind(raw.mode) == Some(Type::Tree);
        if raw.name.contains(&b'/') {
            return Err(TreeFault::Slash(shown(raw.name)));
        }
        if !self.names.insert(raw.name) {
            return Err(TreeFault::Duplicate(shown(raw.name)));
        }
        let key = |name: &'a [u8], directory: bool| name.iter().copied().chain(directory.then_some(b'/'));
        if let Some((name, was_directory)) = self.before
            && key(name, was_directory).ge(key(raw.name, directory))
        {
            return Err(TreeFault::Unsorted(shown(raw.name)));
        }
        self.before = Some((raw.name, directory));
        Ok(())
    }
}
