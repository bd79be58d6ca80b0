//! `config show`: every effective value of an environment as a `deploy.toml` of its own, and where each comes from.

use std::fmt::Write as _;

use super::fault::Text;
use super::node::{Entry, Node, Place, Table, Value};
use super::quantity::show_duration;
use super::{Environment, File, Overrides, SCHEMA};
use crate::error::Error;
use crate::op::Command;

impl File {
    /// Writes the environment so that it can be read again and means the same. With `origin` each line says where its value is from.
    pub fn show(&self, name: &str, overrides: &Overrides, origin: bool) -> Result<String, Error> {
        let environment = self.environment(name, overrides)?;
        let entry = self.entry(name)?;
        let table = self.complete(entry, overrides).map_err(|fault| fault.into_error(&self.text))?;
        let mut page = Page { lines: Vec::new(), text: &self.text };
        for name in ["schema", "project"] {
            let place = self.root.at(name).map_or(&Place::Default, |node| &node.place);
            let value = if name == "schema" { SCHEMA.to_string() } else { string(&self.project) };
            page.lines.push((format!("{name} = {value}"), Some(self.text.origin(place))));
        }
        // What is of the whole file, and of no environment.
        let of_file = |entry: &&Entry| matches!(entry.name.as_str(), "source" | "index");
        let (whole, rest): (Vec<&Entry>, Vec<&Entry>) = table.entries.iter().partition(of_file);
        for entry in whole {
            page.tables(&entry.name, &entry.node);
        }
        let used: Vec<&Entry> = rest.into_iter().filter(|entry| is_used(&entry.name, &environment)).collect();
        page.environment(&format!("env.{name}"), &used, &environment);
        Ok(page.write(origin))
    }
}

impl File {
    /// Gives the environment as `show` does, for programs: `{"value": …, "origin": …}` at every key that has a value.
    pub fn show_json(&self, name: &str, overrides: &Overrides) -> Result<serde_json::Value, Error> {
        let environment = self.environment(name, overrides)?;
        let table = self.complete(self.entry(name)?, overrides).map_err(|fault| fault.into_error(&self.text))?;
        let used = Table { entries: table.entries.into_iter().filter(|entry| is_used(&entry.name, &environment)).collect() };
        let confirm_within = show_duration(environment.confirm_within);
        Ok(serde_json::json!({
            "schema": SCHEMA,
            "project": self.project,
            "env": name,
            "settings": self.settings(&used),
            "confirm_within": confirm_within,
        }))
    }

    fn settings(&self, table: &Table) -> serde_json::Value {
        let setting = |entry: &Entry| match entry.node.table() {
            Some(inner) => (entry.name.clone(), self.settings(inner)),
            None => (entry.name.clone(), serde_json::json!({ "value": json(&entry.node), "origin": self.text.origin(&entry.node.place) })),
        };
        table.entries.iter().map(setting).collect::<serde_json::Map<_, _>>().into()
    }
}

fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Text(text) => text.clone().into(),
        Value::Whole(number) => (*number).into(),
        Value::Truth(truth) => (*truth).into(),
        Value::List(items) => items.iter().map(json).collect::<Vec<_>>().into(),
        Value::Table(table) => {
            table.entries.iter().map(|entry| (entry.name.clone(), json(&entry.node))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Other(kind) => (*kind).into(),
    }
}

/// What only its defaults speak of does nothing, and is not shown.
fn is_used(name: &str, environment: &Environment) -> bool {
    match name {
        "build" => environment.build.is_some(),
        "activate" => environment.activate.is_some(),
        "check" => environment.check.is_some(),
        "cache" => environment.cache.is_some(),
        _ => true,
    }
}

struct Page<'a> {
    /// A line, and where its value is from.
    lines: Vec<(String, Option<String>)>,
    text: &'a Text,
}

impl Page<'_> {
    fn environment(&mut self, path: &str, entries: &[&Entry], environment: &Environment) {
        self.section(path, entries);
        // What is computed is part of what holds, though nobody wrote it.
        let said = |name: &str| entries.iter().any(|entry| entry.name == name);
        if !said("confirm-within") {
            let value = format!("# confirm-within = {}", string(&show_duration(environment.confirm_within)));
            self.lines.push((value, Some("default, from the limits of activation and check".to_owned())));
        }
        let tables = |entry: &&&Entry| entry.node.table().is_some();
        for entry in entries.iter().filter(tables) {
            let Some(table) = entry.node.table() else { continue };
            if !table.entries.is_empty() {
                self.nested(&format!("{path}.{}", key(&entry.name)), table);
            }
            if entry.name == "build" {
                self.recipe(environment, table);
            }
        }
    }

    fn nested(&mut self, path: &str, table: &Table) {
        self.section(path, &table.entries.iter().collect::<Vec<_>>());
        for entry in &table.entries {
            if let Some(inner) = entry.node.table() {
                self.nested(&format!("{path}.{}", key(&entry.name)), inner);
            }
        }
    }

    /// A table, and those in it.
    fn tables(&mut self, path: &str, node: &Node) {
        let Some(table) = node.table() else { return };
        if table.entries.is_empty() || table.entries.iter().any(|entry| entry.node.table().is_none()) {
            self.section(path, &table.entries.iter().collect::<Vec<_>>());
        }
        for entry in &table.entries {
            self.tables(&format!("{path}.{}", key(&entry.name)), &entry.node);
        }
    }

    fn section(&mut self, path: &str, entries: &[&Entry]) {
        self.lines.push((String::new(), None));
        self.lines.push((format!("[{path}]"), None));
        for entry in entries.iter().filter(|entry| entry.node.table().is_none()) {
            let origin = self.text.origin(&entry.node.place);
            self.lines.push((format!("{} = {}", key(&entry.name), value(&entry.node)), Some(origin)));
        }
    }

    /// What the recipe adds: as remarks, since the recipe's name already says it.
    fn recipe(&mut self, environment: &Environment, table: &Table) {
        let Some(build) = &environment.build else { return };
        let origin = Some(format!("recipe {}", build.recipe));
        if table.at("command").is_none()
            && let Command::Argv(argv) = &build.command
        {
            let argv: Vec<String> = argv.iter().map(|item| string(item)).collect();
            self.lines.push((format!("# command = [{}]", argv.join(", ")), origin.clone()));
        }
        for (name, value) in build.env.iter().filter(|(name, _)| table.find(&["env", name]).is_none()) {
            self.lines.push((format!("# env.{name} = {}", string(value)), origin.clone()));
        }
    }

    fn write(&self, origin: bool) -> String {
        let width = self.lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        let mut out = String::new();
        for (line, from) in &self.lines {
            let _ = match from {
                Some(from) if origin => writeln!(out, "{line:width$}  # {from}"),
                _ => writeln!(out, "{line}"),
            };
        }
        out
    }
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { string(name) }
}

fn string(text: &str) -> String {
    super::schema::quoted(text)
}

fn value(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => string(text),
        Value::Whole(number) => number.to_string(),
        Value::Truth(truth) => truth.to_string(),
        Value::List(items) => format!("[{}]", items.iter().map(value).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let entries: Vec<String> = table.entries.iter().map(|entry| format!("{} = {}", key(&entry.name), value(&entry.node))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Other(kind) => (*kind).to_owned(),
    }
}
