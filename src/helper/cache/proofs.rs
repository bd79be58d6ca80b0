//! What a file of a cache was found to hold, and how it looked then: what looks the same is not read again.

use std::collections::HashMap;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::fs::{Dir, Stat};
use crate::root::Root;
use crate::store::Stamp;
use crate::tree::Digest;

/// A file that was written so shortly before it was looked at may change without looking different.
const SETTLED_SECONDS: i64 = 2;

/// The proofs of one directory. They lie in the host's root, which nobody else writes to.
pub struct Proofs {
    path: String,
    root: Option<Root>,
    known: Known,
    changed: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Known(HashMap<Vec<u8>, (Stamp, Digest)>);

impl Proofs {
    /// Reads what was kept. Without a root that was set up nothing is kept, and every file is read each time.
    pub fn of(directory: &str, root: Option<Root>) -> Self {
        let root = root.filter(|root| root.has_control().unwrap_or(false));
        let name = &Digest::of(directory.as_bytes()).to_string()[..16];
        let path = format!("{}/cache-{name}", crate::release::layout::CONTROL);
        let read = root.as_ref().and_then(|root| root.dir.read(&path, 256 << 20).ok());
        let known = read.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        Self { path, root, known, changed: false }
    }

    /// Finds the digest of a file that `stat` tells of, reading the file only where it must.
    pub fn digest(&mut self, dir: &Dir, path: &[u8], stat: &Stat) -> io::Result<Digest> {
        if let Some((stamp, digest)) = self.known.0.get(path)
            && *stamp == Stamp::from(stat)
        {
            return Ok(*digest);
        }
        let mut file = dir.open_file(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
        }
        let digest = Digest::from(hasher.finalize());
        if stat.ctime.seconds + SETTLED_SECONDS < crate::helper::clock() {
            self.known.0.insert(path.to_vec(), (Stamp::from(stat), digest));
            self.changed = true;
        }
        Ok(digest)
    }

    /// Keeps what was learnt. Where that fails the files are read again next time.
    pub fn save(&self) {
        if let (true, Some(root)) = (self.changed, &self.root)
            && let Ok(bytes) = postcard::to_allocvec(&self.known)
        {
            let _ = root.dir.replace_unsynced(&self.path, &bytes, 0o600);
        }
    }
}
