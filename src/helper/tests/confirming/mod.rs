//! Confirmed activation: well for long enough, by what was started after the switch; what is put back is checked too; and what a host
//! does by itself after a reboot.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Process;
use std::thread;

use crate::client::*;
use crate::op::*;
use crate::release::State;

fn check(script: &str) -> Check {
    Check { probe: Probe::Run(shell(script)), retries: 3, every_ms: 10, successes: 1, timeout_ms: 5000, stay_up_ms: 0, unit: None }
}

fn checked(client: &mut Client, name: &str, before: Option<&str>, check: Check) -> ActivationOutcome {
    client.sealed(name, "run1");
    client.activate(Activate { check: Some(check), ..activation(name, before) }).outcome
}

fn why(outcome: &ActivationOutcome) -> &str {
    match outcome {
        ActivationOutcome::CheckFailed { last, .. } => last,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_well_at_first_and_not_for_long_is_not_well() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    let flapping = format!("echo >> {0}/tries; test $(wc -l < {0}/tries) -lt 4", root.display());
    let outcome = checked(&mut client, "a", None, Check { stay_up_ms: 60_000, successes: 2, ..check(&flapping) });
    assert!(why(&outcome).contains("did not stay up"), "{outcome:?}");
    let outcome =
        client.activate(Activate { check: Some(Check { stay_up_ms: 50, ..check("true") }), ..activation("a", Some("a")) }).outcome;
    assert!(matches!(outcome, ActivationOutcome::Well { tries: 2.. }), "it is tried until the end: {outcome:?}");
}

/// Answers requests at `address` until it has answered `count`.
fn serve(address: &str, count: usize) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    (address, thread)
}

#[test]
fn a_server_that_is_started_again_while_it_shall_stay_up_is_not_well() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.sealed("a", "run1");
    let (address, first) = serve("127.0.0.1:0", 2);
    let url = format!("http://{address}/healthz");
    let check = Check { probe: Probe::Url { url, contains: None }, stay_up_ms: 60_000, every_ms: 300, ..check("") };
    let request = client.request(Op::Activate(Activate { check: Some(check), ..activation("a", None) }));
    first.join().unwrap();
    let _second = serve(&address, 1000);
    let Ok(Answer::Activated(activated)) = client.answer(request).result else { panic!() };
    assert!(why(&activated.outcome).contains("was started again"), "{activated:?}");
}

/// A `systemctl` that says what a file says. The system's own comes first in `PATH`, so it cannot be where there is one.
fn fake_systemctl(root: &Path) -> bool {
    if ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|bin| Path::new(bin).join("systemctl").exists())
    {
        eprintln!("skipped: this machine has a systemctl of its own");
        return false;
    }
    let bin = root.parent().unwrap().join(".local/bin");
    fs::create_dir_all(&bin).unwrap();
    let script = format!("#!/bin/sh\necho \"$*\" >> {0}/asked\ncat {0}/unit\n", root.display());
    fs::write(bin.join("systemctl"), script).unwrap();
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    true
}

#[test]
fn a_unit_that_the_activation_did_not_start_again_is_not_the_new_release() {
    let (_directory, root) = root();
    if !fake_systemctl(&root) {
        return;
    }
    let tell = |started: u64| {
        let text = format!(
            "LoadState=loaded\nActiveState=active\nMainPID=7\nInvocationID=x{started}\nExecMainStartTimestampMonotonic={started}\n"
        );
        fs::write(root.join("unit"), text).unwrap();
    };
    tell(1);
    let (mut client, _) = Client::locked(&root, "run1");
    let unit = |user: bool| Check { unit: Some(Unit { name: "app.service".into(), user }), ..check("true") };
    let outcome = checked(&mut client, "a", None, unit(false));
    assert!(why(&outcome).contains("was not started since the switch"), "{outcome:?}");
    tell(u64::MAX / 2);
    let outcome = client.activate(Activate { check: Some(unit(true)), ..activation("a", Some("a")) }).outcome;
    assert!(matches!(outcome, ActivationOutcome::Well { .. }), "{outcome:?}");
    let asked = fs::read_to_string(root.join("asked")).unwrap();
    assert!(asked.lines().next().unwrap().starts_with("show --property=") && asked.ends_with(" -- app.service\n"), "{asked}");
    assert!(asked.lines().last().unwrap().starts_with("--user show "), "{asked}");
}

#[test]
fn what_is_put_back_is_activated_and_checked_and_both_are_told() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    let well = check(&format!("test ! -e {}/sick", root.display()));
    assert!(matches!(checked(&mut client, "a", None, well.clone()), ActivationOutcome::Well { .. }));
    client.well(Op::Confirm { release: id("a") });
    for (name, is_sick) in [("b", false), ("c", true)] {
        assert!(matches!(checked(&mut client, name, Some("a"), check("exit 1")), ActivationOutcome::CheckFailed { .. }));
        if is_sick {
            fs::write(root.join("sick"), "").unwrap();
        }
        let Answer::Activated(back) = client.well(Op::Revert { release: id(name), reason: "check failed".into(), bad: true }) else {
            panic!()
        };
        assert_eq!(
            (live(&root).as_deref(), matches!(back.outcome, ActivationOutcome::Well { .. })),
            (Some("releases/a"), !is_sick),
            "{back:?}"
        );
        assert!(!root.join(".deployer/intent").exists(), "nobody tries it again and again");
    }
    let journal = String::from_utf8_lossy(&fs::read(root.join(".deployer/journal")).unwrap()).into_owned();
    assert!(journal.contains("check failed, but what was put back is not well: the command exited with status 1"), "{journal}");
    assert_eq!(client.record("a").state, State::Confirmed);
}

#[test]
fn after_a_reboot_one_command_puts_back_what_nobody_confirmed() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    let op = Activate { confirm_within_ms: 3_600_000, ..activation("b", Some("a")) };
    assert!(matches!(client.activate(op).outcome, ActivationOutcome::Well { .. }));
    let recover = || {
        let output =
            Process::new(HELPER).arg("recover").arg(&root).env("HOME", root.parent().unwrap()).env("USER", "tester").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, said) = recover();
    assert!(status == Some(0) && said.contains("run1 of ada@laptop is at work"), "{said}");
    client.kill();
    // Another boot: the deadline of the one before means nothing any more. And a freeze keeps people away, not this.
    let path = root.join(".deployer/intent");
    let mut intent: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    intent["boot_id"] = serde_json::json!("another");
    fs::write(&path, intent.to_string()).unwrap();
    fs::write(root.join(".deployer/hold"), r#"{"id":"7f3a91","by":"ada","reason":"audit","since":5}"#).unwrap();
    let (status, said) = recover();
    assert!(status == Some(0) && said.contains("`b` was put back to `a`: it was not confirmed in time"), "{said}");
    assert_eq!((live(&root).as_deref(), restarts(&root).as_str()), (Some("releases/a"), "a b a"));
    assert_eq!(recover(), (Some(0), String::new()), "there is nothing left to do");
    assert!(root.join(".deployer/hold").exists());
    assert_eq!(Process::new(HELPER).arg("recover").output().unwrap().status.code(), Some(2));
}

#[test]
fn what_is_stopped_in_the_middle_of_every_revert_is_not_restarted_for_ever() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    assert!(matches!(client.activate(activation("b", Some("a"))).outcome, ActivationOutcome::Well { .. }));
    client.kill();
    let path = root.join(".deployer/intent");
    let mut intent: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    intent["reverts"] = serde_json::json!(32);
    fs::write(&path, intent.to_string()).unwrap();
    let (mut next, recovered) = Client::locked(&root, "run2");
    assert!(recovered.iter().any(|line| line.starts_with("unresolved: ") && line.contains("32 times")), "{recovered:?}");
    assert_eq!(restarts(&root), "a b");
    // Another release resolves it.
    next.deployed("c", "run2", Some("b"));
    assert_eq!(next.read_facts().unresolved, None);
}

#[test]
fn a_process_that_still_runs_from_an_old_release_is_found() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    let mut server = Process::new("/bin/sleep").arg("600").current_dir(root.join("current")).spawn().unwrap();
    let old = |client: &mut Client| match client.well(Op::Processes) {
        Answer::Processes(found) => found.old,
        other => panic!("{other:?}"),
    };
    assert_eq!(old(&mut client), [], "the control: it runs from the live one");
    client.deployed("b", "run1", Some("a"));
    let pid = i32::try_from(server.id()).unwrap();
    assert_eq!(old(&mut client), [OldProcess { pid, name: "sleep".into(), release: "a".into() }]);
    let pruned = client.well(Op::Prune { keep: 1, only: None });
    assert!(matches!(pruned, Answer::Pruned { .. }), "{pruned:?}");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(old(&mut client), []);
}
