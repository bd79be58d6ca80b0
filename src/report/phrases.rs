//! The sentences that the terminal and the log share: header, steps, failures, and the end of a run.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::event::{Event, Severity, Stage, Status, Step};
use crate::figures::{age, bytes, count, counted, duration};
use crate::report::paper::{Line, Mark, Tone};
use crate::report::run::{ActiveStep, Diagnostic, Failure, Run, told_command};

/// How often a failure is named at once, after the first that is like it.
const AGAIN: usize = 4;
/// How much of a commit id people read.
const SHORT: usize = 7;

/// Cuts a commit's id; what else may stand for a revision stays whole.
#[must_use]
pub fn short_commit(commit: &str) -> &str {
    // A release of Capistrano is named by digits alone, and so is hardly any commit.
    let is_id = commit.bytes().all(|byte| byte.is_ascii_hexdigit()) && commit.bytes().any(|byte| byte.is_ascii_alphabetic());
    commit.get(..SHORT).filter(|_| is_id).unwrap_or(commit)
}

/// `boskel → staging · 3 hosts`.
#[must_use]
pub fn title(run: &Run) -> String {
    let verb = if run.verb == "deploy" { String::new() } else { format!(" · {}", run.verb) };
    format!("{} → {}{verb} · {}", run.project, run.env, counted(run.hosts.len() as u64, "host"))
}

/// What is known of the revision and of the change: label and text.
#[must_use]
pub fn about(run: &Run, event: &Event) -> Vec<(&'static str, String)> {
    match event {
        Event::Revision { rev, reference, .. } if rev.is_empty() => vec![("tree", reference.clone())],
        Event::Revision { rev, reference, subject, author, committed } => {
            let now = run.began.map(jiff::Timestamp::as_second);
            let old = now.map_or(String::new(), |now| format!(", {} ago", age(now - committed)));
            let reference = if rev.starts_with(reference.as_str()) { String::new() } else { format!(" {reference}") };
            vec![("rev", format!("{}{reference} \"{subject}\" ({author}{old})", short_commit(rev)))]
        }
        Event::Changes { from, to, commits, files, release } => {
            let many = from.len() > 1;
            let one = |(commit, hosts): (&String, &u32)| {
                if many { format!("{} ({hosts})", short_commit(commit)) } else { short_commit(commit).to_owned() }
            };
            let from = from.iter().map(one).collect::<Vec<_>>().join(", ");
            let mut text =
                if from == "none" { format!("first release here, {}", short_commit(to)) } else { format!("{from}..{}", short_commit(to)) };
            let figures = [commits.map(|n| counted(n.into(), "commit")), files.map(|n| counted(n.into(), "file"))];
            let figures = figures.into_iter().flatten().collect::<Vec<_>>().join(", ");
            if !figures.is_empty() {
                let _ = write!(text, " · {figures}");
            }
            vec![("changes", text), ("release", release.clone())]
        }
        _ => Vec::new(),
    }
}

/// One finished step or wave, in cells: the views align them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCells {
    pub well: bool,
    pub name: String,
    pub count: String,
    pub took: String,
    pub summary: String,
}

/// Tells a step that finished, unless another line says the same: what was resolved is the header, what was confirmed the end.
#[must_use]
pub fn step_cells(run: &Run, event: &Event, verbosity: i8) -> Option<StepCells> {
    match event {
        Event::StepFinished { step, hosts, ok, failed, secs, summary, .. } => {
            let well = ok == hosts;
            let inner = run.in_waves && matches!(step, Step::Activate | Step::Check | Step::Confirm);
            if (well || inner) && verbosity < 1 && (inner || matches!(step, Step::Resolve | Step::Confirm)) {
                return None;
            }
            let active = run.active.iter().rfind(|active| active.step == *step);
            let local = step.stage() == Stage::Local;
            let count = if local { "local".to_owned() } else { format!("{ok}/{hosts}") };
            let summary = summary_of(run, active, *failed, *hosts, *ok, summary, *secs);
            Some(StepCells { well, name: step.name().to_owned(), count, took: duration(*secs), summary })
        }
        Event::WaveFinished { wave, hosts, ok, secs, summary, .. } => {
            let well = *ok as usize == hosts.len();
            let failed = run.failures.iter().filter(|failure| hosts.contains(&failure.host));
            let failed: BTreeSet<&str> = failed.map(|failure| failure.host.as_str()).collect();
            let text = match (well, summary.is_empty()) {
                (true, true) => run.names.fold(hosts.iter().map(String::as_str)),
                (false, _) if !failed.is_empty() => format!("{} failed: {}", failed.len(), run.names.fold(failed.iter().copied())),
                _ => summary.clone(),
            };
            Some(StepCells {
                well,
                name: format!("wave {wave}"),
                count: format!("{ok}/{}", hosts.len()),
                took: duration(*secs),
                summary: text,
            })
        }
        _ => None,
    }
}

fn summary_of(run: &Run, active: Option<&ActiveStep>, failed: u32, hosts: u32, ok: u32, summary: &str, secs: f64) -> String {
    if failed == 0 && ok == hosts {
        let slowest = active.and_then(ActiveStep::slowest).filter(|_| secs >= 1.0 && summary.is_empty());
        return slowest.map_or_else(|| summary.to_owned(), |(host, secs)| format!("slowest {} {}", run.names.short(host), duration(secs)));
    }
    let named = |status: Status, word: &str| {
        let hosts: Vec<&str> = active.map(|active| active.hosts_that(status).collect()).unwrap_or_default();
        (!hosts.is_empty()).then(|| format!("{} {word}: {}", hosts.len(), run.names.fold(hosts.iter().copied())))
    };
    let parts: Vec<String> = [named(Status::Failed, "failed"), named(Status::Stopped, "stopped")].into_iter().flatten().collect();
    match (parts.is_empty(), summary.is_empty()) {
        (false, _) => parts.join(" · "),
        (true, false) => summary.to_owned(),
        (true, true) => format!("{failed} failed"),
    }
}

/// Tells whether a note is for those who want to know more.
#[must_use]
pub fn is_detail(code: &str) -> bool {
    matches!(code, "session" | "isolated" | "processes-unknown")
}

/// A step that was under way when the run ended, as if it had finished now.
#[must_use]
pub fn unfinished(run: &Run, active: &ActiveStep, t: f64) -> StepCells {
    let ok = u32::try_from(active.count(Status::Ok)).unwrap_or(active.hosts);
    let failed = u32::try_from(active.count(Status::Failed)).unwrap_or(0);
    let local = active.step.stage() == Stage::Local;
    let count = if local { "local".to_owned() } else { format!("{ok}/{}", active.hosts) };
    let secs = t - active.since;
    let at_work = run.running(active);
    let stopped = match at_work.len() {
        count if count == 0 || active.ended.is_empty() => "stopped".to_owned(),
        count => format!("{count} stopped: {}", run.names.fold(at_work.iter().map(|(host, _)| *host))),
    };
    let summary = match failed {
        0 => stopped,
        _ => format!("{} · {stopped}", summary_of(run, Some(active), failed, active.hosts.max(ok + 1), ok, "", secs)),
    };
    StepCells { well: false, name: active.step.name().to_owned(), count, took: duration(secs), summary }
}

/// `app07 build failed after 58.3s (exit 1): the detail`.
#[must_use]
pub fn failed(run: &Run, failure: &Failure) -> String {
    let exit = failure.exit.map_or(String::new(), |exit| format!(" (exit {exit})"));
    let detail = failure.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
    format!("{} {} failed after {}{exit}{detail}", run.names.short(&failure.host), failure.step.name(), duration(failure.secs))
}

/// A failure like others before it, in one line; none once that was said often enough, because the end names all hosts.
#[must_use]
pub fn again(run: &Run, failure: &Failure, before: &[Failure]) -> Option<Vec<String>> {
    let mut like = before.iter().filter(|other| other.is_like(failure));
    let first = like.next()?;
    let said = format!("{}, the same as {}", failed(run, failure), run.names.short(&first.host));
    Some(if like.count() < AGAIN { vec![said] } else { Vec::new() })
}

/// A line from a host, behind its name.
#[must_use]
pub fn said(run: &Run, host: &str, line: &str) -> String {
    format!("{}| {line}", run.names.short(host))
}

/// Where the rest of a log is.
#[must_use]
pub fn earlier(run: &Run, failure: &Failure, stored: bool) -> Option<String> {
    let host = run.names.short(&failure.host);
    let lines = counted(failure.earlier, "earlier line");
    match (failure.earlier, stored) {
        (0, _) => None,
        (_, true) => Some(format!("… {lines}: deployer logs -H {host} --step {}", failure.step.name())),
        (_, false) => Some(format!("… {lines}")),
    }
}

/// Failures that are the same but for the host.
#[derive(Debug)]
pub struct Alike<'a> {
    pub first: &'a Failure,
    pub hosts: Vec<&'a str>,
    /// The shortest and the longest of them.
    secs: (f64, f64),
}

/// Puts failures together that are the same by `is_same`, in the order in which they came.
pub fn alike(failures: &[Failure], is_same: impl Fn(&Failure, &Failure) -> bool) -> Vec<Alike<'_>> {
    let mut groups: Vec<Alike<'_>> = Vec::new();
    for failure in failures {
        match groups.iter_mut().find(|group| is_same(group.first, failure)) {
            Some(group) => {
                group.hosts.push(&failure.host);
                group.secs = (group.secs.0.min(failure.secs), group.secs.1.max(failure.secs));
            }
            None => groups.push(Alike { first: failure, hosts: vec![&failure.host], secs: (failure.secs, failure.secs) }),
        }
    }
    groups
}

impl Alike<'_> {
    /// `app[07-08] (2 hosts) · build · exit 1 after 58.3s`.
    #[must_use]
    pub fn title(&self, who: &str) -> String {
        let Self { first, secs, .. } = self;
        let how = first.exit.map_or_else(|| "failed".to_owned(), |exit| format!("exit {exit}"));
        let (least, most) = (duration(secs.0), duration(secs.1));
        let after = if least == most { most } else { format!("{least} to {most}") };
        format!("{who} · {} · {how} after {after}", first.step.name())
    }
}

/// One failure in full, as it stands at the end of a run on a terminal.
#[must_use]
pub fn failure_block(run: &Run, alike: &Alike<'_>, stored: bool) -> Vec<Line> {
    let Alike { first: failure, hosts, .. } = alike;
    let who = if hosts.len() == 1 {
        failure.host.clone()
    } else {
        format!("{} ({})", run.names.fold(hosts.iter().copied()), counted(hosts.len() as u64, "host"))
    };
    let mut lines = vec![Line { mark: Mark::Failed, tone: Tone::Strong, text: alike.title(&who) }];
    lines.extend(failure.detail.iter().map(|detail| Line::new(format!("  {detail}"))));
    if !failure.command.is_empty() {
        let place = run
            .release
            .as_ref()
            .filter(|_| failure.step == Step::Build)
            .map_or(String::new(), |release| format!("    (in releases/{release})"));
        lines.push(Line::new(format!("  $ {}{place}", told_command(&failure.command))));
    }
    lines.extend(earlier(run, failure, stored).map(|text| Line::toned(Tone::Dim, format!("  {text}"))));
    lines.extend(failure.lines.iter().map(|line| Line::new(format!("  {}", said(run, &failure.host, line)))));
    lines
}

/// The answer to whoever asked the run to stop.
#[must_use]
pub fn stopping(notice: &str) -> Line {
    Line::toned(Tone::Warning, notice)
}

/// A diagnostic in the form of every error: what, evidence, state, hints.
#[must_use]
pub fn diagnostic(run: &Run, told: &Diagnostic) -> Vec<Line> {
    let (word, tone) = match told.severity {
        Severity::Note => ("note", Tone::Plain),
        Severity::Warning => ("warning", Tone::Warning),
        Severity::Error => ("error", Tone::Bad),
    };
    let all = run.names.fold(told.hosts.iter().map(String::as_str));
    let named = match told.hosts.as_slice() {
        [only] => told.message.contains(run.names.short(only)),
        _ => told.hosts.is_empty() || told.message.contains(&all),
    };
    let hosts = if named { String::new() } else { format!(" ({all})") };
    let mut lines = vec![Line::toned(tone, format!("{word}: {}{hosts}", told.message))];
    lines.extend(told.evidence.iter().map(|line| Line::new(format!("  {line}"))));
    lines.extend(told.state.iter().map(|state| Line::new(format!("  state: {state}"))));
    lines.extend(told.help.iter().map(|help| Line::new(format!("  hint: {help}"))));
    lines
}

/// An error at the end of a run, without its state where the verdict says the same.
#[must_use]
pub fn last_error(run: &Run, told: &Diagnostic, summary: &str) -> Vec<Line> {
    diagnostic(run, &Diagnostic { state: told.state.clone().filter(|state| !is_said(state, summary)), ..told.clone() })
}

fn is_said(state: &str, summary: &str) -> bool {
    // A sentence begins with a capital.
    let (state, summary) = (state.to_lowercase(), summary.to_lowercase());
    state.rsplit("; ").next().is_some_and(|last| summary.contains(last))
}

/// What an error adds to failures that are told in full: the state of the hosts where the verdict does not give it, and its hints, but
/// for commands that the end names anyway.
#[must_use]
pub fn hints(errors: &[&Diagnostic], summary: &str, next: &[(String, String)]) -> Vec<Line> {
    let known =
        |help: &str| next.iter().any(|(_, command)| !command.is_empty() && (command.contains(help) || help.contains(command.as_str())));
    let help = errors.iter().flat_map(|error| &error.help).filter(|help| !known(help) && !help.starts_with("deployer logs "));
    let state = errors.iter().filter_map(|error| error.state.as_ref()).filter(|_| summary.is_empty());
    state.map(|state| Line::new(format!("  state: {state}"))).chain(help.map(|help| Line::new(format!("  hint: {help}")))).collect()
}

/// Errors whose hosts have all been told as failures of a step, and the others.
#[must_use]
pub fn told_and_untold(run: &Run) -> (Vec<&Diagnostic>, Vec<&Diagnostic>) {
    let failed: BTreeSet<&str> = run.failures.iter().map(|failure| failure.host.as_str()).collect();
    run.errors.iter().partition(|error| !error.hosts.is_empty() && error.hosts.iter().all(|host| failed.contains(host.as_str())))
}

/// The last lines of a run: the verdict, and what to type next.
#[must_use]
pub fn verdict(exit: u8, summary: &str, next: &[(String, String)]) -> Vec<Line> {
    let tone = if exit == 0 { Tone::Strong } else { Tone::Bad };
    let mut lines: Vec<Line> = summary.lines().map(|line| Line::toned(Tone::Plain, line)).collect();
    if let Some(first) = lines.first_mut() {
        first.tone = tone;
    }
    let width = next.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    lines.extend(next.iter().map(|(label, command)| Line::new(format!("  {label:width$}  {command}"))));
    lines
}

/// What is under way: the step, or the wave that it belongs to.
#[must_use]
pub fn under_way(run: &Run, active: &ActiveStep) -> String {
    run.wave.as_ref().map_or_else(|| active.step.name().to_owned(), |wave| format!("wave {}", wave.number))
}

/// `12.1 MB of 18.3 MB`, or the newest line of a host's output.
#[must_use]
pub fn doing(run: &Run, host: &str, step: Step) -> String {
    let Some(log) = run.logs.get(host).filter(|log| log.step == step) else { return String::new() };
    match (log.lines.back(), log.progress) {
        (Some(line), _) => line.clone(),
        (None, Some((done, total))) => format!("{} of {}", bytes(done), bytes(total)),
        (None, None) => String::new(),
    }
}

/// Counts hosts for a line that is redrawn: `running 71 · done 128 · failed 1`.
#[must_use]
pub fn counters(run: &Run, active: &ActiveStep) -> String {
    let running = run.running(active).len();
    let done = active.count(Status::Ok);
    let failed = active.count(Status::Failed);
    let waiting = (active.hosts as usize).saturating_sub(running + active.ended.len());
    let parts = [("waiting", waiting), ("running", running), ("done", done), ("failed", failed)];
    let parts = parts.into_iter().filter(|(_, number)| *number > 0).map(|(word, number)| format!("{word} {}", count(number as u64)));
    parts.collect::<Vec<_>>().join(" · ")
}
