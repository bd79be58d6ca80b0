//! That hosts are whole at any time, whatever was killed, cut or full (`invariants` says what that is), and that nothing is left over
//! once a run is over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde_json::Value;

use crate::harness::World;
use crate::invariants::{left_in, unsettled, violations};
use crate::running::until;

/// The longest that a lock may outlive whoever held it.
const LOCK: Duration = Duration::from_secs(30);

/// Checks one host root, at any moment at which no helper writes there.
#[track_caller]
pub fn assert_whole(root: &Path) {
    let found = violations(root);
    assert!(found.is_empty(), "{}:\n{}", root.display(), found.join("\n"));
}

/// Checks every host after a run that went well: whole, verified to the byte, and with nothing left to clean.
#[track_caller]
pub fn assert_settled(world: &World, hosts: &[&str]) {
    assert_settled_but(world, hosts, None);
}

/// The same where a test did a damage that nothing undoes: what is found must be that, and no more.
#[track_caller]
fn assert_settled_but(world: &World, hosts: &[&str], damage: Option<&str>) {
    for host in hosts {
        let root = world.root(host);
        until("the end of all builds", LOCK, || processes_of(root).is_empty());
        until("the lock", LOCK, || is_free(root));
        let mut found = unsettled(root);
        found.extend(left_in(root, "trash"));
        if let Some(damage) = damage {
            let others = found.iter().filter(|found| !found.contains(damage)).count();
            assert!(others == 0 && !found.is_empty(), "{host}, where `{damage}` is known:\n{}", found.join("\n"));
        } else {
            assert!(found.is_empty(), "{host}:\n{}", found.join("\n"));
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

    /// Leads the way to `host` through a port of this test's own from now on. Gives the port of the host itself, and ours.
    pub fn detour(&self, host: &str) -> (u16, TcpListener) {
        let sandbox = &self.world.sandbox;
        let real = sandbox.host(host).unwrap().port;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = fs::read_to_string(sandbox.known_hosts()).unwrap();
        let key = known.lines().find_map(|line| line.strip_prefix(&format!("[127.0.0.1]:{real} "))).unwrap();
        fs::write(sandbox.known_hosts(), format!("{known}[127.0.0.1]:{port} {key}\n")).unwrap();
        let config = fs::read_to_string(sandbox.ssh_config()).unwrap();
        fs::write(sandbox.ssh_config(), format!("Host {host}\n    Port {port}\n{config}")).unwrap();
        (real, listener)
    }

    /// Deploys what is committed last, which must succeed everywhere and leave nothing over.
    #[track_caller]
    pub fn settles(&self, app: &str) {
        self.world.deployer(["deploy", "--rev", "master"]).ok();
        self.serves(app);
    }

    #[track_caller]
    pub fn serves(&self, app: &str) {
        self.serves_but(app, None);
    }

    /// The same beside a damage that a test did, which must still be found.
    #[track_caller]
    pub fn serves_but(&self, app: &str, damage: Option<&str>) {
        for host in &self.hosts {
            assert_eq!(self.world.read_current(host, "built"), app, "{host}");
            assert_eq!(self.world.read_current(host, "app"), app, "{host}");
        }
        assert_settled_but(&self.world, &self.hosts, damage);
    }

    /// Deploys again what a run before did not come to the end of. What that one had removed may lie in the trash, where nothing was left
    /// to be done.
    #[track_caller]
    pub fn completes(&self, app: &str) {
        self.world.deployer(["deploy", "--rev", "master", "--wait-lock", "40s"]).ok();
        self.rests();
        for host in &self.hosts {
            assert_eq!(self.world.read_current(host, "built"), app, "{host}");
            assert_eq!(unsettled(self.world.root(host)), [""; 0], "{host}");
        }
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
