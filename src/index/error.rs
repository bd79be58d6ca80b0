//! Why the index cannot give what it was asked for, and what that is in the language of HTTP.

use axum::http::StatusCode;

/// Says why a page or a file is not served. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("`{0}` is not in the index")]
    Missing(String),
    #[error("`{0}` is not held, and the index is offline")]
    Offline(String),
    #[error("`{0}` cannot be the name of a package or of a file")]
    Name(String),
    #[error("`{url}` cannot be reached: {why}")]
    Unreachable { url: String, why: String },
    #[error("`{url}` answers {status}")]
    Status { url: String, status: u16 },
    /// It does not let us in. `login` is what it was sent.
    #[error("`{url}` answers {status}")]
    Denied { url: String, status: u16, login: Login },
    /// A file that a page lists.
    #[error("`{url}` is not there, though the index lists it")]
    Gone { url: String },
    #[error("`{url}` answers with {got}, where {wanted} was asked for")]
    Garbled { url: String, got: String, wanted: &'static str },
    #[error("`{url}` sends more than {most} bytes")]
    TooLong { url: String, most: u64 },
    #[error("`{name}` has the digest {got}, and the index says {wanted}: it was thrown away")]
    Poisoned { name: String, wanted: String, got: String },
    #[error("the upstream gives no digest for `{0}`, so it cannot be verified")]
    Unverifiable(String),
    #[error("`{path}` cannot be {what}: {why}")]
    Disk { path: String, what: &'static str, why: String },
    #[error("the credential for `{url}` cannot be read: {why}")]
    Credential { url: String, why: String },
    #[error("`{path}` belongs to another user")]
    Foreign { path: String },
    #[error("the index failed: {0}")]
    Internal(String),
}

impl IndexError {
    /// The status that clients understand: gone, not reachable, or our own fault.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing(_) | Self::Offline(_) | Self::Gone { .. } => StatusCode::NOT_FOUND,
            Self::Name(_) => StatusCode::BAD_REQUEST,
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::Denied { .. }
            | Self::Garbled { .. }
            | Self::TooLong { .. }
            | Self::Poisoned { .. }
            | Self::Unverifiable(_)
            | Self::Credential { .. } => StatusCode::BAD_GATEWAY,
            Self::Disk { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Self::Foreign { .. } | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether it is worth a warning: a client that asks for what there is not is none.
    #[must_use]
    pub fn is_loud(&self) -> bool {
        !matches!(self, Self::Missing(_) | Self::Offline(_) | Self::Name(_))
    }

    /// Whether what is held may be served in its place: the index did not say that there is no such thing.
    #[must_use]
    pub fn allows_stale(&self) -> bool {
        self.is_loud()
    }

    /// What can be done about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        const OTHER: &str = "let `[index]` of deploy.toml name an upstream that";
        match self {
            Self::Unreachable { .. } | Self::Status { .. } => Some(format!("try again later, or {OTHER} answers")),
            Self::Denied { login, .. } => Some(match login {
                Login::None { section } => format!("say `user` and `secret` in `[index.{section}]` of deploy.toml"),
                Login::NoneElsewhere { host } => format!("put a login for `{host}` into your netrc"),
                Login::Configured { section } => format!("correct `user` and `secret` in `[index.{section}]` of deploy.toml"),
                Login::Netrc { host } => format!("correct the login for `{host}` in your netrc"),
            }),
            Self::Garbled { .. } => Some("open that url: a proxy or a log-in may answer in its place".to_owned()),
            Self::Gone { .. } => Some(format!("pin another version, or {OTHER} has the file")),
            Self::Poisoned { .. } => Some(format!("tell those who run the upstream, or {OTHER} has the right file")),
            Self::TooLong { .. } | Self::Unverifiable(_) => Some(format!("{OTHER} is right about its files")),
            Self::Missing(_)
            | Self::Offline(_)
            | Self::Name(_)
            | Self::Disk { .. }
            | Self::Credential { .. }
            | Self::Foreign { .. }
            | Self::Internal(_) => None,
        }
    }

    /// Says what is wrong, and what can be done about it.
    #[must_use]
    pub fn advised(&self) -> String {
        self.advice().map_or_else(|| self.to_string(), |advice| format!("{self}; {advice}"))
    }

    /// An operation of the file system that failed.
    pub(super) fn disk(path: &std::path::Path, what: &'static str, error: &std::io::Error) -> Self {
        let why = match error.kind() {
            std::io::ErrorKind::StorageFull => "the disk is full".to_owned(),
            _ => error.to_string(),
        };
        Self::Disk { path: path.display().to_string(), what, why }
    }
}

/// The login that a request was sent with, and where such a login is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// The upstream itself got none.
    None {
        section: &'static str,
    },
    /// A host that the upstream sends to got none.
    NoneElsewhere {
        host: String,
    },
    Configured {
        section: &'static str,
    },
    Netrc {
        host: String,
    },
}
