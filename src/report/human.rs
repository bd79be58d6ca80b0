//! The view on a terminal: lines that stay, and a few lines below them that are redrawn. Nothing here draws: `live` does.

use crate::event::{Event, STOPPING, Severity, Stage, Status, Step, Timed};
use crate::figures::clock;
use crate::report::paper::{Line, Mark, Tone};
use crate::report::phrases::{self, StepCells};
use crate::report::run::{ActiveStep, Diagnostic, Failure, Run};

/// Lines of a failure that are shown at once; the end has more.
const EXTRACT: usize = 5;
/// Up to this many hosts, each has a line of its own.
const FEW: usize = 8;
/// Hosts that are named where there are many.
const SLOWEST: usize = 3;

#[derive(Debug)]
pub struct Human {
    run: Run,
    verbosity: i8,
    /// Whether the whole logs are kept, so that `deployer logs` has them.
    stored: bool,
    steps_began: bool,
}

impl Human {
    #[must_use]
    pub fn new(verbosity: i8, stored: bool) -> Self {
        Self { run: Run::new(0), verbosity, stored, steps_began: false }
    }

    /// Takes an event and gives the lines that stay.
    pub fn take(&mut self, timed: &Timed) -> Vec<Line> {
        // A finished step is read before it is forgotten.
        let step = phrases::step_cells(&self.run, &timed.event, self.verbosity).map(|cells| self.step_line(&cells));
        let commands = self.commands(&timed.event);
        let failures = self.run.failures.len();
        self.run.take(timed);
        match &timed.event {
            Event::RunFinished { exit, summary, next, .. } => self.end(*exit, summary, next),
            // Whoever asked waits for the answer, however little else is wanted.
            Event::Diagnostic { code, message, .. } if code == STOPPING => vec![phrases::stopping(message)],
            _ if self.verbosity < 0 => Vec::new(),
            Event::RunStarted { .. } => vec![Line::toned(Tone::Strong, phrases::title(&self.run))],
            Event::Revision { .. } | Event::Changes { .. } => {
                let line = |(label, text)| Line::new(format!("  {label:<7}  {text}"));
                phrases::about(&self.run, &timed.event).into_iter().map(line).collect()
            }
            Event::StepFinished { .. } | Event::WaveFinished { .. } => self.spaced(step.into_iter().chain(commands).collect()),
            Event::HostStep { .. } => {
                let lines: Vec<Line> = self.run.failures[failures..].iter().flat_map(|failure| self.extract(failure, failures)).collect();
                self.spaced(lines)
            }
            Event::Output { host, step: Step::Hook, line, .. } => vec![Line::new(phrases::said(&self.run, host, line))],
            Event::Output { host, line, .. } if self.verbosity >= 2 => vec![Line::toned(Tone::Dim, phrases::said(&self.run, host, line))],
            Event::Diagnostic { severity: Severity::Note, code, .. } if phrases::is_detail(code) && self.verbosity < 1 => Vec::new(),
            Event::Diagnostic { severity: Severity::Note | Severity::Warning, .. } => {
                Diagnostic::of(&timed.event).iter().flat_map(|told| phrases::diagnostic(&self.run, told)).collect()
            }
            Event::Diagnostic { severity: Severity::Error, .. }
            | Event::Version { .. }
            | Event::StepStarted { .. }
            | Event::WaveStarted { .. }
            | Event::WavePaused { .. }
            | Event::HostStarted { .. }
            | Event::Progress { .. }
            | Event::Output { .. } => Vec::new(),
        }
    }

    /// Sets the first step apart from the header.
    fn spaced(&mut self, mut lines: Vec<Line>) -> Vec<Line> {
        if !lines.is_empty() && !std::mem::replace(&mut self.steps_began, true) {
            lines.insert(0, Line::new(""));
        }
        lines
    }

    fn step_line(&self, cells: &StepCells) -> Line {
        let StepCells { well, name, count, took, summary } = cells;
        let width = 2 * self.run.hosts.len().to_string().len() + 1;
        let count = if width < 5 { format!("{count:<5}") } else { format!("{count:>width$} ") };
        let text = format!("{name:<8}  {count} {took:>5}   {summary}");
        Line::marked(if *well { Mark::Ok } else { Mark::Failed }, text.trim_end())
    }

    fn commands(&self, event: &Event) -> Vec<Line> {
        let Event::StepFinished { step, .. } = event else { return Vec::new() };
        let active = self.run.active.iter().filter(|active| active.step == *step && self.verbosity >= 1);
        let commands = active.flat_map(|active| &active.commands);
        let line = |(command, hosts): (&String, &Vec<String>)| {
            Line::toned(Tone::Dim, format!("    {}$ {command}", self.run.names.fold(hosts.iter().map(String::as_str))))
        };
        commands.map(line).collect()
    }

    fn extract(&self, failure: &Failure, earlier: usize) -> Vec<Line> {
        if let Some(again) = phrases::again(&self.run, failure, &self.run.failures[..earlier]) {
            return again.into_iter().map(|text| Line::marked(Mark::Failed, text)).collect();
        }
        // What a hook says was told as it came.
        let extract = if failure.step == Step::Hook { 0 } else { EXTRACT };
        let tail = &failure.lines[failure.lines.len().saturating_sub(extract)..];
        let said = tail.iter().map(|line| Line::new(format!("    {}", phrases::said(&self.run, &failure.host, line))));
        std::iter::once(Line::marked(Mark::Failed, phrases::failed(&self.run, failure))).chain(said).collect()
    }

    fn end(&mut self, exit: u8, summary: &str, next: &[(String, String)]) -> Vec<Line> {
        let run = &self.run;
        let mut lines: Vec<Line> = Vec::new();
        if self.verbosity >= 0 {
            lines.extend(run.active.iter().map(|active| self.step_line(&phrases::unfinished(run, active, run.t))));
        }
        for alike in phrases::alike(&run.failures, Failure::is_like) {
            part(&mut lines, phrases::failure_block(run, &alike, self.stored));
        }
        let (told, untold) = phrases::told_and_untold(run);
        lines.extend(phrases::hints(&told, summary, next));
        for error in untold {
            part(&mut lines, phrases::last_error(run, error, summary));
        }
        if self.verbosity >= -1 || exit != 0 {
            part(&mut lines, phrases::verdict(exit, summary, next));
        }
        if self.verbosity >= 0 && lines.first().is_some_and(|line| !line.text.is_empty() && line.mark == Mark::None) {
            lines.insert(0, Line::new(""));
        }
        self.run.active.clear();
        lines
    }

    /// The lines that are redrawn: at most twelve, and at most a third of the terminal.
    #[must_use]
    pub fn live(&self, t: f64, rows: usize) -> Vec<Line> {
        let room = (rows / 3).clamp(1, 12);
        let Some(active) = self.run.active.last().filter(|_| self.verbosity >= 0) else { return Vec::new() };
        let mut lines = if let Some(pause) = self.run.pause {
            let (spent, all) = (clock(t - pause.since), clock(pause.secs));
            vec![Line::new(format!("  {:<8}  {spent} of {all}, then wave {}", "pause", pause.next))]
        } else if self.run.hosts.len() > FEW && active.step.stage() != Stage::Local {
            self.many(active, t)
        } else {
            self.few(active, t, room.saturating_sub(2))
        };
        lines.truncate(room.saturating_sub(1).max(1));
        if room > 1 {
            lines.push(Line::toned(Tone::Dim, format!("  {} elapsed · {}", clock(t), self.stopping())));
        }
        lines
    }

    fn few(&self, active: &ActiveStep, t: f64, room: usize) -> Vec<Line> {
        let run = &self.run;
        let running = run.running(active);
        let width = run.hosts.iter().map(|host| run.names.short(host).chars().count()).max().unwrap_or(0);
        let local = active.step.stage() == Stage::Local;
        let (done, all) = run.done(active);
        let count = if local { "local".to_owned() } else { format!("{done}/{all}") };
        let mut lines = vec![Line::new(format!(
            "  {:<8}  {count:<5}  {}{}",
            phrases::under_way(run, active),
            clock(t - run.since(active)),
            failed(active)
        ))];
        // Where not all fit, the last line says how many more there are.
        let hidden = running.len().saturating_sub(room);
        let shown = if hidden > 0 { room.saturating_sub(1) } else { running.len() };
        lines.extend(running.iter().take(shown).map(|(host, since)| {
            let name = run.names.short(host);
            let text = format!("    {name:<width$}  {} {}  {}", spinner(t), clock(t - since), phrases::doing(run, host, active.step));
            Line::new(text.trim_end())
        }));
        if hidden > 0 && room > 0 {
            lines.push(Line::toned(Tone::Dim, format!("    … {} more", running.len() - shown)));
        }
        lines
    }

    fn many(&self, active: &ActiveStep, t: f64) -> Vec<Line> {
        let run = &self.run;
        let name = phrases::under_way(run, active);
        let failed = failed(active);
        let (done, all) = run.done(active);
        let ended =
            run.wave.as_ref().map_or(active.ended.len(), |wave| active.ended.keys().filter(|host| wave.hosts.contains(*host)).count());
        let bar = bar(ended, all);
        let spent = clock(t - run.since(active));
        let mut lines = vec![
            Line::new(format!("  {name:<8}  {bar}  {done}/{all}{failed} · {spent}")),
            Line::new(format!("    {}", phrases::counters(run, active))),
        ];
        let running = run.running(active);
        let width = running.iter().take(SLOWEST).map(|(host, _)| run.names.short(host).chars().count()).max().unwrap_or(0);
        lines.extend(running.iter().take(SLOWEST).enumerate().map(|(at, (host, since))| {
            let label = if at == 0 { "slowest" } else { "" };
            let text = format!(
                "    {label:<7}  {:<width$} {}  {}",
                run.names.short(host),
                clock(t - since),
                phrases::doing(run, host, active.step)
            );
            Line::new(text.trim_end())
        }));
        lines
    }

    fn stopping(&self) -> &'static str {
        match (self.run.verb.as_str(), self.run.switching) {
            _ if self.run.stopping => "stopping · ^C again leaves at once",
            ("deploy" | "rollback", false) => "^C stops, nothing is live yet",
            ("deploy" | "rollback", true) => "^C stops after the hosts that are switching",
            _ => "^C stops",
        }
    }
}

/// Adds a part, with an empty line before it where there is something to part it from.
fn part(lines: &mut Vec<Line>, more: Vec<Line>) {
    if !lines.is_empty() && !more.is_empty() {
        lines.push(Line::new(""));
    }
    lines.extend(more);
}

fn failed(active: &ActiveStep) -> String {
    let failed = active.count(Status::Failed);
    if failed > 0 { format!(" · {failed} failed") } else { String::new() }
}

fn spinner(t: f64) -> char {
    const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
    // A clock before zero shows the first frame.
    let tenths = std::time::Duration::try_from_secs_f64(t).unwrap_or_default().as_millis() / 100;
    FRAMES[usize::try_from(tenths % 4).unwrap_or(0)]
}

fn bar(done: usize, all: usize) -> String {
    const WIDTH: usize = 24;
    let filled = (done * WIDTH).checked_div(all).unwrap_or(0).min(WIDTH);
    format!("{}{}", "━".repeat(filled), " ".repeat(WIDTH - filled))
}
