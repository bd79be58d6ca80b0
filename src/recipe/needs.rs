//! What a revision needs is named by a key: of the recipe, and of the files that decide it. Two revisions that agree in them share a set.

use std::collections::BTreeSet;

use super::pins::parse;
use super::{Key, Recipe};
use crate::config::environment::{Build, Environment};
use crate::tree::{Digest, Entry, Kind, Manifest};

/// The files that say what a Python project needs.
const PROJECT: [&str; 3] = ["pyproject.toml", "setup.py", "setup.cfg"];
/// How much of a key names a directory.
const SHORT: usize = 16;

/// Names what a tree needs to be built in an environment; none where it has no build or no cache. `read` gives the text of a file of it.
#[must_use]
pub fn set_key(environment: &Environment, tree: &Manifest, read: &dyn Fn(&str) -> Option<String>) -> Option<Digest> {
    let (build, cache) = (environment.build.as_ref()?, environment.cache.as_ref()?);
    let recipe = Recipe::find(&build.recipe)?;
    let mut key = Key(Vec::new());
    key.field("cache set 1");
    key.field(&build.recipe);
    key.field(build.config.as_deref().unwrap_or_default());
    match &cache.fill {
        None => key.field("the recipe's own"),
        Some(command) => key.command(command),
    }
    let inputs = inputs(build, recipe, tree, read);
    if inputs.is_empty() {
        key.field(tree.tree_digest().0);
    }
    for entry in inputs {
        key.field(entry.path.as_bytes());
        match &entry.kind {
            Kind::File { digest, .. } => key.field(digest.0),
            Kind::Link { target } => key.field(target),
            Kind::Directory => {}
        }
    }
    Some(Digest::of(&key.0))
}

/// The files that decide what is needed: those that the recipe names, and what they lead to, in the order of the tree.
fn inputs<'a>(build: &Build, recipe: &Recipe, tree: &'a Manifest, read: &dyn Fn(&str) -> Option<String>) -> Vec<&'a Entry> {
    let entries = tree.entries();
    let mut found: BTreeSet<usize> = (0..entries.len()).filter(|index| is_input(build, recipe, &entries[*index])).collect();
    let mut left: Vec<usize> = found.iter().copied().collect();
    while let Some(index) = left.pop() {
        let Ok(path) = std::str::from_utf8(entries[index].path.as_bytes()) else { continue };
        if !["cfg", "txt", "in", "toml", "py"].iter().any(|end| path.rsplit_once('.').is_some_and(|(_, own)| own == *end)) {
            continue;
        }
        let Some(text) = read(path) else { continue };
        for pattern in references(path, &text) {
            let named: Vec<usize> = if pattern.contains('*') {
                (0..entries.len()).filter(|other| fits(&pattern, entries[*other].path.as_bytes())).collect()
            } else {
                entries.binary_search_by(|entry| entry.path.as_bytes().cmp(pattern.as_bytes())).into_iter().collect()
            };
            left.extend(named.into_iter().filter(|other| found.insert(*other)));
        }
    }
    found.into_iter().map(|index| &entries[index]).collect()
}

/// Where a file leads to what it needs, as patterns of paths: the configs that it extends, the requirements that it includes, and the
/// projects beside it that are built with it.
fn references(path: &str, text: &str) -> Vec<String> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    let mut found = Vec::new();
    let mut file = |named: &str| found.extend(below(directory, named));
    let of_project = |named: &str| PROJECT.map(|part| format!("{named}/{part}"));
    if PROJECT.contains(&name) {
        // Such as `install_requires = file: requirements.in`, or a `setup.py` that reads it.
        let words = text.split(|c: char| c.is_whitespace() || "\"'`=:,;()[]{}".contains(c));
        words.filter(|word| word.contains("require") && word.contains('.')).for_each(&mut file);
    }
    if end == "cfg" {
        let options = parse(text).remove("buildout").unwrap_or_default();
        let words = |option: &str| options.get(option).map(String::as_str).unwrap_or_default().split_whitespace();
        words("extends").for_each(&mut file);
        words("develop").flat_map(of_project).for_each(|part| file(&part));
    } else if ["txt", "in"].contains(&end) {
        for line in text.lines() {
            let mut words = line.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
            match words.next() {
                Some("-r" | "--requirement" | "-c" | "--constraint") => words.next().into_iter().for_each(&mut file),
                Some("-e" | "--editable") => words.next().into_iter().flat_map(of_project).for_each(|part| file(&part)),
                // Whatever names a directory is a project in it.
                Some(word) if word.starts_with('.') || word.contains('/') => of_project(word).iter().for_each(|part| file(part)),
                Some(word) => ["-r", "-c"].iter().filter_map(|flag| word.strip_prefix(flag)).for_each(&mut file),
                None => {}
            }
        }
    }
    found
}

/// A path as it is named in a file of `directory`; none where it leads out of the tree, or is no path of it.
fn below(directory: &str, named: &str) -> Option<String> {
    if named.starts_with('/') || named.contains("://") {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(named.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn is_input(build: &Build, recipe: &Recipe, entry: &Entry) -> bool {
    let path = entry.path.as_bytes();
    build.config.as_ref().is_some_and(|config| config.as_bytes() == path) || recipe.fill.inputs.iter().any(|pattern| fits(pattern, path))
}

/// Where the files of a set lie below the cache.
#[must_use]
pub fn place(recipe: &Recipe, key: Digest) -> String {
    recipe.fill.place.replace("{set}", &key.to_string()[..SHORT])
}

/// Finds the recipe that a tree asks for by what lies at its top.
#[must_use]
pub fn detect(tree: &Manifest) -> Option<&'static Recipe> {
    super::ALL.iter().find(|recipe| recipe.signs.iter().any(|sign| tree.entries().iter().any(|entry| fits(sign, entry.path.as_bytes()))))
}

/// Compares a path with a pattern in which one `*` stands for anything but a slash.
fn fits(pattern: &str, path: &[u8]) -> bool {
    match pattern.split_once('*') {
        None => path == pattern.as_bytes(),
        Some((start, end)) => path
            .strip_prefix(start.as_bytes())
            .and_then(|rest| rest.strip_suffix(end.as_bytes()))
            .is_some_and(|middle| !middle.contains(&b'/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::TreePath;

    fn tree(files: &[(&str, &str)]) -> Manifest {
        let entry = |(path, text): &(&str, &str)| Entry {
            path: TreePath::new(path.as_bytes()).unwrap(),
            kind: Kind::File { mode: 0o644, size: text.len() as u64, digest: Digest::of(text.as_bytes()), mtime: 0 },
        };
        Manifest::from_unsorted(files.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn a_tree_is_recognised_by_what_lies_at_its_top() {
        let name = |files: &[(&str, &str)]| detect(&tree(files)).map(|recipe| recipe.name);
        assert_eq!(name(&[("buildout.cfg", ""), ("requirements.txt", "")]), Some("buildout"));
        assert_eq!(name(&[("requirements-dev.txt", "")]), Some("pip"));
        assert_eq!(name(&[("uv.lock", ""), ("requirements.txt", "")]), Some("uv"));
        assert_eq!(name(&[("package-lock.json", "")]), Some("npm"));
        assert_eq!(name(&[("Cargo.lock", "")]), Some("cargo"));
        assert_eq!(name(&[("sub/Cargo.lock", ""), ("Makefile", "")]), None);
    }

    #[test]
    fn what_a_config_or_a_list_leads_to_decides_too() {
        for (path, text, expected) in [
            (
                "buildout.cfg",
                "[buildout]\nextends =\n  base/versions.cfg\n  https://example.net/x.cfg\ndevelop = . src/lib\n",
                &[
                    "base/versions.cfg",
                    "pyproject.toml",
                    "setup.py",
                    "setup.cfg",
                    "src/lib/pyproject.toml",
                    "src/lib/setup.py",
                    "src/lib/setup.cfg",
                ][..],
            ),
            ("base/versions.cfg", "[buildout]\nextends = ../more.cfg ../../out.cfg\n", &["more.cfg"]),
            (
                "requirements.txt",
                "-r deps/base.txt\n--constraint=pins.txt\n-cmore.txt\nlxml==5.3.1\n# -r no.txt\n",
                &["deps/base.txt", "pins.txt", "more.txt"],
            ),
            (
                "deps/base.txt",
                "-r ../other.in\n-e ./lib\n",
                &["other.in", "deps/lib/pyproject.toml", "deps/lib/setup.py", "deps/lib/setup.cfg"],
            ),
            ("requirements.txt", ".\n", &["pyproject.toml", "setup.py", "setup.cfg"]),
            ("setup.cfg", "install_requires = file: requirements.in\nlong_description = file: README.txt\n", &["requirements.in"]),
            ("setup.py", "setup(install_requires=open('deps/require.txt').read())", &["deps/require.txt"]),
            ("package.json", "-r other.txt", &[]),
        ] {
            assert_eq!(references(path, text), expected, "{path}");
        }
    }

    #[test]
    fn patterns_cross_no_directory() {
        assert!(fits("requirements*.txt", b"requirements.txt") && fits("requirements*.txt", b"requirements-dev.txt"));
        assert!(fits("*.cfg", b"offline.cfg") && fits("requirements/*", b"requirements/base.txt"));
        assert!(!fits("*.cfg", b"etc/offline.cfg") && !fits("Cargo.lock", b"Cargo.lock.orig"));
    }
}
