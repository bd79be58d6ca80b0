//! Download caches: filled on a builder, compared, completed by `cache push` and by a deploy; what is wrong with one is said before a build.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{World, snapshot};

/// A project whose fill fetches from a directory, and whose build needs what was fetched.
const FETCH: &str = "for name in $(cat Gemfile.lock); do cp \"$INDEX/$name\" \"$DEPLOYER_CACHE/\"; done\n";
const BUILD: &str =
    "for name in $(cat Gemfile.lock); do cat \"$DEPLOYER_CACHE/$name\"; done > built\necho kept > \"$DEPLOYER_SCRATCH/file\"\n";

/// Hosts with a cache of its own each, and an index that has everything.
fn world(hosts: &[&str]) -> World {
    let world = World::new().local_hosts(hosts).own_caches();
    fs::create_dir(world.path("index")).unwrap();
    for (name, text) in [("one.gem", "one\n"), ("two.gem", "two\n"), ("three.gem", "three\n")] {
        fs::write(world.path("index").join(name), text).unwrap();
    }
    for host in hosts {
        fs::create_dir(world.cache(host)).unwrap();
    }
    let world = world.config(
        "[defaults.cache]\npath = \"/nonexistent\"\nfill = \"mkdir -p $DEPLOYER_CACHE; sh fetch.sh\"\nenv = { INDEX = \"<tmp>/index\" }\n\
         [defaults.build]\ncommand = \"sh build.sh\"\n",
    );
    world.commit(&[("fetch.sh", FETCH), ("build.sh", BUILD), ("Gemfile.lock", "one.gem two.gem\n")]);
    world
}

/// The files that sets of a host's cache consist of, without the directory that is named after the set.
fn files(world: &World, host: &str) -> Vec<String> {
    let sets = fs::read_dir(world.cache(host).join("sets")).into_iter().flatten();
    let files = sets.flat_map(|set| fs::read_dir(set.unwrap().path()).unwrap());
    let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A set's directory bears the start of its key.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("sets/") {
        let after = &rest[at + 5..];
        let key = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        out += &rest[..at + 5];
        out += if key == 16 { "<set>" } else { &after[..key] };
        rest = &after[key..];
    }
    out + rest
}

#[test]
fn a_fill_on_the_first_host_is_proven_pushed_to_the_others_and_every_cache_is_told() {
    let world = world(&["app1", "app2", "app3"]);
    let run = world.deployer(["cache", "status", "--rev", "master"]);
    run.exits(Exit::Refused);
    assert!(run.stderr.contains("is not known here, nor on any host"), "{run}");
    assert!(run.stderr.contains("hint: deployer cache fill -e prod --rev master"), "{run}");

    world.deployer(["cache", "fill", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · cache fill · 1 host
[<t>] rev  [..] master "Change what there is" (Ada, <ago>)
[<t>] export  3 files, <size>
[<t>] connect  3/3
[<t>] fill  1/1  2 files, <size>

Filled for [..]: 2 files, <size>, proven by a build, in <t>
  push  deployer cache push -e prod --rev master

"#]],
    );
    assert_eq!(files(&world, "app1"), ["one.gem", "two.gem"]);
    assert!(files(&world, "app2").is_empty());
    assert!(
        !world.cache("app1").join(".deployer").read_dir().unwrap().any(|entry| entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("fill"))
    );

    let status = world.deployer(["cache", "status", "--rev", "master", "--exit-code"]);
    snapbox::assert_data_eq!(
        plain(&status.stdout),
        str![[r"
boskel → prod · [..] (master) needs 2 files, <size> in /nonexistent
  filled on app1 by ada@<here>, <ago>, for x86_64-linux, proven by a build
  HOSTS  CACHE
  app1  complete
  app[2-3]  2 of 2 files missing: sets/<set>/one.gem, sets/<set>/two.gem
  Fix: deployer cache push -e prod --rev master -H app[2-3]

"]]
    );
    status.exits(Exit::Pending);

    // Another machine of ours knows nothing, and asks the hosts.
    fs::remove_dir_all(world.path("cache/deployer/shelf")).unwrap();
    world.deployer(["cache", "push", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · cache push · 3 hosts
[<t>] rev  [..] master "Change what there is" (Ada, <ago>)
[<t>] export  3 files, <size>
[<t>] connect  3/3
[<t>] cache  3/3  [..]

3 caches complete for [..]: 2 files each
  deploy  deployer deploy -e prod --rev master

"#]],
    );
    assert_eq!(files(&world, "app3"), ["one.gem", "two.gem"]);
    let before = snapshot(&world.cache("app3"));
    world.deployer(["cache", "push", "--rev", "master"]).ok();
    assert_eq!(snapshot(&world.cache("app3")), before);
    world.deployer(["cache", "status", "--rev", "master", "--exit-code"]).exits(Exit::Ok);
}

#[test]
fn a_deploy_completes_caches_by_itself_and_a_build_leaves_nothing_beside_its_release() {
    let world = world(&["app1", "app2"]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    let plan = world.deployer(["plan", "--rev", "master"]);
    assert!(plan.stdout.contains("2 of 2 files missing"), "{plan}");
    assert!(!plan.stdout.contains("would stop"), "{plan}");
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("cache  2/2"), "{run}");
    assert_eq!(world.read_current("app2", "built"), "one\ntwo\n");
    assert!(fs::read_dir(world.root("app2").join(".deployer/tmp")).unwrap().next().is_none());
}

#[test]
fn what_nobody_has_stops_a_plan_and_a_deploy_before_anything_is_built() {
    let world = world(&["app1", "app2"]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    fs::remove_dir_all(world.path("cache/deployer/shelf/content")).unwrap();
    for set in fs::read_dir(world.cache("app1").join("sets")).unwrap() {
        fs::remove_file(set.unwrap().path().join("two.gem")).unwrap();
    }
    let plan = world.deployer(["plan", "--rev", "master", "--exit-code"]);
    plan.exits(Exit::Pending);
    assert!(plan.stdout.contains("would stop: app1: 1 of 2 files missing: sets/"), "{plan}");
    assert!(plan.stdout.contains("and nobody here has them. Fix: deployer cache fill -e prod"), "{plan}");
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("app1 cache failed"), "{run}");
    assert!(run.stderr.contains("missing in the cache, `sets/"), "{run}");
    assert!(run.stderr.contains("hint: deployer cache fill -e prod"), "{run}");
    assert!(!run.stderr.contains("build"), "{run}");
}

#[test]
fn a_damaged_file_is_found_and_replaced() {
    let world = world(&["app1"]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    let set = fs::read_dir(world.cache("app1").join("sets")).unwrap().next().unwrap().unwrap().path();
    fs::write(set.join("one.gem"), "ONE\n").unwrap();
    let status = world.deployer(["cache", "status", "--rev", "master"]);
    assert!(status.stdout.contains("1 of 2 files damaged: sets/"), "{status}");
    world.deployer(["cache", "push", "--rev", "master"]).ok();
    assert_eq!(fs::read_to_string(set.join("one.gem")).unwrap(), "one\n");
}

#[test]
fn a_file_that_another_revision_needs_is_not_replaced_by_one_of_the_same_name() {
    let mut world = world(&["app1"]);
    // A flat cache, as that of Python projects is, is shared by all revisions.
    let fill = "[defaults.cache]\npath = \"/nonexistent\"\nenv = { INDEX = \"<tmp>/index\" }\nfill = \"mkdir -p $DEPLOYER_CACHE; cp $INDEX/* $DEPLOYER_CACHE/\"\n";
    world.reconfigure(&format!("{fill}[defaults.build]\nrecipe = \"pip\"\nenv = {{ PATH = \"<tmp>/bin:/usr/bin:/bin\" }}\n"));
    world.program("python3", "mkdir -p venv/bin\nprintf '#!/bin/sh\\n' > venv/bin/python\nchmod +x venv/bin/python\n");
    world.commit(&[("requirements.txt", "one\n")]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    fs::write(world.path("index/one.gem"), "published anew\n").unwrap();
    world.commit(&[("requirements.txt", "one\ntwo\n")]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("one.gem` has other content, and another revision needs it as it is"), "{run}");
    assert_eq!(fs::read_to_string(world.cache("app1").join("dist/one.gem")).unwrap(), "one\n");
}

#[test]
fn a_fill_that_fails_leaves_the_cache_as_it_was() {
    let world = world(&["app1"]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    let before = snapshot(&world.cache("app1").join("sets"));
    world.commit(&[("Gemfile.lock", "one.gem four.gem\n")]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("four.gem"), "{run}");
    assert!(run.stderr.contains("The cache stays as it was"), "{run}");
    assert_eq!(snapshot(&world.cache("app1").join("sets")), before);
    // What a fill leaves that is no file cannot be part of a cache: it would lead elsewhere on another host.
    world.commit(&[("Gemfile.lock", "one.gem\n"), ("fetch.sh", "ln -s /etc/passwd \"$DEPLOYER_CACHE/one.gem\"\n")]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("neither a file nor a directory"), "{run}");
    assert_eq!(snapshot(&world.cache("app1").join("sets")), before);
}

#[test]
fn a_build_that_fails_for_another_reason_proves_nothing_and_says_so() {
    let world = world(&["app1"]);
    world.commit(&[("build.sh", "echo 'no compiler' >&2\nexit 3\n")]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("the build that should prove it failed (exit 3)"), "{run}");
    assert!(run.stderr.contains("no compiler"), "{run}");
    assert!(!run.stderr.contains("proven by a build"), "{run}");
    let status = world.deployer(["cache", "status", "--rev", "master"]);
    assert!(status.stdout.contains("not proven by a build"), "{status}");
}

#[test]
fn a_cache_that_is_missing_a_dangling_link_or_not_ours_is_a_clear_error() {
    let world = world(&["app1", "app2"]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    fs::remove_dir(world.cache("app2")).unwrap();
    let told = |expected: &str| {
        let run = world.deployer(["cache", "push", "--rev", "master"]);
        run.exits(Exit::BuildFailed);
        assert!(run.stderr.contains(expected), "{run}");
    };
    told("the cache `<tmp>/caches/app2` does not exist");
    symlink("nowhere", world.cache("app2")).unwrap();
    told("the cache `<tmp>/caches/app2` leads to `nowhere`, which does not exist");
    fs::remove_file(world.cache("app2")).unwrap();
    fs::write(world.cache("app2"), "").unwrap();
    told("the cache `<tmp>/caches/app2` cannot be read: not a directory");
    fs::remove_file(world.cache("app2")).unwrap();
    if rustix::process::geteuid().is_root() {
        return deployer::sandbox::skip("root may write to the caches of others");
    }
    fs::create_dir(world.cache("app2")).unwrap();
    fs::set_permissions(world.cache("app2"), fs::Permissions::from_mode(0o555)).unwrap();
    told("may not write to it");
    fs::set_permissions(world.cache("app2"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn doctor_tells_which_caches_are_complete() {
    let world = world(&["app1", "app2"]);
    let mut world = world;
    world.reconfigure(
        "rev = \"master\"\n[defaults.cache]\npath = \"/nonexistent\"\nfill = \"mkdir -p $DEPLOYER_CACHE; sh fetch.sh\"\nenv = { INDEX = \"<tmp>/index\" }\n\
         [defaults.build]\ncommand = \"sh build.sh\"\n",
    );
    let doctor = world.deployer(["doctor"]);
    assert!(doctor.stdout.contains("needs is not known here, nor on any host. Fix: deployer cache fill -e prod"), "{doctor}");
    world.deployer(["cache", "fill"]).ok();
    let doctor = world.deployer(["doctor"]);
    assert!(
        doctor.stdout.contains("1/2 complete, 2 files each; app2 lacks 2 files. Fix: deployer cache push -e prod --rev master -H app2"),
        "{doctor}"
    );
    world.deployer(["cache", "push"]).ok();
    let doctor = world.deployer(["doctor"]);
    assert!(doctor.stdout.contains("✓ cache  2/2 complete, 2 files each\n"), "{doctor}");
}

#[test]
fn a_build_that_lacks_a_package_is_compared_with_the_caches_of_its_peers() {
    let world = World::new().local_hosts(&["app1", "app2", "app3"]).own_caches().config(
        "[defaults.cache]\npath = \"/nonexistent\"\n[defaults.build]\n\
         command = \"ls downloads/dist | grep -q lxml || { echo \\\"Error: Couldn't find a distribution for 'lxml==5.3.1'.\\\" >&2; exit 1; }\"\n",
    );
    for host in ["app1", "app2", "app3"] {
        fs::create_dir_all(world.cache(host).join("dist")).unwrap();
        fs::write(world.cache(host).join("dist/six-1.0.whl"), "").unwrap();
    }
    for host in ["app1", "app3"] {
        fs::write(world.cache(host).join("dist/lxml-5.3.1-cp311-cp311-manylinux1_x86_64.whl"), "").unwrap();
    }
    world.commit(&[("README", "\n")]);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    let end = run.stderr.split_once("\n\n").unwrap().1.to_owned();
    snapbox::assert_data_eq!(
        end,
        str![[r"
✗ app2 · build · exit 1 after <t>
  app2| Error: Couldn't find a distribution for 'lxml==5.3.1'.
  hint: the build is offline and `lxml==5.3.1` is not in the shared download cache of app2; the other 2 hosts have it (2 files there, 1 here)

Not deployed. Nothing was activated: prod still runs nothing on 3/3 hosts.
  fix  deployer cache fill -e prod --rev master
  look  deployer logs -e prod -H app2 --step build
  retry  deployer deploy -e prod --rev master
  without  deployer deploy -e prod --rev master -H '!app2'

"]]
    );
}

#[test]
fn a_revision_its_files_and_the_helpers_travel_in_one_file_to_a_site_that_reaches_nothing() {
    let world = world(&["app1"]);
    let commit = world.commit(&[("Gemfile.lock", "one.gem three.gem\n")]);
    let run = world.deployer(["cache", "export", "out.tar", "--rev", "master"]);
    run.exits(Exit::Refused);
    assert!(run.stderr.contains("hint: deployer cache fill -e prod --rev master"), "{run}");
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    let file = world.path("out.tar");
    let run = world.deployer(["cache", "export", file.to_str().unwrap(), "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(run.stdout.contains("of boskel, 2 files ("), "{run}");

    // Another controller, with nothing but its own deploy.toml; another host.
    let mut there = World::new().local_hosts(&["app9"]).own_caches();
    fs::create_dir(there.cache("app9")).unwrap();
    let settings = "[defaults.cache]\npath = \"/nonexistent\"\nfill = \"mkdir -p $DEPLOYER_CACHE; sh fetch.sh\"\n[defaults.build]\ncommand = \"sh build.sh\"\n";
    there.reconfigure(settings);
    let run = there.deployer(["cache", "import", file.to_str().unwrap()]);
    run.exits(Exit::Ok);
    assert!(run.stdout.contains("next  set `git = \"boskel.bundle\"`"), "{run}");
    let config = there.repository.directory.join("deploy.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("git = \".\"", "git = \"boskel.bundle\"")).unwrap();
    there.deployer(["cache", "push", "--rev", "master"]).ok();
    there.deployer(["deploy", "--rev", &commit]).ok();
    assert_eq!(there.read_current("app9", "built"), "one\nthree\n");

    // A file that was cut, or whose content was changed, changes nothing.
    let whole = fs::read(&file).unwrap();
    let content = whole.windows(516).position(|bytes| bytes.starts_with(b"content/") && bytes.ends_with(b"one\n")).unwrap();
    let mut changed = whole.clone();
    changed[content + 512] = b'O';
    for (bytes, why) in [(&whole[..whole.len() / 2], "it ends early"), (&changed[..], "did not arrive as it is")] {
        fs::write(&file, bytes).unwrap();
        fs::remove_dir_all(there.path("cache/deployer/shelf")).ok();
        let run = there.deployer(["cache", "import", file.to_str().unwrap()]);
        run.exits(Exit::Refused);
        assert!(run.stderr.contains(why), "{run}");
        assert!(!there.path("cache/deployer/shelf/sets").exists());
    }
}

/// A pip project, as far as its cache is concerned: it is filled with what lies in the tree.
fn python_project(hosts: &[&str]) -> World {
    let world = World::new().local_hosts(hosts).own_caches();
    for host in hosts {
        fs::create_dir(world.cache(host)).unwrap();
    }
    world.program(
        "python3",
        "case $1 in -m) mkdir -p venv/bin; printf '#!/bin/sh\\n' > venv/bin/python; chmod +x venv/bin/python ;; esac\n",
    );
    world
}

const FROM_TREE: &str = "[defaults.cache]\npath = \"/nonexistent\"\nfill = \"mkdir -p $DEPLOYER_CACHE; cp wheels/* $DEPLOYER_CACHE/\"\n\
                         [defaults.build]\nrecipe = \"pip\"\nenv = { PATH = \"<tmp>/bin:/usr/bin:/bin\" }\n";

#[test]
fn a_list_that_a_list_includes_decides_what_is_needed() {
    let world = python_project(&["app1"]).config(FROM_TREE);
    world.commit(&[("requirements.txt", "-r deps/base.txt\n"), ("deps/base.txt", "one==1\n"), ("wheels/one-1-py3-none-any.whl", "1")]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    world.deployer(["cache", "status", "--rev", "master", "--exit-code"]).exits(Exit::Ok);
    world.commit(&[("deps/base.txt", "one==2\n")]);
    let status = world.deployer(["cache", "status", "--rev", "master"]);
    status.exits(Exit::Refused);
    assert!(status.stderr.contains("is not known here, nor on any host"), "{status}");
    world.deployer(["cache", "status", "--rev", "master~1", "--exit-code"]).exits(Exit::Ok);
}

#[test]
fn hosts_that_build_in_two_ways_are_looked_at_and_completed_each_in_its_own() {
    let mut world = python_project(&["app1", "app2"]);
    let roles = "[env.prod.role.old.build]\nrecipe = \"pip\"\nconfig = \"old.txt\"\nenv = { PATH = \"<tmp>/bin:/usr/bin:/bin\" }\n";
    world.reconfigure(&format!("{FROM_TREE}{roles}"));
    let config = world.repository.directory.join("deploy.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("name = \"app2\"\n", "name = \"app2\"\nroles = [\"old\"]\n")).unwrap();
    world.commit(&[("requirements.txt", "one\n"), ("old.txt", "one\n"), ("wheels/one-1-py3-none-any.whl", "1")]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    let status = world.deployer(["cache", "status", "--rev", "master"]);
    status.exits(Exit::Refused);
    assert!(status.stdout.contains("app1  complete") && !status.stdout.contains("app2"), "{status}");
    assert!(status.stderr.contains("hint: deployer cache fill -e prod --rev master -H app2\n"), "{status}");
    world.deployer(["cache", "fill", "--rev", "master", "-H", "app2"]).ok();
    let status = world.deployer(["cache", "status", "--rev", "master", "--exit-code"]);
    status.exits(Exit::Ok);
    assert!(status.stdout.contains("app1  complete") && status.stdout.contains("app2  complete"), "{status}");
    fs::remove_file(world.cache("app2").join("dist/one-1-py3-none-any.whl")).unwrap();
    let push = world.deployer(["cache", "push", "--rev", "master"]);
    push.exits(Exit::Ok);
    assert!(push.stderr.contains("2 caches complete for") && push.stderr.contains("1 file and 1 file"), "{push}");
    assert!(world.cache("app2").join("dist/one-1-py3-none-any.whl").exists());
    let export = world.deployer(["cache", "export", "file", "--rev", "master"]);
    export.exits(Exit::Usage);
    assert!(export.stderr.contains("narrow to those of one way: `-R NAME`, or `-H NAME`"), "{export}");
}
