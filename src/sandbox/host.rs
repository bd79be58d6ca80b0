//! One throwaway host: an `sshd` with its own key, home and port, whose listener and connections can be ended and paused.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{net::TcpListener, thread};

use rustix::process::{Pid, Signal};

use super::{Error, Guard, Result, capture, doing, guard_command, make_key};

/// Starts sshd, tells its pid, and ends it with its connections once stdin closes. The pause comes first so that no connection is
/// accepted between listing them and ending them. When whoever started this ends meanwhile, its group is an orphan with a paused process,
/// to which the kernel sends a hang-up (setpgid(2)): it must not end this before it has ended sshd.
const KEEPER: &str = r#"
"$@" </dev/null >/dev/null &
sshd=$!
trap '' HUP
echo "$sshd"
exec >/dev/null 2>&1
read -r line
kill -STOP "$sshd"
kill -KILL "$sshd" $(cat "/proc/$sshd/task/$sshd/children")
wait
"#;

/// How long an sshd may take to listen. It takes milliseconds; this bounds a machine that is on its knees.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host of the sandbox. It ends when it is dropped.
#[derive(Debug)]
pub struct SandboxHost {
    pub name: String,
    pub port: u16,
    /// `HOME` of whoever logs in: start-up files of shells are read from here.
    pub home: PathBuf,
    /// Where `deployer` may make its layout. It does not exist yet; its parent does.
    pub root: PathBuf,
    /// What the sshd says, from its first start on.
    pub log: PathBuf,
    directory: PathBuf,
    sshd: PathBuf,
    /// Where users of this host find its services: the same path on several hosts, as on real ones.
    seen_at: Option<PathBuf>,
    running: Mutex<Option<Running>>,
}

/// Starts `"$@"` where the first directory is found at the second, in a mount namespace of its own. Users other than root need a user
/// namespace for that, and one more to be themselves again.
const ELSEWHERE: &str = r#"
own=$1 seen=$2
shift 2
if [ "$(id -u)" = 0 ]; then
    exec unshare --mount --propagation private sh -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$own" "$seen" "$@"
fi
exec unshare --user --map-root-user --mount sh -c '
    mount --bind "$0" "$1" && uid=$2 gid=$3 && shift 3 && exec unshare --user --map-user="$uid" --map-group="$gid" "$@"
' "$own" "$seen" "$(id -u)" "$(id -g)" "$@"
"#;

#[derive(Debug)]
struct Running {
    pid: Pid,
    _keeper: Guard,
}

impl SandboxHost {
    pub(super) fn start(name: &str, directory: PathBuf, sshd: PathBuf, authorized_key: &Path, seen_at: Option<PathBuf>) -> Result<Self> {
        let what = || format!("make the host `{name}`");
        let home = directory.join("home");
        let services = directory.join("srv");
        for path in [&directory, &home, &services] {
            doing(what(), fs::create_dir(path))?;
        }
        if rustix::process::geteuid().is_root() {
            doing("make /run/sshd, which sshd needs when it is started by root", fs::create_dir_all("/run/sshd"))?;
        }
        let mut host = Self {
            name: name.to_owned(),
            port: 0,
            root: services.join("boskel"),
            log: directory.join("sshd.log"),
            home,
            directory,
            sshd,
            seen_at,
            running: Mutex::new(None),
        };
        make_key(&host.host_key())?;
        doing(what(), fs::copy(authorized_key, host.directory.join("authorized_keys")))?;
        host.listen_somewhere()?;
        Ok(host)
    }

    /// Another process may take a port between the moment it is found free and the moment sshd binds it: then the next one is tried.
    fn listen_somewhere(&mut self) -> Result<()> {
        let mut tries = 20;
        loop {
            tries -= 1;
            self.port = free_port(&self.name)?;
            doing("write sshd_config", fs::write(self.config(), self.settings("")))?;
            match self.listen() {
                Err(Error::NotListening { .. }) if tries > 0 => {}
                result => return result,
            }
        }
    }

    /// The private host key. Replacing it, with `restart`, is how a test changes a host's identity.
    #[must_use]
    pub fn host_key(&self) -> PathBuf {
        self.directory.join("ssh_host_ed25519_key")
    }

    pub(super) fn known_hosts_line(&self) -> Result<String> {
        let key = fs::read_to_string(self.host_key().with_extension("pub"));
        Ok(format!("[127.0.0.1]:{} {}\n", self.port, doing(format!("read the key of `{}`", self.name), key)?.trim()))
    }

    fn config(&self) -> PathBuf {
        self.directory.join("sshd_config")
    }

    /// sshd takes the first value it reads of each setting, hence `first` comes first.
    fn settings(&self, first: &str) -> String {
        let Self { port, home, directory, .. } = self;
        format!(
            "{first}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nSetEnv HOME={}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitUserRC no\nPrintMotd no\n\
             PrintLastLog no\nUseDNS no\nMaxStartups 100\nLogLevel INFO\nSubsystem sftp internal-sftp\n",
            self.host_key().display(),
            directory.join("authorized_keys").display(),
            home.display(),
        )
    }

    /// The pid of the listening sshd, or none while the host is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.running().as_ref().map(|running| running.pid)
    }

    /// Ends the sshd and every connection it serves, as if the host lost its power; what users started there notices nothing but
    /// the end of its pipes.
    pub fn stop(&self) {
        let Some(running) = self.running().take() else { return };
        // The process is our grandchild and is reaped by its keeper, so the pid is still its own; it may have ended already.
        let _ = rustix::process::kill_process(running.pid, Signal::STOP);
        end(&connections(running.pid));
        drop(running);
    }

    /// Stops the sshd if it runs, and starts it again on the same port.
    ///
    /// What listened there in its place, and is closed, may for a moment be held by a process that another thread of the caller starts:
    /// until it is another program. The port is the host's, so it is waited for.
    pub fn restart(&self) -> Result<()> {
        let mut tries = 50;
        loop {
            tries -= 1;
            match self.listen() {
                Err(Error::NotListening { log, .. }) if tries > 0 && log.contains("Address already in use") => {
                    thread::sleep(Duration::from_millis(50));
                }
                result => return result,
            }
        }
    }

    fn listen(&self) -> Result<()> {
        self.stop();
        *self.running() = Some(self.launch()?);
        Ok(())
    }

    /// Writes `lines` of `sshd_config(5)` before the sandbox's own, in place of those written before, and restarts the sshd.
    pub fn set_config(&self, lines: &str) -> Result<()> {
        doing("write sshd_config", fs::write(self.config(), self.settings(lines)))?;
        self.restart()
    }

    /// The sshd processes that serve a connection now.
    #[must_use]
    pub fn connections(&self) -> Vec<Pid> {
        self.pid().map(connections).unwrap_or_default()
    }

    /// Ends every connection; the host goes on accepting new ones.
    pub fn cut(&self) {
        end(&self.connections());
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> Result<Running> {
        let config = self.config();
        let services = self.directory.join("srv");
        let elsewhere: Vec<&OsStr> = match &self.seen_at {
            Some(seen) => vec!["sh".as_ref(), "-c".as_ref(), ELSEWHERE.as_ref(), "sh".as_ref(), services.as_os_str(), seen.as_os_str()],
            None => Vec::new(),
        };
        let sshd: [&OsStr; 5] = [self.sshd.as_os_str(), "-D".as_ref(), "-e".as_ref(), "-f".as_ref(), config.as_os_str()];
        let arguments = std::iter::once("sh".as_ref()).chain(elsewhere).chain(sshd);
        let mut command = guard_command(KEEPER, arguments);
        // What the caller's environment holds is no business of a host's.
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut keeper = Guard::spawn(&mut command)?;
        let (Some(stdout), Some(stderr)) = (keeper.child.stdout.take(), keeper.child.stderr.take()) else {
            return Err(self.not_listening("it has no output"));
        };
        let mut line = String::new();
        doing("read the pid of sshd", BufReader::new(stdout).read_line(&mut line))?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| self.not_listening("it did not start"))?;
        let log = doing("open the log of sshd", File::options().append(true).create(true).open(&self.log))?;
        let (listening, news) = mpsc::channel();
        thread::spawn(move || follow(stderr, log, &listening));
        match news.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(Running { pid, _keeper: keeper }),
            Ok(Err(log)) => Err(self.not_listening(&log)),
            Err(_) => Err(self.not_listening("it says nothing")),
        }
    }

    fn not_listening(&self, log: &str) -> Error {
        Error::NotListening { name: self.name.clone(), log: log.trim().replace('\n', "; ") }
    }
}

impl Drop for SandboxHost {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Copies what sshd says to its log until it ends, and tells, once, that it listens or what it said instead.
fn follow(stderr: ChildStderr, mut log: File, news: &mpsc::Sender<std::result::Result<(), String>>) {
    let mut said = Some(String::new());
    for line in BufReader::new(stderr).split(b'\n').map_while(std::result::Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned() + "\n";
        // A log that cannot be written must not stop the reading: sshd would block on a full pipe.
        let _ = log.write_all(line.as_bytes());
        if let Some(text) = &mut said {
            text.push_str(&line);
            if line.starts_with("Server listening on") {
                said = None;
                let _ = news.send(Ok(()));
            }
        }
    }
    if let Some(text) = said {
        let _ = news.send(Err(text));
    }
}

/// Tries whether a directory can be found at another path by one process alone.
pub(super) fn mounts(directory: &Path) -> Result<()> {
    let (own, seen) = (directory.join("mount-own"), directory.join("mount-seen"));
    for path in [&own, &seen] {
        doing("make a directory", fs::create_dir_all(path))?;
    }
    let mut command = std::process::Command::new("sh");
    capture("a mount namespace", command.args(["-c", ELSEWHERE, "sh"]).args([own, seen]).arg("true")).map(drop)
}

/// A port below those that the kernel gives to outgoing connections, so that a stopped host finds it free again.
fn free_port(name: &str) -> Result<u16> {
    let what = || format!("find a free port for `{name}`");
    for _ in 0..100 {
        let random = getrandom::u32().map_err(std::io::Error::other);
        let port = 20_000 + u16::try_from(doing(what(), random)? % 12_000).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::Io { what: what(), source: std::io::ErrorKind::AddrInUse.into() })
}

/// The sshd processes below `listener`. What they started for a user is left out: it belongs to the host.
fn connections(listener: Pid) -> Vec<Pid> {
    let processes: Vec<(Pid, Pid)> =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| sshd_and_parent(&entry.path())).collect();
    let mut found = vec![listener];
    let mut next = 0;
    while next < found.len() {
        let above = found[next];
        found.extend(processes.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Reads `/proc/<pid>/stat` (proc(5): `pid (comm) state ppid …`). Since 9.8 a connection's process is called `sshd-session`.
fn sshd_and_parent(process: &Path) -> Option<(Pid, Pid)> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let parse = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    let parent = parse(rest.split(' ').nth(1)?)?;
    if name.starts_with("sshd") { Some((parse(pid)?, parent)) } else { None }
}

fn end(processes: &[Pid]) {
    for pid in processes {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(*pid, Signal::KILL);
    }
}
