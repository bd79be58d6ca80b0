//! The form of every error: what, evidence, state of the hosts, hints. The chain of causes is printed once.

use std::error::Error as _;

use crate::error::Error;
use crate::event::{Event, Severity};
use crate::exit::Exit;
use crate::report::paper::{Paper, Tone};

/// Writes `error` for people, with a line end after each line.
#[must_use]
pub fn error(error: &Error, paper: Paper) -> String {
    let word = if error.exit == Exit::Internal { "internal error" } else { "error" };
    let what = chain(error);
    let mut lines = what.iter().flat_map(|told| told.lines().enumerate());
    let mut head = lines.next().map_or(String::new(), |(_, line)| line.to_owned());
    let mut below = Vec::new();
    for (at, line) in lines {
        if at == 0 && below.is_empty() {
            head = format!("{head}: {line}");
        } else {
            below.push(format!("  {line}"));
        }
    }
    let mut text = format!("{}: {}\n", paper.toned(Tone::Bad, word), paper.safe(&head));
    let snippet = error.evidence.first().is_some_and(|line| line.trim_start().starts_with("-->"));
    below.extend(error.evidence.iter().map(|line| if snippet { line.clone() } else { format!("  {line}") }));
    below.extend(error.state.iter().map(|state| format!("  state: {state}")));
    let hint = if snippet { "  = help: " } else { "  hint: " };
    below.extend(error.hints.iter().map(|text| format!("{hint}{text}")));
    below.iter().flat_map(|line| line.lines()).for_each(|line| {
        text.push_str(&paper.safe(line));
        text.push('\n');
    });
    text
}

/// Makes the event that tells `error` in a run. What a run has told is not printed again when the program ends.
#[must_use]
pub fn told(error: &Error) -> Event {
    let lines = |texts: &[String]| texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
    Event::Diagnostic {
        severity: Severity::Error,
        code: error.code.to_owned(),
        message: chain(error).join(": ").lines().collect::<Vec<_>>().join(" "),
        hosts: error.hosts.clone(),
        evidence: lines(&error.evidence),
        state: error.state.clone(),
        help: lines(&error.hints),
    }
}

/// What failed, then its causes, each once.
fn chain(error: &Error) -> Vec<String> {
    let mut told = vec![error.what.clone()];
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        // Some libraries repeat their cause in their own text.
        if !told.iter().any(|earlier| earlier.contains(&text)) {
            told.push(text);
        }
        cause = next.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;

    #[test]
    fn a_host_failure_says_what_where_state_and_what_to_type_next() {
        let told = Error::new(Exit::BuildFailed, "build-failed", "build failed on `web2` (1 of 12 hosts)")
            .caused_by("command exited with status 1")
            .evidence(["web2 | Error: Couldn't find \u{1b}[31mlxml".to_owned()])
            .state("nothing was activated; all 12 hosts still serve `9f8e7d6`")
            .hint("fill the shared cache on `web2`, then run the same command again");
        assert_data_eq!(
            error(&told, Paper::PLAIN),
            str![[r"
error: build failed on `web2` (1 of 12 hosts): command exited with status 1
  web2 | Error: Couldn't find /u{1b}[31mlxml
  state: nothing was activated; all 12 hosts still serve `9f8e7d6`
  hint: fill the shared cache on `web2`, then run the same command again

"]]
        );
    }

    #[test]
    fn an_error_in_a_file_keeps_its_snippet() {
        let told = Error::new(Exit::Config, "unknown-key", "unknown key `keep-release` in [env.*]")
            .evidence([" --> deploy.toml:7:1", "  |", "7 | keep-release = 5", "  | ^^^^^^^^^^^^ not a setting", "  |"].map(str::to_owned))
            .hint("did you mean `keep-releases`?");
        assert_data_eq!(
            error(&told, Paper::PLAIN),
            str![[r"
error: unknown key `keep-release` in [env.*]
 --> deploy.toml:7:1
  |
7 | keep-release = 5
  | ^^^^^^^^^^^^ not a setting
  |
  = help: did you mean `keep-releases`?

"]]
        );
    }

    #[test]
    fn an_error_of_a_run_is_told_as_an_event() {
        let error = Error::new(Exit::Locked, "locked", "prod is locked").caused_by("by ada").evidence(["a\nb".to_owned()]).hint("wait");
        let Event::Diagnostic { code, message, evidence, help, hosts, .. } = told(&Error { hosts: vec!["app1".to_owned()], ..error })
        else {
            panic!()
        };
        assert_eq!((code.as_str(), message.as_str(), hosts), ("locked", "prod is locked: by ada", vec!["app1".to_owned()]));
        assert_eq!((evidence, help), (vec!["a".to_owned(), "b".to_owned()], vec!["wait".to_owned()]));
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let cause = std::io::Error::other("no such file `a`");
        let told = Error::new(Exit::Config, "unreadable", "cannot read `a`").caused_by(cause);
        assert_eq!(error(&told, Paper::PLAIN), "error: cannot read `a`: no such file `a`\n");
        let told = Error::new(Exit::Internal, "internal", "it broke: no such file `a`").caused_by("no such file `a`");
        assert_eq!(error(&told, Paper::PLAIN), "internal error: it broke: no such file `a`\n");
    }
}
