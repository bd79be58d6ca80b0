//! The lines that the README has for tools without a recipe are read from it, and used: the cache is filled where an index is reached, then
//! the project is built with no network at all, by the real tool.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use deployer::sandbox::skip;

use crate::harness::World;
use crate::tools;

/// The block of the README that follows the mark of a tool.
fn lines(tool: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mark = format!("<!-- lines {tool} -->\n```toml\n");
    let found: Vec<&str> = readme.split(&mark).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(found.len(), 1, "the README has {} blocks for {tool}", found.len());
    found[0].to_owned()
}

/// A project on one host with the lines of a tool, which is in one of `directories`.
fn world(tool: &str, directories: &[&Path]) -> World {
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    fs::create_dir(world.cache("app1")).unwrap();
    let lines = lines(tool);
    let (before, build) = lines.split_once("[defaults.build]\n").unwrap();
    assert!(before.contains("[defaults.cache]\n") && build.contains("command = "), "{lines}");
    // What differs from a host that has the tool where it looks for it.
    world.config(&format!("{before}[defaults.build]\nenv = {{ PATH = \"{}\" }}\n{build}", tools::path(directories)))
}

/// Fills the cache, lets the index go, and deploys without a network to a host that has nothing.
fn fill_and_deploy(world: &World) {
    let filled = world.deployer(["cache", "fill", "--rev", "master", "--set", "cache.network=host"]);
    filled.ok();
    assert!(filled.stderr.contains("proven by a build"), "{filled}");
    // The host has only what the deploy brings it.
    let _ = fs::remove_dir_all(world.path("srv/index"));
    fs::remove_dir_all(world.cache("app1")).unwrap();
    fs::create_dir(world.cache("app1")).unwrap();
    let run = world.deployer(["deploy", "--rev", "master", "-v"]);
    run.ok();
    assert!(run.stderr.contains("the build had no network"), "{run}");
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a line of shell in the live release, without a network and without the tool's own settings.
fn says(world: &World, line: &str) -> String {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-euc", line]).current_dir(fs::canonicalize(world.current("app1")).unwrap());
    run(command.env_clear().env("PATH", tools::path(&[])).env("HOME", world.path("home")))
}

#[test]
fn a_pnpm_project_is_built_with_the_lines_of_the_readme() {
    let (Some(npm), Some(pnpm)) = (tools::npm(), tools::pnpm()) else { return };
    let path = [pnpm.as_path(), npm.as_path()];
    let world = world("pnpm", &path);
    let directory = &world.repository.directory;
    let package = "{\"name\":\"boskel\",\"version\":\"1.0.0\",\"private\":true,\"dependencies\":{\"left-pad\":\"1.3.0\"}}\n";
    fs::write(directory.join("package.json"), package).unwrap();
    let mut lock = Command::new(pnpm.join("pnpm"));
    lock.args(["install", "--lockfile-only", "--store-dir"]).arg(world.path("store")).current_dir(directory);
    run(lock.env("PATH", tools::path(&path)).env("HOME", world.path("home")));
    world.commit(&[(".gitignore", "node_modules\n")]);
    fill_and_deploy(&world);
    let line = format!("{} -e \"console.log(require('left-pad')('x', 3))\"", npm.join("node").display());
    assert_eq!(says(&world, &line), "  x\n");
}

/// What `poetry lock` writes for `POETRY_PROJECT`: it asks more of an index than every mirror answers.
const POETRY_LOCK: &str = r#"[[package]]
name = "docopt"
version = "0.6.2"
description = "Pythonic argument parser, that will make you smile"
optional = false
python-versions = "*"
groups = ["main"]
files = [
    {file = "docopt-0.6.2.tar.gz", hash = "sha256:49b3a825280bd66b3aa83585ef59c4a8c82f2c8a522dbe754a8bc8d08c85c491"},
]

[[package]]
name = "tabulate"
version = "0.9.0"
description = "Pretty-print tabular data"
optional = false
python-versions = ">=3.7"
groups = ["main"]
files = [
    {file = "tabulate-0.9.0-py3-none-any.whl", hash = "sha256:024ca478df22e9340661486f85298cff5f6dcdba14f3813e8830015b9ed1948f"},
    {file = "tabulate-0.9.0.tar.gz", hash = "sha256:0095b12bf5966de529c0feb1fa08671671b3368eec77d7ef7ab114be2c068b3c"},
]

[package.extras]
widechars = ["wcwidth"]

[metadata]
lock-version = "2.1"
python-versions = ">=3.9"
content-hash = "e39328226fd92ad3171b0bd25e76cdf6a5f4ae3c62767c9e24f52a4dba9f7261"
"#;
const POETRY_PROJECT: &str = "[project]\nname = \"boskel\"\nversion = \"1.0\"\nrequires-python = \">=3.9\"\n\
                              dependencies = [\"tabulate==0.9.0\", \"docopt==0.6.2\"]\n[tool.poetry]\npackage-mode = false\n";

#[test]
fn a_poetry_project_is_built_with_the_lines_of_the_readme() {
    if !tools::has_python_index() {
        return;
    }
    let Some(poetry) = tools::poetry() else { return };
    let world = world("poetry", &[&poetry]);
    world.commit(&[("pyproject.toml", POETRY_PROJECT), ("poetry.lock", POETRY_LOCK)]);
    fill_and_deploy(&world);
    let line = "venv/bin/python -I -c 'import tabulate, docopt; print(tabulate.__version__, docopt.__version__)'";
    assert_eq!(says(&world, line), "0.9.0 0.6.2\n");
}

const GEMSPEC: &str = "Gem::Specification.new do |s|\n  s.name = 'boskel_words'\n  s.version = '1.2.0'\n  s.summary = 'Words'\n  s.authors = ['Ada']\n  \
                       s.files = ['lib/boskel_words.rb']\nend\n";

#[test]
fn a_bundler_project_is_built_with_the_lines_of_the_readme() {
    let Some(bundler) = tools::bundler() else { return };
    let world = world("bundler", &[&bundler]);
    // An index of gems that is a directory: what is fetched from it is what a fill fetches from any other.
    let (sources, index) = (world.path("srv/gem"), world.path("srv/index"));
    fs::create_dir_all(sources.join("lib")).unwrap();
    fs::create_dir_all(index.join("gems")).unwrap();
    fs::write(sources.join("boskel_words.gemspec"), GEMSPEC).unwrap();
    fs::write(sources.join("lib/boskel_words.rb"), "module BoskelWords; SAID = 'words 1.2.0'; end\n").unwrap();
    let ruby = |program: &str, arguments: &[&str], directory: &Path| {
        let mut command = Command::new(bundler.join(program));
        command.args(arguments).current_dir(directory).env("HOME", world.path("home")).env("BUNDLE_SILENCE_ROOT_WARNING", "1");
        command
    };
    let gem = index.join("gems/boskel_words-1.2.0.gem");
    run(&mut ruby("gem", &["build", "--quiet", "boskel_words.gemspec", "--output", gem.to_str().unwrap()], &sources));
    let indexed = ruby("gem", &["generate_index", "--directory", "."], &index).stdin(Stdio::null()).output().unwrap();
    if !indexed.status.success() {
        return skip("this RubyGems has no `gem generate_index`");
    }
    let gemfile = format!("source 'file://{}'\ngem 'boskel_words', '1.2.0'\n", index.display());
    world.commit(&[("Gemfile", &gemfile), (".gitignore", ".bundle\n")]);
    run(&mut ruby("bundle", &["lock"], &world.repository.directory));
    world.commit(&[("main.rb", "require 'boskel_words'\nputs BoskelWords::SAID\n")]);
    fill_and_deploy(&world);
    assert_eq!(says(&world, "bundle exec ruby main.rb"), "words 1.2.0\n");
}
