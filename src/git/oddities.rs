//! What is legal in a tree and still worth a warning: names that fold into one elsewhere, and links that lead out of the tree.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::tree::{Kind, Manifest, TreePath};

/// Names that are listed in one warning.
const NAMED: usize = 5;

/// Finds what to warn of, a sentence each.
pub fn find(manifest: &Manifest) -> Vec<String> {
    let mut warnings = Vec::new();
    let collisions = collisions(manifest);
    if !collisions.is_empty() {
        let pairs = collisions.iter().map(|(one, other)| format!("`{one}` and `{other}`"));
        warnings.push(format!("names that are one on a file system that folds case or Unicode forms: {}", named(pairs, collisions.len())));
    }
    let leaving: Vec<&TreePath> = manifest
        .entries()
        .iter()
        .filter(|entry| matches!(&entry.kind, Kind::Link { target } if leaves(&entry.path, target)))
        .map(|entry| &entry.path)
        .collect();
    if !leaving.is_empty() {
        warnings.push(format!("links that lead out of the tree: {}", named(leaving.iter().map(|path| format!("`{path}`")), leaving.len())));
    }
    warnings
}

fn named(names: impl Iterator<Item = String>, count: usize) -> String {
    let shown = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if count > NAMED { format!("{shown} (and {} more)", count - NAMED) } else { shown }
}

/// Tells whether the target of the link at `path` is absolute or climbs above the top. Judged by the words alone: nothing is followed.
fn leaves(path: &TreePath, target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return true;
    }
    let mut depth = path.components().count() - 1;
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// Finds pairs of different paths (files, links or directories) that fold into one.
fn collisions(manifest: &Manifest) -> Vec<(TreePath, TreePath)> {
    let mut seen: HashMap<String, &[u8]> = HashMap::new();
    let mut found = Vec::new();
    let mut before: &[u8] = b"";
    for entry in manifest.entries() {
        let bytes = entry.path.as_bytes();
        // Directories the previous entry lies in too have been looked at.
        let common = bytes.iter().zip(before).take_while(|(a, b)| a == b).count();
        let ends = bytes.iter().enumerate().skip(common).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([bytes.len()]) {
            let path = &bytes[..end];
            let Ok(text) = std::str::from_utf8(path) else { continue };
            match seen.insert(fold(text), path) {
                Some(other) if other != path => {
                    let both = (TreePath::new(other), TreePath::new(path));
                    found.extend(both.0.ok().zip(both.1.ok()));
                }
                Some(_) | None => {}
            }
        }
        before = bytes;
    }
    found
}

fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.nfc().flat_map(char::to_lowercase).nfc().collect() }
}
