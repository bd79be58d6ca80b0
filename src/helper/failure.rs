//! Turns what the system says into the failure of an op: a stable code, and what could not be done to which path.

use std::io;

use rustix::io::Errno;

use crate::op::{Code, Failure};
use crate::tree::path::Shown;

/// Makes a failure of a system error: ``cannot write `releases/…/x`: no space left on device``.
pub fn io(what: &str, path: impl AsRef<[u8]>, error: &io::Error) -> Failure {
    let message = format!("cannot {what} `{}`: {}", Shown(path.as_ref()), cause(error));
    Failure { code: code(error), message, hint: None }
}

/// Makes a failure of the code and the text.
pub fn new(code: Code, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), hint: None }
}

/// Makes a failure that says what to do.
pub fn hinted(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), hint: Some(hint.into()) }
}

/// Finds the stable code of a system error.
#[must_use]
pub fn code(error: &io::Error) -> Code {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Code::DiskFull,
        Some(Errno::ROFS) => Code::ReadOnly,
        Some(Errno::ACCESS | Errno::PERM) => Code::Permission,
        Some(Errno::NOTDIR) => Code::NotDirectory,
        Some(Errno::NOENT) => Code::NotFound,
        Some(Errno::LOOP) => Code::Refused,
        _ => Code::Io,
    }
}

/// Words the error as the end of a sentence, without the number that the standard library adds.
#[must_use]
pub fn cause(error: &io::Error) -> String {
    if Errno::from_io_error(error) == Some(Errno::LOOP) {
        return "a symbolic link is in the way".to_owned();
    }
    let text = error.to_string();
    let text = text.find(" (os error ").map_or(text.as_str(), |at| &text[..at]);
    let mut letters = text.chars();
    let second_is_lower = text.chars().nth(1).is_some_and(|c| !c.is_uppercase());
    match letters.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(letters).collect(),
        Some(_) | None => text.to_owned(),
    }
}
