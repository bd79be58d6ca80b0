//! What must hold of a host at any moment at which nobody writes there, whatever was killed, cut or full. It is looked at from outside,
//! on the bare files, by whoever tests anything: with a helper alone, or with the whole program.
//!
//! What is found wrong begins with the number of the invariant:
//! I1 `current` is absent or leads to a sealed release; I2 a sealed release is its manifest, to the byte; I3 nothing else can be made
//! live; I4 one holder at a time: epochs rise; I5 what was begun can be told; I7 neither what is live nor what it goes back to is
//! removed; I10 what did not hold is not live; I18 the history is whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::Value;

use crate::release::{Record, State};
use crate::tree::{Digest, Kind, Manifest};

/// Says what is wrong with the host at `root`.
pub fn violations(root: &Path) -> Vec<String> {
    let control = root.join(".deployer");
    if !control.is_dir() {
        let is_bare = fs::symlink_metadata(root.join("current")).is_err();
        return if is_bare { Vec::new() } else { vec!["I1: `current` without a control directory".to_owned()] };
    }
    let mut found = Vec::new();
    let records = records(root, &mut found);
    let intent = intent(&control, &mut found);
    let live = live(root, &records, &mut found);
    for record in records.values().filter(|record| record.state.is_sealed()) {
        sealed(root, record, &mut found);
    }
    for entry in fs::read_dir(root.join("releases")).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !records.contains_key(&name) {
            found.push(format!("I3: `releases/{name}` has no record"));
        }
    }
    held(live.as_deref(), &records, intent.as_ref(), &mut found);
    history(&control, &mut found);
    let sequences: Vec<u64> = records.values().map(|record| record.sequence).collect();
    if sequences.iter().any(|sequence| sequences.iter().filter(|other| *other == sequence).count() > 1) {
        found.push(format!("I3: two releases have one sequence: {sequences:?}"));
    }
    found
}

/// Says what a run that ended, or the recovery of one, left over.
pub fn unsettled(root: &Path) -> Vec<String> {
    let mut found = violations(root);
    let control = root.join(".deployer");
    if control.join("intent").exists() {
        found.push("I5: an activation is unresolved".to_owned());
    }
    found.extend(left_in(root, "tmp"));
    for record in records(root, &mut Vec::new()).values() {
        if matches!(record.state, State::Uploading | State::Uploaded | State::Building | State::Active) {
            found.push(format!("I5: `{}` is left {:?}", record.release.id, record.state));
        }
    }
    found
}

/// Says what lies in a directory that whoever takes the lock empties.
pub fn left_in(root: &Path, aside: &str) -> Option<String> {
    let names = fs::read_dir(root.join(".deployer").join(aside)).into_iter().flatten().count();
    (names > 0).then(|| format!("I5: {names} files are left in `{aside}`"))
}

/// The records by id.
pub fn records(root: &Path, found: &mut Vec<String>) -> BTreeMap<String, Record> {
    let mut records = BTreeMap::new();
    for entry in fs::read_dir(root.join(".deployer/rel")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match serde_json::from_slice::<Record>(&fs::read(&path).unwrap()) {
            Ok(record) if record.release.id.as_str() == name => drop(records.insert(name, record)),
            Ok(record) => found.push(format!("I5: `rel/{name}.json` is the record of `{}`", record.release.id)),
            Err(error) => found.push(format!("I5: `rel/{name}.json` cannot be read: {error}")),
        }
    }
    records
}

fn intent(control: &Path, found: &mut Vec<String>) -> Option<Value> {
    let intent = serde_json::from_slice(&fs::read(control.join("intent")).ok()?);
    intent.map_err(|error| found.push(format!("I5: the intent cannot be read: {error}"))).ok()
}

/// The id of what is live.
fn live(root: &Path, records: &BTreeMap<String, Record>, found: &mut Vec<String>) -> Option<String> {
    let metadata = fs::symlink_metadata(root.join("current")).ok()?;
    let target = if metadata.is_symlink() { fs::read_link(root.join("current")).unwrap() } else { "nowhere, for it is no link".into() };
    let Some(id) = target.to_str().and_then(|target| target.strip_prefix("releases/")) else {
        found.push(format!("I1: `current` leads to {}", target.display()));
        return None;
    };
    if !root.join(&target).is_dir() {
        found.push(format!("I1: `current` dangles: there is no `{id}`"));
    }
    match records.get(id).map(|record| record.state) {
        Some(State::Bad | State::Failed) => found.push(format!("I10: `{id}` is live and did not hold")),
        Some(state) if !state.is_sealed() => found.push(format!("I1, I3: `{id}` is live and {state:?}")),
        Some(_) => {}
        None => found.push(format!("I1: `{id}` is live and has no record")),
    }
    Some(id.to_owned())
}

/// Compares a sealed release with its manifest. Where a link was put in the way of an entry, the link counts.
fn sealed(root: &Path, record: &Record, found: &mut Vec<String>) {
    let id = &record.release.id;
    let stored = match manifest(&root.join(".deployer/manifest").join(id.as_str())) {
        Ok(stored) => stored,
        Err(why) => return found.push(format!("I2: `{id}` is sealed, and its manifest {why}")),
    };
    if stored.manifest_digest() != record.release.manifest || stored.tree_digest() != record.release.sent_tree() {
        found.push(format!("I2: the manifest of `{id}` is not that of its record"));
    }
    let release = root.join("releases").join(id.as_str());
    for entry in stored.entries() {
        let path = release.join(std::ffi::OsStr::from_bytes(entry.path.as_bytes()));
        let wrong = match (&entry.kind, fs::symlink_metadata(&path)) {
            (_, Err(_)) if is_below_a_link(&release, entry.path.as_bytes()) => None,
            (_, Err(_)) => Some("is missing"),
            (Kind::Link { target }, Ok(_)) => {
                (fs::read_link(&path).ok().is_none_or(|is| is.as_os_str().as_bytes() != target)).then_some("leads elsewhere")
            }
            (_, Ok(metadata)) if metadata.is_symlink() => None,
            (Kind::Directory, Ok(metadata)) => (!metadata.is_dir()).then_some("is no directory"),
            (Kind::File { mode, size, digest, .. }, Ok(metadata)) => {
                let is_it = metadata.is_file() && metadata.len() == *size && metadata.permissions().mode() & 0o7777 == *mode;
                (!is_it || Digest::of(&fs::read(&path).unwrap()) != *digest).then_some("has another content or mode")
            }
        };
        if let Some(wrong) = wrong {
            found.push(format!("I2: `{}` of the sealed `{id}` {wrong}", entry.path));
        }
    }
}

fn is_below_a_link(release: &Path, path: &[u8]) -> bool {
    let parents = (0..path.len()).filter(|at| path[*at] == b'/').map(|at| release.join(std::ffi::OsStr::from_bytes(&path[..at])));
    parents.into_iter().any(|parent| parent.is_symlink())
}

/// Reads a stored manifest by its format: `store/stored.rs` says what it is.
fn manifest(path: &Path) -> Result<Manifest, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let length = |at: usize| bytes.get(at..at + 8).map(|length| u64::from_le_bytes(length.try_into().unwrap()));
    let (Some(plain), Some(packed)) = (length(4), length(12)) else { return Err("ends early".to_owned()) };
    let packed = usize::try_from(packed).ok().and_then(|packed| bytes.get(28..28 + packed)).ok_or("ends early")?;
    let encoded = zstd::decode_all(packed).map_err(|error| error.to_string())?;
    if encoded.len() as u64 != plain {
        return Err("has another length than it says".to_owned());
    }
    Manifest::decode(&encoded).map_err(|error| error.to_string())
}

/// What is confirmed is what is live, unless somebody is on the way from one to the other, and says so.
fn held(live: Option<&str>, records: &BTreeMap<String, Record>, intent: Option<&Value>, found: &mut Vec<String>) {
    let of = |state: State| records.iter().filter(move |(_, record)| record.state == state).map(|(id, _)| id.as_str());
    if intent.is_some() {
        return;
    }
    for id in of(State::Active) {
        found.push(format!("I9: `{id}` is active, and nobody will confirm it or put it back"));
    }
    for id in of(State::Confirmed).filter(|id| Some(*id) != live) {
        found.push(format!("I5: `{id}` is confirmed, and {live:?} is live"));
    }
    if let Some(state) = live.and_then(|id| records.get(id)).map(|record| record.state).filter(|state| *state != State::Confirmed) {
        found.push(format!("I9: {live:?} is live and {state:?}, and nobody will confirm it or put it back"));
    }
}

/// Follows the journal: its frames, and what they tell of who held the host and what was removed.
fn history(control: &Path, found: &mut Vec<String>) {
    let bytes = fs::read(control.join("journal")).unwrap_or_default();
    let (mut rest, mut hash, mut sequence, mut epoch) = (&bytes[..], String::new(), 0, (0, String::new()));
    let (mut live, mut target, mut confirmed) = (None, None, false);
    while rest.len() >= 8 {
        let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        // What a crash left of the last frame is no frame, and neither is a length that came to the disk before its content.
        let Some(json) = rest.get(8..8 + length).filter(|_| length > 0) else { break };
        let Ok(frame) = serde_json::from_slice::<Value>(json) else {
            return found.push(format!("I18: the history is torn in the middle, after event {sequence}"));
        };
        let event = &frame["event"];
        let is_next = frame["previous"] == hash.as_str() && event["sequence"] == sequence + 1;
        if !is_next {
            return found.push(format!("I18: the history is broken at {frame}"));
        }
        sequence += 1;
        hash = blake3::hash(&rest[..8 + length]).to_string();
        rest = &rest[8 + length..];
        let now = (event["epoch"].as_u64().unwrap(), event["run"].as_str().unwrap().to_owned());
        if now.0 < epoch.0 || (now.0 == epoch.0 && now.1 != epoch.1) {
            found.push(format!("I4: epoch {} of run `{}` follows epoch {} of run `{}`", now.0, now.1, epoch.0, epoch.1));
        }
        epoch = now;
        let release = event["release"].as_str().map(str::to_owned);
        match event["what"].as_str().unwrap() {
            "activation-started" => confirmed = false,
            // That it was confirmed may not have been written, if that could not be: this was.
            "activated" => {
                confirmed = false;
                (live, target) = (release, event["from"].as_str().map(str::to_owned));
            }
            "confirmed" => {
                if std::mem::replace(&mut confirmed, true) && release == live {
                    found.push(format!("I18: `{release:?}` was confirmed twice"));
                }
                (live, target) = (release, event["from"].as_str().map(str::to_owned));
            }
            "reverted" => (live, target) = (release, None),
            "pruned" if release.is_some() && (release == live || release == target) => {
                found.push(format!("I7: `{}` was pruned while it was needed", release.unwrap()));
            }
            _ => {}
        }
    }
    let now: u64 = fs::read_to_string(control.join("epoch")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if now < epoch.0 {
        found.push(format!("I4: the epoch is {now}, and the history knows {}", epoch.0));
    }
    if fs::metadata(control).unwrap().mode() & 0o077 != 0 {
        found.push("I11: others can enter the control directory".to_owned());
    }
}
