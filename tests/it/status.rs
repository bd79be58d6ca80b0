//! What is live where, and whether it is still what was deployed.

use std::fs;
use std::time::Duration;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::World;
use crate::running::until;

#[test]
fn status_groups_hosts_by_what_they_serve() {
    let world = World::new().local_hosts(&["app1", "app2", "app3"]);
    world.deployer(["status"]).is(
        Exit::Ok,
        str![[r"
prod · 3 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app[1-3]  -  -  -  -  nothing deployed yet

"]],
        str![""],
    );
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.commit(&[("number", "two\n")]);
    world.deployer(["deploy", "--rev", "master", "-H", "app[2-3]"]).ok();
    world.deployer(["status"]).is(
        Exit::Ok,
        str![[r"
prod · 3 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app1  e1a9e0b  <release> <t>  ada@<here>
  app[2-3]  8899d14  <release> <t>  ada@<here>
  Bring the others to 8899d14:  deployer deploy -e prod --rev 8899d14 -H app1

"]],
        str![""],
    );
    world.deployer(["status", "--exit-code"]).exits(Exit::Pending);
    world.commit(&[("number", "three\n")]);
    world.deploy("master");
    world.deployer(["status", "--exit-code"]).exits(Exit::Ok);
    let run = world.deployer(["status", "--json"]);
    run.ok();
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(run.stderr.is_empty() && document.to_string().contains("app3"), "{document:#}");
}

#[test]
fn verifying_finds_what_was_modified_added_and_removed() {
    let world = World::new().local_hosts(&["app1"]).config("[defaults.build]\ncommand = \"echo built > output\"\n");
    world.commit(&[("changed", "one\n"), ("lost", "one\n"), ("kept", "one\n"), ("mode", "one\n")]);
    world.deploy("master");
    world.deployer(["status", "--verify", "--exit-code"]).is(
        Exit::Ok,
        str![[r"
prod · 1 host · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app1  cb798ee  <release> <t>  ada@<here>

"]],
        str![""],
    );
    let live = world.current("app1").canonicalize().unwrap();
    fs::write(live.join("changed"), "two\n").unwrap();
    fs::write(live.join("added"), "new\n").unwrap();
    fs::remove_file(live.join("lost")).unwrap();
    world.deployer(["status", "--verify", "--exit-code"]).is(
        Exit::Pending,
        str![[r"
prod · 1 host · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app1  cb798ee  <release> <t>  ada@<here>  3 files differ from what was deployed
  app1: added was added
  app1: changed was modified
  app1: lost is missing

"]],
        str![""],
    );
}

#[test]
fn machines_read_what_differs_on_each_host_and_a_fleet_is_uniform_by_what_it_is_made_of() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    world.commit(&[("changed", "one\n"), ("lost", "one\n")]);
    world.deployer(["deploy", "--rev", "master", "-H", "app1"]).ok();
    world.deployer(["status", "--exit-code"]).exits(Exit::Pending);
    // A release is named by the second in which it is begun.
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = second();
    until("the next second", Duration::from_secs(3), || second() > begun);
    world.deployer(["deploy", "--rev", "master", "-H", "app2"]).ok();
    assert_ne!(world.live("app1"), world.live("app2"), "the control: two runs make two releases");
    world.deployer(["status", "--exit-code"]).ok();
    let live = world.current("app2").canonicalize().unwrap();
    fs::write(live.join("changed"), "two\n").unwrap();
    fs::write(live.join("added"), "new\n").unwrap();
    fs::remove_file(live.join("lost")).unwrap();
    world.deployer(["status"]).ok();
    world.deployer(["status", "--exit-code"]).exits(Exit::Pending);
    let run = world.deployer(["status", "--verify", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["rows"][0]["drift"], serde_json::json!([]));
    let drift = serde_json::json!([
        { "path": "added", "kind": "added" },
        { "path": "changed", "kind": "modified" },
        { "path": "lost", "kind": "missing" },
    ]);
    assert_eq!(document["rows"][1]["drift"], drift);
    let run = world.deployer(["status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["rows"][1].get("drift"), None, "nobody looked");
}

#[test]
fn what_still_runs_from_an_old_release_is_told_after_the_deploy_and_by_status() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    let mut server = std::process::Command::new("sleep").arg("600").current_dir(world.current("app1")).spawn().unwrap();
    world.deployer(["status", "--exit-code"]).ok();
    world.commit(&[("number", "two\n")]);
    let deployed = world.deployer(["deploy", "--rev", "master"]);
    deployed.ok();
    let told = format!("process {} (sleep) still runs from ", server.id());
    assert!(deployed.stderr.contains(&told), "{told}: {deployed}");
    let status = world.deployer(["status", "--exit-code"]);
    status.exits(Exit::Pending);
    assert!(status.stdout.contains(&told), "{status}");
    server.kill().unwrap();
    server.wait().unwrap();
    world.deployer(["status", "--exit-code"]).ok();
}

#[test]
fn releases_are_listed_with_their_state() {
    let world = World::new().local_hosts(&["app1", "app2"]).config("[defaults.build]\ncommand = \"! grep -q bad number\"\n");
    world.deployer(["releases"]).is(
        Exit::Ok,
        str![[r"
prod · 2 hosts · 0 releases
    ID  RELEASE  REF  STATE  WHEN  BY  HOSTS  LIVE ON

"]],
        str![""],
    );
    for text in ["one\n", "two\n"] {
        world.commit(&[("number", text)]);
        world.deploy("master");
    }
    world.commit(&[("number", "bad\n")]);
    world.deployer(["deploy", "--rev", "master"]).exits(Exit::BuildFailed);
    world.deployer(["releases"]).is(
        Exit::Ok,
        str![[r"
prod · 2 hosts · 3 releases
     ID  RELEASE  REF  STATE  WHEN  BY  HOSTS  LIVE ON
     -  <release>  master  failed  <ago>  ada@<here>  2/2  -
  *  ~0  <release>  master  confirmed  <ago>  ada@<here>  2/2  app[1-2]
     ~1  <release>  master  retired  <ago>  ada@<here>  2/2  -

"]],
        str![""],
    );
}
