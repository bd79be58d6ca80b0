//! Coming and going: taking over the releases that another tool deployed, where they are, and taking `.deployer` away again. Neither
//! moves a release, and between the two the tree is one that both tools can work with.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation};
use serde::Deserialize;

use crate::activate;
use crate::current;
use crate::failure;
use crate::fs::FileKind;
use crate::helper::clock;
use crate::lock::Lock;
use crate::op::{Adopt, Adopted, Code, Current, Failure};
use crate::records;
use crate::recover;
use crate::release::{FORMAT, NewRelease, Record, ReleaseId, State, UNKNOWN_BUILD, layout};
use crate::root::Root;
use crate::store;
use crate::tree::path::Shown;

/// No log of another tool that is worth reading is longer.
const LOG: u64 = 16 * 1024 * 1024;
/// How Deployer (PHP) marks a release that did not hold.
const BAD: &str = "BAD_RELEASE";
/// What the making of a spare gets to notice that it has to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// What another tool wrote down of a release that it deployed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Rises with each deploy.
    order: usize,
    reference: Option<String>,
    commit: Option<String>,
    by: Option<String>,
}

/// Takes over what is live, and whatever else another tool says it deployed. Without a lock it only tells.
pub fn adopt(root: &Root, lock: Option<&Lock>, wanted: &Adopt) -> Result<Adopted, Failure> {
    let mut adopted = Adopted::default();
    let Some(live) = live(root)? else {
        adopted.left.push(format!("`{}/{}` is missing: nothing is live that could be adopted", root.path, layout::CURRENT));
        return Ok(adopted);
    };
    let scan = records::scan(root).map_err(|error| failure::io("read", layout::RECORDS, &error))?;
    let known = known(root);
    let chosen = choose(root, &live, &scan.records, &known, &mut adopted.left)?;
    let mut previous = None;
    for (id, sequence) in chosen.iter().zip(records::next_sequence(&scan.records)..) {
        let is_live = *id == live;
        adopted.done.push(format!("{} {}/{id}", if is_live { "record the live" } else { "record" }, layout::RELEASES));
        if let Some(lock) = lock {
            let record = record(root, wanted, id, known.get(id.as_str()), (sequence, is_live, previous.clone()))?;
            save(root, &record)?;
            activate::note(root, lock, "adopted", Some(id), None, None)?;
        }
        previous = Some(id.clone());
    }
    let link = root.dir.read_link(layout::CURRENT).map_err(|error| failure::io("read", layout::CURRENT, &error))?;
    let relative = layout::release(&live);
    if link != relative.as_bytes() {
        adopted.done.push(format!("make `{}` relative: {} -> {relative}", layout::CURRENT, Shown(&link)));
        if lock.is_some() {
            switch(root, &live, &link)?;
        }
    }
    Ok(adopted)
}

/// Reads what is live, and says what cannot be taken over.
fn live(root: &Root) -> Result<Option<ReleaseId>, Failure> {
    if let Current::Elsewhere { target, dangling: false } =
        current::read(root).map_err(|error| failure::io("read", layout::CURRENT, &error))?
        && let Some((before, name)) = target.rsplit_once('/')
        && (before == layout::RELEASES || before.ends_with("/releases"))
        && name.parse::<ReleaseId>().is_err()
    {
        let message =
            format!("the live release is called `{name}`, which is no id of a release: letters, digits, `.`, `_`, `-`, at most 100");
        return Err(failure::hinted(
            Code::Refused,
            message,
            "deploy once with the tool that made it, under a plain name; nothing is moved here",
        ));
    }
    current::release(root)
}

/// One rename, if the link is still what was read.
fn switch(root: &Root, live: &ReleaseId, link: &[u8]) -> Result<(), Failure> {
    if root.dir.read_link(layout::CURRENT).ok().as_deref() != Some(link) {
        return Err(failure::new(Code::Superseded, format!("`{}` was changed by something else meanwhile", layout::CURRENT)));
    }
    current::switch(root, Some(live))
}

/// Lists what is adopted, oldest first. A release that its tool does not call deployed may be half of one.
fn choose(
    root: &Root,
    live: &ReleaseId,
    records: &[Record],
    known: &BTreeMap<String, Known>,
    left: &mut Vec<String>,
) -> Result<Vec<ReleaseId>, Failure> {
    let dir = root.dir.open_dir(layout::RELEASES).map_err(|error| failure::io("open", layout::RELEASES, &error))?;
    let names = dir.names().map_err(|error| failure::io("list", layout::RELEASES, &error))?;
    let mut chosen: Vec<(usize, ReleaseId)> = Vec::new();
    for name in names {
        let shown = Shown(&name).to_string();
        let is_directory = dir.stat(&name).is_ok_and(|stat| stat.kind == FileKind::Directory);
        let id: Option<ReleaseId> = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok());
        let (Some(id), true) = (id, is_directory) else {
            left.push(format!("{}/{shown} is no directory with the name of a release", layout::RELEASES));
            continue;
        };
        if records.iter().any(|record| record.release.id == id) {
            continue;
        }
        let order = known.get(id.as_str()).map(|known| known.order);
        let is_bad = root.dir.stat(format!("{}/{BAD}", layout::release(&id))).is_ok();
        match order {
            _ if id == *live => chosen.push((order.unwrap_or(usize::MAX), id)),
            _ if is_bad => left.push(format!("{}/{id} is marked as bad", layout::RELEASES)),
            Some(order) => chosen.push((order, id)),
            None => left.push(format!("{}/{id} is in no log of deploys: whether it is whole is not known", layout::RELEASES)),
        }
    }
    chosen.sort();
    Ok(chosen.into_iter().map(|(_, id)| id).collect())
}

/// Reads what Capistrano and Deployer (PHP) wrote down, by the name of the release. What was deployed last comes last.
fn known(root: &Root) -> BTreeMap<String, Known> {
    let mut known = BTreeMap::new();
    let text = |path: &str| String::from_utf8_lossy(&root.dir.read(path, LOG).unwrap_or_default()).into_owned();
    let lines = text(layout::REVISIONS_LOG);
    let php = text(".dep/releases_log");
    let all = lines.lines().filter_map(capistrano).chain(php.lines().filter_map(deployer_php));
    for (order, (name, entry)) in all.enumerate() {
        known.insert(name, Known { order, ..entry });
    }
    known
}

/// `Branch master (at a1b2c3d) deployed as release 20261123061200 by ada`
fn capistrano(line: &str) -> Option<(String, Known)> {
    let rest = line.strip_prefix("Branch ")?;
    let (reference, rest) = rest.split_once(" (at ")?;
    let (commit, rest) = rest.split_once(") deployed as release ")?;
    let (name, by) = rest.split_once(" by ")?;
    let words = |text: &str| (!text.is_empty() && text != "unknown").then(|| text.to_owned());
    Some((name.to_owned(), Known { order: 0, reference: words(reference), commit: words(commit), by: words(by) }))
}

/// `{"created_at":"…","release_name":"12","user":"ada","target":"master"}`
fn deployer_php(line: &str) -> Option<(String, Known)> {
    #[derive(Deserialize)]
    struct Line {
        release_name: String,
        user: Option<String>,
        target: Option<String>,
    }
    let line: Line = serde_json::from_str(line).ok()?;
    Some((line.release_name, Known { order: 0, reference: line.target, commit: None, by: line.user }))
}

/// Makes the record and the manifest of a release that lies there.
fn record(
    root: &Root,
    wanted: &Adopt,
    id: &ReleaseId,
    known: Option<&Known>,
    (sequence, is_live, previous): (u64, bool, Option<ReleaseId>),
) -> Result<Record, Failure> {
    let taken = store::take_stock(root, id)?;
    let written = root.dir.read(format!("{}/{}", layout::release(id), layout::REVISION), 4096).unwrap_or_default();
    let written = String::from_utf8_lossy(&written).trim().to_owned();
    let is_commit = |text: &String| matches!(text.len(), 7..=64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let commit = Some(written).filter(is_commit).or_else(|| known.and_then(|known| known.commit.clone()).filter(is_commit));
    Ok(Record {
        format: FORMAT,
        sequence,
        state: if is_live { State::Confirmed } else { State::Retired },
        release: NewRelease {
            id: id.clone(),
            project: wanted.project.clone(),
            environment: wanted.environment.clone(),
            commit,
            reference: known.and_then(|known| known.reference.clone()),
            tree: taken.tree,
            manifest: taken.manifest,
            build_key: UNKNOWN_BUILD,
            run: wanted.run.clone(),
            by: known.and_then(|known| known.by.clone()).unwrap_or_else(|| wanted.by.clone()),
            created: taken.made,
            origin: None,
        },
        sealed: Some(clock()),
        activated: Some(taken.made),
        confirmed: Some(taken.made),
        previous,
        activation: None,
        reason: None,
        durable: true,
        check: None,
    })
}

fn save(root: &Root, record: &Record) -> Result<(), Failure> {
    records::write(root, record).map_err(|error| failure::io("write", layout::record(&record.release.id), &error))
}

/// Takes `.deployer` away. What is served, the releases, `shared` and `revisions.log` stay; what no build had finished goes, because to
/// another tool it would look like a release.
pub fn remove(root: &Root) -> Result<(), Failure> {
    if recover::read_intent(root).map_err(|error| recover::unreadable(root, &error))?.is_some() {
        let message = "an activation is neither confirmed nor put back";
        return Err(failure::hinted(Code::Refused, message, "deploy or roll back first, so that it is known what is live"));
    }
    let _spare = stop_spare(root)?;
    let live = current::read(root).map_err(|error| failure::io("read", layout::CURRENT, &error))?;
    for record in records::records(root).map_err(|error| failure::io("read", layout::RECORDS, &error))? {
        let id = &record.release.id;
        let is_unfinished = matches!(record.state, State::Uploading | State::Uploaded | State::Building | State::Failed);
        if is_unfinished && live != Current::Release(id.clone()) {
            match root.dir.trash(layout::release(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failure::io("remove", layout::release(id), &error)),
                Ok(()) | Err(_) => {}
            }
        }
    }
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| failure::new(Code::Io, format!("no random numbers: {error}")))?;
    let aside = format!("{}-removed-{:016x}", layout::CONTROL, u64::from_le_bytes(random));
    // One rename, and there is none: whoever comes next begins anew, and never meets a half of it.
    let renamed = root.dir.rename(layout::CONTROL, &aside).and_then(|()| root.dir.sync());
    renamed.map_err(|error| failure::io("remove", layout::CONTROL, &error))?;
    let emptied = root.dir.open_dir(&aside).and_then(|dir| dir.empty());
    let removed = emptied.and_then(|()| Ok(rustix::fs::unlinkat(&root.dir, aside.as_str(), AtFlags::REMOVEDIR)?));
    removed.map_err(|error| {
        let told = failure::io("remove", format!("{}/{aside}", root.path), &error);
        Failure { hint: Some(format!("as root: `rm -r {}/{aside}`; nothing uses it any more", root.path)), ..told }
    })
}

/// Whoever makes the copy for the next release stops as soon as the host is locked.
fn stop_spare(root: &Root) -> Result<std::fs::File, Failure> {
    let file = root.dir.open_lock(layout::SPARE_LOCK, 0o600).map_err(|error| failure::io("open", layout::SPARE_LOCK, &error))?;
    let began = Instant::now();
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > PATIENCE {
            return Err(failure::hinted(Code::Refused, "a copy for the next release is being made", "the same command again, in a minute"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_of_other_tools_are_read() {
        let (name, known) = capistrano("Branch feature (x) (at a1b2c3d) deployed as release 20261123061200 by ada lovelace").unwrap();
        assert_eq!(
            (name.as_str(), known.reference.as_deref(), known.by.as_deref()),
            ("20261123061200", Some("feature (x)"), Some("ada lovelace"))
        );
        assert_eq!(known.commit.as_deref(), Some("a1b2c3d"));
        assert_eq!(capistrano("ada rolled back to release 20261122061200"), None);
        let line = r#"{"created_at":"2026-11-23T06:12:00+0000","release_name":"12","user":"ada","target":"master"}"#;
        let (name, known) = deployer_php(line).unwrap();
        assert_eq!((name.as_str(), known.reference.as_deref()), ("12", Some("master")));
        assert_eq!(deployer_php("20261123061200,12"), None);
    }
}
