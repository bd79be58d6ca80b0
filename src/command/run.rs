//! `run`: an ad-hoc command on the selected hosts. Output is data: equal output is printed once, under the hosts that gave it.

use std::collections::BTreeMap;
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
use crate::fleet::{self, Connected, Tally, each};
use crate::host::{ConnectError, Host, HostError, Reply};
use crate::op::{Answer, Command, End, Exec, Exited, Network, Op};
use crate::report::logs::{self, Said};
use crate::stage::output::{MAX_LINE, Output};
use crate::stage::remote;

/// The most output of one host that is gathered, in bytes: what is beyond, the host says in its place.
const GATHERED: u64 = 16 << 20;

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
    let interrupt = Interrupt::of(&scene, "Stopping the command on every host. (^C again leaves at once)", &events, &reporter);
    let connected = match interrupt.until(fleet::connect(&scene.environment, &events)).await {
        Ok(connected) => connected,
        Err(exit) => {
            return Ok(scene::finish(&scene, events, reporter, scene.interrupted(exit, "the command ran nowhere", BTreeMap::new())));
        }
    };
    let tally = Tally::new(&events, connected.hosts.len());
    let stream = args.stream && !common.json;
    let work = each(&connected.hosts, scene.environment.parallel, |host| {
        let (scene, tally, events) = (&scene, &tally, &events);
        async move {
            let mut output = Output::keeping(if stream { 0 } else { usize::MAX }, host.name(), Step::Run, events);
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
    let ran = match interrupt.until(work).await {
        Ok(ran) => ran,
        Err(exit) => {
            fleet::close(&connected.hosts).await;
            let error = Error::new(exit, "interrupted", "interrupted; the command was stopped on every host");
            return Ok(scene::finish(&scene, events, reporter, Ended::by(error)));
        }
    };
    fleet::close(&connected.hosts).await;
    if let ([only], true) = (ran.as_slice(), args.raw) {
        let own = own_exit(only);
        let ended = ended(&scene, &connected, &ran);
        scene::finish(&scene, events, reporter, Ended { error: None, summary: String::new(), ..ended });
        // The one place that leaves with a code that is not ours: `--raw` promises the command's own.
        std::process::exit(own);
    }
    if !stream && !common.json && !args.raw {
        print(&logs::gathered(&said(&connected.hosts, &ran, &connected.unreachable), common.display().stdout()));
    }
    let ended = ended(&scene, &connected, &ran);
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
        // A pipe has no end, and what streams by is not kept.
        output_limit: if args.raw || args.stream { u64::MAX } else { GATHERED },
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
        // A line that does not end is told in pieces: nothing of it is lost, and memory is bounded.
        if *byte == b'\n' || pending.len() == MAX_LINE {
            let _ = writeln!(out, "{host}| {}", crate::tree::path::Shown(pending));
            pending.clear();
        }
        if *byte != b'\n' {
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

fn ended(scene: &Scene, connected: &Connected, ran: &[Ran]) -> Ended {
    let Connected { hosts, unreachable } = connected;
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
            let evidence = unreachable.iter().map(|(target, why)| format!("{} | {why}", target.name)).collect();
            // Of no host's step: what the others printed is a result, and this stands at its end.
            let (what, hosts) = (format!("`{}` cannot be reached", ranges::fold(&names)), Vec::new());
            Some(Error { what, hosts, evidence, ..outcome::unreachable(connected, String::new()) })
        }
    };
    let error = error.map(|error| error.state(outcome::serving(&scene.environment.name, "runs", &fleet::live(hosts))));
    Ended { exit, error, live: fleet::live(hosts), ok, failed: failed.len() + unreachable.len(), summary, next: Vec::new() }
}
