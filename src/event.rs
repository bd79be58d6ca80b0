//! The one stream that a run tells everything through. Terminal, log, `--json`, the stored run and `logs` are views of it.
//!
//! The JSON form is public: `schema` has a major and a minor number; a minor bump adds keys or types, which readers ignore.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The version of the JSON form.
pub const SCHEMA: &str = "1.0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Local,
    Transfer,
    Remote,
}

/// The steps, in the order of a deploy. `hook` is a command of the user's, before or after others; `revert` follows a failed check; `fill`
/// fetches what builds need, and `run` is an ad-hoc command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Mirror,
    Resolve,
    Export,
    Connect,
    Lock,
    Push,
    Cache,
    Link,
    Build,
    Capture,
    Hook,
    Activate,
    Check,
    Confirm,
    Revert,
    Prune,
    Setup,
    Fill,
    Run,
}

impl Step {
    #[must_use]
    pub const fn stage(self) -> Stage {
        match self {
            Self::Mirror | Self::Resolve | Self::Export => Stage::Local,
            Self::Connect | Self::Lock | Self::Push | Self::Cache | Self::Link | Self::Capture => Stage::Transfer,
            Self::Build
            | Self::Hook
            | Self::Activate
            | Self::Check
            | Self::Confirm
            | Self::Revert
            | Self::Prune
            | Self::Setup
            | Self::Fill
            | Self::Run => Stage::Remote,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Resolve => "resolve",
            Self::Export => "export",
            Self::Connect => "connect",
            Self::Lock => "lock",
            Self::Push => "push",
            Self::Cache => "cache",
            Self::Link => "link",
            Self::Build => "build",
            Self::Capture => "capture",
            Self::Hook => "hook",
            Self::Activate => "activate",
            Self::Check => "check",
            Self::Confirm => "confirm",
            Self::Revert => "revert",
            Self::Prune => "prune",
            Self::Setup => "setup",
            Self::Fill => "fill",
            Self::Run => "run",
        }
    }
}

/// How a step ended on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Ok,
    Failed,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStream {
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Note,
    Warning,
    Error,
}

/// The code of the note that answers whoever asked a run to stop.
pub const STOPPING: &str = "stopping";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Always first.
    #[serde(rename = "version")]
    Version { schema: String, deployer: String, time: String },
    #[serde(rename = "run.started")]
    RunStarted { run: String, verb: String, project: String, env: String, hosts: Vec<String>, actor: String },
    /// The revision is resolved. For a directory that was sent as it is, `rev` is empty and `reference` its path.
    #[serde(rename = "run.revision")]
    Revision { rev: String, reference: String, subject: String, author: String, committed: i64 },
    /// What the run will replace: `from` counts hosts by the short commit they serve (`none` where nothing).
    #[serde(rename = "run.changes")]
    Changes { from: BTreeMap<String, u32>, to: String, commits: Option<u32>, files: Option<u32>, release: String },
    #[serde(rename = "step.started")]
    StepStarted { stage: Stage, step: Step, hosts: u32 },
    /// `summary` is for people: `1,204 files, 18.3 MB`.
    #[serde(rename = "step.finished")]
    StepFinished { stage: Stage, step: Step, hosts: u32, ok: u32, failed: u32, secs: f64, summary: String },
    /// A wave of activations begins: what follows until it finishes belongs to it. Not told where there is only one wave.
    #[serde(rename = "wave.started")]
    WaveStarted { wave: u32, waves: u32, hosts: Vec<String> },
    /// `ok` hosts of the wave serve the new release and are confirmed.
    #[serde(rename = "wave.finished")]
    WaveFinished { wave: u32, waves: u32, hosts: Vec<String>, ok: u32, failed: u32, secs: f64, summary: String },
    /// The hosts that are switched serve for a while before wave `wave` begins.
    #[serde(rename = "wave.paused")]
    WavePaused { wave: u32, secs: f64 },
    /// One host begins a step, after it waited for its turn. A step that never tells has all its hosts at work at once.
    #[serde(rename = "host.started")]
    HostStarted { host: String, step: Step },
    /// May be thinned.
    #[serde(rename = "host.progress")]
    Progress { host: String, step: Step, done_bytes: u64, total_bytes: u64 },
    #[serde(rename = "host.step")]
    HostStep {
        host: String,
        stage: Stage,
        step: Step,
        status: Status,
        secs: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<i32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        command: Vec<String>,
        /// Why it failed, or what is worth knowing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent_bytes: Option<u64>,
    },
    /// A line of a command's output: escaped, at most 8 KiB.
    #[serde(rename = "host.output")]
    Output { host: String, step: Step, stream: OutputStream, line: String },
    /// A warning or error for people. The last error of a run explains its exit code.
    #[serde(rename = "diagnostic")]
    Diagnostic {
        severity: Severity,
        code: String,
        message: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        evidence: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        help: Vec<String>,
    },
    /// Always last, exactly once. `live` counts hosts by the short commit they serve now; `summary` and `next` are for people.
    #[serde(rename = "run.finished")]
    RunFinished {
        run: String,
        status: String,
        exit: u8,
        live: BTreeMap<String, u32>,
        ok: u32,
        failed: u32,
        secs: f64,
        summary: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        next: Vec<(String, String)>,
    },
}

/// An event and when it happened, in seconds since the run began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    #[serde(flatten)]
    pub event: Event,
    pub t: f64,
}

/// The sending end: cheap to clone, given to whoever does work.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Timed>,
    began: Instant,
    serving: Arc<Mutex<Serving>>,
}

/// What a run knows, at any moment, of what its hosts serve: whoever must end it at once can say no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Nothing was switched: hosts counted by what they served when they were last read, none before that.
    AsBefore(BTreeMap<String, u32>),
    /// Hosts are being switched, or were.
    Switching,
}

impl Events {
    /// Makes the stream of a run that began at `began`.
    #[must_use]
    pub fn new(began: Instant) -> (Self, mpsc::Receiver<Timed>) {
        let (sender, receiver) = mpsc::channel();
        let serving = Arc::new(Mutex::new(Serving::AsBefore(BTreeMap::new())));
        (Self { sender, began, serving }, receiver)
    }

    /// Tells `event`. A view that is gone is no reason to stop a deploy.
    pub fn emit(&self, event: Event) {
        match &event {
            Event::Changes { from, .. } => self.serve(from.clone()),
            Event::StepStarted { step: Step::Activate | Step::Revert, .. } => {
                *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Serving::Switching;
            }
            _ => {}
        }
        let _ = self.sender.send(Timed { event, t: self.seconds() });
    }

    /// Notes what the hosts serve, which was read before any of them was switched.
    pub fn serve(&self, live: BTreeMap<String, u32>) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Serving::AsBefore(before) = &mut *serving {
            *before = live;
        }
    }

    /// Says what the hosts serve, as far as the run has come.
    #[must_use]
    pub fn serving(&self) -> Serving {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seconds since the run began, to the millisecond.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
    }
}
