//! What lies between two commits, and whether the work tree holds what no commit has.

use git2::{DiffOptions, ErrorCode, Oid, StatusOptions};

use crate::tree::path::Shown;

use super::error::GitError;

/// Beyond this many changed files lines are not counted: every content would be read.
const COUNTED: usize = 2_000;

/// One commit, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitLine {
    pub id: String,
    pub author: String,
    pub subject: String,
    /// Seconds since 1970.
    pub time: i64,
}

/// How one commit differs from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Commits that come with the newer one, the newest first.
    pub ahead: Vec<CommitLine>,
    /// Commits that go: more than 0 is a step back or sideways.
    pub behind: u32,
    pub files: u32,
    /// None where too many files changed to count lines.
    pub added_lines: Option<u64>,
    pub removed_lines: Option<u64>,
    /// Changed paths as bytes, sorted.
    pub paths: Vec<Vec<u8>>,
}

/// Finds two commits between which commits can be counted. Over a history that ends early counts would be wrong, not merely incomplete.
fn both<'a>(repository: &'a git2::Repository, from: &str, to: &str) -> Option<(git2::Commit<'a>, git2::Commit<'a>)> {
    let known = |id: &str| Oid::from_str(id).ok().filter(|_| id.len() == 40).and_then(|id| repository.find_commit(id).ok());
    known(from).zip(known(to)).filter(|_| !repository.is_shallow())
}

/// Counts the commits that `from` has and `to` does not, and the other way round.
pub fn distance(repository: &git2::Repository, from: &str, to: &str) -> Result<Option<(usize, usize)>, GitError> {
    let Some((from, to)) = both(repository, from, to) else { return Ok(None) };
    Ok(Some(repository.graph_ahead_behind(from.id(), to.id())?))
}

pub fn changes(repository: &git2::Repository, from: &str, to: &str) -> Result<Option<Changes>, GitError> {
    let Some((from, to)) = both(repository, from, to) else { return Ok(None) };
    let mut walk = repository.revwalk()?;
    walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::TIME)?;
    walk.push(to.id())?;
    walk.hide(from.id())?;
    let mut ahead = Vec::new();
    for id in walk {
        ahead.push(line(&repository.find_commit(id?)?));
    }
    let (_, behind) = repository.graph_ahead_behind(to.id(), from.id())?;
    let mut options = DiffOptions::new();
    options.skip_binary_check(true).ignore_submodules(false).include_typechange(true);
    let diff = repository.diff_tree_to_tree(Some(&from.tree()?), Some(&to.tree()?), Some(&mut options))?;
    let mut paths: Vec<Vec<u8>> =
        diff.deltas().filter_map(|delta| delta.new_file().path_bytes().or(delta.old_file().path_bytes()).map(<[u8]>::to_vec)).collect();
    paths.sort();
    let lines = if paths.len() <= COUNTED { Some(diff.stats()?) } else { None };
    Ok(Some(Changes {
        ahead,
        behind: u32::try_from(behind).unwrap_or(u32::MAX),
        files: u32::try_from(paths.len()).unwrap_or(u32::MAX),
        added_lines: lines.as_ref().map(|stats| stats.insertions() as u64),
        removed_lines: lines.as_ref().map(|stats| stats.deletions() as u64),
        paths,
    }))
}

/// Describes a commit with what its words hold escaped.
pub fn line(commit: &git2::Commit<'_>) -> CommitLine {
    CommitLine {
        id: commit.id().to_string(),
        author: Shown(commit.author().name_bytes()).to_string(),
        subject: Shown(commit.summary_bytes().unwrap_or_default()).to_string(),
        time: commit.time().seconds(),
    }
}

pub fn dirty(repository: &git2::Repository) -> Result<bool, GitError> {
    if repository.workdir().is_none() {
        return Ok(false);
    }
    let mut options = StatusOptions::new();
    options.include_untracked(false).include_ignored(false).update_index(false).exclude_submodules(true);
    match repository.statuses(Some(&mut options)) {
        Ok(statuses) => Ok(!statuses.is_empty()),
        Err(error) if error.code() == ErrorCode::UnbornBranch => Ok(false),
        Err(error) => Err(error.into()),
    }
}
