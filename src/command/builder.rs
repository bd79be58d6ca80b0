//! Who builds for all hosts where one does, and on which of the others what it builds would not run: one answer for a plan and a deploy.

use crate::command::failure::{self, HostFailure};
use crate::command::material::Material;
use crate::config::Environment;
use crate::config::environment::{Build, BuildOn, HostPath, Target};
use crate::error::Error;
use crate::event::Step;
use crate::exit::Exit;
use crate::fleet::each;
use crate::host::{Host, HostError};
use crate::op::{Answer, Op, PathKind};
use crate::plan::{self, Action, HostPlan};
use crate::recipe;
use crate::release::ReleaseId;
use crate::stage::capture::Capture;
use crate::stage::likeness;

/// Whoever gives the built release to the others.
pub enum Giver<'a> {
    /// One of the hosts has it whole.
    Ready(&'a Host, &'a ReleaseId),
    /// One of the hosts is to build it.
    Member(&'a Host),
    /// A host that takes no other part, or this machine, is to build it.
    Apart(Box<Target>),
}

/// Two hosts that nobody can build for at once.
pub struct BuildsDiffer {
    first: String,
    second: String,
}

impl BuildsDiffer {
    #[must_use]
    pub fn explain(&self) -> Error {
        let Self { first, second } = self;
        let what = format!("one host builds for all, and `{first}` and `{second}` are to be built in different ways");
        Error::new(Exit::Config, "builds-differ", what).hint("write `build.on = \"host\"`, or give the roles the same build")
    }
}

/// The root of a host.
#[must_use]
pub fn root_of<'a>(environment: &'a Environment, target: &'a Target) -> &'a HostPath {
    target.root.as_ref().unwrap_or(&environment.root)
}

/// Says who gives a built release to all hosts; none where each builds for itself, or nothing has to be made.
pub fn giver<'a>(environment: &Environment, hosts: &'a [Host], plans: &'a [HostPlan]) -> Result<Option<Giver<'a>>, BuildsDiffer> {
    let made: Vec<&Host> = hosts.iter().zip(plans).filter(|(_, plan)| plan.action == Action::Make).map(|(host, _)| host).collect();
    let way = |host: &Host| environment.of(host.target());
    let on = |host: &Host| way(host).build.as_ref().map_or(&BuildOn::Host, |build| &build.on);
    let Some(first) = made.iter().find(|host| *on(host) != BuildOn::Host) else { return Ok(None) };
    let key = recipe::build_key(way(first));
    let is_alike = |host: &Host| recipe::build_key(way(host)) == key;
    let named = environment.builder_of(first.target());
    let is_named = |host: &Host| named.as_ref().is_some_and(|target| target.name == host.name());
    let of_another_kind = made.iter().copied().chain(hosts.iter().filter(|host| is_named(host))).find(|host| !is_alike(host));
    if let Some(other) = of_another_kind {
        return Err(BuildsDiffer { first: first.name().to_owned(), second: other.name().to_owned() });
    }
    // A release that was built in another way is another one.
    let alike = || hosts.iter().zip(plans).filter(|(host, _)| is_alike(host));
    let may_build = |host: &Host| named.is_none() || is_named(host);
    // What is sealed already is built no second time: the builder's own comes first.
    let has = |(host, plan): (&'a Host, &'a HostPlan)| release_of(plan).map(|release| Giver::Ready(host, release));
    let ready = alike().filter(|(host, _)| may_build(host)).find_map(has).or_else(|| alike().find_map(has));
    let member = || alike().map(|(host, _)| host).find(|host| may_build(host)).map(Giver::Member);
    Ok(ready.or_else(member).or_else(|| named.clone().map(|target| Giver::Apart(Box::new(target)))))
}

/// The wanted release, where a host has it whole.
#[must_use]
pub fn release_of(plan: &HostPlan) -> Option<&ReleaseId> {
    match &plan.action {
        Action::Adopt(release) => Some(release),
        Action::Nothing => plan.live.as_ref(),
        Action::Make => None,
    }
}

/// Finds the host that a builder is by another name.
#[must_use]
pub fn twin<'a>(builder: &Host, hosts: &'a [Host]) -> Option<&'a Host> {
    let id = builder.facts().host_id.clone();
    hosts.iter().find(|host| id.is_some() && host.facts().host_id == id)
}

/// Plans a builder that takes no other part. What it serves, if anything, is its own affair.
pub fn plan_apart(environment: &Environment, host: &Host, local: &Material, force: bool) -> Result<HostPlan, Error> {
    let (name, facts, root) = (host.name(), host.facts(), root_of(environment, host.target()));
    let wanted = local.wanted(environment.of(host.target()), force);
    let plan = plan::host(name, &facts, &wanted, local.need(), &environment.as_typed());
    let Some(blocker) = plan.blockers.iter().find(|blocker| blocker.code != "current") else { return Ok(plan) };
    let what = format!("`{name}` cannot build in `{root}`, where the release will run: {}", blocker.message);
    let hint = if blocker.code.starts_with("root-") {
        format!("make `{root}` a directory there that `{}` may write to, or let another host build: `build.on`", facts.user)
    } else {
        blocker.hint.clone()
    };
    Err(Error::new(Exit::BuildFailed, blocker.code, what).hint(hint))
}

/// Finds the hosts on which what `source` builds at `root` would not run.
pub async fn unlike(environment: &Environment, (source, root): (&Host, &str), makers: &[&Host], build: Option<&Build>) -> Vec<HostFailure> {
    let ask = |host: Host, root: String| async move {
        let likeness = likeness::of(&host, &root, build).await;
        likeness.map_err(|error| failure::host(host.name(), Step::Push, &error))
    };
    if makers.is_empty() {
        return Vec::new();
    }
    let builder = match ask(source.clone(), root.to_owned()).await {
        Ok(builder) => builder,
        Err(failure) => return makers.iter().map(|host| HostFailure { host: host.name().to_owned(), ..failure.clone() }).collect(),
    };
    let asked = each(makers, usize::MAX >> 4, |host| ask((*host).clone(), root_of(environment, host.target()).to_string())).await;
    let compared = makers.iter().zip(asked).filter_map(|(host, likeness)| match likeness {
        Ok(likeness) => likeness
            .differs_from(&builder, (host.name(), source.name()))
            .map(|what| failure::unlike(host.name(), what, "build on every host: `build.on = \"host\"`")),
        Err(failure) => Some(failure),
    });
    compared.collect()
}

/// Finds the hosts that lack what a built tree refers to and does not hold.
pub async fn dangling(capture: &Capture, makers: &[&Host]) -> Vec<HostFailure> {
    let outside = &capture.about.outside;
    let paths: Vec<String> = outside.iter().map(|outside| outside.path.clone()).collect();
    if paths.is_empty() {
        return Vec::new();
    }
    let looked = each(makers, usize::MAX >> 4, |host| async {
        let name = host.name();
        match host.ask(Op::Probe { paths: paths.clone() }).await {
            Ok(Answer::Probed { paths }) => {
                let is_there = |kind| !matches!(kind, PathKind::Missing | PathKind::Dangling);
                let lacking: Vec<_> =
                    outside.iter().zip(&paths).filter(|(_, state)| !is_there(state.kind)).map(|(outside, _)| outside).collect();
                failure::lacking(name, &lacking)
            }
            Ok(other) => Some(failure::host(name, Step::Push, &HostError::unexpected(name, &other))),
            Err(error) => Some(failure::host(name, Step::Push, &error)),
        }
    });
    looked.await.into_iter().flatten().collect()
}
