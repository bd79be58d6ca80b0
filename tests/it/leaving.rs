//! Coming from another tool and leaving for one: `doctor --adopt` takes a tree over where it is, `remove` gives it back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{World, snapshot};

/// What Capistrano leaves after two deploys.
fn capistrano(root: &Path) {
    let mut log = String::new();
    for name in ["20261120061200", "20261121061200"] {
        let release = root.join("releases").join(name);
        fs::create_dir_all(&release).unwrap();
        fs::write(release.join("number"), format!("{name}\n")).unwrap();
        fs::write(release.join("REVISION"), "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678\n").unwrap();
        log += &format!("Branch master (at a1b2c3d) deployed as release {name} by ada\n");
    }
    fs::create_dir_all(root.join("shared/log")).unwrap();
    fs::write(root.join("revisions.log"), log).unwrap();
    symlink(root.join("releases/20261121061200"), root.join("current")).unwrap();
}

#[test]
fn a_tree_of_capistrano_is_taken_over_deployed_to_rolled_back_and_given_back() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    for host in ["app1", "app2"] {
        capistrano(world.root(host));
    }
    // The first contact brings the helper, and nothing else.
    world.deployer(["status"]).ok();
    let before = snapshot(world.root("app1"));
    let told = str![[r"
prod: what another tool deployed
  app1 | would record releases/20261120061200
  app1 | would record the live releases/20261121061200
  app1 | would make `current` relative: <tmp>/srv/app1/boskel/releases/20261121061200 -> releases/20261121061200
  app2 | would record releases/20261120061200
  app2 | would record the live releases/20261121061200
  app2 | would make `current` relative: <tmp>/srv/app2/boskel/releases/20261121061200 -> releases/20261121061200
nothing was changed; to do it: deployer doctor -e prod --adopt --yes

"]];
    world.deployer(["doctor", "--adopt"]).is(Exit::Ok, told, "");
    assert_eq!(snapshot(world.root("app1")), before);
    let done = world.deployer(["doctor", "--adopt", "--yes"]);
    done.ok();
    assert!(done.stdout.contains("  app1 | done: record releases/20261120061200\n") && !done.stdout.contains("would"), "{done}");
    assert!(done.stdout.ends_with("taken over; nothing was moved and nothing restarted\n  next  deployer plan -e prod\n"), "{done}");
    assert_eq!(fs::read_link(world.current("app2")).unwrap(), Path::new("releases/20261121061200"));
    world.deployer(["status", "--exit-code"]).ok();
    world.commit(&[("number", "new\n")]);
    world.deploy("master");
    world.deployer(["rollback"]).ok();
    assert_eq!(world.read_current("app1", "number"), "20261121061200\n");
    world.deployer(["rollback"]).ok();
    assert_eq!(world.read_current("app1", "number"), "20261120061200\n");
    world.deployer(["remove"]).exits(Exit::Usage);
    world.deployer(["remove", "--confirm", "staging"]).exits(Exit::Usage);
    assert!(world.root("app1").join(".deployer").exists());
    let removed = world.deployer(["remove", "--confirm", "prod"]);
    removed.ok();
    assert!(removed.stdout.contains("`.deployer` is gone from 2 hosts of prod"), "{removed}");
    for host in ["app1", "app2"] {
        let mut names: Vec<String> =
            fs::read_dir(world.root(host)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["current", "releases", "revisions.log", "shared"]);
        assert_eq!(world.releases(host).len(), 3);
        assert_eq!(world.read_current(host, "number"), "20261120061200\n");
    }
    world.deployer(["doctor", "--adopt", "--yes"]).ok();
    world.deploy("master");
    assert_eq!(world.read_current("app2", "number"), "new\n");
}

#[test]
fn nothing_is_taken_away_from_under_a_hold() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.deployer(["lock", "acquire", "-m", "audit"]).ok();
    world.deployer(["remove", "--confirm", "prod"]).exits(Exit::Locked);
    assert!(world.root("app1").join(".deployer/rel").exists());
}

#[test]
fn a_flag_that_would_do_nothing_is_refused_and_json_is_json() {
    let world = World::new().local_hosts(&["app1"]).config("check = { run = [\"true\"], stay-up = \"100ms\" }\n");
    world.commit(&[("number", "one\n")]);
    for verb in
        [&["status"][..], &["plan", "--rev", "master"], &["releases"], &["hosts"], &["doctor"], &["lock", "status"], &["config", "check"]]
    {
        let refused = world.deployer(verb.iter().chain(&["--events", "events.ndjson"]));
        refused.exits(Exit::Usage);
        assert!(refused.stderr.contains("`--events` keeps the events of a run"), "{refused}");
    }
    world.deployer(["deploy", "--rev", "master", "--events", "events.ndjson"]).ok();
    assert!(world.repository.directory.join("events.ndjson").exists());
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = world.command(arguments.iter().chain(&["--json"])).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    assert_eq!(json(&["config", "show"])["settings"]["check"]["stay-up"]["value"], "100ms");
    assert_eq!(json(&["config", "check"])["environments"], serde_json::json!(["prod"]));
    assert_eq!(json(&["setup", "--print-sudoers"])["lines"], serde_json::json!([]));
    let host = &json(&["hosts"])["hosts"][0];
    assert_eq!((&host["user"], &host["port"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let unit = json(&["setup", "--print-boot-unit"])[0]["unit"].as_str().unwrap().to_owned();
    let root = world.root("app1").display().to_string();
    assert!(unit.contains(&format!(" recover {root}\n")) && unit.contains("Type=oneshot\nUser="), "{unit}");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<&str> = start.split(' ').collect();
    let output = std::process::Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "what the unit runs finds nothing to do: {output:?}");
}
