//! The package index as its clients see it, with upstreams that behave and upstreams that do not: what is wrong is never kept.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use deployer::exit::Exit;
use deployer::sandbox::skip;
use snapbox::str;

use crate::harness::World;
use crate::upstream::{Answer, Upstream, ask, sha256};

const JSON: &str = "application/vnd.pypi.simple.v1+json";

const SERVE: [&str; 5] = ["cache", "serve", "--listen", "127.0.0.1:0", "--json"];

/// `cache serve`, until it is dropped.
pub struct Serving {
    child: Child,
    pub urls: serde_json::Value,
}

impl Serving {
    pub fn start(world: &World, arguments: &[&str]) -> Self {
        Self::run(world, world.command(SERVE), arguments)
    }

    fn run(world: &World, mut command: Command, arguments: &[&str]) -> Self {
        let stderr = fs::File::options().create(true).append(true).open(world.path("serve.err")).unwrap();
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let urls = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", warnings(world)));
        Self { child, urls }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.urls["url"].as_str().unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // `timeout` passes the signal on.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn warnings(world: &World) -> String {
    // What it says to the signal that ends it is no warning.
    fs::read_to_string(world.path("serve.err")).unwrap_or_default().replace("stopping\n", "")
}

/// A world whose `deploy.toml` names `upstream`, with more lines in its section.
fn world(upstream: &Upstream, more: &str) -> World {
    let world = World::new();
    world.write_raw_config(&format!("schema = 1\nproject = \"p\"\n[index.pypi]\nurl = \"{}/simple/\"\n{more}", upstream.url));
    world
}

/// Publishes files of the project `a`.
fn publish(upstream: &Upstream, files: &[(&str, &[u8])]) {
    let listed: Vec<serde_json::Value> = files
        .iter()
        .map(|(name, bytes)| {
            upstream.has(&format!("/files/{name}"), "application/octet-stream", *bytes);
            serde_json::json!({ "filename": name, "url": format!("../../files/{name}"), "hashes": { "sha256": sha256(bytes) }, "size": bytes.len() })
        })
        .collect();
    let page = serde_json::json!({ "meta": { "api-version": "1.1" }, "name": "a", "files": listed });
    let headers = vec![("Content-Type", JSON.to_owned()), ("ETag", format!("\"{}\"", &sha256(page.to_string().as_bytes())[..8]))];
    upstream.answers("/simple/a/", Answer::Whole(200, headers, page.to_string().into_bytes()));
}

fn file(serving: &Serving, name: &str, bytes: &[u8]) -> String {
    serving.url(&format!("pypi/files/a/sha256-{}/{name}", sha256(bytes)))
}

/// Everything that is kept, without what is on its way.
fn kept(world: &World) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![world.path("cache/deployer/index")]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Makes the pages that are kept as old as those that have to be asked for again.
pub fn age(world: &World) {
    let pages: Vec<PathBuf> = kept(world).into_iter().filter(|path| path.parent().unwrap().ends_with("pages")).collect();
    assert!(!pages.is_empty());
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let (_, rest) = text.split_once(',').unwrap();
        fs::write(&page, format!("{{\"fetched\":1000000,{rest}")).unwrap();
    }
}

#[test]
fn a_page_and_a_file_are_asked_for_once_and_served_with_everything_clients_rely_on() {
    let upstream = Upstream::start();
    publish(&upstream, &[("a-1-py3-none-any.whl", b"0123456789"), ("a-2.tar.gz", b"other")]);
    let world = world(&upstream, "");
    let serving = Serving::start(&world, &[]);

    let json = ask("GET", &serving.url("pypi/simple/a/"), &[("Accept", JSON)]);
    assert_eq!((json.status, json.headers["content-type"].as_str(), json.headers["vary"].as_str()), (200, JSON, "Accept"));
    let page: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(page["files"][0]["hashes"]["sha256"], sha256(b"0123456789"));
    let html = ask("GET", &serving.url("pypi/simple/a/"), &[]);
    assert_eq!(html.headers["content-type"], "text/html; charset=utf-8");
    assert!(html.text().contains(&format!("#sha256={}", sha256(b"other"))), "{}", html.text());
    assert!(!html.text().contains(&upstream.url), "a host cannot reach the upstream");
    let same = ask("GET", &serving.url("pypi/simple/a/"), &[("Accept", JSON), ("If-None-Match", &json.headers["etag"])]);
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(upstream.count("/simple/a/"), 1);

    let url = file(&serving, "a-1-py3-none-any.whl", b"0123456789");
    let whole = ask("GET", &url, &[]);
    assert_eq!((whole.status, whole.text(), whole.headers["content-length"].as_str()), (200, "0123456789", "10"));
    let head = ask("HEAD", &url, &[]);
    assert_eq!(
        (head.status, head.headers["content-length"].as_str(), head.headers["accept-ranges"].as_str(), head.body.len()),
        (200, "10", "bytes", 0)
    );
    let part = ask("GET", &url, &[("Range", "bytes=-4")]);
    assert_eq!((part.status, part.text(), part.headers["content-range"].as_str()), (206, "6789", "bytes 6-9/10"));
    let beyond = ask("GET", &url, &[("Range", "bytes=10-")]);
    assert_eq!((beyond.status, beyond.headers["content-range"].as_str()), (416, "bytes */10"));
    assert_eq!(ask("GET", &url, &[("If-None-Match", &whole.headers["etag"])]).status, 304);
    assert_eq!(upstream.count("/files/a-1-py3-none-any.whl"), 1);

    for (path, status) in
        [("simple/", 404), ("simple/b/", 404), ("simple/%C3%A4/", 400), ("files/a/sha256-00/x", 400), ("simple/..%2f..%2fa/", 400)]
    {
        assert_eq!(ask("GET", &serving.url(&format!("pypi/{path}")), &[]).status, status, "{path}");
    }
    let moved = ask("GET", &serving.url("pypi/simple/A"), &[]);
    assert_eq!((moved.status, moved.headers["location"].as_str()), (301, "a/"));
    let rebound = ask("GET", &serving.url("pypi/simple/a/").replace("127.0.0.1", "evil.example"), &[]);
    assert_eq!(rebound.status, 421, "a web page could ask under a name of its own");
    assert_eq!(warnings(&world), "");
}

#[test]
fn what_an_upstream_sends_wrong_is_an_error_with_its_reason_and_leaves_the_cache_as_it_was() {
    let upstream = Upstream::start();
    let good: &[u8] = b"good";
    publish(
        &upstream,
        &[("a-1.zip", good), ("a-2.zip", b"two"), ("a-3.zip", b"three"), ("a-4.zip", b"four"), ("a-5.zip", b"five"), ("a-6.zip", b"six")],
    );
    let world = world(&upstream, "");
    let serving = Serving::start(&world, &[]);
    assert_eq!(ask("GET", &file(&serving, "a-1.zip", good), &[]).text(), "good");
    let before = kept(&world);

    upstream.has("/files/a-2.zip", "application/octet-stream", "TWO");
    upstream.answers("/files/a-3.zip", Answer::Cut(b"thr".to_vec()));
    upstream.answers("/files/a-4.zip", Answer::Endless);
    upstream.answers("/files/a-5.zip", Answer::Whole(500, Vec::new(), b"oops".to_vec()));
    upstream.has("/files/a-6.zip", "text/html", "<html>please log in to read this file</html>");
    for (name, bytes, reason) in [
        ("a-2.zip", &b"two"[..], "and the index says sha256-"),
        ("a-3.zip", b"three", "cannot be reached"),
        ("a-4.zip", b"four", "sends more than 4 bytes"),
        ("a-5.zip", b"five", "answers 500"),
        ("a-6.zip", b"six", "sends more than 3 bytes"),
    ] {
        let reply = ask("GET", &file(&serving, name, bytes), &[]);
        assert!(reply.status == 502 && reply.text().contains(reason), "{name}: {reply:?}");
        assert!(warnings(&world).contains(reason), "{}", warnings(&world));
    }
    // A file with a digest of the client's own making is not fetched.
    assert_eq!(ask("GET", &file(&serving, "a-1.zip", b"bad"), &[]).status, 404);
    assert_eq!(kept(&world), before);

    for (project, answer, reason) in [
        (
            "b",
            Answer::Whole(200, vec![("Content-Type", JSON.to_owned())], b"<html><a href='b-1.zip'>b-1.zip</a></html>".to_vec()),
            "broken JSON",
        ),
        (
            "c",
            Answer::Whole(200, vec![("Content-Type", "text/plain".to_owned())], b"service unavailable".to_vec()),
            "neither JSON nor HTML",
        ),
        ("d", Answer::Whole(503, Vec::new(), Vec::new()), "answers 503"),
        ("e", Answer::Cut(b"{".to_vec()), "cannot be reached"),
        ("f", Answer::Endless, "sends more than"),
    ] {
        upstream.answers(&format!("/simple/{project}/"), answer);
        let reply = ask("GET", &serving.url(&format!("pypi/simple/{project}/")), &[]);
        assert!(reply.status == 502 && reply.text().contains(reason), "{project}: {reply:?}");
    }
    assert_eq!(kept(&world), before);
    // Once the upstream has come to its senses, so have we.
    upstream.has("/files/a-2.zip", "application/octet-stream", "two");
    assert_eq!(ask("GET", &file(&serving, "a-2.zip", b"two"), &[]).text(), "two");
}

#[test]
fn many_who_ask_for_one_file_at_one_time_cause_one_request_and_one_who_leaves_does_not_stop_it() {
    let upstream = Upstream::start();
    publish(&upstream, &[("a-1.zip", b"good")]);
    let world = world(&upstream, "");
    let serving = Serving::start(&world, &[]);
    ask("GET", &serving.url("pypi/simple/a/"), &[]);
    upstream.holds(true);
    let url = file(&serving, "a-1.zip", b"good");
    // This one asks, and is gone before there is an answer.
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut leaver = std::net::TcpStream::connect(host).unwrap();
    std::io::Write::write_all(&mut leaver, format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    upstream.wait_for(2);
    drop(leaver);
    let replies: Vec<_> = thread::scope(|scope| {
        let askers: Vec<_> = (0..20).map(|_| scope.spawn(|| ask("GET", &url, &[]))).collect();
        upstream.holds(false);
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    assert!(replies.iter().all(|reply| reply.text() == "good"));
    assert_eq!(upstream.count("/files/a-1.zip"), 1);
}

#[test]
fn an_upstream_that_is_down_is_replaced_by_what_is_held_and_offline_offers_only_that() {
    let upstream = Upstream::start();
    publish(&upstream, &[("a-1.zip", b"one"), ("a-2.zip", b"two")]);
    let world = world(&upstream, "");
    let serving = Serving::start(&world, &[]);
    assert_eq!(ask("GET", &file(&serving, "a-1.zip", b"one"), &[]).text(), "one");
    drop(serving);
    age(&world);

    let serving = Serving::start(&world, &[]);
    upstream.is_down(true);
    let stale = ask("GET", &serving.url("pypi/simple/a/"), &[("Accept", JSON)]);
    assert!(stale.status == 200 && stale.text().contains("a-2.zip"), "{stale:?}");
    assert!(warnings(&world).contains("what it said of `a`"), "{}", warnings(&world));
    assert_eq!(ask("GET", &file(&serving, "a-1.zip", b"one"), &[]).text(), "one");
    let missing = ask("GET", &file(&serving, "a-2.zip", b"two"), &[]);
    assert!(missing.status == 502 && missing.text().contains("cannot be reached"), "{missing:?}");
    assert_eq!(ask("GET", &serving.url("pypi/simple/b/"), &[]).status, 502);
    upstream.is_down(false);
    drop(serving);

    // Asked again with what it said last, the upstream need not repeat itself.
    let serving = Serving::start(&world, &[]);
    assert_eq!(ask("GET", &serving.url("pypi/simple/a/"), &[]).status, 200);
    assert!(upstream.said("/simple/a/").last().unwrap().1.starts_with('"'), "{:?}", upstream.said("/simple/a/"));
    drop(serving);

    let requests = upstream.count("/simple/a/");
    let offline = Serving::start(&world, &["--offline"]);
    let page = ask("GET", &offline.url("pypi/simple/a/"), &[("Accept", JSON)]);
    assert!(page.text().contains("a-1.zip") && !page.text().contains("a-2.zip"), "{}", page.text());
    assert_eq!(ask("GET", &file(&offline, "a-1.zip", b"one"), &[]).text(), "one");
    let missing = ask("GET", &file(&offline, "a-2.zip", b"two"), &[]);
    assert!(missing.status == 404 && missing.text().contains("offline"), "{missing:?}");
    assert_eq!(ask("GET", &offline.url("pypi/simple/b/"), &[]).status, 404);
    assert_eq!(upstream.count("/simple/a/"), requests);
}

#[test]
fn what_a_portal_shows_in_place_of_a_page_is_not_kept_and_does_not_replace_a_page_that_is() {
    let upstream = Upstream::start();
    let files: &[(&str, &[u8])] = &[("a-1.zip", b"one"), ("a-2.zip", b"two")];
    publish(&upstream, files);
    let world = world(&upstream, "");
    let serving = Serving::start(&world, &[]);
    let page = |serving: &Serving, name: &str| ask("GET", &serving.url(&format!("pypi/simple/{name}/")), &[("Accept", JSON)]);
    assert_eq!(page(&serving, "a").status, 200);
    drop(serving);
    age(&world);
    let before = kept(&world);
    let bytes = fs::read(before.last().unwrap()).unwrap();

    for name in ["a", "b"] {
        upstream.has(&format!("/simple/{name}/"), "text/html", "<html>login please</html>");
    }
    let serving = Serving::start(&world, &[]);
    let stale = page(&serving, "a");
    assert!(stale.status == 200 && stale.text().contains("a-2.zip"), "{stale:?}");
    let said = warnings(&world);
    assert!(said.contains("/simple/a/` answers with HTML that lists no file of it, where the page of a project was asked for"), "{said}");
    assert!(said.contains("what it said of `a`"), "{said}");
    assert_eq!(page(&serving, "b").status, 502);
    assert_eq!((kept(&world), fs::read(before.last().unwrap()).unwrap()), (before, bytes));

    // Healthy again, the upstream is asked at once.
    publish(&upstream, files);
    let html = format!("<html><a href='../../files/b-1.zip#sha256={}'>b-1.zip</a></html>", sha256(b"b"));
    upstream.has("/simple/b/", "text/html", html);
    assert!(page(&serving, "b").text().contains("b-1.zip"));
    assert!(page(&serving, "a").text().contains("a-2.zip"));
    assert_eq!(upstream.count("/simple/a/"), 3);
}

#[test]
fn a_page_that_lists_nothing_any_more_is_served_and_warned_of() {
    let upstream = Upstream::start();
    publish(&upstream, &[("a-1.zip", b"one")]);
    upstream.has("/simple/b/", "text/html", "<html><title>Links for b</title></html>");
    let world = world(&upstream, "");
    let serving = Serving::start(&world, &[]);
    assert_eq!(ask("GET", &serving.url("pypi/simple/a/"), &[]).status, 200);
    drop(serving);
    age(&world);
    publish(&upstream, &[]);
    // What is told is told by each run, whether it asked or not.
    for _ in 0..2 {
        let serving = Serving::start(&world, &[]);
        let empty = ask("GET", &serving.url("pypi/simple/a/"), &[]);
        assert!(empty.status == 200 && !empty.text().contains("a-1.zip"), "{empty:?}");
        assert_eq!(ask("GET", &serving.url("pypi/simple/b/"), &[]).status, 200);
    }
    let said = warnings(&world);
    let told = said.lines().filter(|line| line.contains("/simple/a/` lists nothing of `a` any more, and did ")).count();
    assert_eq!((told, said.lines().count()), (2, 2), "{said}");
    assert_eq!(upstream.count("/simple/a/"), 2);
}

#[test]
fn a_file_that_rotted_on_the_disk_is_fetched_again() {
    let upstream = Upstream::start();
    publish(&upstream, &[("a-1.zip", b"good")]);
    let world = world(&upstream, "");
    let url = |serving: &Serving| file(serving, "a-1.zip", b"good");
    let serving = Serving::start(&world, &[]);
    ask("GET", &url(&serving), &[]);
    drop(serving);
    let path = kept(&world).into_iter().find(|path| path.ends_with("a-1.zip")).unwrap();
    fs::write(path, "goof").unwrap();
    let serving = Serving::start(&world, &[]);
    assert_eq!(ask("GET", &url(&serving), &[]).text(), "good");
    assert_eq!(upstream.count("/files/a-1.zip"), 2);
}

#[test]
fn a_disk_that_is_full_is_said_and_leaves_room_for_what_fits() {
    let allowed = Command::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|output| output.status.success());
    if !allowed {
        return skip("this user cannot make a mount namespace");
    }
    let upstream = Upstream::start();
    let large = vec![1; 300 * 1024];
    publish(&upstream, &[("a-1.zip", b"one"), ("a-2.zip", &large)]);
    let world = world(&upstream, "");
    let store = world.path("store");
    fs::create_dir(&store).unwrap();
    let script = "exec unshare -Urm sh -c 'mount -t tmpfs -o size=128k none \"$STORE\" && exec \"$@\"' sh \"$@\"";
    let mut command = world.shell(script, &SERVE);
    command.env("STORE", &store);
    let serving = Serving::run(&world, command, &["--store", store.to_str().unwrap()]);
    for _ in 0..2 {
        let full = ask("GET", &file(&serving, "a-2.zip", &large), &[]);
        assert!(full.status == 507 && full.text().contains("the disk is full"), "{} {}\n{}", full.status, full.text(), warnings(&world));
        assert_eq!(ask("GET", &file(&serving, "a-1.zip", b"one"), &[]).text(), "one");
    }
    assert!(warnings(&world).contains("the disk is full"), "{}", warnings(&world));
}

#[test]
fn a_credential_reaches_its_upstream_and_nothing_else() {
    let (upstream, elsewhere) = (Upstream::start(), Upstream::start());
    let page = serde_json::json!({ "meta": { "api-version": "1.0" }, "name": "a", "files": [
        { "filename": "a-1.zip", "url": format!("{}/a-1.zip", elsewhere.url), "hashes": { "sha256": sha256(b"one") } },
        { "filename": "a-2.zip", "url": "/a-2.zip", "hashes": { "sha256": sha256(b"two") } },
    ]});
    upstream.has("/simple/a/", JSON, page.to_string());
    upstream.has("/a-2.zip", "", "two");
    elsewhere.has("/a-1.zip", "", "one");
    let world = world(&upstream, "user = \"ada\"\nsecret = { file = \"token\" }\n");
    fs::write(world.repository.directory.join("token"), "hush\n").unwrap();
    let serving = Serving::start(&world, &[]);
    assert_eq!(ask("GET", &file(&serving, "a-1.zip", b"one"), &[]).text(), "one");
    assert_eq!(ask("GET", &file(&serving, "a-2.zip", b"two"), &[]).text(), "two");
    let basic = "Basic YWRhOmh1c2g=";
    assert_eq!(upstream.said("/simple/a/")[0].0, basic);
    assert_eq!(upstream.said("/a-2.zip")[0].0, basic);
    assert_eq!(elsewhere.said("/a-1.zip")[0].0, "");
    assert!(!warnings(&world).contains("hush"));
    assert!(kept(&world).iter().all(|path| !fs::read_to_string(path).unwrap().contains("hush")));
}

#[test]
fn a_cache_that_cannot_be_used_is_named() {
    let world = World::new();
    world.write_raw_config("schema = 1\nproject = \"p\"\n");
    std::os::unix::fs::symlink("/nowhere/at/all", world.path("dangling")).unwrap();
    let run = world.deployer(["cache", "serve", "--listen", "127.0.0.1:0", "--store", world.path("dangling").to_str().unwrap()]);
    run.exits(Exit::Usage);
    assert!(run.stderr.contains("<tmp>/dangling/pypi-"), "{run}");
    world.deployer(["cache", "serve", "--listen", "0.0.0.0:3141"]).is(
        Exit::Usage,
        str![""],
        str![[r#"
error: `0.0.0.0:3141` can be reached from other machines, and the index asks nobody who they are
  hint: listen on `127.0.0.1:PORT`; hosts reach the index through their own connection, with `build.network = "index"`

"#]],
    );
}

/// Writes wheels without content, by hand: `name` in version 1, which requires `requires`.
pub fn wheel(python: &Path, to: &Path, name: &str, requires: &str) -> Vec<u8> {
    let script = "import sys, zipfile\npath, name, requires = sys.argv[1:]\nz = zipfile.ZipFile(path, 'w')\nd = f'{name}-1.dist-info/'\n\
        m = f'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n' + (f'Requires-Dist: {requires}\\n' if requires else '')\n\
        z.writestr(f'{name}.py', 'x = 1\\n')\nz.writestr(d + 'METADATA', m)\n\
        z.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        z.writestr(d + 'RECORD', ''.join(f'{n},,\\n' for n in [f'{name}.py', d + 'METADATA', d + 'WHEEL', d + 'RECORD']))\nz.close()\n";
    let path = to.join(format!("{name}-1-py3-none-any.whl"));
    let output = Command::new(python).args(["-I", "-c", script]).arg(&path).args([name, requires]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::read(path).unwrap()
}

/// Publishes wheels, each on the page of its project, as HTML.
pub fn publish_wheels(upstream: &Upstream, wheels: &[(&str, Vec<u8>)]) {
    for (name, bytes) in wheels {
        let file = format!("{name}-1-py3-none-any.whl");
        upstream.has(&format!("/files/{file}"), "", bytes.clone());
        let html = format!("<!DOCTYPE html><html><body><a href=\"../../files/{file}#sha256={}\">{file}</a></body></html>", sha256(bytes));
        upstream.has(&format!("/simple/{name}/"), "text/html", html);
    }
}

/// Runs a tool with nothing of the user's around it.
pub fn tool(world: &World, program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(arguments).env_clear().env("PATH", path).env("HOME", world.path("home")).env("LANG", "C.UTF-8");
    command.envs(variables.iter().copied()).current_dir(world.path("home")).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn pip_installs_through_the_index_and_again_when_there_is_no_upstream() {
    let upstream = Upstream::start();
    let world = world(&upstream, "");
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    let wheels = [("deplo_inner", ""), ("deplo_outer", "deplo_inner")]
        .map(|(name, requires)| (name, wheel(&python, &world.path("srv"), name, requires)));
    let published: Vec<(&str, Vec<u8>)> = wheels.iter().map(|(name, bytes)| (*name, bytes.clone())).collect();
    publish_wheels(&upstream, &published);
    for (name, bytes) in &published {
        // pip asks for the normal form.
        let file = format!("{name}-1-py3-none-any.whl");
        let html = format!("<html><a href=\"../../files/{file}#sha256={}\">{file}</a></html>", sha256(bytes));
        upstream.has(&format!("/simple/{}/", name.replace('_', "-")), "text/html", html);
    }
    let venv = world.path("venv");
    assert!(tool(&world, &python, &["-m", "venv", venv.to_str().unwrap()], &[]).status.success());
    for arguments in [&[][..], &["--offline"]] {
        let serving = Serving::start(&world, arguments);
        let target = world.path(format!("lib{}", arguments.len()));
        let variables = [
            ("PIP_INDEX_URL", serving.urls["pypi"].as_str().unwrap()),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
            ("PIP_CONFIG_FILE", "/dev/null"),
        ];
        let words = ["-m", "pip", "install", "--no-cache-dir", "--target", target.to_str().unwrap(), "deplo-outer"];
        let output = tool(&world, &venv.join("bin/python"), &words, &variables);
        assert!(output.status.success(), "{output:?}\n{}", warnings(&world));
        assert!(target.join("deplo_inner.py").is_file() && target.join("deplo_outer.py").is_file());
    }
    assert_eq!(upstream.count("/files/deplo_inner-1-py3-none-any.whl"), 1);
    assert_eq!(warnings(&world), "");
}
