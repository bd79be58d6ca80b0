//! Reads a finished release for other hosts: its files, what its build made, and what they refer to outside of it. Every byte is read
//! again, and nothing is given that is not what it was when the release was sealed.

mod outside;

use std::collections::HashSet;
use std::io::{self, Read, Write};

use self::outside::Seeker;
use super::crew::{self, Cursor};
use super::reuse::wanted;
use super::stored::{Proof, Stamp, Stored};
use super::survey::{Survey, survey};
use super::{copy, failure, open_release, record, shown, stored};
use crate::fs::{FileKind, Stat};
use crate::op::{Captured, Code, Failure, Outside};
use crate::release::ReleaseId;
use crate::root::Root;
use crate::tree::manifest::{EXECUTABLE, FILE, PRIVATE, PRIVATE_EXECUTABLE};
use crate::tree::path::Shown;
use crate::tree::{Entry, Kind, Manifest, TreePath};

/// How many paths a message or an answer names.
const NAMED: usize = 3;
/// The window of what is sent: the same as the controller's own.
const WINDOW_LOG: u32 = 23;
/// Rights that only an owner has.
const OTHERS: u32 = 0o077;

/// What a path of the release is, and how that is known.
struct Found<'a> {
    path: &'a [u8],
    stat: Stat,
    known: Known,
}

enum Known {
    /// An entry of the manifest that no build changed: it has a digest to be compared with.
    Entry(usize),
    /// Made or changed by the build, and looked like this when the release was sealed. None for a directory.
    Built(Option<Stamp>),
}

/// What reading one path gave.
enum Reading {
    Kept(Entry, Vec<Outside>),
    Changed,
}

/// Gives the manifest of all that was sealed, encoded and compressed, and what else is to be known of the release.
pub fn capture(root: &Root, release: &ReleaseId, is_stopped: &(dyn Fn() -> bool + Sync)) -> Result<(Vec<u8>, Captured), Failure> {
    let state = record(root, release)?.state;
    if !state.is_sealed() {
        return Err(failure::new(Code::NotSealed, format!("release `{release}` is not whole: nothing can be taken from it")));
    }
    let stored = stored::load(root, release)?;
    let dir = open_release(root, release)?;
    let survey = survey(release, &dir, &stored)?;
    let (found, mut changed, late) = sort(&stored, &survey);
    let private = private_directories(&survey);
    let seeker = Seeker::new(root, release, &stored.ledger.links);
    let (read, result) = crew::each(
        &found,
        || (Cursor::new(&dir), Vec::new()),
        |(cursor, buffer), found| {
            if is_stopped() {
                return Err(failure::new(Code::Stopped, "stopped while the release was read"));
            }
            let closed = private.iter().any(|directory| lies_in(found.path, directory));
            let kept = read_one(release, &stored, &seeker, (cursor, buffer), found, closed)?;
            Ok((found.path, kept))
        },
    );
    result?;
    let (mut entries, mut outside) = (Vec::with_capacity(read.len()), Vec::new());
    for (path, read) in read {
        match read {
            Reading::Kept(entry, mut refers) => {
                entries.push(entry);
                outside.append(&mut refers);
            }
            Reading::Changed => changed.push(path),
        }
    }
    if !changed.is_empty() {
        return Err(altered(release, changed));
    }
    let links = stored.ledger.links.iter().map(|link| tree_path(release, &link.path)).collect::<Result<Vec<_>, _>>()?;
    let manifest = manifest(release, entries)?;
    let encoded = manifest.encode();
    let packed = zstd::encode_all(&*encoded, 1).map_err(|error| failure::new(Code::Io, format!("cannot compress a manifest: {error}")))?;
    let late_names = late.iter().take(NAMED).map(|path| path.to_vec()).collect();
    let captured = Captured { size: encoded.len() as u64, links, outside: outside::few(outside), late: late.len() as u64, late_names };
    Ok((packed, captured))
}

/// Tells what was sealed from what is missing or came later.
fn sort<'a>(stored: &'a Stored, survey: &'a Survey) -> (Vec<Found<'a>>, Vec<&'a [u8]>, Vec<&'a [u8]>) {
    let (mut found, mut changed, mut late) = (Vec::new(), Vec::new(), Vec::new());
    let entries = stored.manifest.entries().iter().map(|entry| entry.path.as_bytes());
    for (index, (path, stat)) in entries.zip(&survey.present).enumerate() {
        if stored.ledger.is_linked(path) {
            continue;
        }
        let known = match stored.ledger.proofs[index] {
            Proof::Changed(stamp) => Known::Built(Some(stamp)),
            Proof::None | Proof::Verified(_) => Known::Entry(index),
        };
        match stat {
            Some(stat) => found.push(Found { path, stat: *stat, known }),
            None => changed.push(path),
        }
    }
    let mut built = stored.ledger.built.iter().peekable();
    for (path, stat) in &survey.extra {
        while let Some(gone) = built.next_if(|built| built.path < *path) {
            changed.push(&gone.path);
        }
        match built.next_if(|built| built.path == *path) {
            Some(built) => found.push(Found { path, stat: *stat, known: Known::Built(built.stamp) }),
            None => late.push(&**path),
        }
    }
    changed.extend(built.map(|gone| &*gone.path));
    (found, changed, late)
}

/// Lists the directories that nobody but their owner may enter: what lies in them is for nobody else, whatever its own mode.
fn private_directories(survey: &Survey) -> Vec<&[u8]> {
    let private = |stat: &Stat| stat.kind == FileKind::Directory && stat.mode & OTHERS & 0o011 == 0;
    survey.extra.iter().filter(|(_, stat)| private(stat)).map(|(path, _)| &**path).collect()
}

fn lies_in(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

fn read_one(
    release: &ReleaseId,
    stored: &Stored,
    seeker: &Seeker<'_>,
    (cursor, buffer): (&mut Cursor<'_>, &mut Vec<u8>),
    found: &Found<'_>,
    closed: bool,
) -> Result<Reading, Failure> {
    let path = tree_path(release, found.path)?;
    let failed = |error: io::Error| failure::io("read", shown(release, found.path), &error);
    let expected = match &found.known {
        Known::Entry(index) => Some(&stored.manifest.entries()[*index]),
        Known::Built(stamp) => {
            let same = match (stamp, found.stat.kind) {
                (None, kind) => kind == FileKind::Directory,
                (Some(stamp), _) => *stamp == Stamp::from(&found.stat),
            };
            if !same {
                return Ok(Reading::Changed);
            }
            None
        }
    };
    let (dir, name) = cursor.enter(found.path).map_err(failed)?;
    match found.stat.kind {
        FileKind::Link => {
            let target = dir.read_link(name).map_err(failed)?;
            if expected.is_some_and(|entry| entry.kind != Kind::Link { target: target.clone() }) {
                return Ok(Reading::Changed);
            }
            let outside = seeker.link(&path, &target);
            Ok(Reading::Kept(Entry { path, kind: Kind::Link { target } }, outside))
        }
        FileKind::Directory => {
            let same = expected.is_none_or(|entry| entry.kind == Kind::Directory);
            Ok(if same { Reading::Kept(Entry { path, kind: Kind::Directory }, Vec::new()) } else { Reading::Changed })
        }
        FileKind::File => {
            let Some((digest, stat)) = copy::proven(dir, name, buffer).map_err(failed)? else { return Ok(Reading::Changed) };
            if let Some(entry) = expected {
                let same = wanted(entry).is_some_and(|wanted| wanted.digest == digest && wanted.mode == stat.mode);
                return Ok(if same { Reading::Kept(entry.clone(), Vec::new()) } else { Reading::Changed });
            }
            let outside = seeker.file(&path, (dir, name), &stat).map_err(failed)?;
            let kind = Kind::File { mode: mode(stat.mode, closed), size: stat.size, digest, mtime: stat.mtime.seconds };
            Ok(Reading::Kept(Entry { path, kind }, outside))
        }
        FileKind::Other => {
            let what = format!("the build made `{path}`, which is neither file nor directory nor link: no other host can have it");
            Err(failure::hinted(Code::Refused, what, "let the build remove it, or build on every host: `build.on = \"host\"`"))
        }
    }
}

/// A tree carries whether a file can be executed, and whether it is for its owner alone.
const fn mode(mode: u32, closed: bool) -> u32 {
    match (mode & 0o100 != 0, closed || mode & OTHERS == 0) {
        (false, false) => FILE,
        (true, false) => EXECUTABLE,
        (false, true) => PRIVATE,
        (true, true) => PRIVATE_EXECUTABLE,
    }
}

fn tree_path(release: &ReleaseId, path: &[u8]) -> Result<TreePath, Failure> {
    TreePath::new(path).map_err(|error| {
        let what = format!("`{}` cannot go to other hosts: {error}", Shown(&shown(release, path)));
        failure::hinted(Code::Refused, what, "let the build remove it, or build on every host: `build.on = \"host\"`")
    })
}

fn altered(release: &ReleaseId, mut changed: Vec<&[u8]>) -> Failure {
    changed.sort_unstable();
    let names: Vec<String> = changed.iter().take(NAMED).map(|path| format!("`{}`", Shown(path))).collect();
    let more = changed.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let what = format!("release `{release}` is not what was sealed: {}{more} changed since", names.join(", "));
    failure::hinted(Code::Corrupt, what, "deploy there again, with `--force`")
}

/// A directory is listed only where nothing lies in it.
fn manifest(release: &ReleaseId, entries: Vec<Entry>) -> Result<Manifest, Failure> {
    let filled: HashSet<Vec<u8>> = entries.iter().filter_map(|entry| entry.path.split().0.map(<[u8]>::to_vec)).collect();
    let listed = entries.into_iter().filter(|entry| entry.kind != Kind::Directory || !filled.contains(entry.path.as_bytes()));
    let refused = |why: String| failure::new(Code::Refused, format!("release `{release}` cannot go to other hosts: {why}"));
    Manifest::from_unsorted(listed.collect()).map_err(|error| refused(error.to_string()))
}

/// Sends the content of files, each behind its length. Whoever asked knows their digests.
pub fn give(root: &Root, release: &ReleaseId, files: &[TreePath], out: impl Write) -> Result<(), Failure> {
    let state = record(root, release)?.state;
    if !state.is_sealed() {
        return Err(failure::new(Code::NotSealed, format!("release `{release}` is not whole: nothing can be taken from it")));
    }
    let dir = open_release(root, release)?;
    let sent = |error: io::Error| failure::new(Code::Stopped, format!("the content could not be sent: {}", failure::cause(&error)));
    let mut encoder = zstd::Encoder::new(out, 1).map_err(sent)?;
    encoder.window_log(WINDOW_LOG).map_err(sent)?;
    let mut cursor = Cursor::new(&dir);
    for path in files {
        send_one(&mut cursor, path, &mut encoder, &sent).map_err(|error| match error {
            NotSent::Source(error) => failure::io("read", shown(release, path.as_bytes()), &error),
            NotSent::Stream(failure) => failure,
        })?;
    }
    encoder.finish().map_err(sent)?;
    Ok(())
}

enum NotSent {
    Source(io::Error),
    Stream(Failure),
}

fn send_one(cursor: &mut Cursor<'_>, path: &TreePath, out: &mut impl Write, sent: &impl Fn(io::Error) -> Failure) -> Result<(), NotSent> {
    let (dir, name) = cursor.enter(path.as_bytes()).map_err(NotSent::Source)?;
    let (mut file, stat) = dir.open_file_stat(name).map_err(NotSent::Source)?;
    out.write_all(&stat.size.to_le_bytes()).map_err(|error| NotSent::Stream(sent(error)))?;
    let mut left = stat.size;
    let mut buffer = vec![0; copy::BUFFER.min(usize::try_from(left).unwrap_or(copy::BUFFER))];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..most]).map_err(NotSent::Source)?;
        out.write_all(&buffer[..most]).map_err(|error| NotSent::Stream(sent(error)))?;
        left -= most as u64;
    }
    Ok(())
}
