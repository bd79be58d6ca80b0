//! `doctor`: this computer, the config and every host, looked at without changing anything; each problem with its fix.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::cli::{self, Common};
use crate::command::builder;
use crate::command::cache;
use crate::command::material::Material;
use crate::command::plan::{is_needed, needed};
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::config::environment::{HostPath, SessionKind, Target};
use crate::config::{Environment, ranges};
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet::{self, Connected, each};
use crate::host::{Host, HostError};
use crate::op::{Answer, Facts, Op, RootState};
use crate::plan;
use crate::report::cache::CacheRow;
use crate::report::paper::Paper;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    group: &'static str,
    name: &'static str,
    level: Level,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn new(group: &'static str, name: &'static str, level: Level, text: impl Into<String>, fix: Option<String>) -> Self {
        Self { group, name, level, text: text.into(), fix }
    }
}

const HERE: &str = "This computer";
const HOSTS: &str = "Hosts";
/// Whoever builds for the hosts and is none of them.
const BUILDERS: &str = "Builder";

/// Runs the verb.
pub async fn doctor(common: &Common, args: &cli::Doctor) -> Result<Exit, Error> {
    let file = scene::load(common)?;
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let mut findings = vec![Finding::new(
        HERE,
        "deploy.toml",
        Level::Ok,
        format!("valid, {}", counted(file.environments().len() as u64, "environment")),
        None,
    )];
    for warning in file.warnings() {
        findings.push(Finding::new(HERE, "deploy.toml", Level::Warning, warning, None));
    }
    findings.extend(this_computer(&scene));
    // What connecting tells is in the findings; nobody reads its events.
    let (events, _) = Events::new(Instant::now());
    let began = Instant::now();
    let connected = fleet::connect(&scene.environment, &events).await;
    findings.push(connections(&connected, began.elapsed().as_millis()));
    for (target, error) in &connected.unreachable {
        findings.push(Finding::new(HOSTS, "connect", Level::Problem, format!("{}: {error}", target.name), error.hint().into_iter().next()));
    }
    findings.extend(noises(&connected.hosts));
    findings.extend(hosts(&scene.environment, &connected.hosts).await);
    findings.extend(caches(&scene, &connected.hosts, &events).await);
    findings.extend(builders(&scene, &connected.hosts, &events).await);
    fleet::close(&connected.hosts).await;
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    if common.json {
        let document = serde_json::json!({ "findings": findings, "problems": problems, "warnings": warnings });
        print(&format!("{document}\n"));
    } else {
        print(&text(&findings, scene.environment.targets.len(), problems, warnings, common.display().stdout()));
    }
    if connected.hosts.is_empty() {
        return Ok(Exit::Unreachable);
    }
    let pending = args.exit_code && problems + warnings > 0;
    Ok(if pending { Exit::Pending } else { Exit::Ok })
}

fn text(findings: &[Finding], hosts: usize, problems: usize, warnings: usize, paper: Paper) -> String {
    let mut text = String::new();
    for group in [HERE, HOSTS, BUILDERS] {
        let of_group: Vec<&Finding> = findings.iter().filter(|finding| finding.group == group).collect();
        let count = if group == HOSTS { format!(" ({hosts})") } else { String::new() };
        if group != BUILDERS || !of_group.is_empty() {
            text += &format!("{group}{count}\n");
        }
        for finding in of_group {
            let mark = match finding.level {
                Level::Ok => "✓",
                Level::Warning => "!",
                Level::Problem => "✗",
            };
            let fix = finding.fix.as_ref().map(|fix| format!(". Fix: {fix}")).unwrap_or_default();
            // What hosts said is not for a terminal as it is.
            text += &format!("  {} {:<12} {}\n", paper.safe(mark), finding.name, paper.safe(&format!("{}{fix}", finding.text)));
        }
    }
    text + &format!("{}, {}.\n", counted(problems as u64, "problem"), counted(warnings as u64, "warning"))
}

fn this_computer(scene: &Scene) -> Vec<Finding> {
    let mut findings = Vec::new();
    match crate::git::version() {
        Ok(version) => findings.push(Finding::new(HERE, "git", Level::Ok, version, None)),
        Err(error) => findings.push(Finding::new(HERE, "git", Level::Problem, error.to_string(), Some("install git".to_owned()))),
    }
    let source = &scene.environment.source;
    if crate::git::is_mirrored(source, &scene.environment.directory) {
        findings.push(Finding::new(HERE, "source", Level::Ok, format!("{}, mirrored when something is deployed", source.git), None));
    } else {
        findings.push(repository(scene));
    }
    let is_here = |target: &Target| target.session == Some(SessionKind::Local);
    if std::env::var_os("SSH_AUTH_SOCK").is_none()
        && !scene.environment.targets.iter().all(is_here)
        && scene.environment.connect.identities.is_empty()
    {
        let text = "no ssh-agent: keys with a passphrase cannot be used";
        findings.push(Finding::new(HERE, "agent", Level::Warning, text, Some("eval \"$(ssh-agent)\" && ssh-add".to_owned())));
    }
    findings
}

fn repository(scene: &Scene) -> Finding {
    let source = &scene.environment.source;
    let opened = crate::git::open(source, &scene.environment.directory, &scene.directories.cache, &|_| {});
    match opened.and_then(|repository| repository.dirty()) {
        Ok(false) => Finding::new(HERE, "source", Level::Ok, format!("{}, clean", source.git), None),
        Ok(true) => {
            let text = "the work tree has changes that no commit holds: only commits travel";
            Finding::new(HERE, "source", Level::Warning, text, Some("git commit".to_owned()))
        }
        Err(error) => Finding::new(HERE, "source", Level::Problem, error.to_string(), None),
    }
}

fn connections(connected: &Connected, millis: u128) -> Finding {
    let all = connected.hosts.len() + connected.unreachable.len();
    let level = if connected.unreachable.is_empty() { Level::Ok } else { Level::Problem };
    Finding::new(HOSTS, "connect", level, format!("{}/{all} in {millis} ms", connected.hosts.len()), None)
}

/// Hosts whose shell writes when nobody asked: harmless here, and the end of `scp` and `rsync`.
fn noises(hosts: &[Host]) -> Vec<Finding> {
    let noisy = hosts.iter().filter_map(|host| host.noise().first().map(|line| (host, line)));
    noisy
        .map(|(host, line)| {
            let text = format!("{} writes at login: {line}", host.name());
            let fix = "let its shell's start-up file write only to a terminal: `[ -t 1 ] || return`".to_owned();
            Finding::new(HOSTS, "shell", Level::Warning, text, Some(fix))
        })
        .collect()
}

async fn hosts(environment: &Environment, hosts: &[Host]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let facts: Vec<(String, Arc<Facts>)> = hosts.iter().map(|host| (host.name().to_owned(), host.facts())).collect();
    let mut platforms: Vec<&str> = facts.iter().map(|(_, facts)| facts.platform.as_str()).collect();
    platforms.sort_unstable();
    platforms.dedup();
    if let Some((_, first)) = facts.first() {
        // One place stands for all: with hundreds of hosts there would be hundreds.
        let text = format!("{}/{} {}, runs from {}", facts.len(), facts.len(), platforms.join(", "), directory_of(&first.helper));
        findings.push(Finding::new(HOSTS, "helper", Level::Ok, text, None));
    }
    findings.extend(layout(environment, &facts));
    findings.extend(disks(environment, &facts));
    findings.extend(clocks(&facts));
    findings.extend(activations(environment, &facts));
    let root = |host: &Host| host.target().root.as_ref().unwrap_or(&environment.root).to_string();
    let needed = needed(environment);
    let probes =
        each(hosts, 64, |host| host.ask(Op::Probe { paths: needed.iter().map(|path| path.at(host.target(), &root(host))).collect() }))
            .await;
    for (index, path) in needed.iter().enumerate() {
        let is_there = |answer: &Result<Answer, HostError>| match answer {
            Ok(Answer::Probed { paths }) => paths.get(index).is_some_and(|state| path.fits(state)),
            Ok(_) | Err(_) => false,
        };
        let asked: Vec<_> = hosts.iter().zip(&probes).filter(|(host, _)| is_needed(environment, host.target(), path)).collect();
        let lacking: Vec<String> = asked.iter().filter(|(_, answer)| !is_there(answer)).map(|(host, _)| host.name().to_owned()).collect();
        let (have, all) = (asked.len() - lacking.len(), asked.len());
        if lacking.is_empty() && !asked.is_empty() {
            findings.push(Finding::new(HOSTS, path.kind(), Level::Ok, format!("{have}/{all} {}", path.name()), None));
        } else if !lacking.is_empty() {
            let text = format!("{have}/{all}; `{}` is missing or not usable on {}", path.name(), ranges::fold(&lacking));
            findings.push(Finding::new(HOSTS, path.kind(), Level::Problem, text, Some(path.fix(environment))));
        }
    }
    findings
}

/// Looks at whoever builds for the hosts and is none of them, in the same ways.
async fn builders(scene: &Scene, members: &[Host], events: &Events) -> Vec<Finding> {
    let environment = scene.environment.builders_apart();
    if environment.targets.is_empty() {
        return Vec::new();
    }
    let began = Instant::now();
    let connected = fleet::connect(&environment, events).await;
    let mut findings = vec![connections(&connected, began.elapsed().as_millis())];
    for (target, error) in &connected.unreachable {
        findings.push(Finding::new(HOSTS, "connect", Level::Problem, format!("{}: {error}", target.name), error.hint().into_iter().next()));
    }
    // One that is a host by another name was looked at.
    let apart: Vec<Host> = connected.hosts.iter().filter(|host| builder::twin(host, members).is_none()).cloned().collect();
    if !apart.is_empty() {
        findings.extend(noises(&apart));
        findings.extend(hosts(&environment, &apart).await);
        findings.extend(caches(scene, &apart, events).await);
    }
    fleet::close(&connected.hosts).await;
    // No `-H` names it: `setup` makes it ready, and deploys prune it.
    let setup = environment.typed("setup");
    let fix = |name: &str, fix: String| match (name, fix.contains(" -H ")) {
        ("disk", _) => None,
        (_, true) => Some(setup.clone()),
        (_, false) => Some(fix),
    };
    let of_builder = |finding: Finding| Finding { group: BUILDERS, fix: finding.fix.and_then(|text| fix(finding.name, text)), ..finding };
    findings.into_iter().map(of_builder).collect()
}

/// Compares caches with what the revision needs that is deployed by default; without one there is nothing to compare with.
async fn caches(scene: &Scene, hosts: &[Host], events: &Events) -> Option<Finding> {
    let environment = &scene.environment;
    if environment.rev.is_none() || hosts.is_empty() || !cache::is_fillable(environment) {
        return None;
    }
    let what = cli::What { rev: None, expect: None, tree: None, from: None, force: false };
    // That the revision cannot be had is told with the source.
    let local = Material::prepare(&what, scene, events).await.ok()?;
    let Some(survey) = cache::survey(scene, &local, hosts, events).await else {
        let text = format!("what {} needs is not known here, nor on any host", local.label());
        let fix = cache::fill_command(environment);
        return Some(Finding::new(HOSTS, "cache", Level::Warning, text, Some(fix)));
    };
    let level = if survey.rows().all(CacheRow::is_complete) { Level::Ok } else { Level::Problem };
    Some(Finding::new(HOSTS, "cache", level, survey.summary(), survey.fix(environment)))
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(directory, _)| directory)
}

fn root_of<'a>(environment: &'a Environment, host: &str) -> &'a HostPath {
    let target = environment.targets.iter().find(|target| target.name == host);
    target.and_then(|target| target.root.as_ref()).unwrap_or(&environment.root)
}

/// The one root of all hosts, where there is one.
fn roots(environment: &Environment) -> String {
    let mut roots: Vec<&HostPath> = environment.targets.iter().map(|target| target.root.as_ref().unwrap_or(&environment.root)).collect();
    roots.sort();
    roots.dedup();
    match roots.as_slice() {
        [only] => only.to_string(),
        _ => "each at a root of its own".to_owned(),
    }
}

fn layout(environment: &Environment, facts: &[(String, Arc<Facts>)]) -> Vec<Finding> {
    let setup = environment.typed("setup");
    let mut findings = Vec::new();
    let mut ready = 0;
    for (name, facts) in facts {
        let problem = match &facts.root {
            RootState::Ready => None,
            RootState::Bare => Some("is not set up yet".to_owned()),
            RootState::Missing { .. } => Some("is missing".to_owned()),
            RootState::NotDirectory => Some("is not a directory".to_owned()),
            RootState::ReadOnly => Some("is on a read-only file system".to_owned()),
            RootState::Denied { owner } => Some(format!("belongs to {owner}, and {} may not write to it", facts.user)),
            RootState::NewerFormat(format) => Some(format!("was written by a newer deployer (format {format})")),
        };
        match problem {
            None => ready += 1,
            Some(problem) => {
                let level = if facts.root == RootState::Bare { Level::Warning } else { Level::Problem };
                findings.push(Finding::new(
                    HOSTS,
                    "layout",
                    level,
                    format!("{name}: {} {problem}", root_of(environment, name)),
                    Some(setup.clone()),
                ));
            }
        }
        for damaged in &facts.unreadable {
            let fix = "restore the file, or remove it together with its release once another one is live".to_owned();
            findings.push(Finding::new(HOSTS, "layout", Level::Problem, format!("{name}: {damaged}"), Some(fix)));
        }
        if let crate::op::Current::NotLink | crate::op::Current::Elsewhere { .. } = facts.current {
            let fix = "move it away on that host: `mv current current.old`".to_owned();
            findings.push(Finding::new(
                HOSTS,
                "layout",
                Level::Problem,
                format!("{name}: `current` is not a link to a release"),
                Some(fix),
            ));
        }
    }
    if ready > 0 {
        findings.insert(0, Finding::new(HOSTS, "layout", Level::Ok, format!("{ready}/{} {}", facts.len(), roots(environment)), None));
    }
    if let Some((first, second)) = plan::twins(facts.iter().map(|(name, facts)| (name.as_str(), &**facts))) {
        let text = format!("`{first}` and `{second}` are one host with one root");
        findings.push(Finding::new(HOSTS, "layout", Level::Problem, text, Some("remove one of the names from deploy.toml".to_owned())));
    }
    findings
}

fn disks(environment: &Environment, facts: &[(String, Arc<Facts>)]) -> Vec<Finding> {
    let full = facts.iter().filter(|(_, facts)| facts.total_bytes > 0 && facts.free_bytes < facts.total_bytes / 10);
    full.map(|(name, facts)| {
        let used = 100 - facts.free_bytes * 100 / facts.total_bytes;
        let fix = Some(format!("deployer prune -e {} -H {name}", environment.name));
        Finding::new(HOSTS, "disk", Level::Warning, format!("{name} is at {used}%"), fix)
    })
    .collect()
}

/// Compares each host's clock with this computer's. Nothing depends on it; people who read times do.
fn clocks(facts: &[(String, Arc<Facts>)]) -> Vec<Finding> {
    const TOLERATED_MS: u64 = 30_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let off = facts.iter().filter(|(_, facts)| facts.clock_ms.abs_diff(now) > TOLERATED_MS);
    off.map(|(name, facts)| {
        let seconds = facts.clock_ms.abs_diff(now) / 1000;
        Finding::new(HOSTS, "clock", Level::Warning, format!("{name} is off by {seconds} s"), Some("check its time service".to_owned()))
    })
    .collect()
}

fn activations(environment: &Environment, facts: &[(String, Arc<Facts>)]) -> Vec<Finding> {
    let unresolved = facts.iter().filter_map(|(name, facts)| facts.unresolved.as_ref().map(|release| (name, release)));
    unresolved
        .map(|(name, release)| {
            let text = format!("{name}: {release} was activated and neither confirmed nor put back");
            Finding::new(HOSTS, "activation", Level::Problem, text, Some(environment.typed("deploy")))
        })
        .collect()
}
