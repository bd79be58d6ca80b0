//! What has to be done about a run that ended in the middle: a pure function of what is live, the records and the intent.

use serde::{Deserialize, Serialize};

use crate::op::Current;
use crate::release::{Record, ReleaseId, State};

/// `.deployer/intent`: an activation that was begun, and neither confirmed nor put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub format: u32,
    pub from: Option<ReleaseId>,
    pub to: ReleaseId,
    pub epoch: u64,
    pub run: String,
    pub by: String,
    pub boot_id: String,
    /// Milliseconds since the boot `boot_id`, sleep included; 0 is never.
    pub deadline_ms: u64,
    /// How often it was tried to put it back.
    #[serde(default)]
    pub reverts: u32,
    /// Why the release did not hold, once it began to be put back for that.
    #[serde(default)]
    pub bad: Option<String>,
}

/// When and for whom it is decided.
#[derive(Clone, Debug)]
pub struct Now {
    pub run: String,
    pub boot_id: String,
    pub boot_ms: u64,
}

/// One thing to do. The order matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The release was not sealed, and nobody will go on with it.
    Fail {
        release: ReleaseId,
    },
    /// The confirmation was recorded: do the rest of it.
    FinishConfirm {
        release: ReleaseId,
    },
    /// Put back what was live before.
    Revert {
        release: ReleaseId,
        expired: bool,
    },
    /// `current` no longer leads to the release, but its record says so.
    Settle {
        release: ReleaseId,
        expired: bool,
    },
    /// The run that began it is back in time: it goes on.
    Adopt,
    DropIntent,
}

/// Decides what recovery does.
#[must_use]
pub fn decide(current: &Current, records: &[Record], intent: Option<&Intent>, now: &Now) -> Vec<Action> {
    let mut actions: Vec<Action> = records.iter().filter(|record| is_abandoned(record, now)).map(fail).collect();
    let Some(intent) = intent else { return actions };
    let live = match current {
        Current::Release(id) => Some(id),
        Current::Absent | Current::Elsewhere { .. } | Current::NotLink => None,
    };
    let release = intent.to.clone();
    let state = records.iter().find(|record| record.release.id == release).map(|record| record.state);
    let expired = intent.is_expired(now);
    if live != Some(&release) {
        let put_back = live == intent.from.as_ref() && matches!(current, Current::Release(_) | Current::Absent);
        match state {
            // The link was put back, but perhaps not yet what serves it.
            Some(State::Active) if put_back => actions.push(Action::Revert { release, expired }),
            Some(State::Active) => actions.extend([Action::Settle { release, expired }, Action::DropIntent]),
            Some(_) | None => actions.push(Action::DropIntent),
        }
        return actions;
    }
    actions.push(match state {
        Some(State::Confirmed) => Action::FinishConfirm { release },
        Some(State::Active) if intent.run == now.run && !expired && intent.bad.is_none() => Action::Adopt,
        Some(_) | None => Action::Revert { release, expired },
    });
    actions
}

fn fail(record: &Record) -> Action {
    Action::Fail { release: record.release.id.clone() }
}

/// A run that comes back goes on with its own release; any other release that is not sealed has nobody.
fn is_abandoned(record: &Record, now: &Now) -> bool {
    matches!(record.state, State::Uploading | State::Uploaded | State::Building) && record.release.run != now.run
}

impl Intent {
    pub fn is_expired(&self, now: &Now) -> bool {
        // A boot in between ended the dead man as well.
        self.deadline_ms > 0 && (self.boot_id != now.boot_id || now.boot_ms >= self.deadline_ms)
    }
}
