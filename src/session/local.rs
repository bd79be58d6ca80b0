//! The local session: the same command line, given to a child process on this machine.
//!
//! For tests of many hosts a host of this machine can be as far away as a real one: `DEPLOYER_LOCAL_DELAY=20ms` lets every byte of a
//! local session arrive that much later, each way.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::process::{self, Group};
use super::{Diagnostics, Pipe, SessionError};
use crate::config::quantity;
use crate::wire::GRACE_MS;

/// Bytes that are on their way in one piece, and pieces.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 64;

/// Starts `/bin/sh -c <command>` as sshd would.
pub(super) fn open(command: &str) -> Result<Pipe, SessionError> {
    let mut shell = process::command("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A helper whose stdin ended still ends its build and lets its lock go; killing it at once would leave both behind.
    let pipe = pipe(shell, "/bin/sh", Duration::from_millis(2 * GRACE_MS), Diagnostics::new(None))?;
    let delay = std::env::var("DEPLOYER_LOCAL_DELAY").ok().and_then(|text| quantity::duration(&text).ok());
    Ok(match delay.filter(|delay| !delay.is_zero()) {
        Some(delay) => distant(pipe, delay),
        None => pipe,
    })
}

/// Puts a way between both ends of a pipe.
fn distant(pipe: Pipe, delay: Duration) -> Pipe {
    let Pipe { reader, mut writer, diagnostics, owner } = pipe;
    let (ours, theirs) = duplex(PIECE);
    tokio::spawn(async move {
        let mut arriving = travelling(ours, delay);
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            if writer.write_all(&bytes).await.and(writer.flush().await).is_err() {
                return;
            }
        }
    });
    let (mut told, answers): (DuplexStream, DuplexStream) = duplex(PIECE);
    tokio::spawn(async move {
        let mut arriving = travelling(reader, delay);
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            if told.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    Pipe { reader: Box::new(answers), writer: Box::new(theirs), diagnostics, owner }
}

/// Reads what sets out, and when each piece of it arrives. It ends when the last piece has.
fn travelling(mut from: impl AsyncRead + Send + Unpin + 'static, delay: Duration) -> mpsc::Receiver<(Instant, Vec<u8>)> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            if sender.send((Instant::now() + delay, piece[..count].to_vec())).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Starts a command whose stdin and stdout are the pipe.
pub(super) fn pipe(
    command: tokio::process::Command,
    program: &str,
    patience: Duration,
    diagnostics: Diagnostics,
) -> Result<Pipe, SessionError> {
    let failed = |why: String| SessionError::Program { program: program.to_owned(), why };
    let mut group = Group::spawn(command, patience).map_err(|error| failed(error.to_string()))?;
    let child = group.child().ok_or_else(|| failed("it ended at once".to_owned()))?;
    let (Some(writer), Some(reader), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(failed("it has no pipes".to_owned()));
    };
    tokio::spawn(diagnostics.clone().gather(stderr));
    Ok(Pipe { reader: Box::new(reader), writer: Box::new(writer), diagnostics, owner: Box::new(group) })
}
