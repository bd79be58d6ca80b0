//! `cache push`: sends hosts what their caches lack of what a revision needs.

use std::collections::BTreeMap;

use super::{Stock, Subject, known_set, overrides, rev_flag};
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
use crate::host::Host;

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
    let subjects = Subject::settle_all(scene, args.rev.as_deref(), events).await?;
    let environment = &scene.environment;
    let connected = fleet::connect(environment, events).await;
    let all = environment.targets.len();
    if connected.hosts.is_empty() || (!connected.unreachable.is_empty() && environment.on_unreachable == OnUnreachable::Fail) {
        fleet::close(&connected.hosts).await;
        return Ok(Ended::by(outcome::unreachable(&connected, "nothing was sent".to_owned())));
    }
    let sent = send(&subjects, &connected.hosts, events).await;
    fleet::close(&connected.hosts).await;
    let (mut failures, files) = sent?;
    let hosts = &connected.hosts;
    let live = fleet::live(hosts);
    let ok = hosts.len() - failures.len();
    failures.extend(connected.unreachable.iter().map(|(target, error)| failure::unreachable(&target.name, error)));
    let failed = failures.len();
    if ok < hosts.len() {
        let state = format!("what hosts serve did not change; {} complete", counted(ok as u64, "cache"));
        let error = outcome::explain(Exit::BuildFailed, &failures, all, state);
        return Ok(Ended { live, ok, failed, ..Ended::by(error) });
    }
    let label = subjects.first().map(|subject| subject.local.label()).unwrap_or_default();
    let each = match files.as_slice() {
        [one] => format!("{} each", counted(*one, "file")),
        several => several.iter().map(|count| counted(*count, "file")).collect::<Vec<_>>().join(" and "),
    };
    let summary = format!("{} complete for {label}: {each}", counted(ok as u64, "cache"));
    let next = vec![("deploy".to_owned(), scene.typed("deploy", &rev_flag(environment)))];
    Ok(Ended { exit: Exit::Ok, error: None, live, ok, failed, summary, next })
}

/// Completes the caches of all hosts, each with what its way of building needs. Gives how many files those are, way by way.
async fn send(subjects: &[Subject<'_>], hosts: &[Host], events: &Events) -> Result<(Vec<HostFailure>, Vec<u64>), Error> {
    let mut known = Vec::new();
    for subject in subjects {
        let own: Vec<Host> = hosts.iter().filter(|host| subject.is_of(host.target())).cloned().collect();
        let shelf = subject.shelf();
        let set = known_set(subject.environment, &subject.local.artifact, &shelf, &own).await.ok_or_else(|| subject.unknown(&own))?;
        known.push((subject, own, shelf, set));
    }
    let tally = Tally::new(events, hosts.len());
    let mut failures = Vec::new();
    for (subject, own, shelf, set) in &known {
        let spool = &subject.scene.directories.cache;
        let stock = Stock { environment: subject.environment, cache: subject.cache()?, set, shelf, spool, events };
        failures.extend(stock.complete(own, &tally).await.into_iter().filter_map(Result::err));
    }
    Ok((failures, known.iter().map(|(.., set)| set.files.totals().0).collect()))
}
