//! The activation goes wrong: a check fails in a late wave, a restart fails both ways, the helper or the connection dies between the
//! switch and the confirmation, a sealed release is not what it was.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use deployer::exit::Exit;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::World;
use crate::running::{PATIENCE, Running, until};
use crate::whole::{Stage, live_commit, state_of};

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];
const HOSTS: [&str; 3] = ["app1", "app2", "app3"];

fn short(commit: &str) -> &str {
    &commit[..7]
}

#[test]
fn a_check_that_fails_in_the_second_wave_puts_every_host_of_the_run_back_to_its_own_release() {
    let stage = Stage::local(&HOSTS, "waves = [\"1\", \"100%\"]\n");
    let zero = stage.commit("zero\n");
    stage.settles("zero\n");
    // The first host is ahead of the others.
    let one = stage.commit("one\n");
    stage.world.deployer(["deploy", "--rev", "master", "-H", "app1"]).ok();
    let two = stage.commit("two\n");
    stage.mark(&format!("sick-app2-{}", short(&two)), true);
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(13).tells(&[(short(&zero), 2), (short(&one), 1)]);
    let live: Vec<String> = HOSTS.iter().map(|host| live_commit(stage.world.root(host))).collect();
    assert_eq!(live, [one, zero.clone(), zero]);
    for host in HOSTS {
        assert_eq!(state_of(stage.world.root(host), &two), "bad", "{host}");
        let restarts = fs::read_to_string(stage.world.root(host).join("restarts")).unwrap();
        let serving = short(&live_commit(stage.world.root(host))).to_owned();
        assert_eq!(restarts.lines().last(), Some(serving.as_str()), "what serves was restarted last on {host}");
    }
    stage.rests();
    stage.mark(&format!("sick-app2-{}", short(&two)), false);
    // What did not hold is never chosen again by itself: it is made anew.
    stage.settles("two\n");
    assert_eq!(stage.world.releases("app2").iter().filter(|id| id.contains(short(&two))).count(), 2);
}

#[test]
fn what_did_not_hold_on_one_host_is_chosen_on_none() {
    let stage = Stage::local(&["app1", "app2", "app3"], "waves = [\"1\", \"100%\"]\n");
    stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    stage.mark(&format!("sick-app1-{}", short(&two)), true);
    let failed = stage.world.deployer(["deploy", "--rev", "master"]);
    failed.exits(Exit::RolledBack);
    assert!(failed.stderr.contains(&format!("{} is marked bad and will not be chosen again", short(&two))), "{failed}");
    let bad = ids(&stage.world, &two);
    assert_eq!(bad.len(), 1);
    stage.mark(&format!("sick-app1-{}", short(&two)), false);
    // Hosts that were never switched have it built; typed again, all get another one.
    stage.world.deployer(["deploy", "--rev", "master"]).ok();
    stage.serves("two\n");
    let live: BTreeSet<String> = HOSTS.map(|host| stage.world.live(host)).into();
    assert!(live.len() == 1 && live.is_disjoint(&bad), "{live:?} {bad:?}");
}

/// The releases of a commit on all hosts.
fn ids(world: &World, commit: &str) -> BTreeSet<String> {
    let releases = HOSTS.map(|host| world.releases(host)).concat();
    releases.into_iter().filter(|id| id.ends_with(short(commit))).collect()
}

#[test]
fn a_revert_whose_own_restart_fails_is_told_once_and_loudly() {
    let stage = Stage::local(&HOSTS[..2], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    stage.mark("no-restart-app2", true);
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(12).tells(&[(short(&one), 2)]);
    let error = ended.error();
    assert!(error.contains("app2") && error.contains("revert"), "{error}");
    let restarts = fs::read_to_string(stage.world.root("app2").join("restarts")).unwrap();
    assert_eq!(restarts.lines().count(), 3, "one for each release and one for the way back, and no more: {restarts}");
    stage.rests();
    stage.mark("no-restart-app2", false);
    stage.settles("two\n");
}

#[test]
fn a_host_whose_helper_dies_between_switch_and_confirmation_is_put_back_at_the_next_contact() {
    let stage = Stage::local(&HOSTS[..2], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    stage.mark("slow-restart", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("restarting", 2);
    kill_helpers(&stage, "app2");
    stage.mark("slow-restart", false);
    let ended = run.end();
    // Nobody knows what the lost host serves, and the run says so.
    ended.exits(12).tells(&[(short(&one), 1), ("unknown", 1)]);
    assert_eq!(live_commit(stage.world.root("app1")), one);
    stage.settles("two\n");
}

#[test]
fn a_host_whose_helper_died_and_whom_nobody_contacts_puts_itself_back_before_its_deadline_and_ten_seconds() {
    let stage = Stage::local(&HOSTS[..1], "confirm-within = \"4s\"\n");
    let mut quick = stage;
    quick.world.reconfigure("confirm-within = \"4s\"\n[defaults.activate]\nrun = \"echo $DEPLOYER_SHORT_REV >>$DEPLOYER_ROOT/restarts; echo restarting; while [ -e <tmp>/slow-restart ]; do sleep 0.05; done\"\ntimeout = \"2s\"\n");
    let one = quick.world.commit(&[("app", "one\n")]);
    quick.world.deploy("master");
    let two = quick.world.commit(&[("app", "two\n")]);
    quick.mark("slow-restart", true);
    let mut run = Running::start(&quick.world, &DEPLOY);
    run.until_lines("restarting", 1);
    kill_helpers(&quick, "app1");
    run.end().exits(12);
    assert_eq!(live_commit(quick.world.root("app1")), two, "the control: it is switched");
    quick.mark("slow-restart", false);
    until("the revert", Duration::from_secs(14), || live_commit(quick.world.root("app1")) == one);
    until("the end of the revert", PATIENCE, || !quick.world.root("app1").join(".deployer/intent").exists());
    assert_eq!(state_of(quick.world.root("app1"), &two), "bad");
    quick.rests();
    let restarts = fs::read_to_string(quick.world.root("app1").join("restarts")).unwrap();
    assert_eq!(restarts.lines().last(), Some(short(&one)), "{restarts}");
    quick.world.deploy("master");
    assert_eq!(quick.world.read_current("app1", "app"), "two\n");
}

#[test]
fn a_connection_cut_at_the_activation_is_told_as_unknown_and_the_next_run_completes() {
    for session in ["ssh2", "openssh"] {
        let stage = Stage::ssh(session, &HOSTS[..2], "");
        let one = stage.commit("one\n");
        stage.settles("one\n");
        stage.commit("two\n");
        stage.mark("slow-restart", true);
        let mut run = Running::start(&stage.world, &DEPLOY);
        run.until_lines("restarting", 2);
        stage.world.sandbox.host("app2").unwrap().cut();
        stage.mark("slow-restart", false);
        run.end().exits(12).tells(&[(short(&one), 1), ("unknown", 1)]);
        stage.rests();
        stage.settles("two\n");
    }
}

#[test]
fn a_connection_cut_during_push_or_build_activates_nothing_and_the_next_run_completes() {
    let stage = Stage::ssh("ssh2", &HOSTS[..2], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    for step in ["push", "build"] {
        let app = format!("cut at {step}\n");
        stage.commit(&app);
        let before = live_commit(stage.world.root("app1"));
        stage.mark("slow", true);
        let mut run = Running::start(&stage.world, &DEPLOY);
        if step == "push" {
            run.until_step("push");
        } else {
            run.until_lines("waiting", 2);
        }
        stage.world.sandbox.host("app2").unwrap().cut();
        stage.mark("slow", false);
        let ended = run.end();
        // A cut that comes when the push is over already changes nothing that the next step would not tell.
        ended.exits(11);
        assert!(ended.error().contains("nothing was activated"), "{ended:#?}");
        assert_eq!(live_commit(stage.world.root("app1")), before);
        stage.rests();
        stage.settles(&app);
    }
    assert_ne!(live_commit(stage.world.root("app1")), one);
}

#[test]
fn a_release_that_was_altered_after_its_seal_is_not_activated_and_the_same_command_makes_another() {
    let stage = Stage::local(&HOSTS[..2], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    // Both hosts are sealed and neither is switched: the other one is where the first fails.
    stage.mark("slow", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("waiting", 2);
    stage.mark("broken-app2", true);
    stage.mark("slow", false);
    run.end().exits(11);
    stage.mark("broken-app2", false);
    assert_eq!(state_of(stage.world.root("app1"), &two), "sealed");
    let release = stage.world.releases("app1").into_iter().find(|id| id.contains(short(&two))).unwrap();
    let file = stage.world.root("app1").join("releases").join(&release).join("lib/deep/part");
    fs::write(&file, "PART OF IT\n").unwrap();
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(13).tells(&[(short(&one), 2)]);
    assert!(ended.error().contains("lib/deep/part"), "{ended:#?}");
    assert_eq!(state_of(stage.world.root("app1"), &two), "bad");
    stage.rests();
    stage.settles("two\n");
    assert_eq!(stage.world.read_current("app1", "lib/deep/part"), "part of it\n");
}

#[test]
fn a_rollback_refuses_a_release_that_was_altered_while_it_was_retired() {
    let stage = Stage::local(&HOSTS[..1], "");
    stage.commit("zero\n");
    stage.settles("zero\n");
    let zero = stage.world.live("app1");
    stage.commit("one\n");
    stage.settles("one\n");
    let one = stage.world.live("app1");
    stage.commit("two\n");
    stage.settles("two\n");
    let file = stage.world.root("app1").join("releases").join(&one).join("app");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = stage.world.deployer(["rollback"]);
    refused.exits(Exit::BuildFailed);
    assert!(refused.stderr.contains("altered") && !refused.stderr.contains("sh -eu"), "{refused}");
    stage.serves("two\n");
    // What the build made may be written to while a release is live: that is no reason.
    let made = stage.world.root("app1").join("releases").join(&zero).join("built");
    fs::write(made, "grew\n").unwrap();
    stage.world.deployer(["rollback"]).ok();
    assert_eq!(stage.world.live("app1"), zero);
}

/// Kills the helpers that serve a host of this machine: those whose arguments name its root.
fn kill_helpers(stage: &Stage, host: &str) {
    let root = stage.world.root(host).to_str().unwrap().to_owned();
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let serving = names.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&&b"serve"[..]) && words.get(3) == Some(&root.as_bytes())
    });
    let pids: Vec<i32> = serving.map(|pid| pid.parse().unwrap()).collect();
    assert!(!pids.is_empty(), "no helper serves {root}");
    for pid in pids {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
