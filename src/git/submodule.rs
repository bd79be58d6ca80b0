//! Finds the repository of a submodule on this machine: its checkout, or what git keeps of it under `modules/`. It is the one that
//! has the commit; names and URLs in `.gitmodules` are the tree's words and decide nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::Oid;

use crate::tree::TreePath;

use super::error::GitError;
use super::objects::{self, Objects};

/// Directories below `modules/` that are looked at, so that an odd repository costs no more than time.
const MOST: usize = 10_000;

/// Finds who has `commit`, the submodule at `path`.
pub fn find(parent: &Objects, path: &TreePath, commit: Oid) -> Result<Option<Arc<Objects>>, GitError> {
    use std::os::unix::ffi::OsStrExt;
    let (checkout, modules) = parent.with(|repository| {
        let checkout = repository.workdir().map(|work| work.join(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))));
        Ok((checkout, repository.commondir().join("modules")))
    })?;
    let mut candidates: Vec<PathBuf> = checkout.into_iter().filter(|checkout| checkout.join(".git").exists()).collect();
    candidates.extend(git_directories(&modules));
    let repositories = candidates.iter().filter_map(|candidate| objects::open(candidate).ok());
    let mut having = repositories.filter(|repository| repository.find_commit(commit).is_ok());
    Ok(having.next().map(|repository| Arc::new(Objects::new(repository))))
}

/// Lists git directories below `modules`. A submodule's name may hold slashes, and one may lie within another.
fn git_directories(modules: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![modules.to_owned()];
    while let Some(directory) = waiting.pop() {
        if found.len() + waiting.len() > MOST {
            break;
        }
        if directory.join("HEAD").exists() && directory.join("objects").exists() {
            waiting.push(directory.join("modules"));
            found.push(directory);
            continue;
        }
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        waiting.extend(entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    found
}
