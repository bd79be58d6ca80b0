//! A build that lacks something is explained by what its own tool said and by what the caches of the hosts hold: what is missing, where,
//! who has it, what to type. The tools are real, and what they lack is really missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deployer::exit::Exit;

use crate::harness::{Run, World};
use crate::tools;

/// Two hosts with a cache each, in which there is nothing. A release needs what the network has, and builds have none.
fn world(build: &str) -> World {
    let world = World::new().local_hosts(&["app1", "app2"]).own_caches().patient();
    for host in ["app1", "app2"] {
        fs::create_dir(world.cache(host)).unwrap();
    }
    world.config(&format!("[defaults.cache]\npath = \"/nonexistent\"\n[defaults.build]\n{build}\n"))
}

/// Deploys what cannot be built, and sees that it is told with what is to be done.
fn fails(world: &World, arguments: &[&str], hint: &str, fix: &str) -> Run {
    let run = world.deployer(["deploy", "--rev", "master"].iter().chain(arguments));
    run.exits(Exit::BuildFailed);
    for told in [format!("\n  hint: {hint}\n"), format!("\n  fix  {fix}\n")] {
        assert!(run.stderr.contains(&told), "{told}\n{run}");
    }
    run
}

const FILL: &str = "deployer cache fill -e prod --rev master";

fn nothing_on(hosts: &str, others: &str) -> String {
    format!("the build is offline and what this revision needs is not in the shared download cache of {hosts}{others}")
}

/// The directory of the revision's set in the cache of a host, as the failed build named it.
fn set(world: &World, host: &str, run: &Run, below: &str) -> PathBuf {
    let before = format!("<tmp>/caches/{host}/{below}/");
    let (_, rest) = run.stderr.split_once(&before).unwrap_or_else(|| panic!("{before}\n{run}"));
    let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    assert_eq!(digits.len(), 16, "{run}");
    world.cache(host).join(below).join(digits)
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn npm_is_told_what_its_cache_lacks_and_who_has_it() {
    let Some(npm) = tools::npm() else { return };
    let world = world(&format!("recipe = \"npm\"\nenv = {{ PATH = \"{}\" }}", tools::path(&[&npm])));
    let npm = |directory: &Path, arguments: &[&str]| {
        let mut command = Command::new(npm.join("npm"));
        output(command.args(arguments).args(["--no-audit", "--no-fund"]).current_dir(directory))
    };
    let directory = &world.repository.directory;
    let needs = |what: &str| format!("{{\"name\":\"boskel\",\"version\":\"1.0.0\",\"private\":true,\"dependencies\":{{{what}}}}}\n");
    fs::write(directory.join("package.json"), needs("\"isarray\":\"2.0.5\",\"left-pad\":\"1.3.0\"")).unwrap();
    npm(directory, &["install", "--package-lock-only"]);
    world.commit(&[(".gitignore", "node_modules\n")]);
    let plan = world.deployer(["plan", "--rev", "master"]);
    assert!(plan.stdout.contains("\n  build  recipe npm: npm ci, npm run build · network blocked"), "{plan}");

    let run = fails(&world, &[], &nothing_on("app1,app2", ""), FILL);
    let (here, there) = (set(&world, "app1", &run, "npm"), set(&world, "app2", &run, "npm"));
    npm(directory, &["ci", "--ignore-scripts", "--cache", there.to_str().unwrap()]);
    let files = |place: &Path| paths(place).len();
    let count = files(&world.cache("app2"));
    fails(&world, &["-H", "app1,app2"], &nothing_on("app1", &format!("; app2 has it ({count} files there, 0 here)")), FILL);

    // What a project needed that has the one package, and not the other.
    let other = world.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("package.json"), needs("\"isarray\":\"2.0.5\"")).unwrap();
    npm(&other, &["install", "--ignore-scripts", "--cache", here.to_str().unwrap()]);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    let left = files(&world.cache("app1"));
    let lacking = format!("` is not in the shared download cache of app1; app2 has it ({count} files there, {left} here)\n");
    assert!(run.stderr.contains("\n  hint: the build is offline and `left-pad") && run.stderr.contains(&lacking), "{run}");
    assert!(run.stderr.contains(&format!("\n  fix  {FILL}\n")), "{run}");
}

fn paths(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn uv_is_told_which_requirement_no_cache_has() {
    if !tools::has_python_index() {
        return;
    }
    let Some(uv) = tools::uv() else { return };
    let world = world(&format!("recipe = \"uv\"\nenv = {{ PATH = \"{}\" }}", tools::path(&[&uv])));
    let directory = world.repository.directory.clone();
    let project = "[project]\nname = \"boskel\"\nversion = \"1.0\"\nrequires-python = \">=3.9\"\ndependencies = [\"tabulate==0.9.0\", \"docopt==0.6.2\"]\n";
    fs::write(directory.join("pyproject.toml"), project).unwrap();
    output(Command::new(uv.join("uv")).args(["lock", "--quiet", "--no-cache"]).current_dir(&directory));
    world.commit(&[(".gitignore", ".venv\n")]);
    let plan = world.deployer(["plan", "--rev", "master"]);
    assert!(plan.stdout.contains("\n  build  recipe uv: uv venv, uv pip install --require-hashes · network blocked"), "{plan}");

    let run = fails(&world, &[], &nothing_on("app1,app2", ""), FILL);
    assert!(run.stderr.contains(" build failed after <t> (exit 2): recipe uv: uv venv, uv pip install --require-hashes\n"), "{run}");
    // A cache with something else in it.
    for host in ["app1", "app2"] {
        let dist = world.cache(host).join("dist");
        fs::create_dir(&dist).unwrap();
        fs::write(dist.join("docopt-0.6.1.tar.gz"), "").unwrap();
    }
    let lacking = "is not in the shared download cache of app1,app2";
    fails(&world, &[], &format!("the build is offline and `docopt==0.6.2` {lacking}"), FILL);
    // By its name alone another host has it.
    fs::write(world.cache("app2").join("dist/docopt-0.6.2.tar.gz"), "").unwrap();
    let run = world.deployer(["deploy", "--rev", "master"]);
    let hint =
        "hint: the build is offline and `docopt==0.6.2` is not in the shared download cache of app1; app2 has it (2 files there, 1 here)\n";
    assert!(run.stderr.contains(hint), "{run}");
    assert!(run.stderr.contains(&format!("\n  fix  {FILL}\n")), "{run}");
}

#[test]
fn cargo_is_told_which_crate_no_cache_has() {
    let Some(bin) = tools::toolchain() else { return };
    let world = world(&format!("recipe = \"cargo\"\nenv = {{ PATH = \"{}\" }}", tools::path(&[&bin])));
    let lock = "version = 4\n\n[[package]]\nname = \"boskel\"\nversion = \"1.0.0\"\ndependencies = [\n \"itoa\",\n]\n\n[[package]]\nname = \"itoa\"\n\
                version = \"1.0.11\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
                checksum = \"49f1f14873335454500d59611f1cf4a4b0f786f9ac11f4312a78e4cf2566695b\"\n";
    world.commit(&[
        ("Cargo.toml", "[package]\nname = \"boskel\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"=1.0.11\"\n"),
        ("Cargo.lock", lock),
        ("src/main.rs", "fn main() {}\n"),
    ]);
    let run = fails(&world, &[], &nothing_on("app1,app2", ""), FILL);
    let place = set(&world, "app1", &run, "cargo");
    let plan = world.deployer(["plan", "--rev", "master", "-H", "app1"]);
    let shown = format!("source.deployer.directory=\"<tmp>/caches/app1/cargo/{}\"'", place.file_name().unwrap().to_str().unwrap());
    assert!(plan.stdout.contains("\n  build  recipe cargo: cargo build --release --frozen ") && plan.stdout.contains(&shown), "{plan}");
    // Each host has a cache of its own: what is not the same on all of them stays a name.
    let plan = world.deployer(["plan", "--rev", "master"]);
    assert!(plan.stdout.contains("source.deployer.directory=\"{cache}\"'"), "{plan}");

    for host in ["app1", "app2"] {
        let crate_of = set(&world, host, &run, "cargo").join("ryu-1.0.0");
        fs::create_dir_all(&crate_of).unwrap();
        fs::write(crate_of.join("README.md"), "").unwrap();
    }
    let lacking = "is not in the shared download cache of app1,app2";
    fails(&world, &[], &format!("the build is offline and `itoa` {lacking}"), FILL);
    let crate_of = set(&world, "app2", &run, "cargo").join("itoa-1.0.11");
    fs::create_dir_all(&crate_of).unwrap();
    fs::write(crate_of.join("README.md"), "").unwrap();
    let here = "the build is offline and `itoa` is not in the shared download cache of app1; app2 has it (2 files there, 1 here)";
    fails(&world, &["-H", "app1,app2"], here, FILL);
}

#[test]
fn a_package_that_nobody_has_is_no_reason_to_leave_out_the_host_that_was_to_build() {
    let Some(world) = World::new().alike_hosts(&["app1", "app2"]) else { return };
    if let Err(why) = world.sandbox.tools().python {
        return deployer::sandbox::skip(&format!("no Python: {why}"));
    }
    let caches = ["app1", "app2"].map(|host| world.root(host).parent().unwrap().join("cache"));
    for cache in &caches {
        fs::create_dir(cache).unwrap();
    }
    let world =
        world.patient().config("[defaults.cache]\npath = \"<tmp>/site/cache\"\n[defaults.build]\non = \"first\"\nrecipe = \"pip\"\n");
    world.commit(&[("requirements.txt", "nobody-has-it==1.0\n")]);
    let hint = "the build is offline and `nobody-has-it==1.0` is not in the shared download cache of app1";
    let run = fails(&world, &[], &format!("{hint}, nor in that of any other host"), FILL);
    assert!(run.stderr.contains("\n  retry  ") && !run.stderr.contains("\n  without  "), "{run}");
    // One that has it may be able to build it.
    fs::create_dir(caches[1].join("dist")).unwrap();
    fs::write(caches[1].join("dist/nobody_has_it-1.0.tar.gz"), "").unwrap();
    let run = fails(&world, &[], &format!("{hint}; app2 has it (1 file there, 0 here)"), FILL);
    assert!(run.stderr.contains("\n  without  deployer deploy -e prod --rev master -H '!app1'\n"), "{run}");
}
