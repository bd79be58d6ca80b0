//! Names that hurt: of files, of links, of revisions. They arrive to the byte, they reach no terminal raw, and nothing follows them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use deployer::exit::Exit;

use crate::harness::World;
use crate::scratch::git_in;

fn hostile() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "new\nline",
        "-rf",
        "--help",
        " leading",
        "trailing ",
        "*",
        "~",
        "$(id)",
        "`id`",
        "a'b",
        "a\"b",
        "a\\b",
        "esc\u{1b}[31mred",
        "bell\u{7}",
        "emoji🎉",
        "mark\u{202e}txt",
        "%s%n",
        "tab\there",
        "cr\rover",
        "{root}",
        "c1\u{9b}31m",
        "#",
        "!",
        "&",
        ";",
        "|",
        "con",
        "a:b",
        "é",
        ".hidden",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(b"not\xff\xfeutf8".to_vec());
    names.push(vec![b'x'; 255]);
    names.push([vec![b'd'; 200], b"/".to_vec(), vec![b'e'; 255]].concat());
    names.push(vec![&b"deep"[..]; 120].join(&b'/'));
    names.push(b"dir\n/-x/$(id)/\xff".to_vec());
    names
}

fn path(name: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(name.to_vec()))
}

fn commit_all(world: &World) {
    let directory = &world.repository.directory;
    git_in(directory, ["-c", "core.quotePath=false", "add", "-A"], b"");
    git_in(directory, ["commit", "-q", "-m", "All that hurts"], b"");
}

fn one_host() -> World {
    let world = World::new().local_hosts(&["app1"]);
    fs::create_dir_all(world.root("app1")).unwrap();
    world
}

/// Nothing but printable text and line ends: what a terminal acts on must not come from a tree or a host.
#[track_caller]
fn assert_harmless(what: &str, output: &[u8]) {
    let text = std::str::from_utf8(output).unwrap_or_else(|error| panic!("{what}: {error}: {}", String::from_utf8_lossy(output)));
    let raw = text.chars().find(|c| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c));
    assert_eq!(raw, None, "{what}: {text:?}");
}

#[test]
fn a_tree_of_hostile_names_arrives_to_the_byte_and_no_output_carries_one_raw() {
    let world = one_host();
    for (number, name) in hostile().iter().enumerate() {
        let file = world.repository.directory.join(path(name));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("content {number}\n")).unwrap();
    }
    commit_all(&world);
    let harmless = |arguments: &[&str], status: i32| {
        let output = world.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_harmless(&format!("{arguments:?}"), &output.stdout);
        assert_harmless(&format!("{arguments:?}"), &output.stderr);
    };
    harmless(&["plan", "--rev", "master"], 0);
    harmless(&["-vvv", "deploy", "--rev", "master"], 0);
    let release = world.current("app1");
    for (number, name) in hostile().iter().enumerate() {
        let content = fs::read(release.join(path(name))).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(name)));
        assert_eq!(content, format!("content {number}\n").into_bytes());
    }
    harmless(&["status", "--verify", "--exit-code"], 0);
    for name in hostile() {
        fs::write(release.join(path(&name)), "altered\n").unwrap();
    }
    harmless(&["status", "--verify", "--exit-code"], 20);
    harmless(&["status", "--verify", "--json"], 0);
    harmless(&["releases"], 0);
    harmless(&["doctor"], 0);
    harmless(&["logs"], 0);
}

#[test]
fn a_path_in_the_way_is_named_escaped() {
    let mut world = one_host();
    fs::create_dir(world.repository.directory.join("var")).unwrap();
    fs::write(world.repository.directory.join("var/esc\u{1b}[31m\n"), "tracked\n").unwrap();
    commit_all(&world);
    world.reconfigure("shared = { dirs = [\"var\"] }\n");
    let output = world.command(["deploy", "--rev", "master"]).output().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(Exit::BuildFailed.code())));
    assert_harmless("a tracked path that is shared too", &output.stderr);
    assert!(String::from_utf8_lossy(&output.stderr).contains("var"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn links_that_leave_the_tree_are_kept_warned_of_and_never_followed() {
    let world = one_host();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "safe\n").unwrap();
    let directory = &world.repository.directory;
    let links = [
        ("absolute", outside.clone()),
        ("up", PathBuf::from("../../../../../../outside")),
        ("loop", PathBuf::from("loop")),
        ("control", PathBuf::from("../../.deployer")),
    ];
    for (name, target) in &links {
        symlink(target, directory.join(name)).unwrap();
    }
    fs::write(directory.join("app"), "one\n").unwrap();
    commit_all(&world);
    let deployed = world.deployer(["deploy", "--rev", "master"]);
    deployed.ok();
    assert!(deployed.stderr.contains("absolute") && deployed.stderr.contains("up"), "{deployed}");
    for (name, target) in &links {
        assert_eq!(fs::read_link(world.current("app1").join(name)).unwrap(), *target);
    }
    // The link becomes a directory with a file beneath: the next release must not write through the old link.
    fs::remove_file(directory.join("absolute")).unwrap();
    fs::create_dir(directory.join("absolute")).unwrap();
    fs::write(directory.join("absolute/canary"), "written through\n").unwrap();
    commit_all(&world);
    world.deployer(["deploy", "--rev", "master"]).ok();
    world.deployer(["status", "--verify", "--exit-code"]).ok();
    assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "safe\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn names_that_fold_to_one_are_warned_of_and_both_arrive() {
    let world = one_host();
    for name in ["Readme", "README", "dir/caf\u{e9}", "dir/cafe\u{301}"] {
        let file = world.repository.directory.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, name).unwrap();
    }
    commit_all(&world);
    let deployed = world.deployer(["deploy", "--rev", "master"]);
    deployed.ok();
    assert!(deployed.stderr.to_lowercase().contains("readme"), "{deployed}");
    for name in ["Readme", "README", "dir/caf\u{e9}", "dir/cafe\u{301}"] {
        assert_eq!(world.read_current("app1", name), name);
    }
}

#[test]
fn trees_that_git_itself_would_not_check_out_are_refused_before_a_byte_is_sent() {
    let world = one_host();
    let directory = &world.repository.directory;
    let git = |arguments: &[&str], input: &[u8]| String::from_utf8(git_in(directory, arguments, input)).unwrap().trim().to_owned();
    let blob = git(&["hash-object", "-w", "--stdin"], b"x");
    for name in [".git", ".GIT", ".Git", "git~1", "GIT~2", "..", "."] {
        let raw = [format!("100644 {name}\0").as_bytes(), &bytes_of(&blob)].concat();
        let tree = git(&["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &raw);
        let commit = git(&["commit-tree", "-m", "hostile", &tree], b"");
        let refused = world.deployer(["deploy", "--rev", &commit]);
        refused.exits(Exit::Refused);
        assert!(world.releases("app1").is_empty(), "{name}: {refused}");
    }
    // A link and a directory of one name: git lists and archives it.
    let link =
        [b"120000 d\0".as_slice(), &bytes_of(&blob), b"40000 d\0", &bytes_of(&git(&["hash-object", "-t", "tree", "-w", "--stdin"], b""))]
            .concat();
    let tree = git(&["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &link);
    let commit = git(&["commit-tree", "-m", "hostile", &tree], b"");
    world.deployer(["deploy", "--rev", &commit]).exits(Exit::Refused);
    assert!(world.releases("app1").is_empty());
}

fn bytes_of(id: &str) -> Vec<u8> {
    (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn hostile_revisions_are_told_as_unknown_and_run_nothing() {
    let world = one_host();
    world.commit(&[("app", "one\n")]);
    let canary = world.path("canary");
    let touch = format!("touch {}", canary.display());
    let revisions: Vec<OsString> = [
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("; {touch}"),
        format!("| {touch}"),
        format!("--upload-pack={touch}"),
        format!("--output={}", canary.display()),
        format!("ext::sh -c '{touch}'"),
        "a\nb".into(),
        "a\u{1b}[31m".into(),
        "..".into(),
        "master..master".into(),
        "@{-1}".into(),
        "HEAD~999".into(),
        ":/".into(),
        ":app".into(),
        "master:app".into(),
        "refs/../x".into(),
        " ".into(),
        "*".into(),
        "x".repeat(5000),
        "../../etc/passwd".into(),
        "^master".into(),
        "{root}".into(),
    ]
    .into_iter()
    .map(OsString::from)
    .chain([OsStr::from_bytes(b"\xff\xfe").to_owned()])
    .collect();
    for revision in revisions {
        let mut argument = OsString::from("--rev=");
        argument.push(&revision);
        let output = world.command([OsStr::new("deploy"), &argument]).output().unwrap();
        assert!(
            matches!(output.status.code(), Some(2 | 3)),
            "{revision:?}: {:?} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        assert_harmless(&format!("{revision:?}"), &output.stderr);
        assert!(!canary.exists(), "{revision:?}");
    }
    assert!(world.releases("app1").is_empty());
}
