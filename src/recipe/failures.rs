//! How the typical failure of an offline build is read: what it lacks, in the words of the tool that lacked it, and what is to be done.
//!
//! A `Lack` is what a fill of the cache mends; `MEANINGS` are whatever else is typical. `tests` holds what the tools really print.

#[cfg(test)]
mod tests;

/// What an offline build did not find where its packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Anything at all for its revision.
    Set,
    /// A Python requirement: `lxml==5.3.1`.
    Python(String),
    /// A package of npm's: `left-pad`, or `left-pad@1.3.0`, and the address that npm's cache has no answer of.
    Npm { package: String, url: String },
    /// A crate as cargo names it: `itoa`, or `itoa 1.0.11`.
    Crate(String),
    /// Something that is there, and is not what it should be.
    Unfit(String),
}

/// What a typical line of a failed build means, where its packages come from the cache and where they come through the index.
const MEANINGS: &[(&str, &str, Option<&str>)] = &[
    (
        "No solution found when resolving",
        "uv finds no set of packages in the cache that goes together: its own words above say why",
        Some("uv finds no set of packages in the package index that goes together: its own words above say why"),
    ),
    (
        "code ENOTCACHED",
        "npm's cache lacks a package of package-lock.json: fill the cache for this revision, then run the same command again",
        None,
    ),
    same("was passed to prevent this", "commit the Cargo.lock that goes with Cargo.toml: the build does not write it"),
    same("pkg_resources.VersionConflict", "pin zc.recipe.egg in [versions] to the version that goes with this zc.buildout"),
    same("No module named 'pkg_resources'", "pin setuptools below 82 in the virtual environment: this zc.buildout needs pkg_resources"),
    same(
        "install-from-cache can't be used with offline mode",
        "remove `offline = true` or `-o`: install-from-cache alone is what makes the build offline",
    ),
    same("can't install one in offline (no-install) mode", "use `install-from-cache = true` and `-N` instead of `-o`"),
    same("No module named ensurepip", "install the package python3-venv on the host"),
];

const MISSING: &str = "{} is not in the shared download cache: put it there, then run the same command again";
const UNKNOWN: &str = "the package index has no {}: correct the name or the version, or let `[index]` name an upstream that has it";

const fn same(sign: &'static str, meaning: &'static str) -> (&'static str, &'static str, Option<&'static str>) {
    (sign, meaning, Some(meaning))
}

/// Signs of a Python package that a build did not find, before its name.
const LACKING: [&str; 3] = [
    "Couldn't find a distribution for ",
    "No matching distribution found for ",
    "Could not find a version that satisfies the requirement ",
];

/// Lines that tell of something that is there and is of no use: what stands before its name, what else is in the line, and what it means.
const UNFIT: [(&str, &str, &str); 5] = [
    ("Hash mismatch for ", "==", "{} in the cache is not the file that uv.lock names"),
    ("Invalid response body while trying to fetch ", "://", "{} is damaged in npm's cache"),
    ("the listed checksum of ", " has changed", "{} is not as it was vendored"),
    ("unable to verify that ", " when the lockfile was generated", "the vendored {} is not the one that Cargo.lock names"),
    ("failed to get ", " as a dependency of package ", "{} cannot be read from the vendored crates"),
];

/// Signs that a build found no place with files for its revision.
const NO_SET: [&str; 2] = ["Failed to read `--find-links` directory", "failed to read root of directory source"];

/// Reads the last lines of a failed build and says what is to be done, where that is known.
#[must_use]
pub fn explain(tail: &[String], from_index: bool) -> Option<String> {
    let told = lack(tail).and_then(|lack| lack.told(tail, from_index));
    told.or_else(|| {
        tail.iter().rev().find_map(|line| {
            let (_, of_cache, of_index) = MEANINGS.iter().find(|(sign, ..)| line.contains(sign))?;
            if from_index { of_index.map(str::to_owned) } else { Some((*of_cache).to_owned()) }
        })
    })
}

/// Reads the last lines of a failed build for what it lacks and a fill brings.
#[must_use]
pub fn lack(tail: &[String]) -> Option<Lack> {
    let python = lacking(tail).pop().map(Lack::Python);
    let none = || tail.iter().any(|line| NO_SET.iter().any(|sign| line.contains(sign)) || is_copy_of_no_set(line));
    let other = || tail.iter().rev().find_map(|line| uncached(line).or_else(|| unvendored(line)));
    python.or_else(|| none().then_some(Lack::Set)).or_else(other).or_else(|| unfit(tail).map(|(name, _)| Lack::Unfit(name)))
}

impl Lack {
    /// What is missing, by its name; none where that is everything.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Set => None,
            Self::Npm { package: name, .. } | Self::Python(name) | Self::Crate(name) | Self::Unfit(name) => Some(name),
        }
    }

    /// What is to be done, as far as the build alone tells.
    fn told(&self, tail: &[String], from_index: bool) -> Option<String> {
        let text = match (self, from_index) {
            (Self::Python(_), false) => MISSING.to_owned(),
            (Self::Python(_) | Self::Crate(_), true) => UNKNOWN.to_owned(),
            (Self::Set | Self::Npm { .. } | Self::Unfit(_), true) => return None,
            (Self::Set, false) => filled_again("the shared download cache has nothing for this revision"),
            (Self::Npm { .. }, false) => filled_again("{} is not in npm's cache"),
            (Self::Crate(_), false) => filled_again("{} is not in the vendored crates"),
            (Self::Unfit(_), false) => filled_again(&unfit(tail)?.1),
        };
        Some(text.replace("{}", &format!("`{}`", self.name().unwrap_or_default())))
    }
}

fn filled_again(what: &str) -> String {
    format!("{what}: fill the cache for this revision, then run the same command again")
}

/// Names the Python packages that a failed build did not find, each as a requirement: `lxml==5.3.1`.
#[must_use]
pub fn lacking(tail: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let of_pip = tail.iter().filter_map(|line| LACKING.iter().find_map(|sign| line.split_once(sign).map(|(_, rest)| rest)));
    let named = of_pip.map(|rest| name(rest.split(" (from").next().unwrap_or(rest)));
    for name in named.chain(unresolved(&flowing(tail))) {
        if is_requirement(&name) && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The text in one line: uv before 0.10 draws a tree and breaks what it says at 80 characters.
fn flowing(tail: &[String]) -> String {
    let words = tail.iter().flat_map(|line| line.split_whitespace());
    words.filter(|word| !["×", "╰─▶", "├─▶", "│"].contains(word)).collect::<Vec<_>>().join(" ")
}

/// What uv did not find, from the sentences by which it proves that there is no solution.
fn unresolved(text: &str) -> Vec<String> {
    if !text.contains("No solution found when resolving") {
        return Vec::new();
    }
    let reasons = text.split("Because ").skip(1).filter_map(|reason| reason.split(", we can conclude").next());
    reasons.filter_map(wanted).map(str::to_owned).collect()
}

/// The requirement that a reason of uv's is about: `there is no version of x==1 and you require x==1`, `x was not found in the cache and y
/// depends on x>=1`, `only x==1 is available and you require x>=2`.
fn wanted(reason: &str) -> Option<&str> {
    if let Some((_, rest)) = reason.split_once("there is no version of ") {
        return first_word(rest);
    }
    let signs = [" require ", " depends on ", " depend on "];
    let mut asked = signs.into_iter().flat_map(|sign| reason.split(sign).skip(1).filter_map(first_word));
    if let Some((before, _)) = reason.split_once(" was not found in the ") {
        let name = before.split(' ').next_back()?;
        let is_of = |asked: &&str| asked.strip_prefix(name).is_some_and(|rest| rest.starts_with(['=', '<', '>', '!', '~', '[']));
        return asked.find(is_of).or(Some(name));
    }
    if reason.starts_with("only ") && reason.contains(" available") { asked.next() } else { None }
}

fn first_word(text: &str) -> Option<&str> {
    text.split(' ').next().map(|word| word.trim_end_matches(','))
}

/// What npm asked of its cache alone, by the address it would have asked otherwise.
fn uncached(line: &str) -> Option<Lack> {
    let (_, rest) = line.split_once("request to ")?;
    let (url, _) = rest.split_once(" failed: cache mode is 'only-if-cached'")?;
    Some(Lack::Npm { package: package_of(url)?, url: url.to_owned() })
}

/// The package that an address of an npm registry is of: `…/@types%2fms`, `…/left-pad/-/left-pad-1.3.0.tgz`.
fn package_of(url: &str) -> Option<String> {
    let path = url.split_once("://")?.1.split(['?', '#']).next()?.replace("%2f", "/").replace("%2F", "/");
    let (project, file) = path.split_once("/-/").map_or((path.as_str(), None), |(project, file)| (project, Some(file)));
    let mut parts = project.rsplit('/');
    let own = parts.next().filter(|own| !own.is_empty())?;
    let scope = parts.next().filter(|scope| scope.starts_with('@'));
    let version = file.and_then(|file| file.strip_suffix(".tgz")?.strip_prefix(own)?.strip_prefix('-'));
    let version = version.map(|version| format!("@{version}")).unwrap_or_default();
    Some(scope.map_or_else(|| format!("{own}{version}"), |scope| format!("{scope}/{own}{version}")))
}

/// The crate that cargo found no directory of, or none of the version it is locked to.
fn unvendored(line: &str) -> Option<Lack> {
    if let Some((_, rest)) = line.split_once("no matching package named ") {
        return Some(Lack::Crate(name(rest)));
    }
    let (_, rest) = line.split_once("failed to select a version for the requirement ")?;
    let requirement = name(rest);
    let locked = rest.split_once("(locked to ").and_then(|(_, rest)| rest.split(')').next());
    let package = requirement.split_whitespace().next()?;
    Some(Lack::Crate(locked.map_or_else(|| requirement.clone(), |version| format!("{package} {version}"))))
}

/// What is there and cannot be used, and what is to be said of it.
fn unfit(tail: &[String]) -> Option<(String, String)> {
    // `Because tabulate==0.9.0 has no wheels with a matching Python implementation tag …`
    if let Some((before, _)) = flowing(tail).split_once(" has no wheels with a matching ") {
        let name = before.split_whitespace().next_back().unwrap_or_default();
        return Some((name.to_owned(), "{} is in the cache for another Python or platform only".to_owned()));
    }
    tail.iter().rev().find_map(|line| {
        let (sign, _, meaning) = UNFIT.iter().find(|(sign, more, _)| line.contains(sign) && line.contains(more))?;
        let rest = line.split_once(sign).map_or("", |(_, rest)| rest);
        let name = if rest.contains("://") { package_of(rest.split(": ").next()?)? } else { name(rest) };
        Some((name, (*meaning).to_owned()))
    })
}

/// npm's build copies the directory of its set, which is called by sixteen digits: `cp: cannot stat '…/npm/9b7b…': No such file`.
fn is_copy_of_no_set(line: &str) -> bool {
    let is_set = |path: &str| {
        let (above, set) = path.rsplit_once('/').unwrap_or_default();
        above.ends_with("/npm") && set.len() == 16 && set.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    line.starts_with("cp: ") && line.contains("No such file") && line.split(['\'', '\u{2018}', '\u{2019}', ' ']).any(is_set)
}

/// The text between quotes or backticks, else the first words.
fn name(rest: &str) -> String {
    let quoted = rest.split(['\'', '`']).nth(1).filter(|name| !name.is_empty());
    quoted.unwrap_or_else(|| rest.trim()).trim().trim_end_matches('.').to_owned()
}

/// What a build printed becomes an argument of a fill: only what can be nothing but a requirement does.
fn is_requirement(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-[],<>=!~+* ".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() < 200 && text.chars().all(plain)
}
