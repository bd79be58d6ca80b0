//! What `ansible-inventory --list` prints, and every dynamic inventory of Ansible: groups with hosts and children, and the variables of
//! hosts in `_meta`. Groups become roles.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Found, Next, Wrong, json};
use crate::config::closest;
use crate::config::listed::Listed;

/// What the document looks like, for hints.
pub(super) const EXPECTED: &str =
    r#"expected what `ansible-inventory --list` prints: `{ "_meta": { "hostvars": { … } }, "web": { "hosts": ["app01"] } }`"#;

/// The groups that every host is in, or would be: no roles.
const EVERYBODY: [&str; 2] = ["all", "ungrouped"];

/// A group as it is written: its own hosts, and the groups beneath it.
struct Group<'a> {
    hosts: Vec<&'a str>,
    children: Vec<&'a str>,
}

/// Reads the document. With `wanted` only the hosts of these groups, and of the groups beneath them, are taken.
pub(super) fn parse(text: &str, wanted: &[String]) -> Result<Vec<Found>, Wrong> {
    let document = json::document(text)?;
    let Some(document) = document.as_object() else { return Err(Wrong::new("", text, "it is not an object")) };
    let none = Map::new();
    let variables = document.get("_meta").and_then(|meta| meta.get("hostvars")).and_then(Value::as_object).unwrap_or(&none);
    let mut groups = BTreeMap::new();
    for (name, value) in document.iter().filter(|(name, _)| *name != "_meta") {
        groups.insert(name.as_str(), group(name, value)?);
    }
    // A list of the members of each group, through all that is beneath it.
    let members: BTreeMap<&str, Vec<&str>> = groups.keys().map(|name| (*name, members(name, &groups))).collect();
    let mut roles: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (group, hosts) in members.iter().filter(|(group, _)| is_role(group)) {
        for host in hosts {
            roles.entry(host).or_default().push((*group).to_owned());
        }
    }
    let mut seen = BTreeSet::new();
    chosen(&members, variables, wanted)?
        .into_iter()
        .filter(|host| seen.insert(*host))
        .map(|name| {
            let place = format!("host `{name}`");
            let host = host(name, variables.get(name), roles.get(name).cloned().unwrap_or_default());
            let host = host.map_err(|why| Wrong::new(&place, "", why))?;
            Ok(Found { place, said: String::new(), host })
        })
        .collect()
}

/// Reads one group: an object, or the bare list of hosts that old inventories print.
fn group<'a>(name: &str, value: &'a Value) -> Result<Group<'a>, Wrong> {
    let wrong = |why: &str| Wrong::new(format!("group `{name}`"), value.to_string(), why);
    let names = |value: Option<&'a Value>, what: &str| -> Result<Vec<&'a str>, Wrong> {
        let Some(value) = value else { return Ok(Vec::new()) };
        let items = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        items.ok_or_else(|| wrong(&format!("its {what} are not a list of names")))
    };
    match value {
        Value::Array(_) => Ok(Group { hosts: names(Some(value), "hosts")?, children: Vec::new() }),
        Value::Object(group) => {
            Ok(Group { hosts: names(group.get("hosts"), "hosts")?, children: names(group.get("children"), "children")? })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(wrong("it is no group")),
    }
}

/// Every host in a group and beneath it, each once. A group that is beneath itself is entered once.
fn members<'a>(name: &'a str, groups: &BTreeMap<&'a str, Group<'a>>) -> Vec<&'a str> {
    let (mut found, mut hosts, mut entered) = (Vec::new(), BTreeSet::new(), BTreeSet::from([name]));
    let mut waiting = vec![name];
    while let Some(group) = waiting.pop().and_then(|name| groups.get(name)) {
        found.extend(group.hosts.iter().copied().filter(|host| hosts.insert(*host)));
        waiting.extend(group.children.iter().rev().copied().filter(|child| groups.contains_key(child) && entered.insert(child)));
    }
    found
}

/// The hosts that are meant, in the order of the groups; a host may come twice.
fn chosen<'a>(members: &BTreeMap<&str, Vec<&'a str>>, variables: &'a Map<String, Value>, wanted: &[String]) -> Result<Vec<&'a str>, Wrong> {
    if wanted.is_empty() {
        let with_variables = variables.keys().map(String::as_str);
        return Ok(members.values().flatten().copied().chain(with_variables).collect());
    }
    let mut chosen = Vec::new();
    for group in wanted {
        let Some(hosts) = members.get(group.as_str()) else {
            let known: Vec<&str> = members.keys().copied().filter(|name| is_role(name)).collect();
            let next = match closest(group, known.iter().copied()) {
                Some(meant) => Next::Hint(format!("did you mean `{meant}`?")),
                None if known.is_empty() => Next::Format,
                None => Next::Hint(format!("its groups are `{}`", known.iter().take(20).copied().collect::<Vec<_>>().join("`, `"))),
            };
            return Err(Wrong::new("", "", format!("it has no group `{group}`")).next(next));
        };
        if hosts.is_empty() {
            return Err(Wrong::new("", "", format!("it has no host in its group `{group}`")).next(Next::Clear));
        }
        chosen.extend(hosts.iter().copied());
    }
    Ok(chosen)
}

/// Names that cannot be typed after `@` are no roles: cloud inventories make groups of anything.
fn is_role(group: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    !EVERYBODY.contains(&group) && !group.is_empty() && !group.starts_with('-') && group.len() <= 253 && group.chars().all(plain)
}

/// A host with what Ansible's connection variables say, the newer name before the older.
fn host(name: &str, variables: Option<&Value>, roles: Vec<String>) -> Result<Listed, String> {
    let variable = |names: [&str; 2]| -> Result<Option<String>, String> {
        let found = names.iter().find_map(|name| variables.and_then(|variables| variables.get(name)).map(|value| (*name, value)));
        match found {
            None | Some((_, Value::Null)) => Ok(None),
            Some((variable, Value::String(text))) if text.contains("{{") => {
                Err(format!("`{variable}` is a template, which `ansible-inventory` leaves as it is: `{text}`"))
            }
            Some((_, Value::String(text))) => Ok(Some(text.clone())),
            Some((_, Value::Number(number))) => Ok(Some(number.to_string())),
            Some((variable, Value::Bool(_) | Value::Array(_) | Value::Object(_))) => Err(format!("`{variable}` is not a text")),
        }
    };
    let connection = variables.and_then(|variables| variables.get("ansible_connection")).and_then(Value::as_str);
    Ok(Listed {
        name: name.to_owned(),
        address: variable(["ansible_host", "ansible_ssh_host"])?,
        user: variable(["ansible_user", "ansible_ssh_user"])?,
        port: variable(["ansible_port", "ansible_ssh_port"])?,
        root: None,
        roles,
        labels: BTreeMap::new(),
        local: connection == Some("local"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `ansible-inventory --list` of ansible-core prints an inventory with groups in groups.
    const LIST: &str = r#"{
    "_meta": {
        "hostvars": {
            "app01": { "ansible_host": "10.0.0.1", "ansible_port": 2222, "ansible_user": "deploy", "http_port": 8080 },
            "app02": { "ansible_ssh_host": "10.0.0.2", "ansible_ssh_port": "22" },
            "here": { "ansible_connection": "local" }
        }
    },
    "all": { "children": ["ungrouped", "site"] },
    "db": { "hosts": ["db1"] },
    "site": { "children": ["web", "db"] },
    "tag:odd": { "hosts": ["db1"] },
    "ungrouped": { "hosts": ["here"] },
    "web": { "hosts": ["app01", "app02"] }
}"#;

    fn hosts(text: &str, groups: &[&str]) -> Result<Vec<Listed>, String> {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let found = parse(text, &groups).map_err(|wrong| {
            format!("{}: {} {}", wrong.place, wrong.why, if let Next::Hint(hint) = wrong.next { hint } else { String::new() })
        })?;
        Ok(found.into_iter().map(|found| found.host).collect())
    }

    #[test]
    fn groups_become_roles_through_their_children_and_variables_say_how_to_connect() {
        let all = hosts(LIST, &[]).unwrap();
        let of = |name: &str| all.iter().find(|host| host.name == name).unwrap();
        assert_eq!(all.len(), 4);
        let app01 = of("app01");
        assert_eq!(
            (app01.address.as_deref(), app01.user.as_deref(), app01.port.as_deref()),
            (Some("10.0.0.1"), Some("deploy"), Some("2222"))
        );
        assert_eq!(app01.roles, ["site", "web"]);
        assert_eq!((of("app02").address.as_deref(), of("app02").port.as_deref()), (Some("10.0.0.2"), Some("22")));
        assert_eq!(of("db1").roles, ["db", "site"]);
        assert_eq!((of("here").local, of("here").roles.len()), (true, 0));
        assert!(app01.labels.is_empty(), "variables may be secrets, and labels are shown");
    }

    #[test]
    fn only_the_hosts_of_the_wanted_groups_are_taken() {
        let names =
            |groups: &[&str]| hosts(LIST, groups).map(|hosts| hosts.into_iter().map(|host| host.name).collect::<Vec<_>>().join(" "));
        assert_eq!(names(&["web"]), Ok("app01 app02".to_owned()));
        assert_eq!(names(&["site", "web"]), Ok("app01 app02 db1".to_owned()));
        assert_eq!(names(&["all"]), Ok("here app01 app02 db1".to_owned()));
        assert_eq!(names(&["wbe"]), Err(": it has no group `wbe` did you mean `web`?".to_owned()));
        assert_eq!(names(&["zzzz"]), Err(": it has no group `zzzz` its groups are `db`, `site`, `web`".to_owned()));
    }

    #[test]
    fn old_inventories_and_circles_are_read_too() {
        let names = |text: &str| hosts(text, &[]).map(|hosts| hosts.into_iter().map(|host| host.name).collect::<Vec<_>>());
        assert_eq!(names(r#"{"web": ["app01", "app02"]}"#).unwrap(), ["app01", "app02"]);
        assert_eq!(names(r#"{"a": {"children": ["b"], "hosts": ["x"]}, "b": {"children": ["a"]}}"#).unwrap(), ["x"]);
        assert_eq!(names(r#"{"a": {"children": ["nobody"]}}"#).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_used_says_of_which_host_or_group() {
        let why = |text: &str| hosts(text, &[]).unwrap_err();
        assert_eq!(why("[]").trim(), ": it is not an object");
        assert_eq!(why(r#"{"web": 7}"#).trim(), "group `web`: it is no group");
        assert_eq!(why(r#"{"web": {"hosts": {"app01": {}}}}"#).trim(), "group `web`: its hosts are not a list of names");
        let template = r#"{"_meta": {"hostvars": {"a": {"ansible_host": "{{ ip }}"}}}}"#;
        assert_eq!(why(template).trim(), "host `a`: `ansible_host` is a template, which `ansible-inventory` leaves as it is: `{{ ip }}`");
        let vault = r#"{"_meta": {"hostvars": {"a": {"ansible_user": {"__ansible_vault": "…"}}}}}"#;
        assert_eq!(why(vault).trim(), "host `a`: `ansible_user` is not a text");
    }
}
