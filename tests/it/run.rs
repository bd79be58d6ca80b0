//! One command on all hosts: gathered, streamed or raw.

use std::fs;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::World;

#[test]
fn hosts_that_say_the_same_are_folded() {
    let world = World::new().local_hosts(&["app1", "app2", "app3"]);
    world.deployer(["run", "--", "echo", "$HOME; echo"]).is(
        Exit::Ok,
        str![[r"
── app[1-3] (3 hosts) ──
$HOME; echo

"]],
        str![[r"
boskel → prod · run · 3 hosts
[<t>] connect  3/3
[<t>] run  3/3

3 ok in <t>

"]],
    );
    world.deployer(["run", "--", "[ $DEPLOYER_HOST != app2 ] || echo other; echo same"]).is(
        Exit::Ok,
        str![[r"
── app[1,3] (2 hosts) ──
same
── app2 (1 host) ──
other
same

"]],
        str![[r"
boskel → prod · run · 3 hosts
[<t>] connect  3/3
[<t>] run  3/3

3 ok in <t>

"]],
    );
}

#[test]
fn a_command_that_fails_somewhere_is_told_with_the_host() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    world.deployer(["run", "--", "echo out; echo err >&2; [ $DEPLOYER_HOST = app1 ]"]).is(
        Exit::RemoteCommand,
        str![[r"
── app1 (1 host) ──
out
err
── app2 (1 host) ── ── exit 1
out
err

"]],
        str![[r"
boskel → prod · run · 2 hosts
[<t>] connect  2/2
[<t>] run  2/2

error: the command failed on `app2`
  state: prod runs nothing on 2/2 hosts

1 ok, 1 failed in <t>

"]],
    );
    world.deployer(["run", "-H", "app1", "--", "no-such-program", "x"]).is(
        Exit::RemoteCommand,
        str![[r"
── app1 (1 host) ── ── `no-such-program` cannot be started: no such file or directory

"]],
        str![[r"
boskel → prod · run · 1 host
[<t>] connect  1/1
[<t>] ✗ app1 run failed after <t>: `no-such-program` cannot be started: no such file or directory: no-such-program x
[<t>] ✗ run  0/1  1 failed: app1

✗ app1 · run · failed after <t>
  reason: `no-such-program` cannot be started: no such file or directory
error: the command failed on `app1`
  state: prod runs nothing on 1/1 host

0 ok, 1 failed in <t>

"]],
    );
}

#[test]
fn one_host_raw_is_a_plain_pipe_with_the_exit_code_of_the_command() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    world.deployer(["run", "-H", "app1", "--raw", "--", "printf 'no newline'; echo oops >&2; exit 7"]).ends(
        7,
        str![[r"
no newline

"]],
        str![[r"
oops

"]],
    );
    world.deployer(["run", "--raw", "--", "true"]).is(
        Exit::Usage,
        str![""],
        str![[r"
error: `--raw` is for one host, and 2 are selected
  hint: narrow with `-H HOST`, or add `--once`

"]],
    );
}

#[test]
fn a_stream_prints_lines_as_they_come_behind_their_host() {
    let world = World::new().local_hosts(&["app1"]);
    world.deployer(["run", "--stream", "--", "echo one; echo two >&2; printf three"]).is(
        Exit::Ok,
        str![[r"
app1| one
app1| two
app1| three

"]],
        str![[r"
boskel → prod · run · 1 host
[<t>] connect  1/1
[<t>] run  1/1

1 ok in <t>

"]],
    );
}

#[test]
fn a_command_runs_where_and_as_whom_it_was_asked_to() {
    let world = World::new().with_hosts(&["app1"]);
    world.commit(&[("greeting", "hello\n")]);
    world.deploy("master");
    world.deployer(["run", "--cwd", "{current}", "--raw", "--", "cat greeting"]).ends(
        0,
        str![[r"
hello

"]],
        str![""],
    );
    world.deployer(["run", "--once", "--", "basename \"$PWD\""]).is(
        Exit::Ok,
        str![[r"
── app1 (1 host) ──
home

"]],
        str![[r"
boskel → prod · run · 1 host
[<t>] connect  1/1
[<t>] run  1/1

1 ok in <t>

"]],
    );
}

#[test]
fn another_user_is_asked_of_sudo_without_a_prompt() {
    let world = World::new().local_hosts(&["app1"]);
    world.program("sudo", "echo \"$*\" > \"$(dirname \"$0\")/asked\"\nwhile [ \"$1\" != -- ]; do shift; done; shift\nexec \"$@\"\n");
    let run = world.deployer(["run", "--as", "www-data", "--raw", "--", "echo", "as another"]);
    // Where the helper's PATH is not ours, the system's sudo, or none, is asked.
    if let Ok(asked) = fs::read_to_string(world.path("bin/asked")) {
        run.ends(0, str!["as another\n"], str![]);
        assert!(asked.starts_with("-n -u www-data -- "), "{asked}");
    } else {
        run.is(
            Exit::RemoteCommand,
            str![""],
            str![[r"
[<t>] ✗ app1 run failed after <t>: `sudo` is not installed, and the command is to run as another user: echo 'as another'
✗ app1 · run · failed after <t>
  reason: `sudo` is not installed, and the command is to run as another user

"]],
        );
    }
}

#[test]
fn a_host_that_cannot_be_reached_is_told_apart_from_a_command_that_fails() {
    let world = World::new().ssh_hosts("ssh2", &["app1", "app2"]);
    world.sandbox.host("app2").unwrap().stop();
    world.deployer(["run", "--", "echo", "here"]).is(
        Exit::Unreachable,
        str![[r"
── app1 (1 host) ──
here
── app2 (1 host) ── ── could not connect: `127.0.0.1` refused the connection to port <port>

"]],
        str![[r"
boskel → prod · run · 2 hosts
[<t>] ✗ app2 connect failed after <t>: `127.0.0.1` refused the connection to port <port>
[<t>] ✗ connect  1/2  1 failed: app2
[<t>] run  1/1

✗ app2 · connect · failed after <t>
  reason: `127.0.0.1` refused the connection to port <port>
error: `app2` cannot be reached
  app2 | `127.0.0.1` refused the connection to port <port>
  state: prod runs nothing on 1/1 host
  hint: is sshd running on `127.0.0.1` port <port>? set `port` for this host if it listens elsewhere

1 ok, 1 unreachable in <t>

"]],
    );
}
