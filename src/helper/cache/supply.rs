//! Writes content into a directory that was compared: aside first, verified, synced, then named by one rename.

use std::io::{self, BufRead, Read, Write};

use super::compare::parent;
use super::{Begun, lock, open_for_writing};
use crate::failure;
use crate::fs::{Dir, random_name};
use crate::helper::Helper;
use crate::op::{Code, Failure, Written};
use crate::pipe::Request;
use crate::release::layout;
use crate::store::Unpack;
use crate::tree::{Digest, Entry, Kind};

const BUFFER: usize = 256 * 1024;

/// Takes the content that the stream brings: records `index | content`, in one frame of `size` bytes.
pub fn supply(helper: &Helper, begun: &Begun, request: &Request, directory: &str, size: u64) -> Result<Written, Failure> {
    let list = begun.of(directory)?;
    let dir = open_for_writing(helper, directory)?;
    let _lock = lock(&dir, directory, request)?;
    let mut written = Written::default();
    if size == 0 {
        return Ok(written);
    }
    let mut unpack = Unpack::new(request.input(), size)?;
    let mut taken = 0;
    while unpack.left() > 0 {
        let mut index = [0; 4];
        unpack.fill(&mut index)?;
        let index = u32::from_le_bytes(index);
        let entry = usize::try_from(index).ok().and_then(|index| list.entries().get(index));
        let Some((entry, Kind::File { size, .. })) = entry.map(|entry| (entry, &entry.kind)) else {
            return Err(failure::new(Code::Protocol, format!("content for entry {index}, which is no file of the list")));
        };
        place(&dir, entry, Arriving { unpack: &mut unpack, left: *size })?;
        taken += 4 + size;
        request.progress(taken);
        written.files += 1;
        written.bytes += size;
    }
    unpack.finish()?;
    dir.sync_file_system().map_err(|error| failure::io("sync", directory, &error))?;
    Ok(written)
}

/// The content of one file out of the stream of all.
struct Arriving<'a, R: BufRead> {
    unpack: &'a mut Unpack<R>,
    left: u64,
}

impl<R: BufRead> Read for Arriving<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if count == 0 {
            return Ok(0);
        }
        self.unpack.fill(&mut buffer[..count]).map_err(|failure| io::Error::other(failure.message))?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Puts one file in its place. Content that is not what the list says gets no name.
pub fn place(dir: &Dir, entry: &Entry, mut content: impl Read) -> Result<(), Failure> {
    let Kind::File { mode, size, digest, mtime } = &entry.kind else { return Ok(()) };
    let path = entry.path.as_bytes();
    let failed = |error: io::Error| failure::io("write", path, &error);
    let aside = random_name().map_err(failed)?;
    let aside = format!("{}/{aside}", layout::TEMPORARY);
    let mut file = dir.create_file(&aside, *mode).map_err(failed)?;
    let copied = copy(&mut content, &mut file, *size).and_then(|now| {
        crate::fs::set_mtime(&file, *mtime)?;
        Ok(now)
    });
    let named = match copied {
        Ok(now) if now == Some(*digest) => parent(dir, path).and_then(|()| dir.rename(&aside, path)).map_err(failed),
        Ok(_) => {
            let message = format!("`{}` did not arrive as it is: its digest is not {digest}", entry.path);
            Err(failure::new(Code::Corrupt, message))
        }
        Err(error) => Err(failed(error)),
    };
    if named.is_err() {
        // Best effort: the first error is the one to tell, and what stays has no name.
        let _ = dir.unlink(&aside);
    }
    named
}

/// Copies `size` bytes and gives their digest; none where there are fewer or more.
fn copy(content: &mut impl Read, file: &mut std::fs::File, size: u64) -> io::Result<Option<Digest>> {
    let (mut hasher, mut left, mut buffer) = (blake3::Hasher::new(), size, vec![0; BUFFER]);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok((left == 0).then(|| hasher.finalize().into())),
            Ok(count) => {
                let Some(rest) = left.checked_sub(count as u64) else { return Ok(None) };
                left = rest;
                hasher.update(&buffer[..count]);
                file.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
