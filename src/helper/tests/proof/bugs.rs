//! Bugs that somebody could write, put into the helper on purpose: what finds nothing in the real one must find each of them.

use std::sync::Mutex;
use std::time::Instant;

use crate::kills::{Harness, on_all_cores};
use crate::scenarios::{LEFTOVER, REFUSED, find};
use crate::tracer::{self, Fault, Plan};

/// Each bug of `faults.rs`, with what is done with a helper that has it.
const BUGS: [(&str, &str); 18] = [
    ("SealBeforeVerify", "seal of what was changed"),
    ("SwitchBeforeSeal", "switch to what is not sealed"),
    ("NoCompare", "switch from what is not live"),
    ("ConfirmsAnything", "confirmation of what is not live"),
    ("SweepBeforeLock", "what a dead run left aside"),
    ("RelativeRollback", "revert of what was confirmed"),
    ("UnlockBeforeWrite", "rollback"),
    ("PruneTakesTarget", "removal"),
    ("NoDirectorySync", "rollback"),
    ("NoFileSync", "rollback"),
    ("EpochStays", "rollback"),
    ("InPlace", "rollback"),
    ("NoIntent", "rollback"),
    ("IntentGoneFirst", "rollback"),
    ("TornTailStays", "rollback"),
    ("SettlesFirst", "recovery of a revert"),
    ("TrustsUploading", "first deploy"),
    ("LeavesUploading", "first deploy"),
];

/// Looks for what is wrong with a helper that has a bug, until something is. Gives it, and how often that was tried.
fn found(bug: &'static str, scenario: &str) -> (usize, Option<String>) {
    let scenario = find(scenario);
    let host = scenario.prepared();
    let (seen, shape, wrong) = Harness { scenario, bug: None }.undisturbed(&host.copy());
    assert_eq!(wrong, [""; 0], "the control: without `{bug}` nothing is found in {}", scenario.name);
    let harness = Harness { scenario, bug: Some(bug) };
    let (_, other, mut wrong) = harness.undisturbed(&host.copy());
    wrong.extend(other.difference(&shape));
    if !wrong.is_empty() {
        return (1, Some(wrong.swap_remove(0)));
    }
    let all = seen.calls.len();
    let writes = seen.calls.iter().filter(|call| call.name == "write").count();
    let torn = (1..=writes).map(|at| Plan { at, fault: Fault::Torn });
    // In leaps, since the bug is in one place: 37 has no factor with any number of calls here.
    let kills = (0..all).map(|n| Plan { at: n * 37 % all + 1, fault: Fault::Kill });
    for (n, plan) in torn.chain(kills).enumerate() {
        if let Some(wrong) = harness.tried(&host.copy(), plan, &shape).violations.into_iter().next() {
            return (n + 2, Some(wrong));
        }
    }
    (writes + all + 1, None)
}

#[test]
fn every_bug_that_is_seeded_into_the_helper_is_found() {
    if !tracer::is_possible() {
        return;
    }
    let began = Instant::now();
    let missed = Mutex::new(Vec::new());
    on_all_cores(&BUGS, |(bug, scenario)| {
        let (tries, wrong) = found(bug, scenario);
        eprintln!("{bug}: after {tries} tries, {}", wrong.as_deref().unwrap_or("nothing"));
        if wrong.is_none() {
            missed.lock().unwrap().push(*bug);
        }
    });
    eprintln!("bugs: {} seeded, {} missed, {:.1} s", BUGS.len(), missed.lock().unwrap().len(), began.elapsed().as_secs_f64());
    assert_eq!(missed.into_inner().unwrap(), [""; 0]);
}

/// A bug that the table above does not have would be one that nobody looks for.
#[test]
fn every_bug_that_the_helper_can_have_is_looked_for() {
    let source = include_str!("../../faults.rs");
    let (names, _) = source.split_once("pub enum Bug {").and_then(|(_, rest)| rest.split_once("\n}")).unwrap();
    let names: Vec<&str> = names.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    assert_eq!(names.len(), BUGS.len(), "{names:?}");
    assert!(names.iter().all(|name| BUGS.iter().any(|(bug, _)| bug == name)), "{names:?}");
}

/// The control of the test that the helper which is sent to hosts has no bug on purpose: this one has.
#[test]
fn the_helper_of_these_tests_can_have_bugs() {
    let bytes = std::fs::read(crate::client::HELPER).unwrap();
    assert!(bytes.windows(19).any(|bytes| bytes == b"DEPLOYER_SEEDED_BUG"));
}

#[test]
fn what_must_be_refused_is_refused_and_leaves_the_host_as_it_was() {
    if !tracer::is_possible() {
        return;
    }
    for scenario in REFUSED.into_iter().chain([LEFTOVER]) {
        let (_, _, wrong) = Harness { scenario, bug: None }.undisturbed(&scenario.prepared());
        assert_eq!(wrong, [""; 0], "{}", scenario.name);
    }
}
