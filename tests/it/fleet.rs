//! Sixteen real sshds, of which some are unreachable, silent, or cannot build: what the others do, and what is told of each.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::World;
use crate::running::{Ended, Running, program};
use crate::whole::{Stage, assert_settled, live_commit, state_of};

const HOSTS: [&str; 16] = [
    "app01", "app02", "app03", "app04", "app05", "app06", "app07", "app08", "app09", "app10", "app11", "app12", "app13", "app14", "app15",
    "app16",
];
const CLOSED: &str = "app05";
const SILENT: &str = "app09";
const BROKEN: &str = "app12";

fn deploy(stage: &Stage, flags: &[&str]) -> Ended {
    let fixed = ["deploy", "--rev", "master", "--connect-timeout", "2s", "--connect-retries", "0"];
    Running::start(&stage.world, &[&fixed, flags].concat()).end()
}

fn serving(stage: &Stage, commit: &str) -> Vec<&'static str> {
    HOSTS.into_iter().filter(|host| live_commit(stage.world.root(host)) == commit).collect()
}

#[test]
fn of_sixteen_hosts_one_unreachable_one_silent_and_one_that_cannot_build_stop_the_others_only_as_far_as_was_said() {
    let stage = Stage::ssh("ssh2", &HOSTS, "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    stage.world.sandbox.host(CLOSED).unwrap().stop();
    let silent = stage.world.sandbox.host(SILENT).unwrap();
    silent.stop();
    let listener = TcpListener::bind(("127.0.0.1", silent.port)).unwrap();
    stage.mark(&format!("broken-{BROKEN}"), true);

    // Whoever cannot be reached counts as failed: nothing is begun anywhere.
    let began = Instant::now();
    let ended = deploy(&stage, &[]);
    ended.exits(10);
    assert!(began.elapsed() < Duration::from_secs(30), "the silent host is given up in time: {:?}", began.elapsed());
    assert!(ended.error().contains(CLOSED) && ended.error().contains(SILENT), "{}", ended.error());
    assert!(HOSTS.iter().all(|host| stage.world.releases(host).len() == 1), "no host was touched");
    let connected = |host: &str| {
        let of = |event: &&serde_json::Value| event["type"] == "host.step" && event["step"] == "connect" && event["host"] == host;
        ended.events.iter().find(of).unwrap()["t"].as_f64().unwrap()
    };
    let others = HOSTS.iter().filter(|host| ![CLOSED, SILENT].contains(host)).map(|host| connected(host)).fold(0.0, f64::max);
    assert!(others < connected(SILENT), "the others go on meanwhile: {others} and {}", connected(SILENT));

    // Skipped, they do not count, but the build that fails does.
    let ended = deploy(&stage, &["--on-unreachable", "skip"]);
    ended.exits(11);
    assert!(ended.error().contains(BROKEN) && ended.error().contains("nothing was activated"), "{}", ended.error());
    assert_eq!(serving(&stage, &one).len(), 16);

    // One failure is allowed: thirteen switch, and each host is told as it is.
    let ended = deploy(&stage, &["--on-unreachable", "skip", "--max-failures", "1"]);
    ended.exits(12).tells(&[(&one[..7], 1), (&two[..7], 13)]);
    let old: Vec<&str> = serving(&stage, &one);
    assert_eq!(old, [CLOSED, SILENT, BROKEN]);
    assert_eq!(serving(&stage, &two).len(), 13);
    assert_eq!(state_of(stage.world.root(BROKEN), &two), "failed");
    for host in [CLOSED, SILENT, BROKEN] {
        assert!(ended.error().contains(host), "{host} is not told of: {}", ended.error());
    }

    // Counted, three failures are within a budget of three.
    let three = stage.commit("three\n");
    let ended = deploy(&stage, &["--on-unreachable", "fail", "--max-failures", "3"]);
    ended.exits(12).tells(&[(&one[..7], 1), (&three[..7], 13)]);
    assert_eq!(serving(&stage, &one), [CLOSED, SILENT, BROKEN]);
    assert_eq!(serving(&stage, &three).len(), 13);

    // The build that fails is one more than a budget of two: the others have built, and none is switched.
    let four = stage.commit("four\n");
    let ended = deploy(&stage, &["--on-unreachable", "fail", "--max-failures", "2"]);
    ended.exits(11).tells(&[(&one[..7], 1), (&three[..7], 13)]);
    assert!(ended.error().contains("nothing was activated"), "{}", ended.error());
    for host in [CLOSED, SILENT, BROKEN] {
        assert!(ended.error().contains(host), "{host} is not told of: {}", ended.error());
    }
    for host in HOSTS {
        let is_well = ![CLOSED, SILENT, BROKEN].contains(&host);
        assert_eq!(live_commit(stage.world.root(host)), *if is_well { &three } else { &one }, "{host}");
        if is_well {
            assert_eq!(state_of(stage.world.root(host), &four), "sealed", "{host}");
        }
    }

    // All are well again: the same command brings everybody to one release.
    drop(listener);
    for host in [CLOSED, SILENT] {
        stage.world.sandbox.host(host).unwrap().restart().unwrap();
    }
    stage.mark(&format!("broken-{BROKEN}"), false);
    deploy(&stage, &[]).exits(0).tells(&[(&four[..7], 16)]);
    assert_settled(&stage.world, &HOSTS);
}

/// Sixty here; `scripts/bench --fleet 500` takes as many as are asked for.
#[test]
fn of_sixty_distant_hosts_three_fail_and_the_others_are_rolled_out_in_waves() {
    let names: Vec<String> = (1..=60).map(|number| format!("app{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let settings = "waves = [\"1\", \"10%\", \"100%\"]\nmax-failures = \"5%\"\nmin-healthy = \"50%\"\n\
                    build = { command = '[ $DEPLOYER_HOST != app13 ] || ! grep -q two app' }\n\
                    check = { run = 'case $DEPLOYER_HOST in app2[12]) ! grep -q two app;; esac', retries = 1 }\n";
    let world = World::new().local_hosts(&names).config(settings);
    let one = world.commit(&[("app", "one\n")]);
    world.deploy("master");
    let two = world.commit(&[("app", "two\n")]);
    let mut command = program(&world, &["deploy", "--rev", "master"]);
    let ended = Running::spawn(command.env("DEPLOYER_LOCAL_DELAY", "20ms")).end();
    ended.exits(12).tells(&[(&one[..7], 3), (&two[..7], 57)]);
    let old: Vec<&str> = names.iter().copied().filter(|host| live_commit(world.root(host)) == one).collect();
    assert_eq!(old, ["app13", "app21", "app22"]);
    let waves: Vec<usize> = ended
        .events
        .iter()
        .filter(|event| event["type"] == "wave.finished")
        .map(|event| event["hosts"].as_array().unwrap().len())
        .collect();
    assert_eq!(waves, [1, 5, 53]);
    let took = |step: &str| {
        let of = |event: &&serde_json::Value| event["type"] == "step.finished" && event["step"] == step;
        ended.events.iter().find(of).unwrap()["secs"].as_f64().unwrap()
    };
    assert!(took("lock") >= 0.04, "the control: the way is there and back");
}
