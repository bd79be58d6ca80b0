//! A real sshd on loopback for tests: its own keys, its own configuration, ended with the value.

#![expect(clippy::disallowed_methods, reason = "tests start what they look at")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::config::environment::{Connect, HostKeys, SessionKind, Target};

pub struct Sshd {
    directory: TempDir,
    pub port: u16,
    child: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sshd {
    /// Starts one with `extra` lines of configuration; it listens when this returns.
    pub fn start(extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        keygen(&path("host"), &["-t", "ed25519"]);
        keygen(&path("id"), &["-t", "ed25519"]);
        fs::copy(path("id.pub"), path("authorized_keys")).unwrap();
        fs::create_dir(path("home")).unwrap();
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        let at = directory.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nPidFile none\nAuthorizedKeysFile {at}/authorized_keys\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n\
             MaxStartups 100\nLogLevel INFO\nSetEnv HOME={at}/home\n{extra}\n"
        );
        fs::write(path("sshd_config"), config).unwrap();
        let mut child =
            Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(path("sshd_config")).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains("Server listening")) {
            let line = log.next().unwrap_or_else(|| panic!("sshd ended: {said:?}"));
            said.push(line.unwrap());
        }
        std::thread::spawn(move || log.for_each(drop));
        let sshd = Self { directory, port, child };
        sshd.know(&sshd.host_line());
        sshd
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `type base64` of the host's key.
    pub fn host_key(&self) -> String {
        public_key(&self.path("host.pub"))
    }

    pub fn host_line(&self) -> String {
        format!("[127.0.0.1]:{} {}\n", self.port, self.host_key())
    }

    /// Writes the file of known hosts.
    pub fn know(&self, text: &str) {
        fs::write(self.path("known_hosts"), text).unwrap();
    }

    pub fn connect(&self, kind: SessionKind) -> Connect {
        Connect { port: Some(self.port), identities: vec![self.path("id")], known_hosts: vec![self.path("known_hosts")], ..connect(kind) }
    }

    /// Ends the sshd and every session of it, as a host that loses its power.
    pub fn kill_sessions(&self) {
        let parent = self.child.id().to_string();
        // A connection has two processes. Where sshd is not root's, the one that carries it outlives the other.
        let monitors = Command::new("pgrep").args(["-P", &parent]).output().unwrap();
        for monitor in String::from_utf8(monitors.stdout).unwrap().lines().chain([parent.as_str()]) {
            let _ = Command::new("pkill").args(["-KILL", "-P", monitor]).status().unwrap();
        }
    }
}

pub fn target(address: &str) -> Target {
    Target {
        name: "app1".into(),
        address: address.into(),
        user: None,
        port: None,
        roles: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        session: None,
        root: None,
        cache: None,
    }
}

/// Settings that read nothing of the person's own.
pub fn connect(kind: SessionKind) -> Connect {
    let me = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    Connect {
        session: Some(kind),
        user: Some(me.trim().to_owned()),
        port: None,
        identities: vec!["/nonexistent/id".into()],
        ssh_config: Some("none".into()),
        known_hosts: vec!["/nonexistent/known_hosts".into()],
        host_keys: HostKeys::Strict,
        jump: None,
        forward_agent: false,
        ask: false,
        trust_first_use: false,
        timeout: Duration::from_secs(10),
        retries: 0,
        parallel: 8,
    }
}

pub fn keygen(path: &Path, flags: &[&str]) {
    let passphrase: &[&str] = if flags.contains(&"-N") { &[] } else { &["-N", ""] };
    let status = Command::new("ssh-keygen").args(["-q", "-C", "test", "-f"]).arg(path).args(flags).args(passphrase).status().unwrap();
    assert!(status.success());
}

pub fn public_key(path: &Path) -> String {
    fs::read_to_string(path).unwrap().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
