//! Nobody activates unless all are built, waves go in order, and what fails its check is put back.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::World;

/// Serves `current/health` of a root as the status of every answer, as an application that is restarted by its files would.
fn serve(root: &Path) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let health = root.join("current/health");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let status = fs::read_to_string(&health).unwrap_or_else(|_| "404 Not Found".to_owned());
            let _ = stream.write_all(format!("HTTP/1.1 {}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", status.trim()).as_bytes());
        }
    });
    port
}

#[test]
fn failures_within_the_budget_let_the_other_hosts_go_on() {
    let world =
        World::new().local_hosts(&["app1", "app2", "app3"]).config("[defaults.build]\ncommand = '[ \"$DEPLOYER_HOST\" != app2 ]'\n");
    world.commit(&[("number", "one\n")]);
    world.deployer(["deploy", "--rev", "master", "--max-failures", "1"]).is(
        Exit::Partial,
        str![""],
        str![[r#"
boskel → prod · 3 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  3/3
[<t>] lock  3/3
[<t>] changes  nothing..e1a9e0b
[<t>] release  <release>
[<t>] push  3/3 <size> sent per host
[<t>] link  3/3
[<t>] ✗ app2 build failed after <t> (exit 1): sh -eu -c '[ "$DEPLOYER_HOST" != app2 ]'
[<t>] ✗ build  2/3  1 failed: app2
[<t>] activate  2/2  current → <release>
[<t>] prune  3/3  kept 1, removed 0

✗ app2 · build · exit 1 after <t>

Deployed e1a9e0b to prod: 2 of 3 hosts in <t>; prod runs e1a9e0b on 2/3 hosts and nothing on 1/3 hosts
  finish  deployer deploy -e prod --rev master --max-failures 1 -H app2

"#]],
    );
    assert_eq!(world.read_current("app1", "number"), "one\n");
    assert!(!world.current("app2").exists());
}

#[test]
fn waves_activate_in_the_order_of_the_file() {
    let world = World::new()
        .local_hosts(&["app1", "app2", "app3", "app4"])
        .config("[env.prod]\nwaves = [\"1\", \"50%\", \"100%\"]\n[env.prod.activate]\nrun = 'echo \"$DEPLOYER_HOST\" >> <tmp>/order'\n");
    world.commit(&[("number", "one\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 4 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  4/4
[<t>] lock  4/4
[<t>] changes  nothing..e1a9e0b
[<t>] release  <release>
[<t>] push  4/4 <size> sent per host
[<t>] link  4/4
[<t>] wave 1  1/1  app1
[<t>] wave 2  1/1  app2
[<t>] wave 3  2/2  app[3-4]
[<t>] prune  4/4  kept 1, removed 0

Deployed e1a9e0b to prod: 4 hosts in <t> (was nothing)

"#]],
    );
    let order = fs::read_to_string(world.path("order")).unwrap();
    let order: Vec<&str> = order.lines().collect();
    assert_eq!(order[..2], ["app1", "app2"]);
    assert_eq!(order.len(), 4);
}

#[test]
fn a_failed_activation_puts_every_switched_host_back() {
    let activate = "[env.prod]\nwaves = [\"1\", \"100%\"]\n[env.prod.activate]\nrun = 'cat number; [ \"$DEPLOYER_HOST\" = app1 ] || ! grep -q two number'\n";
    let world = World::new().local_hosts(&["app1", "app2"]).config(activate);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.commit(&[("number", "two\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::RolledBack,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  8899d14 master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2
[<t>] lock  2/2
[<t>] changes  e1a9e0b..8899d14 · 1 commit, 1 file
[<t>] release  <release>
[<t>] push  2/2 <size> sent per host
[<t>] link  2/2
[<t>] wave 1  1/1  app1
[<t>] ✗ app2 activate failed after <t> (exit 1): sh -eu -c 'cat number; [ "$DEPLOYER_HOST" = app1 ] || ! grep -q two number'
app2| two
[<t>] ✗ wave 2  0/1  1 failed: app2
[<t>] revert  2/2  current → <release>

✗ app2 · activate · exit 1 after <t>
  app2| two

Rolled back. prod runs e1a9e0b on 2/2 hosts; 8899d14 is marked bad and will not be chosen again.
  look  deployer logs -e prod -H app2 --step activate

"#]],
    );
    assert_eq!((world.read_current("app1", "number"), world.read_current("app2", "number")), ("one\n".to_owned(), "one\n".to_owned()));
    world.deployer(["releases"]).is(
        Exit::Ok,
        str![[r"
prod · 2 hosts · 2 releases
     ID  RELEASE  REF  STATE  WHEN  BY  HOSTS  LIVE ON
     -  <release>  master  bad  <ago>  ada@<here>  2/2  -
  *  ~0  <release>  master  confirmed  <ago>  ada@<here>  2/2  app[1-2]

"]],
        str![""],
    );
}

#[test]
fn a_first_deploy_that_fails_its_check_puts_back_no_current() {
    let world = World::new().local_hosts(&["app1"]).config("[env.prod.check]\nrun = \"echo broken; false\"\nretries = 2\nevery = \"0s\"\n");
    world.commit(&[("number", "one\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::RolledBack,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  nothing..e1a9e0b
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] activate  1/1
[<t>] ✗ app1 check failed after <t>: not healthy after 2 tries: the command exited with status 1
app1| broken
app1| check 1 of 2: the command exited with status 1
app1| broken
app1| check 2 of 2: the command exited with status 1
[<t>] ✗ check  0/1  1 failed: app1
[<t>] revert  1/1  no current, as before

✗ app1 · check · failed after <t>
  reason: not healthy after 2 tries: the command exited with status 1
  app1| broken
  app1| check 1 of 2: the command exited with status 1
  app1| broken
  app1| check 2 of 2: the command exited with status 1

Rolled back. prod runs nothing on 1/1 host; e1a9e0b is marked bad and will not be chosen again.
  look  deployer logs -e prod -H app1 --step check

"#]],
    );
    assert!(fs::symlink_metadata(world.current("app1")).is_err());
    world.deployer(["logs", "--step", "check"]).is(
        Exit::Ok,
        str![[r"
app1| broken
app1| check 1 of 2: the command exited with status 1
app1| broken
app1| check 2 of 2: the command exited with status 1
✗ app1 check failed after <t>: not healthy after 2 tries: the command exited with status 1

"]],
        str![""],
    );
}

#[test]
fn a_url_is_asked_on_the_host_and_a_bad_answer_puts_it_back() {
    let mut world = World::new().local_hosts(&["app1"]);
    let port = serve(world.root("app1"));
    world.reconfigure(&format!("[env.prod.check]\nurl = \"http://127.0.0.1:{port}/healthz\"\nretries = 2\nevery = \"0s\"\n"));
    world.commit(&[("health", "200 OK\n")]);
    world.deploy("master");
    world.commit(&[("health", "503 Service Unavailable\n")]);
    let mut run = world.deployer(["deploy", "--rev", "master"]);
    run.stderr = run.stderr.replace(&port.to_string(), "<port>");
    run.is(
        Exit::RolledBack,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  4c35551 master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  1df7bff..4c35551 · 1 commit, 1 file
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] activate  1/1
[<t>] ✗ app1 check failed after <t>: not healthy after 2 tries: the status is 503
app1| check 1 of 2: the status is 503
app1| check 2 of 2: the status is 503
[<t>] ✗ check  0/1  1 failed: app1
[<t>] revert  1/1  current → <release>

✗ app1 · check · failed after <t>
  reason: not healthy after 2 tries: the status is 503
  app1| check 1 of 2: the status is 503
  app1| check 2 of 2: the status is 503

Rolled back. prod runs 1df7bff on 1/1 host; 4c35551 is marked bad and will not be chosen again.
  look  deployer logs -e prod -H app1 --step check

"#]],
    );
    assert_eq!(world.read_current("app1", "health"), "200 OK\n");
}

#[test]
fn a_confirmed_release_is_recorded_and_revisions_log_has_the_lines_of_capistrano() {
    let world = World::new().local_hosts(&["app1"]);
    let commit = world.commit(&[("number", "one\n")]);
    world.deploy("master");
    let record = fs::read_to_string(world.root("app1").join(format!(".deployer/rel/{}.json", world.live("app1")))).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["state"], "confirmed", "{record:#}");
    world.deployer(["rollback"]).exits(Exit::Config);
    world.commit(&[("number", "two\n")]);
    world.deploy("master");
    world.deployer(["rollback"]).ok();
    let log = fs::read_to_string(world.root("app1").join("revisions.log")).unwrap();
    snapbox::assert_data_eq!(
        world.plain(&log),
        str![[r"
Branch master (at e1a9e0bdc17c34a904c4b761e980a7a60fda079e) deployed as release <release> by ada@<here>
Branch master (at 8899d1400c29fc653bd82d430019ad63c21a9e98) deployed as release <release> by ada@<here>
ada@<here> rolled back to release <release>

"]]
    );
    assert_eq!(world.read_current("app1", "REVISION").trim(), commit);
}
