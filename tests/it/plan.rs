//! A plan tells what a deploy would do, and changes nothing.

use std::fs;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{World, snapshot};

#[test]
fn a_plan_tells_what_would_happen_and_writes_nothing_on_the_host() {
    let world = World::new()
        .local_hosts(&["app1", "app2"])
        .config("[defaults.build]\ncommand = \"echo built > output\"\n[env.prod.activate]\nrun = \"true\"\n");
    world.commit(&[("number", "one\n")]);
    world.deployer(["plan", "--rev", "master"]).is(
        Exit::Ok,
        str![[r#"
boskel → prod · 2 hosts · read-only, nothing was changed
  rev  none → e1a9e0b (master) "Change what there is"
  tree  1 file, <size>
  build  echo built > output · network blocked, at most <t>
  steps  lock → push → link → build (offline) → activate → confirm → prune
  HOSTS  FROM  PUSH  DISK FREE
  app[1-2]  none <size> <size>  new
  unknown  what the activation command does (not run by plan)
  unknown  a host rebooted between switch and confirmation serves the new release until the next contact, or until its boot unit: `deployer setup -e prod --print-boot-unit`

"#]],
        str![""],
    );
    assert!(world.releases("app1").is_empty());
    world.deploy("master");
    world.commit(&[("number", "two\n")]);
    let before = snapshot(&world.path("srv"));
    world.deployer(["plan", "--rev", "master"]).is(
        Exit::Ok,
        str![[r#"
boskel → prod · 2 hosts · read-only, nothing was changed
  rev  e1a9e0b → 8899d14 (master) "Change what there is" · fast-forward · 1 commit, 1 file, +1 −1
  tree  1 file, <size>
  build  echo built > output · network blocked, at most <t>
  steps  lock → push → link → build (offline) → activate → confirm → prune
  HOSTS  FROM  PUSH  DISK FREE
  app[1-2]  e1a9e0b <size> <size>  new
  unknown  what the activation command does (not run by plan)
  unknown  a host rebooted between switch and confirmation serves the new release until the next contact, or until its boot unit: `deployer setup -e prod --print-boot-unit`

"#]],
        str![""],
    );
    world.deployer(["plan", "--rev", "master", "--changes", "--exit-code"]).exits(Exit::Pending);
    let document = world.deployer(["plan", "--rev", "master", "--changes", "--json"]);
    document.ok();
    let document: serde_json::Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!(document["changes"][0]["subject"], "Change what there is");
    assert_eq!((&document["behind"], &document["added_lines"], &document["removed_lines"]), (&0.into(), &1.into(), &1.into()));
    world.deployer(["deploy", "--rev", "master", "--dry-run"]).ok();
    assert_eq!(snapshot(&world.path("srv")), before);
    world.deploy("master");
    world.deployer(["plan", "--rev", "master", "--exit-code"]).is(
        Exit::Ok,
        str![[r#"
boskel → prod · 2 hosts · read-only, nothing was changed
  rev  8899d14 → 8899d14 (master) "Change what there is"
  tree  1 file, <size>
  build  echo built > output · network blocked, at most <t>
  steps  lock → push → link → build (offline) → activate → confirm → prune
  HOSTS  FROM  PUSH  DISK FREE
  app[1-2]  8899d14 <size> <size>  already live
  unknown  what the activation command does (not run by plan)
  unknown  a host rebooted between switch and confirmation serves the new release until the next contact, or until its boot unit: `deployer setup -e prod --print-boot-unit`

"#]],
        str![""],
    );
}

#[test]
fn a_plan_lists_what_would_stop_a_deploy() {
    let world = World::new()
        .local_hosts(&["app1", "app2"])
        .config("[defaults.cache]\npath = \"/nonexistent/cache\"\nlink = \"downloads\"\n[defaults.shared]\nfiles = [\"etc/site.cfg\"]\n");
    world.commit(&[("number", "one\n")]);
    fs::create_dir(world.current("app2")).unwrap();
    world.deployer(["plan", "--rev", "master", "--exit-code"]).is(Exit::Pending, str![[r#"
boskel → prod · 2 hosts · read-only, nothing was changed
  rev  none → e1a9e0b (master) "Change what there is"
  tree  1 file, <size>
  steps  lock → push → link → activate → confirm → prune
  HOSTS  FROM  PUSH  DISK FREE
  app[1-2]  none <size> <size>  new
  would stop: app2: `current` is a real file or directory, not a link. Fix: move it away on that host: `mv current current.old`, then deploy again
  would stop: app[1-2]: `shared/etc/site.cfg` is missing or cannot be read. Fix: put the file there
  would stop: app[1-2]: `/nonexistent/cache` is missing or cannot be read. Fix: deployer setup -e prod

"#]], str![""]);
    let run = world.deployer(["plan", "--rev", "master", "--json"]);
    run.ok();
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(document["blockers"].as_array().unwrap().len() >= 3, "{document:#}");
}
