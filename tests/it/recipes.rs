//! Every recipe with its real tool, in every way (see `all_ways`): from a cache that was filled where an index is reached, or through the package
//! index, once for all or on the host. The ways of a buildout are there; here is one on a host that has nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use deployer::exit::Exit;

use crate::all_ways::{Project, Way};
use crate::harness::World;
use crate::tools;

#[test]
fn a_pip_project_is_built_through_the_index() {
    let Some(mut project) = pip(Way::Index) else { return };
    project.world.commit(&[
        ("requirements.txt", "tabulate==0.9.0\ndocopt==0.6.2\n.\n"),
        (
            "setup.py",
            "from setuptools import setup\nsetup(name='boskel', version='1.0', py_modules=['boskel'], entry_points={'console_scripts': ['boskel = boskel:main']})\n",
        ),
        ("boskel.py", "import tabulate, docopt\ndef main():\n    print(tabulate.__version__, docopt.__version__)\n"),
    ]);
    project.builds_once_and_then_on_the_host("venv/bin/boskel", "0.9.0 0.6.2\n");
}

#[test]
fn a_pip_project_with_wheels_an_sdist_an_extension_and_a_pinned_back_end_is_built_from_the_cache() {
    let Some(mut project) = pip(Way::Cache) else { return };
    // Nothing at all.
    project.world.commit(&[("requirements.txt", "\n")]);
    project.is_filled();
    project.builds(&["deploy", "--rev", "master", "-v"]);
    assert!(project.world.current("app2").join("venv/bin/python").is_symlink());
    // A wheel, an sdist that needs a back end, an extension in C that is compiled on the host, and the project with a back end of its own.
    project.world.commit(&[
        ("requirements.txt", "tabulate==0.9.0\n--no-binary docopt\ndocopt==0.6.2\n--no-binary markupsafe\nmarkupsafe==3.0.2\n.\n"),
        ("pyproject.toml", "[build-system]\nrequires = [\"hatchling==1.27.0\"]\nbuild-backend = \"hatchling.build\"\n[project]\nname = \"boskel\"\nversion = \"1.0\"\nscripts = { boskel = \"boskel:main\" }\n"),
        ("boskel/__init__.py", "import tabulate, docopt, markupsafe._speedups\ndef main():\n    print(tabulate.__version__, docopt.__version__)\n"),
    ]);
    project.is_filled();
    let dist = project.cache("app1").join("dist");
    let filled = names(&dist);
    for start in ["tabulate-0.9.0", "docopt-0.6.2.tar.gz", "markupsafe-3.0.2.tar.gz", "hatchling-1.27.0", "setuptools-", "pathspec-"] {
        assert!(filled.iter().any(|name| name.starts_with(start)), "{start}: {filled:?}");
    }
    assert!(!filled.iter().any(|name| name.starts_with("boskel")), "{filled:?}");
    project.builds_once_and_then_on_the_host("venv/bin/boskel", "0.9.0 0.6.2\n");
    // A fill cannot get what does not exist, and what the cache lacks is named.
    project.world.commit(&[("requirements.txt", "tabulate==99.0\n")]);
    let run = project.world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("tabulate==99.0"), "{run}");
    assert!(run.stderr.contains("The cache stays as it was"), "{run}");
    project.fails(&["`tabulate==99.0` is not in the shared download cache of app1", "fix  deployer cache fill -e prod"]);
    assert_eq!(names(&dist), filled);
}

fn pip(way: Way) -> Option<Project> {
    if tools::has_python_index() { Project::new(way, "recipe = \"pip\"") } else { None }
}

#[test]
fn a_uv_project_is_built_from_the_cache() {
    uv(Way::Cache);
}

#[test]
fn a_uv_project_is_built_through_the_index() {
    uv(Way::Index);
}

fn uv(way: Way) {
    let Some(uv) = tools::uv().filter(|_| tools::has_python_index()) else { return };
    let Some(mut project) = Project::new(way, &with_path("uv", &uv)) else { return };
    let directory = project.world.repository.directory.clone();
    let text = "[project]\nname = \"boskel\"\nversion = \"1.0\"\nrequires-python = \">=3.9\"\ndependencies = [\"tabulate==0.9.0\"]\n\
                scripts = { boskel = \"boskel:main\" }\n\
                [build-system]\nrequires = [\"hatchling==1.27.0\"]\nbuild-backend = \"hatchling.build\"\n";
    fs::write(directory.join("pyproject.toml"), text).unwrap();
    output(Command::new(uv.join("uv")).args(["lock", "--quiet", "--no-cache"]).current_dir(&directory));
    project.world.commit(&[("boskel.py", "import tabulate\ndef main():\n    print(tabulate.__version__)\n"), (".gitignore", ".venv\n")]);
    project.is_filled();
    project.builds_once_and_then_on_the_host(".venv/bin/boskel", "0.9.0\n");
}

#[test]
fn an_npm_project_is_built_from_a_copy_of_the_cache() {
    npm(Way::Cache);
}

#[test]
fn an_npm_project_is_built_through_the_index() {
    npm(Way::Index);
}

fn npm(way: Way) {
    let Some(npm) = tools::npm() else { return };
    let Some(mut project) = Project::new(way, &with_path("npm", &npm)) else { return };
    let directory = project.world.repository.directory.clone();
    let package = "{\"name\":\"boskel\",\"version\":\"1.0.0\",\"private\":true,\"dependencies\":{\"left-pad\":\"1.3.0\"},\
                   \"scripts\":{\"build\":\"mkdir -p bin && cp boskel.js bin/boskel && chmod 755 bin/boskel\"}}\n";
    fs::write(directory.join("package.json"), package).unwrap();
    output(Command::new(npm.join("npm")).args(["install", "--package-lock-only", "--no-audit", "--no-fund"]).current_dir(&directory));
    let program = format!("#!{}\nconsole.log(require('left-pad')('x', 3))\n", npm.join("node").display());
    project.world.commit(&[("boskel.js", &program), (".gitignore", "node_modules\n")]);
    project.is_filled();
    project.builds_once_and_then_on_the_host("bin/boskel", "  x\n");
}

#[test]
fn a_cargo_project_is_built_from_vendored_crates() {
    cargo(Way::Cache);
}

#[test]
fn a_cargo_project_is_built_through_the_index() {
    cargo(Way::Index);
}

fn cargo(way: Way) {
    let Some(bin) = tools::cargo() else { return };
    let Some(mut project) = Project::new(way, &with_path("cargo", &bin)) else { return };
    let directory = project.world.repository.directory.clone();
    project.world.commit(&[
        ("Cargo.toml", "[package]\nname = \"boskel\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"=1.0.11\"\n"),
        ("src/main.rs", "fn main() { println!(\"{}\", itoa::Buffer::new().format(42)); }\n"),
    ]);
    output(Command::new(bin.join("cargo")).args(["generate-lockfile", "--quiet"]).env("RUSTC", bin.join("rustc")).current_dir(&directory));
    project.world.commit(&[(".gitignore", "target\n")]);
    project.is_filled();
    project.builds_once_and_then_on_the_host("target/release/boskel", "42\n");
}

/// The keys of a build whose tool lies in a directory of its own.
fn with_path(recipe: &str, tool: &Path) -> String {
    format!("recipe = \"{recipe}\"\nenv = {{ PATH = \"{}\" }}", tools::path(&[tool]))
}

#[test]
fn a_buildout_is_filled_set_up_and_built_on_a_host_that_has_nothing() {
    const SETTINGS: &str =
        "[defaults.cache]\npath = \"/nonexistent\"\nnetwork = \"host\"\n[defaults.build]\nrecipe = \"buildout\"\nvenv = \"<tmp>/venv\"\n";
    if !tools::has_python_index() {
        return;
    }
    let mut world = World::new().local_hosts(&["app1"]).own_caches().patient().config(SETTINGS);
    fs::create_dir(world.cache("app1")).unwrap();
    let cfg = "[buildout]\ndevelop = .\nparts = boskel\nversions = versions\nallow-picked-versions = false\n[boskel]\nrecipe = zc.recipe.egg\neggs = boskel\n\
               interpreter = py\n[versions]\npackaging = 26.3\npip = 26.3\nplatformdirs = 4.14.7\nsetuptools = 84.2.1\nwheel = 0.48.0\nzc.buildout = 6.0.1\nzc.recipe.egg = 6.0.0\n\
               docopt = 0.6.2\n";
    world.commit(&[
        ("buildout.cfg", cfg),
        ("offline.cfg", "[buildout]\nextends = buildout.cfg\ndownload-cache = downloads\ninstall-from-cache = true\n"),
        (
            "setup.py",
            "from setuptools import setup\nsetup(name='boskel', version='1.0', packages=['boskel'], package_dir={'': 'src'}, install_requires=['docopt'])\n",
        ),
        ("src/boskel/__init__.py", "def main():\n    print('boskel')\n"),
    ]);
    world.deployer(["cache", "fill", "--rev", "master"]).ok();
    // What was filled is on this machine, and the host has lost everything: `setup` brings it, and makes the environment of it.
    let filled = names(&world.cache("app1").join("dist"));
    fs::remove_dir_all(world.cache("app1")).unwrap();
    world.reconfigure(&format!("rev = \"master\"\n{SETTINGS}"));
    let check = world.deployer(["setup", "--check"]);
    assert!(check.stderr.contains(" files into <tmp>/caches/app1; virtual environment <tmp>/venv"), "{check}");
    assert!(!world.cache("app1").exists() && !world.path("venv").exists());
    world.deployer(["setup"]).ok();
    assert_eq!(names(&world.cache("app1").join("dist")), filled);
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
    assert!(run.stderr.contains("nonsense"), "{run}");
}

#[test]
fn a_virtual_environment_is_made_through_the_index_where_builds_go_there() {
    if !tools::has_python_index() {
        return;
    }
    let build = "[defaults.build]\nrecipe = \"buildout\"\nconfig = \"buildout.cfg\"\nvenv = \"<tmp>/venv\"\nnetwork = \"index\"\n";
    let mut world = World::new().local_hosts(&["app1"]).patient().config(build);
    let pinned = |version: &str| format!("[buildout]\nparts =\nversions = versions\n[versions]\nzc.buildout = {version}\n");
    world.commit(&[("buildout.cfg", &pinned("5.1.1"))]);
    let check = world.deployer(["setup", "--check"]);
    assert!(check.stderr.contains("virtual environment <tmp>/venv") && check.stderr.contains("setup -e prod --rev master"), "{check}");
    assert!(!world.path("venv").exists());
    world.deployer(["setup", "--rev", "master"]).ok();
    let version = || output(Command::new(world.path("venv/bin/buildout")).arg("--version"));
    assert!(version().contains("5.1.1"), "{}", version());
    world.reconfigure(&format!("rev = \"master\"\n{build}"));
    let again = world.deployer(["setup"]);
    assert!(again.stderr.contains("setup  1/1  as it must be"), "{again}");
    world.deployer(["deploy"]).ok();
    world.commit(&[("buildout.cfg", &pinned("6.0.1"))]);
    let changed = world.deployer(["setup"]);
    assert!(changed.stderr.contains("virtual environment <tmp>/venv: zc.buildout 5.1.1 → 6.0.1"), "{changed}");
    assert!(output(Command::new(world.path("venv/bin/buildout")).arg("--version")).contains("6.0.1"));
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
