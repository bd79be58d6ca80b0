//! Paths inside a tree: bytes, relative, checked once. A path that passed cannot leave the tree.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The longest name of one path component that Linux file systems take (`NAME_MAX`), in bytes.
pub const MAX_COMPONENT: usize = 255;
/// The longest path a tree may hold, in bytes: well beyond `PATH_MAX`, because hosts walk by descriptor.
pub const MAX_PATH: usize = 32 * 1024;

/// A relative path in a tree, as bytes: not empty, no empty, `.` or `..` component, no NUL, no `.git` in any case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TreePath(Vec<u8>);

/// Says why bytes are not a path of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is empty")]
    Empty,
    #[error("the path is absolute")]
    Absolute,
    #[error("the path has an empty component")]
    EmptyComponent,
    #[error("the path has a component `.` or `..`")]
    Dots,
    #[error("the path holds a NUL byte")]
    Nul,
    #[error("the path names git's own directory")]
    Git,
    #[error("a name in the path is longer than {MAX_COMPONENT} bytes")]
    LongComponent,
    #[error("the path is longer than {MAX_PATH} bytes")]
    Long,
}

impl TreePath {
    /// Checks `bytes` and keeps them.
    ///
    /// # Errors
    /// Says which rule the path breaks.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        check(&bytes)?;
        Ok(Self(bytes))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Yields the names from the top down.
    #[must_use]
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// Splits off the last name: the directory (none at the top) and the name.
    #[must_use]
    pub fn split(&self) -> (Option<&[u8]>, &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (Some(&self.0[..slash]), &self.0[slash + 1..]),
            None => (None, &self.0),
        }
    }

    /// Tells whether this path lies beneath `ancestor`.
    #[must_use]
    pub fn is_beneath(&self, ancestor: &Self) -> bool {
        self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.first() == Some(&b'/'))
    }
}

fn check(bytes: &[u8]) -> Result<(), PathError> {
    match bytes.first() {
        None => return Err(PathError::Empty),
        Some(b'/') => return Err(PathError::Absolute),
        Some(_) if bytes.len() > MAX_PATH => return Err(PathError::Long),
        Some(_) => {}
    }
    if bytes.contains(&0) {
        return Err(PathError::Nul);
    }
    for name in bytes.split(|byte| *byte == b'/') {
        match name {
            b"" => return Err(PathError::EmptyComponent),
            b"." | b".." => return Err(PathError::Dots),
            name if name.len() > MAX_COMPONENT => return Err(PathError::LongComponent),
            name if is_git_directory(name) => return Err(PathError::Git),
            _ => {}
        }
    }
    Ok(())
}

/// Recognises `.git` in any case and its short name on Windows file systems (`git~1`), as git itself does.
fn is_git_directory(name: &[u8]) -> bool {
    let short = |name: &[u8]| name.len() == 5 && name[..4].eq_ignore_ascii_case(b"git~") && name[4].is_ascii_digit();
    name.eq_ignore_ascii_case(b".git") || short(name)
}

/// Shows the path for people: control characters, invalid UTF-8 and backslashes are escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Shown(&self.0), out)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{self}`")
    }
}

/// Shows bytes from a tree or a host safely: what a terminal could act on is escaped as `\n`, `\x1b` or `\u{202e}`.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || is_bidi_control(c) {
                    write!(out, "{}", c.escape_default())?;
                } else {
                    out.write_char(c)?;
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Tells whether `c` reorders text on a terminal or is invisible there (Unicode's bidirectional controls and line separators).
#[must_use]
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Self::new(bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        for (bytes, why) in [
            (&b""[..], PathError::Empty),
            (b"/etc/passwd", PathError::Absolute),
            (b"a//b", PathError::EmptyComponent),
            (b"a/", PathError::EmptyComponent),
            (b"./a", PathError::Dots),
            (b"a/../b", PathError::Dots),
            (b"a\0b", PathError::Nul),
            (b".git/config", PathError::Git),
            (b"sub/.GiT", PathError::Git),
            (b"GIT~1", PathError::Git),
        ] {
            assert_eq!(TreePath::new(bytes), Err(why), "{}", Shown(bytes));
        }
        assert_eq!(TreePath::new(vec![b'a'; 256]), Err(PathError::LongComponent));
    }

    #[test]
    fn hostile_but_legal_names_are_kept_to_the_byte_and_shown_escaped() {
        let name = b"-rf\n\x1b[2J \xff$(id) \xe2\x80\xae*";
        let path = TreePath::new(&name[..]).unwrap();
        assert_eq!(path.as_bytes(), name);
        assert_eq!(path.to_string(), "-rf\\n\\u{1b}[2J \\xff$(id) \\u{202e}*");
        assert!(TreePath::new(vec![b'a'; 255]).is_ok());
        assert!(TreePath::new(".gitignore").is_ok());
    }
}
