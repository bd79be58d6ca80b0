//! What a deploy would do: environment, wanted release and the hosts' facts in, a plan out. Its text is the dry run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::figures::counted;
use crate::op::{Current, Facts, RootState};
use crate::release::{NewRelease, Record, ReleaseId, State};
use crate::tree::Digest;

/// What is to be live when the run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The commit; none for a directory, which is what it is whatever its label.
    pub commit: Option<String>,
    pub tree: Digest,
    pub build_key: Digest,
    /// The very bytes that another environment confirmed.
    pub promoted: Option<Promoted>,
    /// Make it anew, whatever the hosts have.
    pub force: bool,
    /// Releases that did not hold on one of the hosts: no other one chooses them either.
    pub bad: BTreeSet<ReleaseId>,
}

/// A built tree and the release that it was built as: it runs nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    pub tree: Digest,
    pub release: ReleaseId,
}

/// What one host needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It serves the wanted release already.
    Nothing,
    /// It has the wanted release whole, from an earlier run or before a rollback: activate it.
    Adopt(ReleaseId),
    /// Push, build, seal and activate.
    Make,
}

/// The plan for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    pub host: String,
    /// What `current` points at.
    pub live: Option<ReleaseId>,
    pub live_commit: Option<String>,
    /// What the host serves, as people read it.
    pub serves: String,
    /// A release of ours that held once is live: a rollback returns to it.
    pub can_return: bool,
    pub action: Action,
    pub blockers: Vec<Blocker>,
}

/// Why a host cannot be deployed to, found before anything was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    pub code: &'static str,
    pub message: String,
    pub hint: String,
}

/// The bytes and files that a new release takes on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    pub bytes: u64,
    pub files: u64,
}

/// Plans one host.
#[must_use]
pub fn host(name: &str, facts: &Facts, wanted: &Wanted, need: Need, environment: &str) -> HostPlan {
    let live = live_record(facts);
    let action = if wanted.force { Action::Make } else { action(facts, live, wanted) };
    let mut blockers: Vec<_> = root_blocker(facts, environment).into_iter().chain(current_blocker(facts)).collect();
    if action == Action::Make {
        blockers.extend(space_blocker(facts, need, environment));
        blockers.extend(wanted.promoted.as_ref().and_then(|promoted| taken_blocker(facts, promoted, environment)));
    }
    HostPlan {
        host: name.to_owned(),
        live: live_id(facts).cloned(),
        live_commit: live.and_then(|record| record.release.commit.clone()),
        serves: live_name(facts),
        can_return: live.is_some_and(|record| record.state.is_good()),
        action,
        blockers,
    }
}

/// Finds the id that `current` leads to.
#[must_use]
pub const fn live_id(facts: &Facts) -> Option<&ReleaseId> {
    match &facts.current {
        Current::Release(id) => Some(id),
        Current::Absent | Current::Elsewhere { .. } | Current::NotLink => None,
    }
}

/// Finds the record of what is live.
#[must_use]
pub fn live_record(facts: &Facts) -> Option<&Record> {
    let id = live_id(facts)?;
    facts.releases.iter().find(|record| record.release.id == *id)
}

/// Says why a host is known not to serve well, from what it says of itself. What another tool left there is taken for well.
#[must_use]
pub fn unwell(facts: &Facts) -> Option<&'static str> {
    match (live_id(facts), &facts.unresolved, live_record(facts)) {
        (None, _, _) => Some("it serves nothing"),
        (Some(_), Some(_), _) => Some("an activation there was never confirmed"),
        (Some(_), None, Some(record)) if !record.state.is_good() => Some("what it serves was never confirmed"),
        (Some(_), None, Some(_) | None) => None,
    }
}

/// What a host serves that has no `current`.
pub const NOTHING: &str = "nothing";

/// Finds the releases that did not hold on a host.
#[must_use]
pub fn bad<'a>(facts: impl IntoIterator<Item = &'a Facts>) -> BTreeSet<ReleaseId> {
    let records = facts.into_iter().flat_map(|facts| &facts.releases);
    records.filter(|record| record.state == State::Bad).map(|record| record.release.id.clone()).collect()
}

/// Names what a host serves, for people: a short commit, a release's id, or `nothing`.
#[must_use]
pub fn live_name(facts: &Facts) -> String {
    match (live_record(facts).and_then(|record| record.release.commit.as_deref()), live_id(facts)) {
        (Some(commit), _) => short(commit).to_owned(),
        (None, Some(id)) => id.to_string(),
        (None, None) => NOTHING.to_owned(),
    }
}

/// Counts hosts by what they serve.
#[must_use]
pub fn live_counts<'a>(facts: impl IntoIterator<Item = &'a Facts>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for facts in facts {
        *counts.entry(live_name(facts)).or_insert(0) += 1;
    }
    counts
}

/// Cuts a commit id to the seven digits people read.
#[must_use]
pub fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

fn action(facts: &Facts, live: Option<&Record>, wanted: &Wanted) -> Action {
    let same = |record: &&Record| {
        // The tree decides: one commit is many trees (another `source.path`, a directory that only bears its label).
        let code = record.release.tree == wanted.tree && (wanted.commit.is_none() || wanted.commit == record.release.commit);
        let bytes = |promoted: &Promoted| record.release.origin.as_ref().is_some_and(|origin| origin.tree == promoted.tree);
        code && record.release.build_key == wanted.build_key && wanted.promoted.as_ref().is_none_or(bytes) && record.state.is_sealed()
    };
    // An active release that nobody confirmed is not what anybody may call deployed: it is activated and checked again.
    if facts.unresolved.is_none() && live.as_ref().is_some_and(same) {
        return Action::Nothing;
    }
    // What was built elsewhere runs under no other name, and is the same bytes again.
    let chosen = |record: &&Record| same(record) && (wanted.promoted.is_some() || !wanted.bad.contains(&record.release.id));
    facts.releases.iter().rev().find(chosen).map_or(Action::Make, |record| Action::Adopt(record.release.id.clone()))
}

fn root_blocker(facts: &Facts, environment: &str) -> Option<Blocker> {
    let setup = format!("deployer setup -e {environment}");
    let (code, message, hint) = match &facts.root {
        RootState::Ready | RootState::Bare => return None,
        RootState::Missing { .. } => ("root-missing", "the root directory is missing".to_owned(), setup),
        RootState::NotDirectory => {
            ("root-not-directory", "the root is not a directory".to_owned(), "move it away, or change `root`".to_owned())
        }
        RootState::ReadOnly => {
            ("root-read-only", "the root is on a read-only file system".to_owned(), "mount it for writing, or change `root`".to_owned())
        }
        RootState::Denied { owner } => {
            ("root-denied", format!("the root belongs to `{owner}` and `{}` may not write to it", facts.user), setup)
        }
        RootState::NewerFormat(format) => (
            "newer-format",
            format!("the root was written by a newer deployer (record format {format})"),
            "use that deployer, or a newer one".to_owned(),
        ),
    };
    Some(Blocker { code, message, hint })
}

fn current_blocker(facts: &Facts) -> Option<Blocker> {
    let message = current_in_the_way(facts)?;
    let hint = match &facts.current {
        Current::Absent | Current::Release(_) => return None,
        Current::NotLink => "move it away on that host: `mv current current.old`, then deploy again",
        Current::Elsewhere { .. } => "point it at a directory in `releases/`, or remove it on that host, then deploy again",
    };
    Some(Blocker { code: "current", message, hint: hint.to_owned() })
}

/// Says what `current` is, where it can be neither switched nor made.
#[must_use]
pub fn current_in_the_way(facts: &Facts) -> Option<String> {
    match &facts.current {
        Current::Absent | Current::Release(_) => None,
        Current::NotLink => Some("`current` is a real file or directory, not a link".to_owned()),
        Current::Elsewhere { target, dangling } => {
            Some(format!("`current` leads to `{target}`, which is {}", if *dangling { "not there" } else { "not a release of this root" }))
        }
    }
}

/// The place that a built tree needs may be taken by what cannot be begun again.
fn taken_blocker(facts: &Facts, promoted: &Promoted, environment: &str) -> Option<Blocker> {
    let id = &promoted.release;
    let record = facts.releases.iter().find(|record| record.release.id == *id);
    let why = match record.map(|record| record.state) {
        None if facts.foreign.iter().any(|name| name == id.as_str()) => "was made by another tool",
        None | Some(State::Uploading | State::Uploaded | State::Failed | State::Bad) => return None,
        Some(State::Building | State::Sealed | State::Active | State::Confirmed | State::Retired) => "is another one here",
    };
    Some(Blocker {
        code: "release-taken",
        message: format!("release `{id}` {why}, and what was built as it runs under no other name"),
        hint: format!("deployer prune -e {environment} --release {id}"),
    })
}

/// Asks for the tree once more than it is large: the build adds to it.
fn space_blocker(facts: &Facts, need: Need, environment: &str) -> Option<Blocker> {
    let bytes = need.bytes + need.bytes / 20 + (4 << 20);
    let inodes = need.files + need.files / 5 + 64;
    let short_of = if facts.total_bytes > 0 && facts.free_bytes < bytes {
        format!("{} MB are free and the release needs {} MB", facts.free_bytes / 1_000_000, bytes.div_ceil(1_000_000))
    } else if facts.free_inodes > 0 && facts.free_inodes < inodes {
        format!("{} inodes are free and the release needs {inodes}", facts.free_inodes)
    } else {
        return None;
    };
    Some(Blocker { code: "disk-full", message: short_of, hint: format!("deployer prune -e {environment}") })
}

/// What a rollback returns to, and the way of every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    pub tree: Digest,
    pub commit: Option<String>,
    pub reference: Option<String>,
    /// The id by which one of the hosts has it; none where no host has it any more.
    pub release: Option<ReleaseId>,
}

impl Goal {
    /// Names it for people.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.commit, &self.release) {
            (Some(commit), _) => short(commit).to_owned(),
            (None, Some(id)) => id.to_string(),
            (None, None) => format!("tree-{}", short(&self.tree.to_string())),
        }
    }
}

/// Where a rollback goes on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    pub host: String,
    pub from: Option<ReleaseId>,
    pub way: Way,
}

/// How a host comes to the goal of a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It serves it already.
    Stay,
    /// It has it as a confirmed release.
    To(ReleaseId),
    /// It has it no more: push and build it again.
    Make,
}

/// Says why there is nothing to roll back to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    #[error("`{host}` serves nothing")]
    NothingLive { host: String },
    #[error("`{host}` has {} before the one it serves", confirmed(*before))]
    NoTarget { host: String, before: usize },
    #[error("hosts would return to different revisions: `{first}` to {first_to}, `{second}` to {second_to}")]
    Differs { first: String, first_to: String, second: String, second_to: String },
    #[error("`{host}` does not have the release `{wanted}` as a confirmed one")]
    Missing { host: String, wanted: String },
}

fn confirmed(count: usize) -> String {
    match count {
        0 => "no confirmed release".to_owned(),
        _ => format!("only {}", counted(count as u64, "confirmed release")),
    }
}

/// Chooses what a rollback returns to: on every host the same code, sealed and confirmed once, by absolute id.
///
/// Without `to` it is what was confirmed before the live release was deployed. `to` is a release's id, a commit, or `~N`. The first
/// host that knows it decides; the others go where it goes, by code: ids differ where hosts were deployed to in different runs.
pub fn select_rollback(hosts: &[(&str, &Facts)], to: Option<&str>) -> Result<Goal, RollbackError> {
    let choose = |host: &str, facts| match to {
        Some(text) => named(host, facts, text),
        None => step_back(host, facts, 1),
    };
    let mut first_error = None;
    let mut chosen: Option<(&str, &Record)> = None;
    for (host, facts) in hosts {
        match (chosen, choose(host, facts)) {
            (None, Ok(record)) => chosen = Some((host, record)),
            (None, Err(error)) => drop(first_error.get_or_insert(error)),
            // What this host alone would return to must be the same code, or the fleet would be torn apart.
            (Some((first, wanted)), Ok(own)) if to.is_none() && own.release.tree != wanted.release.tree => {
                if live_record(facts).is_some_and(|live| live.release.tree != wanted.release.tree) {
                    return Err(RollbackError::Differs {
                        first: first.to_owned(),
                        first_to: record_name(wanted),
                        second: (*host).to_owned(),
                        second_to: record_name(own),
                    });
                }
            }
            (Some(_), Ok(_) | Err(_)) => {}
        }
    }
    let nobody = || RollbackError::Missing { host: String::new(), wanted: to.unwrap_or_default().to_owned() };
    let (_, record) = chosen.ok_or_else(|| first_error.unwrap_or_else(nobody))?;
    let NewRelease { tree, commit, reference, id, .. } = &record.release;
    Ok(Goal { tree: *tree, commit: commit.clone(), reference: reference.clone(), release: Some(id.clone()) })
}

/// Finds the way of every host to the goal of a rollback.
#[must_use]
pub fn ways(hosts: &[(&str, &Facts)], goal: &Goal) -> Vec<Return> {
    let way = |(host, facts): &(&str, &Facts)| {
        let from = live_id(facts).cloned();
        let good = |record: &&Record| record.release.tree == goal.tree && record.state.is_good();
        // One tree may have been built in more than one way: what was chosen is one of them.
        let chosen = facts.releases.iter().filter(good).find(|record| Some(&record.release.id) == goal.release.as_ref());
        // Nothing is gained where the same code is live.
        let has = chosen.or_else(|| live_record(facts).filter(good)).or_else(|| facts.releases.iter().rev().find(good));
        let way = match has.map(|record| record.release.id.clone()) {
            None => Way::Make,
            Some(id) if from.as_ref() == Some(&id) => Way::Stay,
            Some(id) => Way::To(id),
        };
        Return { host: (*host).to_owned(), from, way }
    };
    hosts.iter().map(way).collect()
}

fn record_name(record: &Record) -> String {
    record.release.commit.as_deref().map_or_else(|| record.release.id.to_string(), |commit| short(commit).to_owned())
}

fn named<'a>(host: &str, facts: &'a Facts, text: &str) -> Result<&'a Record, RollbackError> {
    if let Some(count) = text.strip_prefix('~').and_then(|digits| digits.parse::<usize>().ok()) {
        return step_back(host, facts, count);
    }
    let commit = |record: &Record| text.len() >= 7 && record.release.commit.as_deref().is_some_and(|commit| commit.starts_with(text));
    let matches = |record: &&Record| record.state.is_good() && (record.release.id.as_str() == text || commit(record));
    facts.releases.iter().rev().find(matches).ok_or_else(|| RollbackError::Missing { host: host.to_owned(), wanted: text.to_owned() })
}

/// Follows what was live before, `count` times. A rollback leaves that chain as it is, so a second one goes further back.
fn step_back<'a>(host: &str, facts: &'a Facts, count: usize) -> Result<&'a Record, RollbackError> {
    let mut record = live_record(facts).ok_or_else(|| RollbackError::NothingLive { host: host.to_owned() })?;
    for done in 0..count {
        record = before(facts, record).ok_or_else(|| RollbackError::NoTarget { host: host.to_owned(), before: done })?;
    }
    Ok(record)
}

/// Finds the release that was live before another. One that did not hold, or was found altered, is passed over, and so is an earlier
/// build of the very same: nobody goes back to that.
fn before<'a>(facts: &'a Facts, after: &'a Record) -> Option<&'a Record> {
    let same =
        |one: &NewRelease, other: &NewRelease| one.tree == other.tree && one.commit == other.commit && one.build_key == other.build_key;
    let mut record = after;
    // No chain is longer than there are releases, whatever the records say.
    for _ in &facts.releases {
        let previous = record.previous.as_ref()?;
        record = facts.releases.iter().find(|record| record.release.id == *previous)?;
        if record.state.is_good() && !same(&record.release, &after.release) {
            return Some(record);
        }
    }
    None
}

/// Lists what a host can go back to, the live release first: each was live before the one ahead of it.
#[must_use]
pub fn chain(facts: &Facts) -> Vec<ReleaseId> {
    let mut ids: Vec<ReleaseId> = Vec::new();
    let mut next = live_record(facts);
    while let Some(record) = next.filter(|record| !ids.contains(&record.release.id)) {
        ids.push(record.release.id.clone());
        next = before(facts, record);
    }
    ids
}

/// Finds two names that are one root: the same random id in `.deployer/id`.
#[must_use]
pub fn twins<'a>(facts: impl IntoIterator<Item = (&'a str, &'a Facts)>) -> Option<(String, String)> {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for (name, facts) in facts {
        let Some(id) = facts.host_id.as_deref() else { continue };
        if let Some(first) = seen.insert(id, name) {
            return Some((first.to_owned(), name.to_owned()));
        }
    }
    None
}

/// Names a new release so that no host has it yet: `<time>-<short commit>`, with a number where that is taken.
///
/// # Errors
/// The parts do not make an id.
pub fn release_id(stamp: &str, label: &str, taken: impl Fn(&ReleaseId) -> bool) -> Result<ReleaseId, crate::release::ReleaseIdError> {
    let plain: String = label.chars().map(|c| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' }).take(40).collect();
    let first: ReleaseId = format!("{stamp}-{plain}").parse()?;
    if !taken(&first) {
        return Ok(first);
    }
    let mut number = 2_u32;
    loop {
        let next: ReleaseId = format!("{stamp}-{plain}.{number}").parse()?;
        if !taken(&next) {
            return Ok(next);
        }
        number += 1;
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
