//! `cache fill`: runs the recipe's resolver for a revision on a builder, and keeps what it fetched, for the hosts of another kind too.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::others::{self, Others};
use super::{Subject, overrides};
use crate::cli::{self, Common};
use crate::command::failure;
use crate::command::interrupt::Interrupt;
use crate::command::locks::{self, Attempt};
use crate::command::outcome;
use crate::command::package_index;
use crate::command::scene::{self, Ended, Scene};
use crate::config::Environment;
use crate::config::environment::{FillNetwork, HostPath, SessionKind, Target};
use crate::error::Error;
use crate::event::{Event, Events, Severity, Step};
use crate::exit::Exit;
use crate::figures::{bytes, counted, duration};
use crate::fleet::{self, Done, Tally};
use crate::host::Host;
use crate::index::{Index, Remark};
use crate::op::{self, Op};
use crate::provision::fill::{Fill, FillError, Filled, Proof};
use crate::recipe::{self, Recipe};
use crate::shelf::{About, Part, Set};
use crate::stage::remote::RemoteError;
use crate::tree::{Digest, Entry, Kind, Manifest};

/// Variables of this machine that a fill with `--local` runs with: where to find tools, indexes and the way to them.
const INHERITED: [&str; 8] =
    ["PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];
const INHERITED_OF: [&str; 2] = ["BUNDLE_", "RUSTUP_"];
/// Settings of the tools that the package index serves.
const INHERITED_OF_TOOLS: [&str; 4] = ["PIP_", "UV_", "NPM_CONFIG_", "CARGO_"];
/// The name of this machine where it is the builder.
const HERE: &str = "local";

/// Runs the verb.
pub async fn fill(common: &Common, args: &cli::CacheFill) -> Result<Exit, Error> {
    let mut scene = Scene::set(common, &overrides(common, args.rev.as_deref())).await?;
    let others = others::targets(&scene.environment, args)?;
    if args.local {
        build_here(&mut scene)?;
    } else {
        scene.environment.targets.truncate(1);
    }
    let (events, reporter) = scene.start(common, "cache fill");
    let interrupt = Interrupt::of(&scene, "Stopping the fill; the cache stays as it was. (^C again leaves at once)", &events, &reporter);
    if args.local {
        let message = "the project's own code (its setup, its build) runs on this machine, as you";
        events.emit(note(Severity::Warning, "local-fill", message.to_owned(), Vec::new(), Vec::new()));
    }
    let ended = match interrupt.until(Box::pin(run(&scene, args, others, &events))).await {
        Ok(ended) => ended.unwrap_or_else(Ended::by),
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

async fn run(scene: &Scene, args: &cli::CacheFill, others: Vec<Target>, events: &Events) -> Result<Ended, Error> {
    let subject = Subject::settle(scene, args.rev.as_deref(), events).await?;
    // Before any host is touched: it may be of no use.
    let index = match subject.cache()?.network {
        FillNetwork::Index => Some(package_index::opened(scene, events).await?),
        FillNetwork::Host => None,
    };
    let builder = scene.environment.targets.first().map(|target| target.name.clone()).unwrap_or_default();
    let all = Environment { targets: scene.environment.targets.iter().cloned().chain(others).collect(), ..scene.environment.clone() };
    let mut connected = fleet::connect(&all, events).await;
    let ended = if let Some(at) = connected.hosts.iter().position(|host| host.name() == builder) {
        let mut rest = connected.hosts.clone();
        let host = rest.remove(at);
        let others = Others::meet(&subject, &host, rest, &connected.unreachable, &args.kinds, events).await;
        on_builder(&subject, &host, &others, args.local, index.as_ref(), events).await
    } else {
        connected.unreachable.retain(|(target, _)| target.name == builder);
        Err(outcome::unreachable(&connected, "nothing was changed".to_owned()))
    };
    fleet::close(&connected.hosts).await;
    ended
}

async fn on_builder(
    subject: &Subject<'_>,
    host: &Host,
    others: &Others,
    local: bool,
    index: Option<&Index>,
    events: &Events,
) -> Result<Ended, Error> {
    let scene = subject.scene;
    if local {
        let op = op::Setup {
            shared_directories: Vec::new(),
            shared_files: Vec::new(),
            group: None,
            cache: Some(subject.cache()?.path.to_string()),
            check: false,
        };
        host.ask(Op::Setup(op)).await.map_err(|error| plain(host, Step::Setup, &FillError::from(error), &[]))?;
    }
    let one = std::slice::from_ref(host);
    let tally = Tally::new(events, 1);
    if let Attempt::Refused(mut error) = locks::take(scene, one, &format!("filling the cache for {}", subject.local.label())).await {
        error.state = Some("the cache stays as it was".to_owned());
        if error.exit != Exit::Locked && !local {
            error.hints.push(format!("{} -H {}", scene.environment.typed("setup"), host.name()));
        }
        return Err(error);
    }
    let filled = tally.step(host.name(), Step::Fill, filled(subject, host, others, local, index, events), |result| Done {
        detail: Some(match result {
            Ok(filled) => summary(&filled.files),
            Err(error) => error.to_string(),
        }),
        ..Done::default()
    });
    let filled = filled.await;
    locks::unlock(one).await;
    let filled = filled.map_err(|error| plain(host, Step::Fill, &error, &index.map(Index::remarks).unwrap_or_default()))?;
    if let Some(message) = index.and_then(|index| unserved(subject, index, &filled)) {
        events.emit(note(Severity::Warning, "not-served", message, vec![host.name().to_owned()], Vec::new()));
    }
    let set = keep(subject, host, others, &filled, events)?;
    let proven = match &filled.proof {
        Proof::Passed { .. } => ", proven by a build",
        Proof::Failed { .. } => "",
    };
    let took = duration(scene.seconds());
    let remarks = index.map(Index::remarks).unwrap_or_default();
    if let Some(error) = others.refused(subject, host, (&filled, &set), &remarks, events).await {
        let state = format!("hosts like `{}` find all they need in its cache: {}{proven}", host.name(), summary(&filled.own));
        return Err(error.state(state));
    }
    let rev = subject.rev_flag();
    let next = vec![("push".to_owned(), format!("{}{rev}", scene.environment.typed("cache push")))];
    let (of_all, of_own) = (filled.files.totals().0, filled.own.totals().0);
    let more = if of_all > of_own { format!("; {} more for {}", counted(of_all - of_own, "file"), others.named()) } else { String::new() };
    let summary = format!("Filled for {}: {}{proven}{more}, in {took}", subject.local.label(), summary(&filled.own));
    Ok(Ended { exit: Exit::Ok, error: None, live: fleet::live(one), ok: 1, failed: 0, summary, next })
}

async fn filled(
    subject: &Subject<'_>,
    host: &Host,
    others: &Others,
    local: bool,
    index: Option<&Index>,
    events: &Events,
) -> Result<Filled, FillError> {
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
        index,
        inherited: if local { inherited(index.is_some()) } else { Vec::new() },
        shelf: &subject.shelf(),
        spool: &subject.scene.directories.cache,
        events,
        like: others.builder.as_ref(),
        others: &others.pythons(),
    };
    fill.run().await
}

/// What a fill on this machine runs with. One that asks the package index takes nothing that says where else to ask.
fn inherited(has_index: bool) -> Vec<(String, String)> {
    let wanted = |name: &str| {
        let upper = name.to_ascii_uppercase();
        let of = |starts: &[&str]| starts.iter().any(|start| upper.starts_with(start));
        INHERITED.contains(&upper.as_str()) || of(&INHERITED_OF) || (!has_index && of(&INHERITED_OF_TOOLS))
    };
    std::env::vars().filter(|(name, _)| wanted(name)).collect()
}

/// Names the files of a flat cache that are not what the index served under their names: a requirement can name another place.
fn unserved(subject: &Subject<'_>, index: &Index, filled: &Filled) -> Option<String> {
    let build = subject.environment.build.as_ref().filter(|_| subject.cache().is_ok_and(|cache| cache.fill.is_none()))?;
    Recipe::find(&build.recipe).filter(|recipe| recipe.fill.place == "dist")?;
    let served: HashMap<String, PathBuf> = index.served().into_iter().map(|served| (served.name, served.path)).collect();
    let is_served = |entry: &&Entry| {
        let path = entry.path.to_string();
        let Some(kept) = path.rsplit('/').next().and_then(|name| served.get(name)) else { return false };
        matches!(&entry.kind, Kind::File { digest, .. } if digest_of(kept).is_ok_and(|kept| kept == *digest))
    };
    let strange: Vec<String> = filled
        .files
        .entries()
        .iter()
        .filter(|entry| !is_served(entry))
        .filter_map(|entry| entry.path.to_string().rsplit('/').next().map(str::to_owned))
        .collect();
    let (first, rest) = strange.split_first()?;
    let (all, _) = filled.files.totals();
    let (what, more) = if rest.is_empty() { ("it is", String::new()) } else { ("they are", ", …".to_owned()) };
    Some(format!(
        "{} of {} did not come through the package index, and nobody but the builder knows what {what}: `{first}`{more}",
        strange.len(),
        counted(all, "file")
    ))
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Digest::from(hasher.finalize()))
}

/// Remembers the set, and says what a person should know of its proof.
fn keep(subject: &Subject<'_>, host: &Host, others: &Others, filled: &Filled, events: &Events) -> Result<Set, Error> {
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
            events.emit(note(Severity::Warning, "not-isolated", message.to_owned(), vec![host.name().to_owned()], Vec::new()));
        }
        Proof::Failed { why, tail } => {
            let message = format!("the cache lacks nothing that is known, but the build that should prove it failed ({why})");
            let evidence = tail.iter().map(|line| format!("{} | {line}", host.name())).collect();
            events.emit(note(Severity::Warning, "not-proven", message, vec![host.name().to_owned()], evidence));
        }
    }
    let paths = |files: &Manifest| files.entries().iter().map(|entry| entry.path.to_string()).collect();
    let own = Part {
        platform: about.platform.clone(),
        python: others.builder.as_ref().map(ToString::to_string),
        on: about.on.clone(),
        proven: about.proven,
        files: paths(&filled.own),
    };
    let of_others = others.kinds.iter().zip(&filled.others).filter_map(|(kind, files)| {
        let files = files.as_ref().ok().filter(|files| **files != filled.own)?;
        Some(Part { on: about.on.clone(), files: paths(files), ..kind.part() })
    });
    let parts = std::iter::once(own).chain(of_others).collect();
    let mixes = Recipe::find(&about.recipe).is_some_and(|recipe| recipe.fill.mixes);
    let set = Set { key: subject.key, files: filled.files.clone(), about: Some(about), parts };
    let shelf = subject.shelf();
    let set = match shelf.set(subject.key).filter(|_| mixes) {
        Some(older) => set.beside(&older),
        None => Ok(set),
    };
    set.and_then(|set| shelf.keep(&set).map(|()| set))
        .map_err(|error| Error::new(Exit::Internal, "shelf", "the set cannot be kept here").caused_by(error))
}

fn note(severity: Severity, code: &str, message: String, hosts: Vec<String>, evidence: Vec<String>) -> Event {
    Event::Diagnostic { severity, code: code.to_owned(), message, hosts, evidence, state: None, help: Vec::new() }
}

fn summary(files: &Manifest) -> String {
    let (files, size) = files.totals();
    format!("{}, {}", counted(files, "file"), bytes(size))
}

/// What a resolver that failed could not get. The index knows best; what a cache lacks is what a build would say.
fn why(error: &RemoteError, remarks: &[Remark]) -> Option<String> {
    let RemoteError::Command { exited, tail, .. } = error else { return None };
    if let Some(why) = package_index::why(remarks, tail).or_else(|| package_index::missing(remarks, tail)) {
        return Some(why);
    }
    let lacking = recipe::lacking(tail);
    let Some(first) = lacking.first() else { return exited.hint.clone() };
    Some(format!("no index that was asked has `{first}` for this host; `[index]` of deploy.toml names another one"))
}

/// Explains why a fill failed. Whatever it was, nobody's cache has changed.
pub fn plain(host: &Host, step: Step, error: &FillError, remarks: &[Remark]) -> Error {
    let failure = match error {
        FillError::Remote(error) => {
            let failure = failure::remote(host.name(), step, error);
            let hint = why(error, remarks).or(failure.hint);
            failure::HostFailure { hint, ..failure }
        }
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
