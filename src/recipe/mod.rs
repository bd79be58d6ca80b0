//! Recipes: what a kind of project needs so that its build runs offline, as data. Another recipe is another entry of `ALL`.

mod failures;
mod known;
mod needs;
mod pins;
mod wheels;

use std::collections::BTreeMap;

use crate::config::Environment;
use crate::config::environment::Build;
use crate::op::Command;
use crate::tree::Digest;

pub use failures::{Lack, explain, lack, lacking};
pub use known::{ALL, ONLINE};
pub use needs::{detect, place, set_key};
pub use pins::pinned;
pub use wheels::{NotAKind, Python, is_particular};

/// One kind of build.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipe {
    pub name: &'static str,
    /// Files at the top of a tree that say it is of this kind. One `*` stands for anything.
    pub signs: &'static [&'static str],
    /// The argv of the build; empty where the user writes it. `{venv}`, `{config}` and `{link}` stand for the settings; other
    /// placeholders are filled in on the host, as in every command.
    pub command: &'static [&'static str],
    /// What the command does, in a line for people, where it is a script of the recipe's own. `{config}` stands for the setting.
    pub runs: Option<&'static str>,
    /// Variables that make the build offline. One that needs a setting that is not there is left out.
    pub env: &'static [(&'static str, &'static str)],
    /// The argv of a build that reaches the package index, whose url is `{index}`; empty where it is the same.
    pub online: &'static [&'static str],
    /// Whether `cache.path` must be said for an offline build.
    pub cache: bool,
    /// Whether `build.venv` must be said.
    pub venv: bool,
    /// What `build.config` is unless said; none where the recipe has no such setting.
    pub config: Option<&'static str>,
    pub fill: Fill,
}

/// How a cache is filled with what a revision needs, and what names the set of its files.
#[derive(Debug, PartialEq, Eq)]
pub struct Fill {
    /// An argv that runs in the tree, online: `{kind}` and `{config}` stand for themselves, `{out}` for the directory to fill and `{work}`
    /// for one to work in. Empty where the user writes it. What a build that was tried lacked follows as further arguments.
    pub command: &'static [&'static str],
    /// The argv where it reaches the package index, whose url is `{index}`; empty where it is the same.
    pub online: &'static [&'static str],
    /// Files that decide what is needed: two trees that agree in them need the same.
    pub inputs: &'static [&'static str],
    /// Where the files lie below the cache; `{set}` is the name of the set, where each has a directory of its own.
    pub place: &'static str,
    /// Whether what one platform needs serves every other.
    pub portable: bool,
    /// Whether files for hosts of several kinds can lie beside each other: what one kind needs does no harm to another.
    pub mixes: bool,
    /// Whether the fill can be told what a build lacked, and tried again.
    pub again: bool,
    /// Whether the fill can fetch for hosts of another kind than the builder's.
    pub others: bool,
}

impl Fill {
    /// What is run; empty where the user must say it.
    #[must_use]
    pub const fn argv(&self, has_index: bool) -> &'static [&'static str] {
        if has_index && !self.online.is_empty() { self.online } else { self.command }
    }
}

/// The settings a recipe's texts are filled in with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    pub venv: Option<&'a str>,
    pub config: Option<&'a str>,
    /// `cache.link`, where there is a cache.
    pub link: Option<&'a str>,
}

impl Recipe {
    /// Finds a recipe by its name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|recipe| recipe.name == name)
    }

    /// The command it builds with; none where the user must say it.
    #[must_use]
    pub fn argv(&self, settings: Settings<'_>, has_index: bool) -> Option<Vec<String>> {
        let command = if has_index && !self.online.is_empty() { self.online } else { self.command };
        let argv: Option<Vec<String>> = command.iter().map(|text| fill(text, settings)).collect();
        argv.filter(|argv| !argv.is_empty())
    }

    /// The variables it builds with.
    #[must_use]
    pub fn variables(&self, settings: Settings<'_>, has_index: bool) -> BTreeMap<String, String> {
        let env = if has_index { ONLINE } else { self.env };
        env.iter().filter_map(|(name, text)| Some(((*name).to_owned(), fill(text, settings)?))).collect()
    }
}

/// What a script of a recipe's own does, in a line for people; none for every other command.
#[must_use]
pub fn described(argv: &[String]) -> Option<String> {
    let script = argv.get(3)?;
    let is_its = |recipe: &&Recipe| [recipe.command, recipe.online].iter().any(|command| command.get(3).is_some_and(|own| own == script));
    let recipe = ALL.iter().filter(|recipe| recipe.runs.is_some()).find(is_its)?;
    Some(format!("recipe {}: {}", recipe.name, recipe.runs?.replace("{config}", argv.last()?)))
}

/// Fills in `{venv}`, `{config}` and `{link}`; none where the setting is missing.
fn fill(text: &str, settings: Settings<'_>) -> Option<String> {
    let names = [("{venv}", settings.venv), ("{config}", settings.config), ("{link}", settings.link)];
    match names.into_iter().find_map(|(name, value)| text.strip_prefix(name).map(|rest| (value, rest))) {
        Some((value, rest)) => Some(format!("{}{rest}", value?)),
        None => Some(text.to_owned()),
    }
}

/// Variables that keep tools from asking a proxy for the package index, which listens on the builder's own loopback device.
#[must_use]
pub fn direct(env: &[(String, String)]) -> Vec<(String, String)> {
    const HERE: &str = "127.0.0.1";
    let said = |name: &str| env.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    if !env.iter().any(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy")) {
        return Vec::new();
    }
    let others = said("no_proxy").or_else(|| said("NO_PROXY")).filter(|others| !others.is_empty());
    let all = others.map_or_else(|| HERE.to_owned(), |others| format!("{others},{HERE}"));
    // Some read only the one, some only the other.
    ["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), all.clone())).to_vec()
}

/// What `setup` runs on a host to make the virtual environment `$VENV` without any network; its arguments are what it must hold.
/// `pip` finds its packages by `PIP_FIND_LINKS`.
pub const VENV_SCRIPT: &str = r#"
python3 -m venv --help >/dev/null 2>&1 || { echo "python3 has no venv module: install the package python3-venv" >&2; exit 1; }
test -x "$VENV/bin/python" || python3 -m venv "$VENV"
exec "$VENV/bin/python" -m pip install --quiet "$@"
"#;

/// Prints the version of zc.buildout that a virtual environment has: what its python runs.
pub const VERSION_SCRIPT: &str = "from importlib.metadata import version; print(version('zc.buildout'))";

/// Names everything but the code that decides what a build makes. Two releases of one tree and one key are the same.
#[must_use]
pub fn build_key(environment: &Environment) -> Digest {
    let mut key = Key(Vec::new());
    key.field("deployer build key 1");
    match &environment.build {
        None => key.field("no build"),
        Some(build) => key.build(build),
    }
    key.field(environment.cache.as_ref().map_or(&b""[..], |cache| cache.link.as_bytes()));
    for paths in [&environment.shared.directories, &environment.shared.files] {
        // What is linked first decides nothing.
        let mut paths: Vec<&[u8]> = paths.iter().map(crate::tree::TreePath::as_bytes).collect();
        paths.sort_unstable();
        key.list(&paths);
    }
    Digest::of(&key.0)
}

/// Bytes of fields, each behind its length: no two different lists of fields make the same bytes.
struct Key(Vec<u8>);

impl Key {
    fn field(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
    }

    fn list(&mut self, items: &[impl AsRef<[u8]>]) {
        self.0.extend((items.len() as u64).to_le_bytes());
        for item in items {
            self.field(item);
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Shell(text) => self.list(&["sh", text]),
            Command::Argv(argv) => {
                self.field("argv");
                self.list(argv);
            }
        }
    }

    fn build(&mut self, build: &Build) {
        self.field(&build.recipe);
        self.command(&build.command);
        let variables: Vec<&str> = build.env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
        self.list(&variables);
        self.field(build.venv.as_ref().map_or("", |venv| venv.as_str()));
    }
}
