//! `prune`: remove what retention does not keep, or one release by name.

use std::collections::BTreeMap;

use crate::cli::{self, Common};
use crate::command::confirm::confirm;
use crate::command::failure::{self, HostFailure};
use crate::command::interrupt::Interrupt;
use crate::command::locks::{self, Attempt};
use crate::command::outcome;
use crate::command::scene::{self, Ended, Scene};
use crate::error::Error;
use crate::event::{Events, Step};
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet::{self, Done, Tally, each};
use crate::host::Host;
use crate::op::{Answer, Code, Op};
use crate::release::ReleaseId;

/// Runs the verb.
pub async fn prune(common: &Common, args: &cli::Prune) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let only = args.release.as_deref().map(str::parse).transpose().map_err(|error: crate::release::ReleaseIdError| {
        Error::new(Exit::Usage, "release-id", error.to_string()).hint(scene.environment.typed("releases"))
    })?;
    if only.is_some() {
        // Removing a named release cannot be undone.
        confirm(common, args.confirm.as_deref(), &scene.environment.name, "remove this release from its hosts")?;
    }
    let (events, reporter) = scene.start(common, "prune");
    let interrupt = Interrupt::of(&scene, "Stopping. (^C again leaves at once)", &events, &reporter);
    // A host removes whole releases: one whose session ends has the others still.
    let ended = match interrupt.until(run(&scene, only, &events)).await {
        Ok(ended) => ended,
        Err(exit) => scene.interrupted(exit, "what hosts serve did not change; the same command does the rest", BTreeMap::new()),
    };
    Ok(scene::finish(&scene, events, reporter, ended))
}

async fn run(scene: &Scene, only: Option<ReleaseId>, events: &Events) -> Ended {
    let connected = fleet::connect(&scene.environment, events).await;
    let ended = if connected.unreachable.is_empty() {
        under_lock(scene, &connected.hosts, only, events).await
    } else {
        Ended::by(outcome::unreachable(&connected, "nothing was removed".to_owned()))
    };
    fleet::close(&connected.hosts).await;
    ended
}

async fn under_lock(scene: &Scene, hosts: &[Host], only: Option<ReleaseId>, events: &Events) -> Ended {
    if let Attempt::Refused(error) = locks::take(scene, hosts, "pruning").await {
        return Ended::by(error.state("nothing was removed"));
    }
    let keep = scene.environment.keep_releases;
    let tally = Tally::new(events, hosts.len());
    let results = each(hosts, usize::MAX >> 4, |host| {
        tally.step(host.name(), Step::Prune, host.ask(Op::Prune { keep, only: only.clone() }), |result| Done {
            detail: Some(outcome::pruned(result)),
            ..Done::default()
        })
    })
    .await;
    fleet::refresh(hosts).await;
    locks::unlock(hosts).await;
    let (mut removed_in_all, mut failures) = (0, Vec::new());
    for (host, result) in hosts.iter().zip(results) {
        match result {
            Ok(Answer::Pruned { removed, .. }) => removed_in_all += removed.len(),
            Ok(_) => {}
            Err(error) => failures.push(failure::host(host.name(), Step::Prune, &error)),
        }
    }
    let live = fleet::live(hosts);
    if failures.is_empty() {
        let place = format!("{} of {}", counted(hosts.len() as u64, "host"), scene.environment.name);
        let summary = match removed_in_all {
            0 => format!("Nothing to remove from {place}"),
            more => format!("Removed {} from {place}", counted(more as u64, "release")),
        };
        return Ended { exit: Exit::Ok, error: None, live, ok: hosts.len(), failed: 0, summary, next: Vec::new() };
    }
    let state = outcome::serving(&scene.environment.name, "still runs", &live);
    // What a host refuses is policy; a lost connection or a broken disk is not.
    let is_refused = |failure: &HostFailure| failure.code.is_some_and(|code| matches!(code, Code::Refused | Code::NotFound));
    let exit = if failures.iter().all(is_refused) { Exit::Refused } else { Exit::BuildFailed };
    let error = outcome::explain(exit, &failures, hosts.len(), state);
    let (ok, failed) = (hosts.len() - failures.len(), failures.len());
    Ended { exit: error.exit, error: Some(error), live, ok, failed, summary: String::new(), next: Vec::new() }
}
