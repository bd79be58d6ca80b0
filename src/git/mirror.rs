//! Our own bare mirror of a URL or a bundle: one directory a URL under the cache, brought up to date with the system's git under a
//! file lock. The URL is given to each fetch and never stored, so a credential in it stays out of the cache and out of every text.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{self, Call, CommandError};
use super::error::GitError;
use super::url::{check, explained, is_url, name, redacted};
use super::{Repository, unopened};

/// A fetch that reports nothing for this long is stopped, where nobody could be typing a password.
const IDLE: Duration = Duration::from_secs(120);
/// In force for every call that meets the network or what came from there.
const GUARDS: [&str; 10] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "protocol.ext.allow=never",
    "transfer.fsckObjects=true",
    "transfer.bundleURI=false",
    "fetch.recurseSubmodules=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    // Collecting in the background would outlive the lock.
    "gc.autoDetach=false",
    "maintenance.autoDetach=false",
];

/// Brings the mirror of `url` up to date, and opens it.
pub fn update(url: &str, base: &Path, cache: &Path, note: &dyn Fn(&str)) -> Result<Repository, GitError> {
    let shown = redacted(url);
    check(url, &shown)?;
    let source = if is_url(url) { OsString::from(url) } else { base.join(url).into_os_string() };
    let directory = cache.join("mirror");
    let failed = |error| GitError::Io { what: "the directory of mirrors cannot be used", path: directory.clone(), error };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
    let name = name(&redacted(&source.to_string_lossy()));
    let mirror = directory.join(format!("{name}.git"));
    let _lock = lock(&directory.join(format!("{name}.lock")), note).map_err(failed)?;
    remove_left_over(&directory, &name);
    let fetch = Fetch { source: &source, shown: &shown, mirror: &mirror };
    match fetch.existing() {
        Some(Ok(())) => {}
        Some(Err(error)) if !fetch.is_answered() => return Err(error),
        Some(Err(_)) => {
            note(&format!("the mirror of `{shown}` is damaged and is made again"));
            fetch.anew()?;
        }
        None => {
            note(&format!("mirroring `{shown}` for the first time"));
            fetch.anew()?;
        }
    }
    let repository = git2::Repository::open_bare(&mirror).map_err(|error| unopened(error, mirror))?;
    Ok(Repository::new(repository, format!("`{shown}`"), true))
}

fn lock(path: &Path, note: &dyn Fn(&str)) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        note("waiting for another run that updates the same mirror");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    }
    Ok(file)
}

struct Fetch<'a> {
    source: &'a OsString,
    shown: &'a str,
    mirror: &'a Path,
}

impl Fetch<'_> {
    /// Fetches into the mirror that is there; none where there is none.
    fn existing(&self) -> Option<Result<(), GitError>> {
        if !self.mirror.exists() {
            return None;
        }
        remove_stale_locks(self.mirror);
        Some(self.fetch(self.mirror).and_then(|()| whole(self.mirror)))
    }

    /// Fetches into a new directory, which becomes the mirror when it is complete.
    fn anew(&self) -> Result<(), GitError> {
        let failed = |error| GitError::Io { what: "the mirror cannot be written", path: self.mirror.to_owned(), error };
        let parent = self.mirror.parent().unwrap_or(Path::new("."));
        let beside = |kind: &str| format!("{}.{kind}", self.mirror.file_stem().unwrap_or_default().display());
        let new = tempfile::Builder::new().prefix(&beside("new-")).tempdir_in(parent).map_err(failed)?;
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        git2::Repository::init_opts(new.path(), &options)?;
        self.fetch(new.path())?;
        self.set_head(new.path())?;
        let old = parent.join(beside("old"));
        if self.mirror.exists() {
            fs::rename(self.mirror, &old).map_err(failed)?;
        }
        fs::rename(new.keep(), self.mirror).map_err(failed)?;
        match fs::remove_dir_all(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn fetch(&self, directory: &Path) -> Result<(), GitError> {
        let arguments = ["fetch", "--progress", "--prune", "--force", "--no-write-fetch-head", "--end-of-options"].map(OsString::from);
        let arguments = arguments.into_iter().chain([self.source.clone(), "+refs/*:refs/*".into()]);
        command::watched(within(directory, arguments), directory, idle()).map(drop).map_err(|error| self.failed(error))
    }

    /// Tells whether the other side answers: a fetch that fails all the same has a damaged mirror.
    fn is_answered(&self) -> bool {
        let arguments = ["ls-remote".into(), "--end-of-options".into(), self.source.clone(), "HEAD".into()];
        command::watched(guarded(arguments), Path::new("/"), idle()).is_ok()
    }

    /// Asks what the other side's `HEAD` is, as `git clone` does.
    fn set_head(&self, directory: &Path) -> Result<(), GitError> {
        let arguments = ["ls-remote".into(), "--symref".into(), "--end-of-options".into(), self.source.clone(), "HEAD".into()];
        let answer = command::watched(within(directory, arguments), directory, idle()).map_err(|error| self.failed(error))?;
        let answer = String::from_utf8_lossy(&answer);
        let mut lines = answer.lines().filter_map(|line| line.strip_suffix("\tHEAD"));
        let repository = git2::Repository::open_bare(directory)?;
        match lines.next().map(|line| (line, line.strip_prefix("ref: "))) {
            Some((_, Some(name))) => Ok(repository.set_head(name)?),
            Some((id, None)) => Ok(repository.set_head_detached(git2::Oid::from_str(id)?)?),
            None => Ok(()),
        }
    }

    fn failed(&self, error: CommandError) -> GitError {
        let source = match error {
            CommandError::Failed { what, status, stderr } => {
                CommandError::Failed { what, status, stderr: explained(&stderr, &self.source.to_string_lossy(), self.shown) }
            }
            CommandError::NotInstalled => return CommandError::NotInstalled.into(),
            error @ (CommandError::Start(_) | CommandError::Stalled { .. }) => error,
        };
        GitError::Fetch { url: self.shown.to_owned(), source }
    }
}

/// A call that is about the repository at `directory` and no other: in a directory that is none any more, git would take the next one
/// above it, which is a person's own, and prune its branches.
fn within(directory: &Path, arguments: impl IntoIterator<Item = OsString>) -> Call {
    let mut call = guarded(arguments);
    call.environment.push(("GIT_DIR".into(), Some(directory.into())));
    call
}

fn guarded(arguments: impl IntoIterator<Item = OsString>) -> Call {
    let guards = GUARDS.iter().flat_map(|guard| ["-c", guard]).map(OsString::from);
    let mut environment = vec![("GIT_CONFIG_PARAMETERS".into(), None), ("GIT_ALLOW_PROTOCOL".into(), None)];
    if !io::stdin().is_terminal() {
        environment.push(("GIT_TERMINAL_PROMPT".into(), Some("0".into())));
        environment.push(("SSH_ASKPASS_REQUIRE".into(), Some("never".into())));
    }
    Call { arguments: guards.chain(arguments).collect(), environment, input: Vec::new(), apart: !io::stdin().is_terminal() }
}

fn idle() -> Option<Duration> {
    (!io::stdin().is_terminal()).then_some(IDLE)
}

/// Removes half-made and replaced mirrors that a killed run left. They are ours: their names begin with that of the lock we have.
fn remove_left_over(directory: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let left = entry.file_name().to_string_lossy().strip_prefix(name).is_some_and(|rest| rest.starts_with(".new-") || rest == ".old");
        if left {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes what a killed fetch left: nobody else writes here while we have the lock.
fn remove_stale_locks(mirror: &Path) {
    let mut waiting: Vec<PathBuf> = vec![mirror.join("refs")];
    for name in ["HEAD.lock", "packed-refs.lock", "config.lock", "shallow.lock", "gc.pid.lock"] {
        let _ = fs::remove_file(mirror.join(name));
    }
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "lock") {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Looks whether every reference leads to an object that can be read, which also has each pack opened and its index compared.
fn whole(mirror: &Path) -> Result<(), GitError> {
    let repository = git2::Repository::open_bare(mirror)?;
    let odb = repository.odb()?;
    for reference in repository.references()? {
        if let Some(id) = reference?.target() {
            let object = odb.read(id).map_err(|source| GitError::Object { id, source })?;
            if object.kind() == git2::ObjectType::Commit {
                let tree = repository.find_commit(id)?.tree_id();
                odb.read(tree).map_err(|source| GitError::Object { id: tree, source })?;
            }
        }
    }
    Ok(())
}
