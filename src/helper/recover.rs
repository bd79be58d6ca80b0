//! What to do about a run that ended in the middle: `decide` says it, and this carries it out, under the lock. Doing it twice is the
//! same as doing it once.

mod decide;

use std::io;

use crate::activate::{self, Verdict};
use crate::exec::{self, Output};
use crate::faults::{self, Bug};
use crate::helper::Helper;
use crate::lock::Lock;
use crate::op::Failure;
use crate::pipe::Request;
use crate::release::{FORMAT, ReleaseId, State, layout};
use crate::root::Root;
use crate::{current, facts, failure, records};

pub use decide::{Action, Intent, Now, decide};

/// How often it is tried to put one activation back: what does not end by then would go on for ever.
const MOST_REVERTS: u32 = 32;

/// Reads the intent, if there is one.
pub fn read_intent(root: &Root) -> io::Result<Option<Intent>> {
    match root.dir.read(layout::INTENT, 64 * 1024) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Explains an intent that cannot be read. What it said decides what to put back, so nobody goes on without it.
pub fn unreadable(root: &Root, error: &io::Error) -> Failure {
    let told = failure::io("read", layout::INTENT, error);
    let hint = format!(
        "see that `{0}/{1}` leads to what shall be live, then remove the file: `rm {0}/{2}`",
        root.path,
        layout::CURRENT,
        layout::INTENT
    );
    Failure { hint: Some(hint), ..told }
}

pub fn write_intent(root: &Root, intent: &Intent) -> Result<(), Failure> {
    if faults::has(Bug::NoIntent) {
        return Ok(());
    }
    let text = serde_json::to_vec(intent).map_err(io::Error::from);
    text.and_then(|text| root.dir.replace(layout::INTENT, &text, 0o600)).map_err(|error| failure::io("write", layout::INTENT, &error))
}

/// Removes the intent. Not durably: one that a loss of power brings back finds its release recorded as confirmed or no longer live,
/// and goes again.
pub fn drop_intent(root: &Root) -> Result<(), Failure> {
    match root.dir.unlink(layout::INTENT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| failure::io("remove", layout::INTENT, &error)),
    }
}

/// Milliseconds since the boot, sleep included.
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Reads the host's state, decides, and does it. Says what was done, a line each. A stop of the request ends it: what was not done is
/// left to the next.
pub fn run(helper: &Helper, root: &Root, lock: &Lock, request: &Request) -> Result<Vec<String>, Failure> {
    let read = |what: &'static str| move |error: io::Error| failure::io("read", what, &error);
    let records = records::records(root).map_err(read(layout::RECORDS))?;
    let intent = read_intent(root).map_err(|error| unreadable(root, &error))?;
    let now_live = current::read(root).map_err(read(layout::CURRENT))?;
    let now = Now { run: lock.run.run.clone(), boot_id: facts::boot_id(), boot_ms: boot_ms() };
    let mut lines: Vec<String> = lock.stays.iter().cloned().collect();
    for action in decide(&now_live, &records, intent.as_ref(), &now) {
        match carry_out(helper, root, lock, &action, intent.as_ref(), request) {
            Ok(line) => lines.push(line),
            Err(failure) if request.is_stopped() => return Err(failure),
            // The others still have to be done, and a host that cannot be put back must be told of, not locked out of.
            Err(failure) => lines.push(format!("unresolved: {failure}")),
        }
    }
    Ok(lines)
}

fn carry_out(
    helper: &Helper,
    root: &Root,
    lock: &Lock,
    action: &Action,
    intent: Option<&Intent>,
    request: &Request,
) -> Result<String, Failure> {
    let reason = |expired: bool| if expired { "it was not confirmed in time" } else { "the run that activated it ended" };
    let found = intent.and_then(|intent| intent.bad.clone());
    let verdict = |expired: bool| match &found {
        Some(why) => Verdict::Bad(why.clone()),
        None if expired => Verdict::Bad(reason(true).into()),
        None => Verdict::PutBack(reason(false).into()),
    };
    match action {
        Action::Fail { release } if faults::has(Bug::LeavesUploading) => Ok(format!("`{release}` was left")),
        Action::Fail { release } => {
            let (ended, _) = exec::end_builds(root, release)?;
            activate::mark(root, release, State::Failed, Some("the run that prepared it ended"))?;
            activate::note(root, lock, "failed", Some(release), None, Some("the run that prepared it ended".into()))?;
            let also = if ended > 0 { format!(", {ended} processes of its build were ended") } else { String::new() };
            Ok(format!("`{release}` was left unfinished by a dead run{also}"))
        }
        Action::FinishConfirm { release } => {
            let by = intent.map_or(lock.run.by.as_str(), |intent| &intent.by);
            activate::confirm_recorded(helper, root, lock, release, by)?;
            Ok(format!("`{release}` was confirmed; the rest of that is done"))
        }
        Action::Revert { release, expired } => {
            let verdict = verdict(*expired);
            count_revert(root, intent)?;
            let back = activate::put_back(helper, root, lock, release, &verdict, &mut Output::unheard(request))?;
            let to = back.to.map_or_else(|| "nothing".to_owned(), |id| format!("`{id}`"));
            let why = found.as_deref().unwrap_or_else(|| reason(*expired));
            Ok(format!("`{release}` was put back to {to}: {why}{}", activate::unwell(&back.outcome)))
        }
        Action::Settle { release, expired } => {
            let verdict = verdict(*expired);
            activate::settle(root, release, &verdict)?;
            Ok(format!("`{release}` is no longer live, and its record says so now"))
        }
        Action::Adopt => {
            let Some(intent) = intent else { return Ok(String::new()) };
            activate::adopt(helper, root, lock, intent)?;
            Ok(format!("`{}` is still to be confirmed by this run", intent.to))
        }
        Action::DropIntent => {
            drop_intent(root)?;
            Ok("an activation that had not switched anything is forgotten".into())
        }
    }
}

/// Counts the tries, so that a host that is stopped in the middle of each does not restart what it serves without an end.
fn count_revert(root: &Root, intent: Option<&Intent>) -> Result<(), Failure> {
    let Some(intent) = intent else { return Ok(()) };
    if intent.reverts >= MOST_REVERTS {
        let message = format!("`{}` was to be put back {MOST_REVERTS} times, and never was to the end", intent.to);
        return Err(failure::hinted(crate::op::Code::Refused, message, "look why on the host, then deploy another release"));
    }
    // Best effort: a full disk must not keep a host from being put back.
    let _ = write_intent(root, &Intent { reverts: intent.reverts + 1, ..intent.clone() });
    Ok(())
}

/// Makes the intent of an activation.
pub fn intent(lock: &Lock, from: Option<ReleaseId>, to: ReleaseId, within_ms: u64) -> Intent {
    let deadline_ms = if within_ms == 0 { 0 } else { boot_ms().saturating_add(within_ms) };
    let (run, by) = (lock.run.run.clone(), lock.run.by.clone());
    Intent { format: FORMAT, from, to, epoch: lock.epoch, run, by, boot_id: facts::boot_id(), deadline_ms, reverts: 0, bad: None }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
