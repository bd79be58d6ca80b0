//! What is live where, and whether it is still what was deployed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{Run, World};
use crate::running::until;
use crate::scratch::git_in;

#[test]
fn status_groups_hosts_by_what_they_serve() {
    let world = World::new().local_hosts(&["app1", "app2", "app3"]);
    world.deployer(["status"]).is(
        Exit::Ok,
        str![[r"
prod · 3 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app[1-3]  -  -  -  -  nothing deployed yet

"]],
        str![""],
    );
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.commit(&[("number", "two\n")]);
    world.deployer(["deploy", "--rev", "master", "-H", "app[2-3]"]).ok();
    world.deployer(["status"]).is(
        Exit::Ok,
        str![[r"
prod · 3 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app1  e1a9e0b  <release> <t>  ada@<here>  1 commit behind
  app[2-3]  8899d14  <release> <t>  ada@<here>
  Bring the others to 8899d14:  deployer deploy -e prod --rev 8899d14 -H app1

"]],
        str![""],
    );
    world.deployer(["status", "--exit-code"]).exits(Exit::Pending);
    world.commit(&[("number", "three\n")]);
    world.deploy("master");
    world.deployer(["status", "--exit-code"]).exits(Exit::Ok);
    let run = world.deployer(["status", "--json"]);
    run.ok();
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(run.stderr.is_empty() && document.to_string().contains("app3"), "{document:#}");
}

#[test]
fn verifying_finds_what_was_modified_added_and_removed() {
    let world = World::new().local_hosts(&["app1"]).config("[defaults.build]\ncommand = \"echo built > output\"\n");
    world.commit(&[("changed", "one\n"), ("lost", "one\n"), ("kept", "one\n"), ("mode", "one\n")]);
    world.deploy("master");
    world.deployer(["status", "--verify", "--exit-code"]).is(
        Exit::Ok,
        str![[r"
prod · 1 host · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app1  cb798ee  <release> <t>  ada@<here>

"]],
        str![""],
    );
    let live = world.current("app1").canonicalize().unwrap();
    fs::write(live.join("changed"), "two\n").unwrap();
    fs::write(live.join("added"), "new\n").unwrap();
    fs::remove_file(live.join("lost")).unwrap();
    world.deployer(["status", "--verify", "--exit-code"]).is(
        Exit::Pending,
        str![[r"
prod · 1 host · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app1  cb798ee  <release> <t>  ada@<here>  3 files differ from what was deployed
  app1: added was added
  app1: changed was modified
  app1: lost is missing

"]],
        str![""],
    );
}

#[test]
fn machines_read_what_differs_on_each_host_and_a_fleet_is_uniform_by_what_it_is_made_of() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    world.commit(&[("changed", "one\n"), ("lost", "one\n")]);
    world.deployer(["deploy", "--rev", "master", "-H", "app1"]).ok();
    world.deployer(["status", "--exit-code"]).exits(Exit::Pending);
    // A release is named by the second in which it is begun.
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = second();
    until("the next second", Duration::from_secs(3), || second() > begun);
    world.deployer(["deploy", "--rev", "master", "-H", "app2"]).ok();
    assert_ne!(world.live("app1"), world.live("app2"), "the control: two runs make two releases");
    world.deployer(["status", "--exit-code"]).ok();
    let live = world.current("app2").canonicalize().unwrap();
    fs::write(live.join("changed"), "two\n").unwrap();
    fs::write(live.join("added"), "new\n").unwrap();
    fs::remove_file(live.join("lost")).unwrap();
    world.deployer(["status"]).ok();
    world.deployer(["status", "--exit-code"]).exits(Exit::Pending);
    let run = world.deployer(["status", "--verify", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["rows"][0]["drift"], serde_json::json!([]));
    let drift = serde_json::json!([
        { "path": "added", "kind": "added" },
        { "path": "changed", "kind": "modified" },
        { "path": "lost", "kind": "missing" },
    ]);
    assert_eq!(document["rows"][1]["drift"], drift);
    let run = world.deployer(["status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["rows"][1].get("drift"), None, "nobody looked");
}

#[test]
fn what_still_runs_from_an_old_release_is_told_after_the_deploy_and_by_status() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    let mut server = std::process::Command::new("sleep").arg("600").current_dir(world.current("app1")).spawn().unwrap();
    world.deployer(["status", "--exit-code"]).ok();
    world.commit(&[("number", "two\n")]);
    let deployed = world.deployer(["deploy", "--rev", "master"]);
    deployed.ok();
    let told = format!("process {} (sleep) still runs from ", server.id());
    assert!(deployed.stderr.contains(&told), "{told}: {deployed}");
    let status = world.deployer(["status", "--exit-code"]);
    status.exits(Exit::Pending);
    assert!(status.stdout.contains(&told), "{status}");
    server.kill().unwrap();
    server.wait().unwrap();
    world.deployer(["status", "--exit-code"]).ok();
}

#[test]
fn releases_are_listed_with_their_state() {
    let world = World::new().local_hosts(&["app1", "app2"]).config("[defaults.build]\ncommand = \"! grep -q bad number\"\n");
    world.deployer(["releases"]).is(
        Exit::Ok,
        str![[r"
prod · 2 hosts · 0 releases
    ID  RELEASE  REF  STATE  WHEN  BY  HOSTS  LIVE ON

"]],
        str![""],
    );
    for text in ["one\n", "two\n"] {
        world.commit(&[("number", text)]);
        world.deploy("master");
    }
    world.commit(&[("number", "bad\n")]);
    world.deployer(["deploy", "--rev", "master"]).exits(Exit::BuildFailed);
    world.deployer(["releases"]).is(
        Exit::Ok,
        str![[r"
prod · 2 hosts · 3 releases
     ID  RELEASE  REF  STATE  WHEN  BY  HOSTS  LIVE ON
     -  <release>  master  failed  <ago>  ada@<here>  2/2  -
  *  ~0  <release>  master  confirmed  <ago>  ada@<here>  2/2  app[1-2]
     ~1  <release>  master  retired  <ago>  ada@<here>  2/2  -

"]],
        str![""],
    );
}

/// Answers `GET /app1` with 200, `GET /app2` with 503 and nothing else at all, for as long as the test runs.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 512];
            let count = stream.read(&mut request).unwrap_or(0);
            let answer: &[u8] = match &request[..count] {
                request if request.starts_with(b"GET /app1 ") => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                request if request.starts_with(b"GET /app2 ") => b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                _ => {
                    silent.push(stream);
                    continue;
                }
            };
            let _ = stream.write_all(answer);
        }
    });
    port
}

#[test]
fn status_tells_which_hosts_are_well_and_waits_for_none_that_is_silent() {
    let mut world = World::new().local_hosts(&["app1", "app2", "app3"]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.deployer(["status", "--exit-code"]).ok();
    let port = server();
    let url = format!("http://127.0.0.1:{port}/{{host}}");
    world.reconfigure(&format!("[defaults.check]\nurl = \"{url}\"\ntimeout = \"700ms\"\nretries = 50\nstay-up = \"50s\""));
    let began = Instant::now();
    let run = world.deployer(["status", "--exit-code"]);
    Run { stdout: run.stdout.replace(&port.to_string(), "<port>"), ..run }.is(
        Exit::Pending,
        str![[r"
prod · 3 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY  HEALTH
  app1  e1a9e0b  <release> <t>  ada@<here>  1 ok
  app2  e1a9e0b  <release> <t>  ada@<here>  1 failed: the status is 503
  app3  e1a9e0b  <release> <t>  ada@<here>  1 failed: `http://127.0.0.1:<port>/app3`: timed out

"]],
        str![""],
    );
    assert!(began.elapsed() < Duration::from_secs(20), "one try, and no staying up: {:?}", began.elapsed());
    world.deployer(["status", "--exit-code", "-H", "app1"]).is(
        Exit::Ok,
        str![[r"
prod · 1 host · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY  HEALTH
  app1  e1a9e0b  <release> <t>  ada@<here>  1 ok

"]],
        str![""],
    );
    let run = world.deployer(["status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["rows"][0]["health"]["state"], "ok");
    assert_eq!(document["rows"][1]["health"], serde_json::json!({ "state": "failed", "why": "the status is 503" }));
}

#[test]
fn a_check_that_is_a_command_is_run_by_status_only_where_that_is_asked_for() {
    let mut world = World::new().local_hosts(&["app1", "app2"]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.reconfigure("[defaults.check]\nrun = \"touch $DEPLOYER_ROOT/checked; test $DEPLOYER_HOST = app1\"");
    world.deployer(["status", "--exit-code"]).is(
        Exit::Ok,
        str![[r"
prod · 2 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY  HEALTH
  app[1-2]  e1a9e0b  <release> <t>  ada@<here>  not asked
  Run the commands that check:  deployer status -e prod --check

"]],
        str![""],
    );
    assert!(!world.root("app1").join("checked").exists());
    world.deployer(["status", "--check", "--exit-code"]).is(
        Exit::Pending,
        str![[r"
prod · 2 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY  HEALTH
  app1  e1a9e0b  <release> <t>  ada@<here>  1 ok
  app2  e1a9e0b  <release> <t>  ada@<here>  1 failed: the command exited with status 1

"]],
        str![""],
    );
    assert!(world.root("app1").join("checked").exists(), "the control: it leaves a trace where it runs");
}

#[test]
fn status_tells_how_far_hosts_and_the_branch_are_from_what_most_hosts_serve() {
    let mut world = World::new().local_hosts(&["app1", "app2", "app3"]);
    world.commit(&[("number", "one\n")]);
    world.deploy("master");
    world.commit(&[("number", "two\n")]);
    world.commit(&[("number", "three\n")]);
    world.deployer(["deploy", "--rev", "master", "-H", "app[2-3]"]).ok();
    world.commit(&[("number", "four\n")]);
    world.reconfigure("rev = \"master\"");
    world.deployer(["status"]).is(
        Exit::Ok,
        str![[r"
prod · 3 hosts · not locked
  HOSTS  LIVE  RELEASE  SINCE  BY
  app1  e1a9e0b  <release> <t>  ada@<here>  2 commits behind
  app[2-3]  0b2540c  <release> <t>  ada@<here>
  master is 1 commit ahead of 0b2540c
  Bring the others to 0b2540c:  deployer deploy -e prod --rev 0b2540c -H app1

"]],
        str![""],
    );
    // Where a history ends early, nothing is counted.
    let shallow = world.path("shallow");
    let from = format!("file://{}", world.repository.directory.display());
    git_in(&world.repository.directory, ["clone", "--quiet", "--depth", "1", &from, shallow.to_str().unwrap()], b"");
    fs::copy(world.repository.directory.join("deploy.toml"), shallow.join("deploy.toml")).unwrap();
    let run = world.deployer(["-C", shallow.to_str().unwrap(), "status"]);
    run.ok();
    assert!(run.stdout.contains("app1") && !run.stdout.contains("behind") && !run.stdout.contains("ahead"), "{run}");
}
