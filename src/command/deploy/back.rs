//! Putting back what a run had switched: all of it, or the hosts that failed while the others go on.

use super::{Deploy, Member};
use crate::command::activation::{self, Back};
use crate::command::failure::HostFailure;
use crate::command::outcome;
use crate::command::scene::Ended;
use crate::event::Step;
use crate::exit::Exit;
use crate::fleet;
use crate::host::Host;
use crate::release::ReleaseId;

impl Deploy<'_> {
    /// Puts back hosts that failed while the others go on or stay.
    pub(super) async fn put_back_failed(&self, failed: &[&Member], failures: &[HostFailure]) -> Vec<HostFailure> {
        if failed.is_empty() {
            return Vec::new();
        }
        let back: Vec<Back<'_>> = failed.iter().map(|member| Back { host: &member.host, release: &member.release, is_bad: true }).collect();
        activation::put_back(&back, &reason(failures), self.events).await
    }

    /// Puts back every host this run switched, each to its own previous release.
    pub(super) async fn put_back(
        &self,
        switched: &[&Member],
        all: &[Host],
        (label, failures): (&str, &mut Vec<HostFailure>),
        why: Option<String>,
    ) -> Ended {
        let tried: Vec<(&str, &ReleaseId)> = switched.iter().map(|member| (member.host.name(), &member.release)).collect();
        let back = switched.iter().map(|member| {
            let is_bad = is_bad((member.host.name(), &member.release), &tried, failures);
            Back { host: &member.host, release: &member.release, is_bad }
        });
        let back: Vec<Back<'_>> = back.collect();
        let stuck = activation::put_back(&back, &reason(failures), self.events).await;
        let whole = stuck.is_empty() && !failures.iter().any(HostFailure::is_unknown);
        failures.extend(stuck);
        fleet::refresh(all).await;
        let exit = if whole { Exit::RolledBack } else { Exit::Partial };
        let live = activation::live(all, failures);
        let state = outcome::serving(&self.environment.name, "runs", &live);
        let first = if whole { "Rolled back." } else { "NOT wholly rolled back." };
        let bad = if back.iter().any(|back| back.is_bad) {
            format!("; {label} is marked bad and will not be chosen again")
        } else {
            String::new()
        };
        let error = outcome::explain_unless(why, exit, failures, self.environment.targets.len(), state.clone());
        let next = outcome::look_at(&self.environment.as_typed(), failures);
        Ended { exit, error: Some(error), live, ok: 0, failed: failures.len(), summary: format!("{first} {state}{bad}."), next }
    }
}

/// What the history of a host says of why it was put back.
fn reason(failures: &[HostFailure]) -> String {
    match failures.iter().rfind(|failure| failure.step >= Step::Hook && !failure.is_tolerated) {
        Some(failure) => format!("{} failed on {}: {}", failure.step.name(), failure.host, failure.message),
        None => "the run was interrupted".to_owned(),
    }
}

/// Tells whether a release that is put back on a host is never to be chosen again by itself: it did not hold there, or the same release
/// was tried on another host and did not hold. That a run was interrupted, or that another host was lost, is nothing against it.
fn is_bad(here: (&str, &ReleaseId), tried: &[(&str, &ReleaseId)], failures: &[HostFailure]) -> bool {
    let (host, release) = here;
    failures.iter().any(|failure| match failure.step {
        Step::Activate | Step::Check if failure.host == host => true,
        Step::Activate | Step::Check => !failure.lost && tried.contains(&(failure.host.as_str(), release)),
        Step::Confirm | Step::Hook => failure.host == host,
        Step::Mirror
        | Step::Resolve
        | Step::Export
        | Step::Connect
        | Step::Lock
        | Step::Push
        | Step::Cache
        | Step::Link
        | Step::Build
        | Step::Capture
        | Step::Revert
        | Step::Prune
        | Step::Setup
        | Step::Fill
        | Step::Run => false,
    })
}
