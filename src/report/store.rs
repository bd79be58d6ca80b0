//! The run store: what every run told, kept on this machine for `logs` and `report`. A store that cannot be written to is a
//! warning and never a reason for a deploy to fail. Reading, writing and pruning stay in one file, for they share its layout.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Timed};
use crate::report::json;

const EVENTS: &str = "events.ndjson";
const META: &str = "meta";
/// Locked for as long as the run's program lives, however it ends.
const ALIVE: &str = "alive";
const DAYS: Duration = Duration::from_secs(30 * 24 * 3600);
const RUNS: usize = 100;
const BYTES: u64 = 1_000_000_000;

/// Says why a stored run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("`{0}` is not the id of a run")]
    Name(String),
    #[error("no run `{0}` is stored here")]
    Missing(String),
    #[error("cannot read {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// `meta`: what a list of runs shows, so that it need not read the events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    pub format: u32,
    pub run: String,
    pub verb: String,
    pub project: String,
    pub env: String,
    pub actor: String,
    pub hosts: u32,
    /// RFC 3339, UTC.
    pub started: String,
    pub rev: String,
    pub reference: String,
    /// None while the run goes on, and for ever if it was killed.
    pub exit: Option<u8>,
    pub status: String,
    pub secs: f64,
    pub ok: u32,
    pub failed: u32,
}

/// A run that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRun {
    pub run: String,
    pub meta: Meta,
    pub bytes: u64,
    pub modified: SystemTime,
}

/// The store of one run that is under way.
#[derive(Debug)]
pub struct RunStore {
    directory: PathBuf,
    writer: Option<BufWriter<File>>,
    /// Only held: it closes with the program.
    _alive: Option<File>,
    meta: Meta,
    /// What went wrong, until it was told.
    warning: Option<String>,
}

impl RunStore {
    /// Makes `<state_dir>/runs/<run>`, and removes runs beyond 30 days, 100 runs and 1 GB. What fails is a warning of the run.
    #[must_use]
    pub fn open(state_dir: &Path, run: &str) -> Self {
        let runs = state_dir.join("runs");
        let directory = runs.join(run);
        let opened = if is_name(run) { create(&directory) } else { Err(io::Error::other(format!("`{run}` is not the id of a run"))) };
        let meta = Meta { format: 1, run: run.to_owned(), ..Meta::default() };
        let alive = opened.as_ref().ok().and_then(|_| lock_alive(&directory));
        let mut store = Self { directory, writer: None, _alive: alive, meta, warning: None };
        match opened {
            Ok(file) => store.writer = Some(BufWriter::new(file)),
            Err(error) => store.fail(&error),
        }
        prune(&runs, run, SystemTime::now(), BYTES);
        store
    }

    /// Lists the stored runs, newest first.
    #[must_use]
    pub fn runs(state_dir: &Path) -> Vec<StoredRun> {
        list(&state_dir.join("runs"))
    }

    /// Tells whether a run was started on this machine, by this user, and its program is gone.
    #[must_use]
    pub fn is_over(state_dir: &Path, run: &str) -> bool {
        if !is_name(run) {
            return false;
        }
        let alive = File::open(state_dir.join("runs").join(run).join(ALIVE));
        alive.is_ok_and(|file| rustix::fs::flock(file, FlockOperation::NonBlockingLockShared).is_ok())
    }

    /// Reads what a run told. Events of a newer deployer, and a last line that was cut off, are left out.
    pub fn read(state_dir: &Path, run: &str) -> Result<Vec<Timed>, StoreError> {
        if !is_name(run) {
            return Err(StoreError::Name(run.to_owned()));
        }
        let path = state_dir.join("runs").join(run).join(EVENTS);
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Missing(run.to_owned()),
            _ => StoreError::Io { path: path.clone(), source },
        })?;
        let mut events = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(|source| StoreError::Io { path: path.clone(), source })?;
            events.extend(serde_json::from_slice::<Timed>(&line));
        }
        Ok(events)
    }

    /// Tells whether the run is being kept.
    #[must_use]
    pub fn works(&self) -> bool {
        self.writer.is_some()
    }

    /// Keeps one event. Progress is not worth keeping.
    pub fn take(&mut self, timed: &Timed) {
        if matches!(timed.event, Event::Progress { .. }) {
            return;
        }
        let told = self.describe(&timed.event);
        let Some(writer) = &mut self.writer else { return };
        let written = writer.write_all(json::line(timed).as_bytes()).and_then(|()| match timed.event {
            // Output comes in masses: a crash may cost the last of it, never a step.
            Event::Output { .. } => Ok(()),
            _ => writer.flush(),
        });
        let written = written.and_then(|()| if told { self.write_meta() } else { Ok(()) });
        if let Err(error) = written {
            self.fail(&error);
        }
    }

    /// Writes what is held back.
    pub fn flush(&mut self) {
        if let Some(Err(error)) = self.writer.as_mut().map(BufWriter::flush) {
            self.fail(&error);
        }
    }

    /// Gives what went wrong, once.
    pub fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn fail(&mut self, error: &io::Error) {
        // What the buffer holds would only fail again when it is dropped.
        drop(self.writer.take().map(BufWriter::into_parts));
        self.warning = Some(format!("the log of this run is not kept in {}: {error}", self.directory.display()));
    }

    fn describe(&mut self, event: &Event) -> bool {
        let meta = &mut self.meta;
        match event {
            Event::Version { time, .. } => meta.started.clone_from(time),
            Event::RunStarted { verb, project, env, hosts, actor, .. } => {
                (meta.verb, meta.project, meta.env, meta.actor) = (verb.clone(), project.clone(), env.clone(), actor.clone());
                meta.hosts = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
            }
            Event::Revision { rev, reference, .. } => (meta.rev, meta.reference) = (rev.clone(), reference.clone()),
            Event::RunFinished { status, exit, ok, failed, secs, .. } => {
                (meta.status, meta.exit, meta.ok, meta.failed, meta.secs) = (status.clone(), Some(*exit), *ok, *failed, *secs);
            }
            _ => return false,
        }
        true
    }

    fn write_meta(&self) -> io::Result<()> {
        let new = self.directory.join("meta.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&self.meta)?)?;
        fs::rename(&new, self.directory.join(META))
    }
}

fn create(directory: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(EVENTS))
}

/// Best effort: without it nobody can tell that the run is over, and waits as long as for anybody else's.
fn lock_alive(directory: &Path) -> Option<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(ALIVE)).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok().map(|()| file)
}

/// The id of a run becomes a directory's name, so it may not lead anywhere else.
fn is_name(run: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !run.is_empty() && run.len() <= 128 && run.chars().all(plain)
}

fn list(runs: &Path) -> Vec<StoredRun> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut stored: Vec<StoredRun> = real.filter_map(|entry| stored(&entry.path(), entry.file_name().to_str()?)).collect();
    stored.sort_by(|a, b| (b.modified, &b.run).cmp(&(a.modified, &a.run)));
    stored
}

fn stored(directory: &Path, run: &str) -> Option<StoredRun> {
    if !is_name(run) {
        return None;
    }
    let events = fs::metadata(directory.join(EVENTS)).ok()?;
    let meta = fs::read(directory.join(META)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Some(StoredRun { run: run.to_owned(), meta: meta.unwrap_or_default(), bytes: events.len(), modified: events.modified().ok()? })
}

/// Removes what is too old or too much, never the run `keep`. What cannot be removed stays until the next run.
fn prune(runs: &Path, keep: &str, now: SystemTime, most_bytes: u64) {
    let (mut count, mut bytes) = (0, 0);
    for old in list(runs) {
        count += 1;
        bytes += old.bytes;
        let aged = now.duration_since(old.modified).is_ok_and(|age| age > DAYS);
        if old.run != keep && (aged || count > RUNS || bytes > most_bytes) {
            let _ = fs::remove_dir_all(runs.join(&old.run));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::event::Step;

    fn output(line: &str) -> Timed {
        let event = Event::Output { host: "app1".into(), step: Step::Build, stream: crate::event::OutputStream::Stdout, line: line.into() };
        Timed { event, t: 1.0 }
    }

    fn finished(run: &str) -> Timed {
        let (live, next) = Default::default();
        let event = Event::RunFinished {
            run: run.into(),
            status: "ok".into(),
            exit: 0,
            live,
            ok: 3,
            failed: 0,
            secs: 2.0,
            summary: String::new(),
            next,
        };
        Timed { event, t: 2.0 }
    }

    #[test]
    fn a_run_is_read_as_it_was_told_and_nobody_else_may_read_it() {
        let state = tempfile::tempdir().unwrap();
        let mut store = RunStore::open(state.path(), "20261123T061200-a1b2c3d");
        let told = [Timed { event: json::version("2026-11-23T06:12:00Z"), t: 0.0 }, output("hello"), finished("20261123T061200-a1b2c3d")];
        for timed in &told {
            store.take(timed);
        }
        assert_eq!(store.warning(), None);
        assert_eq!(RunStore::read(state.path(), "20261123T061200-a1b2c3d").unwrap(), told);
        let [run] = RunStore::runs(state.path()).try_into().unwrap();
        assert_eq!((run.meta.exit, run.meta.ok, run.meta.started.as_str()), (Some(0), 3, "2026-11-23T06:12:00Z"));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let directory = state.path().join("runs/20261123T061200-a1b2c3d");
        assert_eq!([mode(directory.join(EVENTS)), mode(directory.join(META)), mode(directory)], [0o600, 0o600, 0o700]);
    }

    #[test]
    fn a_line_that_was_cut_off_and_an_event_of_the_future_are_left_out() {
        let state = tempfile::tempdir().unwrap();
        let mut store = RunStore::open(state.path(), "r1");
        store.take(&output("whole"));
        store.flush();
        let mut file = OpenOptions::new().append(true).open(state.path().join("runs/r1/events.ndjson")).unwrap();
        file.write_all(b"{\"type\":\"host.teleported\",\"t\":1.0}\n{\"type\":\"host.outp").unwrap();
        assert_eq!(RunStore::read(state.path(), "r1").unwrap(), [output("whole")]);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_one_warning() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("runs"), "a file in the way").unwrap();
        let mut store = RunStore::open(state.path(), "r1");
        store.take(&output("lost"));
        assert!(!store.works());
        assert!(store.warning().unwrap().contains("is not kept in"));
        assert_eq!(store.warning(), None);
    }

    #[test]
    fn a_full_disk_is_one_warning() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir_all(state.path().join("runs/r1")).unwrap();
        std::os::unix::fs::symlink("/dev/full", state.path().join("runs/r1/events.ndjson")).unwrap();
        let mut store = RunStore::open(state.path(), "r1");
        assert!(store.works());
        store.take(&finished("r1"));
        store.take(&finished("r1"));
        assert!(store.warning().unwrap().contains("No space left"));
        assert_eq!(store.warning(), None);
    }

    #[test]
    fn an_id_that_leads_elsewhere_is_refused() {
        let state = tempfile::tempdir().unwrap();
        for run in ["..", "../x", "a/b", ""] {
            assert!(matches!(RunStore::read(state.path(), run), Err(StoreError::Name(_))), "{run}");
            assert!(!RunStore::open(state.path(), run).works(), "{run}");
        }
        assert!(matches!(RunStore::read(state.path(), "r9"), Err(StoreError::Missing(_))));
    }

    #[test]
    fn old_and_many_runs_are_pruned_but_not_the_one_that_begins() {
        let state = tempfile::tempdir().unwrap();
        let runs = state.path().join("runs");
        let now = SystemTime::now();
        for (run, days) in (0..103).map(|run| (run, if run == 0 { 31 } else { 1 })) {
            let directory = runs.join(format!("r{run:03}"));
            let file = create(&directory).unwrap();
            file.set_modified(now - Duration::from_secs(days * 24 * 3600) + Duration::from_secs(run)).unwrap();
        }
        prune(&runs, "r000", now, BYTES);
        let left: Vec<String> = list(&runs).into_iter().map(|stored| stored.run).collect();
        assert_eq!((left.len(), left.first().unwrap().as_str(), left.last().unwrap().as_str()), (101, "r102", "r000"));
        prune(&runs, "r102", now, 0);
        assert_eq!(list(&runs).len(), 100, "the old one goes, and empty runs take no room");
        prune(&runs, "r102", now + DAYS * 2, BYTES);
        assert_eq!(list(&runs).len(), 1);
    }
}
