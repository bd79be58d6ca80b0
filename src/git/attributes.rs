//! Which paths `git archive` leaves out, and whose content it converts: asked of git itself, over an index of the tree, because
//! its attribute rules (macros, precedence, patterns) are the standard. A tree that mentions no such attribute needs no process.

use std::collections::HashSet;

use git2::ObjectType;

use crate::tree::TreePath;

use super::command;
use super::error::GitError;
use super::isolated::Isolated;
use super::listing::{Item, Listing, Mode};
use super::objects::read;

/// The attributes that change what is exported. `text`, `eol=lf` and `crlf` do nothing where `core.eol` is `lf`; filters never run.
const IGNORE: &str = "export-ignore";
const CONVERT: [&str; 4] = ["export-subst", "ident", "working-tree-encoding", "eol"];
/// How each of them shows in a `.gitattributes`. Macros are defined there too, so nothing hides from a search for these.
const MENTIONS: [&[u8]; 5] = [b"export-ignore", b"export-subst", b"ident", b"working-tree-encoding", b"eol=crlf"];

/// Git ignores a `.gitattributes` of this size (`ATTR_MAX_FILE_SIZE`).
const LARGEST: usize = 100 * 1024 * 1024;

/// The paths that are not exported as they are.
#[derive(Debug, Default)]
pub struct Attributes {
    /// As bytes, so that a prefix of a path can be looked up.
    pub ignored: HashSet<Vec<u8>>,
    pub converted: HashSet<TreePath>,
}

/// Tells whether a `.gitattributes` of the tree mentions anything that matters here.
pub fn matter(odb: &git2::Odb<'_>, listing: &Listing) -> Result<bool, GitError> {
    for item in listing.items.iter().filter(|item| item.path.split().1 == b".gitattributes" && item.mode != Mode::Submodule) {
        if odb.read_header(item.id).is_ok_and(|(size, _)| size >= LARGEST) {
            continue;
        }
        let text = read(odb, item.id, ObjectType::Blob)?;
        if MENTIONS.iter().any(|word| text.windows(word.len()).any(|window| window == *word)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Asks git for the attributes of every path of the tree `treeish`, which `listing` lists.
pub fn find(isolated: &Isolated, treeish: &str, listing: &Listing) -> Result<Attributes, GitError> {
    command::output(isolated.call(["read-tree", "--end-of-options", treeish]), &isolated.work())?;
    let mut call = isolated.call(["check-attr", "--cached", "--stdin", "-z", IGNORE].into_iter().chain(CONVERT));
    for directory in &listing.directories {
        // A final slash is how `git archive` asks for a directory, and what patterns like `docs/` match.
        call.input.extend_from_slice(directory.as_bytes());
        call.input.extend_from_slice(b"/\0");
    }
    for item in &listing.items {
        call.input.extend_from_slice(item.path.as_bytes());
        call.input.push(0);
    }
    if call.input.is_empty() {
        return Ok(Attributes::default());
    }
    collect(&command::output(call, &isolated.work())?)
}

/// Reads `path NUL attribute NUL value NUL …`.
fn collect(output: &[u8]) -> Result<Attributes, GitError> {
    let mut found = Attributes::default();
    let fields: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    for field in fields.chunks_exact(3) {
        let (path, attribute, value) = (field[0], field[1], field[2]);
        if matches!(value, b"unspecified" | b"unset") {
            continue;
        }
        let path = || {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            TreePath::new(path).map_err(|why| GitError::Archive(format!("`git check-attr` named a path that {why}")))
        };
        match attribute {
            b"export-ignore" if value == b"set" => found.ignored.insert(path()?.as_bytes().to_vec()),
            b"eol" if value == b"crlf" => found.converted.insert(path()?),
            b"export-subst" | b"ident" | b"working-tree-encoding" => found.converted.insert(path()?),
            _ => false,
        };
    }
    Ok(found)
}

impl Attributes {
    /// Tells whether `path` itself is left out.
    pub fn ignores(&self, path: &TreePath) -> bool {
        self.ignored.contains(path.as_bytes())
    }

    /// Tells whether a directory above `path` is left out.
    pub fn ignores_above(&self, path: &TreePath) -> bool {
        !self.ignored.is_empty() && above(path.as_bytes()).any(|directory| self.ignored.contains(directory))
    }

    /// Tells whether the content of `item` goes through git's own conversion. Links never do.
    pub fn converts(&self, item: &Item) -> bool {
        matches!(item.mode, Mode::File | Mode::Executable) && self.converted.contains(&item.path)
    }
}

/// Yields the directories above `path`, from the top down.
pub fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}
