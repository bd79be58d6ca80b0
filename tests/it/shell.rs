//! The rest of the command line: help, completions and the demo.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory as _;
use deployer::cli::Cli;
use deployer::exit::Exit;
use deployer::sandbox::skip;

use crate::harness::World;

#[test]
fn completions_are_scripts_that_their_shells_can_read() {
    let world = World::new();
    for shell in ["bash", "fish", "zsh"] {
        let run = world.deployer(["completions", shell]);
        run.ok();
        assert!(run.stderr.is_empty() && run.stdout.contains("deployer"), "{run}");
        let script = world.path(format!("completions.{shell}"));
        fs::write(&script, &run.stdout).unwrap();
        let parse = |script: &Path| Command::new(shell).arg("-n").arg(script).stdin(Stdio::null()).output();
        match parse(&script) {
            Err(error) if error.kind() == ErrorKind::NotFound => skip(&format!("there is no `{shell}`")),
            parsed => {
                let parsed = parsed.unwrap();
                assert!(parsed.status.success() && parsed.stderr.is_empty(), "{shell}: {parsed:?}");
                fs::write(&script, run.stdout + "\nif (\n").unwrap();
                assert!(!parse(&script).unwrap().status.success(), "the control: {shell} tells what it cannot read");
            }
        }
    }
    world.deployer(["completions", "klingon"]).exits(Exit::Usage);
}

#[test]
fn every_verb_has_help_and_the_program_its_version() {
    let world = World::new();
    let program = Cli::command();
    let overview = world.deployer(["--help"]);
    overview.ok();
    let verbs: Vec<&str> = program.get_subcommands().filter(|verb| !verb.is_hide_set()).map(clap::Command::get_name).collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let run = world.deployer([verb, "--help"]);
        run.ok();
        let usage = format!("Usage: deployer {verb}");
        assert!(run.stderr.is_empty() && run.stdout.contains(&usage), "{verb}: {run}");
        assert!(overview.stdout.split_whitespace().any(|word| word == verb), "{verb} is not in {overview}");
    }
    let run = world.deployer(["--version"]);
    assert_eq!(run.stdout, format!("deployer {}\n", env!("CARGO_PKG_VERSION")));
}

/// Plays the demo to its end and gives all that it said. Nothing of it may be left.
fn demo(world: &World, command: &mut Command) -> String {
    let run = world.run(command);
    run.ok();
    let left = fs::read_dir(world.path(""))
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("deployer-sandbox-"));
    assert_eq!(left.count(), 0);
    format!("{}{}", run.stdout, run.stderr)
}

#[track_caller]
fn says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// What is part of every demo.
const CYCLE: [&str; 10] = [
    "$ deployer cache fill -H stg2 --rev v1\n",
    ", proven by a build, in ",
    "staging is ready: 2 hosts",
    "prod is ready: 2 hosts",
    " missing: ",
    "Version 1 to staging.",
    "staging still runs ",
    "$ deployer run -e prod -H app01 --raw -- '$DEPLOYER_CURRENT/bin/boskel --version'\nboskel 2.0.0\n",
    "Rolled back prod to",
    "That was the whole cycle.",
];
/// What needs hosts that have their path in common.
const ONCE: [&str; 4] =
    ["$ deployer deploy -e prod --from staging\n", "as staging confirmed it, taken from stg1", " from stg1, ", "once on stg1, for all"];

#[test]
fn the_demo_goes_through_the_whole_cycle_and_leaves_nothing_behind() {
    let world = World::new();
    // Without a package index the sample is the one that needs nothing.
    let told = demo(&world, world.command(["demo"]).env("PIP_INDEX_URL", "http://127.0.0.1:9/"));
    says(&told, &CYCLE);
    says(&told, &["a project that a shell script builds", "boskel 2.0.0", "boskel 1.0.0", "left out  the package index"]);
    assert!(!told.contains("-e dev"), "{told}");
    match world.sandbox.mount_namespaces() {
        Ok(()) => {
            says(&told, &ONCE);
            says(&told, &["cache  1/1  1 file"]);
        }
        Err(why) => skip(&format!("no mount namespace: {why}")),
    }
}

#[test]
fn the_demo_says_what_it_leaves_out_where_hosts_have_no_path_in_common() {
    let world = World::new();
    world.program("unshare", "echo 'unshare: not permitted' >&2\nexit 1\n");
    let told = demo(&world, world.command(["demo"]).env("PIP_INDEX_URL", "http://127.0.0.1:9/"));
    says(&told, &CYCLE);
    says(
        &told,
        &["left out  building once, and promotion: hosts have no path in common here: ", "unshare: not permitted", "cache  2/2  1 file"],
    );
    assert!(!told.contains("--from") && !told.contains("once on"), "{told}");
}

#[test]
fn the_demo_builds_a_buildout_and_lets_a_host_without_internet_reach_the_package_index() {
    let world = World::new().patient();
    if let Err(reason) = world.sandbox.package_index().and_then(|()| world.sandbox.mount_namespaces()) {
        return skip(&reason);
    }
    let told = demo(&world, &mut world.command(["demo"]));
    says(&told, &CYCLE);
    says(&told, &ONCE);
    says(
        &told,
        &[
            "buildout -c offline.cfg",
            "9 of 9 files missing: dist/",
            "cache  1/1  9 files",
            "Couldn't find a distribution for 'humanize==4.9.0'.",
        ],
    );
    says(&told, &["$ deployer deploy --rev v2 -e dev\n", "Looking in indexes: http://127.0.0.1:", "Successfully installed tabulate-0.9.0"]);
}
