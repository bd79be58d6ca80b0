//! The view without a terminal: whole lines that begin with the time, one block for each host that has something to tell, and a
//! sign of life every half a minute.

use std::collections::BTreeMap;

use crate::event::{Event, STOPPING, Severity, Status, Step, Timed};
use crate::figures::{clock, counted, duration, stamp};
use crate::report::ci::{Block, Ci};
use crate::report::paper::{Line, Mark, Paper, Tone};
use crate::report::phrases::{self, Alike, StepCells};
use crate::report::run::{Diagnostic, Failure, Log, Run, TAIL, told_command};

/// Seconds without a line after which hosts that still run are named.
const HEARTBEAT: f64 = 30.0;
/// Seconds without output after which a host's last lines are shown, once.
const SILENCE: f64 = 120.0;
const LAST_LINES: usize = 5;
/// Output of one host that is held for its block. What is beyond is in the run store.
const BLOCK: usize = 256 * 1024;

#[derive(Debug)]
pub struct Plain {
    run: Run,
    paper: Paper,
    ci: Ci,
    verbosity: i8,
    stored: bool,
    /// When the newest line was written.
    spoke: f64,
}

impl Plain {
    #[must_use]
    pub fn new(paper: Paper, ci: Ci, verbosity: i8, stored: bool) -> Self {
        let keep = if ci == Ci::None && verbosity < 2 { 0 } else { BLOCK };
        Self { run: Run::new(keep), paper, ci, verbosity, stored, spoke: 0.0 }
    }

    /// Takes an event and gives the lines to write.
    pub fn take(&mut self, timed: &Timed) -> Vec<String> {
        let step = phrases::step_cells(&self.run, &timed.event, self.verbosity);
        let commands = self.commands(&timed.event);
        let failures = self.run.failures.len();
        self.run.take(timed);
        let lines = match &timed.event {
            Event::RunFinished { exit, summary, next, .. } => self.end(*exit, summary, next),
            Event::HostStep { .. } => match self.run.failures.get(failures) {
                Some(failure) => match phrases::again(&self.run, failure, &self.run.failures[..failures]) {
                    Some(again) => again.iter().map(|text| self.mark(Mark::Failed, text)).collect(),
                    None => self.failure(failure),
                },
                None => self.success(&timed.event),
            },
            Event::Diagnostic { code, message, .. } if code == STOPPING => vec![self.line(&phrases::stopping(message))],
            _ if self.verbosity < 0 => Vec::new(),
            Event::Output { host, step: Step::Hook, line, .. } => vec![self.said(host, line)],
            Event::RunStarted { .. } => vec![self.line(&Line::new(phrases::title(&self.run)))],
            Event::Revision { .. } | Event::Changes { .. } => {
                let about = phrases::about(&self.run, &timed.event);
                about.into_iter().map(|(label, text)| self.timed(&format!("{label:<8}  {text}"))).collect()
            }
            Event::StepFinished { .. } | Event::WaveFinished { .. } => step.iter().map(|cells| self.step(cells)).chain(commands).collect(),
            Event::WavePaused { wave, secs } => vec![self.timed(&format!("{:<8}  {} before wave {wave}", "pause", duration(*secs)))],
            Event::Diagnostic { severity: Severity::Note, code, .. } if phrases::is_detail(code) && self.verbosity < 1 => Vec::new(),
            Event::Diagnostic { severity: Severity::Note | Severity::Warning, .. } => {
                let told = Diagnostic::of(&timed.event);
                told.iter().flat_map(|told| phrases::diagnostic(&self.run, told)).map(|line| self.line(&line)).collect()
            }
            Event::Diagnostic { severity: Severity::Error, .. }
            | Event::Version { .. }
            | Event::StepStarted { .. }
            | Event::WaveStarted { .. }
            | Event::HostStarted { .. }
            | Event::Progress { .. }
            | Event::Output { .. } => Vec::new(),
        };
        self.speak(lines, timed.t)
    }

    /// Notes that something was said, and sees to it that the log viewer takes none of it for a command.
    fn speak(&mut self, lines: Vec<String>, t: f64) -> Vec<String> {
        if !lines.is_empty() {
            self.spoke = t;
        }
        lines.into_iter().map(|line| self.ci.harmless(&line)).collect()
    }

    /// Tells, as time goes by, which hosts still run, and which have been silent for long.
    pub fn tick(&mut self, t: f64) -> Vec<String> {
        if self.verbosity < 0 {
            return Vec::new();
        }
        self.run.t = t;
        let mut lines = self.silent(t);
        if lines.is_empty() && t - self.spoke >= HEARTBEAT {
            lines.extend(self.heartbeat(t));
        }
        self.speak(lines, t)
    }

    fn heartbeat(&self, t: f64) -> Option<String> {
        let active = self.run.active.last()?;
        let running = self.run.running(active);
        let name = active.step.name();
        let spent = clock(t - active.since);
        let Some((slowest, _)) = running.first() else { return Some(self.timed(&format!("still running: {name} {spent}"))) };
        let hosts = self.run.names.fold(running.iter().map(|(host, _)| *host));
        let doing = phrases::doing(&self.run, slowest, active.step);
        let last = if doing.is_empty() { String::new() } else { format!("; {} last line: {doing}", self.run.names.short(slowest)) };
        Some(self.timed(&format!("still running ({}): {hosts} {name} {spent}{last}", running.len())))
    }

    fn silent(&mut self, t: f64) -> Vec<String> {
        let Some(active) = self.run.active.last() else { return Vec::new() };
        let quiet = |host: &&str| {
            let log = self.run.logs.get(*host).filter(|log| log.step == active.step && !log.silent && !log.lines.is_empty());
            log.is_some_and(|log| t - log.heard >= SILENCE)
        };
        let hosts: Vec<String> = self.run.running(active).into_iter().map(|(host, _)| host).filter(quiet).map(str::to_owned).collect();
        let mut lines = Vec::new();
        for host in &hosts {
            let Some(log) = self.run.logs.get_mut(host) else { continue };
            log.silent = true;
            let (step, quiet) = (log.step.name(), clock(t - log.heard));
            let last: Vec<String> = log.lines.iter().skip(log.lines.len().saturating_sub(LAST_LINES)).cloned().collect();
            lines.push(self.timed(&format!("{} has been silent for {quiet} in {step}; its last lines:", self.run.names.short(host))));
            lines.extend(last.iter().map(|line| self.said(host, line)));
        }
        lines
    }

    fn success(&self, event: &Event) -> Vec<String> {
        let Event::HostStep { host, step, status: Status::Ok, secs, .. } = event else { return Vec::new() };
        let log = self.run.logs.get(host).filter(|log| log.step == *step && *step != Step::Hook && !log.lines.is_empty());
        let Some(log) = log.filter(|_| self.verbosity >= 2 || (self.ci != Ci::None && self.verbosity >= 0)) else { return Vec::new() };
        let title = self.mark(Mark::Ok, &format!("{} {} {}", self.run.names.short(host), step.name(), duration(*secs)));
        self.block(host, step.name(), title, &self.whole(host, log), true)
    }

    fn failure(&self, failure: &Failure) -> Vec<String> {
        let command = if failure.command.is_empty() { String::new() } else { format!(": {}", told_command(&failure.command)) };
        let title = self.mark(Mark::Failed, &format!("{}{command}", phrases::failed(&self.run, failure)));
        let step = failure.step.name();
        // What a hook says was told as it came.
        let log = self.run.logs.get(&failure.host).filter(|log| log.is_of(failure.step) && failure.step != Step::Hook);
        let whole = log.map(|log| self.whole(&failure.host, log)).unwrap_or_default();
        let (before, tail) = whole.split_at(whole.len().saturating_sub(TAIL));
        match self.ci {
            Ci::Gitlab => self.block(&failure.host, step, title, &whole, false),
            Ci::Github if !before.is_empty() => {
                let host = self.run.names.short(&failure.host);
                let head = self.timed(&format!("{host} {step}, earlier output ({})", counted(before.len() as u64, "line")));
                let mut lines = self.block(&failure.host, step, head, before, true);
                lines.extend(self.block(&failure.host, step, title, tail, false));
                lines
            }
            Ci::Github | Ci::Auto | Ci::None => {
                let mut lines = vec![title];
                lines.extend(phrases::earlier(&self.run, failure, self.stored).map(|text| self.paper.safe(&format!("  {text}"))));
                lines.extend(tail.iter().cloned());
                lines
            }
        }
    }

    fn whole(&self, host: &str, log: &Log) -> Vec<String> {
        let dropped = (log.earlier > 0).then(|| format!("… {}", counted(log.earlier, "earlier line")));
        dropped.iter().chain(&log.lines).map(|line| self.said(host, line)).collect()
    }

    fn block(&self, host: &str, step: &str, title: String, lines: &[String], folded: bool) -> Vec<String> {
        let name = format!("{}_{step}", self.run.names.short(host));
        let began = self.run.began.map_or(0, jiff::Timestamp::as_second);
        let at = began
            .saturating_add(i64::try_from(std::time::Duration::try_from_secs_f64(self.run.t).unwrap_or_default().as_secs()).unwrap_or(0));
        self.ci.block(&Block { name, title, lines, folded, at })
    }

    fn end(&self, exit: u8, summary: &str, next: &[(String, String)]) -> Vec<String> {
        let run = &self.run;
        let mut lines: Vec<String> = Vec::new();
        if self.verbosity >= 0 {
            lines.extend(run.active.iter().map(|active| self.step(&phrases::unfinished(run, active, run.t))));
        }
        let mut rest: Vec<Line> = Vec::new();
        // The logs of failures are above, where they happened: here are their last words.
        rest.extend(phrases::alike(&run.failures, Failure::is_of_kind).iter().flat_map(|alike| brief(run, alike)));
        let (told, untold) = phrases::told_and_untold(run);
        rest.extend(phrases::hints(&told, summary, next));
        rest.extend(untold.iter().flat_map(|error| phrases::last_error(run, error, summary)));
        if self.verbosity >= -1 || exit != 0 {
            let verdict = phrases::verdict(exit, summary, next);
            rest.extend((!rest.is_empty() && !verdict.is_empty()).then(|| Line::new("")));
            rest.extend(verdict);
        }
        if self.verbosity >= 0 && !rest.is_empty() {
            lines.push(String::new());
        }
        lines.extend(rest.iter().map(|line| self.line(line)));
        lines.extend(self.annotations(exit, summary));
        lines
    }

    /// At most one annotation for a step, and one where no step failed.
    fn annotations(&self, exit: u8, summary: &str) -> Vec<String> {
        let run = &self.run;
        let title = format!("{} to {} failed", run.verb, run.env);
        let state = summary.lines().next().unwrap_or_default();
        let mut steps: BTreeMap<_, Vec<&Failure>> = BTreeMap::new();
        for failure in &run.failures {
            steps.entry(failure.step).or_default().push(failure);
        }
        let failed = steps.into_iter().map(|(step, failures)| {
            let hosts = run.names.fold(failures.iter().map(|failure| failure.host.as_str()));
            let why = failures.first().and_then(|failure| failure.lines.last().or(failure.detail.as_ref()));
            format!("{} failed on {hosts}{}. {state}", step.name(), why.map_or(String::new(), |why| format!(": {why}")))
        });
        let mut texts: Vec<String> = failed.collect();
        if texts.is_empty() && exit != 0 {
            texts.extend(run.errors.last().map(|error| format!("{}. {state}", error.message)));
        }
        texts.iter().filter_map(|text| self.ci.annotation(&self.paper.safe(&title), self.paper.safe(text).trim_end())).collect()
    }

    fn step(&self, cells: &StepCells) -> String {
        let StepCells { well, name, count, summary, .. } = cells;
        let width = (2 * self.run.hosts.len().to_string().len() + 1).max(5);
        let count = if count == "local" { String::new() } else { format!("{count:>width$}  ") };
        let text = format!("{name:<8}  {count}{summary}");
        if *well { self.timed(text.trim_end()) } else { self.mark(Mark::Failed, text.trim_end()) }
    }

    fn commands(&self, event: &Event) -> Vec<String> {
        let Event::StepFinished { step, .. } = event else { return Vec::new() };
        let active = self.run.active.iter().filter(|active| active.step == *step && self.verbosity >= 1);
        let commands = active.flat_map(|active| &active.commands);
        commands
            .map(|(command, hosts)| self.paper.safe(&format!("  {}$ {command}", self.run.names.fold(hosts.iter().map(String::as_str)))))
            .collect()
    }

    fn line(&self, line: &Line) -> String {
        line.write(self.paper)
    }

    fn timed(&self, text: &str) -> String {
        self.paper.safe(&format!("[{}] {text}", stamp(self.run.t)))
    }

    fn mark(&self, mark: Mark, text: &str) -> String {
        format!("[{}] {}", stamp(self.run.t), Line::marked(mark, text).write(self.paper))
    }

    fn said(&self, host: &str, line: &str) -> String {
        self.paper.safe(&phrases::said(&self.run, host, line))
    }
}

/// A failure that was told before: who, and why, by the reason or by the last words of the first of them.
fn brief(run: &Run, alike: &Alike<'_>) -> Vec<Line> {
    let text = alike.title(&run.names.fold(alike.hosts.iter().copied()));
    let first = alike.first;
    let mut lines = vec![Line { mark: Mark::Failed, tone: Tone::Plain, text }];
    // Behind a word of ours: a log viewer takes what begins a line for a command.
    lines.extend(first.detail.iter().map(|detail| Line::new(format!("  reason: {detail}"))));
    let tail = &first.lines[first.lines.len().saturating_sub(LAST_LINES)..];
    lines.extend(tail.iter().map(|line| Line::new(format!("  {}", phrases::said(run, &first.host, line)))));
    lines
}
