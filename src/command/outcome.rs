//! How a run ended, in words: pure text from counts and failures.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::failure::{self, HostFailure};
use crate::command::typed;
use crate::config::ranges;
use crate::error::Error;
use crate::exit::Exit;
use crate::fleet::Connected;
use crate::host::HostError;
use crate::op::{Answer, Code, Command};

/// How many different hints are worth reading at once.
const HINTS: usize = 3;

/// Writes a command for people.
#[must_use]
pub fn command_words(command: &Command) -> Vec<String> {
    match command {
        Command::Shell(text) => vec!["sh".to_owned(), "-eu".to_owned(), "-c".to_owned(), text.clone()],
        Command::Argv(words) => words.clone(),
    }
}

/// Says what serves now: `prod still runs 9f8e7d6 on 12/12 hosts`.
#[must_use]
pub fn serving(environment: &str, verb: &str, live: &BTreeMap<String, u32>) -> String {
    let total: u32 = live.values().sum();
    let plural = if total == 1 { "host" } else { "hosts" };
    let parts: Vec<String> = live.iter().map(|(name, count)| format!("{name} on {count}/{total} {plural}")).collect();
    match parts.as_slice() {
        [] => format!("what {environment} runs is not known: no host answered"),
        _ => format!("{environment} {verb} {}", parts.join(" and ")),
    }
}

/// Explains that hosts cannot be reached: all of them, each with its cause.
#[must_use]
pub fn unreachable(connected: &Connected, state: String) -> Error {
    let failures: Vec<HostFailure> =
        connected.unreachable.iter().map(|(target, error)| failure::unreachable(&target.name, error)).collect();
    let mut error = explain(Exit::Unreachable, &failures, connected.hosts.len() + failures.len(), state);
    let first = connected.unreachable.first().map_or("unreachable", |(_, error)| error.code());
    error.code = if connected.unreachable.iter().all(|(_, error)| error.code() == first) { first } else { "unreachable" };
    error.hints.clear();
    for hint in connected.unreachable.iter().flat_map(|(_, error)| error.hint()) {
        // Hosts that fail alike are helped alike, and nobody reads a page of hints.
        if error.hints.len() < 5 && !error.hints.contains(&hint) {
            error.hints.push(hint);
        }
    }
    error
}

/// Explains the failures of one run: those that decided it, of their earliest step first, hosts with the same message folded.
#[must_use]
pub fn explain(exit: Exit, failures: &[HostFailure], hosts: usize, state: String) -> Error {
    let Some(first) = failures.iter().min_by_key(|failure| (failure.is_tolerated, failure.step)) else {
        return Error::new(exit, exit.name(), exit.name()).state(state);
    };
    let is_same = |failure: &&HostFailure| (failure.step, failure.is_tolerated) == (first.step, first.is_tolerated);
    let same: Vec<&HostFailure> = failures.iter().filter(is_same).collect();
    let names: Vec<String> = same.iter().map(|failure| failure.host.clone()).collect();
    let count = if hosts > 1 { format!(" ({} of {hosts} hosts)", names.len()) } else { String::new() };
    let place = format!("`{}`{count}", ranges::fold(&names));
    // One message for all, or each host with its own.
    let shared = same.iter().all(|failure| failure.message == first.message).then_some(&first.message);
    let why = shared.map_or_else(String::new, |message| format!(": {message}"));
    let what =
        if first.blocked { format!("cannot deploy to {place}{why}") } else { format!("{} failed on {place}{why}", first.step.name()) };
    let mut evidence = Vec::new();
    for failure in failures {
        if shared != Some(&failure.message) || !is_same(&failure) {
            let step = if failure.blocked { String::new() } else { format!("{}: ", failure.step.name()) };
            evidence.push(format!("{} | {step}{}", failure.host, failure.message));
        }
        evidence.extend(failure.tail.iter().map(|line| format!("{} | {line}", failure.host)));
    }
    let code = first.code.map_or(exit.name(), code_name);
    let mut error = Error::new(exit, code, what).evidence(evidence).state(state);
    error.hosts = failures.iter().map(|failure| failure.host.clone()).collect();
    for hint in hints(&same) {
        if error.hints.len() < HINTS && !error.hints.contains(&hint) {
            error.hints.push(hint);
        }
    }
    error
}

/// The hints of failures, those that differ by the host alone as one that names all of them.
fn hints(failures: &[&HostFailure]) -> Vec<String> {
    let mut hints: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for failure in failures {
        let Some(hint) = &failure.hint else { continue };
        let parts: Vec<&str> = hint.split(failure.host.as_str()).collect();
        match hints.iter_mut().find(|(other, _)| *other == parts) {
            Some((_, hosts)) => hosts.push(&failure.host),
            None => hints.push((parts, vec![&failure.host])),
        }
    }
    hints.into_iter().map(|(parts, hosts)| parts.join(&typed::these(&hosts))).collect()
}

/// Explains a run that ended for a reason of its own, unless a host's failure ended it.
#[must_use]
pub fn explain_unless(why: Option<String>, exit: Exit, failures: &[HostFailure], hosts: usize, state: String) -> Error {
    let mut error = explain(exit, failures, hosts, state);
    if let Some(why) = why.filter(|_| failures.iter().all(|failure| failure.is_tolerated)) {
        let told = if failures.is_empty() { None } else { Some(std::mem::take(&mut error.what)) };
        error.evidence.splice(0..0, told);
        error.what = why;
        error.code = exit.name();
        error.hints.clear();
    }
    error
}

/// What to type: what removes the causes, as far as they are known, and where the output of what failed is.
#[must_use]
pub fn look_at(environment: &str, failures: &[HostFailure]) -> Vec<(String, String)> {
    let with_output = failures.iter().find(|failure| !failure.tail.is_empty());
    let fixes: BTreeSet<&String> = failures.iter().filter_map(|failure| failure.fix.as_ref()).collect();
    let look = with_output
        .map(|failure| ("look".to_owned(), format!("deployer logs -e {environment} -H {} --step {}", failure.host, failure.step.name())));
    fixes.into_iter().map(|fix| ("fix".to_owned(), fix.clone())).chain(look).collect()
}

/// Says what pruning did on one host.
#[must_use]
pub fn pruned(result: Result<&Answer, &HostError>) -> String {
    match result {
        Ok(Answer::Pruned { removed, kept }) => format!("kept {}, removed {}", kept.len(), removed.len()),
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// Names the code as events do.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::DiskFull => "disk-full",
        Code::ReadOnly => "read-only",
        Code::Permission => "permission",
        Code::NotDirectory => "not-directory",
        Code::CurrentIsDirectory => "current-is-directory",
        Code::Superseded => "superseded",
        Code::NotLocked => "not-locked",
        Code::NotSealed => "not-sealed",
        Code::NotFound => "not-found",
        Code::Corrupt => "corrupt",
        Code::SharedMissing => "shared-missing",
        Code::CacheMissing => "cache-missing",
        Code::PathInTheWay => "path-in-the-way",
        Code::Command => "command",
        Code::Sudo => "sudo",
        Code::NoNamespace => "no-namespace",
        Code::NewerFormat => "newer-format",
        Code::Refused => "refused",
        Code::Protocol => "protocol",
        Code::Stopped => "stopped",
        Code::Io => "io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Step;

    fn failed(host: &str, step: Step, is_tolerated: bool) -> HostFailure {
        HostFailure { is_tolerated, ..failure::host(host, step, &HostError::Lost { host: host.to_owned(), why: "gone".to_owned() }) }
    }

    #[test]
    fn what_decided_the_run_is_told_first_and_what_was_tolerated_beside_it() {
        let failures = [failed("app12", Step::Build, true), failed("app3", Step::Check, false)];
        let error = explain(Exit::RolledBack, &failures, 12, String::new());
        assert!(error.what.starts_with("check failed on `app3` (1 of 12 hosts)"), "{}", error.what);
        assert!(error.evidence.iter().any(|line| line.starts_with("app12 | build: ")), "{:?}", error.evidence);
        let error = explain_unless(Some("the run was interrupted".into()), Exit::Partial, &failures[..1], 12, String::new());
        assert_eq!(error.what, "the run was interrupted");
        assert!(error.evidence[0].starts_with("build failed on `app12`"), "{:?}", error.evidence);
        let error = explain_unless(Some("the run was interrupted".into()), Exit::RolledBack, &failures, 12, String::new());
        assert!(error.what.starts_with("check failed"), "{}", error.what);
    }

    #[test]
    fn a_hint_that_is_the_same_for_many_hosts_is_told_once_with_all_of_them() {
        let lacks =
            |host: &str| HostFailure { hint: Some(format!("`lxml` is not in the cache of {host}")), ..failed(host, Step::Build, false) };
        let other = HostFailure { hint: Some("look at app9".to_owned()), ..failed("app4", Step::Build, false) };
        let error = explain(Exit::BuildFailed, &[lacks("app1"), lacks("app2"), other, lacks("app3")], 4, String::new());
        assert_eq!(error.hints, ["`lxml` is not in the cache of app1,app2,app3", "look at app9"]);
    }

    #[test]
    fn what_serves_is_counted_by_revision() {
        let live = BTreeMap::from([("9f8e7d6".to_owned(), 11), ("a1b2c3d".to_owned(), 1)]);
        assert_eq!(serving("prod", "runs", &live), "prod runs 9f8e7d6 on 11/12 hosts and a1b2c3d on 1/12 hosts");
    }
}
