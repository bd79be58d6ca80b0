//! How an op ends: well, with what it found or did, or badly, with a stable code.

use serde::{Deserialize, Serialize};

use crate::release::ReleaseId;
use crate::tree::TreePath;

use super::{Facts, Hold, RunInfo};

/// How an op ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Facts(Box<Facts>),
    Locked(Locked),
    SetUp(SetUpResult),
    Begun(Begun),
    Written(Written),
    Exited(Exited),
    Sealed { at: i64 },
    Activated(Activated),
    Pruned { removed: Vec<ReleaseId>, kept: Vec<ReleaseId> },
    Verified { differences: Vec<Difference>, files: u64 },
    Probed { paths: Vec<PathState> },
    Checked(ActivationOutcome),
    LockState(LockState),
    RunEnded(RunEnd),
    Processes(Processes),
    Adopted(Adopted),
    Compared(Compared),
    Captured(Captured),
}

/// A release as it was read for other hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The manifest on the stream decompresses to so many bytes.
    pub size: u64,
    /// The links that were made into the release. They are not in the manifest: every host makes its own.
    pub links: Vec<TreePath>,
    /// What the tree refers to and does not hold.
    pub outside: Vec<Outside>,
    /// Files that came after the seal, a few of them named. They are not in the manifest.
    pub late: u64,
    pub late_names: Vec<Vec<u8>>,
}

/// A path outside a release that is there on its host, and what in the release leads to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outside {
    /// As `Probe` takes it.
    pub path: String,
    pub from: TreePath,
}

/// How a directory compares with a list. Ranges are (first index, count) of its entries, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Whether there was a list at all.
    pub listed: bool,
    pub missing: Vec<(u32, u32)>,
    /// There is something of that name with other content.
    pub differing: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locked {
    Yes {
        epoch: u64,
        recovered: Vec<String>,
    },
    /// Another run has it.
    Busy(RunInfo),
    /// A person froze the host.
    Held(Hold),
}

/// What runs from a release that is not live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    pub old: Vec<OldProcess>,
    /// Processes that this user may not look at: where they run from is not known.
    pub unknown: u32,
    /// The host hides the processes of other users, so that not even their number is known.
    pub hidden: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldProcess {
    pub pid: i32,
    pub name: String,
    pub release: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// What was (or would be) done, a line each; nothing where nothing is to adopt.
    pub done: Vec<String>,
    /// What stays another tool's, and why.
    pub left: Vec<String>,
}

/// What keeps others from a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockState {
    pub holder: Option<RunInfo>,
    /// Seconds since the holder last heard of its controller, by the host's clock.
    pub heard: Option<i64>,
    pub hold: Option<Hold>,
}

/// How the run that held the lock came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunEnd {
    /// It had ended before: nobody held the lock.
    Gone,
    /// Its helper stopped at a safe point, as it was asked.
    Stopped,
    /// Its helper did not stop, and was killed.
    Killed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUpResult {
    /// What was (or would be) made or changed, a line each.
    pub changed: Vec<String>,
    pub missing_files: Vec<String>,
    /// What the user may not do, and the commands root would have to run.
    pub root_commands: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Ranges (first index, count) of manifest entries whose content the host lacks, ascending.
    pub missing: Vec<(u32, u32)>,
    /// Files and bytes that came from what the host had.
    pub reused_files: u64,
    pub reused_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub files: u64,
    pub bytes: u64,
    /// What is still missing: empty when the release is uploaded.
    pub missing: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    pub end: End,
    pub output_bytes: u64,
    /// Bytes beyond `output_limit`.
    pub dropped_bytes: u64,
    /// Processes of the command that were still there when it ended, and were ended.
    pub leftovers: u32,
    pub millis: u64,
    /// Whether the command ran in a network namespace of its own.
    pub isolated: bool,
    /// The peak memory was refused by the kernel (out of memory), as far as the exit tells.
    pub hint: Option<String>,
}

impl Exited {
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.end, End::Code(0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Code(i32),
    Signal(i32),
    /// The total time was over.
    TimedOut,
    /// There was no output for too long.
    Idle,
    /// The controller asked for it, or vanished.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    pub from: Option<ReleaseId>,
    pub to: Option<ReleaseId>,
    /// How far it came. All but `Well` leave `current` switched: the controller decides what follows.
    pub outcome: ActivationOutcome,
    pub activation_ms: u64,
    pub check_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivationOutcome {
    Well { tries: u32 },
    CommandFailed(Exited),
    CheckFailed { tries: u32, last: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub path: Vec<u8>,
    pub kind: DifferenceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DifferenceKind {
    Missing,
    Modified,
    Mode,
    LinkTarget,
    Type,
    Extra,
}

/// What a path on a host is, to the user that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathState {
    pub kind: PathKind,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    /// Files below, for a directory (one level); its size for a file.
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    Missing,
    File,
    Directory,
    /// A link that leads to nothing.
    Dangling,
    Other,
}

/// How an op ended badly. The text names the path and the cause; the code is stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
    /// What to do about it, where the host knows.
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    DiskFull,
    ReadOnly,
    Permission,
    NotDirectory,
    CurrentIsDirectory,
    /// `current` is not what the plan saw.
    Superseded,
    NotLocked,
    NotSealed,
    NotFound,
    /// Content does not have the digest it must have.
    Corrupt,
    SharedMissing,
    CacheMissing,
    PathInTheWay,
    /// The command could not be started.
    Command,
    Sudo,
    NoNamespace,
    NewerFormat,
    Refused,
    Protocol,
    Stopped,
    Io,
}
