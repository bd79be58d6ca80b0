//! The local session: the same command line, given to a child process on this machine.

use std::process::Stdio;
use std::time::Duration;

use super::process::{self, Group};
use super::{Diagnostics, Pipe, SessionError};
use crate::wire::GRACE_MS;

/// Starts `/bin/sh -c <command>` as sshd would.
pub(super) fn open(command: &str) -> Result<Pipe, SessionError> {
    let mut shell = process::command("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A helper whose stdin ended still ends its build and lets its lock go; killing it at once would leave both behind.
    pipe(shell, "/bin/sh", Duration::from_millis(2 * GRACE_MS), Diagnostics::new(None))
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
