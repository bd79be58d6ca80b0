//! Begins a release: takes its manifest, makes its directories and links, and fills it with what the host has already. Begun again
//! after an interruption, it goes on with what lies there and proves to be whole.

use std::collections::HashSet;
use std::io::{self, BufRead};

use super::copy::{self, Copier};
use super::crew::{self, Cursor};
use super::reuse::{Filling, NEVER, Reused, Source, wanted};
use super::stored::{Proof, Stamp, Stored};
use super::survey::{self, Survey, survey};
use super::{Memory, failure, is_absent, note_record, shown, spare, stored, unpack};
use crate::current;
use crate::faults::{self, Bug};
use crate::fs::{self, Dir, FileKind};
use crate::op::{Begin, Begun, Code, Failure, ManifestSource};
use crate::records::{self, Scan};
use crate::release::{FORMAT, NewRelease, Record, ReleaseId, State, layout};
use crate::root::Root;
use crate::tree::manifest::Delta;
use crate::tree::{Kind, Manifest};

/// The largest manifest that is taken, encoded.
const LIMIT: u64 = 2 * 1024 * 1024 * 1024;
pub const MODE: u32 = 0o755;
/// With a group, nobody but it and the owner passes the release's own directory.
const MODE_WITH_GROUP: u32 = 0o750;

/// Begins `begin.release`. `gid` is that of `begin.group`. Tells what the host lacks; when that is nothing, the release is uploaded.
pub fn begin(root: &Root, memory: &Memory, begin: &Begin, gid: Option<u32>, stream: impl BufRead) -> Result<Begun, Failure> {
    let release = &begin.release.id;
    let manifest = receive(root, begin, stream)?;
    let scan = records::scan(root).and_then(Scan::sure).map_err(|error| failure::io("read", layout::RECORDS, &error))?;
    if let Some(format) = scan.newer_format {
        return Err(failure::new(
            Code::NewerFormat,
            format!("the host has records of format {format}, where {FORMAT} is the newest known"),
        ));
    }
    let (mut record, resumed) = record(root, begin.release.clone(), &scan)?;
    note_record(root, &record)?;
    let mut stored = Stored::new(manifest).map_err(|error| failure::io("compress", layout::manifest(release), &error))?;
    // Written before any content, so that what an interrupted run leaves can be used by the next.
    stored.save(root, release)?;
    let fresh = make_release(root, release)?;
    let (dir, spared) = if resumed {
        adopt(root, release, &fresh, &mut stored)?;
        (fresh, Reused::default())
    } else {
        spare::take(root, release, fresh, &mut stored)?
    };
    memory.begin(release, &dir).map_err(|error| failure::io("open", layout::release(release), &error))?;
    if let Some(gid) = gid {
        dir.set_group(gid)
            .and_then(|()| dir.set_mode(MODE_WITH_GROUP))
            .map_err(|error| failure::io("change", layout::release(release), &error))?;
    }
    make_directories(release, &dir, &stored.manifest)?;
    make_links(release, &dir, &stored.manifest)?;
    let filling = Filling { root, release, dir: &dir, copier: Copier::default(), give_up: NEVER };
    let filled = make_empty_files(release, &dir, &mut stored)
        .and_then(|()| filling.copy_from_releases(&mut stored, &sources(&scan, begin)))
        .and_then(|reused| Ok((reused, filling.copy_within(&mut stored)?)));
    // What was proven is saved, however it ended.
    let saved = complete(root, &mut record, &mut stored);
    let (first, second) = filled?;
    saved?;
    let missing = missing(&stored);
    memory.keep(root, release, stored);
    Ok(Begun { missing, reused_files: spared.files + first.files + second.files, reused_bytes: spared.bytes + first.bytes + second.bytes })
}

/// Saves what is proven, and when that is everything, marks the release as uploaded.
pub fn complete(root: &Root, record: &mut Record, stored: &mut Stored) -> Result<(), Failure> {
    let release = record.release.id.clone();
    let whole = stored.unproven().is_empty();
    if whole
        && let Some(commit) = &record.release.commit
        && stored.manifest.entries().binary_search_by(|entry| entry.path.as_bytes().cmp(layout::REVISION.as_bytes())).is_err()
        && !survey::directories(&stored.manifest).contains(&layout::REVISION.as_bytes())
    {
        let path = shown(&release, layout::REVISION.as_bytes());
        root.dir
            .replace_unsynced(&path, format!("{commit}\n").as_bytes(), crate::tree::manifest::FILE)
            .map_err(|error| failure::io("write", path, &error))?;
        stored.ledger.revision = true;
    }
    stored.save(root, &release)?;
    if whole && record.state != State::Uploaded {
        record.state = State::Uploaded;
        note_record(root, record)?;
    }
    Ok(())
}

/// Lists what the host lacks: of the files with one content, the first.
pub fn missing(stored: &Stored) -> Vec<(u32, u32)> {
    let mut seen = HashSet::new();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in stored.unproven() {
        let Some(wanted) = wanted(&stored.manifest.entries()[index]) else { continue };
        if !seen.insert(wanted.digest) {
            continue;
        }
        let index = u32::try_from(index).expect("a manifest has at most `MAX_ENTRIES` entries");
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            Some(_) | None => ranges.push((index, 1)),
        }
    }
    ranges
}

fn receive(root: &Root, begin: &Begin, stream: impl BufRead) -> Result<Manifest, Failure> {
    let malformed = |why: String| failure::new(Code::Protocol, format!("the manifest cannot be used: {why}"));
    let (ManifestSource::Whole { size } | ManifestSource::Delta { size, .. }) = &begin.source;
    if *size > LIMIT {
        return Err(malformed(format!("{size} bytes, where {LIMIT} are the most")));
    }
    let bytes = unpack::whole(stream, *size)?;
    let manifest = match &begin.source {
        ManifestSource::Whole { .. } => Manifest::decode(&bytes),
        ManifestSource::Delta { base, .. } => {
            let delta: Delta = postcard::from_bytes(&bytes).map_err(|error| malformed(error.to_string()))?;
            stored::load(root, base)?.manifest.apply(&delta)
        }
    };
    let manifest = manifest.map_err(|error| malformed(error.to_string()))?;
    if manifest.manifest_digest() != begin.release.manifest || manifest.tree_digest() != begin.release.sent_tree() {
        return Err(malformed("its digest is not the one that was announced".to_owned()));
    }
    Ok(manifest)
}

/// Makes the record, or takes up that of the interrupted run. Tells which.
fn record(root: &Root, release: NewRelease, scan: &Scan) -> Result<(Record, bool), Failure> {
    let id = release.id.clone();
    if let Some(before) = scan.records.iter().find(|record| record.release.id == id) {
        let same = before.release.manifest == release.manifest && before.release.sent_tree() == release.sent_tree();
        return match before.state {
            // What did not hold is made again from the same bytes where somebody asks for it again.
            State::Uploading | State::Uploaded | State::Failed if same => {
                Ok((Record { state: State::Uploading, release, reason: None, ..before.clone() }, true))
            }
            // What did not hold here is made again, from the same bytes, where somebody asks for it again.
            State::Bad if same && current::release(root)?.as_ref() != Some(&id) => Ok((fresh(release, scan), true)),
            State::Uploading | State::Uploaded | State::Failed => {
                Err(failure::new(Code::Refused, format!("release `{id}` was begun with another tree")))
            }
            State::Building | State::Sealed | State::Active | State::Confirmed | State::Retired | State::Bad => {
                Err(failure::new(Code::Refused, format!("release `{id}` is there already and cannot be begun again")))
            }
        };
    }
    match root.dir.stat(layout::release(&id)) {
        Ok(_) => {
            return Err(failure::new(Code::Refused, format!("`{}` is there already and was made by another tool", layout::release(&id))));
        }
        Err(error) if is_absent(&error) => {}
        Err(error) => return Err(failure::io("look at", layout::release(&id), &error)),
    }
    Ok((fresh(release, scan), false))
}

fn fresh(release: NewRelease, scan: &Scan) -> Record {
    Record {
        format: FORMAT,
        sequence: records::next_sequence(&scan.records),
        state: State::Uploading,
        release,
        sealed: None,
        activated: None,
        confirmed: None,
        previous: None,
        activation: None,
        reason: None,
        durable: false,
        check: None,
    }
}

/// Orders the releases to copy from: the base, then sealed ones, then what interrupted runs left; newer before older.
fn sources(scan: &Scan, begin: &Begin) -> Vec<Source> {
    let base = match &begin.source {
        ManifestSource::Whole { .. } => None,
        ManifestSource::Delta { base, .. } => Some(base),
    };
    let mut others: Vec<&Record> = scan.records.iter().filter(|record| record.release.id != begin.release.id).collect();
    others.sort_by_key(|record| std::cmp::Reverse((Some(&record.release.id) == base, record.state.is_sealed(), record.sequence)));
    others.iter().map(|record| Source { release: record.release.id.clone(), sealed: record.state.is_sealed() }).collect()
}

fn make_release(root: &Root, release: &ReleaseId) -> Result<Dir, Failure> {
    let made = root.dir.open_dir(layout::RELEASES).and_then(|releases| releases.make_dir(release.as_str(), MODE));
    made.map(|(dir, _)| dir).map_err(|error| failure::io("make", layout::release(release), &error))
}

/// Keeps what an interrupted run left and is proven by its digest, and removes everything else.
fn adopt(root: &Root, release: &ReleaseId, dir: &Dir, stored: &mut Stored) -> Result<(), Failure> {
    let survey = survey(release, dir, stored)?;
    let entries = stored.manifest.entries();
    remove_strangers(root, release, stored, &survey)?;
    let files: Vec<usize> = survey
        .present
        .iter()
        .enumerate()
        .filter(|(_, stat)| stat.is_some_and(|stat| stat.kind == FileKind::File))
        .map(|(index, _)| index)
        .collect();
    let (proven, result) = crew::each(
        &files,
        || (Cursor::new(dir), Vec::new()),
        |(cursor, buffer), index| {
            let entry = &entries[*index];
            let Some(wanted) = wanted(entry) else { return Ok(None) };
            let mut prove = || {
                let (dir, name) = cursor.enter(entry.path.as_bytes())?;
                prove(dir, name, &wanted, buffer)
            };
            prove()
                .map(|stamp| stamp.map(|stamp| (*index, stamp)))
                .map_err(|error| failure::io("verify", shown(release, entry.path.as_bytes()), &error))
        },
    );
    for (index, stamp) in proven.into_iter().flatten() {
        stored.ledger.proofs[index] = Proof::Verified(stamp);
    }
    result
}

/// Removes what is no part of the release, or something else than the release has there.
pub fn remove_strangers(root: &Root, release: &ReleaseId, stored: &Stored, survey: &Survey) -> Result<(), Failure> {
    let entries = stored.manifest.entries();
    let wrong = entries.iter().zip(&survey.present).filter(|(entry, stat)| stat.is_some_and(|stat| stat.kind != kind(&entry.kind)));
    let mut gone: Option<Vec<u8>> = None;
    for path in survey.extra.iter().map(|(path, _)| &path[..]).chain(wrong.map(|(entry, _)| entry.path.as_bytes())) {
        let went_with_its_directory =
            gone.as_ref().is_some_and(|gone| path.strip_prefix(&**gone).is_some_and(|rest| rest.starts_with(b"/")));
        if !went_with_its_directory {
            let path_shown = shown(release, path);
            match root.dir.trash(&path_shown) {
                Ok(()) => gone = Some(path.to_vec()),
                // `models/x` sorts behind `models.py`, which is behind `models`: it went with that.
                Err(error) if is_absent(&error) && root.dir.stat(&path_shown).is_err_and(|error| is_absent(&error)) => {}
                Err(error) => return Err(failure::io("remove", path_shown, &error)),
            }
        }
    }
    Ok(())
}

/// Hashes a file that was left. One that is not whole is removed.
fn prove(dir: &Dir, name: &[u8], wanted: &copy::Wanted, buffer: &mut Vec<u8>) -> io::Result<Option<Stamp>> {
    let (mut file, stat) = dir.open_file_stat(name)?;
    let is_whole = stat.size == wanted.size && stat.mode == wanted.mode && copy::digest(&mut file, buffer)? == wanted.digest;
    if !is_whole && !faults::has(Bug::TrustsUploading) {
        dir.unlink(name)?;
        return Ok(None);
    }
    if stat.mtime != (fs::Time { seconds: wanted.mtime, nanos: 0 }) {
        fs::set_mtime(&file, wanted.mtime)?;
    }
    Ok(Some(Stamp::from(&fs::stat_of(&file)?)))
}

const fn kind(kind: &Kind) -> FileKind {
    match kind {
        Kind::File { .. } => FileKind::File,
        Kind::Link { .. } => FileKind::Link,
        Kind::Directory => FileKind::Directory,
    }
}

pub fn make_directories(release: &ReleaseId, dir: &Dir, manifest: &Manifest) -> Result<(), Failure> {
    let mut cursor = Cursor::new(dir);
    for path in survey::directories(manifest) {
        cursor
            .enter(path)
            .and_then(|(parent, name)| parent.ensure_dir(name, MODE))
            .map_err(|error| failure::io("make", shown(release, path), &error))?;
    }
    Ok(())
}

pub fn make_links(release: &ReleaseId, dir: &Dir, manifest: &Manifest) -> Result<(), Failure> {
    let mut cursor = Cursor::new(dir);
    for entry in manifest.entries() {
        let Kind::Link { target } = &entry.kind else { continue };
        let mut make = || {
            let (parent, name) = cursor.enter(entry.path.as_bytes())?;
            match parent.make_link(target, name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if parent.read_link(name)? == *target {
                        return Ok(());
                    }
                    parent.unlink(name)?;
                    parent.make_link(target, name)
                }
                other => other,
            }
        };
        make().map_err(|error| failure::io("link", shown(release, entry.path.as_bytes()), &error))?;
    }
    Ok(())
}

/// Makes the empty files: nothing has to be found or sent for them.
pub fn make_empty_files(release: &ReleaseId, dir: &Dir, stored: &mut Stored) -> Result<(), Failure> {
    let nothing = crate::tree::Digest::of(b"");
    let mut cursor = Cursor::new(dir);
    for index in stored.unproven() {
        let entry = &stored.manifest.entries()[index];
        let Some(wanted) = wanted(entry).filter(|wanted| wanted.size == 0 && wanted.digest == nothing) else { continue };
        let mut make = || {
            let (dir, name) = cursor.enter(entry.path.as_bytes())?;
            copy::finish(&copy::create(dir, name, wanted.mode)?, &wanted)
        };
        let stamp = make().map_err(|error| failure::io("write", shown(release, entry.path.as_bytes()), &error))?;
        stored.ledger.proofs[index] = Proof::Verified(stamp);
    }
    Ok(())
}
