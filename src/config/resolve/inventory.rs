//! The inventory of an environment: which source it names, and what fits that source.

use super::Reader;
use crate::config::environment::{Inventory, InventoryFormat, InventoryLimits};
use crate::config::fault::Fault;
use crate::config::node::{Node, Table};
use crate::op::Command;

const SOURCES: [&str; 4] = ["file", "command", "ansible", "ssh-config"];

/// The sources that each of the other keys says something about.
const FITS: [(&str, &[&str]); 4] = [
    ("format", &["file", "command"]),
    ("groups", &["file", "command", "ansible"]),
    ("timeout", &["command", "ansible"]),
    ("ttl", &["command", "ansible"]),
];

impl Reader<'_> {
    pub(super) fn inventory(&self) -> Result<Option<Inventory>, Fault> {
        let Some((table, whole)) = self.find(&["inventory"]).and_then(|node| node.table().map(|table| (table, node))) else {
            return Ok(None);
        };
        let (source, node) = source(table, whole)?;
        for (name, fitting) in FITS {
            if let Some(entry) = table.entry(name).filter(|_| !fitting.contains(&source)) {
                let fault = Fault::new(&entry.place, format!("`{name}` means nothing beside `{source}`"), "has no effect");
                return Err(fault.also(&node.place, "the source").help(format!("`{name}` is for `{}`", fitting.join("` and `"))));
            }
        }
        Ok(Some(match source {
            "file" => Inventory::File { path: self.local_path(node)?, format: self.format(table)? },
            "command" => Inventory::Command { command: self.inventory_command(node)?, format: self.format(table)?, limits: self.limits()? },
            "ansible" => Inventory::Ansible { path: self.local_path(node)?, groups: self.groups()?, limits: self.limits()? },
            _ => Inventory::SshConfig { pattern: self.pattern(node)? },
        }))
    }

    fn format(&self, table: &Table) -> Result<InventoryFormat, Fault> {
        let format = self.choice(&["inventory", "format"], &[("lines", 0), ("json", 1), ("ansible", 2)])?;
        match (format, table.entry("groups")) {
            (2, _) => Ok(InventoryFormat::Ansible { groups: self.groups()? }),
            (_, Some(groups)) => Err(Fault::new(&groups.place, "`groups` are Ansible's", "means nothing in this format")
                .help("write `format = \"ansible\"` for what `ansible-inventory --list` prints")),
            (0, None) => Ok(InventoryFormat::Lines),
            (_, None) => Ok(InventoryFormat::Json),
        }
    }

    fn groups(&self) -> Result<Vec<String>, Fault> {
        let groups = self.list(&["inventory", "groups"]);
        if let Some(node) = self.find(&["inventory", "groups"]).filter(|_| groups.is_empty()) {
            return Err(Fault::new(&node.place, "`groups` names no group", "leaves no host").help("leave it out for all hosts"));
        }
        Ok(groups.iter().filter_map(|group| group.text().map(str::to_owned)).collect())
    }

    fn limits(&self) -> Result<InventoryLimits, Fault> {
        Ok(InventoryLimits { timeout: self.limit(&["inventory", "timeout"])?, ttl: self.duration(&["inventory", "ttl"])? })
    }

    /// It runs here and before everything else, so that `{env}` alone has a meaning.
    fn inventory_command(&self, node: &Node) -> Result<Command, Fault> {
        let argument = |item: &Node| self.expanded(item, |name| (name == "env").then_some(self.name));
        match node.list() {
            Some(items) => {
                let argv = items.iter().map(argument).collect::<Result<Vec<_>, _>>()?;
                if argv.first().is_none_or(String::is_empty) {
                    return Err(Fault::new(&node.place, "the first word of the command is empty", "names no program"));
                }
                Ok(Command::Argv(argv))
            }
            None => Ok(Command::Shell(node.text().unwrap_or_default().to_owned())),
        }
    }

    fn pattern(&self, node: &Node) -> Result<String, Fault> {
        let pattern = self.expanded(node, |name| (name == "env").then_some(self.name))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-*?".contains(c);
        if pattern.is_empty() || !pattern.chars().all(plain) {
            let fault = Fault::new(&node.place, format!("`{pattern}` is no pattern of host names"), "letters, digits, `._-`, `*` and `?`");
            return Err(fault.help(format!("write `ssh-config = \"{}-prod-*\"`", self.project)));
        }
        Ok(pattern)
    }
}

/// The one source that the table names.
fn source<'a>(table: &'a Table, whole: &Node) -> Result<(&'static str, &'a Node), Fault> {
    let said: Vec<(&'static str, &Node)> = SOURCES.iter().filter_map(|name| table.at(name).map(|node| (*name, node))).collect();
    match said[..] {
        [only] => Ok(only),
        [] => {
            let fault = Fault::new(&whole.place, "the inventory names no source", format!("needs one of `{}`", SOURCES.join("`, `")));
            Err(fault.help("write `inventory = { file = \"hosts.txt\" }`"))
        }
        [(first, first_node), (second, node), ..] => {
            let fault = Fault::new(&node.place, format!("`{first}` and `{second}` exclude each other"), "one source too many");
            Err(fault.also(&first_node.place, "the other").help("an inventory has one source; a command may ask several"))
        }
    }
}
