//! The content of the few paths that need git's own formats, from one `git archive` of just these paths.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;

use crate::tree::{Digest, TreePath};

use super::command;
use super::error::GitError;
use super::isolated::Isolated;

/// Bytes of paths one call is given: well below what Linux takes as arguments.
const ARGUMENTS: usize = 96 * 1024;
/// Where more calls than this would be needed, one archive of the whole tree is cheaper.
const CALLS: usize = 4;

/// Converted content, one after another in an unlinked temporary file.
#[derive(Debug)]
pub struct Spool {
    pub file: File,
    pub pieces: HashMap<TreePath, Piece>,
}

/// Where the content of one path lies in the spool.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub offset: u64,
    pub size: u64,
    pub digest: Digest,
}

/// Has git convert `paths` of `treeish`: a commit, or a tree, in which `export-subst` has nothing to expand.
pub fn convert(isolated: &Isolated, treeish: &str, mailmap: &str, paths: &HashSet<TreePath>) -> Result<Spool, GitError> {
    let failed = |error| GitError::Io { what: "a temporary file could not be written", path: std::env::temp_dir(), error };
    let mut spool = Spool { file: tempfile::tempfile().map_err(failed)?, pieces: HashMap::new() };
    for batch in batches(paths) {
        // Outside a work tree git takes the mailmap (`%aN`) from `HEAD`; here it is the exported commit's own.
        let mut call = isolated.call(["-c", &format!("mailmap.blob={mailmap}"), "archive", "--format=tar", "--", treeish]);
        call.arguments.extend(batch.iter().map(|path| OsStr::from_bytes(path.as_bytes()).to_owned()));
        let mut running = command::start(call, &isolated.work())?;
        let result = unpack(&mut running, paths, &mut spool);
        match result {
            Ok(()) => running.finish()?,
            // What git says of its own end explains a cut-off archive best.
            Err(error) => return Err(running.finish().map_or_else(GitError::from, |()| GitError::Archive(error.to_string()))),
        }
    }
    match paths.iter().find(|path| !spool.pieces.contains_key(path)) {
        None => Ok(spool),
        Some(path) => Err(GitError::Archive(format!("`{path}` is missing"))),
    }
}

fn batches(paths: &HashSet<TreePath>) -> Vec<Vec<&TreePath>> {
    let mut batches: Vec<Vec<&TreePath>> = Vec::new();
    let mut room = 0;
    for path in paths {
        let length = path.as_bytes().len() + 1;
        match batches.last_mut() {
            Some(batch) if length <= room => batch.push(path),
            _ => {
                batches.push(vec![path]);
                room = ARGUMENTS;
            }
        }
        room = room.saturating_sub(length);
    }
    if batches.len() > CALLS { vec![Vec::new()] } else { batches }
}

/// Reads git's tar: headers of 512 bytes, `x` records for long names, `g` records that concern nobody here.
fn unpack(tar: &mut impl Read, wanted: &HashSet<TreePath>, spool: &mut Spool) -> io::Result<()> {
    let mut long = Long::default();
    let mut header = [0; 512];
    loop {
        tar.read_exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let kind = header[156];
        let size = match (kind, long.size) {
            (b'0', Some(size)) => size,
            _ => octal(&header[124..136])?,
        };
        let mut content = tar.take(size);
        match kind {
            b'x' => long = Long::read(&mut content)?,
            b'0' => {
                let name = std::mem::take(&mut long).path.unwrap_or_else(|| name(&header));
                if let Some(path) = TreePath::new(name).ok().filter(|path| wanted.contains(path)) {
                    let piece = spool.add(&mut content)?;
                    spool.pieces.insert(path, piece);
                }
            }
            b'g' => {}
            _ => long = Long::default(),
        }
        io::copy(&mut content, &mut io::sink())?;
        if content.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        io::copy(&mut tar.take(size.next_multiple_of(512) - size), &mut io::sink())?;
    }
}

impl Spool {
    fn add(&mut self, content: &mut impl Read) -> io::Result<Piece> {
        let offset = self.file.stream_position()?;
        let mut hashing = Hashing { inner: &mut self.file, hasher: blake3::Hasher::new() };
        let size = io::copy(content, &mut hashing)?;
        Ok(Piece { offset, size, digest: hashing.hasher.finalize().into() })
    }
}

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What an extended header says of the next entry.
#[derive(Default)]
struct Long {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Long {
    /// Reads records `length SP key=value LF`.
    fn read(content: &mut impl Read) -> io::Result<Self> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut long = Self::default();
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length: usize = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
            let record = rest.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            match (&record[..equals], &record[equals + 1..]) {
                (b"path", value) => long.path = Some(value.to_vec()),
                (b"size", value) => long.size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
                _ => {}
            }
            rest = &rest[length..];
        }
        Ok(long)
    }
}

fn octal(field: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(field).map_err(|_| io::ErrorKind::InvalidData)?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Joins the two fields of a name.
fn name(header: &[u8; 512]) -> Vec<u8> {
    let field = |range: std::ops::Range<usize>| header[range].split(|byte| *byte == 0).next().unwrap_or_default();
    match (field(345..500), field(0..100)) {
        (b"", name) => name.to_vec(),
        (prefix, name) => [prefix, b"/", name].concat(),
    }
}
