//! The JSON format: a list of names and of objects with the keys of `[[env.NAME.host]]`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Found, Wrong};
use crate::config::listed::Listed;

/// What the document looks like, for hints.
pub(super) const EXPECTED: &str =
    r#"expected a list: `["app01", { "name": "app02", "address": "10.0.0.7", "roles": ["web"], "labels": { "az": "a" } }]`"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    name: String,
    address: Option<String>,
    user: Option<String>,
    port: Option<u16>,
    root: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Reads the list.
pub(super) fn parse(text: &str) -> Result<Vec<Found>, Wrong> {
    let hosts = match document(text)? {
        Value::Array(hosts) => hosts,
        Value::Object(_) => return Err(Wrong::new("", "", "it is an object and not a list")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(Wrong::new("", text, "it is not a list")),
    };
    hosts.into_iter().enumerate().map(|(index, value)| found(index, value)).collect()
}

/// Reads the whole text as JSON; what is none is shown by its line.
pub(super) fn document(text: &str) -> Result<Value, Wrong> {
    serde_json::from_str(text).map_err(|error| {
        let number = error.line().max(1);
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let message = error.to_string();
        let why = message.split(" at line ").next().unwrap_or(&message);
        Wrong::new(format!("line {number}"), line, format!("it is not JSON: {why}"))
    })
}

fn found(index: usize, value: Value) -> Result<Found, Wrong> {
    let place = format!("host {}", index + 1);
    let said = value.to_string();
    let host = match value {
        Value::String(name) => Listed { name, ..Listed::default() },
        other => {
            let host: Host = serde_json::from_value(other).map_err(|error| Wrong::new(&place, &said, error.to_string()))?;
            Listed {
                name: host.name,
                address: host.address,
                user: host.user,
                port: host.port.map(|port| port.to_string()),
                root: host.root,
                roles: host.roles,
                labels: host.labels,
                local: false,
            }
        }
    };
    Ok(Found { place, said, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_objects_may_be_mixed() {
        let found = parse(r#"["app[01-02]", {"name": "db", "address": "10.0.0.9", "port": 2222, "roles": ["db"], "labels": {"az": "b"}}]"#)
            .unwrap();
        assert_eq!(found[0].host, Listed { name: "app[01-02]".to_owned(), ..Listed::default() });
        let db = &found[1].host;
        assert_eq!((db.name.as_str(), db.address.as_deref(), db.port.as_deref()), ("db", Some("10.0.0.9"), Some("2222")));
        assert_eq!((db.roles[0].as_str(), db.labels["az"].as_str()), ("db", "b"));
    }

    #[test]
    fn what_is_no_list_of_hosts_says_where_and_why() {
        let why = |text: &str| parse(text).map_err(|wrong| format!("{}: {}", wrong.place, wrong.why)).unwrap_err();
        assert_eq!(why("<html>\n"), "line 1: it is not JSON: expected value");
        assert_eq!(why("[\"a\",\n\"b\""), "line 2: it is not JSON: EOF while parsing a list");
        assert_eq!(why("{\"web\": []}"), ": it is an object and not a list");
        assert_eq!(why("[\"a\", {\"name\": \"b\", \"prot\": 22}]").split(", expected").next().unwrap(), "host 2: unknown field `prot`");
        assert_eq!(why("[{\"address\": \"b\"}]"), "host 1: missing field `name`");
        assert_eq!(why("[7]").split(", expected").next().unwrap(), "host 1: invalid type: integer `7`");
        assert_eq!(why(&"[".repeat(100_000)), "line 1: it is not JSON: recursion limit exceeded");
    }
}
