//! A host's root directory, held, and the control directory beneath it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::fs::{Dir, FileKind};
use crate::release::layout;

/// Directories that nobody but the login user may read.
const PRIVATE: [&str; 7] =
    [layout::CONTROL, layout::RECORDS, layout::MANIFESTS, layout::TEMPORARY, layout::TRASH, layout::HELPERS, layout::LOGS];
/// Directories that whatever serves a release passes through.
const PUBLIC: [&str; 2] = [layout::RELEASES, layout::SHARED];

/// The host root.
#[derive(Debug)]
pub struct Root {
    pub dir: Dir,
    /// As the operator wrote it.
    pub path: String,
}

impl Root {
    pub fn open(path: &str) -> io::Result<Self> {
        Ok(Self { dir: Dir::open_absolute(path)?, path: path.to_owned() })
    }

    /// Makes what is missing of the control directory, `releases` and `shared`. Does nothing the second time.
    pub fn ensure_control(&self) -> io::Result<()> {
        for (paths, mode) in [(&PRIVATE[..], 0o700), (&PUBLIC[..], 0o755)] {
            for path in paths {
                match self.dir.make_dirs(path, mode) {
                    // A link to another disk is the operator's own way to have `shared` elsewhere.
                    Err(error) if *path == layout::SHARED => drop(self.dir.open_dir_or_linked(path).map_err(|_| error)?),
                    other => drop(other?),
                }
            }
        }
        Ok(())
    }

    /// Gives the host its random id, once. Only for the holder of the lock: two at once would give it two.
    pub fn ensure_host_id(&self) -> io::Result<()> {
        match self.dir.stat(layout::HOST_ID) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let id = format!("{}\n", &crate::tree::Digest(bytes).to_string()[..32]);
        self.dir.replace(layout::HOST_ID, id.as_bytes(), 0o600)
    }

    /// Reads the host's random id; none where the control directory was not made yet.
    pub fn host_id(&self) -> io::Result<Option<String>> {
        match self.dir.read(layout::HOST_ID, 256) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells whether the control directory is there.
    pub fn has_control(&self) -> io::Result<bool> {
        match self.dir.stat(layout::CONTROL) {
            Ok(stat) => Ok(stat.kind == FileKind::Directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Finds the root's path without links, as `/proc` shows it of other processes.
    pub fn real_path(&self) -> io::Result<Vec<u8>> {
        Dir::open_absolute("/proc/self/fd")?.read_link(self.dir.as_fd().as_raw_fd().to_string())
    }
}
