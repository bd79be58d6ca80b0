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

#[test]
fn the_demo_goes_through_the_whole_cycle_and_leaves_nothing_behind() {
    let world = World::new();
    // Without a package index the sample is the one that needs nothing.
    let run = world.run(world.command(["demo"]).env("PIP_INDEX_URL", "http://127.0.0.1:9/"));
    run.ok();
    for part in [
        "a project that a shell script builds",
        "Version 1 to staging.",
        "boskel 2.0.0",
        "boskel 1.0.0",
        "Rolled back prod to",
        "That was the whole cycle.",
    ] {
        assert!(format!("{}{}", run.stdout, run.stderr).contains(part), "{part}: {run}");
    }
    let left = fs::read_dir(world.path(""))
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("deployer-sandbox-"));
    assert_eq!(left.count(), 0);
}
