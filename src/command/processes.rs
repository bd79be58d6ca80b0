//! Processes that still run from a release that is not live: told after a deploy and by `status`. Where the login user may not look, it
//! is told that nothing is known.

use crate::config::Environment;
use crate::event::{Event, Events, Severity};
use crate::fleet::each;
use crate::host::{Host, HostError};
use crate::op::{Answer, Op, Processes};

/// How many processes of one host are named.
const NAMED: usize = 3;
/// The code of the note that is read by those who want to know more.
pub const UNKNOWN: &str = "processes-unknown";

/// Asks every host.
pub async fn ask(hosts: &[Host]) -> Vec<Result<Processes, HostError>> {
    each(hosts, 64, |host| async move {
        match host.ask(Op::Processes).await? {
            Answer::Processes(found) => Ok(found),
            other => Err(HostError::unexpected(host.name(), &other)),
        }
    })
    .await
}

/// Tells of what was not restarted by a deploy that went well.
pub async fn tell(environment: &Environment, hosts: &[Host], events: &Events) {
    let told = |severity, code: &str, message, hosts| Event::Diagnostic {
        severity,
        code: code.to_owned(),
        message,
        hosts,
        evidence: Vec::new(),
        state: None,
        help: Vec::new(),
    };
    let mut unknown = Vec::new();
    for (host, found) in hosts.iter().zip(ask(hosts).await) {
        let name = host.name().to_owned();
        let lines = found.as_ref().map(lines).unwrap_or_default();
        for line in lines {
            events.emit(told(Severity::Warning, "old-process", format!("{name}: {line}"), vec![name.clone()]));
        }
        if found.is_ok_and(|found| is_unknown(&found)) {
            unknown.push(name);
        }
    }
    if !unknown.is_empty() && environment.ways().any(|way| way.activate.is_some()) {
        let message = "whether processes of other users still run from an old release is not known: the login user may not see it";
        events.emit(told(Severity::Note, UNKNOWN, message.to_owned(), unknown));
    }
}

/// Tells whether there are processes that nobody could look at.
#[must_use]
pub const fn is_unknown(found: &Processes) -> bool {
    found.hidden || found.unknown > 0
}

/// Says which processes of one host run from an old release.
#[must_use]
pub fn lines(found: &Processes) -> Vec<String> {
    let named = found.old.iter().take(NAMED);
    let mut lines: Vec<String> = named.map(|old| format!("process {} ({}) still runs from {}", old.pid, old.name, old.release)).collect();
    if found.old.len() > NAMED {
        lines.push(format!("{} more processes still run from old releases", found.old.len() - NAMED));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OldProcess;

    #[test]
    fn many_old_processes_are_counted_and_hidden_ones_are_unknown() {
        let old = |pid| OldProcess { pid, name: "python3".into(), release: "r1".into() };
        let found = Processes { old: (1..=5).map(old).collect(), unknown: 0, hidden: false };
        assert_eq!(lines(&found)[0], "process 1 (python3) still runs from r1");
        assert_eq!(lines(&found)[3], "2 more processes still run from old releases");
        assert!(
            !is_unknown(&found)
                && is_unknown(&Processes { hidden: true, ..found.clone() })
                && is_unknown(&Processes { unknown: 1, ..found })
        );
    }
}
