//! What every verb takes: which hosts and which file, what is asked and shown, how hosts are reached.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Flags that every verb takes, before or after it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common flags")]
pub struct Common {
    /// The environment; needed if there are several and `[defaults] env` names none.
    #[arg(short = 'e', long = "env", global = true, env = "DEPLOYER_ENV", value_name = "NAME")]
    pub env: Option<String>,
    /// Narrow to hosts: a name, `app[01-04]`, a glob, `@role`, `label=value`, `!app03`, `@failed`; repeatable, or with commas.
    #[arg(short = 'H', long = "host", global = true, value_name = "PATTERN")]
    pub hosts: Vec<String>,
    /// Narrow to the hosts of a role; repeatable.
    #[arg(short = 'R', long = "role", global = true, value_name = "NAME", value_delimiter = ',')]
    pub roles: Vec<String>,
    /// Start in this directory.
    #[arg(short = 'C', global = true, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// The config file; otherwise `deploy.toml` here or above, up to the repository's root.
    #[arg(short = 'c', long, global = true, env = "DEPLOYER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key of the environment: `--set build.timeout=5m`; repeatable.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Answer the question of a protected environment, or of a rollback.
    #[arg(short = 'y', long, global = true)]
    pub yes: bool,
    /// Fail rather than ask (automatic without a terminal).
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Machine output on stdout: a document, or NDJSON for verbs that run for long.
    #[arg(long, global = true)]
    pub json: bool,
    /// NDJSON to a file, beside what people see.
    #[arg(long, global = true, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// How progress is shown.
    #[arg(long, global = true, value_enum, default_value_t = Progress::Auto, env = "DEPLOYER_PROGRESS")]
    pub progress: Progress,
    /// Which CI's log commands are written.
    #[arg(long, global = true, value_enum, default_value_t = Ci::Auto)]
    pub ci: Ci,
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    #[arg(long, global = true, hide = true)]
    pub no_color: bool,
    /// Say more: commands, then remote output, then sessions.
    #[arg(short = 'v', long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say less: the end and errors, then errors only.
    #[arg(short = 'q', long, global = true, action = clap::ArgAction::Count)]
    pub quiet: u8,
    /// Hosts that build at one time.
    #[arg(short = 'j', long, global = true, value_name = "N")]
    pub parallel: Option<u32>,
    #[arg(short = 'u', long, global = true, value_name = "USER", env = "DEPLOYER_USER")]
    pub user: Option<String>,
    #[arg(long, global = true, value_name = "PORT")]
    pub port: Option<u16>,
    /// A private key; repeatable.
    #[arg(short = 'i', long = "identity", global = true, value_name = "KEY")]
    pub identities: Vec<PathBuf>,
    /// Another ssh config than your own; `none` reads none.
    #[arg(short = 'F', long, global = true, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// Let root of the hosts use the keys of your agent while you are connected; this needs the system's `ssh`.
    #[arg(short = 'A', long, global = true)]
    pub forward_agent: bool,
    /// Ask about host keys that are not known yet, and remember them; only at a terminal.
    #[arg(long, global = true)]
    pub trust_first_use: bool,
    /// What connects: the built-in client, the system's `ssh`, or a process on this machine.
    #[arg(long, global = true, value_enum)]
    pub session: Option<Session>,
    /// The longest one try to connect may take: `10s`, `1m`.
    #[arg(long, global = true, value_name = "TIME")]
    pub connect_timeout: Option<String>,
    #[arg(long, global = true, value_name = "N")]
    pub connect_retries: Option<u32>,
    /// The longest a build or command may take.
    #[arg(long, global = true, value_name = "TIME")]
    pub timeout: Option<String>,
    /// The longest a build may be silent.
    #[arg(long, global = true, value_name = "TIME")]
    pub idle_timeout: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    Auto,
    Live,
    Log,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ci {
    Auto,
    Github,
    Gitlab,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Session {
    Ssh2,
    Openssh,
    Local,
}
