//! What the events told so far: the state of one run, from which every view for people is drawn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use crate::event::{Event, STOPPING, Severity, Stage, Status, Step, Timed};
use crate::recipe;
use crate::report::fold::Names;

/// Lines of a failed command that are shown; the whole log is in the run store.
pub const TAIL: usize = 20;

/// A run as far as it is known.
#[derive(Debug, Default)]
pub struct Run {
    /// What starting, revision and changes told; empty until they did.
    pub verb: String,
    pub project: String,
    pub env: String,
    pub hosts: Vec<String>,
    pub names: Names,
    pub release: Option<String>,
    pub began: Option<Timestamp>,
    /// Seconds since the run began, of the newest event.
    pub t: f64,
    /// Steps that have started and not finished, in that order.
    pub active: Vec<ActiveStep>,
    pub logs: BTreeMap<String, Log>,
    /// Bytes of output that are kept for each host.
    pub keep: usize,
    pub failures: Vec<Failure>,
    pub errors: Vec<Diagnostic>,
    /// The wave under way.
    pub wave: Option<Wave>,
    /// The hosts that are switched serve for a while, before this wave begins.
    pub pause: Option<Pause>,
    /// Whether there was a wave: then waves tell what their steps would say again.
    pub in_waves: bool,
    /// Whether an activation has begun: until then nothing a host serves has changed.
    pub switching: bool,
    /// Whether it was asked to stop.
    pub stopping: bool,
}

/// The hosts that are switched together.
#[derive(Debug)]
pub struct Wave {
    pub number: u32,
    pub hosts: BTreeSet<String>,
    pub since: f64,
}

/// A while in which nothing is done.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// The wave that comes after it.
    pub next: u32,
    pub since: f64,
    pub secs: f64,
}

/// A step under way.
#[derive(Debug)]
pub struct ActiveStep {
    pub step: Step,
    pub hosts: u32,
    pub since: f64,
    pub started: BTreeSet<String>,
    pub ended: BTreeMap<String, (Status, f64)>,
    pub commands: BTreeMap<String, Vec<String>>,
}

/// The output of one host in one step.
#[derive(Debug)]
pub struct Log {
    pub step: Step,
    pub since: f64,
    pub heard: f64,
    pub lines: VecDeque<String>,
    pub bytes: usize,
    /// Lines that came before `lines` and are not kept here.
    pub earlier: u64,
    pub progress: Option<(u64, u64)>,
    /// Whether its silence was told.
    pub silent: bool,
}

/// A step that failed on one host.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub host: String,
    pub step: Step,
    pub secs: f64,
    pub exit: Option<i32>,
    pub command: Vec<String>,
    pub detail: Option<String>,
    pub lines: Vec<String>,
    pub earlier: u64,
}

/// A warning or error, as the event told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    pub hosts: Vec<String>,
    pub evidence: Vec<String>,
    pub state: Option<String>,
    pub help: Vec<String>,
}

impl Run {
    /// Begins with nothing known. `keep` is how many bytes of each host's output are remembered.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Takes one event into account.
    pub fn take(&mut self, timed: &Timed) {
        let t = timed.t;
        self.t = t;
        match &timed.event {
            Event::Version { time, .. } => self.began = time.parse().ok(),
            Event::RunStarted { verb, project, env, hosts, .. } => {
                (self.verb, self.project, self.env) = (verb.clone(), project.clone(), env.clone());
                self.hosts.clone_from(hosts);
                self.names = Names::new(hosts);
            }
            Event::Changes { release, .. } => self.release = Some(release.clone()),
            Event::StepStarted { step, hosts, .. } => {
                self.pause = None;
                self.start(*step, *hosts, t);
            }
            Event::StepFinished { step, .. } => self.active.retain(|active| active.step != *step),
            Event::WavePaused { wave, secs } => self.pause = Some(Pause { next: *wave, since: t, secs: *secs }),
            Event::WaveStarted { wave, hosts, .. } => {
                (self.in_waves, self.pause) = (true, None);
                self.wave = Some(Wave { number: *wave, hosts: hosts.iter().cloned().collect(), since: t });
            }
            Event::WaveFinished { .. } => self.wave = None,
            Event::HostStarted { host, step } => {
                self.log(host, *step, t).since = t;
                self.step(*step).map(|active| active.started.insert(host.clone()));
            }
            Event::Progress { host, step, done_bytes, total_bytes } => {
                let log = self.log(host, *step, t);
                (log.progress, log.heard) = (Some((*done_bytes, *total_bytes)), t);
            }
            Event::Output { host, step, line, .. } => {
                let keep = self.keep;
                self.log(host, *step, t).push(line, keep, t);
            }
            Event::HostStep { .. } => self.end(&timed.event),
            Event::Diagnostic { severity: Severity::Error, .. } => self.errors.extend(Diagnostic::of(&timed.event)),
            Event::Diagnostic { code, .. } if code == STOPPING => self.stopping = true,
            Event::Diagnostic { .. } | Event::Revision { .. } | Event::RunFinished { .. } => {}
        }
    }

    fn start(&mut self, step: Step, hosts: u32, t: f64) {
        self.switching |= matches!(step, Step::Activate | Step::Revert);
        let (started, ended, commands) = Default::default();
        self.active.push(ActiveStep { step, hosts, since: t, started, ended, commands });
    }

    fn end(&mut self, event: &Event) {
        let Event::HostStep { host, step, status, secs, exit, command, detail, .. } = event else { return };
        if let Some(active) = self.step(*step) {
            active.ended.insert(host.clone(), (*status, *secs));
            if !command.is_empty() {
                active.commands.entry(shown_command(command)).or_default().push(host.clone());
            }
        }
        if *status == Status::Failed {
            let log = self.logs.get(host).filter(|log| log.is_of(*step));
            let lines: Vec<String> = log.map(|log| log.lines.iter().cloned().collect()).unwrap_or_default();
            let skipped = lines.len().saturating_sub(TAIL);
            self.failures.push(Failure {
                host: host.clone(),
                step: *step,
                secs: *secs,
                exit: *exit,
                command: command.clone(),
                detail: detail.clone(),
                earlier: log.map_or(0, |log| log.earlier) + skipped as u64,
                lines: lines.into_iter().skip(skipped).collect(),
            });
        }
    }

    fn step(&mut self, step: Step) -> Option<&mut ActiveStep> {
        self.active.iter_mut().rfind(|active| active.step == step)
    }

    /// The log of a host, begun anew when the host goes on to another step.
    fn log(&mut self, host: &str, step: Step, t: f64) -> &mut Log {
        let since = self.step(step).map_or(t, |active| active.since);
        let fresh = || Log { step, since, heard: t, lines: VecDeque::new(), bytes: 0, earlier: 0, progress: None, silent: false };
        let log = self.logs.entry(host.to_owned()).or_insert_with(fresh);
        if log.step != step {
            *log = fresh();
        }
        log
    }

    /// When `active` began, or the wave in which its turn came.
    #[must_use]
    pub fn since(&self, active: &ActiveStep) -> f64 {
        self.wave.as_ref().map_or(active.since, |wave| wave.since.max(active.since))
    }

    /// How many hosts are done well with `active`, and of how many: of the wave, where there is one.
    #[must_use]
    pub fn done(&self, active: &ActiveStep) -> (usize, usize) {
        match &self.wave {
            Some(wave) => (active.hosts_that(Status::Ok).filter(|host| wave.hosts.contains(*host)).count(), wave.hosts.len()),
            None => (active.count(Status::Ok), active.hosts as usize),
        }
    }

    /// The hosts that are working on `active`, longest first: host and since when.
    #[must_use]
    pub fn running<'a>(&'a self, active: &'a ActiveStep) -> Vec<(&'a str, f64)> {
        if active.step.stage() == Stage::Local {
            return Vec::new();
        }
        let log = |host: &str| self.logs.get(host).filter(|log| log.step == active.step);
        let failed: BTreeSet<&str> = self.failures.iter().map(|failure| failure.host.as_str()).collect();
        let before = self.failures.iter().filter(|failure| failure.step != active.step).map(|failure| failure.host.as_str());
        let well = self.hosts.len() - before.collect::<BTreeSet<_>>().len().min(self.hosts.len());
        let at_work = |host: &&String| {
            let host = host.as_str();
            match &self.wave {
                _ if active.ended.contains_key(host) => false,
                // Hosts that failed are those that are put back.
                _ if failed.contains(host) && active.step != Step::Revert => false,
                _ if !active.started.is_empty() => active.started.contains(host),
                Some(wave) => wave.hosts.contains(host),
                // A step of fewer hosts than there are does not tell which: those that were heard of.
                None => active.hosts as usize >= well || log(host).is_some(),
            }
        };
        let earliest = self.since(active);
        let since = |host: &'a String| (host.as_str(), log(host).map_or(earliest, |log| log.since.max(earliest)));
        let mut running: Vec<(&str, f64)> = self.hosts.iter().filter(at_work).map(since).collect();
        running.sort_by(|a, b| a.1.total_cmp(&b.1));
        running
    }
}

impl ActiveStep {
    /// The hosts that ended like `status`, in their order.
    pub fn hosts_that(&self, status: Status) -> impl Iterator<Item = &str> {
        self.ended.iter().filter(move |(_, (ended, _))| *ended == status).map(|(host, _)| host.as_str())
    }

    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.hosts_that(status).count()
    }

    /// The host that took longest, where there is more than one to compare.
    #[must_use]
    pub fn slowest(&self) -> Option<(&str, f64)> {
        let ended = self.ended.iter().map(|(host, (_, secs))| (host.as_str(), *secs));
        ended.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|_| self.ended.len() > 1)
    }
}

impl Failure {
    /// Tells whether `other` failed in the same way, with the same output.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.is_of_kind(other) && self.lines == other.lines
    }

    /// Tells whether `other` failed in the same way, whatever it printed: words that differ by the host's name, or by a number, are the
    /// same.
    #[must_use]
    pub fn is_of_kind(&self, other: &Self) -> bool {
        let same = |mine: &str, others: &str| general(mine, &self.host) == general(others, &other.host);
        let same_detail = match (&self.detail, &other.detail) {
            (Some(mine), Some(others)) => same(mine, others),
            (mine, others) => mine == others,
        };
        (self.step, self.exit) == (other.step, other.exit)
            && same_detail
            && self.command.len() == other.command.len()
            && self.command.iter().zip(&other.command).all(|(mine, others)| same(mine, others))
    }
}

impl Log {
    /// Tells whether this is what was printed in `step`. Activation and check are one request, and what they print is one stream.
    #[must_use]
    pub fn is_of(&self, step: Step) -> bool {
        self.step == step || (step == Step::Check && self.step == Step::Activate)
    }

    fn push(&mut self, line: &str, keep: usize, t: f64) {
        self.heard = t;
        self.bytes += line.len();
        self.lines.push_back(line.to_owned());
        while self.lines.len() > TAIL && self.bytes > keep {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
            self.earlier += 1;
        }
    }
}

impl Diagnostic {
    /// Reads the event, if it is a diagnostic.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let Event::Diagnostic { severity, message, hosts, evidence, state, help, .. } = event else { return None };
        let (message, hosts, evidence) = (message.clone(), hosts.clone(), evidence.clone());
        Some(Self { severity: *severity, message, hosts, evidence, state: state.clone(), help: help.clone() })
    }
}

/// A text without what makes it one host's: its name, and numbers.
fn general(text: &str, host: &str) -> String {
    let label = host.split('.').next().unwrap_or(host);
    let mut out = String::with_capacity(text.len());
    for c in text.replace(host, "*").replace(label, "*").chars() {
        match c {
            '0'..='9' | '.' if out.ends_with('0') => {}
            '0'..='9' => out.push('0'),
            other => out.push(other),
        }
    }
    out
}

/// Writes an argv as one would type it.
#[must_use]
pub fn shown_command(argv: &[String]) -> String {
    let quoted = |word: &String| shlex::try_quote(word).map_or_else(|_| word.clone(), std::borrow::Cow::into_owned);
    argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Writes a command for whoever reads of its failure: a script of a recipe's own by what it does, any other as one would type it.
#[must_use]
pub fn told_command(argv: &[String]) -> String {
    recipe::described(argv).unwrap_or_else(|| shown_command(argv))
}
