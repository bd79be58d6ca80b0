//! The sandbox against the system's own `ssh`, `git` and Python.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::{DownloadCache, Sample, SampleRepository, Sandbox, capture, program, skip};

/// A sandbox with one host `web1`, or none where this machine has no sshd.
fn sandbox_with_a_host() -> Option<Sandbox> {
    let mut sandbox = Sandbox::new(false).unwrap();
    if let Err(reason) = sandbox.tools().sshd {
        skip(&reason);
        return None;
    }
    sandbox.add_host("web1").unwrap();
    Some(sandbox)
}

fn ssh(sandbox: &Sandbox, host: &str, command: &str) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(sandbox.ssh_config()).args([host, command]).stdin(Stdio::null());
    ssh
}

/// What `command` prints on `host`, or what ssh complains about.
fn answer(sandbox: &Sandbox, host: &str, command: &str) -> String {
    let Output { stdout, stderr, .. } = ssh(sandbox, host, command).output().unwrap();
    String::from_utf8([stdout, stderr].concat()).unwrap().trim().to_owned()
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The socket that listens on a port of this machine.
fn listener(port: u16) -> Option<String> {
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let at = format!("0100007F:{port:04X}");
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.into_iter().find(|fields| fields.get(1) == Some(&at.as_str()) && fields[3] == "0A").map(|fields| fields[9].to_owned())
}

#[test]
fn a_host_that_listens_again_waits_for_its_port() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let host = sandbox.host("web1").unwrap();
    host.stop();
    let taken = std::net::TcpListener::bind(("127.0.0.1", host.port)).unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(taken);
    });
    host.restart().unwrap();
    assert!(holder.is_finished() && listens(host.port));
}

#[test]
fn hosts_answer_to_the_systems_ssh_under_their_names_and_in_their_own_homes() {
    let Some(mut sandbox) = sandbox_with_a_host() else { return };
    sandbox.add_host("web2").unwrap();
    for name in ["web1", "web2"] {
        assert_eq!(answer(&sandbox, name, "echo $HOME"), sandbox.host(name).unwrap().home.display().to_string());
    }
    assert!(sandbox.add_host("web1").is_err());
}

#[test]
fn a_host_with_another_key_than_the_known_one_is_refused() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let host = sandbox.host("web1").unwrap();
    fs::remove_file(host.host_key()).unwrap();
    super::make_key(&host.host_key()).unwrap();
    host.restart().unwrap();
    assert!(answer(&sandbox, "web1", "echo in").contains("Host key verification failed"));
}

#[test]
fn no_setting_of_the_users_reaches_a_connection() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let settings = capture("ssh -G", Command::new("ssh").arg("-F").arg(sandbox.ssh_config()).args(["-G", "web1"])).unwrap();
    let files: Vec<_> = settings.lines().filter(|line| line.starts_with("identityfile") || line.contains("knownhostsfile")).collect();
    let ours = |line: &&str| line.contains(sandbox.directory.to_str().unwrap()) || line.ends_with("/dev/null");
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(ours), "{files:?}");
}

#[test]
fn a_dropped_sandbox_leaves_neither_sshd_nor_files_even_when_a_test_panics() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let (directory, port) = (sandbox.directory.clone(), sandbox.hosts()[0].port);
    assert!(listens(port) && directory.exists());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        assert!(sandbox.hosts().is_empty(), "as a failing test does");
    }));
    assert!(panicked.is_err());
    assert!(!listens(port) && !directory.exists());
}

#[test]
fn a_kept_sandbox_leaves_its_files_but_no_sshd() {
    let Some(_) = sandbox_with_a_host() else { return };
    let mut sandbox = Sandbox::new(true).unwrap();
    let (port, log) = sandbox.add_host("web1").map(|host| (host.port, host.log.clone())).unwrap();
    let directory = sandbox.directory.clone();
    drop(sandbox);
    assert!(!listens(port) && log.exists());
    fs::remove_dir_all(directory).unwrap();
}

/// Not a test: the process that the next one kills.
#[test]
#[ignore = "waits to be killed by `a_killed_process_leaves_neither_sshd_nor_files`"]
fn a_process_that_waits_with_a_sandbox() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let host = sandbox.host("web1").unwrap();
    println!("\nready {} {} {}", host.pid().unwrap(), host.port, sandbox.directory.display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_killed_process_leaves_neither_sshd_nor_files() {
    if sandbox_with_a_host().is_none() {
        return;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "sandbox::tests::a_process_that_waits_with_a_sandbox", "--ignored", "--nocapture"]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find_map(|line| line.strip_prefix("ready ").map(str::to_owned)).expect("it has a host");
    let [sshd, port, directory] = ready.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let port = port.parse().unwrap();
    assert!(listens(port));
    let socket = listener(port).unwrap();
    // Taken while it lives: its end is then seen whoever reaps it.
    let sshd = pidfd_open(Pid::from_raw(sshd.parse().unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&sshd, PollFlags::IN)], Some(&limit)).unwrap(), 1, "the sshd goes on");
    // The port may be another's by now.
    assert_ne!(listener(port), Some(socket));
    wait_until_gone(Path::new(directory));
}

/// Directory events would need inotify for one assertion: `rm` is a process, and the one thing that can be waited for is its end.
fn wait_until_gone(directory: &Path) {
    let removers = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter(|process| {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == directory.as_os_str().as_encoded_bytes())
        })
    };
    for remover in removers() {
        let pid = remover.file_name().to_str().unwrap().parse().ok().and_then(Pid::from_raw).unwrap();
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
            let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap(), 1, "the files are not removed");
        }
    }
    assert!(!directory.exists());
}

/// A `cat` on the host that has answered once.
fn open_connection(sandbox: &Sandbox) -> std::process::Child {
    let mut connection = ssh(sandbox, "web1", "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    connection.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    connection.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    connection
}

#[test]
fn cutting_ends_the_connections_and_lets_new_ones_in() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let host = sandbox.host("web1").unwrap();
    assert!(host.connections().is_empty());
    let mut connection = open_connection(&sandbox);
    assert!(!host.connections().is_empty());
    host.cut();
    assert_eq!(connection.wait().unwrap().code(), Some(255));
    assert_eq!(answer(&sandbox, "web1", "echo in"), "in");
}

#[test]
fn a_stopped_host_ends_its_connections_refuses_new_ones_and_comes_back_on_the_same_port() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let host = sandbox.host("web1").unwrap();
    let mut connection = open_connection(&sandbox);
    host.stop();
    assert_eq!(connection.wait().unwrap().code(), Some(255));
    assert!(host.pid().is_none() && !listens(host.port));
    host.restart().unwrap();
    assert_eq!(answer(&sandbox, "web1", "echo in"), "in");
}

#[test]
fn a_setting_comes_before_the_sandboxs_own_and_goes_with_the_next() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let host = sandbox.host("web1").unwrap();
    host.set_config("ForceCommand echo forced: $SSH_ORIGINAL_COMMAND").unwrap();
    assert_eq!(answer(&sandbox, "web1", "true"), "forced: true");
    host.set_config("").unwrap();
    assert_eq!(answer(&sandbox, "web1", "echo in"), "in");
}

#[test]
fn a_setting_that_sshd_refuses_is_named() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let error = sandbox.host("web1").unwrap().set_config("NoSuchSetting yes").unwrap_err().to_string();
    assert!(error.contains("`web1`") && error.contains("NoSuchSetting"), "{error}");
}

#[test]
fn a_host_whose_port_was_taken_says_so() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let host = sandbox.host("web1").unwrap();
    host.stop();
    let _thief = std::net::TcpListener::bind(("127.0.0.1", host.port)).unwrap();
    let error = host.restart().unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
}

#[test]
fn a_paused_sshd_still_ends_with_its_host() {
    let Some(sandbox) = sandbox_with_a_host() else { return };
    let port = sandbox.hosts()[0].port;
    let mut connection = open_connection(&sandbox);
    let host = sandbox.host("web1").unwrap();
    for pid in host.connections().into_iter().chain(host.pid()) {
        kill_process(pid, Signal::STOP).unwrap();
    }
    drop(sandbox);
    assert_eq!(connection.wait().unwrap().code(), Some(255));
    assert!(!listens(port));
}

#[test]
fn the_sample_repository_is_the_same_to_the_byte_each_time() {
    let sandbox = Sandbox::new(false).unwrap();
    let repository = sandbox.repository(Sample::Buildout).unwrap();
    let other = Sandbox::new(false).unwrap();
    let again = other.repository(Sample::Buildout).unwrap();
    assert_eq!((repository.v1, repository.wanting, repository.v2), (again.v1, again.wanting, again.v2));
}

#[test]
fn the_sample_repository_looks_to_git_like_a_clean_clone() {
    let sandbox = Sandbox::new(false).unwrap();
    if let Err(reason) = sandbox.tools().git {
        return skip(&reason);
    }
    let repository = sandbox.repository(Sample::Shell).unwrap();
    let git = |arguments: &[&str]| capture("git", Command::new("git").arg("-C").arg(&repository.directory).args(arguments)).unwrap();
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(git(&["rev-parse", "v1", "v2^", "master"]), [&*repository.v1, &repository.wanting, &repository.v2, ""].join("\n"));
    let commit = repository.commit("Add a door", &[("etc/door", b"open\n")]).unwrap();
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(git(&["log", "-1", "--format=%H %an %ad", "--date=short"]), format!("{commit} Ada 2026-01-04\n"));
}

/// Exports a commit beside the cache as the remote stage does.
fn export(repository: &SampleRepository, commit: &str, cache: &Path) -> PathBuf {
    let release = repository.directory.with_file_name(format!("release-{commit}"));
    let script = r#"mkdir -p "$2" && git -C "$1" archive "$3" | tar -x -C "$2" && ln -sfn "$4" "$2/downloads""#;
    let arguments = [repository.directory.as_os_str(), release.as_os_str(), commit.as_ref(), cache.as_os_str()];
    capture("git archive", Command::new("sh").args(["-euc", script, "sh"]).args(arguments)).unwrap();
    release
}

fn says(release: &Path) -> String {
    capture("bin/boskel", Command::new(release.join("bin/boskel")).arg("--version")).unwrap()
}

/// Builds the three commits with `build`, and the one that wants more again once the cache has it.
fn build_all(repository: &SampleRepository, cache: &DownloadCache, missing: &str, build: impl Fn(&Path) -> super::Result<String>) {
    for (commit, version) in [(&repository.v1, "boskel 1.0.0\n"), (&repository.v2, "boskel 2.0.0\n")] {
        let release = export(repository, commit, &cache.directory);
        build(&release).unwrap();
        assert_eq!(says(&release), version);
    }
    let release = export(repository, &repository.wanting, &cache.directory);
    let error = build(&release).unwrap_err().to_string();
    assert!(error.contains(&format!("Error: Couldn't find a distribution for '{missing}'.")), "{error}");
    let full = cache.copy_to(&repository.directory.with_file_name("full")).unwrap();
    full.add_late().unwrap();
    let release = export(repository, &repository.wanting, &full.directory);
    build(&release).unwrap();
    assert_eq!(says(&release), "boskel 1.0.0\n");
}

#[test]
fn the_shell_sample_builds_from_its_cache_and_not_without_it() {
    let sandbox = Sandbox::new(false).unwrap();
    if let Err(reason) = sandbox.tools().git {
        return skip(&reason);
    }
    let repository = sandbox.repository(Sample::Shell).unwrap();
    let cache = sandbox.download_cache(Sample::Shell).unwrap();
    build_all(&repository, &cache, "sizes-1.0.sh", |release| {
        capture("build.sh", Command::new("sh").arg("build.sh").current_dir(release).env_clear().env("PATH", "/usr/bin:/bin"))
    });
}

#[test]
fn the_buildout_sample_builds_without_a_network_and_not_without_its_packages() {
    let sandbox = Sandbox::new(false).unwrap();
    let tools = sandbox.tools();
    if let Err(reason) = tools.git.and(tools.python).map(drop).and_then(|()| sandbox.package_index()) {
        return skip(&reason);
    }
    let cache = sandbox.download_cache(Sample::Buildout).unwrap();
    let venv = sandbox.venv(&cache).unwrap();
    let unshare = program("unshare").is_ok_and(|_| capture("unshare", Command::new("unshare").args(["-rn", "true"])).is_ok());
    let repository = sandbox.repository(Sample::Buildout).unwrap();
    build_all(&repository, &cache, "humanize==4.9.0", |release| {
        let mut build = Command::new(if unshare { "unshare" } else { "env" });
        build.args(unshare.then_some("-rn")).arg(venv.join("bin/buildout")).args(["-c", "offline.cfg"]);
        build.current_dir(release).env_clear().envs([
            ("HOME", sandbox.directory.to_str().unwrap()),
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("PIP_NO_INDEX", "1"),
            ("PIP_FIND_LINKS", "downloads/dist"),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
            ("PIP_CONFIG_FILE", "/dev/null"),
            // Where there are no network namespaces, whoever asks a network all the same meets a closed port.
            ("http_proxy", "http://127.0.0.1:9"),
            ("https_proxy", "http://127.0.0.1:9"),
        ]);
        capture("buildout", &mut build)
    });
}
