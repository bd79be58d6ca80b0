//! The machine views: NDJSON, the log of a CI service, the run store.

use std::time::Instant;

use proptest::prelude::*;

use super::recorded;
use crate::event::{Event, Events, Step, Timed};
use crate::report::ci::Ci;
use crate::report::human::Human;
use crate::report::json::{Order, line};
use crate::report::logs::{Said, Wanted, gathered, list, text};
use crate::report::paper::Paper;
use crate::report::plain::Plain;
use crate::report::{Display, Meta, RunStore, StoredRun, start};

fn ordered(events: &[Timed]) -> Vec<Timed> {
    let mut order = Order::default();
    let mut told: Vec<Timed> = events.iter().flat_map(|timed| order.take(timed.clone(), "2026-11-23T06:12:00Z")).collect();
    told.extend(order.close(99.0));
    told
}

fn ends(events: &[Timed]) -> (bool, usize, bool) {
    let is_end = |timed: &Timed| matches!(timed.event, Event::RunFinished { .. });
    let starts = matches!(events.first().map(|first| &first.event), Some(Event::Version { .. }));
    (starts, events.iter().filter(|timed| is_end(timed)).count(), events.last().is_some_and(is_end))
}

#[test]
fn the_stream_begins_with_its_version_and_ends_once() {
    let whole = recorded::good().events;
    assert_eq!(ordered(&whole), whole);
    let unversioned = ordered(&whole[1..]);
    assert_eq!(ends(&unversioned), (true, 1, true));
    let broken_off = ordered(&whole[..20]);
    assert_eq!(ends(&broken_off), (true, 1, true));
    assert!(matches!(&broken_off.last().unwrap().event, Event::RunFinished { run, exit: 1, .. } if run == recorded::RUN));
    let twice: Vec<Timed> = whole.iter().chain(&whole).cloned().collect();
    assert_eq!(ordered(&twice), whole);
    assert_eq!(ordered(&[]), []);
}

#[test]
fn a_line_of_the_stream_has_the_public_form() {
    let host = Event::HostStarted { host: "app01".into(), step: Step::Build };
    assert_eq!(line(&Timed { event: host, t: 1.5 }), "{\"type\":\"host.started\",\"host\":\"app01\",\"step\":\"build\",\"t\":1.5}\n");
    for timed in recorded::broken_build().events.iter().chain(&recorded::fleet().events) {
        let line = line(timed);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(&serde_json::from_str::<Timed>(&line).unwrap(), timed);
    }
}

#[test]
fn logs_are_one_host_and_one_step_when_asked() {
    let events = recorded::broken_build().events;
    let wanted = Wanted { hosts: vec!["app07".into()], step: Some(Step::Build) };
    let log = text(&events, &wanted, Paper::PLAIN);
    assert_eq!(log.lines().count(), 416);
    assert!(log.lines().all(|line| line.starts_with("app07| ") || line == "✗ app07 build failed after 58.3s (exit 1)"));
    assert_eq!(text(&events, &Wanted { hosts: vec!["app07.example.net".into()], ..wanted }, Paper::PLAIN), log);
}

#[test]
fn runs_are_listed_with_their_end_or_without() {
    let meta = |exit, status: &str| Meta {
        format: 1,
        verb: "deploy".into(),
        env: "prod".into(),
        actor: "ada".into(),
        hosts: 12,
        started: "2026-11-23T06:12:00Z".into(),
        reference: "v2.8.0".into(),
        exit,
        status: status.into(),
        secs: 61.8,
        ok: 11,
        ..Meta::default()
    };
    let run = |meta| StoredRun { run: recorded::RUN.into(), meta, bytes: 1, modified: std::time::UNIX_EPOCH };
    let listed = list(&[run(meta(Some(11), "build-failed")), run(meta(None, ""))], 1_795_414_320 + 7_200, Paper::PLAIN);
    let expected = "\
RUN                      VERB    ENV   REV     WHEN     BY   HOSTS  TIME  RESULT
20261123T061200-a1b2c3d  deploy  prod  v2.8.0  2 h ago  ada  11/12  1:01  build-failed (11)
20261123T061200-a1b2c3d  deploy  prod  v2.8.0  2 h ago  ada  -/12   -     not finished
";
    assert_eq!(listed, expected);
}

#[test]
fn hosts_that_said_the_same_are_gathered() {
    let said = |n: u32, line: &str, why: &str| Said {
        host: format!("app{n}.example.net"),
        lines: if line.is_empty() { Vec::new() } else { vec![line.to_owned()] },
        why: why.to_owned(),
    };
    let all = [
        said(1, "Python 3.12.3", ""),
        said(2, "Python 3.12.3", ""),
        said(3, "Python 3.11.2", ""),
        said(4, "", "could not connect: timeout"),
    ];
    let expected =
        "── app[1-2] (2 hosts) ──\nPython 3.12.3\n── app3 (1 host) ──\nPython 3.11.2\n── app4 (1 host) ── ── could not connect: timeout\n";
    assert_eq!(gathered(&all, Paper::PLAIN), expected);
}

/// What a file holds after a run, although its sender was never let go.
fn recorded_file(store: Option<RunStore>, told: usize) -> Vec<Timed> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.ndjson");
    let display = Display { verbosity: -2, events: Some(path.clone()), ..Display::default() };
    let (events, receiver) = Events::new(Instant::now());
    let reporter = start(&display, store, receiver);
    for timed in recorded::good().events.into_iter().take(told) {
        events.emit(timed.event);
    }
    reporter.finish();
    drop(events);
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_reporter_writes_everything_and_waits_for_no_sender() {
    let whole = recorded_file(None, usize::MAX);
    assert_eq!(whole.len(), recorded::good().events.len());
    assert_eq!(ends(&whole), (true, 1, true));
    let broken_off = recorded_file(None, 10);
    assert_eq!((broken_off.len(), ends(&broken_off)), (11, (true, 1, true)));
}

#[test]
fn a_store_that_fails_is_a_warning_before_the_end() {
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(state.path().join("runs").join(recorded::RUN)).unwrap();
    std::os::unix::fs::symlink("/dev/full", state.path().join("runs").join(recorded::RUN).join("events.ndjson")).unwrap();
    let whole = recorded_file(Some(RunStore::open(state.path(), recorded::RUN)), usize::MAX);
    assert_eq!(whole.len(), recorded::good().events.len() + 1);
    assert_eq!(ends(&whole), (true, 1, true));
    let warned = |timed: &&Timed| matches!(&timed.event, Event::Diagnostic { code, .. } if code == "not-recorded");
    assert_eq!(whole.iter().filter(warned).count(), 1);
}

#[test]
fn an_events_file_on_a_full_disk_does_not_stop_the_run() {
    let state = tempfile::tempdir().unwrap();
    let display = Display { verbosity: -2, events: Some("/dev/full".into()), ..Display::default() };
    let (events, receiver) = Events::new(Instant::now());
    let reporter = start(&display, Some(RunStore::open(state.path(), recorded::RUN)), receiver);
    for timed in recorded::good().events {
        events.emit(timed.event);
    }
    reporter.finish();
    let stored = RunStore::read(state.path(), recorded::RUN).unwrap();
    let warned = |timed: &&Timed| matches!(&timed.event, Event::Diagnostic { message, .. } if message.contains("/dev/full"));
    assert_eq!((ends(&stored), stored.iter().filter(warned).count()), ((true, 1, true), 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_a_host_says_reaches_the_terminal_raw(said in "(\\x1b\\[2J|##\\[add-mask\\]|::error::|[\\x00-\\xff\u{202a}-\u{202e}]){0,20}") {
        let mut tape = recorded::broken_build();
        tape.events.retain(|timed| !matches!(&timed.event, Event::Output { line, .. } if line.starts_with("Getting distribution number 1")));
        for timed in &mut tape.events {
            match &mut timed.event {
                Event::Output { line, .. } => line.clone_from(&said),
                Event::HostStep { detail, command, .. } => (*detail, *command) = (Some(said.clone()), vec![said.clone()]),
                Event::Revision { subject, author, .. } => (*subject, *author) = (said.clone(), said.clone()),
                Event::Diagnostic { message, help, evidence, .. } => (*message, *help, *evidence) = (said.clone(), vec![said.clone()], vec![said.clone()]),
                _ => {}
            }
        }
        let raw = |text: &str| text.chars().any(|c| c.is_control() || crate::tree::path::is_bidi_control(c));
        let mut human = Human::new(2, true);
        let mut plain = Plain::new(Paper::PLAIN, Ci::Github, 2, true);
        for timed in &tape.events {
            for line in human.take(timed).iter().chain(&human.live(timed.t, 60)) {
                prop_assert!(!raw(&line.write(Paper::PLAIN)));
                prop_assert!(!raw(&line.clipped(Paper::PLAIN, 80)));
            }
            for line in plain.take(timed).iter().chain(&plain.tick(timed.t)) {
                prop_assert!(!raw(line), "{line:?}");
                prop_assert!(!line.contains("##["), "{line:?}");
                let own = ["::group::[", "::endgroup::", "::error title=deploy to prod failed::"];
                prop_assert!(!line.trim_start().starts_with("::") || own.iter().any(|own| line.starts_with(own)), "{line:?}");
            }
        }
        for line in text(&tape.events, &Wanted::default(), Paper::PLAIN).lines() {
            prop_assert!(!raw(line));
        }
    }
}
