//! Lists what is in a directory, reads listed files, and removes what a fill worked in.

use std::io::{self, Write};

use super::proofs::Proofs;
use super::{WORK, controlled, open, pack, receive};
use crate::failure;
use crate::fs::{Dir, FileKind};
use crate::helper::Helper;
use crate::op::{Code, Failure};
use crate::pipe::Request;
use crate::release::layout;
use crate::root::Root;
use crate::tree::manifest::{EXECUTABLE, FILE};
use crate::tree::path::Shown;
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};
use crate::wire::FrameKind;

/// Directories within each other that are listed; nothing that a resolver makes is deeper.
const DEPTH: usize = 64;

/// Sends the list of all files of a directory. Without `digests` nothing is read, and all digests are zero.
pub fn gather(helper: &Helper, request: &Request, directory: &str, digests: bool) -> Result<(), Failure> {
    let dir = open(directory)?;
    let mut walk = Walk { directory, proofs: Proofs::of(directory, Root::open(&helper.root_path).ok()), digests, entries: Vec::new() };
    walk.list(&dir, &dir, b"", 0)?;
    walk.proofs.save();
    let list = Manifest::from_unsorted(walk.entries).map_err(|error| failure::new(Code::Refused, format!("`{directory}`: {error}")))?;
    request.send(FrameKind::Data, &pack(&list)?).map_err(|_| stopped())
}

struct Walk<'a> {
    directory: &'a str,
    proofs: Proofs,
    digests: bool,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn list(&mut self, base: &Dir, dir: &Dir, above: &[u8], depth: usize) -> Result<(), Failure> {
        let at = |path: &[u8]| format!("{}/{}", self.directory, Shown(path));
        let names = dir.names().map_err(|error| failure::io("read", at(above), &error))?;
        for name in names.iter().filter(|name| !(above.is_empty() && name.as_slice() == layout::CONTROL.as_bytes())) {
            let path = if above.is_empty() { name.clone() } else { [above, b"/", name].concat() };
            let failed = |error: io::Error| failure::io("read", format!("{}/{}", self.directory, Shown(&path)), &error);
            let stat = dir.stat(name).map_err(failed)?;
            match stat.kind {
                FileKind::Directory if depth < DEPTH => {
                    let inner = dir.open_dir(name).map_err(failed)?;
                    self.list(base, &inner, &path, depth + 1)?;
                }
                FileKind::File => {
                    let digest = if self.digests { self.proofs.digest(base, &path, &stat).map_err(failed)? } else { Digest([0; 32]) };
                    let mode = if stat.mode & 0o100 != 0 { EXECUTABLE } else { FILE };
                    let tree_path = TreePath::new(path.clone()).map_err(|error| refused(self.directory, &path, &error.to_string()))?;
                    self.entries
                        .push(Entry { path: tree_path, kind: Kind::File { mode, size: stat.size, digest, mtime: stat.mtime.seconds } });
                }
                FileKind::Directory => return Err(refused(self.directory, &path, "too deep")),
                FileKind::Link | FileKind::Other if !self.digests => {}
                FileKind::Link | FileKind::Other => return Err(refused(self.directory, &path, "neither a file nor a directory")),
            }
        }
        Ok(())
    }
}

fn refused(directory: &str, path: &[u8], why: &str) -> Failure {
    failure::new(Code::Refused, format!("`{directory}/{}` cannot be part of a cache: {why}", Shown(path)))
}

/// Sends the content of listed files, one behind the other. What is not as listed ends it.
pub fn fetch(request: &Request, directory: &str, size: u64) -> Result<(), Failure> {
    let list = receive(request.input(), size)?;
    let dir = open(directory)?;
    let mut encoder = zstd::Encoder::new(Stream(request), 1).map_err(|error| failure::io("compress", directory, &error))?;
    for entry in list.entries() {
        let Kind::File { size, .. } = &entry.kind else { continue };
        let path = entry.path.as_bytes();
        let failed = |error: io::Error| failure::io("read", format!("{directory}/{}", entry.path), &error);
        let (mut file, stat) = dir.open_file_stat(path).map_err(failed)?;
        if stat.size != *size {
            return Err(failure::new(Code::Corrupt, format!("`{directory}/{}` is not as listed", entry.path)));
        }
        let copied = io::copy(&mut file, &mut encoder).map_err(failed)?;
        if copied != *size {
            return Err(failure::new(Code::Corrupt, format!("`{directory}/{}` changed while it was read", entry.path)));
        }
    }
    encoder.finish().map(drop).map_err(|error| failure::io("send", directory, &error))
}

/// A request's stream as a `Write`.
struct Stream<'a>(&'a Request);

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(FrameKind::Data, bytes).map_err(|_| io::Error::new(io::ErrorKind::ConnectionAborted, "the stream was cut off"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes what a fill worked in, and nothing else.
pub fn clear(helper: &Helper, directory: &str) -> Result<(), Failure> {
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let Some((cache, name)) = directory.split_once(WORK).filter(|(_, name)| plain(name)) else {
        return Err(failure::new(Code::Refused, format!("`{}` is not what a fill works in", Shown(directory.as_bytes()))));
    };
    let dir = controlled(helper, cache)?;
    let below = format!("{}{name}", &WORK[1..]);
    match dir.trash(&below) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(|error| failure::io("remove", directory, &error))?,
    }
    dir.empty_trash().map_err(|error| failure::io("remove", directory, &error))
}

fn stopped() -> Failure {
    failure::new(Code::Stopped, "stopped while it was sent")
}
