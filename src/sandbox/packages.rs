//! What the sample project is built from: a complete download cache and a virtual environment, made with whatever Python and
//! package index this machine offers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::sample::{BUILDOUT_CFG, LATE_PART, LATE_PIN};
use super::{Error, Result, Sample, Tool, capture, doing, is_executable};

/// A directory that serves as `cache.path` of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadCache {
    /// Its files are in `dist/`, as buildout has them.
    pub directory: PathBuf,
    /// Where lies what only the commit between `v1` and `v2` needs.
    late: PathBuf,
}

impl DownloadCache {
    /// Buildout never caches what builds its packages, setuptools and wheel, nor itself, so pip fetches every pin of the project.
    pub(super) fn fill(directory: PathBuf, sample: Sample) -> Result<Self> {
        let cache = Self { late: directory.with_extension("late"), directory };
        let (dist, late) = (cache.dist(), cache.late.as_path());
        match sample {
            Sample::Buildout => {
                let python = python().map_err(|reason| Error::Missing { tool: "python", reason })?;
                let python = with_pip(python, &cache.directory.with_extension("pip"))?;
                download(&python, &dist, &pins(BUILDOUT_CFG))?;
                download(&python, late, &pins(&format!("[versions]\n{LATE_PIN}")))?;
            }
            Sample::Shell => {
                for directory in [&dist, late] {
                    doing("make the download cache", fs::create_dir_all(directory))?;
                }
                let write = |path: PathBuf, text| doing("fill the download cache", fs::write(path, text));
                write(dist.join("greeting-1.0.sh"), include_str!("boskel/shell/greeting-1.0.sh"))?;
                write(late.join(LATE_PART), include_str!("boskel/shell/sizes-1.0.sh"))?;
            }
        }
        Ok(cache)
    }

    fn dist(&self) -> PathBuf {
        self.directory.join("dist")
    }

    /// Adds what the commit between `v1` and `v2` needs.
    pub fn add_late(&self) -> Result<()> {
        copy_files(&self.late, &self.dist())
    }

    /// Makes another cache of the same files, for a host of its own.
    pub fn copy_to(&self, directory: &Path) -> Result<Self> {
        let copy = Self { directory: directory.to_owned(), late: self.late.clone() };
        copy_files(&self.dist(), &copy.dist())?;
        Ok(copy)
    }
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        fs::create_dir_all(to)?;
        fs::read_dir(from)?.try_for_each(|entry| entry.and_then(|entry| fs::copy(entry.path(), to.join(entry.file_name())).map(drop)))
    };
    doing(format!("copy the download cache to {}", to.display()), copy())
}

/// The `[versions]` of a buildout config as pip's requirements.
fn pins(config: &str) -> Vec<String> {
    let versions = config.lines().skip_while(|line| *line != "[versions]").skip(1).take_while(|line| !line.starts_with('['));
    versions.filter_map(|line| line.split_once(" = ")).map(|(name, version)| format!("{name}=={version}")).collect()
}

fn download(python: &Path, to: &Path, requirements: &[String]) -> Result<()> {
    let mut command = pip(python);
    // Without a cache of its own, pip writes nothing into the user's home.
    command.args(["download", "--quiet", "--no-cache-dir", "--timeout", "30", "--retries", "2", "--dest"]).arg(to).args(requirements);
    capture("pip download", &mut command).map(drop)
}

pub(super) fn index(python: PathBuf, scratch: &Path) -> std::result::Result<(), String> {
    let Some(requirement) = pins(BUILDOUT_CFG).into_iter().find(|pin| pin.starts_with("zc.recipe.egg")) else {
        return Err("the sample project pins nothing".to_owned());
    };
    let python = with_pip(python, &scratch.join("index-pip")).map_err(|error| last_line(&error))?;
    let mut command = pip(&python);
    command.args(["download", "--quiet", "--no-cache-dir", "--no-deps", "--timeout", "5", "--retries", "0", "--dest"]);
    let asked = capture("pip download", command.arg(scratch.join("index-check")).arg(requirement));
    asked.map(drop).map_err(|error| last_line(&error))
}

/// Debian's Python has `ensurepip` for virtual environments, but often no `pip` of its own: then one of those lends its pip.
fn with_pip(python: PathBuf, venv: &Path) -> Result<PathBuf> {
    if capture("python3 -m pip", Command::new(&python).args(["-m", "pip", "--version"])).is_ok() {
        return Ok(python);
    }
    capture("python3 -m venv", Command::new(python).args(["-m", "venv"]).arg(venv))?;
    Ok(venv.join("bin/python"))
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command
}

pub(super) fn make_venv(venv: &Path, cache: &DownloadCache) -> Result<()> {
    let python = python().map_err(|reason| Error::Missing { tool: "python", reason })?;
    capture("python -m venv", Command::new(python).args(["-m", "venv"]).arg(venv))?;
    let wanted = pins(BUILDOUT_CFG).into_iter().filter(|pin| pin.starts_with("zc.buildout="));
    let mut command = pip(&venv.join("bin/python"));
    command.args(["install", "--quiet", "--no-cache-dir", "--no-index", "--find-links"]).arg(cache.dist()).args(wanted);
    capture("pip install", &mut command).map(drop)
}

/// The first Python that this user can execute, that is new enough for zc.buildout 6 and that makes virtual environments.
pub(super) fn python() -> Tool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/local/bin"), PathBuf::from("/usr/bin")]);
    let check = "import sys, venv, ensurepip; assert sys.version_info >= (3, 10), 'Python 3.10 or later is needed'; print(sys.executable)";
    let mut failure = None;
    for python in directories.map(|directory| directory.join("python3")).filter(|python| is_executable(python)) {
        match capture("python3", Command::new(&python).args(["-I", "-c", check])) {
            Ok(executable) => return Ok(PathBuf::from(executable.trim())),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.map_or_else(|| "there is no `python3` in PATH".to_owned(), |error| last_line(&error)))
}

fn last_line(error: &Error) -> String {
    error.to_string().lines().last().unwrap_or_default().to_owned()
}
