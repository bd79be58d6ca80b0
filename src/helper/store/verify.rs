//! Compares a release with its manifest: to the byte, or, before a switch, by what its files look like.

use std::io;

use super::copy;
use super::crew::{self, Cursor};
use super::reuse::wanted;
use super::stored::{Built, Proof, Stamp, Stored};
use super::survey::{Survey, survey};
use super::{failure, open_release, record, shown, stored};
use crate::fs::{Dir, FileKind, Stat};
use crate::op::{Difference, DifferenceKind, Failure};
use crate::release::{Record, ReleaseId, layout};
use crate::root::Root;
use crate::tree::{Entry, Kind};

/// How old a seal may be, in seconds, for the looks of files to be enough: a medium that rots leaves their times alone.
const FRESH: i64 = 24 * 3600;

/// How closely files are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// A file that looks as it did when it was verified is not read.
    Looks,
    Bytes,
}

/// Finds what differs from the manifest, the links that were made, and what the build had made when the release was sealed.
/// Gives the number of files that were compared too.
pub fn verify(root: &Root, release: &ReleaseId) -> Result<(Vec<Difference>, u64), Failure> {
    compare_release(root, &record(root, release)?, Depth::Bytes)
}

/// Finds what was altered in a release since its seal, as far as that forbids to make it live. What is added is no reason, and what
/// the build had made is none either once the release was live: programs write there while they run.
pub fn altered(root: &Root, record: &Record, now: i64) -> Result<Vec<Difference>, Failure> {
    // What was built elsewhere was never seen at work here.
    let fresh = record.release.origin.is_none() && record.sealed.is_some_and(|sealed| (0..FRESH).contains(&(now - sealed)));
    let depth = if fresh { Depth::Looks } else { Depth::Bytes };
    let (mut differences, _) = compare_release(root, record, depth)?;
    differences.retain(|difference| difference.kind != DifferenceKind::Extra);
    if record.activated.is_some() && !differences.is_empty() {
        let stored = stored::load(root, &record.release.id)?;
        let entry = |path: &[u8]| stored.manifest.entries().binary_search_by(|entry| entry.path.as_bytes().cmp(path)).ok();
        let verified = |index: usize| !matches!(stored.ledger.proofs[index], Proof::Changed(_));
        differences.retain(|difference| entry(&difference.path).map_or_else(|| stored.ledger.is_linked(&difference.path), verified));
    }
    Ok(differences)
}

fn compare_release(root: &Root, record: &Record, depth: Depth) -> Result<(Vec<Difference>, u64), Failure> {
    let release = &record.release.id;
    let stored = stored::load(root, release)?;
    let dir = open_release(root, release)?;
    let survey = survey(release, &dir, &stored)?;
    let indices: Vec<usize> = (0..stored.manifest.entries().len()).collect();
    let (found, result) = crew::each(
        &indices,
        || (Cursor::new(&dir), Vec::new()),
        |(cursor, buffer), index| {
            let entry = &stored.manifest.entries()[*index];
            if stored.ledger.is_linked(entry.path.as_bytes()) {
                return Ok(None);
            }
            let Some(stat) = &survey.present[*index] else { return Ok(Some(difference(entry.path.as_bytes(), DifferenceKind::Missing))) };
            let proof = &stored.ledger.proofs[*index];
            if depth == Depth::Looks && matches!(proof, Proof::Verified(stamp) if *stamp == Stamp::from(stat)) {
                return Ok(None);
            }
            let kind = compare(cursor, entry, proof, stat, buffer)
                .map_err(|error| failure::io("verify", shown(release, entry.path.as_bytes()), &error))?;
            Ok(kind.map(|kind| difference(entry.path.as_bytes(), kind)))
        },
    );
    result?;
    let mut differences: Vec<Difference> = found.into_iter().flatten().collect();
    links(&dir, &stored, &mut differences).map_err(|error| failure::io("verify the links of", layout::release(release), &error))?;
    let commit = record.release.commit.as_deref();
    revision(&dir, &stored, commit, &mut differences)
        .map_err(|error| failure::io("verify", shown(release, layout::REVISION.as_bytes()), &error))?;
    built(&stored, &survey, &mut differences);
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    let files = survey.present.iter().flatten().filter(|stat| stat.kind == FileKind::File).count();
    Ok((differences, files as u64))
}

fn difference(path: &[u8], kind: DifferenceKind) -> Difference {
    Difference { path: path.to_vec(), kind }
}

fn compare(cursor: &mut Cursor<'_>, entry: &Entry, proof: &Proof, stat: &Stat, buffer: &mut Vec<u8>) -> io::Result<Option<DifferenceKind>> {
    Ok(match (&entry.kind, stat.kind) {
        (Kind::Directory, FileKind::Directory) => None,
        (Kind::Link { target }, FileKind::Link) => {
            let (dir, name) = cursor.enter(entry.path.as_bytes())?;
            (dir.read_link(name)? != *target).then_some(DifferenceKind::LinkTarget)
        }
        (Kind::File { .. }, FileKind::File) => {
            // What the build changed is compared with what it was when it was sealed.
            if let Proof::Changed(stamp) = proof {
                return Ok((*stamp != Stamp::from(stat)).then_some(DifferenceKind::Modified));
            }
            let (dir, name) = cursor.enter(entry.path.as_bytes())?;
            let now = copy::proven(dir, name, buffer)?;
            match (wanted(entry), now) {
                (Some(wanted), Some((digest, _))) if digest == wanted.digest => (wanted.mode != stat.mode).then_some(DifferenceKind::Mode),
                (Some(_) | None, Some(_) | None) => Some(DifferenceKind::Modified),
            }
        }
        (Kind::File { .. } | Kind::Link { .. } | Kind::Directory, _) => Some(DifferenceKind::Type),
    })
}

fn links(dir: &Dir, stored: &Stored, differences: &mut Vec<Difference>) -> io::Result<()> {
    for link in &stored.ledger.links {
        let kind = match dir.stat(&link.path) {
            Err(error) if super::is_absent(&error) => DifferenceKind::Missing,
            Err(error) => return Err(error),
            Ok(stat) if stat.kind != FileKind::Link => DifferenceKind::Type,
            Ok(_) if dir.read_link(&link.path)? == link.target => continue,
            Ok(_) => DifferenceKind::LinkTarget,
        };
        differences.push(difference(&link.path, kind));
    }
    Ok(())
}

fn revision(dir: &Dir, stored: &Stored, commit: Option<&str>, differences: &mut Vec<Difference>) -> io::Result<()> {
    let (true, Some(commit)) = (stored.ledger.revision, commit) else { return Ok(()) };
    let path = layout::REVISION;
    let kind = match dir.stat(path) {
        Err(error) if super::is_absent(&error) => DifferenceKind::Missing,
        Err(error) => return Err(error),
        Ok(stat) if stat.kind != FileKind::File => DifferenceKind::Type,
        // A longer one is another one.
        Ok(stat) if stat.size != commit.len() as u64 + 1 => DifferenceKind::Modified,
        Ok(_) if dir.read(path, 4096)?.strip_suffix(b"\n") == Some(commit.as_bytes()) => return Ok(()),
        Ok(_) => DifferenceKind::Modified,
    };
    differences.push(difference(path.as_bytes(), kind));
    Ok(())
}

/// Compares what is beside the manifest with what the build had made: both are sorted by path.
fn built(stored: &Stored, survey: &Survey, differences: &mut Vec<Difference>) {
    let mut built = stored.ledger.built.iter().peekable();
    for (path, stat) in &survey.extra {
        while let Some(gone) = built.next_if(|built| built.path < *path) {
            differences.push(difference(&gone.path, DifferenceKind::Missing));
        }
        let kind = match built.next_if(|built| built.path == *path) {
            None => DifferenceKind::Extra,
            Some(Built { stamp, .. }) => match (stamp, stat.kind) {
                (None, FileKind::Directory) => continue,
                (None, _) | (Some(_), FileKind::Directory) => DifferenceKind::Type,
                (Some(stamp), _) if *stamp == Stamp::from(stat) => continue,
                (Some(_), _) => DifferenceKind::Modified,
            },
        };
        differences.push(difference(path, kind));
    }
    differences.extend(built.map(|gone| difference(&gone.path, DifferenceKind::Missing)));
}
