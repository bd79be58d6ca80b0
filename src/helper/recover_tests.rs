//! Recovery against a model of a host: every combination of what may be live, recorded and intended.

use super::*;
use crate::op::Current;
use crate::release::{NewRelease, Record};
use crate::tree::Digest;
use proptest::prelude::*;

fn id(text: &str) -> ReleaseId {
    text.parse().unwrap()
}

fn record(name: &str, sequence: u64, state: State, run: &str) -> Record {
    let digest = Digest([0; 32]);
    let release = NewRelease {
        id: id(name),
        project: "p".into(),
        environment: "e".into(),
        commit: None,
        reference: None,
        tree: digest,
        manifest: digest,
        build_key: digest,
        run: run.into(),
        by: "ada".into(),
        created: 0,
        origin: None,
    };
    let confirmed = state.is_good().then_some(1);
    Record {
        format: FORMAT,
        sequence,
        state,
        release,
        sealed: None,
        activated: None,
        confirmed,
        previous: None,
        activation: None,
        reason: None,
        durable: true,
        check: None,
    }
}

fn now(run: &str) -> Now {
    Now { run: run.into(), boot_id: "boot".into(), boot_ms: 1000 }
}

fn a_to_b(run: &str, deadline_ms: u64) -> Intent {
    Intent {
        format: FORMAT,
        from: Some(id("a")),
        to: id("b"),
        epoch: 1,
        run: run.into(),
        by: "ada".into(),
        boot_id: "boot".into(),
        deadline_ms,
        reverts: 0,
        bad: None,
    }
}

fn records(b: State) -> Vec<Record> {
    vec![record("a", 1, State::Confirmed, "old"), record("b", 2, b, "dead")]
}

fn live(name: &str) -> Current {
    Current::Release(id(name))
}

#[test]
fn an_activation_that_had_not_switched_is_forgotten() {
    assert_eq!(decide(&live("a"), &records(State::Sealed), Some(&a_to_b("dead", 0)), &now("new")), [Action::DropIntent]);
}

#[test]
fn a_switch_nobody_confirmed_is_put_back_whether_or_not_its_record_was_written() {
    for state in [State::Sealed, State::Active] {
        let expected = [Action::Revert { release: id("b"), expired: false }];
        assert_eq!(decide(&live("b"), &records(state), Some(&a_to_b("dead", 5000)), &now("new")), expected);
    }
}

#[test]
fn the_run_that_activated_goes_on_only_while_there_is_time_and_no_reboot_came_between() {
    let decided = |intent: &Intent| decide(&live("b"), &records(State::Active), Some(intent), &now("dead"));
    let expired = [Action::Revert { release: id("b"), expired: true }];
    assert_eq!(decided(&a_to_b("dead", 5000)), [Action::Adopt]);
    assert_eq!(decided(&a_to_b("dead", 1000)), expired);
    assert_eq!(decided(&Intent { boot_id: "before".into(), ..a_to_b("dead", 5000) }), expired);
}

#[test]
fn what_did_not_hold_is_put_back_even_when_its_own_run_is_back_in_time() {
    let intent = Intent { bad: Some("check failed".into()), ..a_to_b("dead", 5000) };
    let expected = [Action::Revert { release: id("b"), expired: false }];
    assert_eq!(decide(&live("b"), &records(State::Active), Some(&intent), &now("dead")), expected);
}

#[test]
fn a_confirmation_that_was_recorded_is_finished_even_after_the_deadline() {
    let expected = [Action::FinishConfirm { release: id("b") }];
    assert_eq!(decide(&live("b"), &records(State::Confirmed), Some(&a_to_b("dead", 1)), &now("new")), expected);
}

#[test]
fn releases_of_dead_runs_that_are_not_sealed_fail_and_those_of_this_run_stay() {
    for state in [State::Uploading, State::Uploaded, State::Building] {
        assert_eq!(decide(&live("a"), &records(state), None, &now("new")), [Action::Fail { release: id("b") }]);
        assert_eq!(decide(&live("a"), &records(state), None, &now("dead")), []);
    }
}

/// A host as recovery sees it.
#[derive(Clone, Debug)]
struct Host {
    current: Current,
    records: Vec<Record>,
    intent: Option<Intent>,
}

impl Host {
    /// What carrying out an action leaves behind.
    fn apply(&mut self, action: &Action) {
        let mut set = |release: &ReleaseId, state: State| {
            for record in self.records.iter_mut().filter(|record| record.release.id == *release) {
                record.state = state;
            }
        };
        match action {
            Action::Fail { release } => set(release, State::Failed),
            Action::FinishConfirm { .. } | Action::DropIntent => self.intent = None,
            Action::Settle { release, expired } => set(release, if *expired { State::Bad } else { State::Sealed }),
            Action::Revert { release, expired } => {
                set(release, if *expired { State::Bad } else { State::Sealed });
                let from = self.intent.take().and_then(|intent| intent.from);
                self.current = from.map_or(Current::Absent, Current::Release);
            }
            Action::Adopt => {}
        }
    }
}

fn hosts() -> impl Strategy<Value = Host> {
    let states = [
        State::Uploading,
        State::Uploaded,
        State::Building,
        State::Sealed,
        State::Active,
        State::Confirmed,
        State::Retired,
        State::Failed,
        State::Bad,
    ];
    let current = prop_oneof![
        Just(Current::Absent),
        Just(live("a")),
        Just(live("b")),
        Just(Current::NotLink),
        Just(Current::Elsewhere { target: "x".into(), dangling: true })
    ];
    let intent = (proptest::bool::ANY, proptest::sample::select(vec!["dead", "new"]), proptest::sample::select(vec![0_u64, 500, 5000]));
    let intent = proptest::option::of(intent.prop_map(|(first, run, deadline)| {
        let intent = a_to_b(run, deadline);
        if first { Intent { from: None, ..intent } } else { intent }
    }));
    (current, proptest::sample::select(states.to_vec()), proptest::sample::select(states.to_vec()), intent)
        .prop_map(|(current, a, b, intent)| Host { current, records: vec![record("a", 1, a, "old"), record("b", 2, b, "dead")], intent })
}

proptest! {
    #[test]
    fn recovering_twice_is_recovering_once(host in hosts()) {
        let mut host = host;
        for action in decide(&host.current, &host.records, host.intent.as_ref(), &now("new")) {
            host.apply(&action);
        }
        let again = decide(&host.current, &host.records, host.intent.as_ref(), &now("new"));
        prop_assert!(again.iter().all(|action| *action == Action::Adopt), "{again:?}");
    }

    #[test]
    fn no_intent_outlives_its_deadline(host in hosts()) {
        let mut host = host;
        for action in decide(&host.current, &host.records, host.intent.as_ref(), &now("new")) {
            host.apply(&action);
        }
        prop_assert!(host.intent.is_none_or(|intent| !intent.is_expired(&now("new"))));
    }
}

/// Every combination of the model, and for whom it is decided.
fn all_hosts() -> Vec<Host> {
    const STATES: [State; 9] = [
        State::Uploading,
        State::Uploaded,
        State::Building,
        State::Sealed,
        State::Active,
        State::Confirmed,
        State::Retired,
        State::Failed,
        State::Bad,
    ];
    let mut intents = vec![None];
    for from in [None, Some(id("a"))] {
        for run in ["dead", "new"] {
            intents.extend([0, 500, 5000].map(|deadline| Some(Intent { from: from.clone(), ..a_to_b(run, deadline) })));
        }
    }
    let mut hosts = Vec::new();
    for current in [Current::Absent, live("a"), live("b"), Current::NotLink] {
        for (a, b) in STATES.into_iter().flat_map(|a| STATES.map(|b| (a, b))) {
            for intent in &intents {
                for run in ["dead", "new"] {
                    let records = vec![record("a", 1, a, "old"), record("b", 2, b, run)];
                    hosts.push(Host { current: current.clone(), records, intent: intent.clone() });
                }
            }
        }
    }
    hosts
}

/// What must hold of a host after a recovery for the run `new`. Says what does not.
fn violation(before: &Host, actions: &[Action]) -> Option<&'static str> {
    let mut after = before.clone();
    for action in actions {
        after.apply(action);
    }
    let state = |host: &Host, name: &str| host.records.iter().find(|record| record.release.id == id(name)).unwrap().state;
    let unfinished = |state: State| matches!(state, State::Uploading | State::Uploaded | State::Building);
    let goes_on = before.intent.as_ref().is_some_and(|intent| {
        intent.run == "new" && !intent.is_expired(&now("new")) && before.current == live("b") && state(before, "b") == State::Active
    });
    let is_moved = after.current != before.current;
    let confirmed = before.current == live("b") && state(before, "b") == State::Confirmed;
    let checks = [
        (after.intent.is_some() != goes_on, "an intent is left, or one that goes on is not"),
        (confirmed && is_moved, "a confirmed release was put back"),
        (goes_on && is_moved, "a run that came back in time was put back"),
        (before.intent.is_none() && is_moved, "a link was moved without an intent"),
        (!confirmed && !goes_on && before.intent.is_some() && after.current == live("b"), "a release that nobody confirmed stays live"),
        (
            is_moved
                && Some(&after.current)
                    != before.intent.as_ref().map(|i| i.from.clone().map_or(Current::Absent, Current::Release)).as_ref(),
            "it was put back to something else than what was live before",
        ),
        (
            after.records.iter().any(|record| unfinished(record.state) && record.release.run != "new"),
            "a release of a dead run is left unfinished",
        ),
        (
            before.records.iter().any(|record| {
                let now = state(&after, record.release.id.as_str());
                now == State::Failed && (record.state.is_sealed() || (record.release.run == "new" && unfinished(record.state)))
            }),
            "a release that is sealed, or that its run comes back for, has failed",
        ),
        (
            before.intent.is_some() && !goes_on && after.current != live("b") && state(&after, "b") == State::Active,
            "a release that is not live is recorded as active",
        ),
    ];
    checks.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, what)| what)
}

type Decide = fn(&Host) -> Vec<Action>;

fn right(host: &Host) -> Vec<Action> {
    decide(&host.current, &host.records, host.intent.as_ref(), &now("new"))
}

/// Decides as if the host were another.
fn of(host: &Host, change: impl FnOnce(&mut Host)) -> Vec<Action> {
    let mut other = host.clone();
    change(&mut other);
    right(&other)
}

fn each_action(host: &Host, change: impl Fn(Action) -> Option<Action>) -> Vec<Action> {
    right(host).into_iter().filter_map(change).collect()
}

/// Bugs that somebody could write.
const MUTANTS: [(&str, Decide); 11] = [
    ("keeps what nobody confirmed", |host| {
        each_action(host, |action| if matches!(action, Action::Revert { .. }) { Some(Action::DropIntent) } else { Some(action) })
    }),
    ("does nothing about it", |host| each_action(host, |action| (!matches!(action, Action::Revert { .. })).then_some(action))),
    ("puts back what was confirmed", |host| {
        each_action(host, |action| match action {
            Action::FinishConfirm { release } => Some(Action::Revert { release, expired: false }),
            other => Some(other),
        })
    }),
    ("leaves a recorded confirmation unfinished", |host| {
        each_action(host, |action| (!matches!(action, Action::FinishConfirm { .. })).then_some(action))
    }),
    ("lets any run go on", |host| of(host, |host| host.intent.iter_mut().for_each(|intent| "new".clone_into(&mut intent.run)))),
    ("lets nobody go on", |host| of(host, |host| host.intent.iter_mut().for_each(|intent| "dead".clone_into(&mut intent.run)))),
    ("knows no deadline", |host| of(host, |host| host.intent.iter_mut().for_each(|intent| intent.deadline_ms = 0))),
    ("forgets the intent of a switch that did not happen", |host| {
        each_action(host, |action| (action != Action::DropIntent).then_some(action))
    }),
    ("does not settle a record", |host| each_action(host, |action| (!matches!(action, Action::Settle { .. })).then_some(action))),
    ("leaves what dead runs were doing", |host| each_action(host, |action| (!matches!(action, Action::Fail { .. })).then_some(action))),
    ("fails what its own run comes back for", |host| {
        of(host, |host| host.records.iter_mut().for_each(|record| "dead".clone_into(&mut record.release.run)))
    }),
];

#[test]
fn every_host_of_the_model_recovers_to_one_that_is_whole() {
    for host in all_hosts() {
        let actions = right(&host);
        assert_eq!(violation(&host, &actions), None, "{host:?}: {actions:?}");
    }
}

/// The control of the test above: each seeded bug is found.
#[test]
fn every_bug_that_is_seeded_into_the_decision_is_found() {
    let hosts = all_hosts();
    for (what, decide) in MUTANTS {
        assert!(hosts.iter().any(|host| violation(host, &decide(host)).is_some()), "nothing is found wrong with a recovery that {what}");
    }
}
