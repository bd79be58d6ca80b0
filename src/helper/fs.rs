//! The one walk over a host's file system. Everything is relative to held directory descriptors, beneath them, and through no
//! symbolic link: paths are bytes, their names are never `.` or `..`, and they may be longer than `PATH_MAX`.
//!
//! One type with all that is asked of it, so that nothing else on a host has to name a system call; `control` changes control files
//! and links by one rename, `remove` takes trees away.

mod control;
mod remove;
#[cfg(test)]
mod tests;

pub use control::random_name;

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

/// What the kernel takes at once: below `PATH_MAX`, which counts a final NUL.
const LONGEST: usize = 4000;
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const SET_GROUP_ID: u32 = 0o2000;
/// What the kernel tells of a directory at once: hundreds of names.
const LISTING: usize = 16 * 1024;

/// A held directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

/// What a path is, itself: links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
    pub ino: u64,
    pub device: u64,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Link,
    Other,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

/// What a directory passes on to whatever is made in it, or what it got in this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heritage {
    gid: u32,
    sets_group: bool,
    attributes: [Option<Vec<u8>>; 3],
}

impl Dir {
    /// Opens a path of the operator's own, which may lead through links.
    pub fn open_absolute(path: &str) -> io::Result<Self> {
        let fd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd })
    }

    pub fn open_dir(&self, rel: impl AsRef<[u8]>) -> io::Result<Self> {
        let fd = self.open(rel.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens a directory, or the one that a link in its place leads to: where the operator may have put it on another disk.
    pub fn open_dir_or_linked(&self, rel: impl AsRef<[u8]>) -> io::Result<Self> {
        let rel = rel.as_ref();
        match self.stat(rel)?.kind {
            FileKind::Link => self.at(rel, |dir, name| {
                let fd = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                Ok(Self { fd })
            }),
            FileKind::File | FileKind::Directory | FileKind::Other => self.open_dir(rel),
        }
    }

    /// Holds the same directory once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Makes `name` if it is not there, and opens it. Tells whether it was made; only then does it get `mode`.
    pub fn make_dir(&self, name: impl AsRef<[u8]>, mode: u32) -> io::Result<(Self, bool)> {
        let name = name.as_ref();
        check(name)?;
        let is_new = match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let dir = self.open_dir(name)?;
        if is_new {
            exact_mode(&dir.fd, mode)?;
        }
        Ok((dir, is_new))
    }

    /// Makes `name` if it is not there, with exactly `mode`, and does not hold it.
    pub fn ensure_dir(&self, name: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
        let name = name.as_ref();
        check(name)?;
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            // Opening costs several times what looking does, and is needed only where the umask or an access list cut the mode.
            Ok(()) if self.stat(name)?.mode & !SET_GROUP_ID == mode => Ok(()),
            Ok(()) => exact_mode(self.open_dir(name)?, mode),
            Err(Errno::EXIST) => self.open_dir(name).map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes what is missing of `rel`, each directory with exactly `mode` whatever the umask.
    pub fn make_dirs(&self, rel: impl AsRef<[u8]>, mode: u32) -> io::Result<Self> {
        let rel = rel.as_ref();
        match self.open_dir(rel) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        rel.split(|byte| *byte == b'/').try_fold(self.try_clone()?, |dir, name| dir.make_dir(name, mode).map(|(dir, _)| dir))
    }

    /// Opens a regular file to read it. Anything else (a pipe would block) is refused.
    pub fn open_file(&self, rel: impl AsRef<[u8]>) -> io::Result<File> {
        Ok(self.open_file_stat(rel)?.0)
    }

    /// Opens a regular file as `open_file` does, and tells what it is.
    pub fn open_file_stat(&self, rel: impl AsRef<[u8]>) -> io::Result<(File, Stat)> {
        let file = self.open(rel.as_ref(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let stat = stat_of(&file)?;
        match stat.kind {
            FileKind::File => Ok((file.into(), stat)),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            FileKind::Link | FileKind::Other => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Creates a file that must not be there, with exactly `mode` whatever the umask.
    pub fn create_file(&self, rel: impl AsRef<[u8]>, mode: u32) -> io::Result<File> {
        let file = self.create_about(rel, mode)?;
        exact_mode(&file, mode)?;
        Ok(file)
    }

    /// Creates a file that must not be there, and leaves it to `finish_file` to see whether the umask cut its mode.
    pub fn create_about(&self, rel: impl AsRef<[u8]>, mode: u32) -> io::Result<File> {
        let (rel, flags, mode) = (rel.as_ref(), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(mode));
        if rel.contains(&b'/') {
            return Ok(self.open(rel, flags, mode)?.into());
        }
        // One name that must be new cannot lead out of here, and `openat2` costs more.
        check(rel)?;
        Ok(rustix::fs::openat(&self.fd, rel, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)?.into())
    }

    /// Opens a file to append to it, and creates it where it is missing.
    pub fn open_append(&self, rel: impl AsRef<[u8]>, mode: u32) -> io::Result<File> {
        self.open_or_create(rel.as_ref(), OFlags::APPEND, mode)
    }

    /// Opens a file to lock it, and creates it where it is missing.
    pub fn open_lock(&self, rel: impl AsRef<[u8]>, mode: u32) -> io::Result<File> {
        self.open_or_create(rel.as_ref(), OFlags::empty(), mode)
    }

    fn open_or_create(&self, rel: &[u8], flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.open(rel, flags, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(Into::into),
        }
        let file = self.open(rel, flags | OFlags::CREATE, Mode::from_raw_mode(mode))?;
        exact_mode(&file, mode)?;
        Ok(file.into())
    }

    /// Reads a whole file of at most `limit` bytes.
    pub fn read(&self, rel: impl AsRef<[u8]>, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(rel)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Looks at `rel` itself, whatever a link there leads to.
    pub fn stat(&self, rel: impl AsRef<[u8]>) -> io::Result<Stat> {
        self.at(rel.as_ref(), |dir, name| Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.into()))
    }

    /// Looks at this directory.
    pub fn own_stat(&self) -> io::Result<Stat> {
        stat_of(&self.fd)
    }

    /// Tells the group, access lists and security label of this directory.
    pub fn heritage(&self) -> io::Result<Heritage> {
        let stat = self.own_stat()?;
        let attribute = |name: &str| {
            let mut value = [0; 1024];
            match rustix::fs::fgetxattr(&self.fd, name, &mut value) {
                Ok(length) => Ok(Some(value[..length].to_vec())),
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
                Err(error) => Err(io::Error::from(error)),
            }
        };
        let attributes = [attribute("system.posix_acl_default")?, attribute("system.posix_acl_access")?, attribute("security.selinux")?];
        Ok(Heritage { gid: stat.gid, sets_group: stat.mode & SET_GROUP_ID != 0, attributes })
    }

    pub fn read_link(&self, rel: impl AsRef<[u8]>) -> io::Result<Vec<u8>> {
        self.at(rel.as_ref(), |dir, name| Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()))
    }

    /// Makes a link where nothing is.
    pub fn make_link(&self, target: &[u8], rel: impl AsRef<[u8]>) -> io::Result<()> {
        self.at(rel.as_ref(), |dir, name| Ok(rustix::fs::symlinkat(target, dir, name)?))
    }

    /// Lists the names in this directory, sorted.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        // Whoever holds this directory too shares the place in it that was read up to.
        let fd = rustix::fs::openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Self { fd }.names_once()
    }

    /// Lists the names in a directory that was just opened, sorted: a second time there would be none.
    pub fn names_once(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let mut names = Vec::new();
        let mut listing = rustix::fs::RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = listing.next() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Moves a file to a name that is free, or whose file may go.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> io::Result<()> {
        self.at(from.as_ref(), |old, from| self.at(to.as_ref(), |new, to| Ok(rustix::fs::renameat(old, from, new, to)?)))
    }

    /// Removes a file or a link.
    pub fn unlink(&self, rel: impl AsRef<[u8]>) -> io::Result<()> {
        self.at(rel.as_ref(), |dir, name| Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?))
    }

    /// Gives this directory to a group.
    pub fn set_group(&self, gid: u32) -> io::Result<()> {
        Ok(rustix::fs::fchown(&self.fd, None, Some(rustix::fs::Gid::from_raw(gid)))?)
    }

    /// Sets this directory's permission bits.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Makes everything on this directory's file system durable.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }

    /// Opens beneath this directory. The last name is never followed either.
    fn open(&self, rel: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        check(rel)?;
        let (held, rest) = self.descend(rel)?;
        let dir = held.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        open_beneath(dir, rest, flags, mode)
    }

    /// Calls `act` with the directory of `rel` and its last name.
    fn at<T>(&self, rel: &[u8], act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> io::Result<T>) -> io::Result<T> {
        check(rel)?;
        match rel.iter().rposition(|byte| *byte == b'/') {
            None => act(self.fd.as_fd(), rel),
            Some(slash) => {
                let parent = self.open(&rel[..slash], OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                act(parent.as_fd(), &rel[slash + 1..])
            }
        }
    }

    /// Opens as much of a path beyond `PATH_MAX` as leaves a rest that the kernel takes at once.
    fn descend<'a>(&self, mut rel: &'a [u8]) -> io::Result<(Option<OwnedFd>, &'a [u8])> {
        let mut held: Option<OwnedFd> = None;
        while rel.len() > LONGEST {
            let slash = rel[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let dir = held.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            held = Some(open_beneath(dir, &rel[..slash], OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?);
            rel = &rel[slash + 1..];
        }
        Ok((held, rel))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Looks at an open file.
pub fn stat_of(file: impl AsFd) -> io::Result<Stat> {
    Ok(rustix::fs::fstat(file)?.into())
}

/// Gives a written file its modification time, to the second, and exactly `mode`. Tells what it looks like then.
pub fn finish_file(file: impl AsFd, mode: u32, mtime: i64) -> io::Result<Stat> {
    set_mtime(&file, mtime)?;
    let stat = stat_of(&file)?;
    if stat.mode == mode {
        return Ok(stat);
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    stat_of(file)
}

/// Sets an open file's modification time, to the second.
pub fn set_mtime(file: impl AsFd, seconds: i64) -> io::Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 } };
    Ok(rustix::fs::futimens(file, &times)?)
}

fn check(rel: &[u8]) -> io::Result<()> {
    if rel.split(|byte| *byte == b'/').any(|name| matches!(name, b"" | b"." | b"..")) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path beneath a directory"));
    }
    Ok(())
}

fn open_beneath(dir: BorrowedFd<'_>, rel: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(dir, rel, flags, mode, BENEATH) {
        // Kernels before 5.6 lack it, and filters of system calls that do not know it answer EPERM.
        Err(Errno::NOSYS | Errno::PERM) => open_by_names(dir, rel, flags, mode),
        other => Ok(other?),
    }
}

fn open_by_names(dir: BorrowedFd<'_>, rel: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    let mut names = rel.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let parent = held.as_ref().map_or(dir, AsFd::as_fd);
        if names.peek().is_none() {
            return Ok(rustix::fs::openat(parent, name, flags, mode)?);
        }
        let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        held = Some(rustix::fs::openat(parent, name, way, Mode::empty())?);
    }
    Err(Errno::NOENT.into())
}

/// Gives what was just made its mode where the umask or an access list cut it. A setgid bit that came from the parent stays.
fn exact_mode(fd: impl AsFd, mode: u32) -> io::Result<()> {
    let stat = stat_of(&fd)?;
    let inherited = if stat.kind == FileKind::Directory { stat.mode & SET_GROUP_ID } else { 0 };
    if stat.mode != mode | inherited {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode | inherited))?;
    }
    Ok(())
}

impl From<rustix::fs::Stat> for Stat {
    #[expect(
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "the types of the fields differ between architectures; a size is never negative and nanoseconds are below 10^9"
    )]
    fn from(stat: rustix::fs::Stat) -> Self {
        let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => FileKind::File,
            rustix::fs::FileType::Directory => FileKind::Directory,
            rustix::fs::FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            size: stat.st_size as u64,
            mtime: Time { seconds: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 },
            ctime: Time { seconds: stat.st_ctime as i64, nanos: stat.st_ctime_nsec as u32 },
            ino: stat.st_ino as u64,
            device: stat.st_dev as u64,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }
}
