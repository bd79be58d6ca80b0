//! What only a tool with many hosts can tell of a build that lacks a package: whether the caches of the other hosts have it.

use sha2::{Digest as _, Sha256};

use super::fill_command;
use crate::command::failure::HostFailure;
use crate::config::environment::{Environment, Network};
use crate::config::ranges;
use crate::event::Step;
use crate::figures::counted;
use crate::fleet::each;
use crate::git::Artifact;
use crate::host::Host;
use crate::provision::cache as caches;
use crate::recipe::{self, Lack, Recipe};
use crate::tree::Manifest;

/// Compares the cache of each host whose build lacks a package with those of its peers, and says in the hint of its failure what came
/// out. A host whose cache cannot be listed keeps the hint it had, and a build that asks the package index is none of the cache's.
pub async fn explain_lacking(environment: &Environment, tree: &Artifact, failures: &mut [HostFailure], hosts: &[Host]) {
    let Some(cache) = &environment.cache else { return };
    let way = |name: &str| hosts.iter().find(|host| host.name() == name).map_or(environment, |host| environment.of(host.target()));
    let lack = |failure: &HostFailure| {
        let is_offline = way(&failure.host).build.as_ref().is_some_and(|build| build.network != Network::Index);
        (failure.step == Step::Build && is_offline).then(|| recipe::lack(&failure.tail)).flatten()
    };
    if !failures.iter().any(|failure| lack(failure).is_some()) {
        return;
    }
    let listed = each(hosts, 64, |host| caches::gather(host, cache.on(host.target()).as_str(), false)).await;
    let failing: Vec<String> = failures.iter().filter(|failure| lack(failure).is_some()).map(|failure| failure.host.clone()).collect();
    let caches: Vec<(&str, Manifest)> = hosts.iter().zip(listed).filter_map(|(host, list)| Some((host.name(), list.ok()?))).collect();
    for failure in failures {
        let Some(mut lack) = lack(failure) else { continue };
        // Whoever has it: a deploy sends what is known to be needed, so this is not.
        failure.fix = Some(fill_command(environment));
        let Some((_, own)) = caches.iter().find(|(host, _)| *host == failure.host) else { continue };
        let place = place(way(&failure.host), tree);
        // Where each set has a directory of its own, one that is not there says more than the first file that was asked for.
        if matches!(lack, Lack::Npm { .. } | Lack::Crate(_)) && !holds(own, &place, &Lack::Set) {
            lack = Lack::Set;
        }
        // It is there and is not found: for another platform, or in another version than what is resolved.
        if holds(own, &place, &lack) {
            if let Lack::Python(name) = &lack {
                let here = format!("`{name}` is in the shared download cache of {}", failure.host);
                failure.hint = Some(format!("{here}, but in no version and for no Python that its build could use"));
            }
            failure.fix = Some(format!("{} -H {}", fill_command(environment), failure.host));
            continue;
        }
        let peers: Vec<&(&str, Manifest)> = caches.iter().filter(|(host, _)| *host != failure.host).collect();
        let having: Vec<&(&str, Manifest)> = peers.iter().copied().filter(|(_, list)| holds(list, &place, &lack)).collect();
        let here = match lack.name() {
            Some(name) => format!("the build is offline and `{name}` is not in the shared download cache of {}", failure.host),
            None => format!("the build is offline and what this revision needs is not in the shared download cache of {}", failure.host),
        };
        let there = match having.as_slice() {
            // Whoever else lacks it is named beside this one.
            [] if peers.iter().all(|(host, _)| failing.iter().any(|other| other == host)) => String::new(),
            [] => ", nor in that of any other host".to_owned(),
            [(_, first), ..] => {
                let names: Vec<&str> = having.iter().map(|(host, _)| *host).collect();
                let who = match (having.len() == peers.len(), having.len()) {
                    (_, 1) => format!("{} has it", names[0]),
                    (true, count) => format!("the other {count} hosts have it"),
                    (false, _) => format!("{} have it", ranges::fold(&names)),
                };
                format!("; {who} ({} there, {} here)", counted(first.totals().0, "file"), own.totals().0)
            }
        };
        failure.is_everywhere = having.is_empty() && !peers.is_empty();
        failure.hint = Some(format!("{here}{there}"));
    }
}

/// Where the files of a tree lie below the caches.
fn place(environment: &Environment, tree: &Artifact) -> String {
    let recipe = environment.build.as_ref().and_then(|build| Recipe::find(&build.recipe));
    recipe.zip(super::set_key(environment, tree)).map_or_else(String::new, |(recipe, key)| recipe::place(recipe, key))
}

/// Tells whether a cache whose files are listed has what a build lacked, in the directory of the build's set.
fn holds(list: &Manifest, place: &str, lack: &Lack) -> bool {
    let paths = || list.entries().iter().map(|entry| entry.path.to_string());
    let in_place = || paths().filter_map(|path| Some(path.strip_prefix(place)?.strip_prefix('/')?.to_owned()));
    match lack {
        Lack::Set => in_place().next().is_some(),
        Lack::Python(package) => paths().any(|path| is_of(&path, package)),
        Lack::Npm { url, .. } => {
            let wanted = npm_entry(url);
            in_place().any(|path| path == wanted)
        }
        Lack::Crate(named) => in_place().any(|path| is_of_crate(&path, named)),
        // What is there and of no use is there.
        Lack::Unfit(_) => true,
    }
}

/// Where npm's cache keeps what it was answered at an address: cacache names the entry by the digest of its key.
fn npm_entry(url: &str) -> String {
    let digest = Sha256::digest(format!("make-fetch-happen:request-cache:{url}"));
    let digest = crate::tree::Digest(digest.into()).to_string();
    format!("_cacache/index-v5/{}/{}/{}", &digest[..2], &digest[2..4], &digest[4..])
}

/// Tells whether a vendored file is of a crate: `itoa 1.0.11` in `itoa-1.0.11`, or `itoa` of any version.
fn is_of_crate(path: &str, named: &str) -> bool {
    let directory = path.split('/').next().unwrap_or_default();
    let mut words = named.split(' ');
    let name = words.next().unwrap_or_default();
    let Some(version) = directory.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')) else { return directory == name };
    words.next().map_or_else(|| version.starts_with(|c: char| c.is_ascii_digit()), |wanted| wanted == version)
}

/// Tells whether a file is of a Python package: `lxml==5.3.1`, or `lxml>=5` of any version.
fn is_of(path: &str, package: &str) -> bool {
    let end = package.find(|c: char| "<>=!~[ ;".contains(c)).unwrap_or(package.len());
    let version = package.split_once("==").map(|(_, version)| version.trim()).filter(|version| !version.contains(['*', ',']));
    let wanted = format!("{}-", normal(&package[..end]));
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some(rest) = start_of(name, &wanted) else { return false };
    version.map_or_else(|| rest.starts_with(|c: char| c.is_ascii_digit()), |version| rest.strip_prefix(version).is_some_and(ends_a_version))
}

/// Tells whether the version was whole before `rest`: `5.3` is not that of `5.3.1.tar.gz`.
fn ends_a_version(rest: &str) -> bool {
    rest.starts_with(['-', '+']) || [".tar.", ".tgz", ".zip", ".whl", ".egg"].iter().any(|end| rest.starts_with(end))
}

/// What follows a package's name in the name of its file.
fn start_of<'a>(name: &'a str, wanted: &str) -> Option<&'a str> {
    let (at, _) = name.char_indices().find(|(at, c)| "-_.".contains(*c) && normal(&name[..=*at]) == wanted)?;
    Some(&name[at + 1..])
}

/// Python's own normal form of a name: runs of `-`, `_` and `.` are one `-`, and case does not count.
fn normal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            other => out.push(other.to_ascii_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Digest, Entry, Kind, TreePath};

    fn list(paths: &[&str]) -> Manifest {
        let entry = |path: &&str| Entry {
            path: TreePath::new(path.as_bytes()).unwrap(),
            kind: Kind::File { mode: 0o644, size: 1, digest: Digest([0; 32]), mtime: 0 },
        };
        Manifest::from_unsorted(paths.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn files_are_known_by_the_package_they_are_of() {
        let files = list(&[
            "dist/lxml-5.3.1-cp311-cp311-manylinux1_x86_64.whl",
            "dist/zc_recipe_egg-6.0.0-py3-none-any.whl",
            "dist/Zope-5.1.tar.gz",
        ]);
        let holds = |package: &str| holds(&files, "dist", &Lack::Python(package.to_owned()));
        for package in ["lxml==5.3.1", "lxml", "LXML>=5", "zc.recipe.egg==6.0.0", "zc-recipe-egg", "zope==5.1"] {
            assert!(holds(package), "{package}");
        }
        for package in ["lxml==5.3", "lxml==5.3.11", "zc.recipe", "zope==5", "zope.interface", "recipe.egg==6.0.0"] {
            assert!(!holds(package), "{package}");
        }
    }

    #[test]
    fn what_npm_was_answered_is_known_by_the_address() {
        let url = "https://registry.example.net/left-pad".to_owned();
        let lack = Lack::Npm { package: "left-pad".to_owned(), url };
        let entry = "_cacache/index-v5/7f/bc/f049bfc8fb4cac5b0b8ab0e1ec98163b2b5ab4cdda89e9f3a5570547e964";
        assert!(holds(&list(&[&format!("npm/9b7b/{entry}")]), "npm/9b7b", &lack));
        assert!(!holds(&list(&[&format!("npm/ffff/{entry}")]), "npm/9b7b", &lack));
        assert!(!holds(&list(&[&format!("npm/9b7b/{}", entry.replace("7f", "7e"))]), "npm/9b7b", &lack));
    }

    #[test]
    fn a_vendored_crate_is_known_by_its_directory_in_the_set_of_the_revision() {
        let files =
            list(&["cargo/9b7b/itoa-1.0.11/src/lib.rs", "cargo/9b7b/serde_json-1.0.1/Cargo.toml", "cargo/ffff/ryu-1.0.0/Cargo.toml"]);
        let holds = |named: &str| holds(&files, "cargo/9b7b", &Lack::Crate(named.to_owned()));
        for named in ["itoa", "itoa 1.0.11", "serde_json 1.0.1"] {
            assert!(holds(named), "{named}");
        }
        for named in ["itoa 1.0.1", "serde", "serde_json 1.0.2", "ryu", "ryu 1.0.0"] {
            assert!(!holds(named), "{named}");
        }
        for (place, is_there) in [("cargo/9b7b", true), ("cargo/9b7", false), ("cargo/1234", false)] {
            assert_eq!(super::holds(&files, place, &Lack::Set), is_there, "{place}");
        }
    }
}
