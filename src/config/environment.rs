//! The resolved environment: every default applied, every name checked. What the rest of the program knows of `deploy.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::quantity::Amount;
use crate::op::Command;
use crate::tree::TreePath;
use crate::window::Window;

/// An absolute path on a host, of characters that need no quoting anywhere: letters, digits and `/._-+@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(String);

/// Says why a text is not a path on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an absolute path of letters, digits and `/._-+@` without `..`")]
pub struct HostPathError(pub String);

impl HostPath {
    /// Checks `text`; a final slash is dropped.
    ///
    /// # Errors
    /// The path is relative, is `/` itself, has an empty, `.` or `..` component, or a character that some shell would act on.
    pub fn new(text: &str) -> Result<Self, HostPathError> {
        let refused = || HostPathError(text.to_owned());
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let names = trimmed.strip_prefix('/').ok_or_else(refused)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
        let names_are_names = names.split('/').all(|name| !matches!(name, "" | "." | ".."));
        if names_are_names && names.chars().all(plain) && text.len() < 1024 { Ok(Self(trimmed.to_owned())) } else { Err(refused()) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// One environment, ready to be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    pub project: String,
    pub name: String,
    pub source: Source,
    /// In the order of the file, unique by name; those of the inventory follow once it was asked.
    pub targets: Vec<Target>,
    pub inventory: Option<Inventory>,
    pub root: HostPath,
    /// What `deploy` takes without `--rev`.
    pub rev: Option<String>,
    /// The environment that must have confirmed what is deployed here.
    pub only_from: Option<String>,
    pub protected: bool,
    pub keep_releases: u32,
    pub group: Option<String>,
    pub shared: Shared,
    pub cache: Option<Cache>,
    pub build: Option<Build>,
    pub activate: Option<Run>,
    pub check: Option<Check>,
    pub confirm_within: Duration,
    /// In the order in which those of one moment run.
    pub hooks: Vec<Hook>,
    /// The same environment as the hosts of a role have it, where `role` says so: build, activation and check may differ. Without targets.
    pub by_role: Vec<(String, Self)>,
    /// Cumulative sizes of the activation waves: `1`, `25%`, `100%`.
    pub waves: Vec<Amount>,
    /// How long the hosts of a wave serve the new release before the next wave begins.
    pub pause: Duration,
    pub on_failure: OnFailure,
    pub on_unreachable: OnUnreachable,
    /// Failed hosts that do not stop the others.
    pub max_failures: Amount,
    /// Hosts that stay well and serve while others are switched.
    pub min_healthy: Amount,
    /// Hosts of the environment that the selectors left out: a run does not touch them, and asks how they are where that matters.
    pub left_out: Vec<Target>,
    /// The flags of this command that say which config was read and what was set in it: ` -c other.toml`. Advice repeats them.
    pub given: String,
    pub parallel: usize,
    /// When it may be deployed to; none is at any time.
    pub windows: Vec<Window>,
    pub connect: Connect,
    pub upstreams: Upstreams,
    /// Where `deploy.toml` lies: relative local paths start there.
    pub directory: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A path (relative to `deploy.toml`) or a URL.
    pub git: String,
    /// One directory of a monorepo.
    pub path: Option<TreePath>,
    pub submodules: bool,
    pub lfs: bool,
}

/// The package indexes that are asked; none is the public one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    pub pypi: Option<Upstream>,
    pub crates: Option<Upstream>,
    pub npm: Option<Upstream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub url: String,
    /// With it the secret is a password, without it a bearer token.
    pub user: Option<String>,
    pub secret: Option<SecretSource>,
}

/// Where a secret is read when it is needed. The secret itself is no part of any config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    Env(String),
    File(PathBuf),
    /// What it prints, run beside `deploy.toml`.
    Command(Command),
}

/// One host as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What people see and select. `local` is this machine.
    pub name: String,
    /// What is connected to; the name where the file gives no other.
    pub address: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub roles: Vec<String>,
    /// What else is known of the host, for `-H az=a`.
    pub labels: BTreeMap<String, String>,
    pub session: Option<SessionKind>,
    /// Another root than the environment's.
    pub root: Option<HostPath>,
    /// Another place of the download cache than the environment's.
    pub cache: Option<HostPath>,
}

/// Who is asked for hosts that `deploy.toml` does not list itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inventory {
    File {
        path: PathBuf,
        format: InventoryFormat,
    },
    /// A program of the user's that prints them, run beside `deploy.toml`.
    Command {
        command: Command,
        format: InventoryFormat,
        limits: InventoryLimits,
    },
    /// What `ansible-inventory` is given after `-i`.
    Ansible {
        path: PathBuf,
        groups: Vec<String>,
        limits: InventoryLimits,
    },
    /// The aliases of the ssh config that match a glob.
    SshConfig {
        pattern: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InventoryFormat {
    /// `app01 web,worker az=a`, a host a line.
    Lines,
    Json,
    /// What `ansible-inventory --list` prints; the hosts of these groups, or all where none is named.
    Ansible {
        groups: Vec<String>,
    },
}

/// How long a program that lists hosts may take, and how long its answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InventoryLimits {
    pub timeout: Duration,
    pub ttl: Duration,
}

/// What opens the byte pipe to a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionKind {
    Ssh2,
    Openssh,
    Local,
}

impl SessionKind {
    /// Names it as the file does.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ssh2 => "ssh2",
            Self::Openssh => "openssh",
            Self::Local => "local",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    pub directories: Vec<TreePath>,
    pub files: Vec<TreePath>,
    /// A tracked path that is also shared is replaced by the link; without it `plan` refuses.
    pub replace: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub path: HostPath,
    pub link: TreePath,
    /// What fills it, where that is not the recipe's own.
    pub fill: Option<Command>,
    /// Variables of the fill: an index of the user's own, for example.
    pub env: BTreeMap<String, String>,
    pub network: FillNetwork,
}

/// Where the tools of a fill get what they fetch. The host's own network is open to them either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillNetwork {
    /// From the package index, which verifies it and keeps it.
    Index,
    /// From wherever the tools of the host are set to.
    Host,
}

impl Cache {
    /// Where it is on a host.
    #[must_use]
    pub fn on<'a>(&'a self, target: &'a Target) -> &'a HostPath {
        target.cache.as_ref().unwrap_or(&self.path)
    }
}

/// The offline build, whatever recipe it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The name of one of `recipe::ALL`.
    pub recipe: String,
    /// What the recipe calls its config, where it has one.
    pub config: Option<String>,
    pub command: Command,
    /// The virtual environment that `setup` makes; the buildout recipe's.
    pub venv: Option<HostPath>,
    pub env: BTreeMap<String, String>,
    pub timeout: Duration,
    pub idle_timeout: Duration,
    pub output_limit: u64,
    pub network: Network,
    pub on: BuildOn,
}

/// Where a release is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildOn {
    /// On every host for itself.
    Host,
    /// On the first of the hosts that take part, for all.
    First,
    /// On this machine, or on one host that may be none of the environment's.
    One(Box<Target>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Blocked,
    None,
    Host,
    /// The package index, and nothing else where the host allows a namespace.
    Index,
}

/// A command of the user's that runs on every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub user: Option<String>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub probe: CheckProbe,
    pub retries: u32,
    pub every: Duration,
    pub successes: u32,
    /// Of one try.
    pub timeout: Duration,
    /// How long it must stay well then.
    pub stay_up: Duration,
    /// The unit of systemd that the activation must have started.
    pub unit: Option<Unit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    /// Of the login user's own manager.
    pub user: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckProbe {
    Run(Run),
    Url { url: String, contains: Option<String> },
}

/// A command of the user's at one moment of a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What people call it.
    pub name: String,
    pub on: Moment,
    pub place: HookPlace,
    pub run: Run,
    /// Its failure is told, and stops nothing.
    pub may_fail: bool,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    BeforeBuild,
    AfterBuild,
    BeforeActivate,
    AfterActivate,
    BeforeWave,
    AfterWave,
    AfterDeploy,
    AfterFailure,
}

impl Moment {
    pub const ALL: [Self; 8] = [
        Self::BeforeBuild,
        Self::AfterBuild,
        Self::BeforeActivate,
        Self::AfterActivate,
        Self::BeforeWave,
        Self::AfterWave,
        Self::AfterDeploy,
        Self::AfterFailure,
    ];

    /// Names it as the file does.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeBuild => "before-build",
            Self::AfterBuild => "after-build",
            Self::BeforeActivate => "before-activate",
            Self::AfterActivate => "after-activate",
            Self::BeforeWave => "before-wave",
            Self::AfterWave => "after-wave",
            Self::AfterDeploy => "after-deploy",
            Self::AfterFailure => "after-failure",
        }
    }
}

/// Where a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookPlace {
    EveryHost,
    /// On one host.
    Once,
    /// On this machine.
    Local,
    /// On the hosts of a role.
    Role(String),
}

impl HookPlace {
    /// Tells whether a host is one of those that the hook runs on. One that runs once is not asked by host.
    #[must_use]
    pub fn holds(&self, target: &Target) -> bool {
        match self {
            Self::EveryHost => true,
            Self::Role(role) => target.roles.contains(role),
            Self::Once | Self::Local => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Rollback,
    Stop,
    Continue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnreachable {
    Fail,
    Skip,
}

/// How hosts are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// None is `auto`.
    pub session: Option<SessionKind>,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identities: Vec<PathBuf>,
    /// `ssh -F`: another file than the user's own; `none` reads no file at all.
    pub ssh_config: Option<PathBuf>,
    /// Read instead of the user's own `known_hosts` files.
    pub known_hosts: Vec<PathBuf>,
    pub host_keys: HostKeys,
    /// Hosts on the way, as `ssh -J` takes them, instead of what the ssh config says; `none` goes straight.
    pub jump: Option<String>,
    pub forward_agent: bool,
    /// Somebody is at a terminal, and may be asked for a passphrase or a password.
    pub ask: bool,
    /// Somebody is at a terminal, and wants to be asked about host keys that are not known.
    pub trust_first_use: bool,
    pub timeout: Duration,
    pub retries: u32,
    /// Connections that are being opened at one time.
    pub parallel: usize,
}

/// As people call it: what they wrote.
impl fmt::Display for Inventory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(out, "`{}`", path.display()),
            Self::Command { command: Command::Argv(argv), .. } => write!(out, "`{}`", argv.join(" ")),
            Self::Command { command: Command::Shell(text), .. } => write!(out, "`{}`", text.trim().lines().next().unwrap_or_default()),
            Self::Ansible { path, .. } => write!(out, "`ansible-inventory -i {}`", path.display()),
            Self::SshConfig { pattern } => write!(out, "`ssh-config = \"{pattern}\"`"),
        }
    }
}

/// Where the keys of hosts come from. They are strict in any case: a host with another key is not connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKeys {
    /// The files of known hosts.
    Strict,
    /// The table `host-keys` and nothing else: `type base64` by the name of a host, one on the way included.
    Pinned(BTreeMap<String, String>),
}
