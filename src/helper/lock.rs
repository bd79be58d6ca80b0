//! The host's lock: a `flock` on a file that is never removed. It lives as long as its holder, so there is nothing to expire and
//! nothing to clean. Beside it are the epoch, which each holder raises, and who the holder is, for people.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::failure;
use crate::faults::{self, Bug};
use crate::fs::{set_mtime, stat_of};
use crate::helper::clock;
use crate::op::{Code, Failure, Hold, LockState, Locked, RunInfo};
use crate::release::{FORMAT, layout};
use crate::root::Root;
use crate::{facts, process, records};

/// A reader that looks whether there is a holder has the lock for microseconds: that is not a holder.
const TRIES: u32 = 10;
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(3);

/// The lock, held. Dropping it lets it go.
#[derive(Debug)]
pub struct Lock {
    /// Closes with the process, on exec too: only this helper holds it.
    file: File,
    pub epoch: u64,
    pub run: RunInfo,
    /// What a dead run left and that cannot be taken away, for people.
    pub stays: Option<String>,
    /// Held while the history grows: a build runs beside other changes of the host.
    pub journal: Mutex<()>,
}

/// Who holds the lock. Pids are reused: a process is known by when it was started, and in which boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Holder {
    #[serde(flatten)]
    pub run: RunInfo,
    pub pid: i32,
    #[serde(default)]
    started: u64,
    #[serde(default)]
    boot_id: String,
}

/// Takes the lock without waiting, or says who has it.
pub fn acquire(root: &Root, run: &RunInfo) -> Result<Result<Lock, Locked>, Failure> {
    if let Some(hold) = hold_record(root) {
        return Ok(Err(Locked::Held(hold)));
    }
    let taken = acquire_frozen(root, run)?;
    // Whoever froze the host meanwhile held the lock for it.
    Ok(match (taken, hold_record(root)) {
        (Ok(lock), Some(hold)) => {
            release(root, lock);
            Err(Locked::Held(hold))
        }
        (taken, _) => taken,
    })
}

/// Takes the lock of a host whether or not a person froze it.
pub fn acquire_frozen(root: &Root, run: &RunInfo) -> Result<Result<Lock, Locked>, Failure> {
    if faults::has(Bug::SweepBeforeLock) {
        let _ = sweep(root);
    }
    let file = match briefly(root)? {
        Ok(file) => file,
        Err(busy) => return Ok(Err(busy)),
    };
    if faults::has(Bug::UnlockBeforeWrite) {
        let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
    }
    // First of all: on a full disk nothing else makes room for what is written next.
    let stays = sweep(root);
    identify(root)?;
    raise_epoch(root, file, run).map(|lock| Ok(Lock { stays, ..lock }))
}

/// Takes the flock and nothing else, for what is over in a moment, frozen or not.
pub fn briefly(root: &Root) -> Result<Result<File, Locked>, Failure> {
    refuse_unfit(root)?;
    root.ensure_control().map_err(|error| failure::io("set up", format!("{}/{}", root.path, layout::CONTROL), &error))?;
    try_flock(root)
}

fn try_flock(root: &Root) -> Result<Result<File, Locked>, Failure> {
    let mut file = open(root)?;
    for attempt in 1..=TRIES {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_the_lock(root, &file) => return Ok(Ok(file)),
            // What was locked went away with all of `.deployer` (`remove`), and whoever comes next locks another file.
            Ok(()) => file = open(root)?,
            Err(Errno::WOULDBLOCK | Errno::INTR) if attempt < TRIES => std::thread::sleep(BETWEEN),
            Err(Errno::WOULDBLOCK | Errno::INTR) => break,
            Err(error) => return Err(failure::io("lock", layout::LOCK, &error.into())),
        }
    }
    Ok(Err(Locked::Busy(holder_text(root).unwrap_or_else(unknown))))
}

fn is_the_lock(root: &Root, file: &File) -> bool {
    let there = root.dir.stat(layout::LOCK);
    stat_of(file).is_ok_and(|ours| there.is_ok_and(|there| (ours.device, ours.ino) == (there.device, there.ino)))
}

/// Makes the control directory whole outside a run. Where a run is at work, it has done so itself.
pub fn prepare(root: &Root) -> Result<(), Failure> {
    root.ensure_control().map_err(|error| failure::io("set up", format!("{}/{}", root.path, layout::CONTROL), &error))?;
    let file = open(root)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => identify(root),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(()),
        Err(error) => Err(failure::io("lock", layout::LOCK, &error.into())),
    }
}

fn identify(root: &Root) -> Result<(), Failure> {
    root.ensure_host_id().map_err(|error| failure::io("write", layout::HOST_ID, &error))
}

/// Waits for the lock as the dead man of the run that had it in `epoch`. None if another run had it since.
pub fn wait(root: &Root, epoch: u64, run: &RunInfo) -> Result<Option<Lock>, Failure> {
    let file = open(root)?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(failure::io("lock", layout::LOCK, &error.into())),
        }
    }
    if read_epoch(root)? != epoch {
        return Ok(None);
    }
    write_holder(root, run);
    Ok(Some(Lock { file, epoch, run: run.clone(), stays: None, journal: Mutex::default() }))
}

/// Lets the lock go.
pub fn release(root: &Root, lock: Lock) {
    // Best effort: text without a flock is not believed.
    let _ = root.dir.unlink(layout::HOLDER);
    drop(lock);
}

/// Says who holds the lock now, if anybody does. Changes nothing.
pub fn holder(root: &Root) -> Option<RunInfo> {
    let file = root.dir.open_file(layout::LOCK).ok()?;
    is_held(&file).then(|| holder_text(root).unwrap_or_else(unknown))
}

fn is_held(file: &File) -> bool {
    matches!(rustix::fs::flock(file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}

/// Says who holds the lock, when it last heard of its controller, and what freezes the host. Changes nothing.
pub fn state(root: &Root) -> LockState {
    let holder = holder(root);
    let heard = holder.as_ref().and_then(|_| root.dir.stat(layout::LOCK).ok()).map(|stat| (clock() - stat.mtime.seconds).max(0));
    LockState { holder, heard, hold: hold_record(root) }
}

impl Lock {
    /// Leaves a sign of life of the controller: the lock's own time.
    pub fn beat(&self) {
        // Best effort: it is for people.
        let _ = set_mtime(&self.file, clock());
    }
}

/// Reads a person's freeze. One that cannot be read freezes as well: a check that cannot be made denies.
pub fn hold_record(root: &Root) -> Option<Hold> {
    let unreadable = |why: String| Hold { id: "unreadable".into(), by: "unknown".into(), reason: why, since: 0 };
    match root.dir.read(layout::HOLD, 64 * 1024) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| unreadable(format!("`{}`: {error}", layout::HOLD)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(unreadable(format!("`{}`: {}", layout::HOLD, failure::cause(&error)))),
    }
}

/// Refuses what a newer deployer wrote, and file systems whose flock is not to be trusted.
fn refuse_unfit(root: &Root) -> Result<(), Failure> {
    let newer = records::scan(root).map_err(|error| failure::io("read", layout::RECORDS, &error))?.newer_format;
    if let Some(format) = newer {
        return Err(failure::hinted(
            Code::NewerFormat,
            format!("`{}` was written by a newer deployer: format {format}, where {FORMAT} is the newest known here", root.path),
            "use the newer deployer",
        ));
    }
    let kind = facts::filesystem(root);
    if ["nfs", "cifs", "smb2", "9p", "afs", "ceph"].contains(&kind.as_str()) {
        return Err(failure::hinted(
            Code::Refused,
            format!("`{}` is on a network file system (`{kind}`), where a lock cannot be trusted", root.path),
            "put the root on a local disk; `shared` may be a network file system",
        ));
    }
    Ok(())
}

fn open(root: &Root) -> Result<File, Failure> {
    root.dir.open_lock(layout::LOCK, 0o600).map_err(|error| failure::io("open", layout::LOCK, &error))
}

fn raise_epoch(root: &Root, file: File, run: &RunInfo) -> Result<Lock, Failure> {
    let epoch = read_epoch(root)?.saturating_add(u64::from(!faults::has(Bug::EpochStays)));
    let text = format!("{epoch}\n");
    // Whoever could still act under an older epoch ends with this boot, so it need not survive it; but it must stay readable.
    root.dir.replace_whole(layout::EPOCH, text.as_bytes(), 0o600).map_err(|error| failure::io("write", layout::EPOCH, &error))?;
    write_holder(root, run);
    let lock = Lock { file, epoch, run: run.clone(), stays: None, journal: Mutex::default() };
    lock.beat();
    Ok(lock)
}

/// Reads the epoch of the last run that had the lock.
pub fn read_epoch(root: &Root) -> Result<u64, Failure> {
    match root.dir.read(layout::EPOCH, 64) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            text.trim().parse().map_err(|_| {
                // A number that was used before would let a dead man of an old run believe that it is still his turn.
                let hint = format!("when no run is at work there, remove it: `rm {}/{}`", root.path, layout::EPOCH);
                failure::hinted(Code::Refused, format!("`{}` is not a number", layout::EPOCH), hint)
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(failure::io("read", layout::EPOCH, &error)),
    }
}

/// Says who the holder is. Best effort: it is for people, and a full disk must not keep a host from being put back.
fn write_holder(root: &Root, run: &RunInfo) {
    let pid = std::process::id().cast_signed();
    let started = process::started(pid).unwrap_or_default();
    let text = serde_json::to_vec(&Holder { run: run.clone(), pid, started, boot_id: facts::boot_id() });
    let written = text.map_err(io::Error::from).and_then(|text| root.dir.replace_unsynced(layout::HOLDER, &text, 0o600));
    if written.is_err() {
        // The one before would be believed if its pid were in use again.
        let _ = root.dir.unlink(layout::HOLDER);
    }
}

/// Takes away what a dead run was writing aside, and what it was removing. Only the holder of the lock writes there. Says what stays
/// and why: files of another user, which whatever serves a release may have made there.
fn sweep(root: &Root) -> Option<String> {
    let swept =
        [layout::TEMPORARY, layout::TRASH].map(|path| root.dir.open_dir(path).and_then(|dir| dir.empty()).map_err(|error| (path, error)));
    let (path, error) = swept.into_iter().find_map(Result::err)?;
    let path = format!("{}/{path}", root.path);
    Some(format!("`{path}` holds what cannot be removed: {}; as root: `find {path} -mindepth 1 -delete`", failure::cause(&error)))
}

fn holder_text(root: &Root) -> Option<RunInfo> {
    read_holder(root).map(|holder| holder.run)
}

/// Reads who holds the lock, as far as the text is of a process that lives.
pub fn read_holder(root: &Root) -> Option<Holder> {
    let holder: Holder = serde_json::from_slice(&root.dir.read(layout::HOLDER, 64 * 1024).ok()?).ok()?;
    holder.is_alive().then_some(holder)
}

impl Holder {
    /// Tells whether the process that wrote this is there still.
    pub fn is_alive(&self) -> bool {
        let started = process::started(self.pid);
        started.is_some_and(|started| self.started == 0 || (self.started == started && self.boot_id == facts::boot_id()))
    }
}

/// The id of a run that has the lock and has not said yet, or no longer, who it is.
pub const UNKNOWN: &str = "unknown";

fn unknown() -> RunInfo {
    RunInfo { run: UNKNOWN.into(), by: "another run".into(), what: "starting or ending".into(), since: 0 }
}
