//! The bytes behind a manifest, opened entry by entry: nothing is held in memory but the one blob that is being read.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ObjectType, Oid};

use crate::tree::Digest;

use super::command::{self, Running};
use super::error::GitError;
use super::objects::{self, Objects};

/// Larger blobs are not read into memory but streamed from a git of their own.
pub const LARGE: u64 = 64 * 1024 * 1024;

/// Where the content of one entry comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A link or directory has none.
    Nothing,
    /// A blob of the repository with that index. `remembered`: its digest is from the cache, not from its bytes.
    Blob { repository: usize, id: Oid, remembered: bool },
    /// What git converted.
    Spooled { spool: usize, offset: u64 },
    /// A file on this machine, which others may change.
    File(PathBuf),
    /// An entry of another tree.
    Of(Contents, u32),
}

/// One entry's content.
#[derive(Clone, Debug)]
pub struct Content {
    pub size: u64,
    pub digest: Digest,
    pub source: Source,
}

/// Gives the bytes of a manifest's entries. Cheap to clone, shared by threads.
#[derive(Clone, Debug)]
pub struct Contents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// In the order of the manifest.
    contents: Vec<Content>,
    repositories: Vec<Arc<Objects>>,
    spools: Vec<File>,
}

impl Contents {
    #[must_use]
    pub fn new(contents: Vec<Content>, repositories: Vec<Arc<Objects>>, spools: Vec<File>) -> Self {
        Self(Arc::new(Inner { contents, repositories, spools }))
    }

    /// Opens the content of the manifest's entry `index`. Content that is not what was hashed ends in an error, not in its end.
    pub fn open(&self, index: u32) -> io::Result<Box<dyn Read + Send>> {
        let content = usize::try_from(index).ok().and_then(|index| self.0.contents.get(index));
        let content = content.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the tree has no entry {index}")))?;
        match &content.source {
            Source::Nothing => Ok(Box::new(io::empty())),
            Source::Of(other, index) => other.open(*index),
            Source::Blob { repository, id, remembered } => {
                let blob = open_blob(&self.0.repositories[*repository], *id, content.size).map_err(io::Error::other)?;
                Ok(if *remembered { Box::new(Verified::new(blob, content, format!("the blob {id}"))) } else { blob })
            }
            Source::Spooled { spool, offset } => {
                Ok(Box::new(Piece { inner: self.clone(), spool: *spool, offset: *offset, rest: content.size }))
            }
            Source::File(path) => Ok(Box::new(Verified::new(open_file(path)?, content, format!("`{}`", path.display())))),
        }
    }
}

/// Opens a regular file, and never what a link in its place leads to.
pub fn open_file(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is no longer a file", path.display())))
    }
}

/// Opens a blob: from memory where it is small.
pub fn open_blob(objects: &Objects, id: Oid, size: u64) -> Result<Box<dyn Read + Send>, GitError> {
    if size <= LARGE {
        return objects.with(|repository| Ok(Box::new(Cursor::new(objects::read(&repository.odb()?, id, ObjectType::Blob)?)) as Box<_>));
    }
    let isolated = objects.isolated()?;
    // Git streams what is beyond this limit instead of holding it.
    let call = isolated.call(["-c", "core.bigFileThreshold=16m", "cat-file", "blob", &id.to_string()]);
    Ok(Box::new(Streamed(Some(command::start(call, &isolated.work())?))))
}

/// A large blob on its way out of git; its end counts only where git ended well.
struct Streamed(Option<Running>);

impl Read for Streamed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(running) = &mut self.0 else { return Ok(0) };
        let length = running.read(buffer)?;
        if length == 0
            && !buffer.is_empty()
            && let Some(running) = self.0.take()
        {
            running.finish().map_err(io::Error::other)?;
        }
        Ok(length)
    }
}

/// A part of a spool, read at its own position.
struct Piece {
    inner: Contents,
    spool: usize,
    offset: u64,
    rest: u64,
}

impl Read for Piece {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.rest).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.inner.0.spools[self.spool].read_at(&mut buffer[..most], self.offset)?;
        if length == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += length as u64;
        self.rest -= length as u64;
        Ok(length)
    }
}

/// Content that may have changed since it was hashed: its size and digest are compared at its end.
struct Verified<R> {
    inner: R,
    hasher: blake3::Hasher,
    rest: u64,
    digest: Digest,
    name: String,
}

impl<R> Verified<R> {
    fn new(inner: R, content: &Content, name: String) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), rest: content.size, digest: content.digest, name }
    }

    fn changed(&self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is not what it was when it was hashed", self.name))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.rest = self.rest.checked_sub(length as u64).ok_or_else(|| self.changed())?;
        self.hasher.update(&buffer[..length]);
        // The last byte is held back with the error: a reader that stops at the size would never see the end.
        if self.rest == 0 && length > 0 && Digest::from(self.hasher.finalize()) != self.digest {
            return Err(self.changed());
        }
        if length == 0 && !buffer.is_empty() && self.rest > 0 { Err(self.changed()) } else { Ok(length) }
    }
}
