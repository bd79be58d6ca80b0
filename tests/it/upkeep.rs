//! Preparing hosts, removing what is old, and finding out what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{World, snapshot};

#[test]
fn setup_makes_what_is_missing_once_and_a_check_makes_nothing() {
    let world = World::new().local_hosts(&["app1"]).config("[defaults.shared]\ndirs = [\"var\"]\n");
    fs::remove_dir(world.root("app1")).unwrap();
    world.deployer(["setup", "--check"]).is(Exit::Ok, str![""], str![[r"
boskel → prod · setup · 1 host
[<t>] connect  1/1
[<t>] setup  1/1  make `<tmp>/srv/app1/boskel`; make `<tmp>/srv/app1/boskel/releases`; make `<tmp>/srv/app1/boskel/shared`; make `<tmp>/srv/app1/boskel/shared/var`

prod needs 4 changes; nothing was changed
  setup  deployer setup -e prod

"]]);
    assert!(!world.root("app1").exists());
    world.deployer(["setup"]).is(Exit::Ok, str![""], str![[r"
boskel → prod · setup · 1 host
[<t>] connect  1/1
[<t>] setup  1/1  make `<tmp>/srv/app1/boskel`; make `<tmp>/srv/app1/boskel/.deployer`; make `<tmp>/srv/app1/boskel/releases`; make `<tmp>/srv/app1/boskel/shared`; make `<tmp>/srv/app1/boskel/shared/var`

prod is ready: 1 host
  deploy  deployer deploy -e prod

"]]);
    assert!(world.root("app1").join("shared/var").is_dir());
    let before = snapshot(&world.root("app1").join("shared"));
    world.deployer(["setup"]).is(
        Exit::Ok,
        str![""],
        str![[r"
boskel → prod · setup · 1 host
[<t>] connect  1/1
[<t>] setup  1/1  as it must be

prod is as it must be: 1 host
  deploy  deployer deploy -e prod

"]],
    );
    assert_eq!(snapshot(&world.root("app1").join("shared")), before);
}

#[test]
fn a_parent_that_may_not_be_written_to_prints_what_root_has_to_run() {
    if rustix::process::geteuid().is_root() {
        return deployer::sandbox::skip("root may write everywhere");
    }
    let world = World::new().local_hosts(&["app1"]);
    fs::remove_dir(world.root("app1")).unwrap();
    let parent = world.root("app1").parent().unwrap().to_owned();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o555)).unwrap();
    let run = world.deployer(["setup"]);
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run.status, 4, "{run}");
    assert!(run.stderr.contains("install -d") && run.stderr.contains("then again: deployer setup -e prod"), "{run}");
}

#[test]
fn retention_keeps_the_newest_good_releases_and_the_live_one() {
    let world = World::new().local_hosts(&["app1"]).config("keep-releases = 2\n");
    for text in ["one\n", "two\n", "three\n", "four\n"] {
        world.commit(&[("number", text)]);
        world.deploy("master");
    }
    assert_eq!(world.releases("app1").len(), 2);
    world.deployer(["rollback"]).ok();
    assert_eq!(world.read_current("app1", "number"), "three\n");
    world.deployer(["prune"]).is(
        Exit::Ok,
        str![],
        str![[r"
boskel → prod · prune · 1 host
[<t>] connect  1/1
[<t>] prune  1/1  kept 2, removed 0

Nothing to remove from 1 host of prod

"]],
    );
    let live = world.live("app1");
    world.deployer(["prune", "--release", &live]).is(
        Exit::Usage,
        str![""],
        str![[r"
error: nobody can be asked here, and `--confirm` is needed to remove this release from its hosts
  hint: add `--confirm prod`

"]],
    );
    world.deployer(["prune", "--release", &live, "--confirm", "prod"]).is(
        Exit::Refused,
        str![""],
        str![[r"
boskel → prod · prune · 1 host
[<t>] connect  1/1
[<t>] ✗ app1 prune failed after <t>: release `<release>` is live and cannot be removed
[<t>] ✗ prune  0/1  1 failed: app1

✗ app1 · prune · failed after <t>
  reason: release `<release>` is live and cannot be removed
  hint: activate another release first

prod still runs 0b2540c on 1/1 host.

"]],
    );
    let other = world.releases("app1").into_iter().find(|id| *id != live).unwrap();
    world.deployer(["prune", "--release", &other, "--confirm", "prod"]).ok();
    assert_eq!(world.releases("app1"), [live]);
}

#[test]
fn doctor_tells_what_is_well_and_what_to_do_about_the_rest() {
    let world = World::new().local_hosts(&["app1", "app2"]).config("[defaults.shared]\nfiles = [\"etc/site.cfg\"]\n");
    world.commit(&[("number", "one\n")]);
    fs::create_dir(world.current("app2")).unwrap();
    let run = world.deployer(["doctor"]);
    run.ok();
    assert!(run.stderr.is_empty(), "{run}");
    assert!(run.stdout.contains("runs from <tmp>/"), "{run}");
    for part in ["✓ git", "✗ shared", "app2: `current` is not a link to a release", "Fix: ", "problems"] {
        assert!(run.stdout.contains(part), "{part}: {run}");
    }
    world.deployer(["doctor", "--exit-code"]).exits(Exit::Pending);
}
