//! Two runs at once: one holds the lock of every host it needs, the other is told who, waits, or finds that the world has moved.

use std::fs;
use std::os::unix::fs::symlink;

use deployer::exit::Exit;

use crate::invariants::violations;
use crate::running::Running;
use crate::whole::{Stage, is_free, live_commit};

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];
const HOSTS: [&str; 3] = ["app1", "app2", "app3"];

/// A deploy of what is committed last that builds until the test lets it go.
fn holding(stage: &Stage, arguments: &[&str], hosts: usize) -> Running {
    stage.mark("slow", true);
    let mut run = Running::start(&stage.world, arguments);
    run.until_lines("waiting", hosts);
    run
}

#[test]
fn of_two_deploys_at_once_one_wins_and_the_other_is_told_who_holds_the_lock() {
    let stage = Stage::local(&HOSTS[..2], "");
    stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    let holder = holding(&stage, &DEPLOY, 2);
    let run = holder.seen.iter().find(|event| event["type"] == "run.started").unwrap()["run"].as_str().unwrap().to_owned();
    let refused = stage.world.command(["deploy", "--rev", "master~1", "--force"]).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(i32::from(Exit::Locked.code())), "{told}");
    assert!(told.contains(&run) && told.contains("ada") && told.contains("--wait-lock") && told.contains("still runs"), "{told}");
    stage.mark("slow", false);
    holder.end().exits(0);
    stage.serves("two\n");
}

#[test]
fn one_that_waits_for_the_lock_works_on_what_it_finds_then() {
    let stage = Stage::local(&HOSTS[..2], "");
    stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    let holder = holding(&stage, &DEPLOY, 2);
    stage.commit("three\n");
    let mut waiting = Running::start(&stage.world, &["deploy", "--rev", "master", "--wait-lock", "60s"]);
    waiting.until_step("lock");
    stage.mark("slow", false);
    holder.end().exits(0);
    let ended = waiting.end();
    let changes = ended.exits(0).events.iter().find(|event| event["type"] == "run.changes").unwrap();
    assert_eq!(changes["from"], serde_json::json!({ &two[..7]: 2 }), "it saw what the first run left");
    stage.serves("three\n");
}

#[test]
fn one_that_waits_for_a_run_of_the_same_revision_has_nothing_left_to_do() {
    let stage = Stage::local(&HOSTS[..2], "");
    stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    let holder = holding(&stage, &DEPLOY, 2);
    let mut waiting = Running::start(&stage.world, &["deploy", "--rev", "master", "--wait-lock", "60s"]);
    waiting.until_step("lock");
    stage.mark("slow", false);
    holder.end().exits(0);
    waiting.end().exits(0);
    stage.serves("two\n");
    assert_eq!(stage.world.releases("app1").len(), 2, "it built nothing again");
}

#[test]
fn a_wait_that_is_over_is_a_refusal() {
    let stage = Stage::local(&HOSTS[..1], "");
    stage.commit("one\n");
    let holder = holding(&stage, &DEPLOY, 1);
    let waited = stage.world.deployer(["deploy", "--rev", "master", "--wait-lock", "1s"]);
    waited.exits(Exit::Locked);
    let (status, events) = stage.world.events(["deploy", "--rev", "master"]);
    assert_eq!(status, i32::from(Exit::Locked.code()));
    let last = events.last().unwrap();
    assert_eq!((&last["failed"], &last["live"]), (&0.into(), &serde_json::json!({ "nothing": 1 })), "{last:#}");
    assert_eq!(last["summary"], "prod still runs nothing on 1/1 host.");
    stage.mark("slow", false);
    holder.end().exits(0);
    stage.serves("one\n");
}

#[test]
fn all_hosts_are_locked_or_none_and_nothing_is_written_on_those_that_were_free() {
    let stage = Stage::local(&HOSTS, "");
    stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    let holder = holding(&stage, &["deploy", "--rev", "master", "-H", "app2"], 1);
    for _ in 0..5 {
        stage.world.deployer(DEPLOY).exits(Exit::Locked);
        for host in ["app1", "app3"] {
            assert!(is_free(stage.world.root(host)), "{host}");
            assert_eq!(stage.world.releases(host).len(), 1, "{host}");
        }
    }
    assert!(!is_free(stage.world.root("app2")), "the control: it is held");
    stage.mark("slow", false);
    holder.end().exits(0);
    stage.settles("two\n");
}

#[test]
fn a_current_that_was_moved_by_hand_after_the_plan_is_left_as_it_is() {
    let stage = Stage::local(&HOSTS[..1], "");
    stage.commit("one\n");
    stage.settles("one\n");
    let first = stage.world.live("app1");
    stage.commit("two\n");
    stage.settles("two\n");
    stage.commit("three\n");
    let run = holding(&stage, &DEPLOY, 1);
    let current = stage.world.current("app1");
    fs::remove_file(&current).unwrap();
    symlink(format!("releases/{first}"), &current).unwrap();
    stage.mark("slow", false);
    let ended = run.end();
    // This run has switched nothing.
    ended.exits(11);
    assert!(ended.error().contains("superseded"), "{ended:#?}");
    assert_eq!(stage.world.live("app1"), first);
    assert!(!stage.world.root("app1").join(".deployer/intent").exists());
    // A person went behind the records, and only a person, or the next deploy, makes that whole again.
    let found = violations(stage.world.root("app1"));
    assert!(found.iter().all(|found| found.contains("is live")), "{found:?}");
    stage.settles("three\n");
}

#[test]
fn of_many_runs_at_once_each_wins_or_is_refused_and_the_hosts_agree() {
    let stage = Stage::local(&HOSTS, "");
    stage.commit("zero\n");
    stage.settles("zero\n");
    let mut won = 0;
    for round in 0..3 {
        let commits: Vec<String> = (0..4).map(|number| stage.commit(&format!("{round} {number}\n"))).collect();
        let runs: Vec<Running> = commits.iter().map(|commit| Running::start(&stage.world, &["deploy", "--rev", commit])).collect();
        let ended: Vec<_> = runs.into_iter().map(Running::end).collect();
        assert!(ended.iter().all(|run| matches!(run.status, 0 | 14)), "{ended:#?}");
        let winners: Vec<&String> = ended.iter().zip(&commits).filter(|(run, _)| run.status == 0).map(|(_, commit)| commit).collect();
        won += winners.len();
        stage.rests();
        let live: Vec<String> = HOSTS.iter().map(|host| live_commit(stage.world.root(host))).collect();
        assert!(live.iter().all(|commit| *commit == live[0]), "{live:?}");
        assert!(winners.is_empty() || winners.contains(&&live[0]), "{live:?} is not of {winners:?}");
    }
    assert!(won > 0, "nobody ever got all the locks");
    stage.commit("last\n");
    stage.settles("last\n");
}
