//! Taking trees away: a rename into `.deployer/trash`, then a walk by descriptor that follows no link.

use std::io;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::control::random_name;
use super::{Dir, FileKind};
use crate::release::layout;

/// Directories that are held at once. What lies deeper is moved up into the trash and emptied from there.
const DEPTH: usize = 32;

impl Dir {
    /// Moves `rel` out of sight. It costs one rename whatever lies beneath. Asked of the host root.
    pub fn trash(&self, rel: impl AsRef<[u8]>) -> io::Result<()> {
        let trash = self.open_dir(layout::TRASH)?;
        self.at(rel.as_ref(), |dir, name| move_to(dir, name, &trash))
    }

    /// Removes what is in the trash. Goes on after an error and gives the first. Asked of the host root.
    pub fn empty_trash(&self) -> io::Result<()> {
        self.open_dir(layout::TRASH)?.empty()
    }

    /// Removes what is in this directory. Goes on after an error and gives the first.
    pub fn empty(&self) -> io::Result<()> {
        let mut first = Ok(());
        loop {
            let names = self.names()?;
            let before = names.len();
            let mut removed = 0;
            for name in names {
                match remove(self, &name, self, 0) {
                    Ok(()) => removed += 1,
                    Err(error) => first = first.and(Err(error)),
                }
            }
            // Deep directories came up while others were removed: the next turn takes them.
            if removed == 0 || before == 0 {
                return if before == 0 { Ok(()) } else { first };
            }
        }
    }
}

fn move_to(dir: impl rustix::fd::AsFd, name: &[u8], trash: &Dir) -> io::Result<()> {
    let aside = random_name()?;
    match rustix::fs::renameat(&dir, name, trash, &*aside) {
        // Moving a directory writes its `..`, so it must be writable itself.
        Err(Errno::ACCESS | Errno::PERM) => {
            open_up(&dir, name)?;
            Ok(rustix::fs::renameat(&dir, name, trash, &*aside)?)
        }
        other => Ok(other?),
    }
}

fn remove(dir: &Dir, name: &[u8], trash: &Dir, depth: usize) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    if dir.stat(name)?.kind != FileKind::Directory {
        return Err(Errno::PERM.into());
    }
    if depth >= DEPTH {
        return move_to(dir, name, trash);
    }
    open_up(dir, name)?;
    let inner = dir.open_dir(name)?;
    let mut first = Ok(());
    for name in inner.names()? {
        // One file that somebody else owns does not keep the space of all the others.
        first = first.and(remove(&inner, &name, trash, depth + 1));
    }
    first?;
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Lets the owner read and change a directory. A link put in its place is not followed: the descriptor is of the directory itself.
fn open_up(dir: impl rustix::fd::AsFd, name: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    if super::stat_of(&held)?.mode & 0o700 == 0o700 {
        return Ok(());
    }
    Ok(rustix::fs::chmodat(CWD, format!("/proc/self/fd/{}", held.as_raw_fd()), Mode::RWXU, AtFlags::empty())?)
}
