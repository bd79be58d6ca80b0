//! Hooks run at their moments, where they say, with what they are told; a failed one stops what it is part of.

use std::fs;

use deployer::exit::Exit;
use rustix::process::Signal;
use serde_json::Value;
use snapbox::str;

use crate::harness::World;
use crate::running::{PATIENCE, Running, until};

const HOSTS: [&str; 3] = ["app1", "app2", "app3"];

/// Every moment writes its name, and where it is, into one file.
const ALL: &str = r#"
waves = ["1", "100%"]
build = { command = "echo build $DEPLOYER_HOST >><tmp>/order" }
activate = "echo activate $DEPLOYER_HOST >><tmp>/order"
hook = [
    { on = "before-build", run = "[ -f number ]; echo before-build $DEPLOYER_HOST >><tmp>/order" },
    { on = "after-build", run = "echo made >made; echo after-build $DEPLOYER_HOST >><tmp>/order" },
    { on = "before-activate", where = "once", name = "migrate", run = ["sh", "-c", "echo migrate {host} >>\"$1\"; cat number", "x", "<tmp>/order"] },
    { on = "before-activate", run = "echo before-activate $DEPLOYER_HOST >><tmp>/order" },
    { on = "after-activate", run = "[ \"$(readlink ../../current)\" = releases/$DEPLOYER_RELEASE ]; echo after-activate $DEPLOYER_HOST >><tmp>/order" },
    { on = "before-wave", where = "local", name = "drain", run = "echo drain $DEPLOYER_WAVE of $DEPLOYER_WAVES: $DEPLOYER_WAVE_HOSTS >><tmp>/order" },
    { on = "after-wave", where = "local", name = "undrain", run = "echo undrain $DEPLOYER_WAVE_HOSTS $DEPLOYER_RESULT >><tmp>/order" },
    { on = "after-deploy", where = "local", name = "tell", run = "echo after-deploy $DEPLOYER_ENV $DEPLOYER_SHORT_REV >><tmp>/order" },
    { on = "after-failure", where = "local", run = "echo after-failure $DEPLOYER_RESULT >><tmp>/order" },
]
"#;

fn order(world: &World) -> Vec<String> {
    let order = fs::read_to_string(world.path("order")).unwrap_or_default();
    let _ = fs::remove_file(world.path("order"));
    order.lines().map(str::to_owned).collect()
}

#[test]
fn every_moment_comes_in_its_turn_on_the_hosts_that_it_is_for() {
    let world = World::new().local_hosts(&HOSTS[..2]).config(ALL);
    world.commit(&[("number", "one\n")]);
    let run = world.deployer(["deploy", "--rev", "master", "-j", "1"]);
    run.is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  nothing..e1a9e0b
[<t>] release  <release>
[<t>] push  2/2 <size> sent per host
[<t>] link  2/2
[<t>] build  2/2
app1| one
[<t>] hook  1/1  migrate
[<t>] hook  1/1  drain
[<t>] wave 1  1/1  app1
[<t>] hook  1/1  undrain
[<t>] hook  1/1  drain
[<t>] wave 2  1/1  app2
[<t>] hook  1/1  undrain
[<t>] hook  1/1  tell
[<t>] prune  2/2  kept 1, removed 0

Deployed e1a9e0b to prod: 2 hosts in <t> (was nothing)

"#]],
    );
    let order = order(&world);
    let at = |line: &str| order.iter().position(|other| other == line).unwrap_or_else(|| panic!("no `{line}` in {order:#?}"));
    for host in ["app1", "app2"] {
        let ways = ["before-build", "build", "after-build", "before-activate", "activate", "after-activate"]
            .map(|step| at(&format!("{step} {host}")));
        assert!(ways.is_sorted(), "{host}: {order:#?}");
        assert_eq!(world.read_current(host, "made"), "made\n", "what a hook makes is part of the release");
    }
    let ways = [
        "after-build app2",
        "migrate app1",
        "drain 1 of 2: app1",
        "before-activate app1",
        "after-activate app1",
        "undrain app1 ok",
        "drain 2 of 2: app2",
        "activate app2",
        "undrain app2 ok",
        "after-deploy prod e1a9e0b",
    ];
    assert!(ways.map(at).is_sorted(), "{order:#?}");
    assert_eq!(order.len(), 18, "nothing more: {order:#?}");
    let history = fs::read(world.root("app1").join(".deployer/journal")).unwrap();
    let history = String::from_utf8_lossy(&history);
    assert!(history.contains("hook-started") && history.contains("hook-ended") && history.contains("migrate"), "{history}");
    // A rollback and a host that serves it already run none.
    world.deploy("master");
    assert!(self::order(&world).is_empty());
}

#[test]
fn a_plan_names_the_hooks_with_where_they_would_run() {
    let world = World::new().local_hosts(&HOSTS[..2]).config(&ALL.replace("$DEPLOYER_HOST >><tmp>/order\"", "\""));
    world.commit(&[("number", "one\n")]);
    let plan = world.deployer(["plan", "--rev", "master"]);
    let steps = plan.stdout.lines().find(|line| line.contains("steps")).unwrap();
    assert!(steps.contains("→ build (offline) → ") && steps.contains(" → migrate (once, app1) → drain (local) → "), "{steps}");
    assert!(steps.ends_with("→ prune · waves of 1, 1"), "{steps}");
    assert!(
        plan.stdout.contains("unknown    what the hook migrate does, before-activate (not run by plan)\n")
            || plan.stdout.contains("unknown  what the hook migrate does, before-activate (not run by plan)\n"),
        "{plan}"
    );
    assert!(!world.path("order").exists());
}

/// Hosts that serve `one`, with hooks that fail where there is a file that says so.
fn served(settings: &str) -> World {
    let hook = |on: &str, place: &str| {
        let run = format!("echo {on} $DEPLOYER_HOST ${{DEPLOYER_RESULT:-}} >><tmp>/order; [ ! -e <tmp>/fail-{on} ]");
        format!("    {{ on = \"{on}\", where = \"{place}\", run = \"{run}\" }},\n")
    };
    let hooks = [
        ("after-build", "every-host"),
        ("before-activate", "once"),
        ("after-activate", "every-host"),
        ("before-wave", "local"),
        ("after-wave", "local"),
        ("after-deploy", "local"),
        ("after-failure", "local"),
    ]
    .map(|(on, place)| hook(on, place));
    let build = "build = { command = \"true\" }";
    let world = World::new().local_hosts(&HOSTS).config(&format!("{settings}\n{build}\nhook = [\n{}]\n", hooks.concat()));
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    order(&world);
    world.commit(&[("number", "two\n")]);
    world
}

#[test]
fn a_hook_that_fails_before_anything_is_switched_leaves_every_host_as_it_was() {
    let world = served("");
    for on in ["after-build", "before-activate", "before-wave"] {
        fs::write(world.path(format!("fail-{on}")), "").unwrap();
        let run = world.deployer(["deploy", "--rev", "master"]);
        run.exits(Exit::BuildFailed);
        assert!(run.stderr.contains("Nothing was activated: prod still runs e1a9e0b on 3/3 hosts"), "{run}");
        assert!(run.stderr.contains("· hook · exit 1"), "{run}");
        let order = order(&world);
        assert_eq!(
            order.last().map(String::as_str),
            Some("after-failure local build-failed").filter(|_| on != "before-wave").or(Some("after-failure local build-failed"))
        );
        assert_eq!(order.iter().any(|line| line.starts_with("after-wave local build-failed")), on == "before-wave", "{order:#?}");
        fs::remove_file(world.path(format!("fail-{on}"))).unwrap();
    }
    world.deploy("master");
}

#[test]
fn a_hook_that_fails_in_a_wave_is_a_wave_that_fails() {
    let world = served("waves = [\"1\", \"100%\"]");
    for on in ["after-activate", "after-wave"] {
        fs::write(world.path(format!("fail-{on}")), "").unwrap();
        let run = world.deployer(["deploy", "--rev", "master"]);
        run.exits(Exit::RolledBack);
        assert!(run.stderr.contains("Rolled back. prod runs e1a9e0b on 3/3 hosts"), "{run}");
        let order = order(&world);
        assert_eq!(order.last().unwrap(), "after-failure local rolled-back");
        assert!(!order.iter().any(|line| line.starts_with("after-deploy")), "{order:#?}");
        // What was taken out of service comes back once its hosts have been put back.
        assert!(order.iter().any(|line| line.starts_with("after-wave local ")), "{order:#?}");
        fs::remove_file(world.path(format!("fail-{on}"))).unwrap();
    }
    // The deploy is made, and somebody has to look.
    fs::write(world.path("fail-after-deploy"), "").unwrap();
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::Partial);
    assert!(run.stderr.contains("prod runs 8899d14 on 3/3 hosts"), "{run}");
}

#[test]
fn a_wave_that_went_on_with_failures_is_not_told_as_well_and_what_could_not_be_put_back_is_named() {
    let check = "check = { run = '[ ! -e <tmp>/ill-$DEPLOYER_HOST ]', retries = 1 }";
    let hook = "{ on = \"after-wave\", where = \"local\", run = \"echo $DEPLOYER_RESULT:$DEPLOYER_WAVE_UNWELL >><tmp>/order\" }";
    let world = World::new().local_hosts(&HOSTS).config(&format!("{check}\nhook = [{hook}]\n"));
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    assert_eq!(order(&world), ["ok:"]);
    world.commit(&[("number", "two\n")]);
    // Neither what is new nor what was there before is well.
    fs::write(world.path("ill-app2"), "").unwrap();
    world.deployer(["deploy", "--rev", "master", "--on-failure", "continue"]).exits(Exit::Partial);
    assert_eq!(order(&world), ["partial:app2"]);
}

#[test]
fn a_hook_that_may_fail_is_a_warning() {
    let hook = "hook = [{ on = \"before-activate\", where = \"once\", name = \"tell\", run = \"echo no; exit 3\", may-fail = true }]\n";
    let world = World::new().local_hosts(&HOSTS[..1]).config(hook);
    world.commit(&[("number", "one\n")]);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.ok();
    assert!(run.stderr.contains("warning: hook failed, as it may: `tell`: the command exited with status 3"), "{run}");
    assert!(run.stderr.contains("app1| no\n"), "{run}");
    world.deployer(["deploy", "--rev", "master", "-H", "@failed"]).exits(Exit::Usage);
}

#[test]
fn a_hook_on_this_machine_is_ended_with_its_children_and_nothing_is_switched() {
    let hook = "hook = [{ on = \"before-activate\", where = \"local\", run = \"echo $$ ><tmp>/pid; echo begun; sleep 1000 & wait\" }]\n";
    let world = World::new().local_hosts(&HOSTS[..1]).config(hook);
    world.commit(&[("number", "one\n")]);
    let mut run = Running::start(&world, &["deploy", "--rev", "master"]);
    run.until_lines("begun", 1);
    let pid = fs::read_to_string(world.path("pid")).unwrap();
    run.signal(Signal::INT);
    let ended = run.end();
    ended.exits(130);
    assert!(ended.error().contains("nothing was activated"), "{}", ended.error());
    until("the end of the hook", PATIENCE, || !std::path::Path::new("/proc").join(pid.trim()).exists());
    assert!(!world.current("app1").exists());
}

#[test]
fn what_a_hook_did_is_an_event_of_its_host_and_a_role_has_its_own() {
    let world = World::new();
    let root = |host: &str| {
        let root = world.path("srv").join(host);
        fs::create_dir_all(&root).unwrap();
        root.display().to_string()
    };
    world.write_raw_config(&format!(
        "schema = 1\nproject = \"boskel\"\n[source]\ngit = \".\"\n[env.prod]\nroot = \"/srv\"\nhost = [\n\
         {{ name = \"app1\", root = \"{}\", session = \"local\", roles = [\"web\"] }},\n\
         {{ name = \"app2\", root = \"{}\", session = \"local\", roles = [\"worker\"] }},\n]\n\
         [[env.prod.hook]]\non = \"after-activate\"\nwhere = \"worker\"\nname = \"wake\"\nrun = [\"echo\", \"{{role}}\"]\n",
        root("app1"),
        root("app2")
    ));
    world.commit(&[("number", "one\n")]);
    let (status, events) = world.events(["deploy", "--rev", "master"]);
    assert_eq!(status, 0);
    let steps: Vec<&Value> = events.iter().filter(|event| event["type"] == "host.step" && event["step"] == "hook").collect();
    assert_eq!(steps.len(), 1, "{steps:#?}");
    assert_eq!((&steps[0]["host"], &steps[0]["status"], &steps[0]["detail"]), (&"app2".into(), &"ok".into(), &"wake".into()));
    let output: Vec<&Value> = events.iter().filter(|event| event["type"] == "host.output" && event["step"] == "hook").collect();
    assert_eq!((output.len(), &output[0]["line"]), (1, &"worker".into()));
}
