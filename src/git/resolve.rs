//! Turns what a user typed into a commit, once and in-process: text that would mean something to a shell or to git's options
//! is only a name that does not exist.

use git2::{ErrorCode, ObjectType, Oid, Repository};

use crate::tree::path::Shown;

use super::error::GitError;
use super::history::line;
use super::versions::{matches, version};
use super::{Revision, history::CommitLine};

/// Names an error lists, of each kind.
const LISTED: usize = 8;
/// Nothing git calls a revision is longer.
const LONGEST: usize = 1000;
/// Characters of a refused text that its error shows.
const SHOWN: usize = 60;

/// Resolves `rev` in `repository`: a local branch, else `origin`'s, else a tag, else a full reference, else a commit id or its start,
/// else a pattern such as `v*` (the newest tag by version), else git's own `~`, `^` and `@{…}`.
pub fn resolve(repository: &Repository, rev: &str, place: &str, mirror: bool) -> Result<Revision, GitError> {
    check(rev)?;
    let mut warnings = Vec::new();
    let found = named(repository, rev, mirror, &mut warnings)?.map_or_else(|| unnamed(repository, rev), |id| Ok(Some(id)))?;
    let Some(id) = found else { return Err(unknown(repository, rev, place)) };
    let commit = peel(repository, id, rev)?;
    let CommitLine { id: name, author, subject, time } = line(&repository.find_commit(commit)?);
    Ok(Revision { commit: name, reference: rev.to_owned(), subject, author, committed: time, warnings })
}

fn check(rev: &str) -> Result<(), GitError> {
    let why = match rev {
        "" => "it is empty",
        rev if rev.starts_with('-') => "it starts with a dash",
        rev if rev.len() > LONGEST => "it is too long",
        rev if rev.chars().any(|c| c.is_control() || c.is_whitespace()) => "it holds white space or control characters",
        rev if rev.contains("..") => "it is a range",
        rev if rev.contains(':') => "it names a file or a search",
        _ => return Ok(()),
    };
    Err(GitError::HostileRevision { rev: rev.chars().take(SHOWN).collect(), why })
}

/// Finds the reference that `rev` names, by the order above.
fn named(repository: &Repository, rev: &str, mirror: bool, warnings: &mut Vec<String>) -> Result<Option<Oid>, GitError> {
    let find = |name: String| target(repository, &name);
    let local = find(format!("refs/heads/{rev}"))?;
    let remote = find(format!("refs/remotes/origin/{rev}"))?;
    let tag = find(format!("refs/tags/{rev}"))?;
    if let (Some(local), Some(remote)) = (local, remote)
        && local != remote
    {
        warnings.push(drift(repository, rev, local, remote));
    }
    let branch = local.or(remote);
    match (branch, tag) {
        (Some(branch), Some(tag)) if peel(repository, branch, rev)? != peel(repository, tag, rev)? => {
            let branch = if local.is_some() { "heads" } else { "remotes/origin" };
            let candidates = vec![format!("refs/{branch}/{rev}"), format!("refs/tags/{rev}")];
            return Err(GitError::AmbiguousRevision { rev: rev.to_owned(), candidates });
        }
        (Some(id), _) | (None, Some(id)) => {
            // Git itself takes 40 digits for a commit, whatever is named so.
            if let Some(commit) = full_id(rev).filter(|commit| *commit != id && repository.find_commit(*commit).is_ok()) {
                let name = if branch.is_some() { "heads" } else { "tags" };
                let candidates = vec![format!("refs/{name}/{rev}"), format!("{commit}^0")];
                return Err(GitError::AmbiguousRevision { rev: rev.to_owned(), candidates });
            }
            if is_abbreviation(rev)
                && repository
                    .revparse_single(&format!("{rev}^0"))
                    .is_ok_and(|object| object.id() != id && object.id().to_string().starts_with(rev))
            {
                warnings.push(format!(
                    "`{rev}` is also the start of a commit id; the {} of that name was taken",
                    if branch.is_some() { "branch" } else { "tag" }
                ));
            }
            return Ok(Some(id));
        }
        (None, None) => {}
    }
    let mirrored = rev.strip_prefix("origin/").filter(|_| mirror).map(|branch| format!("refs/heads/{branch}"));
    let rest = [Some(rev.to_owned()).filter(|rev| rev.starts_with("refs/") || rev == "HEAD"), mirrored];
    let rest = rest
        .into_iter()
        .flatten()
        .chain(["heads/", "tags/", "remotes/"].iter().filter(|kind| rev.starts_with(**kind)).map(|_| format!("refs/{rev}")));
    for name in rest.chain([format!("refs/remotes/{rev}")]) {
        if let Some(id) = find(name)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Finds what is not the name of a reference.
fn unnamed(repository: &Repository, rev: &str) -> Result<Option<Oid>, GitError> {
    if let Some(id) = full_id(rev) {
        return Ok(repository.odb()?.exists(id).then_some(id));
    }
    if is_abbreviation(rev) {
        return abbreviated(repository, rev);
    }
    if rev.contains(['*', '?']) {
        return newest_tag(repository, rev);
    }
    if rev.contains(['~', '^', '@']) {
        return match repository.revparse_single(rev) {
            Ok(object) => Ok(Some(object.id())),
            Err(error) if error.code() == ErrorCode::Ambiguous => Err(ambiguous(rev, Vec::new())),
            Err(_) => Ok(None),
        };
    }
    Ok(None)
}

fn full_id(rev: &str) -> Option<Oid> {
    (rev.len() == 40 && rev.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| Oid::from_str(rev).ok()).flatten()
}

fn is_abbreviation(rev: &str) -> bool {
    (4..40).contains(&rev.len()) && rev.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Follows the reference `name` to an object. A name no reference can have is one that does not exist.
fn target(repository: &Repository, name: &str) -> Result<Option<Oid>, GitError> {
    if !git2::Reference::is_valid_name(name) {
        return Ok(None);
    }
    match repository.find_reference(name).and_then(|reference| reference.resolve()) {
        Ok(reference) => Ok(reference.target()),
        Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec | ErrorCode::UnbornBranch) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Finds the one commit, or tag of a commit, whose id starts with `rev`: trees and blobs that do are not in the way.
fn abbreviated(repository: &Repository, rev: &str) -> Result<Option<Oid>, GitError> {
    match repository.find_object_by_prefix(rev, None) {
        Ok(object) => return Ok(Some(object.id())),
        Err(error) if error.code() == ErrorCode::Ambiguous => {}
        Err(_) => return Ok(None),
    }
    let odb = repository.odb()?;
    let prefix = rev.to_ascii_lowercase();
    let mut commits = Vec::new();
    odb.foreach(|id| {
        if id.to_string().starts_with(&prefix)
            && odb.read_header(*id).is_ok_and(|(_, kind)| matches!(kind, ObjectType::Commit | ObjectType::Tag))
        {
            commits.push(*id);
        }
        true
    })?;
    commits.sort();
    commits.dedup();
    match commits.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        many => Err(ambiguous(rev, many.iter().take(LISTED).map(Oid::to_string).collect())),
    }
}

fn ambiguous(rev: &str, candidates: Vec<String>) -> GitError {
    GitError::AmbiguousRevision { rev: rev.to_owned(), candidates }
}

/// Peels tags off; what remains must be a commit.
fn peel(repository: &Repository, id: Oid, rev: &str) -> Result<Oid, GitError> {
    let object = repository.find_object(id, None).map_err(|source| GitError::Object { id, source })?;
    let peeled = match object.kind() {
        Some(ObjectType::Tag) => object.peel(ObjectType::Any).map_err(|source| GitError::Object { id, source })?,
        _ => object,
    };
    let kind = match peeled.kind() {
        Some(ObjectType::Commit) => return Ok(peeled.id()),
        Some(ObjectType::Tree) => "tree",
        Some(ObjectType::Blob) => "blob",
        Some(ObjectType::Tag | ObjectType::Any) | None => "thing of its own kind",
    };
    Err(GitError::NotCommit { rev: rev.to_owned(), kind })
}

fn drift(repository: &Repository, rev: &str, local: Oid, remote: Oid) -> String {
    let differ = match repository.graph_ahead_behind(local, remote) {
        Ok((0, behind)) => format!("{} behind", commits(behind)),
        Ok((ahead, 0)) => format!("{} ahead of", commits(ahead)),
        Ok((ahead, behind)) => format!("{} ahead of and {} behind", commits(ahead), commits(behind)),
        Err(_) => "not at the same commit as".to_owned(),
    };
    format!("the local branch `{rev}` is {differ} `origin/{rev}`")
}

fn commits(count: usize) -> String {
    if count == 1 { "1 commit".to_owned() } else { format!("{count} commits") }
}

/// Finds the newest tag, by version, that the pattern matches. A pre-release comes before its release.
fn newest_tag(repository: &Repository, pattern: &str) -> Result<Option<Oid>, GitError> {
    let tags = names(repository, "refs/tags/")?;
    let newest = tags.iter().filter(|tag| matches(pattern.as_bytes(), tag.as_bytes())).max_by_key(|tag| version(tag));
    newest.map_or(Ok(None), |tag| target(repository, &format!("refs/tags/{tag}")))
}

/// Lists the names beneath `prefix`, without it.
fn names(repository: &Repository, prefix: &str) -> Result<Vec<String>, GitError> {
    let mut names = Vec::new();
    for reference in repository.references()? {
        let reference = reference?;
        if let Some(name) = reference.name_bytes().strip_prefix(prefix.as_bytes()) {
            names.push(Shown(name).to_string());
        }
    }
    Ok(names)
}

fn unknown(repository: &Repository, rev: &str, place: &str) -> GitError {
    let list = |prefix| names(repository, prefix).unwrap_or_default();
    let (heads, remotes, mut tags) = (list("refs/heads/"), list("refs/remotes/origin/"), list("refs/tags/"));
    tags.sort_by_key(|tag| std::cmp::Reverse(version(tag)));
    let mut branches: Vec<String> = heads.into_iter().chain(remotes).filter(|branch| branch != "HEAD").collect();
    branches.sort();
    branches.dedup();
    if branches.is_empty() && tags.is_empty() && repository.is_empty().unwrap_or(false) {
        return GitError::Empty { place: place.to_owned() };
    }
    let mut near: Vec<(f64, String)> = branches.iter().chain(&tags).map(|name| (strsim::jaro_winkler(name, rev), name.clone())).collect();
    near.retain(|(likeness, _)| *likeness > 0.85);
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near = near.into_iter().map(|(_, name)| name).take(3).collect();
    let known = [listed("branch", "branches", &branches), listed("tag", "tags", &tags)].into_iter().flatten().collect();
    GitError::UnknownRevision { rev: rev.to_owned(), place: place.to_owned(), near, known, shallow: repository.is_shallow() }
}

fn listed(one: &str, many: &str, names: &[String]) -> Option<String> {
    let quoted: Vec<String> = names.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    let more = names.len() - quoted.len();
    match (names.len(), more) {
        (0, _) => None,
        (1, _) => Some(format!("the {one} {}", quoted[0])),
        (_, 0) => Some(format!("the {many} {}", quoted.join(", "))),
        (_, more) => Some(format!("the {many} {} and {more} more", quoted.join(", "))),
    }
}
