//! What a person does about a host's lock: freezes the host, lifts the freeze, ends the run that holds it. Nothing here ever takes a
//! lock away from a holder that lives: the holder is asked to stop, then ended, and the kernel lets its lock go.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::failure;
use crate::lock::{self, Holder};
use crate::op::{Answer, Code, Failure, Hold, Locked, RunEnd};
use crate::pipe::Request;
use crate::process;
use crate::release::layout;
use crate::root::Root;
use crate::wire::GRACE_MS;

/// What a helper that was asked to stop gets: the look for the request, the grace of what it runs, and its own end.
const POLITE: Duration = Duration::from_millis(GRACE_MS + 7000);
/// What the kernel gets to take a killed helper away. One that stays longer waits for a device.
const STUCK: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(50);

/// `.deployer/end`: which run is to stop, and who says so.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    run: String,
    by: String,
}

/// Freezes the host. One freeze at a time: another one's is never replaced.
pub fn hold(root: &Root, hold: &Hold) -> Result<Answer, Failure> {
    let _flock = match lock::briefly(root)? {
        Ok(flock) => flock,
        Err(busy) => return Ok(Answer::Locked(busy)),
    };
    match lock::hold_record(root) {
        Some(other) if other.id == hold.id => return Ok(Answer::Done),
        Some(other) => return Ok(Answer::Locked(Locked::Held(other))),
        None => {}
    }
    let text = serde_json::to_vec(hold).map_err(io::Error::from);
    text.and_then(|text| root.dir.replace(layout::HOLD, &text, 0o600)).map_err(|error| failure::io("write", layout::HOLD, &error))?;
    Ok(Answer::Done)
}

/// Lifts the freeze of this id. Where there is none any more there is nothing to do.
pub fn lift(root: &Root, id: &str) -> Result<Answer, Failure> {
    let _flock: File = match lock::briefly(root)? {
        Ok(flock) => flock,
        Err(busy) => return Ok(Answer::Locked(busy)),
    };
    match lock::hold_record(root) {
        None => return Ok(Answer::Done),
        Some(hold) if hold.id != id => return Ok(Answer::Locked(Locked::Held(hold))),
        Some(_) => {}
    }
    let removed = root.dir.unlink(layout::HOLD).and_then(|()| root.dir.open_dir(layout::CONTROL)?.sync());
    removed.map_err(|error| failure::io("remove", layout::HOLD, &error))?;
    Ok(Answer::Done)
}

/// Ends the run that holds the lock, by its id.
pub fn end_run(root: &Root, run: &str, by: &str, request: &Request) -> Result<Answer, Failure> {
    let Some(now) = lock::holder(root) else { return Ok(Answer::RunEnded(RunEnd::Gone)) };
    let holder = lock::read_holder(root).filter(|holder| holder.run.run == run).ok_or_else(|| {
        let message = format!("the lock is held by run `{}` of {}, not by `{run}`", now.run, now.by);
        failure::hinted(Code::Refused, message, "name the run that holds it now")
    })?;
    let process = open(&holder)?;
    ask(root, run, by)?;
    // A stopped helper never looks, and takes KILL all the same.
    let patience = if process::is_stopped(holder.pid) { Duration::ZERO } else { POLITE };
    let mut end = None;
    if is_gone(root, run, patience, request)? {
        end = Some(RunEnd::Stopped);
    } else if let Some(process) = process {
        let _ = pidfd_send_signal(process, Signal::KILL);
        if is_gone(root, run, STUCK, request)? {
            end = Some(RunEnd::Killed);
        }
    }
    let _ = root.dir.unlink(layout::END);
    end.map(Answer::RunEnded).ok_or_else(|| {
        let message = format!("the helper of run `{run}` (process {}) does not end, although it was killed", holder.pid);
        failure::hinted(Code::Refused, message, "it waits for a device: see `dmesg` on the host, and reboot it")
    })
}

/// Holds on to the very process that wrote that it has the lock; none where it has ended since, or belongs to another user.
fn open(holder: &Holder) -> Result<Option<OwnedFd>, Failure> {
    let Some(pid) = Pid::from_raw(holder.pid) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Looked at again now that the pid cannot pass to another process unnoticed.
        Ok(process) => Ok(holder.is_alive().then_some(process)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(failure::io("look at", format!("process {}", holder.pid), &error.into())),
    }
}

fn ask(root: &Root, run: &str, by: &str) -> Result<(), Failure> {
    let text = serde_json::to_vec(&End { run: run.to_owned(), by: by.to_owned() }).map_err(io::Error::from);
    text.and_then(|text| root.dir.replace_unsynced(layout::END, &text, 0o600)).map_err(|error| failure::io("write", layout::END, &error))
}

/// Waits until the run does not hold the lock any more.
fn is_gone(root: &Root, run: &str, patience: Duration, request: &Request) -> Result<bool, Failure> {
    let began = Instant::now();
    loop {
        if lock::holder(root).is_none_or(|holder| holder.run != run && holder.run != lock::UNKNOWN) {
            return Ok(true);
        }
        if request.is_stopped() {
            return Err(failure::new(Code::Stopped, format!("stopped while run `{run}` was being ended")));
        }
        if began.elapsed() > patience {
            return Ok(false);
        }
        thread::sleep(TICK);
    }
}

/// Says who asked the run that holds the lock to stop, if somebody did.
pub fn asked_to_end(root: &Root, run: &str) -> Option<String> {
    root.dir.stat(layout::END).ok()?;
    let end: End = serde_json::from_slice(&root.dir.read(layout::END, 64 * 1024).ok()?).ok()?;
    (end.run == run).then_some(end.by)
}
