//! What stands between this machine and the host: a proxy command or a jump, as a child whose stdin and stdout are the session's socket.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use super::super::process::{self, Group};
use super::super::ssh_config::Proxy;
use super::super::{Diagnostics, Opener, SessionError, openssh};

/// A proxy under way, and what it says.
pub(super) struct Running {
    diagnostics: Diagnostics,
    _group: Group,
}

impl Running {
    /// Lets the proxy speak for a session that failed before it was let in: it knows better why.
    pub async fn explain(&self, error: SessionError) -> SessionError {
        match error {
            SessionError::Reset { address, doing, why } | SessionError::Other { address, doing, why } => {
                if let Some(verdict) = self.diagnostics.verdict().await {
                    return verdict;
                }
                let said = self.diagnostics.lines(3).join("; ");
                let why = if said.is_empty() { format!("{why}, through a proxy") } else { format!("{why}; the proxy says: {said}") };
                SessionError::Reset { address, doing, why }
            }
            other => other,
        }
    }
}

/// Starts the proxy; the socket leads to the host.
pub(super) fn spawn(proxy: &Proxy, opener: &Opener) -> Result<(UnixStream, Running), SessionError> {
    let (program, mut command, diagnostics) = match proxy {
        Proxy::Command { command: text, .. } => {
            let mut shell = process::command("/bin/sh");
            shell.arg("-c").arg(format!("exec {text}"));
            ("/bin/sh", shell, Diagnostics::new(None))
        }
        Proxy::Jump(hops) => {
            let mut command = process::command("ssh");
            command.args(openssh::jump(hops, &opener.config, opener)?);
            opener.equip(&mut command);
            ("ssh", command, Diagnostics::new(Some(openssh::judge(opener))))
        }
    };
    let started = UnixStream::pair().and_then(|(ours, theirs)| {
        let (stdin, stdout): (OwnedFd, OwnedFd) = (theirs.try_clone()?.into(), theirs.into());
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::piped());
        Ok((ours, Group::spawn(command, Duration::ZERO)?))
    });
    let (socket, mut group) = started.map_err(|error| SessionError::Program { program: program.to_owned(), why: error.to_string() })?;
    if let Some(stderr) = group.child().and_then(|child| child.stderr.take()) {
        tokio::spawn(diagnostics.clone().gather(stderr));
    }
    Ok((socket, Running { diagnostics, _group: group }))
}
