//! What must hold of a host at any time, whatever was killed, cut or full: the invariants of a host root, checked from the outside on
//! its bare files. And that nothing is left over once a run is over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde_json::Value;

use crate::harness::World;
use crate::running::until;

/// The longest that a lock may outlive whoever held it.
const LOCK: Duration = Duration::from_secs(30);

/// Checks one host root, at any moment at which no helper writes there.
#[track_caller]
pub fn assert_whole(root: &Path) {
    let control = root.join(".deployer");
    if !control.exists() {
        assert!(fs::symlink_metadata(root.join("current")).is_err(), "current without a control directory");
        return;
    }
    let records = records(root);
    let state = |id: &str| records.get(id).map_or_else(|| panic!("no record of `{id}` in {records:#?}"), |record| text(&record["state"]));
    let is_sealed = |id: &str| matches!(state(id), "sealed" | "active" | "confirmed" | "retired");
    match fs::symlink_metadata(root.join("current")) {
        Err(_) => {}
        Ok(metadata) => {
            assert!(metadata.is_symlink(), "current is not a link");
            let target = fs::read_link(root.join("current")).unwrap();
            let id = target.to_str().unwrap().strip_prefix("releases/").unwrap_or_else(|| panic!("current leads to {}", target.display()));
            assert!(root.join(&target).is_dir(), "current leads to nothing: {id}");
            assert!(is_sealed(id), "current leads to a release that is {}", state(id));
        }
    }
    for entry in fs::read_dir(root.join("releases")).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(records.contains_key(&name), "releases/{name} has no record");
    }
    for id in records.keys().filter(|id| is_sealed(id)) {
        assert!(root.join("releases").join(id).is_dir(), "{id} is sealed and has no directory");
        assert!(control.join("manifest").join(id).is_file(), "{id} is sealed and has no manifest");
    }
    let live: Vec<&String> = records.keys().filter(|id| matches!(state(id), "active" | "confirmed")).collect();
    assert!(live.len() <= 2, "more than an old and a new one are live: {live:?}");
    assert_history(&control.join("journal"));
}

/// Checks every host after a run that went well: whole, verified to the byte, and with nothing left to clean.
#[track_caller]
pub fn assert_settled(world: &World, hosts: &[&str]) {
    for host in hosts {
        let root = world.root(host);
        until("the end of all builds", LOCK, || processes_of(root).is_empty());
        until("the lock", LOCK, || is_free(root));
        assert_whole(root);
        let control = root.join(".deployer");
        assert!(!control.join("intent").exists(), "an activation is unresolved on {host}");
        assert_eq!(fs::read_dir(control.join("tmp")).unwrap().count(), 0, "{host} has files aside");
        assert_eq!(fs::read_dir(control.join("trash")).unwrap().count(), 0, "{host} has trash");
        let live = fs::read_link(root.join("current")).ok().map(|target| target.file_name().unwrap().to_str().unwrap().to_owned());
        for (id, record) in records(root) {
            let state = text(&record["state"]);
            assert_eq!(state == "confirmed", Some(&id) == live.as_ref(), "{host}: {id} is {state}, and {live:?} is live");
            assert!(!matches!(state, "uploading" | "uploaded" | "building" | "active"), "{host}: {id} is {state}");
        }
    }
    let status = world.command(["status", "--verify", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    for row in status["rows"].as_array().unwrap().iter().filter(|row| hosts.contains(&text(&row["hosts"][0]))) {
        assert_eq!(row["notes"].as_array().unwrap().len(), 0, "{status:#}");
    }
}

/// The records by id.
pub fn records(root: &Path) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(root.join(".deployer/rel")).into_iter().flatten();
    let read = |path: &Path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.map(|entry| entry.unwrap().path()).map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

/// The state of the release that was made of `commit` last.
pub fn state_of(root: &Path, commit: &str) -> String {
    let records = records(root);
    let of: Vec<&Value> = records.values().filter(|record| record["release"]["commit"] == commit).collect();
    let last = of.iter().max_by_key(|record| record["sequence"].as_u64()).unwrap_or_else(|| panic!("nothing of {commit}: {records:#?}"));
    text(&last["state"]).to_owned()
}

/// The commit of what `current` leads to.
pub fn live_commit(root: &Path) -> String {
    let target = fs::read_link(root.join("current")).unwrap();
    text(&records(root)[target.file_name().unwrap().to_str().unwrap()]["release"]["commit"]).to_owned()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Tells whether nobody holds the lock.
pub fn is_free(root: &Path) -> bool {
    let Ok(lock) = File::open(root.join(".deployer/lock")) else { return true };
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// The processes of builds beneath `root`, by what they carry in their environment.
pub fn processes_of(root: &Path) -> Vec<String> {
    let mark = [b"DEPLOYER_BUILD=", root.canonicalize().unwrap_or_else(|_| root.to_owned()).as_os_str().as_bytes(), b"/"].concat();
    let carries = |pid: &str| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry.starts_with(&mark))
    };
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(|pid| carries(pid)).collect()
}

/// Reads the journal by its format: every frame names the hash of the one before it. A torn end is no frame.
#[track_caller]
fn assert_history(journal: &Path) {
    let bytes = fs::read(journal).unwrap_or_default();
    let (mut rest, mut hash, mut sequence) = (&bytes[..], String::new(), 0);
    while rest.len() >= 8 {
        let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        let Some(json) = rest.get(8..8 + length) else { return };
        let line: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(text(&line["previous"]), hash, "the history is broken at {line}");
        assert_eq!(line["event"]["sequence"], sequence + 1, "the history has a gap at {line}");
        sequence += 1;
        hash = blake3::hash(&rest[..8 + length]).to_string();
        rest = &rest[8 + length..];
    }
}

/// Hosts of a project whose build and activation wait for as long as a test wants them to.
pub struct Stage {
    pub world: World,
    pub hosts: Vec<&'static str>,
}

impl Stage {
    /// Hosts that are directories of this machine. `extra` goes into `[defaults]`.
    pub fn local(hosts: &[&'static str], extra: &str) -> Self {
        Self::set(World::new().local_hosts(hosts), hosts, extra)
    }

    /// Hosts behind an sshd each.
    pub fn ssh(session: &'static str, hosts: &[&'static str], extra: &str) -> Self {
        Self::set(World::new().ssh_hosts(session, hosts), hosts, extra)
    }

    fn set(world: World, hosts: &[&'static str], extra: &str) -> Self {
        let mut stage = Self { world, hosts: hosts.to_vec() };
        for host in hosts {
            fs::create_dir_all(stage.world.root(host)).unwrap();
        }
        stage.configure(extra);
        stage
    }

    /// Writes `deploy.toml` again, with `extra` in `[defaults]`.
    pub fn configure(&mut self, extra: &str) {
        self.world.reconfigure(&format!(
            "{extra}\n[defaults.build]\ncommand = \"sh build.sh\"\n[defaults.activate]\nrun = \"\"\"\necho \"$DEPLOYER_SHORT_REV\" >>\"$DEPLOYER_ROOT/restarts\"\n\
             echo restarting\nwhile [ -e <tmp>/slow-restart ]; do sleep 0.05; done\n[ ! -e <tmp>/no-restart-$DEPLOYER_HOST ]\"\"\"\n\
             [defaults.check]\nrun = \"[ ! -e <tmp>/sick-$DEPLOYER_HOST-$DEPLOYER_SHORT_REV ]\"\nretries = 1\nevery = \"10ms\"\n"
        ));
    }

    /// Commits a version of the application. Gives the commit.
    pub fn commit(&self, app: &str) -> String {
        let build = format!(
            "set -eu\ncp app built\nif [ -e {0}/slow ]; then\n\
             setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1 &\n\
             echo waiting\nwhile [ -e {0}/slow ]; do sleep 0.05; done\nfi\n[ ! -e {0}/broken-$DEPLOYER_HOST ]\n",
            self.world.path("").display()
        );
        self.world.commit(&[("app", app), ("lib/deep/part", "part of it\n"), ("build.sh", &build)])
    }

    /// Sets or clears one of the conditions that builds, activations and checks look at.
    pub fn mark(&self, name: &str, is_set: bool) {
        let path = self.world.path(name);
        if is_set { fs::write(path, "").unwrap() } else { fs::remove_file(path).unwrap() }
    }

    /// Deploys what is committed last, which must succeed everywhere and leave nothing over.
    #[track_caller]
    pub fn settles(&self, app: &str) {
        self.world.deployer(["deploy", "--rev", "master"]).ok();
        self.serves(app);
    }

    #[track_caller]
    pub fn serves(&self, app: &str) {
        for host in &self.hosts {
            assert_eq!(self.world.read_current(host, "built"), app, "{host}");
            assert_eq!(self.world.read_current(host, "app"), app, "{host}");
        }
        assert_settled(&self.world, &self.hosts);
    }

    /// Waits until no helper is at work any more, and checks that every host is whole.
    #[track_caller]
    pub fn rests(&self) {
        for host in &self.hosts {
            let root = self.world.root(host);
            until("the end of all builds", LOCK, || processes_of(root).is_empty());
            until("the lock", LOCK, || is_free(root));
            assert_whole(root);
        }
    }
}
