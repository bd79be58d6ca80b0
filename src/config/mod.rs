//! `deploy.toml`: what may be written in it, and the resolved `Environment` that comes out of it.
//!
//! `node` keeps places, `schema` knows the keys, `merge` puts an environment together, `resolve` makes it typed, `fault` shows what
//! is wrong. Only `load` reads a file.

pub mod environment;
mod fault;
mod hosts;
pub mod listed;
mod merge;
mod node;
mod overrides;
pub mod placeholders;
pub mod quantity;
pub mod ranges;
mod resolve;
mod roles;
mod schema;
mod select;
mod show;

use std::path::{Path, PathBuf};

pub use environment::Environment;
pub use hosts::LOCAL;
pub use overrides::Overrides;
pub use select::{glob, select, split};

use crate::error::Error;
use crate::exit::Exit;
use crate::tree::path::Shown;
pub(crate) use fault::closest;
use fault::{Fault, Text};
use node::{Entry, Node, Place, Table, Value};
use resolve::Reader;

/// The version of the format that is read here.
pub const SCHEMA: i64 = 1;

/// A `deploy.toml` whose syntax, keys, kinds of values and references between environments are right.
#[derive(Clone, Debug)]
pub struct File {
    text: Text,
    root: Table,
    project: String,
    directory: PathBuf,
}

/// Reads the text of a `deploy.toml`. `path` is what errors call it, and where its relative paths start.
///
/// # Errors
/// The first thing that is wrong, with its line and column.
pub fn parse(path: &Path, text: &str) -> Result<File, Error> {
    named(&path.display().to_string(), path, text)
}

/// Reads the text of a `deploy.toml` that errors call `name`.
///
/// # Errors
/// The first thing that is wrong, with its line and column.
pub fn named(name: &str, path: &Path, text: &str) -> Result<File, Error> {
    let text = Text { name: name.to_owned(), text: text.to_owned() };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    match checked(&text) {
        Ok((root, project)) => Ok(File { text, root, project, directory }),
        Err(fault) => Err(fault.into_error(&text)),
    }
}

fn checked(text: &Text) -> Result<(Table, String), Fault> {
    let mut root = Table::parse(&text.text, &Place::File).map_err(|error| syntax(&error))?;
    check_schema(&root)?;
    schema::check(&mut root, &schema::FILE, "")?;
    let project = project(&root)?;
    check_environments(&root)?;
    Ok((root, project))
}

fn syntax(error: &toml::de::Error) -> Fault {
    let span = error.span().unwrap_or_default();
    let message = error.message();
    Fault::new(&Place::File(span), format!("`deploy.toml` is not TOML: {message}"), "here").code("syntax")
}

/// Comes before everything else: a newer file may hold keys that mean nothing here.
fn check_schema(root: &Table) -> Result<(), Fault> {
    match root.at("schema") {
        None => Err(Fault::new(&Place::File(0..0), "the file does not say its `schema`", "the first line")
            .help(format!("begin with `schema = {SCHEMA}`"))),
        Some(Node { value: Value::Whole(SCHEMA), .. }) => Ok(()),
        Some(Node { value: Value::Whole(newer), place }) if *newer > SCHEMA => {
            let version = env!("CARGO_PKG_VERSION");
            let fault = Fault::new(
                place,
                format!("the file needs a deployer that reads schema {newer}"),
                format!("deployer {version} reads schema {SCHEMA}"),
            );
            Err(fault.code("newer-schema").help(format!("install a deployer newer than {version}")))
        }
        Some(node) => Err(Fault::new(
            &node.place,
            format!("`schema` is the number {SCHEMA}: `schema = {SCHEMA}`"),
            format!("this is {}", node.kind()),
        )),
    }
}

fn project(root: &Table) -> Result<String, Fault> {
    let Some(node) = root.at("project") else {
        let place = root.entry("schema").map_or(Place::File(0..0), |entry| entry.place.clone());
        return Err(Fault::new(&place, "the file does not name its `project`", "add it below this line")
            .help("add `project = \"NAME\"`: it names releases and histories"));
    };
    let name = node.text().unwrap_or_default();
    check_name(name, "the name of a project", &node.place)?;
    Ok(name.to_owned())
}

fn check_name(name: &str, noun: &str, place: &Place) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let right = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 100 && name.chars().all(plain);
    if right {
        Ok(())
    } else {
        Err(Fault::new(place, format!("`{name}` is not {noun}"), "letters, digits, `.`, `_`, `-`").code("bad-name"))
    }
}

fn check_environments(root: &Table) -> Result<(), Fault> {
    let none = Table::default();
    let environments = root.table("env").unwrap_or(&none);
    for entry in &environments.entries {
        check_name(&entry.name, "the name of an environment", &entry.place)?;
        merge::chain(environments, &entry.name)?;
    }
    let Some(default) = root.find(&["defaults", "env"]) else { return Ok(()) };
    let name = default.text().unwrap_or_default();
    if environments.entry(name).is_some() {
        return Ok(());
    }
    let fault = Fault::new(&default.place, format!("`env` in [defaults] names the unknown environment `{name}`"), "no such environment");
    Err(match closest(name, environments.entries.iter().map(|entry| entry.name.as_str())) {
        Some(known) => fault.help(format!("did you mean `{known}`?")),
        None => fault,
    })
}

/// What `only-from` names must be an environment of the file.
fn check_source(environments: &[Entry], table: &Table) -> Result<(), Fault> {
    let Some(from) = table.at("only-from") else { return Ok(()) };
    let name = from.text().unwrap_or_default();
    if environments.iter().any(|entry| entry.name == name) {
        return Ok(());
    }
    let fault = Fault::new(&from.place, format!("`only-from` names the unknown environment `{name}`"), "no such environment");
    Err(match closest(name, environments.iter().map(|entry| entry.name.as_str())) {
        Some(known) => fault.help(format!("did you mean `{known}`?")),
        None => fault,
    })
}

impl File {
    fn environment_entries(&self) -> &[Entry] {
        self.root.table("env").map(|table| &table.entries[..]).unwrap_or_default()
    }

    /// The project's name.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The names of the environments, in the order of the file.
    #[must_use]
    pub fn environments(&self) -> Vec<String> {
        self.environment_entries().iter().map(|entry| entry.name.clone()).collect()
    }

    /// The environment that is meant where none is named: `[defaults] env`, or the only one there is.
    #[must_use]
    pub fn default_environment(&self) -> Option<&str> {
        let said = self.root.find(&["defaults", "env"]).and_then(Node::text);
        match self.environment_entries() {
            [only] => said.or(Some(&only.name)),
            _ => said,
        }
    }

    /// Resolves one environment, with what the flags change.
    pub fn environment(&self, name: &str, overrides: &Overrides) -> Result<Environment, Error> {
        let entry = self.entry(name)?;
        let environment = self.resolve(entry, overrides).map_err(|fault| fault.into_error(&self.text))?;
        environment.check_roles(environment.inventory.is_none())?;
        Ok(environment)
    }

    /// The directory that relative paths of the file start in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Resolves the package indexes, which belong to no environment.
    pub fn upstreams(&self) -> Result<environment::Upstreams, Error> {
        let here = Place::File(0..0);
        let reader =
            Reader { project: &self.project, name: "", here: &here, table: &self.root, text: &self.text, directory: &self.directory };
        reader.upstreams().map_err(|fault| fault.into_error(&self.text))
    }

    /// Checks that the environment named by `only-from` is there. What `show` writes is read without the others, so it is no part of
    /// resolving.
    pub fn check_source(&self, name: &str) -> Result<(), Error> {
        let entry = self.entry(name)?;
        let checked = self.complete(entry, &Overrides::default()).and_then(|table| check_source(self.environment_entries(), &table));
        checked.map_err(|fault| fault.into_error(&self.text))
    }

    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        let names = self.environments();
        self.environment_entries().iter().find(|entry| entry.name == name).ok_or_else(|| {
            let error = Error::new(Exit::Config, "unknown-environment", format!("unknown environment `{}`", Shown(name.as_bytes())));
            let error = match closest(name, names.iter().map(String::as_str)) {
                Some(known) => error.hint(format!("did you mean `{known}`?")),
                None => error,
            };
            if names.is_empty() {
                self.nothing_declared(error)
            } else {
                error.hint(format!("`{}` has `{}`", self.text.name, names.join("`, `")))
            }
        })
    }

    fn nothing_declared(&self, error: Error) -> Error {
        error.hint(format!("`{}` has no environment; add an `[env.NAME]` as `deploy.toml.example` does", self.text.name))
    }

    /// Everything that holds in an environment, whoever says it.
    fn complete(&self, entry: &Entry, overrides: &Overrides) -> Result<Table, Fault> {
        Ok(merge::complete(self.said(entry, overrides)?))
    }

    /// Everything that the file and the flags say of an environment.
    fn said(&self, entry: &Entry, overrides: &Overrides) -> Result<Table, Fault> {
        let none = Table::default();
        let environments = self.root.table("env").unwrap_or(&none);
        let mut source = Table::default();
        source.entries.extend(self.root.entries.iter().filter(|entry| matches!(entry.name.as_str(), "source" | "hook" | "index")).cloned());
        let mut layers = vec![&source, self.root.table("defaults").unwrap_or(&none)];
        layers.extend(merge::chain(environments, &entry.name)?.into_iter().filter_map(|entry| entry.node.table()));
        merge::effective(&layers, &overrides.layer()?)
    }

    fn resolve(&self, entry: &Entry, overrides: &Overrides) -> Result<Environment, Fault> {
        let said = self.said(entry, overrides)?;
        let read = |table: Table| {
            let (project, name, here) = (&self.project, &entry.name, &entry.place);
            Reader { project, name, here, table: &merge::complete(table), text: &self.text, directory: &self.directory }.environment()
        };
        let mut environment = read(said.clone())?;
        for role in said.table("role").map(|roles| &roles.entries[..]).unwrap_or_default() {
            hosts::check_role(&role.name, &role.place)?;
            let table = role.node.table().cloned().unwrap_or_default();
            let of_role = read(merge::of_role(&said, &table, &overrides.layer()?)?)?;
            environment.by_role.push((role.name.clone(), Environment { targets: Vec::new(), ..of_role }));
        }
        Ok(environment)
    }

    /// Resolves every environment and says a line about each: `config check`.
    pub fn check(&self) -> Result<Vec<String>, Error> {
        let names = self.environments();
        if names.is_empty() {
            return Err(self.nothing_declared(Error::new(Exit::Config, "no-environment", "the file declares no environment")));
        }
        let check = |name: &String| {
            let environment = self.environment(name, &Overrides::default())?;
            self.check_source(name).map(|()| summary(&environment))
        };
        names.iter().map(check).collect()
    }

    /// What is allowed and probably not meant, a line each, with its place.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(git) = self.root.find(&["source", "git"])
            && git.text().is_some_and(holds_password)
        {
            let origin = self.text.origin(&git.place);
            warnings.push(format!(
                "{origin}: `source.git` holds a password that everybody who has the file can read; leave it to git's credential helper"
            ));
        }
        for (key, place) in commands(&self.root, "") {
            let mentioned = placeholders::NAMES.iter().find(|name| key.1.contains(&format!("{{{name}}}")));
            if let Some(name) = mentioned {
                let variable = name.to_ascii_uppercase().replace('-', "_");
                let origin = self.text.origin(place);
                warnings.push(format!(
                    "{origin}: `{{{name}}}` is not replaced in `{}`, which a shell reads; write `$DEPLOYER_{variable}`",
                    key.0
                ));
            }
        }
        warnings
    }
}

/// Recognises `https://user:password@host/`.
fn holds_password(url: &str) -> bool {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'))
}

/// Every command that is written as a string, with its dotted key.
fn commands<'a>(table: &'a Table, path: &str) -> Vec<((String, &'a str), &'a Place)> {
    let mut found = Vec::new();
    for entry in &table.entries {
        let key = if path.is_empty() { entry.name.clone() } else { format!("{path}.{}", entry.name) };
        match &entry.node.value {
            Value::Table(inner) => found.extend(commands(inner, &key)),
            Value::Text(text) if matches!(entry.name.as_str(), "run" | "command") => found.push(((key, text.as_str()), &entry.node.place)),
            Value::List(items) => found.extend(items.iter().filter_map(Node::table).flat_map(|inner| commands(inner, &key))),
            Value::Text(_) | Value::Whole(_) | Value::Truth(_) | Value::Other(_) => {}
        }
    }
    found
}

fn summary(environment: &Environment) -> String {
    let names: Vec<String> = environment.targets.iter().map(|target| target.name.clone()).collect();
    let hosts = if names.len() == 1 { "1 host".to_owned() } else { format!("{} hosts", names.len()) };
    let build = environment.build.as_ref().map_or("no build".to_owned(), |build| format!("recipe {}", build.recipe));
    let folded = ranges::fold(&ranges::shorten(&names));
    let hosts = match &environment.inventory {
        Some(inventory) if names.is_empty() => format!("the hosts of {inventory}"),
        Some(inventory) => format!("{hosts} ({folded}) and those of {inventory}"),
        None => format!("{hosts} ({folded})"),
    };
    format!("{}: {hosts}, {build}, root {}", environment.name, environment.root)
}

#[cfg(test)]
mod tests;
