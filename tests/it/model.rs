//! A small fleet in which everything that can happen does: two deploys, two hosts, and up to two crashes or lost connections, before
//! any step of any of them. What is decided is decided by the program's own functions: what a recovery does, whether a wave may begin,
//! what follows from one. Searched breadth first, so what is found first is the shortest way to it.

use std::collections::{HashMap, VecDeque};

use deployer::config::environment::OnFailure;
use deployer::config::quantity::Amount;
use deployer::op::Current;
use deployer::release::{FORMAT, NewRelease, Record, ReleaseId, State};
use deployer::rollout::{Admission, Barrier, Limits, Rollout, Verdict, barrier, broken_off, waves};
use deployer::tree::Digest;

use crate::decide::{Action, Intent, Now, decide};

/// How it is decided what a recovery does.
type Decide = fn(&Current, &[Record], Option<&Intent>, &Now) -> Vec<Action>;

/// What is live at first, and what the two deploys bring.
const NAMES: [&str; 3] = ["a", "b", "c"];
const HOSTS: usize = 2;
const FAULTS: u8 = 2;

/// The step of a helper that is durable or seen, in the order in which `activate.rs` makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Mark(usize, State),
    Intend { from: Option<usize>, to: usize, run: usize },
    Switch(Option<usize>),
    Restart(Option<usize>),
    DropIntent,
}

/// How far a deploy came with one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    New,
    Locked,
    Sealed,
    Well,
    Ill,
    Confirmed,
    PutBack,
    /// The connection is lost.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    current: Option<usize>,
    states: [Option<State>; 3],
    /// Which were confirmed once.
    held: [bool; 3],
    /// From, to, and whose.
    intent: Option<(Option<usize>, usize, usize)>,
    restarted: Option<usize>,
    holder: Option<usize>,
    /// What the holder's helper still has to do, and what it says then.
    doing: VecDeque<Step>,
    then: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    hosts: [Host; HOSTS],
    /// Of each deploy, how far it came with each host.
    deploys: [[Phase; HOSTS]; 2],
    /// It gave up or ended; what it says of each host, if it says so.
    over: [bool; 2],
    putting_back: [bool; 2],
    faults: u8,
}

/// What goes on at each host is different, so both are looked at.
fn first() -> World {
    let host = Host {
        current: Some(0),
        states: [Some(State::Confirmed), None, None],
        held: [true, false, false],
        intent: None,
        restarted: Some(0),
        holder: None,
        doing: VecDeque::new(),
        then: Phase::New,
    };
    World { hosts: [host.clone(), host], deploys: [[Phase::New; HOSTS]; 2], over: [false; 2], putting_back: [false; 2], faults: 0 }
}

/// The release of a deploy.
const fn release(deploy: usize) -> usize {
    deploy + 1
}

fn id(release: usize) -> ReleaseId {
    NAMES[release].parse().unwrap()
}

fn run(deploy: usize) -> String {
    format!("run{deploy}")
}

impl Host {
    fn records(&self) -> Vec<Record> {
        let record = |(release, state): (usize, State)| Record {
            format: FORMAT,
            sequence: release as u64,
            state,
            release: NewRelease {
                id: id(release),
                project: "p".into(),
                environment: "e".into(),
                commit: None,
                reference: None,
                tree: Digest([0; 32]),
                manifest: Digest([0; 32]),
                build_key: Digest([0; 32]),
                run: if release == 0 { "before".into() } else { run(release - 1) },
                by: "ada".into(),
                created: 0,
                origin: None,
            },
            sealed: None,
            activated: None,
            confirmed: self.held[release].then_some(1),
            previous: None,
            activation: None,
            reason: None,
            durable: true,
            check: None,
        };
        self.states.iter().enumerate().filter_map(|(release, state)| Some((release, (*state)?))).map(record).collect()
    }

    /// What the next holder does first, as the helper decides it.
    fn recovery(&self, deploy: usize, decide: Decide) -> VecDeque<Step> {
        let current = self.current.map_or(Current::Absent, |release| Current::Release(id(release)));
        let intent = self.intent.map(|(from, to, by)| Intent {
            format: FORMAT,
            from: from.map(id),
            to: id(to),
            epoch: 1,
            run: run(by),
            by: "ada".into(),
            boot_id: "boot".into(),
            deadline_ms: 0,
            reverts: 0,
            bad: None,
        });
        let now = Now { run: run(deploy), boot_id: "boot".into(), boot_ms: 1 };
        let number = |release: &ReleaseId| NAMES.iter().position(|name| *name == release.as_str()).unwrap();
        let mut steps = VecDeque::new();
        for action in decide(&current, &self.records(), intent.as_ref(), &now) {
            match action {
                Action::Fail { release } => steps.push_back(Step::Mark(number(&release), State::Failed)),
                Action::FinishConfirm { release } => steps.extend(self.finish(number(&release))),
                Action::Revert { release, .. } => steps.extend(self.put_back(number(&release), self.settled(number(&release)))),
                Action::Settle { release, .. } => steps.push_back(Step::Mark(number(&release), self.settled(number(&release)))),
                Action::Adopt => {}
                Action::DropIntent => steps.push_back(Step::DropIntent),
            }
        }
        steps
    }

    /// What becomes of a release that nothing is known against.
    fn settled(&self, release: usize) -> State {
        if self.held[release] { State::Retired } else { State::Sealed }
    }

    /// What follows the record of a confirmation.
    fn finish(&self, release: usize) -> Vec<Step> {
        let others = (0..NAMES.len()).filter(|other| *other != release);
        let mut steps: Vec<Step> = others
            .filter_map(|other| match self.states[other] {
                Some(State::Confirmed) => Some(Step::Mark(other, State::Retired)),
                Some(State::Active) => Some(Step::Mark(other, self.settled(other))),
                _ => None,
            })
            .collect();
        steps.push(Step::DropIntent);
        steps
    }

    fn put_back(&self, release: usize, verdict: State) -> Vec<Step> {
        let target = self.intent.map_or(Some(0), |(from, _, _)| from);
        let mut steps = Vec::new();
        if self.intent.is_none() {
            steps.extend([Step::Intend { from: target, to: release, run: release - 1 }, Step::Mark(release, State::Active)]);
        }
        steps.extend([Step::Switch(target), Step::Restart(target)]);
        if let Some(target) = target.filter(|target| self.states[*target] == Some(State::Retired)) {
            steps.push(Step::Mark(target, State::Confirmed));
        }
        steps.extend([Step::Mark(release, verdict), Step::DropIntent]);
        steps
    }

    fn make(&mut self, step: Step) {
        match step {
            Step::Mark(release, state) => {
                self.states[release] = Some(state);
                self.held[release] |= state == State::Confirmed;
            }
            Step::Intend { from, to, run } => self.intent = Some((from, to, run)),
            Step::Switch(to) => self.current = to,
            Step::Restart(to) => self.restarted = to,
            Step::DropIntent => self.intent = None,
        }
    }

    /// The helper ends, whatever it was about.
    fn die(&mut self) {
        self.doing.clear();
        self.holder = None;
    }

    /// What is wrong, whoever is in the middle of what.
    fn violation(&self) -> Option<&'static str> {
        let live = self.current.and_then(|release| self.states[release]);
        let is_active = self.states.contains(&Some(State::Active));
        let checks = [
            (self.current.is_none(), "I1: nothing is live, and something was"),
            (live.is_none_or(|state| !state.is_sealed()), "I3: what is live is not sealed, or did not hold"),
            (self.intent.is_none() && live != Some(State::Confirmed), "I9: what is live is nobody's to confirm or to put back"),
            (self.intent.is_none() && is_active, "I9: a release is active, and nobody's"),
            (self.holder.is_none() && !self.doing.is_empty(), "I4: something is done without the lock"),
        ];
        checks.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, what)| what)
    }

    /// What is wrong once a recovery is over.
    fn unsettled(&self) -> Option<&'static str> {
        let unfinished = |state: &Option<State>| matches!(state, Some(State::Uploading | State::Uploaded | State::Building));
        let checks = [
            (self.intent.is_some(), "I5: a recovery leaves an intent"),
            (self.restarted != self.current, "what is live was not restarted"),
            (self.states.iter().any(unfinished), "I5: a recovery leaves something unfinished"),
        ];
        checks.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, what)| what)
    }
}

/// What a deploy says of its run: everybody serves its release.
fn says_all_is_well(world: &World, deploy: usize) -> bool {
    world.over[deploy] && world.deploys[deploy] == [Phase::Confirmed; HOSTS]
}

/// Every world that can follow, with what happened.
fn next(world: &World, decide: Decide) -> Vec<(String, World)> {
    let mut follow = Vec::new();
    // A helper makes its next step.
    for host in 0..HOSTS {
        let mut after = world.clone();
        let Some(step) = after.hosts[host].doing.pop_front() else { continue };
        after.hosts[host].make(step);
        said(&mut after, host);
        follow.push((format!("host {host}: {step:?}"), after));
    }
    for deploy in (0..2).filter(|deploy| !world.over[*deploy]) {
        follow.extend(decides(world, deploy, decide).into_iter().map(|(what, after)| (format!("deploy {deploy}: {what}"), after)));
        if world.faults == FAULTS {
            continue;
        }
        let mut crashed = world.clone();
        (crashed.faults, crashed.over[deploy]) = (world.faults + 1, true);
        crashed.deploys[deploy] = [Phase::Lost; HOSTS];
        crashed.hosts.iter_mut().filter(|host| host.holder == Some(deploy)).for_each(Host::die);
        follow.push((format!("deploy {deploy} crashes"), crashed));
        for host in (0..HOSTS).filter(|host| world.hosts[*host].holder == Some(deploy)) {
            let mut lost = world.clone();
            lost.faults += 1;
            lost.deploys[deploy][host] = Phase::Lost;
            lost.hosts[host].die();
            follow.push((format!("deploy {deploy} loses host {host}"), lost));
        }
    }
    follow
}

/// A helper that is through says so.
fn said(world: &mut World, host: usize) {
    if let (Some(deploy), true) = (world.hosts[host].holder, world.hosts[host].doing.is_empty()) {
        world.deploys[deploy][host] = world.hosts[host].then;
    }
}

/// Asks a host for something, and is told when it is done.
fn ask(world: &mut World, host: usize, steps: impl IntoIterator<Item = Step>, then: Phase) {
    world.hosts[host].doing = steps.into_iter().collect();
    world.hosts[host].then = then;
    said(world, host);
}

/// What the controller of a deploy does when nobody is at work for it. A check may end either way.
fn decides(world: &World, deploy: usize, decide: Decide) -> Vec<(&'static str, World)> {
    let phases = world.deploys[deploy];
    let is_at_work = world.hosts.iter().any(|host| host.holder == Some(deploy) && !host.doing.is_empty());
    if is_at_work {
        return Vec::new();
    }
    let with = |change: &dyn Fn(&mut World)| {
        let mut after = world.clone();
        change(&mut after);
        after
    };
    let release = release(deploy);
    if phases == [Phase::New; HOSTS] {
        // All or none: a host that is held by another is waited for, holding nothing.
        let is_free = world.hosts.iter().all(|host| host.holder.is_none());
        return if is_free { vec![("locks", with(&|after| locks(after, deploy, decide)))] } else { Vec::new() };
    }
    if world.putting_back[deploy] || phases.iter().any(|phase| matches!(phase, Phase::Ill | Phase::PutBack)) {
        return vec![("goes back", with(&|after| goes_back(after, deploy)))];
    }
    if phases.contains(&Phase::Locked) {
        let prepare = [State::Uploading, State::Uploaded, State::Building, State::Sealed].map(|state| Step::Mark(release, state));
        let fails = [State::Uploading, State::Failed].map(|state| Step::Mark(release, state));
        let host = phases.iter().position(|phase| *phase == Phase::Locked).unwrap();
        return vec![
            ("prepares", with(&|after| ask(after, host, prepare, Phase::Sealed))),
            ("fails to prepare", with(&|after| ask(after, host, fails, Phase::Lost))),
        ];
    }
    let count = |wanted: &[Phase]| phases.iter().filter(|phase| wanted.contains(phase)).count();
    let failed = count(&[Phase::Lost]);
    let switched = count(&[Phase::Well, Phase::Confirmed]);
    if switched == 0 && barrier(count(&[Phase::Sealed]), failed, 0) == Barrier::Stop {
        return vec![("stops at the barrier", with(&|after| ends(after, deploy)))];
    }
    if let Some(host) = phases.iter().position(|phase| *phase == Phase::Well) {
        let mut steps = vec![Step::Mark(release, State::Confirmed)];
        steps.extend(world.hosts[host].finish(release));
        return vec![("confirms", with(&|after| ask(after, host, steps.clone(), Phase::Confirmed)))];
    }
    let mut rollout = Rollout::new(Limits { on_failure: OnFailure::Rollback, budget: 0, least_healthy: 0 }, HOSTS, failed);
    let is_halted = matches!(rollout.admit_next(Some(true)), Admission::Halt(_));
    if switched > 0 && is_halted && broken_off(OnFailure::Rollback) == Verdict::Rollback {
        return vec![("goes back", with(&|after| goes_back(after, deploy)))];
    }
    let sizes = waves(&[Amount::Hosts(1), Amount::Percent(100)], HOSTS);
    let Some(host) = phases.iter().position(|phase| *phase == Phase::Sealed) else {
        return vec![("is through", with(&|after| ends(after, deploy)))];
    };
    assert!(sizes == [1, 1] && (0..host).all(|before| phases[before] == Phase::Confirmed), "I12: a wave begins before the one before held");
    let live = world.hosts[host].current;
    let steps = [
        Step::Intend { from: live, to: release, run: deploy },
        Step::Switch(Some(release)),
        Step::Mark(release, State::Active),
        Step::Restart(Some(release)),
    ];
    vec![
        ("activates, and it is well", with(&|after| ask(after, host, steps, Phase::Well))),
        ("activates, and it is not", with(&|after| ask(after, host, steps, Phase::Ill))),
    ]
}

fn locks(world: &mut World, deploy: usize, decide: Decide) {
    for host in 0..HOSTS {
        world.hosts[host].holder = Some(deploy);
        let recovery = world.hosts[host].recovery(deploy, decide);
        ask(world, host, recovery, Phase::Locked);
    }
}

/// Puts back every host that this run switched and that can be reached, then ends.
fn goes_back(world: &mut World, deploy: usize) {
    world.putting_back[deploy] = true;
    let phases = world.deploys[deploy];
    let Some(host) = phases.iter().position(|phase| matches!(phase, Phase::Ill | Phase::Confirmed | Phase::Well)) else {
        return ends(world, deploy);
    };
    let steps = world.hosts[host].put_back(release(deploy), State::Bad);
    ask(world, host, steps, Phase::PutBack);
}

fn ends(world: &mut World, deploy: usize) {
    world.over[deploy] = true;
    world.hosts.iter_mut().filter(|host| host.holder == Some(deploy)).for_each(|host| host.holder = None);
}

/// Looks at a world, and at what the next contact would make of its hosts.
fn violation(world: &World, decide: Decide) -> Option<String> {
    for (number, host) in world.hosts.iter().enumerate() {
        let of = |what: &str| Some(format!("host {number}: {what}"));
        if let Some(what) = host.violation() {
            return of(what);
        }
        if host.holder.is_some() {
            continue;
        }
        // Whoever comes next finds it whole, and the one after that finds nothing to do.
        let mut next = host.clone();
        for step in host.recovery(9, decide) {
            next.make(step);
            if let Some(what) = next.violation() {
                return of(what);
            }
        }
        if let Some(what) = next.unsettled() {
            return of(what);
        }
        if !next.recovery(8, decide).is_empty() {
            return of("I5: recovering twice is not recovering once");
        }
    }
    // The last one to say so is right; the other may have come before or after.
    let told = (0..2).filter(|deploy| says_all_is_well(world, *deploy));
    let live: Vec<Option<usize>> = world.hosts.iter().map(|host| host.current).collect();
    let is_told = told.clone().count();
    let is_quiet = world.over == [true; 2];
    if is_quiet && is_told == 2 && !told.clone().any(|deploy| live.iter().all(|live| *live == Some(release(deploy)))) {
        return Some("I13: both say that all is well, and no release is live everywhere".to_owned());
    }
    None
}

/// What a search saw.
struct Searched {
    states: usize,
    steps: usize,
    ends: usize,
    /// Ends at which both deploys say that all is well.
    well: usize,
}

/// Looks at every world, or tells the shortest way to one that must not be.
fn search(decide: Decide) -> Result<Searched, String> {
    let mut seen: HashMap<World, Option<World>> = HashMap::from([(first(), None)]);
    let mut left = VecDeque::from([first()]);
    let mut searched = Searched { states: 0, steps: 0, ends: 0, well: 0 };
    while let Some(world) = left.pop_front() {
        if let Some(what) = violation(&world, decide) {
            let mut way = vec![world];
            while let Some(Some(before)) = seen.get(&way[way.len() - 1]) {
                way.push(before.clone());
            }
            let leads = |pair: &[World]| next(&pair[1], decide).into_iter().find(|(_, after)| *after == pair[0]).unwrap().0;
            let told: Vec<String> = way.windows(2).rev().map(leads).collect();
            return Err(format!("{what}, after:\n{}", told.join("\n")));
        }
        let follow = next(&world, decide);
        if follow.is_empty() {
            searched.ends += 1;
            searched.well += usize::from((0..2).all(|deploy| says_all_is_well(&world, deploy)));
        }
        for (_, after) in follow {
            searched.steps += 1;
            if !seen.contains_key(&after) {
                seen.insert(after.clone(), Some(world.clone()));
                left.push_back(after);
            }
        }
    }
    searched.states = seen.len();
    Ok(searched)
}

#[test]
fn two_deploys_on_two_hosts_with_two_crashes_anywhere_leave_every_host_whole() {
    let Searched { states, steps, ends, well } = search(decide).unwrap_or_else(|told| panic!("{told}"));
    eprintln!("model: {states} states, {steps} steps, {ends} ends, {well} of them with two good deploys");
    assert!(states > 10_000 && ends > 100 && well > 0, "it is searched: {states} states, {ends} ends, {well} good");
}

/// The control of the search: wrong decisions are found.
#[test]
fn a_recovery_that_decides_wrongly_is_found_by_the_search() {
    let wrong: [(&str, Decide); 3] = [
        ("keeps what nobody confirmed", |current, records, intent, now| {
            let keep = |action| if matches!(action, Action::Revert { .. }) { Action::DropIntent } else { action };
            decide(current, records, intent, now).into_iter().map(keep).collect()
        }),
        ("leaves what dead runs were doing", |current, records, intent, now| {
            decide(current, records, intent, now).into_iter().filter(|action| !matches!(action, Action::Fail { .. })).collect()
        }),
        ("believes a link that was put back", |current, records, intent, now| {
            let is_live = |to: &ReleaseId| matches!(current, Current::Release(id) if id == to);
            let settle = |action| match action {
                Action::Revert { release, expired } if !is_live(&release) => vec![Action::Settle { release, expired }, Action::DropIntent],
                other => vec![other],
            };
            decide(current, records, intent, now).into_iter().flat_map(settle).collect()
        }),
    ];
    for (what, decide) in wrong {
        let told = search(decide).err().unwrap_or_else(|| panic!("nothing is found wrong with a recovery that {what}"));
        eprintln!("a recovery that {what}: {}", told.replace('\n', "; "));
    }
}
