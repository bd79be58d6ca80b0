//! The command line: verbs, flags, help. `clap` stays here and in what is below.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::recipe::Python;

mod global;

pub use global::{Ci, Color, Common, Progress, Session};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Everyday:
  deployer deploy --rev master -e staging     push, build offline, switch, check
  deployer plan -e prod --rev v2.8.0          what that would do; changes nothing
  deployer rollback -e prod                   back to what was live before
  deployer status -e prod                     what is live where
  deployer releases -e prod                   what each host keeps
  deployer logs -H app07 --step build         the output of the last run

Hosts:
  run -- CMD   setup   cache fill|status|push|export|import|serve   prune   doctor   hosts   hosts trust HOST
  lock status|acquire|release   remove

Project:
  config show|check   demo   completions

`deployer VERB --help` explains a verb. Exit codes are in the README.";

/// Deploys a git revision to many hosts over SSH: exported exactly, pushed by difference, built offline, switched atomically.
#[derive(Debug, Parser)]
#[command(name = "deployer", version, styles = STYLES, after_help = EXAMPLES, disable_help_subcommand = true, help_template = "{about}\nUsage: {usage}{after-help}", after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// Put back every host that this run had switched.
    Rollback,
    /// Leave what is switched and stop.
    Stop,
    /// Go on with the other hosts.
    Continue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnUnreachable {
    Fail,
    Skip,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Push a revision to every host, build it there, switch to it, check.
    Deploy(Deploy),
    /// Say what a deploy would do; changes nothing.
    Plan(Plan),
    /// Point `current` at an older release that was confirmed and is still on the hosts.
    Rollback(Rollback),
    /// What is live where.
    Status(Status),
    /// The releases each host keeps.
    Releases,
    /// The stored output of a run.
    Logs(Logs),
    /// Run a command on the hosts.
    Run(Run),
    /// List the hosts of the environment, or trust one's key.
    Hosts(Hosts),
    /// Prepare hosts: directories, modes, the cache, the virtual environment.
    Setup(Setup),
    /// Remove releases that retention does not keep, or one by name.
    Prune(Prune),
    /// Fill, compare and send what offline builds need.
    #[command(subcommand)]
    Cache(Cache),
    /// Check this computer, the config and every host.
    Doctor(Doctor),
    /// Show or check the effective config.
    #[command(subcommand)]
    Config(Config),
    /// Who holds the hosts; put them on hold, lift a hold, end a run.
    #[command(subcommand)]
    Lock(Lock),
    /// Take `.deployer` away from the hosts; what they serve stays.
    Remove(Remove),
    /// The whole cycle on throwaway hosts of this machine.
    Demo(Demo),
    /// Print the completion script of a shell.
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// What is deployed.
#[derive(Clone, Debug, Default, Args)]
pub struct What {
    /// Branch, tag or commit; otherwise the environment's `rev`.
    #[arg(short = 'r', long, value_name = "REV")]
    pub rev: Option<String>,
    /// Refuse if the revision is any other commit than this.
    #[arg(long, value_name = "SHA")]
    pub expect: Option<String>,
    /// Send this directory instead of a revision.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["expect"])]
    pub tree: Option<PathBuf>,
    /// Take what this environment confirmed, built as it is there, instead of building.
    #[arg(long, value_name = "ENV", conflicts_with_all = ["tree", "force"])]
    pub from: Option<String>,
    /// Make the release anew although the hosts have it.
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Deploy {
    #[command(flatten)]
    pub what: What,
    /// Only say what would happen; the same as `plan`.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Cumulative sizes of the activation waves: `1,25%,100%`.
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    pub waves: Vec<String>,
    /// What follows a failed activation or check.
    #[arg(long, value_enum)]
    pub on_failure: Option<OnFailure>,
    /// What an unreachable host means.
    #[arg(long, value_enum)]
    pub on_unreachable: Option<OnUnreachable>,
    /// Failed hosts that do not stop the others: `2` or `10%`.
    #[arg(long, value_name = "N|N%")]
    pub max_failures: Option<String>,
    /// Hosts that stay well and serve while others are switched: `9` or `75%`.
    #[arg(long, value_name = "N|N%")]
    pub min_healthy: Option<String>,
    /// How long a wave serves the new release before the next one begins: `30s`, `10m`.
    #[arg(long, value_name = "TIME")]
    pub pause: Option<String>,
    /// Wait for a lock instead of failing.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait_lock: Option<Duration>,
    /// Deploy although no deploy window is open.
    #[arg(long)]
    pub outside_window: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    pub what: What,
    /// Exit 20 if there is anything to do.
    #[arg(long)]
    pub exit_code: bool,
    /// List every commit.
    #[arg(long)]
    pub changes: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Rollback {
    /// A release's id, or `~N` for the N-th confirmed release before the live one.
    #[arg(long, value_name = "ID|~N")]
    pub to: Option<String>,
    /// Wait for a lock instead of failing.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait_lock: Option<Duration>,
}

#[derive(Clone, Debug, Args)]
pub struct Status {
    /// Compare every file of the live release with its manifest.
    #[arg(long)]
    pub verify: bool,
    /// Run the checks that are commands (`check.run`) too; those that are URLs are asked anyway.
    #[arg(long)]
    pub check: bool,
    /// Exit 20 unless all hosts serve one unmodified release and none fails its check; compares files as `--verify` does.
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Logs {
    /// A run's id; otherwise the last run of the environment.
    pub run: Option<String>,
    /// Only this step: `build`, `activate`, `check` …
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// List the stored runs.
    #[arg(long)]
    pub list: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The command and its arguments. One argument is a shell's text, several are an argv that no shell sees.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
    /// Where it runs: an absolute path, or `{current}`, `{root}`, `{shared}`; otherwise the login user's home.
    #[arg(long, value_name = "PATH")]
    pub cwd: Option<String>,
    /// Run it as this user, with `sudo -n`.
    #[arg(long = "as", value_name = "USER")]
    pub as_user: Option<String>,
    /// Run it as root, with `sudo -n`.
    #[arg(long, conflicts_with = "as_user")]
    pub sudo: bool,
    /// On one host only: the first.
    #[arg(long)]
    pub once: bool,
    /// Print lines as they come, each with its host.
    #[arg(long)]
    pub stream: bool,
    /// One host: its output as it is, and its exit code.
    #[arg(long, conflicts_with_all = ["stream", "json"])]
    pub raw: bool,
}

#[derive(Clone, Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub struct Hosts {
    #[command(subcommand)]
    pub action: Option<HostsAction>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum HostsAction {
    /// Show the key of a host, and remember it once you have compared its fingerprint.
    Trust {
        /// A host of the environment, or any name that ssh knows, as a bastion's.
        host: String,
        /// The fingerprint that the host must show; with `--yes` nothing is asked.
        #[arg(long, value_name = "SHA256:…")]
        fingerprint: Option<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct Setup {
    /// The revision whose needs hosts are made ready for: its cache, its zc.buildout; otherwise the environment's `rev`.
    #[arg(short = 'r', long, value_name = "REV")]
    pub rev: Option<String>,
    /// Only tell what would be done.
    #[arg(long)]
    pub check: bool,
    /// Print the lines of sudoers that activation and check need.
    #[arg(long, conflicts_with = "check")]
    pub print_sudoers: bool,
    /// Print a unit that puts back, at boot, what nobody had confirmed before.
    #[arg(long, conflicts_with_all = ["check", "print_sudoers"])]
    pub print_boot_unit: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Prune {
    /// Remove this release, whatever retention says.
    #[arg(long, value_name = "ID")]
    pub release: Option<String>,
    /// Confirm by naming the environment.
    #[arg(long, value_name = "ENV")]
    pub confirm: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Cache {
    /// Run the recipe's resolver for a revision on a builder, through the package index, and keep what it fetches.
    ///
    /// The builder is the environment's first host, or the first that `-H` selects; it needs no internet. A build without network proves
    /// what was fetched. For hosts of another platform or Python, fill on one of them too.
    Fill(CacheFill),
    /// Compare what a revision needs with what each host has.
    Status(CacheStatus),
    /// Send hosts what they lack of what a revision needs.
    Push(CacheWhat),
    /// Write a revision, the files that its build needs and the helpers into one file, for a site that reaches nothing.
    Export(CacheExport),
    /// Take what `export` wrote: the files onto this machine, the revision as a bundle that `source.git` can name.
    Import(CacheImport),
    /// Run the package index for other tools of this machine, and say how they find it; what it served is kept.
    Serve(CacheServe),
}

#[derive(Clone, Debug, Args)]
pub struct CacheExport {
    pub file: PathBuf,
    #[command(flatten)]
    pub what: CacheWhat,
}

#[derive(Clone, Debug, Args)]
pub struct CacheImport {
    pub file: PathBuf,
    /// Where the revision goes; otherwise what `source.git` names, or `PROJECT.bundle` beside deploy.toml.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct CacheServe {
    /// Where to listen: an address of this machine that no other can reach.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3141")]
    pub listen: std::net::SocketAddr,
    /// Ask no upstream: only what is held is offered.
    #[arg(long)]
    pub offline: bool,
    /// Keep packages here instead of below your cache directory.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// The revision whose needs are meant.
#[derive(Clone, Debug, Args)]
pub struct CacheWhat {
    /// Branch, tag or commit; otherwise the environment's `rev`.
    #[arg(short = 'r', long, value_name = "REV")]
    pub rev: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct CacheFill {
    /// Branch, tag or commit; otherwise the environment's `rev`.
    #[arg(short = 'r', long, value_name = "REV")]
    pub rev: Option<String>,
    /// Fill on this machine: the project's own code runs here, as you.
    #[arg(long)]
    pub local: bool,
    /// Fetch wheels for hosts of this kind too, which cannot be reached from here: `cp39-manylinux_2_28_x86_64`.
    ///
    /// The Python and the platform as the names of wheels have them, with the version of the host's C library. Hosts that can be reached
    /// are asked themselves. May be given more than once.
    #[arg(long = "for", value_name = "KIND")]
    pub kinds: Vec<Python>,
}

#[derive(Clone, Debug, Args)]
pub struct CacheStatus {
    #[command(flatten)]
    pub what: CacheWhat,
    /// Exit 20 unless every cache is complete.
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// Exit 20 if there is a problem or warning.
    #[arg(long)]
    pub exit_code: bool,
    /// Take over the releases that another tool deployed, where they are; `--yes` does what is otherwise only told.
    #[arg(long, conflicts_with = "exit_code")]
    pub adopt: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Config {
    /// Print the effective config of the environment.
    Show {
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
    },
    /// Validate the file and every environment in it.
    Check,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Lock {
    /// Say which run holds which host, and what keeps everybody from it.
    Status,
    /// Put the environment on hold: nobody deploys until the hold is lifted.
    Acquire {
        /// Why, for whoever meets it.
        #[arg(short = 'm', long, value_name = "TEXT")]
        message: String,
    },
    /// Lift a hold, or end the run that holds the lock; each by its id.
    Release {
        /// The id of the hold, or of the run, as `lock status` shows it.
        #[arg(long, value_name = "ID")]
        id: String,
        /// Confirm by naming the environment.
        #[arg(long, value_name = "ENV")]
        confirm: Option<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct Remove {
    /// Confirm by naming the environment.
    #[arg(long, value_name = "ENV")]
    pub confirm: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Leave hosts and files for a look around, until Enter is pressed.
    #[arg(long)]
    pub keep: bool,
}

/// Names a value as it is written, on the command line and in the file.
#[must_use]
pub fn name_of<V: ValueEnum + Copy>(value: V) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Reads `90s`, `15m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    crate::config::quantity::duration(text).map_err(|error| error.to_string())
}
