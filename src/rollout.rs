//! The rollout's decisions: how large waves are, what a failure means for the rest. Pure arithmetic on counts.

use crate::config::environment::OnFailure;

/// Says why a text is no number of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a number of hosts nor a percentage from `0%` to `100%`")]
pub struct AmountError(pub String);

/// A number of hosts, absolute or as a share of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Hosts(usize),
    Percent(usize),
}

impl Amount {
    /// Reads `2` or `25%`.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let refused = || AmountError(text.to_owned());
        let number = |digits: &str| digits.parse::<usize>().map_err(|_| refused());
        match text.strip_suffix('%') {
            Some(digits) => number(digits).and_then(|percent| if percent <= 100 { Ok(Self::Percent(percent)) } else { Err(refused()) }),
            None => number(text).map(Self::Hosts),
        }
    }

    /// Counts the hosts of `total`, a share rounded up: a wave of 1 % of 12 hosts is one host.
    #[must_use]
    pub fn at_least(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts.min(total),
            Self::Percent(percent) => (total * percent).div_ceil(100),
        }
    }

    /// Counts the hosts of `total`, a share rounded down: a budget of 10 % of 9 hosts is none.
    #[must_use]
    pub fn at_most(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts.min(total),
            Self::Percent(percent) => total * percent / 100,
        }
    }
}

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

/// What follows from a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWave {
    Continue,
    /// Leave what is switched and stop.
    Stop,
    /// Put back every host that this run switched.
    Rollback,
}

/// Decides how to go on: `failed` counts every host that failed so far, in preparation or activation; `failed_in_wave` those of this wave.
#[must_use]
pub const fn after_wave(policy: OnFailure, failed_in_wave: usize, failed: usize, budget: usize) -> AfterWave {
    if failed_in_wave == 0 || failed <= budget {
        return AfterWave::Continue;
    }
    match policy {
        OnFailure::Rollback => AfterWave::Rollback,
        OnFailure::Stop => AfterWave::Stop,
        OnFailure::Continue => AfterWave::Continue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amounts(texts: &[&str]) -> Vec<Amount> {
        texts.iter().map(|text| Amount::parse(text).unwrap()).collect()
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

    #[test]
    fn texts_that_are_no_amount_are_refused() {
        for text in ["", "-1", "101%", "1.5", "%", "many", "1 %"] {
            assert_eq!(Amount::parse(text), Err(AmountError(text.to_owned())));
        }
    }

    #[test]
    fn one_failed_host_stops_everybody_unless_the_budget_allows_it() {
        assert_eq!(barrier(11, 1, 0), Barrier::Stop);
        assert_eq!(barrier(11, 1, 1), Barrier::Activate);
        assert_eq!(barrier(0, 1, 1), Barrier::Stop);
        assert_eq!(after_wave(OnFailure::Rollback, 1, 1, 0), AfterWave::Rollback);
        assert_eq!(after_wave(OnFailure::Rollback, 1, 1, 1), AfterWave::Continue);
        assert_eq!(after_wave(OnFailure::Stop, 1, 1, 0), AfterWave::Stop);
    }

    proptest! {
        #[test]
        fn waves_hold_every_host_exactly_once(percents in proptest::collection::vec(0_usize..=100, 0..6), total in 0_usize..2000) {
            let amounts: Vec<_> = percents.iter().map(|percent| Amount::Percent(*percent)).collect();
            let sizes = waves(&amounts, total);
            prop_assert_eq!(sizes.iter().sum::<usize>(), total);
            prop_assert!(sizes.iter().all(|size| *size > 0));
        }
    }
}
