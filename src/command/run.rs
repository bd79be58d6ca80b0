//! `run`: an ad-hoc command on the selected hosts. Output is data: equal output is printed once, under the hosts that gave it.

use std::io::Write;

use crate::cli::{self, Common};
use crate::command::interrupt::Interrupt;
use crate::command::outcome;
use crate::command::print;
use crate::command::scene::{self, Ended, Scene};
use crate::config::environment::Target;
use crate::config::placeholders;
use crate::config::ranges;
use crate::error::Error;
use crate::event::Step;
use crate::exit::Exit;
use crate::figures;
use crate::fleet::{self, Tally, each};
use crate::host::{ConnectError, Host, HostError, Reply};
use crate::op::{Answer, Command, End, Exec, Exited, Network, Op};
use crate::report::logs::{self, Said};
use crate::stage::output::Output;
use crate::stage::remote;

/// How many lines of one host are kept for gathering; the stored run has all of them.
const KEPT: usize = 10_000;

/// How one host's command ended: its last lines, and its exit.
struct Ran {
    lines: Vec<String>,
    result: Result<Exited, HostError>,
}

/// Runs the verb.
pub async fn run(common: &Common, args: &cli::Run) -> Result<Exit, Error> {
    let mut scene = Scene::set(common, &scene::common_overrides(common)).await?;
    if args.once {
        scene.environment.targets.truncate(1);
    }
    if args.raw && scene.environment.targets.len() != 1 {
        return Err(Error::new(
            Exit::Usage,
            "raw",
            format!("`--raw` is for one host, and {} are selected", scene.environment.targets.len()),
        )
        .hint("narrow with `-H HOST`, or add `--once`"));
    }
    // A pipe carries what the command writes and nothing else; errors are told.
    let quiet = Common { quiet: 2, ..common.clone() };
    let (events, reporter) = scene.start(if args.raw { &quiet } else { common }, "run");
    let interrupt = Interrupt::listen("Stopping the command on every host. (^C again leaves at once)");
    let connected = fleet::connect(&scene.environment, &events).await;
    let tally = Tally::new(&events, connected.hosts.len());
    let stream = args.stream && !common.json;
    let work = each(&connected.hosts, scene.environment.parallel.max(64), |host| {
        let (scene, tally, events) = (&scene, &tally, &events);
        async move {
            let mut output = Output::keeping(KEPT, host.name(), Step::Run, events);
            let exec = exec(scene, host, args, common);
            let describe = |result: Result<&Exited, &HostError>| fleet::Done {
                exit: result.ok().and_then(remote::exit_code),
                command: args.command.clone(),
                detail: result.err().map(ToString::to_string),
                sent_bytes: None,
            };
            let working = follow(host, exec, &mut output, args.raw, stream);
            let result = tally.step(host.name(), Step::Run, working, describe).await;
            Ran { lines: output.finish(), result }
        }
    });
    let ran = tokio::select! {
        ran = work => ran,
        exit = interrupt.wait() => {
            fleet::close(&connected.hosts).await;
            let error = Error::new(exit, "interrupted", "interrupted; the command was stopped on every host");
            return Ok(scene::finish(&scene, events, reporter, Ended::by(error, connected.hosts.len())));
        }
    };
    fleet::close(&connected.hosts).await;
    if let ([only], true) = (ran.as_slice(), args.raw) {
        let own = own_exit(only);
        let ended = ended(&scene, &connected.hosts, &ran, &[]);
        scene::finish(&scene, events, reporter, Ended { error: None, summary: String::new(), ..ended });
        // The one place that leaves with a code that is not ours: `--raw` promises the command's own.
        std::process::exit(own);
    }
    if !stream && !common.json {
        print(&logs::gathered(&said(&connected.hosts, &ran, &connected.unreachable), common.display().stdout()));
    }
    let ended = ended(&scene, &connected.hosts, &ran, &connected.unreachable);
    Ok(scene::finish(&scene, events, reporter, ended))
}

fn own_exit(ran: &Ran) -> i32 {
    match ran.result.as_ref().map(|exited| exited.end) {
        Ok(End::Code(code)) => code,
        Ok(End::Signal(signal)) => 128 + signal,
        Ok(End::TimedOut | End::Idle | End::Stopped) | Err(_) => i32::from(Exit::RemoteCommand.code()),
    }
}

fn exec(scene: &Scene, host: &Host, args: &cli::Run, common: &Common) -> Exec {
    let facts = host.facts();
    let live = crate::plan::live_record(&facts);
    let rev = live.and_then(|record| record.release.commit.clone()).unwrap_or_default();
    let release = live.map(|record| record.release.id.to_string()).unwrap_or_default();
    let values = scene::values(&scene.environment, host, &release, &rev, crate::plan::short(&rev));
    let command = match args.command.as_slice() {
        [text] => Command::Shell(text.clone()),
        words => Command::Argv(words.to_vec()),
    };
    Exec {
        command,
        directory: args.cwd.as_ref().map(|cwd| placeholders::expand(cwd, &values).unwrap_or_else(|_| cwd.clone())),
        env: placeholders::variables(&values),
        umask: 0o022,
        timeout_ms: limit(common.timeout.as_deref()),
        idle_timeout_ms: limit(common.idle_timeout.as_deref()),
        output_limit: 64 << 20,
        user: if args.sudo { Some("root".to_owned()) } else { args.as_user.clone() },
        network: Network::Host,
    }
}

/// Reads a time that the config has checked; none is no limit.
fn limit(text: Option<&str>) -> u64 {
    let time = text.and_then(|text| crate::config::quantity::duration(text).ok());
    time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

async fn follow(host: &Host, exec: Exec, output: &mut Output<'_>, raw: bool, stream: bool) -> Result<Exited, HostError> {
    let mut call = host.start(Op::Exec(exec)).await?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match call.next().await? {
            Reply::Output { stderr, bytes } if raw => {
                let written = if stderr { std::io::stderr().write_all(&bytes) } else { std::io::stdout().write_all(&bytes) };
                let _ = written;
            }
            Reply::Output { stderr, bytes } => {
                output.feed(stderr, &bytes);
                if stream {
                    print_lines(host.name(), if stderr { &mut err } else { &mut out }, &bytes);
                }
            }
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(Answer::Exited(exited)) => {
                for rest in [&mut out, &mut err].into_iter().filter(|rest| !rest.is_empty()) {
                    print_lines(host.name(), rest, b"\n");
                }
                return Ok(exited);
            }
            Reply::Answer(other) => return Err(HostError::unexpected(host.name(), &other)),
        }
    }
}

fn print_lines(host: &str, pending: &mut Vec<u8>, bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    for byte in bytes {
        if *byte == b'\n' {
            let _ = writeln!(out, "{host}| {}", crate::tree::path::Shown(pending));
            pending.clear();
        } else if pending.len() < 8 * 1024 {
            pending.push(*byte);
        }
    }
}

fn said(hosts: &[Host], ran: &[Ran], unreachable: &[(Target, ConnectError)]) -> Vec<Said> {
    let ran = hosts.iter().zip(ran).map(|(host, ran)| Said {
        host: host.name().to_owned(),
        lines: ran.lines.clone(),
        why: match &ran.result {
            Ok(exited) if exited.is_success() => String::new(),
            Ok(exited) => exited.hint.iter().fold(remote::describe(exited), |end, hint| format!("{end}: {hint}")),
            Err(error) => error.to_string(),
        },
    });
    let lost = unreachable.iter().map(|(target, error)| Said {
        host: target.name.clone(),
        lines: Vec::new(),
        why: format!("could not connect: {error}"),
    });
    ran.chain(lost).collect()
}

fn ended(scene: &Scene, hosts: &[Host], ran: &[Ran], unreachable: &[(Target, ConnectError)]) -> Ended {
    let ok = ran.iter().filter(|ran| ran.result.as_ref().is_ok_and(Exited::is_success)).count();
    let failed: Vec<String> = hosts
        .iter()
        .zip(ran)
        .filter(|(_, ran)| !ran.result.as_ref().is_ok_and(Exited::is_success))
        .map(|(host, _)| host.name().to_owned())
        .collect();
    let took = figures::duration(scene.seconds());
    let mut parts = vec![format!("{ok} ok")];
    if !failed.is_empty() {
        parts.push(format!("{} failed", failed.len()));
    }
    if !unreachable.is_empty() {
        parts.push(format!("{} unreachable", unreachable.len()));
    }
    let summary = format!("{} in {took}", parts.join(", "));
    let exit = match (failed.is_empty(), unreachable.is_empty()) {
        (true, true) => Exit::Ok,
        (false, _) => Exit::RemoteCommand,
        (true, false) => Exit::Unreachable,
    };
    let error = match exit {
        Exit::Ok => None,
        Exit::RemoteCommand => Some(Error::new(exit, "remote-command", format!("the command failed on `{}`", ranges::fold(&failed)))),
        _ => {
            let names: Vec<String> = unreachable.iter().map(|(target, _)| target.name.clone()).collect();
            let why = unreachable.iter().map(|(target, why)| format!("{} | {why}", target.name));
            let first = unreachable.first().map_or("unreachable", |(_, error)| error.code());
            let code = if unreachable.iter().all(|(_, error)| error.code() == first) { first } else { "unreachable" };
            let mut error = Error::new(exit, code, format!("`{}` cannot be reached", ranges::fold(&names))).evidence(why);
            for hint in unreachable.iter().flat_map(|(_, error)| error.hint()) {
                // Hosts that fail alike are helped alike, and nobody reads a page of hints.
                if error.hints.len() < 5 && !error.hints.contains(&hint) {
                    error.hints.push(hint);
                }
            }
            Some(error)
        }
    };
    let error = error.map(|error| error.state(outcome::serving(&scene.environment.name, "runs", &fleet::live(hosts))));
    Ended { exit, error, live: fleet::live(hosts), ok, failed: failed.len() + unreachable.len(), summary, next: Vec::new() }
}
