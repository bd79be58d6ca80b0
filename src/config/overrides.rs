//! What flags change: the last layer of an environment.

use super::fault::{Fault, closest};
use super::node::{Node, Place, Table, Value};
use super::schema::{self, Section, Shape};

/// The flags that change a setting, as typed; None or empty where the flag is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--set build.timeout=5m`
    pub set: Vec<String>,
    pub rev: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identities: Vec<String>,
    pub ssh_config: Option<String>,
    pub session: Option<String>,
    /// `-A`
    pub forward_agent: bool,
    pub connect_timeout: Option<String>,
    pub connect_retries: Option<u32>,
    pub parallel: Option<u32>,
    pub timeout: Option<String>,
    pub idle_timeout: Option<String>,
    /// `--waves 1,25%,100%`, split at the commas.
    pub waves: Vec<String>,
    pub on_failure: Option<String>,
    pub on_unreachable: Option<String>,
    pub max_failures: Option<String>,
    pub min_healthy: Option<String>,
    pub pause: Option<String>,
}

impl Overrides {
    /// The layer that these flags make, checked as the file is. A flag of its own is nearer than `--set`.
    pub fn layer(&self) -> Result<Table, Fault> {
        let mut table = Table::default();
        for text in &self.set {
            set(&mut table, text)?;
        }
        let texts = [
            ("--rev", &["rev"][..], &self.rev),
            ("--user", &["user"], &self.user),
            ("--ssh-config", &["ssh", "config"], &self.ssh_config),
            ("--session", &["ssh", "session"], &self.session),
            ("--connect-timeout", &["ssh", "connect-timeout"], &self.connect_timeout),
            ("--timeout", &["build", "timeout"], &self.timeout),
            ("--idle-timeout", &["build", "idle-timeout"], &self.idle_timeout),
            ("--on-failure", &["on-failure"], &self.on_failure),
            ("--on-unreachable", &["on-unreachable"], &self.on_unreachable),
            ("--max-failures", &["max-failures"], &self.max_failures),
            ("--min-healthy", &["min-healthy"], &self.min_healthy),
            ("--pause", &["pause"], &self.pause),
        ];
        for (flag, path, text) in texts {
            if let Some(text) = text {
                table.put(path, node(&format!("{flag} {text}"), Value::Text(text.clone())));
            }
        }
        let numbers = [
            ("--port", &["port"][..], self.port.map(i64::from)),
            ("--connect-retries", &["ssh", "connect-retries"], self.connect_retries.map(i64::from)),
            ("--parallel", &["parallel"], self.parallel.map(i64::from)),
        ];
        for (flag, path, number) in numbers {
            if let Some(number) = number {
                table.put(path, node(&format!("{flag} {number}"), Value::Whole(number)));
            }
        }
        for (flag, path, items) in [("--identity", &["ssh", "identities"][..], &self.identities), ("--waves", &["waves"], &self.waves)] {
            if !items.is_empty() {
                let typed = format!("{flag} {}", items.join(","));
                let list = items.iter().map(|item| node(&typed, Value::Text(item.clone()))).collect();
                table.put(path, node(&typed, Value::List(list)));
            }
        }
        if self.forward_agent {
            table.put(&["ssh", "forward-agent"], node("-A", Value::Truth(true)));
        }
        schema::check(&mut table, &schema::CHANGEABLE, "env.*")?;
        Ok(table)
    }
}

fn node(flag: &str, value: Value) -> Node {
    Node { value, place: Place::Flag(flag.to_owned()) }
}

fn set(table: &mut Table, text: &str) -> Result<(), Fault> {
    let typed = format!("--set {text}");
    let place = Place::Flag(typed.clone());
    let Some((key, value)) = text.split_once('=') else {
        return Err(Fault::new(&place, format!("`{typed}` has no `=`"), "nothing to set").help("write `--set build.timeout=5m`"));
    };
    let path: Vec<&str> = key.split('.').map(str::trim).collect();
    let shape = shape_of(&path, &schema::CHANGEABLE, &place, key)?;
    let value = if is_text(shape) { Value::Text(unquoted(value)) } else { parsed(value, &typed) };
    table.put(&path, with_place(value, &place));
    Ok(())
}

fn with_place(value: Value, place: &Place) -> Node {
    Node { value, place: place.clone() }
}

fn shape_of(path: &[&str], section: &'static Section, place: &Place, key: &str) -> Result<Shape, Fault> {
    let unknown = |name: &str, known: Option<&str>| {
        let fault =
            Fault::new(place, format!("unknown key `{key}`"), format!("`{name}` is not a setting of {}", section.noun)).code("unknown-key");
        match known {
            Some(known) => fault.help(format!("did you mean `{known}`?")),
            None => fault,
        }
    };
    let Some((first, rest)) = path.split_first() else { return Err(unknown("", None)) };
    let Some(found) = section.key(first) else { return Err(unknown(first, closest(first, section.keys.iter().map(|key| key.name)))) };
    match (found.shape, rest) {
        (shape, []) => Ok(shape),
        (Shape::Named(each), [_]) => Ok(*each),
        (Shape::Table(inner) | Shape::Run(inner), rest) => shape_of(rest, inner, place, key),
        (_, [name, ..]) => Err(unknown(name, None)),
    }
}

/// Tells whether a value is taken as typed: `--set rev=1.0` means the text.
const fn is_text(shape: Shape) -> bool {
    match shape {
        Shape::Text | Shape::Duration | Shape::Size | Shape::Choice(_) | Shape::Share => true,
        Shape::Truth
        | Shape::Whole(..)
        | Shape::Texts
        | Shape::Shares
        | Shape::Command
        | Shape::Run(_)
        | Shape::Table(_)
        | Shape::Tables(_)
        | Shape::Named(_)
        | Shape::Sections(_) => false,
    }
}

fn parsed(value: &str, typed: &str) -> Value {
    let place = |_| Place::Flag(typed.to_owned());
    // What is no TOML value is the text itself, and the shape says whether a text will do.
    let table = Table::parse(&format!("value = {value}"), &place).ok().filter(|table| table.entries.len() == 1);
    table.and_then(|table| table.at("value").map(|node| node.value.clone())).unwrap_or_else(|| Value::Text(value.to_owned()))
}

fn unquoted(value: &str) -> String {
    if value.starts_with(['"', '\''])
        && let Value::Text(text) = parsed(value, "")
    {
        text
    } else {
        value.to_owned()
    }
}
