//! Looks at a path as the user that asks would: what it is, and what may be done with it. Changes nothing.

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, statat};

use crate::fs::Dir;
use crate::op::{PathKind, PathState};

/// Looks at an absolute path, or one relative to the root. Links are followed: what counts is where they lead.
pub fn look(root: &str, path: &str) -> PathState {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{root}/{path}") };
    let may = |access| accessat(CWD, whole.as_str(), access, AtFlags::EACCESS).is_ok();
    let (kind, count) = match statat(CWD, whole.as_str(), AtFlags::empty()) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (PathKind::File, u64::try_from(stat.st_size).unwrap_or(0)),
            FileType::Directory => (PathKind::Directory, entries(&whole)),
            _ => (PathKind::Other, 0),
        },
        Err(_) if statat(CWD, whole.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok() => (PathKind::Dangling, 0),
        Err(_) => (PathKind::Missing, 0),
    };
    PathState { kind, readable: may(Access::READ_OK), writable: may(Access::WRITE_OK), executable: may(Access::EXEC_OK), count }
}

fn entries(path: &str) -> u64 {
    Dir::open_absolute(path).and_then(|dir| dir.names()).map_or(0, |names| names.len() as u64)
}
