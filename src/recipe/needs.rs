//! What a revision needs is named by a key: of the recipe, and of the files that decide it. Two revisions that agree in them share a set.

use super::{Key, Recipe};
use crate::config::environment::{Build, Environment};
use crate::tree::{Digest, Entry, Kind, Manifest};

/// How much of a key names a directory.
const SHORT: usize = 16;

/// Names what a tree needs to be built in an environment; none where it has no build or no cache.
#[must_use]
pub fn set_key(environment: &Environment, tree: &Manifest) -> Option<Digest> {
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
    let inputs: Vec<&Entry> = tree.entries().iter().filter(|entry| is_input(build, recipe, entry)).collect();
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
    fn patterns_cross_no_directory() {
        assert!(fits("requirements*.txt", b"requirements.txt") && fits("requirements*.txt", b"requirements-dev.txt"));
        assert!(fits("*.cfg", b"offline.cfg") && fits("requirements/*", b"requirements/base.txt"));
        assert!(!fits("*.cfg", b"etc/offline.cfg") && !fits("Cargo.lock", b"Cargo.lock.orig"));
    }
}
