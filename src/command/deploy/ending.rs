//! How a deploy ends: the counts, what every host serves, what to type next.

use std::collections::BTreeSet;

use super::{Deploy, Member};
use crate::command::activation;
use crate::command::failure::HostFailure;
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::processes;
use crate::command::scene::Ended;
use crate::error::Error;
use crate::event::Step;
use crate::exit::Exit;
use crate::figures;
use crate::fleet::{self, Connected, Done, Tally, each};
use crate::host::Host;
use crate::op::Op;

impl Deploy<'_> {
    pub(super) async fn finished(
        &self,
        local: &Material,
        all: &[Host],
        ready: &[Member],
        failures: Vec<HostFailure>,
        confirmed: &[String],
        why: Option<String>,
    ) -> Ended {
        self.prune(all).await;
        processes::tell(self.environment, all, self.events).await;
        // A host that served nothing, or a release of another tool, has no confirmed one to return to.
        let can_return = ready.iter().all(|member| member.plan.can_return);
        let was: BTreeSet<&str> = ready.iter().map(|member| member.plan.serves.as_str()).collect();
        let was = was.into_iter().collect::<Vec<_>>().join(", ");
        fleet::refresh(all).await;
        let live = activation::live(all, &failures);
        let name = &self.environment.name;
        let label = local.label();
        let hosts = self.environment.targets.len();
        let took = figures::duration(self.scene.seconds());
        // Asked after the last switch, there is nothing left to stop.
        let stopped = self.interrupt.asked().filter(|_| confirmed.len() < ready.len());
        if failures.is_empty() && stopped.is_none() && why.is_none() {
            let summary = format!("Deployed {label} to {name}: {} in {took} (was {was})", figures::counted(hosts as u64, "host"));
            let undo = ("undo".to_owned(), self.scene.typed("rollback", ""));
            let next = if can_return { vec![undo] } else { Vec::new() };
            return Ended { exit: Exit::Ok, error: None, live, ok: hosts, failed: 0, summary, next };
        }
        let state = outcome::serving(name, "runs", &live);
        let error = outcome::explain_unless(why, Exit::Partial, &failures, hosts, state.clone());
        // Whoever neither failed nor was left behind in `ready` served the release before this run began.
        let is_ready = |host: &str| ready.iter().any(|member| member.host.name() == host);
        let has_failed = |host: &str| failures.iter().any(|failure| failure.host == host);
        let is_done = |host: &str| {
            confirmed.iter().any(|done| done == host)
                || (all.iter().any(|other| other.name() == host) && !is_ready(host) && !has_failed(host))
        };
        let names = self.environment.targets.iter().map(|target| target.name.as_str());
        let (done, left): (Vec<&str>, Vec<&str>) = names.partition(|name| is_done(name));
        let ok = done.len();
        let summary = format!("Deployed {label} to {name}: {ok} of {hosts} hosts in {took}; {state}");
        let mut next = outcome::look_at(&self.environment.as_typed(), &failures);
        if !left.is_empty() {
            next.push(("finish".to_owned(), self.scene.typed_on("deploy", &self.args.typed(), &left)));
        }
        Ended { exit: Exit::Partial, error: Some(error), live, ok, failed: failures.len(), summary, next }
    }

    /// Retention comes last and only after success; what it cannot remove today it removes next time.
    pub(super) async fn prune(&self, hosts: &[Host]) {
        let keep = self.environment.keep_releases;
        let tally = Tally::new(self.events, hosts.len());
        each(hosts, usize::MAX >> 4, |host| {
            tally.step(host.name(), Step::Prune, host.ask(Op::Prune { keep, only: None }), |result| Done {
                detail: Some(outcome::pruned(result)),
                ..Done::default()
            })
        })
        .await;
    }

    pub(super) fn interrupted(&self, exit: Exit, hosts: &[Host]) -> Ended {
        let live = fleet::live(hosts);
        let state = if hosts.is_empty() {
            "no host was changed".to_owned()
        } else {
            format!("nothing was activated; {}", outcome::serving(&self.environment.name, "still runs", &live))
        };
        let error = Error::new(exit, "interrupted", format!("interrupted after {}", figures::duration(self.scene.seconds())))
            .state(state)
            .hint("run the same command to continue: what is already on the hosts is kept and reused");
        Ended { exit, error: Some(error), live, ok: 0, failed: 0, summary: String::new(), next: Vec::new() }
    }

    pub(super) fn nothing_to_do(&self, local: &Material, hosts: &[Host]) -> Ended {
        let total = hosts.len();
        let summary = format!(
            "{} is at {} on {total}/{}; nothing to do. (deploy --force rebuilds)",
            self.environment.name,
            local.label(),
            figures::counted(total as u64, "host")
        );
        Ended { exit: Exit::Ok, error: None, live: fleet::live(hosts), ok: total, failed: 0, summary, next: Vec::new() }
    }

    pub(super) fn unreachable(&self, connected: &Connected, failures: &[HostFailure]) -> Ended {
        let name = &self.environment.name;
        let live = fleet::live(&connected.hosts);
        let state = if connected.hosts.is_empty() {
            "nothing was changed; no host answered".to_owned()
        } else {
            format!("nothing was changed; {}", outcome::serving(name, "still runs", &live))
        };
        let summary = format!("Not deployed. {}{}.", state[..1].to_uppercase(), &state[1..]);
        let mut error = outcome::explain(Exit::Unreachable, failures, self.environment.targets.len(), state);
        if let Some((_, first)) = connected.unreachable.first() {
            error.code = first.code();
            error.hints = first.hint();
        }
        if !connected.hosts.is_empty() {
            error.hints.push(format!("without: {}", self.without(failures)));
        }
        Ended { exit: Exit::Unreachable, error: Some(error), live, ok: 0, failed: failures.len(), summary, next: Vec::new() }
    }

    /// Ends a run in which nobody activated.
    pub(super) fn not_activated(&self, hosts: &[Host], failures: &[HostFailure], why: Option<String>) -> Ended {
        let live = fleet::live(hosts);
        let name = &self.environment.name;
        let serving = outcome::serving(name, "still runs", &live);
        let state = format!("nothing was activated; {serving}");
        let error = outcome::explain_unless(why, Exit::BuildFailed, failures, self.environment.targets.len(), state);
        let summary = format!("Not deployed. Nothing was activated: {serving}.");
        let mut next = outcome::look_at(&self.environment.as_typed(), failures);
        next.push(("retry".to_owned(), self.again()));
        let failed: BTreeSet<&str> = failures.iter().map(|failure| failure.host.as_str()).collect();
        let is_everywhere = failures.iter().all(|failure| failure.is_everywhere);
        if !failed.is_empty() && failed.len() < hosts.len() && !is_everywhere {
            next.push(("without".to_owned(), self.without(failures)));
        }
        Ended { exit: Exit::BuildFailed, error: Some(error), live, ok: 0, failed: failures.len(), summary, next }
    }

    /// What to type to deploy to all others than those that failed.
    fn without(&self, failures: &[HostFailure]) -> String {
        let failed: BTreeSet<&str> = failures.iter().map(|failure| failure.host.as_str()).collect();
        self.scene.typed_without("deploy", &self.args.typed(), &Vec::from_iter(failed))
    }
}
