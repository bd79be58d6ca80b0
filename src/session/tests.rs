//! The three sessions against a real sshd, a real `ssh` and a real shell, with a small fake helper at the other end.

#![expect(clippy::disallowed_methods, reason = "tests start what they look at")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bootstrap::{Helper, Started, start_with};
use super::sshd::{self, Sshd, keygen, public_key};
use super::{ConnectError, HostKeyError, Opener, SessionError, open};
use crate::config::environment::{Connect, HostPath, SessionKind, Target};

const BOTH: [SessionKind; 2] = [SessionKind::Ssh2, SessionKind::Openssh];
const ALL: [SessionKind; 3] = [SessionKind::Ssh2, SessionKind::Openssh, SessionKind::Local];

/// A name, what is known, and what must come of it.
type Case = (&'static str, String, fn(&HostKeyError) -> bool);

/// Checks itself as a helper must, says ok and echoes.
const FAKE: &str =
    "#!/bin/sh\nd=$(sha256sum <\"$0\")\nif [ \"${d%% *}\" = \"$4\" ]; then echo \"$2 ok\"; exec cat; else echo \"$2 corrupt\"; fi\n";

fn fake() -> Helper {
    Helper::new(FAKE.as_bytes().into(), format!("{}-linux", std::env::consts::ARCH))
}

async fn start(target: &Target, root: &Path, connect: &Connect) -> Result<Started, ConnectError> {
    let root = HostPath::new(root.to_str().unwrap()).unwrap();
    let opener = Opener::prepare(target, connect).await?;
    start_with(&opener, &root, connect.timeout, fake()).await
}

async fn reach(sshd: &Sshd, kind: SessionKind) -> Result<(), ConnectError> {
    let root = sshd.path("root");
    fs::create_dir_all(&root).unwrap();
    start(&sshd::target("127.0.0.1"), &root, &sshd.connect(kind)).await.map(drop)
}

/// Sends a line through a started helper and expects it back.
async fn echoes(mut started: Started) {
    started.pipe.writer.write_all(b"hello\n").await.unwrap();
    let mut answer = started.early.clone();
    while answer.len() < 6 {
        let mut chunk = [0; 64];
        let count = started.pipe.reader.read(&mut chunk).await.unwrap();
        assert!(count > 0, "the pipe ended: {:?}", started.pipe.diagnostics.lines(5));
        answer.extend_from_slice(&chunk[..count]);
    }
    assert_eq!(answer, b"hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_sessions_carry_the_same_bytes_both_ways_at_once() {
    let sshd = Sshd::start("");
    let sent: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(5_000_001).collect();
    for kind in ALL {
        let pipe = open(&sshd::target("127.0.0.1"), &sshd.connect(kind), "echo warning >&2; cat").await.unwrap();
        let (mut reader, mut writer) = (pipe.reader, pipe.writer);
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            writer.write_all(&bytes).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        sending.await.unwrap();
        assert!(received == sent, "{kind:?}: {} of {} bytes", received.len(), sent.len());
        pipe.diagnostics.settle(Duration::from_secs(5)).await;
        assert_eq!(pipe.diagnostics.lines(5), ["warning"], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_is_accepted_by_port_hash_and_wildcard() {
    let sshd = Sshd::start("");
    let (line, key) = (sshd.host_line(), sshd.host_key());
    fs::write(sshd.path("hashed"), &line).unwrap();
    std::process::Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(sshd.path("hashed")).output().unwrap();
    let hashed = fs::read_to_string(sshd.path("hashed")).unwrap();
    assert!(hashed.starts_with("|1|"));
    for text in [line, hashed, format!("[127.0.0.*]:* {key}\n"), format!("127.0.0.1 {key}\n")] {
        sshd.know(&text);
        for kind in BOTH {
            reach(&sshd, kind).await.unwrap_or_else(|error| panic!("{kind:?} with {text}: {error}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_changed_or_revoked_host_key_is_refused_by_both_sessions() {
    let sshd = Sshd::start("");
    keygen(&sshd.path("other"), &["-t", "ed25519"]);
    let (other, key) = (public_key(&sshd.path("other.pub")), sshd.host_key());
    let place = format!("`{}:1`", sshd.path("known_hosts").display());
    let kinds: [Case; 5] = [
        ("unknown", String::new(), |e| matches!(e, HostKeyError::Unknown { .. })),
        ("another port", format!("[127.0.0.1]:1 {key}\n"), |e| matches!(e, HostKeyError::Unknown { .. })),
        ("changed", format!("[127.0.0.1]:{} {other}\n", sshd.port), |e| matches!(e, HostKeyError::Changed { .. })),
        ("revoked", format!("@revoked * {key}\n{}", sshd.host_line()), |e| matches!(e, HostKeyError::Revoked { .. })),
        ("authority", format!("@cert-authority * {other}\n"), |e| {
            matches!(e, HostKeyError::Authority { .. } | HostKeyError::Unknown { .. })
        }),
    ];
    for (name, text, expected) in kinds {
        sshd.know(&text);
        for kind in BOTH {
            let error = reach(&sshd, kind).await.expect_err(name);
            assert_eq!(error.code(), "host-key", "{name} {kind:?}: {error}");
            let ConnectError::Session(SessionError::HostKey(why)) = &error else { panic!("{error:?}") };
            assert!(expected(why), "{name} {kind:?}: {why:?}");
            assert!(!error.hint().is_empty());
            if name == "changed" {
                assert!(error.to_string().contains(&place) && error.to_string().contains("SHA256:"), "{error}");
            }
            assert!(!sshd.path("root/.deployer").exists(), "{name} {kind:?}: something ran on the host");
        }
    }
    sshd.know("");
    let printed = std::process::Command::new("ssh-keygen").arg("-lf").arg(sshd.path("host.pub")).output().unwrap();
    let fingerprint = String::from_utf8(printed.stdout).unwrap().split(' ').nth(1).unwrap().to_owned();
    for kind in BOTH {
        let error = reach(&sshd, kind).await.unwrap_err();
        assert!(error.to_string().contains(&fingerprint), "{error} has not {fingerprint}");
        assert!(error.hint()[0].ends_with("deployer hosts trust app1"), "{:?}", error.hint());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_known_by_its_rsa_key_is_not_asked_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = directory.path().join("rsa");
    keygen(&rsa, &["-t", "rsa", "-b", "2048"]);
    let ecdsa = directory.path().join("ecdsa");
    keygen(&ecdsa, &["-t", "ecdsa"]);
    let sshd = Sshd::start(&format!("HostKey {}\nHostKey {}", rsa.display(), ecdsa.display()));
    for key in [rsa, ecdsa] {
        sshd.know(&format!("[127.0.0.1]:{} {}\n", sshd.port, public_key(&key.with_extension("pub"))));
        for kind in BOTH {
            reach(&sshd, kind).await.unwrap();
        }
    }
}

/// Signs a public key with the authority `ca`.
fn sign(sshd: &Sshd, ca: &str, key: &str, flags: &[&str]) {
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-q", "-I", "test", "-s"]).arg(sshd.path(ca)).args(flags).arg(sshd.path(key));
    assert!(command.status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_host_and_user_work_beside_plain_keys() {
    let keys = Sshd::start("");
    keygen(&keys.path("ca"), &["-t", "ed25519"]);
    keygen(&keys.path("guest"), &["-t", "ed25519"]);
    keygen(&keys.path("second"), &["-t", "ecdsa"]);
    sign(&keys, "ca", "second.pub", &["-h", "-n", "127.0.0.1"]);
    let me = sshd::connect(SessionKind::Ssh2).user.unwrap();
    sign(&keys, "ca", "guest.pub", &["-n", &me]);
    let at = |name: &str| keys.path(name).display().to_string();
    let sshd =
        Sshd::start(&format!("HostKey {}\nHostCertificate {}\nTrustedUserCAKeys {}", at("second"), at("second-cert.pub"), at("ca.pub")));
    sshd.know(&format!("[127.0.0.1]:{} {}\n", sshd.port, public_key(&keys.path("second.pub"))));
    fs::create_dir(sshd.path("root")).unwrap();
    for kind in BOTH {
        let connect = Connect { identities: vec![keys.path("guest")], ..sshd.connect(kind) };
        match start(&sshd::target("127.0.0.1"), &sshd.path("root"), &connect).await {
            Ok(started) => echoes(started).await,
            Err(error) => panic!("{kind:?}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_let_in_is_told_so() {
    let sshd = Sshd::start("");
    keygen(&sshd.path("stranger"), &["-t", "ed25519"]);
    fs::copy(sshd.path("stranger.pub"), sshd.path("authorized_keys")).unwrap();
    for kind in BOTH {
        let error = reach(&sshd, kind).await.unwrap_err();
        assert_eq!(error.code(), "auth", "{kind:?}: {error}");
        assert!(error.to_string().contains("publickey"), "{error}");
    }
    keygen(&sshd.path("locked"), &["-t", "ed25519", "-N", "secret"]);
    fs::copy(sshd.path("locked.pub"), sshd.path("authorized_keys")).unwrap();
    for kind in BOTH {
        let connect = Connect { identities: vec![sshd.path("locked")], ..sshd.connect(kind) };
        let error = start(&sshd::target("127.0.0.1"), &sshd.path("root"), &connect).await.err().unwrap();
        assert!(error.code() == "auth" && error.to_string().contains("passphrase"), "{kind:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_lets_a_key_with_a_passphrase_in() {
    let sshd = Sshd::start("MaxAuthTries 2");
    let socket = sshd.path("agent");
    let mut agent =
        std::process::Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(agent.stdout.take().unwrap()), &mut line).unwrap();
    let add = |key: &str| {
        let status = std::process::Command::new("ssh-add").env("SSH_AUTH_SOCK", &socket).arg("-q").arg(sshd.path(key)).output().unwrap();
        assert!(status.status.success(), "{status:?}");
    };
    // More keys than sshd takes: only the named one may be offered.
    for number in 0..4 {
        keygen(&sshd.path(&format!("k{number}")), &["-t", "ed25519"]);
        add(&format!("k{number}"));
    }
    add("id");
    let command = ["-p", "-q", "-P", "", "-N", "secret", "-f"];
    assert!(std::process::Command::new("ssh-keygen").args(command).arg(sshd.path("id")).status().unwrap().success());
    fs::write(sshd.path("config"), format!("IdentityAgent {}\n", socket.display())).unwrap();
    for kind in BOTH {
        let connect = Connect { ssh_config: Some(sshd.path("config")), ..sshd.connect(kind) };
        match start(&sshd::target("127.0.0.1"), &sshd.path("root"), &connect).await {
            Ok(started) => echoes(started).await,
            Err(error) => panic!("{kind:?}: {error}"),
        }
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_and_an_unknown_name_have_their_codes() {
    for kind in BOTH {
        let connect = Connect { port: Some(sshd::free_port()), ..sshd::connect(kind) };
        let root = Path::new("/nonexistent/root");
        let error = start(&sshd::target("127.0.0.1"), root, &connect).await.err().unwrap();
        assert_eq!(error.code(), "refused", "{kind:?}: {error}");
        assert!(error.is_transient());
        let error = start(&sshd::target("host.invalid"), root, &connect).await.err().unwrap();
        assert_eq!(error.code(), "dns", "{kind:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for kind in BOTH {
        let connect = Connect { port: Some(listener.local_addr().unwrap().port()), timeout: Duration::from_secs(1), ..sshd::connect(kind) };
        let began = Instant::now();
        let error = start(&sshd::target("127.0.0.1"), Path::new("/nonexistent/root"), &connect).await.err().unwrap();
        assert_eq!(error.code(), "timeout", "{kind:?}: {error}");
        assert!(began.elapsed() < Duration::from_secs(6), "{kind:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_talks_without_end_before_its_banner_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || while std::io::Write::write_all(&mut &stream, b"no banner\r\n").is_ok() {});
        }
    });
    for kind in BOTH {
        let connect = Connect { port: Some(port), timeout: Duration::from_secs(1), ..sshd::connect(kind) };
        let began = Instant::now();
        let error = start(&sshd::target("127.0.0.1"), Path::new("/nonexistent/root"), &connect).await.err().unwrap();
        assert!(matches!(error.code(), "timeout" | "reset" | "session"), "{kind:?}: {error}");
        assert!(began.elapsed() < Duration::from_secs(6), "{kind:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_login_shell_passes_the_command_line_on() {
    for shell in ["sh", "bash", "dash", "busybox sh", "fish", "tcsh"] {
        let sshd = Sshd::start(&format!("ForceCommand exec {shell} -c \"$SSH_ORIGINAL_COMMAND\""));
        let root = sshd.path("root");
        fs::create_dir(&root).unwrap();
        let first = start(&sshd::target("127.0.0.1"), &root, &sshd.connect(SessionKind::Ssh2))
            .await
            .unwrap_or_else(|error| panic!("{shell}: {error}"));
        assert_eq!(first.uploaded, FAKE.len() as u64, "{shell}");
        echoes(first).await;
        let second = start(&sshd::target("127.0.0.1"), &root, &sshd.connect(SessionKind::Ssh2)).await.unwrap();
        assert_eq!(second.uploaded, 0, "{shell}: it is found the second time");
        echoes(second).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_is_kept_in_a_private_directory_under_its_digest() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target { name: "local".into(), ..sshd::target("localhost") };
    echoes(start(&target, directory.path(), &sshd::connect(SessionKind::Local)).await.unwrap()).await;
    let helpers = directory.path().join(".deployer/helper");
    let names: Vec<_> = fs::read_dir(&helpers).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, [fake().digest]);
    for path in [helpers.clone(), directory.path().join(".deployer"), helpers.join(&names[0])] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_file_that_is_not_what_its_name_says_is_replaced() {
    for content in ["", "#!/bin/sh\nexit 0\n", "#!/bin/sh\necho \"$2 corrupt\"\n"] {
        let directory = tempfile::tempdir().unwrap();
        let helpers = directory.path().join(".deployer/helper");
        fs::create_dir_all(&helpers).unwrap();
        let file = helpers.join(fake().digest);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        let target = Target { name: "local".into(), ..sshd::target("localhost") };
        let started = start(&target, directory.path(), &sshd::connect(SessionKind::Local)).await.unwrap();
        assert_eq!(started.uploaded, FAKE.len() as u64, "{content:?}");
        echoes(started).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_root_the_helper_goes_to_the_users_cache() {
    let sshd = Sshd::start("");
    echoes(start(&sshd::target("127.0.0.1"), &sshd.path("missing/root"), &sshd.connect(SessionKind::Ssh2)).await.unwrap()).await;
    assert!(sshd.path("home").join(".cache/deployer/helper").join(fake().digest).is_file());
    assert!(!sshd.path("missing").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_place_for_the_helper_is_told_which_were_tried() {
    let sshd = Sshd::start("");
    fs::create_dir(sshd.path("root")).unwrap();
    fs::write(sshd.path("root/.deployer"), "in the way").unwrap();
    fs::remove_dir(sshd.path("home")).unwrap();
    fs::write(sshd.path("home"), "in the way").unwrap();
    let error = reach(&sshd, SessionKind::Ssh2).await.unwrap_err();
    assert_eq!(error.code(), "noexec");
    for place in ["root/.deployer/helper: not writable", "home/.cache/deployer/helper: not writable"] {
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_for_another_platform_is_not_sent_and_both_platforms_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target { name: "local".into(), ..sshd::target("localhost") };
    let opener = Opener::prepare(&target, &sshd::connect(SessionKind::Local)).await.unwrap();
    let root = HostPath::new(directory.path().to_str().unwrap()).unwrap();
    let helper = Helper::new(FAKE.as_bytes().into(), "m68k-linux".to_owned());
    let error = start_with(&opener, &root, Duration::from_secs(10), helper).await.err().unwrap();
    assert_eq!(error.code(), "platform");
    let text = error.to_string();
    assert!(text.contains("m68k-linux") && text.contains(std::env::consts::ARCH), "{text}");
    assert!(error.hint()[0].contains(&format!("{}-linux", std::env::consts::ARCH)), "{:?}", error.hint());
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_of_start_up_files_is_skipped_and_told() {
    let sshd = Sshd::start("ForceCommand echo welcome; printf \"no newline\"; exec sh -c \"$SSH_ORIGINAL_COMMAND\"");
    for kind in BOTH {
        let root = sshd.path("root");
        fs::create_dir_all(&root).unwrap();
        let started = start(&sshd::target("127.0.0.1"), &root, &sshd.connect(kind)).await.unwrap();
        assert_eq!(started.noise, ["welcome", "no newline"]);
        echoes(started).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_does_something_else_is_quoted() {
    for (command, said, why) in [
        ("echo This account is not available; exit 1", "This account is not available", "ended"),
        ("printf \"\\033[2Jhi\\n\"; exec sleep 60", "\\u{1b}[2Jhi", "nothing came"),
        ("yes noise", "noise", "64 KiB"),
        ("echo broken >&2; exit 3", "broken", "ended"),
    ] {
        let sshd = Sshd::start(&format!("ForceCommand {command}"));
        for kind in BOTH {
            let connect = Connect { timeout: Duration::from_secs(1), ..sshd.connect(kind) };
            let error = start(&sshd::target("127.0.0.1"), &sshd.path("root"), &connect).await.err().unwrap();
            assert_eq!(error.code(), "shell", "{command} {kind:?}: {error}");
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.evidence().iter().any(|line| line == said), "{kind:?}: {:?}", error.evidence());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_command_and_a_jump_lead_to_the_host() {
    let (bastion, sshd) = (Sshd::start(""), Sshd::start(""));
    fs::copy(bastion.path("id.pub"), sshd.path("authorized_keys")).unwrap();
    sshd.know(&format!("{}{}", sshd.host_line(), bastion.host_line()));
    let id = bastion.path("id");
    let common = format!("IdentityFile {}\n", id.display());
    let jump =
        format!("Host bastion\nHostName 127.0.0.1\nPort {}\n{common}Host app\nHostName 127.0.0.1\nProxyJump bastion\n", bastion.port);
    let command = format!("Host app\nHostName 127.0.0.1\nProxyCommand exec {} %h %p\n", sshd.path("proxy").display());
    fs::write(sshd.path("proxy"), "#!/bin/bash\nexec 3<>/dev/tcp/$1/$2\ncat <&3 &\nexec cat >&3\n").unwrap();
    fs::set_permissions(sshd.path("proxy"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(sshd.path("root")).unwrap();
    for text in [jump, command.replace("ProxyCommand exec ", "ProxyCommand ")] {
        fs::write(sshd.path("config"), text).unwrap();
        for kind in BOTH {
            let connect = Connect { ssh_config: Some(sshd.path("config")), identities: vec![id.clone()], ..sshd.connect(kind) };
            match start(&sshd::target("app"), &sshd.path("root"), &connect).await {
                Ok(started) => echoes(started).await,
                Err(error) => panic!("{kind:?}: {error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_that_fails_says_why_in_both_sessions() {
    let sshd = Sshd::start("");
    let text = format!("Host app\nProxyJump bastion\nHost bastion\nHostName 127.0.0.1\nPort {}\n", sshd::free_port());
    fs::write(sshd.path("config"), text).unwrap();
    for kind in BOTH {
        let connect = Connect { ssh_config: Some(sshd.path("config")), ..sshd.connect(kind) };
        let error = start(&sshd::target("app"), &sshd.path("root"), &connect).await.err().unwrap();
        assert_eq!(error.code(), "refused", "{kind:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_dies_ends_the_pipe() {
    for kind in BOTH {
        let sshd = Sshd::start("");
        let mut pipe = open(&sshd::target("127.0.0.1"), &sshd.connect(kind), "echo up; exec sleep 600").await.unwrap();
        let mut first = [0; 3];
        pipe.reader.read_exact(&mut first).await.unwrap();
        sshd.kill_sessions();
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), pipe.reader.read_to_end(&mut rest)).await.expect("the pipe ends").unwrap();
        assert!(rest.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_owner_ends_the_command_on_the_host() {
    let sshd = Sshd::start("");
    for kind in ALL {
        let (left, gone) = (sshd.path("left"), sshd.path(&format!("gone-{kind:?}")));
        assert!(std::process::Command::new("mkfifo").arg(&gone).status().unwrap().success());
        let command = format!("echo up; cat >{}; echo over >{}", left.display(), gone.display());
        let mut pipe = open(&sshd::target("127.0.0.1"), &sshd.connect(kind), &command).await.unwrap();
        let mut first = [0; 3];
        pipe.reader.read_exact(&mut first).await.unwrap();
        drop(pipe);
        let over = tokio::time::timeout(Duration::from_secs(10), tokio::fs::read(&gone)).await.expect("the command's input ends").unwrap();
        assert_eq!(over, b"over\n", "{kind:?}");
    }
}

#[tokio::test]
async fn names_that_could_be_options_are_refused_before_anything_is_started() {
    let canary = tempfile::tempdir().unwrap();
    let path = canary.path().join("canary");
    for kind in BOTH {
        for text in [format!("-oProxyCommand=touch {}", path.display()), "a\nb".into(), "a;b".into(), "$(id)".into()] {
            let error = open(&sshd::target(&text), &sshd::connect(kind), "true").await.err().unwrap();
            assert_eq!(error.code(), "host-name", "{error}");
            let connect = Connect { user: Some(text.clone()), ..sshd::connect(kind) };
            assert_eq!(open(&sshd::target("127.0.0.1"), &connect, "true").await.err().unwrap().code(), "host-name");
        }
    }
    assert!(!path.exists());
}
