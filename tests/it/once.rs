//! One host builds for all: what it built is the same on the others, runs there, and goes nowhere where it would not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deployer::exit::Exit;
use deployer::sandbox::{self, Sample};
use rustix::process::Signal;
use snapbox::str;

use crate::harness::{World, snapshot, write_program};
use crate::running::Running;
use crate::whole::{assert_settled, records, state_of, text};

/// Counts builds, and makes everything that a build may make: a script that knows its place, links, a private file, an empty directory.
const BUILD_SH: &str = r#"
echo "$DEPLOYER_HOST" >> "$BUILDS"
mkdir -p bin empty/inner
printf '#!/bin/sh\necho "built on %s in %s"\n' "$DEPLOYER_HOST" "$PWD" > bin/where
chmod 755 bin/where
ln -s where bin/link
ln -s ../var/data bin/data
echo secret > key
chmod 600 key
cat tracked > made
"#;

fn once(on: &str) -> String {
    format!(
        "shared = {{ dirs = [\"var\"] }}\ncache = {{ path = \"<tmp>/cache-of-hosts\" }}\n\
         build = {{ command = \"sh build.sh\", on = \"{on}\", env = {{ BUILDS = \"<tmp>/builds\" }} }}\n"
    )
}

fn builds(world: &World) -> Vec<String> {
    fs::read_to_string(world.path("builds")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Hosts with the same path, a cache, and a project whose build makes everything.
fn world(hosts: &[&str], on: &str) -> Option<World> {
    let world = World::new().alike_hosts(hosts)?.config(&once(on));
    fs::create_dir(world.path("cache-of-hosts")).unwrap();
    world.commit(&[("build.sh", BUILD_SH), ("tracked", "one\n"), ("untouched", "two\n")]);
    Some(world)
}

/// Every path of a live release with its kind, mode and content.
pub fn tree(world: &World, host: &str) -> BTreeMap<PathBuf, String> {
    let root = fs::canonicalize(world.current(host)).unwrap();
    let entry = |(path, what): (PathBuf, String)| {
        // The time is the third and fourth word; directories have their own everywhere.
        let words: Vec<&str> = what.split(' ').collect();
        let seconds = words.get(2).map_or("", |time| time.trim_start_matches('(').trim_end_matches(','));
        // `REVISION` is no part of what was built.
        let is_file = path.is_file() && !path.is_symlink() && !path.ends_with("REVISION");
        let what = format!("{} {} {}", words[0], words.last().unwrap(), if is_file { seconds } else { "" });
        (path.strip_prefix(&root).unwrap().to_owned(), what)
    };
    snapshot(&root).into_iter().map(entry).collect()
}

fn origin(world: &World, host: &str) -> serde_json::Value {
    records(world.root(host))[&world.live(host)]["release"]["origin"].clone()
}

#[test]
fn what_one_host_built_is_the_same_on_all_and_is_built_nowhere_else() {
    let Some(mut world) = world(&["app1", "app2", "app3"], "first") else { return };
    world.deployer(["plan", "--rev", "master"]).is(
        Exit::Ok,
        str![[r#"
boskel → prod · 3 hosts · read-only, nothing was changed
  rev  none → [..] (master) "Change what there is"
  tree  3 files, <size>
  build  sh build.sh · network blocked, at most <t> · once on app1, for all
  steps  lock → push → link → build (offline) → capture → push to the others → activate → confirm → prune
...
"#]],
        str![""],
    );
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("capture  1/1"), "{run}");
    assert_eq!(builds(&world), ["app1"]);
    let (first, second) = (tree(&world, "app1"), tree(&world, "app2"));
    assert_eq!(first, second);
    assert_eq!(first, tree(&world, "app3"));
    assert!(first.contains_key(Path::new("empty/inner")) && first[Path::new("key")].starts_with("100600 "), "{first:#?}");
    assert_eq!(world.live("app1"), world.live("app2"));
    // At the very path at which it was built: it knows it.
    let said = world.deployer(["run", "-H", "app2", "--raw", "--", "$DEPLOYER_CURRENT/bin/link"]);
    assert_eq!(said.stdout, format!("built on app1 in <tmp>/site/boskel/releases/{}\n", "<release>"));
    assert_eq!(origin(&world, "app1"), serde_json::Value::Null);
    assert_eq!((text(&origin(&world, "app2")["host"]), &origin(&world, "app2")["environment"]), ("app1", &serde_json::Value::Null));
    assert_settled(&world, &["app1", "app2", "app3"]);

    // The next one, built on a named host: what did not change is not fetched again, and a rollback needs no build.
    world.reconfigure(&once("app2"));
    world.commit(&[("tracked", "three\n")]);
    world.deploy("master");
    assert_eq!(builds(&world), ["app1", "app2"]);
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
    world.deployer(["rollback"]).ok();
    assert_eq!(tree(&world, "app2"), second);
    assert_eq!(builds(&world), ["app1", "app2"]);
    assert_settled(&world, &["app1", "app2", "app3"]);
}

#[test]
fn a_host_that_fails_after_the_build_is_served_by_the_next_run_without_another_build() {
    let Some(world) = world(&["app1", "app2"], "first") else { return };
    fs::create_dir_all(world.root("app2").join("shared")).unwrap();
    fs::write(world.root("app2").join("shared/var"), "no directory").unwrap();
    let failed = world.deployer(["deploy", "--rev", "master"]);
    failed.exits(Exit::BuildFailed);
    assert!(failed.stderr.contains("✗ app2 link failed"), "{failed}");
    let commit = world.repository.directory.clone();
    let head = crate::scratch::git_in(&commit, ["rev-parse", "HEAD"], b"");
    let head = String::from_utf8(head).unwrap().trim().to_owned();
    assert_eq!((state_of(world.root("app1"), &head).as_str(), state_of(world.root("app2"), &head).as_str()), ("sealed", "failed"));
    let (id, before) = (world.release_of("app2", &head), snapshot(&world.root("app2").join("releases")));
    assert_eq!(world.release_of("app1", &head), id);

    fs::remove_file(world.root("app2").join("shared/var")).unwrap();
    world.deploy("master");
    assert_eq!(builds(&world), ["app1"]);
    assert_eq!((world.live("app1"), world.live("app2")), (id.clone(), id));
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
    // What was there was kept, not sent again.
    let kept = world.root("app2").join("releases").join(world.live("app2")).join("untouched");
    assert_eq!(snapshot(&world.root("app2").join("releases"))[&kept], before[&kept]);
    assert_settled(&world, &["app1", "app2"]);
}

#[test]
fn a_builder_that_is_lost_in_its_build_leaves_every_host_as_it_was_and_the_next_run_builds() {
    let Some(world) = world(&["app1", "app2"], "first") else { return };
    world.deploy("master");
    let before = (world.live("app1"), world.live("app2"));
    world.commit(&[("build.sh", "echo started\nwhile :; do sleep 0.1; done\n")]);
    let mut running = Running::start(&world, &["deploy", "--rev", "master"]);
    running.until_lines("started", 1);
    world.sandbox.host("app1").unwrap().cut();
    let ended = running.end();
    assert_eq!(ended.status, i32::from(Exit::BuildFailed.code()), "{ended:#?}");
    let failed = ended.events.iter().filter(|event| event["type"] == "host.step" && event["status"] == "failed");
    assert_eq!(failed.map(|event| text(&event["host"])).collect::<Vec<_>>(), ["app1"]);
    assert_eq!((world.live("app1"), world.live("app2")), before);
    world.commit(&[("build.sh", BUILD_SH)]);
    world.deploy("master");
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
    assert_settled(&world, &["app1", "app2"]);
}

#[test]
fn a_run_that_is_killed_while_it_pushes_what_was_built_is_continued() {
    let Some(world) = world(&["app1", "app2"], "first") else { return };
    let mut running = Running::start(&world, &["deploy", "--rev", "master"]);
    running.until("the end of the capture", |event| event["type"] == "host.step" && event["step"] == "capture");
    running.signal(Signal::KILL);
    let _ = running.end();
    world.deployer(["deploy", "--rev", "master", "--wait-lock", "60s"]).ok();
    assert_eq!(builds(&world), ["app1"]);
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
    assert_settled(&world, &["app1", "app2"]);
}

#[test]
fn a_host_that_differs_from_the_builder_is_named_with_it_before_anything_is_built() {
    let Some(world) = World::new().alike_hosts(&["app1", "app2"]) else { return };
    let world = world.config("build = { recipe = \"buildout\", venv = \"<tmp>/site/venv\", on = \"first\" }\n");
    world.commit(&[("buildout.cfg", "")]);
    for (host, version) in [("app1", "311"), ("app2", "312")] {
        let bin = world.root(host).parent().unwrap().join("venv/bin");
        fs::create_dir_all(&bin).unwrap();
        write_program(&bin.join("python"), &format!("echo cpython-{version} cpython-{version}-linux\n"));
        write_program(&bin.join("buildout"), "echo built > built\n");
    }
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  [..] master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  nothing..[..]
[<t>] release  <release>

error: cannot deploy to `app2` (1 of 2 hosts): the interpreter differs: `app2` has `cpython-312 cpython-312-linux` and `app1`, which builds, has `cpython-311 cpython-311-linux`
  hint: build on every host: `build.on = "host"`

Not deployed. Nothing was activated: prod still runs nothing on 2/2 hosts.
  retry  deployer deploy -e prod --rev master
  without  deployer deploy -e prod --rev master -H '!app2'

"#]],
    );
    assert_eq!(world.releases("app1"), [""; 0]);
}

#[test]
fn what_the_built_tree_refers_to_and_a_host_lacks_is_found_before_anything_is_pushed_there() {
    let Some(world) = World::new().alike_hosts(&["app1", "app2"]) else { return };
    let world = world.config("build = { command = \"sh build.sh\", on = \"first\" }\n");
    let build = "mkdir bin\nprintf '#!%s/tools/run\\n' \"${PWD%/boskel/*}\" > bin/app\nchmod 755 bin/app\nln -s ../../../tools/lib lib\n";
    world.commit(&[("build.sh", build)]);
    let tools = |host: &str| world.root(host).parent().unwrap().join("tools");
    fs::create_dir(tools("app1")).unwrap();
    write_program(&tools("app1").join("run"), "exec sh \"$@\"\n");
    fs::write(tools("app1").join("lib"), "").unwrap();
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    let wanted = "error: cannot deploy to `app2` (1 of 2 hosts): `<tmp>/site/tools/lib` is missing, to which `lib` of what was built leads, \
                  and so is 1 other path that it refers to\n";
    assert!(run.stderr.contains(wanted), "{run}");
    assert_eq!(world.releases("app2"), [""; 0]);

    let _ =
        std::process::Command::new("cp").args(["-a", tools("app1").to_str().unwrap(), tools("app2").to_str().unwrap()]).status().unwrap();
    world.deploy("master");
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
}

#[test]
fn this_machine_builds_where_the_release_will_run_or_says_why_it_cannot() {
    let Some(world) = world(&["app1", "app2"], "local") else { return };
    let here = world.path("site/boskel");
    let refused = world.deployer(["deploy", "--rev", "master"]);
    refused.exits(Exit::BuildFailed);
    let wanted = "error: `local` cannot build in `<tmp>/site/boskel`, where the release will run: the root directory is missing\n";
    assert!(refused.stderr.contains(wanted), "{refused}");
    assert!(builds(&world).is_empty() && world.releases("app1").is_empty());

    fs::create_dir(&here).unwrap();
    world.deploy("master");
    assert_eq!(builds(&world), ["local"]);
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
    assert_eq!(text(&origin(&world, "app1")["host"]), "local");
    assert!(fs::symlink_metadata(here.join("current")).is_err(), "the builder serves nothing");
    // It keeps what it built: a new host needs no build.
    fs::remove_file(world.current("app2")).unwrap();
    fs::remove_dir_all(world.root("app2").join(".deployer")).unwrap();
    fs::remove_dir_all(world.root("app2").join("releases")).unwrap();
    world.deploy("master");
    assert_eq!(builds(&world), ["local"]);
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
}

#[test]
fn a_real_buildout_is_built_once_and_runs_on_the_other_host_without_a_network() {
    let Some(mut world) = World::new().alike_hosts(&["app1", "app2"]) else { return };
    if let Err(why) = world.sandbox.package_index() {
        return sandbox::skip(&format!("no package index: {why}"));
    }
    fs::remove_dir_all(&world.repository.directory).unwrap();
    world.repository = world.sandbox.repository(Sample::Buildout).unwrap();
    let cache = world.sandbox.download_cache(Sample::Buildout).unwrap();
    world.sandbox.venv(&cache).unwrap();
    let world = world
        .config("cache = { path = \"<tmp>/download-cache\" }\nbuild = { recipe = \"buildout\", venv = \"<tmp>/venv\", on = \"first\" }\n");
    world.deploy("v1");
    assert_eq!(tree(&world, "app1"), tree(&world, "app2"));
    // Its eggs came along, and nothing of it is looked for elsewhere.
    assert!(world.current("app2").join("eggs").is_dir());
    let said = world.deployer(["run", "-H", "app2", "--raw", "--", "unshare --map-root-user --net $DEPLOYER_CURRENT/bin/boskel"]);
    assert!(said.stdout.contains("boskel  1.0.0"), "{said}");
}
