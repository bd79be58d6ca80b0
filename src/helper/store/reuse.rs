//! Fills a release from what the host has: other releases' files, and content that several paths of one release share.
//! Files are copied or reflinked, never hard-linked, so that no build can change another release.

use std::collections::HashMap;

use super::copy::{Copier, NotCopied, Wanted};
use super::crew::{self, Cursor};
use super::stored::{Proof, Stamp, Stored};
use super::{failure, shown, stored};
use crate::fs::Dir;
use crate::op::{Code, Failure};
use crate::release::{ReleaseId, layout};
use crate::root::Root;
use crate::tree::{Digest, Entry, Kind, Manifest};

/// A release whose files may be copied.
pub struct Source {
    pub release: ReleaseId,
    /// Its proofs may be believed: it was sealed. Of any other every byte is hashed.
    pub sealed: bool,
}

/// What came from the host itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reused {
    pub files: u64,
    pub bytes: u64,
}

struct Job {
    index: usize,
    from: usize,
    trusted: Option<Stamp>,
}

/// A release being filled.
pub struct Filling<'a> {
    pub root: &'a Root,
    pub release: &'a ReleaseId,
    pub dir: &'a Dir,
    pub copier: Copier,
    /// Asked before each file: whether what is copied is not wanted any more.
    pub give_up: &'a (dyn Fn() -> bool + Sync),
}

/// For what is never given up.
pub const NEVER: &(dyn Fn() -> bool + Sync) = &|| false;

impl Filling<'_> {
    /// Tries one source after the other until nothing is missing.
    pub fn copy_from_releases(&self, stored: &mut Stored, sources: &[Source]) -> Result<Reused, Failure> {
        let mut reused = Reused::default();
        for source in sources {
            if stored.unproven().is_empty() {
                break;
            }
            // A source that cannot be read is no reason to fail: its content comes from elsewhere.
            let Ok(other) = stored::load(self.root, &source.release) else { continue };
            let Ok(dir) = self.root.dir.open_dir(layout::release(&source.release)) else { continue };
            let jobs = jobs(stored, &other.manifest, |_| true, |index| if source.sealed { other.ledger.trusted(index) } else { None });
            let part = self.copy(stored, &dir, &other.manifest, &jobs)?;
            reused = Reused { files: reused.files + part.files, bytes: reused.bytes + part.bytes };
        }
        Ok(reused)
    }

    /// Copies content that the release has at one path to the others that must have it.
    pub fn copy_within(&self, stored: &mut Stored) -> Result<Reused, Failure> {
        let has = |index: usize| match stored.ledger.proofs[index] {
            Proof::Verified(stamp) => Some(stamp),
            Proof::None | Proof::Changed(_) => None,
        };
        let jobs = jobs(stored, &stored.manifest, |index| has(index).is_some(), has);
        if jobs.is_empty() {
            return Ok(Reused::default());
        }
        let manifest = stored.manifest.clone();
        self.copy(stored, self.dir, &manifest, &jobs)
    }

    fn copy(&self, stored: &mut Stored, from: &Dir, source: &Manifest, jobs: &[Job]) -> Result<Reused, Failure> {
        let entries = stored.manifest.entries();
        let (done, result) = crew::each(
            jobs,
            || (Cursor::new(from), Cursor::new(self.dir), Vec::new()),
            |(from, to, buffer), job| self.copy_one((from, &source.entries()[job.from]), (to, &entries[job.index]), job, buffer),
        );
        let mut reused = Reused::default();
        for (index, size, stamp) in done.into_iter().flatten() {
            stored.ledger.proofs[index] = Proof::Verified(stamp);
            reused = Reused { files: reused.files + 1, bytes: reused.bytes + size };
        }
        result.map(|()| reused)
    }

    fn copy_one(
        &self,
        (from, source): (&mut Cursor<'_>, &Entry),
        (to, entry): (&mut Cursor<'_>, &Entry),
        job: &Job,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<(usize, u64, Stamp)>, Failure> {
        let Some(wanted) = wanted(entry) else { return Ok(None) };
        if (self.give_up)() {
            return Err(failure::new(Code::Stopped, "given up, because somebody else needs the host"));
        }
        let opened = from.enter(source.path.as_bytes()).and_then(|(dir, name)| dir.open_file_stat(name));
        let Ok((mut file, looks)) = opened else { return Ok(None) };
        let failed = |error: std::io::Error| failure::io("write", shown(self.release, entry.path.as_bytes()), &error);
        let target = to.enter(entry.path.as_bytes()).map_err(failed)?;
        match self.copier.copy((&mut file, &looks), job.trusted, target, &wanted, buffer) {
            Ok(stamp) => Ok(Some((job.index, wanted.size, stamp))),
            Err(NotCopied::Source) => Ok(None),
            Err(NotCopied::Target(error)) => Err(failed(error)),
        }
    }
}

/// Finds, for every file that is missing, one of `source` with its content: at the same path if it can be.
fn jobs(stored: &Stored, source: &Manifest, usable: impl Fn(usize) -> bool, trusted: impl Fn(usize) -> Option<Stamp>) -> Vec<Job> {
    let entries = stored.manifest.entries();
    let same_path = |entry: &Entry, digest: Digest| {
        let at = source.entries().binary_search_by(|other| other.path.cmp(&entry.path)).ok()?;
        (wanted(&source.entries()[at])?.digest == digest && usable(at)).then_some(at)
    };
    let (mut jobs, mut elsewhere) = (Vec::new(), Vec::new());
    for index in stored.unproven() {
        let Some(wanted) = wanted(&entries[index]) else { continue };
        match same_path(&entries[index], wanted.digest) {
            Some(from) => jobs.push(Job { index, from, trusted: trusted(from) }),
            None => elsewhere.push((index, wanted.digest)),
        }
    }
    if !elsewhere.is_empty() {
        let known: HashMap<Digest, usize> = (0..)
            .zip(source.entries())
            .filter_map(|(index, entry)| Some((wanted(entry)?.digest, index)))
            .filter(|(_, index)| usable(*index))
            .collect();
        let found = elsewhere.iter().filter_map(|(index, digest)| Some((*index, *known.get(digest)?)));
        jobs.extend(found.map(|(index, from)| Job { index, from, trusted: trusted(from) }));
        jobs.sort_by_key(|job| job.index);
    }
    jobs
}

/// What the file of an entry must be; none where the entry is no file.
pub fn wanted(entry: &Entry) -> Option<Wanted> {
    match &entry.kind {
        Kind::File { mode, size, digest, mtime } => Some(Wanted { mode: *mode, size: *size, digest: *digest, mtime: *mtime }),
        Kind::Link { .. } | Kind::Directory => None,
    }
}
