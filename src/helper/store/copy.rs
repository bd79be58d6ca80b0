//! Files of a release being filled: created, written or copied, timed, and looked at.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::stored::Stamp;
use crate::fs::{self, Dir, FileKind, Stat};
use crate::tree::Digest;

/// Bytes that are read at once; a file of no more is hashed before anything is created.
pub const BUFFER: usize = 256 * 1024;

/// What a file of the release must be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub mode: u32,
    pub size: u64,
    pub digest: Digest,
    pub mtime: i64,
}

/// Why a file was not copied.
pub enum NotCopied {
    /// The source is not what it should be, or cannot be read: another has to do.
    Source,
    /// The copy cannot be written.
    Target(io::Error),
}

/// Copies files, and remembers what this file system cannot do.
#[derive(Default)]
pub struct Copier {
    no_reflink: AtomicBool,
    no_range: AtomicBool,
}

impl Copier {
    /// Makes `name` in `dir` from `source`. The source is read to its end and hashed unless it still looks like `trusted`.
    pub fn copy(
        &self,
        (source, looks): (&mut File, &Stat),
        trusted: Option<Stamp>,
        (dir, name): (&Dir, &[u8]),
        wanted: &Wanted,
        buffer: &mut Vec<u8>,
    ) -> Result<Stamp, NotCopied> {
        if looks.size != wanted.size {
            return Err(NotCopied::Source);
        }
        let hashed = trusted != Some(Stamp::from(looks));
        let small = usize::try_from(wanted.size).ok().filter(|size| *size <= BUFFER);
        let target = match small {
            Some(size) if hashed || self.no_reflink.load(Ordering::Relaxed) => {
                buffer.resize(size, 0);
                source.read_exact(buffer).map_err(|_| NotCopied::Source)?;
                if hashed && Digest::of(buffer) != wanted.digest {
                    return Err(NotCopied::Source);
                }
                let mut target = create(dir, name, wanted.mode).map_err(NotCopied::Target)?;
                target.write_all(buffer).map_err(NotCopied::Target)?;
                target
            }
            Some(_) | None => {
                let mut target = create(dir, name, wanted.mode).map_err(NotCopied::Target)?;
                let copied = if hashed {
                    hash_copy(source, &mut target, wanted, buffer)
                } else {
                    self.clone(source, &mut target, wanted.size, buffer)
                };
                if let Err(error) = copied {
                    dir.unlink(name).map_err(NotCopied::Target)?;
                    return Err(error);
                }
                target
            }
        };
        // Someone may have written to the source meanwhile: then what was copied is neither the old content nor the new.
        let unchanged = fs::stat_of(&*source).is_ok_and(|now| Stamp::from(&now) == Stamp::from(looks));
        if !unchanged {
            dir.unlink(name).map_err(NotCopied::Target)?;
            return Err(NotCopied::Source);
        }
        finish(&target, wanted).map_err(NotCopied::Target)
    }

    fn clone(&self, source: &mut File, target: &mut File, size: u64, buffer: &mut Vec<u8>) -> Result<(), NotCopied> {
        if !self.no_reflink.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(&*target, &*source) {
                Ok(()) => return Ok(()),
                Err(error @ (Errno::NOSPC | Errno::DQUOT)) => return Err(NotCopied::Target(error.into())),
                Err(_) => self.no_reflink.store(true, Ordering::Relaxed),
            }
        }
        let mut left = size;
        while left > 0 && !self.no_range.load(Ordering::Relaxed) {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(&*source, None, &*target, None, step) {
                Ok(0) => return Err(NotCopied::Source),
                Ok(copied) => left -= copied as u64,
                Err(Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                    self.no_range.store(true, Ordering::Relaxed);
                }
                // The call does not say which of the two files it is about; only these cannot be about one that is read.
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::FBIG)) => return Err(NotCopied::Target(error.into())),
                Err(_) => return Err(NotCopied::Source),
            }
        }
        pass(source, target, left, buffer, |_| {})
    }
}

fn hash_copy(source: &mut File, target: &mut File, wanted: &Wanted, buffer: &mut Vec<u8>) -> Result<(), NotCopied> {
    let mut hasher = blake3::Hasher::new();
    pass(source, target, wanted.size, buffer, |bytes| {
        hasher.update(bytes);
    })?;
    if Digest::from(hasher.finalize()) == wanted.digest { Ok(()) } else { Err(NotCopied::Source) }
}

fn pass(source: &mut File, target: &mut File, mut left: u64, buffer: &mut Vec<u8>, mut see: impl FnMut(&[u8])) -> Result<(), NotCopied> {
    while left > 0 {
        buffer.resize(BUFFER.min(usize::try_from(left).unwrap_or(BUFFER)), 0);
        source.read_exact(buffer).map_err(|_| NotCopied::Source)?;
        see(buffer);
        target.write_all(buffer).map_err(NotCopied::Target)?;
        left -= buffer.len() as u64;
    }
    Ok(())
}

/// Creates a file, in place of what an interrupted run left there. `finish` gives it its exact mode.
pub fn create(dir: &Dir, name: &[u8], mode: u32) -> io::Result<File> {
    match dir.create_about(name, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            dir.unlink(name)?;
            dir.create_about(name, mode)
        }
        other => other,
    }
}

/// Gives a written file its time and mode, and looks at it a last time.
pub fn finish(file: &File, wanted: &Wanted) -> io::Result<Stamp> {
    Ok(Stamp::from(&fs::finish_file(file, wanted.mode, wanted.mtime)?))
}

/// Hashes an open file to its end.
pub fn digest(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    buffer.resize(BUFFER, 0);
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

/// Hashes a file, and says what it looked like both before and after: None where that changed, or it is no file.
pub fn proven(dir: &Dir, name: &[u8], buffer: &mut Vec<u8>) -> io::Result<Option<(Digest, Stat)>> {
    let (mut file, before) = dir.open_file_stat(name)?;
    let digest = digest(&mut file, buffer)?;
    let after = fs::stat_of(&file)?;
    let same = before.kind == FileKind::File && Stamp::from(&before) == Stamp::from(&after);
    Ok(same.then_some((digest, after)))
}
