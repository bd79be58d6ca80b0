//! Every key of `deploy.toml` as data. `check` holds a table against it.

mod check;

pub use check::check;

/// What may be written as a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text,
    Truth,
    /// A whole number from the first to the second.
    Whole(i64, i64),
    Duration,
    Size,
    Choice(&'static [&'static str]),
    Texts,
    /// A number of hosts, or a percentage of them.
    Share,
    Shares,
    /// An argv array or a text for `sh -eu`.
    Command,
    /// A command, or a table that says more about it.
    Run(&'static Section),
    Table(&'static Section),
    Tables(&'static Section),
    /// Names of the user's own, each with a value of one shape.
    Named(&'static Shape),
    /// The same, where each value is a table.
    Sections(&'static Section),
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub shape: Shape,
}

/// A table whose keys are known.
#[derive(Debug)]
pub struct Section {
    /// `an environment`: what its keys are settings of.
    pub noun: &'static str,
    pub keys: &'static [Key],
}

const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape }
}

pub static FILE: Section = Section {
    noun: "the file",
    keys: &[
        key("schema", Shape::Whole(1, i64::MAX)),
        key("project", Shape::Text),
        key("source", Shape::Table(&SOURCE)),
        key("defaults", Shape::Table(&DEFAULTS)),
        key("env", Shape::Sections(&ENVIRONMENT)),
        key("hook", Shape::Tables(&HOOK)),
        key("index", Shape::Table(&INDEX)),
    ],
};

static INDEX: Section = Section {
    noun: "the index",
    keys: &[key("pypi", Shape::Table(&UPSTREAM)), key("crates", Shape::Table(&UPSTREAM)), key("npm", Shape::Table(&UPSTREAM))],
};

static UPSTREAM: Section =
    Section { noun: "an upstream", keys: &[key("url", Shape::Text), key("user", Shape::Text), key("secret", Shape::Table(&SECRET))] };

static SECRET: Section =
    Section { noun: "a secret", keys: &[key("env", Shape::Text), key("file", Shape::Text), key("command", Shape::Command)] };

static SOURCE: Section = Section {
    noun: "the source",
    keys: &[key("git", Shape::Text), key("path", Shape::Text), key("submodules", Shape::Truth), key("lfs", Shape::Truth)],
};

/// What `[defaults]` and every environment may hold. A macro, because a `static` cannot be put together from two others.
macro_rules! settings {
    ($($more:expr),*) => {
        &[
            key("root", Shape::Text),
            key("rev", Shape::Text),
            key("protected", Shape::Truth),
            key("keep-releases", Shape::Whole(1, 10_000)),
            key("group", Shape::Text),
            key("user", Shape::Text),
            key("port", Shape::Whole(1, 65_535)),
            key("hosts", Shape::Texts),
            key("host", Shape::Tables(&HOST)),
            key("roles", Shape::Named(&Shape::Texts)),
            key("inventory", Shape::Table(&INVENTORY)),
            key("shared", Shape::Table(&SHARED)),
            key("cache", Shape::Table(&CACHE)),
            key("build", Shape::Table(&BUILD)),
            key("activate", Shape::Run(&ACTIVATE)),
            key("check", Shape::Table(&CHECK)),
            key("confirm-within", Shape::Duration),
            key("waves", Shape::Shares),
            key("window", Shape::Texts),
            key("max-failures", Shape::Share),
            key("on-failure", Shape::Choice(&["rollback", "stop", "continue"])),
            key("on-unreachable", Shape::Choice(&["fail", "skip"])),
            key("min-healthy", Shape::Share),
            key("pause", Shape::Duration),
            key("hook", Shape::Tables(&HOOK)),
            key("role", Shape::Sections(&ROLE)),
            key("parallel", Shape::Whole(1, 10_000)),
            key("ssh", Shape::Table(&SSH)),
            key("host-keys", Shape::Named(&Shape::Text)),
            $($more),*
        ]
    };
}

static DEFAULTS: Section = Section { noun: "an environment", keys: settings!(key("env", Shape::Text)) };

pub static ENVIRONMENT: Section = Section {
    noun: "an environment",
    keys: settings!(key("extends", Shape::Text), key("unset", Shape::Texts), key("only-from", Shape::Text)),
};

/// What `--set` and the other flags may change.
pub static CHANGEABLE: Section =
    Section { noun: "an environment", keys: settings!(key("source", Shape::Table(&SOURCE)), key("index", Shape::Table(&INDEX))) };

pub const SESSIONS: &[&str] = &["auto", "ssh2", "openssh", "local"];

static HOST: Section = Section {
    noun: "a host",
    keys: &[
        key("name", Shape::Text),
        key("address", Shape::Text),
        key("user", Shape::Text),
        key("port", Shape::Whole(1, 65_535)),
        key("roles", Shape::Texts),
        key("labels", Shape::Named(&Shape::Text)),
        key("session", Shape::Choice(SESSIONS)),
        key("root", Shape::Text),
        key("cache", Shape::Text),
    ],
};

static INVENTORY: Section = Section {
    noun: "an inventory",
    keys: &[
        key("file", Shape::Text),
        key("command", Shape::Command),
        key("ansible", Shape::Text),
        key("ssh-config", Shape::Text),
        key("format", Shape::Choice(&["lines", "json", "ansible"])),
        key("groups", Shape::Texts),
        key("timeout", Shape::Duration),
        key("ttl", Shape::Duration),
    ],
};

static SHARED: Section =
    Section { noun: "the shared paths", keys: &[key("dirs", Shape::Texts), key("files", Shape::Texts), key("replace", Shape::Truth)] };

static CACHE: Section = Section {
    noun: "the download cache",
    keys: &[
        key("path", Shape::Text),
        key("link", Shape::Text),
        key("fill", Shape::Command),
        key("env", Shape::Named(&Shape::Text)),
        key("network", Shape::Choice(&["index", "host"])),
    ],
};

static BUILD: Section = Section {
    noun: "a build",
    keys: &[
        key("recipe", Shape::Text),
        key("command", Shape::Command),
        key("venv", Shape::Text),
        key("config", Shape::Text),
        key("env", Shape::Named(&Shape::Text)),
        key("timeout", Shape::Duration),
        key("idle-timeout", Shape::Duration),
        key("output-limit", Shape::Size),
        key("network", Shape::Choice(&["blocked", "none", "host", "index"])),
        key("on", Shape::Text),
    ],
};

static ACTIVATE: Section =
    Section { noun: "an activation", keys: &[key("run", Shape::Command), key("as", Shape::Text), key("timeout", Shape::Duration)] };

static CHECK: Section = Section {
    noun: "a check",
    keys: &[
        key("url", Shape::Text),
        key("contains", Shape::Text),
        key("run", Shape::Command),
        key("as", Shape::Text),
        key("retries", Shape::Whole(1, 10_000)),
        key("every", Shape::Duration),
        key("successes", Shape::Whole(1, 1000)),
        key("timeout", Shape::Duration),
        key("stay-up", Shape::Duration),
        key("unit", Shape::Text),
        key("user-unit", Shape::Text),
    ],
};

static HOOK: Section = Section {
    noun: "a hook",
    keys: &[
        key("name", Shape::Text),
        key(
            "on",
            Shape::Choice(&[
                "before-build",
                "after-build",
                "before-activate",
                "after-activate",
                "before-wave",
                "after-wave",
                "after-deploy",
                "after-failure",
            ]),
        ),
        key("run", Shape::Command),
        key("where", Shape::Text),
        key("as", Shape::Text),
        key("timeout", Shape::Duration),
        key("may-fail", Shape::Truth),
    ],
};

static ROLE: Section = Section {
    noun: "a role",
    keys: &[
        key("build", Shape::Table(&BUILD)),
        key("activate", Shape::Run(&ACTIVATE)),
        key("check", Shape::Table(&CHECK)),
        key("confirm-within", Shape::Duration),
        key("unset", Shape::Texts),
    ],
};

static SSH: Section = Section {
    noun: "the connection",
    keys: &[
        key("session", Shape::Choice(SESSIONS)),
        key("config", Shape::Text),
        key("known-hosts", Shape::Texts),
        key("host-keys", Shape::Choice(&["strict", "pinned"])),
        key("jump", Shape::Text),
        key("identities", Shape::Texts),
        key("connect-timeout", Shape::Duration),
        key("connect-retries", Shape::Whole(0, 100)),
        key("parallel", Shape::Whole(1, 1000)),
        key("forward-agent", Shape::Truth),
    ],
};

impl Section {
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Shape {
    /// The section of a shape that has one.
    #[must_use]
    pub const fn section(&self) -> Option<&'static Section> {
        match self {
            Self::Run(section) | Self::Table(section) | Self::Tables(section) | Self::Sections(section) => Some(section),
            Self::Text
            | Self::Truth
            | Self::Whole(..)
            | Self::Duration
            | Self::Size
            | Self::Choice(_)
            | Self::Texts
            | Self::Share
            | Self::Shares
            | Self::Command
            | Self::Named(_) => None,
        }
    }
}

/// Writes a text as TOML does.
#[must_use]
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
