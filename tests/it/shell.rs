//! The rest of the command line: help, completions and the demo.

use deployer::exit::Exit;

use crate::harness::World;

#[test]
fn completions_are_scripts_that_their_shells_can_read() {
    let world = World::new();
    let run = world.deployer(["completions", "bash"]);
    run.ok();
    assert!(run.stderr.is_empty() && run.stdout.contains("complete -F _deployer"), "{run}");
    world.deployer(["completions", "klingon"]).exits(Exit::Usage);
}

#[test]
fn every_verb_has_help_and_the_program_its_version() {
    let world = World::new();
    for verb in
        ["deploy", "plan", "rollback", "status", "releases", "logs", "run", "setup", "prune", "doctor", "config", "demo", "completions"]
    {
        let run = world.deployer([verb, "--help"]);
        run.ok();
        assert!(run.stderr.is_empty() && run.stdout.contains("Usage: deployer"), "{verb}: {run}");
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
    let left = std::fs::read_dir(world.path(""))
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("deployer-sandbox-"));
    assert_eq!(left.count(), 0);
}
