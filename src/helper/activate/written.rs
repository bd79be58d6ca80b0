//! What an activation leaves behind for whoever comes next: states in the records, the host's history, the log that people read, and
//! what a later revert runs.

use std::io::{self, Write};

use crate::exec;
use crate::helper::{Helper, clock};
use crate::journal::{self, JournalEvent};
use crate::lock::Lock;
use crate::op::{Check, Command, Exec, Failure, Probe};
use crate::pipe::hold;
use crate::release::{Record, ReleaseId, State, layout};
use crate::root::Root;
use crate::tree::path::Shown;
use crate::{failure, records};

use super::Verdict;

/// Records that a release is not live any more.
pub fn settle(root: &Root, release: &ReleaseId, verdict: &Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Bad(reason) => mark(root, release, State::Bad, Some(reason)),
        Verdict::PutBack(_) => {
            let held_once = read_record(root, release)?.is_some_and(|record| record.confirmed.is_some());
            mark(root, release, if held_once { State::Retired } else { State::Sealed }, None)
        }
    }
}

/// Sets a release's state.
pub fn mark(root: &Root, release: &ReleaseId, state: State, reason: Option<&str>) -> Result<(), Failure> {
    let Some(record) = read_record(root, release)? else { return Ok(()) };
    save(root, &Record { state, reason: reason.map(str::to_owned), ..record })
}

/// Appends to the host's history, durably.
pub fn note(
    root: &Root,
    lock: &Lock,
    what: &str,
    release: Option<&ReleaseId>,
    from: Option<&ReleaseId>,
    detail: Option<String>,
) -> Result<(), Failure> {
    append(root, lock, event(lock, what, release, from, detail), true)
}

/// Appends to the host's history what another event follows soon: that one makes both durable.
pub fn note_begun(root: &Root, lock: &Lock, what: &str, release: &ReleaseId, from: Option<&ReleaseId>) -> Result<(), Failure> {
    append(root, lock, event(lock, what, Some(release), from, None), false)
}

fn event(lock: &Lock, what: &str, release: Option<&ReleaseId>, from: Option<&ReleaseId>, detail: Option<String>) -> JournalEvent {
    JournalEvent {
        sequence: 0,
        at: clock(),
        epoch: lock.epoch,
        run: lock.run.run.clone(),
        by: lock.run.by.clone(),
        what: what.to_owned(),
        release: release.cloned(),
        from: from.cloned(),
        detail,
    }
}

fn append(root: &Root, lock: &Lock, event: JournalEvent, durable: bool) -> Result<(), Failure> {
    let _alone = hold(&lock.journal);
    journal::append(root, event, durable).map_err(|error| failure::io("write", layout::JOURNAL, &error))
}

pub(super) fn all_records(root: &Root) -> Result<Vec<Record>, Failure> {
    records::records(root).map_err(|error| failure::io("read", layout::RECORDS, &error))
}

pub(super) fn read_record(root: &Root, id: &ReleaseId) -> Result<Option<Record>, Failure> {
    records::read(root, id).map_err(|error| failure::io("read", layout::record(id), &error))
}

pub(super) fn save(root: &Root, record: &Record) -> Result<(), Failure> {
    records::write(root, record).map_err(|error| failure::io("write", layout::record(&record.release.id), &error))
}

pub(super) fn save_whole(root: &Root, record: &Record) -> Result<(), Failure> {
    records::write_whole(root, record).map_err(|error| failure::io("write", layout::record(&record.release.id), &error))
}

/// The command as it is kept for a later revert: complete in itself, and without variables that may be secret.
pub(super) fn recordable(exec: &Exec, helper: &Helper) -> Command {
    let env: Vec<(String, String)> = exec.env.iter().filter(|(key, _)| key.starts_with("DEPLOYER_")).cloned().collect();
    let another_user = exec.user.as_ref().is_some_and(|user| *user != helper.user.name);
    if !another_user && env.is_empty() {
        return exec.command.clone();
    }
    let bare = Exec { env: env.clone(), ..exec.clone() };
    match exec::argv(&bare, &helper.user) {
        Ok(argv) if another_user => Command::Argv(argv),
        Ok(argv) => {
            let variables = env.into_iter().map(|(key, value)| format!("{key}={value}"));
            Command::Argv(std::iter::once("/usr/bin/env".to_owned()).chain(variables).chain(argv).collect())
        }
        Err(_) => exec.command.clone(),
    }
}

/// The check as it is kept for a later revert: without variables that may be secret.
pub(super) fn recordable_check(check: &Check) -> Check {
    let mut check = check.clone();
    if let Probe::Run(exec) = &mut check.probe {
        exec.env.retain(|(key, _)| key.starts_with("DEPLOYER_"));
    }
    check
}

/// Appends a line in Capistrano's format to the log that people and other tools read.
pub(super) fn log_revision(root: &Root, by: &str, record: &Record, again: bool) -> io::Result<()> {
    let shown = |text: &str| Shown(text.as_bytes()).to_string();
    let (by, id) = (shown(by), &record.release.id);
    let line = if again {
        format!("{by} rolled back to release {id}\n")
    } else {
        let reference = shown(record.release.reference.as_deref().unwrap_or("unknown"));
        let commit = shown(record.release.commit.as_deref().unwrap_or("unknown"));
        format!("Branch {reference} (at {commit}) deployed as release {id} by {by}\n")
    };
    let mut file = root.dir.open_append(layout::REVISIONS_LOG, 0o644)?;
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_are_noted_at_once_are_one_history() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path().to_str().unwrap()).unwrap();
        let run = crate::op::RunInfo { run: "r".into(), by: "ada".into(), what: "deploying".into(), since: 0 };
        let lock = crate::lock::acquire(&root, &run).unwrap().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| note_begun(&root, &lock, "built", &"b".parse().unwrap(), None).unwrap()));
            }
        });
        let sequences: Vec<u64> = journal::read(&root).unwrap().iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=200).collect::<Vec<u64>>());
    }
}
