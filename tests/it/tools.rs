//! The package tools that the recipes call: those of this machine, and those that an index has, fetched once and shared by every test.
//!
//! Each is given as the directory that holds it, to be put into the `PATH` of a build; where there is none, the test is skipped.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use deployer::sandbox::{Sandbox, skip};

/// Where a build looks for what has no directory of its own here.
const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin";

/// A tool that was looked for, or why there is none. It is looked for once in a run.
type Found = OnceLock<Result<PathBuf, String>>;

/// The value of `PATH` in which `directories` come first.
pub fn path(directories: &[&Path]) -> String {
    let named = directories.iter().map(|directory| directory.to_str().unwrap().to_owned());
    named.chain([SYSTEM.to_owned()]).collect::<Vec<_>>().join(":")
}

/// Tells whether there is an index of Python packages here.
pub fn has_python_index() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| Sandbox::new(false).map_err(|error| error.to_string())?.package_index());
    found.as_ref().map_err(|reason| skip(&format!("no package index: {reason}"))).is_ok()
}

/// npm, where its registry answers.
pub fn npm() -> Option<PathBuf> {
    static FOUND: Found = OnceLock::new();
    told(FOUND.get_or_init(|| {
        let npm = in_path("npm")?;
        let answered = run(Command::new(npm.join("npm")).args(["view", "left-pad", "version"]));
        answered.map_err(|_| "`npm view left-pad version` gets no answer: there is no registry here".to_owned()).map(|()| npm)
    }))
}

/// Bundler, with the Ruby it runs on.
pub fn bundler() -> Option<PathBuf> {
    static FOUND: Found = OnceLock::new();
    told(FOUND.get_or_init(|| {
        let bundle = in_path("bundle")?;
        in_path("ruby").and_then(|_| in_path("gem")).map(|_| bundle)
    }))
}

/// The toolchain that compiled this test, where this user may run it: a shim of rustup needs the home of whoever installed it.
pub fn toolchain() -> Option<PathBuf> {
    static FOUND: Found = OnceLock::new();
    told(FOUND.get_or_init(|| {
        let cargo = std::env::var_os("DEPLOYER_TEST_CARGO").map_or_else(|| PathBuf::from(env!("CARGO")), PathBuf::from);
        let bin = cargo.parent().unwrap().to_owned();
        run(Command::new(bin.join("rustc")).arg("--version"))
            .map_err(|_| format!("this user cannot run {}", bin.join("rustc").display()))?;
        Ok(bin)
    }))
}

/// The same, where a registry answers.
pub fn cargo() -> Option<PathBuf> {
    static FOUND: Found = OnceLock::new();
    let bin = toolchain()?;
    told(FOUND.get_or_init(|| {
        let answered =
            run(Command::new(bin.join("cargo")).args(["info", "--quiet", "itoa"]).env("RUSTC", bin.join("rustc")).current_dir("/"));
        answered.map_err(|_| "`cargo info itoa` gets no answer: there is no registry here".to_owned()).map(|()| bin)
    }))
}

/// uv, from the index.
pub fn uv() -> Option<PathBuf> {
    static FOUND: Found = OnceLock::new();
    told(FOUND.get_or_init(|| fetched("uv-0.13.9", |directory| with_pip(directory, "uv", &["uv==0.13.9"]))))
}

/// Poetry with its export plugin, from the index.
pub fn poetry() -> Option<PathBuf> {
    static FOUND: Found = OnceLock::new();
    told(FOUND.get_or_init(|| {
        fetched("poetry-2.5.1", |directory| with_pip(directory, "poetry", &["poetry==2.5.1", "poetry-plugin-export==1.10.1"]))
    }))
}

/// pnpm, from the registry.
pub fn pnpm() -> Option<PathBuf> {
    static FOUND: Found = OnceLock::new();
    let npm = npm()?;
    told(FOUND.get_or_init(|| {
        fetched("pnpm-10.19.0", |directory| {
            let bin = directory.join("bin");
            let mut command = Command::new(npm.join("npm"));
            command.args(["install", "--global", "--no-audit", "--no-fund", "pnpm@10.19.0", "--prefix"]).arg(directory);
            run(command.env("npm_config_cache", directory.join("cache"))).map(|()| bin)
        })
    }))
}

fn told(found: &Result<PathBuf, String>) -> Option<PathBuf> {
    found.as_ref().map_err(|reason| skip(reason)).ok().cloned()
}

/// The directory of a program of this machine.
fn in_path(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find(|directory| directory.join(name).is_file());
    found.ok_or_else(|| format!("there is no `{name}` in PATH"))
}

/// Makes a virtual environment with packages, and a directory with nothing but one program of theirs: the environment has a `python3` too,
/// which is not the one that a build shall find.
fn with_pip(directory: &Path, program: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let python = Sandbox::new(false).map_err(|error| error.to_string())?.tools().python?;
    run(Command::new(python).args(["-m", "venv"]).arg(directory))?;
    let bin = directory.join("bin");
    let mut command = Command::new(bin.join("python"));
    command.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "--timeout", "30"]);
    run(command.args(packages))?;
    let alone = directory.join("alone");
    let made = fs::create_dir(&alone).and_then(|()| symlink(bin.join(program), alone.join(program)));
    made.map(|()| alone).map_err(|error| error.to_string())
}

/// Makes a directory that outlives this run, unless there is one: whoever comes first makes it, and others wait for that.
fn fetched(name: &str, make: impl FnOnce(&Path) -> Result<PathBuf, String>) -> Result<PathBuf, String> {
    let user = rustix::process::geteuid().as_raw();
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tools-{user}"));
    let (directory, bin) = (tools.join(name), tools.join(format!("{name}.bin")));
    let wrong = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(&tools).map_err(wrong)?;
    let lock = File::create(tools.join(format!("{name}.lock"))).map_err(wrong)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| wrong(error.into()))?;
    if let Ok(ready) = fs::read_to_string(&bin) {
        return Ok(PathBuf::from(ready));
    }
    let _ = fs::remove_dir_all(&directory);
    let holds_it = make(&directory).map_err(|reason| format!("{name} cannot be fetched: {reason}"))?;
    fs::write(&bin, holds_it.to_str().unwrap()).map_err(wrong)?;
    Ok(holds_it)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let last = || String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", last())) }
}
