//! Servers that mean no good, in both ssh sessions: bounded time and memory, a clear error, exit 10, and the other hosts are unaffected.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::ssh_lab::{BOTH, Lab, Ran};

/// What a whole run may take when one host is given up after two seconds: connecting twice, and a loaded machine.
const BOUND: Duration = Duration::from_secs(25);

/// Listens on loopback and gives every connection to `serve`.
fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// An ssh config by which `bad` is at `port`, known by the key of `good`.
fn config(lab: &Lab, port: u16) -> PathBuf {
    let known = format!("{}[127.0.0.1]:{port} {}\n", fs::read_to_string(lab.sandbox.known_hosts()).unwrap(), lab.key_of("good"));
    fs::write(lab.path("known"), known).unwrap();
    lab.config(&format!(
        "Host *\nUserKnownHostsFile {}\nConnectTimeout 2\nHost bad\nHostName 127.0.0.1\nPort {port}\nUser {}\nIdentityFile {}\n\
         IdentityAgent none\nIdentitiesOnly yes\nGlobalKnownHostsFile /dev/null\n",
        lab.path("known").display(),
        lab.sandbox.user(),
        lab.sandbox.identity().display()
    ))
}

fn lab() -> Option<Lab> {
    let lab = Lab::with(&["good"])?;
    lab.project(&["good", "bad"], "");
    Some(lab)
}

/// Runs with a bound on memory that a length of 4 GiB would break.
fn run(lab: &Lab, config: &std::path::Path, session: &str) -> Ran {
    let mut inner = lab.command("/bin/sh", config, &["run", "--session", session, "--connect-retries", "0", "--", "echo", "reached"]);
    let arguments: Vec<_> = inner.get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut limited = std::process::Command::new("/bin/sh");
    limited.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(lab.path("project"));
    limited.args(["-c", "ulimit -v 1500000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_deployer")]).args(arguments);
    inner.stdin(std::process::Stdio::null());
    let began = std::time::Instant::now();
    let output = limited.stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr), took: began.elapsed() }
}

fn is_survived(lab: &Lab, what: &str, port: u16) {
    let config = config(lab, port);
    for session in BOTH {
        let ran = run(lab, &config, session).unreachable(&format!("{what}, {session}"));
        assert!(ran.stdout.contains("good (1 host)") && ran.stdout.contains("reached"), "{what}, {session}: {}", ran.all());
        assert!(ran.stderr.contains("bad | "), "{what}, {session}: {}", ran.stderr);
        assert!(!ran.all().contains(['\u{1b}', '\u{7}']), "{what}, {session}: what a host says reached the screen as it is");
        assert!(ran.took < BOUND, "{what}, {session}: {:?}", ran.took);
    }
}

/// A binary packet whose length field says `length`.
fn packet(length: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend([4, 20]);
    bytes.extend([0xff; 4096]);
    bytes
}

#[test]
fn lengths_beyond_all_bounds_are_not_believed() {
    let Some(lab) = lab() else { return };
    for length in [u32::MAX, 0x7fff_ffff, 0, 35_001] {
        let port = serve(move |mut stream| {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").and_then(|()| stream.write_all(&packet(length)));
            let _ = stream.read_to_end(&mut Vec::new());
        });
        is_survived(&lab, &format!("length {length:#x}"), port);
    }
    // Inside a packet of a proper length: a list of algorithms that claims four gigabytes.
    let port = serve(|mut stream| {
        let mut payload = vec![20; 1];
        payload.extend([0; 16]);
        payload.extend(u32::MAX.to_be_bytes());
        payload.extend([b'a'; 200]);
        let length = u32::try_from(1 + payload.len() + 10).unwrap();
        let bytes = [&length.to_be_bytes()[..], &[10], &payload, &[0; 10]].concat();
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").and_then(|()| stream.write_all(&bytes));
        let _ = stream.read_to_end(&mut Vec::new());
    });
    is_survived(&lab, "a name list of 4 GiB", port);
}

#[test]
fn an_endless_banner_ends() {
    let Some(lab) = lab() else { return };
    let endless = |unit: &'static [u8]| serve(move |mut stream| while stream.write_all(unit).is_ok() {});
    is_survived(&lab, "lines before the banner", endless(b"welcome\r\n"));
    is_survived(&lab, "a line without an end", endless(&[b'x'; 1024]));
    is_survived(&lab, "escape sequences", endless(b"\x1b[2J\x07\x1b]0;title\x07\r\n"));
    let slow = serve(|mut stream| {
        let mut byte = [0];
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while stream.write_all(b"x").is_ok() {
            let _ = stream.read(&mut byte);
        }
    });
    is_survived(&lab, "a byte now and then", slow);
}

#[test]
fn garbage_is_an_error() {
    let Some(lab) = lab() else { return };
    let port = serve(|mut stream| {
        let noise: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let _ = stream.write_all(&noise);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    is_survived(&lab, "noise", port);
    let port = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    is_survived(&lab, "a web server", port);
    let port = serve(|mut stream| {
        let _ = stream.write_all(b"SSH-1.5-old\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    is_survived(&lab, "an old protocol", port);
}

/// Relays to a real sshd, and lets `spoil` have each piece that the sshd says, with its place in the stream. None hangs up.
fn relay(real: u16, spoil: impl Fn(usize, &mut Vec<u8>) -> bool + Send + Sync + Clone + 'static, heard: Arc<AtomicUsize>) -> u16 {
    serve(move |client| {
        let Ok(server) = TcpStream::connect(("127.0.0.1", real)) else { return };
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let heard = Arc::clone(&heard);
        thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = from_client.read(&mut buffer) {
                heard.fetch_add(count, Ordering::SeqCst);
                if to_server.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown(Shutdown::Both);
        });
        let (mut from_server, mut to_client) = (server, client);
        let (mut place, mut buffer) = (0, vec![0; 16 * 1024]);
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            let mut piece = buffer[..count].to_vec();
            let goes_on = spoil(place, &mut piece);
            place += count;
            if to_client.write_all(&piece).is_err() || !goes_on {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    })
}

#[test]
fn a_server_that_hangs_up_at_any_message_is_an_error() {
    let Some(lab) = lab() else { return };
    let real = lab.host("good").port;
    // Between and inside its banner, its KEXINIT, its key, NEWKEYS, and what follows encrypted up to the login.
    for cut in [0_usize, 1, 21, 41, 200, 1000, 1300, 1500, 1700, 2100] {
        let port = relay(
            real,
            move |place, piece| {
                piece.truncate(cut.saturating_sub(place));
                place + piece.len() < cut
            },
            Arc::default(),
        );
        is_survived(&lab, &format!("cut after {cut} bytes"), port);
    }
}

#[test]
fn a_server_that_is_tampered_with_is_an_error() {
    let Some(lab) = lab() else { return };
    let real = lab.host("good").port;
    for bad in [60_usize, 1200, 1400, 1600] {
        let port = relay(
            real,
            move |place, piece| {
                if let Some(byte) = bad.checked_sub(place).and_then(|index: usize| piece.get_mut(index)) {
                    *byte ^= 0x55;
                }
                true
            },
            Arc::default(),
        );
        is_survived(&lab, &format!("byte {bad} changed"), port);
    }
    // The control: without a fault the same way leads to a host.
    let port = relay(real, |_, _| true, Arc::default());
    for session in BOTH {
        run(&lab, &config(&lab, port), session).succeeded(session);
    }
}

#[test]
fn a_key_of_another_type_than_the_known_one_is_a_changed_key() {
    let Some(lab) = lab() else { return };
    let ecdsa = lab.keygen("ecdsa", &["-t", "ecdsa"]);
    let key = fs::read_to_string(ecdsa.with_extension("pub")).unwrap();
    let port = relay(lab.host("good").port, |_, _| true, Arc::default());
    let config = config(&lab, port);
    let known = fs::read_to_string(lab.path("known")).unwrap();
    let others: String = known.split_inclusive('\n').filter(|line| !line.contains(&format!(":{port} "))).collect();
    fs::write(lab.path("known"), format!("{others}[127.0.0.1]:{port} {key}")).unwrap();
    for session in BOTH {
        let ran = run(&lab, &config, session).unreachable(session);
        assert!(ran.stderr.contains("not the known one"), "{session}: {}", ran.stderr);
        assert!(ran.stdout.contains("good (1 host)"), "{session}: {}", ran.all());
    }
}

#[test]
fn nothing_is_said_to_a_host_whose_key_is_not_accepted() {
    let Some(lab) = lab() else { return };
    lab.host("good").set_config("LogLevel DEBUG1").unwrap();
    lab.project(&["bad"], "");
    let log = || fs::read_to_string(&lab.host("good").log).unwrap();
    let heard: Arc<AtomicUsize> = Arc::default();
    let port = relay(lab.host("good").port, |_, _| true, Arc::clone(&heard));
    for session in BOTH {
        let config = config(&lab, port);
        fs::write(lab.path("known"), "").unwrap();
        heard.store(0, Ordering::SeqCst);
        let before = log().matches("userauth-request for user").count();
        run(&lab, &config, session).unreachable(session);
        let bytes = heard.load(Ordering::SeqCst);
        assert!(bytes > 0 && bytes < 8192, "{session}: the key exchange alone was {bytes} bytes");
        assert_eq!(log().matches("userauth-request for user").count(), before, "{session}: a user was named before the key was accepted");
        // The control: with the key known, the log tells.
        let config = self::config(&lab, port);
        run(&lab, &config, session).succeeded(session);
        assert!(log().matches("userauth-request for user").count() > before, "{session}");
    }
}
