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

/// Says that the link `path` leads to `target`, which is not there, and what to type on the host. `what` is what it is for.
#[must_use]
pub fn dangling(code: Code, what: &str, path: &str, target: &[u8]) -> Failure {
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    let target = Shown(target).to_string();
    let whole = if target.starts_with('/') { target.clone() } else { format!("{above}/{target}") };
    let (make, remove) = (quoted(&whole), quoted(path));
    hinted(
        code,
        format!("{what}`{}` leads to `{target}`, which does not exist", Shown(path.as_bytes())),
        format!("on that host, make what it leads to: `mkdir -p {make}`; or remove the link: `rm {remove}`"),
    )
}

/// Quotes a word for a shell, where it needs that.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%:".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_root_survive_a_shell() {
        assert_eq!(quoted("/srv/app"), "/srv/app");
        assert_eq!(quoted("a b'$(x)"), "'a b'\\''$(x)'");
    }
}
