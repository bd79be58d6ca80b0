//! Activation in waves, and putting back what this run had switched.

use std::time::{Duration, Instant};

use super::{Deploy, Member};
use crate::command::activation;
use crate::command::failure::{self, HostFailure};
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::scene::Ended;
use crate::config::environment::{CheckProbe, Environment, OnFailure};
use crate::event::{Event, Status, Step};
use crate::exit::Exit;
use crate::fleet::{self, Done, Tally, each};
use crate::host::Host;
use crate::release::ReleaseId;
use crate::rollout::{self, AfterWave, Amount};
use crate::stage::remote::{self, Recipe, RemoteError};

impl Deploy<'_> {
    /// Activates in waves; a failing one is put back together with all that this run switched, unless the policy says otherwise.
    pub(super) async fn activate(
        &self,
        local: &Material,
        ready: Vec<Member>,
        all: &[Host],
        mut failures: Vec<HostFailure>,
        budget: usize,
    ) -> Ended {
        let amounts: Vec<Amount> = self.environment.waves.iter().filter_map(|text| Amount::parse(text).ok()).collect();
        let sizes = rollout::waves(&amounts, ready.len());
        let tally = Tally::new(self.events, ready.len());
        let mut switched: Vec<&Member> = Vec::new();
        let mut rest = ready.as_slice();
        let mut verdict = AfterWave::Continue;
        let mut confirmed: Vec<String> = Vec::new();
        let waves = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
        for (wave_number, size) in (1_u32..).zip(sizes) {
            if let Some(exit) = self.interrupt.asked() {
                // What failed in an earlier wave is told by the endings below.
                if switched.is_empty() && !failures.iter().any(|failure| failure.step >= Step::Activate) {
                    return self.interrupted(exit, all).await;
                }
                verdict = match self.environment.on_failure {
                    OnFailure::Rollback => AfterWave::Rollback,
                    OnFailure::Stop | OnFailure::Continue => AfterWave::Stop,
                };
                break;
            }
            let (wave, later) = rest.split_at(size);
            rest = later;
            let names: Vec<String> = wave.iter().map(|member| member.host.name().to_owned()).collect();
            if waves > 1 {
                self.events.emit(Event::WaveStarted { wave: wave_number, waves, hosts: names.clone() });
            }
            let began = Instant::now();
            let results = each(wave, usize::MAX >> 4, |member| self.activate_one(member, local, &tally)).await;
            let mut failed_in_wave = 0;
            for (member, result) in wave.iter().zip(results) {
                match result {
                    Ok(()) => {
                        confirmed.push(member.host.name().to_owned());
                        switched.push(member);
                    }
                    Err((failure, is_switched)) => {
                        failed_in_wave += 1;
                        failures.push(failure);
                        if is_switched {
                            switched.push(member);
                        }
                    }
                }
            }
            if waves > 1 {
                let failed = u32::try_from(failed_in_wave).unwrap_or(u32::MAX);
                let ok = u32::try_from(size - failed_in_wave).unwrap_or(u32::MAX);
                let secs = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
                self.events.emit(Event::WaveFinished { wave: wave_number, waves, hosts: names, ok, failed, secs, summary: String::new() });
            }
            verdict = rollout::after_wave(self.environment.on_failure, failed_in_wave, failures.len() - self.skipped(&failures), budget);
            if verdict != AfterWave::Continue {
                break;
            }
        }
        for _ in rest {
            tally.absent(&[Step::Activate, Step::Check]);
        }
        match verdict {
            AfterWave::Rollback => self.put_back(&switched, all, failures).await,
            AfterWave::Continue | AfterWave::Stop => self.finished(local, all, &ready, failures, &confirmed).await,
        }
    }

    /// Activates, checks and confirms one host. On failure the flag says whether `current` was switched.
    pub(super) async fn activate_one(&self, member: &Member, local: &Material, tally: &Tally<'_>) -> Result<(), (HostFailure, bool)> {
        let name = member.host.name();
        let values = self.values(member, local);
        let recipe = Recipe { environment: self.environment, release: &member.release, values: &values, durable: true };
        tally.begin(Step::Activate);
        let began = Instant::now();
        let activated = remote::activate(&member.host, &recipe, member.plan.live.as_ref(), false, self.events).await;
        let has_check = self.environment.check.is_some();
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        match &activated {
            Ok((activated, tries)) => {
                let detail = Some(format!("current → {}", member.release));
                tally.record(name, Step::Activate, Status::Ok, seconds(activated.activation_ms), Done { detail, ..Done::default() });
                if has_check {
                    let detail = Some(describe_check(self.environment, *tries));
                    tally.record(name, Step::Check, Status::Ok, seconds(activated.check_ms), Done { detail, ..Done::default() });
                } else {
                    tally.absent(&[Step::Check]);
                }
            }
            Err(error @ RemoteError::Check { .. }) => {
                tally.record(name, Step::Activate, Status::Ok, 0.0, Done::default());
                let done = Done { detail: Some(error.to_string()), ..Done::default() };
                tally.record(name, Step::Check, Status::Failed, began.elapsed().as_secs_f64(), done);
            }
            Err(error) => {
                let command = self.environment.activate.as_ref().map(|run| outcome::command_words(&run.command)).unwrap_or_default();
                tally.record(
                    name,
                    Step::Activate,
                    Status::Failed,
                    began.elapsed().as_secs_f64(),
                    failure::describe_command(Some(error), command),
                );
                tally.absent(&[Step::Check]);
            }
        }
        match activated {
            Ok(_) => match remote::confirm(&member.host, &member.release).await {
                Ok(()) => Ok(()),
                Err(error) => Err((failure::remote(name, Step::Confirm, &error), true)),
            },
            Err(error) => {
                let step = if matches!(error, RemoteError::Check { .. }) { Step::Check } else { Step::Activate };
                let is_switched = activation::is_switched(&member.host, &member.release, &error).await;
                Err((failure::remote(name, step, &error), is_switched))
            }
        }
    }

    /// Puts back every host this run switched, each to its own previous release. One that fails does not stop the others.
    pub(super) async fn put_back(&self, switched: &[&Member], all: &[Host], mut failures: Vec<HostFailure>) -> Ended {
        let reason = match failures.iter().find(|failure| failure.step >= Step::Activate) {
            Some(failure) => format!("{} failed on {}: {}", failure.step.name(), failure.host, failure.message),
            None => "the run was interrupted".to_owned(),
        };
        let tally = Tally::new(self.events, switched.len());
        let tried: Vec<(&str, &ReleaseId)> = switched.iter().map(|member| (member.host.name(), &member.release)).collect();
        let results = each(switched.iter(), usize::MAX >> 4, |member| {
            let bad = is_bad((member.host.name(), &member.release), &tried, &failures);
            let work = remote::revert(&member.host, &member.release, &reason, bad, self.events);
            tally.step(member.host.name(), Step::Revert, work, |result| Done {
                detail: Some(match result {
                    Ok(activated) => {
                        activated.to.as_ref().map_or_else(|| "no current, as before".to_owned(), |to| format!("current → {to}"))
                    }
                    Err(error) => error.to_string(),
                }),
                ..Done::default()
            })
        })
        .await;
        let mut reverted = 0;
        for (member, result) in switched.iter().zip(results) {
            match result {
                Ok(_) => reverted += 1,
                Err(error) => failures.push(failure::remote(member.host.name(), Step::Revert, &error)),
            }
        }
        fleet::refresh(all).await;
        let whole = reverted == switched.len() && !failures.iter().any(HostFailure::is_unknown);
        let exit = if whole { Exit::RolledBack } else { Exit::Partial };
        let live = activation::live(all, &failures);
        let state = outcome::serving(&self.environment.name, "runs", &live);
        let first = if whole { "Rolled back." } else { "NOT wholly rolled back." };
        let mut error = outcome::explain(exit, &failures, self.environment.targets.len(), state.clone());
        if failures.is_empty() {
            "the run was interrupted during activation".clone_into(&mut error.what);
        }
        let next = self.look_at(&failures);
        Ended { exit, error: Some(error), live, ok: 0, failed: failures.len(), summary: format!("{first} {state}."), next }
    }
}

/// Tells whether a release that is put back on a host is never to be chosen again by itself: it did not hold there, or the same release
/// was tried on another host and did not hold. That a run was interrupted, or that another host was lost, is nothing against it.
fn is_bad(here: (&str, &ReleaseId), tried: &[(&str, &ReleaseId)], failures: &[HostFailure]) -> bool {
    let (host, release) = here;
    failures.iter().any(|failure| match failure.step {
        Step::Activate | Step::Check if failure.host == host => true,
        Step::Activate | Step::Check => !failure.lost && tried.contains(&(failure.host.as_str(), release)),
        Step::Confirm => failure.host == host,
        Step::Mirror
        | Step::Resolve
        | Step::Export
        | Step::Connect
        | Step::Lock
        | Step::Push
        | Step::Cache
        | Step::Link
        | Step::Build
        | Step::Revert
        | Step::Prune
        | Step::Setup
        | Step::Fill
        | Step::Run => false,
    })
}

fn describe_check(environment: &Environment, tries: u32) -> String {
    let tries = remote::tries_words(tries);
    match environment.check.as_ref().map(|check| &check.probe) {
        Some(CheckProbe::Url { url, .. }) => format!("GET {url}, {tries}"),
        Some(CheckProbe::Run(_)) | None => tries,
    }
}
