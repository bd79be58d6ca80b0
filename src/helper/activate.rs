//! Activation: intent, switch, activation command, check; then confirmed, or put back. Each step is durable before the next, so
//! that `recover` can tell from the disk alone how far it came. Forth and back are in one file, because each relies on the order of
//! the other's steps.

use std::io;
use std::time::{Duration, Instant};

use crate::exec::Output;
use crate::faults::{self, Bug};
use crate::fs::FileKind;
use crate::helper::{Helper, clock};
use crate::journal::JournalEvent;
use crate::lock::Lock;
use crate::op::{Activate, Activated, ActivationOutcome, Check, Code, Current, End, Exec, Failure, Network};
use crate::pipe::Request;
use crate::recover::{self, Intent};
use crate::release::{Record, ReleaseId, State, UNKNOWN_BUILD, layout};
use crate::root::Root;
use crate::tree::path::Shown;
use crate::{current, deadman, failure, health, journal, store, unit};

mod written;

use written::{all_records, log_revision, read_record, recordable, recordable_check, save, save_whole};
pub use written::{mark, note, note_begun, settle};

/// What an activation that is run again for a revert may take. Nobody may be there to stop it.
const REVERT_TIMEOUT: Duration = Duration::from_secs(300);

/// What the history calls a confirmation.
const CONFIRMED: &str = "confirmed";
/// What it calls a release that was put back; `from` names it.
const REVERTED: &str = "reverted";
/// What it calls the beginning of a switch.
const STARTED: &str = "activation-started";

/// What becomes of a release that is put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did not hold, and is never chosen again by itself.
    Bad(String),
    /// Nothing is known against it; why it is not live all the same.
    PutBack(String),
}

/// Switches `current` to a release, runs its activation, and checks it.
pub fn activate(helper: &Helper, lock: &Lock, op: &Activate, request: &Request) -> Result<Activated, Failure> {
    let root = helper.root()?;
    let mut record = sealed(&root, &op.release)?;
    let from = current::release(&root)?;
    if from != op.expect && !faults::has(Bug::NoCompare) {
        return Err(superseded(&root, op.expect.as_ref(), from.as_ref()));
    }
    if from.as_ref() != Some(&op.release) {
        refuse_altered(&root, &record)?;
    }
    let pending = recover::read_intent(&root).map_err(|error| recover::unreadable(&root, &error))?;
    if let Some(other) = pending.as_ref().filter(|intent| intent.to != op.release) {
        // It could not be put back, or was never confirmed: what follows replaces it.
        settle(&root, &other.to, &Verdict::PutBack("another release was activated".into()))?;
    }
    if from.as_ref() != Some(&op.release) {
        note_begun(&root, lock, STARTED, &op.release, from.as_ref())?;
        begin(helper, &root, lock, &recover::intent(lock, from.clone(), op.release.clone(), op.confirm_within_ms))?;
        current::switch(&root, Some(&op.release))?;
        record.state = State::Active;
        record.activated = Some(clock());
        if !op.rollback {
            record.previous.clone_from(&from);
        }
        record.reason = None;
    } else if let Some(intent) = pending.filter(|intent| intent.to == op.release) {
        begin(helper, &root, lock, &recover::intent(lock, intent.from, intent.to, op.confirm_within_ms))?;
    }
    record.activation = op.command.as_ref().map(|exec| recordable(exec, helper));
    record.check = op.check.as_ref().map(recordable_check);
    // The intent is durable and says the same: recovery does with a sealed release what it does with an active one.
    save_whole(&root, &record)?;
    let mut output = Output::to(request);
    let (outcome, activation_ms, check_ms) = bring_up(helper, op, &mut output)?;
    let what = match &outcome {
        ActivationOutcome::Well { .. } => "activated",
        ActivationOutcome::CommandFailed(_) => "activation-failed",
        ActivationOutcome::CheckFailed { .. } => "check-failed",
    };
    // The switch is made: that it could not be written into the history must not hide it.
    let _ = note_begun(&root, lock, what, &op.release, from.as_ref());
    Ok(Activated { from, to: Some(op.release.clone()), outcome, activation_ms, check_ms })
}

/// Refuses a release that is not what was sealed. It is never chosen again by itself, so that the same command makes another.
fn refuse_altered(root: &Root, record: &Record) -> Result<(), Failure> {
    let why = match store::altered(root, record, clock()) {
        Ok(differences) => match differences.as_slice() {
            [] => return Ok(()),
            [first, others @ ..] => {
                let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
                format!("`{}`{more} is not what was sealed", Shown(&first.path))
            }
        },
        Err(failure) if matches!(failure.code, Code::Corrupt | Code::NotFound) => failure.message,
        Err(failure) => return Err(failure),
    };
    let id = &record.release.id;
    mark(root, id, State::Bad, Some(&format!("altered after the seal: {why}")))?;
    let message = format!("`{id}` was altered after it was sealed: {why}");
    Err(failure::hinted(Code::Corrupt, message, "run the same command again: this release is not chosen any more"))
}

/// Writes the intent, and arms the dead man where there is a deadline.
fn begin(helper: &Helper, root: &Root, lock: &Lock, intent: &Intent) -> Result<(), Failure> {
    deadman::disarm(helper);
    recover::write_intent(root, intent)?;
    if intent.deadline_ms > 0 { deadman::arm(helper, lock, intent) } else { Ok(()) }
}

fn bring_up(helper: &Helper, op: &Activate, output: &mut Output<'_>) -> Result<(ActivationOutcome, u64, u64), Failure> {
    let (began, since) = (Instant::now(), unit::monotonic_us());
    if let Some(exec) = &op.command {
        let exited = helper.run(exec, vec![helper.mark()], true, output)?;
        if !exited.is_success() {
            return Ok((ActivationOutcome::CommandFailed(exited), millis(began), 0));
        }
    }
    let activation_ms = millis(began);
    let began = Instant::now();
    let outcome = match &op.check {
        None => ActivationOutcome::Well { tries: 0 },
        Some(check) => health::check(helper, check, since, output)?,
    };
    Ok((outcome, activation_ms, millis(began)))
}

/// Accepts the active release.
pub fn confirm(helper: &Helper, lock: &Lock, release: &ReleaseId) -> Result<(), Failure> {
    let root = helper.root()?;
    let live = current::release(&root)?;
    if live.as_ref() != Some(release) && !faults::has(Bug::ConfirmsAnything) {
        return Err(superseded(&root, Some(release), live.as_ref()));
    }
    let record = sealed(&root, release)?;
    if record.state == State::Confirmed && recover::read_intent(&root).ok().flatten().is_none() {
        return Ok(());
    }
    let again = record.confirmed.is_some();
    if faults::has(Bug::IntentGoneFirst) {
        recover::drop_intent(&root)?;
    }
    save(&root, &Record { state: State::Confirmed, confirmed: Some(clock()), reason: None, ..record.clone() })?;
    retire_others(helper, &root, release)?;
    tell_confirmed(&root, lock, &record, &lock.run.by, again);
    recover::drop_intent(&root)
}

/// Does what a confirmation that was recorded still lacks: the run that recorded it ended there.
pub fn confirm_recorded(helper: &Helper, root: &Root, lock: &Lock, release: &ReleaseId, by: &str) -> Result<(), Failure> {
    retire_others(helper, root, release)?;
    // The record has the time of this confirmation already; only the history knows whether there was one before.
    let events = journal::read(root).unwrap_or_default();
    let last = |what: &str| events.iter().rposition(|event| event.what == what && event.release.as_ref() == Some(release));
    let confirmed = last(CONFIRMED);
    // It may have been told already, and a revert that was cut off at its beginning looks the same.
    if confirmed <= last(STARTED)
        && let Some(record) = read_record(root, release)?
    {
        tell_confirmed(root, lock, &record, by, confirmed.is_some());
    }
    recover::drop_intent(root)
}

/// Writes a confirmation into the logs, for people. It holds, whether or not they can be written.
fn tell_confirmed(root: &Root, lock: &Lock, record: &Record, by: &str, again: bool) {
    let logged = log_revision(root, by, record, again);
    let detail = logged.err().map(|error| format!("`{}` was not written: {error}", layout::REVISIONS_LOG));
    let _ = note(root, lock, CONFIRMED, Some(&record.release.id), record.previous.as_ref(), detail);
}

/// Does what follows the record of a confirmation: the dead man is called off, the others are retired. The intent goes last, when all
/// was told: whoever finds it does the rest.
fn retire_others(helper: &Helper, root: &Root, release: &ReleaseId) -> Result<(), Failure> {
    deadman::disarm(helper);
    for record in all_records(root)?.into_iter().filter(|record| record.release.id != *release) {
        match record.state {
            // Two that are confirmed do no harm: the next confirmation retires both.
            State::Confirmed => save_whole(root, &Record { state: State::Retired, ..record })?,
            State::Active => settle(root, &record.release.id, &Verdict::PutBack("another release was confirmed".into()))?,
            State::Uploading | State::Uploaded | State::Building | State::Sealed | State::Retired | State::Failed | State::Bad => {}
        }
    }
    Ok(())
}

/// Puts back what was live before `release` and runs its activation again.
pub fn put_back(
    helper: &Helper,
    root: &Root,
    lock: &Lock,
    release: &ReleaseId,
    verdict: &Verdict,
    output: &mut Output<'_>,
) -> Result<Activated, Failure> {
    let records = all_records(root)?;
    let record = records.iter().find(|record| record.release.id == *release);
    let record = record.ok_or_else(|| failure::new(Code::NotFound, format!("`{release}` is not a release of this host")))?;
    let intent = recover::read_intent(root).map_err(|error| recover::unreadable(root, &error))?;
    let pending = intent.filter(|intent| intent.to == *release);
    let is_confirmed = pending.is_none();
    let left = pending.clone();
    // Who began to put it back may have known more than who goes on.
    let verdict = &left.as_ref().and_then(|intent| intent.bad.clone()).map_or_else(|| verdict.clone(), Verdict::Bad);
    let bad = match verdict {
        Verdict::Bad(reason) => Some(reason.clone()),
        Verdict::PutBack(_) => None,
    };
    let before = pending.map_or_else(|| record.previous.clone(), |intent| intent.from);
    let target = revert_target(&records, release, before, |id| is_there(root, id))
        .map_err(|NoTarget| failure::new(Code::NotFound, format!("nothing is left that `{release}` could be put back to")))?;
    let live = current::read(root).map_err(|error| failure::io("read", layout::CURRENT, &error))?;
    let live = match live {
        Current::Release(id) => Some(id),
        Current::Absent => None,
        Current::Elsewhere { .. } | Current::NotLink => {
            return Err(current::release(root).err().unwrap_or_else(|| failure::new(Code::Refused, "`current` changed")));
        }
    };
    if live.as_ref() != Some(release) && live != target {
        return Err(superseded(root, Some(release), live.as_ref()));
    }
    if is_confirmed && live.as_ref() == Some(release) {
        // From here on recovery goes on with it. The intent comes first: beside a record that is confirmed it means nothing, but an
        // active record without an intent would be nobody's.
        recover::write_intent(root, &Intent { bad, ..recover::intent(lock, target.clone(), release.clone(), 0) })?;
        mark(root, release, State::Active, None)?;
    } else if let Some(intent) = left.filter(|intent| intent.bad != bad) {
        // Whoever has to go on with this finds why. Best effort: a full disk must not keep a host from being put back.
        let _ = recover::write_intent(root, &Intent { bad, ..intent });
    }
    current::switch(root, target.as_ref())?;
    if faults::has(Bug::SettlesFirst) {
        settle(root, release, verdict)?;
        recover::drop_intent(root)?;
    }
    let (began, since) = (Instant::now(), unit::monotonic_us());
    let outcome = activate_again(helper, &records, record, target.as_ref(), output)?;
    let activation_ms = millis(began);
    if matches!(&outcome, ActivationOutcome::CommandFailed(exited) if exited.end == End::Stopped) {
        // The intent stays, so that recovery does again what was cut off here.
        return Err(failure::new(Code::Stopped, "`current` was put back, but the activation of what it leads to was stopped"));
    }
    let began = Instant::now();
    let outcome = check_again(helper, outcome, (&records, target.as_ref()), since, output)?;
    let check_ms = millis(began);
    if let Some(retired) = records.iter().find(|record| Some(&record.release.id) == target.as_ref() && record.state == State::Retired) {
        save(root, &Record { state: State::Confirmed, ..retired.clone() })?;
    }
    if !is_told_reverted(root, release) {
        let (Verdict::Bad(reason) | Verdict::PutBack(reason)) = verdict;
        let _ = note(root, lock, REVERTED, target.as_ref(), Some(release), Some(format!("{reason}{}", unwell(&outcome))));
    }
    // Only now: a release that is still recorded as active has its successor activated again by recovery.
    settle(root, release, verdict)?;
    deadman::disarm(helper);
    recover::drop_intent(root)?;
    Ok(Activated { from: Some(release.clone()), to: target, outcome, activation_ms, check_ms })
}

/// Says what is wrong with what was put back; nothing where it is well.
pub fn unwell(outcome: &ActivationOutcome) -> String {
    match outcome {
        ActivationOutcome::Well { .. } => String::new(),
        ActivationOutcome::CommandFailed(exited) => format!(", but the activation of what was put back failed: {:?}", exited.end),
        ActivationOutcome::CheckFailed { last, .. } => format!(", but what was put back is not well: {last}"),
    }
}

/// Checks what was put back, in the way in which it was checked when it was deployed. It has stayed up before: that is not waited for.
fn check_again(
    helper: &Helper,
    activated: ActivationOutcome,
    (records, target): (&[Record], Option<&ReleaseId>),
    since: u64,
    output: &mut Output<'_>,
) -> Result<ActivationOutcome, Failure> {
    let record = records.iter().find(|record| Some(&record.release.id) == target);
    match (activated, record.and_then(|record| record.check.as_ref())) {
        (ActivationOutcome::Well { .. }, Some(check)) => health::check(helper, &Check { stay_up_ms: 0, ..check.clone() }, since, output),
        (activated, _) => Ok(activated),
    }
}

/// Tells whether the history knows already that a release was put back since it was made live last: who began that may have ended there.
fn is_told_reverted(root: &Root, release: &ReleaseId) -> bool {
    let events = journal::read(root).unwrap_or_default();
    let started = |event: &JournalEvent| event.what == STARTED && event.release.as_ref() == Some(release);
    let reverted = |event: &JournalEvent| event.what == REVERTED && event.from.as_ref() == Some(release);
    events.iter().rposition(reverted) > events.iter().rposition(started)
}

/// Says that nothing is left to put back to.
#[derive(Debug, PartialEq, Eq)]
struct NoTarget;

/// Chooses what to put back: what was live before, else the last release that was confirmed. None is a first deploy, which leaves
/// nothing.
fn revert_target(
    records: &[Record],
    release: &ReleaseId,
    before: Option<ReleaseId>,
    is_there: impl Fn(&ReleaseId) -> bool,
) -> Result<Option<ReleaseId>, NoTarget> {
    if faults::has(Bug::RelativeRollback) {
        return Ok(records.iter().rev().map(|record| record.release.id.clone()).find(|id| id != release));
    }
    let Some(before) = before else { return Ok(None) };
    let bad = |id: &ReleaseId| records.iter().any(|record| record.release.id == *id && !record.state.is_sealed());
    if is_there(&before) && !bad(&before) {
        return Ok(Some(before));
    }
    let good = records.iter().rev().filter(|record| record.state.is_good() && record.release.id != *release);
    good.map(|record| record.release.id.clone()).find(is_there).map(Some).ok_or(NoTarget)
}

/// Runs the activation of what is live again. A release of another tool has none here: then the command that made the new release
/// live serves for it as well.
fn activate_again(
    helper: &Helper,
    records: &[Record],
    reverted: &Record,
    target: Option<&ReleaseId>,
    output: &mut Output<'_>,
) -> Result<ActivationOutcome, Failure> {
    let well = ActivationOutcome::Well { tries: 0 };
    let Some(target) = target else { return Ok(well) };
    let own = records.iter().find(|record| record.release.id == *target);
    let is_ours = |record: &&Record| record.release.build_key != UNKNOWN_BUILD;
    let Some(command) = own.filter(is_ours).map_or(&reverted.activation, |record| &record.activation) else { return Ok(well) };
    let exec = Exec {
        command: command.clone(),
        directory: Some(layout::release(target)),
        env: Vec::new(),
        umask: 0o022,
        timeout_ms: u64::try_from(REVERT_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        idle_timeout_ms: 0,
        output_limit: 1024 * 1024,
        user: None,
        network: Network::Host,
    };
    let exited = helper.run(&exec, vec![helper.mark()], true, output)?;
    Ok(if exited.is_success() { well } else { ActivationOutcome::CommandFailed(exited) })
}

/// Goes on with an activation of this very run: under the new epoch, with a dead man of its own.
pub fn adopt(helper: &Helper, root: &Root, lock: &Lock, intent: &Intent) -> Result<(), Failure> {
    begin(helper, root, lock, &Intent { epoch: lock.epoch, ..intent.clone() })
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn is_there(root: &Root, id: &ReleaseId) -> bool {
    match root.dir.stat(layout::release(id)) {
        Ok(stat) => stat.kind == FileKind::Directory,
        // Only what is known to be gone is: another release must not be taken for it because of an error that passes.
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// Reads the record of a release that may be live.
fn sealed(root: &Root, id: &ReleaseId) -> Result<Record, Failure> {
    let record = read_record(root, id)?.ok_or_else(|| failure::new(Code::NotFound, format!("`{id}` is not a release of this host")))?;
    if !record.state.is_sealed() && !faults::has(Bug::SwitchBeforeSeal) {
        let reason = record.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
        return Err(failure::new(Code::NotSealed, format!("`{id}` is {:?}, not sealed{reason}", record.state).to_lowercase()));
    }
    if is_there(root, id) { Ok(record) } else { Err(failure::new(Code::NotFound, format!("the directory of `{id}` is gone"))) }
}

fn superseded(root: &Root, expected: Option<&ReleaseId>, live: Option<&ReleaseId>) -> Failure {
    let shown = |id: Option<&ReleaseId>| id.map_or_else(|| "nothing".to_owned(), |id| format!("`{id}`"));
    let message = format!("`{}/{}` leads to {}, and {} was expected", root.path, layout::CURRENT, shown(live), shown(expected));
    failure::hinted(Code::Superseded, message, "another run changed it; make a new plan")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ReleaseId {
        text.parse().unwrap()
    }

    #[test]
    fn a_first_deploy_is_put_back_to_nothing_and_a_missing_release_is_not() {
        assert_eq!(revert_target(&[], &id("b"), None, |_| true), Ok(None));
        assert_eq!(revert_target(&[], &id("b"), Some(id("a")), |_| true), Ok(Some(id("a"))));
        assert_eq!(revert_target(&[], &id("b"), Some(id("a")), |_| false), Err(NoTarget));
    }
}
