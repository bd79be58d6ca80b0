//! `rollback`: every host back to one older, confirmed release; a new event in the history. Hosts that have it no more get it again
//! before any host is switched.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cli::{self, Common, What};
use crate::command::activation::{self, Back, NotActivated, Switch};
use crate::command::deploy;
use crate::command::failure::{self, HostFailure};
use crate::command::interrupt::Interrupt;
use crate::command::locks;
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::scene::{self, Ended, Scene};
use crate::config::environment::OnUnreachable;
use crate::config::ranges;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::exit::Exit;
use crate::figures;
use crate::fleet::{self, Connected, Tally, each};
use crate::host::Host;
use crate::op::{Answer, Facts, Op, PathKind};
use crate::plan::{self, Goal, Return, RollbackError, Way};
use crate::release::{ReleaseId, layout};
use crate::report::RunStore;

mod question;

use question::Agreed;

const STOPPING: &str = "Stopping; hosts that are switching are finished first. (^C again leaves at once)";

/// Runs the verb.
pub async fn rollback(common: &Common, args: &cli::Rollback) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    // Whoever can be asked is asked once it is known what for.
    let asks = question::is_due(common);
    if !asks {
        deploy::consent(common, &scene.environment, "Roll back", None)?;
    }
    let (events, reporter) = scene.start(common, "rollback");
    let interrupt = Interrupt::of(&scene, STOPPING, &events, &reporter);
    let ended = run(&scene, args, asks, &interrupt, &events).await;
    Ok(scene::finish(&scene, events, reporter, ended))
}

async fn run(scene: &Scene, args: &cli::Rollback, asks: bool, interrupt: &Interrupt, events: &Events) -> Ended {
    let environment = &scene.environment.name;
    let connected = match interrupt.until(fleet::connect(&scene.environment, events)).await {
        Ok(connected) => connected,
        Err(exit) => return scene.interrupted(exit, "no host was changed", BTreeMap::new()),
    };
    let hosts = &connected.hosts;
    let still = || outcome::serving(environment, "still runs", &fleet::live(hosts));
    let again = scene.typed("rollback", &to(args));
    let agree_and_lock = async {
        let agreed = if asks { Some(question::ask(scene, hosts, args.to.as_deref()).await?) } else { None };
        locks::take_waiting(scene, hosts, "rolling back", args.wait_lock, &again, events).await?;
        Ok::<_, Error>(agreed)
    };
    let goes_on = connected.unreachable.is_empty() || (scene.environment.on_unreachable == OnUnreachable::Skip && !hosts.is_empty());
    let ended = if goes_on {
        match interrupt.until(agree_and_lock).await {
            Ok(Ok(agreed)) => {
                // Under the lock nobody else changes what is read here.
                fleet::refresh(hosts).await;
                under_lock(scene, args, (hosts, agreed), interrupt, events).await
            }
            Ok(Err(error)) => Err(error.state(still())),
            Err(exit) => Ok(scene.interrupted(exit, still(), fleet::live(hosts))),
        }
    } else {
        let without = format!("without: {}", scene.typed_without("rollback", &to(args), &names(&connected)));
        Err(outcome::unreachable(&connected, still()).hint(without))
    };
    locks::unlock(hosts).await;
    fleet::close(hosts).await;
    let ended = ended.unwrap_or_else(Ended::by);
    if goes_on && ended.exit == Exit::Ok && !connected.unreachable.is_empty() { in_part(scene, &connected, ended) } else { ended }
}

/// What was done without the hosts that did not answer is done in part.
fn in_part(scene: &Scene, connected: &Connected, ended: Ended) -> Ended {
    let environment = &scene.environment.name;
    let failures: Vec<HostFailure> =
        connected.unreachable.iter().map(|(target, error)| failure::unreachable(&target.name, error)).collect();
    let state = outcome::serving(environment, "runs", &ended.live);
    let error = outcome::explain(Exit::Partial, &failures, scene.environment.targets.len(), state);
    let to = ended.live.keys().next().map(|release| format!(" --to {release}")).unwrap_or_default();
    let mut next = ended.next;
    next.push(("finish".to_owned(), scene.typed_on("rollback", &to, &names(connected))));
    Ended { exit: Exit::Partial, error: Some(error), failed: failures.len(), next, ..ended }
}

fn names(connected: &Connected) -> Vec<&str> {
    connected.unreachable.iter().map(|(target, _)| target.name.as_str()).collect()
}

fn to(args: &cli::Rollback) -> String {
    args.to.as_ref().map(|to| format!(" --to {to}")).unwrap_or_default()
}

/// A host that moves, and where to.
struct Moving<'a> {
    host: &'a Host,
    from: Option<&'a ReleaseId>,
    to: ReleaseId,
}

async fn under_lock(
    scene: &Scene,
    args: &cli::Rollback,
    (hosts, agreed): (&[Host], Option<Agreed>),
    interrupt: &Interrupt,
    events: &Events,
) -> Result<Ended, Error> {
    let environment = &scene.environment.name;
    let facts: Vec<Arc<Facts>> = hosts.iter().map(Host::facts).collect();
    let named: Vec<(&str, &Facts)> = hosts.iter().map(Host::name).zip(facts.iter().map(|facts| &**facts)).collect();
    let before = fleet::live(hosts);
    let still = outcome::serving(environment, "still runs", &before);
    let (mut goal, material) = goal(scene, args, &named, events).await.map_err(|error| error.state(still.clone()))?;
    let mut returns = plan::ways(&named, &goal);
    miss_what_is_gone(scene, hosts, &mut returns).await;
    if let Some(exit) = interrupt.asked() {
        return Ok(scene.interrupted(exit, still, before));
    }
    let label = goal.name();
    if agreed.is_some_and(|agreed| !agreed.still_holds(&before, &label)) {
        let what = "the hosts were deployed to while the question was open: what was agreed to is not what would be done";
        return Err(Error::new(Exit::Refused, "superseded", what)
            .state(still)
            .hint(format!("look, and decide again: {}", scene.typed("rollback", &to(args)))));
    }
    if goal.release.is_none() && material.is_some() {
        goal.release = Some(deploy::release_id(scene, &label, hosts)?);
    }
    if returns.iter().all(|target| target.way == Way::Stay) {
        let summary =
            format!("{environment} is at {label} on {}/{}; nothing to do.", hosts.len(), figures::counted(hosts.len() as u64, "host"));
        return Ok(Ended { exit: Exit::Ok, error: None, live: before, ok: hosts.len(), failed: 0, summary, next: Vec::new() });
    }
    let forward = returns.iter().find(|target| target.way != Way::Stay).and_then(|target| target.from.as_ref()).map(ToString::to_string);
    let id = returns.iter().find_map(|target| match &target.way {
        Way::To(id) => Some(id.to_string()),
        Way::Stay | Way::Make => None,
    });
    let release = id.or_else(|| goal.release.as_ref().map(ToString::to_string)).unwrap_or_default();
    events.emit(Event::Changes { from: before.clone(), to: label.clone(), commits: None, files: None, release });
    let lacking: Vec<&Host> = hosts.iter().zip(&returns).filter(|(_, target)| target.way == Way::Make).map(|(host, _)| host).collect();
    let again = match material {
        _ if lacking.is_empty() => Vec::new(),
        known => {
            let material = match known {
                Some(material) => material,
                None => material_of(scene, &goal, &lacking, events).await.map_err(|error| error.state(still.clone()))?,
            };
            match deploy::make_again(scene, interrupt, events, &goal, &material, &lacking).await? {
                Ok(made) => made,
                Err(exit) => return Ok(scene.interrupted(exit, still, before)),
            }
        }
    };
    let (mut made, mut failures) = (BTreeMap::new(), Vec::new());
    for (host, result) in lacking.iter().zip(again) {
        match result {
            Ok(id) => drop(made.insert(host.name(), id)),
            Err(failure) => failures.push(failure),
        }
    }
    if !failures.is_empty() {
        let error = outcome::explain(Exit::BuildFailed, &failures, hosts.len(), format!("nothing was activated; {still}"));
        let (summary, next) = (format!("Not rolled back. Nothing was activated: {still}."), outcome::look_at(environment, &failures));
        return Ok(Ended { exit: Exit::BuildFailed, error: Some(error), live: before, ok: 0, failed: failures.len(), summary, next });
    }
    let moving = hosts.iter().zip(&returns).filter_map(|(host, target)| {
        let to = match &target.way {
            Way::Stay => return None,
            Way::To(id) => id.clone(),
            Way::Make => made.remove(host.name())?,
        };
        Some(Moving { host, from: target.from.as_ref(), to })
    });
    let moving: Vec<Moving<'_>> = moving.collect();
    Ok(switch(scene, hosts, &moving, &goal, forward, events).await)
}

/// Settles what to return to. What no host has any more may still be known here, by the run that made it or by its commit.
async fn goal(scene: &Scene, args: &cli::Rollback, hosts: &[(&str, &Facts)], events: &Events) -> Result<(Goal, Option<Material>), Error> {
    let refused = match plan::select_rollback(hosts, args.to.as_deref()) {
        Ok(goal) => return Ok((goal, None)),
        Err(refused) => refused,
    };
    let known = match (&refused, args.to.as_deref()) {
        (RollbackError::Missing { .. }, Some(to)) => commit_of(scene, to),
        _ => None,
    };
    let Some(commit) = known else { return Err(no_target(scene, &refused)) };
    let material = Material::prepare(&What { rev: Some(commit), ..What::default() }, scene, events).await?;
    let tree = material.artifact.manifest.tree_digest();
    // Named by its id it comes back under that.
    let release = args.to.as_deref().filter(|to| !is_commit(to)).and_then(|to| to.parse().ok());
    let goal = Goal { tree, commit: material.commit(), reference: Some(material.reference()), release };
    Ok((goal, Some(material)))
}

fn no_target(scene: &Scene, refused: &RollbackError) -> Error {
    Error::new(Exit::Config, "no-target", refused.to_string())
        .hint(format!("see what there is: deployer releases -e {}", scene.environment.name))
        .hint(format!("choose one: {}", scene.typed("rollback", " --to ID")))
}

/// Finds the commit of a release in the runs that are stored here; a commit names itself.
fn commit_of(scene: &Scene, to: &str) -> Option<String> {
    let ours = RunStore::runs(&scene.directories.state)
        .into_iter()
        .filter(|run| run.meta.env == scene.environment.name && run.meta.project == scene.environment.project && !run.meta.rev.is_empty());
    let made = |run: &str| {
        let told = RunStore::read(&scene.directories.state, run).unwrap_or_default();
        told.iter().any(|timed| matches!(&timed.event, Event::Changes { release, .. } if release == to))
    };
    ours.into_iter().find(|run| made(&run.run)).map(|run| run.meta.rev).or_else(|| is_commit(to).then(|| to.to_owned()))
}

fn is_commit(text: &str) -> bool {
    text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Exports what hosts lack, and makes sure that it is what the others have.
async fn material_of(scene: &Scene, goal: &Goal, lacking: &[&Host], events: &Events) -> Result<Material, Error> {
    let names: Vec<&str> = lacking.iter().map(|host| host.name()).collect();
    let without = format!("without: {}", scene.typed_without("rollback", "", &names));
    let gone = format!("`{}` does not have the release `{}` any more", ranges::fold(&names), goal.name());
    let Some(commit) = goal.commit.clone() else {
        let error = Error::new(Exit::Config, "no-target", format!("{gone}, and it was a directory: it cannot be made again"));
        return Err(error.hint(without));
    };
    let what = What { rev: Some(commit.clone()), expect: Some(commit), ..What::default() };
    let material = Material::prepare(&what, scene, events).await.map_err(|error| error.evidence([gone.clone()]).hint(without.clone()))?;
    if material.artifact.manifest.tree_digest() == goal.tree {
        return Ok(material);
    }
    let why = "and this commit now exports another tree (its `[source]` has changed)";
    Err(Error::new(Exit::Config, "another-tree", format!("{gone}, {why}")).hint(without))
}

/// A release whose record is there and whose directory is not has to be made again.
async fn miss_what_is_gone(scene: &Scene, hosts: &[Host], returns: &mut [Return]) {
    let looks = each(hosts.iter().zip(&*returns), usize::MAX >> 4, |(host, target)| async move {
        let Way::To(id) = &target.way else { return false };
        let root = host.target().root.as_ref().unwrap_or(&scene.environment.root);
        let looked = host.ask(Op::Probe { paths: vec![format!("{root}/{}", layout::release(id))] }).await;
        matches!(looked, Ok(Answer::Probed { paths }) if paths.first().is_some_and(|path| path.kind == PathKind::Missing))
    })
    .await;
    for (target, is_gone) in returns.iter_mut().zip(looks) {
        if is_gone {
            target.way = Way::Make;
        }
    }
}

/// Switches all hosts together, and accepts the release where all are well.
async fn switch(scene: &Scene, hosts: &[Host], moving: &[Moving<'_>], goal: &Goal, forward: Option<String>, events: &Events) -> Ended {
    let environment = &scene.environment.name;
    let label = goal.name();
    let rev = goal.commit.as_deref().unwrap_or(&label);
    let ways: Vec<Switch<'_>> = moving
        .iter()
        .map(|Moving { host, from, to }| Switch {
            host,
            environment: scene.environment.of(host.target()),
            release: to,
            values: scene::values(&scene.environment, host, to.as_str(), rev, &label),
            expect: *from,
            rollback: true,
        })
        .collect();
    let tally = Tally::new(events, moving.len());
    let results = each(&ways, usize::MAX >> 4, |switch| switch.activate(&tally, events)).await;
    let (mut failures, mut switched) = (Vec::new(), Vec::new());
    for (Switch { host, release, .. }, result) in ways.iter().zip(results) {
        // It held once: that a return to it failed somewhere is nothing against it.
        let back = Back { host, release, is_bad: false };
        match result {
            Ok(()) => switched.push(back),
            Err(NotActivated { failure, is_switched }) => {
                failures.push(failure);
                switched.extend(is_switched.then_some(back));
            }
        }
    }
    if !failures.is_empty() {
        return put_back(scene, &switched, hosts, failures, events).await;
    }
    // Nothing is confirmed before all hosts are well: what is not confirmed knows by itself what to put back.
    let confirmed = each(&ways, usize::MAX >> 4, |switch| switch.confirm(&tally)).await;
    failures.extend(confirmed.into_iter().filter_map(Result::err).map(|error| error.failure));
    fleet::refresh(hosts).await;
    let live = activation::live(hosts, &failures);
    if !failures.is_empty() {
        let state = outcome::serving(environment, "runs", &live);
        let error = outcome::explain(Exit::Partial, &failures, hosts.len(), state.clone());
        let (ok, failed) = (moving.len() - failures.len(), failures.len());
        let summary = format!("Rolled back, and not confirmed everywhere: {state}.");
        return Ended { exit: Exit::Partial, error: Some(error), live, ok, failed, summary, next: Vec::new() };
    }
    let (count, took) = (figures::counted(moving.len() as u64, "host"), figures::duration(scene.seconds()));
    let summary = format!("Rolled back {environment} to {label}: {count} in {took}");
    let next = forward.map(|id| ("forward again".to_owned(), scene.typed("rollback", &format!(" --to {id}"))));
    Ended { exit: Exit::Ok, error: None, live, ok: hosts.len(), failed: 0, summary, next: next.into_iter().collect() }
}

/// A rollback that fails leaves every host where it was before it.
async fn put_back(scene: &Scene, switched: &[Back<'_>], hosts: &[Host], mut failures: Vec<HostFailure>, events: &Events) -> Ended {
    let stuck = activation::put_back(switched, "the rollback failed", events).await;
    let whole = stuck.is_empty() && !failures.iter().any(HostFailure::is_unknown);
    failures.extend(stuck);
    fleet::refresh(hosts).await;
    let live = activation::live(hosts, &failures);
    let state = outcome::serving(&scene.environment.name, "runs", &live);
    let exit = match whole {
        true if switched.is_empty() => Exit::BuildFailed,
        true => Exit::RolledBack,
        false => Exit::Partial,
    };
    let error = outcome::explain(exit, &failures, hosts.len(), state.clone());
    let (failed, summary) = (failures.len(), format!("The rollback failed. {state}."));
    let next = outcome::look_at(&scene.environment.as_typed(), &failures);
    Ended { exit, error: Some(error), live, ok: 0, failed, summary, next }
}
