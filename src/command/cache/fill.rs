//! `cache fill`: runs the recipe's resolver for a revision on a builder, and keeps what it fetched.

use std::collections::BTreeMap;

use super::{Subject, overrides};
use crate::cli::{self, Common};
use crate::command::failure;
use crate::command::interrupt::Interrupt;
use crate::command::locks::{self, Attempt};
use crate::command::outcome;
use crate::command::scene::{self, Ended, Scene};
use crate::config::environment::{HostPath, SessionKind, Target};
use crate::error::Error;
use crate::event::{Event, Events, Severity, Step};
use crate::exit::Exit;
use crate::figures::{bytes, counted, duration};
use crate::fleet::{self, Done, Tally};
use crate::host::Host;
use crate::op::{self, Op};
use crate::provision::fill::{Fill, FillError, Filled, Proof};
use crate::shelf::{About, Set};

/// Variables of this machine that a fill with `--local` runs with: where to find tools, indexes and the way to them.
const INHERITED: [&str; 8] =
    ["PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];
const INHERITED_OF: [&str; 6] = ["PIP_", "UV_", "NPM_CONFIG_", "CARGO_", "BUNDLE_", "RUSTUP_"];
/// The name of this machine where it is the builder.
const HERE: &str = "local";

/// Runs the verb.
pub async fn fill(common: &Common, args: &cli::CacheFill) -> Result<Exit, Error> {
    let mut scene = Scene::set(common, &overrides(common, args.rev.as_deref())).await?;
    if args.local {
        build_here(&mut scene)?;
    } else {
        scene.environment.targets.truncate(1);
    }
    let (events, reporter) = scene.start(common, "cache fill");
    let interrupt = Interrupt::listen("Stopping the fill; the cache stays as it was. (^C again leaves at once)");
    if args.local {
        let message = "the project's own code (its setup, its build) runs on this machine, as you";
        events.emit(note(Severity::Warning, "local-fill", message.to_owned(), Vec::new()));
    }
    let ended = match interrupt.until(Box::pin(run(&scene, args, &events))).await {
        Ok(ended) => ended.unwrap_or_else(|error| Ended::by(error, 1)),
        Err(exit) => scene.interrupted(exit, "the cache stays as it was", BTreeMap::new()),
    };
    Ok(scene::finish(&scene, events, reporter, ended))
}

/// Makes this machine the builder, with a root and a cache of its own.
fn build_here(scene: &mut Scene) -> Result<(), Error> {
    let own = scene.directories.cache.join("builder");
    let path = |name: &str| {
        HostPath::new(&own.join(name).to_string_lossy()).map_err(|error| {
            Error::new(Exit::Usage, "cache-directory", "nothing can be filled in your cache directory")
                .caused_by(error)
                .hint("set XDG_CACHE_HOME")
        })
    };
    let (root, cache) = (path("root")?, path("cache")?);
    if let Some(own) = &mut scene.environment.cache {
        own.path = cache;
    }
    scene.environment.targets = vec![Target {
        name: HERE.to_owned(),
        address: HERE.to_owned(),
        user: None,
        port: None,
        roles: Vec::new(),
        labels: BTreeMap::new(),
        session: Some(SessionKind::Local),
        root: Some(root),
        cache: None,
    }];
    Ok(())
}

async fn run(scene: &Scene, args: &cli::CacheFill, events: &Events) -> Result<Ended, Error> {
    let subject = Subject::settle(scene, args.rev.as_deref(), events).await?;
    let connected = fleet::connect(&scene.environment, events).await;
    let ended = match connected.hosts.first() {
        Some(host) => on_builder(&subject, host, args.local, events).await,
        None => Err(outcome::unreachable(&connected, "nothing was changed".to_owned())),
    };
    fleet::close(&connected.hosts).await;
    ended
}

async fn on_builder(subject: &Subject<'_>, host: &Host, local: bool, events: &Events) -> Result<Ended, Error> {
    let scene = subject.scene;
    if local {
        let op = op::Setup {
            shared_directories: Vec::new(),
            shared_files: Vec::new(),
            group: None,
            cache: Some(subject.cache()?.path.to_string()),
            check: false,
        };
        host.ask(Op::Setup(op)).await.map_err(|error| plain(host, Step::Setup, &FillError::from(error)))?;
    }
    let one = std::slice::from_ref(host);
    let tally = Tally::new(events, 1);
    if let Attempt::Refused(mut error) = locks::take(scene, one, &format!("filling the cache for {}", subject.local.label())).await {
        error.state = Some("the cache stays as it was".to_owned());
        if error.exit != Exit::Locked {
            error.hints.push(format!("deployer setup -e {} -H {}", scene.environment.name, host.name()));
        }
        return Err(error);
    }
    let filled = tally.step(host.name(), Step::Fill, filled(subject, host, local, events), |result| Done {
        detail: Some(match result {
            Ok(filled) => summary(filled),
            Err(error) => error.to_string(),
        }),
        ..Done::default()
    });
    let filled = filled.await;
    locks::unlock(one).await;
    let filled = filled.map_err(|error| plain(host, Step::Fill, &error))?;
    keep(subject, host, &filled, events)?;
    let next = vec![("push".to_owned(), format!("deployer cache push -e {}", scene.environment.name))];
    let proven = match &filled.proof {
        Proof::Passed { .. } => ", proven by a build",
        Proof::Failed { .. } => "",
    };
    let took = duration(scene.seconds());
    let summary = format!("Filled for {}: {}{proven}, in {took}", subject.local.label(), summary(&filled));
    Ok(Ended { exit: Exit::Ok, error: None, live: fleet::live(one), ok: 1, failed: 0, summary, next })
}

async fn filled(subject: &Subject<'_>, host: &Host, local: bool, events: &Events) -> Result<Filled, FillError> {
    let environment = subject.environment;
    let (Some(build), Some(cache)) = (&environment.build, &environment.cache) else {
        return Err(FillError::NoFill("none".to_owned()));
    };
    let rev = subject.local.commit().unwrap_or_else(|| subject.local.reference());
    let values = scene::values(environment, host, "fill", &rev, &subject.local.label());
    let fill = Fill {
        host,
        environment,
        build,
        cache,
        artifact: &subject.local.artifact,
        values: &values,
        key: subject.key,
        inherited: if local { inherited() } else { Vec::new() },
        shelf: &subject.shelf(),
        spool: &subject.scene.directories.cache,
        events,
    };
    fill.run().await
}

fn inherited() -> Vec<(String, String)> {
    let wanted = |name: &str| {
        let upper = name.to_ascii_uppercase();
        INHERITED.contains(&upper.as_str()) || INHERITED_OF.iter().any(|start| upper.starts_with(start))
    };
    std::env::vars().filter(|(name, _)| wanted(name)).collect()
}

/// Remembers the set, and says what a person should know of its proof.
fn keep(subject: &Subject<'_>, host: &Host, filled: &Filled, events: &Events) -> Result<(), Error> {
    let scene = subject.scene;
    let about = About {
        project: scene.environment.project.clone(),
        recipe: scene.environment.build.as_ref().map(|build| build.recipe.clone()).unwrap_or_default(),
        commit: subject.local.commit().unwrap_or_default(),
        platform: host.facts().platform.clone(),
        filled: scene.now,
        by: scene.actor.clone(),
        on: host.name().to_owned(),
        proven: matches!(filled.proof, Proof::Passed { .. }),
    };
    match &filled.proof {
        Proof::Passed { isolated: true } => {}
        Proof::Passed { isolated: false } => {
            let message = "no network namespace can be made there: the build that proves the cache was offline by its environment only";
            events.emit(note(Severity::Warning, "not-isolated", message.to_owned(), vec![host.name().to_owned()]));
        }
        Proof::Failed { why, tail } => {
            let message = format!("the cache lacks nothing that is known, but the build that should prove it failed ({why})");
            let evidence = tail.iter().map(|line| format!("{} | {line}", host.name())).collect();
            let Event::Diagnostic { severity, code, message, hosts, state, help, .. } =
                note(Severity::Warning, "not-proven", message, vec![host.name().to_owned()])
            else {
                return Ok(());
            };
            events.emit(Event::Diagnostic { severity, code, message, hosts, evidence, state, help });
        }
    }
    let set = Set { key: subject.key, files: filled.files.clone(), about: Some(about) };
    subject.shelf().keep(&set).map_err(|error| Error::new(Exit::Internal, "shelf", "the set cannot be kept here").caused_by(error))
}

fn note(severity: Severity, code: &str, message: String, hosts: Vec<String>) -> Event {
    Event::Diagnostic { severity, code: code.to_owned(), message, hosts, evidence: Vec::new(), state: None, help: Vec::new() }
}

fn summary(filled: &Filled) -> String {
    let (files, size) = filled.files.totals();
    format!("{}, {}", counted(files, "file"), bytes(size))
}

/// Explains why a fill failed. Whatever it was, nobody's cache has changed.
fn plain(host: &Host, step: Step, error: &FillError) -> Error {
    let failure = match error {
        FillError::Remote(error) => failure::remote(host.name(), step, error),
        FillError::Transfer(error) => failure::HostFailure { step, ..failure::transfer(host.name(), error) },
        FillError::Incomplete { tail, .. } => {
            failure::HostFailure { tail: tail.clone(), ..failure::step(host.name(), step, error.to_string()) }
        }
        FillError::NoFill(_) => failure::HostFailure {
            hint: Some(
                "add `fill = [\"bin/fetch\", \"{cache}\"]` to `[defaults.cache]`: it runs in the tree and leaves files there".to_owned(),
            ),
            ..failure::step(host.name(), step, error.to_string())
        },
        FillError::Path(_) | FillError::Manifest(_) => failure::step(host.name(), step, error.to_string()),
    };
    outcome::explain(Exit::BuildFailed, &[failure], 1, "the cache stays as it was".to_owned())
}
