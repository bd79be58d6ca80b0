//! The error that reaches a person: what failed, where, the evidence, the state of the hosts, and what to type next.
//!
//! Errors of one module are enums beside its code; here they get an exit code and hints. `report` prints them, once.

use std::error::Error as StdError;
use std::fmt;

use crate::exit::Exit;

/// A failure on its way to the person, complete but for printing.
#[derive(Debug)]
pub struct Error {
    pub exit: Exit,
    /// Stable and machine-readable: `host-key`, `auth`, `disk-full`, `unknown-environment` …
    pub code: &'static str,
    /// One lower-case line, the user's words in backticks, no full stop.
    pub what: String,
    /// The hosts it is about; none where it is about no host.
    pub hosts: Vec<String>,
    /// A source snippet, or the last lines of a log, each already prefixed with its host and escaped.
    pub evidence: Vec<String>,
    /// What the hosts serve now. None where no host was asked.
    pub state: Option<String>,
    /// What to type or change, the best first.
    pub hints: Vec<String>,
    pub cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    #[must_use]
    pub fn new(exit: Exit, code: &'static str, what: impl Into<String>) -> Self {
        Self { exit, code, what: what.into(), hosts: Vec::new(), evidence: Vec::new(), state: None, hints: Vec::new(), cause: None }
    }

    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(lines);
        self
    }

    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}
