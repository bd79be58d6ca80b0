//! All hosts' locks or none: taking them, waiting for them while holding nothing, and telling who has them.

use std::time::{Duration, Instant};

use crate::command::failure;
use crate::command::outcome;
use crate::command::scene::{self, Scene};
use crate::config::{quantity, ranges};
use crate::error::Error;
use crate::event::{Event, Events, Severity, Step};
use crate::exit::Exit;
use crate::figures;
use crate::fleet::each;
use crate::host::{Host, HostError};
use crate::op::{Answer, Hold, Locked, Op, RunInfo};
use crate::report::RunStore;

/// How trying for all locks at once went.
pub enum Attempt {
    Taken,
    /// Nobody holds anything.
    Refused(Error),
}

/// Why the locks were not taken.
enum Refusal {
    /// Others are in the way: who, on which host.
    Locked(Vec<(String, Obstacle)>),
    Failed(Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    Run(RunInfo),
    Hold(Hold),
}

/// Tries in all, where other runs hold some of the hosts: two that begin at the same moment may each take a part and refuse the other.
const TRIES: u32 = 4;
/// What the helper of one's own run needs to notice that its run is gone, and to end what it left behind.
const OWN_PATIENCE: Duration = Duration::from_secs(30);

/// Tries to lock every host; on any refusal all that was taken is let go.
pub async fn take(scene: &Scene, hosts: &[Host], what: &str) -> Attempt {
    match try_all(hosts, &scene.run_info(what)).await {
        Ok(_) => Attempt::Taken,
        Err(Refusal::Failed(error)) => Attempt::Refused(error),
        Err(Refusal::Locked(obstacles)) => Attempt::Refused(explain(scene, hosts, &obstacles).await),
    }
}

/// Locks every host as `take` does, and waits for those that have them, as long as was asked: who that is is told, once and whenever it
/// changes. A run of one's own that is gone is waited for in any case, because its lock goes within seconds. `again` is the command that
/// waits.
pub async fn take_waiting(
    scene: &Scene,
    hosts: &[Host],
    what: &str,
    wait: Option<Duration>,
    again: &str,
    events: &Events,
) -> Result<bool, Error> {
    let began = Instant::now();
    let mut told = Vec::new();
    loop {
        let obstacles = match try_all(hosts, &scene.run_info(what)).await {
            Ok(moved) => return Ok(moved),
            Err(Refusal::Failed(error)) => return Err(error),
            Err(Refusal::Locked(obstacles)) => obstacles,
        };
        let is_own = is_own_and_gone(scene, &obstacles);
        let patience = if is_own { wait.unwrap_or_default().max(OWN_PATIENCE) } else { wait.unwrap_or_default() };
        if began.elapsed() >= patience {
            let mut error = explain(scene, hosts, &obstacles).await;
            error.hints.insert(0, format!("wait: {again} --wait-lock 15m"));
            return Err(error);
        }
        if obstacles != told {
            events.emit(waiting(&obstacles, patience.saturating_sub(began.elapsed()), is_own));
            told = obstacles;
        }
        tokio::time::sleep(Duration::from_millis(400 + chance(600))).await;
    }
}

/// Lets go of every lock.
pub async fn unlock(hosts: &[Host]) {
    each(hosts, usize::MAX >> 4, |host| host.ask(Op::Unlock)).await;
}

/// Names the lock of a run, for `lock release --id`: the part of the run's id that is random.
#[must_use]
pub fn lock_id(run: &str) -> &str {
    run.rsplit('-').next().unwrap_or(run)
}

async fn try_all(hosts: &[Host], run: &RunInfo) -> Result<bool, Refusal> {
    for _ in 1..TRIES {
        match try_once(hosts, run).await {
            // A part of the hosts was free: whoever else tries at this moment may see the same.
            Err(Refusal::Locked(obstacles)) if obstacles.len() < hosts.len() && obstacles.iter().all(|(_, by)| by.is_run()) => {}
            result => return result,
        }
        tokio::time::sleep(Duration::from_millis(50 + chance(250))).await;
    }
    try_once(hosts, run).await
}

/// One try.
async fn try_once(hosts: &[Host], run: &RunInfo) -> Result<bool, Refusal> {
    let answers = each(hosts, usize::MAX >> 4, |host| host.ask(Op::Lock(run.clone()))).await;
    let mut moved = false;
    let (mut obstacles, mut failed) = (Vec::new(), None);
    for (host, answer) in hosts.iter().zip(&answers) {
        let error = match answer {
            Ok(Answer::Locked(Locked::Yes { epoch, recovered })) => {
                let facts = host.facts();
                let was_at_rest = facts.holder.is_none() && facts.unresolved.is_none();
                moved |= !recovered.is_empty() || !was_at_rest || *epoch != facts.epoch + 1;
                continue;
            }
            // Two hosts without an id yet, or two paths to one root: only the lock tells.
            Ok(Answer::Locked(Locked::Busy(holder))) if holder.run == run.run => {
                let what = format!("`{}` is another name of a host and root that this run has locked", host.name());
                Error::new(Exit::Config, "twins", what).hint("remove one of the two names from deploy.toml")
            }
            Ok(Answer::Locked(Locked::Busy(holder))) => {
                obstacles.push((host.name().to_owned(), Obstacle::Run(holder.clone())));
                continue;
            }
            Ok(Answer::Locked(Locked::Held(hold))) => {
                obstacles.push((host.name().to_owned(), Obstacle::Hold(hold.clone())));
                continue;
            }
            Ok(other) => Error::new(Exit::Internal, "protocol", HostError::unexpected(host.name(), other).to_string()),
            Err(error) => {
                let mut failure = outcome::explain(Exit::BuildFailed, &[failure::host(host.name(), Step::Lock, error)], 1, String::new());
                failure.state = None;
                failure
            }
        };
        failed.get_or_insert(error);
    }
    if failed.is_none() && obstacles.is_empty() {
        return Ok(moved);
    }
    let is_taken = |answer: &Result<Answer, HostError>| matches!(answer, Ok(Answer::Locked(Locked::Yes { .. })));
    let taken: Vec<Host> = hosts.iter().zip(&answers).filter(|(_, answer)| is_taken(answer)).map(|(host, _)| host.clone()).collect();
    unlock(&taken).await;
    Err(failed.map_or(Refusal::Locked(obstacles), Refusal::Failed))
}

impl Obstacle {
    const fn is_run(&self) -> bool {
        matches!(self, Self::Run(_))
    }

    /// Says who is in the way: `ada@laptop, run …, deploying a1b2c3d`.
    #[must_use]
    pub fn who(&self) -> String {
        match self {
            Self::Run(run) => format!("{}, run {}, {}", run.by, run.run, run.what),
            Self::Hold(hold) => format!("{}: {}", hold.by, hold.reason),
        }
    }

    /// The id that `lock release` takes.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Run(run) => lock_id(&run.run),
            Self::Hold(hold) => &hold.id,
        }
    }
}

/// Tells whether nothing is in the way but runs of this person from this machine whose program is gone.
fn is_own_and_gone(scene: &Scene, obstacles: &[(String, Obstacle)]) -> bool {
    obstacles.iter().all(|(_, obstacle)| match obstacle {
        Obstacle::Run(run) => run.by == scene.actor && RunStore::is_over(&scene.directories.state, &run.run),
        Obstacle::Hold(_) => false,
    })
}

fn waiting(obstacles: &[(String, Obstacle)], patience: Duration, is_own: bool) -> Event {
    let at_most = quantity::show_duration(Duration::from_secs(patience.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)));
    let held = |obstacle: &Obstacle| if obstacle.is_run() { "held" } else { "on hold" };
    let who = |(hosts, obstacle): (String, &Obstacle)| format!("{hosts}, {} by {}", held(obstacle), obstacle.who());
    let who: Vec<String> = grouped(obstacles).into_iter().map(who).collect();
    let message = if is_own {
        format!("your own earlier run has ended, and its lock goes within {at_most}: {}", who.join("; "))
    } else {
        format!("waiting at most {at_most} for {}", who.join("; "))
    };
    Event::Diagnostic {
        severity: Severity::Note,
        code: "waiting".to_owned(),
        message,
        hosts: obstacles.iter().map(|(host, _)| host.clone()).collect(),
        evidence: Vec::new(),
        state: None,
        help: Vec::new(),
    }
}

/// Puts hosts with the same in their way together.
fn grouped(obstacles: &[(String, Obstacle)]) -> Vec<(String, &Obstacle)> {
    let mut groups: Vec<(Vec<String>, &Obstacle)> = Vec::new();
    for (host, obstacle) in obstacles {
        match groups.iter_mut().find(|(_, other)| other.id() == obstacle.id()) {
            Some((hosts, _)) => hosts.push(host.clone()),
            None => groups.push((vec![host.clone()], obstacle)),
        }
    }
    groups.into_iter().map(|(hosts, obstacle)| (ranges::fold(&hosts), obstacle)).collect()
}

/// The error that tells who is in the way, since when, and what can be done about it.
async fn explain(scene: &Scene, hosts: &[Host], obstacles: &[(String, Obstacle)]) -> Error {
    let environment = &scene.environment.name;
    let groups = grouped(obstacles);
    let (code, verb) = match &groups[..] {
        [(_, Obstacle::Hold(_)), ..] => ("hold", "on hold"),
        [(_, Obstacle::Run(_)), ..] | [] => ("locked", "locked"),
    };
    let place = if obstacles.len() == hosts.len() {
        String::new()
    } else {
        let names: Vec<String> = obstacles.iter().map(|(host, _)| host.clone()).collect();
        format!(" on {} ({} of {} hosts)", ranges::fold(&names), names.len(), hosts.len())
    };
    let mut error = Error::new(Exit::Locked, code, format!("{environment} is {verb}{place}"));
    error.hosts = obstacles.iter().map(|(host, _)| host.clone()).collect();
    error.hints.push(format!("look: deployer lock status -e {environment}"));
    for (names, obstacle) in &groups {
        let lead = if groups.len() > 1 { format!("{names} | ") } else { String::new() };
        let label = if obstacle.is_run() { "holder" } else { "hold  " };
        error.evidence.push(format!("{lead}{label}  {}", obstacle.who()));
        let (since, end) = match obstacle {
            Obstacle::Run(run) => {
                let heard = heard(hosts, obstacles, obstacle).await.map(|secs| format!(", last heard of {} ago", figures::age(secs)));
                let since = format!("{}{}; the lock goes when that run ends or dies", scene::ago(run.since), heard.unwrap_or_default());
                (since, "end it")
            }
            Obstacle::Hold(hold) => (format!("{}, id {}", scene::ago(hold.since), hold.id), "lift it"),
        };
        error.evidence.push(format!("{lead}since   {since}"));
        error.hints.push(format!("{end}: deployer lock release -e {environment} --id {} --confirm={environment}", obstacle.id()));
    }
    error
}

/// Asks one of its hosts when the holder last heard of its controller.
async fn heard(hosts: &[Host], obstacles: &[(String, Obstacle)], obstacle: &Obstacle) -> Option<i64> {
    let (name, _) = obstacles.iter().find(|(_, other)| other.id() == obstacle.id())?;
    match hosts.iter().find(|host| host.name() == name)?.ask(Op::LockState).await {
        Ok(Answer::LockState(state)) => state.heard,
        Ok(_) | Err(_) => None,
    }
}

fn chance(below: u64) -> u64 {
    u64::from(getrandom::u32().unwrap_or_else(|_| std::process::id())) % below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str) -> Obstacle {
        Obstacle::Run(RunInfo { run: id.into(), by: "ada@laptop".into(), what: "deploying a1b2c3d".into(), since: 0 })
    }

    #[test]
    fn hosts_with_the_same_in_their_way_are_told_together() {
        let obstacles = [("app1".to_owned(), run("r-1")), ("app2".to_owned(), run("r-2")), ("app3".to_owned(), run("r-1"))];
        let groups = grouped(&obstacles);
        let told: Vec<(&str, &str)> = groups.iter().map(|(hosts, obstacle)| (hosts.as_str(), obstacle.id())).collect();
        assert_eq!(told, [("app[1,3]", "1"), ("app2", "2")]);
        let Event::Diagnostic { message, hosts, .. } = waiting(&obstacles[..1], Duration::from_secs(900), false) else { panic!() };
        assert_eq!(message, "waiting at most 15m for app1, held by ada@laptop, run r-1, deploying a1b2c3d");
        assert_eq!(hosts, ["app1"]);
    }

    #[test]
    fn the_id_of_a_lock_is_the_random_end_of_its_run() {
        assert_eq!(lock_id("20261123T054407-7f3a91"), "7f3a91");
        assert_eq!(lock_id("odd"), "odd");
    }
}
