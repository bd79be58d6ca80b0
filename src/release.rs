//! Releases: their ids, states and records, and where things lie on a host. Shared by both ends of the pipe; no I/O.
//!
//! The formats here are on hosts' disks. They carry a format number and are added to, never changed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::op::{Check, Command};
use crate::tree::Digest;

/// The format of every record under `.deployer/`. A host with a higher one is refused before anything is written.
pub const FORMAT: u32 = 1;

/// Names a release: `20261123T061200-a1b2c3d`, or what another tool called it (`20261123061200`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

/// Says why a text is not the id of a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a release: letters, digits, `.`, `_`, `-`, at most 100, not starting with `.` or `-`")]
pub struct ReleaseIdError(String);

impl ReleaseId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReleaseId {
    type Err = ReleaseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|byte| !matches!(byte, b'.' | b'-'));
        if first && text.len() <= 100 && text.bytes().all(plain) { Ok(Self(text.to_owned())) } else { Err(ReleaseIdError(text.to_owned())) }
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = ReleaseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for ReleaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// How far a release came. Only one that was sealed may ever be the target of `current`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Uploading,
    Uploaded,
    Building,
    Sealed,
    Active,
    Confirmed,
    Retired,
    Failed,
    Bad,
}

impl State {
    /// Tells whether every byte was verified, the build ended well and the file system was synced.
    #[must_use]
    pub const fn is_sealed(self) -> bool {
        match self {
            Self::Sealed | Self::Active | Self::Confirmed | Self::Retired => true,
            Self::Uploading | Self::Uploaded | Self::Building | Self::Failed | Self::Bad => false,
        }
    }

    /// Tells whether the release was live and held: what a rollback may choose, and what retention counts.
    #[must_use]
    pub const fn is_good(self) -> bool {
        match self {
            Self::Confirmed | Self::Retired => true,
            Self::Uploading | Self::Uploaded | Self::Building | Self::Sealed | Self::Active | Self::Failed | Self::Bad => false,
        }
    }
}

/// What the controller says of a release when it begins to push it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRelease {
    pub id: ReleaseId,
    pub project: String,
    pub environment: String,
    /// The full commit id; none for a directory that was sent without a label.
    pub commit: Option<String>,
    /// What the operator called it: `master`, `v2.8.0`, the directory of `--tree`.
    pub reference: Option<String>,
    /// Names the code (see `tree::manifest`).
    pub tree: Digest,
    /// Names the files with their times.
    pub manifest: Digest,
    /// Names everything else that decides what the build makes: recipe, command, environment, cache set, shared list.
    pub build_key: Digest,
    /// The id of the run that made it.
    pub run: String,
    /// Who ran it.
    pub by: String,
    /// Seconds since 1970 on the controller's clock. For people; order is `sequence`.
    pub created: i64,
    /// Where its tree was built, if that was not on the host itself.
    #[serde(default)]
    pub origin: Option<Origin>,
}

/// A tree that came to its host built. `NewRelease::tree` names the code all the same, and `NewRelease::manifest` what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Names the tree with what its build made.
    pub tree: Digest,
    /// The host that built it.
    pub host: String,
    /// The environment that had confirmed it.
    pub environment: Option<String>,
}

impl NewRelease {
    /// Names the tree that is sent.
    #[must_use]
    pub fn sent_tree(&self) -> Digest {
        self.origin.as_ref().map_or(self.tree, |origin| origin.tree)
    }
}

/// `.deployer/rel/<id>.json`: what a host knows of one release. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// Rises with each release begun on this host: the order of releases, whatever any clock says.
    pub sequence: u64,
    pub state: State,
    pub release: NewRelease,
    pub sealed: Option<i64>,
    pub activated: Option<i64>,
    pub confirmed: Option<i64>,
    /// The release that was live before this one was activated: absolute, never "the one before".
    pub previous: Option<ReleaseId>,
    /// What makes a host serve this release again after `current` was switched (restart), as it was when it was activated.
    pub activation: Option<Command>,
    /// Why it failed or is bad.
    pub reason: Option<String>,
    /// False where the seal did without a sync (tests only).
    pub durable: bool,
    /// How it was checked when it was activated: a return to it is checked in the same way.
    #[serde(default)]
    pub check: Option<Check>,
}

/// What the build key of a release is that another tool made: nobody knows how.
pub const UNKNOWN_BUILD: Digest = Digest([0xff; 32]);

/// Names under `<root>`. All are relative: the helper opens them beneath a held descriptor.
pub mod layout {
    use super::ReleaseId;

    pub const CURRENT: &str = "current";
    pub const RELEASES: &str = "releases";
    pub const SHARED: &str = "shared";
    pub const REVISIONS_LOG: &str = "revisions.log";
    pub const REVISION: &str = "REVISION";
    pub const CONTROL: &str = ".deployer";
    pub const LOCK: &str = ".deployer/lock";
    /// JSON beside the lock: who holds it (`op::RunInfo` and the helper's pid).
    pub const HOLDER: &str = ".deployer/holder";
    pub const EPOCH: &str = ".deployer/epoch";
    pub const HOLD: &str = ".deployer/hold";
    /// Asks the holder of the lock to stop: the id of its run, and who asks.
    pub const END: &str = ".deployer/end";
    pub const RECORDS: &str = ".deployer/rel";
    pub const INTENT: &str = ".deployer/intent";
    pub const JOURNAL: &str = ".deployer/journal";
    pub const MANIFESTS: &str = ".deployer/manifest";
    pub const HOST_ID: &str = ".deployer/id";
    pub const TEMPORARY: &str = ".deployer/tmp";
    pub const TRASH: &str = ".deployer/trash";
    /// A copy of the live release's tree, made ahead for the next one, and what it holds.
    pub const SPARE: &str = ".deployer/spare";
    pub const SPARE_MANIFEST: &str = ".deployer/spare/manifest";
    /// Held by whoever makes the spare or uses it.
    pub const SPARE_LOCK: &str = ".deployer/spare.lock";
    pub const HELPERS: &str = ".deployer/helper";
    /// Build output: `.deployer/log/<id>/<step>.log`, removed with the release.
    pub const LOGS: &str = ".deployer/log";

    #[must_use]
    pub fn release(id: &ReleaseId) -> String {
        format!("{RELEASES}/{id}")
    }

    #[must_use]
    pub fn record(id: &ReleaseId) -> String {
        format!("{RECORDS}/{id}.json")
    }

    #[must_use]
    pub fn manifest(id: &ReleaseId) -> String {
        format!("{MANIFESTS}/{id}")
    }

    /// What a build may write beside its release; gone when it ends.
    #[must_use]
    pub fn scratch(id: &ReleaseId) -> String {
        format!("{TEMPORARY}/build-{id}")
    }

    #[must_use]
    pub fn log(id: &ReleaseId, step: &str) -> String {
        format!("{LOGS}/{id}/{step}.log")
    }
}
