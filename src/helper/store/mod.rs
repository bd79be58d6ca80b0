//! The store: releases are begun, filled, linked, sealed, verified and pruned here. The files of kept releases are the only store
//! of content; beside each release lies its manifest with a proof for every file (`stored`).

mod begin;
mod capture;
mod content;
mod copy;
mod crew;
mod link;
mod memory;
mod prune;
mod reuse;
mod seal;
mod spare;
mod stock;
mod stored;
mod survey;
#[cfg(test)]
mod tests;
mod unpack;
mod verify;

use std::io;

use crate::failure;
use crate::fs::Dir;
use crate::op::{Code, Failure};
use crate::records;
use crate::release::{Record, ReleaseId, State, layout};
use crate::root::Root;

pub use begin::begin;
pub use capture::{capture, give};
pub use content::content;
pub use link::link;
pub use memory::Memory;
pub use prune::prune;
pub use seal::seal;
pub use spare::{is_worth_a_spare, main as spare_main, start as start_spare};
pub use stock::take_stock;
pub use stored::Stamp;
pub use unpack::{Unpack, whole as unpack_whole};
pub use verify::{altered, verify};

/// Gives a release's manifest, encoded and zstd-compressed.
pub fn manifest(root: &Root, release: &ReleaseId) -> Result<Vec<u8>, Failure> {
    Ok(stored::load(root, release)?.packed)
}

/// Marks a release that will not be finished. One that was sealed is left as it is.
pub fn fail(root: &Root, release: &ReleaseId, reason: &str) -> Result<(), Failure> {
    let mut record = record(root, release)?;
    match record.state {
        State::Uploading | State::Uploaded | State::Building | State::Failed => {
            record.state = State::Failed;
            record.reason = Some(reason.to_owned());
            write_record(root, &record)
        }
        State::Sealed | State::Active | State::Confirmed | State::Retired | State::Bad => {
            Err(failure::new(Code::Refused, format!("release `{release}` was finished and cannot fail any more")))
        }
    }
}

fn record(root: &Root, release: &ReleaseId) -> Result<Record, Failure> {
    records::read(root, release)
        .map_err(|error| failure::io("read", layout::record(release), &error))?
        .ok_or_else(|| failure::new(Code::NotFound, format!("there is no release `{release}`")))
}

/// Writes the record of a release that is being made: a loss of power on the way costs the way, and no more.
fn note_record(root: &Root, record: &Record) -> Result<(), Failure> {
    records::write_whole(root, record).map_err(|error| failure::io("write", layout::record(&record.release.id), &error))
}

fn write_record(root: &Root, record: &Record) -> Result<(), Failure> {
    records::write(root, record).map_err(|error| failure::io("write", layout::record(&record.release.id), &error))
}

fn open_release(root: &Root, release: &ReleaseId) -> Result<Dir, Failure> {
    let path = layout::release(release);
    root.dir.open_dir(&path).map_err(|error| failure::io("open", path, &error))
}

/// Names a path of a release as people see it.
fn shown(release: &ReleaseId, path: &[u8]) -> Vec<u8> {
    [layout::release(release).as_bytes(), b"/", path].concat()
}

/// Tells whether there is nothing at a path, which is not an error.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn now() -> crate::fs::Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    crate::fs::Time { seconds: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
}
