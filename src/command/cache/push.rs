//! `cache push`: sends hosts what their caches lack of what a revision needs.

use std::collections::BTreeMap;

use super::{Stock, Subject, known_set, overrides};
use crate::cli::{self, Common};
use crate::command::failure::{self, HostFailure};
use crate::command::interrupt::Interrupt;
use crate::command::outcome;
use crate::command::scene::{self, Ended, Scene};
use crate::config::environment::OnUnreachable;
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet::{self, Tally};

/// Runs the verb.
pub async fn push(common: &Common, args: &cli::CacheWhat) -> Result<Exit, Error> {
    let scene = Scene::set(common, &overrides(common, args.rev.as_deref())).await?;
    let (events, reporter) = scene.start(common, "cache push");
    let interrupt = Interrupt::of(&scene, "Stopping; what was sent stays. (^C again leaves at once)", &events, &reporter);
    let ended = match interrupt.until(run(&scene, args, &events)).await {
        Ok(ended) => ended.unwrap_or_else(Ended::by),
        Err(exit) => scene.interrupted(exit, "every file that was sent is whole; the same command does the rest", BTreeMap::new()),
    };
    Ok(scene::finish(&scene, events, reporter, ended))
}

async fn run(scene: &Scene, args: &cli::CacheWhat, events: &Events) -> Result<Ended, Error> {
    let subject = Subject::settle(scene, args.rev.as_deref(), events).await?;
    let environment = &scene.environment;
    let connected = fleet::connect(environment, events).await;
    let all = environment.targets.len();
    if connected.hosts.is_empty() || (!connected.unreachable.is_empty() && environment.on_unreachable == OnUnreachable::Fail) {
        fleet::close(&connected.hosts).await;
        return Ok(Ended::by(outcome::unreachable(&connected, "nothing was sent".to_owned())));
    }
    let hosts = &connected.hosts;
    let shelf = subject.shelf();
    let Some(set) = known_set(subject.environment, &subject.local.artifact, &shelf, hosts).await else {
        fleet::close(hosts).await;
        return Err(subject.unknown());
    };
    let spool = &scene.directories.cache;
    let stock = Stock { environment: subject.environment, cache: subject.cache()?, set: &set, shelf: &shelf, spool, events };
    let tally = Tally::new(events, hosts.len());
    let stocked = stock.complete(hosts, &tally).await;
    fleet::close(hosts).await;
    let mut failures: Vec<HostFailure> = stocked.into_iter().filter_map(Result::err).collect();
    let live = fleet::live(hosts);
    let ok = hosts.len() - failures.len();
    failures.extend(connected.unreachable.iter().map(|(target, error)| failure::unreachable(&target.name, error)));
    let failed = failures.len();
    if ok < hosts.len() {
        let state = format!("what hosts serve did not change; {} complete", counted(ok as u64, "cache"));
        let error = outcome::explain(Exit::BuildFailed, &failures, all, state);
        return Ok(Ended { live, ok, failed, ..Ended::by(error) });
    }
    let (files, _) = set.files.totals();
    let summary = format!("{} complete for {}: {} each", counted(ok as u64, "cache"), subject.local.label(), counted(files, "file"));
    let next = vec![("deploy".to_owned(), format!("deployer deploy -e {}", environment.name))];
    Ok(Ended { exit: Exit::Ok, error: None, live, ok, failed, summary, next })
}
