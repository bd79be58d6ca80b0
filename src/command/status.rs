//! `status`: what is live where, and with `--verify` whether it is still what was deployed.

use std::sync::Arc;

use crate::cli::{self, Common};
use crate::command::locks::lock_id;
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::fleet::{self, Connected, each};
use crate::host::{Host, HostError};
use crate::op::{Answer, Current, Difference, DifferenceKind, Facts, Op};
use crate::plan;
use crate::report::status::{StatusRow, StatusView};
use crate::tree::path::Shown;

/// How many differences of one host are named.
const NAMED: usize = 10;

/// Runs the verb.
pub async fn status(common: &Common, args: &cli::Status) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let (events, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(&scene.environment, &events).await;
    let drift = if args.verify { verify(&connected.hosts).await } else { connected.hosts.iter().map(|_| Ok(Vec::new())).collect() };
    let view = view(&scene, &connected, &drift);
    fleet::close(&connected.hosts).await;
    if common.json {
        let document =
            serde_json::to_string(&view).map_err(|error| Error::new(Exit::Internal, "json", "the status is no JSON").caused_by(error))?;
        print(&format!("{document}\n"));
    } else {
        print(&view.text(scene.now, common.display().stdout()));
    }
    let uniform = view.grouped().len() <= 1 && view.rows.iter().all(|row| row.notes.is_empty());
    if connected.hosts.is_empty() {
        return Ok(Exit::Unreachable);
    }
    Ok(if args.exit_code && !uniform { Exit::Pending } else { Exit::Ok })
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

fn view(scene: &Scene, connected: &Connected, drift: &[Result<Vec<Difference>, HostError>]) -> StatusView {
    let environment = &scene.environment;
    let mut rows = Vec::new();
    let mut lock = None;
    let mut notes = Vec::new();
    for target in &environment.targets {
        if let Some((_, error)) = connected.unreachable.iter().find(|(other, _)| other.name == target.name) {
            let note = format!("unreachable: {error}");
            rows.push(StatusRow { hosts: vec![target.name.clone()], live: None, release: None, since: None, by: None, notes: vec![note] });
            continue;
        }
        let Some(index) = connected.hosts.iter().position(|host| host.name() == target.name) else { continue };
        let facts = connected.hosts[index].facts();
        let (row, differences) = row(&target.name, &facts, drift.get(index));
        rows.push(row);
        notes.extend(differences);
        if let Some(holder) = &facts.holder {
            lock.get_or_insert_with(|| format!("locked by {}, {}, id {}", holder.by, holder.what, lock_id(&holder.run)));
        } else if let Some(hold) = &facts.hold {
            lock.get_or_insert_with(|| format!("on hold by {}: {}, id {}", hold.by, hold.reason, hold.id));
        }
    }
    let next = next(scene, &rows);
    StatusView { env: environment.name.clone(), lock, rows, notes, next }
}

fn row(name: &str, facts: &Arc<Facts>, drift: Option<&Result<Vec<Difference>, HostError>>) -> (StatusRow, Vec<String>) {
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
    let mut differences = Vec::new();
    match drift {
        Some(Ok(found)) if !found.is_empty() => {
            notes.push(format!("{} files differ from what was deployed", found.len()));
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
        notes,
    };
    (row, differences)
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
    let command = format!("deployer deploy -e {} --rev {most} -H {}", scene.environment.name, others.join(","));
    vec![("Bring the others up".to_owned(), command)]
}
