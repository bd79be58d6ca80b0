//! What a deploy does to hosts and says about it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{World, snapshot};

#[test]
fn a_first_deploy_makes_the_layout_and_a_second_sends_only_what_changed() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    world.commit(&[("greeting", "hello\n"), ("bin/greet", "#!/bin/sh\ncat greeting\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  8529f5a master "Change what there is" (Ada, <ago>)
[<t>] export  2 files, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  nothing..8529f5a
[<t>] release  <release>
[<t>] push  2/2 <size> sent per host
[<t>] link  2/2
[<t>] activate  2/2  current → <release>
[<t>] prune  2/2  kept 1, removed 0

Deployed 8529f5a to prod: 2 hosts in <t> (was nothing)

"#]],
    );
    assert_eq!(world.read_current("app2", "greeting"), "hello\n");
    world.commit(&[("greeting", "good morning\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  881a337 master "Change what there is" (Ada, <ago>)
[<t>] export  2 files, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  8529f5a..881a337 · 1 commit, 1 file
[<t>] release  <release>
[<t>] push  2/2 <size> sent per host, 63% already there
[<t>] link  2/2
[<t>] activate  2/2  current → <release>
[<t>] prune  2/2  kept 2, removed 0

Deployed 881a337 to prod: 2 hosts in <t> (was 8529f5a)
  undo  deployer rollback -e prod

"#]],
    );
    assert_eq!(world.read_current("app1", "greeting"), "good morning\n");
    assert_eq!(world.releases("app1").len(), 2);
}

#[test]
fn a_deploy_over_ssh_is_the_same_with_both_clients() {
    for session in ["ssh2", "openssh"] {
        let world = World::new().ssh_hosts(session, &["app1", "app2"]);
        world.commit(&[("greeting", "hello\n")]);
        world.deployer(["deploy", "--rev", "master"]).is(
            Exit::Ok,
            str![""],
            str![[r#"
boskel → prod · 2 hosts
[<t>] rev  d1809cb master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  nothing..d1809cb
[<t>] release  <release>
[<t>] push  2/2 <size> sent per host
[<t>] link  2/2
[<t>] activate  2/2  current → <release>
[<t>] prune  2/2  kept 1, removed 0

Deployed d1809cb to prod: 2 hosts in <t> (was nothing)

"#]],
        );
        assert_eq!(world.read_current("app2", "greeting"), "hello\n");
    }
}

/// The bytes that each host was sent in a run.
fn sent(events: &[serde_json::Value]) -> Vec<u64> {
    events.iter().filter(|event| event["step"] == "push").filter_map(|event| event["sent_bytes"].as_u64()).collect()
}

#[test]
fn a_change_of_one_line_sends_little() {
    let world = World::new().local_hosts(&["app1"]);
    // Text that no compressor makes small.
    let noise = (0..20_000_u64).fold(String::new(), |text, n| text + &format!("{:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    world.commit(&[("noise", &noise), ("greeting", "hello\n")]);
    let (_, first) = world.events(["deploy", "--rev", "master"]);
    world.commit(&[("greeting", "good morning\n")]);
    let (_, second) = world.events(["deploy", "--rev", "master"]);
    assert!(sent(&first)[0] > 100_000, "{:?}", sent(&first));
    assert!(sent(&second)[0] < 4096, "{:?}", sent(&second));
    assert_eq!(world.read_current("app1", "noise"), noise);
}

#[test]
fn the_same_revision_again_says_so_and_changes_nothing_unless_forced() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("greeting", "hello\n")]);
    world.deploy("master");
    let (before, live) = (snapshot(&world.root("app1").join("releases")), world.live("app1"));
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  d1809cb master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1

prod is at d1809cb on 1/1 host; nothing to do. (deploy --force rebuilds)

"#]],
    );
    assert_eq!(snapshot(&world.root("app1").join("releases")), before);
    world.deployer(["deploy", "--rev", "master", "--force"]).ok();
    assert_ne!(world.live("app1"), live);
    assert_eq!(world.releases("app1").len(), 2);
}

#[test]
fn a_default_environment_is_deployed_to_without_being_named() {
    let mut world = World::new().local_hosts(&["app1"]);
    world.commit(&[("greeting", "hello\n")]);
    world.reconfigure("[env.other]\nhosts = [\"other.invalid\"]\n");
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Usage,
        str![""],
        str![[r"
error: which environment? there are other, prod
  hint: add `-e other`
  hint: or set `env` in [defaults] of deploy.toml

"]],
    );
    world.reconfigure("env = \"prod\"\n[env.other]\nhosts = [\"other.invalid\"]\n");
    world.deploy("master");
    assert_eq!(world.read_current("app1", "greeting"), "hello\n");
}

#[test]
fn a_directory_is_deployed_instead_of_a_revision() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("greeting", "hello\n")]);
    let built = world.path("dist");
    fs::create_dir_all(built.join("static")).unwrap();
    fs::write(built.join("static/app.js"), "run()\n").unwrap();
    world.deployer([std::ffi::OsStr::new("deploy"), "--tree".as_ref(), built.as_os_str()]).is(
        Exit::Ok,
        str![""],
        str![[r"
boskel → prod · 1 host
[<t>] tree  <tmp>/dist
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..tree-dd29d1f
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] activate  1/1  current → <release>
[<t>] prune  1/1  kept 1, removed 0

Deployed tree-dd29d1f to prod: 1 host in <t> (was nothing)

"]],
    );
    assert_eq!(world.read_current("app1", "static/app.js"), "run()\n");
    assert!(!world.current("app1").join("greeting").exists());
}

#[test]
fn a_revision_that_is_not_the_expected_one_is_refused() {
    let world = World::new().local_hosts(&["app1"]);
    let first = world.commit(&[("greeting", "hello\n")]);
    let second = world.commit(&[("greeting", "good morning\n")]);
    world.deployer(["deploy", "--rev", "master", "--expect", &first]).is(
        Exit::Refused,
        str![""],
        str![[r"
boskel → prod · 1 host
[<t>] connect  1/1

error: `master` is 67c9b30cb9ce57cc22e46bb26665c431a80f9411, not d1809cbc256d67480e844540f76744ab01dbec9a as expected
  hint: someone moved it: look at what it is now, then say which you mean

prod still runs nothing on 1/1 host.

"]],
    );
    assert!(world.releases("app1").is_empty());
    world.deployer(["deploy", "--rev", "master", "--expect", &second]).ok();
}

#[test]
fn an_unknown_revision_is_told_with_what_there_is() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("greeting", "hello\n")]);
    world.deployer(["deploy", "--rev", "mastre"]).is(
        Exit::Config,
        str![""],
        str![[r"
boskel → prod · 1 host
[<t>] connect  1/1

error: no revision `mastre` in <tmp>/boskel
  hint: did you mean `master`?
  hint: there is the branch `master`

prod still runs nothing on 1/1 host.

"]],
    );
    world.deployer(["deploy", "--rev", "0123456789012345678901234567890123456789"]).is(
        Exit::Config,
        str![""],
        str![[r"
boskel → prod · 1 host
[<t>] connect  1/1

error: no revision `0123456789012345678901234567890123456789` in <tmp>/boskel
  hint: there is the branch `master`

prod still runs nothing on 1/1 host.

"]],
    );
    world.deployer(["deploy", "--rev", "$(touch /tmp/x)"]).exits(Exit::Config);
    world.deployer(["deploy", "--rev=--upload-pack=x"]).exits(Exit::Config);
    assert!(world.releases("app1").is_empty());
}

#[test]
fn unchanged_files_keep_their_time_and_revision_names_the_commit() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("same", "same\n"), ("other", "one\n")]);
    world.deploy("master");
    let time = |path: &str| fs::metadata(world.current("app1").join(path)).unwrap().mtime();
    let (same, other) = (time("same"), time("other"));
    let commit = world.commit(&[("other", "two\n")]);
    world.deploy("master");
    assert_eq!(time("same"), same);
    assert_ne!(time("other"), other);
    assert_eq!(world.read_current("app1", "REVISION").trim(), commit);
    world.commit(&[("REVISION", "mine\n")]);
    world.deploy("master");
    assert_eq!(world.read_current("app1", "REVISION"), "mine\n");
}

#[test]
fn modes_do_not_depend_on_a_umask() {
    let modes = ["077", "000"].map(|umask| {
        let world = World::new().local_hosts(&["app1"]).config("[defaults.shared]\ndirs = [\"var\"]\n");
        world.commit(&[("bin/run", "#!/bin/sh\n"), ("text", "text\n")]);
        fs::set_permissions(world.repository.directory.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
        world.commit(&[("text", "more\n")]);
        for arguments in [&["setup"][..], &["deploy", "--rev", "master"]] {
            world.run(&mut world.shell(&format!("umask {umask}; exec \"$@\""), arguments)).ok();
        }
        let root = world.root("app1").to_owned();
        let release = format!("releases/{}", world.live("app1"));
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
        let paths = [".", "releases", "shared", "shared/var", ".deployer", &release].map(mode);
        let files = ["bin", "bin/run", "text"].map(|path| mode(&format!("{release}/{path}")));
        (paths, files)
    });
    assert_eq!(modes[0], modes[1]);
    let (paths, files) = modes[0];
    assert_eq!(paths.map(|mode| format!("{mode:o}")), ["755", "755", "755", "755", "700", "755"]);
    assert_eq!(files.map(|mode| format!("{mode:o}")), ["755", "755", "644"]);
}

#[test]
fn shared_directories_and_files_are_linked_and_every_missing_file_is_named() {
    let world = World::new().local_hosts(&["app1"]).config("[defaults.shared]\ndirs = [\"var\"]\nfiles = [\"etc/a.cfg\", \"etc/b.cfg\"]\n");
    world.commit(&[("greeting", "hello\n")]);
    world.deployer(["setup"]).is(
        Exit::Refused,
        str![""],
        str![[r"
boskel → prod · setup · 1 host
[<t>] connect  1/1
[<t>] setup  1/1  make `<tmp>/srv/app1/boskel/shared/var`; make `<tmp>/srv/app1/boskel/shared/etc`

error: shared files are missing: put each where it belongs, once
  app1 | <tmp>/srv/app1/boskel/shared/etc/a.cfg
  app1 | <tmp>/srv/app1/boskel/shared/etc/b.cfg
  hint: then again: deployer setup -e prod

prod still runs nothing on 1/1 host.

"]],
    );
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  d1809cb master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..d1809cb
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] ✗ app1 link failed after <t>: 2 of 2 shared files missing: `shared/etc/a.cfg`, `shared/etc/b.cfg`
[<t>] ✗ link  0/1  1 failed: app1

✗ app1 · link · failed after <t>
  reason: 2 of 2 shared files missing: `shared/etc/a.cfg`, `shared/etc/b.cfg`
  hint: put them below `<tmp>/srv/app1/boskel/shared` on the host

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  retry  deployer deploy -e prod --rev master

"#]],
    );
    assert!(!world.current("app1").exists());
    for name in ["a.cfg", "b.cfg"] {
        fs::write(world.root("app1").join("shared/etc").join(name), name).unwrap();
    }
    world.deploy("master");
    fs::write(world.root("app1").join("shared/var/kept"), "kept\n").unwrap();
    assert_eq!(world.read_current("app1", "etc/b.cfg"), "b.cfg");
    world.commit(&[("greeting", "good morning\n")]);
    world.deploy("master");
    assert_eq!(world.read_current("app1", "var/kept"), "kept\n");
}

#[test]
fn a_download_cache_that_cannot_be_linked_stops_the_deploy_before_the_build() {
    let build = "[defaults.cache]\npath = \"<tmp>/cache\"\nlink = \"downloads\"\n[defaults.build]\ncommand = \"touch <tmp>/built; ls downloads > list\"\n";
    let world = World::new().local_hosts(&["app1"]);
    let directory = world.path("cache");
    let world = world.config(&build.replace("<tmp>/cache", directory.with_file_name("packages").to_str().unwrap()));
    let cache = world.path("packages");
    world.commit(&[("greeting", "hello\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  d1809cb master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..d1809cb
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] ✗ app1 link failed after <t>: the download cache `<tmp>/packages` does not exist
[<t>] ✗ link  0/1  1 failed: app1

✗ app1 · link · failed after <t>
  reason: the download cache `<tmp>/packages` does not exist
  hint: make it and fill it on the host, or change `cache.path`

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  retry  deployer deploy -e prod --rev master

"#]],
    );
    std::os::unix::fs::symlink("nowhere", &cache).unwrap();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  d1809cb master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..d1809cb
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host, 100% already there
[<t>] ✗ app1 link failed after <t>: the download cache `<tmp>/packages` leads to `nowhere`, which does not exist
[<t>] ✗ link  0/1  1 failed: app1

✗ app1 · link · failed after <t>
  reason: the download cache `<tmp>/packages` leads to `nowhere`, which does not exist
  hint: on that host, make what it leads to: `mkdir -p <tmp>/nowhere`; or remove the link: `rm <tmp>/packages`

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  retry  deployer deploy -e prod --rev master

"#]],
    );
    assert!(!world.path("built").exists());
    fs::remove_file(&cache).unwrap();
    fs::create_dir(&cache).unwrap();
    fs::write(cache.join("lxml-5.3.1.tar.gz"), "").unwrap();
    world.deploy("master");
    assert_eq!(world.read_current("app1", "list"), "lxml-5.3.1.tar.gz\n");
    fs::remove_file(world.path("built")).unwrap();
    world.commit(&[("downloads/tracked", "in the way\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  629db19 master "Change what there is" (Ada, <ago>)
[<t>] export  2 files, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  d1809cb..629db19 · 1 commit, 1 file
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host, 35% already there
[<t>] ✗ app1 link failed after <t>: `releases/<release>/downloads` is a directory that the revision tracks, where a link must go
[<t>] ✗ link  0/1  1 failed: app1

✗ app1 · link · failed after <t>
  reason: `releases/<release>/downloads` is a directory that the revision tracks, where a link must go
  hint: remove it from the revision, or set `replace = true`

Not deployed. Nothing was activated: prod still runs d1809cb on 1/1 host.
  retry  deployer deploy -e prod --rev master

"#]],
    );
    assert!(!world.path("built").exists());
}
