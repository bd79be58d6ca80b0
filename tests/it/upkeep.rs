//! Preparing hosts, removing what is old, and finding out what is wrong.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

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
fn setup_tells_of_a_current_that_cannot_be_switched_and_of_a_link_to_nothing() {
    let mut world = World::new().local_hosts(&["app1", "app2", "app3"]);
    world.deployer(["setup"]).ok();
    fs::create_dir(world.current("app1")).unwrap();
    symlink("/srv/old/release", world.current("app2")).unwrap();
    for arguments in [&["setup"][..], &["setup", "--check"]] {
        world.deployer(arguments).is(Exit::Refused, str![""], str![[r"
boskel → prod · setup · 3 hosts
[<t>] connect  3/3
[<t>] setup  3/3  app3: as it must be · app[1-2]: `current` is in the way

error: `current` cannot be switched: nothing can be deployed before it is out of the way
  app1 | `current` is a real file or directory, not a link; look what is in it, then: mv <tmp>/srv/app1/boskel/current <tmp>/srv/app1/boskel/current.old
  app2 | `current` leads to `/srv/old/release`, which is not there; if nothing needs the link: rm <tmp>/srv/app2/boskel/current
  hint: then again: deployer setup -e prod

prod still runs nothing on 3/3 hosts.

"]]);
    }
    fs::remove_dir(world.current("app1")).unwrap();
    fs::remove_file(world.current("app2")).unwrap();
    world.deployer(["setup", "--check"]).ok();
    world.reconfigure("[defaults.cache]\npath = \"<tmp>/packages\"");
    symlink("nowhere", world.path("packages")).unwrap();
    for arguments in [&["setup", "-H", "app1"][..], &["setup", "--check", "-H", "app1"]] {
        world.deployer(arguments).is(
            Exit::BuildFailed,
            str![""],
            str![[r"
boskel → prod · setup · 1 host
[<t>] connect  1/1
[<t>] ✗ app1 setup failed after <t>: `<tmp>/packages` leads to `nowhere`, which does not exist
[<t>] ✗ setup  0/1  1 failed: app1

✗ app1 · setup · failed after <t>
  reason: `<tmp>/packages` leads to `nowhere`, which does not exist
  hint: on that host, make what it leads to: `mkdir -p <tmp>/nowhere`; or remove the link: `rm <tmp>/packages`

prod still runs nothing on 1/1 host.

"]],
        );
    }
}

#[test]
fn setup_says_what_only_a_revision_tells_and_takes_one() {
    let mut world = World::new().local_hosts(&["app1"]);
    world.commit(&[("number", "one\n")]);
    world.reconfigure("[defaults.cache]\npath = \"<tmp>/packages\"\nfill = \"true\"\n[defaults.build]\ncommand = \"true\"");
    world.deployer(["setup"]).is(
        Exit::Ok,
        str![""],
        str![[r"
boskel → prod · setup · 1 host
[<t>] connect  1/1
warning: what the cache must hold, only a revision says, and [env.prod] names none
  hint: deployer setup -e prod --rev master
[<t>] setup  1/1  make `<tmp>/packages`

prod is ready: 1 host
  deploy  deployer deploy -e prod

"]],
    );
    let run = world.deployer(["setup", "--rev", "master"]);
    run.ok();
    assert!(run.stderr.contains("export  1 file") && !run.stderr.contains("only a revision says"), "{run}");
    let run = world.deployer(["setup", "--rev", "nonsense"]);
    run.exits(Exit::Config);
    assert!(run.stderr.contains("nonsense"), "{run}");
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
