//! The one place that starts commands: what surrounds them (environment, umask, directory, session, network), how long they may
//! take, how much they may print, and that nothing of them is left when they ended.

mod command;
mod entrance;
mod output;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

pub use command::argv;
pub use entrance::hand_over;
pub use output::Output;

use command::{environment, hint, isolated, oom_kills, startable, sudo_failure, unstartable};
use entrance::Entrance;

use crate::doors::Doors;
use crate::failure;
use crate::fs::Dir;
use crate::op::{End, Exec, Exited, Failure};
use crate::pipe::hold;
use crate::process::{self, Children, Ending, TICK};
use crate::release::{ReleaseId, layout};
use crate::root::Root;
use crate::user::User;
use crate::wire::{FrameKind, GRACE_MS};

/// How long a command's pipes are read after its leader ended: a background process may hold them for ever.
const AFTER_LEADER: Duration = Duration::from_secs(1);
/// How often a command that waits for the peer's credit looks at its clock.
const LOOK: Duration = Duration::from_millis(50);

/// How long a small program of the system may take to answer, and how much it may say.
const ASKED: Duration = Duration::from_secs(5);
const ANSWER: usize = 1024 * 1024;

/// Marks the processes of a build, so that a later helper finds those that a dead one left. The whole path, because two roots may
/// have a release of one name.
pub fn build_mark(root: &Root, release: &ReleaseId) -> Result<(String, String), Failure> {
    let path = root.real_path().map_err(|error| failure::io("find", &root.path, &error))?;
    Ok(("DEPLOYER_BUILD".into(), format!("{}/{}", String::from_utf8_lossy(&path), layout::release(release))))
}

/// Ends what is left of a release's build. Says how many processes there were, and whether all are gone.
pub fn end_builds(root: &Root, release: &ReleaseId) -> Result<(u32, bool), Failure> {
    let (key, value) = build_mark(root, release)?;
    Ok(process::end_marked(&format!("{key}={value}"), Duration::from_millis(GRACE_MS)))
}

/// A command and where it runs.
pub struct Job<'a> {
    pub exec: &'a Exec,
    pub user: &'a User,
    pub children: &'a Children,
    pub doors: &'a Doors,
    pub run: &'a str,
    /// Held open, so that no link can lead elsewhere between the check and the start. None: the user's home.
    pub directory: Option<Dir>,
    /// Entries beside those of `exec.env`: `KEY=value`.
    pub marks: Vec<(String, String)>,
    /// Whether processes that go on after a success stay: an activation may start the server itself.
    pub keep: bool,
}

/// Runs a command to its end, whatever that is.
pub fn run(job: &Job<'_>, output: &mut Output<'_>) -> Result<Exited, Failure> {
    let argv = argv(job.exec, job.user)?;
    let env = environment(job)?;
    let isolated = isolated(job)?;
    startable(&argv, job)?;
    let began = Instant::now();
    let oom_before = oom_kills();
    let (out, out_writer) = pipe().map_err(|error| unstartable(&argv, &error))?;
    let (err, err_writer) = pipe().map_err(|error| unstartable(&argv, &error))?;
    // Before the start: without it nobody would see the end of what runs.
    let wake = pipe().map_err(|error| unstartable(&argv, &error))?;
    let mut entrance = Entrance::of(job.exec.network).map_err(|error| unstartable(&argv, &error))?;
    let mut process = program("/proc/self/exe");
    process
        .args(["isolate", &format!("{:o}", job.exec.umask & 0o777), if isolated { "blocked" } else { "host" }])
        .arg(if entrance.is_some() { "door" } else { "-" })
        .args(&argv)
        .env_clear()
        .envs(env)
        .stdin(entrance.as_mut().and_then(Entrance::stdin).map_or_else(Stdio::null, Stdio::from))
        .stdout(out_writer)
        .stderr(err_writer);
    match &job.directory {
        Some(directory) => process.current_dir(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd())),
        // A user without a home, as services often are, still has commands to run.
        None => process.current_dir(job.user.home.as_deref().filter(|home| Dir::open_absolute(home).is_ok()).unwrap_or("/")),
    };
    let child = job.children.spawn(&mut process).map_err(|error| unstartable(&argv, &error))?;
    // The command's own copies of the writers went with it; ours would keep the pipes open for ever.
    drop(process);
    let mark = job.mark();
    // Open until the command and everything of it has ended.
    let _door = entrance.and_then(|entrance| entrance.open(job.doors));
    let mut running = Running { job, leader: Leader::watch(child, wake), mark, out: Some(out), err: Some(err), began, heard: began };
    let (end, leftovers) = running.follow(output);
    job.children.ended(running.leader.pid);
    output.finish();
    if let Some(failure) = sudo_failure(job, &argv, end, &output.error_head) {
        return Err(failure);
    }
    Ok(Exited {
        end,
        output_bytes: output.total,
        dropped_bytes: output.dropped,
        leftovers,
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        isolated,
        hint: hint(end, oom_before, output.log_error.as_ref()),
    })
}

impl Job<'_> {
    /// The entry of the environment that all processes of this job carry, and no other's.
    fn mark(&self) -> String {
        let (key, value) = self.marks.first().map_or(("DEPLOYER_RUN", self.run), |(key, value)| (key, value));
        format!("{key}={value}")
    }
}

/// A command that was started.
struct Running<'a> {
    job: &'a Job<'a>,
    leader: Leader,
    mark: String,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    began: Instant,
    heard: Instant,
}

impl Running<'_> {
    /// Reads output until the command has ended and nothing of it is left. Says how it ended and how many processes outlived it.
    fn follow(&mut self, output: &mut Output<'_>) -> (End, u32) {
        let end = loop {
            if let Some(end) = self.verdict(output) {
                break end;
            }
            self.read(output, false);
        };
        let led = u32::from(self.leader.ended().is_none());
        if self.job.keep && end == End::Code(0) {
            self.job.children.keep(self.there());
            return (end, 0);
        }
        let mut ending = Ending::begin(Duration::from_millis(GRACE_MS));
        while !ending.step(&self.there()) {
            self.read(output, true);
        }
        (end, ending.count().saturating_sub(led))
    }

    fn there(&self) -> Vec<i32> {
        self.job.children.of(self.leader.pid, &self.mark)
    }

    /// Says how the command ended, if it did or must.
    fn verdict(&self, output: &Output<'_>) -> Option<End> {
        let over = |since: Instant, limit: u64| limit > 0 && since.elapsed() >= Duration::from_millis(limit);
        if let Some((status, at)) = self.leader.ended() {
            let silent = self.out.is_none() && self.err.is_none();
            return (silent || at.elapsed() >= AFTER_LEADER || output.is_stopped()).then(|| end_of(status));
        }
        if output.is_stopped() {
            return Some(End::Stopped);
        }
        if over(self.began, self.job.exec.timeout_ms) {
            return Some(End::TimedOut);
        }
        over(self.heard, self.job.exec.idle_timeout_ms).then_some(End::Idle)
    }

    /// Waits a little for output, and takes it. A command that is being ended is read without credit, or it could not end.
    fn read(&mut self, output: &mut Output<'_>, ending: bool) {
        let limit = if ending { 0 } else { self.job.exec.output_limit };
        let room = if output.total >= limit { u64::MAX } else { output.room(LOOK) };
        if room == 0 {
            // It is the peer that is slow, not the command.
            self.heard = Instant::now();
            return;
        }
        let timeout = if ending { TICK } else { self.patience() };
        let [out, err] = self.readable(timeout);
        for (ready, kind) in [(out, FrameKind::Data), (err, FrameKind::DataErr)] {
            let pipe = if kind == FrameKind::Data { &mut self.out } else { &mut self.err };
            let Some(fd) = pipe.as_ref().filter(|_| ready) else { continue };
            let mut buffer = [0; 16 * 1024];
            let most = usize::try_from(room / 2).unwrap_or(usize::MAX).clamp(1, buffer.len());
            match rustix::io::read(fd, &mut buffer[..most]) {
                Ok(0) => *pipe = None,
                Ok(count) => {
                    self.heard = Instant::now();
                    output.take(kind, &buffer[..count], limit);
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => *pipe = None,
            }
        }
    }

    /// How long nothing can change but by output, the leader's end or a stop.
    fn patience(&self) -> Duration {
        let left = |since: Instant, limit: u64| {
            if limit == 0 { Duration::MAX } else { Duration::from_millis(limit).saturating_sub(since.elapsed()) }
        };
        let exec = self.job.exec;
        left(self.began, exec.timeout_ms).min(left(self.heard, exec.idle_timeout_ms)).min(LOOK).max(Duration::from_millis(1))
    }

    /// Waits for output on either pipe or the leader's end.
    fn readable(&self, timeout: Duration) -> [bool; 2] {
        let wake = self.leader.wake.as_fd();
        let at_end = self.leader.ended().is_some();
        let fds = [self.out.as_ref().map(AsFd::as_fd), self.err.as_ref().map(AsFd::as_fd), (!at_end).then_some(wake)];
        let watched: Vec<(usize, BorrowedFd<'_>)> = fds.into_iter().enumerate().filter_map(|(which, fd)| Some((which, fd?))).collect();
        let mut polled: Vec<PollFd<'_>> = watched.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut ready = [false; 3];
        if poll(&mut polled, Some(&timeout)).is_ok() {
            for ((which, _), fd) in watched.iter().zip(&polled) {
                ready[*which] = !fd.revents().is_empty();
            }
        }
        [ready[0], ready[1]]
    }
}

/// The first process of a command. A thread waits for it, because no other way works on every kernel.
struct Leader {
    pid: i32,
    status: Arc<Mutex<Option<(ExitStatus, Instant)>>>,
    /// Readable when the status is there.
    wake: OwnedFd,
}

impl Leader {
    fn watch(mut child: Child, (wake, waker): (OwnedFd, OwnedFd)) -> Self {
        let pid = child.id().cast_signed();
        let status = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&status);
        thread::spawn(move || {
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(255 << 8));
            *hold(&seen) = Some((status, Instant::now()));
            drop(waker);
        });
        Self { pid, status, wake }
    }

    fn ended(&self) -> Option<(ExitStatus, Instant)> {
        *hold(&self.status)
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Code(255),
    }
}

/// Describes a child process, whoever starts it: the one place where that begins.
#[expect(clippy::disallowed_methods, reason = "the place that all others use")]
pub fn program(path: impl AsRef<OsStr>) -> Process {
    Process::new(path)
}

/// Runs a small program of the system and reads what it prints. None if it fails in any way, or takes longer than anybody waits: a
/// name service that hangs must not hang the helper.
pub fn ask(children: &Children, argv: &[&str]) -> Option<Vec<u8>> {
    ask_within(children, argv, ASKED)
}

fn ask_within(children: &Children, argv: &[&str], limit: Duration) -> Option<Vec<u8>> {
    let environment = [("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"), ("LANG", "C.UTF-8")];
    ask_with(children, argv, environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into(), limit)
}

/// Asks as `ask` does, with an environment and a limit of one's own.
pub fn ask_with(children: &Children, argv: &[&str], environment: Vec<(String, String)>, limit: Duration) -> Option<Vec<u8>> {
    let until = Instant::now() + limit;
    let mut process = program(argv.first()?);
    process.args(argv.get(1..)?).env_clear().envs(environment).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A group of its own, so that what it started ends with it.
    process.process_group(0);
    let mut child = children.spawn(&mut process).ok()?;
    let pid = child.id().cast_signed();
    let end = || Pid::from_raw(pid).map(|group| kill_process_group(group, Signal::KILL));
    let answer = child.stdout.take().and_then(|out| read_until(&out, until));
    if answer.is_none() {
        let _ = end();
    }
    let status = ended_by(&mut child, until);
    if status.is_none() {
        let _ = end();
    }
    children.ended(pid);
    answer.filter(|_| status.is_some_and(|status| status.success()))
}

/// Reads a pipe to its end. None if that does not come in time, or only after more than any answer is.
fn read_until(out: impl AsFd, until: Instant) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while bytes.len() < ANSWER {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).ok()?, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        match rustix::io::read(&out, &mut buffer) {
            Ok(0) => return Some(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Waits for a process that has closed its output: it ends at once, or hangs.
fn ended_by(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_system_that_hangs_is_ended_with_what_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let children = Children::default();
        let began = Instant::now();
        for (text, limit) in [("echo $$; exec sleep 600", 300), ("exec >&-; sleep 600", 300), ("sleep 600 & echo $! >>$0", 300)] {
            let argv = ["/bin/sh", "-c", &format!("echo $$ >>$0; {text}"), pids.to_str().unwrap()];
            assert_eq!(ask_within(&children, &argv, Duration::from_millis(limit)), None, "{text}");
        }
        assert!(began.elapsed() < Duration::from_secs(60));
        let pids = String::from_utf8(Dir::open_absolute(directory.path().to_str().unwrap()).unwrap().read("pids", 100).unwrap()).unwrap();
        assert_eq!(pids.lines().count(), 4);
        for pid in pids.lines() {
            let gone = || {
                let stat = String::from_utf8(process::read(&format!("/proc/{pid}/stat")).unwrap_or_default()).unwrap();
                stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
            };
            while !gone() {
                assert!(began.elapsed() < Duration::from_secs(60), "{pid} is there");
                thread::sleep(TICK);
            }
        }
        assert_eq!(ask(&children, &["echo", "well"]).as_deref(), Some(&b"well\n"[..]));
        assert_eq!(ask(&children, &["false"]), None);
    }
}
