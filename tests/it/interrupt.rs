//! The run is asked to stop: by a signal or a real ^C, once or twice, before and during the activation.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use deployer::sandbox::skip;
use rustix::process::Signal;

use crate::running::{self, Ended, Running, at_a_terminal};
use crate::whole::{Stage, is_free, live_commit, processes_of, records, state_of};

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];
const HOSTS: [&str; 3] = ["app1", "app2", "app3"];
const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)];
/// Far less than a connection, a lock or a pipe is waited for.
const AT_ONCE: Duration = Duration::from_secs(5);

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
    for (signal, status) in SIGNALS {
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
            // How far it gets meanwhile is chance; what it tells must be what is so.
            let serves = match ended.status {
                130 => {
                    let error = ended.error();
                    assert!(error.contains("nothing was activated") || error.contains("no host was changed"), "{ended:#?}");
                    &live
                }
                13 => &live,
                0 => &next,
                _ => panic!("{session}, {step}: {ended:#?}"),
            };
            for host in hosts {
                assert!(is_free(stage.world.root(host)), "{session}, {step}: {host} is locked after {ended:#?}");
                assert_eq!(live_commit(stage.world.root(host)), *serves, "{session}, {step}: {host} with {ended:#?}");
            }
            stage.rests();
            stage.settles(&app);
            live = next;
        }
    }
}

/// Takes a host's place, and answers nobody for as long as it is there.
fn silenced(stage: &Stage, host: &str) -> TcpListener {
    let host = stage.world.sandbox.host(host).unwrap();
    host.stop();
    TcpListener::bind(("127.0.0.1", host.port)).unwrap()
}

/// Signals a run that cannot go on by itself, and checks that it ends now, with the state of the hosts and every host as it was.
#[track_caller]
fn stops(stage: &Stage, run: Running, (signal, code): (Signal, i32), told: &str, live: &str) -> Ended {
    let began = Instant::now();
    run.signal(signal);
    let ended = run.end();
    ended.exits(code);
    assert!(began.elapsed() < AT_ONCE, "{:?}: {ended:#?}", began.elapsed());
    assert!(ended.error().contains(told), "{ended:#?}");
    assert!(stage.hosts.iter().all(|host| live_commit(stage.world.root(host)) == live), "{ended:#?}");
    ended
}

#[test]
fn a_signal_while_a_host_is_silent_ends_the_run_at_once_and_tells_that_no_host_was_changed() {
    for session in ["ssh2", "openssh"] {
        let stage = Stage::ssh(session, &HOSTS[..2], "");
        let one = stage.commit("one\n");
        stage.settles("one\n");
        stage.commit("two\n");
        let silent = silenced(&stage, "app2");
        for step in ["resolve", "export", "connect"] {
            for signal in SIGNALS {
                let mut run = Running::start(&stage.world, &DEPLOY);
                run.until_step(step);
                stops(&stage, run, signal, "no host was changed", &one);
                assert!(HOSTS[..2].iter().all(|host| stage.world.releases(host).len() == 1), "{session}, {step}");
            }
        }
        drop(silent);
        stage.world.sandbox.host("app2").unwrap().restart().unwrap();
        stage.settles("two\n");
    }
}

#[test]
fn a_signal_while_another_run_holds_the_lock_ends_the_wait_at_once() {
    let (stage, one, _) = served(&HOSTS[..2], "");
    stage.mark("slow", true);
    let mut holder = Running::start(&stage.world, &["deploy", "--rev", "master", "-H", "app2"]);
    holder.until_lines("waiting", 1);
    for signal in SIGNALS {
        let mut run = Running::start(&stage.world, &["deploy", "--rev", "master", "--wait-lock", "60s"]);
        run.until_step("lock");
        stops(&stage, run, signal, "nothing was activated", &one).tells(&[(short(&one), 2)]);
        assert!(is_free(stage.world.root("app1")), "what was taken is let go");
        assert!(!is_free(stage.world.root("app2")), "the control: it is held");
    }
    stage.mark("slow", false);
    holder.end().exits(0);
    stage.settles("two\n");
}

/// Leads the way to `host` through a port that passes on only so much of what a controller says. The connection stays open.
fn narrow(stage: &Stage, host: &str, most: usize) {
    let (real, listener) = stage.detour(host);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", real)).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            thread::spawn(move || {
                let (mut from_client, mut to_server) = (client, server);
                let _ = std::io::copy(&mut (&mut from_client).take(most as u64), &mut to_server);
                let _ = std::io::copy(&mut from_client, &mut std::io::sink());
                let _ = to_server.shutdown(Shutdown::Both);
            });
        }
    });
}

#[test]
fn a_signal_during_a_push_ends_it_at_once_and_the_same_command_completes() {
    const SIZE: usize = 8 << 20;
    for session in ["ssh2", "openssh"] {
        let stage = Stage::ssh(session, &HOSTS[..2], "");
        let one = stage.commit("one\n");
        stage.settles("one\n");
        let mut noise = vec![0; SIZE];
        File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
        stage.world.repository.commit("Add what takes long", &[("noise", &noise)]).unwrap();
        let two = stage.commit("two\n");
        let config = fs::read(stage.world.sandbox.ssh_config()).unwrap();
        narrow(&stage, "app2", SIZE / 2);
        for signal in SIGNALS {
            let mut run = Running::start(&stage.world, &DEPLOY);
            run.until_step("push");
            let is_uploading = |record: &serde_json::Value| record["state"] == "uploading";
            running::until("the push", running::PATIENCE, || records(stage.world.root("app2")).values().any(is_uploading));
            stops(&stage, run, signal, "nothing was activated", &one).tells(&[(short(&one), 2)]);
            stage.rests();
            assert_eq!(state_of(stage.world.root("app2"), &two), "failed", "the control: it was pushing");
        }
        fs::write(stage.world.sandbox.ssh_config(), config).unwrap();
        stage.settles("two\n");
        assert_eq!(fs::read(stage.world.current("app2").join("noise")).unwrap(), noise);
    }
}

#[test]
fn a_signal_to_a_rollback_that_connects_or_waits_ends_it_at_once_and_nothing_is_switched() {
    const ROLLBACK: [&str; 3] = ["rollback", "--wait-lock", "60s"];
    for session in ["ssh2", "openssh"] {
        let stage = Stage::ssh(session, &HOSTS[..2], "");
        stage.commit("one\n");
        stage.settles("one\n");
        let two = stage.commit("two\n");
        stage.settles("two\n");
        let silent = silenced(&stage, "app2");
        for signal in SIGNALS {
            let mut run = Running::start(&stage.world, &ROLLBACK);
            run.until_step("connect");
            stops(&stage, run, signal, "no host was changed", &two);
        }
        drop(silent);
        stage.world.sandbox.host("app2").unwrap().restart().unwrap();
        stage.rests();

        stage.mark("slow", true);
        let mut holder = Running::start(&stage.world, &["deploy", "--rev", "master", "--force", "-H", "app2"]);
        holder.until_lines("waiting", 1);
        for signal in SIGNALS {
            let mut run = Running::start(&stage.world, &ROLLBACK);
            run.until("both hosts", |event| event["type"] == "step.finished" && event["step"] == "connect");
            stops(&stage, run, signal, "still runs", &two).tells(&[(short(&two), 2)]);
            assert!(is_free(stage.world.root("app1")), "what was taken is let go");
            assert!(!is_free(stage.world.root("app2")), "the control: it is held");
        }
        stage.mark("slow", false);
        holder.end().exits(0);
        stage.serves("two\n");
    }
}

#[test]
fn a_signal_between_waves_lets_the_hosts_at_work_finish_and_puts_back_what_was_switched() {
    let (stage, one, two) = served(&HOSTS, "waves = [\"1\", \"100%\"]\n");
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
    // Nothing is known against the release, so the same command goes on with it.
    let prepared = HOSTS.map(|host| stage.world.release_of(host, &two));
    assert_eq!(HOSTS.map(|host| state_of(stage.world.root(host), &two)), ["retired", "sealed", "sealed"]);
    stage.settles("two\n");
    assert_eq!(HOSTS.map(|host| stage.world.live(host)), prepared);
}

#[test]
fn a_release_that_failed_its_check_anywhere_is_built_anew_wherever_it_was_live() {
    let (stage, _, two) = served(&HOSTS[..2], "waves = [\"1\", \"100%\"]\n");
    let sick = format!("sick-app2-{}", short(&two));
    stage.mark(&sick, true);
    Running::start(&stage.world, &DEPLOY).end().exits(13);
    stage.serves("one\n");
    let failed = HOSTS[..2].iter().map(|host| stage.world.release_of(host, &two)).collect::<Vec<_>>();
    assert!(HOSTS[..2].iter().all(|host| state_of(stage.world.root(host), &two) == "bad"));
    stage.mark(&sick, false);
    stage.settles("two\n");
    assert!(HOSTS[..2].iter().zip(&failed).all(|(host, failed)| stage.world.live(host) != *failed));
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
        // As quick as fingers are, and no quicker: at once they would be one.
        thread::sleep(Duration::from_millis(500));
        run.signal(Signal::INT);
        let ended = run.end();
        ended.exits(130);
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        assert!(ended.events.iter().any(|event| event["code"] == "stopping"), "{ended:#?}");
        let last = ended.events.last().unwrap();
        assert_eq!((&last["type"], &last["exit"]), (&"run.finished".into(), &130.into()), "{ended:#?}");
        assert_eq!(last["next"][0][1], "deployer status -e prod");
        let switches = condition == "slow-restart";
        assert_eq!(ended.error().contains("puts back, within "), switches, "{ended:#?}");
        assert_eq!(ended.error().contains("still runs"), !switches, "{ended:#?}");
        stage.rests();
        stage.mark(condition, false);
        stage.settles("two\n");
        stage.serves("two\n");
    }
}

#[test]
fn signals_that_come_together_are_one_request() {
    let (stage, one, _) = served(&HOSTS[..1], "");
    stage.mark("slow", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("waiting", 1);
    for signal in [Signal::TERM, Signal::HUP, Signal::TERM] {
        run.signal(signal);
    }
    let ended = run.end();
    ended.exits(143);
    assert!(ended.events.iter().all(|event| event["code"] != "left"), "{ended:#?}");
    assert_eq!(live_commit(stage.world.root(HOSTS[0])), one);
    stage.mark("slow", false);
    stage.settles("two\n");
}

#[test]
fn a_control_c_at_a_terminal_stops_the_run_and_reaches_no_helper() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("there is no `script`");
    }
    let (stage, _, _) = served(&HOSTS[..2], "");
    stage.mark("slow", true);
    let mut child = at_a_terminal(&stage.world, &["-vv", "deploy", "--rev", "master"]).spawn().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let all_wait = || stage.hosts.iter().all(|host| processes_of(stage.world.root(host)).len() > 2);
    running::until("both builds", running::PATIENCE, all_wait);
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let mut shown = Vec::new();
    screen.read_to_end(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(child.wait().unwrap().code(), Some(130), "{shown}");
    assert!(shown.contains("Stopping at the next safe point") && shown.contains("Nothing was activated"), "{shown}");
    assert!(stage.hosts.iter().all(|host| processes_of(stage.world.root(host)).is_empty() && is_free(stage.world.root(host))));
    stage.mark("slow", false);
    stage.settles("two\n");
}

#[test]
fn a_control_c_in_the_live_view_is_answered_there_and_leaves_no_stale_line() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("there is no `script`");
    }
    let (stage, _, _) = served(&HOSTS[..1], "");
    stage.mark("slow-restart", true);
    stage.commit("two\n");
    let mut terminal = at_a_terminal(&stage.world, &["-vv", "deploy", "--rev", "master"]);
    let mut child = terminal.env("DEPLOYER_PROGRESS", "live").spawn().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let (sender, bytes) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            let _ = sender.send(buffer[..count].to_vec());
        }
    });
    let mut shown = Vec::new();
    let mut until = |what: &str| {
        while !String::from_utf8_lossy(&shown).contains(what) {
            let more = bytes.recv_timeout(running::PATIENCE);
            shown.extend(more.unwrap_or_else(|_| panic!("no {what:?} in {:?}", String::from_utf8_lossy(&shown))));
        }
        shown.len()
    };
    until("restarting");
    until("^C stops after the hosts that are switching");
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    until("Stopping at the next safe point. (^C again leaves at once)");
    until("elapsed · stopping · ^C again leaves at once");
    stage.mark("slow-restart", false);
    child.wait().unwrap();
    reader.join().unwrap();
    shown.extend(bytes.try_iter().flatten());
    // Every frame that ends in the live lines leaves the cursor at the beginning of the last of them.
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains("Deployed "), "it was the last wave: {shown:?}");
    let frames: Vec<&str> = shown.split("elapsed · ").skip(1).collect();
    let goes_up = |text: &str| text.split("\x1b[").any(|code| code.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('A'));
    assert!(frames.iter().all(|frame| frame.split_once('\r').is_some_and(|(line, _)| !goes_up(line))), "{shown:?}");
    stage.settles("two\n");
}

fn restarts(stage: &Stage, host: &str) -> usize {
    fs::read_to_string(stage.world.root(host).join("restarts")).unwrap().lines().count()
}
