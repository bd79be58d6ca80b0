//! A controller for tests: starts the real helper over pipes and speaks its language.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside, as a neighbour would")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::op::*;
use crate::release::{NewRelease, Record, ReleaseId};
use crate::tree::manifest::FILE;
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};
use crate::wire::{self, Decoder, Frame, FrameKind, FromHelper, Messages, ToHelper, frame};

pub const HELPER: &str = env!("CARGO_BIN_EXE_deployer-helper");
/// Longer than anything here takes, shorter than the silence after which the helper believes us dead.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Client {
    pub child: Child,
    /// Somebody else waits for the end of the process.
    is_waited_for: bool,
    stdin: Option<ChildStdin>,
    received: Receiver<Received>,
    waiting: VecDeque<Received>,
    next_id: u32,
    pub facts: Facts,
    pub root: PathBuf,
}

enum Received {
    Message(FromHelper),
    Stream(Frame),
}

/// How a request ended, with what was on its stream.
#[derive(Debug)]
pub struct Ended {
    pub result: Result<Answer, Failure>,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

pub fn digest() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| Digest(Sha256::digest(std::fs::read(HELPER).unwrap()).into()).to_string())
}

impl Client {
    pub fn start(root: &Path) -> Self {
        Self::start_under(Process::new(HELPER), root)
    }

    /// Starts the helper through another program, whose last argument it becomes.
    pub fn start_under(mut process: Process, root: &Path) -> Self {
        serving(&mut process, root);
        let child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self::of(child, false, root)
    }

    /// Speaks to a helper that was started with `serving`.
    pub fn of(mut child: Child, is_waited_for: bool, root: &Path) -> Self {
        let mut stdout = child.stdout.take().unwrap();
        let (sender, received) = channel();
        let mut greeting = [0; 10];
        stdout.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"m4rker ok\n");
        thread::spawn(move || {
            let (mut decoder, mut messages, mut buffer) = (Decoder::default(), Messages::default(), vec![0; 65536]);
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                decoder.feed(&buffer[..count]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    let received = match frame.kind {
                        FrameKind::Part => {
                            messages.part(&frame.payload).unwrap();
                            continue;
                        }
                        FrameKind::Message => Received::Message(messages.message(&frame.payload).unwrap()),
                        FrameKind::Data | FrameKind::DataErr | FrameKind::End => Received::Stream(frame),
                    };
                    if sender.send(received).is_err() {
                        return;
                    }
                }
            }
        });
        let Ok(Received::Message(FromHelper::Hello { version, facts })) = received.recv_timeout(PATIENCE) else { panic!("no hello") };
        assert_eq!(version, wire::VERSION);
        let stdin = child.stdin.take();
        Self { child, is_waited_for, stdin, received, waiting: VecDeque::new(), next_id: 1, facts: *facts, root: root.to_owned() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("the helper reads");
    }

    fn try_write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stdin.as_mut()?.write_all(bytes).ok()
    }

    pub fn send(&mut self, message: &ToHelper) {
        self.write(&wire::encode(message).unwrap());
    }

    pub fn request(&mut self, op: Op) -> u32 {
        self.try_request(op).expect("the helper reads")
    }

    fn try_request(&mut self, op: Op) -> Option<u32> {
        let id = self.next_id;
        self.next_id += 1;
        self.try_write(&wire::encode(&ToHelper::Request { id, op: Box::new(op) }).unwrap())?;
        Some(id)
    }

    /// Asks with something on the stream. None: the helper is gone.
    pub fn try_ask(&mut self, op: Op, stream: Option<&[u8]>) -> Option<Result<Answer, Failure>> {
        let id = self.try_request(op)?;
        if let Some(bytes) = stream {
            self.try_write(&framed(id, bytes))?;
        }
        Some(self.try_answer(id)?.result)
    }

    pub fn stream(&mut self, id: u32, bytes: &[u8]) {
        self.write(&framed(id, bytes));
    }

    fn receive(&mut self, until: Instant) -> Received {
        self.try_receive(until).expect("the helper went away")
    }

    fn try_receive(&mut self, until: Instant) -> Option<Received> {
        match self.received.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(received) => Some(received),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the helper went silent"),
        }
    }

    /// Waits for the answer to `id`, granting credit for all that comes.
    pub fn answer(&mut self, id: u32) -> Ended {
        self.try_answer(id).expect("the helper went away")
    }

    fn try_answer(&mut self, id: u32) -> Option<Ended> {
        let until = Instant::now() + PATIENCE;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut kept = VecDeque::new();
        loop {
            let received = match self.waiting.pop_front() {
                Some(received) => received,
                None => self.try_receive(until)?,
            };
            match received {
                Received::Message(FromHelper::Answer { id: answered, result }) if answered == id => {
                    kept.append(&mut self.waiting);
                    self.waiting = kept;
                    return Some(Ended { result, out, err });
                }
                Received::Stream(frame) if frame.id == id => {
                    if !frame.payload.is_empty() {
                        self.try_write(&wire::encode(&ToHelper::Credit { id, bytes: frame.payload.len() as u64 }).unwrap())?;
                    }
                    if frame.kind == FrameKind::DataErr { err.extend(frame.payload) } else { out.extend(frame.payload) }
                }
                Received::Message(FromHelper::Beat | FromHelper::Credit { .. } | FromHelper::Progress { .. }) => {}
                other => kept.push_back(other),
            }
        }
    }

    /// Waits until the stream of `id` has said `text`. What it said is not kept.
    pub fn wait_for(&mut self, id: u32, text: &str) {
        let until = Instant::now() + PATIENCE;
        let mut out = Vec::new();
        while !String::from_utf8_lossy(&out).contains(text) {
            match self.receive(until) {
                Received::Stream(frame) if frame.id == id => out.extend(frame.payload),
                Received::Message(FromHelper::Answer { result, .. }) => panic!("ended before it said `{text}`: {result:?}"),
                Received::Stream(_) | Received::Message(_) => {}
            }
        }
    }

    pub fn ask(&mut self, op: Op) -> Ended {
        let id = self.request(op);
        self.answer(id)
    }

    pub fn well(&mut self, op: Op) -> Answer {
        self.ask(op).result.unwrap()
    }

    pub fn refused(&mut self, op: Op) -> Failure {
        self.ask(op).result.unwrap_err()
    }

    pub fn lock(&mut self, run: &str) -> Locked {
        let info = RunInfo { run: run.into(), by: "ada@laptop".into(), what: format!("deploying with {run}"), since: 7 };
        match self.well(Op::Lock(info)) {
            Answer::Locked(locked) => locked,
            other => panic!("{other:?}"),
        }
    }

    pub fn locked(root: &Path, run: &str) -> (Self, Vec<String>) {
        let mut client = Self::start(root);
        match client.lock(run) {
            Locked::Yes { recovered, .. } => (client, recovered),
            other => panic!("{other:?}"),
        }
    }

    pub fn exited(&mut self, exec: Exec) -> (Exited, Ended) {
        let ended = self.ask(Op::Exec(exec));
        match &ended.result {
            Ok(Answer::Exited(exited)) => (exited.clone(), ended),
            other => panic!("{other:?}"),
        }
    }

    /// Begins a release of one file. Gives the stream that its content would be.
    fn begin(&mut self, name: &str, run: &str, content: &str) -> (Begun, Vec<u8>) {
        let kind = Kind::File { mode: FILE, size: content.len() as u64, digest: Digest::of(content.as_bytes()), mtime: 1000 };
        let manifest = Manifest::new(vec![Entry { path: TreePath::new("app").unwrap(), kind }]).unwrap();
        let encoded = manifest.encode();
        let release = NewRelease {
            id: id(name),
            project: "app".into(),
            environment: "test".into(),
            commit: Some("a1b2c3d4e5f60718293a4b5c6d7e8f9012345678".into()),
            reference: Some("master".into()),
            tree: manifest.tree_digest(),
            manifest: manifest.manifest_digest(),
            build_key: Digest([0; 32]),
            run: run.into(),
            by: "ada".into(),
            created: 0,
            origin: None,
        };
        let begin = Begin { release, source: ManifestSource::Whole { size: encoded.len() as u64 }, group: None };
        let request = self.request(Op::Begin(begin));
        self.stream(request, &zstd::encode_all(&encoded[..], 3).unwrap());
        match self.answer(request).result {
            Ok(Answer::Begun(answer)) => (answer, [&0_u32.to_le_bytes()[..], content.as_bytes()].concat()),
            other => panic!("{other:?}"),
        }
    }

    /// Sends the half of a release's content, and no end.
    pub fn upload_cut(&mut self, name: &str, run: &str, content: &str) {
        let (_, records) = self.begin(name, run, content);
        let written = self.request(Op::Content(Content { release: id(name), size: records.len() as u64 }));
        let packed = zstd::encode_all(&records[..], 3).unwrap();
        let mut out = Vec::new();
        frame::put(&mut out, FrameKind::Data, written, &packed[..packed.len() / 2]);
        self.write(&out);
    }

    /// Runs a command while the stream of `other` gets no credit.
    pub fn exited_without_credit(&mut self, other: u32, exec: Exec) -> (Exited, Ended) {
        let mut kept = VecDeque::new();
        let until = Instant::now() + PATIENCE;
        let mut window = 0;
        while window < wire::WINDOW {
            let received = self.receive(until);
            if let Received::Stream(frame) = &received {
                assert_eq!(frame.id, other);
                window += frame.payload.len() as u64;
            }
            kept.push_back(received);
        }
        let done = self.exited(exec);
        kept.append(&mut self.waiting);
        self.waiting = kept;
        done
    }

    pub fn grant(&mut self, id: u32, bytes: u64) {
        self.send(&ToHelper::Credit { id, bytes });
    }

    /// Brings a release of one file to the state `uploaded`.
    pub fn upload(&mut self, name: &str, run: &str, content: &str) {
        let (answer, records) = self.begin(name, run, content);
        if !answer.missing.is_empty() {
            let written = self.request(Op::Content(Content { release: id(name), size: records.len() as u64 }));
            self.stream(written, &zstd::encode_all(&records[..], 3).unwrap());
            assert!(matches!(self.answer(written).result, Ok(Answer::Written(Written { missing, .. })) if missing.is_empty()));
        }
    }

    pub fn sealed(&mut self, name: &str, run: &str) {
        self.upload(name, run, name);
        assert!(matches!(self.well(Op::Seal { release: id(name), durable: false }), Answer::Sealed { .. }));
    }

    pub fn activate(&mut self, op: Activate) -> Activated {
        match self.well(Op::Activate(op)) {
            Answer::Activated(activated) => activated,
            other => panic!("{other:?}"),
        }
    }

    /// Makes a release live and confirmed, with an activation that says its name.
    pub fn deployed(&mut self, name: &str, run: &str, before: Option<&str>) {
        self.sealed(name, run);
        let activated = self.activate(activation(name, before));
        assert!(matches!(activated.outcome, ActivationOutcome::Well { .. }), "{activated:?}");
        assert_eq!(self.well(Op::Confirm { release: id(name) }), Answer::Done);
    }

    pub fn read_facts(&mut self) -> Facts {
        match self.well(Op::Facts) {
            Answer::Facts(facts) => *facts,
            other => panic!("{other:?}"),
        }
    }

    pub fn record(&mut self, name: &str) -> Record {
        self.read_facts().releases.into_iter().find(|record| record.release.id == id(name)).unwrap()
    }

    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Kills the helper as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.is_waited_for {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Adds to a program what makes it the helper of `root`.
pub fn serving(process: &mut Process, root: &Path) {
    process.args(["serve", "m4rker"]).arg(root).arg(digest()).env("HOME", root.parent().unwrap()).env("USER", "tester");
}

/// A whole stream in its frames.
fn framed(id: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.chunks(frame::MAX_PAYLOAD) {
        frame::put(&mut out, FrameKind::Data, id, chunk);
    }
    frame::put(&mut out, FrameKind::End, id, &[]);
    out
}

pub fn id(name: &str) -> ReleaseId {
    name.parse().unwrap()
}

/// An empty root that is set up.
pub fn root() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("app");
    std::fs::create_dir(&root).unwrap();
    (directory, root)
}

pub fn shell(text: &str) -> Exec {
    Exec {
        command: Command::Shell(text.into()),
        directory: None,
        env: Vec::new(),
        umask: 0o022,
        timeout_ms: 0,
        idle_timeout_ms: 0,
        output_limit: 1024 * 1024,
        user: None,
        network: Network::Host,
    }
}

/// Switches to `name`, and appends it to `restarts` in the root.
pub fn activation(name: &str, expect: Option<&str>) -> Activate {
    let directory = Some(format!("releases/{name}"));
    let command = Exec { directory, ..shell(&format!("echo {name} >> ../../restarts")) };
    Activate { release: id(name), expect: expect.map(id), command: Some(command), check: None, confirm_within_ms: 0, rollback: false }
}

pub fn live(root: &Path) -> Option<String> {
    Some(std::fs::read_link(root.join("current")).ok()?.to_str().unwrap().to_owned())
}

/// What happened, as the journal on the disk tells.
pub fn history(root: &Path) -> Vec<String> {
    let bytes = std::fs::read(root.join(".deployer/journal")).unwrap();
    let (mut rest, mut what) = (&bytes[..], Vec::new());
    while let Some((header, frames)) = rest.split_first_chunk::<8>() {
        let (json, others) = frames.split_at(u32::from_le_bytes(header[..4].try_into().unwrap()) as usize);
        let line: serde_json::Value = serde_json::from_slice(json).unwrap();
        what.push(line["event"]["what"].as_str().unwrap().to_owned());
        rest = others;
    }
    what
}

pub fn restarts(root: &Path) -> String {
    std::fs::read_to_string(root.join("restarts")).unwrap_or_default().replace('\n', " ").trim().to_owned()
}

/// Whether a process with this pid lives.
pub fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Looks again and again until `done`, for as long as anything here may take.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}
