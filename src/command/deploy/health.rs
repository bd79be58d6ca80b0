//! Which hosts are well before the first wave: those that are not go first, since nobody misses them, and `min-healthy` counts the others.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Deploy, Member};
use crate::command::health;
use crate::config::environment::{Connect, Environment};
use crate::config::ranges;
use crate::error::Error;
use crate::event::{Event, Events, Severity};
use crate::exit::Exit;
use crate::fleet::{self, each};
use crate::host::Host;
use crate::plan::{self, Action, HostPlan};
use crate::rollout::Limits;

/// How the hosts are before any of them is switched.
pub(super) struct Health {
    /// Hosts of the environment that are well, those among them that the run does not touch.
    pub well: usize,
    /// The others, and why.
    unwell: BTreeMap<String, String>,
    /// Whether the order or the number of hosts depends on it.
    matters: bool,
}

impl Health {
    pub fn is_well(&self, host: &str) -> bool {
        !self.unwell.contains_key(host)
    }
}

fn limits(environment: &Environment) -> Limits {
    let all = environment.targets.len() + environment.left_out.len();
    Limits {
        on_failure: environment.on_failure,
        budget: environment.max_failures.at_most(environment.targets.len()),
        least_healthy: environment.min_healthy.at_least(all),
    }
}

/// Says why not a single host could be switched; none where one could. `beside` hosts are well that the run leaves alone.
#[must_use]
pub fn no_room(environment: &Environment, hosts: &[Host], plans: &[HostPlan], beside: usize) -> Option<String> {
    let limits = limits(environment);
    let is_well = |host: &&Host| plan::unwell(&host.facts()).is_none();
    let acting = hosts.iter().zip(plans).filter(|(_, plan)| plan.action != Action::Nothing && plan.blockers.is_empty());
    let (well, unwell): (Vec<&Host>, Vec<&Host>) = acting.map(|(host, _)| host).partition(is_well);
    let healthy = hosts.iter().filter(is_well).count() + beside;
    if limits.leave_room(healthy, well.len(), unwell.len()) {
        return None;
    }
    let (total, least) = (environment.targets.len() + environment.left_out.len(), limits.least_healthy);
    Some(format!("`min-healthy` asks for {least} hosts that stay well while others are switched, and there are {healthy} of {total}"))
}

/// Counts the hosts that are well among those that the run leaves alone. One that does not answer is not.
pub async fn beside(environment: &Environment) -> usize {
    if environment.left_out.is_empty() || limits(environment).least_healthy == 0 {
        return 0;
    }
    let mut others = environment.clone();
    others.targets.clone_from(&others.left_out);
    others.connect = Connect { ask: false, trust_first_use: false, retries: 0, ..others.connect };
    // They take no part: nothing of theirs is a step of this run.
    let (events, _) = Events::new(Instant::now());
    let connected = fleet::connect(&others, &events).await;
    let found = each(&connected.hosts, usize::MAX >> 4, |host| async move {
        match plan::unwell(&host.facts()) {
            None => check_now(environment, host).await,
            known => known.map(str::to_owned),
        }
    });
    let well = found.await.iter().filter(|why| why.is_none()).count();
    fleet::close(&connected.hosts).await;
    well
}

/// Says why the check of what a host serves fails, tried once.
async fn check_now(environment: &Environment, host: &Host) -> Option<String> {
    match health::check_now(environment, host).await {
        Ok(why) => why.map(|why| format!("the check fails: {why}")),
        // What is wrong is told where the host is switched.
        Err(error) => Some(error.to_string()),
    }
}

impl Deploy<'_> {
    pub(super) fn limits(&self) -> Limits {
        limits(self.environment)
    }

    /// Refuses a run that could not switch a single host, before anything is sent. What only a check knows is not asked yet.
    pub(super) async fn refuse_without_room(&self, hosts: &[Host], plans: &[HostPlan]) -> Result<(), Error> {
        let Some(what) = no_room(self.environment, hosts, plans, self.beside().await) else { return Ok(()) };
        Err(Error::new(Exit::Refused, "min-healthy", what)
            .state(self.serving("still runs", hosts))
            .hint("allow fewer for this run: `--min-healthy N`"))
    }

    /// Looks at every host: what it serves, and whether that passes its check now. One try, and only where the order or the number matters.
    pub(super) async fn examine(&self, hosts: &[Host], waves: usize) -> Health {
        let matters = waves > 1 || self.limits().least_healthy > 0;
        let found = each(hosts, usize::MAX >> 4, |host| async move {
            match plan::unwell(&host.facts()) {
                None if matters => check_now(self.environment, host).await,
                known => known.map(str::to_owned),
            }
        })
        .await;
        let unwell: BTreeMap<String, String> =
            hosts.iter().zip(found).filter_map(|(host, why)| Some((host.name().to_owned(), why?))).collect();
        Health { well: hosts.len() - unwell.len() + self.beside().await, unwell, matters }
    }

    async fn beside(&self) -> usize {
        *self.beside.get_or_init(|| beside(self.environment)).await
    }

    /// Says who goes first, where that is not everybody.
    pub(super) fn tell_unwell(&self, health: &Health, ready: &[Member]) {
        let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for member in ready {
            if let Some(why) = health.unwell.get(member.host.name()) {
                by_reason.entry(why).or_default().push(member.host.name().to_owned());
            }
        }
        if !health.matters || by_reason.values().map(Vec::len).sum::<usize>() == ready.len() {
            return;
        }
        for (why, hosts) in by_reason {
            let message = format!("{} first: {why}", ranges::fold(&hosts));
            let (severity, code) = (Severity::Note, "unwell".to_owned());
            self.events.emit(Event::Diagnostic { severity, code, message, hosts, evidence: Vec::new(), state: None, help: Vec::new() });
        }
    }

    pub(super) fn too_few_healthy(&self) -> String {
        format!("to go on would leave fewer than {} hosts that are well (`min-healthy`)", self.limits().least_healthy)
    }
}
