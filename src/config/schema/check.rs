//! The check of a table against the keys that are known: unknown keys, kinds of values, formats, and what to write instead.

use super::{FILE, Key, Section, Shape, quoted};
use crate::config::fault::{Fault, closest};
use crate::config::node::{Entry, Node, Table, Value};
use crate::config::quantity::{self, Amount};

/// Checks `table` and writes every short form (`activate = "…"`) as the long one. `path` is how people name the table: `env.*.build`.
pub fn check(table: &mut Table, section: &'static Section, path: &str) -> Result<(), Fault> {
    for entry in &mut table.entries {
        let Some(known) = section.key(&entry.name) else { return Err(unknown(entry, section, path)) };
        check_value(entry, &known.shape, path)?;
    }
    Ok(())
}

fn unknown(entry: &Entry, section: &Section, path: &str) -> Fault {
    let place = if path.is_empty() { "at the top level".to_owned() } else { format!("in [{path}]") };
    let fault = Fault::new(&entry.place, format!("unknown key `{}` {place}", entry.name), format!("not a setting of {}", section.noun))
        .code("unknown-key");
    let note = "`deploy.toml.example` shows every key";
    let homes = homes_for(&entry.name, path);
    match (homes.first(), closest(&entry.name, section.keys.iter().map(|key| key.name))) {
        (Some(home), _) if home.is_empty() => {
            fault.help(format!("`{}` belongs at the top of the file, above every `[section]`", entry.name))
        }
        (Some(_), _) => fault.help(format!("`{}` belongs in [{}]", entry.name, homes.join("] or ["))),
        (None, Some(known)) => fault.help(format!("did you mean `{known}`?")),
        (None, None) => fault,
    }
    .note(note)
}

/// Where a key that is unknown in `path` would be known: in the same part of the file if it can be.
fn homes_for(name: &str, path: &str) -> Vec<String> {
    // What a role may have, its environment has.
    let all: Vec<String> = homes(name, &FILE, "").into_iter().filter(|home| home != path && !home.contains(".role.")).collect();
    let part = if path.starts_with("defaults") { "defaults" } else { "env.*" };
    let near: Vec<String> = all.iter().filter(|home| home.starts_with(part)).cloned().collect();
    let elsewhere = || all.into_iter().filter(|home| !home.starts_with("defaults")).take(1).collect();
    if near.is_empty() { elsewhere() } else { near }
}

/// The sections that have a key of this name.
fn homes(name: &str, section: &Section, path: &str) -> Vec<String> {
    let mut found: Vec<String> = section.key(name).map(|_| path.to_owned()).into_iter().collect();
    for key in section.keys {
        if let Some(inner) = key.shape.section() {
            found.extend(homes(name, inner, &join(path, key)));
        }
    }
    found
}

fn join(path: &str, key: &Key) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    let star = if matches!(key.shape, Shape::Sections(_)) { ".*" } else { "" };
    format!("{path}{dot}{}{star}", key.name)
}

fn check_value(entry: &mut Entry, shape: &Shape, path: &str) -> Result<(), Fault> {
    let name = entry.name.clone();
    let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
    if let Shape::Run(_) = shape
        && matches!(entry.node.value, Value::Text(_) | Value::List(_))
    {
        let run = Entry { name: "run".to_owned(), place: entry.place.clone(), node: entry.node.clone() };
        entry.node.value = Value::Table(Table { entries: vec![run] });
    }
    let whole = entry.place.clone();
    match (shape, &mut entry.node.value) {
        (Shape::Run(section) | Shape::Table(section), Value::Table(table)) => check(table, section, &inner),
        (Shape::Tables(section), Value::List(items)) => items.iter_mut().try_for_each(|item| match &mut item.value {
            Value::Table(table) => check(table, section, &inner),
            Value::Text(text) if text == "..." => Ok(()),
            _ => Err(wrong(&name, item, shape)),
        }),
        (Shape::Sections(section), Value::Table(table)) => table.entries.iter_mut().try_for_each(|entry| match &mut entry.node.value {
            Value::Table(table) => check(table, section, &format!("{inner}.*")),
            _ => Err(Fault::new(
                &whole,
                format!("`{}` in [{inner}] takes a table: `[{inner}.{}]`", entry.name, entry.name),
                entry.node.kind(),
            )),
        }),
        (Shape::Named(each), Value::Table(table)) => table.entries.iter_mut().try_for_each(|entry| check_value(entry, each, &inner)),
        _ => check_leaf(&name, &entry.node, shape),
    }
}

fn check_leaf(name: &str, node: &Node, shape: &Shape) -> Result<(), Fault> {
    if let Some(text) =
        std::iter::once(node).chain(node.list().unwrap_or_default()).find(|node| node.text().is_some_and(|text| text.contains('\0')))
    {
        return Err(Fault::new(&text.place, format!("`{name}` holds a NUL byte"), "no program takes it"));
    }
    let all_text = |items: &[Node]| items.iter().find(|item| item.text().is_none()).map_or(Ok(()), |item| Err(wrong(name, item, shape)));
    match (shape, &node.value) {
        (Shape::Whole(least, most), Value::Whole(number)) if (least..=most).contains(&number) => Ok(()),
        (Shape::Whole(least, most), Value::Whole(number)) => {
            let bound = if number < least { format!("at least {least}") } else { format!("at most {most}") };
            Err(Fault::new(&node.place, format!("`{name}` is {bound}"), format!("{number} is out of range")))
        }
        (Shape::Duration, Value::Text(text)) => {
            quantity::duration(text).map(|_| ()).map_err(|error| format_fault(name, node, shape, &error.to_string()))
        }
        (Shape::Size, Value::Text(text)) => {
            quantity::size(text).map(|_| ()).map_err(|error| format_fault(name, node, shape, &error.to_string()))
        }
        (Shape::Choice(choices), Value::Text(text)) if !choices.contains(&text.as_str()) => {
            let list: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
            let fault = Fault::new(&node.place, format!("`{name}` is one of {}", list.join(", ")), "none of them");
            Err(match closest(text, choices.iter().copied()) {
                Some(known) => fault.help(format!("did you mean `{known}`?")),
                None => fault,
            })
        }
        (Shape::Command, Value::Text(text)) if text.trim().is_empty() => {
            Err(Fault::new(&node.place, "the command is empty", "nothing to run"))
        }
        (Shape::Command, Value::List(items)) if items.is_empty() => Err(Fault::new(&node.place, "the command is empty", "nothing to run")),
        (Shape::Text | Shape::Choice(_) | Shape::Command, Value::Text(_)) | (Shape::Truth, Value::Truth(_)) => Ok(()),
        (Shape::Texts | Shape::Command, Value::List(items)) => all_text(items),
        (Shape::Share, _) => share(name, node, shape),
        (Shape::Shares, Value::List(items)) => {
            items.iter().try_for_each(|item| if item.text() == Some("...") { Ok(()) } else { share(name, item, shape) })
        }
        _ => Err(wrong(name, node, shape)),
    }
}

fn share(name: &str, node: &Node, shape: &Shape) -> Result<(), Fault> {
    match &node.value {
        Value::Whole(0..=100_000) => Ok(()),
        Value::Text(text) => {
            Amount::parse(text).map(|_| ()).ok_or_else(|| format_fault(name, node, shape, "neither hosts nor a percentage of them"))
        }
        Value::Whole(_) | Value::Truth(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => Err(wrong(name, node, shape)),
    }
}

fn format_fault(name: &str, node: &Node, shape: &Shape, why: &str) -> Fault {
    let (takes, example) = takes(node, shape);
    Fault::new(&node.place, format!("`{name}` takes {takes}: `{name} = {example}`"), why)
}

/// The value is of the wrong kind: says the right one, with an example that is made of what was written where that is possible.
fn wrong(name: &str, node: &Node, shape: &Shape) -> Fault {
    let (takes, example) = takes(node, shape);
    Fault::new(&node.place, format!("`{name}` takes {takes}: `{name} = {example}`"), format!("this is {}", node.kind()))
}

fn takes(node: &Node, shape: &Shape) -> (&'static str, String) {
    let (takes, example) = match shape {
        Shape::Text => ("a string", "\"…\""),
        Shape::Truth => ("`true` or `false`", "true"),
        Shape::Whole(..) => ("a whole number", "5"),
        Shape::Duration => ("a duration", "\"90s\""),
        Shape::Size => ("a size", "\"64MB\""),
        Shape::Choice(choices) => return ("a string", quoted(choices[0])),
        Shape::Texts => ("a list", "[\"…\"]"),
        Shape::Share => ("a number of hosts or a percentage of them", "\"10%\""),
        Shape::Shares => ("a list of numbers of hosts and percentages", "[\"1\", \"25%\", \"100%\"]"),
        Shape::Command => ("a command, as a list or a string", "[\"bin/build\", \"--offline\"]"),
        Shape::Run(_) => ("a command or a table", "{ run = [\"sudo\", \"systemctl\", \"restart\", \"app\"] }"),
        Shape::Table(section) => return ("a table", table_example(section)),
        Shape::Tables(section) => return ("a list of tables", format!("[{}]", table_example(section))),
        Shape::Named(Shape::Texts) => ("a table of lists", "{ web = [\"app1.example.net\"] }"),
        Shape::Named(_) | Shape::Sections(_) => ("a table", "{ NAME = \"value\" }"),
    };
    match (&node.value, shape) {
        (Value::Text(text), Shape::Texts) => (takes, format!("[{}]", quoted(text))),
        (Value::Whole(number), Shape::Text) => (takes, quoted(&number.to_string())),
        (Value::Whole(number), Shape::Duration) => (takes, quoted(&format!("{number}s"))),
        (Value::Text(text), Shape::Whole(..)) if text.parse::<u32>().is_ok() => (takes, text.clone()),
        (Value::Text(text), Shape::Truth) if text == "false" => (takes, text.clone()),
        (Value::Text(text), Shape::Duration) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            (takes, quoted(&format!("{text}s")))
        }
        _ => (takes, example.to_owned()),
    }
}

fn table_example(section: &Section) -> String {
    match section.noun {
        "a check" => "{ url = \"http://127.0.0.1:8080/healthz\" }".to_owned(),
        "a build" => "{ command = [\"bin/build\"] }".to_owned(),
        "an inventory" => "{ file = \"hosts.txt\" }".to_owned(),
        "a hook" => "{ on = \"before-activate\", where = \"once\", run = [\"bin/migrate\"] }".to_owned(),
        "a host" => "{ name = \"app1\", address = \"192.0.2.7\" }".to_owned(),
        _ => format!("{{ {} = … }}", section.keys[0].name),
    }
}
