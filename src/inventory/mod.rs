//! The hosts that `deploy.toml` leaves to others: a file, a program, Ansible, the ssh config. Whatever they say is held against the
//! rules of the file before it becomes a target.
//!
//! The parsers (`lines`, `json`, `ansible`, and the one of `ssh_config`) are pure; `file`, `command` and `ssh_config` read.

mod ansible;
mod command;
mod error;
mod file;
mod json;
mod lines;
mod ssh_config;

use std::collections::HashMap;
use std::path::Path;

use crate::config::environment::{Environment, Inventory, InventoryFormat, Target};
use crate::config::listed::{self, Listed};
use crate::config::ranges;
use crate::error::Error;

use error::InventoryError;

/// The most that is read of a source: a hundred times what the largest inventory needs.
const MOST_BYTES: usize = 16 << 20;

/// A host as its source lists it, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    place: String,
    /// The source's own words, where showing them helps.
    said: String,
    host: Listed,
}

/// One thing that is wrong in what a source lists.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    /// `line 3`, `host 2`; empty where it is the whole.
    place: String,
    said: String,
    why: String,
    next: Next,
}

/// What a person can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// Write what the format takes.
    Format,
    /// What is wrong says it already.
    Clear,
    Hint(String),
}

impl Wrong {
    fn new(place: impl Into<String>, said: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), said: said.into(), why: why.into(), next: Next::Format }
    }

    fn next(self, next: Next) -> Self {
        Self { next, ..self }
    }
}

/// Asks the inventory of `environment`, if it has one, and adds what it lists to the targets. Answers that are kept lie below `cache`.
pub async fn resolve(environment: &mut Environment, cache: &Path) -> Result<(), Error> {
    if let Some(inventory) = &environment.inventory {
        environment.targets = match all_targets(inventory, environment, cache).await {
            Ok(targets) => targets,
            Err(error) => return Err(error.told(&shown_name(inventory, &environment.directory), inventory, environment)),
        };
    }
    Ok(())
}

/// The targets of the file and of the inventory together.
async fn all_targets(inventory: &Inventory, environment: &Environment, cache: &Path) -> Result<Vec<Target>, InventoryError> {
    let nonsense = |wrong: Wrong| InventoryError::Nonsense { wrong, stderr: Vec::new() };
    let kept = command::Kept::new(cache, inventory, environment);
    let listed = match inventory {
        Inventory::File { path, format } => read(format, &file::read(path)?).map_err(nonsense)?,
        Inventory::Command { command, format, limits } => {
            command::ask(command::program(command, environment), format, *limits, &kept).await?
        }
        Inventory::Ansible { path, groups, limits } => {
            let format = InventoryFormat::Ansible { groups: groups.clone() };
            command::ask(command::ansible(path, environment), &format, *limits, &kept).await?
        }
        Inventory::SshConfig { pattern } => {
            targets(&ssh_config::find(pattern, environment.connect.ssh_config.as_deref())?).map_err(nonsense)?
        }
    };
    let mut all = environment.targets.clone();
    listed::join(&mut all, listed);
    if all.len() > ranges::MOST {
        let why = format!("it and `deploy.toml` list more than {} hosts", ranges::MOST);
        return Err(nonsense(Wrong::new("", "", why).next(Next::Clear)));
    }
    Ok(all)
}

/// What people wrote, with paths from where `deploy.toml` lies.
fn shown_name(inventory: &Inventory, directory: &Path) -> String {
    let near = |path: &Path| path.strip_prefix(directory).unwrap_or(path).to_path_buf();
    match inventory {
        Inventory::File { path, format } => Inventory::File { path: near(path), format: format.clone() }.to_string(),
        Inventory::Ansible { path, groups, limits } => {
            Inventory::Ansible { path: near(path), groups: groups.clone(), limits: *limits }.to_string()
        }
        Inventory::Command { .. } | Inventory::SshConfig { .. } => inventory.to_string(),
    }
}

/// Reads an answer in its format into targets, each checked.
fn read(format: &InventoryFormat, bytes: &[u8]) -> Result<Vec<Target>, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let number = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count() - 1;
        let line = bytes.split(|byte| *byte == b'\n').nth(number).unwrap_or_default();
        Wrong::new(format!("line {}", number + 1), String::from_utf8_lossy(line), "it is not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let found = match format {
        InventoryFormat::Lines => lines::parse(text),
        InventoryFormat::Json => json::parse(text),
        InventoryFormat::Ansible { groups } => ansible::parse(text, groups),
    }?;
    targets(&found)
}

/// Checks every host, and that no two have one name.
fn targets(found: &[Found]) -> Result<Vec<Target>, Wrong> {
    let mut targets: Vec<Target> = Vec::new();
    let mut first: HashMap<String, &str> = HashMap::new();
    for Found { place, said, host } in found {
        let wrong = |why: String| Wrong::new(place, said, why);
        for target in host.targets().map_err(|error| wrong(error.to_string()))? {
            if targets.len() == ranges::MOST {
                return Err(wrong(format!("it lists more than {} hosts", ranges::MOST)).next(Next::Clear));
            }
            if let Some(earlier) = first.insert(target.name.clone(), place) {
                let where_first = if earlier == place { String::new() } else { format!("; the first is {earlier}") };
                return Err(wrong(format!("`{}` is listed a second time{where_first}", target.name)).next(Next::Clear));
            }
            targets.push(target);
        }
    }
    if targets.is_empty() { Err(Wrong::new("", "", "it lists no host")) } else { Ok(targets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let targets = read(&InventoryFormat::Lines, text.as_bytes());
        targets
            .map(|targets| targets.into_iter().map(|target| target.name).collect())
            .map_err(|wrong| format!("{}: {}", wrong.place, wrong.why))
    }

    #[test]
    fn no_two_hosts_have_one_name() {
        assert_eq!(
            names("app1\n# no host\napp2 web\napp1\n"),
            Err("line 4: `app1` is listed a second time; the first is line 1".to_owned())
        );
        assert_eq!(names("app[1,1]\n"), Err("line 1: `app1` is listed a second time".to_owned()));
    }

    #[test]
    fn an_answer_without_a_host_is_no_answer() {
        assert_eq!(names(""), Err(": it lists no host".to_owned()));
        assert_eq!(names("\n# nobody\r\n"), Err(": it lists no host".to_owned()));
    }

    #[test]
    fn no_more_hosts_are_taken_than_a_range_may_have() {
        let many = (0..ranges::MOST).fold(String::new(), |text, number| text + &format!("h{number}\n"));
        assert_eq!(names(&many).map(|names| names.len()), Ok(ranges::MOST));
        assert_eq!(names(&format!("{many}more\n")), Err("line 10001: it lists more than 10000 hosts".to_owned()));
        assert_eq!(names("a[1-9999]\nb[1-2]\n"), Err("line 2: it lists more than 10000 hosts".to_owned()));
    }

    #[test]
    fn what_is_no_text_says_in_which_line() {
        let wrong = read(&InventoryFormat::Lines, b"app1\napp\xff\n").unwrap_err();
        assert_eq!((wrong.place.as_str(), wrong.why.as_str()), ("line 2", "it is not UTF-8"));
        assert_eq!(names("\u{feff}app1\r\n"), Ok(vec!["app1".to_owned()]));
    }
}
