//! Hooks: commands of the user's at moments of a deploy. Some run on each host in its turn, as one more step of its way; the others when
//! something begins or ends for several hosts, on them, on one, or on this machine. Neither a revert nor a rollback runs any.

use std::time::Instant;

use super::{Deploy, Member};
use crate::command::failure::{self, HostFailure};
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::scene;
use crate::config::LOCAL;
use crate::config::environment::{Hook, HookPlace, Moment};
use crate::config::placeholders::Values;
use crate::event::{Status, Step};
use crate::exit::Exit;
use crate::fleet::{self, Done, Tally, each};
use crate::host::Host;
use crate::release::{ReleaseId, layout};
use crate::stage::remote::{self, Recipe, RemoteError};

/// What a hook finds in its environment beside what every command does.
pub(super) type Told = Vec<(String, String)>;

/// A host, and the release that the run brings to it.
pub(super) type Place<'a> = (&'a Host, &'a ReleaseId);

/// Tells a hook how that ended after which it runs.
pub(super) fn result(name: &str) -> Told {
    vec![("DEPLOYER_RESULT".to_owned(), name.to_owned())]
}

impl Deploy<'_> {
    fn hooks(&self, moment: Moment) -> impl Iterator<Item = &Hook> {
        self.environment.hooks.iter().filter(move |hook| hook.on == moment)
    }

    pub(super) fn has_hooks(&self, moment: Moment, member: &Member) -> bool {
        self.hooks(moment).any(|hook| hook.place.holds(member.host.target()))
    }

    /// Runs the hooks of a moment on one host in its turn. The first that fails ends it.
    pub(super) async fn hooks_on(&self, moment: Moment, member: &Member, local: &Material) -> Result<(), HostFailure> {
        let name = member.host.name();
        for hook in self.hooks(moment).filter(|hook| hook.place.holds(member.host.target())) {
            let began = Instant::now();
            let result = self.run_hook(hook, Some((&member.host, &member.release)), local, &[]).await;
            let status = if result.is_ok() || hook.may_fail { Status::Ok } else { Status::Failed };
            fleet::tell(self.events, name, Step::Hook, status, began.elapsed().as_secs_f64(), describe(hook, result.as_ref().err()));
            if let Some(failure) = self.must_not_fail(hook, name, result) {
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Runs the hooks of a moment that several hosts have in common, one after the other, each on all its hosts at once.
    pub(super) async fn hooks_of(
        &self,
        moment: Moment,
        hosts: &[Place<'_>],
        local: &Material,
        told: &[(String, String)],
    ) -> Vec<HostFailure> {
        // On every host of its wave such a hook runs in that host's turn.
        let is_common = |hook: &&Hook| moment != Moment::BeforeActivate || matches!(hook.place, HookPlace::Once | HookPlace::Local);
        for hook in self.hooks(moment).filter(is_common) {
            let places: Vec<Option<Place<'_>>> = match &hook.place {
                HookPlace::Local => vec![None],
                HookPlace::Once => hosts.iter().take(1).copied().map(Some).collect(),
                HookPlace::EveryHost | HookPlace::Role(_) => {
                    hosts.iter().filter(|(host, _)| hook.place.holds(host.target())).copied().map(Some).collect()
                }
            };
            let tally = Tally::new(self.events, places.len());
            let failures = each(&places, self.environment.parallel, |place| {
                let tally = &tally;
                async move {
                    let name = place.map_or(LOCAL, |(host, _)| host.name());
                    tally.begin(Step::Hook);
                    let began = Instant::now();
                    let result = self.run_hook(hook, *place, local, told).await;
                    let status = if result.is_ok() || hook.may_fail { Status::Ok } else { Status::Failed };
                    tally.record(name, Step::Hook, status, began.elapsed().as_secs_f64(), describe(hook, result.as_ref().err()));
                    self.must_not_fail(hook, name, result)
                }
            });
            let failures: Vec<HostFailure> = failures.await.into_iter().flatten().collect();
            if !failures.is_empty() {
                return failures;
            }
        }
        Vec::new()
    }

    /// The failure of a hook that may not fail; one that may is a warning.
    fn must_not_fail(&self, hook: &Hook, host: &str, result: Result<(), RemoteError>) -> Option<HostFailure> {
        let failure = failure::remote(host, Step::Hook, &result.err()?);
        let message = format!("`{}`: {}", hook.name, failure.message);
        if hook.may_fail {
            self.warn("hook", format!("hook failed, as it may: {message}"), vec![host.to_owned()]);
            return None;
        }
        Some(HostFailure { message, ..failure })
    }

    async fn run_hook(
        &self,
        hook: &Hook,
        place: Option<Place<'_>>,
        local: &Material,
        told: &[(String, String)],
    ) -> Result<(), RemoteError> {
        let rev = local.commit().unwrap_or_else(|| local.reference());
        let mut told = told.to_vec();
        told.push(("DEPLOYER_HOOK".to_owned(), hook.name.clone()));
        let Some((host, release)) = place else {
            let root = self.environment.root.as_str();
            let values = Values {
                env: self.environment.name.clone(),
                rev,
                short_rev: local.label(),
                release: String::new(),
                host: LOCAL.to_owned(),
                role: String::new(),
                root: root.to_owned(),
                current: format!("{root}/{}", layout::CURRENT),
                shared: format!("{root}/{}", layout::SHARED),
            };
            return remote::local_hook(self.environment, &values, hook, &told, self.events).await;
        };
        let values = scene::values(self.environment, host, release.as_str(), &rev, &local.label());
        let recipe = Recipe { environment: self.environment, release, values: &values, durable: true };
        // Whatever failed, the release may not be there.
        let in_root = hook.on == Moment::AfterFailure;
        remote::hook(host, &recipe, hook, in_root, &told, self.events).await.map(drop)
    }

    /// Runs what follows a run that did not end well, under the same lock. Its own failures change nothing any more.
    pub(super) async fn after_failure(&self, exit: Exit, hosts: &[Place<'_>], local: &Material) {
        for failure in self.hooks_of(Moment::AfterFailure, hosts, local, &result(exit.name())).await {
            self.warn("hook", format!("hook failed after the failure: {}", failure.message), vec![failure.host]);
        }
    }
}

fn describe(hook: &Hook, error: Option<&RemoteError>) -> Done {
    let done = failure::describe_command(error, outcome::command_words(&hook.run.command));
    let detail = done.detail.map_or_else(|| hook.name.clone(), |detail| format!("{}: {detail}", hook.name));
    Done { detail: Some(detail), ..done }
}
