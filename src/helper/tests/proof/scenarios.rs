//! What a helper is asked to do while things happen to it, and how a host looks where nothing happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::{id, restarts};
use crate::controller::{Controller, Done, Stopped, Version};
use crate::invariants::records;
use crate::op::{ActivationOutcome, Current, Op};
use crate::release::State;

/// Something that is done with a host, and can be done again until it is done.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// What the host serves and holds before.
    pub prepare: fn(&mut Controller) -> Done,
    /// What is done. Its argument is the id of the release that is made, where one is: another run may go on with what the first one
    /// left, or make its own.
    pub work: fn(&mut Controller, &'static str) -> Done,
    /// The helper is killed at the end of `prepare`, and `work` begins with a recovery.
    pub is_recovery: bool,
}

impl Scenario {
    /// Prepares a host.
    pub fn prepared(&self) -> Host {
        let host = Host::new();
        let mut controller = Controller::connect(&host.root(), "before", None, None);
        (self.prepare)(&mut controller).unwrap_or_else(|stopped| panic!("{}: {stopped}", self.name));
        if self.is_recovery {
            controller.kill();
        } else {
            controller.close();
        }
        host
    }
}

pub const SCENARIOS: [Scenario; 11] = [
    Scenario { name: "first deploy", prepare: |_| Ok(()), work: |host, release| host.deploy(release, "b", 2), is_recovery: false },
    Scenario { name: "next deploy", prepare: two_live, work: |host, release| host.deploy(release, "b", 1), is_recovery: false },
    Scenario { name: "deploy that fails its check", prepare: two_live, work: fails, is_recovery: false },
    Scenario { name: "first deploy that fails its check", prepare: |_| Ok(()), work: fails, is_recovery: false },
    Scenario { name: "rollback", prepare: three_live, work: rolls_back, is_recovery: false },
    Scenario { name: "revert of what was confirmed", prepare: three_live, work: reverts, is_recovery: false },
    Scenario { name: "removal", prepare: with_many, work: prunes, is_recovery: false },
    Scenario { name: "recovery of a switch", prepare: switched, work: recovers, is_recovery: true },
    Scenario { name: "recovery of an upload", prepare: uploading, work: recovers, is_recovery: true },
    Scenario { name: "recovery of a build", prepare: built, work: recovers, is_recovery: true },
    Scenario { name: "recovery of a revert", prepare: reverting, work: recovers, is_recovery: true },
];

/// What must be refused, whatever else happens.
pub const REFUSED: [Scenario; 4] = [
    Scenario { name: "seal of what was changed", prepare: two_live, work: seals_what_was_changed, is_recovery: false },
    Scenario { name: "switch to what is not sealed", prepare: two_live, work: switches_to_what_is_not_sealed, is_recovery: false },
    Scenario { name: "switch from what is not live", prepare: with_another, work: switches_from_what_is_not_live, is_recovery: false },
    Scenario { name: "confirmation of what is not live", prepare: with_another, work: confirms_what_is_not_live, is_recovery: false },
];

/// A run that is killed while it writes leaves something aside.
pub const LEFTOVER: Scenario =
    Scenario { name: "what a dead run left aside", prepare: with_something_aside, work: recovers, is_recovery: true };

pub fn find(name: &str) -> Scenario {
    let all = SCENARIOS.iter().chain(&REFUSED).chain([&LEFTOVER]);
    all.into_iter().copied().find(|scenario| scenario.name == name).unwrap_or_else(|| panic!("there is no `{name}`"))
}

fn two_live(host: &mut Controller) -> Done {
    host.deploy("z", "z", 5)?;
    host.deploy("a", "a", 5)
}

fn three_live(host: &mut Controller) -> Done {
    two_live(host)?;
    // Newer than what is live, sealed, and never chosen by anybody.
    host.lock()?;
    host.prepare("x", &Version::new("x"))?;
    host.unlock()?;
    host.deploy("y", "y", 5)
}

fn with_many(host: &mut Controller) -> Done {
    three_live(host)?;
    host.deploy("v", "v", 5)
}

fn fails(host: &mut Controller, release: &'static str) -> Done {
    host.lock()?;
    let is_known = host.facts()?.releases.iter().any(|record| record.state == State::Bad);
    if !is_known {
        let release = host.prepare(release, &Version::new("b"))?;
        let activated = host.activate(&release, false, false)?;
        if !matches!(activated.outcome, ActivationOutcome::CheckFailed { .. }) {
            return Err(Stopped::Wrong(format!("{activated:?}")));
        }
        host.revert(&release, true)?;
    }
    host.unlock()
}

fn rolls_back(host: &mut Controller, _: &'static str) -> Done {
    host.lock()?;
    host.bring_up("z", true)?;
    host.unlock()
}

fn reverts(host: &mut Controller, _: &'static str) -> Done {
    host.lock()?;
    let is_live = host.facts()?.current == Current::Release(id("y"));
    if is_live {
        host.revert("y", false)?;
    }
    host.unlock()
}

fn prunes(host: &mut Controller, _: &'static str) -> Done {
    host.lock()?;
    host.prune(1)?;
    host.unlock()
}

fn switched(host: &mut Controller) -> Done {
    two_live(host)?;
    host.lock()?;
    host.prepare("b", &Version::new("b"))?;
    host.activate("b", false, true).map(drop)
}

fn uploading(host: &mut Controller) -> Done {
    two_live(host)?;
    host.lock()?;
    host.push("b", &Version::new("b"))
}

fn built(host: &mut Controller) -> Done {
    uploading(host)?;
    host.link("b")?;
    host.build("b")
}

/// A check that failed, and a connection that was lost before anything came of it.
fn reverting(host: &mut Controller) -> Done {
    two_live(host)?;
    host.lock()?;
    host.prepare("b", &Version::new("b"))?;
    host.activate("b", false, false).map(drop)
}

fn recovers(host: &mut Controller, _: &'static str) -> Done {
    host.lock()?;
    host.unlock()
}

/// Goes on only if something was refused.
fn refused<T: std::fmt::Debug>(done: Done<T>) -> Done {
    match done {
        Err(Stopped::Failed { .. }) => Ok(()),
        Err(other) => Err(other),
        Ok(answer) => Err(Stopped::Wrong(format!("that was not refused: {answer:?}"))),
    }
}

fn with_another(host: &mut Controller) -> Done {
    two_live(host)?;
    host.lock()?;
    host.prepare("b", &Version::new("b"))?;
    host.unlock()
}

fn with_something_aside(host: &mut Controller) -> Done {
    two_live(host)?;
    fs::write(host.root().join(".deployer/tmp/left"), "half a rec").unwrap();
    Ok(())
}

fn seals_what_was_changed(host: &mut Controller, release: &'static str) -> Done {
    host.lock()?;
    host.push(release, &Version::new("b"))?;
    fs::write(host.root().join("releases").join(release).join("bin/run"), "something else\n").unwrap();
    refused(host.seal(release))?;
    host.done("fail", Op::Fail { release: id(release), reason: "it was changed".into() })?;
    host.unlock()
}

fn switches_to_what_is_not_sealed(host: &mut Controller, release: &'static str) -> Done {
    host.lock()?;
    host.push(release, &Version::new("b"))?;
    refused(host.activate(release, false, true))?;
    host.done("fail", Op::Fail { release: id(release), reason: "it was not finished".into() })?;
    host.unlock()
}

/// Somebody links to another release between the plan and the switch.
fn switches_from_what_is_not_live(host: &mut Controller, _: &'static str) -> Done {
    host.lock()?;
    let planned = host.live()?;
    relink(host.root(), "z");
    refused(host.activate_from(planned.as_ref(), "b", false, true))?;
    relink(host.root(), "a");
    host.unlock()
}

fn relink(root: &Path, release: &str) {
    fs::remove_file(root.join("current")).unwrap();
    symlink(format!("releases/{release}"), root.join("current")).unwrap();
}

fn confirms_what_is_not_live(host: &mut Controller, _: &'static str) -> Done {
    host.lock()?;
    refused(host.done("confirm", Op::Confirm { release: id("b") }))?;
    host.unlock()
}

/// A host: a root, and beside it what is not the helper's to touch.
pub struct Host {
    directory: tempfile::TempDir,
}

/// What is beside the root.
const BESIDE: [&str; 3] = ["app", "cache", "canary"];

impl Host {
    pub fn new() -> Self {
        // In memory where that can be: nothing here is about loss of power, and disks are slow.
        let memory = Path::new("/dev/shm");
        let directory = if fs::metadata(memory).is_ok_and(|stat| stat.permissions().mode() & 0o002 != 0) {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let host = Self { directory };
        fs::create_dir_all(host.root().join("shared/etc")).unwrap();
        fs::write(host.root().join("shared/etc/site.cfg"), "shared\n").unwrap();
        fs::create_dir(host.directory.path().join("cache")).unwrap();
        fs::write(host.directory.path().join("canary"), "sings\n").unwrap();
        host
    }

    /// The same again: other files, with the same content, modes and times.
    pub fn copy(&self) -> Self {
        let copy = Self { directory: tempfile::tempdir_in(self.directory.path().parent().unwrap()).unwrap() };
        let copied = Command::new("cp").arg("-a").arg(self.directory.path().join(".")).arg(copy.directory.path()).status().unwrap();
        assert!(copied.success());
        copy
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("app")
    }

    /// Says what was changed beside the root.
    pub fn trespasses(&self) -> Vec<String> {
        let names: BTreeSet<String> =
            fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let mut found: Vec<String> =
            names.iter().filter(|name| !BESIDE.contains(&name.as_str())).map(|name| format!("I11: `{name}` is beside the root")).collect();
        let is_whole = fs::read(self.directory.path().join("canary")).is_ok_and(|bytes| bytes == b"sings\n")
            && fs::read_dir(self.directory.path().join("cache")).is_ok_and(|entries| entries.count() == 0)
            && fs::read(self.root().join("shared/etc/site.cfg")).is_ok_and(|bytes| bytes == b"shared\n");
        if !is_whole {
            found.push("I11: what is not the helper's was changed".to_owned());
        }
        found
    }
}

/// What remains of a run: equal for two that came to the same end, whatever the releases are called and however often they began.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    live: Option<String>,
    tree: BTreeMap<String, String>,
    /// Each version with the state of its release; what failed on the way is not counted.
    releases: Vec<(String, String)>,
    restarted: String,
}

impl Shape {
    pub fn of(root: &Path) -> Self {
        let records = records(root, &mut Vec::new());
        let version =
            |id: &str| records.get(id).map_or_else(|| id.to_owned(), |record| record.release.reference.clone().unwrap_or_default());
        let live = fs::read_link(root.join("current")).ok().map(|target| target.file_name().unwrap().to_str().unwrap().to_owned());
        let mut tree = BTreeMap::new();
        if let Some(live) = &live {
            walk(&root.join("releases").join(live), "", &mut tree);
        }
        let mut releases: Vec<(String, String)> = records
            .values()
            .filter(|record| record.state != State::Failed)
            .map(|record| (version(record.release.id.as_str()), format!("{:?}", record.state)))
            .collect();
        releases.sort();
        let restarted = restarts(root).split(' ').next_back().map(&version).unwrap_or_default();
        Self { live: live.as_deref().map(version), tree, releases, restarted }
    }
}

impl Shape {
    /// Says in what it differs from another.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let paths: Vec<&String> =
            self.tree.keys().chain(other.tree.keys()).filter(|path| self.tree.get(*path) != other.tree.get(*path)).collect();
        let told = |shape: &Self| format!("live {:?} of {:?}, restarted {}", shape.live, shape.releases, shape.restarted);
        (self != other).then(|| format!("{}, where {} was expected; paths {paths:?}", told(self), told(other)))
    }
}

fn walk(directory: &Path, below: &str, tree: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().to_str().unwrap());
        let metadata = entry.metadata().unwrap();
        let what = if metadata.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap().display().to_string();
            // The cache lies beside the root, which is somewhere else for each host.
            target.rsplit_once("/cache").map_or(target.clone(), |_| "the cache".to_owned())
        } else if metadata.is_dir() {
            walk(&entry.path(), &path, tree);
            "directory".to_owned()
        } else {
            let time = if path.starts_with("/out") || path == "/REVISION" { 0 } else { metadata.mtime() };
            format!("{:o} {time} {}", metadata.permissions().mode(), blake3::hash(&fs::read(entry.path()).unwrap()))
        };
        tree.insert(path, what);
    }
}
