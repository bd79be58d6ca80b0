//! Builds that fail, hang, flood, wait for input or leave processes behind, and what every build can rely on.

use std::fs;
use std::time::Instant;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{Run, World};

const BUILD: &str = "[defaults.build]\ncommand = \"sh build.sh\"\n";

#[test]
fn a_build_that_fails_on_one_host_activates_nothing_and_its_log_is_kept_on_both_ends() {
    let world = World::new().local_hosts(&["app1", "app2"]).config(BUILD);
    world.commit(&[("build.sh", "echo fine > built\n")]);
    world.deploy("master");
    let before = world.live("app1");
    world.commit(&[("build.sh", "echo compiling\n[ \"$DEPLOYER_HOST\" = app1 ] || { echo 'no lxml' >&2; exit 3; }\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  121e11b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  75b3d77..121e11b · 1 commit, 1 file
[<t>] release  <release>
[<t>] push  2/2 <size> sent per host
[<t>] link  2/2
[<t>] ✗ app2 build failed after <t> (exit 3): sh -eu -c 'sh build.sh'
app2| compiling
app2| no lxml
[<t>] ✗ build  1/2  1 failed: app2

✗ app2 · build · exit 3 after <t>
  app2| compiling
  app2| no lxml

Not deployed. Nothing was activated: prod still runs 75b3d77 on 2/2 hosts.
  look  deployer logs -e prod -H app2 --step build
  retry  deployer deploy -e prod --rev master
  without  deployer deploy -e prod --rev master -H '!app2'

"#]],
    );
    assert_eq!((world.live("app1"), world.live("app2")), (before.clone(), before));
    world.deployer(["logs", "--step", "build"]).is(
        Exit::Ok,
        str![[r"
app1| compiling
✓ app1 build done after <t>
app2| compiling
app2| no lxml
✗ app2 build failed after <t> (exit 3)

"]],
        str![""],
    );
    world.deployer(["logs", "--step", "build", "-H", "app1"]).is(
        Exit::Ok,
        str![[r"
app1| compiling
✓ app1 build done after <t>

"]],
        str![""],
    );
    let kept = fs::read_dir(world.root("app2").join(".deployer")).unwrap().count();
    assert!(kept > 0);
    world.commit(&[("build.sh", "echo again > built\n")]);
    world.deploy("master");
    assert_eq!(world.read_current("app2", "built"), "again\n");
}

#[test]
fn builds_that_fail_alike_are_told_once() {
    let world = World::new().local_hosts(&["app1", "app2", "app3"]).config(BUILD);
    world.commit(&[("build.sh", "echo 'no lxml'\nexit 1\n")]);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    let (told, end) = run.stderr.split_once("\n\n").unwrap();
    // Which of them is first depends on who is quicker.
    assert_eq!(told.matches("| no lxml").count(), 1, "{run}");
    assert_eq!(told.matches(", the same as app").count(), 2, "{run}");
    let end = end.replace("  app2| ", "  app1| ").replace("  app3| ", "  app1| ");
    // On a machine with much to do they do not take the same time; what is told then is seen in the tests of the screens.
    let end = end.replace("<t> to <t>", "<t>");
    snapbox::assert_data_eq!(
        end,
        str![[r"
✗ app[1-3] · build · exit 1 after <t>
  app1| no lxml

Not deployed. Nothing was activated: prod still runs nothing on 3/3 hosts.
  look  deployer logs -e prod -H app1 --step build
  retry  deployer deploy -e prod --rev master

"]]
    );
}

/// Deploys; whether a shell still says that its child was ended depends on which of them was ended first.
fn quietly_ended(world: &World) -> Run {
    let run = world.deployer(["deploy", "--rev", "master"]);
    // As it comes, and among the last lines at the end.
    Run { stderr: run.stderr.replace("  app1| Terminated\n", "").replace("app1| Terminated\n", ""), ..run }
}

#[test]
fn a_build_that_hangs_is_ended_at_its_timeout() {
    let world = World::new().local_hosts(&["app1"]).config(&format!("{BUILD}timeout = \"1s\"\n"));
    world.commit(&[("build.sh", "echo waiting\nwhile :; do sleep 0.1; echo still; done > /dev/null\n")]);
    quietly_ended(&world).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  676f98f master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..676f98f
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] ✗ app1 build failed after <t>: stopped: its time limit is over: sh -eu -c 'sh build.sh'
app1| waiting
[<t>] ✗ build  0/1  1 failed: app1

✗ app1 · build · failed after <t>
  reason: stopped: its time limit is over
  app1| waiting

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  look  deployer logs -e prod -H app1 --step build
  retry  deployer deploy -e prod --rev master

"#]],
    );
}

#[test]
fn a_build_that_says_nothing_is_ended_at_its_idle_timeout() {
    let world = World::new().local_hosts(&["app1"]).config(&format!("{BUILD}idle-timeout = \"1s\"\n"));
    world.commit(&[("build.sh", "echo waiting\nexec sleep 1000\n")]);
    quietly_ended(&world).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  2d818c8 master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..2d818c8
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] ✗ app1 build failed after <t>: stopped: no output for too long: sh -eu -c 'sh build.sh'
app1| waiting
[<t>] ✗ build  0/1  1 failed: app1

✗ app1 · build · failed after <t>
  reason: stopped: no output for too long
  app1| waiting
  hint: does it wait for an answer, or for the network?

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  look  deployer logs -e prod -H app1 --step build
  retry  deployer deploy -e prod --rev master

"#]],
    );
}

#[test]
fn a_build_that_floods_its_output_is_bounded_and_passes() {
    let world = World::new().local_hosts(&["app1"]).config(&format!("{BUILD}output-limit = \"1MB\"\n"));
    world.commit(&[("build.sh", "yes 'a line of output' | head -c 100000000\necho done > built\n")]);
    let began = Instant::now();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  8e48c4b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..8e48c4b
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] build  1/1
[<t>] activate  1/1  current → <release>
[<t>] prune  1/1  kept 1, removed 0

Deployed 8e48c4b to prod: 1 host in <t> (was nothing)

"#]],
    );
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    assert_eq!(world.read_current("app1", "built"), "done\n");
    let stored: u64 = crate::harness::snapshot(&world.path("state")).keys().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(stored < 20_000_000, "{stored} bytes are stored");
}

#[test]
fn a_build_that_reads_stdin_gets_its_end() {
    let world = World::new().local_hosts(&["app1"]).config(BUILD);
    world.commit(&[("build.sh", "if read -r line; then echo \"$line\" > answer; else echo nothing > answer; fi\n")]);
    world.deploy("master");
    assert_eq!(world.read_current("app1", "answer"), "nothing\n");
}

#[test]
fn what_a_build_leaves_running_is_ended_with_it() {
    let world = World::new().local_hosts(&["app1"]).config(BUILD);
    world.commit(&[("build.sh", "sleep 1000 > /dev/null 2>&1 &\necho $! > pid\n")]);
    world.deploy("master");
    let pid = world.read_current("app1", "pid");
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(!state.contains("(sleep)") || state.contains(") Z "), "{state}");
}

#[test]
fn a_build_has_an_explicit_environment_locale_and_umask() {
    let extra = format!("{BUILD}env = {{ COLOUR = \"red\" }}\n");
    let world = World::new().local_hosts(&["app1"]).config(&extra);
    world.commit(&[(
        "build.sh",
        "umask > umask\nenv | cut -d= -f1 | sort | grep -v '^_$' > names\necho \"$LANG $COLOUR $(pwd)\" > values\n",
    )]);
    let mut command = world.command(["deploy", "--rev", "master"]);
    command.env("SECRET_OF_THE_OPERATOR", "x").env("LC_ALL", "C");
    world.run(&mut command).ok();
    assert_eq!(world.read_current("app1", "umask"), "0022\n");
    snapbox::assert_data_eq!(
        world.read_current("app1", "names"),
        str![[r"
COLOUR
DEPLOYER_BUILD
DEPLOYER_COMMAND
DEPLOYER_CURRENT
DEPLOYER_ENV
DEPLOYER_HOST
DEPLOYER_RELEASE
DEPLOYER_REV
DEPLOYER_ROLE
DEPLOYER_ROOT
DEPLOYER_RUN
DEPLOYER_SCRATCH
DEPLOYER_SHARED
DEPLOYER_SHORT_REV
HOME
LANG
LOGNAME
PATH
PWD
SHELL
USER

"]]
    );
    let values = world.plain(&world.read_current("app1", "values"));
    snapbox::assert_data_eq!(
        values,
        str![[r"
C.UTF-8 red <tmp>/srv/app1/boskel/releases/<release>

"]]
    );
}

#[test]
fn a_build_has_no_network_where_the_host_has_namespaces_and_the_run_says_which() {
    let world = World::new().local_hosts(&["app1"]).config(BUILD);
    world.commit(&[("build.sh", "cut -d: -f1 -s /proc/net/dev | tr -d ' ' > interfaces\n")]);
    world.deploy("master");
    let isolated = world.read_current("app1", "interfaces").split_whitespace().all(|name| name == "lo");
    let (status, events) = world.events(["deploy", "--rev", "master", "--force"]);
    assert_eq!(status, 0);
    let told = events
        .iter()
        .filter(|event| event["type"] == "diagnostic" || event["type"] == "host.step")
        .filter(|event| event.to_string().contains("network"));
    assert!(isolated || told.count() > 0, "{events:#?}");
    let world = World::new().local_hosts(&["app1"]).config(&format!("{BUILD}network = \"host\"\n"));
    world.commit(&[("build.sh", "cut -d: -f1 -s /proc/net/dev | tr -d ' ' > interfaces\n")]);
    world.deploy("master");
    let here = fs::read_to_string("/proc/net/dev").unwrap().lines().skip(2).count();
    assert_eq!(world.read_current("app1", "interfaces").lines().count(), here);
}
