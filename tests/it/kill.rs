//! The controller is killed: at every event, at random moments, in the middle of a build. The same command completes.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::running::{Running, program};
use crate::whole::{Stage, processes_of};

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];

/// Deploys something new, is killed when `end` says so, and deploys the same again. Says whether the kill came before the end.
fn killed(stage: &Stage, app: &str, at: &str, end: impl FnOnce(&mut Running)) -> bool {
    stage.commit(app);
    let mut running = Running::start(&stage.world, &DEPLOY);
    end(&mut running);
    let is_killed = running.kill();
    stage.rests();
    let again = stage.world.deployer(DEPLOY);
    assert_eq!(again.status, 0, "killed at {at}: {again}");
    stage.serves(app);
    is_killed
}

#[test]
fn a_controller_killed_at_any_event_of_a_deploy_leaves_whole_hosts_and_the_same_command_completes() {
    let stage = Stage::local(&["app1", "app2"], "keep-releases = 2\n");
    stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    let whole = Running::start(&stage.world, &DEPLOY).end();
    let events = whole.exits(0).events.len();
    assert!(events > 20, "{:#?}", whole.events);
    for event in 1..events {
        killed(&stage, &format!("killed at event {event}\n"), &whole.events[event - 1].to_string(), |running| {
            while running.seen.len() < event && running.next().is_some() {}
        });
    }
}

#[test]
fn a_controller_killed_at_any_step_over_ssh_leaves_whole_hosts_and_the_same_command_completes() {
    for session in ["ssh2", "openssh"] {
        let stage = Stage::ssh(session, &["app1", "app2"], "keep-releases = 2\n");
        stage.commit("one\n");
        stage.settles("one\n");
        for step in ["connect", "lock", "push", "link", "build", "activate", "prune"] {
            killed(&stage, &format!("killed at {step}\n"), step, |running| running.until_step(step));
        }
    }
}

#[test]
fn a_controller_killed_at_any_moment_leaves_whole_hosts_and_the_same_command_completes() {
    let stage = Stage::local(&["app1", "app2"], "keep-releases = 2\n");
    stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    let whole = Running::start(&stage.world, &DEPLOY).end();
    let cycle = whole.exits(0).events.last().unwrap()["secs"].as_f64().unwrap() * 1.1;
    let seed = getrandom::u32().unwrap();
    let mut kills = 0;
    for turn in 0..10_u32 {
        // A fraction of the cycle that is different in every turn and every run, and is told when it fails.
        let part = f64::from(seed.wrapping_add(turn.wrapping_mul(0x9e37_79b9))) / f64::from(u32::MAX);
        let delay = Duration::from_secs_f64(cycle * part);
        let is_killed = killed(&stage, &format!("turn {turn}\n"), &format!("{delay:?}, seed {seed}"), |_| thread::sleep(delay));
        kills += u32::from(is_killed);
    }
    assert!(kills > 0, "every run ended before its kill, seed {seed}");
}

#[test]
fn a_build_whose_controller_is_killed_ends_with_all_it_started_and_the_next_run_does_not_wait_for_it() {
    for session in ["ssh2", "local"] {
        let hosts = ["app1", "app2"];
        let stage = if session == "local" { Stage::local(&hosts, "") } else { Stage::ssh(session, &hosts, "") };
        stage.commit("one\n");
        stage.settles("one\n");
        stage.commit("two\n");
        stage.mark("slow", true);
        let mut running = Running::start(&stage.world, &DEPLOY);
        running.until_lines("waiting", 2);
        assert!(hosts.iter().all(|host| processes_of(stage.world.root(host)).len() > 2), "the control: builds run");
        running.kill();
        stage.rests();
        stage.mark("slow", false);
        stage.settles("two\n");
    }
}

#[test]
fn a_controller_that_sleeps_is_given_up_by_its_hosts_and_changes_nothing_when_it_wakes() {
    let stage = Stage::local(&["app1", "app2"], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    stage.mark("slow", true);
    let mut running = Running::start(&stage.world, &DEPLOY);
    running.until_lines("waiting", 2);
    running.signal(Signal::STOP);
    // Nothing is closed, so only the silence tells.
    stage.rests();
    stage.mark("slow", false);
    running.signal(Signal::CONT);
    let ended = running.end();
    ended.exits(11).tells(&[(&one[..7], 2)]);
    assert!(ended.error().contains("lost"), "{ended:#?}");
    stage.serves("one\n");
    stage.settles("two\n");
}

#[test]
fn a_reader_that_goes_away_stops_no_deploy() {
    let stage = Stage::local(&["app1"], "");
    for (app, json) in [("one\n", true), ("two\n", false)] {
        stage.commit(app);
        let mut command = program(&stage.world, &DEPLOY);
        if json {
            command.arg("--json");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0));
        stage.serves(app);
    }
}
