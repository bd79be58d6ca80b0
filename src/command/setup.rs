//! `setup`: directories, modes, shared paths, the virtual environment. Idempotent; what the login user may not do is printed for root.

use std::collections::BTreeMap;

use crate::cli::{self, Common, What};
use crate::command::builder;
use crate::command::cache::{self, Supplies};
use crate::command::failure::{self, HostFailure};
use crate::command::interrupt::Interrupt;
use crate::command::locks::{self, Attempt};
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::scene::{self, Ended, Scene};
use crate::command::{boot_unit, print, sudoers};
use crate::config::Overrides;
use crate::config::environment::{Environment, Network};
use crate::error::Error;
use crate::event::{Event, Events, Severity, Step};
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet::{self, Done, Tally, each};
use crate::host::{Host, HostError};
use crate::index::Remark;
use crate::op::{self, Answer, Current, Op, RootState, SetUpResult};
use crate::plan;
use crate::release::layout;
use crate::session::Opener;
use crate::stage::remote::RemoteError;
use crate::stage::transfer::TransferError;
use crate::tree::TreePath;

mod venv;

use venv::Venvs;

/// Runs the verb.
pub async fn setup(common: &Common, args: &cli::Setup) -> Result<Exit, Error> {
    let scene = Scene::set(common, &Overrides { rev: args.rev.clone(), ..scene::common_overrides(common) }).await?;
    if args.print_sudoers {
        return print_sudoers(common, &scene).await;
    }
    if args.print_boot_unit {
        return boot_unit::print(common, &scene).await;
    }
    let (events, reporter) = scene.start(common, "setup");
    let interrupt = Interrupt::of(&scene, "Stopping. (^C again leaves at once)", &events, &reporter);
    // A host whose session ends stops what was running and lets its lock go; the next `setup` does the rest.
    let ended = match interrupt.until(Box::pin(run(&scene, args, &events))).await {
        Ok(ended) => ended,
        Err(exit) => scene.interrupted(exit, "what hosts serve did not change; the same command does the rest", BTreeMap::new()),
    };
    Ok(scene::finish(&scene, events, reporter, ended))
}

async fn run(scene: &Scene, args: &cli::Setup, events: &Events) -> Ended {
    if args.rev.is_some() {
        // What is named must be there; what is only the default may not be yet. Whoever uses it tells of it.
        let (unheard, _) = Events::new(std::time::Instant::now());
        if let Err(error) = Material::prepare(&What::default(), scene, &unheard).await {
            return Ended::by(error.state("nothing was changed"));
        }
    }
    // Whoever builds for all is made ready too, be it a host of the environment or not.
    let builders = scene.environment.builders_apart();
    let (mut connected, apart) = tokio::join!(fleet::connect(&scene.environment, events), fleet::connect(&builders, events));
    connected.unreachable.extend(apart.unreachable);
    let ended = if connected.unreachable.is_empty() {
        with_hosts(scene, args, (&connected.hosts, &apart.hosts), events).await
    } else {
        Ended::by(outcome::unreachable(&connected, "nothing was changed".to_owned()))
    };
    fleet::close(&connected.hosts).await;
    fleet::close(&apart.hosts).await;
    ended
}

/// Prints the rules for everybody who logs in on some host; no host is contacted.
async fn print_sudoers(common: &Common, scene: &Scene) -> Result<Exit, Error> {
    let mut lines: Vec<String> = Vec::new();
    for target in &scene.environment.targets {
        let opener = Opener::prepare(target, &scene.environment.connect).await.map_err(|error| {
            let mut failure = Error::new(Exit::Config, error.code(), format!("who logs in on `{}` is not known: {error}", target.name));
            failure.hints.extend(error.hint());
            failure
        })?;
        let (_, user, _) = opener.place();
        // Nobody logs in to this machine: whoever runs this acts there.
        let here = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "YOU".to_owned());
        for line in sudoers::lines(&scene.environment, if user.is_empty() { &here } else { user }) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    if common.json {
        return Ok(print(&format!("{}\n", serde_json::json!({ "env": scene.environment.name, "lines": lines }))));
    }
    if lines.is_empty() {
        lines.push(format!("# nothing in {} runs as another user", scene.environment.name));
    }
    Ok(print(&format!("{}\n", lines.join("\n"))))
}

async fn with_hosts(scene: &Scene, args: &cli::Setup, (hosts, builders): (&[Host], &[Host]), events: &Events) -> Ended {
    let environment = &scene.environment;
    let all = [hosts, builders].concat();
    let tally = Tally::new(events, all.len());
    let (supplies, venvs) = match Venvs::find(scene, events).await {
        Ok(venvs) => (Supplies::find(scene, &all, events).await, venvs),
        Err(error) => return Ended::by(error.state(outcome::serving(&environment.name, "still runs", &fleet::live(hosts)))),
    };
    tell_unknown(scene, events);
    let one = |host: Host| {
        let (supplies, venvs, tally) = (&supplies, &venvs, &tally);
        // Nobody serves from the root of a builder that is none of the hosts.
        let in_the_way = hosts.iter().any(|other| other.name() == host.name()) && plan::current_in_the_way(&host.facts()).is_some();
        async move {
            let describe = |result: Result<&SetUpResult, &RemoteError>| Done {
                detail: Some(match result {
                    Ok(result) if !result.root_commands.is_empty() => "root has to act first".to_owned(),
                    Ok(result) if result.changed.is_empty() && in_the_way => "`current` is in the way".to_owned(),
                    Ok(result) if result.changed.is_empty() => "as it must be".to_owned(),
                    Ok(result) => result.changed.join("; "),
                    Err(error) => error.to_string(),
                }),
                ..Done::default()
            };
            let result = tally.step(host.name(), Step::Setup, set_up(scene, &host, (supplies, venvs), args.check, events), describe).await;
            (host, result)
        }
    };
    let mut results = each(hosts.iter().cloned(), environment.parallel, one).await;
    for builder in builders {
        // By another name it may be one of the hosts, which is ready by now, or the builder before.
        fleet::refresh(&all).await;
        let before: Vec<Host> = results.iter().map(|(host, _)| host.clone()).collect();
        if builder::twin(builder, &before).is_some() {
            tally.absent(&[Step::Setup]);
        } else {
            results.push(one(builder.clone()).await);
        }
    }
    let (mut failures, mut evidence, mut changed) = (Vec::new(), Vec::new(), 0);
    let mut refused = false;
    let ready: Vec<Host> = results.iter().map(|(host, _)| host.clone()).collect();
    for (host, result) in results {
        match result {
            Ok(result) => {
                changed += result.changed.len();
                refused |= !result.root_commands.is_empty();
                evidence.extend(result.root_commands.iter().map(|line| format!("{} | {line}", host.name())));
                let root = host.target().root.as_ref().unwrap_or(&environment.root);
                evidence.extend(result.missing_files.iter().map(|file| format!("{} | {root}/{}/{file}", host.name(), layout::SHARED)));
            }
            Err(error) => failures.push(failed(environment, &host, &error, &venvs.remarks())),
        }
    }
    let live = fleet::live(hosts);
    let state = outcome::serving(&environment.name, "still runs", &live);
    let counts = |error: Error, failed: usize| Ended {
        exit: error.exit,
        error: Some(error),
        live: live.clone(),
        ok: ready.len().saturating_sub(failed),
        failed,
        summary: String::new(),
        next: Vec::new(),
    };
    if !failures.is_empty() {
        let failed = failures.len();
        let exit = if failures.iter().any(|failure| failure.is_locked) { Exit::Locked } else { Exit::BuildFailed };
        return counts(outcome::explain(exit, &failures, ready.len(), state), failed);
    }
    if refused {
        let error = Error::new(Exit::Refused, "needs-root", "the login user may not do all of it; root has to run this once")
            .evidence(evidence)
            .state(state)
            .hint(format!("then again: {}", environment.typed("setup")));
        return counts(error, 0);
    }
    let in_the_way: Vec<String> = hosts.iter().filter_map(|host| current_in_the_way(environment, host)).collect();
    if !in_the_way.is_empty() {
        let error =
            Error::new(Exit::Refused, "current", "`current` cannot be switched: nothing can be deployed before it is out of the way")
                .evidence(in_the_way)
                .state(state)
                .hint(format!("then again: {}", environment.typed("setup")));
        return counts(error, 0);
    }
    if !evidence.is_empty() {
        let error = Error::new(Exit::Refused, "shared-missing", "shared files are missing: put each where it belongs, once")
            .evidence(evidence)
            .state(state)
            .hint(format!("then again: {}", environment.typed("setup")));
        return counts(error, 0);
    }
    let summary = match (args.check, changed) {
        (_, 0) => format!("{} is as it must be: {}", environment.name, counted_with(hosts, &ready)),
        (true, _) => format!("{} needs {}; nothing was changed", environment.name, counted(changed as u64, "change")),
        (false, _) => format!("{} is ready: {}", environment.name, counted_with(hosts, &ready)),
    };
    let verb = if args.check && changed > 0 { "setup" } else { "deploy" };
    let next = vec![(verb.to_owned(), environment.typed(verb))];
    Ended { exit: Exit::Ok, error: None, live, ok: ready.len(), failed: 0, summary, next }
}

/// What helps where packages come through the index is another thing than where they lie in a cache.
fn failed(environment: &Environment, host: &Host, error: &RemoteError, remarks: &[Remark]) -> HostFailure {
    let network = environment.of(host.target()).build.as_ref().map_or(Network::Blocked, |build| build.network);
    HostFailure { step: Step::Setup, ..failure::build(host.name(), error, network, remarks) }
}

/// What is needed is read from a revision. Where none is known, it is told what is left out for that.
fn tell_unknown(scene: &Scene, events: &Events) {
    let environment = &scene.environment;
    if environment.rev.is_some() {
        return;
    }
    let pins = environment.ways().any(|way| way.build.as_ref().is_some_and(|build| build.venv.is_some()));
    let fills = environment.ways().any(cache::is_fillable);
    let what = match (fills, pins) {
        (false, false) => return,
        (true, false) => "what the cache must hold",
        (false, true) => "which zc.buildout the virtual environment must hold",
        (true, true) => "what the cache must hold, and which zc.buildout the virtual environment",
    };
    events.emit(Event::Diagnostic {
        severity: Severity::Warning,
        code: "which-revision".to_owned(),
        message: format!("{what}, only a revision says, and [env.{}] names none", environment.name),
        hosts: Vec::new(),
        evidence: Vec::new(),
        state: None,
        help: vec![scene.typed("setup", " --rev master")],
    });
}

/// What has to be done about `current` on a host, by whoever knows what it is.
fn current_in_the_way(environment: &Environment, host: &Host) -> Option<String> {
    let facts = host.facts();
    let why = plan::current_in_the_way(&facts)?;
    let current = format!("{}/{}", host.target().root.as_ref().unwrap_or(&environment.root), layout::CURRENT);
    let what_to_do = match facts.current {
        Current::Elsewhere { .. } => format!("if nothing needs the link: rm {current}"),
        Current::Absent | Current::Release(_) | Current::NotLink => format!("look what is in it, then: mv {current} {current}.old"),
    };
    Some(format!("{} | {why}; {what_to_do}", host.name()))
}

/// `2 hosts and build1, which builds for them`.
fn counted_with(hosts: &[Host], ready: &[Host]) -> String {
    let builders: Vec<&str> = ready.iter().skip(hosts.len()).map(Host::name).collect();
    let with = match builders.as_slice() {
        [] => String::new(),
        [one] => format!(" and {one}, which builds for them"),
        more => format!(" and {}, which build for them", more.join(" and ")),
    };
    format!("{}{with}", counted(hosts.len() as u64, "host"))
}

/// Sets one host up under its lock, where there is a root that can hold one.
async fn set_up(
    scene: &Scene,
    host: &Host,
    brought: (&Supplies<'_>, &Venvs),
    check: bool,
    events: &Events,
) -> Result<SetUpResult, RemoteError> {
    let one = std::slice::from_ref(host);
    let lockable = matches!(host.facts().root, RootState::Ready | RootState::Bare);
    if lockable
        && !check
        && let Attempt::Refused(error) = locks::take(scene, one, "setting up").await
    {
        let told: Vec<String> = error.evidence.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let what = if told.is_empty() { error.what } else { format!("{} ({})", error.what, told.join(", ")) };
        return Err(RemoteError::Locked { what, exit: error.exit, hint: error.hints.into_iter().next() });
    }
    let result = make_ready(scene, host, brought, check, events).await;
    locks::unlock(one).await;
    result
}

async fn make_ready(
    scene: &Scene,
    host: &Host,
    (supplies, venvs): (&Supplies<'_>, &Venvs),
    check: bool,
    events: &Events,
) -> Result<SetUpResult, RemoteError> {
    let environment = &scene.environment;
    let text = |path: &TreePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    let op = op::Setup {
        shared_directories: environment.shared.directories.iter().map(text).collect(),
        shared_files: environment.shared.files.iter().map(text).collect(),
        group: environment.group.clone(),
        cache: environment.cache.as_ref().map(|cache| cache.on(host.target()).to_string()),
        check,
    };
    let mut result = match host.ask(Op::Setup(op)).await? {
        Answer::SetUp(result) => result,
        other => return Err(HostError::unexpected(host.name(), &other).into()),
    };
    if !result.root_commands.is_empty() {
        return Ok(result);
    }
    // The packages come first: the virtual environment is made of them.
    let way = environment.of(host.target());
    if let Some(cache) = &way.cache {
        let brought = supplies.bring(host, way, cache, check, events).await;
        result.changed.extend(brought.map_err(|error| match error {
            TransferError::Host(error) => error.into(),
            TransferError::Local(_) | TransferError::Greedy | TransferError::Unverified => RemoteError::Cache(error.to_string()),
        })?);
    }
    result.changed.extend(venvs.make(way, host, supplies.pins(way), check, events).await?);
    Ok(result)
}
