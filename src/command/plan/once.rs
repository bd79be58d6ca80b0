//! What would stop a release that is built once: a builder that cannot build, and hosts on which what it builds would not run.

use super::{lacking_paths, occupied};
use crate::command::builder::{self, Giver, root_of};
use crate::command::cache;
use crate::command::failure::HostFailure;
use crate::command::material::Material;
use crate::command::scene::Scene;
use crate::config::environment::{Build, Target};
use crate::error::Error;
use crate::event::Events;
use crate::host::Host;
use crate::plan::{Action, HostPlan};
use crate::report::plan::Blocker;

/// Compares the builder with the hosts that would get what it builds, as a deploy does. Nothing is changed.
pub(super) async fn blockers(scene: &Scene, local: &Material, hosts: &[Host], plans: &[HostPlan], force: bool) -> Vec<Blocker> {
    let environment = &scene.environment;
    // A host that the plan stops is told of already, and gets nothing.
    let (hosts, plans): (Vec<Host>, Vec<HostPlan>) =
        hosts.iter().zip(plans).filter(|(_, plan)| plan.blockers.is_empty()).map(|(host, plan)| (host.clone(), plan.clone())).unzip();
    let made: Vec<&Host> = hosts.iter().zip(&plans).filter(|(_, plan)| plan.action == Action::Make).map(|(host, _)| host).collect();
    let build = made.first().and_then(|host| environment.of(host.target()).build.as_ref());
    if let Some(promoted) = &local.promoted {
        let mut blockers = unlike(scene, (&promoted.host, &promoted.root), &made, promoted.build.as_ref()).await;
        blockers.extend(builder::dangling(&promoted.capture, &made).await.into_iter().map(as_blocker));
        return blockers;
    }
    match builder::giver(environment, &hosts, &plans) {
        Ok(None) => Vec::new(),
        Ok(Some(Giver::Ready(host, _) | Giver::Member(host))) => from_member(scene, host, &made, build).await,
        Ok(Some(Giver::Apart(target))) => from_apart(scene, local, &target, (&hosts, &made), (build, force)).await,
        Err(differ) => vec![blocker(Vec::new(), &differ.explain())],
    }
}

async fn from_member(scene: &Scene, source: &Host, made: &[&Host], build: Option<&Build>) -> Vec<Blocker> {
    let others: Vec<&Host> = made.iter().copied().filter(|host| host.name() != source.name()).collect();
    let root = root_of(&scene.environment, source.target()).to_string();
    unlike(scene, (source, &root), &others, build).await
}

/// Looks at a builder that is no host of this environment.
async fn from_apart(
    scene: &Scene,
    local: &Material,
    target: &Target,
    (hosts, made): (&[Host], &[&Host]),
    (build, force): (Option<&Build>, bool),
) -> Vec<Blocker> {
    let environment = &scene.environment;
    let root = root_of(environment, target);
    let builder = match Host::connect(target, root, &environment.connect).await {
        Ok(builder) => builder,
        Err(error) => {
            let (what, fix) = (format!("unreachable, and it is to build: {error}"), error.hint().into_iter().next());
            return vec![Blocker { hosts: vec![target.name.clone()], what, fix }];
        }
    };
    let blockers = match builder::twin(&builder, hosts) {
        Some(member) => from_member(scene, member, made, build).await,
        None => match builder::plan_apart(environment, &builder, local, force) {
            Err(error) => vec![blocker(vec![target.name.clone()], &error)],
            Ok(plan) => {
                let mut blockers = occupied(environment, &builder);
                if plan.action == Action::Make {
                    blockers.extend(unprepared(scene, local, &builder).await);
                }
                blockers.extend(unlike(scene, (&builder, root.as_str()), made, build).await);
                blockers
            }
        },
    };
    builder.close().await;
    blockers
}

/// What the build would not find on the builder.
async fn unprepared(scene: &Scene, local: &Material, builder: &Host) -> Vec<Blocker> {
    let one = std::slice::from_ref(builder);
    // A plan is a result, not a run: nobody reads its events.
    let (events, _) = Events::new(std::time::Instant::now());
    let mut blockers = lacking_paths(&scene.environment, one).await;
    if let Some(caches) = cache::survey(scene, local, one, &events).await {
        blockers.extend(caches.blockers(&scene.environment));
    }
    blockers
}

async fn unlike(scene: &Scene, source: (&Host, &str), makers: &[&Host], build: Option<&Build>) -> Vec<Blocker> {
    let found = builder::unlike(&scene.environment, source, makers, build).await;
    found.into_iter().map(as_blocker).collect()
}

fn as_blocker(HostFailure { host, message, hint, .. }: HostFailure) -> Blocker {
    Blocker { hosts: vec![host], what: message, fix: hint }
}

fn blocker(hosts: Vec<String>, error: &Error) -> Blocker {
    Blocker { hosts, what: error.what.clone(), fix: error.hints.first().cloned() }
}
