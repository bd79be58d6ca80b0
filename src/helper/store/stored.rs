//! `.deployer/manifest/<id>`: a release's manifest, and what proves each of its files.
//!
//! The file is `format (u32) | length of the manifest | compressed length | length of the ledger (u64 each) | manifest | ledger`,
//! little endian, both parts zstd frames with a checksum. It is made durable by the sync that precedes a seal.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::failure;
use crate::fs::{Stat, Time};
use crate::op::{Code, Failure};
use crate::release::{FORMAT, ReleaseId, layout};
use crate::root::Root;
use crate::tree::path::Shown;
use crate::tree::{Kind, Manifest};

const HEADER: usize = 28;
/// Beyond what the largest manifest takes; a damaged length must not be allocated.
const LIMIT: u64 = 4 * 1024 * 1024 * 1024;
/// A change within the tick of the file system's clock in which a file was looked at leaves no trace in its times.
const TICK_NANOS: u32 = 10_000_000;

/// A stored manifest.
#[derive(Clone, Debug)]
pub struct Stored {
    pub manifest: Manifest,
    /// The manifest as it travels: encoded and compressed.
    pub packed: Vec<u8>,
    pub ledger: Ledger,
    length: u64,
}

/// What is known of a release's files beyond the manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// When the proofs were taken: seconds and nanoseconds.
    recorded: (i64, u32),
    /// One for each entry of the manifest; only those of files are used.
    pub proofs: Vec<Proof>,
    /// The links that were made into the release.
    pub links: Vec<MadeLink>,
    /// What a build had made when the release was sealed.
    pub built: Vec<Built>,
    /// Whether `REVISION` was added.
    pub revision: bool,
}

/// How the content of a file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// It is not there, or was not looked at.
    None,
    /// It had the manifest's digest when it looked like this.
    Verified(Stamp),
    /// The build changed it, and it looked like this when the release was sealed.
    Changed(Stamp),
}

/// What a file looked like. Writing to it changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    mode: u32,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    ino: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeLink {
    pub path: Vec<u8>,
    pub target: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    pub path: Vec<u8>,
    /// None for a directory: its times change with what is in it.
    pub stamp: Option<Stamp>,
}

impl From<&Stat> for Stamp {
    fn from(stat: &Stat) -> Self {
        let pair = |time: Time| (time.seconds, time.nanos);
        Self { mode: stat.mode, size: stat.size, mtime: pair(stat.mtime), ctime: pair(stat.ctime), ino: stat.ino }
    }
}

impl Ledger {
    /// Gives what the file of entry `index` looked like when it was verified, if that is proof enough to not read it again.
    pub fn trusted(&self, index: usize) -> Option<Stamp> {
        match self.proofs.get(index) {
            Some(Proof::Verified(stamp)) if after(stamp.ctime) <= self.recorded => Some(*stamp),
            Some(Proof::None | Proof::Verified(_) | Proof::Changed(_)) | None => None,
        }
    }

    /// Tells whether `path` is a link that was made, or lies where one replaced a directory.
    pub fn is_linked(&self, path: &[u8]) -> bool {
        self.links.iter().any(|link| path.strip_prefix(&*link.path).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/')))
    }
}

fn after((seconds, nanos): (i64, u32)) -> (i64, u32) {
    let nanos = nanos + TICK_NANOS;
    if nanos >= 1_000_000_000 { (seconds + 1, nanos - 1_000_000_000) } else { (seconds, nanos) }
}

impl Stored {
    pub fn new(manifest: Manifest) -> io::Result<Self> {
        let encoded = manifest.encode();
        let ledger = Ledger {
            recorded: (0, 0),
            proofs: vec![Proof::None; manifest.entries().len()],
            links: Vec::new(),
            built: Vec::new(),
            revision: false,
        };
        Ok(Self { packed: pack(&encoded, 1)?, length: encoded.len() as u64, manifest, ledger })
    }

    /// Lists the files that are not proven: their indices.
    pub fn unproven(&self) -> Vec<usize> {
        let entries = self.manifest.entries().iter().zip(&self.ledger.proofs).enumerate();
        entries
            .filter(|(_, (entry, proof))| matches!(entry.kind, Kind::File { .. }) && matches!(proof, Proof::None))
            .map(|(index, _)| index)
            .collect()
    }

    /// Writes the manifest's file.
    pub fn save(&mut self, root: &Root, release: &ReleaseId) -> Result<(), Failure> {
        self.save_to(root, &layout::manifest(release))
    }

    /// Writes it to any file beneath the root.
    pub fn save_to(&mut self, root: &Root, path: &str) -> Result<(), Failure> {
        let now = super::now();
        self.ledger.recorded = (now.seconds, now.nanos);
        self.to_bytes().and_then(|bytes| root.dir.replace_unsynced(path, &bytes, 0o600)).map_err(|error| failure::io("write", path, &error))
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let ledger = postcard::to_allocvec(&self.ledger).map_err(io::Error::other)?;
        let packed = pack(&ledger, 1)?;
        let mut bytes = Vec::with_capacity(HEADER + self.packed.len() + packed.len());
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        for length in [self.length, self.packed.len() as u64, ledger.len() as u64] {
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.extend_from_slice(&self.packed);
        bytes.extend_from_slice(&packed);
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (format, lengths, body) = split_header(bytes).ok_or("it ends early")?;
        if format != FORMAT {
            return Err(format!("it has the format {format}, where {FORMAT} is the one known here"));
        }
        let [length, packed, ledger] = lengths;
        let (packed, rest) = usize::try_from(packed).ok().and_then(|at| body.split_at_checked(at)).ok_or("it ends early")?;
        let manifest = Manifest::decode(&unpack(packed, length)?).map_err(|error| error.to_string())?;
        let ledger: Ledger = postcard::from_bytes(&unpack(rest, ledger)?).map_err(|error| error.to_string())?;
        if ledger.proofs.len() != manifest.entries().len() {
            return Err("its proofs are not those of its entries".to_owned());
        }
        Ok(Self { manifest, packed: packed.to_vec(), ledger, length })
    }
}

/// Reads a release's stored manifest.
pub fn load(root: &Root, release: &ReleaseId) -> Result<Stored, Failure> {
    load_from(root, &layout::manifest(release))
}

/// Reads a stored manifest from any file beneath the root.
pub fn load_from(root: &Root, path: &str) -> Result<Stored, Failure> {
    let bytes = root.dir.read(path, LIMIT).map_err(|error| failure::io("read", path, &error))?;
    Stored::from_bytes(&bytes).map_err(|why| failure::new(Code::Corrupt, format!("cannot read `{}`: {why}", Shown(path.as_bytes()))))
}

fn split_header(bytes: &[u8]) -> Option<(u32, [u64; 3], &[u8])> {
    let (format, rest) = bytes.split_first_chunk::<4>()?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (second, rest) = rest.split_first_chunk::<8>()?;
    let (third, rest) = rest.split_first_chunk::<8>()?;
    Some((u32::from_le_bytes(*format), [first, second, third].map(|length| u64::from_le_bytes(*length)), rest))
}

fn pack(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::with_capacity(bytes.len() / 4), level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    io::Write::write_all(&mut encoder, bytes)?;
    encoder.finish()
}

fn unpack(packed: &[u8], length: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(packed).map_err(|error| error.to_string())?;
    decoder.take(length.saturating_add(1).min(LIMIT)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err("its length is not the one it says".to_owned()) }
}
