//! Stored output for people: what one run's hosts wrote in one step, and short outputs gathered under the hosts that share them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::{glob, ranges, split};
use crate::event::{Event, Status, Step, Timed};
use crate::figures::{age, counted, duration};
use crate::report::fold::Names;
use crate::report::paper::{Paper, table};
use crate::report::phrases::short_commit;
use crate::report::store::StoredRun;

/// Which output is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Patterns of hosts as `-H` takes them, without roles and labels, which no run remembers; none is all hosts.
    pub hosts: Vec<String>,
    pub step: Option<Step>,
}

/// Writes the output that `wanted` asks for: host by host, step by step, in the order in which it came.
#[must_use]
pub fn text(events: &[Timed], wanted: &Wanted, paper: Paper) -> String {
    let all = hosts(events);
    let names = Names::new(all);
    let picked = pick(all, &wanted.hosts);
    let asked = |host: &str, step: Step| wanted.asks(&picked, host, step);
    let mut logs: BTreeMap<(&str, Step), Vec<String>> = BTreeMap::new();
    for timed in events {
        match &timed.event {
            Event::Output { host, step, line, .. } if asked(host, *step) => {
                let prefix = format!("{}| ", names.short(host));
                logs.entry((host, *step)).or_default().push(paper.safe(&format!("{prefix}{line}")));
            }
            Event::HostStep { host, step, status, secs, exit, detail, .. } if asked(host, *step) => {
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
    let picked = pick(hosts(events), &wanted.hosts);
    events.iter().any(|timed| match &timed.event {
        Event::Output { host, step, .. } | Event::HostStep { host, step, status: Status::Failed, .. } => wanted.asks(&picked, host, *step),
        _ => false,
    })
}

/// The events of a run that are of a wanted host and step, and those of the run itself.
#[must_use]
pub fn only<'a>(events: &'a [Timed], wanted: &Wanted) -> Vec<&'a Timed> {
    let picked = pick(hosts(events), &wanted.hosts);
    let is_wanted = |timed: &&Timed| match &timed.event {
        Event::Output { host, step, .. } | Event::HostStep { host, step, .. } | Event::Progress { host, step, .. } => {
            wanted.asks(&picked, host, *step)
        }
        _ => true,
    };
    events.iter().filter(is_wanted).collect()
}

impl Wanted {
    fn asks(&self, picked: &BTreeSet<&str>, host: &str, step: Step) -> bool {
        (self.hosts.is_empty() || picked.contains(host)) && self.step.is_none_or(|wanted| wanted == step)
    }
}

/// The hosts of a run that patterns name: ranges, globs, full and short names, and `!` for what is left out. What is no pattern, or
/// matches no host, names none.
#[must_use]
pub fn pick<'a>(hosts: &'a [String], patterns: &[String]) -> BTreeSet<&'a str> {
    let typed = patterns.iter().flat_map(|text| split(text));
    let (without, with): (Vec<&str>, Vec<&str>) = typed.partition(|pattern| pattern.starts_with('!'));
    let short = ranges::shorten(hosts);
    let matching = |pattern: &str| -> Vec<&'a str> {
        let patterns = ranges::expand(pattern).unwrap_or_default();
        let answers = |names: [&str; 3]| patterns.iter().any(|pattern| names.iter().any(|name| glob(pattern.as_bytes(), name.as_bytes())));
        hosts.iter().zip(&short).filter(|(host, short)| answers([host, short, label(host)])).map(|(host, _)| host.as_str()).collect()
    };
    let mut picked: BTreeSet<&str> = if with.is_empty() && !without.is_empty() {
        hosts.iter().map(String::as_str).collect()
    } else {
        with.into_iter().flat_map(matching).collect()
    };
    for host in without.into_iter().flat_map(|pattern| matching(&pattern[1..])) {
        picked.remove(host);
    }
    picked
}

/// A name without its domain; an address has none.
fn label(host: &str) -> &str {
    if host.parse::<IpAddr>().is_ok() { host } else { host.split('.').next().unwrap_or(host) }
}

fn ending(host: &str, step: Step, status: Status, secs: f64, exit: Option<i32>, detail: Option<&str>) -> String {
    let (mark, word) = match status {
        Status::Ok => ("✓", "done"),
        Status::Failed => ("✗", "failed"),
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

/// The hosts of a run.
#[must_use]
pub fn hosts(events: &[Timed]) -> &[String] {
    let hosts = events.iter().find_map(|timed| match &timed.event {
        Event::RunStarted { hosts, .. } => Some(hosts.as_slice()),
        _ => None,
    });
    hosts.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn picks(hosts: &str, patterns: &str, expected: &str) {
        assert_eq!(pick(&names(hosts), &names(patterns)).into_iter().collect::<Vec<_>>(), names(expected), "{patterns} of {hosts}");
    }

    #[test]
    fn hosts_of_a_run_are_named_as_everywhere() {
        const RUN: &str = "app01.eu.example.net app02.eu.example.net app03.us.example.net db.eu.example.net";
        picks(RUN, "app01.eu.example.net", "app01.eu.example.net");
        picks(RUN, "app01.eu", "app01.eu.example.net");
        picks(RUN, "app01", "app01.eu.example.net");
        picks(RUN, "app[02-03]", "app02.eu.example.net app03.us.example.net");
        picks(RUN, "app[01,03],db", "app01.eu.example.net app03.us.example.net db.eu.example.net");
        picks(RUN, "app0?.eu db", "app01.eu.example.net app02.eu.example.net db.eu.example.net");
        picks(RUN, "app*,!app02", "app01.eu.example.net app03.us.example.net");
        picks(RUN, "!app*", "db.eu.example.net");
        picks(RUN, "!app[01-02] !db", "app03.us.example.net");
    }

    #[test]
    fn what_matches_no_host_of_the_run_names_none() {
        for pattern in ["app", "app9", "web*", "app[01", "app[02-01]", "@web", "az=a", ",", "app1", "app01,!app01"] {
            picks("app01 app02", pattern, "");
        }
        picks("app01 app02", "app9,app02", "app02");
        picks("app01 app02", "!app9", "app01 app02");
        picks("", "app01", "");
        picks("", "!app01", "");
    }

    #[test]
    fn an_address_is_no_name_with_a_domain() {
        picks("10.0.0.1 10.0.1.1", "10", "");
        picks("10.0.0.1 10.0.1.1", "10.0.0.1", "10.0.0.1");
        picks("10.0.0.1 10.0.1.1", "10.0.[0-1].1", "10.0.0.1 10.0.1.1");
        picks("10.0.0.1 10.0.1.1", "10.0.1.*", "10.0.1.1");
    }
}
