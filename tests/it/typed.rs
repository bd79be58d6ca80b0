//! What people are told to type next reaches the hosts of the command that told it, and no others.

use deployer::exit::Exit;

use crate::harness::{Run, World};
use crate::whole::{Stage, live_commit};

/// The arguments of a line of advice: what follows `name  deployer `.
#[track_caller]
fn advice<'a>(run: &'a Run, name: &str) -> &'a str {
    let line = run.stderr.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().strip_prefix("deployer "));
    line.unwrap_or_else(|| panic!("no `{name}`: {run}"))
}

/// Types it, as a shell would take it.
#[track_caller]
fn typed(world: &World, line: &str) -> Run {
    world.deployer(shlex::split(line).unwrap())
}

#[test]
fn an_undo_of_one_host_leaves_the_others_alone() {
    let stage = Stage::local(&["app1", "app2", "app3"], "");
    for app in ["one\n", "two\n", "three\n"] {
        stage.commit(app);
        let selection: &[&str] = if app == "three\n" { &["-H", "app2"] } else { &[] };
        let run = stage.world.deployer([&["deploy", "--rev", "master"], selection].concat());
        run.exits(Exit::Ok);
        if app == "three\n" {
            let undo = advice(&run, "undo");
            assert_eq!(undo, "rollback -e prod -H app2");
            let back = typed(&stage.world, undo);
            back.exits(Exit::Ok);
            assert!(advice(&back, "forward again").ends_with(" -H app2"), "{back}");
        }
    }
    stage.serves("two\n");
}

#[test]
fn a_retry_says_the_hosts_and_the_rules_of_what_failed() {
    let stage = Stage::local(&["app1", "app2", "app3"], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    stage.mark("broken-app1", true);
    let world = &stage.world;
    let failed = world.deployer(["deploy", "--rev", "master", "-H", "app1,app2", "--waves", "1,100%", "--set", "build.timeout=5m"]);
    failed.exits(Exit::BuildFailed);
    assert_eq!(advice(&failed, "retry"), "deploy -e prod --set build.timeout=5m --rev master --waves 1,100% -H app1,app2");
    let without = typed(world, advice(&failed, "without"));
    without.exits(Exit::Ok);
    assert!(without.stderr.contains("· 1 host"), "{without}");
    assert_eq!(world.read_current("app2", "app"), "two\n");
    assert_eq!((live_commit(world.root("app1")), live_commit(world.root("app3"))), (one.clone(), one));
    stage.mark("broken-app1", false);
    typed(world, advice(&failed, "retry")).ok();
    assert_eq!(world.read_current("app1", "app"), "two\n");
    assert_eq!(world.read_current("app3", "app"), "one\n");
}
