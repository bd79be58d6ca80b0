//! Waves protect the fleet: the unwell go first, enough hosts stay well, a pause lies between waves, and a host that fails goes back
//! even where the others go on.

use std::fs;
use std::time::{Duration, Instant};

use deployer::exit::Exit;
use rustix::process::Signal;
use serde_json::Value;
use snapbox::str;

use crate::harness::World;
use crate::running::{Ended, Running};
use crate::whole::{Stage, live_commit, state_of};

const HOSTS: [&str; 4] = ["app1", "app2", "app3", "app4"];
const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];

fn waves(ended: &Ended) -> Vec<Vec<String>> {
    let started = ended.events.iter().filter(|event| event["type"] == "wave.started");
    let names = |event: &Value| event["hosts"].as_array().unwrap().iter().map(|host| host.as_str().unwrap().to_owned()).collect();
    started.map(names).collect()
}

#[test]
fn hosts_that_serve_nothing_and_those_whose_check_fails_are_in_the_first_waves() {
    let stage = Stage::local(&HOSTS, "waves = [\"1\", \"2\", \"100%\"]\n");
    stage.commit("one\n");
    stage.world.deployer(["deploy", "--rev", "master", "-H", "app1,app2,app4"]).ok();
    let one = live_commit(stage.world.root("app1"));
    stage.commit("two\n");
    // What it serves has fallen ill since.
    stage.mark(&format!("sick-app4-{}", &one[..7]), true);
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(0);
    assert_eq!(waves(&ended), [vec!["app3"], vec!["app4"], vec!["app1", "app2"]]);
    let notes: Vec<&Value> = ended.events.iter().filter(|event| event["code"] == "unwell").collect();
    assert_eq!(notes.len(), 2, "{notes:#?}");
    assert!(notes.iter().any(|note| note["hosts"][0] == "app3" && note["message"].as_str().unwrap().contains("serves nothing")));
    assert!(notes.iter().any(|note| note["hosts"][0] == "app4" && note["message"].as_str().unwrap().contains("the check fails")));
    stage.serves("two\n");
}

#[test]
fn no_more_hosts_are_switched_at_once_than_may_be_missing() {
    let activate = "echo begin >>\"$DEPLOYER_ROOT/../../begun\"\nn=$(ls <tmp>/at-work | wc -l)\necho $n >><tmp>/counts\ntouch <tmp>/at-work/$DEPLOYER_HOST\n\
                    for i in 1 2 3 4 5; do sleep 0.02; done\nrm <tmp>/at-work/$DEPLOYER_HOST";
    let world =
        World::new().local_hosts(&HOSTS).config(&format!("min-healthy = \"75%\"\n[defaults.activate]\nrun = '''\n{activate}\n'''\n"));
    fs::create_dir(world.path("at-work")).unwrap();
    world.commit(&[("number", "one\n")]);
    // Of a fleet that serves nothing nobody is missed.
    world.deploy("master");
    fs::write(world.path("counts"), "").unwrap();
    world.commit(&[("number", "two\n")]);
    world.deploy("master");
    let counts = fs::read_to_string(world.path("counts")).unwrap();
    assert_eq!(counts.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "0"], "one after the other");
}

#[test]
fn a_run_that_could_switch_nobody_is_refused_before_anything_is_sent() {
    let world = World::new().local_hosts(&HOSTS[..2]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.commit(&[("number", "two\n")]);
    world.deployer(["deploy", "--rev", "master", "--min-healthy", "2"]).is(
        Exit::Refused,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  8899d14 master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2

error: `min-healthy` asks for 2 hosts that stay well while others are switched, and there are 2 of 2
  hint: allow fewer for this run: `--min-healthy N`

prod still runs e1a9e0b on 2/2 hosts.

"#]],
    );
    assert_eq!(world.releases("app1").len(), 1);
    // The host that is not chosen stays well.
    world.deployer(["deploy", "--rev", "master", "--min-healthy", "50%", "-H", "app1"]).ok();
}

#[test]
fn hosts_that_are_left_out_count_as_they_are() {
    let stage = Stage::local(&HOSTS, "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    let deploy = ["deploy", "--rev", "master", "-H", "!app4", "--min-healthy", "3"];
    let plan = [&deploy[..], &["--dry-run"]].concat();
    // It serves, and is ill.
    stage.mark(&format!("sick-app4-{}", &one[..7]), true);
    let refused = stage.world.deployer(deploy);
    refused.exits(Exit::Refused);
    assert!(refused.stderr.contains("`min-healthy` asks for 3 hosts") && refused.stderr.contains("there are 3 of 4"), "{refused}");
    assert_eq!(live_commit(stage.world.root("app1")), one);
    let told = stage.world.deployer(&plan);
    assert!(told.stdout.contains("would stop: `min-healthy` asks for 3 hosts"), "{told}");
    stage.mark(&format!("sick-app4-{}", &one[..7]), false);
    let told = stage.world.deployer(&plan);
    assert!(!told.stdout.contains("min-healthy"), "{told}");
    stage.world.deployer(deploy).ok();
    assert_eq!(stage.world.read_current("app3", "app"), "two\n");
    assert_eq!(live_commit(stage.world.root("app4")), one, "it was asked, and not touched");
}

#[test]
fn failures_that_leave_too_few_well_end_the_rollout_although_the_budget_would_allow_them() {
    let stage = Stage::local(&HOSTS, "waves = [\"1\", \"100%\"]\nmin-healthy = 3\nmax-failures = 2\n");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    stage.mark(&format!("sick-app1-{}", &two[..7]), true);
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(13).tells(&[(&one[..7], 4)]);
    assert!(ended.error().contains("fewer than 3 hosts that are well"), "{}", ended.error());
    stage.serves("one\n");
}

#[test]
fn a_host_that_fails_within_the_budget_goes_back_itself_and_the_others_go_on() {
    let stage = Stage::local(&HOSTS, "waves = [\"1\", \"100%\"]\nmax-failures = 1\n");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    stage.mark(&format!("sick-app1-{}", &two[..7]), true);
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(12).tells(&[(&one[..7], 1), (&two[..7], 3)]);
    assert_eq!(live_commit(stage.world.root("app1")), one);
    assert_eq!(state_of(stage.world.root("app1"), &two), "bad");
    stage.rests();
    // It is the one that failed, and reached by that.
    stage.mark(&format!("sick-app1-{}", &two[..7]), false);
    stage.world.deployer(["deploy", "--rev", "master", "-H", "@failed"]).ok();
    stage.serves("two\n");
}

#[test]
fn what_was_tolerated_before_is_not_what_a_rollout_is_said_to_have_failed_by() {
    let stage = Stage::local(&HOSTS, "max-failures = 1\n");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    stage.mark("broken-app1", true);
    stage.mark(&format!("sick-app3-{}", &two[..7]), true);
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(13).tells(&[(&one[..7], 4)]);
    let last: Value = serde_json::from_str(&ended.error()).unwrap();
    assert!(last["message"].as_str().unwrap().starts_with("check failed on `app3`"), "{last:#}");
    assert!(last["evidence"].to_string().contains("app1 | build"), "{last:#}");
}

#[test]
fn a_pause_lies_between_waves_and_an_interrupt_ends_it() {
    let world = World::new().local_hosts(&HOSTS[..2]).config("waves = [\"1\", \"100%\"]\n");
    world.commit(&[("number", "one\n")]);
    let began = Instant::now();
    world.deployer(["deploy", "--rev", "master", "--pause", "1s"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  nothing..e1a9e0b
[<t>] release  <release>
[<t>] push  2/2 <size> sent per host
[<t>] link  2/2
[<t>] wave 1  1/1  app1
[<t>] pause <t> before wave 2
[<t>] wave 2  1/1  app2
[<t>] prune  2/2  kept 1, removed 0

Deployed e1a9e0b to prod: 2 hosts in <t> (was nothing)

"#]],
    );
    assert!(began.elapsed() >= Duration::from_secs(1));
    let two = world.commit(&[("number", "two\n")]);
    let mut run = Running::start(&world, &["deploy", "--rev", "master", "--pause", "1h", "--on-failure", "stop"]);
    run.until("the pause", |event| event["type"] == "wave.paused");
    run.signal(Signal::TERM);
    let ended = run.end();
    ended.exits(12).tells(&[("e1a9e0b", 1), (&two[..7], 1)]);
    assert!(ended.error().contains("interrupted"), "{}", ended.error());
}

#[test]
fn a_host_that_the_plan_stops_is_among_the_failed() {
    let world = World::new().local_hosts(&HOSTS[..2]).config("max-failures = 1\n");
    world.commit(&[("number", "one\n")]);
    fs::create_dir(world.current("app2")).unwrap();
    world.deployer(["deploy", "--rev", "master"]).exits(Exit::Partial);
    fs::remove_dir(world.current("app2")).unwrap();
    // A run that is refused says nothing of any host.
    world.deployer(["deploy", "--rev", "nonsense"]).exits(Exit::Config);
    world.deployer(["deploy", "--rev", "master", "-H", "@failed"]).ok();
    assert_eq!(world.read_current("app2", "number"), "one\n");
}
