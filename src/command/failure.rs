//! One host's failure in one step, whatever layer it comes from.

use crate::command::package_index;
use crate::config::environment::Network;
use crate::event::Step;
use crate::exit::Exit;
use crate::fleet::Done;
use crate::host::{ConnectError, HostError};
use crate::index::Remark;
use crate::op::{Code, End, Outside};
use crate::plan::HostPlan;
use crate::recipe;
use crate::stage::capture::CaptureError;
use crate::stage::remote::{RemoteError, exit_code};
use crate::stage::transfer::TransferError;
use crate::tree::path::Shown;

/// One host's failure in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFailure {
    pub host: String,
    pub step: Step,
    pub message: String,
    pub hint: Option<String>,
    /// What to type to remove the cause, where that is known.
    pub fix: Option<String>,
    pub code: Option<Code>,
    pub tail: Vec<String>,
    /// The connection went while the host worked: what it did then is not known.
    pub lost: bool,
    /// Another run, or a person, has the host.
    pub is_locked: bool,
    /// The plan stopped it, before any step began there.
    pub blocked: bool,
    /// The host serves the new release, unconfirmed.
    pub is_switched: bool,
    /// The run went on without the host: it did not decide how the run ended.
    pub is_tolerated: bool,
    /// Every other host would fail as this one did: to leave it out mends nothing.
    pub is_everywhere: bool,
}

impl HostFailure {
    /// Tells whether nobody knows what the host serves: it was lost while it was switched.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.lost && (self.step >= Step::Activate || self.is_switched)
    }

    fn new(host: &str, step: Step, message: impl Into<String>) -> Self {
        Self {
            host: host.to_owned(),
            step,
            message: message.into(),
            hint: None,
            fix: None,
            code: None,
            tail: Vec::new(),
            lost: false,
            is_locked: false,
            blocked: false,
            is_switched: false,
            is_tolerated: false,
            is_everywhere: false,
        }
    }
}

/// Marks what the run goes on without.
pub fn tolerate(failures: &mut [HostFailure]) {
    for failure in failures {
        failure.is_tolerated = true;
    }
}

/// What stops a host before anything is sent to it.
#[must_use]
pub fn blocked(plan: &HostPlan) -> Option<HostFailure> {
    let blocker = plan.blockers.first()?;
    Some(HostFailure {
        hint: Some(blocker.hint.clone()),
        blocked: true,
        ..HostFailure::new(&plan.host, Step::Lock, blocker.message.clone())
    })
}

/// A step that failed on a host for a reason of this machine's own finding.
#[must_use]
pub fn step(host: &str, step: Step, message: impl Into<String>) -> HostFailure {
    HostFailure::new(host, step, message)
}

/// A host that could not be connected to.
#[must_use]
pub fn unreachable(host: &str, error: &ConnectError) -> HostFailure {
    HostFailure { hint: error.hint().into_iter().next(), ..HostFailure::new(host, Step::Connect, error.to_string()) }
}

/// Turns a host's error into a failure of `step`.
#[must_use]
pub fn host(host: &str, step: Step, error: &HostError) -> HostFailure {
    let plain = HostFailure::new(host, step, error.to_string());
    match error {
        HostError::Failed(failure) => HostFailure { code: Some(failure.code), hint: failure.hint.clone(), ..plain },
        HostError::Lost { .. } | HostError::Protocol { .. } => HostFailure { lost: true, ..plain },
    }
}

/// Turns an error of the remote stage into a failure of `step`.
#[must_use]
pub fn remote(name: &str, step: Step, error: &RemoteError) -> HostFailure {
    let plain = HostFailure::new(name, step, error.to_string());
    match error {
        RemoteError::Host(error) => host(name, step, error),
        RemoteError::Command { exited, tail, .. } => HostFailure {
            message: match exited.end {
                End::Code(code) => format!("the command exited with status {code}"),
                End::Signal(_) | End::TimedOut | End::Idle | End::Stopped => error.to_string(),
            },
            tail: tail.clone(),
            hint: recipe::explain(tail, false).or_else(|| exited.hint.clone()),
            ..plain
        },
        RemoteError::Check { tail, .. } | RemoteError::NotRestarted { tail, .. } | RemoteError::Unwell { tail, .. } => {
            HostFailure { tail: tail.clone(), ..plain }
        }
        RemoteError::Locked { exit, hint, .. } => HostFailure { is_locked: *exit == Exit::Locked, hint: hint.clone(), ..plain },
        RemoteError::Placeholder(_) | RemoteError::Index(_) | RemoteError::Cache(_) | RemoteError::NotStarted { .. } => plain,
    }
}

/// Turns an error of a build into a failure: where packages come through the index, none is to be put into a cache, and what the index
/// says of its answers (`remarks`) is the better reason of a package that is not found.
#[must_use]
pub fn build(name: &str, error: &RemoteError, network: Network, remarks: &[Remark]) -> HostFailure {
    let plain = remote(name, Step::Build, error);
    match (error, network) {
        (RemoteError::Command { exited, tail, .. }, Network::Index) => {
            let known = recipe::explain(tail, true);
            // What means the same without an index has nothing to do with it.
            let is_elsewhere = known.is_some() && known == recipe::explain(tail, false);
            let why = if is_elsewhere { None } else { package_index::why(remarks, tail) };
            let hint = why.or(known).or_else(|| package_index::missing(remarks, tail));
            HostFailure { hint: hint.or_else(|| exited.hint.clone()), ..plain }
        }
        (_, Network::Blocked | Network::None | Network::Host | Network::Index) => plain,
    }
}

/// Turns an error of the transfer stage into a failure.
#[must_use]
pub fn transfer(name: &str, error: &TransferError) -> HostFailure {
    match error {
        TransferError::Host(error) => host(name, Step::Push, error),
        TransferError::Local(_) | TransferError::Greedy | TransferError::Unverified => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            HostFailure::new(name, Step::Push, format!("{error}{cause}"))
        }
    }
}

/// Turns an error of taking a built release into a failure of its host.
#[must_use]
pub fn capture(name: &str, error: &CaptureError) -> HostFailure {
    match error {
        CaptureError::Host(error) => host(name, Step::Capture, error),
        CaptureError::Wrong { .. } | CaptureError::Local { .. } => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            HostFailure::new(name, Step::Capture, format!("{error}{cause}"))
        }
    }
}

/// A host on which what another built would not run.
#[must_use]
pub fn unlike(name: &str, what: String, hint: &str) -> HostFailure {
    HostFailure { hint: Some(hint.to_owned()), blocked: true, ..HostFailure::new(name, Step::Push, what) }
}

/// A host that lacks what a built tree refers to; none where it lacks nothing.
#[must_use]
pub fn lacking(name: &str, lacking: &[&Outside]) -> Option<HostFailure> {
    let first = lacking.first()?;
    let more = lacking.len() - 1;
    let more = match more {
        0 => String::new(),
        1 => ", and so is 1 other path that it refers to".to_owned(),
        more => format!(", and so are {more} other paths that it refers to"),
    };
    let what = format!("`{}` is missing, to which `{}` of what was built leads{more}", Shown(first.path.as_bytes()), first.from);
    let hint = "let the build keep it in the release, or put it on every host; `build.venv` is made by `deployer setup`";
    Some(unlike(name, what, hint))
}

/// Describes how a command ended, for the event of its step.
#[must_use]
pub fn describe_command(error: Option<&RemoteError>, command: Vec<String>) -> Done {
    match error {
        // The exit code says it all, and the output says why.
        Some(RemoteError::Command { exited, .. }) if exit_code(exited).is_some() => {
            Done { exit: exit_code(exited), command, detail: exited.hint.clone(), sent_bytes: None }
        }
        Some(error @ (RemoteError::Command { .. } | RemoteError::NotStarted { .. })) => {
            Done { exit: None, command, detail: Some(error.to_string()), sent_bytes: None }
        }
        // It was refused or lost before a command was to blame.
        Some(error) => Done { detail: Some(error.to_string()), ..Done::default() },
        None => Done { exit: None, command, detail: None, sent_bytes: None },
    }
}
