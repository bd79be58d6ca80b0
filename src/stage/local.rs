//! The local stage: turn what the user named into an artifact, on this machine.

use std::path::PathBuf;
use std::time::Instant;

use crate::config::environment::Source;
use crate::error::Error;
use crate::event::{Event, Events, Severity, Step};
use crate::exit::Exit;
use crate::figures;
use crate::git::{self, Artifact, ExportOptions, Repository, Revision};
use crate::tree::path::Shown;
use crate::walk;

/// What is exported, and with what.
#[derive(Clone, Debug)]
pub struct Request {
    pub source: Source,
    /// Where `deploy.toml` lies.
    pub base: PathBuf,
    /// The user's cache directory for `deployer`.
    pub cache: PathBuf,
    pub rev: String,
    /// The commit the revision must be, if the user insists (`--expect`): an id or its start.
    pub expect: Option<String>,
}

/// What the later stages need of it. The repository is kept for the changelog.
#[derive(Debug)]
pub struct Local {
    pub repository: Repository,
    pub revision: Revision,
    pub artifact: Artifact,
}

/// Updates the mirror, resolves the revision once and exports it.
pub async fn export(request: Request, events: &Events) -> Result<Local, Error> {
    let events = events.clone();
    blocking(move || {
        let (repository, revision) = resolve_now(&request, &events)?;
        let options = ExportOptions::from(&request.source);
        let artifact = step(&events, Step::Export, || repository.export(&revision, &options, &request.cache), summary)?;
        warn(&events, "tree", &artifact.warnings);
        Ok(Local { repository, revision, artifact })
    })
    .await
}

/// Updates the mirror and resolves the revision once, without exporting it.
pub async fn resolve(request: Request, events: &Events) -> Result<(Repository, Revision), Error> {
    let events = events.clone();
    blocking(move || resolve_now(&request, &events)).await
}

/// Takes a directory as it is, instead of a revision. `commit` is what it was built from, if that is known; `now` is the time its files get.
pub async fn walk(directory: PathBuf, commit: Option<String>, now: i64, events: &Events) -> Result<Artifact, Error> {
    let events = events.clone();
    blocking(move || {
        let (rev, reference) = (commit.unwrap_or_default(), Shown(directory.as_os_str().as_encoded_bytes()).to_string());
        events.emit(Event::Revision { rev, reference, subject: String::new(), author: String::new(), committed: now });
        let artifact = step(&events, Step::Export, || walk::walk(&directory, now), summary)?;
        warn(&events, "tree", &artifact.warnings);
        Ok(artifact)
    })
    .await
}

fn resolve_now(request: &Request, events: &Events) -> Result<(Repository, Revision), Error> {
    let Request { source, base, cache, rev, expect } = request;
    let note = |text: &str| emit(events, Severity::Note, "mirror", text);
    let open = || git::open(source, base, cache, &note);
    let repository = if git::is_mirrored(source, base) { step(events, Step::Mirror, open, |_| "up to date".to_owned())? } else { open()? };
    let revision = step(events, Step::Resolve, || repository.resolve(rev), |revision| revision.commit.clone())?;
    if let Some(expected) = expect.as_ref().filter(|expected| !revision.commit.starts_with(&expected.to_ascii_lowercase())) {
        let what = format!("`{rev}` is {}, not {expected} as expected", revision.commit);
        return Err(Error::new(Exit::Refused, "unexpected-revision", what)
            .hint("someone moved it: look at what it is now, then say which you mean"));
    }
    let Revision { commit, reference, subject, author, committed, warnings } = revision.clone();
    events.emit(Event::Revision { rev: commit, reference, subject, author, committed });
    warn(events, "revision", &warnings);
    // Not being able to tell is no reason to stop: only commits travel.
    if matches!(repository.dirty(), Ok(true)) {
        emit(events, Severity::Warning, "dirty", "the work tree has changes that no commit has; they do not travel");
    }
    Ok((repository, revision))
}

/// Runs one step and tells of its beginning and end.
fn step<T, E: Into<Error>>(
    events: &Events,
    step: Step,
    work: impl FnOnce() -> Result<T, E>,
    summary: impl FnOnce(&T) -> String,
) -> Result<T, Error> {
    let began = Instant::now();
    let stage = step.stage();
    events.emit(Event::StepStarted { stage, step, hosts: 0 });
    let result = work().map_err(Into::into);
    let (failed, summary) = result.as_ref().map_or_else(|error: &Error| (1, error.what.clone()), |value| (0, summary(value)));
    events.emit(Event::StepFinished { stage, step, hosts: 0, ok: 0, failed, secs: began.elapsed().as_secs_f64(), summary });
    result
}

fn warn(events: &Events, code: &str, warnings: &[String]) {
    for warning in warnings {
        emit(events, Severity::Warning, code, warning);
    }
}

fn emit(events: &Events, severity: Severity, code: &str, message: &str) {
    let (code, message) = (code.to_owned(), message.to_owned());
    events.emit(Event::Diagnostic { severity, code, message, hosts: vec![], evidence: vec![], state: None, help: vec![] });
}

/// `1,204 files, 18.3 MB`.
fn summary(artifact: &Artifact) -> String {
    let (files, bytes) = artifact.manifest.totals();
    format!("{}, {}", figures::counted(files, "file"), figures::bytes(bytes))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Exit::Internal, "internal", "the local stage ended early").caused_by(error)),
    }
}
