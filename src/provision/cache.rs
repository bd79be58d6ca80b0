//! Download caches on hosts: compared with a list, completed from here, from the host's own files or from other hosts.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::event::{Events, Step};
use crate::git::Artifact;
use crate::host::{Host, HostError, Reply};
use crate::op::{Answer, Compare, Compared, Op};
use crate::shelf::{Shelf, ShelfError};
use crate::stage::transfer::{Encoded, Pack, Packs, Ranges, TransferError, check_request, compress, send_pack};
use crate::tree::{Digest, Entry, Kind, Manifest};

/// The most bytes a list may decompress to.
const LIMIT: u64 = 256 << 20;

/// Files on their way to many hosts: compressed once for all that lack the same.
pub struct Goods {
    artifact: Arc<Artifact>,
    list: Encoded,
    packs: Packs,
    spool: PathBuf,
}

/// What it took to complete a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supplied {
    pub files: u64,
    pub sent_bytes: u64,
}

impl Goods {
    pub fn new(artifact: Artifact, spool: &Path) -> io::Result<Self> {
        let list = compress(&artifact.manifest.encode())?;
        Ok(Self { artifact: Arc::new(artifact), list, packs: Packs::default(), spool: spool.to_owned() })
    }

    #[must_use]
    pub fn files(&self) -> &Manifest {
        &self.artifact.manifest
    }

    fn pack(&self, missing: &[(u32, u32)]) -> io::Result<Arc<Pack>> {
        self.packs.of(&self.artifact, missing, &self.spool)
    }
}

/// Compares a directory of a host with the goods; nothing is changed.
pub async fn compare(host: &Host, directory: &str, goods: &Goods) -> Result<Compared, TransferError> {
    let op = Compare { directory: directory.to_owned(), set: None, size: goods.list.size, begin: false, from: None };
    Ok(ask(host, op, &goods.list.bytes).await?.0)
}

/// Asks a host which files it once was told that a set has; none where it was not.
pub async fn recall(host: &Host, directory: &str, key: Digest) -> Result<Option<Manifest>, TransferError> {
    let op = Compare { directory: directory.to_owned(), set: Some(key), size: 0, begin: false, from: None };
    let (compared, packed) = ask(host, op, &[]).await?;
    if compared.listed { unpack(&packed).map(Some) } else { Ok(None) }
}

/// Makes a directory of a host hold all the goods, and keeps the list there under `set`. What the host has itself, `from` a directory
/// or in the cache, is not sent.
pub async fn complete(
    host: &Host,
    directory: &str,
    goods: &Goods,
    (set, from): (Option<Digest>, Option<&str>),
    (step, events): (Step, &Events),
) -> Result<Supplied, TransferError> {
    let before = host.sent_bytes();
    let op = Compare { directory: directory.to_owned(), set, size: goods.list.size, begin: true, from: from.map(str::to_owned) };
    let (compared, _) = ask(host, op, &goods.list.bytes).await?;
    let missing = lacking(&compared);
    let mut files = 0;
    if !missing.is_empty() {
        check_request(goods.files(), &missing)?;
        let pack = goods.pack(&missing).map_err(TransferError::Local)?;
        let op = Op::Supply { directory: directory.to_owned(), size: pack.size };
        files = send_pack(host, op, &pack, step, events).await?.files;
    }
    Ok(Supplied { files, sent_bytes: host.sent_bytes() - before })
}

/// What has to come from elsewhere: what is missing, and what is not what it should be.
#[must_use]
pub fn lacking(compared: &Compared) -> Ranges {
    let all = compared.missing.iter().chain(&compared.differing);
    let mut indices: Vec<u32> = all.flat_map(|(first, count)| *first..first.saturating_add(*count)).collect();
    indices.sort_unstable();
    let mut ranges: Ranges = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            Some(_) | None => ranges.push((index, 1)),
        }
    }
    ranges
}

/// The entries that ranges name.
#[must_use]
pub fn entries<'a>(files: &'a Manifest, ranges: &[(u32, u32)]) -> Vec<&'a Entry> {
    let indices = ranges.iter().flat_map(|(first, count)| *first..first.saturating_add(*count));
    indices.filter_map(|index| files.entries().get(index as usize)).collect()
}

/// Lists the files of a directory of a host. Without `digests` nothing is read there, and all digests are zero.
pub async fn gather(host: &Host, directory: &str, digests: bool) -> Result<Manifest, TransferError> {
    let mut call = host.start(Op::Gather { directory: directory.to_owned(), digests }).await?;
    let mut packed = Vec::new();
    loop {
        match call.next().await? {
            Reply::Output { bytes, .. } => packed.extend_from_slice(&bytes),
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(_) => return unpack(&packed),
        }
    }
}

/// Brings files from a directory of a host onto the shelf, each verified.
pub async fn fetch(host: &Host, directory: &str, files: Manifest, shelf: &Shelf, spool: &Path) -> Result<(), TransferError> {
    let list = compress(&files.encode()).map_err(TransferError::Local)?;
    let mut call = host.start(Op::Fetch { directory: directory.to_owned(), size: list.size }).await?;
    if call.send(&list.bytes).await.is_ok() {
        // A host that refuses may answer before it has seen the end of the list: its answer decides.
        let _ = call.end().await;
    }
    let mut arrived = tempfile::tempfile_in(spool).map_err(TransferError::Local)?;
    loop {
        match call.next().await? {
            Reply::Output { bytes, .. } => arrived.write_all(&bytes).map_err(TransferError::Local)?,
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(_) => break,
        }
    }
    let shelf = shelf.clone();
    let kept = tokio::task::spawn_blocking(move || {
        arrived.seek(SeekFrom::Start(0))?;
        let mut content = zstd::Decoder::new(arrived)?;
        files.entries().iter().try_for_each(|entry| shelf.take(entry, &mut content).map_err(io_of))
    });
    kept.await.map_err(io::Error::other).and_then(|kept| kept).map_err(TransferError::Local)
}

fn io_of(error: ShelfError) -> io::Error {
    match error {
        ShelfError::Io { error, .. } => error,
        other => io::Error::other(other),
    }
}

/// Removes what a fill worked in.
pub async fn clear(host: &Host, directory: &str) -> Result<(), HostError> {
    host.ask(Op::Clear { directory: directory.to_owned() }).await.map(drop)
}

async fn ask(host: &Host, op: Compare, list: &[u8]) -> Result<(Compared, Vec<u8>), TransferError> {
    let mut call = host.start(Op::Compare(op)).await?;
    if call.send(list).await.is_ok() {
        let _ = call.end().await;
    }
    let mut packed = Vec::new();
    loop {
        match call.next().await? {
            Reply::Output { bytes, .. } => packed.extend_from_slice(&bytes),
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(Answer::Compared(compared)) => return Ok((compared, packed)),
            Reply::Answer(other) => return Err(HostError::unexpected(host.name(), &other).into()),
        }
    }
}

fn unpack(packed: &[u8]) -> Result<Manifest, TransferError> {
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(packed).map_err(TransferError::Local)?;
    decoder.take(LIMIT).read_to_end(&mut bytes).map_err(TransferError::Local)?;
    let list = Manifest::decode(&bytes).map_err(|error| TransferError::Local(io::Error::other(error)))?;
    let is_file = |entry: &Entry| matches!(entry.kind, Kind::File { .. });
    if list.entries().iter().all(is_file) { Ok(list) } else { Err(TransferError::Greedy) }
}
