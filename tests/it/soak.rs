//! For as long as asked (`scripts/soak`): deploys over real sshds that are interrupted in any way at any moment, again and again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::running::Running;
use crate::whole::Stage;

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];
const HOSTS: [&str; 3] = ["app1", "app2", "app3"];
/// How many turns of a hundred are interrupted.
const FORCED: u32 = 85;

/// How long a host that does not answer does not.
const PAUSE: Duration = Duration::from_millis(500);

/// A row of numbers that can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % end
    }
}

/// What happens to a run.
#[derive(Clone, Copy, Debug)]
enum Interruption {
    Signal(Signal),
    /// The connections of a host are cut.
    Cut(usize),
    /// A host stops answering, and comes back.
    Pause(usize),
}

impl Interruption {
    fn any(chance: &mut Chance) -> Self {
        let host = chance.below(3) as usize;
        match chance.below(8) {
            0..=2 => Self::Signal(Signal::KILL),
            3 => Self::Signal(Signal::INT),
            4 => Self::Signal(Signal::TERM),
            5 | 6 => Self::Cut(host),
            _ => Self::Pause(host),
        }
    }

    fn happen(self, stage: &Stage, running: &Running) {
        match self {
            Self::Signal(signal) => running.signal(signal),
            Self::Cut(host) => stage.world.sandbox.host(HOSTS[host]).unwrap().cut(),
            Self::Pause(host) => {
                let connections = stage.world.sandbox.host(HOSTS[host]).unwrap().connections();
                for signal in [Signal::STOP, Signal::CONT] {
                    for connection in &connections {
                        // It may have ended by itself.
                        let _ = kill_process(*connection, signal);
                    }
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}

#[test]
#[ignore = "takes as long as `DEPLOYER_SOAK` says, in seconds: `scripts/soak`"]
fn whatever_interrupts_a_deploy_the_hosts_are_whole_and_the_same_command_completes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let end = Instant::now() + Duration::from_secs(number("DEPLOYER_SOAK").unwrap_or(60));
    let seed = number("DEPLOYER_SOAK_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    eprintln!("DEPLOYER_SOAK_SEED={seed}");
    let mut chance = Chance(seed);
    let (mut runs, mut interrupted, mut kills, mut violations) = (0, 0, 0, Vec::new());
    for session in ["ssh2", "openssh"].into_iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        let stage = Stage::ssh(session, &HOSTS, "waves = [\"1\", \"100%\"]\nkeep-releases = 2\n");
        stage.commit("first\n");
        let began = Instant::now();
        stage.settles("first\n");
        let cycle = began.elapsed();
        // Ten turns, then new hosts.
        for turn in 0..10 {
            let app = format!("{session} {turn}\n");
            stage.commit(&app);
            let mut running = Running::start(&stage.world, &DEPLOY);
            runs += 1;
            let mut what = None;
            if chance.below(100) < FORCED {
                let interruption = Interruption::any(&mut chance);
                thread::sleep(cycle.mul_f64(f64::from(chance.below(1100)) / 1000.0));
                interruption.happen(&stage, &running);
                interrupted += 1;
                what = Some(interruption);
            }
            while running.next().is_some() {}
            let is_killed = running.kill();
            kills += u32::from(is_killed);
            // Some are gone on with at once, the others when everybody is at rest; some by the next turn.
            let goes_on = chance.below(3);
            let looked = catch_unwind(AssertUnwindSafe(|| {
                if goes_on > 0 {
                    stage.rests();
                }
                if goes_on > 1 {
                    stage.completes(&app);
                }
            }));
            if let Err(panic) = looked {
                let told = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                violations.push(format!("{session}, turn {turn} after {what:?}: {told}"));
                break;
            }
            if Instant::now() >= end {
                break;
            }
        }
    }
    eprintln!("soak: {runs} runs, {interrupted} interrupted ({kills} killed), {} violations", violations.len());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
