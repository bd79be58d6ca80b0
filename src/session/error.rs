//! Why a session could not be opened, or what it reached was no helper. Each kind has a stable code and says what to do about it.

use std::time::Duration;

use crate::tree::path::Shown;

/// Says why there is no byte pipe to a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("the host name `{address}` cannot be resolved: {why}")]
    Dns { address: String, why: String },
    #[error("`{address}` refused the connection to port {port}")]
    Refused { address: String, port: u16 },
    #[error("`{address}` cannot be reached: {why}")]
    Unreachable { address: String, why: String },
    #[error("`{address}` did not answer within {} s ({doing})", .after.as_secs_f32())]
    Timeout { address: String, doing: &'static str, after: Duration },
    /// Before authentication: an overloaded sshd, or something that is no sshd.
    #[error("`{address}` ended the connection ({doing}): {why}")]
    Reset { address: String, doing: &'static str, why: String },
    #[error("{0}")]
    HostKey(HostKeyError),
    #[error("`{user}` was not let in on `{address}`: {why}")]
    Auth { user: String, address: String, why: String },
    #[error("`{}` is no {what}: only {allowed} are accepted, and not a `-` at the start", Shown(.text.as_bytes()))]
    Name { what: &'static str, text: String, allowed: &'static str },
    #[error("the ssh configuration of `{address}` is of no use: {why}")]
    Config { address: String, why: String },
    #[error("`{program}` cannot be started: {why}")]
    Program { program: String, why: String },
    #[error("the session with `{address}` failed ({doing}): {why}")]
    Other { address: String, doing: &'static str, why: String },
}

/// Says why a host's key is not accepted. Nothing was sent to the host but what the key exchange needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostKeyError {
    #[error("the host key of `{name}` is not known ({key})")]
    Unknown {
        name: String,
        key: String,
        /// What `hosts trust` is to be given.
        trust: String,
        /// The key itself, `type base64`.
        line: String,
    },
    #[error("the host key of `{name}` is not among the pinned ones ({key})")]
    NotPinned { name: String, key: String, host: String, line: String },
    #[error("the host key of `{name}` is not the known one: it shows {key}, and {place} has another")]
    Changed { name: String, key: String, place: String, trust: String },
    #[error("the host key of `{name}` is revoked ({key}, {place})")]
    Revoked { name: String, key: String, place: String },
    #[error("the host key of `{name}` needs the certificate authority in {place}, which the `ssh2` session cannot check")]
    Authority { name: String, place: String },
    #[error("known hosts cannot be read: {place}: {why}")]
    Unreadable { place: String, why: String },
    /// What the `ssh` program said; it does not tell the fingerprint of an unknown key.
    #[error("ssh did not accept the host key of `{name}`: {said}")]
    Said { name: String, said: String, trust: String, unknown: bool },
}

/// Says why there is no helper at the other end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The login shell, a start-up file or a forced command got in the way.
    #[error("the shell on `{host}` did not run what it was sent: {why}")]
    Shell { host: String, why: String, printed: Vec<String> },
    #[error("`{host}` is `{theirs}` and there is no helper for it here (this one is for `{ours}`)")]
    Platform { host: String, theirs: String, ours: String, missing: Option<String> },
    #[error("`{host}` has no directory that files can be run from ({tried})")]
    Noexec { host: String, tried: String },
    #[error("the helper does not start on `{host}`: {why}")]
    NoHelper { host: String, why: String, printed: Vec<String> },
    #[error("`{host}` does not speak the protocol: {why}")]
    Protocol { host: String, why: String },
}

impl SessionError {
    /// Stable and machine-readable.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::Reset { .. } => "reset",
            Self::HostKey(_) => "host-key",
            Self::Auth { .. } => "auth",
            Self::Name { .. } => "host-name",
            Self::Config { .. } => "ssh-config",
            Self::Program { .. } => "no-ssh",
            Self::Other { .. } => "session",
        }
    }

    /// Tells whether another try may go better: nothing has been decided yet by who the user is or what the host is.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Reset { .. } => true,
            // Who is silent for the whole of the timeout is given up: the others are waiting.
            Self::Timeout { .. }
            | Self::Dns { .. }
            | Self::Unreachable { .. }
            | Self::HostKey(_)
            | Self::Auth { .. }
            | Self::Name { .. }
            | Self::Config { .. }
            | Self::Program { .. }
            | Self::Other { .. } => false,
        }
    }

    /// What to type or change, the best first.
    #[must_use]
    pub fn hint(&self) -> Vec<String> {
        match self {
            Self::Dns { address, .. } => {
                vec![format!("check the name with `getent hosts {address}`, or set `address` for this host in deploy.toml")]
            }
            Self::Refused { address, port } => {
                vec![format!("is sshd running on `{address}` port {port}? set `port` for this host if it listens elsewhere")]
            }
            Self::Unreachable { address, .. } | Self::Timeout { address, .. } => {
                vec![format!("try `ssh -v {address}`; a host behind a bastion needs `ProxyJump` in your ssh config")]
            }
            Self::Reset { address, .. } => {
                vec![format!(
                    "try `ssh -v {address}`; an sshd that is asked by many at once drops connections (`MaxStartups`): lower `parallel`"
                )]
            }
            Self::HostKey(error) => error.hint(),
            Self::Auth { user, address, .. } => vec![
                format!("check that `ssh {user}@{address} true` works without asking for anything"),
                "load a key that has a passphrase into the agent with `ssh-add`, or be at a terminal to be asked".to_owned(),
            ],
            Self::Name { .. } => vec!["correct the host's name, address or user in deploy.toml".to_owned()],
            Self::Config { address, .. } => vec![format!("`ssh -G {address}` shows what ssh makes of your configuration")],
            Self::Program { program, .. } => vec![format!("install `{program}`, or set `session = \"ssh2\"`, which does not need it")],
            Self::Other { address, .. } => vec![format!("try `ssh {address} true`, or `session = \"openssh\"`")],
        }
    }
}

impl HostKeyError {
    /// What to type, the best first. A changed key is never repaired by a command to copy.
    #[must_use]
    pub fn hint(&self) -> Vec<String> {
        match self {
            Self::Unknown { trust, .. } | Self::Said { trust, unknown: true, .. } => {
                vec![format!("compare the fingerprint with the host's own, then: deployer hosts trust {trust}")]
            }
            Self::NotPinned { host, line, .. } => {
                vec![format!(
                    "compare the fingerprint with the host's own, then add to `host-keys` in deploy.toml: \"{host}\" = \"{line}\""
                )]
            }
            Self::Changed { trust, .. } => {
                vec![format!(
                    "if the host was reinstalled, verify its new fingerprint with who runs it, then: deployer hosts trust {trust}"
                )]
            }
            Self::Said { unknown: false, .. } => {
                vec!["if the host was reinstalled, verify its new fingerprint with who runs it, then remove the old line".to_owned()]
            }
            Self::Revoked { .. } => vec!["do not connect: somebody declared this key unsafe; ask who runs the host".to_owned()],
            Self::Authority { .. } => vec!["set `session = \"openssh\"` for this host".to_owned()],
            Self::Unreadable { .. } => vec!["make the file readable, or correct the line".to_owned()],
        }
    }
}

impl ConnectError {
    /// Stable and machine-readable.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Session(error) => error.code(),
            Self::Shell { .. } => "shell",
            Self::Platform { .. } => "platform",
            Self::Noexec { .. } => "noexec",
            Self::NoHelper { .. } => "no-helper",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// Tells whether another try may go better.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Session(error) => error.is_transient(),
            Self::Shell { .. } | Self::Platform { .. } | Self::Noexec { .. } | Self::NoHelper { .. } | Self::Protocol { .. } => false,
        }
    }

    /// The first lines that the host printed, escaped.
    #[must_use]
    pub fn evidence(&self) -> &[String] {
        match self {
            Self::Shell { printed, .. } | Self::NoHelper { printed, .. } => printed,
            Self::Session(_) | Self::Platform { .. } | Self::Noexec { .. } | Self::Protocol { .. } => &[],
        }
    }

    /// What to type or change, the best first.
    #[must_use]
    pub fn hint(&self) -> Vec<String> {
        match self {
            Self::Session(error) => error.hint(),
            Self::Shell { host, .. } => vec![format!(
                "`ssh {host} /bin/sh -c true` must end well and print nothing: look at the login shell, its start-up files and a forced command in authorized_keys"
            )],
            Self::Platform { missing, .. } => match missing {
                Some(path) => vec![format!("put a helper that was built for it at `{path}`, or name its directory in DEPLOYER_HELPERS")],
                None => vec!["helpers exist for Linux hosts only".to_owned()],
            },
            Self::Noexec { .. } => {
                vec![
                    "mount one of these without `noexec`, or point the user's XDG_RUNTIME_DIR at a directory that programs can be run from"
                        .to_owned(),
                ]
            }
            Self::NoHelper { .. } => vec!["is there space on the host, and may the user run its own programs there?".to_owned()],
            Self::Protocol { .. } => vec!["remove `.deployer/helper` below the root on the host and try again".to_owned()],
        }
    }
}
