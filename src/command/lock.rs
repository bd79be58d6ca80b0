//! `lock`: who holds which host, putting an environment on hold, and lifting what is in the way by its id. A hold is on all hosts or on
//! none; a lock is never removed, its holder is ended.

use crate::cli::{self, Common};
use crate::command::confirm::confirm;
use crate::command::failure::{self, HostFailure};
use crate::command::locks::{self, Obstacle};
use crate::command::outcome;
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::config::ranges;
use crate::error::Error;
use crate::event::{Events, Step};
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet::{self, Connected, each};
use crate::host::{Host, HostError};
use crate::op::{Answer, Hold, LockState, Locked, Op, RunEnd};
use crate::report::escape;
use crate::report::locks::{LockRow, LocksView};

/// The longest reason that is worth reading on every refusal.
const REASON: usize = 300;
const NOTHING: &str = "nothing was changed";

/// Runs the verb.
pub async fn lock(common: &Common, verb: &cli::Lock) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    if let cli::Lock::Acquire { message, .. } = verb {
        check_reason(message)?;
    }
    let (events, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(&scene.environment, &events).await;
    let result = match verb {
        cli::Lock::Status => status(common, &scene, &connected).await,
        cli::Lock::Acquire { message, .. } => acquire(common, &scene, &connected, message).await,
        cli::Lock::Release { id, confirm, .. } => release(common, &scene, &connected, id, confirm.as_deref()).await,
    };
    fleet::close(&connected.hosts).await;
    result
}

fn check_reason(reason: &str) -> Result<(), Error> {
    if reason.trim().is_empty() || reason.chars().count() > REASON || reason.chars().any(char::is_control) {
        let what = format!("the message of a hold is a line of 1 to {REASON} characters");
        return Err(Error::new(Exit::Usage, "message", what).hint("say what it is for: `-m \"freeze for audit\"`"));
    }
    Ok(())
}

async fn states(hosts: &[Host]) -> Vec<Result<LockState, HostError>> {
    each(hosts, usize::MAX >> 4, |host| async move {
        match host.ask(Op::LockState).await? {
            Answer::LockState(state) => Ok(state),
            other => Err(HostError::unexpected(host.name(), &other)),
        }
    })
    .await
}

/// A hold that some hosts do not get, or a lock that is looked for where nobody answers, would be half of what was asked.
async fn all_states(scene: &Scene, connected: &Connected) -> Result<Vec<LockState>, Error> {
    if !connected.unreachable.is_empty() {
        let names: Vec<String> = connected.unreachable.iter().map(|(target, _)| format!("!{}", target.name)).collect();
        return Err(outcome::unreachable(connected, NOTHING.to_owned()).hint(format!("without: add -H '{}'", names.join(","))));
    }
    let states = states(&connected.hosts).await;
    let failures: Vec<HostFailure> = connected.hosts.iter().zip(&states).filter_map(|(host, state)| failed(host, state)).collect();
    if !failures.is_empty() {
        return Err(outcome::explain(Exit::Unreachable, &failures, scene.environment.targets.len(), NOTHING.to_owned()));
    }
    Ok(states.into_iter().filter_map(Result::ok).collect())
}

fn failed<T>(host: &Host, result: &Result<T, HostError>) -> Option<HostFailure> {
    result.as_ref().err().map(|error| failure::host(host.name(), Step::Lock, error))
}

async fn status(common: &Common, scene: &Scene, connected: &Connected) -> Result<Exit, Error> {
    let states = states(&connected.hosts).await;
    let mut rows = Vec::new();
    for target in &scene.environment.targets {
        let name = &target.name;
        if let Some((_, error)) = connected.unreachable.iter().find(|(other, _)| other.name == *name) {
            rows.push(LockRow::unknown(name, &format!("unreachable: {error}")));
        }
        let answered = connected.hosts.iter().zip(&states).find(|(host, _)| host.name() == name);
        rows.extend(answered.map(|(_, state)| match state {
            Ok(state) => row(name, state),
            Err(error) => LockRow::unknown(name, &error.to_string()),
        }));
    }
    let view = LocksView { env: scene.environment.name.clone(), rows };
    if common.json {
        print(&format!("{}\n", json(&view)?));
    } else {
        print(&view.text(scene.now, common.display().stdout()));
    }
    Ok(if connected.hosts.is_empty() { Exit::Unreachable } else { Exit::Ok })
}

fn row(host: &str, state: &LockState) -> LockRow {
    let hosts = vec![host.to_owned()];
    match (&state.holder, &state.hold) {
        (Some(run), _) => LockRow {
            hosts,
            state: "locked".to_owned(),
            id: Some(locks::lock_id(&run.run).to_owned()),
            run: Some(run.run.clone()),
            by: Some(run.by.clone()),
            since: Some(run.since),
            heard: state.heard,
            what: run.what.clone(),
        },
        (None, Some(hold)) => LockRow {
            hosts,
            state: "on hold".to_owned(),
            id: Some(hold.id.clone()),
            run: None,
            by: Some(hold.by.clone()),
            since: Some(hold.since),
            heard: None,
            what: hold.reason.clone(),
        },
        (None, None) => LockRow::free(host),
    }
}

async fn acquire(common: &Common, scene: &Scene, connected: &Connected, reason: &str) -> Result<Exit, Error> {
    let environment = &scene.environment.name;
    let states = all_states(scene, connected).await?;
    in_the_way(scene, connected, &states)?;
    let hold =
        Hold { id: locks::lock_id(&scene.run).to_owned(), by: scene.actor.clone(), reason: reason.trim().to_owned(), since: scene.now };
    let hosts = &connected.hosts;
    let answers = each(hosts, usize::MAX >> 4, |host| host.ask(Op::Hold(hold.clone()))).await;
    if answers.iter().any(|answer| !matches!(answer, Ok(Answer::Done))) {
        return Err(not_all(hosts, &answers, Op::Lift { id: hold.id.clone() }, "put on hold").await);
    }
    let lift = format!("deployer lock release -e {environment} --id {} --confirm={environment}", hold.id);
    let names: Vec<&str> = hosts.iter().map(Host::name).collect();
    let count = counted(hosts.len() as u64, "host");
    tell(
        common,
        &serde_json::json!({ "env": environment, "id": hold.id, "by": hold.by, "reason": hold.reason, "since": hold.since, "hosts": names }),
        &format!("{environment} is on hold: {count}, id {}\n  lift it  {lift}\n", hold.id),
    )
}

/// What is in the way already is told before anything is written.
fn in_the_way(scene: &Scene, connected: &Connected, states: &[LockState]) -> Result<(), Error> {
    let found = connected.hosts.iter().zip(states).find_map(|(host, state)| Some((host, obstacle(state)?)));
    let Some((host, obstacle)) = found else { return Ok(()) };
    let verb = if matches!(obstacle, Obstacle::Run(_)) { "is locked" } else { "is on hold" };
    Err(Error::new(Exit::Locked, "locked", format!("`{}` {verb} by {}", host.name(), obstacle.who()))
        .state(NOTHING)
        .hint(format!("look: {}", scene.environment.typed("lock status"))))
}

fn obstacle(state: &LockState) -> Option<Obstacle> {
    let run = state.holder.clone().map(Obstacle::Run);
    run.or_else(|| state.hold.clone().map(Obstacle::Hold))
}

/// Takes back what was done on some hosts, where others refused.
async fn not_all(hosts: &[Host], answers: &[Result<Answer, HostError>], undo: Op, done: &str) -> Error {
    let changed: Vec<&Host> =
        hosts.iter().zip(answers).filter(|(_, answer)| matches!(answer, Ok(Answer::Done))).map(|(host, _)| host).collect();
    let undone = each(changed.iter().copied(), usize::MAX >> 4, |host| host.ask(undo.clone())).await;
    let left: Vec<String> = changed
        .iter()
        .zip(&undone)
        .filter(|(_, answer)| !matches!(answer, Ok(Answer::Done)))
        .map(|(host, _)| host.name().to_owned())
        .collect();
    let mut evidence = Vec::new();
    for (host, answer) in hosts.iter().zip(answers) {
        let why = match answer {
            Ok(Answer::Done) => continue,
            Ok(Answer::Locked(Locked::Busy(run))) => format!("locked by {}", Obstacle::Run(run.clone()).who()),
            Ok(Answer::Locked(Locked::Held(hold))) => format!("on hold by {}", Obstacle::Hold(hold.clone()).who()),
            Ok(other) => HostError::unexpected(host.name(), other).to_string(),
            Err(error) => error.to_string(),
        };
        evidence.push(format!("{} | {why}", host.name()));
    }
    let state = if left.is_empty() {
        "what had been changed on other hosts was put back".to_owned()
    } else {
        format!("{} could not be put back: look with `deployer lock status`", ranges::fold(&left))
    };
    let is_locked = answers.iter().all(|answer| matches!(answer, Ok(Answer::Done | Answer::Locked(_))));
    let exit = if is_locked { Exit::Locked } else { Exit::BuildFailed };
    Error::new(exit, "not-all", format!("not every host could be {done}")).evidence(evidence).state(state)
}

async fn release(common: &Common, scene: &Scene, connected: &Connected, id: &str, given: Option<&str>) -> Result<Exit, Error> {
    let states = all_states(scene, connected).await?;
    let named = |host: &Host| host.name().to_owned();
    let pairs: Vec<(&Host, &LockState)> = connected.hosts.iter().zip(&states).collect();
    let held: Vec<&(&Host, &LockState)> = pairs.iter().filter(|(_, state)| state.hold.as_ref().is_some_and(|hold| hold.id == id)).collect();
    let is_meant = |run: &str| run == id || locks::lock_id(run) == id;
    let running: Vec<&(&Host, &LockState)> =
        pairs.iter().filter(|(_, state)| state.holder.as_ref().is_some_and(|run| is_meant(&run.run))).collect();
    if let Some((_, LockState { hold: Some(hold), .. })) = held.first() {
        let hosts: Vec<Host> = held.iter().map(|(host, _)| (*host).clone()).collect();
        let place = ranges::fold(&hosts.iter().map(named).collect::<Vec<_>>());
        confirm(common, given, &scene.environment.name, &format!("lift the hold of {} ({}) from {place}", hold.by, hold.reason))?;
        return lift(common, scene, &hosts, hold).await;
    }
    if let Some((_, LockState { holder: Some(run), .. })) = running.first() {
        let hosts: Vec<Host> = running.iter().map(|(host, _)| (*host).clone()).collect();
        let place = ranges::fold(&hosts.iter().map(named).collect::<Vec<_>>());
        confirm(common, given, &scene.environment.name, &format!("end run {} of {}, {}, on {place}", run.run, run.by, run.what))?;
        return end(common, scene, connected, &hosts, &run.run).await;
    }
    let there = pairs.iter().filter_map(|(host, state)| Some((host, obstacle(state)?)));
    let evidence = there.map(|(host, obstacle)| format!("{} | id {}: {}", host.name(), obstacle.id(), obstacle.who()));
    let environment = &scene.environment.name;
    Err(Error::new(Exit::Refused, "no-such-lock", format!("no hold and no run on the hosts of {environment} has the id `{id}`"))
        .evidence(evidence)
        .state(NOTHING)
        .hint(format!("see what there is: deployer lock status -e {environment}")))
}

async fn lift(common: &Common, scene: &Scene, hosts: &[Host], hold: &Hold) -> Result<Exit, Error> {
    let answers = each(hosts, usize::MAX >> 4, |host| host.ask(Op::Lift { id: hold.id.clone() })).await;
    if answers.iter().any(|answer| !matches!(answer, Ok(Answer::Done))) {
        return Err(not_all(hosts, &answers, Op::Hold(hold.clone()), "freed of the hold").await);
    }
    let names: Vec<&str> = hosts.iter().map(Host::name).collect();
    let environment = &scene.environment.name;
    tell(
        common,
        &serde_json::json!({ "env": environment, "id": hold.id, "lifted": true, "hosts": names }),
        &format!("the hold {} of {} is lifted: {}\n", hold.id, hold.by, counted(hosts.len() as u64, "host")),
    )
}

/// Ends a run on all of its hosts, then takes each lock once: whatever the run left in the middle is finished or put back.
async fn end(common: &Common, scene: &Scene, connected: &Connected, hosts: &[Host], run: &str) -> Result<Exit, Error> {
    let environment = &scene.environment.name;
    let answers = each(hosts, usize::MAX >> 4, |host| host.ask(Op::EndRun { run: run.to_owned(), by: scene.actor.clone() })).await;
    let failures: Vec<HostFailure> = hosts.iter().zip(&answers).filter_map(|(host, answer)| failed(host, answer)).collect();
    let ended: Vec<Host> =
        hosts.iter().zip(&answers).filter(|(_, answer)| matches!(answer, Ok(Answer::RunEnded(_)))).map(|(host, _)| host.clone()).collect();
    let recovered = locks::take(scene, &ended, "looking after a run that was ended").await;
    locks::unlock(&ended).await;
    fleet::refresh(&connected.hosts).await;
    let state = outcome::serving(environment, "runs", &fleet::live(&connected.hosts));
    if !failures.is_empty() {
        return Err(outcome::explain(Exit::Locked, &failures, hosts.len(), state));
    }
    if let locks::Attempt::Refused(error) = recovered {
        return Err(error.state(format!("run {run} is ended; {state}")));
    }
    let killed = answers.iter().filter(|answer| matches!(answer, Ok(Answer::RunEnded(RunEnd::Killed)))).count();
    let how = if killed == 0 { String::new() } else { format!(", {} had to be killed", counted(killed as u64, "helper")) };
    let names: Vec<&str> = hosts.iter().map(Host::name).collect();
    tell(
        common,
        &serde_json::json!({ "env": environment, "run": run, "ended": true, "killed": killed, "hosts": names, "live": fleet::live(&connected.hosts) }),
        &format!("run {run} is ended on {}{how}; {state}\n", counted(hosts.len() as u64, "host")),
    )
}

fn tell(common: &Common, document: &serde_json::Value, text: &str) -> Result<Exit, Error> {
    Ok(if common.json {
        print(&format!("{}\n", json(document)?))
    } else {
        print(&text.lines().fold(String::new(), |text, line| text + &escape(line) + "\n"))
    })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::new(Exit::Internal, "json", "what was found is no JSON").caused_by(error))
}
