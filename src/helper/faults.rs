//! What only tests ask of a helper: to work with one thread under a tracer, and to have a bug that they must find. Compiled in with the
//! feature `faults` alone, which no helper that is sent to a host has.

/// A bug that somebody could write. Each is at the one place that is named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The record says `sealed` before anything is verified.
    SealBeforeVerify,
    /// What is not sealed may be made live.
    SwitchBeforeSeal,
    /// A release is put back to the one before it in the list.
    RelativeRollback,
    /// `current` is replaced whatever it is.
    NoCompare,
    /// The lock is let go before what it protects is written.
    UnlockBeforeWrite,
    /// A switch leaves no trace of what it replaced.
    NoIntent,
    /// The intent is gone before the confirmation is recorded.
    IntentGoneFirst,
    /// Retention knows only the live release.
    PruneTakesTarget,
    /// What lies aside is taken away before the lock is taken.
    SweepBeforeLock,
    /// What an interrupted upload left counts as whole.
    TrustsUploading,
    /// What a dead run left unfinished is left as it is.
    LeavesUploading,
    /// A rename is not made durable.
    NoDirectorySync,
    /// A file is put in its place before its content is durable.
    NoFileSync,
    /// Control files are written where they are.
    InPlace,
    /// What a crash left of a frame is not cut off.
    TornTailStays,
    /// Any release can be confirmed, live or not.
    ConfirmsAnything,
    /// Two runs have the same epoch.
    EpochStays,
    /// The record and the intent are settled before what is live again was restarted.
    SettlesFirst,
}

#[cfg(feature = "faults")]
mod tested {
    use super::Bug;

    /// Tells whether a test gave the helper this bug.
    pub fn has(bug: Bug) -> bool {
        std::env::var("DEPLOYER_SEEDED_BUG").is_ok_and(|name| name == format!("{bug:?}"))
    }

    /// Tells whether a test traces this helper.
    pub fn is_traced() -> bool {
        std::env::var_os("DEPLOYER_TRACED").is_some()
    }
}

#[cfg(not(feature = "faults"))]
mod tested {
    use super::Bug;

    pub const fn has(_: Bug) -> bool {
        false
    }

    pub const fn is_traced() -> bool {
        false
    }
}

pub use tested::{has, is_traced};

/// How many of `wanted` threads there are: under a tracer one, so that what is done has one order.
#[cfg_attr(not(feature = "faults"), expect(clippy::missing_const_for_fn, reason = "it is none with the feature"))]
pub fn threads(wanted: usize) -> usize {
    if is_traced() { 1 } else { wanted }
}
