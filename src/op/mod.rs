//! What can be asked of a host, and what it answers: plain data, shared by both ends of the pipe.
//!
//! An `Op` is sent with an id. Some ops use the byte stream of that id: `Begin` and `Content` read one, `Manifest`
//! writes one, `Exec` and `Build` write their command's output. An op ends with exactly one `Answer` or `Failure`.

mod answer;
mod facts;

use serde::{Deserialize, Serialize};

use crate::release::{NewRelease, ReleaseId};
use crate::tree::{Digest, TreePath};

pub use answer::*;
pub use facts::*;

/// A command of the user's: an argv that no shell sees, or a text for `sh -eu`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    Shell(String),
    Argv(Vec<String>),
}

/// One request to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Read the host's state again. Answer: `Facts`.
    Facts,
    /// Take the flock, or say who has it. Recovers what a dead run left behind. Answer: `Locked`.
    Lock(RunInfo),
    /// Let the lock go. Answer: `Done`.
    Unlock,
    /// Make directories and modes. Answer: `SetUp`.
    Setup(Setup),
    /// Begin a release. The stream brings its manifest (or a difference), zstd-compressed. Answer: `Begun`.
    Begin(Begin),
    /// Write content into a begun release. The stream brings it (see `Content`). Answer: `Written`.
    Content(Content),
    /// Link shared paths and the download cache into a release. Answer: `Done`.
    Link(Links),
    /// Run the build in the release directory. The stream is its output. Answer: `Exited`.
    Build { release: ReleaseId, exec: Exec },
    /// Verify, sync and seal. Answer: `Sealed`.
    Seal { release: ReleaseId, durable: bool },
    /// Mark a release that will not be finished. Answer: `Done`.
    Fail { release: ReleaseId, reason: String },
    /// Switch `current`, run the activation, check. Answer: `Activated`. Output of command and check is on the stream.
    Activate(Activate),
    /// Accept the active release. Answer: `Done`.
    Confirm { release: ReleaseId },
    /// Put back what was live before `release` was activated. `bad`: the release itself did not hold, and is never chosen again by
    /// itself. Answer: `Activated`.
    Revert { release: ReleaseId, reason: String, bad: bool },
    /// Remove what retention allows, or one named release. Answer: `Pruned`.
    Prune { keep: u32, only: Option<ReleaseId> },
    /// Run any command. The stream is its output. Answer: `Exited`.
    Exec(Exec),
    /// Send a release's manifest on the stream, zstd-compressed. Answer: `Done`.
    Manifest { release: ReleaseId },
    /// Compare a release's files with its manifest, to the byte. Answer: `Verified`.
    Verify { release: ReleaseId },
    /// Look at paths on the host without changing anything. Answer: `Probed`, in the same order.
    Probe { paths: Vec<String> },
    /// Say who holds the lock, and what freezes the host. Answer: `LockState`.
    LockState,
    /// Freeze the host, under its flock. Answer: `Done`, or `Locked` with what is in the way.
    Hold(Hold),
    /// Lift the freeze of this id, under the flock. Answer: `Done`, or `Locked` with what is in the way.
    Lift { id: String },
    /// End the run that holds the lock: its helper is asked to stop, and ended where it does not. Answer: `RunEnded`.
    EndRun { run: String, by: String },
    /// Look for processes that still run from a release that is not live. Answer: `Processes`.
    Processes,
    /// Take over the releases of another tool where they are: record those that were deployed, and make `current` relative. Answer:
    /// `Adopted`.
    Adopt(Adopt),
    /// Take `.deployer` away; what is served stays. Answer: `Done`.
    Remove,
    /// Compare a directory of files, as a download cache, with a list. The stream brings the list (see `Compare`). Answer: `Compared`.
    Compare(Compare),
    /// Bring content into a directory that was compared to `begin`. The stream brings it as that of `Content` does; indices are into
    /// the list. Answer: `Written`.
    Supply { directory: String, size: u64 },
    /// Send the list of a directory's files on the stream, zstd-compressed; without `digests` nothing is read. Answer: `Done`.
    Gather { directory: String, digests: bool },
    /// Send the content of listed files, one behind the other in one zstd frame. The stream brings the list. Answer: `Done`.
    Fetch { directory: String, size: u64 },
    /// Remove a directory that a fill worked in. Answer: `Done`.
    Clear { directory: String },
    /// Carry one TCP connection that the command with this door makes. Both streams are its bytes. Answer: `Done`.
    Door { door: u64 },
    /// Find out whether what is served is well, and change nothing. The stream is the check's output. Answer: `Checked`.
    Check(Check),
    /// Run a command of the user's that is part of a deploy, under the lock: that it began and how it ended is in the host's history.
    /// The stream is its output. Answer: `Exited`.
    Hook { name: String, release: ReleaseId, exec: Exec },
    /// Read a finished release anew, what its build made included, and send the manifest of it all on the stream, zstd-compressed.
    /// Answer: `Captured`.
    Capture { release: ReleaseId },
    /// Send the content of files of a release: one zstd frame of `length (u64, little endian) | content`, in the order of `files`.
    /// Answer: `Done`.
    Give { release: ReleaseId, files: Vec<TreePath> },
}

/// Who is at work: what another operator reads beside the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    pub run: String,
    /// `ada@laptop`, or `github run 8123456789 (ada)`.
    pub by: String,
    /// `deploying a1b2c3d`.
    pub what: String,
    /// Seconds since 1970.
    pub since: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Directories below `shared/`, made with the group's rights.
    pub shared_directories: Vec<String>,
    /// Files that must be below `shared/`; those that are missing are named in the answer.
    pub shared_files: Vec<String>,
    pub group: Option<String>,
    pub cache: Option<String>,
    /// Only tell what would be done.
    pub check: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    pub release: NewRelease,
    pub source: ManifestSource,
    /// Releases are readable by this group.
    pub group: Option<String>,
}

/// How the manifest travels on the stream of `Begin`: one zstd frame that decompresses to `size` bytes exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestSource {
    /// `Manifest::encode`.
    Whole { size: u64 },
    /// A postcard-encoded `Delta` to the manifest that this release of the host has.
    Delta { size: u64, base: ReleaseId },
}

/// The stream of `Content`: one zstd frame of records `index (u32, little endian) | content`, where the index is into the
/// manifest's entries and the length of the content is that entry's size. It decompresses to `size` bytes exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub release: ReleaseId,
    pub size: u64,
}

/// A directory, and the list it is compared with: one zstd frame on the stream that decompresses to `size` bytes of
/// `Manifest::encode`. Where `size` is 0 the list is the one that the directory keeps under `set`, and it is sent back on the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    pub directory: String,
    pub set: Option<Digest>,
    pub size: u64,
    /// Get ready to complete the directory: `Supply` follows. The list is kept under `set`, and what the host has is taken from there.
    pub begin: bool,
    /// Another directory of the host, which a fill left, that has all that is listed.
    pub from: Option<String>,
}

/// What is linked into a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    pub release: ReleaseId,
    /// Paths below `shared/` and, the same, in the release.
    pub directories: Vec<String>,
    pub files: Vec<String>,
    /// The download cache: where in the release, and the absolute path it leads to.
    pub cache: Option<CacheLink>,
    /// A tracked path in the way is replaced by the link; without it, it is an error.
    pub replace: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLink {
    pub link: String,
    pub target: String,
}

/// A command and everything that surrounds it. Nothing is inherited: the environment is `env` and what `HELPER_ENV` lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    pub command: Command,
    /// An absolute path, or one relative to the root (`current`, `releases/<id>`). None: the user's home.
    pub directory: Option<String>,
    /// Set on top of `HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH`, `LANG=C.UTF-8`, which the helper finds out.
    pub env: Vec<(String, String)>,
    pub umask: u32,
    /// Milliseconds for the whole command; 0 is no limit.
    pub timeout_ms: u64,
    /// Milliseconds without a byte of output; 0 is no limit.
    pub idle_timeout_ms: u64,
    /// Bytes of output that are kept and sent; what is beyond is counted.
    pub output_limit: u64,
    /// Another user to run it as, with `sudo -n -u`.
    pub user: Option<String>,
    pub network: Network,
}

/// What of the network a command may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// As the host has it.
    Host,
    /// A namespace with nothing in it where the host allows one; the answer says whether.
    Blocked,
    /// A namespace with nothing in it, or refused.
    None,
    /// The package index of the controller, behind a door; and nothing else, where the host allows a namespace.
    Index { door: u64 },
    /// As the host has it, and the package index of the controller behind a door.
    HostAndIndex { door: u64 },
}

/// Stands in arguments and variables of a command that has a door for the address and port where it finds the index. Only the
/// process that becomes the command knows the port.
pub const INDEX_ADDRESS: &str = "index.invalid:0";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activate {
    pub release: ReleaseId,
    /// What `current` must be for the switch to happen: what the plan saw.
    pub expect: Option<ReleaseId>,
    /// Restarts whatever serves. Run in the root; also recorded for a later revert.
    pub command: Option<Exec>,
    pub check: Option<Check>,
    /// Milliseconds after which a host that was not confirmed puts itself back; 0 is never.
    pub confirm_within_ms: u64,
    /// A return to an older release: `previous` stays what it was, so that a second rollback goes further back, never forward.
    pub rollback: bool,
}

/// How a host finds out that what it serves is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub probe: Probe,
    /// Tries in all.
    pub retries: u32,
    pub every_ms: u64,
    /// Successes in a row that are asked for.
    pub successes: u32,
    /// Milliseconds one try may take.
    pub timeout_ms: u64,
    /// Milliseconds that it must stay well then, served by the same process.
    pub stay_up_ms: u64,
    /// What must have been started after the switch for an answer to count.
    pub unit: Option<Unit>,
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub name: String,
    /// Of the login user's own manager, not of the system's.
    pub user: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    Run(Exec),
    /// `http://host[:port]/path` or `unix:/path/to.sock:/path`; a status of 200 to 399 is a success, and where `contains` is set the body holds it.
    Url {
        url: String,
        contains: Option<String>,
    },
}

/// `.deployer/hold`: a freeze that outlives who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub id: String,
    pub by: String,
    pub reason: String,
    pub since: i64,
}

/// What the records of adopted releases say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopt {
    pub project: String,
    pub environment: String,
    pub run: String,
    pub by: String,
    /// Only tell what would be done.
    pub check: bool,
}
