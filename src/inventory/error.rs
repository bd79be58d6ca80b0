//! How an inventory fails, and what a person reads of it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::{Next, Wrong, ansible, json, lines};
use crate::config::environment::{Environment, Inventory, InventoryFormat};
use crate::config::quantity::show_duration;
use crate::error::Error;
use crate::exit::Exit;
use crate::tree::path::Shown;

/// The letters of somebody else's text that an error repeats.
const SHORT: usize = 200;

#[derive(Debug, thiserror::Error)]
pub(super) enum InventoryError {
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{}` cannot be started", program.to_string_lossy())]
    Start {
        program: OsString,
        #[source]
        error: io::Error,
    },
    #[error("{}", told_status(*status))]
    Failed { status: ExitStatus, stderr: Vec<String> },
    #[error("was not done after {} and was stopped", show_duration(*after))]
    TimedOut { after: Duration, stderr: Vec<String> },
    #[error("lists more than 16 MiB, which is no inventory")]
    TooMuch { stderr: Vec<String> },
    #[error("{}", wrong.why)]
    Nonsense { wrong: Wrong, stderr: Vec<String> },
    #[error("names no host that can be listed")]
    NoAlias { wildcards: Vec<String>, files: Vec<PathBuf> },
    #[error("`ssh.config` is `none`, so that there is no ssh config to look in")]
    NoSshConfig,
}

fn told_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

impl InventoryError {
    /// Tells the failure of the inventory that people know as `name`.
    pub(super) fn told(self, name: &str, inventory: &Inventory, environment: &Environment) -> Error {
        let error = |code, what: String| Error::new(Exit::Config, code, what);
        let failed = |what: &str| error("inventory-failed", format!("the inventory {name} {what}"));
        let env = &environment.name;
        let by_hand = format!("run it in `{}` to see what it does", environment.directory.display());
        let what = self.to_string();
        match self {
            Self::Unreadable { path, error: cause } => {
                let error = error("inventory", format!("the inventory `{}` cannot be read", path.display())).caused_by(cause);
                error.hint(match inventory {
                    Inventory::SshConfig { .. } => format!("change `ssh.config` of [env.{env}]"),
                    Inventory::File { .. } | Inventory::Command { .. } | Inventory::Ansible { .. } => {
                        format!("write it, or change `inventory` of [env.{env}]")
                    }
                })
            }
            Self::Start { error: cause, .. } => {
                let hint = start_hint(&cause, inventory);
                failed("cannot be started").caused_by(cause).hint(hint)
            }
            Self::Failed { stderr, .. } => failed(&what).evidence(prefixed("stderr", &stderr)).hint(by_hand),
            Self::TimedOut { stderr, .. } => failed(&what)
                .evidence(prefixed("stderr", &stderr))
                .hint(by_hand)
                .hint(format!("or give it more time: `timeout = \"2m\"` in the `inventory` of [env.{env}]")),
            Self::TooMuch { stderr } => error("inventory", format!("the inventory {name} {what}")).evidence(prefixed("stderr", &stderr)),
            Self::Nonsense { wrong, stderr } => nonsense(wrong, &stderr, name, inventory),
            Self::NoAlias { wildcards, files } => no_alias(&wildcards, &files, name),
            Self::NoSshConfig => error("inventory", what).hint(format!("change `inventory` or `ssh.config` of [env.{env}]")),
        }
    }
}

fn nonsense(wrong: Wrong, stderr: &[String], name: &str, inventory: &Inventory) -> Error {
    let why = short(&wrong.why);
    let what = match (wrong.place.is_empty(), why.strip_prefix("it ")) {
        (false, _) => format!("the inventory {name}, {}: {why}", wrong.place),
        (true, Some(does)) => format!("the inventory {name} {does}"),
        (true, None) => format!("the inventory {name}: {why}"),
    };
    let error = Error::new(Exit::Config, "inventory", what);
    let said = if wrong.said.is_empty() { None } else { Some(short(&wrong.said)) };
    let label = if wrong.place.is_empty() { "it says" } else { &wrong.place };
    let error = error.evidence(said.map(|said| format!("{label} | {said}"))).evidence(prefixed("stderr", stderr));
    match (wrong.next, inventory) {
        (Next::Hint(hint), _) => error.hint(hint),
        (Next::Format, Inventory::File { format, .. } | Inventory::Command { format, .. }) => error.hint(expected(format)),
        (Next::Format, Inventory::Ansible { .. }) => error.hint("`ansible-inventory --list` with the same `-i` shows what was read"),
        (Next::Format, Inventory::SshConfig { .. }) | (Next::Clear, _) => error,
    }
}

fn expected(format: &InventoryFormat) -> &'static str {
    match format {
        InventoryFormat::Lines => lines::EXPECTED,
        InventoryFormat::Json => json::EXPECTED,
        InventoryFormat::Ansible { .. } => ansible::EXPECTED,
    }
}

fn start_hint(error: &io::Error, inventory: &Inventory) -> &'static str {
    match (error.kind(), inventory) {
        (io::ErrorKind::NotFound, Inventory::Ansible { .. }) => {
            "install ansible-core on this machine, or have a `command` print the same with `format = \"ansible\"`"
        }
        (io::ErrorKind::NotFound, _) => "a name with a slash begins beside `deploy.toml`, one without is looked for in PATH",
        (io::ErrorKind::PermissionDenied, _) => "make it executable: `chmod +x`",
        _ => "a script needs a first line such as `#!/bin/sh`",
    }
}

/// Patterns stand for names that are written nowhere, and that is what most people run into.
fn no_alias(wildcards: &[String], files: &[PathBuf], name: &str) -> Error {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let looked = if files.is_empty() { "there is no ssh config".to_owned() } else { format!("looked in {}", files.join(", ")) };
    let error = Error::new(Exit::Config, "inventory", format!("the inventory {name} names no host: no `Host` line has a matching alias"));
    let error = error.evidence(wildcards.iter().cloned()).evidence([looked]);
    let error = if wildcards.is_empty() { error } else { error.hint("a pattern after `Host` stands for names that are written nowhere") };
    error.hint("write the names: `Host app01 app02` in the ssh config, or `hosts = [\"app[01-02]\"]` in deploy.toml")
}

fn prefixed(stream: &str, lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| format!("{stream} | {line}")).collect()
}

/// Repeats the beginning of somebody else's text, escaped.
fn short(text: &str) -> String {
    let mut letters = text.chars();
    let begin: String = letters.by_ref().take(SHORT).collect();
    let shown = Shown(begin.as_bytes()).to_string();
    if letters.next().is_some() { shown + "…" } else { shown }
}
