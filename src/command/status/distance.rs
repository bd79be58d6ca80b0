//! How far hosts are from what most of them serve, and that from what is deployed by default, where the repository lies on this machine:
//! a mirror would have to be brought up to date first, and `status` waits for nobody but the hosts.

use std::collections::BTreeMap;

use crate::command::scene::Scene;
use crate::figures::counted;
use crate::git::{self, Repository};
use crate::plan::short;

/// What the history tells.
#[derive(Debug, Default)]
pub(super) struct Distances {
    /// By commit: `61 commits behind`.
    of: BTreeMap<String, String>,
    /// `master is 3 commits ahead of a1b2c3d`.
    pub default: Option<String>,
}

impl Distances {
    /// Looks the live commits of all hosts up. What is not known here is not told.
    pub async fn find(scene: &Scene, commits: &[Option<String>]) -> Self {
        let environment = &scene.environment;
        let (source, base, cache) = (environment.source.clone(), environment.directory.clone(), scene.directories.cache.clone());
        let (commits, rev) = (commits.to_vec(), environment.rev.clone());
        if git::is_mirrored(&source, &base) {
            return Self::default();
        }
        let looked = tokio::task::spawn_blocking(move || {
            let most = most(&commits)?;
            let repository = git::open(&source, &base, &cache, &|_| {}).ok()?;
            Some(Self::between(&repository, &commits, most, rev.as_deref()))
        });
        looked.await.ok().flatten().unwrap_or_default()
    }

    fn between(repository: &Repository, commits: &[Option<String>], most: &str, rev: Option<&str>) -> Self {
        let distance = |from: &str, to: &str| repository.distance(from, to).ok().flatten();
        let others = commits.iter().flatten().filter(|commit| *commit != most);
        let of = others.filter_map(|commit| Some((commit.clone(), words(distance(commit, most)?)?))).collect();
        let default = rev.and_then(|rev| {
            let resolved = repository.resolve(rev).ok()?.commit;
            let (ahead, behind) = distance(&resolved, most)?;
            Some(match (ahead, behind) {
                (0, 0) => return None,
                (ahead, 0) => format!("{rev} is {} ahead of {}", commits_of(ahead), short(most)),
                (0, behind) => format!("{rev} is {} behind {}", commits_of(behind), short(most)),
                (ahead, behind) => format!("{rev} is {} ahead of {} and {behind} behind", commits_of(ahead), short(most)),
            })
        });
        Self { of, default }
    }

    pub fn of(&self, commit: &str) -> Option<&String> {
        self.of.get(commit)
    }
}

/// The commit that more than half of all hosts serve.
fn most(commits: &[Option<String>]) -> Option<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for commit in commits.iter().flatten() {
        *counts.entry(commit).or_default() += 1;
    }
    counts.into_iter().find(|(_, count)| count * 2 > commits.len()).map(|(commit, _)| commit)
}

fn words((ahead, behind): (usize, usize)) -> Option<String> {
    match (ahead, behind) {
        (0, 0) => None,
        (0, behind) => Some(format!("{} behind", commits_of(behind))),
        (ahead, 0) => Some(format!("{} ahead", commits_of(ahead))),
        (ahead, behind) => Some(format!("{} ahead and {behind} behind", commits_of(ahead))),
    }
}

fn commits_of(count: usize) -> String {
    counted(count as u64, "commit")
}
