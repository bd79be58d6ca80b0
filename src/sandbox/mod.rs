//! Throwaway hosts and a sample project, shared by `deployer demo`, the tests and the benchmark.
//!
//! A sandbox is one temporary directory. It holds the keys, the ssh config and the hosts, each an `sshd` of its own on loopback,
//! and goes when it is dropped or when this process dies, however it dies. Nothing of the user's is read or written.

#![expect(clippy::disallowed_methods, reason = "a sandbox works without a runtime, and its guards outlive this process")]

mod host;
mod packages;
mod sample;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{env, fs};

use tempfile::TempDir;

use crate::config::environment::HostPath;

pub use host::SandboxHost;
pub use packages::DownloadCache;
pub use sample::{Sample, SampleRepository};

/// Why a sandbox cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what}")]
    Io { what: String, source: io::Error },
    #[error("{what} failed: {output}")]
    Command { what: String, output: String },
    #[error("{tool} is not usable here: {reason}")]
    Missing { tool: &'static str, reason: String },
    #[error("`{}` holds characters that a path on a host cannot have; set TMPDIR to a plain one", .0.display())]
    Directory(PathBuf),
    #[error("the sshd of `{name}` does not listen: {log}")]
    NotListening { name: String, log: String },
    #[error("the sandbox has a host `{0}` already")]
    TakenName(String),
    #[error("cannot make the sample repository")]
    Git(#[from] git2::Error),
}

type Result<T> = std::result::Result<T, Error>;

/// Says what failed when an `io::Error` does not.
fn doing<T>(what: impl Into<String>, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { what: what.into(), source })
}

/// A program and where it is, or why it cannot be used.
pub type Tool = std::result::Result<PathBuf, String>;

/// What this machine offers a sandbox.
#[derive(Clone, Debug)]
pub struct Tools {
    pub sshd: Tool,
    pub ssh: Tool,
    /// A Python of 3.10 or later that can make virtual environments, and that this user may execute.
    pub python: Tool,
    pub git: Tool,
}

/// A temporary directory with hosts in it.
#[derive(Debug)]
pub struct Sandbox {
    pub directory: PathBuf,
    user: String,
    // The order is the order of dropping: hosts end before their files go, and the guard, which would remove the files of a killed
    // process, goes last.
    hosts: Vec<SandboxHost>,
    _directory: Option<TempDir>,
    _guard: Option<Guard>,
}

impl Sandbox {
    /// Makes the directory, the client's key and an ssh config without hosts. With `keep` the directory stays.
    pub fn new(keep: bool) -> Result<Self> {
        let temporary = doing("make a temporary directory", tempfile::Builder::new().prefix("deployer-sandbox-").tempdir())?;
        let directory = doing("resolve the temporary directory", temporary.path().canonicalize())?;
        if directory.to_str().is_none_or(|path| HostPath::new(path).is_err()) {
            return Err(Error::Directory(directory));
        }
        let (temporary, guard) = if keep {
            let _ = temporary.keep();
            (None, None)
        } else {
            (Some(temporary), Some(Guard::start(r#"read -r line; rm -rf -- "$1""#, [OsStr::new("sh"), directory.as_os_str()])?))
        };
        let user = capture("id", Command::new("id").arg("-un"))?.trim().to_owned();
        let sandbox = Self { directory, user, hosts: Vec::new(), _directory: temporary, _guard: guard };
        doing("write the ssh config", fs::write(sandbox.ssh_config(), ""))?;
        doing("write known_hosts", fs::write(sandbox.known_hosts(), ""))?;
        doing("make the directory of the hosts", fs::create_dir(sandbox.directory.join("hosts")))?;
        Ok(sandbox)
    }

    /// Looks for the programs that a sandbox can make use of.
    #[must_use]
    pub fn tools(&self) -> Tools {
        Tools { sshd: sshd(), ssh: program("ssh"), python: packages::python(), git: program("git") }
    }

    /// Tells whether the `pip` of the usable Python gets packages from the index it is configured with. Asks it for one.
    pub fn package_index(&self) -> std::result::Result<(), String> {
        packages::index(packages::python()?, &self.directory)
    }

    /// Starts a host: an `sshd` with a key, a home and a port of its own, known to `ssh_config` as `name`.
    pub fn add_host(&mut self, name: &str) -> Result<&SandboxHost> {
        self.start_host(name, None)
    }

    /// Starts a host whose users find the parent of its root at `seen_at`, a directory of this machine that stays empty: several hosts
    /// may have the same path, as real ones do.
    pub fn add_host_at(&mut self, name: &str, seen_at: PathBuf) -> Result<&SandboxHost> {
        self.start_host(name, Some(seen_at))
    }

    /// Tells whether this machine lets its users have mounts of their own.
    pub fn mount_namespaces(&self) -> std::result::Result<(), String> {
        host::mounts(&self.directory).map_err(|error| error.to_string())
    }

    fn start_host(&mut self, name: &str, seen_at: Option<PathBuf>) -> Result<&SandboxHost> {
        if self.host(name).is_some() {
            return Err(Error::TakenName(name.to_owned()));
        }
        let sshd = sshd().map_err(|reason| Error::Missing { tool: "sshd", reason })?;
        if !self.identity().exists() {
            make_key(&self.identity())?;
        }
        let directory = self.directory.join("hosts").join(name);
        let host = SandboxHost::start(name, directory, sshd, &self.identity().with_extension("pub"), seen_at)?;
        self.hosts.push(host);
        self.write_client_files()?;
        Ok(&self.hosts[self.hosts.len() - 1])
    }

    /// The host that was added as `name`.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&SandboxHost> {
        self.hosts.iter().find(|host| host.name == name)
    }

    #[must_use]
    pub fn hosts(&self) -> &[SandboxHost] {
        &self.hosts
    }

    /// A config with an entry for each host, for `ssh -F`. It names every file that counts, so that none of the user's does.
    #[must_use]
    pub fn ssh_config(&self) -> PathBuf {
        self.directory.join("ssh_config")
    }

    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// The client's private key. It is made with the first host.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.directory.join("id_ed25519")
    }

    /// Who logs in on the hosts: whoever runs this.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Makes the sample project's repository, the same to the byte each time.
    pub fn repository(&self, sample: Sample) -> Result<SampleRepository> {
        SampleRepository::create(self.directory.join("boskel"), sample)
    }

    /// Fills a download cache with what the sample project's commits need. For `Sample::Buildout` this asks the package index.
    pub fn download_cache(&self, sample: Sample) -> Result<DownloadCache> {
        DownloadCache::fill(self.directory.join("download-cache"), sample)
    }

    /// Makes a virtual environment with zc.buildout in it out of `cache`, without any network.
    pub fn venv(&self, cache: &DownloadCache) -> Result<PathBuf> {
        let venv = self.directory.join("venv");
        packages::make_venv(&venv, cache)?;
        Ok(venv)
    }

    fn write_client_files(&self) -> Result<()> {
        let entries: String = self.hosts.iter().map(|host| self.ssh_config_entry(host)).collect();
        doing("write the ssh config", fs::write(self.ssh_config(), entries))?;
        let known: Vec<String> = self.hosts.iter().map(SandboxHost::known_hosts_line).collect::<Result<_>>()?;
        doing("write known_hosts", fs::write(self.known_hosts(), known.concat()))
    }

    fn ssh_config_entry(&self, host: &SandboxHost) -> String {
        let SandboxHost { name, port, .. } = host;
        let (user, identity, known_hosts) = (&self.user, self.identity(), self.known_hosts());
        format!(
            "Host {name}\n    HostName 127.0.0.1\n    Port {port}\n    User {user}\n    IdentityFile {}\n    IdentitiesOnly yes\n    \
             IdentityAgent none\n    UserKnownHostsFile {}\n    GlobalKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n    \
             BatchMode yes\n    ControlPath none\n    LogLevel ERROR\n",
            identity.display(),
            known_hosts.display()
        )
    }
}

/// Says that a test cannot run here, and why, past the test runner's capture: `scripts/test` counts these lines, so that no test is
/// left out unseen.
pub fn skip(reason: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "skipped: {reason}");
}

/// A small `sh` that acts when its stdin closes: when the guard is dropped, or when this process ends without dropping anything.
/// The parent-death signal would be simpler, but it fires when the *thread* that made the child ends.
#[derive(Debug)]
struct Guard {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Guard {
    fn start<'a>(script: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<Self> {
        Self::spawn(guard_command(script, arguments).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = doing("start `sh`", command.stdin(Stdio::piped()).spawn())?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Nothing can be done about a failure here, and the script ends by itself.
        let _ = self.child.wait();
    }
}

/// `sh -c script`, in a process group of its own: a ^C at the terminal is for this process to act on.
fn guard_command<'a>(script: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).args(arguments).process_group(0).current_dir("/");
    command
}

/// Runs a command to its end without stdin, and returns what it printed.
fn capture(what: &str, command: &mut Command) -> Result<String> {
    let output = doing(format!("start {what}"), command.stdin(Stdio::null()).output())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stderr, output.stdout].concat();
    Err(Error::Command { what: what.to_owned(), output: String::from_utf8_lossy(&text).trim().to_owned() })
}

fn make_key(path: &Path) -> Result<()> {
    let mut command = Command::new("ssh-keygen");
    capture("ssh-keygen", command.args(["-q", "-t", "ed25519", "-N", "", "-C", "sandbox", "-f"]).arg(path)).map(drop)
}

/// The system's `sshd`, which is rarely in an ordinary user's `PATH` and insists on being called by its whole path.
fn sshd() -> Tool {
    program("ssh-keygen")?;
    let found =
        ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/lib/ssh", "/usr/lib/openssh"].map(|directory| Path::new(directory).join("sshd"));
    found.into_iter().find(|path| is_executable(path)).map_or_else(|| program("sshd"), Ok)
}

/// Looks for a program in `PATH` as a shell would.
fn program(name: &str) -> Tool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join(name)).find(|path| is_executable(path));
    found.ok_or_else(|| format!("there is no `{name}` in PATH"))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
