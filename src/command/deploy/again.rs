//! A release that some hosts have no more, made there again from its commit: pushed, built and sealed as by a deploy. What they serve
//! does not change.

use tokio::sync::OnceCell;

use super::{Deploy, Member, prepare};
use crate::cli;
use crate::command::failure::{self, HostFailure};
use crate::command::interrupt::Interrupt;
use crate::command::material::Material;
use crate::command::package_index;
use crate::command::scene::Scene;
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::host::Host;
use crate::plan::Goal;
use crate::release::ReleaseId;

/// Makes the goal of a rollback on `hosts`, in their order, by one id: its own where none of them knows that for something else. Says
/// how it was interrupted, if it was.
pub async fn make_again(
    scene: &Scene,
    interrupt: &Interrupt,
    events: &Events,
    goal: &Goal,
    material: &Material,
    hosts: &[&Host],
) -> Result<Result<Vec<Result<ReleaseId, HostFailure>>, Exit>, Error> {
    if let Some(only) = &scene.environment.only_from {
        let names: Vec<&str> = hosts.iter().map(|host| host.name()).collect();
        let what = format!("{} has {} no more, and takes only what {only} confirmed: `only-from`", names.join(", "), goal.name());
        return Err(
            Error::new(Exit::Refused, "only-from", what).hint(format!("deployer deploy -e {} --from {only}", scene.environment.name))
        );
    }
    let args = cli::Deploy::default();
    let index = package_index::open(scene, events).await?;
    let deploy = Deploy {
        scene,
        environment: &scene.environment,
        events,
        interrupt: interrupt.clone(),
        args: &args,
        index,
        beside: OnceCell::new(),
    };
    let all: Vec<Host> = hosts.iter().map(|host| (*host).clone()).collect();
    let release = match &goal.release {
        Some(id) if !all.iter().any(|host| host.facts().releases.iter().any(|record| record.release.id == *id)) => id.clone(),
        Some(_) | None => deploy.release_id(material, &all)?,
    };
    let plans = material.plans(&scene.environment, &all, true);
    let members: Vec<Member> =
        all.iter().zip(plans).map(|(host, plan)| Member { host: host.clone(), plan, release: release.clone() }).collect();
    let blocked: Vec<Option<HostFailure>> = members.iter().map(|member| failure::blocked(&member.plan)).collect();
    if blocked.iter().any(Option::is_some) {
        return Ok(Ok(blocked.into_iter().map(|blocked| blocked.map_or_else(|| Ok(release.clone()), Err)).collect()));
    }
    let mut parcel = deploy.parcel(material, &members, &release).await?;
    parcel.release.reference.clone_from(&goal.reference);
    match deploy.interrupt.until(deploy.prepare(&members, &parcel, material)).await {
        Ok(prepared) => Ok(Ok(prepared.into_iter().map(|result| result.map(|()| release.clone())).collect())),
        Err(exit) => {
            prepare::give_up(&members, "the run was interrupted").await;
            Ok(Err(exit))
        }
    }
}
