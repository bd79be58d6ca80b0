//! What to do about a run that ended in the middle. `decide` is a pure function of what is live, the records and the intent;
//! the rest carries it out, under the lock. Doing it twice is the same as doing it once.

use std::io;

use serde::{Deserialize, Serialize};

use crate::activate::{self, Verdict};
use crate::exec::{self, Output};
use crate::faults::{self, Bug};
use crate::helper::Helper;
use crate::lock::Lock;
use crate::op::{Current, Failure};
use crate::pipe::Request;
use crate::release::{FORMAT, Record, ReleaseId, State, layout};
use crate::root::Root;
use crate::{current, facts, failure, records};

/// `.deployer/intent`: an activation that was begun, and neither confirmed nor put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub format: u32,
    pub from: Option<ReleaseId>,
    pub to: ReleaseId,
    pub epoch: u64,
    pub run: String,
    pub by: String,
    pub boot_id: String,
    /// Milliseconds since the boot `boot_id`, sleep included; 0 is never.
    pub deadline_ms: u64,
}

/// When and for whom it is decided.
#[derive(Clone, Debug)]
pub struct Now {
    pub run: String,
    pub boot_id: String,
    pub boot_ms: u64,
}

/// One thing to do. The order matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The release was not sealed, and nobody will go on with it.
    Fail {
        release: ReleaseId,
    },
    /// The confirmation was recorded: do the rest of it.
    FinishConfirm {
        release: ReleaseId,
    },
    /// Put back what was live before.
    Revert {
        release: ReleaseId,
        expired: bool,
    },
    /// `current` no longer leads to the release, but its record says so.
    Settle {
        release: ReleaseId,
        expired: bool,
    },
    /// The run that began it is back in time: it goes on.
    Adopt,
    DropIntent,
}

/// Decides what recovery does.
#[must_use]
pub fn decide(current: &Current, records: &[Record], intent: Option<&Intent>, now: &Now) -> Vec<Action> {
    let mut actions: Vec<Action> = records.iter().filter(|record| is_abandoned(record, now)).map(fail).collect();
    let Some(intent) = intent else { return actions };
    let live = match current {
        Current::Release(id) => Some(id),
        Current::Absent | Current::Elsewhere { .. } | Current::NotLink => None,
    };
    let release = intent.to.clone();
    let state = records.iter().find(|record| record.release.id == release).map(|record| record.state);
    let expired = intent.is_expired(now);
    if live != Some(&release) {
        let put_back = live == intent.from.as_ref() && matches!(current, Current::Release(_) | Current::Absent);
        match state {
            // The link was put back, but perhaps not yet what serves it.
            Some(State::Active) if put_back => actions.push(Action::Revert { release, expired }),
            Some(State::Active) => actions.extend([Action::Settle { release, expired }, Action::DropIntent]),
            Some(_) | None => actions.push(Action::DropIntent),
        }
        return actions;
    }
    actions.push(match state {
        Some(State::Confirmed) => Action::FinishConfirm { release },
        Some(State::Active) if intent.run == now.run && !expired => Action::Adopt,
        Some(_) | None => Action::Revert { release, expired },
    });
    actions
}

fn fail(record: &Record) -> Action {
    Action::Fail { release: record.release.id.clone() }
}

/// A run that comes back goes on with its own release; any other release that is not sealed has nobody.
fn is_abandoned(record: &Record, now: &Now) -> bool {
    if record.state == State::Uploading && faults::has(Bug::LeavesUploading) {
        return false;
    }
    matches!(record.state, State::Uploading | State::Uploaded | State::Building) && record.release.run != now.run
}

impl Intent {
    fn is_expired(&self, now: &Now) -> bool {
        // A boot in between ended the dead man as well.
        self.deadline_ms > 0 && (self.boot_id != now.boot_id || now.boot_ms >= self.deadline_ms)
    }
}

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
    let verdict = |expired: bool| if expired { Verdict::Bad(reason(true).into()) } else { Verdict::PutBack(reason(false).into()) };
    match action {
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
            let back = activate::put_back(helper, root, lock, release, &verdict, &mut Output::unheard(request))?;
            let to = back.to.map_or_else(|| "nothing".to_owned(), |id| format!("`{id}`"));
            let activation = match back.outcome {
                crate::op::ActivationOutcome::Well { .. } => "",
                crate::op::ActivationOutcome::CommandFailed(_) => ", but its activation failed",
                crate::op::ActivationOutcome::CheckFailed { .. } => ", but its check failed",
            };
            Ok(format!("`{release}` was put back to {to}: {}{activation}", reason(*expired)))
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

/// Makes the intent of an activation.
pub fn intent(lock: &Lock, from: Option<ReleaseId>, to: ReleaseId, within_ms: u64) -> Intent {
    let deadline_ms = if within_ms == 0 { 0 } else { boot_ms().saturating_add(within_ms) };
    let (run, by) = (lock.run.run.clone(), lock.run.by.clone());
    Intent { format: FORMAT, from, to, epoch: lock.epoch, run, by, boot_id: facts::boot_id(), deadline_ms }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
