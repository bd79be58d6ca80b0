//! A host with the real helper, through each of the sessions.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::{Host, HostError, Reply};
use crate::config::environment::{Connect, HostPath, SessionKind, Target};
use crate::op::{Answer, Command, End, Exec, Network, Op, RunInfo};
use crate::session::bootstrap;
use crate::session::sshd::{self, Sshd};

const ALL: [SessionKind; 3] = [SessionKind::Ssh2, SessionKind::Openssh, SessionKind::Local];

fn root(path: &Path) -> HostPath {
    fs::create_dir_all(path).unwrap();
    HostPath::new(path.to_str().unwrap()).unwrap()
}

async fn connect(sshd: &Sshd, kind: SessionKind) -> Host {
    let root = root(&sshd.path("root"));
    Host::connect(&sshd::target("127.0.0.1"), &root, &sshd.connect(kind)).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}

fn exec(text: &str) -> Op {
    Op::Exec(Exec {
        command: Command::Shell(text.into()),
        directory: None,
        env: Vec::new(),
        umask: 0o022,
        timeout_ms: 60_000,
        idle_timeout_ms: 0,
        output_limit: 64 << 20,
        user: None,
        network: Network::Host,
    })
}

fn run() -> RunInfo {
    RunInfo { run: "r1".into(), by: "ada".into(), what: "testing".into(), since: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gives_its_output_and_end_through_every_session() {
    for kind in ALL {
        let sshd = Sshd::start("");
        let host = connect(&sshd, kind).await;
        assert!(host.facts().helper.contains(&bootstrap::embedded().digest), "{}", host.facts().helper);
        let mut call = host.start(exec("seq 400000; echo over >&2; exit 7")).await.unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let answer = loop {
            match call.next().await.unwrap() {
                Reply::Output { stderr: false, bytes } => out.extend(bytes),
                Reply::Output { stderr: true, bytes } => err.extend(bytes),
                Reply::Progress(_) | Reply::End => {}
                Reply::Answer(answer) => break answer,
            }
        };
        let numbers = out.split(|byte| *byte == b'\n').map(|line| std::str::from_utf8(line).unwrap());
        assert!(numbers.eq((1..=400_000).map(|n| n.to_string()).chain([String::new()])), "{kind:?}: {} bytes", out.len());
        assert_eq!(err, b"over\n");
        let Answer::Exited(exited) = answer else { panic!("{answer:?}") };
        assert_eq!(exited.end, End::Code(7));
        host.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_is_sent_once_and_again_only_if_its_file_is_damaged() {
    let sshd = Sshd::start("");
    let size = bootstrap::embedded().bytes.len() as u64;
    let first = connect(&sshd, SessionKind::Ssh2).await;
    assert!(first.sent_bytes() >= size);
    first.close().await;
    let second = connect(&sshd, SessionKind::Ssh2).await;
    second.refresh().await.unwrap();
    assert!(second.sent_bytes() < 1000, "{}", second.sent_bytes());
    second.close().await;
    let file = sshd.path("root/.deployer/helper").join(&bootstrap::embedded().digest);
    for length in [0, 100, size - 1] {
        let mut bytes = bootstrap::embedded().bytes.to_vec();
        bytes.truncate(usize::try_from(length).unwrap());
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let host = connect(&sshd, SessionKind::Ssh2).await;
        assert!(host.sent_bytes() >= size, "{length} bytes were taken for the helper");
        host.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_session_is_told_to_every_request_and_lets_the_lock_go() {
    for kind in [SessionKind::Ssh2, SessionKind::Openssh] {
        let sshd = Sshd::start("");
        let host = connect(&sshd, kind).await;
        assert!(matches!(host.ask(Op::Lock(run())).await, Ok(Answer::Locked(crate::op::Locked::Yes { .. }))));
        let mut call = host.start(exec("echo up; exec sleep 600")).await.unwrap();
        assert!(matches!(call.next().await, Ok(Reply::Output { .. })));
        sshd.kill_sessions();
        let error = tokio::time::timeout(Duration::from_secs(10), call.answer()).await.expect("it ends").unwrap_err();
        assert!(matches!(error, HostError::Lost { .. }), "{error}");
        let again = connect(&sshd, kind).await;
        let locked = async {
            // The dead helper gives its build a grace before the lock goes.
            while !matches!(again.ask(Op::Lock(run())).await, Ok(Answer::Locked(crate::op::Locked::Yes { .. }))) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), locked).await.expect("the lock is let go");
        again.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_dropped_before_authentication_are_tried_again() {
    let sshd = Sshd::start("");
    let port = sshd.port;
    for kind in [SessionKind::Ssh2, SessionKind::Openssh] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                // As an sshd does whose `MaxStartups` is reached.
                if number >= 2 {
                    relay(stream, TcpStream::connect(("127.0.0.1", port)).unwrap());
                }
            }
        });
        sshd.know(&format!("[127.0.0.1]:{door} {}\n", sshd.host_key()));
        let root = root(&sshd.path("root"));
        let target = Target { port: Some(door), ..sshd::target("127.0.0.1") };
        let hasty = Connect { retries: 0, ..sshd.connect(kind) };
        assert_eq!(Host::connect(&target, &root, &hasty).await.err().map(|error| error.code()), Some("reset"), "{kind:?}");
        let patient = Connect { retries: 2, ..sshd.connect(kind) };
        Host::connect(&target, &root, &patient).await.unwrap_or_else(|error| panic!("{kind:?}: {error}")).close().await;
    }
}

fn relay(one: TcpStream, other: TcpStream) {
    for (mut from, mut to) in [(one.try_clone().unwrap(), other.try_clone().unwrap()), (other, one)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_hosts_connect_at_the_same_time() {
    let sshd = Sshd::start("");
    connect(&sshd, SessionKind::Ssh2).await.close().await;
    let root = root(&sshd.path("root"));
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let (root, settings) = (root.clone(), sshd.connect(SessionKind::Ssh2));
            tokio::spawn(async move { Host::connect(&sshd::target("127.0.0.1"), &root, &settings).await })
        })
        .collect();
    let mut hosts = Vec::new();
    for task in tasks {
        hosts.push(task.await.unwrap().unwrap());
    }
    for host in &hosts {
        host.refresh().await.unwrap();
    }
}
