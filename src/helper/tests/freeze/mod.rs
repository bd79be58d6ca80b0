//! What a person does about the lock: a freeze, its end, and the end of the run that holds the lock.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::*;
use crate::op::*;

fn freeze(id: &str) -> Hold {
    Hold { id: id.into(), by: "bob@desk".into(), reason: "audit".into(), since: 5 }
}

fn end(run: &str) -> Op {
    Op::EndRun { run: run.into(), by: "bob@desk".into() }
}

#[test]
fn a_host_is_frozen_once_until_the_freeze_is_lifted_by_its_id() {
    let (_directory, root) = root();
    let mut client = Client::start(&root);
    assert_eq!(client.well(Op::Hold(freeze("7f3a91"))), Answer::Done);
    assert_eq!(client.well(Op::Hold(freeze("7f3a91"))), Answer::Done, "the same again changes nothing");
    assert_eq!(client.well(Op::Hold(freeze("000000"))), Answer::Locked(Locked::Held(freeze("7f3a91"))));
    assert_eq!(client.well(Op::LockState), Answer::LockState(LockState { holder: None, heard: None, hold: Some(freeze("7f3a91")) }));
    assert!(matches!(client.lock("run1"), Locked::Held(hold) if hold == freeze("7f3a91")));
    assert_eq!(client.well(Op::Lift { id: "000000".into() }), Answer::Locked(Locked::Held(freeze("7f3a91"))));
    assert_eq!(client.well(Op::Lift { id: "7f3a91".into() }), Answer::Done);
    assert_eq!(client.well(Op::Lift { id: "7f3a91".into() }), Answer::Done, "the same again changes nothing");
    assert!(matches!(client.lock("run1"), Locked::Yes { epoch: 1, .. }), "a freeze is no run");
}

#[test]
fn a_host_where_a_run_is_at_work_is_not_frozen_under_it() {
    let (_directory, root) = root();
    let (_holder, _) = Client::locked(&root, "run1");
    let mut client = Client::start(&root);
    assert!(matches!(client.well(Op::Hold(freeze("7f3a91"))), Answer::Locked(Locked::Busy(RunInfo { run, .. })) if run == "run1"));
    let Answer::LockState(state) = client.well(Op::LockState) else { panic!() };
    assert_eq!((state.holder.unwrap().run.as_str(), state.hold), ("run1", None));
    assert!(state.heard.unwrap() < 10);
    assert!(!root.join(".deployer/hold").exists());
}

#[test]
fn a_run_that_is_ended_stops_what_it_runs_before_its_lock_is_free() {
    let (_directory, root) = root();
    let (mut holder, _) = Client::locked(&root, "run1");
    holder.upload("a", "run1", "a");
    let build = Exec { directory: Some("releases/a".into()), ..shell("echo begun; sleep 600") };
    let build = holder.request(Op::Build { release: id("a"), exec: build });
    holder.wait_for(build, "begun");
    let mut client = Client::start(&root);
    assert_eq!(client.refused(end("run2")).code, Code::Refused, "another run than the holder's");
    assert_eq!(client.well(end("run1")), Answer::RunEnded(RunEnd::Stopped));
    assert!(matches!(client.lock("run2"), Locked::Yes { epoch: 2, .. }));
    assert_eq!(client.record("a").state, crate::release::State::Failed);
    assert!(!root.join(".deployer/end").exists());
    until("the end of the helper", || holder.child.try_wait().unwrap().is_some());
    assert_eq!(client.well(Op::Unlock), Answer::Done);
    assert_eq!(client.well(end("run1")), Answer::RunEnded(RunEnd::Gone));
}

#[test]
fn a_helper_that_cannot_stop_by_itself_is_killed_and_only_that_frees_its_lock() {
    let (_directory, root) = root();
    let (holder, _) = Client::locked(&root, "run1");
    let pid = Pid::from_raw(i32::try_from(holder.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let mut client = Client::start(&root);
    assert!(matches!(client.lock("run2"), Locked::Busy(_)), "the control: a stopped helper holds its lock");
    assert_eq!(client.well(end("run1")), Answer::RunEnded(RunEnd::Killed));
    assert!(matches!(client.lock("run2"), Locked::Yes { .. }));
}

#[test]
fn a_process_that_only_has_the_pid_of_a_holder_is_left_alone() {
    let (_directory, root) = root();
    let (_holder, _) = Client::locked(&root, "run1");
    let path = root.join(".deployer/holder");
    let mut holder: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    holder["started"] = serde_json::json!(1);
    fs::write(&path, holder.to_string()).unwrap();
    let mut client = Client::start(&root);
    assert_eq!(client.refused(end("run1")).code, Code::Refused);
    assert!(matches!(client.lock("run2"), Locked::Busy(RunInfo { run, .. }) if run == "unknown"));
}
