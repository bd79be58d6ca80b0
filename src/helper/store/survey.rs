//! What really lies in a release: every path beneath it, looked at but not read, and set against the manifest.

use std::collections::HashSet;

use super::crew;
use super::stored::Stored;
use super::{failure, shown};
use crate::fs::{Dir, FileKind, Stat};
use crate::op::Failure;
use crate::release::{ReleaseId, layout};
use crate::tree::Manifest;

/// A release as it lies there.
pub struct Survey {
    /// For each entry of the manifest, what is at its path.
    pub present: Vec<Option<Stat>>,
    /// What is neither an entry, nor a directory of one, nor a link or `REVISION` that was added. Sorted by path.
    pub extra: Vec<(Vec<u8>, Stat)>,
}

/// Walks the release level by level; links are looked at, not followed.
pub fn survey(release: &ReleaseId, dir: &Dir, stored: &Stored) -> Result<Survey, Failure> {
    let entries = stored.manifest.entries();
    let directories: HashSet<&[u8]> = directories(&stored.manifest).into_iter().collect();
    let mut survey = Survey { present: vec![None; entries.len()], extra: Vec::new() };
    let mut level: Vec<Vec<u8>> = vec![Vec::new()];
    while !level.is_empty() {
        let (found, result) = crew::each(&level, || (), |(), path| list(release, dir, path));
        result?;
        level.clear();
        for (path, stat) in found.into_iter().flatten() {
            let added =
                stored.ledger.links.iter().any(|link| link.path == path) || (stored.ledger.revision && path == layout::REVISION.as_bytes());
            if added {
                continue;
            }
            let is_directory = stat.kind == FileKind::Directory;
            if let Ok(index) = entries.binary_search_by(|entry| entry.path.as_bytes().cmp(&path)) {
                survey.present[index] = Some(stat);
            } else if !(is_directory && directories.contains(&*path)) {
                survey.extra.push((path.clone(), stat));
            }
            if is_directory {
                level.push(path);
            }
        }
    }
    survey.extra.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(survey)
}

fn list(release: &ReleaseId, dir: &Dir, path: &[u8]) -> Result<Vec<(Vec<u8>, Stat)>, Failure> {
    let read = || {
        let (inner, names) = if path.is_empty() {
            (dir.try_clone()?, dir.names()?)
        } else {
            let inner = dir.open_dir(path)?;
            let names = inner.names_once()?;
            (inner, names)
        };
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let stat = inner.stat(&name)?;
            found.push((if path.is_empty() { name } else { [path, b"/", &name].concat() }, stat));
        }
        Ok(found)
    };
    read().map_err(|error| failure::io("list", shown(release, path), &error))
}

/// Lists the directories that a tree needs, each after its parent.
pub fn directories(manifest: &Manifest) -> Vec<&[u8]> {
    let mut directories = Vec::new();
    let mut before: &[u8] = b"";
    for entry in manifest.entries() {
        let deepest = match &entry.kind {
            crate::tree::Kind::Directory => Some(entry.path.as_bytes()),
            crate::tree::Kind::File { .. } | crate::tree::Kind::Link { .. } => entry.path.split().0,
        };
        let Some(deepest) = deepest.filter(|deepest| *deepest != before) else { continue };
        // What it shares with the one before was listed then.
        let shared = deepest.iter().zip(before).take_while(|(a, b)| a == b).count();
        let shared = if before.len() == shared && deepest.get(shared) == Some(&b'/') {
            shared
        } else {
            deepest[..shared].iter().rposition(|byte| *byte == b'/').unwrap_or(0)
        };
        let ends = deepest.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > shared).map(|(at, _)| at);
        directories.extend(ends.map(|at| &deepest[..at]));
        let listed = before.strip_prefix(deepest).is_some_and(|rest| rest.starts_with(b"/"));
        if !listed {
            directories.push(deepest);
        }
        before = deepest;
    }
    directories
}
