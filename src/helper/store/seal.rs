//! Seals a release: every entry of the manifest is there and proven, what the build made is noted, and all of it is durable.

use std::io;

use super::crew::{self, Cursor};
use super::reuse::wanted;
use super::stored::{Built, Ledger, Proof, Stamp, Stored};
use super::survey::{Survey, survey};
use super::{Memory, copy, failure, note_record, now, open_release, record, shown, write_record};
use crate::faults::{self, Bug};
use crate::fs::{Dir, FileKind, Stat};
use crate::op::{Code, Failure};
use crate::release::{Record, ReleaseId, State, layout};
use crate::root::Root;
use crate::tree::Kind;

/// Seals `release` and gives the time of it. An error of writing back is final: what was written is suspect.
pub fn seal(root: &Root, memory: &Memory, release: &ReleaseId, durable: bool) -> Result<i64, Failure> {
    let mut record = record(root, release)?;
    let built = match record.state {
        State::Uploaded => false,
        State::Building => true,
        State::Uploading | State::Failed | State::Bad | State::Sealed | State::Active | State::Confirmed | State::Retired => {
            return Err(failure::new(Code::Refused, format!("release `{release}` cannot be sealed: it is neither uploaded nor built")));
        }
    };
    if faults::has(Bug::SealBeforeVerify) {
        note_record(root, &Record { state: State::Sealed, sealed: Some(0), ..record.clone() })?;
    }
    let whole = prove(root, memory, release, built);
    if let Err(failure) = whole.and_then(|dir| if durable { memory.sync(root, release, &dir) } else { Ok(()) }) {
        let Some(lost) = memory.lost(release) else { return Err(failure) };
        abandon(root, record, &lost);
        return Err(lost);
    }
    let at = now().seconds;
    record.state = State::Sealed;
    record.sealed = Some(at);
    record.durable = durable;
    note_record(root, &record)?;
    Ok(at)
}

/// Proves every entry of the manifest, and saves that with what a build made. Gives the release's directory.
fn prove(root: &Root, memory: &Memory, release: &ReleaseId, built: bool) -> Result<Dir, Failure> {
    let mut stored = memory.load(root, release)?;
    let dir = open_release(root, release)?;
    let survey = survey(release, &dir, &stored)?;
    let doubtful = doubtful(release, &dir, &stored, &survey)?;
    let proofs = reread(release, &dir, &stored, &doubtful)?;
    for (index, proof) in proofs {
        if let (Proof::Changed(_), false) = (proof, built) {
            let path = &stored.manifest.entries()[index].path;
            return Err(failure::new(Code::Corrupt, format!("`{path}` was changed in release `{release}` after it had been verified")));
        }
        stored.ledger.proofs[index] = proof;
    }
    stored.ledger.built = survey.extra.into_iter().map(|(path, stat)| Built { path, stamp: stamp(&stat) }).collect();
    stored.save(root, release)?;
    Ok(dir)
}

/// Takes away a release that could not be made durable. It would read well, from memory, and a second sync would not tell of the error
/// again: nobody shall go on with it.
fn abandon(root: &Root, mut record: Record, failure: &Failure) {
    // Best effort, both: the error that led here is the one to tell, and the disk may take no change any more.
    let _ = root.dir.trash(layout::release(&record.release.id));
    record.state = State::Failed;
    record.reason = Some(failure.message.clone());
    let _ = write_record(root, &record);
}

fn stamp(stat: &Stat) -> Option<Stamp> {
    (stat.kind != FileKind::Directory).then(|| Stamp::from(stat))
}

/// Checks that every entry is there and is what it must be. Gives the files that changed since they were verified.
fn doubtful(release: &ReleaseId, dir: &Dir, stored: &Stored, survey: &Survey) -> Result<Vec<usize>, Failure> {
    let mut doubtful = Vec::new();
    let mut cursor = Cursor::new(dir);
    for (index, (entry, stat)) in stored.manifest.entries().iter().zip(&survey.present).enumerate() {
        let path = entry.path.as_bytes();
        if stored.ledger.is_linked(path) {
            continue;
        }
        let wrong = |what: &str| failure::new(Code::Corrupt, format!("`{}` {what} in release `{release}`", entry.path));
        let Some(stat) = stat else { return Err(wrong("is missing")) };
        match (&entry.kind, stat.kind) {
            (Kind::File { .. }, FileKind::File) => {
                if !is_unchanged(&stored.ledger, index, stat) {
                    doubtful.push(index);
                }
            }
            (Kind::Link { target }, FileKind::Link) => {
                let now = cursor.enter(path).and_then(|(dir, name)| dir.read_link(name));
                if now.map_err(|error| failure::io("read", shown(release, path), &error))? != *target {
                    return Err(wrong("leads elsewhere"));
                }
            }
            (Kind::Directory, FileKind::Directory) => {}
            (Kind::File { .. } | Kind::Link { .. } | Kind::Directory, _) => return Err(wrong("is not what the revision has there")),
        }
    }
    Ok(doubtful)
}

fn is_unchanged(ledger: &Ledger, index: usize, stat: &Stat) -> bool {
    match ledger.proofs[index] {
        Proof::Verified(stamp) => stamp == Stamp::from(stat),
        Proof::None | Proof::Changed(_) => false,
    }
}

/// Reads files again, and says of each whether it still is the manifest's.
fn reread(release: &ReleaseId, dir: &Dir, stored: &Stored, files: &[usize]) -> Result<Vec<(usize, Proof)>, Failure> {
    let (proofs, result) = crew::each(
        files,
        || (Cursor::new(dir), Vec::new()),
        |(cursor, buffer), index| {
            let entry = &stored.manifest.entries()[*index];
            let failed = |error: io::Error| failure::io("verify", shown(release, entry.path.as_bytes()), &error);
            let (dir, name) = cursor.enter(entry.path.as_bytes()).map_err(failed)?;
            let (digest, stat) = copy::proven(dir, name, buffer).map_err(failed)?.ok_or_else(|| {
                failure::new(Code::Corrupt, format!("`{}` is being written to while release `{release}` is sealed", entry.path))
            })?;
            let same = wanted(entry).is_some_and(|wanted| wanted.digest == digest && wanted.mode == stat.mode);
            Ok((*index, if same { Proof::Verified(Stamp::from(&stat)) } else { Proof::Changed(Stamp::from(&stat)) }))
        },
    );
    result.map(|()| proofs)
}
