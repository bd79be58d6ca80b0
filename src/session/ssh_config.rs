//! What the user's ssh configuration says of a host. It is asked of `ssh -G`, never parsed: with `Match` no other parser agrees with ssh.
//! `printed` asks, `strict` stands in where there is no ssh, and here the answer becomes data.

mod files;
mod printed;
mod strict;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{HostKeyError, SessionError};
use super::known_hosts::{self, Names};
use super::needs;
use crate::config::environment::{Connect, Target};

pub use printed::remember_in;
use printed::{Printed, Query};

/// The configuration of one host, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    pub hostname: String,
    pub port: u16,
    pub user: String,
    /// Private keys to try, in order; those that do not exist are skipped.
    pub identities: Vec<PathBuf>,
    pub certificates: Vec<PathBuf>,
    /// Keys of the agent that are not among `identities` are left alone.
    pub identities_only: bool,
    pub agent: Option<PathBuf>,
    pub user_known_hosts: Vec<PathBuf>,
    pub global_known_hosts: Vec<PathBuf>,
    pub host_key_alias: Option<String>,
    pub connect_timeout: Option<Duration>,
    pub alive: Alive,
    /// The ways to be let in by answering questions.
    pub keyboard_interactive: bool,
    pub password: bool,
    pub proxy: Option<Proxy>,
    /// A value that has a meaning for `ssh` alone.
    pub untranslated: Option<String>,
    /// The first thing in the configuration that only the `ssh` program does.
    pub needs_ssh: Option<String>,
}

/// How often a silent connection is asked for a sign of life, and how many may stay out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    pub every: Duration,
    pub count: u32,
}

/// A connection is always watched, whatever the configuration says.
pub const ALIVE: Alive = Alive { every: Duration::from_secs(15), count: 3 };

/// What stands between this machine and the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// A shell command whose stdin and stdout lead to the host's sshd, its tokens replaced; and as it was written, which tells the hosts
    /// that share one.
    Command { command: String, written: String },
    /// Hosts, each reached through the one before.
    Jump(Vec<Hop>),
}

/// One host on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub user: Option<String>,
    /// As it is written, which is how the ssh configuration knows it.
    pub address: String,
    pub port: Option<u16>,
    /// What the ssh configuration says of it, its own proxy apart.
    pub config: Box<HostConfig>,
}

const ADDRESS: &str = "letters, digits and `._:-`";
const USER: &str = "letters, digits and `._:@+\\-`";
/// A way that is longer leads in a circle.
const MOST_HOPS: usize = 8;

/// Asks ssh what it makes of a target, and of every host on the way to it.
///
/// # Errors
/// A name that could be taken for something else, before and after ssh has replaced it, or a configuration that `ssh` refuses.
pub(super) async fn resolve(target: &Target, connect: &Connect) -> Result<HostConfig, SessionError> {
    let (user, port) = (target.user.as_ref().or(connect.user.as_ref()), target.port.or(connect.port));
    let query = query(&target.address, user.cloned(), port, connect)?;
    let (printed, mut config) = ask(&query, "HostName").await?;
    config = config.with(connect);
    let failed = |why: String| SessionError::Config { address: target.address.clone(), why };
    let jump = match connect.jump.as_deref() {
        // Who is the way himself is reached without it.
        Some(jump) if jump.split(',').any(|hop| hop == target.address) => None,
        Some("none") => {
            config.proxy = None;
            None
        }
        Some(jump) => Some(jump.to_owned()),
        None => written_jump(&printed.text).map(str::to_owned),
    };
    if let Some(jump) = jump {
        config.proxy = Some(Proxy::Jump(way(&jump, connect).await.map_err(|error| match error {
            Way::Wrong(why) => failed(why),
            Way::Session(error) => error,
        })?));
    }
    config.needs_ssh = needs::only_ssh(&printed.text, printed.plain.as_deref(), &config, &query.flags(), &target.address).await;
    Ok(config)
}

fn query(address: &str, user: Option<String>, port: Option<u16>, connect: &Connect) -> Result<Query, SessionError> {
    check_address("address", address)?;
    if let Some(user) = &user {
        check_user(user)?;
    }
    Ok(Query { address: address.to_owned(), user, port, file: connect.ssh_config.clone() })
}

async fn ask(query: &Query, what: &'static str) -> Result<(Printed, HostConfig), SessionError> {
    let failed = |why: String| SessionError::Config { address: query.address.clone(), why };
    let printed = printed::printed(query).await.map_err(failed)?;
    let config = parse(&printed.text, &query.address, &printed.home).map_err(failed)?;
    check_address(what, &config.hostname)?;
    check_user(&config.user)?;
    Ok((printed, config))
}

enum Way {
    Wrong(String),
    Session(SessionError),
}

impl From<SessionError> for Way {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

/// Resolves the hosts on the way, the nearest first. The nearest may have a jump of its own.
async fn way(jump: &str, connect: &Connect) -> Result<Vec<Hop>, Way> {
    let wrong = |text: &str| Way::Wrong(format!("`{text}` is no ProxyJump that can be used"));
    let mut hops: Vec<Hop> = Vec::new();
    let mut next = Some(jump.to_owned());
    while let Some(text) = next.take() {
        let mut nearer = Vec::new();
        for written in text.split(',') {
            let (user, address, port) = parse_hop(written).ok_or_else(|| wrong(&text))?;
            let (printed, config) = ask(&query(&address, user.clone(), port, connect)?, "HostName").await?;
            let config = Box::new(config.with(&Connect { identities: Vec::new(), ..connect.clone() }));
            if nearer.is_empty() {
                next = written_jump(&printed.text).map(str::to_owned);
            }
            nearer.push(Hop { user, address, port, config });
        }
        nearer.append(&mut hops);
        hops = nearer;
        if hops.len() > MOST_HOPS {
            return Err(Way::Wrong(format!("the way by `{jump}` has more than {MOST_HOPS} hosts")));
        }
    }
    Ok(hops)
}

fn written_jump(text: &str) -> Option<&str> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).filter(|value| !value.eq_ignore_ascii_case("none"));
    value("proxyjump ").filter(|_| value("proxycommand ").is_none())
}

/// The flags of `ssh` for what `deploy.toml` and the command line say.
pub(super) fn flags(user: Option<&str>, port: Option<u16>, file: Option<&Path>) -> Vec<OsString> {
    Query { address: String::new(), user: user.map(str::to_owned), port, file: file.map(Path::to_owned) }.flags()
}

pub(super) fn check_address(what: &'static str, text: &str) -> Result<(), SessionError> {
    check(what, text, ADDRESS, |c| c.is_ascii_alphanumeric() || "._:-".contains(c))
}

fn check_user(text: &str) -> Result<(), SessionError> {
    check("user", text, USER, |c| c.is_ascii_alphanumeric() || "._:@+\\-".contains(c))
}

fn check(what: &'static str, text: &str, allowed: &'static str, plain: impl Fn(char) -> bool) -> Result<(), SessionError> {
    if !text.is_empty() && text.len() < 256 && !text.starts_with('-') && text.chars().all(plain) {
        Ok(())
    } else {
        Err(SessionError::Name { what, text: text.to_owned(), allowed })
    }
}

impl HostConfig {
    /// Lets what `deployer` was told stand above what ssh was told.
    fn with(mut self, connect: &Connect) -> Self {
        if !connect.known_hosts.is_empty() {
            self.user_known_hosts.clone_from(&connect.known_hosts);
        }
        self.user_known_hosts.extend(known_hosts::own_file());
        if !connect.identities.is_empty() {
            self.identities.clone_from(&connect.identities);
            // Somebody who names a key means it: a full agent would use up the tries that sshd allows.
            self.identities_only = true;
        }
        self
    }

    /// What a host without ssh is like.
    #[must_use]
    pub fn local() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            port: 0,
            user: String::new(),
            identities: Vec::new(),
            certificates: Vec::new(),
            identities_only: false,
            agent: None,
            user_known_hosts: Vec::new(),
            global_known_hosts: Vec::new(),
            host_key_alias: None,
            connect_timeout: None,
            alive: ALIVE,
            keyboard_interactive: false,
            password: false,
            proxy: None,
            untranslated: None,
            needs_ssh: None,
        }
    }

    /// Under which names the host's key is looked up.
    pub(super) fn names(&self) -> Names {
        Names::new(&self.hostname, self.port, self.host_key_alias.as_deref())
    }

    /// Where many connections would meet on the way to this host, from the farthest to the nearest.
    pub(super) fn doors(&self) -> Vec<String> {
        let own = format!("{}:{}", self.hostname, self.port);
        match &self.proxy {
            None => vec![own],
            Some(Proxy::Command { written, .. }) => vec![format!("{own} by {written}"), written.clone()],
            Some(Proxy::Jump(hops)) => {
                let nearest = hops.first().map(|hop| format!("{}:{}", hop.config.hostname, hop.config.port));
                let by = hops.iter().map(|hop| hop.address.as_str()).collect::<Vec<_>>().join(",");
                std::iter::once(format!("{own} by {by}")).chain(nearest).collect()
            }
        }
    }

    /// Every file in which the host's key may be.
    pub(super) fn known_hosts(&self) -> Vec<PathBuf> {
        self.user_known_hosts.iter().chain(&self.global_known_hosts).cloned().collect()
    }
}

fn default_agent() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Reads what `ssh -G` printed for `address`: `key value` lines, the keys in lower case.
fn parse(text: &str, address: &str, home: &Path) -> Result<HostConfig, String> {
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let all = |key: &'static str| lines.iter().filter(move |(name, _)| *name == key).map(|(_, value)| *value);
    let one = |key: &'static str| all(key).next().filter(|value| !value.eq_ignore_ascii_case("none"));
    let required = |key: &'static str| one(key).ok_or_else(|| format!("`ssh -G` does not tell the {key}"));
    let hostname = required("hostname")?;
    let port = required("port")?;
    let user = required("user")?;
    let tokens = Tokens { address, hostname, port, user, home };
    // A value that cannot be replaced here is one that only ssh can use.
    let mut untranslated = None;
    let mut unless_token = |result: Result<PathBuf, String>| result.map_err(|why| untranslated = Some(why)).ok();
    let mut each = |key: &'static str| -> Vec<PathBuf> {
        let values = all(key).filter(|value| !value.eq_ignore_ascii_case("none"));
        values.filter_map(|value| unless_token(tokens.path(value))).collect()
    };
    let (identities, certificates) = (each("identityfile"), each("certificatefile"));
    let agent = agent(all("identityagent").next(), &tokens).and_then(unless_token);
    let proxy = match one("proxycommand") {
        Some(written) => match tokens.replace(written) {
            Ok(command) => Some(Proxy::Command { command, written: written.to_owned() }),
            Err(why) => {
                untranslated = Some(why);
                Some(Proxy::Command { command: "false".to_owned(), written: written.to_owned() })
            }
        },
        None => None,
    };
    let seconds = |key| one(key).and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let every = seconds("serveraliveinterval");
    let count = one("serveralivecountmax").and_then(|text| text.parse().ok()).filter(|_| every.is_some());
    Ok(HostConfig {
        hostname: hostname.to_owned(),
        port: port.parse().map_err(|_| format!("`{port}` is no port"))?,
        user: user.to_owned(),
        identities,
        certificates,
        identities_only: one("identitiesonly") == Some("yes"),
        agent,
        user_known_hosts: tokens.paths(one("userknownhostsfile").unwrap_or_default())?,
        global_known_hosts: tokens.paths(one("globalknownhostsfile").unwrap_or_default())?,
        host_key_alias: one("hostkeyalias").map(str::to_owned),
        connect_timeout: seconds("connecttimeout"),
        alive: Alive { every: every.unwrap_or(ALIVE.every), count: count.unwrap_or(ALIVE.count) },
        keyboard_interactive: one("kbdinteractiveauthentication") == Some("yes"),
        password: one("passwordauthentication") == Some("yes"),
        proxy,
        untranslated,
        needs_ssh: None,
    })
}

/// Finds the agent's socket; None is no agent.
fn agent(value: Option<&str>, tokens: &Tokens) -> Option<Result<PathBuf, String>> {
    match value {
        None | Some("SSH_AUTH_SOCK") => default_agent().map(Ok),
        Some(none) if none.eq_ignore_ascii_case("none") => None,
        Some(variable) if variable.starts_with('$') => {
            std::env::var_os(variable[1..].trim_matches(['{', '}'])).filter(|path| !path.is_empty()).map(|path| Ok(PathBuf::from(path)))
        }
        Some(path) => Some(tokens.path(path)),
    }
}

/// Reads `user@host:2222`, `[::1]:22` or `ssh://user@host:2222`: user, host and port of one hop.
fn parse_hop(text: &str) -> Option<(Option<String>, String, Option<u16>)> {
    let text = text.strip_prefix("ssh://").unwrap_or(text).trim_end_matches('/');
    let (user, place) = text.rsplit_once('@').map_or((None, text), |(user, place)| (Some(user), place));
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) }),
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    check_address("ProxyJump", host).ok()?;
    if let Some(user) = user {
        check_user(user).ok()?;
    }
    let port = match port {
        Some(port) => Some(port.parse().ok()?),
        None => None,
    };
    Some((user.map(str::to_owned), host.to_owned(), port))
}

/// What ssh's percent tokens stand for; `ssh -G` prints them unreplaced.
struct Tokens<'a> {
    address: &'a str,
    hostname: &'a str,
    port: &'a str,
    user: &'a str,
    home: &'a Path,
}

impl Tokens<'_> {
    /// Splits a list of paths. `ssh -G` prints them without their quotes, so what does not begin as a path goes on with the one before.
    fn paths(&self, text: &str) -> Result<Vec<PathBuf>, String> {
        let mut names: Vec<String> = Vec::new();
        for word in text.split(' ').filter(|word| !word.is_empty() && !word.eq_ignore_ascii_case("none")) {
            match names.last_mut() {
                Some(last) if !word.starts_with(['/', '~', '%']) => *last = format!("{last} {word}"),
                _ => names.push(word.to_owned()),
            }
        }
        names.iter().map(|name| self.path(name)).collect()
    }

    fn path(&self, text: &str) -> Result<PathBuf, String> {
        let text = self.replace(text)?;
        Ok(match text.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => PathBuf::from(text),
        })
    }

    fn replace(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, if c == '%' { chars.next() } else { None }) {
                ('%', Some('%')) => out.push('%'),
                ('%', Some('h')) => out.push_str(self.hostname),
                ('%', Some('n')) => out.push_str(self.address),
                ('%', Some('p')) => out.push_str(self.port),
                ('%', Some('r')) => out.push_str(self.user),
                ('%', Some('d')) => out.push_str(&self.home.to_string_lossy()),
                ('%', Some('u')) => out.push_str(&std::env::var("USER").unwrap_or_default()),
                ('%', other) => {
                    return Err(format!("the token `%{}` is one that only `ssh` replaces", other.map_or(String::new(), String::from)));
                }
                (c, _) => out.push(c),
            }
        }
        Ok(out)
    }
}

/// Writes paths as a value of `-o UserKnownHostsFile=…`.
pub(super) fn quote_paths(paths: &[PathBuf]) -> Result<String, SessionError> {
    let quoted = paths.iter().map(|path| match path.to_str() {
        Some(text) if !text.contains(|c: char| c.is_control() || "\"\\$".contains(c)) => Ok(format!("\"{}\"", text.replace('%', "%%"))),
        _ => Err(SessionError::HostKey(HostKeyError::Unreadable {
            place: format!("`{}`", path.display()),
            why: "ssh cannot be given a path with quotes, backslashes or `$`".to_owned(),
        })),
    });
    let quoted = quoted.collect::<Result<Vec<_>, _>>()?.join(" ");
    Ok(if quoted.is_empty() { "/dev/null".to_owned() } else { quoted })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "user deploy\nhostname 10.0.0.7\nport 2222\nidentitiesonly yes\nidentityfile ~/.ssh/id_app\nidentityfile %d/keys/%n-%r\n\
        globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2\nuserknownhostsfile /a/known /b/known\nhostkeyalias web\n\
        connecttimeout 7\nproxycommand nc %h %p %%\n";

    #[test]
    fn what_ssh_prints_is_read_with_its_tokens_replaced() {
        let config = parse(PRINTED, "app", Path::new("/h")).unwrap();
        let home = Path::new("/h");
        assert_eq!((config.hostname.as_str(), config.port, config.user.as_str()), ("10.0.0.7", 2222, "deploy"));
        assert_eq!(config.identities, [home.join(".ssh/id_app"), home.join("keys/app-deploy")]);
        assert!(config.identities_only);
        assert_eq!(config.known_hosts().len(), 4);
        assert_eq!(config.host_key_alias.as_deref(), Some("web"));
        assert_eq!(config.connect_timeout, Some(Duration::from_secs(7)));
        assert_eq!(config.proxy, Some(Proxy::Command { command: "nc 10.0.0.7 2222 %".to_owned(), written: "nc %h %p %%".to_owned() }));
    }

    #[test]
    fn none_and_missing_values_are_no_values() {
        let of = |text: &str| parse(text, "h", Path::new("/h"));
        let config =
            of("user u\nhostname h\nport 22\nconnecttimeout none\nidentityagent none\nuserknownhostsfile none\nproxyjump none\n").unwrap();
        assert_eq!((config.connect_timeout, config.agent, config.proxy, config.alive), (None, None, None, ALIVE));
        assert!(config.user_known_hosts.is_empty());
        assert!(of("user u\nport 22\n").is_err());
        let config = of("user u\nhostname h\nport 22\nproxycommand nc %Z\n").unwrap();
        assert!(config.untranslated.is_some_and(|why| why.contains("%Z")));
        let config = of("user u\nhostname h\nport 22\nuserknownhostsfile /a b /c\nserveraliveinterval 4\nserveralivecountmax 2\n").unwrap();
        assert_eq!(config.user_known_hosts, ["/a b", "/c"].map(PathBuf::from));
        assert_eq!(config.alive, Alive { every: Duration::from_secs(4), count: 2 });
    }

    #[test]
    fn a_hop_is_a_user_a_host_and_a_port() {
        let of = |user: Option<&str>, host: &str, port| Some((user.map(str::to_owned), host.to_owned(), port));
        assert_eq!(parse_hop("bastion"), of(None, "bastion", None));
        assert_eq!(parse_hop("ada@b:2222"), of(Some("ada"), "b", Some(2222)));
        assert_eq!(parse_hop("ssh://ada@[::1]:22/"), of(Some("ada"), "::1", Some(22)));
        assert_eq!(parse_hop("CORP\\ada@b"), of(Some("CORP\\ada"), "b", None));
        for wrong in ["-oProxyCommand=x", "a;id", "", "a b", "a:x", "$(id)@b", "[a]b"] {
            assert_eq!(parse_hop(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn names_that_a_shell_or_ssh_could_act_on_are_refused() {
        for text in ["-oProxyCommand=touch x", "a b", "a;b", "$(id)", "`id`", "a\nb", "", "a$[+]b", "ö", "a'b"] {
            assert!(check_address("address", text).is_err(), "{text}");
            assert!(check_user(text).is_err(), "{text}");
        }
        for text in ["app-01.example.net", "::1", "10.0.0.1", "a_b"] {
            assert!(check_address("address", text).is_ok(), "{text}");
        }
        assert!(check_user("CORP\\ada").is_ok());
        assert!(check_user("ada@example.net").is_ok());
    }
}
