//! From the complete table of an environment to the typed one: paths, placeholders, commands and what must fit together.

mod commands;
mod hooks;
mod index;
mod inventory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::{Cache, Connect, Environment, FillNetwork, HostKeys, HostPath, OnFailure, OnUnreachable, Shared, Source, Target};
use super::fault::{Fault, Text, closest};
use super::hosts::{check_user, session_kind, targets};
use super::node::{Node, Place, Table, Value};
use super::placeholders::{self, PlaceholderError};
use super::quantity::{self, Amount};
use crate::tree::TreePath;
use crate::window::{Window, WindowError};

/// What the values of one environment are read from.
pub struct Reader<'a> {
    pub project: &'a str,
    pub name: &'a str,
    /// The environment's key in the file: where a missing setting is missing.
    pub here: &'a Place,
    pub table: &'a Table,
    pub text: &'a Text,
    pub directory: &'a Path,
}

impl Reader<'_> {
    /// Resolves everything.
    pub fn environment(&self) -> Result<Environment, Fault> {
        let root = self.root()?;
        let cache = self.cache(&root)?;
        let shared = self.shared(cache.as_ref())?;
        let build = self.build(&root, cache.as_ref())?;
        let activate = self.activate()?;
        let check = self.check()?;
        let hooks = self.hooks(build.is_some())?;
        let confirm_within = self.confirm_within(activate.as_ref(), check.as_ref(), &hooks)?;
        Ok(Environment {
            project: self.project.to_owned(),
            name: self.name.to_owned(),
            source: self.source()?,
            targets: self.targets()?,
            inventory: self.inventory()?,
            root,
            rev: self.rev()?,
            only_from: self.only_from()?,
            protected: self.truth(&["protected"]),
            keep_releases: self.number(&["keep-releases"])?,
            group: self.user(&["group"])?,
            shared,
            cache,
            build,
            activate,
            check,
            confirm_within,
            hooks,
            by_role: Vec::new(),
            waves: self.waves()?,
            on_failure: self.choice(
                &["on-failure"],
                &[("rollback", OnFailure::Rollback), ("stop", OnFailure::Stop), ("continue", OnFailure::Continue)],
            )?,
            on_unreachable: self.choice(&["on-unreachable"], &[("fail", OnUnreachable::Fail), ("skip", OnUnreachable::Skip)])?,
            max_failures: self.amount(&["max-failures"])?,
            min_healthy: self.amount(&["min-healthy"])?,
            pause: self.duration(&["pause"])?,
            left_out: Vec::new(),
            given: String::new(),
            parallel: self.number(&["parallel"])?,
            windows: self.windows()?,
            connect: self.connect()?,
            upstreams: self.upstreams()?,
            directory: self.directory.to_owned(),
        })
    }

    fn find(&self, path: &[&str]) -> Option<&Node> {
        self.table.find(path)
    }

    fn needed(&self, path: &[&str]) -> Result<&Node, Fault> {
        let missing = || Fault::new(self.here, format!("environment `{}` has no `{}`", self.name, path.join(".")), "needs it");
        self.find(path).ok_or_else(missing)
    }

    fn text(&self, path: &[&str]) -> Option<(&str, &Place)> {
        self.find(path).and_then(|node| node.text().map(|text| (text, &node.place)))
    }

    fn truth(&self, path: &[&str]) -> bool {
        self.find(path).is_some_and(|node| matches!(node.value, Value::Truth(true)))
    }

    fn number<T: TryFrom<i64>>(&self, path: &[&str]) -> Result<T, Fault> {
        let node = self.needed(path)?;
        let number = if let Value::Whole(number) = node.value { T::try_from(number).ok() } else { None };
        number.ok_or_else(|| Fault::new(&node.place, format!("`{}` is out of range", path.join(".")), node.kind()))
    }

    fn duration(&self, path: &[&str]) -> Result<Duration, Fault> {
        let node = self.needed(path)?;
        quantity::duration(node.text().unwrap_or_default())
            .map_err(|error| Fault::new(&node.place, format!("`{}` is not a duration", path.join(".")), error.to_string()))
    }

    /// A duration after which something ends: never zero, because everything must end.
    fn limit(&self, path: &[&str]) -> Result<Duration, Fault> {
        let limit = self.duration(path)?;
        let fault = |node: &Node| Fault::new(&node.place, format!("`{}` is zero", path.join(".")), "what may take no time cannot succeed");
        if limit.is_zero() { Err(fault(self.needed(path)?)) } else { Ok(limit) }
    }

    fn amount(&self, path: &[&str]) -> Result<Amount, Fault> {
        let node = self.needed(path)?;
        let fault = || Fault::new(&node.place, format!("`{}` is no number of hosts", path.join(".")), node.kind());
        Amount::parse(&share_text(node)).ok_or_else(fault)
    }

    fn choice<T: Copy>(&self, path: &[&str], choices: &[(&str, T)]) -> Result<T, Fault> {
        let node = self.needed(path)?;
        let chosen = choices.iter().find(|(name, _)| node.text() == Some(*name)).map(|(_, value)| *value);
        chosen.ok_or_else(|| Fault::new(&node.place, format!("`{}` is none of its choices", path.join(".")), node.kind()))
    }

    fn list(&self, path: &[&str]) -> &[Node] {
        self.find(path).and_then(Node::list).unwrap_or_default()
    }

    fn user(&self, path: &[&str]) -> Result<Option<String>, Fault> {
        let Some((user, place)) = self.text(path) else { return Ok(None) };
        check_user(user, place)?;
        Ok(Some(user.to_owned()))
    }

    fn source(&self) -> Result<Source, Fault> {
        let git = self.needed(&["source", "git"])?;
        let text = git.text().unwrap_or_default();
        if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
            let fault = Fault::new(&git.place, format!("`{text}` is not a repository"), "a path or a URL");
            return Err(fault.help("write `git = \".\"` for the repository that `deploy.toml` is in"));
        }
        let path = self.find(&["source", "path"]).map(|node| self.tree_path(node)).transpose()?;
        Ok(Source { git: text.to_owned(), path, submodules: self.truth(&["source", "submodules"]), lfs: self.truth(&["source", "lfs"]) })
    }

    fn rev(&self) -> Result<Option<String>, Fault> {
        match self.text(&["rev"]) {
            Some((text, place)) if text.trim().is_empty() => Err(Fault::new(place, "`rev` is empty", "a branch, a tag or a commit")),
            other => Ok(other.map(|(text, _)| text.to_owned())),
        }
    }

    /// The environment that must have confirmed what is deployed here; that it exists was checked with the file.
    fn only_from(&self) -> Result<Option<String>, Fault> {
        match self.text(&["only-from"]) {
            Some((name, place)) if name == self.name => {
                let fault = Fault::new(place, format!("`only-from` of `{name}` names `{name}` itself"), "needs another environment");
                Err(fault.help("where it is inherited, add `unset = [\"only-from\"]`"))
            }
            other => Ok(other.map(|(name, _)| name.to_owned())),
        }
    }

    fn root(&self) -> Result<HostPath, Fault> {
        let Some(node) = self.find(&["root"]) else {
            let fault =
                Fault::new(self.here, format!("environment `{}` has no `root`", self.name), "needs the directory that releases live in");
            return Err(fault.help(format!("add `root = \"/srv/{}\"` here or in [defaults]", self.project)));
        };
        self.host_path(node, None)
    }

    /// A path on a host. What differs from host to host or from run to run cannot be part of it.
    fn host_path(&self, node: &Node, root: Option<&HostPath>) -> Result<HostPath, Fault> {
        let (current, shared) = (root.map(|root| format!("{root}/current")), root.map(|root| format!("{root}/shared")));
        let text = self.expanded(node, |name| match name {
            "env" => Some(self.name),
            "root" => root.map(HostPath::as_str),
            "current" => current.as_deref(),
            "shared" => shared.as_deref(),
            _ => None,
        })?;
        HostPath::new(&text).map_err(|error| Fault::new(&node.place, error.to_string(), "not a path on a host").code("bad-path"))
    }

    /// A path in a release.
    fn tree_path(&self, node: &Node) -> Result<TreePath, Fault> {
        let text = self.expanded(node, |name| (name == "env").then_some(self.name))?;
        let trimmed = text.strip_suffix('/').unwrap_or(&text);
        TreePath::new(trimmed)
            .map_err(|error| Fault::new(&node.place, format!("`{text}` is not a path in a release"), error.to_string()).code("bad-path"))
    }

    fn expanded<'v>(&self, node: &Node, lookup: impl Fn(&str) -> Option<&'v str>) -> Result<String, Fault> {
        let text = node.text().unwrap_or_default();
        placeholders::expand_with(text, lookup).map_err(|error| match &error {
            PlaceholderError::Unknown(name) if placeholders::NAMES.contains(&name.as_str()) => {
                let place = self.text.within(&node.place, &format!("{{{name}}}"));
                Fault::new(&place, format!("`{{{name}}}` cannot be used here"), "not the same for every host and run").code("placeholder")
            }
            PlaceholderError::Unknown(_) | PlaceholderError::Open | PlaceholderError::Close => self.placeholder_fault(node, &error),
        })
    }

    fn placeholder_fault(&self, node: &Node, error: &PlaceholderError) -> Fault {
        let (part, label) = match error {
            PlaceholderError::Unknown(name) => (format!("{{{name}}}"), "no such placeholder"),
            PlaceholderError::Open => ("{".to_owned(), "write `{{` for the brace itself"),
            PlaceholderError::Close => ("}".to_owned(), "write `}}` for the brace itself"),
        };
        let fault = Fault::new(&self.text.within(&node.place, &part), error.to_string(), label).code("placeholder");
        let PlaceholderError::Unknown(name) = error else { return fault };
        let fault = match closest(name, placeholders::NAMES) {
            Some(known) => fault.help(format!("did you mean `{{{known}}}`?")),
            None => fault.help("write `{{` and `}}` for the braces themselves"),
        };
        fault.note(format!("placeholders are {}", placeholders::NAMES.map(|name| format!("`{{{name}}}`")).join(" ")))
    }

    fn targets(&self) -> Result<Vec<Target>, Fault> {
        targets(self.table, self.name, self.here, self.text)
    }

    fn cache(&self, root: &HostPath) -> Result<Option<Cache>, Fault> {
        let link = self.needed(&["cache", "link"])?;
        if let Some(path) = self.find(&["cache", "path"]) {
            let network = self.choice(&["cache", "network"], &[("index", FillNetwork::Index), ("host", FillNetwork::Host)])?;
            return Ok(Some(Cache {
                path: self.host_path(path, Some(root))?,
                link: self.tree_path(link)?,
                fill: self.find(&["cache", "fill"]).map(|node| self.fill_command(node, network == FillNetwork::Index)).transpose()?,
                env: self.variables(&["cache", "env"])?,
                network,
            }));
        }
        let said = ["link", "fill", "env", "network"].into_iter().filter_map(|name| Some((name, self.find(&["cache", name])?)));
        match said.into_iter().find(|(_, node)| node.place != Place::Default) {
            None => Ok(None),
            Some((name, node)) => Err(Fault::new(&node.place, format!("`cache.{name}` needs `cache.path`"), "of no cache")
                .help("add `path = \"/srv/download-cache\"` to the same section")),
        }
    }

    fn shared(&self, cache: Option<&Cache>) -> Result<Shared, Fault> {
        let directories = self.tree_paths(&["shared", "dirs"])?;
        let files = self.tree_paths(&["shared", "files"])?;
        let all: Vec<&(TreePath, Place)> = directories.iter().chain(&files).collect();
        for (index, (path, place)) in all.iter().enumerate() {
            if let Some((other, first)) = all[..index].iter().find(|(other, _)| overlap(path, other)) {
                let what = if path == other {
                    format!("`{path}` is shared twice")
                } else {
                    format!("the shared paths `{path}` and `{other}` lie in each other")
                };
                return Err(Fault::new(place, what, "one link cannot lie behind another")
                    .also(first, "the other")
                    .help("share the outer one only"));
            }
            if let Some(cache) = cache.filter(|cache| overlap(path, &cache.link)) {
                let fault = Fault::new(
                    place,
                    format!("`{path}` is shared and is in the way of `cache.link`"),
                    format!("the cache is linked at `{}`", cache.link),
                );
                return Err(fault.help("remove it from `shared`, or link the cache elsewhere"));
            }
        }
        let paths = |list: Vec<(TreePath, Place)>| list.into_iter().map(|(path, _)| path).collect();
        Ok(Shared { directories: paths(directories), files: paths(files), replace: self.truth(&["shared", "replace"]) })
    }

    fn tree_paths(&self, path: &[&str]) -> Result<Vec<(TreePath, Place)>, Fault> {
        self.list(path).iter().map(|node| Ok((self.tree_path(node)?, node.place.clone()))).collect()
    }

    /// Sizes must grow, and what is left comes last.
    fn waves(&self) -> Result<Vec<Amount>, Fault> {
        let mut waves: Vec<Amount> = Vec::new();
        for item in self.list(&["waves"]) {
            let grows = |wave: &Amount| {
                let before = waves.iter().rev().find_map(|before| match (before, wave) {
                    (Amount::Hosts(before), Amount::Hosts(_)) | (Amount::Percent(before), Amount::Percent(_)) => Some(*before),
                    (Amount::Hosts(_), Amount::Percent(_)) | (Amount::Percent(_), Amount::Hosts(_)) => None,
                });
                let (Amount::Hosts(number) | Amount::Percent(number)) = *wave;
                number > before.unwrap_or(0)
            };
            let Some(wave) = Amount::parse(&share_text(item)).filter(grows) else {
                let fault =
                    Fault::new(&item.place, "every wave is larger than the one before: its size counts all hosts so far", "not larger");
                return Err(fault.help("write `waves = [\"1\", \"25%\", \"100%\"]`"));
            };
            waves.push(wave);
        }
        let all = Amount::Percent(100);
        if waves.last() != Some(&all) {
            waves.push(all);
        }
        Ok(waves)
    }

    fn windows(&self) -> Result<Vec<Window>, Fault> {
        let parse = |node: &Node| {
            let text = node.text().unwrap_or_default();
            text.parse().map_err(|error: WindowError| {
                Fault::new(&node.place, format!("`{text}` is not a deploy window"), error.to_string())
                    .help("write `window = [\"mon-thu 09:00-16:00 Europe/Berlin\"]`")
            })
        };
        self.list(&["window"]).iter().map(parse).collect()
    }

    fn connect(&self) -> Result<Connect, Fault> {
        Ok(Connect {
            session: self.text(&["ssh", "session"]).and_then(|(session, _)| session_kind(session)),
            user: self.user(&["user"])?,
            port: self.find(&["port"]).map(|_| self.number(&["port"])).transpose()?,
            identities: self.local_paths(&["ssh", "identities"])?,
            ssh_config: self.find(&["ssh", "config"]).map(|node| self.local_path(node)).transpose()?,
            known_hosts: self.local_paths(&["ssh", "known-hosts"])?,
            host_keys: self.host_keys()?,
            jump: self.jump()?,
            forward_agent: self.truth(&["ssh", "forward-agent"]),
            ask: false,
            trust_first_use: false,
            timeout: self.limit(&["ssh", "connect-timeout"])?,
            retries: self.number(&["ssh", "connect-retries"])?,
            parallel: self.number(&["ssh", "parallel"])?,
        })
    }

    fn host_keys(&self) -> Result<HostKeys, Fault> {
        let mut keys = BTreeMap::new();
        for entry in self.table.table("host-keys").map(|table| &table.entries[..]).unwrap_or_default() {
            let text = entry.node.text().unwrap_or_default();
            let mut words = text.split_ascii_whitespace();
            let key = match (words.next(), words.next()) {
                (Some(kind), Some(data)) if plain_key(kind, data) => format!("{kind} {data}"),
                _ => {
                    let fault = Fault::new(&entry.node.place, format!("the key of `{}` is no public key", entry.name), "not `type base64`");
                    return Err(fault.help("`ssh-keyscan HOST` prints it after the host's name; compare it with the host's own"));
                }
            };
            keys.insert(entry.name.clone(), key);
        }
        self.choice(&["ssh", "host-keys"], &[("strict", false), ("pinned", true)])
            .map(|pinned| if pinned { HostKeys::Pinned(keys) } else { HostKeys::Strict })
    }

    /// Every hop is checked again when it is resolved; here only what can be no hop at all is refused.
    fn jump(&self) -> Result<Option<String>, Fault> {
        let Some((text, place)) = self.text(&["ssh", "jump"]) else { return Ok(None) };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-:,@/[]%\\".contains(c);
        if text.is_empty() || text.split(',').any(|hop| hop.is_empty() || hop.starts_with('-')) || !text.chars().all(plain) {
            let fault = Fault::new(place, format!("`{text}` is no host to jump through"), "expected `user@host:port`, several with commas");
            return Err(fault.code("bad-name"));
        }
        Ok(Some(text.to_owned()))
    }

    fn local_paths(&self, path: &[&str]) -> Result<Vec<PathBuf>, Fault> {
        self.list(path).iter().map(|node| self.local_path(node)).collect()
    }

    /// A path on this machine: in the file it starts beside the file, in a flag where the command is typed.
    fn local_path(&self, node: &Node) -> Result<PathBuf, Fault> {
        let text = node.text().unwrap_or_default();
        if text.is_empty() {
            return Err(Fault::new(&node.place, "the path is empty", "names no file"));
        }
        let as_written = matches!(node.place, Place::Flag(_)) || text == "none" || text.starts_with("~/");
        Ok(if as_written { PathBuf::from(text) } else { self.directory.join(text) })
    }
}

/// Tells whether two words can be a public key, without decoding it.
fn plain_key(kind: &str, data: &str) -> bool {
    let type_letters = kind.chars().all(|c| c.is_ascii_alphanumeric() || "-@.".contains(c));
    type_letters && data.starts_with("AAAA") && data.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
}

fn overlap(a: &TreePath, b: &TreePath) -> bool {
    a == b || a.is_beneath(b) || b.is_beneath(a)
}

fn share_text(node: &Node) -> String {
    match &node.value {
        Value::Whole(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Truth(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => String::new(),
    }
}
