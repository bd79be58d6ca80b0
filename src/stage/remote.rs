//! The remote stage: turn a transferred tree into the release a host serves.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use crate::config::environment::{Build, Check, CheckProbe, Environment, Hook, Network, Run};
use crate::config::placeholders::{self, Places, Values};
use crate::event::{Events, Step};
use crate::exit::Exit;
use crate::host::{Host, HostError, Reply};
use crate::index::{IndexError, Tunnel};
use crate::op::{self, Activate, Activated, ActivationOutcome, Answer, CacheLink, Command, End, Exec, Exited, Links, Op};
use crate::release::ReleaseId;
use crate::session::process::{self, Ended};
use crate::stage::output::Output;

/// Says why a step failed on one host.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error(transparent)]
    Host(#[from] HostError),
    /// A command of the user's ended badly.
    #[error("{}", describe(exited))]
    Command { command: Command, exited: Exited, tail: Vec<String> },
    #[error("not healthy after {}: {last}", tries_words(*tries))]
    Check { tries: u32, last: String, tail: Vec<String> },
    /// The link was put back; what serves may be the other release still.
    #[error("`current` was put back, but what serves was not restarted: {}", describe(exited))]
    NotRestarted { exited: Exited, tail: Vec<String> },
    /// The link was put back, what serves was restarted, and it is not well.
    #[error("`current` was put back and restarted, but it is not healthy after {}: {last}", tries_words(*tries))]
    Unwell { tries: u32, last: String, tail: Vec<String> },
    #[error("{0}")]
    Placeholder(String),
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The packages that a host is to build from cannot be brought there.
    #[error("{0}")]
    Cache(String),
    /// A command on this machine did not begin.
    #[error("{why}")]
    NotStarted { why: String },
    /// Another run, or a person, has the host.
    #[error("{what}")]
    Locked { what: String, exit: Exit, hint: Option<String> },
}

/// Says how a command ended, for people.
#[must_use]
pub fn describe(exited: &Exited) -> String {
    // Without the time it took, hosts that ended alike are told together.
    match exited.end {
        End::Code(code) => format!("exit {code}"),
        End::Signal(signal) => format!("killed by signal {signal}"),
        End::TimedOut => "stopped: its time limit is over".to_owned(),
        End::Idle => "stopped: no output for too long".to_owned(),
        End::Stopped => "stopped on request".to_owned(),
    }
}

/// Counts tries for people.
#[must_use]
pub fn tries_words(tries: u32) -> String {
    if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") }
}

/// Gives the exit code of a command that had one.
#[must_use]
pub const fn exit_code(exited: &Exited) -> Option<i32> {
    match exited.end {
        End::Code(code) => Some(code),
        End::Signal(_) | End::TimedOut | End::Idle | End::Stopped => None,
    }
}

/// What a release needs on one host, beside its files.
pub struct Recipe<'a> {
    pub environment: &'a Environment,
    pub release: &'a ReleaseId,
    pub values: &'a Values,
    pub durable: bool,
}

/// Links shared paths and the download cache.
pub async fn link(host: &Host, recipe: &Recipe<'_>) -> Result<(), RemoteError> {
    let shared = &recipe.environment.shared;
    let text = |path: &crate::tree::TreePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    let links = Links {
        release: recipe.release.clone(),
        directories: shared.directories.iter().map(text).collect(),
        files: shared.files.iter().map(text).collect(),
        cache: recipe
            .environment
            .cache
            .as_ref()
            .map(|cache| CacheLink { link: text(&cache.link), target: cache.on(host.target()).to_string() }),
        replace: shared.replace,
    };
    host.ask(Op::Link(links)).await?;
    Ok(())
}

/// Runs the build. What the host serves does not change.
pub async fn build(
    host: &Host,
    recipe: &Recipe<'_>,
    build: &Build,
    places: &Places,
    tunnel: Option<&Tunnel>,
    events: &Events,
) -> Result<Exited, RemoteError> {
    let directory = crate::release::layout::release(recipe.release);
    let exec = build_exec(build, &build.command, recipe.values, places, directory, tunnel.map_or(0, Tunnel::door))?;
    // What is told of it does not hold the way to the index.
    let command = if tunnel.is_some() { build.command.clone() } else { exec.command.clone() };
    run(host, Op::Build { release: recipe.release.clone(), exec }, command, Step::Build, events).await
}

/// Makes the request for a build's command, which need not be the one it has in the config: a fill tries it elsewhere.
pub fn build_exec(
    build: &Build,
    command: &Command,
    values: &Values,
    places: &Places,
    directory: String,
    door: u64,
) -> Result<Exec, RemoteError> {
    let text = |text: &str| placeholders::expand_build(text, values, places).map_err(|error| RemoteError::Placeholder(error.to_string()));
    let mut env: Vec<_> = placeholders::variables(values);
    env.extend(places.variables());
    for (name, value) in &build.env {
        env.push((name.clone(), text(value)?));
    }
    let command = match command {
        Command::Shell(text) => Command::Shell(text.clone()),
        Command::Argv(words) => Command::Argv(words.iter().map(|word| text(word)).collect::<Result<_, _>>()?),
    };
    Ok(Exec {
        command,
        directory: Some(directory),
        env,
        umask: 0o022,
        timeout_ms: millis(build.timeout),
        idle_timeout_ms: millis(build.idle_timeout),
        output_limit: build.output_limit,
        user: None,
        network: match build.network {
            Network::Blocked => op::Network::Blocked,
            Network::None => op::Network::None,
            Network::Host => op::Network::Host,
            Network::Index => op::Network::Index { door },
        },
    })
}

/// Verifies, syncs and seals. The seal comes last: an unsealed release is never activated and never a rollback target.
pub async fn seal(host: &Host, recipe: &Recipe<'_>) -> Result<(), RemoteError> {
    host.ask(Op::Seal { release: recipe.release.clone(), durable: recipe.durable }).await?;
    Ok(())
}

/// Switches `current`, restarts and checks. The caller confirms or reverts.
pub async fn activate(
    host: &Host,
    recipe: &Recipe<'_>,
    expect: Option<&ReleaseId>,
    rollback: bool,
    events: &Events,
) -> Result<(Activated, u32), RemoteError> {
    let environment = recipe.environment;
    let command = environment.activate.as_ref().map(|run| exec(run, recipe)).transpose()?;
    let check = environment.check.as_ref().map(|check| check_op(check, recipe)).transpose()?;
    // One request does both, and what it prints is one stream.
    let step = if command.is_none() && check.is_some() { Step::Check } else { Step::Activate };
    let op = Op::Activate(Activate {
        release: recipe.release.clone(),
        expect: expect.cloned(),
        command: command.clone(),
        check,
        confirm_within_ms: millis(environment.confirm_within),
        rollback,
    });
    let (answer, tail) = follow(host, op, step, events).await?;
    let Answer::Activated(activated) = answer else { return Err(HostError::unexpected(host.name(), &answer).into()) };
    match &activated.outcome {
        ActivationOutcome::Well { tries } => {
            let tries = *tries;
            Ok((activated, tries))
        }
        ActivationOutcome::CommandFailed(exited) => {
            let command = command.map_or_else(|| Command::Argv(Vec::new()), |exec| exec.command);
            Err(RemoteError::Command { command, exited: exited.clone(), tail })
        }
        ActivationOutcome::CheckFailed { tries, last } => Err(RemoteError::Check { tries: *tries, last: last.clone(), tail }),
    }
}

/// Finds out whether what the host serves now is well: one try. Says why it is not.
pub async fn check_once(host: &Host, recipe: &Recipe<'_>) -> Result<Option<String>, RemoteError> {
    let Some(check) = &recipe.environment.check else { return Ok(None) };
    let check = op::Check { retries: 1, successes: 1, ..check_op(check, recipe)? };
    match host.ask(Op::Check(check)).await? {
        Answer::Checked(ActivationOutcome::CheckFailed { last, .. }) => Ok(Some(last)),
        Answer::Checked(ActivationOutcome::Well { .. } | ActivationOutcome::CommandFailed(_)) => Ok(None),
        other => Err(HostError::unexpected(host.name(), &other).into()),
    }
}

/// Runs a hook on one host, in the release's directory or, where there may be none, in the root. `told` is what it finds in its
/// environment beside what every command does.
pub async fn hook(
    host: &Host,
    recipe: &Recipe<'_>,
    hook: &Hook,
    in_root: bool,
    told: &[(String, String)],
    events: &Events,
) -> Result<Exited, RemoteError> {
    let mut exec = exec(&hook.run, recipe)?;
    if in_root {
        exec.directory = Some(".".to_owned());
    }
    if !exec.env.is_empty() {
        exec.env.extend_from_slice(told);
    }
    let command = exec.command.clone();
    let op = Op::Hook { name: hook.name.clone(), release: recipe.release.clone(), exec };
    run(host, op, command, Step::Hook, events).await
}

/// Runs a hook on this machine, where `deploy.toml` lies.
pub async fn local_hook(
    environment: &Environment,
    values: &Values,
    hook: &Hook,
    told: &[(String, String)],
    events: &Events,
) -> Result<(), RemoteError> {
    let command = expand(&hook.run.command, values)?;
    let (program, arguments) = match &command {
        Command::Shell(text) => ("sh", vec!["-eu", "-c", text]),
        Command::Argv(words) => match words.split_first() {
            Some((program, rest)) => (program.as_str(), rest.iter().map(String::as_str).collect()),
            None => return Err(RemoteError::NotStarted { why: "the command has no words".to_owned() }),
        },
    };
    let here = std::path::absolute(&environment.directory).unwrap_or_else(|_| environment.directory.clone());
    // Without a slash it is looked for in PATH; with one it begins at `deploy.toml`, wherever the person stands.
    let mut process = if program.contains('/') { process::command(here.join(program)) } else { process::command(program) };
    process.args(arguments).current_dir(&here).envs(placeholders::variables(values)).envs(told.iter().cloned());
    let mut output = Output::new(&values.host, Step::Hook, events);
    let began = std::time::Instant::now();
    let ended = process::follow(process, hook.run.timeout, |stderr, bytes| output.feed(stderr, bytes)).await;
    let tail = output.finish();
    let end = match ended.map_err(|error| RemoteError::NotStarted { why: format!("`{program}` cannot be run: {error}") })? {
        Ended::By(status) if status.success() => return Ok(()),
        Ended::By(status) => status.code().map_or_else(|| End::Signal(status.signal().unwrap_or(0)), End::Code),
        Ended::TimedOut | Ended::TooMuch => End::TimedOut,
    };
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let exited = Exited { end, output_bytes: 0, dropped_bytes: 0, leftovers: 0, millis, isolated: false, hint: None };
    Err(RemoteError::Command { command, exited, tail })
}

/// Accepts what is active.
pub async fn confirm(host: &Host, release: &ReleaseId) -> Result<(), RemoteError> {
    host.ask(Op::Confirm { release: release.clone() }).await?;
    Ok(())
}

/// Puts back what was live before `release`, and restarts it. One that is `bad` is never chosen again by itself.
pub async fn revert(host: &Host, release: &ReleaseId, reason: &str, bad: bool, events: &Events) -> Result<Activated, RemoteError> {
    let op = Op::Revert { release: release.clone(), reason: reason.to_owned(), bad };
    let (answer, tail) = follow(host, op, Step::Revert, events).await?;
    match answer {
        Answer::Activated(activated) => match activated.outcome {
            ActivationOutcome::CommandFailed(exited) => Err(RemoteError::NotRestarted { exited, tail }),
            ActivationOutcome::CheckFailed { tries, last } => Err(RemoteError::Unwell { tries, last, tail }),
            ActivationOutcome::Well { .. } => Ok(activated),
        },
        other => Err(HostError::unexpected(host.name(), &other).into()),
    }
}

/// Runs one command and follows its output; an exit other than 0 is an error with the last lines.
pub async fn run(host: &Host, op: Op, command: Command, step: Step, events: &Events) -> Result<Exited, RemoteError> {
    let (answer, tail) = follow(host, op, step, events).await?;
    match answer {
        Answer::Exited(exited) if exited.is_success() => Ok(exited),
        Answer::Exited(exited) => Err(RemoteError::Command { command, exited, tail }),
        other => Err(HostError::unexpected(host.name(), &other).into()),
    }
}

async fn follow(host: &Host, op: Op, step: Step, events: &Events) -> Result<(Answer, Vec<String>), HostError> {
    let mut call = host.start(op).await?;
    let mut output = Output::new(host.name(), step, events);
    loop {
        match call.next().await? {
            Reply::Output { stderr, bytes } => output.feed(stderr, &bytes),
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(answer) => return Ok((answer, output.finish())),
        }
    }
}

/// Makes the request for a command of the user's that is not a build. It runs in the release, as the build does.
fn exec(run: &Run, recipe: &Recipe<'_>) -> Result<Exec, RemoteError> {
    Ok(Exec {
        command: expand(&run.command, recipe.values)?,
        directory: Some(crate::release::layout::release(recipe.release)),
        // A rule of sudoers can name a command, but not one behind variables that differ from run to run.
        env: match (&run.user, &run.command) {
            (Some(_), Command::Argv(_)) => Vec::new(),
            (None, Command::Argv(_)) | (_, Command::Shell(_)) => placeholders::variables(recipe.values),
        },
        umask: 0o022,
        timeout_ms: millis(run.timeout),
        idle_timeout_ms: 0,
        output_limit: 1 << 20,
        user: run.user.clone(),
        network: op::Network::Host,
    })
}

fn check_op(check: &Check, recipe: &Recipe<'_>) -> Result<op::Check, RemoteError> {
    let values = recipe.values;
    let probe = match &check.probe {
        CheckProbe::Run(run) => op::Probe::Run(exec(run, recipe)?),
        CheckProbe::Url { url, contains } => {
            op::Probe::Url { url: text(url, values)?, contains: contains.as_ref().map(|wanted| text(wanted, values)).transpose()? }
        }
    };
    Ok(op::Check {
        probe,
        retries: check.retries,
        every_ms: millis(check.every),
        successes: check.successes,
        timeout_ms: millis(check.timeout),
        stay_up_ms: millis(check.stay_up),
        unit: check.unit.as_ref().map(|unit| op::Unit { name: unit.name.clone(), user: unit.user }),
    })
}

/// Replaces placeholders in an argv; a text for the shell is left as it is, and finds them in its environment.
fn expand(command: &Command, values: &Values) -> Result<Command, RemoteError> {
    match command {
        Command::Shell(text) => Ok(Command::Shell(text.clone())),
        Command::Argv(words) => words.iter().map(|word| text(word, values)).collect::<Result<_, _>>().map(Command::Argv),
    }
}

fn text(text: &str, values: &Values) -> Result<String, RemoteError> {
    placeholders::expand(text, values).map_err(|error| RemoteError::Placeholder(error.to_string()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
