//! Hosts as something other than `deploy.toml` lists them: held against the rules of the file, then joined with its own hosts.

use std::collections::{BTreeMap, HashMap};

use super::environment::{HostPath, SessionKind, Target};
use super::fault::Fault;
use super::hosts;
use super::node::{Node, Place, Value};

/// One host, or a range of them, in the words of its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// What `hosts` takes: also `user@app[01-03]:22`.
    pub name: String,
    pub address: Option<String>,
    pub user: Option<String>,
    pub port: Option<String>,
    pub root: Option<String>,
    pub roles: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// It is this machine.
    pub local: bool,
}

/// Says why what a source lists is not a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct ListedError {
    pub what: String,
    pub why: String,
}

impl From<Fault> for ListedError {
    fn from(fault: Fault) -> Self {
        Self { what: fault.what, why: fault.label }
    }
}

impl Listed {
    /// Checks everything, and gives the targets that the name stands for.
    pub fn targets(&self) -> Result<Vec<Target>, ListedError> {
        let place = Place::Default;
        let targets = hosts::parse(&Node { value: Value::Text(self.name.clone()), place: place.clone() })?;
        if let Some(address) = &self.address {
            hosts::check_address(address, &place)?;
            if targets.len() != 1 {
                let what = format!("`{address}` is the address of {} hosts", targets.len());
                return Err(ListedError { what, why: "one address is one host".to_owned() });
            }
        }
        if let Some(user) = &self.user {
            hosts::check_user(user, &place)?;
        }
        let port = self.port.as_deref().map(port).transpose()?;
        let root = self.root.as_deref().map(HostPath::new).transpose();
        let root = root.map_err(|error| ListedError { what: error.to_string(), why: "not a path on a host".to_owned() })?;
        self.roles.iter().try_for_each(|role| hosts::check_role(role, &place))?;
        for (name, value) in &self.labels {
            hosts::check_label(name, &place)?;
            hosts::check_label_value(value, &place)?;
        }
        let complete = |target: Target| Target {
            address: self.address.clone().unwrap_or(target.address),
            user: self.user.clone().or(target.user),
            port: port.or(target.port),
            roles: self.roles.clone(),
            labels: self.labels.clone(),
            session: if self.local { Some(SessionKind::Local) } else { target.session },
            root: root.clone(),
            cache: target.cache,
            name: target.name,
        };
        Ok(targets.into_iter().map(complete).collect())
    }
}

fn port(text: &str) -> Result<u16, ListedError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| ListedError { what: format!("`{text}` is not a port"), why: "a port is a number from 1 to 65535".to_owned() })
}

/// Adds hosts of another source to those of the file. For a host that both name, the file's settings win, and roles add up.
pub fn join(targets: &mut Vec<Target>, listed: Vec<Target>) {
    let known: HashMap<String, usize> = targets.iter().enumerate().map(|(index, target)| (target.name.clone(), index)).collect();
    for other in listed {
        match known.get(&other.name) {
            Some(index) => complete(&mut targets[*index], other),
            None => targets.push(other),
        }
    }
}

fn complete(target: &mut Target, other: Target) {
    // An address that is the name is what an entry without one has.
    if target.address == target.name {
        target.address = other.address;
    }
    target.user = target.user.take().or(other.user);
    target.port = target.port.or(other.port);
    target.session = target.session.or(other.session);
    target.root = target.root.take().or(other.root);
    target.cache = target.cache.take().or(other.cache);
    for role in other.roles {
        if !target.roles.contains(&role) {
            target.roles.push(role);
        }
    }
    for (name, value) in other.labels {
        target.labels.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        Listed { name: name.to_owned(), ..Listed::default() }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands where a source may say something or not")]
    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_range_is_several_targets_with_the_same_settings() {
        let host = Listed {
            user: some("deploy"),
            port: some("2222"),
            root: some("/srv/p/"),
            roles: vec!["web".to_owned()],
            labels: BTreeMap::from([("az".to_owned(), "a".to_owned())]),
            ..listed("app[01-02]")
        };
        let targets = host.targets().unwrap();
        assert_eq!(targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>(), ["app01", "app02"]);
        assert_eq!(targets[1].address, "app02");
        assert_eq!((targets[1].user.as_deref(), targets[1].port), (Some("deploy"), Some(2222)));
        assert_eq!(targets[1].root.as_ref().map(HostPath::as_str), Some("/srv/p"));
        assert_eq!((targets[1].roles.len(), targets[1].labels["az"].as_str()), (1, "a"));
    }

    #[test]
    fn every_text_is_held_against_the_rules_of_the_file() {
        let with = |host: Listed, why: &str| assert_eq!(host.targets().unwrap_err().to_string(), why);
        with(listed("-oProxyCommand=id"), "`-oProxyCommand=id` is not a host name: it starts with `-`");
        with(listed("app;id"), "`app;id` is not a host name: it holds `;`");
        with(listed(""), "`` is not a host name: it is empty");
        with(Listed { user: some("-l"), ..listed("a") }, "`-l` is not the name of a user or group: it starts with `-`");
        with(Listed { address: some("$(id)"), ..listed("a") }, "`$(id)` is not a host name or an address: it holds `$`");
        with(Listed { port: some("0"), ..listed("a") }, "`0` is not a port: a port is a number from 1 to 65535");
        with(Listed { port: some("+22"), ..listed("a") }, "`+22` is not a port: a port is a number from 1 to 65535");
        with(Listed { roles: vec!["a b".to_owned()], ..listed("a") }, "`a b` is not the name of a role: it holds a blank");
        with(
            Listed { labels: BTreeMap::from([("az".to_owned(), "a,b".to_owned())]), ..listed("a") },
            "`a,b` is not the value of a label: it holds `,`",
        );
        with(Listed { address: some("10.0.0.1"), ..listed("a[1-2]") }, "`10.0.0.1` is the address of 2 hosts: one address is one host");
        assert!(Listed { root: some("srv"), ..listed("a") }.targets().is_err());
    }

    #[test]
    fn the_file_wins_over_the_inventory_and_roles_add_up() {
        let mut targets = listed("app1").targets().unwrap();
        targets[0].user = some("root");
        targets[0].roles = vec!["web".to_owned()];
        targets[0].labels.insert("az".to_owned(), "a".to_owned());
        let other = Listed {
            address: some("10.0.0.1"),
            user: some("deploy"),
            roles: vec!["web".to_owned(), "first".to_owned()],
            labels: BTreeMap::from([("az".to_owned(), "b".to_owned()), ("rack".to_owned(), "7".to_owned())]),
            ..listed("app1")
        };
        let mut found = other.targets().unwrap();
        found.extend(listed("app2").targets().unwrap());
        join(&mut targets, found);
        assert_eq!(targets.len(), 2);
        assert_eq!((targets[0].address.as_str(), targets[0].user.as_deref()), ("10.0.0.1", Some("root")));
        assert_eq!(targets[0].roles, ["web", "first"]);
        assert_eq!((targets[0].labels["az"].as_str(), targets[0].labels["rack"].as_str()), ("a", "7"));
        assert_eq!(targets[1].name, "app2");
    }
}
