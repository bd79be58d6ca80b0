//! What only a tool with many hosts can tell of a build that lacks a package: whether the caches of the other hosts have it.

use super::fill_command;
use crate::command::failure::HostFailure;
use crate::config::environment::{Environment, Network};
use crate::config::ranges;
use crate::event::Step;
use crate::figures::counted;
use crate::fleet::each;
use crate::host::Host;
use crate::provision::cache as caches;
use crate::recipe;
use crate::tree::Manifest;

/// Compares the cache of each host whose build lacks a package with those of its peers, and says in the hint of its failure what came
/// out. A host whose cache cannot be listed keeps the hint it had, and so does one whose build asks the package index.
pub async fn explain_lacking(environment: &Environment, failures: &mut [HostFailure], hosts: &[Host]) {
    let Some(cache) = &environment.cache else { return };
    let has_index = |host: &Host| environment.of(host.target()).build.as_ref().is_some_and(|build| build.network == Network::Index);
    let is_offline = |name: &str| hosts.iter().all(|host| host.name() != name || !has_index(host));
    let lacks = |failure: &HostFailure| {
        let is_build = failure.step == Step::Build && is_offline(&failure.host);
        is_build.then(|| recipe::lacking(&failure.tail).into_iter().next_back()).flatten()
    };
    if !failures.iter().any(|failure| lacks(failure).is_some()) {
        return;
    }
    let listed = each(hosts, 64, |host| caches::gather(host, cache.on(host.target()).as_str(), false)).await;
    let caches: Vec<(&str, Manifest)> = hosts.iter().zip(listed).filter_map(|(host, list)| Some((host.name(), list.ok()?))).collect();
    for failure in failures {
        let Some(package) = lacks(failure) else { continue };
        let Some((_, own)) = caches.iter().find(|(host, _)| *host == failure.host) else { continue };
        // It is there and is not found: for another platform, or in another version than what is resolved. The cache is not to blame.
        if holds(own, &package) {
            continue;
        }
        let peers: Vec<&(&str, Manifest)> = caches.iter().filter(|(host, _)| *host != failure.host).collect();
        let having: Vec<&(&str, Manifest)> = peers.iter().copied().filter(|(_, list)| holds(list, &package)).collect();
        let here = format!("the build is offline and `{package}` is not in the shared download cache of {}", failure.host);
        let (there, fix) = match having.as_slice() {
            [] if peers.is_empty() => (String::new(), fill_command(environment)),
            [] => (", nor in that of any other host".to_owned(), fill_command(environment)),
            [(_, first), ..] => {
                let names: Vec<&str> = having.iter().map(|(host, _)| *host).collect();
                let who = match (having.len() == peers.len(), having.len()) {
                    (_, 1) => format!("{} has it", names[0]),
                    (true, count) => format!("the other {count} hosts have it"),
                    (false, _) => format!("{} have it", ranges::fold(&names)),
                };
                let files = format!(" ({} there, {} here)", counted(first.totals().0, "file"), own.totals().0);
                (format!("; {who}{files}"), format!("deployer cache push -e {} -H {}", environment.name, failure.host))
            }
        };
        failure.hint = Some(format!("{here}{there}"));
        failure.fix = Some(fix);
    }
}

/// Tells whether some file of a list is of a package: `lxml==5.3.1`, or `lxml>=5` of any version.
fn holds(list: &Manifest, package: &str) -> bool {
    let end = package.find(|c: char| "<>=!~[ ;".contains(c)).unwrap_or(package.len());
    let version = package.split_once("==").map(|(_, version)| version.trim()).filter(|version| !version.contains(['*', ',']));
    let wanted = format!("{}-", normal(&package[..end]));
    list.entries().iter().any(|entry| {
        let path = entry.path.to_string();
        let name = path.rsplit('/').next().unwrap_or_default();
        let Some(rest) = start_of(name, &wanted) else { return false };
        version.map_or_else(
            || rest.starts_with(|c: char| c.is_ascii_digit()),
            |version| rest.strip_prefix(version).is_some_and(ends_a_version),
        )
    })
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

    #[test]
    fn files_are_known_by_the_package_they_are_of() {
        let entry = |path: &str| Entry {
            path: TreePath::new(path.as_bytes()).unwrap(),
            kind: Kind::File { mode: 0o644, size: 1, digest: Digest([0; 32]), mtime: 0 },
        };
        let files =
            ["dist/lxml-5.3.1-cp311-cp311-manylinux1_x86_64.whl", "dist/zc_recipe_egg-6.0.0-py3-none-any.whl", "dist/Zope-5.1.tar.gz"];
        let list = Manifest::from_unsorted(files.map(entry).to_vec()).unwrap();
        for package in ["lxml==5.3.1", "lxml", "LXML>=5", "zc.recipe.egg==6.0.0", "zc-recipe-egg", "zope==5.1"] {
            assert!(holds(&list, package), "{package}");
        }
        for package in ["lxml==5.3", "lxml==5.3.11", "zc.recipe", "zope==5", "zope.interface", "recipe.egg==6.0.0"] {
            assert!(!holds(&list, package), "{package}");
        }
    }
}
