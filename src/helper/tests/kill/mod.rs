//! The helper killed at every system call that changes a disk: of an activation, of a revert, and of the recovery from either.
//!
//! `strace` delivers SIGKILL on the n-th entry of a call, for n = 1, 2 … until the work completes. After each kill another helper
//! takes the lock, and what is on the disk must be one whole release, served by what was restarted last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::thread;

use crate::client::*;
use crate::op::*;
use crate::release::State;

/// The calls by which the helper changes what is on a disk, holds the lock, or speaks. Reads are left out: a kill between two changes is
/// the same as one before the second.
const CALLS: [&str; 7] = ["renameat", "fsync", "symlinkat", "unlinkat", "mkdirat", "flock", "write"];

/// Other calls that change a disk. Where the helper comes to make one of them, it belongs into `CALLS`.
const OTHERS: &str = "?rename,?renameat2,?link,?linkat,?symlink,?unlink,?mkdir,?rmdir,?mknod,?mknodat,?pwrite64,?writev,?pwritev,?pwritev2,\
                      ?copy_file_range,?sendfile,?truncate,?ftruncate,?fallocate,?fdatasync,?sync_file_range,?sync,?syncfs";

/// What `strace` writes of the end that it brought.
const KILLED: &str = "+++ killed by SIGKILL +++";

/// Runs `work` in a helper under `strace` with `arguments`. Gives how it ended, and what was traced.
fn traced(root: &Path, arguments: &[&str], work: &dyn Fn(&mut Client)) -> (thread::Result<()>, String) {
    let log = root.with_extension("trace");
    let mut strace = Process::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log).args(arguments).arg(HELPER).stderr(Stdio::null());
    let ended = catch_unwind(AssertUnwindSafe(|| Client::start_under(strace, root))).and_then(|mut client| {
        let ended = catch_unwind(AssertUnwindSafe(|| work(&mut client)));
        client.close_input();
        // Before that the trace is not whole.
        until("the end of the helper", || client.child.try_wait().unwrap().is_some());
        ended
    });
    if ended.is_err() {
        until("the end of the trace", || fs::read_to_string(&log).unwrap().contains(KILLED));
    }
    (ended, fs::read_to_string(log).unwrap())
}

/// Runs `work` in a helper that is killed at the `n`th `call` of one of its threads. Says whether it was; what else fails is a failure.
fn is_killed(root: &Path, call: &str, n: u32, work: &dyn Fn(&mut Client)) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let (ended, trace) = traced(root, &["-e", &format!("trace={call}"), "-e", &inject], work);
    let is_killed = trace.contains(KILLED);
    // A helper that is gone panics in the client, which is what is meant to happen here.
    if let (false, Err(panic)) = (is_killed, ended) {
        resume_unwind(panic);
    }
    is_killed
}

/// The calls of `CALLS` that `work` makes. It must make none that would be left out.
fn calls(prepare: &dyn Fn(&Path), work: &dyn Fn(&mut Client)) -> BTreeSet<&'static str> {
    let (_directory, root) = root();
    prepare(&root);
    let (ended, trace) = traced(&root, &["-e", &format!("trace={OTHERS},{}", CALLS.join(","))], work);
    ended.unwrap();
    let names = trace.lines().filter_map(|line| line.split_once('(')?.0.split_whitespace().nth(1));
    names.map(|name| *CALLS.iter().find(|call| **call == name).unwrap_or_else(|| panic!("`{name}` changes the disk too"))).collect()
}

/// Kills at every point of `work`, until a run of it ends by itself for each call, and checks what the next helper finds. `needed` are the
/// calls that it cannot do without.
fn kill_everywhere(needed: &[&str], prepare: &dyn Fn(&Path), work: &dyn Fn(&mut Client), check: &dyn Fn(&mut Client, &str)) {
    let made = calls(prepare, work);
    assert!(needed.iter().all(|call| made.contains(call)), "only {made:?} are made");
    let mut kills = BTreeMap::new();
    for call in CALLS {
        for n in 1.. {
            let (_directory, root) = root();
            prepare(&root);
            if !is_killed(&root, call, n, work) {
                break;
            }
            kills.insert(call, n);
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
    eprintln!("kills: {kills:?}");
    assert_eq!(kills.keys().copied().collect::<BTreeSet<_>>(), made, "every call that is made was killed at");
}

pub fn has_strace() -> bool {
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
    kill_everywhere(&["renameat", "fsync", "symlinkat", "flock", "write"], &prepare, &work, &check);
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
        client.well(Op::Revert { release: id("b"), reason: "a later wave failed".into(), bad: true });
        client.well(Op::Unlock);
    };
    let check = |next: &mut Client, at: &str| {
        let root = next.root.clone();
        if live(&root).as_deref() == Some("releases/b") {
            next.well(Op::Revert { release: id("b"), reason: "again".into(), bad: true });
        }
        assert_eq!(live(&root).as_deref(), Some("releases/a"), "{at}");
        assert!(matches!(state(next, "b"), State::Bad | State::Retired), "{at}");
    };
    kill_everywhere(&["renameat", "fsync", "symlinkat", "flock", "write"], &prepare, &work, &check);
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
    kill_everywhere(&["renameat", "fsync", "symlinkat", "flock", "write"], &prepare, &work, &check);
}
