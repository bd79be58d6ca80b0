//! The run is asked to stop: by a signal or a real ^C, once or twice, before and during the activation.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deployer::sandbox::skip;
use rustix::process::Signal;

use crate::running::{self, Running, program};
use crate::whole::{Stage, is_free, live_commit, processes_of, state_of};

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];
const HOSTS: [&str; 3] = ["app1", "app2", "app3"];

fn short(commit: &str) -> &str {
    &commit[..7]
}

/// A stage that serves `one`, and the commits of it and of the next version.
fn served(hosts: &[&'static str], extra: &str) -> (Stage, String, String) {
    let stage = Stage::local(hosts, extra);
    let one = stage.commit("one\n");
    stage.settles("one\n");
    let two = stage.commit("two\n");
    (stage, one, two)
}

#[test]
fn a_signal_during_a_build_ends_the_builds_and_tells_that_nothing_was_activated() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)] {
        let (stage, one, two) = served(&HOSTS[..2], "");
        stage.mark("slow", true);
        let mut run = Running::start(&stage.world, &DEPLOY);
        run.until_lines("waiting", 2);
        run.signal(signal);
        let ended = run.end();
        ended.exits(status).tells(&[(short(&one), 2)]);
        assert!(ended.error().contains("nothing was activated"), "{ended:#?}");
        for host in &stage.hosts {
            let root = stage.world.root(host);
            // At once, not after a while: whoever reads the last line may start the next run.
            assert_eq!(processes_of(root), [""; 0], "{host}");
            assert!(is_free(root), "{host}");
            assert_eq!(state_of(root, &two), "failed");
        }
        stage.rests();
        stage.mark("slow", false);
        stage.settles("two\n");
    }
}

#[test]
fn a_signal_at_any_step_before_the_activation_changes_nothing_and_the_same_command_completes() {
    for session in ["local", "ssh2", "openssh"] {
        let hosts = &HOSTS[..2];
        let stage = if session == "local" { Stage::local(hosts, "") } else { Stage::ssh(session, hosts, "") };
        let mut live = stage.commit("one\n");
        stage.settles("one\n");
        for step in ["resolve", "export", "connect", "lock", "push", "link", "build"] {
            let app = format!("stopped at {step}\n");
            let next = stage.commit(&app);
            let mut run = Running::start(&stage.world, &DEPLOY);
            run.until_step(step);
            run.signal(Signal::INT);
            let ended = run.end();
            assert!(matches!(ended.status, 130 | 0 | 13), "{step}: {ended:#?}");
            if ended.status == 130 {
                assert!(ended.error().contains("nothing was activated") || ended.error().contains("no host was changed"), "{ended:#?}");
                for host in hosts {
                    assert!(is_free(stage.world.root(host)), "{session}, {step}: {host} is locked after {ended:#?}");
                    assert!(live_commit(stage.world.root(host)) == live, "{session}, {step}: {host} changed with {ended:#?}");
                }
            }
            stage.rests();
            stage.settles(&app);
            live = next;
        }
    }
}

#[test]
fn a_signal_between_waves_lets_the_hosts_at_work_finish_and_puts_back_what_was_switched() {
    let (stage, one, _) = served(&HOSTS, "waves = [\"1\", \"100%\"]\n");
    stage.mark("slow-restart", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("restarting", 1);
    run.signal(Signal::INT);
    stage.mark("slow-restart", false);
    let ended = run.end();
    ended.exits(13).tells(&[(short(&one), 3)]);
    stage.serves("one\n");
    assert_eq!(restarts(&stage, "app1"), 3, "its own restart, the new one, and the one that follows putting back");
    assert_eq!(restarts(&stage, "app2"), 1);
    stage.settles("two\n");
}

#[test]
fn a_signal_between_waves_keeps_what_was_switched_where_the_policy_says_so() {
    for policy in ["stop", "continue"] {
        let (stage, one, two) = served(&HOSTS, &format!("waves = [\"1\", \"100%\"]\non-failure = \"{policy}\"\n"));
        stage.mark("slow-restart", true);
        let mut run = Running::start(&stage.world, &DEPLOY);
        run.until_lines("restarting", 1);
        run.signal(Signal::TERM);
        stage.mark("slow-restart", false);
        let ended = run.end();
        ended.exits(12).tells(&[(short(&one), 2), (short(&two), 1)]);
        assert!(ended.error().contains("interrupted"), "{ended:#?}");
        stage.rests();
        stage.settles("two\n");
    }
}

#[test]
fn a_signal_in_the_last_wave_comes_too_late_to_stop_anything() {
    let (stage, _, two) = served(&HOSTS[..1], "");
    stage.mark("slow-restart", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("restarting", 1);
    run.signal(Signal::INT);
    stage.mark("slow-restart", false);
    run.end().exits(0).tells(&[(short(&two), 1)]);
    stage.serves("two\n");
}

#[test]
fn a_second_signal_leaves_at_once_and_hosts_end_whole() {
    for (condition, line, session) in [("slow", "waiting", "local"), ("slow-restart", "restarting", "local"), ("slow", "waiting", "ssh2")] {
        let hosts = &HOSTS[..2];
        let stage = if session == "local" { Stage::local(hosts, "") } else { Stage::ssh(session, hosts, "") };
        stage.commit("one\n");
        stage.settles("one\n");
        stage.commit("two\n");
        stage.mark(condition, true);
        let mut run = Running::start(&stage.world, &DEPLOY);
        run.until_lines(line, 2);
        run.signal(Signal::INT);
        let told = Instant::now();
        thread::sleep(Duration::from_millis(100));
        run.signal(Signal::INT);
        run.end().exits(130);
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        stage.rests();
        stage.mark(condition, false);
        stage.settles("two\n");
        stage.serves("two\n");
    }
}

#[test]
fn a_control_c_at_a_terminal_stops_the_run_and_reaches_no_helper() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("there is no `script`");
    }
    let (stage, _, _) = served(&HOSTS[..2], "");
    stage.mark("slow", true);
    let direct = program(&stage.world, &["-vv", "deploy", "--rev", "master"]);
    let line =
        std::iter::once(direct.get_program()).chain(direct.get_args()).map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
    terminal.envs(direct.get_envs().filter_map(|(key, value)| Some((key, value?)))).env("SHELL", "/bin/sh").env("TERM", "xterm");
    terminal.current_dir(direct.get_current_dir().unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let all_wait = || stage.hosts.iter().all(|host| processes_of(stage.world.root(host)).len() > 2);
    running::until("both builds", running::PATIENCE, all_wait);
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let mut shown = Vec::new();
    screen.read_to_end(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(child.wait().unwrap().code(), Some(130), "{shown}");
    assert!(shown.contains("Stopping at the next safe point") && shown.contains("nothing was activated"), "{shown}");
    assert!(stage.hosts.iter().all(|host| processes_of(stage.world.root(host)).is_empty() && is_free(stage.world.root(host))));
    stage.mark("slow", false);
    stage.settles("two\n");
}

fn restarts(stage: &Stage, host: &str) -> usize {
    std::fs::read_to_string(stage.world.root(host).join("restarts")).unwrap().lines().count()
}
