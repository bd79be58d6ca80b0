//! The same work on many hosts: connecting, and the tally that turns what single hosts do into the run's steps.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::config::Environment;
use crate::config::environment::Target;
use crate::config::ranges;
use crate::event::{Event, Events, Severity, Status, Step};
use crate::host::{ConnectError, Host};
use crate::op::Facts;
use crate::plan;

/// Runs `work` for every item, at most `limit` at one time, and gives the results in the order of the items.
pub async fn each<I, T, F>(items: impl IntoIterator<Item = I>, limit: usize, work: impl Fn(I) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    let gate = Semaphore::new(limit.max(1));
    let work = &work;
    let gate = &gate;
    join_all(items.into_iter().map(|item| async move {
        let _permit = gate.acquire().await;
        work(item).await
    }))
    .await
}

/// What one host did in one step.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub exit: Option<i32>,
    pub command: Vec<String>,
    pub detail: Option<String>,
    pub sent_bytes: Option<u64>,
}

/// Tells how a step ended on one host, where that step is not one of all hosts.
pub fn tell(events: &Events, host: &str, step: Step, status: Status, secs: f64, done: Done) {
    let Done { exit, command, detail, sent_bytes } = done;
    let (stage, secs) = (step.stage(), (secs * 1000.0).round() / 1000.0);
    events.emit(Event::HostStep { host: host.to_owned(), stage, step, status, secs, exit, command, detail, sent_bytes });
}

/// Follows hosts through the steps, and tells when a step begins and is over for all of them.
pub struct Tally<'a> {
    events: &'a Events,
    hosts: u32,
    steps: Mutex<BTreeMap<Step, Count>>,
}

struct Count {
    began: Instant,
    ok: u32,
    failed: u32,
    absent: u32,
    slowest: (f64, String),
    sent: u64,
    detail: Option<String>,
    /// The hosts by what was told of each; of a cache, those that something was sent to.
    details: BTreeMap<String, BTreeSet<String>>,
    told: bool,
}

impl Count {
    fn new() -> Self {
        let (began, slowest, details) = (Instant::now(), (0.0, String::new()), BTreeMap::new());
        Self { began, ok: 0, failed: 0, absent: 0, slowest, sent: 0, detail: None, details, told: false }
    }
}

impl<'a> Tally<'a> {
    #[must_use]
    pub fn new(events: &'a Events, hosts: usize) -> Self {
        Self { events, hosts: u32::try_from(hosts).unwrap_or(u32::MAX), steps: Mutex::default() }
    }

    /// Runs one step on one host. `describe` says what is worth knowing of the result.
    pub async fn step<T, E>(
        &self,
        host: &str,
        step: Step,
        work: impl Future<Output = Result<T, E>>,
        describe: impl FnOnce(Result<&T, &E>) -> Done,
    ) -> Result<T, E> {
        self.begin(step);
        if matches!(step, Step::Build | Step::Revert) {
            // Which hosts wait for their turn to build, and which had switched, is not to be seen from anything else. It comes after the
            // step's own beginning: a host cannot begin what nobody knows of.
            self.events.emit(Event::HostStarted { host: host.to_owned(), step });
        }
        let began = Instant::now();
        let result = work.await;
        let status = if result.is_ok() { Status::Ok } else { Status::Failed };
        self.record(host, step, status, began.elapsed().as_secs_f64(), describe(result.as_ref()));
        result
    }

    /// Says that a step is about to begin on some host.
    pub fn begin(&self, step: Step) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        self.count(&mut steps, step);
    }

    /// Finds the count of a step, which begins with the first host that takes part in it.
    fn count<'s>(&self, steps: &'s mut BTreeMap<Step, Count>, step: Step) -> &'s mut Count {
        steps.entry(step).or_insert_with(|| {
            self.events.emit(Event::StepStarted { stage: step.stage(), step, hosts: self.hosts });
            Count::new()
        })
    }

    /// Tells how a step ended on one host.
    pub fn record(&self, host: &str, step: Step, status: Status, secs: f64, done: Done) {
        let secs = (secs * 1000.0).round() / 1000.0;
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count(&mut steps, step);
        match status {
            Status::Ok => count.ok += 1,
            Status::Failed | Status::Stopped => count.failed += 1,
        }
        if secs >= count.slowest.0 {
            count.slowest = (secs, host.to_owned());
        }
        count.sent += done.sent_bytes.unwrap_or(0);
        if let (Status::Ok, Some(detail)) = (status, &done.detail) {
            count.detail = Some(detail.clone());
            // Of a cache that lacks nothing there is nothing to say.
            if step != Step::Cache || done.sent_bytes.is_some() {
                count.details.entry(detail.clone()).or_default().insert(host.to_owned());
            }
        }
        let Done { exit, command, detail, sent_bytes } = done;
        let stage = step.stage();
        self.events.emit(Event::HostStep { host: host.to_owned(), stage, step, status, secs, exit, command, detail, sent_bytes });
        self.tell_if_over(step, count);
    }

    /// Says that a host will not take part in `steps`: it failed before, or needs them not.
    pub fn absent(&self, steps: &[Step]) {
        let mut counts = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        for step in steps {
            let count = counts.entry(*step).or_insert_with(Count::new);
            count.absent += 1;
            self.tell_if_over(*step, count);
        }
    }

    fn tell_if_over(&self, step: Step, count: &mut Count) {
        let took_part = count.ok + count.failed;
        if count.told || took_part + count.absent < self.hosts {
            return;
        }
        count.told = true;
        if took_part == 0 {
            return;
        }
        self.events.emit(Event::StepFinished {
            stage: step.stage(),
            step,
            hosts: took_part,
            ok: count.ok,
            failed: count.failed,
            // A step may be told only when it is over: then its slowest host knows better how long it took.
            secs: (count.began.elapsed().as_secs_f64().max(count.slowest.0) * 1000.0).round() / 1000.0,
            summary: summary(step, count),
        });
    }
}

fn summary(step: Step, count: &Count) -> String {
    match step {
        Step::Push if count.ok > 0 => {
            let per_host = crate::figures::bytes(count.sent / u64::from(count.ok));
            match &count.detail {
                Some(detail) => format!("{per_host} sent per host, {detail}"),
                None => format!("{per_host} sent per host"),
            }
        }
        Step::Cache if !count.details.is_empty() => {
            format!("{}, {} sent in all", supplied(count), crate::figures::bytes(count.sent))
        }
        Step::Build if count.ok + count.failed > 1 => format!("slowest {} {:.1}s", count.slowest.1, count.slowest.0),
        // Hosts that were in one state are in one now; what another needed is not theirs.
        Step::Setup if count.details.len() > 1 => {
            let mut told: Vec<(String, &String)> = count.details.iter().map(|(detail, hosts)| (folded(hosts), detail)).collect();
            told.sort();
            told.into_iter().map(|(hosts, detail)| format!("{hosts}: {detail}")).collect::<Vec<_>>().join(" · ")
        }
        _ => count.detail.clone().unwrap_or_default(),
    }
}

fn folded(hosts: &BTreeSet<String>) -> String {
    ranges::fold(&Vec::from_iter(hosts))
}

/// What hosts lacked: of those that lacked nothing there is nothing to say, whoever was the last.
fn supplied(count: &Count) -> String {
    /// How many different lacks are worth a word each.
    const KINDS: usize = 3;
    let hosts: usize = count.details.values().map(BTreeSet::len).sum();
    let on = |(detail, hosts): (&String, &BTreeSet<String>)| format!("{detail} on {}", folded(hosts));
    match count.details.first_key_value() {
        Some((detail, alike)) if alike.len() == count.ok as usize => detail.clone(),
        _ if count.details.len() <= KINDS => count.details.iter().map(on).collect::<Vec<_>>().join(", "),
        _ => format!("files were missing on {}", crate::figures::counted(hosts as u64, "host")),
    }
}

/// How connecting to the fleet went: the hosts that answered, and those that did not.
pub struct Connected {
    pub hosts: Vec<Host>,
    pub unreachable: Vec<(Target, ConnectError)>,
}

/// Connects to every target of the environment, a bounded number at one time.
pub async fn connect(environment: &Environment, events: &Events) -> Connected {
    let tally = Tally::new(events, environment.targets.len());
    let results = each(&environment.targets, environment.connect.parallel, |target| {
        let root = target.root.as_ref().unwrap_or(&environment.root);
        tally.step(&target.name, Step::Connect, Host::connect(target, root, &environment.connect), |result| Done {
            detail: result.err().map(ToString::to_string),
            ..Done::default()
        })
    })
    .await;
    let mut connected = Connected { hosts: Vec::new(), unreachable: Vec::new() };
    for (target, result) in environment.targets.iter().zip(results) {
        match result {
            Ok(host) => connected.hosts.push(host),
            Err(error) => connected.unreachable.push((target.clone(), error)),
        }
    }
    events.serve(live(&connected.hosts));
    tell_sessions(&connected.hosts, events);
    connected
}

/// Tells which session was chosen for which hosts, and why.
fn tell_sessions(hosts: &[Host], events: &Events) {
    let mut chosen: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for host in hosts {
        let (kind, why) = host.session();
        chosen.entry((kind.name(), why)).or_default().push(host.name().to_owned());
    }
    for ((kind, why), hosts) in chosen {
        events.emit(Event::Diagnostic {
            severity: Severity::Note,
            code: "session".to_owned(),
            message: format!("session {kind}: {why}"),
            hosts,
            evidence: Vec::new(),
            state: None,
            help: Vec::new(),
        });
    }
}

/// Ends every session.
pub async fn close(hosts: &[Host]) {
    each(hosts, usize::MAX >> 4, Host::close).await;
}

/// Reads every host's state again; one that does not answer keeps what was known.
pub async fn refresh(hosts: &[Host]) {
    each(hosts, usize::MAX >> 4, Host::refresh).await;
}

/// Counts hosts by what they serve, as far as is known.
#[must_use]
pub fn live(hosts: &[Host]) -> BTreeMap<String, u32> {
    let facts: Vec<Arc<Facts>> = hosts.iter().map(Host::facts).collect();
    plan::live_counts(facts.iter().map(|facts| &**facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The summary of a step on caches: what each host lacked, in the order in which they came to an end.
    fn told(hosts: &[(&str, Option<&str>)]) -> String {
        let (events, _) = Events::new(Instant::now());
        let tally = Tally::new(&events, hosts.len() + 1);
        for (host, lacked) in hosts {
            let detail = Some(lacked.unwrap_or("complete").to_owned());
            tally.record(host, Step::Cache, Status::Ok, 0.1, Done { detail, sent_bytes: lacked.map(|_| 200_000), ..Done::default() });
        }
        let steps = tally.steps.lock().unwrap();
        summary(Step::Cache, &steps[&Step::Cache])
    }

    #[test]
    fn what_caches_lacked_is_told_whichever_host_is_the_last() {
        let many = Some("8 files were missing");
        assert_eq!(told(&[("app1", None), ("app2", None)]), "complete");
        for hosts in [[("app1", None), ("app2", many)], [("app2", many), ("app1", None)]] {
            assert_eq!(told(&hosts), "8 files were missing on app2, 200.0 kB sent in all");
        }
        assert_eq!(told(&[("app1", many), ("app2", many)]), "8 files were missing, 400.0 kB sent in all");
        let two = [("app3", Some("1 file was missing")), ("app2", many), ("app1", many), ("app4", None)];
        assert_eq!(told(&two), "1 file was missing on app3, 8 files were missing on app[1-2], 600.0 kB sent in all");
        let lacks: Vec<String> = (2..6).map(|n| format!("{n} files were missing")).collect();
        let each: Vec<(String, &str)> = lacks.iter().enumerate().map(|(n, lack)| (format!("app{n}"), lack.as_str())).collect();
        let each: Vec<(&str, Option<&str>)> = each.iter().map(|(host, lack)| (host.as_str(), Some(*lack))).collect();
        assert_eq!(told(&each), "files were missing on 4 hosts, 800.0 kB sent in all");
    }
}
