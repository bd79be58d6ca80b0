//! The records of a host's releases, `.deployer/rel/<id>.json`.

use std::io;

use rustix::io::Errno;
use serde::Deserialize;

use crate::release::{FORMAT, Record, ReleaseId, layout};
use crate::root::Root;

/// No record comes near this.
const LIMIT: u64 = 1024 * 1024;

/// Everything in `.deployer/rel`.
#[derive(Debug, Default)]
pub struct Scan {
    /// Sorted by sequence.
    pub records: Vec<Record>,
    /// File names, shown safely, with what is wrong with them.
    pub unreadable: Vec<(String, String)>,
    /// The first error that says nothing of the record itself: the next time it may be read.
    failed: Option<io::Error>,
    /// The highest format of any record, where that is above ours: nothing may be written then.
    pub newer_format: Option<u32>,
}

impl Scan {
    /// Gives it back if every record was read that can be. Who decides by what is not there has to know that it is not.
    pub fn sure(self) -> io::Result<Self> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

/// All that is asked of a record before its format is known.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Reads every record. One that cannot be read is told, and does not hide the others.
pub fn scan(root: &Root) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let names = match root.dir.open_dir(layout::RECORDS) {
        Ok(dir) => dir.names()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(scan),
        Err(error) => return Err(error),
    };
    for name in names {
        match read_file(root, &name) {
            Ok(record) => scan.records.push(record),
            Err(Unreadable::Newer(format)) => {
                scan.newer_format = scan.newer_format.max(Some(format));
                scan.unreadable.push((shown(&name), format!("has the format {format}, where {FORMAT} is the newest known here")));
            }
            Err(Unreadable::Other(why)) => scan.unreadable.push((shown(&name), why)),
            Err(Unreadable::Failed(error)) => {
                scan.unreadable.push((shown(&name), error.to_string()));
                scan.failed.get_or_insert(error);
            }
        }
    }
    scan.records.sort_by_key(|record| record.sequence);
    Ok(scan)
}

/// Reads the records, sorted by sequence, but those that are damaged.
pub fn records(root: &Root) -> io::Result<Vec<Record>> {
    Ok(scan(root)?.sure()?.records)
}

/// Reads one record; none where there is no such release.
pub fn read(root: &Root, id: &ReleaseId) -> io::Result<Option<Record>> {
    match root.dir.stat(layout::record(id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    match read_file(root, format!("{id}.json").as_bytes()) {
        Ok(record) => Ok(Some(record)),
        Err(Unreadable::Newer(format)) => Err(invalid(format!("the format {format} is newer than this deployer"))),
        Err(Unreadable::Other(why)) => Err(invalid(why)),
        Err(Unreadable::Failed(error)) => Err(error),
    }
}

/// Replaces a release's record durably: for what is promised to the operator.
pub fn write(root: &Root, record: &Record) -> io::Result<()> {
    root.dir.replace(layout::record(&record.release.id), &text(record)?, 0o600)
}

/// Replaces a release's record. A loss of power may bring the one before it back: for states from which recovery, or the same run
/// made again, leads to the same end.
pub fn write_whole(root: &Root, record: &Record) -> io::Result<()> {
    root.dir.replace_whole(layout::record(&record.release.id), &text(record)?, 0o600)
}

fn text(record: &Record) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(record)?;
    text.push(b'\n');
    Ok(text)
}

/// Removes a release's record, if there is one.
pub fn remove(root: &Root, id: &ReleaseId) -> io::Result<()> {
    match root.dir.unlink(layout::record(id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The number for the next release begun here.
#[must_use]
pub fn next_sequence(records: &[Record]) -> u64 {
    records.iter().map(|record| record.sequence).max().map_or(1, |last| last.saturating_add(1))
}

enum Unreadable {
    Newer(u32),
    Failed(io::Error),
    Other(String),
}

fn read_file(root: &Root, name: &[u8]) -> Result<Record, Unreadable> {
    let other = |why: String| Unreadable::Other(why);
    let path = [layout::RECORDS.as_bytes(), b"/", name].concat();
    let bytes = root.dir.read(path, LIMIT).map_err(|error| match Errno::from_io_error(&error) {
        // A directory or a link in its place stays what it is.
        None | Some(Errno::ISDIR | Errno::LOOP) => other(error.to_string()),
        Some(_) => Unreadable::Failed(error),
    })?;
    let format = serde_json::from_slice::<Format>(&bytes).map_err(|error| other(error.to_string()))?.format;
    if format > FORMAT {
        return Err(Unreadable::Newer(format));
    }
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| other(error.to_string()))?;
    if format!("{}.json", record.release.id).as_bytes() != name {
        return Err(other(format!("holds the record of `{}`", record.release.id)));
    }
    Ok(record)
}

fn shown(name: &[u8]) -> String {
    crate::tree::path::Shown(name).to_string()
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
