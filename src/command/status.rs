//! `status`: what is live where and whether it is well, and with `--verify` whether it is still what was deployed.

use std::sync::Arc;

use crate::cli::{self, Common};
use crate::command::health;
use crate::command::locks::lock_id;
use crate::command::print;
use crate::command::processes;
use crate::command::scene::{self, Scene};
use crate::config::environment::CheckProbe;
use crate::config::ranges;
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet::{self, Connected, each};
use crate::host::{Host, HostError};
use crate::op::{Answer, Current, Difference, DifferenceKind, Facts, Op, Processes};
use crate::plan;
use crate::report::status::{Drift, Health, StatusRow, StatusView};
use crate::tree::path::Shown;

mod distance;

use distance::Distances;

/// How many differences of one host are named.
const NAMED: usize = 10;

/// Runs the verb.
pub async fn status(common: &Common, args: &cli::Status) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let (events, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(&scene.environment, &events).await;
    let commits: Vec<Option<String>> = scene.environment.targets.iter().map(|target| live_commit(&connected, &target.name)).collect();
    let (drift, processes, health, distances) = tokio::join!(
        // Nobody may say that a fleet is unmodified who did not look.
        drift(&connected.hosts, args.verify || args.exit_code),
        processes::ask(&connected.hosts),
        health(&scene, &connected.hosts, args.check),
        Distances::find(&scene, &commits),
    );
    let view = view(&scene, &connected, &Found { drift, processes, health, distances });
    fleet::close(&connected.hosts).await;
    if common.json {
        let document =
            serde_json::to_string(&view).map_err(|error| Error::new(Exit::Internal, "json", "the status is no JSON").caused_by(error))?;
        print(&format!("{document}\n"));
    } else {
        print(&view.text(scene.now, common.display().stdout()));
    }
    let is_well = |row: &StatusRow| row.notes.is_empty() && !matches!(row.health, Some(Health::Failed { .. }));
    let uniform = is_one_release(&connected) && view.rows.iter().all(is_well);
    if connected.hosts.is_empty() {
        return Ok(Exit::Unreachable);
    }
    Ok(if args.exit_code && !uniform { Exit::Pending } else { Exit::Ok })
}

/// Hosts that were deployed to in different runs have releases of other names: what counts is what they were made of.
fn is_one_release(connected: &Connected) -> bool {
    let facts: Vec<Arc<Facts>> = connected.hosts.iter().map(Host::facts).collect();
    let made_of = |facts: &Arc<Facts>| match plan::live_record(facts) {
        Some(record) => Some((record.release.tree.to_string(), record.release.build_key.to_string(), record.release.commit.clone())),
        None => plan::live_id(facts).map(|id| (id.to_string(), String::new(), None)),
    };
    let first = facts.first().and_then(made_of);
    first.is_some() && facts.iter().all(|facts| made_of(facts) == first)
}

/// The full commit that a host serves, where it is one.
fn live_commit(connected: &Connected, name: &str) -> Option<String> {
    let host = connected.hosts.iter().find(|host| host.name() == name)?;
    plan::live_record(&host.facts())?.release.commit.clone()
}

/// Runs the check of every host's environment once. A command is somebody's own: it is run where that is asked for.
async fn health(scene: &Scene, hosts: &[Host], with_commands: bool) -> Vec<Option<Health>> {
    each(hosts, usize::MAX >> 4, |host| async move {
        let check = scene.environment.of(host.target()).check.as_ref()?;
        plan::live_id(&host.facts())?;
        match check.probe {
            CheckProbe::Run(_) if !with_commands => return Some(Health::Unasked),
            CheckProbe::Run(_) | CheckProbe::Url { .. } => {}
        }
        Some(match health::check_now(&scene.environment, host).await {
            Ok(None) => Health::Ok,
            Ok(Some(why)) => Health::Failed { why },
            Err(error) => Health::Failed { why: error.to_string() },
        })
    })
    .await
}

async fn drift(hosts: &[Host], is_asked: bool) -> Vec<Compared> {
    if is_asked { verify(hosts).await.into_iter().map(Some).collect() } else { hosts.iter().map(|_| None).collect() }
}

async fn verify(hosts: &[Host]) -> Vec<Result<Vec<Difference>, HostError>> {
    each(hosts, 64, |host| async move {
        let facts = host.facts();
        let Some(release) = plan::live_id(&facts) else { return Ok(Vec::new()) };
        match host.ask(Op::Verify { release: release.clone() }).await? {
            Answer::Verified { differences, .. } => Ok(differences),
            other => Err(HostError::unexpected(host.name(), &other)),
        }
    })
    .await
}

/// What the live release of a host differs in, where it was compared.
type Compared = Option<Result<Vec<Difference>, HostError>>;

/// What was found out beside the facts: of each host that answered, in their order, and of what they serve.
struct Found {
    drift: Vec<Compared>,
    processes: Vec<Result<Processes, HostError>>,
    health: Vec<Option<Health>>,
    distances: Distances,
}

fn view(scene: &Scene, connected: &Connected, looked: &Found) -> StatusView {
    let environment = &scene.environment;
    let mut rows = Vec::new();
    let mut in_the_way: Vec<(&str, String, String)> = Vec::new();
    let (mut notes, mut unknown) = (Vec::new(), Vec::new());
    for target in &environment.targets {
        if let Some((_, error)) = connected.unreachable.iter().find(|(other, _)| other.name == target.name) {
            let note = format!("unreachable: {error}");
            rows.push(StatusRow {
                hosts: vec![target.name.clone()],
                live: None,
                release: None,
                since: None,
                by: None,
                health: None,
                notes: vec![note],
                drift: None,
                processes: None,
            });
            continue;
        }
        let Some(index) = connected.hosts.iter().position(|host| host.name() == target.name) else { continue };
        let facts = connected.hosts[index].facts();
        let found = looked.processes.get(index).and_then(|found| found.as_ref().ok());
        if environment.ways().any(|way| way.activate.is_some()) && found.is_none_or(processes::is_unknown) {
            unknown.push(target.name.clone());
        }
        let (mut row, differences) = row(&target.name, &facts, looked.drift.get(index).and_then(Option::as_ref), found);
        let commit = plan::live_record(&facts).and_then(|record| record.release.commit.as_deref());
        row.notes.extend(commit.and_then(|commit| looked.distances.of(commit)).cloned());
        row.health = looked.health.get(index).cloned().flatten();
        rows.push(row);
        notes.extend(differences);
        if let Some(holder) = &facts.holder {
            in_the_way.push(("locked", format!("by {}, {}, id {}", holder.by, holder.what, lock_id(&holder.run)), target.name.clone()));
        } else if let Some(hold) = &facts.hold {
            in_the_way.push(("on hold", format!("by {}: {}, id {}", hold.by, hold.reason, hold.id), target.name.clone()));
        }
    }
    if !unknown.is_empty() {
        notes.push(format!(
            "not known, because the login user may not see it: what processes of other users run from ({})",
            ranges::fold(&unknown)
        ));
    }
    notes.extend(looked.distances.default.clone());
    let mut next = next(scene, &rows);
    if rows.iter().any(|row| row.health == Some(Health::Unasked)) {
        next.push(("Run the commands that check".to_owned(), scene.typed("status", " --check")));
    }
    StatusView { env: environment.name.clone(), lock: lock(&in_the_way, environment.targets.len()), rows, notes, next }
}

/// Who is in the way first, and on which hosts where it is not all of them.
fn lock(in_the_way: &[(&str, String, String)], all: usize) -> Option<String> {
    let (word, who, _) = in_the_way.first()?;
    let same = in_the_way.iter().filter(|(other, by, _)| (other, by) == (word, who));
    let hosts: Vec<&str> = same.map(|(_, _, host)| host.as_str()).collect();
    let place = if hosts.len() == all { String::new() } else { format!(" on {}", ranges::fold(&hosts)) };
    Some(format!("{word}{place} {who}"))
}

fn row(
    name: &str,
    facts: &Arc<Facts>,
    drift: Option<&Result<Vec<Difference>, HostError>>,
    processes: Option<&Processes>,
) -> (StatusRow, Vec<String>) {
    let record = plan::live_record(facts);
    let mut notes = Vec::new();
    match &facts.current {
        Current::NotLink => notes.push("`current` is not a link".to_owned()),
        Current::Elsewhere { target, dangling: true } => notes.push(format!("`current` leads to `{target}`, which is not there")),
        Current::Elsewhere { target, dangling: false } => notes.push(format!("`current` leads to `{target}`, not a release of ours")),
        Current::Absent => notes.push("nothing deployed yet".to_owned()),
        Current::Release(_) => {}
    }
    notes.extend(facts.unreadable.iter().cloned());
    if let Some(release) = &facts.unresolved {
        notes.push(format!("{release} was activated and neither confirmed nor put back"));
    }
    notes.extend(processes.map(processes::lines).unwrap_or_default());
    let mut differences = Vec::new();
    match drift {
        Some(Ok(found)) if !found.is_empty() => {
            notes.push(format!(
                "{} {} from what was deployed",
                counted(found.len() as u64, "file"),
                if found.len() == 1 { "differs" } else { "differ" }
            ));
            differences.extend(found.iter().take(NAMED).map(|difference| format!("{name}: {}", describe(difference))));
            if found.len() > NAMED {
                differences.push(format!("{name}: and {} more", found.len() - NAMED));
            }
        }
        Some(Err(error)) => notes.push(error.to_string()),
        Some(Ok(_)) | None => {}
    }
    let live = plan::live_id(facts).map(|_| plan::live_name(facts));
    let row = StatusRow {
        hosts: vec![name.to_owned()],
        live,
        release: plan::live_id(facts).map(ToString::to_string),
        since: record.and_then(|record| record.activated),
        by: record.map(|record| record.release.by.clone()),
        health: None,
        notes,
        drift: drift.and_then(|drift| drift.as_ref().ok()).map(|found| found.iter().map(told).collect()),
        processes: processes.map(|found| {
            let word = match found {
                Processes { old, .. } if !old.is_empty() => "old",
                found if processes::is_unknown(found) => "unknown",
                Processes { .. } => "current",
            };
            word.to_owned()
        }),
    };
    (row, differences)
}

fn told(difference: &Difference) -> Drift {
    let kind = match difference.kind {
        DifferenceKind::Missing => "missing",
        DifferenceKind::Modified => "modified",
        DifferenceKind::Mode => "mode",
        DifferenceKind::LinkTarget => "link-target",
        DifferenceKind::Type => "type",
        DifferenceKind::Extra => "added",
    };
    Drift { path: Shown(&difference.path).to_string(), kind }
}

fn describe(difference: &Difference) -> String {
    let kind = match difference.kind {
        DifferenceKind::Missing => "is missing",
        DifferenceKind::Modified => "was modified",
        DifferenceKind::Mode => "has another mode",
        DifferenceKind::LinkTarget => "leads elsewhere",
        DifferenceKind::Type => "is of another type",
        DifferenceKind::Extra => "was added",
    };
    format!("{} {kind}", Shown(&difference.path))
}

/// Hosts that serve something else than most do: how to bring them along.
fn next(scene: &Scene, rows: &[StatusRow]) -> Vec<(String, String)> {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for live in rows.iter().filter_map(|row| row.live.as_deref()) {
        *counts.entry(live).or_default() += 1;
    }
    let Some((most, count)) = counts.iter().max_by_key(|(_, count)| **count) else { return Vec::new() };
    if *count == rows.len() || *count * 2 <= rows.len() {
        return Vec::new();
    }
    let others: Vec<String> =
        rows.iter().filter(|row| row.live.as_deref().is_some_and(|live| live != *most)).flat_map(|row| row.hosts.clone()).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let command = format!("{} --rev {most} -H {}", scene.environment.typed("deploy"), others.join(","));
    vec![(format!("Bring the others to {most}"), command)]
}
