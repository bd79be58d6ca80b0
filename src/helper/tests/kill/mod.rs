//! The helper killed at every system call that changes a disk: of an activation, of a revert, and of the recovery from either.
//!
//! `strace` delivers SIGKILL on the n-th entry of a call, for n = 1, 2 … until the work completes. After each kill another helper
//! takes the lock, and what is on the disk must be one whole release, served by what was restarted last.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command as Process, Stdio};

use crate::client::*;
use crate::op::*;
use crate::release::State;

/// The calls by which the helper changes what is on a disk or holds the lock. Reads are left out: a kill between two changes is the
/// same as one before the second.
const CALLS: [&str; 7] = ["renameat", "fsync", "symlinkat", "unlinkat", "mkdirat", "flock", "write"];

/// Runs `work` in a helper that is killed at the `n`th `call`. Says whether it was.
fn is_killed(root: &Path, call: &str, n: u32, work: &dyn Fn(&mut Client)) -> bool {
    let mut strace = Process::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:signal=KILL:when={n}"),
        HELPER,
    ]);
    strace.stderr(Stdio::null());
    // A helper that is gone panics in the client, which is what is meant to happen here.
    catch_unwind(AssertUnwindSafe(|| work(&mut Client::start_under(strace, root)))).is_err()
}

/// Kills at every point of `work` and checks what the next helper finds. Gives the number of kills.
fn kill_everywhere(prepare: &dyn Fn(&Path), work: &dyn Fn(&mut Client), check: &dyn Fn(&mut Client, &str)) -> u32 {
    let mut kills = 0;
    for call in CALLS {
        for n in 1.. {
            let (_directory, root) = root();
            prepare(&root);
            if !is_killed(&root, call, n, work) {
                break;
            }
            kills += 1;
            let (mut next, recovered) = Client::locked(&root, "run3");
            let at = format!("{call} {n}: {recovered:?}");
            assert_eq!(next.read_facts().unresolved, None, "{at}");
            let live_now = live(&root).unwrap_or_else(|| panic!("{at}: nothing is live"));
            let serving = live_now.strip_prefix("releases/").unwrap();
            assert_eq!(next.record(serving).state, State::Confirmed, "{at}");
            assert!(restarts(&root).ends_with(serving), "{at}: {serving} is live, and these were restarted: {}", restarts(&root));
            let Answer::Verified { differences, .. } = next.well(Op::Verify { release: id(serving) }) else { panic!("{at}") };
            assert_eq!(differences, [], "{at}");
            check(&mut next, &at);
            next.well(Op::Unlock);
            drop(next);
            let (_, again) = Client::locked(&root, "run4");
            assert_eq!(again, Vec::<String>::new(), "{at}: recovery leaves nothing for another");
        }
    }
    eprintln!("{kills} kills");
    kills
}

fn has_strace() -> bool {
    let is_here = Process::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success());
    if !is_here {
        eprintln!("skipped: there is no `strace` that may trace");
    }
    is_here
}

fn with_two_releases(root: &Path) -> Client {
    let (mut client, _) = Client::locked(root, "run1");
    client.deployed("a", "run1", None);
    client.sealed("b", "run1");
    client
}

fn state(client: &mut Client, name: &str) -> State {
    client.record(name).state
}

#[test]
fn a_helper_killed_at_any_change_of_an_activation_leaves_one_whole_release_and_the_rerun_completes() {
    if !has_strace() {
        return;
    }
    let prepare = |root: &Path| {
        with_two_releases(root).well(Op::Unlock);
    };
    let work = |client: &mut Client| {
        client.lock("run2");
        client.activate(activation("b", Some("a")));
        client.well(Op::Confirm { release: id("b") });
        client.well(Op::Unlock);
    };
    let check = |next: &mut Client, at: &str| {
        let root = next.root.clone();
        if live(&root).as_deref() == Some("releases/a") {
            assert_eq!(state(next, "b"), State::Sealed, "{at}");
            next.activate(activation("b", Some("a")));
            next.well(Op::Confirm { release: id("b") });
        }
        assert_eq!(
            (live(&root).as_deref(), state(next, "b"), state(next, "a")),
            (Some("releases/b"), State::Confirmed, State::Retired),
            "{at}"
        );
    };
    let kills = kill_everywhere(&prepare, &work, &check);
    assert!(kills > 24, "only {kills} kills: the calls are not those the helper makes");
}

#[test]
fn a_helper_killed_at_any_change_of_a_revert_leaves_the_old_or_the_new_release_and_never_one_that_was_not_restarted() {
    if !has_strace() {
        return;
    }
    // Of a release that this run had confirmed, which is what a failing later wave puts back.
    let prepare = |root: &Path| {
        let mut client = with_two_releases(root);
        client.activate(activation("b", Some("a")));
        client.well(Op::Confirm { release: id("b") });
        client.well(Op::Unlock);
    };
    let work = |client: &mut Client| {
        client.lock("run2");
        client.well(Op::Revert { release: id("b"), reason: "a later wave failed".into() });
        client.well(Op::Unlock);
    };
    let check = |next: &mut Client, at: &str| {
        let root = next.root.clone();
        if live(&root).as_deref() == Some("releases/b") {
            next.well(Op::Revert { release: id("b"), reason: "again".into() });
        }
        assert_eq!(live(&root).as_deref(), Some("releases/a"), "{at}");
        assert!(matches!(state(next, "b"), State::Bad | State::Retired), "{at}");
    };
    let kills = kill_everywhere(&prepare, &work, &check);
    assert!(kills > 15, "only {kills} kills: the calls are not those the helper makes");
}

#[test]
fn a_helper_killed_at_any_change_of_a_recovery_is_recovered_from_the_same_way() {
    if !has_strace() {
        return;
    }
    let prepare = |root: &Path| {
        let mut client = with_two_releases(root);
        client.activate(activation("b", Some("a")));
        client.kill();
    };
    let work = |client: &mut Client| {
        client.lock("run2");
        client.well(Op::Unlock);
    };
    let check = |next: &mut Client, at: &str| {
        assert_eq!((live(&next.root).as_deref(), state(next, "b")), (Some("releases/a"), State::Sealed), "{at}");
        assert!(fs::read_dir(next.root.join(".deployer/tmp")).unwrap().next().is_none(), "{at}");
    };
    let kills = kill_everywhere(&prepare, &work, &check);
    assert!(kills > 15, "only {kills} kills: the calls are not those the helper makes");
}
