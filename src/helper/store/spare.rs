//! The spare: a copy of the live release's tree, made after a deploy when nobody waits, that the next release begins with. It makes a
//! small change cost what changed, whatever the size of the tree.
//!
//! It is a source like any other: a file counts if it still looks as it did when it was copied from a file that was proven. While it
//! is made it has no manifest, and without one it is never used: whoever is killed leaves something useless, and nothing wrong.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::begin::{MODE, make_directories, make_empty_files, make_links, remove_strangers};
use super::copy::Copier;
use super::crew::Cursor;
use super::reuse::{Filling, Reused, Source, wanted};
use super::stored::{Proof, Stamp, Stored};
use super::survey::survey;
use super::{failure, open_release, shown, stored};
use crate::exec;
use crate::fs::{Dir, FileKind};
use crate::helper::Helper;
use crate::op::Failure;
use crate::release::{ReleaseId, State, layout};
use crate::root::Root;
use crate::{current, lock, records};

/// The size of a stored manifest from which on a spare is made: that of about a thousand files. Fewer are copied at once.
const WORTH: u64 = 64 * 1024;
/// Of the free space and inodes, what a spare may take: a fifth.
const SHARE: u64 = 5;
/// How many files are copied between two looks at the lock.
const LOOK: u64 = 64;
/// Longer than the tick of a file system's clock: proofs that are older than their record count.
const SETTLE: Duration = Duration::from_millis(20);
/// Where the tree is beneath `.deployer/spare`.
const TREE: &str = "tree";

/// Tells whether copying a release takes so long that a spare saves something.
pub fn is_worth_a_spare(root: &Root, release: &ReleaseId) -> bool {
    root.dir.stat(layout::manifest(release)).is_ok_and(|stat| stat.size >= WORTH)
}

/// Starts the making of a spare in a process of its own, which this one does not wait for.
pub fn start(helper: &Helper) -> io::Result<()> {
    let mut process = exec::program("/proc/self/exe");
    process.args(["spare", &helper.root_path]).env_clear().envs(helper.user.environment()).current_dir("/");
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    helper.children.spawn_apart(&mut process).map(drop)
}

/// `spare ROOT`
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [root] = arguments else { return ExitCode::from(2) };
    let Some(root) = root.to_str().and_then(|root| Root::open(root).ok()) else { return ExitCode::from(2) };
    let _ = rustix::process::setsid();
    // Best effort: it is never urgent.
    let _ = rustix::process::nice(19);
    match prepare(&root) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads an error here, and nobody needs it: the next release is copied.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Makes a spare of what is live, unless there is one. Gives up as soon as anybody takes the host's lock.
pub fn prepare(root: &Root) -> Result<(), Failure> {
    let Some(_held) = hold(root) else { return Ok(()) };
    let Some(live) = current::release(root)? else { return Ok(()) };
    let record = records::read(root, &live).map_err(|error| failure::io("read", layout::record(&live), &error))?;
    if record.is_none_or(|record| record.state != State::Confirmed) {
        return Ok(());
    }
    let manifest = stored::load(root, &live)?.manifest;
    if stored::load_from(root, layout::SPARE_MANIFEST).is_ok_and(|spare| spare.manifest == manifest) {
        return Ok(());
    }
    let failed = |error: io::Error| failure::io("make", layout::SPARE, &error);
    let spare = root.dir.make_dirs(layout::SPARE, 0o700).map_err(failed)?;
    spare.empty().map_err(failed)?;
    if !has_room(root, manifest.totals()) {
        return Ok(());
    }
    let (dir, _) = spare.make_dir(TREE, MODE).map_err(failed)?;
    let mut stored = Stored::new(manifest).map_err(failed)?;
    make_directories(&live, &dir, &stored.manifest)?;
    make_links(&live, &dir, &stored.manifest)?;
    make_empty_files(&live, &dir, &mut stored)?;
    let looks = AtomicU64::new(0);
    let give_up = || looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK) && lock::holder(root).is_some();
    let filling = Filling { root, release: &live, dir: &dir, copier: Copier::default(), give_up: &give_up };
    filling.copy_from_releases(&mut stored, &[Source { release: live.clone(), sealed: true }])?;
    // After a loss of power a file may look as it did and hold nothing, and its looks are all that is asked of it later.
    spare.sync_file_system().map_err(failed)?;
    std::thread::sleep(SETTLE);
    stored.save_to(root, layout::SPARE_MANIFEST)
}

/// Puts the spare in place of a release's directory that was just made and is empty, keeps what is proven to be the release's, and
/// takes everything else away. Does nothing where there is no spare, or it is just being made.
pub fn take(root: &Root, release: &ReleaseId, fresh: Dir, stored: &mut Stored) -> Result<(Dir, Reused), Failure> {
    let Some(spare) = claim(root, release, &fresh) else { return Ok((fresh, Reused::default())) };
    let dir = open_release(root, release)?;
    let survey = survey(release, &dir, stored)?;
    remove_strangers(root, release, stored, &survey)?;
    let mut reused = Reused::default();
    let mut cursor = Cursor::new(&dir);
    let mut known = (0..).zip(spare.manifest.entries()).peekable();
    for (index, (entry, stat)) in stored.manifest.entries().iter().zip(&survey.present).enumerate() {
        let (Some(wanted), Some(stat)) = (wanted(entry), stat) else { continue };
        if stat.kind != FileKind::File {
            continue;
        }
        while known.next_if(|(_, known)| known.path < entry.path).is_some() {}
        let same = known.peek().filter(|(_, known)| **known == *entry).and_then(|(at, _)| spare.ledger.trusted(*at));
        if same == Some(Stamp::from(stat)) {
            stored.ledger.proofs[index] = Proof::Verified(Stamp::from(stat));
            reused = Reused { files: reused.files + 1, bytes: reused.bytes + wanted.size };
        } else {
            let removed = cursor.enter(entry.path.as_bytes()).and_then(|(dir, name)| dir.unlink(name));
            removed.map_err(|error| failure::io("remove", shown(release, entry.path.as_bytes()), &error))?;
        }
    }
    Ok((dir, reused))
}

/// Moves the spare. From then on only what it held is known, and it is nobody else's. One that is of no use gives its space back at
/// once.
fn claim(root: &Root, release: &ReleaseId, fresh: &Dir) -> Option<Stored> {
    let _held = hold(root)?;
    let tree = format!("{}/{TREE}", layout::SPARE);
    let spare = usable(root, &tree, fresh);
    let moved = root.dir.unlink(layout::SPARE_MANIFEST).and_then(|()| match &spare {
        Some(_) => root.dir.rename(&tree, layout::release(release)),
        None => Err(io::ErrorKind::NotFound.into()),
    });
    if moved.is_err() {
        // Best effort: what is still there is replaced by the next spare.
        let _ = root.dir.trash(&tree).and_then(|()| root.dir.empty_trash());
    }
    spare.filter(|_| moved.is_ok())
}

/// Reads the spare, if it can become a release. What is made below `releases` may belong to another group, or have other access lists,
/// than what was made here.
fn usable(root: &Root, tree: &str, fresh: &Dir) -> Option<Stored> {
    let spare = stored::load_from(root, layout::SPARE_MANIFEST).ok()?;
    let alike = root.dir.open_dir(tree).ok()?.heritage().ok()? == fresh.heritage().ok()?;
    alike.then_some(spare)
}

/// Takes the right to make the spare or to use it. None while somebody else has it.
fn hold(root: &Root) -> Option<File> {
    let file = root.dir.open_lock(layout::SPARE_LOCK, 0o600).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn has_room(root: &Root, (files, bytes): (u64, u64)) -> bool {
    let Ok(stat) = rustix::fs::fstatvfs(&root.dir) else { return false };
    // Some file systems have no fixed number of inodes, and say 0.
    let inodes = stat.f_files == 0 || files < stat.f_favail / SHARE;
    inodes && bytes < stat.f_bavail.saturating_mul(stat.f_frsize) / SHARE
}
