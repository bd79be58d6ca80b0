//! What is written where: events, the run store, the terminal's and the CI's view, and readers that go away.

use std::fs;
use std::process::Stdio;

use deployer::exit::Exit;
use serde_json::Value;
use snapbox::str;

use crate::harness::World;

fn world() -> World {
    let world =
        World::new().local_hosts(&["app1", "app2"]).config("[defaults.build]\ncommand = \"echo compiling; ! grep -q bad number\"\n");
    world.commit(&[("number", "one\n")]);
    world
}

/// Checks what every reader of events relies on.
fn check(events: &[Value]) {
    assert_eq!(events[0]["type"], "version");
    assert_eq!(events[1]["type"], "run.started");
    let last = events.last().unwrap();
    assert_eq!(last["type"], "run.finished");
    assert_eq!(events.iter().filter(|event| event["type"] == "run.finished").count(), 1);
    let times: Vec<f64> = events.iter().map(|event| event["t"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    for event in events {
        let keys = event.as_object().unwrap().keys();
        assert!(keys.into_iter().all(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')), "{event}");
    }
}

#[test]
fn a_deploy_is_told_as_ndjson_from_the_version_to_one_end() {
    let world = world();
    let (status, events) = world.events(["deploy", "--rev", "master"]);
    assert_eq!(status, 0);
    check(&events);
    assert_eq!((&events.last().unwrap()["exit"], &events.last().unwrap()["ok"]), (&Value::from(0), &Value::from(2)));
    world.commit(&[("number", "bad\n")]);
    let (status, events) = world.events(["deploy", "--rev", "master"]);
    assert_eq!(status, 11);
    check(&events);
    let told = events.iter().find(|event| event["type"] == "diagnostic" && event["severity"] == "error").unwrap();
    assert_eq!((&told["severity"], &told["hosts"]), (&Value::from("error"), &Value::from(vec!["app1", "app2"])));
    let (status, events) = world.events(["deploy", "--rev", "nonsense"]);
    assert_eq!(status, 3);
    check(&events);
    let last = events.last().unwrap();
    assert_eq!(last["failed"], 0, "no host failed: {last:#}");
    assert_eq!(last["live"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 2, "{last:#}");
    assert!(last["summary"].as_str().unwrap().starts_with("prod still runs "), "{last:#}");
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_refused_before_anything_is_done() {
    let world = world();
    world.deployer(["deploy", "--rev", "master", "--events", "nowhere/events"]).is(
        Exit::Usage,
        "",
        str![[r"
error: cannot write events to `nowhere/events`: No such file or directory (os error 2)
  state: nothing was done

"]],
    );
    assert!(world.releases("app1").is_empty());
    world.deployer(["cache", "import", "nowhere"]).is(
        Exit::Usage,
        "",
        str![[r"
error: `nowhere` cannot be read: No such file or directory (os error 2)

"]],
    );
    world.deployer(["cache", "export", "nowhere/file", "--rev", "master"]).exits(Exit::Usage);
}

#[test]
fn a_reader_of_a_completion_script_may_go_away() {
    let world = world();
    let mut command = world.command(["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn events_go_to_a_file_beside_the_view_and_every_run_is_stored() {
    let world = world();
    world.deployer(["deploy", "--rev", "master", "--events", "../events.ndjson"]).ok();
    let text = fs::read_to_string(world.path("events.ndjson")).unwrap();
    check(&text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>());
    world.deployer(["rollback"]).exits(Exit::Config);
    world.deployer(["logs", "--list"]).is(
        Exit::Ok,
        str![[r"
RUN  VERB  ENV  REV  WHEN  BY  HOSTS  TIME  RESULT
<run>  rollback  prod  <ago>  ada@<here>  0/2 <t>  failed (3)
<run>  deploy  prod  master  <ago>  ada@<here>  2/2 <t>  ok

"]],
        str![""],
    );
    // The newest run has no build: what was asked for decides which run is shown.
    world.deployer(["logs", "--step", "build"]).is(
        Exit::Ok,
        str![[r"
app1| compiling
✓ app1 build done after <t>
app2| compiling
✓ app2 build done after <t>

"]],
        str![[r"
run <run> (deploy): the last run, <run> (rollback), has no such output

"]],
    );
    world.deployer(["logs", "--step", "biuld"]).is(
        Exit::Usage,
        str![""],
        str![[r"
error: unknown step `biuld`
  hint: steps: mirror, resolve, export, connect, lock, push, cache, link, build, capture, hook, activate, check, confirm, revert, prune, setup, fill, run

"]],
    );
    world.deployer(["logs", "20200101T000000-000000"]).is(
        Exit::Usage,
        str![""],
        str![[r"
error: the run `<run>` cannot be shown: no run `<run>` is stored here
  hint: deployer logs --list

"]],
    );
}

#[test]
fn quiet_leaves_the_end_and_verbose_adds_commands_and_output() {
    let world = world();
    world.deployer(["deploy", "--rev", "master", "-q"]).is(
        Exit::Ok,
        str![""],
        str![[r"
Deployed e1a9e0b to prod: 2 hosts in <t> (was nothing)

"]],
    );
    world.deployer(["deploy", "--rev", "master", "--force", "-qq"]).is(Exit::Ok, str![""], str![""]);
    world.deployer(["deploy", "--rev", "master", "--force", "-vv", "-H", "app1"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] resolve  e1a9e0bdc17c34a904c4b761e980a7a60fda079e
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
note: session local: `local` is this machine (app1)
[<t>] lock  1/1
[<t>] changes  e1a9e0b..e1a9e0b · 0 commits, 0 files
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host, 100% already there
[<t>] link  1/1
[<t>] ✓ app1 build <t>
app1| compiling
[<t>] build  1/1
  app1$ sh -eu -c 'echo compiling; ! grep -q bad number'
note: the build had no network: it ran in a namespace without any (app1)
[<t>] activate  1/1  current → <release>
[<t>] confirm  1/1
[<t>] prune  1/1  kept 3, removed 0

Deployed e1a9e0b to prod: 1 host in <t> (was e1a9e0b)
  undo  deployer rollback -e prod -H app1

"#]],
    );
}

#[test]
fn colour_is_for_who_asks_for_it() {
    let world = world();
    let coloured = |arguments: &[&str], variable: &str| {
        let mut command = world.command(["deploy", "--rev", "nonsense"]);
        command.args(arguments).env(variable, "1");
        world.run(&mut command).stderr.contains('\u{1b}')
    };
    assert!(coloured(&["--color", "always"], "X"));
    assert!(!coloured(&[], "X"));
    assert!(!coloured(&[], "NO_COLOR"));
}

#[test]
fn a_github_job_gets_groups_and_an_annotation() {
    let world = world();
    world.commit(&[("number", "bad\n")]);
    let mut command = world.command(["deploy", "--rev", "master", "-H", "app1"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_RUN_ID", "8123").env("GITHUB_ACTOR", "ada");
    world.run(&mut command).is(Exit::BuildFailed, str![""], str![[r#"
boskel → prod · 1 host
[<t>] rev  7fa4607 master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..7fa4607
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] ✗ app1 build failed after <t> (exit 1): sh -eu -c 'echo compiling; ! grep -q bad number'
app1| compiling
[<t>] ✗ build  0/1  1 failed: app1

✗ app1 · build · exit 1 after <t>
  app1| compiling

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  look  deployer logs -e prod -H app1 --step build
  retry  deployer deploy -e prod --rev master -H app1
::error title=deploy to prod failed::build failed on app1: compiling. Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.

"#]]);
}

#[test]
fn a_gitlab_job_gets_sections() {
    let world = world();
    let mut command = world.command(["deploy", "--rev", "master", "-H", "app1"]);
    command.env("GITLAB_CI", "true").env("CI_JOB_ID", "99").env("GITLAB_USER_LOGIN", "ada");
    let run = world.run(&mut command);
    run.ok();
    assert!(run.stderr.contains("section_start:") && run.stderr.contains("section_end:") && run.stderr.contains("app1_build"), "{run}");
}

#[test]
fn readers_that_go_away_do_not_stop_a_deploy() {
    let world = world();
    let run = world.run(&mut world.shell("{ \"$@\" --json 2>&1; echo $? > ../status; } | :", &["deploy", "--rev", "master"]));
    run.ok();
    assert_eq!(fs::read_to_string(world.path("status")).unwrap(), "0\n");
    let mut command = world.shell("exec \"$@\" >&- 2>&-", &["deploy", "--rev", "master", "--force"]);
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(world.releases("app1").len(), 2);
}
