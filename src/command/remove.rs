//! `remove`: takes `.deployer` away from every host. What is served, the releases, `shared` and `revisions.log` stay as they are.

use crate::cli::{self, Common};
use crate::command::confirm::confirm;
use crate::command::failure::{self, HostFailure};
use crate::command::locks::{self, Attempt};
use crate::command::outcome;
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::error::Error;
use crate::event::{Events, Step};
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet::{self, Connected, each};
use crate::host::Host;
use crate::op::{Op, RootState};

/// Runs the verb.
pub async fn remove(common: &Common, args: &cli::Remove) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let hosts = counted(scene.environment.targets.len() as u64, "host");
    let to_do = format!("take `.deployer` away from {hosts}: records, history and what a rollback needs");
    confirm(common, args.confirm.as_deref(), &scene.environment.name, &to_do)?;
    let (events, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(&scene.environment, &events).await;
    let result = with_hosts(common, &scene, &connected).await;
    fleet::close(&connected.hosts).await;
    result
}

async fn with_hosts(common: &Common, scene: &Scene, connected: &Connected) -> Result<Exit, Error> {
    if !connected.unreachable.is_empty() {
        return Err(outcome::unreachable(connected, "nothing was removed".to_owned()));
    }
    // Where nothing was ever set up there is nothing to take away, and taking the lock would make it.
    let there = |host: &&Host| matches!(host.facts().root, RootState::Ready);
    let hosts: Vec<Host> = connected.hosts.iter().filter(there).cloned().collect();
    if let Attempt::Refused(error) = locks::take(scene, &hosts, "taking `.deployer` away").await {
        return Err(error.state("nothing was removed"));
    }
    let results = each(&hosts, usize::MAX >> 4, |host| host.ask(Op::Remove)).await;
    locks::unlock(&hosts).await;
    fleet::refresh(&connected.hosts).await;
    let failures: Vec<HostFailure> = hosts
        .iter()
        .zip(&results)
        .filter_map(|(host, result)| result.as_ref().err().map(|error| failure::host(host.name(), Step::Prune, error)))
        .collect();
    let environment = &scene.environment.name;
    let serving: Vec<String> = connected.hosts.iter().map(|host| host.name().to_owned()).collect();
    if !failures.is_empty() {
        let state = format!("`.deployer` is gone on {} of {}", hosts.len() - failures.len(), counted(hosts.len() as u64, "host"));
        return Err(outcome::explain(Exit::Refused, &failures, hosts.len(), state));
    }
    if common.json {
        let names: Vec<&str> = hosts.iter().map(Host::name).collect();
        return Ok(print(&format!("{}\n", serde_json::json!({ "env": environment, "removed": names }))));
    }
    let untouched = serving.len() - hosts.len();
    let beside = if untouched == 0 { String::new() } else { format!(" ({} had none)", counted(untouched as u64, "host")) };
    Ok(print(&format!(
        "`.deployer` is gone from {} of {environment}{beside}; `current`, `releases`, `shared` and `revisions.log` stay\n  take over again  deployer doctor -e {environment} --adopt\n",
        counted(hosts.len() as u64, "host")
    )))
}
