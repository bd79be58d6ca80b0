//! Removes what retention allows. Never the live release, its rollback target, or one a process uses; never what has no record.

use std::collections::HashSet;
use std::io;

use super::{failure, is_absent, write_record};
use crate::faults::{self, Bug};
use crate::fs::Dir;
use crate::op::{Code, Failure};
use crate::release::{Record, ReleaseId, State, layout};
use crate::root::Root;
use crate::{current, records};

/// More than any map of a process's memory takes.
const MAPS_LIMIT: u64 = 64 * 1024 * 1024;

/// Removes all but the `keep` newest good releases, or the release named. Gives those removed and those kept.
pub fn prune(root: &Root, keep: u32, only: Option<&ReleaseId>) -> Result<(Vec<ReleaseId>, Vec<ReleaseId>), Failure> {
    let records = all_records(root)?;
    // What cannot be told to be a release may lead into one.
    let live = current::release(root)?;
    let previous = records.iter().find(|record| Some(&record.release.id) == live.as_ref()).and_then(|record| record.previous.clone());
    let chosen: Vec<&Record> = match only {
        Some(id) => vec![named(&records, id, live.as_ref(), previous.as_ref())?],
        None => beyond(&records, keep, live.as_ref(), previous.as_ref()),
    };
    let mut removed = Vec::new();
    if !chosen.is_empty() {
        let used = in_use(root).map_err(|error| failure::io("find the processes in", layout::RELEASES, &error))?;
        for record in chosen {
            let id = &record.release.id;
            if used.contains(id) {
                if only.is_some() {
                    return Err(failure::new(Code::Refused, format!("release `{id}` is in use by a process")));
                }
                continue;
            }
            remove(root, record)?;
            removed.push(id.clone());
        }
    }
    // What cannot be deleted now (an open file on NFS, say) stays in the trash for the next time: the releases are gone all the same.
    let _ = root.dir.empty_trash();
    let kept = records.into_iter().map(|record| record.release.id).filter(|id| !removed.contains(id)).collect();
    Ok((removed, kept))
}

/// Reads the records, if all can be read: one that cannot may be of what is live, and say what a rollback goes to.
fn all_records(root: &Root) -> Result<Vec<Record>, Failure> {
    let scan = records::scan(root).map_err(|error| failure::io("read", layout::RECORDS, &error))?;
    let Some((name, why)) = scan.unreadable.first() else { return Ok(scan.records) };
    let path = format!("{}/{}/{name}", root.path, layout::RECORDS);
    let message = format!("nothing is pruned: `{path}` cannot be read, and may tell what must stay: {why}");
    Err(failure::hinted(Code::Refused, message, format!("if nothing needs that release, remove its record: `rm {path}`")))
}

fn named<'a>(records: &'a [Record], id: &ReleaseId, live: Option<&ReleaseId>, previous: Option<&ReleaseId>) -> Result<&'a Record, Failure> {
    if live == Some(id) {
        let hint = "activate another release first";
        return Err(failure::hinted(Code::Refused, format!("release `{id}` is live and cannot be removed"), hint));
    }
    if previous == Some(id) {
        return Err(failure::new(Code::Refused, format!("release `{id}` is what a rollback goes to and cannot be removed")));
    }
    records
        .iter()
        .find(|record| record.release.id == *id)
        .ok_or_else(|| failure::new(Code::NotFound, format!("there is no release `{id}`")))
}

/// Lists what retention does not keep, oldest first. Of what never became good, the newest sealed and the newest other are kept:
/// the one can still be activated, the other tells what went wrong.
fn beyond<'a>(records: &'a [Record], keep: u32, live: Option<&ReleaseId>, previous: Option<&ReleaseId>) -> Vec<&'a Record> {
    let (mut good, mut sealed, mut unfinished) = (0, 0, 0);
    let mut beyond = Vec::new();
    for record in records.iter().rev() {
        let (count, most) = match record.state {
            State::Confirmed | State::Retired => (&mut good, keep),
            State::Sealed | State::Active => (&mut sealed, 1),
            State::Uploading | State::Uploaded | State::Building | State::Failed | State::Bad => (&mut unfinished, 1),
        };
        *count += 1;
        let id = Some(&record.release.id);
        if *count > most && id != live && (id != previous || faults::has(Bug::PruneTakesTarget)) {
            beyond.push(record);
        }
    }
    beyond.reverse();
    beyond
}

/// Removes a release. First its record says that it cannot be used, so that a crash never leaves a good record without its files.
fn remove(root: &Root, record: &Record) -> Result<(), Failure> {
    let id = &record.release.id;
    write_record(root, &Record { state: State::Failed, reason: Some("pruned".to_owned()), ..record.clone() })?;
    let absent_is_well = |result: io::Result<()>| match result {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    };
    for path in [layout::release(id), layout::manifest(id), format!("{}/{id}", layout::LOGS)] {
        absent_is_well(root.dir.trash(&path)).map_err(|error| failure::io("remove", path, &error))?;
    }
    records::remove(root, id).map_err(|error| failure::io("remove", layout::record(id), &error))
}

/// Finds the releases that a process runs in or from, has its root in, or has mapped a file of.
fn in_use(root: &Root) -> io::Result<HashSet<ReleaseId>> {
    let mut prefix = root.real_path()?;
    prefix.extend_from_slice(format!("/{}/", layout::RELEASES).as_bytes());
    let processes = Dir::open_absolute("/proc")?;
    let mut used = HashSet::new();
    for process in processes.names()?.iter().filter(|name| name.iter().all(u8::is_ascii_digit)) {
        let file = |name: &str| [process, &b"/"[..], name.as_bytes()].concat();
        for link in ["cwd", "root", "exe"] {
            // A process that ended meanwhile, or of a user that we may not look at.
            let Ok(target) = processes.read_link(file(link)) else { continue };
            used.extend(target.strip_prefix(&*prefix).and_then(release_of));
        }
        let Ok(maps) = processes.read(file("maps"), MAPS_LIMIT) else { continue };
        let paths = maps.split(|byte| *byte == b'\n').filter_map(|line| line.iter().position(|byte| *byte == b'/').map(|at| &line[at..]));
        used.extend(paths.filter_map(|path| path.strip_prefix(&*prefix)).filter_map(release_of));
    }
    Ok(used)
}

/// Reads the id at the start of a path beneath `releases`.
fn release_of(rest: &[u8]) -> Option<ReleaseId> {
    let name = rest.split(|byte| *byte == b'/').next()?;
    // The kernel marks what was deleted, and a release that was is no longer there to protect.
    std::str::from_utf8(name).ok()?.parse().ok()
}
