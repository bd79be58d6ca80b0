//! Stored output for people: what one run's hosts wrote in one step, and short outputs gathered under the hosts that share them.

use std::collections::BTreeMap;

use crate::event::{Event, Status, Step, Timed};
use crate::figures::{age, counted, duration};
use crate::report::fold::Names;
use crate::report::paper::{Paper, table};
use crate::report::phrases::short_commit;
use crate::report::store::StoredRun;

/// Which output is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Full or short names; none is all hosts.
    pub hosts: Vec<String>,
    pub step: Option<Step>,
    /// Leaves the `host| ` before each line away, for one host.
    pub bare: bool,
}

/// Writes the output that `wanted` asks for: host by host, step by step, in the order in which it came.
#[must_use]
pub fn text(events: &[Timed], wanted: &Wanted, paper: Paper) -> String {
    let names = names(events);
    let asked = |host: &str, step: Step| wanted.asks(&names, host, step);
    let mut logs: BTreeMap<(&str, Step), Vec<String>> = BTreeMap::new();
    for timed in events {
        match &timed.event {
            Event::Output { host, step, line, .. } if asked(host, *step) => {
                let prefix = if wanted.bare { String::new() } else { format!("{}| ", names.short(host)) };
                logs.entry((host, *step)).or_default().push(paper.safe(&format!("{prefix}{line}")));
            }
            Event::HostStep { host, step, status, secs, exit, detail, .. } if asked(host, *step) && !wanted.bare => {
                // A step without output is told only when it is asked for, or failed.
                let spoke = logs.contains_key(&(host.as_str(), *step)) || wanted.step.is_some() || *status == Status::Failed;
                if spoke {
                    let line = ending(names.short(host), *step, *status, *secs, *exit, detail.as_deref());
                    logs.entry((host, *step)).or_default().push(paper.safe(&line));
                }
            }
            _ => {}
        }
    }
    logs.into_values().flatten().map(|line| line + "\n").collect()
}

/// Tells whether the run holds output that `wanted` asks for.
#[must_use]
pub fn is_there(events: &[Timed], wanted: &Wanted) -> bool {
    let names = names(events);
    events.iter().any(|timed| match &timed.event {
        Event::Output { host, step, .. } | Event::HostStep { host, step, status: Status::Failed, .. } => wanted.asks(&names, host, *step),
        _ => false,
    })
}

impl Wanted {
    fn asks(&self, names: &Names, host: &str, step: Step) -> bool {
        let by_host = self.hosts.is_empty() || self.hosts.iter().any(|wanted| wanted == host || wanted == names.short(host));
        by_host && self.step.is_none_or(|wanted| wanted == step)
    }
}

fn ending(host: &str, step: Step, status: Status, secs: f64, exit: Option<i32>, detail: Option<&str>) -> String {
    let (mark, word) = match status {
        Status::Ok => ("✓", "done"),
        Status::Failed => ("✗", "failed"),
        Status::Skipped => ("·", "skipped"),
        Status::Stopped => ("✗", "stopped"),
    };
    let exit = exit.filter(|_| status == Status::Failed).map_or(String::new(), |exit| format!(" (exit {exit})"));
    let detail = detail.map_or(String::new(), |detail| format!(": {detail}"));
    format!("{mark} {host} {} {word} after {}{exit}{detail}", step.name(), duration(secs))
}

/// What one host wrote, and how it ended where that was not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub host: String,
    pub lines: Vec<String>,
    pub why: String,
}

/// Gathers what hosts wrote: those that wrote the same, and ended the same, stand together. The most are first.
#[must_use]
pub fn gathered(said: &[Said], paper: Paper) -> String {
    let names = Names::new(&said.iter().map(|said| said.host.clone()).collect::<Vec<_>>());
    let mut groups: BTreeMap<(&[String], &str), Vec<&str>> = BTreeMap::new();
    for Said { host, lines, why } in said {
        groups.entry((lines, why)).or_default().push(host);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(a, some), (b, others)| (!a.1.is_empty(), others.len(), some).cmp(&(!b.1.is_empty(), some.len(), others)));
    let mut text = String::new();
    for ((lines, why), hosts) in groups {
        let why = if why.is_empty() { String::new() } else { format!(" ── {why}") };
        let head = format!("── {} ({}) ──{why}", names.fold(hosts.iter().copied()), counted(hosts.len() as u64, "host"));
        for line in std::iter::once(head.as_str()).chain(lines.iter().map(String::as_str)) {
            text.push_str(&paper.safe(line));
            text.push('\n');
        }
    }
    text
}

/// Lists stored runs, in the order in which they are given; `now` is in seconds since 1970.
#[must_use]
pub fn list(runs: &[StoredRun], now: i64, paper: Paper) -> String {
    let mut rows = vec![["RUN", "VERB", "ENV", "REV", "WHEN", "BY", "HOSTS", "TIME", "RESULT"].map(str::to_owned).to_vec()];
    rows.extend(runs.iter().map(|stored| {
        let meta = &stored.meta;
        let rev = if meta.reference.is_empty() { short_commit(&meta.rev) } else { &meta.reference };
        let when =
            meta.started.parse::<jiff::Timestamp>().map_or_else(|_| "-".to_owned(), |at| format!("{} ago", age(now - at.as_second())));
        let (hosts, time, result) = match meta.exit {
            Some(exit) => (
                format!("{}/{}", meta.ok, meta.hosts),
                duration(meta.secs),
                if exit == 0 { meta.status.clone() } else { format!("{} ({exit})", meta.status) },
            ),
            None => (format!("-/{}", meta.hosts), "-".to_owned(), "not finished".to_owned()),
        };
        let cells = [&stored.run, &meta.verb, &meta.env, rev, &when, &meta.actor, &hosts, &time, &result];
        cells.map(|cell| paper.safe(cell)).to_vec()
    }));
    table(&rows, 2).into_iter().map(|row| row + "\n").collect()
}

fn names(events: &[Timed]) -> Names {
    let hosts = events.iter().find_map(|timed| match &timed.event {
        Event::RunStarted { hosts, .. } => Some(Names::new(hosts)),
        _ => None,
    });
    hosts.unwrap_or_default()
}
