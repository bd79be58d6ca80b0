//! The hosts of an environment: strings with ranges, tables, and roles, turned into targets with names of their own.

use std::collections::BTreeMap;

use super::environment::{HostPath, SessionKind, Target};
use super::fault::{Fault, Text};
use super::node::{Node, Place, Table, Value};
use super::ranges;

/// The name that means this machine.
pub const LOCAL: &str = "local";

/// Everything that `hosts`, `host` and `roles` say. `here` is the environment's own place, for what is missing.
pub fn targets(table: &Table, name: &str, here: &Place, text: &Text) -> Result<Vec<Target>, Fault> {
    let mut targets: Vec<(Target, Place)> = Vec::new();
    for item in list(table, "hosts") {
        for target in parse(item)? {
            add(&mut targets, target, &item.place)?;
        }
    }
    for item in list(table, "host") {
        if let Value::Table(host) = &item.value {
            let target = from_table(host, &item.place)?;
            add(&mut targets, target, &item.place)?;
        }
    }
    for role in table.table("roles").map(|roles| &roles.entries[..]).unwrap_or_default() {
        check_role(&role.name, &role.place)?;
        for item in role.node.list().unwrap_or_default() {
            for target in parse(item)? {
                give_role(&mut targets, target, &role.name, &item.place)?;
            }
        }
    }
    if targets.is_empty() && table.at("inventory").is_none() {
        let place = table.at("hosts").or_else(|| table.at("roles")).map_or(here, |node| &node.place);
        let fault = Fault::new(place, format!("environment `{name}` has no hosts"), "add your hosts here").code("no-hosts");
        return Err(fault.help(format!("write `hosts = [\"app[01-03].example.net\"]` in [env.{name}] of `{}`", text.name)));
    }
    Ok(targets.into_iter().map(|(target, _)| target).collect())
}

fn list<'a>(table: &'a Table, name: &str) -> &'a [Node] {
    table.at(name).and_then(Node::list).unwrap_or_default()
}

fn add(targets: &mut Vec<(Target, Place)>, target: Target, place: &Place) -> Result<(), Fault> {
    match targets.iter().find(|(known, _)| known.name == target.name) {
        Some((_, first)) => {
            let fault = Fault::new(place, format!("two hosts are called `{}`", target.name), "the second");
            let fault = if first == place { fault } else { fault.also(first, "the first") };
            Err(fault.help("remove one, or give them names of their own: `host = [{ name = \"app1\", address = \"…\" }]`"))
        }
        None => push(targets, target, place),
    }
}

/// The bound of one range holds for all of them together.
fn push(targets: &mut Vec<(Target, Place)>, target: Target, place: &Place) -> Result<(), Fault> {
    if targets.len() == ranges::MOST {
        return Err(Fault::new(place, format!("the environment has more than {} hosts", ranges::MOST), "one too many"));
    }
    targets.push((target, place.clone()));
    Ok(())
}

/// A host that is listed already gets the role; another one is a host of the environment by having it.
fn give_role(targets: &mut Vec<(Target, Place)>, target: Target, role: &str, place: &Place) -> Result<(), Fault> {
    let Some((known, _)) = targets.iter_mut().find(|(known, _)| known.name == target.name) else {
        return push(targets, Target { roles: vec![role.to_owned()], ..target }, place);
    };
    let says_other = |said: bool, same: bool| said && !same;
    if says_other(target.user.is_some(), target.user == known.user) || says_other(target.port.is_some(), target.port == known.port) {
        return Err(Fault::new(
            place,
            format!("`{}` has another user or port here than above", target.name),
            "the same host, reached otherwise",
        ));
    }
    if !known.roles.iter().any(|has| has == role) {
        known.roles.push(role.to_owned());
    }
    Ok(())
}

/// Reads `user@host:port`, with ranges.
pub(super) fn parse(item: &Node) -> Result<Vec<Target>, Fault> {
    let text = item.text().unwrap_or_default();
    let names = ranges::expand(text).map_err(|error| {
        let fault = Fault::new(&item.place, format!("`{text}` is not a range of hosts"), error.to_string());
        let help = if text.starts_with('[') && text.matches(':').count() > 1 {
            "an IPv6 address needs a table: `host = [{ name = \"app1\", address = \"2001:db8::1\" }]`"
        } else {
            "ranges look like `app[01-12].example.net`"
        };
        fault.help(help)
    })?;
    names.iter().map(|name| parse_one(name, &item.place)).collect()
}

fn parse_one(text: &str, place: &Place) -> Result<Target, Fault> {
    let (user, rest) = text.rsplit_once('@').map_or((None, text), |(user, rest)| (Some(user), rest));
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    check_name(host, place)?;
    if let Some(user) = user {
        check_user(user, place)?;
    }
    let port = port.map(|port| parse_port(port, text, place)).transpose()?;
    if host == LOCAL && (user.is_some() || port.is_some()) {
        return Err(Fault::new(place, "`local` is this machine and has neither user nor port", "write `local`"));
    }
    Ok(Target {
        name: host.to_owned(),
        address: host.to_owned(),
        user: user.map(str::to_owned),
        port,
        roles: Vec::new(),
        labels: BTreeMap::new(),
        session: (host == LOCAL).then_some(SessionKind::Local),
        root: None,
        cache: None,
    })
}

fn parse_port(port: &str, text: &str, place: &Place) -> Result<u16, Fault> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port > 0).ok_or_else(|| {
        let fault = Fault::new(place, format!("`{text}` has no port from 1 to 65535 after its colon"), "expected `host:22`");
        if text.matches(':').count() > 1 {
            fault.help("an IPv6 address needs a table: `host = [{ name = \"app1\", address = \"2001:db8::1\" }]`")
        } else {
            fault
        }
    })
}

fn from_table(host: &Table, place: &Place) -> Result<Target, Fault> {
    let text = |name: &str| host.at(name).and_then(|node| node.text().map(|text| (text, &node.place)));
    let Some((name, at)) = text("name") else {
        return Err(Fault::new(place, "a host has no `name`", "what people see and select").help("add `name = \"app1\"`"));
    };
    check_name(name, at)?;
    let address = text("address");
    if let Some((address, at)) = address {
        check_address(address, at)?;
    }
    if let Some((user, at)) = text("user") {
        check_user(user, at)?;
    }
    let port = host.at("port").and_then(|node| if let Value::Whole(port) = node.value { u16::try_from(port).ok() } else { None });
    let mut roles = Vec::new();
    for item in list(host, "roles") {
        let role = item.text().unwrap_or_default();
        check_role(role, &item.place)?;
        roles.push(role.to_owned());
    }
    let mut labels = BTreeMap::new();
    for label in host.table("labels").map(|labels| &labels.entries[..]).unwrap_or_default() {
        let value = label.node.text().unwrap_or_default();
        check_label(&label.name, &label.place)?;
        check_label_value(value, &label.node.place)?;
        labels.insert(label.name.clone(), value.to_owned());
    }
    let path = |name: &str| {
        text(name)
            .map(|(path, at)| {
                HostPath::new(path).map_err(|error| Fault::new(at, error.to_string(), "not a path on a host").code("bad-path"))
            })
            .transpose()
    };
    let session = text("session").and_then(|(session, _)| session_kind(session)).or((name == LOCAL).then_some(SessionKind::Local));
    Ok(Target {
        name: name.to_owned(),
        address: address.map_or(name, |(address, _)| address).to_owned(),
        user: text("user").map(|(user, _)| user.to_owned()),
        port,
        roles,
        labels,
        session,
        root: path("root")?,
        cache: path("cache")?,
    })
}

/// Reads the name of a session; `auto` is none.
#[must_use]
pub fn session_kind(text: &str) -> Option<SessionKind> {
    match text {
        "ssh2" => Some(SessionKind::Ssh2),
        "openssh" => Some(SessionKind::Openssh),
        "local" => Some(SessionKind::Local),
        _ => None,
    }
}

/// A name goes to ssh as an argument, into file names and onto screens: only letters that mean nothing there.
fn check_name(name: &str, place: &Place) -> Result<(), Fault> {
    checked(name, place, "a host name", |c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

pub(super) fn check_address(address: &str, place: &Place) -> Result<(), Fault> {
    checked(address, place, "a host name or an address", |c| c.is_ascii_alphanumeric() || "._-:%".contains(c))
}

/// Checks the name of a user or a group.
pub fn check_user(user: &str, place: &Place) -> Result<(), Fault> {
    checked(user, place, "the name of a user or group", |c| c.is_ascii_alphanumeric() || "._-+@\\".contains(c))
}

pub(super) fn check_role(role: &str, place: &Place) -> Result<(), Fault> {
    checked(role, place, "the name of a role", |c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

pub(super) fn check_label(name: &str, place: &Place) -> Result<(), Fault> {
    checked(name, place, "the name of a label", |c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// A value is typed after `-H`, where a comma, a bracket and a glob mean something.
pub(super) fn check_label_value(value: &str, place: &Place) -> Result<(), Fault> {
    checked(value, place, "the value of a label", |c| c.is_ascii_alphanumeric() || "._-+:/@%=".contains(c))
}

fn checked(text: &str, place: &Place, noun: &str, plain: impl Fn(char) -> bool) -> Result<(), Fault> {
    let why = match text.chars().find(|c| !plain(*c)) {
        _ if text.is_empty() => "it is empty".to_owned(),
        _ if text.starts_with('-') => "it starts with `-`".to_owned(),
        _ if text.len() > 253 => "it is longer than 253 letters".to_owned(),
        Some(' ') => "it holds a blank".to_owned(),
        Some(c) => format!("it holds `{c}`"),
        None => return Ok(()),
    };
    Err(Fault::new(place, format!("`{text}` is not {noun}"), why).code("bad-name"))
}
