//! A controller that does what the real one does with one host, step by step: it looks what is there, goes on from it, and stops at the
//! first thing that does not work.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command as Process;
use std::sync::{Arc, Mutex};

use crate::client::{Client, HELPER, activation, id, serving, shell};
use crate::op::{
    Activate, Activated, ActivationOutcome, Answer, Begin, CacheLink, Check, Code, Content, Current, Exec, Facts, Failure, Links, Locked,
    ManifestSource, Op, Probe, RunInfo,
};
use crate::release::{NewRelease, Record, ReleaseId, State};
use crate::tracer::{Seen, Trace, Watching};
use crate::tree::manifest::{EXECUTABLE, FILE};
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};

/// Why a controller did not come to its end.
#[derive(Debug)]
pub enum Stopped {
    /// The helper is gone.
    Gone,
    /// A step failed, and says why.
    Failed { step: &'static str, failure: Failure },
    /// What the host answered is not what it may answer.
    Wrong(String),
}

impl fmt::Display for Stopped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => out.write_str("the helper is gone"),
            Self::Failed { step, failure } => write!(out, "{step} failed: {:?}: {failure}", failure.code),
            Self::Wrong(what) => out.write_str(what),
        }
    }
}

pub type Done<T = ()> = Result<T, Stopped>;

/// How often content is sent that a host still lacks.
const ATTEMPTS: u32 = 3;

/// How large content is that travels in pieces.
const LARGE: usize = 300 * 1024;

/// A version of the application: its name is what `restarts` and its files say.
pub struct Version {
    pub manifest: Manifest,
    content: BTreeMap<Digest, Vec<u8>>,
}

impl Version {
    /// Gives version `name`, which is made once.
    pub fn new(name: &str) -> Arc<Self> {
        static MADE: Mutex<BTreeMap<String, Arc<Version>>> = Mutex::new(BTreeMap::new());
        Arc::clone(MADE.lock().unwrap().entry(name.to_owned()).or_insert_with(|| Arc::new(Self::make(name))))
    }

    /// Makes the tree of a version: small files, one that comes in pieces, one that all versions share, an empty one, links, a directory.
    fn make(name: &str) -> Self {
        let large: Vec<u8> =
            name.bytes().cycle().zip(0_u32..).map(|(byte, n)| byte ^ (n.wrapping_mul(2_654_435_761) >> 24) as u8).take(LARGE).collect();
        let files = [
            ("app", FILE, name.as_bytes().to_vec()),
            ("bin/run", EXECUTABLE, format!("#!/bin/sh\necho {name}\n").into_bytes()),
            ("etc/site.cfg", FILE, b"tracked\n".to_vec()),
            ("lib/deep/part", FILE, b"the same in all versions\n".to_vec()),
            ("lib/deep/same", FILE, b"the same in all versions\n".to_vec()),
            ("lib/empty", FILE, Vec::new()),
            ("lib/large", FILE, large),
        ];
        let mut content = BTreeMap::new();
        let mut entries = vec![entry("lib/link", Kind::Link { target: b"deep/part".to_vec() }), entry("lib/void", Kind::Directory)];
        for (path, mode, bytes) in files {
            let digest = Digest::of(&bytes);
            entries.push(entry(path, Kind::File { mode, size: bytes.len() as u64, digest, mtime: 1_700_000_000 }));
            content.insert(digest, bytes);
        }
        Self { manifest: Manifest::from_unsorted(entries).unwrap(), content }
    }

    /// The stream that brings what is missing.
    fn stream(&self, missing: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for index in missing.iter().flat_map(|(first, count)| *first..first + count) {
            let Kind::File { digest, .. } = &self.manifest.entries()[index as usize].kind else { panic!("only files are missing") };
            bytes.extend_from_slice(&index.to_le_bytes());
            bytes.extend_from_slice(&self.content[digest]);
        }
        bytes
    }
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: TreePath::new(path).unwrap(), kind }
}

/// A connection to a host for one run.
pub struct Controller {
    client: Client,
    trace: Option<Trace>,
    run: &'static str,
}

impl Controller {
    /// Connects; under a tracer where there is something to be seen or to happen. `bug` is what the helper has.
    pub fn connect(root: &Path, run: &'static str, bug: Option<&str>, watching: Option<Watching>) -> Self {
        let mut process = Process::new(HELPER);
        if let Some(bug) = bug {
            process.env("DEPLOYER_SEEDED_BUG", bug);
        }
        let Some(watching) = watching else { return Self { client: Client::start_under(process, root), trace: None, run } };
        serving(process.env("DEPLOYER_TRACED", "1"), root);
        let (child, trace) = Trace::start(process, root, watching);
        let client = Client::of(child, true, root);
        trace.arm();
        Self { client, trace: Some(trace), run }
    }

    /// Connects to a helper that is started by another program.
    pub fn connect_under(program: Process, root: &Path, run: &'static str) -> Self {
        Self { client: Client::start_under(program, root), trace: None, run }
    }

    /// Ends the connection without a word, and gives what the tracer saw.
    pub fn close(mut self) -> Seen {
        self.client.close_input();
        if let Some(trace) = self.trace.take() {
            return trace.end();
        }
        self.client.child.wait().unwrap();
        Seen::default()
    }

    /// Ends the helper as `kill -9` does.
    pub fn kill(self) {
        self.client.kill();
    }

    pub fn root(&self) -> &Path {
        &self.client.root
    }

    fn ask(&mut self, step: &'static str, op: Op, stream: Option<&[u8]>) -> Done<Answer> {
        match self.client.try_ask(op, stream) {
            None => Err(Stopped::Gone),
            Some(Ok(answer)) => Ok(answer),
            Some(Err(failure)) => Err(Stopped::Failed { step, failure }),
        }
    }

    pub fn done(&mut self, step: &'static str, op: Op) -> Done {
        self.ask(step, op, None).map(drop)
    }

    /// Takes the lock. Gives what recovery did.
    pub fn lock(&mut self) -> Done<Vec<String>> {
        let info = RunInfo { run: self.run.into(), by: "ada@laptop".into(), what: "deploying".into(), since: 7 };
        match self.ask("lock", Op::Lock(info), None)? {
            Answer::Locked(Locked::Yes { recovered, .. }) => Ok(recovered),
            // A freeze that cannot be read freezes, and says so.
            Answer::Locked(Locked::Held(hold)) => {
                Err(Stopped::Failed { step: "lock", failure: Failure { code: Code::Refused, message: hold.reason, hint: None } })
            }
            other => Err(Stopped::Wrong(format!("no lock: {other:?}"))),
        }
    }

    pub fn unlock(&mut self) -> Done {
        self.done("unlock", Op::Unlock)
    }

    pub fn facts(&mut self) -> Done<Facts> {
        match self.ask("facts", Op::Facts, None)? {
            Answer::Facts(facts) => Ok(*facts),
            other => Err(Stopped::Wrong(format!("{other:?}"))),
        }
    }

    /// Brings a version onto the host, as a difference to what is live where something is.
    pub fn push(&mut self, release: &str, version: &Version) -> Done {
        let facts = self.facts()?;
        let base = base(&facts);
        let (source, manifest) = if let Some(record) = base {
            let delta = version.manifest.delta_from(&Version::new(record.release.reference.as_deref().unwrap()).manifest);
            let bytes = postcard::to_allocvec(&delta).unwrap();
            (ManifestSource::Delta { size: bytes.len() as u64, base: record.release.id.clone() }, bytes)
        } else {
            let bytes = version.manifest.encode();
            (ManifestSource::Whole { size: bytes.len() as u64 }, bytes)
        };
        let name = String::from_utf8(version.content[&digest_of(version, "app")].clone()).unwrap();
        let release_made = NewRelease {
            id: id(release),
            project: "app".into(),
            environment: "test".into(),
            commit: Some("a1b2c3d4e5f60718293a4b5c6d7e8f9012345678".into()),
            reference: Some(name),
            tree: version.manifest.tree_digest(),
            manifest: version.manifest.manifest_digest(),
            build_key: Digest([0; 32]),
            run: self.run.into(),
            by: "ada".into(),
            created: 0,
            origin: None,
        };
        let packed = zstd::encode_all(&manifest[..], 3).unwrap();
        let begun = match self.ask("begin", Op::Begin(Begin { release: release_made, source, group: None }), Some(&packed))? {
            Answer::Begun(begun) => begun,
            other => return Err(Stopped::Wrong(format!("{other:?}"))),
        };
        // As the controller does: what the host could not copy from itself is sent.
        let mut missing = begun.missing;
        for _ in 0..ATTEMPTS {
            if missing.is_empty() {
                return Ok(());
            }
            let bytes = version.stream(&missing);
            let packed = zstd::encode_all(&bytes[..], 3).unwrap();
            missing = match self.ask("content", Op::Content(Content { release: id(release), size: bytes.len() as u64 }), Some(&packed))? {
                Answer::Written(written) => written.missing,
                other => return Err(Stopped::Wrong(format!("{other:?}"))),
            };
        }
        if missing.is_empty() { Ok(()) } else { Err(Stopped::Wrong(format!("{missing:?} are still missing"))) }
    }

    pub fn link(&mut self, release: &str) -> Done {
        let cache = self.client.root.parent().unwrap().join("cache").to_str().unwrap().to_owned();
        let links = Links {
            release: id(release),
            directories: vec!["var".into()],
            files: vec!["etc/site.cfg".into()],
            cache: Some(CacheLink { link: "downloads".into(), target: cache }),
            replace: true,
        };
        self.done("link", Op::Link(links))
    }

    pub fn build(&mut self, release: &str) -> Done {
        let directory = Some(format!("releases/{release}"));
        let exec = Exec { directory, ..shell("mkdir -p out && cp app out/made && echo built") };
        match self.ask("build", Op::Build { release: id(release), exec }, None)? {
            Answer::Exited(exited) if exited.is_success() => Ok(()),
            other => Err(Stopped::Wrong(format!("{other:?}"))),
        }
    }

    pub fn seal(&mut self, release: &str) -> Done {
        self.done("seal", Op::Seal { release: id(release), durable: true })
    }

    /// From nothing, or from what an interrupted run left of it, to a sealed release. Gives which one that is: one that is there already
    /// and the same, or `release`.
    pub fn prepare(&mut self, release: &'static str, version: &Version) -> Done<String> {
        let tree = version.manifest.tree_digest();
        let records = self.facts()?.releases;
        if let Some(whole) = records.iter().rev().find(|record| record.release.tree == tree && record.state.is_sealed()) {
            return Ok(whole.release.id.to_string());
        }
        let begun = records.iter().find(|record| record.release.id == id(release)).map(|record| record.state);
        if begun != Some(State::Building) {
            self.push(release, version)?;
            self.link(release)?;
        }
        self.build(release)?;
        self.seal(release)?;
        Ok(release.to_owned())
    }

    /// What is live, as a plan sees it.
    pub fn live(&mut self) -> Done<Option<ReleaseId>> {
        match self.facts()?.current {
            Current::Release(id) => Ok(Some(id)),
            Current::Absent => Ok(None),
            other => Err(Stopped::Wrong(format!("{other:?}"))),
        }
    }

    /// Switches to a release. `is_well`: whether its check succeeds.
    pub fn activate(&mut self, release: &str, is_rollback: bool, is_well: bool) -> Done<Activated> {
        let live = self.live()?;
        self.activate_from(live.as_ref(), release, is_rollback, is_well)
    }

    /// Switches to a release from what a plan saw.
    pub fn activate_from(&mut self, live: Option<&ReleaseId>, release: &str, is_rollback: bool, is_well: bool) -> Done<Activated> {
        let probe = Probe::Run(shell(if is_well { "exit 0" } else { "exit 1" }));
        let check = Some(Check { probe, retries: 1, every_ms: 1, successes: 1, timeout_ms: 5000, stay_up_ms: 0, unit: None });
        let op = Activate { check, rollback: is_rollback, ..activation(release, live.map(ReleaseId::as_str)) };
        match self.ask("activate", Op::Activate(op), None)? {
            Answer::Activated(activated) => Ok(activated),
            other => Err(Stopped::Wrong(format!("{other:?}"))),
        }
    }

    /// Makes a sealed release live and confirms it, unless it is already.
    pub fn bring_up(&mut self, release: &str, is_rollback: bool) -> Done {
        let facts = self.facts()?;
        if facts.unresolved.is_none() && facts.current == Current::Release(id(release)) {
            return Ok(());
        }
        let activated = self.activate(release, is_rollback, true)?;
        if !matches!(activated.outcome, ActivationOutcome::Well { .. }) {
            return Err(Stopped::Wrong(format!("{activated:?}")));
        }
        self.done("confirm", Op::Confirm { release: id(release) })
    }

    pub fn revert(&mut self, release: &str, bad: bool) -> Done {
        self.done("revert", Op::Revert { release: id(release), reason: "a test wants it".into(), bad })
    }

    pub fn prune(&mut self, keep: u32) -> Done {
        self.done("prune", Op::Prune { keep, only: None })
    }

    /// A whole deploy of a version.
    pub fn deploy(&mut self, release: &'static str, version: &str, keep: u32) -> Done {
        self.lock()?;
        let release = self.prepare(release, &Version::new(version))?;
        self.bring_up(&release, false)?;
        self.prune(keep)?;
        self.unlock()
    }
}

fn digest_of(version: &Version, path: &str) -> Digest {
    match version.manifest.find(path.as_bytes()) {
        Some(Kind::File { digest, .. }) => *digest,
        other => panic!("{other:?}"),
    }
}

/// The record of what is live, which the host has the manifest of.
fn base(facts: &Facts) -> Option<&Record> {
    let Current::Release(live) = &facts.current else { return None };
    facts.releases.iter().find(|record| record.release.id == *live)
}
