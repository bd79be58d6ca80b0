//! Every recipe with its real tool: the cache is filled where an index is reached, then the project is built without any network.

use std::fs;
use std::process::{Command, Stdio};

use deployer::exit::Exit;

use crate::harness::{Run, World};
use crate::tools;

/// A project on one host, whose builds have no network at all where the host can see to that. Its fills ask what the tools themselves
/// are set to; those that go through the package index are in `fills`.
fn world(build: &str) -> World {
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    fs::create_dir(world.cache("app1")).unwrap();
    world.config(&format!("[defaults.cache]\npath = \"/nonexistent\"\nnetwork = \"host\"\n[defaults.build]\n{build}\n"))
}

/// Fills the cache for `master` and deploys it. The first line of what went wrong is the caller's to look at.
fn fill_and_deploy(world: &World) -> Run {
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    let run = world.deployer(["deploy", "--rev", "master"]);
    if run.status == 0 {
        assert!(run.stderr.contains("cache  1/1  complete"), "{run}");
    }
    run
}

fn files(world: &World) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(world.cache("app1").join("dist")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const SETUP_PY: &str = "from setuptools import setup, find_packages\nsetup(name='boskel', version='1.0', packages=find_packages('src'), package_dir={'': 'src'})\n";
const MODULE: &str = "def main():\n    print('boskel')\n";

#[test]
fn a_pip_project_with_wheels_an_sdist_an_extension_and_a_pinned_back_end_is_built_offline() {
    let world = world("recipe = \"pip\"\n");
    if !tools::has_python_index() {
        return;
    }
    // Nothing at all.
    world.commit(&[("requirements.txt", "\n")]);
    fill_without_files(&world);
    // A wheel, an sdist that needs a back end, an extension in C that is compiled on the host, and the project with a back end of its own.
    world.commit(&[
        ("requirements.txt", "tabulate==0.9.0\n--no-binary docopt\ndocopt==0.6.2\n--no-binary markupsafe\nmarkupsafe==3.0.2\n.\n"),
        ("pyproject.toml", "[build-system]\nrequires = [\"hatchling==1.27.0\"]\nbuild-backend = \"hatchling.build\"\n[project]\nname = \"boskel\"\nversion = \"1.0\"\n[tool.hatch.build.targets.wheel]\npackages = [\"boskel\"]\n"),
        ("boskel/__init__.py", MODULE),
    ]);
    fill_and_deploy(&world).ok();
    let names = files(&world);
    for start in ["tabulate-0.9.0", "docopt-0.6.2.tar.gz", "markupsafe-3.0.2.tar.gz", "hatchling-1.27.0", "setuptools-", "pathspec-"] {
        assert!(names.iter().any(|name| name.starts_with(start)), "{start}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("boskel")), "{names:?}");
    let python = world.current("app1").join("venv/bin/python");
    let script = "import tabulate, docopt, boskel, markupsafe._speedups; boskel.main()";
    assert_eq!(output(Command::new(python).args(["-I", "-c", script])), "boskel\n");
    // What the cache lacks is named before anything is built, and a fill cannot get what does not exist.
    world.commit(&[("requirements.txt", "tabulate==99.0\n")]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("tabulate==99.0"), "{run}");
    assert!(run.stderr.contains("The cache stays as it was"), "{run}");
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("`tabulate==99.0` is not in the shared download cache of app1"), "{run}");
    assert!(run.stderr.contains("fix  deployer cache fill -e prod"), "{run}");
    assert_eq!(files(&world), names);
}

fn fill_without_files(world: &World) {
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::Ok);
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(world.current("app1").join("venv/bin/python").exists());
}

#[test]
fn a_buildout_is_filled_set_up_and_built_on_a_host_that_has_nothing() {
    let mut world = world("recipe = \"buildout\"\nvenv = \"<tmp>/venv\"\n");
    if !tools::has_python_index() {
        return;
    }
    let cfg = "[buildout]\ndevelop = .\nparts = boskel\nversions = versions\nallow-picked-versions = false\n[boskel]\nrecipe = zc.recipe.egg\neggs = boskel\n\
               interpreter = py\n[versions]\npackaging = 26.3\npip = 26.3\nplatformdirs = 4.14.7\nsetuptools = 84.2.1\nwheel = 0.48.0\nzc.buildout = 6.0.1\nzc.recipe.egg = 6.0.0\n\
               docopt = 0.6.2\n";
    world.commit(&[
        ("buildout.cfg", cfg),
        ("offline.cfg", "[buildout]\nextends = buildout.cfg\ndownload-cache = downloads\ninstall-from-cache = true\n"),
        ("setup.py", &SETUP_PY.replace("version='1.0'", "version='1.0', install_requires=['docopt']")),
        ("src/boskel/__init__.py", MODULE),
    ]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    // What was filled is on this machine, and the host has lost everything: `setup` brings it, and makes the environment of it.
    let filled = files(&world);
    fs::remove_dir_all(world.cache("app1")).unwrap();
    world.reconfigure(
        "rev = \"master\"\n[defaults.cache]\npath = \"/nonexistent\"\nnetwork = \"host\"\n[defaults.build]\nrecipe = \"buildout\"\nvenv = \"<tmp>/venv\"\n",
    );
    let check = world.deployer(["setup", "--check"]);
    assert!(check.stderr.contains(" files into <tmp>/caches/app1; virtual environment <tmp>/venv"), "{check}");
    assert!(!world.cache("app1").exists() && !world.path("venv").exists());
    world.deployer(["setup"]).ok();
    assert_eq!(files(&world), filled);
    let again = world.deployer(["setup"]);
    assert!(again.stderr.contains("setup  1/1  as it must be"), "{again}");
    let run = world.deployer(["deploy"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("cache  1/1  complete"), "{run}");
    let script = "import docopt, boskel; boskel.main()";
    assert_eq!(output(Command::new(world.current("app1").join("bin/py")).args(["-c", script])), "boskel\n");
    // A part that fails fails as itself, and not for want of a package.
    world.commit(&[("buildout.cfg", &cfg.replace("eggs = boskel\n", "eggs = boskel\nentry-points = nonsense\n"))]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("nonsense") || run.stderr.contains("boskel"), "{run}");
}

#[test]
fn an_npm_project_is_built_from_a_copy_of_its_cache() {
    let Some(npm) = tools::npm() else { return };
    let world = world(&format!("recipe = \"npm\"\nenv = {{ PATH = \"{}\" }}\n", tools::path(&[&npm])));
    let package = "{\"name\":\"boskel\",\"version\":\"1.0.0\",\"private\":true,\"dependencies\":{\"left-pad\":\"1.3.0\"},\
                   \"scripts\":{\"build\":\"node -e \\\"console.log(require('left-pad')('x',3))\\\" > built\"}}\n";
    fs::write(world.repository.directory.join("package.json"), package).unwrap();
    output(
        Command::new(npm.join("npm"))
            .args(["install", "--package-lock-only", "--no-audit", "--no-fund"])
            .current_dir(&world.repository.directory),
    );
    world.commit(&[(".gitignore", "node_modules\n")]);
    fill_and_deploy(&world).ok();
    assert!(world.read_current("app1", "built").contains("  x"));
    let before = crate::harness::snapshot(&world.cache("app1").join("npm"));
    world.deployer(["deploy", "--rev", "master", "--force"]).ok();
    assert_eq!(crate::harness::snapshot(&world.cache("app1").join("npm")), before);
}

#[test]
fn a_cargo_project_is_built_from_vendored_crates() {
    let Some(bin) = tools::cargo() else { return };
    let world = world(&format!("recipe = \"cargo\"\nenv = {{ PATH = \"{}\" }}\n", tools::path(&[&bin])));
    world.commit(&[
        ("Cargo.toml", "[package]\nname = \"boskel\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"=1.0.11\"\n"),
        ("src/main.rs", "fn main() { println!(\"{}\", itoa::Buffer::new().format(42)); }\n"),
    ]);
    output(
        Command::new(bin.join("cargo"))
            .args(["generate-lockfile", "--quiet"])
            .env("RUSTC", bin.join("rustc"))
            .current_dir(&world.repository.directory),
    );
    world.commit(&[(".gitignore", "target\n")]);
    fill_and_deploy(&world).ok();
    assert_eq!(output(&mut Command::new(world.current("app1").join("target/release/boskel"))), "42\n");
}

#[test]
fn a_uv_project_is_built_from_the_flat_cache() {
    if !tools::has_python_index() {
        return;
    }
    let Some(uv) = tools::uv() else { return };
    let world = world(&format!("recipe = \"uv\"\nenv = {{ PATH = \"{}\" }}\n", tools::path(&[&uv])));
    let project = "[project]\nname = \"boskel\"\nversion = \"1.0\"\nrequires-python = \">=3.9\"\ndependencies = [\"tabulate==0.9.0\"]\n\
                   [build-system]\nrequires = [\"hatchling==1.27.0\"]\nbuild-backend = \"hatchling.build\"\n[tool.hatch.build.targets.wheel]\npackages = [\"boskel\"]\n";
    let directory = world.repository.directory.clone();
    fs::write(directory.join("pyproject.toml"), project).unwrap();
    output(Command::new(uv.join("uv")).args(["lock", "--quiet", "--no-cache"]).current_dir(&directory));
    world.commit(&[("boskel/__init__.py", MODULE), (".gitignore", ".venv\n")]);
    fill_and_deploy(&world).ok();
    let python = world.current("app1").join(".venv/bin/python");
    assert_eq!(output(Command::new(python).args(["-I", "-c", "import tabulate, boskel; boskel.main()"])), "boskel\n");
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
