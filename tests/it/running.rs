//! The program while it runs: what it tells is read as it comes, so that a test can act at an exact point of a deploy.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::World;

/// Longer than anything takes that is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A `deployer` that was started with `--json`. It is killed when it is dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<Value>,
    stderr: Option<JoinHandle<String>>,
    pub seen: Vec<Value>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; for one that a signal ended, 128 and the signal.
    pub status: i32,
    pub events: Vec<Value>,
    #[expect(dead_code, reason = "it is read by whoever reads why a test failed")]
    pub stderr: String,
}

impl Running {
    pub fn start(world: &World, arguments: &[&str]) -> Self {
        Self::spawn(&mut program(world, arguments))
    }

    /// Starts a command that `program` made.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, stderr: Some(stderr), seen: Vec::new() }
    }

    /// Waits for the next event; none when the program has ended.
    pub fn next(&mut self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(event) => {
                self.seen.push(event.clone());
                Some(event)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing happens after {:#?}", self.seen.last()),
        }
    }

    /// Waits until an event is as wanted.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) {
        while let Some(event) = self.next() {
            if wanted(&event) {
                return;
            }
        }
        panic!("it ended before {what}: {:#?}", self.seen);
    }

    /// Waits until `step` began on the hosts.
    #[track_caller]
    pub fn until_step(&mut self, step: &str) {
        self.until(step, |event| is_step(event, step));
    }

    /// Waits until commands on hosts have printed `line`, `times` in all.
    #[track_caller]
    pub fn until_lines(&mut self, line: &str, times: usize) {
        for _ in 0..times {
            self.until(line, |event| event["type"] == "host.output" && event["line"] == line);
        }
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself, which the test sees by its status.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Says whether it was killed, and had not ended by itself.
    pub fn kill(mut self) -> bool {
        self.signal(Signal::KILL);
        self.child.wait().unwrap().signal() == Some(Signal::KILL.as_raw())
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        while self.next().is_some() {}
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end after {:#?}", self.seen.last());
            thread::sleep(Duration::from_millis(5));
        };
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        Ended { status, events: std::mem::take(&mut self.seen), stderr: self.stderr.take().unwrap().join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    #[track_caller]
    pub fn exits(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// The diagnostic that explains the exit code, as one text.
    pub fn error(&self) -> String {
        let mut errors = self.events.iter().filter(|event| event["type"] == "diagnostic" && event["severity"] == "error");
        errors.next_back().map(ToString::to_string).unwrap_or_default()
    }

    /// Compares what the run says every host serves: counts by short commit.
    #[track_caller]
    pub fn tells(&self, live: &[(&str, u64)]) -> &Self {
        let told = self.events.last().filter(|event| event["type"] == "run.finished").expect("the last event is the end");
        let expected: serde_json::Map<String, Value> = live.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
        assert_eq!(told["live"], Value::Object(expected), "{self:#?}");
        self
    }
}

pub fn is_step(event: &Value, step: &str) -> bool {
    event["type"] == "step.started" && event["step"] == step
}

/// The program itself, without the `timeout` around it: a signal must reach it, and nothing else.
pub fn program(world: &World, arguments: &[&str]) -> Command {
    let wrapped = world.command(arguments);
    let at = wrapped.get_args().position(|argument| argument == env!("CARGO_BIN_EXE_deployer")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_deployer"));
    command.args(wrapped.get_args().skip(at + 1)).env_clear().stdin(Stdio::null());
    command.envs(wrapped.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.current_dir(wrapped.get_current_dir().unwrap());
    command
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, patience: Duration, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The program as somebody at a terminal starts it, who types what is written to its stdin and reads its stdout. It needs `script`.
pub fn at_a_terminal(world: &World, arguments: &[&str]) -> Command {
    let direct = program(world, arguments);
    let words = std::iter::once(direct.get_program()).chain(direct.get_args()).map(|word| word.to_str().unwrap());
    let line = shlex::try_join(words).unwrap();
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
    terminal.envs(direct.get_envs().filter_map(|(key, value)| Some((key, value?)))).env("SHELL", "/bin/sh").env("TERM", "xterm");
    terminal.current_dir(direct.get_current_dir().unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
    terminal
}

/// Answers a question at a terminal once `question` is shown and `meanwhile` is done. Gives the exit code and all that was shown.
pub fn answered(world: &World, arguments: &[&str], question: &str, meanwhile: impl FnOnce(), answer: &str) -> (i32, String) {
    let mut child = at_a_terminal(world, arguments).spawn().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let mut typed = child.stdin.take().unwrap();
    let (sender, bytes) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            let _ = sender.send(buffer[..count].to_vec());
        }
    });
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains(question) {
        let more = bytes.recv_timeout(PATIENCE);
        shown.extend(more.unwrap_or_else(|_| panic!("no {question:?} in {:?}", String::from_utf8_lossy(&shown))));
    }
    meanwhile();
    typed.write_all(answer.as_bytes()).unwrap();
    let status = child.wait().unwrap().code().unwrap();
    drop(typed);
    reader.join().unwrap();
    shown.extend(bytes.try_iter().flatten());
    (status, String::from_utf8_lossy(&shown).into_owned())
}
