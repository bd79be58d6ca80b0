//! Asks a program for hosts: bounded in time and size, and with an answer that may be kept for a while.

use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::InventoryError;
use super::{MOST_BYTES, read};
use crate::config::environment::{Environment, Inventory, InventoryFormat, InventoryLimits, Target};
use crate::op;
use crate::session::process::{self, Ended};

/// Lines of its stderr that an error shows.
const EVIDENCE: usize = 10;

/// A command of the user's, to be run where `deploy.toml` lies.
pub(super) fn program(command: &op::Command, environment: &Environment) -> tokio::process::Command {
    let (program, arguments) = match command {
        op::Command::Argv(argv) => argv.split_first().map_or((String::new(), Vec::new()), |(first, rest)| (first.clone(), rest.to_vec())),
        op::Command::Shell(text) => ("sh".to_owned(), vec!["-euc".to_owned(), text.clone()]),
    };
    // Without a slash it is looked for in PATH; with one it begins at `deploy.toml`, wherever the person stands.
    let mut command = if program.contains('/') {
        begin(&environment.directory.join(program), environment)
    } else {
        begin(Path::new(&program), environment)
    };
    command.args(arguments);
    command
}

/// `ansible-inventory`, which finds the `ansible.cfg` beside `deploy.toml`.
pub(super) fn ansible(path: &Path, environment: &Environment) -> tokio::process::Command {
    let mut command = begin(Path::new("ansible-inventory"), environment);
    command.arg("-i").arg(absolute(path)).arg("--list");
    command
}

fn begin(program: &Path, environment: &Environment) -> tokio::process::Command {
    let program = if program.components().count() > 1 { absolute(program) } else { program.to_owned() };
    let mut command = process::command(program);
    command.current_dir(absolute(&environment.directory)).env("DEPLOYER_ENV", &environment.name);
    command
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Runs `program` and reads what it prints, unless its last answer still holds.
pub(super) async fn ask(
    program: tokio::process::Command,
    format: &InventoryFormat,
    limits: InventoryLimits,
    kept: &Kept,
) -> Result<Vec<Target>, InventoryError> {
    // An answer that cannot be read any more is asked for again.
    if let Some(targets) = kept.younger_than(limits).and_then(|bytes| read(format, &bytes).ok()) {
        return Ok(targets);
    }
    let name = program.as_std().get_program().to_owned();
    let said =
        process::listen(program, limits.timeout, MOST_BYTES).await.map_err(|error| InventoryError::Start { program: name, error })?;
    let stderr = said.stderr.lines(EVIDENCE);
    match said.ended {
        Ended::By(status) if status.success() => {}
        Ended::By(status) => return Err(InventoryError::Failed { status, stderr }),
        Ended::TimedOut => return Err(InventoryError::TimedOut { after: limits.timeout, stderr }),
        Ended::TooMuch => return Err(InventoryError::TooMuch { stderr }),
    }
    let targets = read(format, &said.stdout).map_err(|wrong| InventoryError::Nonsense { wrong, stderr })?;
    if !limits.ttl.is_zero() {
        // An answer that cannot be kept is asked for again, which is no reason to stop.
        let _ = kept.write(&said.stdout);
    }
    Ok(targets)
}

/// Where the last answer of a program is kept: readable by its user only, since it may say more than the names of hosts.
pub(super) struct Kept {
    file: PathBuf,
}

impl Kept {
    /// One file for everything that decides the answer.
    pub(super) fn new(cache: &Path, inventory: &Inventory, environment: &Environment) -> Self {
        let decides = format!("{inventory:?}\n{}\n{}", environment.name, absolute(&environment.directory).display());
        let name = blake3::hash(decides.as_bytes()).to_hex();
        Self { file: cache.join("inventory").join(&name[..32]) }
    }

    fn younger_than(&self, limits: InventoryLimits) -> Option<Vec<u8>> {
        let file = std::fs::File::open(&self.file).ok()?;
        // A clock that was set back makes an answer of the future, which is no answer.
        let age = SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).ok()?;
        if age >= limits.ttl {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(u64::try_from(MOST_BYTES).unwrap_or(u64::MAX)).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(bytes)?;
        temporary.persist(&self.file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn limits(timeout: u64, ttl: u64) -> InventoryLimits {
        InventoryLimits { timeout: Duration::from_millis(timeout), ttl: Duration::from_secs(ttl) }
    }

    async fn answer(script: &str, limits: InventoryLimits, kept: &Kept) -> Result<Vec<String>, InventoryError> {
        let mut program = process::command("sh");
        program.arg("-c").arg(script);
        let targets = ask(program, &InventoryFormat::Lines, limits, kept).await?;
        Ok(targets.into_iter().map(|target| target.name).collect())
    }

    fn nowhere() -> Kept {
        Kept { file: PathBuf::from("/nonexistent/answer") }
    }

    #[tokio::test]
    async fn what_a_program_prints_is_its_answer() {
        assert_eq!(answer("echo app1; echo app2 web", limits(30_000, 0), &nowhere()).await.unwrap(), ["app1", "app2"]);
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_what_it_said_last() {
        let error = answer("echo app1; echo 'no credentials' >&2; exit 3", limits(30_000, 0), &nowhere()).await.unwrap_err();
        let InventoryError::Failed { status, stderr } = error else { panic!("{error:?}") };
        assert_eq!((status.code(), stderr), (Some(3), vec!["no credentials".to_owned()]));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; echo waiting >&2; wait", file.display());
        let error = answer(&script, limits(3000, 0), &nowhere()).await.unwrap_err();
        let InventoryError::TimedOut { stderr, .. } = error else { panic!("{error:?}") };
        assert_eq!(stderr, ["waiting"]);
        let child = fs::read_to_string(&file).unwrap();
        let status = || fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap_or_default();
        let is_alive = |status: &str| !status.is_empty() && !status.contains("State:\tZ");
        let began = std::time::Instant::now();
        while is_alive(&status()) && began.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        assert!(!is_alive(&status()), "{}", status());
    }

    #[tokio::test]
    async fn a_program_that_never_stops_printing_is_stopped() {
        let error = answer("yes app1", limits(60_000, 0), &nowhere()).await.unwrap_err();
        assert!(matches!(error, InventoryError::TooMuch { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_its_time_and_for_its_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept { file: directory.path().join("inventory/answer") };
        let count = directory.path().join("count");
        let script = format!("echo x >> {}; echo app1", count.display());
        let asked = || fs::read_to_string(&count).unwrap().lines().count();
        for _ in 0..3 {
            assert_eq!(answer(&script, limits(30_000, 600), &kept).await.unwrap(), ["app1"]);
        }
        assert_eq!(asked(), 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept.file), mode(kept.file.parent().unwrap())), (0o600, 0o700));

        let set = |time: SystemTime| fs::File::options().write(true).open(&kept.file).unwrap().set_modified(time).unwrap();
        set(SystemTime::now() - Duration::from_secs(601));
        answer(&script, limits(30_000, 600), &kept).await.unwrap();
        assert_eq!(asked(), 2, "it was too old");
        set(SystemTime::now() + Duration::from_secs(3600));
        answer(&script, limits(30_000, 600), &kept).await.unwrap();
        assert_eq!(asked(), 3, "it was of the future");
        fs::write(&kept.file, "app;1\n").unwrap();
        answer(&script, limits(30_000, 600), &kept).await.unwrap();
        assert_eq!(asked(), 4, "it was damaged");
        answer("exit 1", limits(30_000, 600), &kept).await.unwrap();
        answer("exit 1", limits(30_000, 0), &kept).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept { file: directory.path().join("answer") };
        for script in ["echo '<html>'", "true", "echo app1; exit 1"] {
            answer(script, limits(30_000, 600), &kept).await.unwrap_err();
            assert!(!kept.file.exists(), "{script}");
        }
    }
}
