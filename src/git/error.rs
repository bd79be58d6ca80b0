//! What can go wrong between a repository and an artifact, and what a person can do about it.

use std::io;
use std::path::PathBuf;

use git2::{ObjectType, Oid};

use crate::error::Error;
use crate::exit::Exit;
use crate::tree::TreePath;
use crate::tree::manifest::ManifestError;
use crate::tree::path::PathError;

use super::command::CommandError;
use super::listing::TreeFault;

/// Says why a source, a revision or an export cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("no git repository at `{}`", path.display())]
    NoRepository { path: PathBuf },
    #[error("the git repository at `{}` belongs to another user", path.display())]
    ForeignOwner { path: PathBuf },
    #[error("the git repository at `{}` uses {what}, which cannot be read", path.display())]
    Format { path: PathBuf, what: String },
    #[error("`{url}` is not a source that can be fetched: {why}")]
    Url { url: String, why: &'static str },
    #[error("`{url}` could not be fetched")]
    Fetch {
        url: String,
        #[source]
        source: CommandError,
    },
    #[error("`{}` is not a revision: {why}", rev.escape_debug())]
    HostileRevision { rev: String, why: &'static str },
    #[error("no revision `{}` in {place}", rev.escape_debug())]
    UnknownRevision { rev: String, place: String, near: Vec<String>, known: Vec<String>, shallow: bool },
    #[error("`{}` means more than one commit", rev.escape_debug())]
    AmbiguousRevision { rev: String, candidates: Vec<String> },
    #[error("`{}` is a {kind}, not a commit", rev.escape_debug())]
    NotCommit { rev: String, kind: &'static str },
    #[error("{place} has no commit yet")]
    Empty { place: String },
    #[error("the object {id} cannot be read")]
    Object {
        id: Oid,
        #[source]
        source: git2::Error,
    },
    #[error("the object {id} is a {is}, not a {expected}")]
    Kind { id: Oid, is: ObjectType, expected: ObjectType },
    #[error("the tree {id} {fault}")]
    Tree { id: Oid, fault: TreeFault },
    #[error("`source.path` is `{path}`, but commit {commit} has no such directory")]
    NoSuchPath { path: TreePath, commit: Oid },
    #[error("`{path}`, in a submodule, cannot be a path of a tree: {why}")]
    LongPath { path: TreePath, why: PathError },
    #[error("{} is a submodule", first_of(paths))]
    Submodules { paths: Vec<TreePath> },
    #[error("the submodule `{path}` at commit {commit} is not available here")]
    SubmoduleAbsent { path: TreePath, commit: Oid },
    #[error("{} holds a Git LFS pointer instead of content", first_of(paths))]
    LfsPointers { paths: Vec<TreePath> },
    #[error("the Git LFS content of `{path}` is not available here ({})", file.display())]
    LfsAbsent { path: TreePath, file: PathBuf },
    #[error("the Git LFS content of `{path}` is not what its pointer says ({})", file.display())]
    LfsDiffers { path: TreePath, file: PathBuf },
    #[error("`git archive` did not give what it was asked for: {0}")]
    Archive(String),
    #[error("the tree cannot be deployed")]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{what} (`{}`)", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("git: {}", .0.message())]
    Git(#[from] git2::Error),
}

/// Names the first few of many paths.
pub(super) fn first_of(paths: &[TreePath]) -> String {
    let named: Vec<String> = paths.iter().take(3).map(|path| format!("`{path}`")).collect();
    match paths.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} (and {more} more)", named.join(", ")),
    }
}

impl From<GitError> for Error {
    fn from(error: GitError) -> Self {
        let (exit, code, hints) = advice(&error);
        let mut top = Self::new(exit, code, error.to_string());
        top.hints = hints;
        match error {
            GitError::Fetch { source: CommandError::Failed { stderr, .. }, .. } => {
                top.evidence(stderr.lines().map(|line| crate::tree::path::Shown(line.as_bytes()).to_string()))
            }
            error => match std::error::Error::source(&error).map(ToString::to_string) {
                Some(cause) => top.caused_by(cause),
                None => top,
            },
        }
    }
}

/// Gives the exit code, the stable code and what to do next.
fn advice(error: &GitError) -> (Exit, &'static str, Vec<String>) {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        GitError::NoRepository { .. } => {
            (Exit::Config, "no-repository", one("set `source.git` to a repository, or deploy a directory with `--tree`"))
        }
        GitError::ForeignOwner { path } => {
            let hint = format!("if you trust it: git config --global --add safe.directory '{}'", path.display());
            (Exit::Config, "foreign-repository", vec![hint])
        }
        GitError::Format { .. } => (Exit::Config, "repository-format", one("export it elsewhere and deploy the directory with `--tree`")),
        GitError::Url { .. } => (Exit::Config, "source-url", one("set `source.git` to a path or to an https or ssh URL")),
        GitError::Fetch { .. } => {
            (Exit::Unreachable, "fetch", one("try the same with `git ls-remote`; credentials and proxies are git's own"))
        }
        GitError::HostileRevision { .. } => (Exit::Config, "revision", one("name a branch, a tag or a commit id")),
        GitError::UnknownRevision { near, known, shallow, .. } => {
            (Exit::Config, "unknown-revision", unknown_revision(near, known, *shallow))
        }
        GitError::AmbiguousRevision { candidates, .. } => {
            (Exit::Config, "ambiguous-revision", candidates.iter().map(|candidate| format!("write `{candidate}`")).collect())
        }
        GitError::NotCommit { .. } => (Exit::Config, "revision", one("only commits, and tags of commits, can be deployed")),
        GitError::Empty { .. } => (Exit::Config, "unknown-revision", one("commit something first")),
        GitError::Object { .. } | GitError::Kind { .. } => {
            (Exit::Config, "git-object", one("run `git fsck`; in a partial clone, fetch everything with `git fetch --refetch --no-filter`"))
        }
        GitError::Tree { .. } | GitError::LongPath { .. } | GitError::Manifest(_) => {
            (Exit::Refused, "hostile-tree", one("see what `git fsck` says of this repository"))
        }
        GitError::NoSuchPath { .. } => (Exit::Config, "source-path", one("correct `source.path`, or name a revision that has it")),
        GitError::Submodules { .. } => (
            Exit::Refused,
            "submodules",
            one("set `source.submodules = true` to deploy them, or leave them out with the attribute `export-ignore`"),
        ),
        GitError::SubmoduleAbsent { .. } => (Exit::Config, "submodules", one("run `git submodule update --init --recursive`")),
        GitError::LfsPointers { .. } => (
            Exit::Refused,
            "lfs",
            one("set `source.lfs = true` to deploy their content, or leave them out with the attribute `export-ignore`"),
        ),
        GitError::LfsAbsent { .. } | GitError::LfsDiffers { .. } => (Exit::Config, "lfs", one("run `git lfs fetch` for this revision")),
        GitError::Command(CommandError::NotInstalled) => (Exit::Config, "git-missing", one("install git")),
        GitError::Archive(_) | GitError::Command(_) | GitError::Io { .. } | GitError::Git(_) => (Exit::Internal, "git", Vec::new()),
    }
}

fn unknown_revision(near: &[String], known: &[String], shallow: bool) -> Vec<String> {
    let mut hints = Vec::new();
    if !near.is_empty() {
        hints.push(format!("did you mean {}?", near.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")));
    }
    match known {
        [] => hints.push("there are no branches and no tags".to_owned()),
        known => hints.push(format!("there is {}", known.join(", "))),
    }
    if shallow {
        hints.push("this is a shallow clone: fetch more with `git fetch --unshallow --tags`".to_owned());
    }
    hints
}
