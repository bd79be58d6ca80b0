//! Takes stock of a release that another tool made: a manifest of its files as they lie there, each read once.

use std::io;

use super::crew::{self, Cursor};
use super::stored::{Built, Proof, Stamp, Stored};
use super::survey::survey;
use super::{copy, failure, open_release, shown};
use crate::fs::{FileKind, Stat};
use crate::op::{Code, Failure};
use crate::release::{ReleaseId, layout};
use crate::root::Root;
use crate::tree::manifest::{EXECUTABLE, FILE};
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};

/// Seconds after a release was made in which files are still its own. What was written later was written by what serves.
const MAKING: i64 = 600;

/// What a release turned out to be.
pub struct Stock {
    pub tree: Digest,
    pub manifest: Digest,
    /// When it was made: seconds since 1970.
    pub made: i64,
}

/// Writes the manifest of a release that has none, durably.
pub fn take_stock(root: &Root, release: &ReleaseId) -> Result<Stock, Failure> {
    let dir = open_release(root, release)?;
    let unreadable = |error: io::Error| failure::io("read", layout::release(release), &error);
    let made = dir.stat(layout::REVISION).or_else(|_| dir.own_stat()).map_err(unreadable)?.mtime.seconds;
    let nothing = Stored::new(Manifest::default()).map_err(unreadable)?;
    let there = survey(release, &dir, &nothing)?.extra;
    let files: Vec<&(Vec<u8>, Stat)> = there.iter().filter(|(path, stat)| is_its_own(path, stat, made)).collect();
    let (read, result) = crew::each(
        &files,
        || (Cursor::new(&dir), Vec::new()),
        |(cursor, buffer), (path, _)| {
            let failed = |error: io::Error| failure::io("read", shown(release, path), &error);
            let (dir, name) = cursor.enter(path).map_err(failed)?;
            // A file that changes while it is read is the application's.
            Ok(copy::proven(dir, name, buffer).map_err(failed)?.and_then(|(digest, stat)| entry(path, digest, &stat)))
        },
    );
    result?;
    let mut proven: Vec<(Entry, Stamp)> = read.into_iter().flatten().collect();
    proven.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let (entries, stamps): (Vec<Entry>, Vec<Stamp>) = proven.into_iter().unzip();
    let manifest = Manifest::new(entries).map_err(|error| failure::new(Code::Corrupt, format!("`{release}`: {error}")))?;
    let (tree, digest) = (manifest.tree_digest(), manifest.manifest_digest());
    let mut stored = Stored::new(manifest).map_err(unreadable)?;
    stored.ledger.proofs = stamps.into_iter().map(Proof::Verified).collect();
    let beside = survey(release, &dir, &stored)?.extra;
    let stamp = |stat: &Stat| (stat.kind != FileKind::Directory).then(|| Stamp::from(stat));
    stored.ledger.built = beside.into_iter().map(|(path, stat)| Built { path, stamp: stamp(&stat) }).collect();
    stored.save(root, release)?;
    let manifests = root.dir.open_dir(layout::MANIFESTS).and_then(|dir| dir.sync_file_system());
    manifests.map_err(|error| failure::io("sync the file system of", layout::MANIFESTS, &error))?;
    Ok(Stock { tree, manifest: digest, made })
}

/// A file that a manifest can hold, and that is as old as the release.
fn is_its_own(path: &[u8], stat: &Stat, made: i64) -> bool {
    stat.kind == FileKind::File
        && matches!(stat.mode, FILE | EXECUTABLE)
        && stat.mtime.seconds <= made.saturating_add(MAKING)
        && TreePath::new(path).is_ok()
}

fn entry(path: &[u8], digest: Digest, stat: &Stat) -> Option<(Entry, Stamp)> {
    let path = TreePath::new(path).ok()?;
    let kind = Kind::File { mode: stat.mode, size: stat.size, digest, mtime: stat.mtime.seconds };
    Some((Entry { path, kind }, Stamp::from(stat)))
}
