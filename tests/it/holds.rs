//! Who has the hosts: holds that outlive their author, ending somebody's run by its id, and waiting for what is in the way.

use std::fs;

use deployer::exit::Exit;
use serde_json::Value;
use snapbox::str;

use crate::harness::World;
use crate::running::Running;
use crate::whole::Stage;

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];
const HOSTS: [&str; 3] = ["app1", "app2", "app3"];

fn lock_status(stage: &Stage) -> Value {
    let output = stage.world.command(["lock", "status", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn acquire(stage: &Stage, narrow: &[&str]) -> String {
    let output = stage.world.command(["lock", "acquire", "-m", "freeze for audit", "--json"]).args(narrow).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    document["id"].as_str().unwrap().to_owned()
}

fn is_held(stage: &Stage, host: &str) -> bool {
    stage.world.root(host).join(".deployer/hold").exists()
}

/// A deploy of what is committed last that builds until the test lets it go.
fn building(stage: &Stage, hosts: usize) -> Running {
    stage.mark("slow", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("waiting", hosts);
    run
}

#[test]
fn a_hold_outlives_its_author_and_is_lifted_by_its_id_alone() {
    let stage = Stage::local(&HOSTS, "");
    stage.commit("one\n");
    stage.settles("one\n");
    let id = acquire(&stage, &[]);
    stage.commit("two\n");
    let refused = stage.world.deployer(DEPLOY);
    refused.exits(Exit::Locked);
    let told = refused.stderr.replace(&id, "<id>");
    let told = told.split_once("error: ").unwrap().1;
    snapbox::assert_data_eq!(
        told,
        str![[r"
prod is on hold (app[1-3])
  hold  ada@<here>: freeze for audit
  since  <ago>, id <id>
  hint: wait: deployer deploy -e prod --rev master --wait-lock 15m
  hint: look: deployer lock status -e prod
  hint: lift it: deployer lock release -e prod --id <id> --confirm=prod

prod still runs [..] on 3/3 hosts.

"]]
    );
    assert_eq!(stage.world.releases("app1").len(), 1, "nothing was sent");
    stage.world.deployer(["rollback"]).exits(Exit::Locked);
    stage.world.deployer(["status"]).ok();
    let release = ["lock", "release", "--id", &id];
    stage.world.deployer(["lock", "release", "--id", "000000", "--confirm", "prod"]).exits(Exit::Refused);
    stage.world.deployer(release).exits(Exit::Usage);
    stage.world.deployer(release.iter().chain(&["--confirm", "staging"])).exits(Exit::Usage);
    assert!(HOSTS.iter().all(|host| is_held(&stage, host)), "a refusal lifts nothing");
    stage.world.deployer(release.iter().chain(&["--confirm", "prod"])).ok();
    stage.settles("two\n");
}

#[test]
fn a_hold_is_on_all_hosts_or_on_none() {
    let stage = Stage::local(&HOSTS, "");
    let lift = |id: &str| stage.world.deployer(["lock", "release", "--id", id, "--confirm", "prod"]).ok();
    lift(&acquire(&stage, &[]));
    let id = acquire(&stage, &["-H", "app2"]);
    stage.world.deployer(["lock", "acquire", "-m", "another"]).exits(Exit::Locked);
    assert_eq!(HOSTS.map(|host| is_held(&stage, host)), [false, true, false]);
    lift(&id);
    // What looks free refuses only when the hold is written.
    let (temporary, aside) = (stage.world.root("app3").join(".deployer/tmp"), stage.world.root("app3").join("aside"));
    fs::remove_dir(&temporary).unwrap();
    fs::write(&temporary, "").unwrap();
    let run = stage.world.deployer(["lock", "acquire", "-m", "another"]);
    assert_ne!(run.status, 0, "{run}");
    assert!(run.stderr.contains("app3 | ") && run.stderr.contains("was put back"), "{run}");
    assert_eq!(HOSTS.map(|host| is_held(&stage, host)), [false, false, false]);
    fs::rename(&temporary, aside).unwrap();
    acquire(&stage, &[]);
    assert_eq!(HOSTS.map(|host| is_held(&stage, host)), [true, true, true]);
}

#[test]
fn a_run_is_ended_by_its_id_and_its_hosts_are_left_whole_and_free() {
    let stage = Stage::local(&HOSTS[..2], "");
    stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    let run = building(&stage, 2);
    let status = lock_status(&stage);
    let id = status["rows"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((&status["rows"][0]["state"], &status["rows"][1]["id"]), (&Value::from("locked"), &Value::from(id.clone())), "{status:#}");
    let refused = stage.world.deployer(DEPLOY);
    refused.exits(Exit::Locked);
    let end = format!("end it: deployer lock release -e prod --id {id} --confirm=prod");
    assert!(refused.stderr.contains(&end) && refused.stderr.contains("last heard of"), "{refused}");
    stage.world.deployer(["lock", "acquire", "-m", "audit"]).exits(Exit::Locked);
    stage.world.deployer(["lock", "release", "--id", "000000", "--confirm", "prod"]).exits(Exit::Refused);
    let ended = stage.world.deployer(["lock", "release", "--id", &id, "--confirm", "prod"]);
    ended.ok();
    assert!(ended.stdout.contains("is ended on 2 hosts; prod runs"), "{ended}");
    run.end().exits(i32::from(Exit::BuildFailed.code()));
    stage.mark("slow", false);
    stage.rests();
    assert_eq!(lock_status(&stage)["rows"][0]["state"], "free");
    stage.settles("two\n");
}

#[test]
fn whoever_waits_is_told_once_for_whom() {
    let stage = Stage::local(&HOSTS[..1], "");
    stage.commit("one\n");
    let holder = building(&stage, 1);
    stage.commit("two\n");
    let mut waiting = Running::start(&stage.world, &["deploy", "--rev", "master", "--wait-lock", "60s"]);
    waiting.until("the holder", |event| event["code"] == "waiting" && event["message"].as_str().unwrap().contains("deploying"));
    stage.mark("slow", false);
    holder.end().exits(0);
    let ended = waiting.end();
    ended.exits(0);
    let told = ended.events.iter().filter(|event| event["code"] == "waiting").count();
    assert!(told <= 2, "it is told again only when it changes: {ended:#?}");
    stage.serves("two\n");
}

#[test]
fn the_lock_of_ones_own_killed_run_is_waited_for_without_being_asked() {
    let stage = Stage::local(&HOSTS[..1], "");
    stage.commit("one\n");
    // What the build left behind ignores TERM, so that its helper needs its whole grace.
    assert!(building(&stage, 1).kill());
    stage.mark("slow", false);
    let again = stage.world.deployer(DEPLOY);
    again.ok();
    assert!(again.stderr.contains("your own earlier run has ended"), "{again}");
    stage.serves("one\n");
}

#[test]
fn a_setup_that_finds_a_hold_says_whose_it_is_and_where_to_look() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.deployer(["lock", "acquire", "-m", "the release is on Monday"]).ok();
    let refused = world.deployer(["setup"]);
    refused.exits(Exit::Locked);
    for told in ["prod is on hold", "the release is on Monday", "deployer lock status -e prod"] {
        assert!(refused.stderr.contains(told), "{told}: {refused}");
    }
}
