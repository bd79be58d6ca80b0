//! How the typical failure of an offline build is read: what is missing, and what is to be done.

/// What a typical line of a failed build means, where its packages come from the cache and where they come through the index. `{}` is the
/// name that the line tells.
const MEANINGS: [(&str, &str, Option<&str>); 11] = [
    ("Couldn't find a distribution for", MISSING, Some(UNKNOWN)),
    ("No matching distribution found for", MISSING, Some(UNKNOWN)),
    (
        "No solution found when resolving dependencies",
        "uv finds no set of packages in the cache: what it lacks is named below that line",
        Some("uv finds no set of packages in the package index: what it lacks is named below that line"),
    ),
    (
        "npm error code ENOTCACHED",
        "npm's cache lacks a package of package-lock.json: fill the cache for this revision, then run the same command again",
        None,
    ),
    (
        "no matching package named",
        "{} is not in the vendored crates: fill the cache for this revision, then run the same command again",
        Some(UNKNOWN),
    ),
    same("pkg_resources.VersionConflict", "pin zc.recipe.egg in [versions] to the version that goes with this zc.buildout"),
    same("No module named 'pkg_resources'", "pin setuptools below 82 in the virtual environment: this zc.buildout needs pkg_resources"),
    same(
        "install-from-cache can't be used with offline mode",
        "remove `offline = true` or `-o`: install-from-cache alone is what makes the build offline",
    ),
    same("can't install one in offline (no-install) mode", "use `install-from-cache = true` and `-N` instead of `-o`"),
    ("failed to get `", "{} is not in the vendored crates: fill the cache for this revision, then run the same command again", None),
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

/// Reads the last lines of a failed build and says what is to be done, where that is known.
#[must_use]
pub fn explain(tail: &[String], from_index: bool) -> Option<String> {
    tail.iter().rev().find_map(|line| {
        let (sign, of_cache, of_index) = MEANINGS.iter().find(|(sign, ..)| line.contains(sign))?;
        let meaning = if from_index { (*of_index)? } else { of_cache };
        let rest = line.split_once(sign).map_or("", |(_, rest)| rest);
        Some(meaning.replace("{}", &format!("`{}`", name(rest))))
    })
}

/// Names the Python packages that a failed build did not find, each as a requirement: `lxml==5.3.1`.
#[must_use]
pub fn lacking(tail: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in tail {
        let Some(rest) = LACKING.iter().find_map(|sign| line.split_once(sign).map(|(_, rest)| rest)) else { continue };
        let name = name(rest.split(" (from").next().unwrap_or(rest));
        if is_requirement(&name) && !found.contains(&name) {
            found.push(name);
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_line_that_means_something_is_explained() {
        let tail = lines("Getting distribution\nError: Couldn't find a distribution for 'lxml==5.3.1'.\n");
        let hint = explain(&tail, false).unwrap();
        assert!(hint.starts_with("`lxml==5.3.1` is not in the shared download cache"), "{hint}");
        let hint = explain(&tail, true).unwrap();
        assert!(hint.starts_with("the package index has no `lxml==5.3.1`"), "{hint}");
        let hint = explain(&lines("error: no matching package named `itoa` found\n"), false).unwrap();
        assert!(hint.starts_with("`itoa` is not in the vendored crates"), "{hint}");
        for from_index in [false, true] {
            let hint = explain(&lines("No module named ensurepip\n"), from_index).unwrap();
            assert_eq!(hint, "install the package python3-venv on the host");
        }
        assert_eq!(explain(&lines("npm error code ENOTCACHED\n"), true), None);
        assert_eq!(explain(&lines("make: *** [all] Error 2\n"), false), None);
    }

    #[test]
    fn what_is_lacking_is_named_once_and_only_as_a_requirement() {
        let tail = "ERROR: Could not find a version that satisfies the requirement hatchling>=1.18 (from versions: none)\n\
                    ERROR: No matching distribution found for hatchling>=1.18\n\
                    Error: Couldn't find a distribution for 'lxml==5.3.1'.\n\
                    ERROR: No matching distribution found for --index-url=http://evil\n\
                    ERROR: No matching distribution found for ../evil\n";
        assert_eq!(lacking(&lines(tail)), ["hatchling>=1.18", "lxml==5.3.1"]);
    }
}
