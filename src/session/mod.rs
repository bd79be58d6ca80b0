//! Sessions: whatever opens a byte pipe to a host. Three of them give the same pipe: `ssh2` (in this process), `openssh` (the system's
//! `ssh` program) and `local` (a child on this machine). `bootstrap` puts a helper at the other end.
//!
//! The user's ssh configuration holds in both ssh sessions. What stands above it, always:
//! - host keys are strict: `StrictHostKeyChecking`, `NoHostAuthenticationForLocalhost` and `UpdateHostKeys` have no effect, the user's
//!   files of known hosts are read and never written, and `deployer`'s own file is read beside them (or, with pinned keys, none of them)
//! - no agent forwarding unless `-A` or `forward-agent` asks for it; no X11, port, socket or tunnel forwarding
//! - no `LocalCommand`, no `RemoteCommand`, no terminal on the host
//! - batch mode: nothing is asked, except at a terminal, once for all hosts, for a passphrase, a password or a code
//! - no new `ControlMaster`; one that is open already is used (but never with pinned keys)
//! - a connection has a timeout and is watched, with `ConnectTimeout` and `ServerAliveInterval` from the configuration where it has them
//! - the hosts of a `ProxyJump` are held to all of this too
//! - `SendEnv` and `SetEnv` mean nothing to what `deployer` runs: a command's environment is made by the helper

pub mod ask;
pub mod bootstrap;
pub mod diagnostics;
pub mod error;
mod gates;
pub mod known_hosts;
mod local;
mod needs;
mod openssh;
pub mod process;
mod ssh2;
pub mod ssh_config;
pub mod trust;

#[cfg(test)]
pub(crate) mod sshd;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::environment::{Connect, SessionKind, Target};

pub use diagnostics::Diagnostics;
pub use error::{ConnectError, HostKeyError, SessionError};
use ssh_config::{HostConfig, Proxy};

/// A command on a host, as two byte streams.
pub struct Pipe {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub diagnostics: Diagnostics,
    /// Ends the session when dropped.
    pub owner: Box<dyn Send>,
}

/// Opens a pipe to `command` on the target. The remote login shell is given the command as it is.
///
/// # Errors
/// The target cannot be reached, or one of the two sides does not accept the other.
pub async fn open(target: &Target, connect: &Connect, command: &str) -> Result<Pipe, SessionError> {
    Opener::prepare(target, connect).await?.open(command).await
}

/// Chooses what opens the pipe, and says why.
fn choose(target: &Target, connect: &Connect, config: &HostConfig) -> Result<(SessionKind, String), SessionError> {
    let refused = |why: String| Err(SessionError::Config { address: target.address.clone(), why });
    let told = |kind, although: Option<&String>| {
        let although = although.map_or(String::new(), |need| format!(", although {need}"));
        Ok((kind, format!("deploy.toml or a flag says so{although}")))
    };
    match (target.session.or(connect.session), &config.untranslated) {
        (Some(SessionKind::Local), _) => told(SessionKind::Local, None),
        (Some(SessionKind::Openssh), _) => told(SessionKind::Openssh, None),
        (Some(SessionKind::Ssh2), _) if connect.forward_agent => {
            refused("`-A` or `forward-agent` is what the `ssh2` session cannot do; leave `session` to `auto`, or set `openssh`".to_owned())
        }
        (Some(SessionKind::Ssh2), Some(why)) => refused(format!("{why}; leave `session` to `auto`, or set `openssh`")),
        (Some(SessionKind::Ssh2), None) => told(SessionKind::Ssh2, config.needs_ssh.as_ref()),
        (None, _) if connect.forward_agent => Ok((SessionKind::Openssh, "agent forwarding is asked for".to_owned())),
        (None, _) => Ok(match &config.needs_ssh {
            Some(need) => (SessionKind::Openssh, need.clone()),
            None => (SessionKind::Ssh2, "it does all that the ssh configuration asks for, at the least cost".to_owned()),
        }),
    }
}

/// Everything that is known of a target before it is connected to: checked names, and what the ssh configuration says.
#[derive(Clone, Debug)]
pub struct Opener {
    pub kind: SessionKind,
    pub reason: String,
    name: String,
    address: String,
    connect: Connect,
    config: HostConfig,
    /// The file of the keys that are pinned.
    pins: Option<Arc<NamedTempFile>>,
    askpass: Option<Arc<ask::Askpass>>,
}

impl Opener {
    /// Checks the names and asks the ssh configuration, once for any number of connections.
    ///
    /// # Errors
    /// A name that could be taken for something else, or a configuration that `ssh` refuses.
    pub async fn prepare(target: &Target, connect: &Connect) -> Result<Self, SessionError> {
        let opener = |kind, reason, config, pins| Self {
            kind,
            reason,
            name: target.name.clone(),
            address: target.address.clone(),
            connect: connect.clone(),
            config,
            pins,
            // Without it nobody is asked, which is what happens without a terminal too.
            askpass: if connect.ask { ask::Askpass::shared().ok() } else { None },
        };
        if target.name == "local" || target.session.or(connect.session) == Some(SessionKind::Local) {
            return Ok(opener(SessionKind::Local, "`local` is this machine".to_owned(), HostConfig::local(), None));
        }
        let mut config = ssh_config::resolve(target, connect).await?;
        let (kind, reason) = choose(target, connect, &config)?;
        let pins = trust::pin(&mut config, target, connect)?;
        Ok(opener(kind, reason, config, pins))
    }

    /// Opens one pipe.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open(&self, command: &str) -> Result<Pipe, SessionError> {
        match self.kind {
            SessionKind::Local => local::open(command),
            SessionKind::Openssh => openssh::open(self, command),
            SessionKind::Ssh2 => ssh2::open(self, command).await,
        }
    }

    /// Waits for its turn at the doors that this session shares with others.
    async fn enter(&self) -> gates::Permits {
        match self.kind {
            SessionKind::Local => gates::enter(&[]).await,
            SessionKind::Openssh | SessionKind::Ssh2 => gates::enter(&self.config.doors()).await,
        }
    }

    /// What is connected to, as whom, and at which port; nothing and 0 for this machine.
    #[must_use]
    pub fn place(&self) -> (&str, &str, u16) {
        (&self.config.hostname, &self.config.user, self.config.port)
    }

    /// What stands between this machine and the host, as it is written.
    #[must_use]
    pub fn via(&self) -> Option<String> {
        match self.config.proxy.as_ref()? {
            Proxy::Command { written, .. } => Some(written.clone()),
            Proxy::Jump(hops) => Some(hops.iter().map(|hop| hop.address.as_str()).collect::<Vec<_>>().join(",")),
        }
    }

    /// How long connecting may take.
    fn timeout(&self) -> Duration {
        self.config.connect_timeout.unwrap_or(self.connect.timeout)
    }

    /// Which hosts share answers with this one.
    fn scope(&self) -> ask::Scope {
        let way = match &self.config.proxy {
            None => String::new(),
            Some(Proxy::Command { written, .. }) => written.clone(),
            Some(Proxy::Jump(hops)) => hops.first().map(|hop| hop.address.clone()).unwrap_or_default(),
        };
        ask::Scope { ask: self.askpass.is_some(), way }
    }

    /// Lets an `ssh` program ask the person, where there is one.
    fn equip(&self, ssh: &mut tokio::process::Command) {
        if let Some(askpass) = &self.askpass {
            askpass.equip(ssh, &self.scope());
        }
    }
}
