//! `plan`: what a deploy would do, from real facts; nothing is changed and nothing is simulated.

use std::collections::{BTreeSet, HashSet};

use crate::cli::{Common, What};
use crate::command::cache::{self, Survey};
use crate::command::deploy;
use crate::command::manifests;
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::command::windows;
use crate::config::Overrides;
use crate::config::environment::{Build, BuildOn, Cache, Environment, Hook, HookPlace, Moment, Network, Target};
use crate::config::placeholders::{self, Places, Values};
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::fleet::{self, Connected, each};
use crate::git::CommitLine;
use crate::host::Host;
use crate::op::{Answer, Command, Op, PathKind, PathState};
use crate::plan::{self, Action, HostPlan};
use crate::recipe::Recipe;
use crate::report::plan::{Blocker, PlanBuild, PlanCommit, PlanRoleBuild, PlanRow, PlanView};
use crate::report::run::shown_command;
use crate::rollout;
use crate::tree::path::Shown;
use crate::tree::{Digest, Kind, TreePath};

mod once;

/// Runs the verb.
pub async fn plan(common: &Common, what: &What, overrides: &Overrides, changes: bool, exit_code: bool) -> Result<Exit, Error> {
    let mut scene = Scene::set(common, overrides).await?;
    scene.draw_from(common, what).await?;
    let environment = &scene.environment;
    // A plan is a result, not a run: nobody reads its events.
    let (events, _) = Events::new(std::time::Instant::now());
    let local = Material::prepare(what, &scene, &events);
    let (local, connected) = tokio::join!(local, fleet::connect(environment, &events));
    let local = match local {
        Ok(local) => local,
        Err(error) => {
            fleet::close(&connected.hosts).await;
            return Err(error);
        }
    };
    // Of what another environment confirmed nothing is built.
    let caches = if local.promoted.is_some() { None } else { cache::survey(&scene, &local, &connected.hosts, &events).await };
    let mut view = view(&scene, &local, &connected, caches.as_ref(), what.force).await;
    if !changes {
        view.changes = None;
    }
    fleet::close(&connected.hosts).await;
    if common.json {
        let document =
            serde_json::to_string(&view).map_err(|error| Error::new(Exit::Internal, "json", "the plan is no JSON").caused_by(error))?;
        print(&format!("{document}\n"));
    } else {
        print(&view.text(common.display().stdout()));
        if changes {
            print(&change_lines(&view));
        }
    }
    if connected.hosts.is_empty() {
        return Ok(Exit::Unreachable);
    }
    let pending = !view.blockers.is_empty() || view.hosts.iter().any(|row| row.action != ALREADY_LIVE);
    Ok(if exit_code && pending { Exit::Pending } else { Exit::Ok })
}

const ALREADY_LIVE: &str = "already live";

/// Every commit between what is live and the revision, where all hosts serve the same.
fn change_lines(view: &PlanView) -> String {
    let Some(commits) = &view.changes else {
        let uniform = view.hosts.windows(2).all(|pair| pair[0].from == pair[1].from);
        let why = if uniform {
            "the changes cannot be told: the history is cut off or unknown here"
        } else {
            "hosts serve different revisions: their changes are not one list"
        };
        return format!("{why}\n");
    };
    let line = |commit: &PlanCommit| {
        format!("{} {}  {}\n", plan::short(&commit.id), Shown(commit.author.as_bytes()), Shown(commit.subject.as_bytes()))
    };
    commits.iter().map(line).collect()
}

async fn view(scene: &Scene, local: &Material, connected: &Connected, caches: Option<&Survey>, force: bool) -> PlanView {
    let environment = &scene.environment;
    let (files, bytes) = local.artifact.manifest.totals();
    let plans = local.plans(environment, &connected.hosts, force);
    let mut blockers = blockers(environment, local, connected, &plans).await;
    blockers.extend(caches.iter().flat_map(|caches| caches.blockers(environment)));
    blockers.extend(once::blockers(scene, local, &connected.hosts, &plans, force).await);
    let mut rows = Vec::new();
    for (index, (host, plan)) in connected.hosts.iter().zip(&plans).enumerate() {
        let cache = caches.and_then(|caches| Some(caches.rows.get(index)?.as_ref()?.short()));
        rows.push(PlanRow { cache, ..row(scene, local, host, plan).await });
        blockers.extend(occupied(environment, host));
    }
    if let Some(what) = deploy::no_room(environment, &connected.hosts, &plans, deploy::beside(environment).await) {
        blockers.push(Blocker { hosts: Vec::new(), what, fix: Some("allow fewer for this run: `--min-healthy N`".to_owned()) });
    }
    if let Some(closed) = windows::closed(environment, jiff::Timestamp::now()) {
        let what = format!("{}: {}", closed.what, closed.opens);
        blockers.push(Blocker { hosts: Vec::new(), what, fix: None });
    }
    let mut from: Vec<&str> = plans.iter().filter_map(|plan| plan.live_commit.as_deref()).collect();
    from.sort_unstable();
    from.dedup();
    let changes = match from.as_slice() {
        [from] => local.changes(from),
        _ => None,
    };
    let acting = plans.iter().filter(|plan| plan.action != Action::Nothing).count();
    let waves = rollout::waves(&environment.waves, acting).into_iter().map(|size| u32::try_from(size).unwrap_or(u32::MAX)).collect();
    PlanView {
        project: environment.project.clone(),
        env: environment.name.clone(),
        rev: local.revision.as_ref().map(|revision| revision.commit.clone()).unwrap_or_default(),
        reference: local.reference(),
        subject: local.revision.as_ref().map(|revision| revision.subject.clone()).unwrap_or_default(),
        commits: changes.as_ref().map(|changes| u32::try_from(changes.ahead.len()).unwrap_or(u32::MAX)),
        behind: changes.as_ref().map(|changes| changes.behind),
        files: changes.as_ref().map(|changes| changes.files),
        added_lines: changes.as_ref().and_then(|changes| changes.added_lines),
        removed_lines: changes.as_ref().and_then(|changes| changes.removed_lines),
        changes: changes.map(|changes| changes.ahead.into_iter().map(commit).collect()),
        tree_files: files,
        tree_bytes: bytes,
        hosts: rows,
        build: environment
            .build
            .as_ref()
            .filter(|_| local.promoted.is_none())
            .map(|wanted| build(wanted, environment, environment, local, connected)),
        role_builds: if local.promoted.is_none() { role_builds(environment, local, connected) } else { Vec::new() },
        promoted_from: local.promoted.as_ref().and_then(|promoted| promoted.origin().environment),
        built_on: local.promoted.as_ref().map(|promoted| promoted.origin().host),
        steps: steps(environment, local, &plans),
        waves,
        warnings: local.warnings(),
        unknowns: unknowns(environment, caches.is_some() || local.promoted.is_some()),
        blockers,
    }
}

/// Who keeps others from a host.
fn occupied(environment: &Environment, host: &Host) -> Vec<Blocker> {
    let facts = host.facts();
    let hosts = || vec![host.name().to_owned()];
    let hold =
        facts.hold.as_ref().map(|hold| Blocker { hosts: hosts(), what: format!("on hold by {}: {}", hold.by, hold.reason), fix: None });
    let holder = facts.holder.as_ref().map(|holder| Blocker {
        hosts: hosts(),
        what: format!("locked by {}, {}", holder.by, holder.what),
        fix: Some(format!("{} --wait-lock 15m", environment.typed("deploy"))),
    });
    hold.into_iter().chain(holder).collect()
}

fn commit(line: CommitLine) -> PlanCommit {
    PlanCommit { id: line.id, author: line.author, subject: line.subject, time: line.time }
}

/// What a deploy would do, in order; hooks by their names, with where they would run.
fn steps(environment: &Environment, local: &Material, plans: &[HostPlan]) -> Vec<String> {
    let acting = |plan: &&HostPlan| plan.action != Action::Nothing && plan.blockers.is_empty();
    let once = plans.iter().find(acting).map(|plan| plan.host.as_str());
    let builds = || environment.ways().filter_map(|way| way.build.as_ref()).filter(|_| local.promoted.is_none());
    let built = |open: bool| builds().any(|build| matches!(build.network, Network::Host | Network::Index) == open);
    let checked = environment.ways().any(|way| way.check.is_some());
    let mut steps = vec!["lock".to_owned()];
    steps.extend(local.promoted.iter().map(|_| "capture".to_owned()));
    steps.extend(["push", "link"].map(str::to_owned));
    let hooks = |steps: &mut Vec<String>, moment| {
        let of_moment = environment.hooks.iter().filter(move |hook| hook.on == moment);
        steps.extend(of_moment.map(|hook| hook_step(hook, once)));
    };
    if local.promoted.is_none() {
        hooks(&mut steps, Moment::BeforeBuild);
    }
    steps.extend(built(false).then(|| "build (offline)".to_owned()));
    steps.extend(built(true).then(|| "build".to_owned()));
    if local.promoted.is_none() {
        hooks(&mut steps, Moment::AfterBuild);
    }
    if builds().any(|build| build.on != BuildOn::Host) {
        steps.extend(["capture", "push to the others"].map(str::to_owned));
    }
    // Once for all waves, then in each.
    let (common, own): (Vec<&Hook>, Vec<&Hook>) = environment
        .hooks
        .iter()
        .filter(|hook| hook.on == Moment::BeforeActivate)
        .partition(|hook| matches!(hook.place, HookPlace::Once | HookPlace::Local));
    steps.extend(common.iter().map(|hook| hook_step(hook, once)));
    hooks(&mut steps, Moment::BeforeWave);
    steps.extend(own.iter().map(|hook| hook_step(hook, once)));
    steps.push("activate".to_owned());
    steps.extend(checked.then(|| "check".to_owned()));
    hooks(&mut steps, Moment::AfterActivate);
    steps.push("confirm".to_owned());
    hooks(&mut steps, Moment::AfterWave);
    hooks(&mut steps, Moment::AfterDeploy);
    steps.push("prune".to_owned());
    steps
}

/// `migrate (once, app01)`.
fn hook_step(hook: &Hook, once: Option<&str>) -> String {
    let place = match &hook.place {
        HookPlace::EveryHost => return hook.name.clone(),
        HookPlace::Once => once.map_or_else(|| "once".to_owned(), |host| format!("once, {host}")),
        HookPlace::Local => "local".to_owned(),
        HookPlace::Role(role) => format!("on {role}"),
    };
    format!("{} ({place})", hook.name)
}

fn unknowns(environment: &Environment, caches: bool) -> Vec<String> {
    let activates = environment.ways().any(|way| way.activate.is_some());
    let command = activates.then(|| "what the activation command does (not run by plan)".to_owned());
    let alone = activates.then(|| alone(environment));
    let hooks = environment.hooks.iter().map(|hook| format!("what the hook {} does, {} (not run by plan)", hook.name, hook.on.name()));
    let cache = (!caches && cache::is_fillable(environment)).then(|| {
        format!("whether the caches hold what the build needs: nobody has filled one for this ({})", cache::fill_command(environment))
    });
    command.into_iter().chain(alone).chain(hooks).chain(cache).collect()
}

/// What becomes of a host that nobody decides for any more.
fn alone(environment: &Environment) -> String {
    if environment.confirm_within.is_zero() {
        return "a host that loses this run after its switch stays switched (`confirm-within` is zero)".to_owned();
    }
    format!(
        "a host rebooted between switch and confirmation serves the new release until the next contact, or until its boot unit: `{} --print-boot-unit`",
        environment.typed("setup")
    )
}

/// The builds of roles, where they are not everybody's.
fn role_builds(environment: &Environment, local: &Material, connected: &Connected) -> Vec<PlanRoleBuild> {
    let differing = environment.by_role.iter().filter(|(_, way)| way.build != environment.build);
    let build = |way: &Environment| way.build.as_ref().map(|wanted| build(wanted, way, environment, local, connected));
    differing.map(|(role, way)| PlanRoleBuild { role: role.clone(), build: build(way) }).collect()
}

/// How the hosts build that build in one way of the environment.
fn build(build: &Build, way: &Environment, environment: &Environment, local: &Material, connected: &Connected) -> PlanBuild {
    let network = match build.network {
        Network::Blocked => "blocked",
        Network::None => "none",
        Network::Host => "host",
        Network::Index => "index",
    };
    let command = match &build.command {
        Command::Shell(text) => vec![text.clone()],
        Command::Argv(_) => outcome::command_words(&build.command),
    };
    let recipe = Recipe::find(&build.recipe).filter(|recipe| !recipe.command.is_empty());
    let runs = match (&build.command, recipe.and_then(|recipe| recipe.runs)) {
        (Command::Shell(text), _) => text.clone(),
        (Command::Argv(_), Some(runs)) => runs.replace("{config}", build.config.as_deref().unwrap_or_default()),
        (Command::Argv(words), None) => {
            let hosts: Vec<&Host> = connected.hosts.iter().filter(|host| std::ptr::eq(environment.of(host.target()), way)).collect();
            shown_command(&filled_in(words, way, local, &hosts))
        }
    };
    let once_on = match &build.on {
        BuildOn::Host => None,
        BuildOn::First => connected.hosts.first().map(|host| host.name().to_owned()),
        BuildOn::One(target) => Some(target.name.clone()),
    };
    let recipe = recipe.map(|recipe| recipe.name.to_owned());
    PlanBuild { command, recipe, runs, network: network.to_owned(), timeout_secs: build.timeout.as_secs_f64(), once_on }
}

/// The words of a command with what is known before a deploy, and is the same on all of the hosts.
fn filled_in(words: &[String], way: &Environment, local: &Material, hosts: &[&Host]) -> Vec<String> {
    let rev = local.commit().unwrap_or_else(|| local.reference());
    let of_hosts: Vec<Values> = hosts.iter().map(|host| scene::values(way, host, "{release}", &rev, &local.label())).collect();
    let known = |name: &str, of: fn(&Values) -> &String| common(of_hosts.iter().map(of)).cloned().unwrap_or_else(|| format!("{{{name}}}"));
    let values = Values {
        env: known("env", |values| &values.env),
        rev: known("rev", |values| &values.rev),
        short_rev: known("short-rev", |values| &values.short_rev),
        release: known("release", |values| &values.release),
        host: known("host", |values| &values.host),
        role: known("role", |values| &values.role),
        root: known("root", |values| &values.root),
        current: known("current", |values| &values.current),
        shared: known("shared", |values| &values.shared),
    };
    let cache = common(hosts.iter().filter_map(|host| cache::place_of(way, host.target(), &local.artifact)));
    let places = Places {
        cache: Some(cache.unwrap_or_else(|| "{cache}".to_owned())),
        scratch: "{scratch}".to_owned(),
        index: Some("{index}".to_owned()),
    };
    words.iter().map(|word| placeholders::expand_build(word, &values, &places).unwrap_or_else(|_| word.clone())).collect()
}

/// What all are, if they are the same.
fn common<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

async fn row(scene: &Scene, local: &Material, host: &Host, plan: &HostPlan) -> PlanRow {
    let facts = host.facts();
    let push_bytes = match (&plan.action, plan::live_record(&facts)) {
        (Action::Nothing | Action::Adopt(_), _) => Some(0),
        (Action::Make, None) => Some(local.artifact.manifest.totals().1),
        (Action::Make, Some(record)) => {
            let known = manifests::find(&scene.directories.cache, host, &record.release.id, record.release.manifest).await;
            known.map(|known| lacking(&local.artifact.manifest, &known.by_digest().into_keys().collect()))
        }
    };
    let action = match &plan.action {
        Action::Nothing => ALREADY_LIVE.to_owned(),
        Action::Adopt(release) => format!("built already: {release}"),
        Action::Make => "new".to_owned(),
    };
    PlanRow {
        host: host.name().to_owned(),
        from: plan.live_commit.clone().or_else(|| plan.live.as_ref().map(ToString::to_string)),
        push_bytes,
        cache: None,
        action,
        free_bytes: (facts.total_bytes > 0).then_some(facts.free_bytes),
    }
}

/// Counts the bytes of contents that `known` does not hold, each once.
fn lacking(manifest: &crate::tree::Manifest, known: &HashSet<Digest>) -> u64 {
    let mut counted = HashSet::new();
    manifest.entries().iter().fold(0, |sum, entry| match &entry.kind {
        Kind::File { digest, size, .. } if !known.contains(digest) && counted.insert(*digest) => sum + size,
        Kind::File { .. } | Kind::Link { .. } | Kind::Directory => sum,
    })
}

/// Finds everything that would stop the deploy, on all hosts at once.
async fn blockers(environment: &Environment, local: &Material, connected: &Connected, plans: &[HostPlan]) -> Vec<Blocker> {
    let mut blockers: Vec<Blocker> = connected
        .unreachable
        .iter()
        .map(|(target, error)| Blocker {
            hosts: vec![target.name.clone()],
            what: format!("unreachable: {error}"),
            fix: error.hint().into_iter().next(),
        })
        .collect();
    for plan in plans {
        blockers.extend(plan.blockers.iter().map(|blocker| Blocker {
            hosts: vec![plan.host.clone()],
            what: blocker.message.clone(),
            fix: Some(blocker.hint.clone()),
        }));
    }
    let facts: Vec<_> = connected.hosts.iter().map(|host| (host.name(), host.facts())).collect();
    if let Some((first, second)) = plan::twins(facts.iter().map(|(name, facts)| (*name, &**facts))) {
        let fix = Some("remove one of the two names from deploy.toml".to_owned());
        blockers.push(Blocker { hosts: vec![first, second], what: "one host with one root, by two names".to_owned(), fix });
    }
    blockers.extend(tracked_in_the_way(environment, local));
    blockers.extend(lacking_paths(environment, &connected.hosts).await);
    blockers
}

/// What must be on hosts before a build can begin, and is not.
async fn lacking_paths(environment: &Environment, hosts: &[Host]) -> Vec<Blocker> {
    let paths = needed(environment);
    let probes = each(hosts, 64, |host| {
        let root = host.target().root.as_ref().unwrap_or(&environment.root).to_string();
        host.ask(Op::Probe { paths: paths.iter().map(|path| path.at(host.target(), &root)).collect() })
    });
    let probes = probes.await;
    let mut blockers = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let lacking: Vec<String> = hosts
            .iter()
            .zip(&probes)
            .filter(|(host, _)| is_needed(environment, host.target(), path))
            .filter(|(_, answer)| match answer {
                Ok(Answer::Probed { paths }) => !paths.get(index).is_some_and(|state| path.fits(state)),
                Ok(_) | Err(_) => true,
            })
            .map(|(host, _)| host.name().to_owned())
            .collect();
        if !lacking.is_empty() {
            let fix = path.fix(environment);
            blockers.push(Blocker { hosts: lacking, what: format!("`{}` is missing or cannot be read", path.name()), fix: Some(fix) });
        }
    }
    blockers
}

/// A path of the tree that the release needs for a link.
fn tracked_in_the_way(environment: &Environment, local: &Material) -> Vec<Blocker> {
    let shared = environment.shared.directories.iter().chain(&environment.shared.files).filter(|_| !environment.shared.replace);
    let linked = shared.map(|path| (path, "shared")).chain(environment.cache.as_ref().map(|cache| (&cache.link, "the cache's link")));
    linked
        .filter(|(path, _)| local.artifact.manifest.holds(path))
        .map(|(path, what)| Blocker {
            hosts: Vec::new(),
            what: format!("`{path}` is {what} and also in the revision"),
            fix: Some("remove it from the repository, or set `shared.replace = true`".to_owned()),
        })
        .collect()
}

/// What must be on a host before a build can begin.
pub enum Needed<'a> {
    SharedFile(&'a TreePath),
    Cache(&'a Cache),
    Venv(String),
}

#[must_use]
pub fn needed(environment: &Environment) -> Vec<Needed<'_>> {
    let files = environment.shared.files.iter().map(Needed::SharedFile);
    let cache = environment.cache.iter().map(Needed::Cache);
    let venvs: BTreeSet<String> = environment.ways().filter_map(venv).collect();
    files.chain(cache).chain(venvs.into_iter().map(Needed::Venv)).collect()
}

fn venv(way: &Environment) -> Option<String> {
    way.build.as_ref()?.venv.as_ref().map(|venv| format!("{venv}/bin/buildout"))
}

/// Tells whether a host needs it, by its role.
#[must_use]
pub fn is_needed(environment: &Environment, target: &Target, needed: &Needed<'_>) -> bool {
    match needed {
        Needed::SharedFile(_) | Needed::Cache(_) => true,
        Needed::Venv(path) => venv(environment.of(target)).as_ref() == Some(path),
    }
}

impl Needed<'_> {
    /// Where it is on a host with this root.
    #[must_use]
    pub fn at(&self, target: &Target, root: &str) -> String {
        match self {
            Self::SharedFile(path) => format!("{root}/shared/{path}"),
            Self::Cache(cache) => cache.on(target).to_string(),
            Self::Venv(path) => path.clone(),
        }
    }

    /// A word for it in a list.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SharedFile(_) => "shared",
            Self::Cache(_) => "cache",
            Self::Venv(_) => "venv",
        }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::SharedFile(path) => format!("shared/{path}"),
            Self::Cache(cache) => cache.path.to_string(),
            Self::Venv(path) => path.clone(),
        }
    }

    /// Tells whether what is there serves.
    #[must_use]
    pub fn fits(&self, state: &PathState) -> bool {
        let kind = state.kind;
        let is_what_it_must_be = match self {
            Self::SharedFile(_) | Self::Venv(_) => kind == PathKind::File,
            Self::Cache(_) => kind == PathKind::Directory,
        };
        is_what_it_must_be && state.readable
    }

    /// What to do where it is not there.
    #[must_use]
    pub fn fix(&self, environment: &Environment) -> String {
        match self {
            Self::SharedFile(_) => "put the file there".to_owned(),
            Self::Cache(_) | Self::Venv(_) => environment.typed("setup"),
        }
    }
}
