//! Compares a directory with a list, and where it is to be completed takes what the host itself has.

use std::collections::HashMap;
use std::io;

use super::proofs::Proofs;
use super::{Begun, SETS, kept, lock, open, open_for_writing, pack, receive, set_path, supply};
use crate::failure;
use crate::fs::{Dir, FileKind};
use crate::helper::Helper;
use crate::op::{Code, Compare, Compared, Failure};
use crate::pipe::Request;
use crate::root::Root;
use crate::tree::path::Shown;
use crate::tree::{Digest, Entry, Kind, Manifest};
use crate::wire::FrameKind;

/// What is at the place of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Same,
    Missing,
    Other(Option<Digest>),
}

/// Compares, and begins where that is asked for.
pub fn compare(helper: &Helper, begun: &Begun, request: &Request, op: &Compare) -> Result<Compared, Failure> {
    let dir = if op.begin { open_for_writing(helper, &op.directory)? } else { open(&op.directory)? };
    let (list, listed) = match (op.size, op.set) {
        (0, Some(key)) => match kept(&dir, &set_path(key)) {
            Some(list) => {
                let packed = pack(&list)?;
                request.send(FrameKind::Data, &packed).map_err(|_| failure::new(Code::Stopped, "stopped while it was sent"))?;
                (list, true)
            }
            None => (Manifest::default(), false),
        },
        (size, _) => (receive(request.input(), size)?, true),
    };
    let mut proofs = Proofs::of(&op.directory, Root::open(&helper.root_path).ok());
    let mut found = look(&dir, &op.directory, &list, &mut proofs)?;
    if op.begin {
        let _lock = lock(&dir, &op.directory, request)?;
        refuse_conflicts(&dir, op, &list, &found)?;
        make_others(&dir, &op.directory, &list)?;
        take(&dir, op, &list, &mut found)?;
        if let Some(key) = op.set {
            dir.replace_whole(set_path(key), &pack(&list)?, 0o644).map_err(|error| failure::io("write", set_path(key), &error))?;
        }
    }
    proofs.save();
    let compared = Compared {
        listed,
        missing: ranges(&found, |found| found == Found::Missing),
        differing: ranges(&found, |found| matches!(found, Found::Other(_))),
    };
    if op.begin {
        begun.begin(&op.directory, list);
    }
    Ok(compared)
}

fn look(dir: &Dir, directory: &str, list: &Manifest, proofs: &mut Proofs) -> Result<Vec<Found>, Failure> {
    let one = |entry: &Entry, proofs: &mut Proofs| {
        let Kind::File { size, digest, .. } = &entry.kind else { return Ok(Found::Same) };
        let path = entry.path.as_bytes();
        let stat = match dir.stat(path) {
            Ok(stat) => stat,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Found::Missing),
            Err(error) => return Err(error),
        };
        if stat.kind != FileKind::File {
            return Ok(Found::Other(None));
        }
        let now = proofs.digest(dir, path, &stat)?;
        Ok(if now == *digest && stat.size == *size { Found::Same } else { Found::Other(Some(now)) })
    };
    let mut found = Vec::with_capacity(list.entries().len());
    for entry in list.entries() {
        let at = || format!("{directory}/{}", entry.path);
        found.push(one(entry, proofs).map_err(|error| failure::io("read", at(), &error))?);
    }
    Ok(found)
}

/// A file that another set of this cache needs as it is cannot be replaced: one of the two was tampered with, or published anew.
fn refuse_conflicts(dir: &Dir, op: &Compare, list: &Manifest, found: &[Found]) -> Result<(), Failure> {
    let others: Vec<&Entry> =
        list.entries().iter().zip(found).filter(|(_, found)| matches!(found, Found::Other(Some(_)))).map(|(entry, _)| entry).collect();
    if others.is_empty() {
        return Ok(());
    }
    for set in other_sets(dir, op.set) {
        for (entry, now) in list.entries().iter().zip(found) {
            let Found::Other(Some(now)) = now else { continue };
            if let Some(Kind::File { digest, .. }) = set.find(entry.path.as_bytes())
                && digest == now
            {
                let message = format!("`{}/{}` has other content, and another revision needs it as it is", op.directory, entry.path);
                let hint = "compare the two with the index: one of them was published anew, or tampered with; remove the wrong one";
                return Err(failure::hinted(Code::Corrupt, message, hint));
            }
        }
    }
    Ok(())
}

/// The lists of all other sets in this directory.
fn other_sets(dir: &Dir, own: Option<Digest>) -> Vec<Manifest> {
    let own = own.map(|key| key.to_string());
    let names = dir.open_dir(SETS).and_then(|sets| sets.names()).unwrap_or_default();
    let names = names.iter().filter_map(|name| std::str::from_utf8(name).ok()).filter(|name| Some(*name) != own.as_deref());
    names.filter_map(|name| kept(dir, &format!("{SETS}/{name}"))).collect()
}

/// Makes the links and empty directories of the list.
fn make_others(dir: &Dir, directory: &str, list: &Manifest) -> Result<(), Failure> {
    for entry in list.entries() {
        let made = match &entry.kind {
            Kind::File { .. } => continue,
            Kind::Directory => dir.make_dirs(entry.path.as_bytes(), 0o755).map(drop),
            Kind::Link { target } => parent(dir, entry.path.as_bytes()).and_then(|()| dir.replace_link(target, entry.path.as_bytes())),
        };
        made.map_err(|error| failure::io("make", format!("{directory}/{}", entry.path), &error))?;
    }
    Ok(())
}

pub(super) fn parent(dir: &Dir, path: &[u8]) -> io::Result<()> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => dir.make_dirs(&path[..slash], 0o755).map(drop),
        None => Ok(()),
    }
}

/// Takes files that are missing from where a fill left them, or from where another set has the same content.
fn take(dir: &Dir, op: &Compare, list: &Manifest, found: &mut [Found]) -> Result<(), Failure> {
    let from = op.from.as_deref().map(open).transpose()?;
    let wanted: Vec<usize> = (0..found.len()).filter(|index| found[*index] != Found::Same).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut elsewhere: HashMap<Digest, Vec<u8>> = HashMap::new();
    for set in other_sets(dir, op.set) {
        for entry in set.entries() {
            if let Kind::File { digest, .. } = &entry.kind {
                elsewhere.entry(*digest).or_insert_with(|| entry.path.as_bytes().to_vec());
            }
        }
    }
    for index in wanted {
        let entry = &list.entries()[index];
        let Kind::File { digest, .. } = &entry.kind else { continue };
        let path = entry.path.as_bytes();
        let sources = from.iter().map(|from| (from, path)).chain(elsewhere.get(digest).map(|path| (dir, path.as_slice())));
        for (source, at) in sources {
            // A source that is not what it should be is none: the content then comes from the controller.
            let Ok(file) = source.open_file(at) else { continue };
            match supply::place(dir, entry, file) {
                Ok(()) => {
                    found[index] = Found::Same;
                    break;
                }
                Err(failure) if failure.code == Code::Corrupt => {}
                Err(failure) => return Err(failure),
            }
        }
        if found[index] != Found::Same && from.is_some() {
            let message = format!("`{}/{}` changed after it was filled", Shown(op.directory.as_bytes()), entry.path);
            return Err(failure::new(Code::Corrupt, message));
        }
    }
    Ok(())
}

fn ranges(found: &[Found], is: impl Fn(Found) -> bool) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for (index, _) in (0_u32..).zip(found).filter(|(_, found)| is(**found)) {
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            Some(_) | None => ranges.push((index, 1)),
        }
    }
    ranges
}
