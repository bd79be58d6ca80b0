//! Digests remembered by object id, one file a repository: what was exported before is not read again.
//!
//! The file is `magic | record… | BLAKE3 of all that`. One that is damaged is as good as none. It is replaced by a rename, after
//! merging what another process wrote meanwhile, so that no lock is needed; losing an update costs a second hash, nothing else.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use git2::Oid;

use crate::tree::Digest;

const MAGIC: &[u8; 8] = b"dplydig1";
const RECORD: usize = 20 + 8 + 32;
/// Set in the size of a blob that is a Git LFS pointer.
const POINTER: u64 = 1 << 63;
/// Beyond this many records only those of the present export are kept (240 MB would be read for every deploy else).
const MOST: usize = 4_000_000;

/// What is known of a blob without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub size: u64,
    pub digest: Digest,
    pub pointer: bool,
}

/// The digests of one repository.
#[derive(Debug)]
pub struct Digests {
    file: PathBuf,
    known: HashMap<Oid, Known>,
}

impl Digests {
    /// Reads what is remembered of `repository`.
    pub fn load(cache: &Path, repository: &Path) -> Self {
        let name = Digest::of(repository.as_os_str().as_encoded_bytes()).to_string();
        let file = cache.join("digests").join(&name[..32]);
        let known = fs::read(&file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { file, known }
    }

    pub fn find(&self, id: Oid) -> Option<Known> {
        self.known.get(&id).copied()
    }

    /// Adds `fresh`. A cache that cannot be written is no reason to stop a deploy.
    pub fn remember(&self, fresh: &HashMap<Oid, Known>) {
        if fresh.is_empty() {
            return;
        }
        let mut all = fs::read(&self.file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        all.extend(fresh);
        if all.len() > MOST {
            all.clone_from(fresh);
        }
        let _ = replace(&self.file, &encode(&all));
    }
}

fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.persist(file)?;
    Ok(())
}

fn encode(known: &HashMap<Oid, Known>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + known.len() * RECORD + 32);
    bytes.extend_from_slice(MAGIC);
    for (id, known) in known {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&(known.size | if known.pointer { POINTER } else { 0 }).to_le_bytes());
        bytes.extend_from_slice(&known.digest.0);
    }
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(&check.0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<Oid, Known>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let records = body.strip_prefix(MAGIC)?;
    if Digest::of(body).0 != check || records.len() % RECORD != 0 {
        return None;
    }
    records
        .chunks_exact(RECORD)
        .map(|record| {
            let size = u64::from_le_bytes(record[20..28].try_into().ok()?);
            let digest = Digest(record[28..].try_into().ok()?);
            Some((Oid::from_bytes(&record[..20]).ok()?, Known { size: size & !POINTER, digest, pointer: size & POINTER != 0 }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(byte: u8) -> (Oid, Known) {
        (Oid::from_bytes(&[byte; 20]).unwrap(), Known { size: u64::from(byte), digest: Digest::of(&[byte]), pointer: byte == 2 })
    }

    #[test]
    fn what_two_processes_remember_is_merged() {
        let cache = tempfile::tempdir().unwrap();
        let load = || Digests::load(cache.path(), Path::new("/somewhere/.git"));
        let (one, two) = (load(), load());
        one.remember(&HashMap::from([blob(1)]));
        two.remember(&HashMap::from([blob(2)]));
        assert_eq!(load().known, HashMap::from([blob(1), blob(2)]));
        assert_eq!(Digests::load(cache.path(), Path::new("/elsewhere/.git")).find(blob(1).0), None);
    }

    #[test]
    fn a_damaged_cache_is_discarded_whatever_byte_is_wrong() {
        let bytes = encode(&HashMap::from([blob(1), blob(2)]));
        assert!(decode(&bytes).is_some());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
