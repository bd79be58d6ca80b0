//! Starts the system's `git`. The only place of this module that starts a process: every call is an argv, has no terminal to
//! prompt on unless it says so, and inherits nothing of a surrounding git (`GIT_DIR` of a hook, say).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How much of what git says on stderr is kept, from its end.
const STDERR_KEPT: usize = 16 * 1024;

/// One call of git, as data.
#[derive(Debug, Default)]
pub struct Call {
    /// The sub-command first. Variable parts come behind `--` or `--end-of-options`.
    pub arguments: Vec<OsString>,
    /// Set on top of the environment; `None` removes a variable.
    pub environment: Vec<(OsString, Option<OsString>)>,
    pub input: Vec<u8>,
    /// In a process group of its own, so that git's own children (ssh, say) can be ended with it. Such a git cannot ask on a terminal.
    pub apart: bool,
}

/// Says how a call of git failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("`git` is not installed or not on the `PATH`")]
    NotInstalled,
    #[error("`git` could not be run")]
    Start(#[source] io::Error),
    #[error("`git {what}` failed ({status}): {stderr}")]
    Failed { what: String, status: ExitStatus, stderr: String },
    #[error("`git {what}` made no progress for {} seconds and was stopped", idle.as_secs())]
    Stalled { what: String, idle: Duration },
}

/// Runs `call` in `directory` and gives its whole output.
pub fn output(call: Call, directory: &Path) -> Result<Vec<u8>, CommandError> {
    let mut running = start(call, directory)?;
    let mut bytes = Vec::new();
    running.read_to_end(&mut bytes).map_err(CommandError::Start)?;
    running.finish()?;
    Ok(bytes)
}

/// Runs `call`, whose output is short, and ends it where it says nothing on stderr for `idle` (git reports progress there).
pub fn watched(call: Call, directory: &Path, idle: Option<Duration>) -> Result<Vec<u8>, CommandError> {
    let mut running = start(call, directory)?;
    while let Some(idle) = idle {
        match running.beats.recv_timeout(idle) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let what = running.what.clone();
                drop(running);
                return Err(CommandError::Stalled { what, idle });
            }
        }
    }
    let mut bytes = Vec::new();
    running.read_to_end(&mut bytes).map_err(CommandError::Start)?;
    running.finish()?;
    Ok(bytes)
}

/// A git that is at work. Dropped early, it is ended.
pub struct Running {
    what: String,
    child: Child,
    stdout: ChildStdout,
    stderr: Option<JoinHandle<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    beats: mpsc::Receiver<()>,
    finished: bool,
    apart: bool,
}

impl Read for Running {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stdout.read(buffer)
    }
}

impl Running {
    /// Waits for the end, and says so if it was not a good one.
    pub fn finish(mut self) -> Result<(), CommandError> {
        io::copy(&mut self.stdout, &mut io::sink()).map_err(CommandError::Start)?;
        let status = self.child.wait().map_err(CommandError::Start)?;
        self.finished = true;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(CommandError::Failed { what: self.what.clone(), status, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            let group = rustix::process::Pid::from_raw(self.child.id().cast_signed()).filter(|_| self.apart);
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts `call`; its output is read from what this returns.
#[expect(clippy::disallowed_methods, reason = "the one place that starts git; its threads are not async")]
pub fn start(call: Call, directory: &Path) -> Result<Running, CommandError> {
    let what = call.arguments.iter().find(|argument| !is_option(argument)).map_or_else(String::new, |what| what.display().to_string());
    let mut command = Command::new("git");
    command.args(&call.arguments).current_dir(directory).env("LC_ALL", "C");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"] {
        command.env_remove(name);
    }
    for name in ["GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_QUARANTINE_PATH"] {
        command.env_remove(name);
    }
    for (name, value) in &call.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(if call.input.is_empty() { Stdio::null() } else { Stdio::piped() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    if call.apart {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CommandError::NotInstalled,
        _ => CommandError::Start(error),
    })?;
    let input = call.input;
    let writer = child.stdin.take().map(|mut stdin| {
        // A git that ends before it has read everything says why itself.
        thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let (beat, beats) = mpsc::channel();
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let stderr = thread::spawn(move || keep_the_end(&mut stderr, &beat));
    let stdout = child.stdout.take().expect("stdout is piped");
    Ok(Running { what, child, stdout, stderr: Some(stderr), writer, beats, finished: false, apart: call.apart })
}

/// Tells options of git itself (and the values of `-c`) from the sub-command.
fn is_option(argument: &OsString) -> bool {
    let bytes = argument.as_encoded_bytes();
    bytes.starts_with(b"-") || bytes.contains(&b'=')
}

fn keep_the_end(stderr: &mut impl Read, beat: &mpsc::Sender<()>) -> Vec<u8> {
    let mut kept = VecDeque::new();
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                kept.extend(&buffer[..length]);
                kept.drain(..kept.len().saturating_sub(STDERR_KEPT));
                // Nobody listens where no limit was set.
                let _ = beat.send(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(command: &str) -> Call {
        let arguments = ["-c", &format!("alias.odd=!{command}"), "odd"].map(OsString::from);
        Call { arguments: arguments.into(), apart: true, ..Call::default() }
    }

    #[test]
    fn a_git_that_says_nothing_is_stopped_with_its_children() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let call = alias(&format!("flock '{path}' sh -c 'echo held >&2; exec sleep 1000'"));
        let ended = watched(call, Path::new("/"), Some(Duration::from_secs(2)));
        assert!(matches!(&ended, Err(CommandError::Stalled { what, .. }) if what == "odd"), "{ended:?}");
        // Whoever still had the lock would keep this from ever returning.
        rustix::fs::flock(file.as_file(), rustix::fs::FlockOperation::LockExclusive).unwrap();
    }

    #[test]
    fn a_git_that_reports_progress_is_not_stopped_and_its_end_is_told() {
        let output = watched(alias("echo done; echo 1 >&2; exit 0"), Path::new("/"), Some(Duration::from_secs(60)));
        assert_eq!(output.unwrap(), b"done\n");
        let failed = watched(alias("echo because >&2; exit 3"), Path::new("/"), Some(Duration::from_secs(60))).unwrap_err();
        assert!(
            matches!(&failed, CommandError::Failed { stderr, status, .. } if stderr == "because" && status.code() == Some(3)),
            "{failed}"
        );
    }

    #[test]
    fn large_input_and_large_output_do_not_wait_for_each_other() {
        let call = Call { input: vec![b'x'; 4 << 20], ..alias("cat") };
        assert_eq!(output(call, Path::new("/")).unwrap().len(), 4 << 20);
    }
}
