//! Recipes: what a kind of project needs so that its build runs offline, as data. Another recipe is another entry of `ALL`.

use std::collections::BTreeMap;

use crate::config::Environment;
use crate::config::environment::Build;
use crate::op::Command;
use crate::tree::Digest;

/// One kind of build.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipe {
    pub name: &'static str,
    /// The argv of the build; empty where the user writes it. `{venv}`, `{config}` and `{link}` stand for the settings.
    pub command: &'static [&'static str],
    /// Variables that make the build offline. One that needs a setting that is not there is left out.
    pub env: &'static [(&'static str, &'static str)],
    /// Whether `build.venv` must be said.
    pub venv: bool,
    /// What `build.config` is unless said; none where the recipe has no such setting.
    pub config: Option<&'static str>,
}

/// What `deployer` knows how to build.
pub static ALL: [Recipe; 2] = [
    Recipe {
        name: "buildout",
        // Never `-o`: with `install-from-cache` buildout refuses it, and without it nothing is installed.
        command: &["{venv}/bin/buildout", "-c", "{config}"],
        // buildout's own `install-from-cache` does not stop pip, which it runs for build requirements.
        env: &[
            ("PIP_NO_INDEX", "1"),
            ("PIP_FIND_LINKS", "{link}/dist"),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
            ("PIP_CONFIG_FILE", "/dev/null"),
        ],
        venv: true,
        config: Some("offline.cfg"),
    },
    Recipe { name: "command", command: &[], env: &[], venv: false, config: None },
];

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
    pub fn argv(&self, settings: Settings<'_>) -> Option<Vec<String>> {
        let argv: Option<Vec<String>> = self.command.iter().map(|text| fill(text, settings)).collect();
        argv.filter(|argv| !argv.is_empty())
    }

    /// The variables it builds with.
    #[must_use]
    pub fn variables(&self, settings: Settings<'_>) -> BTreeMap<String, String> {
        self.env.iter().filter_map(|(name, text)| Some(((*name).to_owned(), fill(text, settings)?))).collect()
    }
}

/// Fills in `{venv}`, `{config}` and `{link}`; none where the setting is missing.
fn fill(text: &str, settings: Settings<'_>) -> Option<String> {
    let names = [("{venv}", settings.venv), ("{config}", settings.config), ("{link}", settings.link)];
    match names.into_iter().find_map(|(name, value)| text.strip_prefix(name).map(|rest| (value, rest))) {
        Some((value, rest)) => Some(format!("{}{rest}", value?)),
        None => Some(text.to_owned()),
    }
}

/// What `setup` runs on a host to make the virtual environment `$VENV` without any network. `pip` finds its packages by
/// `PIP_FIND_LINKS`.
pub const VENV_SCRIPT: &str = r#"
python3 -m venv --help >/dev/null 2>&1 || { echo "python3 has no venv module: install the package python3-venv" >&2; exit 1; }
test -x "$VENV/bin/python" || python3 -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet zc.buildout setuptools wheel
"#;

/// What a typical last line of a failed build means. `{}` is the name between quotes in that line.
const MEANINGS: [(&str, &str); 6] = [
    ("Couldn't find a distribution for", "{} is not in the shared download cache: put it there, then run the same command again"),
    (
        "No matching distribution found for",
        "a build requirement is not in the shared download cache: put it there, then run the same command again",
    ),
    ("pkg_resources.VersionConflict", "pin zc.recipe.egg in [versions] to the version that goes with this zc.buildout"),
    ("No module named 'pkg_resources'", "pin setuptools below 82 in the virtual environment: this zc.buildout needs pkg_resources"),
    (
        "install-from-cache can't be used with offline mode",
        "remove `offline = true` or `-o`: install-from-cache alone is what makes the build offline",
    ),
    ("can't install one in offline (no-install) mode", "use `install-from-cache = true` and `-N` instead of `-o`"),
];

/// Reads the last lines of a failed build and says what is to be done, where that is known.
#[must_use]
pub fn explain(tail: &[String]) -> Option<String> {
    tail.iter().rev().find_map(|line| {
        let (rest, meaning) = MEANINGS.iter().find_map(|(sign, meaning)| line.split_once(sign).map(|(_, rest)| (rest, meaning)))?;
        let name = rest.split('\'').nth(1).unwrap_or_else(|| rest.trim());
        Some(meaning.replace("{}", &format!("`{name}`")))
    })
}

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

    fn build(&mut self, build: &Build) {
        self.field(&build.recipe);
        match &build.command {
            Command::Shell(text) => self.list(&["sh", text]),
            Command::Argv(argv) => {
                self.field("argv");
                self.list(argv);
            }
        }
        let variables: Vec<&str> = build.env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
        self.list(&variables);
        self.field(build.venv.as_ref().map_or("", |venv| venv.as_str()));
    }
}
