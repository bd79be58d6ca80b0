//! An index upstream that says what a test wants, and how: whole, cut short, without an end, or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// How a request is answered.
#[derive(Clone)]
pub enum Answer {
    /// Status, headers and body.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Says more bytes than it sends.
    Cut(Vec<u8>),
    Endless,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    /// Requests as `GET /path`, with the credential and the validator that came with each.
    seen: Vec<(String, String, String)>,
    down: bool,
    /// Requests wait until this is taken away.
    held: bool,
    waiting: usize,
}

pub struct Upstream {
    pub url: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || drop(answer(&stream, &shared)));
            }
        });
        Self { url, state }
    }

    pub fn has(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) {
        self.answers(path, Answer::Whole(200, vec![("Content-Type", content_type.to_owned())], body.into()));
    }

    pub fn answers(&self, path: &str, answer: Answer) {
        self.state.0.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// Closes every connection without a word, or stops doing so.
    pub fn is_down(&self, down: bool) {
        self.state.0.lock().unwrap().down = down;
    }

    /// Lets requests wait, or go on.
    pub fn holds(&self, held: bool) {
        self.state.0.lock().unwrap().held = held;
        self.state.1.notify_all();
    }

    pub fn wait_for(&self, requests: usize) {
        let (state, changed) = &*self.state;
        drop(changed.wait_while(state.lock().unwrap(), |state| state.waiting < requests).unwrap());
    }

    /// How often a path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.state.0.lock().unwrap().seen.iter().filter(|(seen, ..)| seen == path).count()
    }

    /// The credentials that came with requests for a path, and the validators.
    pub fn said(&self, path: &str) -> Vec<(String, String)> {
        let state = self.state.0.lock().unwrap();
        state
            .seen
            .iter()
            .filter(|(seen, ..)| seen == path)
            .map(|(_, credential, validator)| (credential.clone(), validator.clone()))
            .collect()
    }
}

fn answer(mut stream: &TcpStream, shared: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next().unwrap()?.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut credential, mut validator) = (String::new(), String::new());
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => value.clone_into(&mut credential),
            Some((name, value)) if name.eq_ignore_ascii_case("if-none-match") => value.clone_into(&mut validator),
            Some(_) => {}
            None => break,
        }
    }
    let (state, changed) = shared;
    let mut state = state.lock().unwrap();
    state.seen.push((path.clone(), credential, validator.clone()));
    state.waiting += 1;
    changed.notify_all();
    state = changed.wait_while(state, |state| state.held).unwrap();
    if state.down {
        return Ok(());
    }
    let answer = state.answers.get(&path).cloned().unwrap_or(Answer::Whole(404, Vec::new(), b"no".to_vec()));
    drop(state);
    match answer {
        Answer::Whole(status, headers, body) => {
            let known = headers.iter().any(|(name, value)| *name == "ETag" && *value == validator);
            let (status, body) = if known { (304, Vec::new()) } else { (status, body) };
            let headers: String = headers.iter().fold(String::new(), |text, (name, value)| text + &format!("{name}: {value}\r\n"));
            write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
            stream.write_all(&body)
        }
        Answer::Cut(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len() + 10)?;
            stream.write_all(&body)
        }
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n")?;
            loop {
                stream.write_all(&vec![b'x'; 64 * 1024])?;
            }
        }
    }
}

/// What came back over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Asks `http://host:port/path` on this machine, whatever the host is called, with further header lines.
pub fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Reply {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{}", host.rsplit_once(':').unwrap().1)).unwrap();
    let headers: String = headers.iter().fold(String::new(), |text, (name, value)| text + &format!("{name}: {value}\r\n"));
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        body = dechunked(&body);
    }
    Reply { status, headers, body }
}

fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 4 + length..];
    }
    whole
}

/// The digest as indexes publish it.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    deployer::tree::Digest(Sha256::digest(bytes).into()).to_string()
}
