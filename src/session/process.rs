//! The one place that starts processes on the controller: in a group of their own, with nothing on stdin, and ended with their owner.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::diagnostics::Diagnostics;

/// What a process gets between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);

/// Prepares a command in its own process group (a Ctrl-C at the terminal is for `deployer` alone) with an empty stdin.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the place that all others use")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// It cannot be started, or it was not done by the deadline and was killed (`TimedOut`).
pub async fn capture(mut command: Command, deadline: Duration) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::spawn(command, Duration::ZERO)?;
    let child = group.child.take().ok_or_else(|| io::Error::other("the process is gone"))?;
    if let Ok(output) = tokio::time::timeout(deadline, child.wait_with_output()).await {
        return output;
    }
    kill(group.id, Signal::KILL);
    Err(io::ErrorKind::TimedOut.into())
}

/// How a process that was listened to came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    By(ExitStatus),
    /// It was not done by the deadline, and its group was killed.
    TimedOut,
    /// It printed more than anybody wants, and its group was killed.
    TooMuch,
}

/// What a process said until its end.
#[derive(Debug)]
pub struct Said {
    pub ended: Ended,
    pub stdout: Vec<u8>,
    pub stderr: Diagnostics,
}

/// Runs a command to its end, one way or the other, and keeps what it said: at most `most` bytes of stdout, and the end of stderr.
///
/// # Errors
/// It cannot be started, or its pipes fail.
pub async fn listen(mut command: Command, deadline: Duration, most: usize) -> io::Result<Said> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::spawn(command, Duration::ZERO)?;
    let gone = || io::Error::other("the process is gone");
    let mut child = group.child.take().ok_or_else(gone)?;
    let (out, err) = child.stdout.take().zip(child.stderr.take()).ok_or_else(gone)?;
    let stderr = Diagnostics::new(None);
    tokio::spawn(stderr.clone().gather(err));
    let mut stdout = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let work = async {
        let count = out.take(limit).read_to_end(&mut stdout).await?;
        if count > most { Ok(Ended::TooMuch) } else { child.wait().await.map(Ended::By) }
    };
    let ended = tokio::time::timeout(deadline, work).await.unwrap_or(Ok(Ended::TimedOut));
    if !matches!(ended, Ok(Ended::By(_))) {
        kill(group.id, Signal::KILL);
    }
    stderr.settle(Duration::from_secs(1)).await;
    Ok(Said { ended: ended?, stdout, stderr })
}

/// Runs a command to its end and gives what it prints as it comes: whether it is stderr, and bytes. When this is dropped, its group is
/// ended.
///
/// # Errors
/// It cannot be started, or its pipes fail.
pub async fn follow(mut command: Command, deadline: Duration, mut take: impl FnMut(bool, &[u8])) -> io::Result<Ended> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::spawn(command, Duration::ZERO)?;
    let id = group.id;
    let gone = || io::Error::other("the process is gone");
    let child = group.child().ok_or_else(gone)?;
    let (mut out, mut err) = child.stdout.take().zip(child.stderr.take()).ok_or_else(gone)?;
    let work = async {
        let (mut from_out, mut from_err) = (vec![0; 8192], vec![0; 8192]);
        let (mut out_is_open, mut err_is_open, mut status) = (true, true, None);
        loop {
            tokio::select! {
                count = out.read(&mut from_out), if out_is_open => match count? {
                    0 => out_is_open = false,
                    count => take(false, &from_out[..count]),
                },
                count = err.read(&mut from_err), if err_is_open => match count? {
                    0 => err_is_open = false,
                    count => take(true, &from_err[..count]),
                },
                ended = child.wait(), if status.is_none() => status = Some(ended?),
                // What it left running holds the pipes open, and is not waited for.
                () = tokio::time::sleep(GRACE), if status.is_some() => out_is_open = false,
                else => {}
            }
            if let Some(status) = status.filter(|_| !out_is_open) {
                return Ok(Ended::By(status));
            }
        }
    };
    let ended = tokio::time::timeout(deadline, work).await.unwrap_or(Ok(Ended::TimedOut));
    if !matches!(ended, Ok(Ended::By(_))) {
        kill(id, Signal::KILL);
    }
    ended
}

/// A child process and its group. When it is dropped, the group is ended: gently, then firmly.
#[derive(Debug)]
pub struct Group {
    child: Option<Child>,
    id: Option<Pid>,
    patience: Duration,
}

impl Group {
    /// Starts `command`. `patience` is how long the process may go on by itself after this value was dropped; a process with patience is
    /// not killed when `deployer` itself ends, since the end of its stdin tells it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(mut command: Command, patience: Duration) -> io::Result<Self> {
        let child = command.kill_on_drop(patience.is_zero()).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child: Some(child), id, patience })
    }

    /// The process, for its pipes.
    pub fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Once the leader was waited for, its number may belong to somebody else.
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        let (id, patience) = (self.id, self.patience);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(end(child, id, patience));
            }
            Err(_) if patience.is_zero() => kill(id, Signal::KILL),
            Err(_) => {}
        }
    }
}

async fn end(mut child: Child, id: Option<Pid>, patience: Duration) {
    for (signal, wait) in [(None, patience), (Some(Signal::TERM), GRACE), (Some(Signal::KILL), GRACE)] {
        if let Some(signal) = signal {
            kill(id, signal);
        }
        if wait.is_zero() {
            continue;
        }
        if tokio::time::timeout(wait, child.wait()).await.is_ok() {
            return;
        }
    }
}

fn kill(id: Option<Pid>, signal: Signal) {
    if let Some(id) = id {
        // The group may have ended by itself meanwhile, which is what is wanted.
        let _ = kill_process_group(id, signal);
    }
}
