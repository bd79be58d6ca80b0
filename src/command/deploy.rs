//! `deploy`: the three stages on every host, as one transaction.
//!
//! Longer than most files because the order of a deploy is told here and nowhere else; what is done in each step is in `stage/`.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OnceCell;

use crate::cli::{self, Common};
use crate::command::cache;
use crate::command::failure::{self, HostFailure};
use crate::command::interrupt::Interrupt;
use crate::command::locks;
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::package_index;
use crate::command::scene::{self, Ended, Scene};
use crate::command::windows;
use crate::config::environment::{Environment, OnUnreachable};
use crate::error::Error;
use crate::event::{Event, Events, Severity, Status, Step};
use crate::exit::Exit;
use crate::fleet::{self, Connected, Done, Tally};
use crate::host::Host;
use crate::index::Index;
use crate::op::Facts;
use crate::plan::{self, Action, HostPlan};
use crate::release::ReleaseId;
use crate::rollout::{self, Barrier};

mod activate;
mod again;
mod back;
mod ending;
mod health;
mod hooks;
mod once;
mod prepare;

pub use again::make_again;
pub use health::{beside, no_room};

const STOPPING: &str = "Stopping at the next safe point. (^C again leaves at once)";

/// Runs the verb.
pub async fn deploy(common: &Common, args: &cli::Deploy) -> Result<Exit, Error> {
    let mut scene = Scene::set(common, &scene::deploy_overrides(common, args)).await?;
    scene.draw_from(common, &args.what).await?;
    let directory = args.what.tree.as_ref().map(|tree| tree.display().to_string());
    let what = directory.as_deref().or(args.what.rev.as_deref()).or(scene.environment.rev.as_deref());
    windows::insist(&scene.environment, args.outside_window, &scene.typed("deploy", &args.typed()))?;
    consent(common, &scene.environment, "Deploy", what)?;
    let (events, reporter) = scene.start(common, "deploy");
    windows::tell_outside(&scene.environment, &events);
    let interrupt = Interrupt::of(&scene, STOPPING, &events, &reporter);
    let run = async {
        let index = package_index::open(&scene, &events).await?;
        Deploy { scene: &scene, environment: &scene.environment, events: &events, interrupt, args, index, beside: OnceCell::new() }
            .run()
            .await
    };
    let ended = run.await.unwrap_or_else(Ended::by);
    Ok(scene::finish(&scene, events, reporter, ended))
}

/// Asks before a protected environment is changed. Without a terminal `--yes` is the only answer.
pub fn consent(common: &Common, environment: &Environment, action: &str, what: Option<&str>) -> Result<(), Error> {
    if !environment.protected || common.yes {
        return Ok(());
    }
    let refused =
        |why: &str| Error::new(Exit::Refused, "protected", format!("{} is protected: {why}", environment.name)).hint("add `--yes`");
    if common.no_input || !std::io::stdin().is_terminal() {
        return Err(refused("it needs `--yes` where nobody can be asked"));
    }
    let what = what.map(|what| format!(" {what} to")).unwrap_or_default();
    let hosts = crate::figures::counted(environment.targets.len() as u64, "host");
    eprint_question(&format!("{action}{what} {} ({hosts})? [y/N] ", environment.name));
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(refused("the answer was no")) }
}

fn eprint_question(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

struct Deploy<'a> {
    scene: &'a Scene,
    environment: &'a Environment,
    events: &'a Events,
    interrupt: Interrupt,
    args: &'a cli::Deploy,
    /// Where builds are to reach it.
    index: Option<Index>,
    /// How many hosts are well that the selectors left out, once somebody has asked.
    beside: OnceCell<usize>,
}

/// A host that takes part, and the release that will be live there.
#[derive(Clone)]
struct Member {
    host: Host,
    plan: HostPlan,
    release: ReleaseId,
}

impl Deploy<'_> {
    async fn run(&self) -> Result<Ended, Error> {
        let local = Material::prepare(&self.args.what, self.scene, self.events);
        let began = async { tokio::join!(local, fleet::connect(self.environment, self.events)) };
        let (local, connected) = match self.interrupt.until(began).await {
            Ok(both) => both,
            Err(exit) => return Ok(self.interrupted(exit, &[])),
        };
        let local = match local {
            Ok(local) => local,
            Err(error) => {
                fleet::close(&connected.hosts).await;
                let state = error.state.clone().unwrap_or_else(|| self.serving("still runs", &connected.hosts));
                return Err(error.state(state));
            }
        };
        let ended = self.with_hosts(&local, &connected).await;
        fleet::close(&connected.hosts).await;
        ended
    }

    async fn with_hosts(&self, local: &Material, connected: &Connected) -> Result<Ended, Error> {
        let budget = self.budget();
        let mut failures: Vec<HostFailure> =
            connected.unreachable.iter().map(|(target, error)| failure::unreachable(&target.name, error)).collect();
        let counted = if self.environment.on_unreachable == OnUnreachable::Skip { 0 } else { failures.len() };
        if counted > budget || connected.hosts.is_empty() {
            return Ok(self.unreachable(connected, &failures));
        }
        self.tell_damage(&connected.hosts);
        let facts = |host: &Host| (host.name().to_owned(), host.facts());
        let all: Vec<_> = connected.hosts.iter().map(facts).collect();
        if let Some((first, second)) = plan::twins(all.iter().map(|(name, facts)| (name.as_str(), &**facts))) {
            return Err(Error::new(Exit::Config, "twins", format!("`{first}` and `{second}` are one host with one root"))
                .state(self.serving("still runs", &connected.hosts))
                .hint("remove one of the two names from deploy.toml"));
        }
        let plans = self.plans(&connected.hosts, local);
        if failures.is_empty() && plans.iter().all(|plan| plan.action == Action::Nothing && plan.blockers.is_empty()) {
            return Ok(self.nothing_to_do(local, &connected.hosts));
        }
        let blocked = self.blocked(&plans);
        if counted + blocked.len() > budget {
            failures.extend(blocked);
            return Ok(self.not_activated(&connected.hosts, &failures, None));
        }
        self.refuse_without_room(&connected.hosts, &plans).await?;
        failures.extend(blocked);
        let hosts: Vec<Host> =
            connected.hosts.iter().zip(&plans).filter(|(_, plan)| plan.blockers.is_empty()).map(|(host, _)| host.clone()).collect();
        match self.interrupt.until(self.lock(&hosts, local)).await {
            Ok(locked) => locked?,
            Err(exit) => {
                locks::unlock(&hosts).await;
                return Ok(self.interrupted(exit, &hosts));
            }
        }
        // It may have been waited for until no window was open any more.
        if let Err(error) = windows::insist(self.environment, self.args.outside_window, &self.again()) {
            locks::unlock(&hosts).await;
            return Err(error);
        }
        // Whoever had the lock before may have filled the disk or moved `current`.
        let plans = self.plans(&hosts, local);
        let blocked = self.blocked(&plans);
        if !blocked.is_empty() {
            failures.extend(blocked);
            locks::unlock(&hosts).await;
            return Ok(self.not_activated(&hosts, &failures, None));
        }
        self.locked(local, hosts, plans, failures).await
    }

    /// How many hosts may fail without stopping the others.
    fn budget(&self) -> usize {
        self.environment.max_failures.at_most(self.environment.targets.len())
    }

    /// The hosts that the plan stops. They are told of at once: no step of theirs will.
    fn blocked(&self, plans: &[HostPlan]) -> Vec<HostFailure> {
        let blocked: Vec<HostFailure> = plans.iter().filter_map(failure::blocked).collect();
        for failure in &blocked {
            let detail = Some(failure.message.clone());
            fleet::tell(self.events, &failure.host, failure.step, Status::Stopped, 0.0, Done { detail, ..Done::default() });
        }
        blocked
    }

    fn plans(&self, hosts: &[Host], local: &Material) -> Vec<HostPlan> {
        local.plans(self.environment, hosts, self.args.what.force)
    }

    /// All hosts or none: what was taken is let go on the first refusal, and nobody waits while holding.
    async fn lock(&self, hosts: &[Host], local: &Material) -> Result<(), Error> {
        let tally = Tally::new(self.events, hosts.len());
        tally.begin(Step::Lock);
        let began = Instant::now();
        let what = format!("deploying {}", local.label());
        let taken = locks::take_waiting(self.scene, hosts, &what, self.args.wait_lock, &self.again(), self.events).await;
        let moved = taken.map_err(|error| error.state(self.serving("still runs", hosts)))?;
        for host in hosts {
            tally.record(host.name(), Step::Lock, Status::Ok, began.elapsed().as_secs_f64(), Done::default());
        }
        // What was read before the lock is old where recovery changed it, or where another run came and went meanwhile.
        if moved {
            fleet::refresh(hosts).await;
        }
        Ok(())
    }

    /// Everything that happens under the lock.
    async fn locked(&self, local: &Material, hosts: Vec<Host>, plans: Vec<HostPlan>, failures: Vec<HostFailure>) -> Result<Ended, Error> {
        let fresh = self.release_id(local, &hosts)?;
        let source = Box::pin(self.source(local, &hosts, &plans, &fresh)).await?;
        let fresh = source.as_ref().map_or(fresh, |source| source.release.clone());
        let all = hosts.clone();
        let ended = self.roll_out(local, hosts, plans, failures, (source.as_ref(), &fresh)).await;
        if let Some(source) = &source {
            source.close().await;
        }
        let exit = ended.as_ref().map_or_else(|error| error.exit, |ended| ended.exit);
        if exit != Exit::Ok {
            let places: Vec<hooks::Place<'_>> = all.iter().map(|host| (host, &fresh)).collect();
            self.after_failure(exit, &places, local).await;
        }
        locks::unlock(&all).await;
        ended
    }

    async fn roll_out(
        &self,
        local: &Material,
        hosts: Vec<Host>,
        plans: Vec<HostPlan>,
        mut failures: Vec<HostFailure>,
        (source, fresh): (Option<&once::Source>, &ReleaseId),
    ) -> Result<Ended, Error> {
        let adopted = plans.iter().find_map(|plan| match &plan.action {
            Action::Adopt(id) => Some(id),
            Action::Make | Action::Nothing => None,
        });
        let is_made = plans.iter().any(|plan| plan.action == Action::Make);
        self.tell_changes(local, &hosts, adopted.filter(|_| !is_made).unwrap_or(fresh));
        let members: Vec<Member> = hosts
            .into_iter()
            .zip(plans)
            .map(|(host, plan)| {
                let release = match &plan.action {
                    Action::Adopt(release) => release.clone(),
                    Action::Nothing | Action::Make => fresh.clone(),
                };
                Member { host, plan, release }
            })
            .collect();
        let all: Vec<Host> = members.iter().map(|member| member.host.clone()).collect();
        let working: Vec<Member> = members.into_iter().filter(|member| member.plan.action != Action::Nothing).collect();
        if working.is_empty() {
            // While this run waited for the lock, another one made all hosts serve what is wanted.
            return Ok(if failures.is_empty() {
                self.nothing_to_do(local, &all)
            } else {
                self.finished(local, &all, &[], failures, &[], None).await
            });
        }
        let prepared = match self.interrupt.until(self.prepare_all(source, &working, local, fresh)).await {
            Ok(prepared) => prepared?,
            Err(exit) => {
                prepare::give_up(&working, "the run was interrupted").await;
                return Ok(self.interrupted(exit, &all));
            }
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(reasons) => {
                failures.extend(reasons);
                prepare::give_up(&working, "there is no build that it could get").await;
                cache::explain_lacking(self.environment, &local.artifact, &mut failures, &all).await;
                return Ok(self.not_activated(&all, &failures, None));
            }
        };
        let mut ready = Vec::new();
        for (member, result) in working.into_iter().zip(prepared) {
            match result {
                Ok(()) => ready.push(member),
                Err(failure) => failures.push(failure),
            }
        }
        cache::explain_lacking(self.environment, &local.artifact, &mut failures, &all).await;
        // Whoever built it is proof that it can be built there.
        for failure in &mut failures {
            failure.is_everywhere &= ready.is_empty();
        }
        let counted = failures.len() - self.skipped(&failures);
        if rollout::barrier(ready.len(), counted, self.budget()) == Barrier::Stop {
            return Ok(self.not_activated(&all, &failures, None));
        }
        failure::tolerate(&mut failures);
        Ok(self.activate(local, ready, &all, failures).await)
    }

    fn skipped(&self, failures: &[HostFailure]) -> usize {
        match self.environment.on_unreachable {
            OnUnreachable::Skip => failures.iter().filter(|failure| failure.step == Step::Connect).count(),
            OnUnreachable::Fail => 0,
        }
    }

    fn release_id(&self, local: &Material, hosts: &[Host]) -> Result<ReleaseId, Error> {
        release_id(self.scene, &local.label(), hosts)
    }

    /// Records that cannot be read stop nothing that follows, but somebody has to know.
    fn tell_damage(&self, hosts: &[Host]) {
        for host in hosts {
            for damaged in &host.facts().unreadable {
                self.warn("unreadable-record", format!("{}: {damaged}", host.name()), vec![host.name().to_owned()]);
            }
        }
    }

    /// Tells what is worth a look and stops nothing.
    fn warn(&self, code: &str, message: String, hosts: Vec<String>) {
        let (severity, code) = (Severity::Warning, code.to_owned());
        self.events.emit(Event::Diagnostic { severity, code, message, hosts, evidence: Vec::new(), state: None, help: Vec::new() });
    }

    fn tell_changes(&self, local: &Material, hosts: &[Host], release: &ReleaseId) {
        let facts: Vec<Arc<Facts>> = hosts.iter().map(Host::facts).collect();
        let mut commits: Vec<&str> =
            facts.iter().filter_map(|facts| plan::live_record(facts)).filter_map(|record| record.release.commit.as_deref()).collect();
        commits.sort_unstable();
        commits.dedup();
        let changes = match commits.as_slice() {
            [from] => local.changes(from),
            _ => None,
        };
        self.events.emit(Event::Changes {
            from: plan::live_counts(facts.iter().map(|facts| &**facts)),
            to: local.label(),
            commits: changes.as_ref().map(|changes| u32::try_from(changes.ahead.len()).unwrap_or(u32::MAX)),
            files: changes.as_ref().map(|changes| changes.files),
            release: release.to_string(),
        });
    }

    /// What to type to deploy the same again.
    fn again(&self) -> String {
        self.scene.typed("deploy", &self.args.typed())
    }

    fn serving(&self, verb: &str, hosts: &[Host]) -> String {
        outcome::serving(&self.environment.name, verb, &fleet::live(hosts))
    }
}

/// Names a new release as none of the hosts names any.
pub fn release_id(scene: &Scene, label: &str, hosts: &[Host]) -> Result<ReleaseId, Error> {
    let facts: Vec<Arc<Facts>> = hosts.iter().map(Host::facts).collect();
    let taken = |id: &ReleaseId| {
        facts.iter().any(|facts| {
            facts.releases.iter().any(|record| record.release.id == *id) || facts.foreign.iter().any(|name| name == id.as_str())
        })
    };
    plan::release_id(&scene.stamp, label, taken).map_err(|error| Error::new(Exit::Internal, "release-id", error.to_string()))
}
