//! Going back: to the release before, further back, to a named one, and why it cannot be.

use std::fs;
use std::process::Command;

use deployer::exit::Exit;
use deployer::sandbox::skip;
use snapbox::str;

use crate::harness::World;
use crate::running::{answered, at_a_terminal};

const QUESTION: &str = "Roll back? [y/N] ";

/// Hosts on which three commits are confirmed, one after the other.
fn world(hosts: &[&str]) -> (World, [String; 3]) {
    let world = World::new().local_hosts(hosts);
    let commits = ["one\n", "two\n", "three\n"].map(|text| {
        let commit = world.commit(&[("number", text)]);
        world.deploy("master");
        commit
    });
    (world, commits)
}

#[test]
fn a_rollback_goes_to_the_release_before_and_twice_goes_further_until_there_is_none() {
    let (world, _) = world(&["app1", "app2"]);
    world.deployer(["rollback"]).is(
        Exit::Ok,
        str![""],
        str![[r"
boskel → prod · rollback · 2 hosts
[<t>] connect  2/2
[<t>] changes  0b2540c..8899d14
[<t>] release  <release>
[<t>] activate  2/2  current → <release>

Rolled back prod to 8899d14: 2 hosts in <t>
  forward again  deployer rollback -e prod --to <release>

"]],
    );
    assert_eq!(world.read_current("app2", "number"), "two\n");
    world.deployer(["rollback"]).ok();
    assert_eq!(world.read_current("app2", "number"), "one\n");
    world.deployer(["rollback"]).is(
        Exit::Config,
        str![""],
        str![[r"
boskel → prod · rollback · 2 hosts
[<t>] connect  2/2

error: `app1` has no confirmed release before the one it serves
  hint: see what there is: deployer releases -e prod
  hint: choose one: deployer rollback -e prod --to ID

prod still runs e1a9e0b on 2/2 hosts.

"]],
    );
    assert_eq!(world.read_current("app2", "number"), "one\n");
}

#[test]
fn a_rollback_goes_to_a_release_named_by_id_by_distance_or_by_commit() {
    let (world, [first, _, third]) = world(&["app1"]);
    world.deployer(["rollback", "--to", "~2"]).ok();
    assert_eq!(world.read_current("app1", "number"), "one\n");
    world.deployer(["rollback", "--to", &third[..7]]).ok();
    assert_eq!(world.read_current("app1", "number"), "three\n");
    let id = world.release_of("app1", &first);
    world.deployer(["rollback", "--to", &id]).ok();
    assert_eq!(world.read_current("app1", "number"), "one\n");
    world.deployer(["rollback", "--to", &id]).is(
        Exit::Ok,
        str![""],
        str![[r"
boskel → prod · rollback · 1 host
[<t>] connect  1/1

prod is at e1a9e0b on 1/1 host; nothing to do.

"]],
    );
}

#[test]
fn a_rollback_to_what_no_host_has_is_refused_with_what_there_is() {
    let (world, _) = world(&["app1"]);
    let before = world.live("app1");
    world.deployer(["rollback", "--to", "20200101T000000-0000000"]).is(
        Exit::Config,
        str![""],
        str![[r"
boskel → prod · rollback · 1 host
[<t>] connect  1/1

error: `app1` does not have the release `<release>` as a confirmed one
  hint: see what there is: deployer releases -e prod
  hint: choose one: deployer rollback -e prod --to ID

prod still runs 0b2540c on 1/1 host.

"]],
    );
    world.deployer(["rollback", "--to", "~9"]).is(
        Exit::Config,
        str![""],
        str![[r"
boskel → prod · rollback · 1 host
[<t>] connect  1/1

error: `app1` has only 2 confirmed releases before the one it serves
  hint: see what there is: deployer releases -e prod
  hint: choose one: deployer rollback -e prod --to ID

prod still runs 0b2540c on 1/1 host.

"]],
    );
    world.deployer(["rollback", "--to", "nonsense"]).is(
        Exit::Config,
        str![""],
        str![[r"
boskel → prod · rollback · 1 host
[<t>] connect  1/1

error: `app1` does not have the release `nonsense` as a confirmed one
  hint: see what there is: deployer releases -e prod
  hint: choose one: deployer rollback -e prod --to ID

prod still runs 0b2540c on 1/1 host.

"]],
    );
    assert_eq!(world.live("app1"), before);
}

#[test]
fn hosts_that_differ_go_back_to_one_release_that_is_named() {
    let (world, [first, ..]) = world(&["app1", "app2"]);
    world.deployer(["rollback", "-H", "app1"]).ok();
    assert_eq!((world.read_current("app1", "number"), world.read_current("app2", "number")), ("two\n".to_owned(), "three\n".to_owned()));
    // Where each would go is not one release: a person decides.
    world.deployer(["rollback"]).is(
        Exit::Config,
        str![""],
        str![[r"
boskel → prod · rollback · 2 hosts
[<t>] connect  2/2

error: hosts would return to different revisions: `app1` to e1a9e0b, `app2` to 8899d14
  hint: see what there is: deployer releases -e prod
  hint: choose one: deployer rollback -e prod --to ID

prod still runs 0b2540c on 1/2 hosts and 8899d14 on 1/2 hosts.

"]],
    );
    world.deployer(["rollback", "--to", &first[..7]]).ok();
    assert_eq!((world.read_current("app1", "number"), world.read_current("app2", "number")), ("one\n".to_owned(), "one\n".to_owned()));
}

#[test]
fn a_release_that_one_host_has_no_more_is_made_there_again_before_any_host_is_switched() {
    let (world, [_, second, _]) = world(&["app1", "app2"]);
    let id = world.release_of("app2", &second);
    fs::remove_dir_all(world.root("app2").join("releases").join(&id)).unwrap();
    world.deployer(["rollback", "--to", &id]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · rollback · 2 hosts
[<t>] connect  2/2
[<t>] changes  0b2540c..8899d14
[<t>] release  <release>
[<t>] rev  8899d14 "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] activate  2/2  current → <release>

Rolled back prod to 8899d14: 2 hosts in <t>
  forward again  deployer rollback -e prod --to <release>

"#]],
    );
    assert_eq!((world.read_current("app1", "number"), world.read_current("app2", "number")), ("two\n".to_owned(), "two\n".to_owned()));
    assert_eq!(world.live("app1"), id);
    assert_ne!(world.live("app2"), id, "its id is that of what is gone");
}

#[test]
fn a_release_that_was_pruned_on_one_host_comes_back_there_by_its_own_id() {
    let (world, [first, ..]) = world(&["app1", "app2"]);
    let id = world.release_of("app2", &first);
    world.deployer(["prune", "--release", &id, "--confirm", "prod", "-H", "app2"]).ok();
    assert_eq!(world.releases("app2").len(), 2);
    world.deployer(["rollback", "--to", &id]).ok();
    assert_eq!((world.live("app1"), world.live("app2")), (id.clone(), id));
    assert_eq!(world.read_current("app2", "number"), "one\n");
    // What came after it is not before it: nobody is led forward by a second rollback.
    world.deployer(["rollback"]).exits(Exit::Config);
}

#[test]
fn a_release_that_no_host_has_any_more_is_found_by_the_run_that_made_it_or_by_its_commit() {
    let (world, [first, second, _]) = world(&["app1", "app2"]);
    for (commit, by_commit) in [(&first, false), (&second, true)] {
        let id = world.release_of("app1", commit);
        world.deployer(["prune", "--release", &id, "--confirm", "prod"]).ok();
        world.deployer(["rollback", "--to", if by_commit { &commit[..7] } else { &id }]).ok();
        let expected = if by_commit { "two\n" } else { "one\n" };
        assert_eq!(
            (world.read_current("app1", "number"), world.read_current("app2", "number")),
            (expected.to_owned(), expected.to_owned())
        );
    }
}

#[test]
fn a_release_that_cannot_be_built_again_on_one_host_changes_no_host() {
    let mut world = World::new().local_hosts(&["app1", "app2"]);
    let one = world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.commit(&[("number", "two\n")]);
    world.deploy("master");
    let id = world.release_of("app2", &one);
    fs::remove_dir_all(world.root("app2").join("releases").join(&id)).unwrap();
    world.reconfigure("[defaults.build]\ncommand = \"exit 5\"\n");
    let run = world.deployer(["rollback", "--to", &id]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("Not rolled back. Nothing was activated: prod still runs 8899d14 on 2/2 hosts."), "{run}");
    assert_eq!(world.read_current("app1", "number"), "two\n");
}

#[test]
fn deploying_again_what_was_rolled_back_adopts_the_release_that_is_there() {
    let (world, _) = world(&["app1"]);
    let id = world.live("app1");
    world.deployer(["rollback"]).ok();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  0b2540c master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  8899d14..0b2540c · 1 commit, 1 file
[<t>] release  <release>
[<t>] activate  1/1  current → <release>
[<t>] prune  1/1  kept 3, removed 0

Deployed 0b2540c to prod: 1 host in <t> (was 8899d14)
  undo  deployer rollback -e prod

"#]],
    );
    assert_eq!(world.live("app1"), id);
}

#[test]
fn another_build_of_what_is_live_is_nothing_to_go_back_to() {
    let (world, _) = world(&["app1", "app2"]);
    world.deployer(["deploy", "--rev", "master", "--force", "-H", "app2"]).ok();
    world.deployer(["rollback"]).ok();
    assert_eq!(["app1", "app2"].map(|host| world.read_current(host, "number")), ["two\n", "two\n"]);
    world.deployer(["rollback"]).ok();
    assert_eq!(["app1", "app2"].map(|host| world.read_current(host, "number")), ["one\n", "one\n"]);
}

#[test]
fn a_host_that_is_down_is_left_out_where_that_is_said_and_told_of() {
    let mut world = World::new().with_hosts(&["app1", "app2"]);
    for text in ["one\n", "two\n"] {
        world.commit(&[("number", text)]);
        world.deploy("master");
    }
    world.sandbox.host("app2").unwrap().stop();
    let refused = world.deployer(["rollback", "--connect-retries", "0"]);
    refused.exits(Exit::Unreachable);
    assert!(refused.stderr.contains("without: deployer rollback -e prod -H '!app2'"), "{refused}");
    assert_eq!(world.read_current("app1", "number"), "two\n");

    world.reconfigure("on-unreachable = \"skip\"\n");
    let skipped = world.deployer(["rollback", "--connect-retries", "0"]);
    skipped.exits(Exit::Partial);
    assert!(skipped.stderr.contains("app2") && skipped.stderr.contains("Rolled back prod to "), "{skipped}");
    assert_eq!((world.read_current("app1", "number"), world.read_current("app2", "number")), ("one\n".into(), "two\n".into()));

    // What it says to type when the host is back is what brings it there.
    world.sandbox.host("app2").unwrap().restart().unwrap();
    let typed = skipped.stderr.lines().find_map(|line| line.trim().strip_prefix("finish  deployer ")).unwrap();
    world.deployer(typed.split(' ')).ok();
    assert_eq!(world.read_current("app2", "number"), "one\n");
}

#[test]
fn somebody_at_a_terminal_is_asked_once_and_told_what_from_and_what_to() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("there is no `script`");
    }
    let (mut world, commits) = world(&["app1", "app2"]);
    let [first, second, third] = commits.map(|commit| commit[..7].to_owned());
    for protected in ["", "protected = true\n"] {
        world.reconfigure(protected);
        let (status, shown) = answered(&world, &["rollback"], QUESTION, || {}, "n\n");
        assert_eq!(status, i32::from(Exit::Refused.code()), "{shown}");
        assert!(shown.contains(&format!("prod: {third} → {second} (master, by ada@")) && shown.contains(") on 2 hosts"), "{shown}");
        assert!(shown.contains("prod is not rolled back: the answer was no"), "{shown}");
        assert_eq!(world.read_current("app1", "number"), "three\n");
    }
    // A protected environment asks no second time.
    let (status, shown) = answered(&world, &["rollback"], QUESTION, || {}, "y\n");
    assert_eq!((status, shown.matches("[y/N]").count()), (0, 1), "{shown}");
    assert_eq!(world.read_current("app1", "number"), "two\n");
    world.reconfigure("");
    let (status, shown) =
        answered(&world, &["rollback", "--to", &first], QUESTION, || drop(world.deployer(["rollback", "--to", &third])), "y\n");
    assert_eq!(status, i32::from(Exit::Refused.code()), "{shown}");
    assert!(shown.contains("the hosts were deployed to while the question was open"), "{shown}");
    assert_eq!(world.read_current("app1", "number"), "three\n", "the control: it was free to be deployed to");
    for (flag, to, text) in [("--yes", &second, "two\n"), ("--no-input", &first, "one\n")] {
        let run = at_a_terminal(&world, &["rollback", flag, "--to", to]).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(run.status.success() && !String::from_utf8_lossy(&run.stdout).contains("[y/N]"), "{run:?}");
        assert_eq!(world.read_current("app2", "number"), text);
    }
    let run = at_a_terminal(&world, &["rollback", "--to", &first]).stdin(std::process::Stdio::null()).output().unwrap();
    assert!(run.status.success() && !String::from_utf8_lossy(&run.stdout).contains("[y/N]"), "there is nothing to do: {run:?}");
}
