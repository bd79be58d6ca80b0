//! What every verb needs before it begins: the environment, where things are kept on this machine, who is at work, and the event stream.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use etcetera::BaseStrategy;

use crate::cli::{self, Common};
use crate::command::{locate, typed};
use crate::config::environment::{Connect, SessionKind};
use crate::config::placeholders::Values;
use crate::config::{self, Environment, File, Overrides};
use crate::error::Error;
use crate::event::{Event, Events, Serving, Status, Step};
use crate::exit::Exit;
use crate::figures;
use crate::host::Host;
use crate::inventory;
use crate::op::RunInfo;
use crate::release::layout;
use crate::report::{self, Display, RunStore, StoredRun};
use crate::session::{ask, ssh_config};

/// Directories of this user on this machine, by the XDG rules.
#[derive(Clone, Debug)]
pub struct Directories {
    pub cache: PathBuf,
    pub state: PathBuf,
}

impl Directories {
    /// Finds them; nothing is made yet.
    pub fn find() -> Result<Self, Error> {
        let base = etcetera::choose_base_strategy()
            .map_err(|error| Error::new(Exit::Usage, "home", "your home directory is not known").caused_by(error).hint("set HOME"))?;
        let state = base.state_dir().unwrap_or_else(|| base.data_dir());
        Ok(Self { cache: base.cache_dir().join("deployer"), state: state.join("deployer") })
    }
}

/// Everything a verb works with.
pub struct Scene {
    pub environment: Environment,
    pub directories: Directories,
    /// Names this run on hosts and in the store.
    pub run: String,
    pub actor: String,
    /// UTC, `20261123T061200`.
    pub stamp: String,
    /// Seconds since 1970.
    pub now: i64,
    /// The environment whose confirmed release is taken instead of a revision.
    pub from: Option<Environment>,
    /// The flags that named the config and set keys of it.
    began: Instant,
}

impl Scene {
    /// Reads the config and settles the environment.
    pub async fn set(common: &Common, overrides: &Overrides) -> Result<Self, Error> {
        let began = Instant::now();
        let file = load(common)?;
        let name = environment_name(common, &file)?;
        let mut environment = file.environment(&name, overrides)?;
        environment.was_given(&typed::given(common));
        let directories = Directories::find()?;
        inventory::resolve(&mut environment, &directories.cache).await?;
        environment.check_roles(true)?;
        connecting(common, &mut environment.connect, &directories)?;
        let hosts = last_run_hosts(&common.hosts, &directories.state, &environment)?;
        insist(common, &mut environment);
        config::select(&mut environment, &hosts, &common.roles)?;
        let now = now();
        let stamp = stamp(now);
        let run = format!("{stamp}-{}", random_hex(3)?);
        Ok(Self { environment, directories, run, actor: actor(), stamp, now, from: None, began })
    }

    /// Settles where a promotion takes from. An environment with `only-from` takes from nowhere else.
    pub async fn draw_from(&mut self, common: &Common, what: &cli::What) -> Result<(), Error> {
        let (name, only) = (&self.environment.name, self.environment.only_from.as_deref());
        if only.is_none() && what.from.is_none() {
            return Ok(());
        }
        let file = load(common)?;
        file.check_source(name)?;
        if let Some(only) = only.filter(|only| what.from.as_deref() != Some(*only)) {
            return Err(Error::new(Exit::Refused, "only-from", format!("{name} takes only what {only} confirmed: `only-from`"))
                .state("nothing was changed")
                .hint(format!("{} --from {only}", self.environment.typed("deploy"))));
        }
        let Some(from) = &what.from else { return Ok(()) };
        if from == name {
            return Err(Error::new(Exit::Usage, "from-itself", format!("`--from {from}` is the environment itself")));
        }
        let mut environment = file.environment(from, &common_overrides(common))?;
        environment.was_given(&typed::given(common));
        inventory::resolve(&mut environment, &self.directories.cache).await?;
        connecting(common, &mut environment.connect, &self.directories)?;
        self.from = Some(environment);
        Ok(())
    }

    /// Describes this run to whoever finds its lock.
    #[must_use]
    pub fn run_info(&self, what: impl Into<String>) -> RunInfo {
        RunInfo { run: self.run.clone(), by: self.actor.clone(), what: what.into(), since: self.now }
    }

    /// Begins the event stream of a run, with the views that `common` asks for.
    #[must_use]
    pub fn start(&self, common: &Common, verb: &str) -> (Events, report::Reporter) {
        let (events, receiver) = Events::new(self.began);
        let store = RunStore::open(&self.directories.state, &self.run);
        let reporter = report::start(&common.display(), Some(store), receiver);
        events.emit(Event::RunStarted {
            run: self.run.clone(),
            verb: verb.to_owned(),
            project: self.environment.project.clone(),
            env: self.environment.name.clone(),
            hosts: self.environment.targets.iter().map(|target| target.name.clone()).collect(),
            actor: self.actor.clone(),
        });
        (events, reporter)
    }

    /// Ends a run that was asked to stop before it changed what hosts serve, which is `live` as far as it was read.
    #[must_use]
    pub fn interrupted(&self, exit: Exit, state: impl Into<String>, live: BTreeMap<String, u32>) -> Ended {
        let error = Error::new(exit, "interrupted", format!("interrupted after {}", figures::duration(self.seconds()))).state(state);
        Ended { live, ..Ended::by(error) }
    }

    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// Settles what connecting may ask of the person, and where it remembers what ssh said.
pub fn connecting(common: &Common, connect: &mut Connect, directories: &Directories) -> Result<(), Error> {
    ssh_config::remember_in(&directories.cache);
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    connect.ask = !common.no_input && !in_ci && std::io::stdin().is_terminal() && ask::has_terminal();
    if common.trust_first_use && !connect.ask {
        return Err(Error::new(Exit::Usage, "trust-first-use", "`--trust-first-use` asks about each key, and there is nobody to ask here")
            .hint("at a terminal: deployer hosts trust HOST")
            .hint("for a pipeline: `ssh = { host-keys = \"pinned\" }` and the table `host-keys` in deploy.toml"));
    }
    connect.trust_first_use = common.trust_first_use;
    Ok(())
}

/// How a run ended: what the last event says, and the error that explains it.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    pub error: Option<Error>,
    pub live: BTreeMap<String, u32>,
    pub ok: usize,
    pub failed: usize,
    pub summary: String,
    pub next: Vec<(String, String)>,
}

impl Ended {
    /// Ends a run by an error before any host was changed.
    #[must_use]
    pub fn by(error: Error) -> Self {
        let exit = error.exit;
        // A run that is refused, or asked to stop, is no failure of the hosts that its error names.
        let failed = match exit {
            Exit::Usage | Exit::Config | Exit::Refused | Exit::Locked | Exit::Interrupted | Exit::Terminated => 0,
            _ => error.hosts.len(),
        };
        Self { exit, error: Some(error), live: BTreeMap::new(), ok: 0, failed, summary: String::new(), next: Vec::new() }
    }
}

/// Says in one sentence how a run ended of which only the error tells: with the state of the hosts.
#[must_use]
pub fn verdict(error: &Error, environment: &str) -> String {
    let Some(state) = error.state.as_deref().map(|state| state.trim_end_matches('.')).filter(|state| !state.is_empty()) else {
        return String::new();
    };
    // The name of an environment is written as it is.
    let begins = if state.split(' ').next() == Some(environment) { None } else { state.chars().next() };
    let first = begins.map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", &state[begins.map_or(0, char::len_utf8)..])
}

/// Counts hosts by what they serve, where no switch has made that uncertain.
#[must_use]
pub fn known(serving: Serving) -> BTreeMap<String, u32> {
    match serving {
        Serving::AsBefore(live) => live,
        Serving::Switching => BTreeMap::new(),
    }
}

/// Tells the end of a run, once, and waits until every view has it.
pub fn finish(scene: &Scene, events: Events, reporter: report::Reporter, mut ended: Ended) -> Exit {
    if let Some(error) = &ended.error {
        events.emit(report::told(error));
        if ended.summary.is_empty() {
            ended.summary = verdict(error, &scene.environment.name);
        }
        if ended.live.is_empty() {
            ended.live = known(events.serving());
        }
    }
    events.emit(Event::RunFinished {
        run: scene.run.clone(),
        status: if ended.exit == Exit::Ok { "ok" } else { "failed" }.to_owned(),
        exit: ended.exit.code(),
        live: ended.live,
        ok: u32::try_from(ended.ok).unwrap_or(u32::MAX),
        failed: u32::try_from(ended.failed).unwrap_or(u32::MAX),
        secs: (scene.seconds() * 1000.0).round() / 1000.0,
        summary: ended.summary,
        next: ended.next,
    });
    drop(events);
    reporter.finish();
    ended.exit
}

/// Finds, reads and parses the config.
pub fn load(common: &Common) -> Result<File, Error> {
    let start = common.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = locate::discover(&start, common.config.as_deref())?;
    locate::load(&path)
}

/// Settles which environment is meant: the flag, else the default, else the only one.
pub fn environment_name(common: &Common, file: &File) -> Result<String, Error> {
    if let Some(name) = common.env.as_deref().or_else(|| file.default_environment()) {
        return Ok(name.to_owned());
    }
    let names = file.environments();
    match names.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Error::new(Exit::Usage, "which-environment", format!("which environment? there are {}", names.join(", ")))
            .hint(format!("add `-e {}`", names.first().map_or("NAME", String::as_str)))
            .hint("or set `env` in [defaults] of deploy.toml")),
    }
}

/// What the flags that every verb takes change of the environment.
#[must_use]
pub fn common_overrides(common: &Common) -> Overrides {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    Overrides {
        set: common.set.clone(),
        user: common.user.clone(),
        port: common.port,
        identities: common.identities.iter().map(text).collect(),
        ssh_config: common.ssh_config.as_ref().map(text),
        session: common.session.map(cli::name_of),
        forward_agent: common.forward_agent,
        connect_timeout: common.connect_timeout.clone(),
        connect_retries: common.connect_retries,
        parallel: common.parallel,
        timeout: common.timeout.clone(),
        idle_timeout: common.idle_timeout.clone(),
        ..Overrides::default()
    }
}

/// What a flag says of connecting holds for every host, whatever the file says of one. A host that is this machine stays it.
fn insist(common: &Common, environment: &mut Environment) {
    for target in environment.targets.iter_mut().filter(|target| target.session != Some(SessionKind::Local)) {
        target.user = common.user.clone().or(target.user.take());
        target.port = common.port.or(target.port);
        if common.session.is_some() {
            target.session = environment.connect.session;
        }
    }
}

/// What `deploy` changes of the environment by its flags.
#[must_use]
pub fn deploy_overrides(common: &Common, args: &cli::Deploy) -> Overrides {
    Overrides {
        rev: args.what.rev.clone(),
        waves: args.waves.clone(),
        on_failure: args.on_failure.map(cli::name_of),
        on_unreachable: args.on_unreachable.map(cli::name_of),
        max_failures: args.max_failures.clone(),
        min_healthy: args.min_healthy.clone(),
        pause: args.pause.clone(),
        ..common_overrides(common)
    }
}

/// Replaces `@failed` and `@unreachable` by the hosts of the environment's last stored run.
fn last_run_hosts(patterns: &[String], state: &Path, environment: &Environment) -> Result<Vec<String>, Error> {
    let mut hosts = Vec::new();
    // What holds no pattern at all (`-H "$HOSTS"` where nothing is set) is left for `select` to refuse.
    let apart = |text: &String| -> Vec<String> {
        let found: Vec<String> = config::split(text).into_iter().map(str::to_owned).collect();
        if found.is_empty() { vec![text.clone()] } else { found }
    };
    for pattern in patterns.iter().flat_map(apart) {
        let (not, name) = pattern.strip_prefix('!').map_or(("", pattern.as_str()), |name| ("!", name));
        match name {
            "@failed" | "@unreachable" => {
                let found = last_failures(state, environment, name == "@unreachable");
                if found.is_empty() && not.is_empty() {
                    return Err(Error::new(
                        Exit::Usage,
                        "no-such-hosts",
                        format!("`{name}` names no host: the last run of {} had none", environment.name),
                    )
                    .hint("deployer logs --list"));
                }
                hosts.extend(found.iter().map(|host| format!("{not}{host}")));
            }
            _ => hosts.push(pattern),
        }
    }
    Ok(hosts)
}

/// Finds the hosts that failed, or could not be reached, in the environment's last stored run.
fn last_failures(state: &Path, environment: &Environment, unreachable: bool) -> Vec<String> {
    let runs = RunStore::runs(state);
    // A run that was refused (by a lock, a policy, its config) says nothing of any host.
    let refused = [Exit::Usage, Exit::Config, Exit::Refused, Exit::Locked].map(|exit| Some(exit.code()));
    let of_hosts =
        |run: &&StoredRun| run.meta.env == environment.name && run.meta.project == environment.project && !refused.contains(&run.meta.exit);
    let last = runs.iter().find(of_hosts);
    let events = last.and_then(|run| RunStore::read(state, &run.run).ok()).unwrap_or_default();
    let mut hosts: Vec<String> = events
        .into_iter()
        .filter_map(|timed| match timed.event {
            Event::HostStep { host, step: Step::Connect, status: Status::Failed, .. } => Some(host),
            // A command of `run` that exited with another status than 0 is a step that worked.
            Event::HostStep { host, status: Status::Failed | Status::Stopped, .. } if !unreachable => Some(host),
            Event::HostStep { host, step: Step::Run, exit, .. } if !unreachable && exit.unwrap_or(0) != 0 => Some(host),
            _ => None,
        })
        // What failed on this machine, and hosts that have left the environment.
        .filter(|host| environment.targets.iter().any(|target| target.name == *host))
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Names who is at work: a CI job, or a person on a machine.
fn actor() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(run) = variable("GITHUB_RUN_ID") {
        return format!("github run {run} ({})", variable("GITHUB_ACTOR").unwrap_or_default());
    }
    if let Some(job) = variable("CI_JOB_ID") {
        return format!("gitlab job {job} ({})", variable("GITLAB_USER_LOGIN").unwrap_or_default());
    }
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "someone".to_owned());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}").chars().filter(|c| !c.is_control()).collect()
}

/// What placeholders stand for on one host.
#[must_use]
pub fn values(environment: &Environment, host: &Host, release: &str, rev: &str, short_rev: &str) -> Values {
    let root = host.target().root.as_ref().unwrap_or(&environment.root).as_str();
    Values {
        env: environment.name.clone(),
        rev: rev.to_owned(),
        short_rev: short_rev.to_owned(),
        release: release.to_owned(),
        host: host.name().to_owned(),
        role: host.target().roles.first().cloned().unwrap_or_default(),
        root: root.to_owned(),
        current: format!("{root}/{}", layout::CURRENT),
        shared: format!("{root}/{}", layout::SHARED),
    }
}

/// Seconds since 1970, by this machine's clock.
#[must_use]
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

/// Writes how long ago a moment was: `3 min ago`.
#[must_use]
pub fn ago(then: i64) -> String {
    let now = now();
    format!("{} ago", figures::age(now.saturating_sub(then)))
}

fn stamp(now: i64) -> String {
    jiff::Timestamp::from_second(now).map_or_else(|_| now.to_string(), |time| time.strftime("%Y%m%dT%H%M%S").to_string())
}

fn random_hex(bytes: usize) -> Result<String, Error> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(Exit::Internal, "random", "no random numbers").caused_by(std::io::Error::other(error.to_string())))?;
    Ok(random.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

impl Common {
    /// What the person asked to be shown.
    #[must_use]
    pub fn display(&self) -> Display {
        let verbosity = i8::try_from(self.verbose.min(3)).unwrap_or(3) - i8::try_from(self.quiet.min(2)).unwrap_or(2);
        Display {
            progress: match self.progress {
                cli::Progress::Auto => report::Progress::Auto,
                cli::Progress::Live => report::Progress::Live,
                cli::Progress::Log => report::Progress::Log,
                cli::Progress::None => report::Progress::None,
            },
            color: match self.color {
                _ if self.no_color => report::ColorChoice::Never,
                cli::Color::Auto => report::ColorChoice::Auto,
                cli::Color::Always => report::ColorChoice::Always,
                cli::Color::Never => report::ColorChoice::Never,
            },
            verbosity,
            json: self.json,
            events: self.events.clone(),
            ci: match self.ci {
                cli::Ci::Auto => report::Ci::Auto,
                cli::Ci::Github => report::Ci::Github,
                cli::Ci::Gitlab => report::Ci::Gitlab,
                cli::Ci::None => report::Ci::None,
            },
        }
    }
}
