//! The real helper, driven over pipes as the controller drives it.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside, as a neighbour would")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "shared with the proof")]
mod client;
mod confirming;
mod freeze;
mod leaving;
#[path = "../../op/mod.rs"]
mod op;
#[expect(dead_code, reason = "the layout is the helper's")]
#[path = "../../release.rs"]
mod release;
#[expect(dead_code, reason = "these tests need a manifest and no more")]
#[path = "../../tree/mod.rs"]
mod tree;
#[expect(dead_code, reason = "these tests keep no time")]
#[path = "../../wire/mod.rs"]
mod wire;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use client::*;
use op::*;
use release::State;
use wire::ToHelper;

#[test]
fn a_helper_whose_bytes_are_not_those_that_were_sent_says_so_and_does_nothing() {
    let (_directory, root) = root();
    let output = Process::new(HELPER).args(["serve", "m4rker"]).arg(&root).arg("0".repeat(64)).stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"m4rker corrupt\n"[..], Some(3)));
}

#[test]
fn the_hello_tells_what_the_host_is_and_changes_nothing() {
    let (_directory, root) = root();
    let client = Client::start(&root);
    assert_eq!(client.facts.root, RootState::Bare);
    assert_eq!(client.facts.current, Current::Absent);
    assert_eq!(client.facts.user, "tester");
    assert_eq!(std::path::Path::new(&client.facts.helper), std::path::Path::new(HELPER).canonicalize().unwrap());
    assert!(client.facts.platform.ends_with("-linux"), "{}", client.facts.platform);
    assert!(client.facts.free_bytes > 0 && client.facts.boot_id.len() == 36);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let missing = Client::start(&root.join("a/b"));
    assert_eq!(missing.facts.root, RootState::Missing { creatable: true });
}

#[test]
fn one_holds_the_lock_and_the_other_is_told_who_until_the_holder_is_killed() {
    let (_directory, root) = root();
    let (mut first, _) = Client::locked(&root, "run1");
    let mut second = Client::start(&root);
    assert_eq!(second.facts.holder.as_ref().map(|holder| holder.run.as_str()), Some("run1"));
    match second.lock("run2") {
        Locked::Busy(holder) => assert_eq!((holder.run.as_str(), holder.by.as_str()), ("run1", "ada@laptop")),
        other => panic!("{other:?}"),
    }
    assert_eq!(second.refused(Op::Seal { release: id("a"), durable: false }).code, Code::NotLocked);
    assert_eq!(first.read_facts().root, RootState::Ready);
    first.kill();
    assert!(matches!(second.lock("run2"), Locked::Yes { epoch: 2, .. }));
    assert_eq!(second.well(Op::Unlock), Answer::Done);
    assert_eq!(Client::start(&root).facts.holder, None);
}

#[test]
fn a_hold_freezes_the_host_and_one_that_cannot_be_read_does_too() {
    let (_directory, root) = root();
    drop(Client::locked(&root, "run1"));
    fs::write(root.join(".deployer/hold"), r#"{"id":"7f3a91","by":"ada","reason":"audit","since":5}"#).unwrap();
    let mut client = Client::start(&root);
    assert!(matches!(client.lock("run2"), Locked::Held(Hold { id, .. }) if id == "7f3a91"));
    fs::write(root.join(".deployer/hold"), "{").unwrap();
    assert!(matches!(client.lock("run2"), Locked::Held(_)));
}

#[test]
fn a_command_gets_its_argv_environment_umask_and_directory_and_no_input() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let exec = Exec {
        command: Command::Argv(
            ["/bin/sh", "-c", "pwd -P; umask; cat; echo \"$1|$TOKEN|$LANG|$HOME\"", "x", "a b'$(id)\n*"].map(String::from).to_vec(),
        ),
        directory: Some(".".into()),
        env: vec![("TOKEN".into(), "multi\nline".into())],
        umask: 0o027,
        ..shell("")
    };
    let (exited, ended) = client.exited(exec);
    let home = root.parent().unwrap().display();
    let expected = format!("{}\n0027\na b'$(id)\n*|multi\nline|C.UTF-8|{home}\n", root.canonicalize().unwrap().display());
    assert_eq!((String::from_utf8(ended.out).unwrap(), exited.end), (expected, End::Code(0)));
    let (exited, ended) = client.exited(shell("read x || echo no input >&2; exit 3"));
    assert_eq!((ended.err.as_slice(), exited.end), (&b"no input\n"[..], End::Code(3)));
}

#[test]
fn variables_that_change_every_program_and_programs_that_are_not_there_are_refused() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    for key in ["LD_PRELOAD", "BASH_ENV", "ENV", "A B", "", "1A", "A=B"] {
        let exec = Exec { env: vec![(key.into(), "x".into())], ..shell("true") };
        assert_eq!(client.refused(Op::Exec(exec)).code, Code::Refused, "{key}");
    }
    for program in ["no-such-program-here", "./no", "/no/such"] {
        let exec = Exec { command: Command::Argv(vec![program.into()]), ..shell("") };
        assert_eq!(client.refused(Op::Exec(exec)).code, Code::Command, "{program}");
    }
    let exec = Exec { directory: Some("shared/../..".into()), ..shell("true") };
    assert!(client.ask(Op::Exec(exec)).result.is_err());
}

#[test]
fn a_flood_of_output_is_bounded_and_keeps_its_end() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let exec = Exec { output_limit: 100_000, ..shell("yes 0123456789 | head -c 50000000; echo the reason") };
    let (exited, ended) = client.exited(exec);
    assert_eq!(exited.end, End::Code(0));
    assert_eq!(exited.output_bytes, 50_000_011);
    assert_eq!(exited.dropped_bytes, 50_000_011 - 100_000 - 64 * 1024);
    let text = String::from_utf8(ended.out).unwrap();
    assert!(text.ends_with("the reason\n") && text.contains(&format!("… {} bytes omitted …", exited.dropped_bytes)));
    assert!(text.len() < 100_000 + 64 * 1024 + 100, "{}", text.len());
}

#[test]
fn a_command_waits_for_credit_and_others_go_on_meanwhile() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let flood = client.request(Op::Exec(Exec { output_limit: u64::MAX, ..shell("head -c 20000000 /dev/zero; echo done >&2") }));
    // Nothing of the flood is granted until the other was answered: the window must not block it.
    let (exited, ended) = client.exited_without_credit(flood, shell("echo small"));
    assert_eq!((exited.end, ended.out.as_slice()), (End::Code(0), &b"small\n"[..]));
    client.grant(flood, 64 * 1024 * 1024);
    let ended = client.answer(flood);
    assert!(matches!(ended.result, Ok(Answer::Exited(Exited { output_bytes: 20_000_005, dropped_bytes: 0, .. }))), "{:?}", ended.result);
}

#[test]
fn silence_and_the_total_time_end_a_command() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let (exited, ended) = client.exited(Exec { idle_timeout_ms: 300, ..shell("echo begun; sleep 600") });
    // Where the shell outlives its sleep by a moment, it says that it was terminated.
    assert!(exited.end == End::Idle && ended.out.starts_with(b"begun\n"), "{exited:?}");
    let (exited, _) = client.exited(Exec { timeout_ms: 300, ..shell("while :; do echo on; sleep 0.01; done") });
    assert_eq!(exited.end, End::TimedOut);
}

#[test]
fn a_stop_ends_a_command_and_it_is_still_answered() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let id = client.request(Op::Exec(shell("echo begun; sleep 600")));
    client.wait_for(id, "begun");
    client.send(&ToHelper::Stop { id });
    assert!(matches!(client.answer(id).result, Ok(Answer::Exited(Exited { end: End::Stopped, .. }))));
}

#[test]
fn a_background_process_that_holds_the_pipes_ends_with_the_step_and_is_counted() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let (exited, ended) = client.exited(shell("setsid sh -c 'sleep 600; :' & echo $!"));
    assert!(exited.is_success());
    assert_eq!(exited.leftovers, 2);
    assert!(!lives(&String::from_utf8(ended.out).unwrap()));
}

#[test]
fn a_command_reaches_the_controller_through_its_door_until_it_ends() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let door = client.request(Op::Door { door: 7 });
    let speak = "exec 3<>\"/dev/tcp/${0%:*}/${0#*:}\"; echo hello >&3; cat <&3";
    let command = Command::Argv(["bash", "-c", speak, INDEX_ADDRESS].map(String::from).to_vec());
    let exec = client.request(Op::Exec(Exec { command, network: Network::Index { door: 7 }, ..shell("") }));
    client.wait_for(door, "hello");
    client.stream(door, b"answer");
    let ended = client.answer(exec);
    assert!(matches!(ended.result, Ok(Answer::Exited(ref exited)) if exited.is_success()), "{:?}", String::from_utf8_lossy(&ended.err));
    assert_eq!(ended.out, b"answer");
    assert_eq!(client.answer(door).result, Ok(Answer::Done));
    // The door went with the command: whoever waits in front of it waits until he is told to stop.
    let late = client.request(Op::Door { door: 7 });
    client.send(&ToHelper::Stop { id: late });
    assert_eq!(client.answer(late).result.unwrap_err().code, Code::Stopped);
}

#[test]
fn a_blocked_command_has_no_network_but_keeps_its_files_and_its_loopback() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    let exec = Exec {
        network: Network::None,
        directory: Some(".".into()),
        ..shell("ls /sys/class/net >/dev/null; cat /proc/net/dev; touch made; stat -c %u made")
    };
    let (exited, ended) = client.exited(exec);
    assert!(exited.isolated);
    let text = String::from_utf8(ended.out).unwrap();
    let devices = text.lines().filter(|line| line.contains(':')).count();
    assert_eq!(devices, 1, "{text}");
    assert!(text.trim_end().ends_with(&client.facts.uid.to_string()));
}

/// Starts a build that leaves a double-forked child which ignores TERM. Gives the pids of all.
fn stubborn_build(client: &mut Client) -> (u32, Vec<String>) {
    client.upload("a", "run1", "a");
    let text = "(setsid sh -c 'trap \"\" TERM; echo $$ > pids; while :; do sleep 0.1; done' &) ; trap '' TERM; until [ -s pids ]; do sleep 0.01; done; echo $$ >> pids; echo running; while :; do sleep 0.1; done";
    let exec = Exec { directory: Some("releases/a".into()), ..shell(text) };
    let build = client.request(Op::Build { release: id("a"), exec });
    client.wait_for(build, "running");
    let pids = fs::read_to_string(format!("{}/releases/a/pids", client.root.display())).unwrap();
    (build, pids.lines().map(str::to_owned).collect())
}

#[test]
fn when_the_pipe_closes_a_build_ends_with_all_it_started_and_the_lock_is_free() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    let (_, pids) = stubborn_build(&mut client);
    assert!(pids.len() == 2 && pids.iter().all(|pid| lives(pid)), "{pids:?}");
    client.close_input();
    until("the end of the helper", || client.child.try_wait().unwrap().is_some());
    assert!(!pids.iter().any(|pid| lives(pid)), "{pids:?}");
    let (mut next, _) = Client::locked(&root, "run2");
    assert_eq!(next.record("a").state, State::Failed);
}

#[test]
fn what_a_killed_helper_left_of_a_build_is_ended_by_the_next() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    let (_, pids) = stubborn_build(&mut client);
    client.kill();
    assert!(pids.iter().all(|pid| lives(pid)), "the control: a killed helper ends nothing");
    let (mut next, recovered) = Client::locked(&root, "run2");
    assert!(recovered.iter().any(|line| line.contains("`a`")), "{recovered:?}");
    assert!(!pids.iter().any(|pid| lives(pid)), "{pids:?}");
    assert_eq!(next.record("a").state, State::Failed);
}

#[test]
fn a_build_is_logged_on_the_host_and_its_log_can_be_read_later() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.upload("a", "run1", "a");
    let exec = Exec { directory: Some("releases/a".into()), ..shell("cat app; echo; echo warning >&2; exit 4") };
    let ended = client.ask(Op::Build { release: id("a"), exec });
    assert!(matches!(ended.result, Ok(Answer::Exited(Exited { end: End::Code(4), .. }))));
    assert_eq!(client.record("a").state, State::Failed);
    let text = fs::read_to_string(root.join(".deployer/log/a/build.log")).unwrap();
    assert!(text.contains("a\n") && text.contains("warning\n"), "{text}");
}

#[test]
fn a_confirmed_deploy_retires_the_one_before_and_is_told_to_capistrano_and_the_journal() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.deployed("b", "run1", Some("a"));
    assert_eq!(live(&root).as_deref(), Some("releases/b"));
    assert_eq!((client.record("a").state, client.record("b").state), (State::Retired, State::Confirmed));
    assert_eq!(client.record("b").previous, Some(id("a")));
    assert_eq!(client.read_facts().unresolved, None);
    let back = client.activate(activation("a", Some("b")));
    assert!(matches!(back.outcome, ActivationOutcome::Well { .. }));
    client.well(Op::Confirm { release: id("a") });
    let log = fs::read_to_string(root.join("revisions.log")).unwrap();
    let commit = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678";
    let expected = format!(
        "Branch master (at {commit}) deployed as release a by ada@laptop\nBranch master (at {commit}) deployed as release b by ada@laptop\nada@laptop rolled back to release a\n"
    );
    assert_eq!(log, expected);
    assert!(history(&root).ends_with(&["activated".to_owned(), "confirmed".to_owned()]));
}

#[test]
fn a_failed_check_leaves_the_switch_and_a_revert_puts_back_link_and_service() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    let check = Check {
        probe: Probe::Run(shell("echo sick; exit 1")),
        retries: 3,
        every_ms: 1,
        successes: 2,
        timeout_ms: 5000,
        stay_up_ms: 0,
        unit: None,
    };
    let request = client.request(Op::Activate(Activate { check: Some(check), ..activation("b", Some("a")) }));
    let ended = client.answer(request);
    let Ok(Answer::Activated(activated)) = ended.result else { panic!("{ended:?}") };
    assert!(matches!(activated.outcome, ActivationOutcome::CheckFailed { tries: 3, .. }), "{activated:?}");
    assert!(String::from_utf8(ended.out).unwrap().contains("sick"));
    assert_eq!((live(&root).as_deref(), client.read_facts().unresolved), (Some("releases/b"), Some(id("b"))));
    let Answer::Activated(back) = client.well(Op::Revert { release: id("b"), reason: "check failed".into(), bad: true }) else { panic!() };
    assert_eq!((back.from, back.to), (Some(id("b")), Some(id("a"))));
    assert_eq!(live(&root).as_deref(), Some("releases/a"));
    assert_eq!(restarts(&root), "a b a");
    let record = client.record("b");
    assert_eq!((record.state, record.reason.as_deref()), (State::Bad, Some("check failed")));
    assert_eq!((client.record("a").state, client.read_facts().unresolved), (State::Confirmed, None));
    assert_eq!(client.refused(Op::Activate(activation("b", Some("a")))).code, Code::NotSealed);
}

#[test]
fn a_release_that_is_put_back_for_another_s_sake_stays_what_it_was() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.deployed("b", "run1", Some("a"));
    // A rollback that fails on another host, and then a first activation that a signal ends.
    client.activate(Activate { rollback: true, ..activation("a", Some("b")) });
    client.well(Op::Revert { release: id("a"), reason: "the rollback failed".into(), bad: false });
    assert_eq!((client.record("a").state, client.record("b").state), (State::Retired, State::Confirmed));
    client.sealed("c", "run1");
    client.activate(activation("c", Some("b")));
    client.well(Op::Revert { release: id("c"), reason: "interrupted".into(), bad: false });
    assert_eq!((client.record("c").state, live(&root).as_deref()), (State::Sealed, Some("releases/b")));
    let again = client.activate(activation("c", Some("b")));
    assert!(matches!(again.outcome, ActivationOutcome::Well { .. }), "{again:?}");
}

#[test]
fn a_first_deploy_that_is_reverted_leaves_no_current() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.sealed("a", "run1");
    client.activate(activation("a", None));
    let Answer::Activated(back) = client.well(Op::Revert { release: id("a"), reason: "no".into(), bad: true }) else { panic!() };
    assert_eq!(back.to, None);
    assert!(fs::symlink_metadata(root.join("current")).is_err());
    assert_eq!(restarts(&root), "a");
}

#[test]
fn a_current_that_is_not_what_the_plan_saw_is_left_alone() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    for expect in [None, Some("b"), Some("zzz")] {
        assert_eq!(client.refused(Op::Activate(activation("b", expect))).code, Code::Superseded);
    }
    assert_eq!((live(&root).as_deref(), client.record("b").state), (Some("releases/a"), State::Sealed));
    fs::remove_file(root.join("current")).unwrap();
    fs::create_dir(root.join("current")).unwrap();
    assert_eq!(client.refused(Op::Activate(activation("b", Some("a")))).code, Code::CurrentIsDirectory);
    assert!(!root.join(".deployer/intent").exists() && !root.join("current/b").exists());
}

#[test]
fn an_absolute_link_of_capistrano_is_adopted_and_put_back() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    fs::create_dir(root.join("releases/20261123061200")).unwrap();
    std::os::unix::fs::symlink(root.join("releases/20261123061200"), root.join("current")).unwrap();
    assert_eq!(client.read_facts().current, Current::Release(id("20261123061200")));
    assert_eq!(client.read_facts().foreign, ["20261123061200"]);
    client.sealed("b", "run1");
    client.activate(activation("b", Some("20261123061200")));
    client.well(Op::Revert { release: id("b"), reason: "no".into(), bad: true });
    assert_eq!((live(&root).as_deref(), restarts(&root).as_str()), (Some("releases/20261123061200"), "b b"));
}

#[test]
fn a_release_that_is_not_sealed_is_never_live() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.upload("a", "run1", "a");
    assert_eq!(client.refused(Op::Activate(activation("a", None))).code, Code::NotSealed);
    assert_eq!(client.refused(Op::Activate(activation("b", None))).code, Code::NotFound);
    assert_eq!(live(&root), None);
}

#[test]
fn a_helper_killed_between_switch_and_confirm_is_put_back_at_the_next_lock() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    client.activate(activation("b", Some("a")));
    client.kill();
    assert_eq!(Client::start(&root).facts.unresolved, Some(id("b")));
    let (mut next, recovered) = Client::locked(&root, "run2");
    assert_eq!((live(&root).as_deref(), restarts(&root).as_str()), (Some("releases/a"), "a b a"), "{recovered:?}");
    assert_eq!((next.record("a").state, next.record("b").state), (State::Confirmed, State::Sealed));
    next.well(Op::Unlock);
    let (_, again) = Client::locked(&root, "run3");
    assert_eq!(again, Vec::<String>::new());
}

#[test]
fn a_confirmation_that_recovery_finishes_is_told_like_any_other() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.sealed("a", "run1");
    client.activate(activation("a", None));
    client.kill();
    let record = root.join(".deployer/rel/a.json");
    let confirmed = fs::read_to_string(&record).unwrap().replace("\"active\"", "\"confirmed\"");
    fs::write(&record, confirmed.replace("\"confirmed\": null", "\"confirmed\": 1")).unwrap();
    let (mut client, recovered) = Client::locked(&root, "run2");
    assert!(recovered[0].contains("`a` was confirmed"), "{recovered:?}");
    let log = fs::read_to_string(root.join("revisions.log")).unwrap();
    assert!(log.starts_with("Branch master (at ") && log.ends_with(" deployed as release a by ada@laptop\n"), "{log}");
    assert_eq!(history(&root).last().unwrap(), "confirmed");
    assert_eq!((client.record("a").state, client.read_facts().unresolved), (State::Confirmed, None));
}

#[test]
fn there_is_no_spare_where_it_cannot_be_made_durable() {
    if !Process::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no `strace` that may trace");
        return;
    }
    for (inject, is_made) in [("syncfs:error=EIO", false), ("syncfs:delay_enter=1", true)] {
        let (_directory, root) = root();
        let (mut client, _) = Client::locked(&root, "run1");
        client.deployed("a", "run1", None);
        client.well(Op::Unlock);
        let mut strace = Process::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={inject}"), HELPER, "spare"]).arg(&root);
        assert_eq!(strace.status().unwrap().success(), is_made);
        assert_eq!(root.join(".deployer/spare/manifest").exists(), is_made);
    }
}

#[test]
fn a_stop_ends_a_recovery_that_hangs_and_the_next_lock_does_the_rest() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.sealed("a", "run1");
    let hanging =
        shell("echo a >> ../../restarts; [ ! -e ../../hang ] || { echo $$ > ../../pid; mv ../../pid ../../hanging; exec sleep 600; }");
    let command = Some(Exec { directory: Some("releases/a".into()), ..hanging });
    client.activate(Activate { command, ..activation("a", None) });
    client.well(Op::Confirm { release: id("a") });
    client.sealed("b", "run1");
    client.activate(activation("b", Some("a")));
    client.kill();
    fs::write(root.join("hang"), "").unwrap();
    let mut client = Client::start(&root);
    let info = RunInfo { run: "run2".into(), by: "a".into(), what: "w".into(), since: 0 };
    let request = client.request(Op::Lock(info));
    until("the activation of the recovery", || root.join("hanging").exists());
    client.send(&ToHelper::Stop { id: request });
    assert_eq!(client.answer(request).result.unwrap_err().code, Code::Stopped);
    assert!(!lives(&fs::read_to_string(root.join("hanging")).unwrap()));
    fs::remove_file(root.join("hang")).unwrap();
    let (mut next, recovered) = Client::locked(&root, "run3");
    assert!(recovered.iter().any(|line| line.contains("put back to `a`")), "{recovered:?}");
    assert_eq!((live(&root).as_deref(), restarts(&root).as_str()), (Some("releases/a"), "a b a a"));
    assert_eq!(next.read_facts().unresolved, None);
}

#[test]
fn the_run_that_lost_its_pipe_comes_back_and_confirms() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.sealed("a", "run1");
    client.activate(Activate { confirm_within_ms: 600_000, ..activation("a", None) });
    client.kill();
    let (mut back, _) = Client::locked(&root, "run1");
    assert_eq!(back.well(Op::Confirm { release: id("a") }), Answer::Done);
    assert_eq!((back.record("a").state, restarts(&root).as_str()), (State::Confirmed, "a"));
}

#[test]
fn a_host_that_nobody_confirms_puts_itself_back_when_the_controller_is_gone() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    client.activate(Activate { confirm_within_ms: 500, ..activation("b", Some("a")) });
    client.kill();
    until("the revert", || !root.join(".deployer/intent").exists());
    assert_eq!((live(&root).as_deref(), restarts(&root).as_str()), (Some("releases/a"), "a b a"));
    let (mut next, _) = Client::locked(&root, "run2");
    let record = next.record("b");
    assert_eq!((record.state, record.reason.as_deref()), (State::Bad, Some("it was not confirmed in time")));
}

#[test]
fn a_confirmed_release_is_not_put_back_by_the_dead_man() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.sealed("a", "run1");
    client.activate(Activate { confirm_within_ms: 300, ..activation("a", None) });
    // The deadline passes while the controller holds the lock: it decides.
    until("the deadline", || fs::read_to_string(root.join("restarts")).is_ok() && deadline_passed(&root));
    client.well(Op::Confirm { release: id("a") });
    client.well(Op::Unlock);
    let (mut next, _) = Client::locked(&root, "run2");
    assert_eq!((live(&root).as_deref(), next.record("a").state), (Some("releases/a"), State::Confirmed));
}

fn deadline_passed(root: &std::path::Path) -> bool {
    let intent: serde_json::Value = serde_json::from_slice(&fs::read(root.join(".deployer/intent")).unwrap()).unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    seconds * 1000.0 > intent["deadline_ms"].as_f64().unwrap() + 10.0
}

#[test]
fn a_server_that_an_activation_starts_stays_and_a_later_command_does_not_end_it() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.sealed("a", "run1");
    // The server starts a worker, and leaves it to whoever adopts orphans, only when the activation is over.
    let text = "(until [ -e go ]; do sleep 0.01; done; sleep 600 & echo $! > server) >/dev/null 2>&1 &";
    let exec = Exec { directory: Some(".".into()), ..shell(text) };
    client.activate(Activate { command: Some(exec), ..activation("a", None) });
    fs::write(root.join("go"), "").unwrap();
    until("the start of the worker", || fs::read_to_string(root.join("server")).is_ok_and(|pid| pid.ends_with('\n')));
    client.exited(shell("true"));
    client.well(Op::Confirm { release: id("a") });
    client.send(&ToHelper::Bye);
    assert!(client.child.wait().unwrap().success());
    let server = fs::read_to_string(root.join("server")).unwrap();
    assert!(lives(&server));
    let _ = Process::new("kill").arg(server.trim()).status();
}

#[test]
fn a_missing_sudo_rule_is_told_as_the_line_that_is_missing() {
    let (directory, root) = root();
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("sudo"), "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n").unwrap();
    fs::set_permissions(bin.join("sudo"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut client = Client::start(&root);
    let path = vec![("PATH".into(), format!("{}:/usr/bin:/bin", bin.display()))];
    let command = Command::Argv(["/usr/bin/systemctl", "restart", "app"].map(String::from).to_vec());
    let failure = client.refused(Op::Exec(Exec { command, user: Some("www".into()), env: path, ..shell("") }));
    assert_eq!((failure.code, failure.message.as_str()), (Code::Sudo, "sudo: a password is required"));
    assert!(failure.hint.unwrap().contains("tester ALL=(www) NOPASSWD:"));
}

#[test]
fn what_the_user_may_not_do_is_told_as_commands_for_root() {
    let (directory, root) = root();
    // For root nothing is denied, so there the helper runs as somebody else.
    let privileged = fs::metadata(&root).unwrap().uid() == 0;
    let helper = if privileged {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut other = Process::new("setpriv");
        other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", HELPER]);
        other
    } else {
        fs::set_permissions(&root, fs::Permissions::from_mode(0o555)).unwrap();
        Process::new(HELPER)
    };
    let mut client = Client::start_under(helper, &root);
    assert!(matches!(client.facts.root, RootState::Denied { .. }), "{:?}", client.facts.root);
    assert_ne!(client.facts.uid, 0);
    let setup = Setup {
        shared_directories: Vec::new(),
        shared_files: vec!["etc/x".into()],
        group: None,
        cache: Some("/deployer-cache".into()),
        check: false,
    };
    let Answer::SetUp(told) = client.well(Op::Setup(setup)) else { panic!("no answer") };
    let path = root.display();
    let expected = ["install -d -o tester -m 0755 /deployer-cache".to_owned(), format!("chown tester {path} && chmod 0755 {path}")];
    assert!(expected.iter().all(|line| told.root_commands.contains(line)), "{told:?}");
    assert_eq!((told.changed.as_slice(), told.missing_files.as_slice()), (&[][..], &["etc/x".to_owned()][..]));
    assert!(client.ask(Op::Lock(RunInfo { run: "r".into(), by: "a".into(), what: "w".into(), since: 0 })).result.is_err());
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_host_whose_shared_is_a_link_to_another_disk_is_set_up_and_deployed_to() {
    let (_directory, root) = root();
    let disk = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(disk.path(), root.join("shared")).unwrap();
    let mut client = Client::start(&root);
    let setup = |check: bool| Setup {
        shared_directories: vec!["var/log".into()],
        shared_files: vec!["etc/site.cfg".into()],
        group: None,
        cache: None,
        check,
    };
    let Answer::SetUp(told) = client.well(Op::Setup(setup(true))) else { panic!("no answer") };
    assert!(told.changed.iter().any(|line| line.contains("shared/var/log")) && !disk.path().join("var").exists(), "{told:?}");
    let Answer::SetUp(told) = client.well(Op::Setup(setup(false))) else { panic!("no answer") };
    assert_eq!(told.missing_files, ["etc/site.cfg"]);
    assert!(disk.path().join("var/log").is_dir());
    fs::write(disk.path().join("etc/site.cfg"), "secret").unwrap();
    assert!(matches!(client.lock("run1"), Locked::Yes { .. }));
    client.upload("a", "run1", "a");
    let (directories, files) = (vec!["var/log".into(), "media".into()], vec!["etc/site.cfg".into()]);
    client.well(Op::Link(Links { release: id("a"), directories, files, cache: None, replace: false }));
    assert!(matches!(client.well(Op::Seal { release: id("a"), durable: true }), Answer::Sealed { .. }));
    assert_eq!(fs::read_to_string(root.join("releases/a/etc/site.cfg")).unwrap(), "secret");
    assert!(disk.path().join("media").is_dir());
}

#[test]
fn what_cannot_be_removed_of_a_removed_release_is_told_and_keeps_nobody_from_the_host() {
    let (_directory, root) = root();
    let Some(small) = Small::new(&root) else { return };
    assert!(matches!(small.client(&root).lock("run1"), Locked::Yes { .. }));
    let trashed = small.1.join(".deployer/trash/x");
    fs::create_dir_all(trashed.join("busy")).unwrap();
    fs::write(trashed.join("own"), "x").unwrap();
    fs::write(small.1.join(".deployer/tmp/left"), "x").unwrap();
    // Removed it cannot be by anybody, as another user's files cannot be by the login user.
    small.mount(&root.join(".deployer/trash/x/busy"));
    let mut client = small.client(&root);
    let Locked::Yes { recovered, .. } = client.lock("run2") else { panic!("no lock") };
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert!(recovered[0].contains(".deployer/trash` holds what cannot be removed"), "{recovered:?}");
    assert!(!small.1.join(".deployer/tmp/left").exists() && !trashed.join("own").exists());
    assert!(trashed.join("busy").exists());
}

/// A root on a small file system of its own, in a namespace that lives as long as this.
struct Small(std::process::Child, std::path::PathBuf);

impl Small {
    fn new(root: &std::path::Path) -> Option<Self> {
        if !Process::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no user namespace with mounts is allowed here");
            return None;
        }
        let mut keeper = Process::new("unshare");
        keeper.args(["-Urm", "sh", "-c", "mount -t tmpfs -o size=1m none \"$0\" && echo ready && read end"]).arg(root);
        let mut child = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let inside = std::path::PathBuf::from(format!("/proc/{}/root{}", child.id(), root.display()));
        Some(Self(child, inside))
    }

    fn enter(&self, program: &str) -> Process {
        let mut inside = Process::new("nsenter");
        inside.args(["-t", &self.0.id().to_string(), "-U", "-m", "--preserve-credentials", program]);
        inside
    }

    fn client(&self, root: &std::path::Path) -> Client {
        Client::start_under(self.enter(HELPER), root)
    }

    fn mount(&self, at: &std::path::Path) {
        assert!(self.enter("mount").args(["-t", "tmpfs", "none"]).arg(at).status().unwrap().success());
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.1.join("fill")).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        assert!(fs::write(self.1.join("more"), "x").is_err(), "the disk is not full");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn on_a_full_disk_what_dead_runs_left_makes_room_for_the_lock() {
    let (_directory, root) = root();
    let Some(small) = Small::new(&root) else { return };
    drop(small.client(&root).lock("run1"));
    fs::write(small.1.join(".deployer/tmp/left"), vec![1; 65536]).unwrap();
    small.fill();
    let mut client = small.client(&root);
    assert!(matches!(client.lock("run2"), Locked::Yes { epoch: 2, .. }));
}

#[test]
fn a_full_disk_does_not_keep_the_dead_man_from_putting_back() {
    let (_directory, root) = root();
    let Some(small) = Small::new(&root) else { return };
    let mut client = small.client(&root);
    assert!(matches!(client.lock("run1"), Locked::Yes { .. }));
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    client.activate(Activate { confirm_within_ms: 500, command: None, ..activation("b", Some("a")) });
    small.fill();
    assert_eq!(live(&small.1).as_deref(), Some("releases/b"));
    client.kill();
    until("the dead man's turn", || live(&small.1).as_deref() == Some("releases/a"));
}

#[test]
fn of_many_that_want_the_lock_at_once_one_gets_it() {
    let (_directory, root) = root();
    drop(Client::locked(&root, "before"));
    let mut clients: Vec<Client> = (0..6).map(|_| Client::start(&root)).collect();
    let run = |number: usize| RunInfo { run: format!("run{number}"), by: "ada".into(), what: "racing".into(), since: 0 };
    for _ in 0..20 {
        let ids: Vec<u32> = clients.iter_mut().enumerate().map(|(number, client)| client.request(Op::Lock(run(number)))).collect();
        let answers: Vec<Answer> = clients.iter_mut().zip(ids).map(|(client, id)| client.answer(id).result.unwrap()).collect();
        let winners: Vec<usize> = (0..answers.len()).filter(|at| matches!(answers[*at], Answer::Locked(Locked::Yes { .. }))).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        clients[winners[0]].well(Op::Unlock);
    }
}

#[test]
fn bytes_that_are_no_frames_end_the_helper_without_a_panic() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    client.write(&[0xff; 64]);
    until("the end of the helper", || client.child.try_wait().unwrap().is_some());
    assert_eq!(client.child.wait().unwrap().code(), Some(1));
}

#[test]
fn an_upload_that_is_cut_off_is_an_error_and_never_a_short_file() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    let began = Instant::now();
    client.upload_cut("a", "run1", &"x".repeat(1_000_000));
    client.close_input();
    until("the end of the helper", || client.child.try_wait().unwrap().is_some());
    assert!(began.elapsed() < Duration::from_secs(10));
    let (mut next, _) = Client::locked(&root, "run2");
    assert_eq!(next.record("a").state, State::Failed);
    let mut written = Vec::new();
    if let Ok(mut file) = fs::File::open(root.join("releases/a/app")) {
        file.read_to_end(&mut written).unwrap();
    }
    assert!(written.is_empty(), "{} bytes", written.len());
}

#[test]
fn a_pipe_that_is_silent_but_open_is_dead_and_the_lock_is_free_in_time() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    let (_, pids) = stubborn_build(&mut client);
    let began = Instant::now();
    client.child.wait().unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(30), "{took:?}");
    assert!(!pids.iter().any(|pid| lives(pid)), "{pids:?}");
    drop(Client::locked(&root, "run2"));
}
