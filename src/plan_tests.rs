//! The plan against hosts with a history: deploys that held or did not, rollbacks, and releases that are gone.

use proptest::prelude::*;

use super::*;
use crate::release::FORMAT;

/// One thing that happened on a host.
#[derive(Clone, Copy, Debug)]
enum Happened {
    /// Code was deployed, and held or not.
    Deployed {
        code: u8,
        holds: bool,
    },
    RolledBack,
    /// The oldest release that is neither live nor what that goes back to is gone.
    Pruned,
}

fn happened() -> impl Strategy<Value = Happened> {
    prop_oneof![
        4 => (0..4_u8, prop::bool::weighted(0.8)).prop_map(|(code, holds)| Happened::Deployed { code, holds }),
        1 => Just(Happened::RolledBack),
        1 => Just(Happened::Pruned),
    ]
}

fn tree(code: u8) -> Digest {
    Digest([code; 32])
}

fn id(number: u64) -> ReleaseId {
    format!("r{number}").parse().unwrap()
}

fn record(sequence: u64, code: u8, state: State, previous: Option<ReleaseId>) -> Record {
    let release = NewRelease {
        id: id(sequence),
        project: "app".into(),
        environment: "prod".into(),
        commit: Some(format!("{code:040x}")),
        reference: None,
        tree: tree(code),
        manifest: tree(code),
        build_key: tree(0),
        run: "run".into(),
        by: "ada".into(),
        created: 0,
        origin: None,
    };
    Record {
        format: FORMAT,
        sequence,
        state,
        release,
        sealed: Some(1),
        activated: Some(1),
        confirmed: state.is_good().then_some(1),
        previous,
        activation: None,
        reason: None,
        durable: true,
        check: None,
    }
}

/// A host that is ready and has nothing yet.
pub fn bare() -> Facts {
    Facts {
        platform: String::new(),
        user: "ada".into(),
        uid: 1000,
        home: None,
        hostname: String::new(),
        boot_id: String::new(),
        host_id: None,
        helper: String::new(),
        clock_ms: 0,
        root: RootState::Ready,
        filesystem: String::new(),
        free_bytes: 0,
        total_bytes: 0,
        free_inodes: 0,
        current: Current::Absent,
        releases: Vec::new(),
        foreign: Vec::new(),
        unreadable: Vec::new(),
        holder: None,
        hold: None,
        epoch: 0,
        unresolved: None,
    }
}

/// Switches as a helper does: what was live is retired, and a rollback leaves the chain as it is.
fn switch(facts: &mut Facts, to: &ReleaseId) {
    for record in &mut facts.releases {
        if record.state == State::Confirmed {
            record.state = State::Retired;
        }
        if record.release.id == *to {
            record.state = State::Confirmed;
        }
    }
    facts.current = Current::Release(to.clone());
}

fn happens(facts: &mut Facts, next: &mut u64, what: Happened) {
    match what {
        Happened::Deployed { code, holds } => {
            let live = live_id(facts).cloned();
            let state = if holds { State::Retired } else { State::Bad };
            facts.releases.push(record(*next, code, state, live));
            if holds {
                switch(facts, &id(*next));
            }
            *next += 1;
        }
        Happened::RolledBack => {
            if let Ok(goal) = select_rollback(&[("app1", facts)], None) {
                switch(facts, &goal.release.unwrap());
            }
        }
        Happened::Pruned => {
            let kept: Vec<ReleaseId> = chain(facts).into_iter().take(2).collect();
            if let Some(at) = facts.releases.iter().position(|record| !kept.contains(&record.release.id)) {
                facts.releases.remove(at);
            }
        }
    }
}

fn host_after(history: &[Happened]) -> Facts {
    let (mut facts, mut next) = (bare(), 1);
    for what in history {
        happens(&mut facts, &mut next, *what);
    }
    facts
}

fn find<'a>(facts: &'a Facts, id: &ReleaseId) -> &'a Record {
    facts.releases.iter().find(|record| record.release.id == *id).unwrap()
}

proptest! {
    #[test]
    fn a_rollback_goes_to_what_held_and_is_other_code_and_comes_to_an_end(history in prop::collection::vec(happened(), 0..14)) {
        let mut facts = host_after(&history);
        let mut been = vec![live_id(&facts).cloned()];
        while let Ok(goal) = select_rollback(&[("app1", &facts)], None) {
            let to = goal.release.clone().unwrap();
            let (target, live) = (find(&facts, &to), live_record(&facts).unwrap());
            prop_assert!(target.state.is_good(), "{to} did not hold");
            prop_assert!(target.release.tree != live.release.tree, "{to} is the same again");
            // Two steps at once are one after the other.
            let further = select_rollback(&[("app1", &facts)], Some("~2"));
            switch(&mut facts, &to);
            prop_assert_eq!(further.ok().and_then(|goal| goal.release), select_rollback(&[("app1", &facts)], None).ok().and_then(|goal| goal.release));
            prop_assert!(!been.contains(&Some(to.clone())), "{been:?} and again {to}");
            been.push(Some(to));
        }
    }

    #[test]
    fn a_rollback_brings_hosts_to_one_tree_each_by_what_it_has(histories in prop::collection::vec(prop::collection::vec(happened(), 1..10), 1..4), steps in 1..3_usize) {
        let facts: Vec<Facts> = histories.iter().map(|history| host_after(history)).collect();
        let hosts: Vec<(&str, &Facts)> = ["app1", "app2", "app3"].into_iter().zip(&facts).collect();
        let to = format!("~{steps}");
        let Ok(goal) = select_rollback(&hosts, if steps == 1 { None } else { Some(&to) }) else { return Ok(()) };
        for (way, (_, facts)) in ways(&hosts, &goal).iter().zip(&hosts) {
            let has = facts.releases.iter().any(|record| record.release.tree == goal.tree && record.state.is_good());
            prop_assert_eq!(&way.from, &live_id(facts).cloned());
            match &way.way {
                Way::Make => prop_assert!(!has, "{} has it", way.host),
                Way::Stay => prop_assert!(live_record(facts).is_some_and(|live| live.release.tree == goal.tree && live.state.is_good())),
                Way::To(id) => {
                    let target = find(facts, id);
                    prop_assert!(target.release.tree == goal.tree && target.state.is_good());
                    // A host is only switched from the goal's code to the very release that was chosen.
                    let serves = live_record(facts).is_some_and(|live| live.release.tree == goal.tree && live.state.is_good());
                    prop_assert!(!serves || goal.release.as_ref() == Some(id), "{} serves it already", way.host);
                }
            }
        }
    }

    /// Whatever records say of what was live before, cycles and the missing included.
    #[test]
    fn records_that_lead_nowhere_or_in_a_circle_are_survived(links in prop::collection::vec((0..9_u64, 0..3_u8, any::<bool>()), 0..8), live in 0..9_u64) {
        let mut facts = bare();
        for (sequence, (previous, code, holds)) in (1..).zip(&links) {
            let state = if *holds { State::Retired } else { State::Bad };
            facts.releases.push(record(sequence, *code, state, Some(id(*previous))));
        }
        facts.current = Current::Release(id(live));
        let chain = chain(&facts);
        prop_assert!(chain.len() <= facts.releases.len());
        for text in [None, Some("~3"), Some("r2"), Some("0000000")] {
            if let Ok(goal) = select_rollback(&[("app1", &facts)], text) {
                prop_assert!(find(&facts, &goal.release.unwrap()).state.is_good());
            }
        }
    }

    #[test]
    fn what_is_adopted_is_sealed_the_very_code_and_bad_nowhere(history in prop::collection::vec(happened(), 0..10), code in 0..4_u8, force: bool, bad in prop::collection::btree_set(1..8_u64, 0..3)) {
        let facts = host_after(&history);
        let bad: BTreeSet<ReleaseId> = bad.into_iter().map(id).collect();
        let wanted = Wanted { commit: Some(format!("{code:040x}")), tree: tree(code), build_key: tree(0), promoted: None, force, bad };
        let fits = |record: &Record| record.release.tree == wanted.tree && record.state.is_sealed();
        let planned = host("app1", &facts, &wanted, Need::default(), "prod");
        match &planned.action {
            Action::Nothing => prop_assert!(!force && live_record(&facts).is_some_and(fits)),
            Action::Adopt(id) => {
                prop_assert!(!force && fits(find(&facts, id)) && !wanted.bad.contains(id));
                prop_assert!(!live_record(&facts).is_some_and(fits), "it is live already");
            }
            Action::Make => {
                let there = facts.releases.iter().any(|record| fits(record) && !wanted.bad.contains(&record.release.id));
                prop_assert!(force || !there);
            }
        }
        prop_assert!(planned.blockers.is_empty());
    }
}

#[test]
fn hosts_that_would_go_back_to_different_code_are_told_apart() {
    let one = host_after(&[deployed(1), deployed(3)]);
    let two = host_after(&[deployed(2), deployed(3)]);
    let refused = select_rollback(&[("app1", &one), ("app2", &two)], None).unwrap_err();
    assert!(matches!(refused, RollbackError::Differs { .. }), "{refused}");
    let goal = select_rollback(&[("app1", &one), ("app2", &two)], Some("r1")).unwrap();
    assert_eq!(goal.tree, tree(1));
    let ways: Vec<Way> = ways(&[("app1", &one), ("app2", &two)], &goal).into_iter().map(|way| way.way).collect();
    assert_eq!(ways, [Way::To(id(1)), Way::Make]);
}

const fn deployed(code: u8) -> Happened {
    Happened::Deployed { code, holds: true }
}
