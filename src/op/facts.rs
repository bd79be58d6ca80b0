//! What a host is and holds, as it says itself.

use serde::{Deserialize, Serialize};

use crate::release::{Record, ReleaseId};

use super::{Hold, RunInfo};

/// What a host is and holds, read in one go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub platform: String,
    pub user: String,
    pub uid: u32,
    pub home: Option<String>,
    pub hostname: String,
    pub boot_id: String,
    /// The random id in `.deployer/id`.
    pub host_id: Option<String>,
    /// Where the helper runs from.
    pub helper: String,
    /// Milliseconds since 1970 on the host's clock.
    pub clock_ms: i64,
    pub root: RootState,
    /// `ext4`, `xfs`, `nfs` …
    pub filesystem: String,
    pub free_bytes: u64,
    pub total_bytes: u64,
    pub free_inodes: u64,
    pub current: Current,
    /// Sorted by sequence.
    pub releases: Vec<Record>,
    /// Names in `releases/` that have no record here: another tool's, never touched.
    pub foreign: Vec<String>,
    /// Records that cannot be read, shown safely: the file and what is wrong with it.
    pub unreadable: Vec<String>,
    pub holder: Option<RunInfo>,
    pub hold: Option<Hold>,
    /// Rises with each run that takes the lock. Read before all else: a lock whose epoch is the next one saw nobody in between.
    pub epoch: u64,
    /// An activation that was begun and neither confirmed nor put back.
    pub unresolved: Option<ReleaseId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootState {
    /// Usable.
    Ready,
    /// The directory is there and writable, `.deployer` is not there yet.
    Bare,
    /// It is missing; whether its parent lets us make it.
    Missing {
        creatable: bool,
    },
    NotDirectory,
    ReadOnly,
    /// Not writable by this user; the owner's name.
    Denied {
        owner: String,
    },
    /// Written by a newer deployer.
    NewerFormat(u32),
}

/// What `current` is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Current {
    Absent,
    /// A link to a release that is there.
    Release(ReleaseId),
    /// A link to something else, or to nothing; its target, as text for people.
    Elsewhere {
        target: String,
        dangling: bool,
    },
    /// A real directory or file.
    NotLink,
}
