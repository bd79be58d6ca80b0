//! From an op to the function that does it: what needs the lock, what may run beside others, what writes a stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::activate::{self, Verdict};
use crate::exec::{self, Output};
use crate::helper::Helper;
use crate::lock;
use crate::op::{Adopt, Adopted, Answer, Check, Code, Exec, Exited, Failure, LockState, Locked, Op, RunInfo, Setup};
use crate::pipe::{Closed, Request, hold};
use crate::release::{Record, ReleaseId, State, layout};
use crate::root::Root;
use crate::wire::{FrameKind, GRACE_MS};
use crate::{adopt, cache, facts, failure, freeze, health, probe, process, processes, records, recover, setup, store, user};

/// The step under whose name a build's output is kept.
const BUILD: &str = "build";
/// What a build that was asked to stop gets, and the time that KILL takes to be noticed.
const UNLOCK_PATIENCE: Duration = Duration::from_millis(GRACE_MS + 3000);

/// Whether an op must wait for the others that change the host. A build takes long, and changes only its own release.
pub fn changes_the_host(op: &Op) -> bool {
    match op {
        Op::Facts
        | Op::Build { .. }
        | Op::Exec(_)
        | Op::Manifest { .. }
        | Op::Verify { .. }
        | Op::Probe { .. }
        | Op::Capture { .. }
        | Op::Give { .. }
        | Op::Check(_)
        | Op::Hook { .. }
        | Op::LockState
        | Op::EndRun { .. }
        | Op::Processes
        // Caches have a lock of their own, and completing one keeps nobody waiting.
        | Op::Compare(_)
        | Op::Supply { .. }
        | Op::Gather { .. }
        | Op::Fetch { .. }
        | Op::Clear { .. }
        | Op::Door { .. } => false,
        Op::Adopt(adopt) => !adopt.check,
        Op::Lock(_)
        | Op::Unlock
        | Op::Setup(_)
        | Op::Begin(_)
        | Op::Content(_)
        | Op::Link(_)
        | Op::Seal { .. }
        | Op::Fail { .. }
        | Op::Activate(_)
        | Op::Confirm { .. }
        | Op::Revert { .. }
        | Op::Prune { .. }
        | Op::Hold(_)
        | Op::Lift { .. }
        | Op::Remove => true,
    }
}

/// Whether an op's stream carries something to the controller.
pub fn writes_a_stream(op: &Op) -> bool {
    match op {
        Op::Build { .. }
        | Op::Exec(_)
        | Op::Activate(_)
        | Op::Revert { .. }
        | Op::Manifest { .. }
        | Op::Capture { .. }
        | Op::Give { .. }
        | Op::Check(_)
        | Op::Hook { .. }
        | Op::Compare(_)
        | Op::Gather { .. }
        | Op::Fetch { .. }
        | Op::Door { .. } => true,
        Op::Facts
        | Op::Lock(_)
        | Op::Unlock
        | Op::Setup(_)
        | Op::Begin(_)
        | Op::Content(_)
        | Op::Link(_)
        | Op::Seal { .. }
        | Op::Fail { .. }
        | Op::Confirm { .. }
        | Op::Prune { .. }
        | Op::Verify { .. }
        | Op::Probe { .. }
        | Op::LockState
        | Op::Hold(_)
        | Op::Lift { .. }
        | Op::EndRun { .. }
        | Op::Processes
        | Op::Adopt(_)
        | Op::Remove
        | Op::Supply { .. }
        | Op::Clear { .. } => false,
    }
}

/// Does what is asked.
pub fn answer(helper: &Helper, request: &Request, op: Op) -> Result<Answer, Failure> {
    if request.is_stopped() {
        return Err(failure::new(Code::Stopped, "stopped before it began"));
    }
    match op {
        Op::Facts => Ok(Answer::Facts(Box::new(facts::read(helper)))),
        Op::Lock(run) => take_lock(helper, request, &run).map(Answer::Locked),
        Op::Unlock => unlock(helper).map(|()| Answer::Done),
        Op::Setup(wanted) => set_up(helper, &wanted),
        Op::Begin(begin) => {
            helper.locked()?;
            let gid = begin.group.as_deref().map(|name| user::group_id(&helper.children, name)).transpose()?;
            let root = helper.root()?;
            let answer = store::begin(&root, &helper.memory, &begin, gid, request.input()).map(Answer::Begun)?;
            helper.spare_is_due.store(store::is_worth_a_spare(&root, &begin.release.id), Ordering::Relaxed);
            Ok(answer)
        }
        Op::Content(content) => {
            helper.locked()?;
            store::content(&helper.root()?, &helper.memory, &content, request.input(), &|done| request.progress(done)).map(Answer::Written)
        }
        Op::Link(links) => {
            helper.locked()?;
            store::link(&helper.root()?, &helper.memory, &links).map(|()| Answer::Done)
        }
        Op::Build { release, exec } => build(helper, request, &release, &exec).map(Answer::Exited),
        Op::Seal { release, durable } => {
            helper.locked()?;
            store::seal(&helper.root()?, &helper.memory, &release, durable).map(|at| Answer::Sealed { at })
        }
        Op::Fail { release, reason } => fail(helper, &release, &reason).map(|()| Answer::Done),
        Op::Activate(op) => activate::activate(helper, &*helper.locked()?, &op, request).map(Answer::Activated),
        Op::Confirm { release } => activate::confirm(helper, &*helper.locked()?, &release).map(|()| Answer::Done),
        Op::Revert { release, reason, bad } => {
            let verdict = if bad { Verdict::Bad(reason) } else { Verdict::PutBack(reason) };
            let lock = helper.locked()?;
            let mut output = Output::to(request);
            activate::put_back(helper, &helper.root()?, &lock, &release, &verdict, &mut output).map(Answer::Activated)
        }
        Op::Prune { keep, only } => prune(helper, keep, only.as_ref()),
        Op::Exec(exec) => {
            let mut output = Output::to(request);
            helper.run(&exec, vec![helper.mark()], false, &mut output).map(Answer::Exited)
        }
        Op::Manifest { release } => {
            let bytes = store::manifest(&helper.root()?, &release)?;
            request.send(FrameKind::Data, &bytes).map_err(stopped)?;
            Ok(Answer::Done)
        }
        Op::Verify { release } => {
            let (differences, files) = store::verify(&helper.root()?, &release)?;
            Ok(Answer::Verified { differences, files })
        }
        Op::Door { door } => helper.doors.carry(door, request).map(|()| Answer::Done),
        Op::Probe { paths } => Ok(Answer::Probed { paths: paths.iter().map(|path| probe::look(&helper.root_path, path)).collect() }),
        // Whatever serves was started at some time, and has stayed up since.
        Op::Check(check) => health::check(helper, &Check { stay_up_ms: 0, ..check }, 0, &mut Output::to(request)).map(Answer::Checked),
        Op::Hook { name, release, exec } => hook(helper, request, &name, &release, &exec).map(Answer::Exited),
        Op::LockState => Ok(Answer::LockState(helper.root().map_or_else(|_| LockState::default(), |root| lock::state(&root)))),
        Op::Hold(hold) => freeze::hold(&helper.root()?, &hold),
        Op::Lift { id } => freeze::lift(&helper.root()?, &id),
        Op::Processes => processes::look(&helper.root()?).map(Answer::Processes),
        Op::Adopt(wanted) => adopt(helper, &wanted).map(Answer::Adopted),
        Op::Remove => {
            helper.locked()?;
            adopt::remove(&helper.root()?).map(|()| Answer::Done)
        }
        Op::EndRun { run, by } => freeze::end_run(&helper.root()?, &run, &by, request),
        Op::Compare(op) => cache::compare(helper, &helper.begun, request, &op).map(Answer::Compared),
        Op::Supply { directory, size } => cache::supply(helper, &helper.begun, request, &directory, size).map(Answer::Written),
        Op::Gather { directory, digests } => cache::gather(helper, request, &directory, digests).map(|()| Answer::Done),
        Op::Fetch { directory, size } => cache::fetch(request, &directory, size).map(|()| Answer::Done),
        Op::Clear { directory } => cache::clear(helper, &directory).map(|()| Answer::Done),
        Op::Capture { release } => {
            let (bytes, captured) = store::capture(&helper.root()?, &release, &|| request.is_stopped())?;
            request.send(FrameKind::Data, &bytes).map_err(stopped)?;
            Ok(Answer::Captured(captured))
        }
        Op::Give { release, files } => store::give(&helper.root()?, &release, &files, request.output()).map(|()| Answer::Done),
    }
}

fn adopt(helper: &Helper, wanted: &Adopt) -> Result<Adopted, Failure> {
    let lock = if wanted.check { None } else { Some(helper.locked()?) };
    adopt::adopt(&helper.root()?, lock.as_deref(), wanted)
}

fn stopped(_: Closed) -> Failure {
    failure::new(Code::Stopped, "stopped while it was sent")
}

fn take_lock(helper: &Helper, request: &Request, run: &RunInfo) -> Result<Locked, Failure> {
    if let Some(lock) = hold(&helper.lock).as_ref() {
        return if lock.run.run == run.run {
            Ok(Locked::Yes { epoch: lock.epoch, recovered: Vec::new() })
        } else {
            Err(failure::new(Code::Refused, format!("this connection holds the lock for run `{}`", lock.run.run)))
        };
    }
    let root = helper.root()?;
    let lock = match lock::acquire(&root, run)? {
        Ok(lock) => Arc::new(lock),
        Err(refused) => return Ok(refused),
    };
    // What recovery runs again carries this run's name, so the lock has to be in its place first.
    *hold(&helper.lock) = Some(Arc::clone(&lock));
    match recover::run(helper, &root, &lock, request) {
        Ok(recovered) => Ok(Locked::Yes { epoch: lock.epoch, recovered }),
        Err(failure) => {
            *hold(&helper.lock) = None;
            Err(failure)
        }
    }
}

/// A build that was asked to stop may take its grace for it, and the lock is not free before it has ended: a run that was interrupted
/// leaves nothing that the next one meets.
fn unlock(helper: &Helper) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let mut held = hold(&helper.lock);
        let Some(lock) = held.take() else { return Ok(()) };
        match Arc::try_unwrap(lock) {
            Ok(lock) => {
                drop(held);
                lock::release(&helper.root()?, lock);
                return Ok(());
            }
            Err(lock) => *held = Some(lock),
        }
        drop(held);
        if began.elapsed() > UNLOCK_PATIENCE {
            return Err(failure::new(Code::Refused, "the lock is in use: a build is running"));
        }
        thread::sleep(process::TICK);
    }
}

/// The lock lies in what setup makes, so only a host that was set up before can be locked for it.
fn set_up(helper: &Helper, wanted: &Setup) -> Result<Answer, Failure> {
    let has_control = Root::open(&helper.root_path).is_ok_and(|root| root.has_control().unwrap_or(false));
    if !wanted.check && has_control {
        helper.locked()?;
    }
    setup::set_up(helper, wanted).map(Answer::SetUp)
}

fn fail(helper: &Helper, release: &ReleaseId, reason: &str) -> Result<(), Failure> {
    let (lock, root) = (helper.locked()?, helper.root()?);
    store::fail(&root, release, reason)?;
    activate::note(&root, &lock, "failed", Some(release), None, Some(reason.to_owned()))
}

fn prune(helper: &Helper, keep: u32, only: Option<&ReleaseId>) -> Result<Answer, Failure> {
    let (lock, root) = (helper.locked()?, helper.root()?);
    let (removed, kept) = store::prune(&root, keep, only)?;
    for release in &removed {
        activate::note(&root, &lock, "pruned", Some(release), None, None)?;
    }
    Ok(Answer::Pruned { removed, kept })
}

/// Builds a release in its own directory. What a dead helper's build left running there is ended first.
fn build(helper: &Helper, request: &Request, release: &ReleaseId, exec: &Exec) -> Result<Exited, Failure> {
    let (lock, root) = (helper.locked()?, helper.root()?);
    let record = records::read(&root, release).map_err(|error| failure::io("read", layout::record(release), &error))?;
    let record = record.ok_or_else(|| failure::new(Code::NotFound, format!("`{release}` is not a release of this host")))?;
    match record.state {
        State::Uploaded | State::Building => {}
        State::Uploading | State::Sealed | State::Active | State::Confirmed | State::Retired | State::Failed | State::Bad => {
            return Err(failure::new(Code::Refused, format!("release `{release}` cannot be built: it is not freshly uploaded")));
        }
    }
    if let (count, false) = exec::end_builds(&root, release)? {
        return Err(failure::new(Code::Refused, format!("{count} processes of an earlier build of `{release}` cannot be ended")));
    }
    let path = layout::log(release, BUILD);
    let log = open_log(&root, release, &path).map_err(|error| failure::io("write", &path, &error))?;
    write(&root, &Record { state: State::Building, ..record })?;
    activate::note_begun(&root, &lock, "build-started", release, None)?;
    let marks = vec![helper.mark(), exec::build_mark(&root, release)?];
    let mut output = Output::to_both(request, log);
    let scratch = layout::scratch(release);
    let began = clear_scratch(&root, &scratch).and_then(|()| root.dir.make_dirs(&scratch, 0o700).map(drop));
    began.map_err(|error| failure::io("make", &scratch, &error))?;
    let result = helper.run(exec, marks, false, &mut output);
    // What stays is swept by whoever takes the lock next.
    let _ = clear_scratch(&root, &scratch).and_then(|()| root.dir.empty_trash());
    let why = match &result {
        Ok(exited) if exited.is_success() => None,
        Ok(exited) => Some(format!("the build ended with {:?}", exited.end)),
        Err(failure) => Some(failure.message.clone()),
    };
    if let Some(why) = &why {
        store::fail(&root, release, why)?;
    }
    let what = if why.is_none() { "built" } else { "build-failed" };
    activate::note(&root, &lock, what, Some(release), None, why)?;
    result
}

/// Runs a command that nobody may assume to be harmless when it is run twice: the history says that it began, and how it ended.
fn hook(helper: &Helper, request: &Request, name: &str, release: &ReleaseId, exec: &Exec) -> Result<Exited, Failure> {
    let (lock, root) = (helper.locked()?, helper.root()?);
    activate::note(&root, &lock, "hook-started", Some(release), None, Some(name.to_owned()))?;
    let result = helper.run(exec, vec![helper.mark()], false, &mut Output::to(request));
    let how = match &result {
        Ok(exited) if exited.is_success() => name.to_owned(),
        Ok(exited) => format!("{name}: {:?}", exited.end),
        Err(failure) => format!("{name}: {}", failure.message),
    };
    activate::note(&root, &lock, "hook-ended", Some(release), None, Some(how))?;
    result
}

fn clear_scratch(root: &Root, scratch: &str) -> io::Result<()> {
    match root.dir.trash(scratch) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_log(root: &Root, release: &ReleaseId, path: &str) -> io::Result<std::fs::File> {
    root.dir.make_dirs(format!("{}/{release}", layout::LOGS), 0o700)?;
    let log = root.dir.open_append(path, 0o600)?;
    // A second build of the same release replaces the log of the first.
    log.set_len(0)?;
    Ok(log)
}

fn write(root: &Root, record: &Record) -> Result<(), Failure> {
    records::write(root, record).map_err(|error| failure::io("write", layout::record(&record.release.id), &error))
}
