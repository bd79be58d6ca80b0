//! Finds out whether what a host serves is well: a command, or one plain HTTP request over TCP or a unix socket. There is no TLS
//! here; who needs it names a command. A third of the file is its tests.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::exec::{self, Output};
use crate::helper::Helper;
use crate::op::{ActivationOutcome, Check, End, Exec, Failure, Probe};
use crate::process::Children;
use crate::unit::{self, Started};

const HEAD: usize = 16 * 1024;
const BODY: usize = 64 * 1024;

/// Tries until enough tries in a row were well, or no try is left; then sees that it stays so. `since` is the moment of the switch, in
/// systemd's microseconds.
pub fn check(helper: &Helper, check: &Check, since: u64, output: &mut Output<'_>) -> Result<ActivationOutcome, Failure> {
    let wanted = check.successes.max(1);
    let most = check.retries.max(wanted);
    let (mut in_a_row, mut last) = (0, String::new());
    for tries in 1..=most {
        if output.is_stopped() {
            return Ok(ActivationOutcome::CheckFailed { tries: tries - 1, last: "stopped".into() });
        }
        match attempt(helper, check, since, output)? {
            Ok(server) => {
                in_a_row += 1;
                if in_a_row == wanted {
                    return stay_up(helper, check, since, (tries, server), output);
                }
            }
            Err(why) => {
                output.say(&format!("check {tries} of {most}: {why}"));
                (in_a_row, last) = (0, why);
            }
        }
        if tries < most {
            output.pause(Duration::from_millis(check.every_ms));
        }
    }
    if last.is_empty() || in_a_row > 0 {
        last = format!("well {in_a_row} times in a row, where {wanted} are asked for");
    }
    Ok(ActivationOutcome::CheckFailed { tries: most, last })
}

/// What serves, as far as the host tells: another start of it is another value.
#[derive(Debug)]
struct Server {
    unit: Option<Started>,
    listeners: Vec<u64>,
}

impl Server {
    /// Tells whether this one took the place of another. Workers that share a port may come and go, as long as one stays.
    fn replaced(&self, before: &Self) -> bool {
        let other_sockets = !self.listeners.iter().any(|socket| before.listeners.contains(socket));
        self.unit != before.unit || (other_sockets && !self.listeners.is_empty() && !before.listeners.is_empty())
    }
}

/// Goes on trying until the time is over: still well, and the same server at its end.
fn stay_up(
    helper: &Helper,
    check: &Check,
    since: u64,
    (mut tries, first): (u32, Server),
    output: &mut Output<'_>,
) -> Result<ActivationOutcome, Failure> {
    let until = Instant::now() + Duration::from_millis(check.stay_up_ms);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(ActivationOutcome::Well { tries });
        }
        output.pause(left.min(Duration::from_millis(check.every_ms.max(10))));
        if output.is_stopped() {
            return Ok(ActivationOutcome::CheckFailed { tries, last: "stopped".into() });
        }
        tries = tries.saturating_add(1);
        let why = match attempt(helper, check, since, output)? {
            Ok(now) if now.replaced(&first) => "what serves was started again".to_owned(),
            Ok(_) => continue,
            Err(why) => why,
        };
        let last = format!("well at first, but it did not stay up for {} ms: {why}", check.stay_up_ms);
        output.say(&last);
        return Ok(ActivationOutcome::CheckFailed { tries, last });
    }
}

/// One try. Gives what serves.
fn attempt(helper: &Helper, check: &Check, since: u64, output: &mut Output<'_>) -> Result<Result<Server, String>, Failure> {
    let unit = match check.unit.as_ref().map(|unit| unit::started(helper, unit, since)).transpose() {
        Ok(unit) => unit,
        Err(why) => return Ok(Err(why)),
    };
    let probed = match &check.probe {
        Probe::Run(exec) => {
            let timeout_ms = if exec.timeout_ms == 0 { check.timeout_ms } else { exec.timeout_ms.min(check.timeout_ms.max(1)) };
            let exec = Exec { timeout_ms, ..exec.clone() };
            let exited = helper.run(&exec, vec![helper.mark()], false, output)?;
            match exited.end {
                End::Code(0) => Ok(Vec::new()),
                End::Code(code) => Err(format!("the command exited with status {code}")),
                End::Signal(signal) => Err(format!("the command was ended by signal {signal}")),
                End::TimedOut => Err(format!("the command took longer than {timeout_ms} ms")),
                End::Idle => Err("the command printed nothing for too long".into()),
                End::Stopped => Err("stopped".into()),
            }
        }
        Probe::Url { url, contains } => {
            let limit = Duration::from_millis(if check.timeout_ms == 0 { 10_000 } else { check.timeout_ms });
            get(&helper.children, url, contains.as_deref(), limit).map(|()| unit::listeners(url))
        }
    };
    Ok(probed.map(|listeners| Server { unit, listeners }))
}

/// Where a URL leads.
#[derive(Debug, PartialEq, Eq)]
enum Url<'a> {
    Tcp { authority: &'a str, host: &'a str, port: u16, path: &'a str },
    Unix { socket: &'a str, path: &'a str },
}

fn parse(url: &str) -> Result<Url<'_>, String> {
    let wrong = || format!("`{url}` is neither `http://host[:port]/path` nor `unix:/socket:/path`");
    if url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err(wrong());
    }
    if let Some(rest) = url.strip_prefix("unix:") {
        let (socket, path) = rest.split_once(":/").map_or((rest, "/"), |(socket, _)| (socket, &rest[socket.len() + 1..]));
        return if socket.starts_with('/') { Ok(Url::Unix { socket, path }) } else { Err(wrong()) };
    }
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(80), str::parse).map_err(|_| wrong())?;
    if host.is_empty() || host.starts_with('-') || host.contains('@') { Err(wrong()) } else { Ok(Url::Tcp { authority, host, port, path }) }
}

fn get(children: &Children, url: &str, contains: Option<&str>, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let answer = match parse(url)? {
        Url::Unix { socket, path } => {
            let stream = connect_unix(socket).map_err(|error| format!("`{socket}`: {}", crate::failure::cause(&error)))?;
            exchange(stream, |stream, left| stream.set_read_timeout(Some(left)), "localhost", path, deadline)
        }
        Url::Tcp { authority, host, port, path } => {
            let stream = connect_tcp(children, host, port, deadline)?;
            exchange(stream, |stream, left| stream.set_read_timeout(Some(left)), authority, path, deadline)
        }
    };
    judge(&answer.map_err(|error| format!("`{url}`: {}", crate::failure::cause(&error)))?, contains)
}

/// Decides on an answer. A status of 200 to 399 is a success.
fn judge(answer: &[u8], contains: Option<&str>) -> Result<(), String> {
    let (head, body) = split(answer).ok_or("what answers does not speak HTTP")?;
    let status = status(head).ok_or("what answers does not speak HTTP")?;
    if !(200..400).contains(&status) {
        return Err(format!("the status is {status}"));
    }
    let Some(text) = contains.filter(|text| !text.is_empty()) else { return Ok(()) };
    let body = if is_chunked(head) { unchunk(body).0 } else { body.to_vec() };
    if body.windows(text.len()).any(|window| window == text.as_bytes()) {
        Ok(())
    } else {
        Err(format!("the answer ({status}) does not contain `{text}`"))
    }
}

fn connect_unix(path: &str) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    // Not blocking: a listener that accepts nothing would let us wait for ever.
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    rustix::net::connect(&socket, &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn connect_tcp(children: &Children, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, String> {
    let mut last = format!("`{host}` has no address");
    for address in resolve(children, host) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("`{host}:{port}`: timed out"));
        }
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), left) {
            Ok(stream) => {
                let _ = stream.set_write_timeout(Some(left));
                return Ok(stream);
            }
            Err(error) => last = format!("`{host}:{port}`: {}", crate::failure::cause(&error)),
        }
    }
    Err(last)
}

/// Finds a host's addresses. Names are asked of `getent`: a static program has no name service of its own.
fn resolve(children: &Children, host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    if host == "localhost" {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let answer = exec::ask(children, &["getent", "ahosts", host]).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    let mut addresses: Vec<IpAddr> = text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    addresses.dedup();
    addresses
}

fn exchange<S: Read + Write>(
    mut stream: S,
    set_timeout: impl Fn(&S, Duration) -> io::Result<()>,
    host: &str,
    path: &str,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: deployer\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 8192]);
    while answer.len() < HEAD + BODY && !is_whole(&answer) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        set_timeout(&stream, left)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn split(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((&answer[..at], &answer[at + 4..]))
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.parse().ok()
}

fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().skip(1).find_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)))?;
    Some(line.1.trim().to_owned())
}

fn is_chunked(head: &[u8]) -> bool {
    header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
}

/// Tells whether the server has said all, by what it says itself: some never close.
fn is_whole(answer: &[u8]) -> bool {
    let Some((head, body)) = split(answer) else { return false };
    if is_chunked(head) {
        return unchunk(body).1;
    }
    match header(head, "content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        None => matches!(status(head), Some(204 | 304)),
    }
}

/// Joins the chunks that are there; tells whether the last one was among them.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
        let Some(size) = size else { return (body, false) };
        if size == 0 {
            return (body, true);
        }
        let rest = &bytes[end + 2..];
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        let Some(next) = size.checked_add(2).and_then(|next| rest.get(next..)) else { return (body, false) };
        bytes = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// Answers one request and keeps the connection open, as a careless server does.
    fn answering(answer: &'static [u8]) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz?x=1", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            let _ = stream.read(&mut [0; 1]);
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        (url, thread)
    }

    fn ask(answer: &'static [u8], contains: Option<&str>) -> Result<(), String> {
        let (url, server) = answering(answer);
        let result = get(&Children::default(), &url, contains, Duration::from_secs(10));
        assert!(server.join().unwrap().starts_with("GET /healthz?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
        result
    }

    #[test]
    fn the_status_decides_and_the_text_where_one_is_asked_for() {
        assert_eq!(ask(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", None), Ok(()));
        assert_eq!(ask(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", None), Ok(()));
        assert_eq!(ask(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", None), Err("the status is 503".into()));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na1b2\r\n3\r\nc3d\r\n0\r\n\r\n";
        assert_eq!(ask(chunked, Some("a1b2c3d")), Ok(()));
        assert!(ask(chunked, Some("9f8e7d6")).is_err());
        assert!(ask(b"SSH-2.0-OpenSSH\r\n\r\n\r\n", None).is_err());
    }

    #[test]
    fn a_server_that_never_answers_costs_no_more_than_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let result = get(&Children::default(), &url, None, Duration::from_millis(50));
        assert!(result.unwrap_err().contains("timed out"));
    }

    #[test]
    fn a_unix_socket_is_asked_the_same_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.0 204 No Content\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let url = format!("unix:{}:/up", path.display());
        assert_eq!(get(&Children::default(), &url, None, Duration::from_secs(10)), Ok(()));
        assert!(server.join().unwrap().starts_with("GET /up HTTP/1.1\r\n"));
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused() {
        let tcp = Url::Tcp { authority: "[::1]:8080", host: "::1", port: 8080, path: "/a" };
        assert_eq!(parse("http://[::1]:8080/a"), Ok(tcp));
        assert_eq!(parse("unix:/run/app.sock"), Ok(Url::Unix { socket: "/run/app.sock", path: "/" }));
        for url in ["https://a/", "http:///x", "http://a:b/", "http://a/ b", "http://a/\r\nX: y", "unix:app.sock:/", "http://-a/", "a"] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_judged_without_a_panic(answer in proptest::collection::vec(any::<u8>(), 0..200), chunks in "([0-9a-f]{1,20}\r\n[a-z]{0,9}\r\n){0,4}") {
            let _ = judge(&answer, Some("x"));
            let _ = is_whole(&answer);
            let _ = judge(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes(), Some("x"));
            let _ = parse(&String::from_utf8_lossy(&answer));
        }
    }
}
