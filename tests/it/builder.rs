//! A builder that is no host of the environment: plans compare it, `setup` makes it ready, `doctor` looks at it.

use std::fs;
use std::path::PathBuf;

use deployer::exit::Exit;

use crate::harness::{World, snapshot, write_program};
use crate::whole::text;

/// Two hosts of production, and `build1`, which builds for them and has nothing yet: not even a root.
fn world() -> Option<World> {
    let world = World::new().alike_hosts(&["app1", "app2", "build1"])?;
    fs::remove_dir(world.root("build1")).unwrap();
    world.write_raw_config(
        "schema = 1\nproject = \"boskel\"\n\n[defaults]\nrev = \"master\"\nroot = \"<tmp>/site/boskel\"\n\
         ssh = { config = \"<tmp>/ssh_config\", connect-timeout = \"10s\", connect-retries = 0 }\n\n\
         [defaults.cache]\npath = \"<tmp>/site/cache\"\nfill = 'mkdir -p \"$DEPLOYER_CACHE\"; cp \"$PACKAGES/one\" \"$DEPLOYER_CACHE/\"'\n\
         env = { PACKAGES = \"<tmp>/packages\" }\n\n\
         [defaults.build]\non = \"build1\"\ncommand = 'echo \"$DEPLOYER_HOST\" >> \"$BUILDS\"; cat \"$DEPLOYER_CACHE/one\" > built'\n\
         env = { BUILDS = \"<tmp>/builds\" }\n\n[env.prod]\nhosts = [\"app1\", \"app2\"]\n",
    );
    fs::create_dir(world.path("packages")).unwrap();
    fs::write(world.path("packages/one"), "one\n").unwrap();
    fs::create_dir(services(&world, "app1").join("cache")).unwrap();
    world.commit(&[("number", "one\n")]);
    Some(world)
}

fn services(world: &World, host: &str) -> PathBuf {
    world.root(host).parent().unwrap().to_owned()
}

/// What a run tells of its step `setup` on each host.
fn set_up(world: &World, arguments: &[&str]) -> Vec<(String, String)> {
    let (_, events) = world.events(arguments);
    let of_setup = events.iter().filter(|event| event["type"] == "host.step" && event["step"] == "setup");
    let mut told: Vec<(String, String)> =
        of_setup.map(|event| (text(&event["host"]).to_owned(), world.plain(text(&event["detail"])).trim_end().to_owned())).collect();
    told.sort();
    told
}

#[test]
fn a_builder_that_is_no_host_is_told_of_before_it_is_ready_made_ready_and_then_builds() {
    let Some(world) = world() else { return };
    let before = snapshot(&services(&world, "build1"));
    let plan = world.deployer(["plan", "--exit-code"]);
    plan.exits(Exit::Pending);
    let wanted = "  would stop: build1: `build1` cannot build in `<tmp>/site/boskel`, where the release will run: the root directory is missing. Fix: ";
    assert!(plan.stdout.contains(wanted), "{plan}");
    let doctor = world.deployer(["doctor"]);
    assert!(doctor.stdout.contains("\nBuilder\n  ✓ connect  1/1 in "), "{doctor}");
    assert!(doctor.stdout.contains("✗ layout  build1: <tmp>/site/boskel is missing. Fix: deployer setup -e prod\n"), "{doctor}");

    world.deployer(["cache", "fill"]).ok();
    let checked = set_up(&world, &["setup", "--check"]);
    assert_eq!(checked.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>(), ["app1", "app2", "build1"]);
    let of_builder = &checked[2].1;
    assert!(of_builder.starts_with("make `<tmp>/site/boskel`; ") && of_builder.ends_with("1 file into <tmp>/site/cache"), "{of_builder}");
    assert_eq!(snapshot(&services(&world, "build1")), before, "nothing was changed");
    // A run that was narrowed is about the hosts that were named.
    assert_eq!(set_up(&world, &["setup", "--check", "-H", "app1"]).len(), 1);

    let run = world.deployer(["setup"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("prod is ready: 2 hosts and build1, which builds for them\n"), "{run}");
    let again = world.deployer(["setup"]);
    assert!(again.stderr.contains("prod is as it must be: 2 hosts and build1, which builds for them\n"), "{again}");
    let plan = world.deployer(["plan"]);
    assert!(!plan.stdout.contains("would stop"), "{plan}");
    let doctor = world.deployer(["doctor"]);
    assert!(doctor.stdout.contains("✓ layout  1/1 <tmp>/site/boskel\n  ✓ cache  1/1 <tmp>/site/cache\n"), "{doctor}");
    assert!(doctor.stdout.contains("0 problems"), "{doctor}");

    fs::remove_file(world.path("builds")).unwrap();
    world.deployer(["deploy"]).ok();
    assert_eq!(fs::read_to_string(world.path("builds")).unwrap(), "build1\n");
    assert_eq!((world.read_current("app1", "built"), world.read_current("app2", "built")), ("one\n".to_owned(), "one\n".to_owned()));
}

#[test]
fn a_builder_that_cannot_be_reached_is_named_by_all_that_need_it() {
    let Some(world) = world() else { return };
    world.sandbox.host("build1").unwrap().stop();
    let plan = world.deployer(["plan"]);
    assert!(plan.stdout.contains("  would stop: build1: unreachable, and it is to build: "), "{plan}");
    let doctor = world.deployer(["doctor"]);
    assert!(doctor.stdout.contains("\nBuilder\n  ✗ connect  0/1 in "), "{doctor}");
    let run = world.deployer(["setup"]);
    run.exits(Exit::Unreachable);
    assert!(run.stderr.contains("build1"), "{run}");
    assert!(!world.root("app1").join("shared").exists(), "no host was changed");
}

#[test]
fn a_builder_that_is_a_host_by_another_name_is_made_ready_once() {
    let world = World::new().local_hosts(&["app1", "app2"]).config("rev = \"master\"\nbuild = { command = \"true\", on = \"local\" }\n");
    world.commit(&[("number", "one\n")]);
    let told = set_up(&world, &["setup"]);
    assert_eq!(told.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>(), ["app1", "app2"], "{told:?}");
    let run = world.deployer(["setup"]);
    assert!(run.stderr.contains("prod is as it must be: 2 hosts\n"), "{run}");
    let doctor = world.deployer(["doctor"]);
    assert!(doctor.stdout.contains("\nBuilder\n  ✓ connect  1/1 in ") && !doctor.stdout.contains("one host with one root"), "{doctor}");
    // It builds at the root of the first host, and that is not the other's.
    let plan = world.deployer(["plan"]);
    let wanted = "  would stop: app2: the place of the root differs: `app2` has `<tmp>/srv/app2/boskel` and `app1`, which builds, has `<tmp>/srv/app1/boskel`. Fix: build on every host: `build.on = \"host\"`\n";
    assert!(plan.stdout.contains(wanted), "{plan}");
}

#[test]
fn a_host_that_differs_from_the_builder_is_named_with_it_by_a_plan_that_changes_nothing() {
    let Some(world) = World::new().alike_hosts(&["app1", "app2", "app3"]) else { return };
    let world = world.config("build = { recipe = \"buildout\", venv = \"<tmp>/site/venv\", on = \"first\" }\n");
    world.commit(&[("buildout.cfg", "")]);
    let python = |host: &str, version: &str| {
        let bin = services(&world, host).join("venv/bin");
        fs::create_dir_all(&bin).unwrap();
        write_program(&bin.join("python"), &format!("echo cpython-{version} cpython-{version}-linux\n"));
        write_program(&bin.join("buildout"), "echo built > built\n");
    };
    python("app1", "311");
    python("app2", "312");
    python("app3", "311");
    // The first contact brings the helper.
    world.deployer(["status"]).ok();
    let before = ["app1", "app2", "app3"].map(|host| snapshot(&services(&world, host)));
    let plan = world.deployer(["plan", "--rev", "master", "--exit-code"]);
    plan.exits(Exit::Pending);
    let stopping: Vec<&str> = plan.stdout.lines().filter(|line| line.contains("would stop")).collect();
    let wanted = "  would stop: app2: the interpreter differs: `app2` has `cpython-312 cpython-312-linux` and `app1`, which builds, has \
                  `cpython-311 cpython-311-linux`. Fix: build on every host: `build.on = \"host\"`";
    assert_eq!(stopping, [wanted]);
    assert_eq!(["app1", "app2", "app3"].map(|host| snapshot(&services(&world, host))), before);
    // A deploy says the same.
    let deploy = world.deployer(["deploy", "--rev", "master"]);
    deploy.exits(Exit::BuildFailed);
    assert!(deploy.stderr.contains(&wanted["  would stop: app2: ".len()..wanted.find(". Fix").unwrap()]), "{deploy}");
    python("app2", "311");
    let plan = world.deployer(["plan", "--rev", "master"]);
    assert!(!plan.stdout.contains("would stop"), "{plan}");
}
