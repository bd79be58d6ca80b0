//! `doctor --adopt`: takes over what Capistrano, Deployer (PHP) or a person deployed, where it is. What would be done is told first; only
//! `--yes`, or a yes at the terminal, does it.

use std::io::IsTerminal as _;

use crate::cli::Common;
use crate::command::failure::{self, HostFailure};
use crate::command::locks::{self, Attempt};
use crate::command::outcome;
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::config::ranges;
use crate::error::Error;
use crate::event::{Events, Step};
use crate::exit::Exit;
use crate::fleet::{self, Connected, each};
use crate::host::{Host, HostError};
use crate::op::{self, Adopted, Answer, Op};
use crate::report::escape;
use crate::session::ask;

/// Runs the verb.
pub async fn adopt(common: &Common) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let (events, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(&scene.environment, &events).await;
    let result = with_hosts(common, &scene, &connected).await;
    fleet::close(&connected.hosts).await;
    result
}

async fn with_hosts(common: &Common, scene: &Scene, connected: &Connected) -> Result<Exit, Error> {
    let (environment, hosts) = (&scene.environment.name, &connected.hosts);
    if !connected.unreachable.is_empty() {
        return Err(outcome::unreachable(connected, "nothing was changed".to_owned()));
    }
    let told = all(scene, hosts, true).await?;
    let is_needed = told.iter().any(|adopted| !adopted.done.is_empty());
    // Where it is done without a question, it is told when it is done.
    let is_unasked = common.yes && is_needed;
    if !common.json && !is_unasked {
        print(&text(hosts, &told, environment, "would "));
    }
    if !is_needed || !agreed(common, environment)? {
        if common.json {
            print(&document(environment, hosts, &told, false));
        } else if is_needed {
            print(&format!("nothing was changed; to do it: deployer doctor -e {environment} --adopt --yes\n"));
        } else {
            print("there is nothing to take over\n");
        }
        return Ok(Exit::Ok);
    }
    if let Attempt::Refused(error) = locks::take(scene, hosts, "taking over what is there").await {
        return Err(error.state("nothing was changed"));
    }
    let done = all(scene, hosts, false).await;
    locks::unlock(hosts).await;
    let done = done?;
    if common.json {
        return Ok(print(&document(environment, hosts, &done, true)));
    }
    if common.yes {
        print(&text(hosts, &done, environment, "done: "));
    }
    Ok(print(&format!("taken over; nothing was moved and nothing restarted\n  next  deployer plan -e {environment}\n")))
}

async fn all(scene: &Scene, hosts: &[Host], check: bool) -> Result<Vec<Adopted>, Error> {
    let op = op::Adopt {
        project: scene.environment.project.clone(),
        environment: scene.environment.name.clone(),
        run: scene.run.clone(),
        by: scene.actor.clone(),
        check,
    };
    let results = each(hosts, usize::MAX >> 4, |host| async {
        match host.ask(Op::Adopt(op.clone())).await? {
            Answer::Adopted(adopted) => Ok(adopted),
            other => Err(HostError::unexpected(host.name(), &other)),
        }
    })
    .await;
    let failures: Vec<HostFailure> = hosts
        .iter()
        .zip(&results)
        .filter_map(|(host, result)| result.as_ref().err().map(|error| failure::host(host.name(), Step::Setup, error)))
        .collect();
    if failures.is_empty() {
        return Ok(results.into_iter().filter_map(Result::ok).collect());
    }
    let state = if check { "nothing was changed" } else { "nothing was moved; the same command does the rest" };
    Err(outcome::explain(Exit::Refused, &failures, hosts.len(), state.to_owned()))
}

/// Only a yes is one. Where nobody can be asked, it was asked what would be done.
fn agreed(common: &Common, environment: &str) -> Result<bool, Error> {
    if common.yes {
        return Ok(true);
    }
    if common.no_input || common.json || !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    ask::confirm(&format!("take this over for {environment}?"))
        .map_err(|error| Error::new(Exit::Usage, "no-input", "nobody answered").hint("add `--yes`").caused_by(error))
}

/// Hosts with the same to do share their lines.
fn text(hosts: &[Host], told: &[Adopted], environment: &str, lead: &str) -> String {
    let mut groups: Vec<(Vec<String>, &Adopted)> = Vec::new();
    for (host, adopted) in hosts.iter().zip(told) {
        match groups.iter_mut().find(|(_, other)| *other == adopted) {
            Some((names, _)) => names.push(host.name().to_owned()),
            None => groups.push((vec![host.name().to_owned()], adopted)),
        }
    }
    let mut text = format!("{environment}: what another tool deployed\n");
    for (names, adopted) in groups {
        let lines =
            adopted.done.iter().map(|line| format!("{lead}{line}")).chain(adopted.left.iter().map(|line| format!("leaves it: {line}")));
        let place = ranges::fold(&names);
        for line in lines {
            text += &format!("  {place} | {}\n", escape(&line));
        }
    }
    text
}

fn document(environment: &str, hosts: &[Host], told: &[Adopted], adopted: bool) -> String {
    let rows = hosts.iter().zip(told).map(|(host, told)| serde_json::json!({ "host": host.name(), "done": told.done, "left": told.left }));
    format!("{}\n", serde_json::json!({ "env": environment, "adopted": adopted, "hosts": rows.collect::<Vec<_>>() }))
}
