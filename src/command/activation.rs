//! One host's way from one release to another and back, the same for `deploy` and `rollback`; and what is known of hosts after it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::command::failure::{self, HostFailure};
use crate::command::outcome;
use crate::config::Environment;
use crate::config::environment::CheckProbe;
use crate::config::placeholders::Values;
use crate::event::{Events, Status, Step};
use crate::fleet::{self, Done, Tally, each};
use crate::host::{Host, HostError};
use crate::release::ReleaseId;
use crate::stage::remote::{self, Recipe, RemoteError};

/// The steps of an activation. Hosts that begin none of them are absent from all.
pub const STEPS: [Step; 3] = [Step::Activate, Step::Check, Step::Confirm];

/// A host and the release it goes to.
pub struct Switch<'a> {
    pub host: &'a Host,
    pub environment: &'a Environment,
    pub release: &'a ReleaseId,
    pub values: Values,
    /// What `current` must be for the switch to happen.
    pub expect: Option<&'a ReleaseId>,
    pub rollback: bool,
}

/// Why a host does not serve what it should, and whether `current` leads there all the same.
pub struct NotActivated {
    pub failure: HostFailure,
    pub is_switched: bool,
}

impl Switch<'_> {
    /// Switches, restarts and checks.
    pub async fn activate(&self, tally: &Tally<'_>, events: &Events) -> Result<(), NotActivated> {
        let name = self.host.name();
        let recipe = Recipe { environment: self.environment, release: self.release, values: &self.values, durable: true };
        tally.begin(Step::Activate);
        let began = Instant::now();
        let activated = remote::activate(self.host, &recipe, self.expect, self.rollback, events).await;
        let record = |step, status, secs, done| tally.record(name, step, status, secs, done);
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        let error = match activated {
            Ok((activated, tries)) => {
                let detail = Some(format!("current → {}", self.release));
                record(Step::Activate, Status::Ok, seconds(activated.activation_ms), Done { detail, ..Done::default() });
                if self.environment.check.is_some() {
                    let detail = Some(describe_check(self.environment, tries));
                    record(Step::Check, Status::Ok, seconds(activated.check_ms), Done { detail, ..Done::default() });
                } else {
                    tally.absent(&[Step::Check]);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let step = if matches!(error, RemoteError::Check { .. }) {
            record(Step::Activate, Status::Ok, 0.0, Done::default());
            let detail = Some(error.to_string());
            record(Step::Check, Status::Failed, began.elapsed().as_secs_f64(), Done { detail, ..Done::default() });
            Step::Check
        } else {
            let command = self.environment.activate.as_ref().map(|run| outcome::command_words(&run.command)).unwrap_or_default();
            let done = failure::describe_command(Some(&error), command);
            record(Step::Activate, Status::Failed, began.elapsed().as_secs_f64(), done);
            tally.absent(&[Step::Check]);
            Step::Activate
        };
        tally.absent(&[Step::Confirm]);
        let is_switched = is_switched(self.host, self.release, &error).await;
        Err(NotActivated { failure: failure::remote(name, step, &error), is_switched })
    }

    /// Accepts what was activated.
    pub async fn confirm(&self, tally: &Tally<'_>) -> Result<(), NotActivated> {
        let name = self.host.name();
        // Asked first: a connection that is lost once it confirmed must not leave what the host served before as the last that is known.
        let work = async {
            self.host.refresh().await.map_err(RemoteError::Host)?;
            remote::confirm(self.host, self.release).await
        };
        let describe = |result: Result<&(), &RemoteError>| Done { detail: result.err().map(ToString::to_string), ..Done::default() };
        let confirmed = tally.step(name, Step::Confirm, work, describe).await;
        confirmed.map_err(|error| NotActivated { failure: failure::remote(name, Step::Confirm, &error), is_switched: true })
    }
}

fn describe_check(environment: &Environment, tries: u32) -> String {
    let tries = remote::tries_words(tries);
    match environment.check.as_ref().map(|check| &check.probe) {
        Some(CheckProbe::Url { url, .. }) => format!("GET {url}, {tries}"),
        Some(CheckProbe::Run(_)) | None => tries,
    }
}

/// A host that goes back to what it served before `release`.
pub struct Back<'a> {
    pub host: &'a Host,
    pub release: &'a ReleaseId,
    /// The release did not hold, and is never chosen again by itself.
    pub is_bad: bool,
}

/// Puts hosts back, each to its own previous release. One that fails does not stop the others.
pub async fn put_back(hosts: &[Back<'_>], reason: &str, events: &Events) -> Vec<HostFailure> {
    let tally = Tally::new(events, hosts.len());
    let results = each(hosts, usize::MAX >> 4, |back| {
        let work = remote::revert(back.host, back.release, reason, back.is_bad, events);
        tally.step(back.host.name(), Step::Revert, work, |result| Done {
            detail: Some(match result {
                Ok(activated) => activated.to.as_ref().map_or_else(|| "no current, as before".to_owned(), |to| format!("current → {to}")),
                Err(error) => error.to_string(),
            }),
            ..Done::default()
        })
    })
    .await;
    let failed =
        |(back, result): (&Back<'_>, Result<_, _>)| result.err().map(|error| failure::remote(back.host.name(), Step::Revert, &error));
    hosts.iter().zip(results).filter_map(failed).collect()
}

/// Says whether the host serves `release` although its activation failed, as far as it still answers.
async fn is_switched(host: &Host, release: &ReleaseId, error: &RemoteError) -> bool {
    match error {
        RemoteError::Check { .. } | RemoteError::Command { .. } | RemoteError::NotRestarted { .. } | RemoteError::Unwell { .. } => true,
        // The helper may have failed on either side of the switch (a disk that was full for the record): the host knows.
        RemoteError::Host(HostError::Failed(_)) => host.refresh().await.is_ok_and(|facts| facts.unresolved.as_ref() == Some(release)),
        RemoteError::Host(HostError::Lost { .. } | HostError::Protocol { .. })
        | RemoteError::Placeholder(_)
        | RemoteError::Index(_)
        | RemoteError::Cache(_)
        | RemoteError::NotStarted { .. }
        | RemoteError::Locked { .. } => false,
    }
}

/// Counts hosts by what they serve. Of a host that was lost while it was switched nobody knows.
#[must_use]
pub fn live(hosts: &[Host], failures: &[HostFailure]) -> BTreeMap<String, u32> {
    let is_unknown = |host: &&Host| failures.iter().any(|failure| failure.is_unknown() && failure.host == host.name());
    let (unknown, known): (Vec<&Host>, Vec<&Host>) = hosts.iter().partition(is_unknown);
    let mut live = fleet::live(&known.into_iter().cloned().collect::<Vec<_>>());
    if !unknown.is_empty() {
        live.insert("unknown".to_owned(), u32::try_from(unknown.len()).unwrap_or(u32::MAX));
    }
    live
}
