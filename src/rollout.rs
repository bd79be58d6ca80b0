//! The rollout's decisions: how large waves are, who goes first, whether the next host may be admitted, what a failure means for the
//! rest. Pure arithmetic on counts; the tests, most of the file, compare it with a simulation that counts hosts one by one.

use crate::config::environment::OnFailure;
use crate::config::quantity::Amount;

/// Turns cumulative amounts into the sizes of waves that together hold all `total` hosts. Amounts that add nobody make no wave.
#[must_use]
pub fn waves(cumulative: &[Amount], total: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut reached = 0;
    for amount in cumulative.iter().copied().chain([Amount::Percent(100)]) {
        let until = amount.at_least(total);
        if until > reached {
            sizes.push(until - reached);
            reached = until;
        }
    }
    sizes
}

/// Puts those first that are not well: to switch them costs nobody anything. Otherwise the order stays.
pub fn unwell_first<T>(hosts: &mut [T], is_well: impl Fn(&T) -> bool) {
    hosts.sort_by_key(is_well);
}

/// What follows from how the hosts were prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    Activate,
    /// Nobody activates.
    Stop,
}

/// Decides whether those that are ready may activate.
#[must_use]
pub const fn barrier(ready: usize, failed: usize, budget: usize) -> Barrier {
    if ready > 0 && failed <= budget { Barrier::Activate } else { Barrier::Stop }
}

/// What a rollout keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub on_failure: OnFailure,
    /// Failures that do not stop it.
    pub budget: usize,
    /// Hosts that stay well while others are switched.
    pub least_healthy: usize,
}

impl Limits {
    /// Tells whether switching can be begun at all: with everybody that is not well made well, one host may be missing.
    #[must_use]
    pub const fn leave_room(&self, healthy: usize, well: usize, unwell: usize) -> bool {
        well == 0 || healthy + unwell > self.least_healthy
    }

    const fn are_exceeded(&self, failed: usize) -> bool {
        match self.on_failure {
            OnFailure::Rollback | OnFailure::Stop => failed > self.budget,
            OnFailure::Continue => false,
        }
    }
}

/// Whether the next host may be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admit,
    /// Not before one of those that are being switched has come to its end.
    Wait,
    /// Nobody is left, and nobody is at work.
    Done,
    Halt(Halt),
}

/// Why nobody else is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// More hosts failed than may.
    Failures,
    /// To switch another one would leave too few that are well.
    TooFewHealthy,
}

/// How a rollout stands: who is well, at work, and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    limits: Limits,
    /// Hosts that are well and are not being switched.
    healthy: usize,
    at_work: usize,
    failed: usize,
}

impl Rollout {
    /// Begins with `healthy` hosts of the environment, and `failed` that count against the budget.
    #[must_use]
    pub const fn new(limits: Limits, healthy: usize, failed: usize) -> Self {
        Self { limits, healthy, at_work: 0, failed }
    }

    /// Decides about the next host: `next` says whether it is well, or that there is none. One that is admitted is at work from here on.
    #[must_use]
    pub const fn admit_next(&mut self, next: Option<bool>) -> Admission {
        let admission = self.may_admit(next);
        if let (Admission::Admit, Some(is_well)) = (admission, next) {
            self.at_work += 1;
            self.healthy -= is_well as usize;
        }
        admission
    }

    const fn may_admit(&self, next: Option<bool>) -> Admission {
        let exceeded = self.limits.are_exceeded(self.failed);
        match next {
            None | Some(_) if exceeded && self.at_work > 0 => Admission::Wait,
            None | Some(_) if exceeded => Admission::Halt(Halt::Failures),
            None if self.at_work > 0 => Admission::Wait,
            None => Admission::Done,
            // One that is not well is not missed, so that a fleet that is down can be deployed to.
            Some(false) => Admission::Admit,
            Some(true) if self.healthy > self.limits.least_healthy => Admission::Admit,
            Some(true) if self.at_work > 0 => Admission::Wait,
            Some(true) => Admission::Halt(Halt::TooFewHealthy),
        }
    }

    /// Takes note that a host which was at work has come to its end.
    pub const fn ended(&mut self, is_well: bool) {
        self.at_work -= 1;
        self.healthy += is_well as usize;
        self.failed += !is_well as usize;
    }
}

/// What follows from the end of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every host had its turn.
    Complete,
    /// Leave what is switched and stop.
    Stop,
    /// Put back every host that this run switched.
    Rollback,
}

/// Decides what becomes of a rollout that does not go on.
#[must_use]
pub const fn broken_off(policy: OnFailure) -> Verdict {
    match policy {
        OnFailure::Rollback => Verdict::Rollback,
        OnFailure::Stop | OnFailure::Continue => Verdict::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amounts(texts: &[&str]) -> Vec<Amount> {
        texts.iter().map(|text| Amount::parse(text).unwrap()).collect()
    }

    const fn limits(on_failure: OnFailure, budget: usize, least_healthy: usize) -> Limits {
        Limits { on_failure, budget, least_healthy }
    }

    #[test]
    fn waves_are_cumulative() {
        assert_eq!(waves(&amounts(&["1", "25%", "100%"]), 12), [1, 2, 9]);
        assert_eq!(waves(&amounts(&["1", "25%", "100%"]), 3), [1, 2]);
        assert_eq!(waves(&amounts(&["1", "25%", "100%"]), 1), [1]);
        assert_eq!(waves(&[], 5), [5]);
        assert_eq!(waves(&amounts(&["50%"]), 5), [3, 2]);
        assert_eq!(waves(&amounts(&["1"]), 0), Vec::<usize>::new());
    }

    /// Counts on its fingers: is the host at this place, counted from 0, below the amount? A share is reached by the host with which
    /// the hosts so far are that share or more.
    fn is_within(amount: Amount, place: usize, total: usize) -> bool {
        match amount {
            Amount::Hosts(hosts) => place < hosts,
            // The hosts before this one are less than the share: it is needed to reach it.
            Amount::Percent(percent) => place * 100 < percent * total,
        }
    }

    /// Gives every host its wave by asking each amount in turn, and counts them.
    fn waves_by_hand(cumulative: &[Amount], total: usize) -> Vec<usize> {
        let mut sizes = vec![0; cumulative.len() + 1];
        for place in 0..total {
            let wave = cumulative.iter().position(|amount| is_within(*amount, place, total)).unwrap_or(cumulative.len());
            sizes[wave] += 1;
        }
        sizes.retain(|size| *size > 0);
        sizes
    }

    #[test]
    fn waves_are_those_that_are_counted_host_by_host_from_1_to_2000_hosts() {
        let plans = [&["1", "25%", "100%"][..], &["1%", "10%", "50%"], &["33%", "34%"], &["3", "7", "1999"], &["0%", "99%"]].map(amounts);
        for total in 1..=2000 {
            for plan in &plans {
                assert_eq!(waves(plan, total), waves_by_hand(plan, total), "{plan:?} of {total}");
            }
        }
        for total in [1, 2, 3, 7, 99, 100, 101, 1999, 2000] {
            for percent in 0..=100 {
                let plan = [Amount::Percent(percent)];
                assert_eq!(waves(&plan, total), waves_by_hand(&plan, total), "{percent}% of {total}");
            }
        }
    }

    #[test]
    fn the_unwell_go_first_and_the_others_keep_their_order() {
        let mut hosts = [("a", true), ("b", false), ("c", true), ("d", false)];
        unwell_first(&mut hosts, |host| host.1);
        assert_eq!(hosts.map(|host| host.0), ["b", "d", "a", "c"]);
    }

    #[test]
    fn one_failed_host_stops_everybody_unless_the_budget_allows_it() {
        assert_eq!(barrier(11, 1, 0), Barrier::Stop);
        assert_eq!(barrier(11, 1, 1), Barrier::Activate);
        assert_eq!(barrier(0, 1, 1), Barrier::Stop);
        for (policy, budget, expected) in [
            (OnFailure::Rollback, 0, Admission::Halt(Halt::Failures)),
            (OnFailure::Stop, 0, Admission::Halt(Halt::Failures)),
            (OnFailure::Rollback, 1, Admission::Admit),
            (OnFailure::Continue, 0, Admission::Admit),
        ] {
            let mut rollout = Rollout::new(limits(policy, budget, 0), 3, 0);
            assert_eq!(rollout.admit_next(Some(true)), Admission::Admit);
            rollout.ended(false);
            assert_eq!(rollout.admit_next(Some(true)), expected, "{policy:?} {budget}");
        }
        assert_eq!(broken_off(OnFailure::Rollback), Verdict::Rollback);
        assert_eq!(broken_off(OnFailure::Stop), Verdict::Stop);
        assert_eq!(broken_off(OnFailure::Continue), Verdict::Stop);
    }

    #[test]
    fn a_fleet_that_is_down_can_be_deployed_to_and_one_that_must_be_whole_cannot() {
        let whole = limits(OnFailure::Rollback, 0, 3);
        assert!(!whole.leave_room(3, 3, 0));
        assert!(whole.leave_room(0, 0, 3));
        assert!(limits(OnFailure::Rollback, 0, 2).leave_room(2, 2, 1));
        let mut rollout = Rollout::new(whole, 0, 0);
        for _ in 0..3 {
            assert_eq!(rollout.admit_next(Some(false)), Admission::Admit);
        }
        assert_eq!(rollout.admit_next(None), Admission::Wait);
    }

    /// What a host does, as somebody would see it who looks at each of them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Seen {
        /// Serves what it served, and whether it is well.
        Old(bool),
        Switching,
        New,
        Failed,
    }

    /// Whether a host may be switched, found by looking at every host: the rule, and none of the arithmetic.
    fn may_switch(hosts: &[Seen], host: usize, policy: OnFailure, budget: usize, least: usize) -> bool {
        let failed = hosts.iter().filter(|seen| **seen == Seen::Failed).count();
        let others = hosts.iter().enumerate().filter(|(other, _)| *other != host);
        let well = others.filter(|(_, seen)| matches!(seen, Seen::Old(true) | Seen::New)).count();
        (policy == OnFailure::Continue || failed <= budget) && (hosts[host] == Seen::Old(false) || well >= least)
    }

    /// Rolls out over hosts of which some are unwell and some fail, in the order that `chance` gives, and compares every decision with
    /// what is seen. Gives what became of the hosts.
    fn roll_out(unwell: &[bool], fails: &[bool], policy: OnFailure, budget: usize, least: usize, mut chance: u64) -> Vec<Seen> {
        let mut hosts: Vec<Seen> = unwell.iter().map(|unwell| Seen::Old(!unwell)).collect();
        let mut order: Vec<usize> = (0..hosts.len()).collect();
        unwell_first(&mut order, |host| !unwell[*host]);
        let healthy = unwell.iter().filter(|unwell| !**unwell).count();
        let mut rollout = Rollout::new(limits(policy, budget, least), healthy, 0);
        let (mut next, mut at_work) = (0, Vec::new());
        loop {
            let waiting = order.get(next).copied();
            let may = waiting.is_some_and(|host| may_switch(&hosts, host, policy, budget, least));
            let failed = hosts.iter().filter(|seen| **seen == Seen::Failed).count();
            match rollout.admit_next(waiting.map(|host| !unwell[host])) {
                Admission::Admit => {
                    let host = waiting.unwrap();
                    assert!(may, "{host} was admitted among {hosts:?}");
                    hosts[host] = Seen::Switching;
                    at_work.push(host);
                    next += 1;
                }
                Admission::Wait => {
                    assert!(!may && !at_work.is_empty(), "{hosts:?}");
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let host = at_work.swap_remove(usize::try_from(chance >> 33).unwrap() % at_work.len());
                    hosts[host] = if fails[host] { Seen::Failed } else { Seen::New };
                    rollout.ended(!fails[host]);
                }
                Admission::Done => {
                    assert!(waiting.is_none() && at_work.is_empty());
                    return hosts;
                }
                Admission::Halt(why) => {
                    assert!(!may && at_work.is_empty(), "{hosts:?}");
                    assert_eq!(why == Halt::Failures, policy != OnFailure::Continue && failed > budget, "{hosts:?}");
                    return hosts;
                }
            }
        }
    }

    #[test]
    fn every_admission_is_the_one_that_looking_at_every_host_allows() {
        for total in (1..=40).chain([99, 100, 333]) {
            for (policy, budget, least) in [
                (OnFailure::Rollback, 0, 0),
                (OnFailure::Rollback, total / 10, total / 2),
                (OnFailure::Stop, 1, total - 1),
                (OnFailure::Continue, 0, total / 3),
                (OnFailure::Rollback, 2, total),
            ] {
                let unwell: Vec<bool> = (0..total).map(|host| host % 7 == 3).collect();
                let fails: Vec<bool> = (0..total).map(|host| host % 5 == 4).collect();
                roll_out(&unwell, &fails, policy, budget, least, total as u64);
            }
        }
    }

    #[test]
    fn two_thousand_hosts_of_which_none_fails_are_all_switched_while_three_quarters_stay_well() {
        let total = 2000;
        let unwell: Vec<bool> = (0..total).map(|host| host % 20 == 0).collect();
        let hosts = roll_out(&unwell, &vec![false; total], OnFailure::Rollback, 0, 1500, 7);
        assert!(hosts.iter().all(|seen| *seen == Seen::New));
    }

    proptest! {
        #[test]
        fn waves_hold_every_host_exactly_once(percents in proptest::collection::vec(0_usize..=100, 0..6), total in 0_usize..2000) {
            let amounts: Vec<_> = percents.iter().map(|percent| Amount::Percent(*percent)).collect();
            let sizes = waves(&amounts, total);
            prop_assert_eq!(sizes.iter().sum::<usize>(), total);
            prop_assert!(sizes.iter().all(|size| *size > 0));
        }

        #[test]
        fn no_order_of_events_breaks_the_rules(
            hosts in proptest::collection::vec((any::<bool>(), 0_u8..10), 1..60),
            budget in 0_usize..4,
            least in 0_usize..60,
            policy in prop_oneof![Just(OnFailure::Rollback), Just(OnFailure::Stop), Just(OnFailure::Continue)],
            chance in any::<u64>(),
        ) {
            let unwell: Vec<bool> = hosts.iter().map(|host| host.0).collect();
            let fails: Vec<bool> = hosts.iter().map(|host| host.1 == 0).collect();
            let least = least.min(hosts.len());
            let after = roll_out(&unwell, &fails, policy, budget, least, chance);
            let (well, healthy) = (unwell.iter().filter(|unwell| !**unwell).count(), unwell.iter().filter(|unwell| !**unwell).count());
            let room = limits(policy, budget, least).leave_room(healthy, well, hosts.len() - well);
            // Where nothing fails and there is room, everybody is switched; without room somebody who was well is not.
            if !fails.contains(&true) {
                prop_assert_eq!(after.iter().all(|seen| *seen == Seen::New), room);
            }
        }
    }
}
