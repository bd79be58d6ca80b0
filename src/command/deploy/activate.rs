//! Activation in waves: who is admitted when, and what stops it.

use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::health::Health;
use super::hooks::{self, Told};
use super::{Deploy, Member};
use crate::command::activation::{self, NotActivated, Switch};
use crate::command::failure::{self, HostFailure};
use crate::command::material::Material;
use crate::command::scene::Ended;
use crate::config::environment::Moment;
use crate::event::{Event, Step};
use crate::exit::Exit;
use crate::fleet::Tally;
use crate::host::Host;
use crate::rollout::{self, Admission, Halt, Rollout, Verdict};

/// How far the waves came.
struct Progress<'m> {
    rollout: Rollout,
    /// Hosts that serve the new release, confirmed or not.
    switched: Vec<&'m Member>,
    /// Whether any host was, put back since or not.
    has_switched: bool,
    confirmed: Vec<String>,
    failures: Vec<HostFailure>,
    begun: usize,
    /// The wave that was begun and did not end well.
    undrained: Option<Wave<'m>>,
    /// What ended it, where that was no host's failure.
    why: Option<String>,
}

/// One wave of several.
#[derive(Clone, Copy)]
pub(super) struct Wave<'m> {
    pub number: u32,
    pub of: u32,
    pub members: &'m [Member],
}

impl Wave<'_> {
    fn places(&self) -> Vec<hooks::Place<'_>> {
        self.members.iter().map(|member| (&member.host, &member.release)).collect()
    }

    /// What a hook is told of the wave.
    fn told(self) -> Told {
        let told = [
            ("DEPLOYER_WAVE", self.number.to_string()),
            ("DEPLOYER_WAVES", self.of.to_string()),
            ("DEPLOYER_WAVE_HOSTS", self.names().join(" ")),
        ];
        told.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn names(self) -> Vec<String> {
        self.members.iter().map(|member| member.host.name().to_owned()).collect()
    }
}

impl Deploy<'_> {
    /// Activates in waves; a failing one is put back together with all that this run switched, unless the policy says otherwise.
    pub(super) async fn activate(&self, local: &Material, mut ready: Vec<Member>, all: &[Host], failures: Vec<HostFailure>) -> Ended {
        let sizes = rollout::waves(&self.environment.waves, ready.len());
        let health = match self.interrupt.until(self.examine(all, sizes.len())).await {
            Ok(health) => health,
            Err(exit) => return self.interrupted(exit, all),
        };
        let places: Vec<hooks::Place<'_>> = ready.iter().map(|member| (&member.host, &member.release)).collect();
        match self.interrupt.until(self.hooks_of(Moment::BeforeActivate, &places, local, &[])).await {
            Ok(failed) if failed.is_empty() => {}
            Ok(failed) => return self.not_activated(all, &[failures, failed].concat(), None),
            Err(exit) => return self.interrupted(exit, all),
        }
        rollout::unwell_first(&mut ready, |member| health.is_well(member.host.name()));
        self.tell_unwell(&health, &ready);
        let counted = failures.len() - self.skipped(&failures);
        let mut progress = Progress {
            rollout: Rollout::new(self.limits(), health.well, counted),
            switched: Vec::new(),
            has_switched: false,
            confirmed: Vec::new(),
            failures,
            begun: 0,
            undrained: None,
            why: None,
        };
        let tally = Tally::new(self.events, ready.len());
        let mut rest = ready.as_slice();
        let mut verdict = Verdict::Complete;
        let of = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
        for (number, size) in (1_u32..).zip(sizes) {
            let (members, later) = rest.split_at(size);
            rest = later;
            if number > 1 {
                self.pause(number).await;
            }
            let asked = self.interrupt.asked();
            if let Some(exit) = asked
                && !progress.has_begun()
            {
                return self.interrupted(exit, all);
            }
            verdict = match asked {
                Some(_) => progress.interrupted(self),
                None => self.whole_wave(Wave { number, of, members }, local, &health, &tally, &mut progress).await,
            };
            if verdict != Verdict::Complete {
                break;
            }
        }
        for _ in progress.begun..ready.len() {
            tally.absent(&activation::STEPS);
        }
        let Progress { switched, has_switched, confirmed, mut failures, why, undrained, .. } = progress;
        let ended = match verdict {
            // Whatever failed did so before anything was switched.
            Verdict::Rollback | Verdict::Stop if !has_switched && !failures.iter().any(HostFailure::is_unknown) => {
                match self.interrupt.asked() {
                    Some(exit) if why.is_some() => self.interrupted(exit, all),
                    Some(_) | None => self.not_activated(all, &failures, why),
                }
            }
            Verdict::Rollback => self.put_back(&switched, all, (&local.label(), &mut failures), why).await,
            Verdict::Complete => {
                let places: Vec<hooks::Place<'_>> = ready.iter().map(|member| (&member.host, &member.release)).collect();
                let failed = self.hooks_of(Moment::AfterDeploy, &places, local, &[]).await;
                self.finished(local, all, &ready, [&*failures, &*failed].concat(), &confirmed, why).await
            }
            Verdict::Stop => self.finished(local, all, &ready, failures.clone(), &confirmed, why).await,
        };
        // What was taken out of service for a wave that did not end well comes back when its hosts have.
        if let Some(wave) = undrained {
            for failure in self.after_wave(wave, local, ended.exit, &failures).await {
                self.warn("hook", format!("hook failed: {}", failure.message), vec![failure.host]);
            }
        }
        ended
    }

    /// One wave between its hooks. A wave that is broken off is left to whoever puts its hosts back: `undrained`.
    async fn whole_wave<'m>(
        &self,
        wave: Wave<'m>,
        local: &Material,
        health: &Health,
        tally: &Tally<'_>,
        progress: &mut Progress<'m>,
    ) -> Verdict {
        let broken_off = rollout::broken_off(self.environment.on_failure);
        progress.undrained = Some(wave);
        match self.interrupt.until(self.hooks_of(Moment::BeforeWave, &wave.places(), local, &wave.told())).await {
            Ok(failed) if failed.is_empty() => {}
            Ok(failed) => {
                progress.failures.extend(failed);
                return broken_off;
            }
            Err(_) => return progress.interrupted(self),
        }
        let before = progress.failures.len();
        let verdict = self.wave(wave, local, health, tally, progress).await;
        if verdict != Verdict::Complete {
            return verdict;
        }
        progress.undrained = None;
        let failed = &progress.failures[before..];
        let result = if failed.is_empty() { Exit::Ok } else { Exit::Partial };
        let failed = self.after_wave(wave, local, result, failed).await;
        let verdict = if failed.is_empty() { Verdict::Complete } else { broken_off };
        progress.failures.extend(failed);
        verdict
    }

    /// Tells the hooks how the wave ended, and which of its hosts could not be put back: a load balancer must not take those.
    async fn after_wave(&self, wave: Wave<'_>, local: &Material, result: Exit, failures: &[HostFailure]) -> Vec<HostFailure> {
        let unwell =
            |name: &String| failures.iter().any(|failure| failure.host == *name && (failure.step == Step::Revert || failure.is_unknown()));
        let unwell: Vec<String> = wave.names().into_iter().filter(unwell).collect();
        let unwell = vec![("DEPLOYER_WAVE_UNWELL".to_owned(), unwell.join(" "))];
        self.hooks_of(Moment::AfterWave, &wave.places(), local, &[wave.told(), hooks::result(result.name()), unwell].concat()).await
    }

    /// Switches the hosts of one wave, as many at once as may be missing.
    async fn wave<'m>(&self, wave: Wave<'m>, local: &Material, health: &Health, tally: &Tally<'_>, progress: &mut Progress<'m>) -> Verdict {
        let Wave { number, of, members } = wave;
        if of > 1 {
            self.events.emit(Event::WaveStarted { wave: number, waves: of, hosts: wave.names() });
        }
        let began = Instant::now();
        let (failed_before, well_before, begun_before) = (progress.failures.len(), progress.confirmed.len(), progress.begun);
        let (halt, failed_here) = self.switch(members, local, health, tally, progress).await;
        if of > 1 {
            let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let (ok, failed) = (progress.confirmed.len() - well_before, progress.failures.len() - failed_before);
            let left = members.len() - ok - failed;
            self.events.emit(Event::WaveFinished {
                wave: number,
                waves: of,
                hosts: wave.names(),
                ok: count(ok),
                failed: count(failed),
                secs: (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
                summary: if left > 0 { format!("{left} not begun") } else { String::new() },
            });
        }
        let verdict = match halt {
            Some(Halt::Failures) => rollout::broken_off(self.environment.on_failure),
            Some(Halt::TooFewHealthy) => {
                progress.why = Some(self.too_few_healthy());
                rollout::broken_off(self.environment.on_failure)
            }
            None if progress.begun - begun_before < members.len() => progress.interrupted(self),
            None => Verdict::Complete,
        };
        if verdict != Verdict::Rollback {
            // Those that failed go back by themselves at their deadline; nobody has to wait for that, or be told of it later.
            progress.failures.extend(self.put_back_failed(&failed_here, &progress.failures).await);
            progress.switched.retain(|member| !failed_here.iter().any(|failed| failed.host.name() == member.host.name()));
        }
        if verdict == Verdict::Complete {
            failure::tolerate(&mut progress.failures);
        }
        verdict
    }

    /// Admits host after host, and says what stopped that, and which hosts are switched and have failed.
    async fn switch<'m>(
        &self,
        members: &'m [Member],
        local: &Material,
        health: &Health,
        tally: &Tally<'_>,
        progress: &mut Progress<'m>,
    ) -> (Option<Halt>, Vec<&'m Member>) {
        let mut waiting = members.iter().peekable();
        let mut at_work = FuturesUnordered::new();
        let mut failed = Vec::new();
        loop {
            let next = waiting.peek().filter(|_| self.interrupt.asked().is_none());
            match progress.rollout.admit_next(next.map(|member| health.is_well(member.host.name()))) {
                Admission::Admit => {
                    progress.begun += 1;
                    at_work.extend(waiting.next().map(|member| async move { (member, self.activate_one(member, local, tally).await) }));
                }
                Admission::Wait => {
                    let Some((member, result)) = at_work.next().await else { return (None, failed) };
                    progress.rollout.ended(result.is_ok());
                    match result {
                        Ok(()) => {
                            progress.confirmed.push(member.host.name().to_owned());
                            progress.switched.push(member);
                            progress.has_switched = true;
                        }
                        Err(NotActivated { failure, is_switched }) => {
                            progress.failures.push(failure);
                            if is_switched {
                                progress.has_switched = true;
                                progress.switched.push(member);
                                failed.push(member);
                            }
                        }
                    }
                }
                Admission::Done => return (None, failed),
                Admission::Halt(halt) => return (Some(halt), failed),
            }
        }
    }

    /// Lets the hosts that are switched serve for a while, unless the run is asked to stop.
    async fn pause(&self, next: u32) {
        let pause = self.environment.pause;
        if pause.is_zero() || self.interrupt.asked().is_some() {
            return;
        }
        self.events.emit(Event::WavePaused { wave: next, secs: pause.as_secs_f64() });
        let _ = self.interrupt.until(tokio::time::sleep(pause)).await;
    }

    /// Activates, checks and confirms one host.
    async fn activate_one(&self, member: &Member, local: &Material, tally: &Tally<'_>) -> Result<(), NotActivated> {
        let switch = Switch {
            host: &member.host,
            environment: self.environment.of(member.host.target()),
            release: &member.release,
            values: self.values(member, local),
            expect: member.plan.live.as_ref(),
            rollback: false,
        };
        if let Err(failure) = self.hooks_on(Moment::BeforeActivate, member, local).await {
            tally.absent(&activation::STEPS);
            return Err(NotActivated { failure, is_switched: false });
        }
        switch.activate(tally, self.events).await?;
        if let Err(failure) = self.hooks_on(Moment::AfterActivate, member, local).await {
            tally.absent(&[Step::Confirm]);
            return Err(NotActivated { failure: HostFailure { is_switched: true, ..failure }, is_switched: true });
        }
        switch.confirm(tally).await
    }
}

impl Progress<'_> {
    /// Whether some host may not be as it was.
    fn has_begun(&self) -> bool {
        // What failed in an earlier wave is told by the endings of a rollout.
        !self.switched.is_empty() || self.failures.iter().any(|failure| failure.step >= Step::Activate)
    }

    fn interrupted(&mut self, deploy: &Deploy<'_>) -> Verdict {
        self.why = Some("the run was interrupted during activation".to_owned());
        rollout::broken_off(deploy.environment.on_failure)
    }
}
