//! What to type next. It reaches the hosts that this command reached and no others: a rollback of one host that was deployed alone must
//! not become a rollback of the fleet.

use std::borrow::Cow;

use crate::cli::{self, Common, What};
use crate::command::scene::Scene;
use crate::config::{self, ranges};

/// Up to so many hosts are named one by one.
const FEW: usize = 4;

impl Scene {
    /// The same hosts, whatever selected them then: `@failed` means others by now.
    #[must_use]
    pub fn typed(&self, verb: &str, flags: &str) -> String {
        let names: Vec<&str> = self.environment.targets.iter().map(|target| target.name.as_str()).collect();
        if self.environment.left_out.is_empty() { self.command(verb, flags) } else { self.typed_on(verb, flags, &names) }
    }

    /// Some of the hosts.
    #[must_use]
    pub fn typed_on(&self, verb: &str, flags: &str, hosts: &[&str]) -> String {
        format!("{} -H {}", self.command(verb, flags), these(hosts))
    }

    /// All of them but some.
    #[must_use]
    pub fn typed_without(&self, verb: &str, flags: &str, hosts: &[&str]) -> String {
        if self.environment.left_out.is_empty() {
            let listed = listed(hosts);
            let without: Vec<String> = config::split(&listed).iter().map(|pattern| format!("!{pattern}")).collect();
            return format!("{} -H {}", self.command(verb, flags), quoted(&without.join(",")));
        }
        let names = self.environment.targets.iter().map(|target| target.name.as_str());
        let rest: Vec<&str> = names.filter(|name| !hosts.contains(name)).collect();
        self.typed_on(verb, flags, &rest)
    }

    fn command(&self, verb: &str, flags: &str) -> String {
        format!("{}{flags}", self.environment.typed(verb))
    }
}

/// The flags of a command that say which config it was and what was set in it.
#[must_use]
pub fn given(common: &Common) -> String {
    let flags = [("-C", &common.directory), ("-c", &common.config)];
    let paths = flags.iter().filter_map(|(flag, path)| Some((*flag, path.as_ref()?.to_string_lossy().into_owned())));
    let set = common.set.iter().map(|set| ("--set", set.clone()));
    paths.chain(set).fold(String::new(), |flags, (flag, value)| flags + &format!(" {flag} {}", quoted(&value)))
}

impl cli::Deploy {
    /// The flags that say what is deployed and by which rules.
    #[must_use]
    pub fn typed(&self) -> String {
        let What { rev, expect, tree, from, force } = &self.what;
        let tree = tree.as_ref().map(|tree| tree.to_string_lossy().into_owned());
        let waves = (!self.waves.is_empty()).then(|| self.waves.join(","));
        let values = [
            ("--from", from.clone()),
            ("--tree", tree),
            ("--rev", rev.clone()),
            ("--expect", expect.clone()),
            ("--waves", waves),
            ("--on-failure", self.on_failure.map(cli::name_of)),
            ("--on-unreachable", self.on_unreachable.map(cli::name_of)),
            ("--max-failures", self.max_failures.clone()),
            ("--min-healthy", self.min_healthy.clone()),
            ("--pause", self.pause.clone()),
        ];
        let mut flags: String = values.into_iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(&value?)))).collect();
        for (flag, is_given) in [(" --force", *force), (" --outside-window", self.outside_window)] {
            flags.push_str(if is_given { flag } else { "" });
        }
        flags
    }
}

/// Hosts as `-H` takes them in a shell.
#[must_use]
pub fn these(hosts: &[&str]) -> String {
    quoted(&listed(hosts)).into_owned()
}

fn listed(hosts: &[&str]) -> String {
    if hosts.len() > FEW { ranges::fold(hosts) } else { hosts.join(",") }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_,.=:@%+/-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    shlex::try_quote(text).unwrap_or(Cow::Borrowed(text))
}
