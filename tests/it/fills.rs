//! Fills through the package index of this machine: what the resolver may reach, what is kept of it, and that a fill which fails, for
//! whatever reason, leaves cache and index as good as they were.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use deployer::exit::Exit;
use deployer::sandbox::skip;

use crate::harness::{Run, World, snapshot};
use crate::index::{Serving, publish_wheels, tool, wheel};
use crate::index_tools::{program, publish_crate, publish_npm};
use crate::tools;
use crate::upstream::{Answer, Upstream, sha256};

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A resolver that gets the only file of every project that the lock names, from whatever index it is told of.
const FETCH: &str = r##"
import os, re, sys, urllib.request
from urllib.parse import urljoin
index, out = os.environ["DEPLOYER_INDEX"], os.environ["DEPLOYER_CACHE"]
assert sys.argv[1] == index and os.environ["PIP_INDEX_URL"] == index + "/pypi/simple/", os.environ["PIP_INDEX_URL"]
assert os.environ["npm_config_registry"] == index + "/npm/"
os.makedirs(out, exist_ok=True)
if "OTHER" in os.environ:
    urllib.request.urlopen(os.environ["OTHER"]).read()
for name in open("Gemfile.lock").read().split():
    page = index + "/pypi/simple/" + name + "/"
    for link in re.findall(r'href="([^"#]+)', urllib.request.urlopen(page).read().decode()):
        with open(os.path.join(out, link.rsplit("/", 1)[1]), "wb") as kept:
            kept.write(urllib.request.urlopen(urljoin(page, link)).read())
"##;

/// Publishes the only file of a project.
fn publish(upstream: &Upstream, name: &str, bytes: &[u8]) {
    upstream.has(&format!("/files/{name}-1.zip"), "application/octet-stream", bytes);
    list(upstream, name, bytes, Some(bytes.len()));
}

fn list(upstream: &Upstream, name: &str, bytes: &[u8], size: Option<usize>) {
    let file = serde_json::json!({ "filename": format!("{name}-1.zip"), "url": format!("../../files/{name}-1.zip"),
        "hashes": { "sha256": sha256(bytes) }, "size": size });
    let page = serde_json::json!({ "meta": { "api-version": "1.1" }, "name": name, "files": [file] });
    upstream.has(&format!("/simple/{name}/"), "application/vnd.pypi.simple.v1+json", page.to_string());
}

pub fn index_of(upstream: &Upstream) -> String {
    format!(
        "[index.pypi]\nurl = \"{0}/simple/\"\n[index.crates]\nurl = \"sparse+{0}/crates/\"\n[index.npm]\nurl = \"{0}/npm\"\n",
        upstream.url
    )
}

/// A project of one package, `one`, that is fetched by `FETCH`; none where there is no Python to run that.
fn world(hosts: &[&str], upstream: &Upstream, more: &str) -> Option<World> {
    let world = World::new().local_hosts(hosts).own_caches();
    let Ok(python) = world.sandbox.tools().python else {
        skip("there is no usable python");
        return None;
    };
    for host in hosts {
        fs::create_dir(world.cache(host)).unwrap();
    }
    publish(upstream, "one", b"one\n");
    let world = world.config(&format!(
        "[defaults.cache]\npath = \"/nonexistent\"\nfill = [\"{}\", \"fetch.py\", \"{{index}}\"]\n{more}\
         [defaults.build]\ncommand = \"cat $DEPLOYER_CACHE/* > built\"\n{}",
        python.display(),
        index_of(upstream)
    ));
    world.commit(&[("fetch.py", FETCH), ("Gemfile.lock", "one\n")]);
    Some(world)
}

pub fn fill(world: &World) -> Run {
    world.deployer(["cache", "fill", "--rev", "master"])
}

/// Files below a directory by their names, with what is in them.
pub fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(entry.file_name().into_string().unwrap(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

pub fn names(directory: &Path) -> Vec<String> {
    contents(directory).into_keys().collect()
}

/// What the index keeps of one kind of upstream.
pub fn kept(world: &World, kind: &str, part: &str) -> PathBuf {
    let found = fs::read_dir(world.path("cache/deployer/index")).unwrap().flatten().map(|entry| entry.path());
    let of_kind = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(kind);
    found.into_iter().find(of_kind).unwrap().join(part)
}

#[track_caller]
fn no_work_is_left(cache: &Path) {
    let left = fs::read_dir(cache.join(".deployer")).into_iter().flatten().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().starts_with("fill")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn pip_fills_through_the_index_on_a_builder_that_reaches_nothing_else() {
    let upstream = Upstream::start();
    let world = World::new().with_hosts(&["app1"]).own_caches().patient();
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    let mut world = world;
    fs::create_dir(world.cache("app1")).unwrap();
    let wheels = [("outer", "inner"), ("inner", "")].map(|(name, requires)| (name, wheel(&python, &world.path("srv"), name, requires)));
    publish_wheels(&upstream, &wheels);
    let bin = python.parent().unwrap().display();
    let config = |network: &str| {
        format!(
            "[defaults.cache]\npath = \"/nonexistent\"\n{network}env = {{ HTTP_PROXY = \"{NOWHERE}\", HTTPS_PROXY = \"{NOWHERE}\" }}\n\
             [defaults.build]\nrecipe = \"pip\"\nenv = {{ PATH = \"{bin}:/usr/bin:/bin\" }}\n{}",
            index_of(&upstream)
        )
    };
    world.commit(&[("requirements.txt", "outer\n")]);
    // The control: by itself the builder reaches nothing.
    world.reconfigure(&config("network = \"host\"\n"));
    fill(&world).exits(Exit::BuildFailed);
    assert_eq!(upstream.count("/simple/outer/"), 0);
    world.reconfigure(&config(""));
    let run = fill(&world);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("2 files") && run.stderr.contains("proven by a build"), "{run}");
    let wheels: BTreeMap<String, Vec<u8>> = wheels.into_iter().map(|(name, bytes)| (format!("{name}-1-py3-none-any.whl"), bytes)).collect();
    assert_eq!(contents(&world.cache("app1").join("dist")), wheels);
    assert_eq!(contents(&kept(&world, "pypi", "files")), wheels);
    // The way there was a secret of the fill, and nothing of it is told.
    assert!(!run.stderr.contains("index.invalid"), "{run}");

    // What was kept fills an empty cache when there is no upstream any more.
    upstream.is_down(true);
    fs::remove_dir_all(world.cache("app1")).unwrap();
    fs::remove_dir_all(world.path("cache/deployer/shelf")).unwrap();
    fs::create_dir(world.cache("app1")).unwrap();
    fill(&world).ok();
    assert_eq!(contents(&world.cache("app1").join("dist")), wheels);
}

/// Publishes the files of a directory, each on the page of its project, as `pip download` left them.
fn publish_all(upstream: &Upstream, directory: &Path) {
    let mut pages: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for (name, bytes) in contents(directory) {
        let project =
            name.split_once(".tar.gz").map_or_else(|| name.split('-').next().unwrap(), |(stem, _)| stem.rsplit_once('-').unwrap().0);
        let file = serde_json::json!({ "filename": name, "url": format!("../../files/{name}"), "hashes": { "sha256": sha256(&bytes) } });
        pages.entry(project.to_lowercase().replace(['_', '.'], "-")).or_default().push(file);
        upstream.has(&format!("/files/{name}"), "application/octet-stream", bytes);
    }
    for (name, files) in pages {
        let page = serde_json::json!({ "meta": { "api-version": "1.1" }, "name": name, "files": files });
        upstream.has(&format!("/simple/{name}/"), "application/vnd.pypi.simple.v1+json", page.to_string());
    }
}

#[test]
fn buildout_fills_through_the_index_what_it_never_caches_by_itself_too() {
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    fs::create_dir(world.cache("app1")).unwrap();
    if let Err(reason) = world.sandbox.package_index() {
        return skip(&format!("no package index: {reason}"));
    }
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    let pins = [
        "packaging==26.3",
        "pip==26.3",
        "platformdirs==4.14.7",
        "setuptools==84.2.1",
        "wheel==0.48.0",
        "zc.buildout==6.0.1",
        "zc.recipe.egg==6.0.0",
        "docopt==0.6.2",
    ];
    let (from, pip) = (world.path("published"), world.path("pip"));
    assert!(tool(&world, &python, &["-m", "venv", pip.to_str().unwrap()], &[]).status.success());
    let download = ["-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps", "--dest", from.to_str().unwrap()];
    let output = tool(&world, &pip.join("bin/python"), &[&download[..], &pins].concat(), &[]);
    assert!(output.status.success(), "{output:?}");
    publish_all(&upstream, &from);
    let bin = python.parent().unwrap().display();
    let world = world.config(&format!(
        "[defaults.cache]\npath = \"/nonexistent\"\nenv = {{ HTTP_PROXY = \"{NOWHERE}\", HTTPS_PROXY = \"{NOWHERE}\" }}\n\
         [defaults.build]\nrecipe = \"buildout\"\nvenv = \"<tmp>/venv\"\nenv = {{ PATH = \"{bin}:/usr/bin:/bin\" }}\n{}",
        index_of(&upstream)
    ));
    let versions: String = pins.iter().map(|pin| pin.replace("==", " = ") + "\n").collect();
    // A project that allows hosts by name allows ours too.
    let cfg = format!(
        "[buildout]\ndevelop = .\nparts = boskel\nversions = versions\nallow-hosts = packages.example\n[boskel]\nrecipe = zc.recipe.egg\neggs = boskel\n\
         interpreter = py\n[versions]\n{versions}"
    );
    world.commit(&[
        ("buildout.cfg", &cfg),
        ("offline.cfg", "[buildout]\nextends = buildout.cfg\ndownload-cache = downloads\ninstall-from-cache = true\n"),
        (
            "setup.py",
            "from setuptools import setup\nsetup(name='boskel', version='1.0', py_modules=['boskel'], install_requires=['docopt'])\n",
        ),
        ("boskel.py", "import docopt\n"),
    ]);
    let run = fill(&world);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("proven by a build"), "{run}");
    assert_eq!(contents(&world.cache("app1").join("dist")), contents(&from));
    assert_eq!(contents(&kept(&world, "pypi", "files")), contents(&from));
}

#[test]
fn npm_fills_through_the_index_whatever_the_lock_looks_like() {
    let (Some(npm), Some(node)) = (program("npm"), program("node")) else { return skip("there is no npm") };
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    fs::create_dir(world.cache("app1")).unwrap();
    publish_npm(&world, &upstream, &node, "outer", "\"@deplo/inner\":\"^1.0.0\"");
    publish_npm(&world, &upstream, &node, "@deplo/inner", "");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", npm.parent().unwrap().display());
    let world = world.config(&format!(
        "[defaults.cache]\npath = \"/nonexistent\"\nenv = {{ HTTPS_PROXY = \"{NOWHERE}\" }}\n\
         [defaults.build]\nrecipe = \"npm\"\nenv = {{ PATH = \"{path}\" }}\n{}",
        index_of(&upstream)
    ));
    let directory = &world.repository.directory;
    let package = "{\"name\":\"boskel\",\"version\":\"1.0.0\",\"private\":true,\"dependencies\":{\"outer\":\"1.0.0\"},\
                   \"scripts\":{\"build\":\"node -e \\\"require('outer');console.log('built')\\\" > built\"}}\n";
    fs::write(directory.join("package.json"), package).unwrap();
    let registry = format!("{}/npm/", upstream.url);
    // Old locks name no dependencies of dependencies, and npm asks the registry for each package.
    for version in ["3", "1"] {
        let lock = ["install", "--package-lock-only", "--lockfile-version", version, "--prefix", directory.to_str().unwrap()];
        fs::remove_file(directory.join("package-lock.json")).ok();
        let cache = world.path(format!("npm-{version}"));
        let variables = [("npm_config_registry", registry.as_str()), ("npm_config_cache", cache.to_str().unwrap())];
        let output = tool(&world, &npm, &lock, &variables);
        assert!(output.status.success(), "{output:?}");
        world.commit(&[(".gitignore", "node_modules\n"), ("lock-version", version)]);
        let before = upstream.count("/npm/outer/-/outer-1.0.0.tgz");
        let run = fill(&world);
        run.exits(Exit::Ok);
        assert!(run.stderr.contains("proven by a build"), "{run}");
        assert!(upstream.count("/npm/outer/-/outer-1.0.0.tgz") <= before + 1);
        assert_eq!(names(&kept(&world, "npm", "files")), ["inner-1.0.0.tgz", "outer-1.0.0.tgz"]);
        world.deploy("master");
        assert_eq!(world.read_current("app1", "built"), "built\n");
    }
}

#[test]
fn cargo_vendors_through_the_index() {
    let Some(bin) = tools::toolchain() else { return };
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    fs::create_dir(world.cache("app1")).unwrap();
    publish_crate(&world, &upstream);
    let world = world.config(&format!(
        "[defaults.cache]\npath = \"/nonexistent\"\nenv = {{ HTTPS_PROXY = \"{NOWHERE}\" }}\n\
         [defaults.build]\nrecipe = \"cargo\"\nenv = {{ PATH = \"{}:/usr/local/bin:/usr/bin:/bin\" }}\n{}",
        bin.display(),
        index_of(&upstream)
    ));
    let directory = &world.repository.directory;
    let manifest = "[package]\nname = \"boskel\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ndeplo-leaf = \"=1.0.0\"\n";
    world.commit(&[("Cargo.toml", manifest), ("src/main.rs", "fn main() { println!(\"{}\", deplo_leaf::LEAF); }\n")]);
    {
        let serving = Serving::start(&world, &[]);
        let registry = format!("source.deployer.registry=\"{}\"", serving.urls["crates"].as_str().unwrap());
        let path = directory.join("Cargo.toml");
        let words = ["generate-lockfile", "--manifest-path", path.to_str().unwrap()];
        let config = ["--config", "source.crates-io.replace-with=\"deployer\"", "--config", &registry];
        let home = world.path("cargo");
        let output = tool(&world, &bin.join("cargo"), &[&words[..], &config].concat(), &[("CARGO_HOME", home.to_str().unwrap())]);
        assert!(output.status.success(), "{output:?}");
    }
    world.commit(&[(".gitignore", "target\n")]);
    let run = fill(&world);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("proven by a build"), "{run}");
    assert_eq!(contents(&kept(&world, "crates", "files")).len(), 1);
    world.deploy("master");
    let output = Command::new(world.current("app1").join("target/release/boskel")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "green\n");
}

/// A name, what makes the upstream misbehave for a project of that name, and what is told of it.
type Case<'a> = (&'a str, &'a dyn Fn(&str), &'a str);

#[test]
fn whatever_an_upstream_does_the_cause_is_told_and_cache_and_index_stay_as_good_as_they_were() {
    let upstream = Upstream::start();
    let Some(world) = world(&["app1"], &upstream, "") else { return };
    fill(&world).ok();
    let sets = world.cache("app1").join("sets");
    let (cache, files) = (snapshot(&sets), snapshot(&kept(&world, "pypi", "files")));
    let page = |name: &str, answer: Answer| upstream.answers(&format!("/simple/{name}/"), answer);
    let body = |name: &str, answer: Answer| {
        list(&upstream, name, b"what it should be", Some(17));
        upstream.answers(&format!("/files/{name}-1.zip"), answer);
    };
    let json = || vec![("Content-Type", "application/vnd.pypi.simple.v1+json".to_owned())];
    let unreachable = "cannot be reached: ";
    let cases: [Case<'_>; 12] = [
        ("poisoned", &|name| body(name, Answer::Whole(200, Vec::new(), b"what it is not !!".to_vec())), "`poisoned-1.zip` has the digest "),
        ("truncated", &|name| body(name, Answer::Cut(b"what it".to_vec())), unreachable),
        ("longer", &|name| body(name, Answer::Endless), "sends more than 17 bytes"),
        ("broken", &|name| body(name, Answer::Whole(500, Vec::new(), Vec::new())), "/files/broken-1.zip` answers 500"),
        (
            "gone",
            &|name| body(name, Answer::Whole(404, Vec::new(), Vec::new())),
            "/files/gone-1.zip` is not there, though the index lists it; pin another version, or ",
        ),
        (
            "denied",
            &|name| page(name, Answer::Whole(401, Vec::new(), Vec::new())),
            "/simple/denied/` answers 401; say `user` and `secret` in `[index.pypi]` of deploy.toml",
        ),
        (
            "portal",
            &|name| page(name, Answer::Whole(200, Vec::new(), b"<html>login please</html>".to_vec())),
            "/simple/portal/` answers with HTML that lists no file of it",
        ),
        ("failing", &|name| page(name, Answer::Whole(500, Vec::new(), Vec::new())), "/simple/failing/` answers 500"),
        ("absent", &|name| page(name, Answer::Whole(404, Vec::new(), Vec::new())), "HTTP Error 404"),
        ("login", &|name| page(name, Answer::Whole(200, json(), b"<html>log in</html>".to_vec())), "/simple/login/` answers with "),
        ("cut", &|name| page(name, Answer::Cut(b"{".to_vec())), unreachable),
        ("endless", &|name| page(name, Answer::Endless), "/simple/endless/` sends more than 33554432 bytes"),
    ];
    for (name, prepare, cause) in cases {
        prepare(name);
        world.commit(&[("Gemfile.lock", &format!("one {name}\n"))]);
        let pages = names(&kept(&world, "pypi", "pages"));
        let run = fill(&world);
        run.exits(Exit::BuildFailed);
        assert!(run.stderr.contains("✗ app1 fill failed after <t>: exit 1"), "{name}: {run}");
        assert!(run.stderr.contains(cause), "{name}: {run}");
        assert_eq!(run.stderr.contains("\n  hint: the package index: "), name != "absent", "{name}: {run}");
        assert!(run.stderr.contains("The cache stays as it was"), "{name}: {run}");
        assert_eq!(snapshot(&sets), cache, "{name}");
        no_work_is_left(&world.cache("app1"));
        assert_eq!(snapshot(&kept(&world, "pypi", "files")), files, "{name}");
        assert!(names(&kept(&world, "pypi", "tmp")).is_empty(), "{name}");
        // A page that was right is kept, whatever came of the file that it names.
        let is_right = ["poisoned", "truncated", "longer", "broken", "gone"].contains(&name);
        assert_eq!(names(&kept(&world, "pypi", "pages")).len(), pages.len() + usize::from(is_right), "{name}");
    }
    upstream.is_down(true);
    world.commit(&[("Gemfile.lock", "one unseen\n")]);
    let run = fill(&world);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains(&format!("hint: the package index: `{}/simple/unseen/` cannot be reached: ", upstream.url)), "{run}");
    assert_eq!((snapshot(&sets), snapshot(&kept(&world, "pypi", "files"))), (cache, files));

    // When it is well again, so is the next fill.
    upstream.is_down(false);
    publish(&upstream, "poisoned", b"what it should be");
    world.commit(&[("Gemfile.lock", "one poisoned\n")]);
    fill(&world).ok();
    assert_eq!(contents(&kept(&world, "pypi", "files"))["poisoned-1.zip"], b"what it should be");
    world.deploy("master");
    assert_eq!(world.read_current("app1", "built"), "one\nwhat it should be");
}

/// A fill that runs until it is waited for.
fn spawn(world: &World, arguments: &[&str]) -> Child {
    let mut command = world.command(["cache", "fill"].iter().chain(arguments));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn two_fills_at_once_on_one_builder_are_one_fill_and_a_refusal() {
    let upstream = Upstream::start();
    let Some(world) = world(&["app1"], &upstream, "") else { return };
    upstream.holds(true);
    let first = spawn(&world, &["--rev", "master"]);
    upstream.wait_for(1);
    let run = fill(&world);
    run.exits(Exit::Locked);
    assert!(run.stderr.contains("filling the cache for"), "{run}");
    upstream.holds(false);
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(contents(&world.cache("app1").join("sets")), BTreeMap::from([("one-1.zip".to_owned(), b"one\n".to_vec())]));
    fill(&world).ok();
}

#[test]
fn two_roots_fill_one_cache_at_once_and_each_finds_its_files_whole() {
    let upstream = Upstream::start();
    let Some(mut world) = world(&["app1", "app2"], &upstream, "") else { return };
    publish(&upstream, "two", &vec![2; 400 * 1024]);
    world.commit(&[("Gemfile.lock", "one two\n")]);
    // Both names of the cache lead to one directory.
    fs::remove_dir(world.cache("app2")).unwrap();
    symlink(world.cache("app1"), world.cache("app2")).unwrap();
    upstream.holds(true);
    let fills = [spawn(&world, &["-H", "app1", "--rev", "master~1"]), spawn(&world, &["-H", "app2", "--rev", "master"])];
    upstream.wait_for(2);
    upstream.holds(false);
    for fill in fills {
        let output = fill.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let sets = fs::read_dir(world.cache("app1").join("sets")).unwrap();
    let mut sets: Vec<BTreeMap<String, Vec<u8>>> = sets.map(|set| contents(&set.unwrap().path())).collect();
    sets.sort_by_key(BTreeMap::len);
    let one = ("one-1.zip".to_owned(), b"one\n".to_vec());
    assert_eq!(sets[0], BTreeMap::from([one.clone()]));
    assert_eq!(sets[1], BTreeMap::from([one, ("two-1.zip".to_owned(), vec![2; 400 * 1024])]));
    assert_eq!(sets.len(), 2);
    no_work_is_left(&world.cache("app1"));
    // One flat cache, and two projects that are filled into it at one time.
    let Ok(python) = world.sandbox.tools().python else { return };
    let fill = format!("[defaults.cache]\npath = \"/nonexistent\"\nfill = [\"{}\", \"fetch.py\", \"{{index}}\"]\n", python.display());
    world.program("python3", "mkdir -p venv/bin\nprintf '#!/bin/sh\\n' > venv/bin/python\nchmod +x venv/bin/python\n");
    world.reconfigure(&format!(
        "{fill}[defaults.build]\nrecipe = \"pip\"\nenv = {{ PATH = \"<tmp>/bin:/usr/bin:/bin\" }}\n{}",
        index_of(&upstream)
    ));
    world.commit(&[("requirements.txt", "one\n"), ("Gemfile.lock", "one\n")]);
    world.commit(&[("requirements.txt", "two\n"), ("Gemfile.lock", "one two\n")]);
    let fills = [spawn(&world, &["-H", "app1", "--rev", "master~1"]), spawn(&world, &["-H", "app2", "--rev", "master"])];
    for fill in fills {
        let output = fill.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(contents(&world.cache("app1").join("dist")), sets[1]);
}

#[test]
fn a_disk_that_is_full_is_said_and_what_was_there_stays() {
    let allowed = Command::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|output| output.status.success());
    if !allowed {
        return skip("this user cannot make a mount namespace");
    }
    let upstream = Upstream::start();
    let Some(world) = world(&["app1"], &upstream, "") else { return };
    publish(&upstream, "large", &vec![7; 900 * 1024]);
    world.commit(&[("Gemfile.lock", "one large\n")]);
    let index = world.path("cache/deployer/index");
    fs::create_dir_all(&index).unwrap();
    fs::create_dir(world.path("out")).unwrap();
    // The disk of the builder, and that of this machine.
    for (place, told) in [(world.cache("app1"), "No space left on device"), (index, "the disk is full")] {
        let script = "exec unshare -Urm sh -c 'mount -t tmpfs -o size=600k none \"$PLACE\" || exit 90\n\
                      sums() { find \"$PLACE\" -type f ! -name lock ! -path \"*/pages/*\" -exec md5sum {} + | sort; }\n\
                      \"$@\" --rev master~1 >\"$OUT/first\" 2>&1 || exit 91\n\
                      sums >\"$OUT/before\"; \"$@\" --rev master >\"$OUT/told\" 2>&1; status=$?; sums >\"$OUT/after\"; exit $status' sh \"$@\"";
        let mut command = world.shell(script, &["cache", "fill"]);
        command.env("PLACE", &place).env("OUT", world.path("out"));
        let run = world.run(&mut command);
        let read = |name: &str| fs::read_to_string(world.path("out").join(name)).unwrap_or_default();
        assert_eq!(run.status, i32::from(Exit::BuildFailed.code()), "{run}\n{}\n{}", read("first"), read("told"));
        assert!(read("told").contains(told), "{}", read("told"));
        assert!(read("told").contains("The cache stays as it was"), "{}", read("told"));
        assert!(read("before").contains("/one-1.zip"), "{}", read("before"));
        assert_eq!(read("before"), read("after"));
    }
}

#[test]
fn a_fill_on_this_machine_says_so_and_asks_the_index_whatever_the_shell_is_set_to() {
    let upstream = Upstream::start();
    let Some(world) = world(&["app1"], &upstream, "") else { return };
    let mut command = world.command(["cache", "fill", "--local", "--rev", "master"]);
    for (name, value) in [("PIP_INDEX_URL", NOWHERE), ("npm_config_registry", NOWHERE), ("HTTP_PROXY", NOWHERE), ("http_proxy", NOWHERE)] {
        command.env(name, value);
    }
    // The index is asked by this process, which honours the proxy; its upstream is on this machine.
    command.env("NO_PROXY", "127.0.0.1");
    let run = world.run(&mut command);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("the project's own code (its setup, its build) runs on this machine, as you"), "{run}");
    assert_eq!(names(&kept(&world, "pypi", "files")), ["one-1.zip"]);
    assert!(!world.cache("app1").join("sets").exists());
    world.deployer(["cache", "push", "--rev", "master"]).ok();
    world.deploy("master");
    assert_eq!(world.read_current("app1", "built"), "one\n");
}

#[test]
fn a_fill_reaches_what_the_host_reaches_beside_the_index() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    other.has("/private", "text/plain", "of a company");
    let Some(world) = world(&["app1"], &upstream, &format!("env = {{ OTHER = \"{}/private\" }}\n", other.url)) else { return };
    fill(&world).ok();
    assert_eq!((other.count("/private"), upstream.count("/files/one-1.zip")), (1, 1));
}

#[test]
fn what_cache_env_says_wins_over_the_index() {
    let upstream = Upstream::start();
    let Some(world) = world(&["app1"], &upstream, "env = { PIP_INDEX_URL = \"https://packages.example/simple/\" }\n") else { return };
    let run = fill(&world);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("AssertionError: https://packages.example/simple/"), "{run}");
}

#[test]
fn a_fill_into_a_cache_that_leads_nowhere_fails_before_anything_is_fetched() {
    let upstream = Upstream::start();
    let Some(world) = world(&["app1"], &upstream, "") else { return };
    fs::remove_dir(world.cache("app1")).unwrap();
    symlink("nowhere", world.cache("app1")).unwrap();
    let run = fill(&world);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("the cache `<tmp>/caches/app1` leads to `nowhere`, which does not exist"), "{run}");
    assert_eq!(upstream.count("/simple/one/"), 0);
    assert!(fs::symlink_metadata(world.path("caches/nowhere")).is_err());
    if rustix::process::geteuid().is_root() {
        return skip("root may write to the caches of others");
    }
    fs::remove_file(world.cache("app1")).unwrap();
    fs::create_dir(world.cache("app1")).unwrap();
    fs::set_permissions(world.cache("app1"), fs::Permissions::from_mode(0o555)).unwrap();
    let run = fill(&world);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("may not write to it"), "{run}");
    assert_eq!((upstream.count("/simple/one/"), names(&world.cache("app1")).len()), (0, 0));
    fs::set_permissions(world.cache("app1"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_did_not_come_through_the_index_is_named() {
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    fs::create_dir(world.cache("app1")).unwrap();
    let [outer, inner] = [("outer", "inner"), ("inner", "")].map(|(name, requires)| wheel(&python, &world.path("srv"), name, requires));
    publish_wheels(&upstream, &[("outer", outer)]);
    let bin = python.parent().unwrap().display();
    let world = world.config(&format!(
        "[defaults.cache]\npath = \"/nonexistent\"\n[defaults.build]\nrecipe = \"pip\"\nenv = {{ PATH = \"{bin}:/usr/bin:/bin\" }}\n{}",
        index_of(&upstream)
    ));
    fs::create_dir(world.repository.directory.join("wheels")).unwrap();
    fs::write(world.repository.directory.join("wheels/inner-1-py3-none-any.whl"), inner).unwrap();
    world.commit(&[("requirements.txt", "--find-links wheels\nouter\n")]);
    let run = fill(&world);
    run.exits(Exit::Ok);
    let told = "warning: 1 of 2 files did not come through the package index, and nobody but the builder knows what it is: `inner-1-py3-none-any.whl`";
    assert!(run.stderr.contains(told), "{run}");
}
