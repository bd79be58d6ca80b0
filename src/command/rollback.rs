//! `rollback`: every host back to one older, confirmed release; a new event in the history.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cli::{self, Common};
use crate::command::activation;
use crate::command::deploy;
use crate::command::failure;
use crate::command::failure::HostFailure;
use crate::command::interrupt::Interrupt;
use crate::command::locks;
use crate::command::outcome;
use crate::command::scene::{self, Ended, Scene};
use crate::error::Error;
use crate::event::{Event, Events, Step};
use crate::exit::Exit;
use crate::figures;
use crate::fleet::{self, Done, Tally, each};
use crate::host::Host;
use crate::op::Facts;
use crate::plan::{self, Return};
use crate::stage::remote::{self, Recipe, RemoteError};

/// Runs the verb.
pub async fn rollback(common: &Common, args: &cli::Rollback) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    deploy::consent(common, &scene.environment, "Roll back", None)?;
    let (events, reporter) = scene.start(common, "rollback");
    let interrupt = Interrupt::listen("Stopping; hosts that are switching are finished first. (^C again leaves at once)");
    let ended = run(&scene, args, &interrupt, &events).await;
    Ok(scene::finish(&scene, events, reporter, ended))
}

async fn run(scene: &Scene, args: &cli::Rollback, interrupt: &Interrupt, events: &Events) -> Ended {
    let environment = &scene.environment.name;
    let connected = match interrupt.until(fleet::connect(&scene.environment, events)).await {
        Ok(connected) => connected,
        Err(exit) => return scene.interrupted(exit, "no host was changed", BTreeMap::new()),
    };
    let hosts = &connected.hosts;
    let still = || outcome::serving(environment, "still runs", &fleet::live(hosts));
    let again = format!("deployer rollback -e {environment}");
    let lock = locks::take_waiting(scene, hosts, "rolling back", args.wait_lock, &again, events);
    let ended = if connected.unreachable.is_empty() {
        match interrupt.until(lock).await {
            Ok(Ok(_)) => {
                // Under the lock nobody else changes what is read here.
                fleet::refresh(hosts).await;
                under_lock(scene, args, hosts, interrupt, events).await
            }
            Ok(Err(error)) => Err(error.state(still())),
            Err(exit) => Ok(scene.interrupted(exit, still(), fleet::live(hosts))),
        }
    } else {
        let names: Vec<String> = connected.unreachable.iter().map(|(target, _)| format!("!{}", target.name)).collect();
        let without = format!("without: deployer rollback -e {environment} -H '{}'", names.join(","));
        Err(outcome::unreachable(&connected, still()).hint(without))
    };
    locks::unlock(hosts).await;
    fleet::close(hosts).await;
    ended.unwrap_or_else(|error| Ended::by(error, scene.environment.targets.len()))
}

async fn under_lock(scene: &Scene, args: &cli::Rollback, hosts: &[Host], interrupt: &Interrupt, events: &Events) -> Result<Ended, Error> {
    let environment = &scene.environment.name;
    let facts: Vec<Arc<Facts>> = hosts.iter().map(Host::facts).collect();
    let named: Vec<(&str, &Facts)> = hosts.iter().map(Host::name).zip(facts.iter().map(|facts| &**facts)).collect();
    let before = fleet::live(hosts);
    let returns = plan::select_rollback(&named, args.to.as_deref()).map_err(|error| {
        Error::new(Exit::Config, "no-target", error.to_string())
            .state(outcome::serving(environment, "still runs", &before))
            .hint(format!("see what there is: deployer releases -e {environment}"))
            .hint(format!("choose one: deployer rollback -e {environment} --to ID"))
    })?;
    let moving: Vec<(&Host, &Return)> = hosts.iter().zip(&returns).filter(|(_, target)| target.to.is_some()).collect();
    if let Some(exit) = interrupt.asked() {
        return Ok(scene.interrupted(exit, outcome::serving(environment, "still runs", &before), before));
    }
    let told = moving.first().map(|(_, target)| *target).or_else(|| returns.first());
    let label = told.map(|target| match (&target.commit, &target.to) {
        (Some(commit), _) => plan::short(commit).to_owned(),
        (None, Some(id)) => id.to_string(),
        (None, None) => "the same release".to_owned(),
    });
    let label = label.unwrap_or_default();
    if moving.is_empty() {
        let summary =
            format!("{environment} is at {label} on {}/{}; nothing to do.", hosts.len(), figures::counted(hosts.len() as u64, "host"));
        return Ok(Ended { exit: Exit::Ok, error: None, live: before, ok: hosts.len(), failed: 0, summary, next: Vec::new() });
    }
    let release = moving.first().and_then(|(_, target)| target.to.as_ref()).map(ToString::to_string).unwrap_or_default();
    let forward = moving.first().and_then(|(_, target)| target.from.as_ref()).map(ToString::to_string);
    events.emit(Event::Changes { from: before, to: label.clone(), commits: None, files: None, release });
    let tally = Tally::new(events, moving.len());
    let results = each(&moving, usize::MAX >> 4, |(host, target)| activate(scene, host, target, &label, &tally, events)).await;
    let (mut failures, mut switched) = (Vec::new(), Vec::new());
    for ((host, target), result) in moving.iter().zip(results) {
        match result {
            Ok(()) => switched.push((*host, *target)),
            Err((failure, is_switched)) => {
                failures.push(failure);
                if is_switched {
                    switched.push((*host, *target));
                }
            }
        }
    }
    if !failures.is_empty() {
        return Ok(put_back(scene, &switched, hosts, failures, events).await);
    }
    // Nothing is confirmed before all hosts are well: what is not confirmed knows by itself what to put back.
    let confirmed = each(&moving, usize::MAX >> 4, |(host, target)| confirm(host, target)).await;
    failures.extend(confirmed.into_iter().filter_map(Result::err));
    fleet::refresh(hosts).await;
    if !failures.is_empty() {
        let live = activation::live(hosts, &failures);
        let state = outcome::serving(environment, "runs", &live);
        let error = outcome::explain(Exit::Partial, &failures, hosts.len(), state.clone());
        let (ok, failed) = (moving.len() - failures.len(), failures.len());
        let summary = format!("Rolled back, and not confirmed everywhere: {state}.");
        return Ok(Ended { exit: Exit::Partial, error: Some(error), live, ok, failed, summary, next: Vec::new() });
    }
    let count = moving.len();
    let (count, took) = (figures::counted(count as u64, "host"), figures::duration(scene.seconds()));
    let summary = format!("Rolled back {environment} to {label}: {count} in {took}");
    let next = forward.map(|id| ("forward again".to_owned(), format!("deployer rollback -e {environment} --to {id}")));
    Ok(Ended {
        exit: Exit::Ok,
        error: None,
        live: fleet::live(hosts),
        ok: hosts.len(),
        failed: 0,
        summary,
        next: next.into_iter().collect(),
    })
}

async fn activate(
    scene: &Scene,
    host: &Host,
    target: &Return,
    label: &str,
    tally: &Tally<'_>,
    events: &Events,
) -> Result<(), (HostFailure, bool)> {
    let Some(release) = &target.to else { return Ok(()) };
    let rev = target.commit.as_deref().unwrap_or(label);
    let values = scene::values(&scene.environment, host, release.as_str(), rev, label);
    let recipe = Recipe { environment: &scene.environment, release, values: &values, durable: true };
    let work = remote::activate(host, &recipe, target.from.as_ref(), true, events);
    let activated = tally
        .step(host.name(), Step::Activate, work, |result| Done {
            detail: Some(match result {
                Ok(_) => format!("current → {release}"),
                Err(error) => error.to_string(),
            }),
            ..Done::default()
        })
        .await;
    match activated {
        Ok(_) => Ok(()),
        Err(error) => {
            let is_switched = activation::is_switched(host, release, &error).await;
            let step = if matches!(error, RemoteError::Check { .. }) { Step::Check } else { Step::Activate };
            Err((failure::remote(host.name(), step, &error), is_switched))
        }
    }
}

async fn confirm(host: &Host, target: &Return) -> Result<(), HostFailure> {
    let Some(release) = &target.to else { return Ok(()) };
    remote::confirm(host, release).await.map_err(|error| failure::remote(host.name(), Step::Confirm, &error))
}

/// A rollback that fails leaves every host where it was before it.
async fn put_back(scene: &Scene, switched: &[(&Host, &Return)], hosts: &[Host], mut failures: Vec<HostFailure>, events: &Events) -> Ended {
    let tally = Tally::new(events, switched.len());
    let tally = &tally;
    let results: Vec<Result<(), RemoteError>> = each(switched, usize::MAX >> 4, |(host, target)| async move {
        let Some(release) = &target.to else { return Ok(()) };
        // It held once: that a return to it failed somewhere is nothing against it.
        tally_revert(tally, host, remote::revert(host, release, "the rollback failed", false, events)).await
    })
    .await;
    let mut whole = !failures.iter().any(HostFailure::is_unknown);
    for ((host, _), result) in switched.iter().zip(results) {
        if let Err(error) = result {
            whole = false;
            failures.push(failure::remote(host.name(), Step::Revert, &error));
        }
    }
    fleet::refresh(hosts).await;
    let live = activation::live(hosts, &failures);
    let state = outcome::serving(&scene.environment.name, "runs", &live);
    let exit = if whole { Exit::RolledBack } else { Exit::Partial };
    let error = outcome::explain(exit, &failures, hosts.len(), state.clone());
    Ended {
        exit,
        error: Some(error),
        live,
        ok: 0,
        failed: failures.len(),
        summary: format!("The rollback failed. {state}."),
        next: Vec::new(),
    }
}

async fn tally_revert<T>(tally: &Tally<'_>, host: &Host, work: impl Future<Output = Result<T, RemoteError>>) -> Result<(), RemoteError> {
    tally.step(host.name(), Step::Revert, work, |result| Done { detail: result.err().map(ToString::to_string), ..Done::default() }).await?;
    Ok(())
}
