//! Builds on hosts that reach the package index through their own connection, and nothing else: and nobody else does, then or later.

use std::fs;
use std::net::TcpStream;

use deployer::exit::Exit;
use deployer::sandbox::skip;

use crate::harness::World;
use crate::index::{age, publish_wheels, wheel};
use crate::index_tools::{program, publish_npm};
use crate::upstream::{Answer, Upstream};

/// Gets a page and every file on it, and tells what else it could reach.
const FETCH: &str = r##"
import os, re, socket, sys, urllib.request
index = os.environ["DEPLOYER_INDEX"]
assert os.environ["PIP_INDEX_URL"] == index + "/pypi/simple/", os.environ["PIP_INDEX_URL"]
assert "PIP_NO_INDEX" not in os.environ
get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
page = get(index + "/pypi/simple/a/").read().decode()
links = re.findall(r'href="([^"#]+)', page)

from urllib.parse import urljoin
bodies = [get(urljoin(index + "/pypi/simple/a/", link)).read() for link in links]
address = index.split("/")[2]
try:
    get("http://" + address + "/pypi/simple/a/")
    sys.exit("the index answers without its token")
except urllib.error.HTTPError as error:
    assert error.code == 404, error
try:
    socket.create_connection(sys.argv[1].split("//")[1].split(":"), 2)
    upstream = "reached"
except OSError:
    upstream = "not reached"
with open("got", "w") as out:
    print(address, len(bodies[0]), upstream, file=out)
"##;

fn config(upstream: &Upstream, build: &str) -> String {
    format!("{build}\n[index.pypi]\nurl = \"{}/simple/\"\n", upstream.url)
}

#[test]
fn a_build_reaches_the_index_through_its_own_connection_and_nothing_survives_it() {
    let upstream = Upstream::start();
    let world = World::new().with_hosts(&["app1", "app2"]);
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    // Longer than all that may be under way at one time.
    let content = vec![7; 9 * 1024 * 1024];
    publish_wheels(&upstream, &[("a", content.clone())]);
    let build = format!("[defaults.build]\ncommand = [\"{}\", \"fetch.py\", \"{}\"]\nnetwork = \"index\"", python.display(), upstream.url);
    let mut world = world.config(&config(&upstream, &build));
    world.commit(&[("fetch.py", FETCH)]);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.ok();
    let isolated = !run.stderr.contains("no network namespace can be made there");
    for host in ["app1", "app2"] {
        let got = world.read_current(host, "got");
        let [address, size, rest] = got.trim().splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{got}") };
        assert_eq!((size, rest), (content.len().to_string().as_str(), if isolated { "not reached" } else { "reached" }));
        assert!(TcpStream::connect(address).is_err(), "{address} still listens");
    }
    assert_eq!(upstream.count("/files/a-1-py3-none-any.whl"), 1, "two hosts, and one request");

    // What is held serves the next build, whatever became of the upstream.
    upstream.is_down(true);
    world.reconfigure(&config(&upstream, &build.replace("index\"", "index\"\nenv = { AGAIN = \"1\" }")));
    world.commit(&[("more", "more")]);
    world.deploy("master");
}

#[test]
fn a_build_that_asks_for_what_there_is_not_fails_and_says_so() {
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]);
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    let build = format!("[defaults.build]\ncommand = [\"{}\", \"fetch.py\", \"{}\"]\nnetwork = \"index\"", python.display(), upstream.url);
    let world = world.config(&config(&upstream, &build));
    world.commit(&[("fetch.py", FETCH)]);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("HTTP Error 404"), "{run}");
    assert!(run.stderr.contains("Nothing was activated"), "{run}");
    assert!(!run.stderr.contains("fetch.py http://127.0.0.1:0"), "{run}");
}

#[test]
fn an_index_that_cannot_be_opened_stops_the_run_before_any_host_is_touched() {
    let upstream = Upstream::start();
    let mut world = World::new().local_hosts(&["app1"]);
    world.reconfigure(
        &config(&upstream, "[defaults.build]\ncommand = \"true\"\nnetwork = \"index\"")
            .replace("/simple/\"\n", "/simple/\"\nsecret = { env = \"NOT_SET_ANYWHERE\" }\n"),
    );
    world.commit(&[("a", "a")]);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::Config);
    assert!(run.stderr.contains("the variable `NOT_SET_ANYWHERE` is not set"), "{run}");
    assert_eq!(world.releases("app1").len(), 0);
}

#[test]
fn pip_builds_a_release_on_a_host_that_has_nothing() {
    let upstream = Upstream::start();
    let world = World::new().with_hosts(&["app1"]);
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    let wheels = [("outer", "inner"), ("inner", "")].map(|(name, requires)| (name, wheel(&python, &world.path("srv"), name, requires)));
    publish_wheels(&upstream, &wheels);
    // The recipe calls `python3`, and a login need not find the usable one.
    let bin = python.parent().unwrap().display();
    let build = format!("[defaults.build]\nrecipe = \"pip\"\nnetwork = \"index\"\nenv = {{ PATH = \"{bin}:/usr/bin:/bin\" }}");
    let world = world.config(&config(&upstream, &build));
    world.commit(&[("requirements.txt", "outer\n"), ("use.py", "import outer, inner\n")]);
    world.deploy("master");
    let current = world.current("app1");
    assert!(fs::read_dir(current.join("venv/lib")).unwrap().count() > 0);
    let output = std::process::Command::new(current.join("venv/bin/python")).args(["-c", "import outer, inner"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What each host's pip downloads is named in a file of its own.
const PIP: &str = "\"$PYTHON\" -m pip download --no-deps --retries 0 -d got -r $DEPLOYER_HOST.txt";

#[test]
fn a_build_that_got_no_package_is_explained_by_what_the_index_said_to_it() {
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1", "app2"]);
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    let venv = world.path("venv");
    let made = std::process::Command::new(&python).args(["-m", "venv"]).arg(&venv).status().unwrap();
    assert!(made.success());
    let names = ["fine", "failing", "denied", "portal", "poisoned", "broken", "gone"];
    publish_wheels(&upstream, &names.map(|name| (name, wheel(&python, &world.path("srv"), name, ""))));
    let answer = |status: u16, body: &str| Answer::Whole(status, Vec::new(), body.as_bytes().to_vec());
    upstream.answers("/simple/failing/", answer(500, ""));
    upstream.answers("/simple/denied/", answer(403, ""));
    upstream.answers("/simple/portal/", answer(200, "<html>login please</html>"));
    upstream.answers("/files/poisoned-1-py3-none-any.whl", answer(200, "poison"));
    upstream.answers("/files/broken-1-py3-none-any.whl", answer(500, ""));
    upstream.answers("/files/gone-1-py3-none-any.whl", answer(404, ""));
    upstream.has("/simple/undigested/", "text/html", "<html><a href='../../files/undigested-1.zip'>undigested-1.zip</a></html>");
    let build =
        format!("[defaults.build]\ncommand = '{PIP}'\nnetwork = \"index\"\nenv = {{ PYTHON = \"{}\" }}", venv.join("bin/python").display());
    let world = world.config(&config(&upstream, &build));
    let deploy = |one: &str, two: &str| {
        world.commit(&[("app1.txt", one), ("app2.txt", two)]);
        world.deployer(["deploy", "--rev", "master"])
    };
    for (name, hint) in [
        ("failing", format!("the package index: `{}/simple/failing/` answers 500; try again later, or ", upstream.url)),
        ("denied", format!("the package index: `{}/simple/denied/` answers 403; say `user` and `secret` in `[index.pypi]` ", upstream.url)),
        ("portal", format!("the package index: `{}/simple/portal/` answers with HTML that lists no file of it, ", upstream.url)),
        ("poisoned", "the package index: `poisoned-1-py3-none-any.whl` has the digest sha256-".to_owned()),
        ("broken", format!("the package index: `{}/files/broken-1-py3-none-any.whl` answers 500; ", upstream.url)),
        ("gone", format!("the package index: `{}/files/gone-1-py3-none-any.whl` is not there, though ", upstream.url)),
        ("undigested", format!("the package index: `{}/simple/undigested/` gives no digest for 1 file: ", upstream.url)),
        // The control: what there is not has no other reason.
        ("absent==2", "the package index has no `absent==2`: correct the name or the version, ".to_owned()),
    ] {
        let run = deploy("fine", name);
        run.exits(Exit::BuildFailed);
        let hints: Vec<&str> = run.stderr.lines().filter_map(|line| line.strip_prefix("  hint: ")).collect();
        assert!(hints.len() == 1 && hints[0].starts_with(&hint), "{name}: {run}");
    }
    // Each host's build is explained by its own answers.
    let run = deploy("denied", "absent==2");
    run.exits(Exit::BuildFailed);
    let told = |text: &str| run.stderr.lines().filter(|line| line.starts_with(&format!("  hint: the package index{text}"))).count();
    assert_eq!((told(": `"), told(" has no `absent==2`")), (1, 1), "{run}");

    // What was held may be too old for what is wanted, and is not to blame.
    age(&world);
    upstream.is_down(true);
    let run = deploy("fine==2", "fine==2");
    run.exits(Exit::BuildFailed);
    let hint = run.stderr.lines().find(|line| line.starts_with("  hint: ")).unwrap();
    assert!(hint.contains("/simple/fine/` cannot be reached: ") && hint.contains("; what it said of `fine` "), "{run}");
    upstream.is_down(false);

    // When the upstream is well again, so is the next deploy.
    publish_wheels(&upstream, &[("portal", wheel(&python, &world.path("srv"), "portal", ""))]);
    deploy("portal", "portal").ok();
}

#[test]
fn npm_that_got_no_package_is_explained_by_what_the_index_said_to_it() {
    let (Some(npm), Some(node)) = (program("npm"), program("node")) else { return skip("there is no npm") };
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]);
    publish_npm(&world, &upstream, &node, "outer", "\"broken\":\"1.0.0\"");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", npm.parent().unwrap().display());
    let world = world.config(&format!(
        "[defaults.build]\ncommand = \"npm install --fetch-retries 0\"\nnetwork = \"index\"\nenv = {{ PATH = \"{path}\" }}\n\
         [index.npm]\nurl = \"{}/npm\"\n",
        upstream.url
    ));
    world.commit(&[("package.json", r#"{"name":"p","version":"1.0.0","dependencies":{"outer":"1.0.0"}}"#)]);
    for (answer, hint) in [
        (Answer::Whole(500, Vec::new(), Vec::new()), "answers 500; try again later, or "),
        (Answer::Whole(200, Vec::new(), b"<html>login please</html>".to_vec()), "answers with something else (expected value "),
    ] {
        upstream.answers("/npm/broken", answer);
        let run = world.deployer(["deploy", "--rev", "master"]);
        run.exits(Exit::BuildFailed);
        assert!(run.stderr.contains(&format!("\n  hint: the package index: `{}/npm/broken` {hint}", upstream.url)), "{run}");
    }
    // The control: what there is not has no other reason.
    upstream.answers("/npm/broken", Answer::Whole(404, Vec::new(), Vec::new()));
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("\n  hint: the package index has no `broken`: correct the name or the version, "), "{run}");
}
