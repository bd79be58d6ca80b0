//! Questions to the person at the terminal: a passphrase, a password, a one-time code, yes or no. Each is asked once, one at a time, and
//! the answer is reused for every host of the run.
//!
//! In-process sessions ask directly. `ssh` asks through its askpass program, which is this program again (`client`): it carries the
//! question over a socket in a private directory to the run that started it, and prints what comes back.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tempfile::TempDir;

use crate::tree::path::Shown;

/// Names the socket for the askpass program.
const SOCKET: &str = "DEPLOYER_ASKPASS";
const SCOPE: &str = "DEPLOYER_ASKPASS_SCOPE";
/// A question or an answer is never longer.
const LIMIT: u64 = 8 * 1024;
/// A wrong answer is asked for again so often in a run; an account may be locked by more.
const TRIES: u32 = 3;

#[derive(Default)]
struct Kept {
    answer: Option<String>,
    refused: u32,
}

static KEPT: LazyLock<Mutex<HashMap<String, Kept>>> = LazyLock::new(Mutex::default);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Tells whether a person is being waited for: then nothing may be drawn over the question, and no time runs out.
#[must_use]
pub fn busy() -> bool {
    WAITING.load(Ordering::SeqCst) > 0
}

/// Which hosts may be given the same answer, and whether anybody may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub ask: bool,
    /// The way to the hosts: those behind one bastion share their answers.
    pub way: String,
}

/// What is asked, and under which key the answer is kept.
pub(super) struct Question {
    pub key: String,
    pub text: String,
    pub echo: bool,
}

impl Question {
    pub fn passphrase(path: &str) -> Self {
        Self { key: format!("key {path}"), text: format!("passphrase of `{}`: ", Shown(path.as_bytes())), echo: false }
    }

    pub fn password(scope: &Scope, user: &str, host: &str) -> Self {
        let text = format!("password of `{}` on `{}`: ", Shown(user.as_bytes()), Shown(host.as_bytes()));
        Self { key: format!("password {} {user}", scope.way), text, echo: false }
    }

    pub fn prompt(scope: &Scope, user: &str, prompt: &str, echo: bool) -> Self {
        let shown: String = Shown(prompt.trim_end().as_bytes()).to_string().chars().take(200).collect();
        let text = format!("`{}`: {shown} ", Shown(user.as_bytes()));
        Self { key: format!("prompt {} {user} {}", scope.way, prompt.trim()), text, echo }
    }
}

/// Gives the answer, asking the person if nobody did before. None where there is no terminal, nothing was typed, or it was wrong too
/// often.
pub(super) fn answer(question: &Question) -> Option<String> {
    let _waiting = Waiting::new();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = kept.entry(question.key.clone()).or_default();
    if entry.refused >= TRIES {
        return None;
    }
    if entry.answer.is_none() {
        let again = if entry.refused > 0 { "that was not accepted; " } else { "" };
        entry.answer = read(&format!("{again}{}", question.text), question.echo).ok().filter(|answer| !answer.is_empty());
        if entry.answer.is_none() {
            entry.refused = TRIES;
        }
    }
    entry.answer.clone()
}

/// Says that an answer was wrong. Another host may have said so already.
pub(super) fn refuse(question: &Question, answer: &str) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = kept.entry(question.key.clone()).or_default();
    if entry.answer.as_deref() == Some(answer) {
        entry.answer = None;
        entry.refused += 1;
    }
}

/// Asks yes or no; whatever is not yes is no.
pub fn confirm(question: &str) -> io::Result<bool> {
    let _waiting = Waiting::new();
    let _one_at_a_time = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(matches!(read(&format!("{question} [y/N] "), true)?.trim(), "y" | "Y" | "yes"))
}

/// Tells whether there is a terminal to ask at.
#[must_use]
pub fn has_terminal() -> bool {
    open().is_ok()
}

struct Waiting;

impl Waiting {
    fn new() -> Self {
        WAITING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// Puts a terminal back as it was.
struct Restored<'a>(&'a File, Termios);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

/// Reads a line from the terminal. A ^C is read too, so that the echo is back before the program is interrupted.
fn read(prompt: &str, echo: bool) -> io::Result<String> {
    const INTERRUPT: u8 = 3;
    let terminal = open()?;
    let before = tcgetattr(&terminal)?;
    let mut quiet = before.clone();
    quiet.local_modes.set(LocalModes::ECHO, echo);
    quiet.local_modes.remove(LocalModes::ISIG);
    quiet.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
    tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
    let restored = Restored(&terminal, before);
    (&terminal).write_all(format!("\r{prompt}").as_bytes())?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 4096 && (&terminal).read(&mut byte)? == 1 && !matches!(byte[0], b'\n' | INTERRUPT) {
        line.push(byte[0]);
    }
    if !echo || byte[0] == INTERRUPT {
        (&terminal).write_all(b"\n")?;
    }
    drop(restored);
    if byte[0] == INTERRUPT {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT)?;
        return Err(io::ErrorKind::Interrupted.into());
    }
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Answers the questions of `ssh` programs while it lives.
#[derive(Debug)]
pub(super) struct Askpass {
    directory: TempDir,
    program: PathBuf,
}

impl Askpass {
    /// The one of this run, started when it is first needed.
    pub fn shared() -> io::Result<Arc<Self>> {
        static ONE: Mutex<std::sync::Weak<Askpass>> = Mutex::new(std::sync::Weak::new());
        let mut one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(askpass) = one.upgrade() {
            return Ok(askpass);
        }
        let askpass = Arc::new(Self::start()?);
        *one = Arc::downgrade(&askpass);
        Ok(askpass)
    }

    fn start() -> io::Result<Self> {
        // Only the owner may enter it (`tempdir` makes it so), hence nobody else may ask or answer.
        let directory = tempfile::Builder::new().prefix("deployer-ask-").tempdir()?;
        let listener = UnixListener::bind(directory.path().join("socket"))?;
        let program = std::env::current_exe()?;
        std::thread::Builder::new().name("askpass".to_owned()).spawn(move || {
            let asked: Arc<Mutex<HashMap<String, String>>> = Arc::default();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let asked = Arc::clone(&asked);
                // A thread that cannot be started leaves the question unanswered, and ssh gives up.
                let _ = std::thread::Builder::new().name("question".to_owned()).spawn(move || serve(&stream, &asked));
            }
        })?;
        Ok(Self { directory, program })
    }

    /// Makes `ssh` ask here.
    pub fn equip(&self, ssh: &mut tokio::process::Command, scope: &Scope) {
        ssh.env("SSH_ASKPASS", &self.program).env("SSH_ASKPASS_REQUIRE", "force");
        ssh.env(SOCKET, self.directory.path().join("socket")).env(SCOPE, &scope.way);
    }
}

/// Answers one question: `way`, the asking process and the text, a line each.
fn serve(stream: &UnixStream, asked: &Mutex<HashMap<String, String>>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut text = String::new();
    stream.take(LIMIT).read_to_string(&mut text).ok()?;
    let mut lines = text.splitn(3, '\n');
    let (way, process, prompt) = (lines.next()?, lines.next()?, lines.next()?);
    let question = read_question(&Scope { ask: true, way: way.to_owned() }, prompt);
    // The same process asks again only because the answer was wrong.
    let before = format!("{process} {}", question.key);
    if let Some(wrong) = asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&before) {
        refuse(&question, &wrong);
    }
    let said = answer(&question)?;
    asked.lock().unwrap_or_else(PoisonError::into_inner).insert(before, said.clone());
    (&*stream).write_all(said.as_bytes()).ok()
}

/// Recognises what ssh asks for, so that the answer is kept under the same key as for an in-process session.
fn read_question(scope: &Scope, prompt: &str) -> Question {
    if let Some(path) = prompt.strip_prefix("Enter passphrase for key '").and_then(|rest| rest.rsplit_once('\'')) {
        return Question::passphrase(path.0);
    }
    if let Some((user, host)) = prompt.trim_end().strip_suffix("'s password:").and_then(|who| who.rsplit_once('@')) {
        return Question::password(scope, user, host);
    }
    let addressed = prompt.strip_prefix('(').and_then(|rest| rest.split_once(") "));
    match addressed.and_then(|(who, text)| Some((who.rsplit_once('@')?.0, text))) {
        Some((user, text)) => Question::prompt(scope, user, text, false),
        None => Question::prompt(scope, "", prompt, false),
    }
}

/// Is the askpass program, when it was started as one: asks the run that started `ssh`, prints the answer, and gives the exit code.
#[must_use]
pub fn client() -> Option<u8> {
    let socket = std::env::var_os(SOCKET)?;
    let prompt = std::env::args().nth(1)?;
    // Only ssh starts this program with the variable set and one argument; a hook that inherits both would find no socket.
    let is_socket = std::fs::symlink_metadata(Path::new(&socket)).is_ok_and(|meta| meta.file_type().is_socket());
    let answered = is_socket && carry(Path::new(&socket), &prompt).is_ok();
    Some(u8::from(!answered))
}

fn carry(socket: &Path, prompt: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let asking = rustix::process::Pid::as_raw(rustix::process::getppid());
    stream.write_all(format!("{}\n{asking}\n{prompt}", std::env::var(SCOPE).unwrap_or_default()).as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(LIMIT).read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    writeln!(io::stdout(), "{answer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_asks_is_the_same_question_as_in_this_process() {
        let scope = Scope { ask: true, way: "bastion".to_owned() };
        let key = |prompt: &str| read_question(&scope, prompt).key;
        assert_eq!(key("Enter passphrase for key '/srv/it's': "), Question::passphrase("/srv/it's").key);
        assert_eq!(key("ada@x@app01's password: "), Question::password(&scope, "ada@x", "app02").key);
        assert_eq!(key("(ada@app01) Verification code: "), Question::prompt(&scope, "ada", "Verification code: ", false).key);
        let elsewhere = Scope { ask: true, way: String::new() };
        assert_ne!(key("(ada@app01) Code: "), Question::prompt(&elsewhere, "ada", "Code: ", false).key);
    }

    #[test]
    fn a_prompt_of_a_host_cannot_write_to_the_terminal_what_it_wants() {
        let scope = Scope { ask: true, way: String::new() };
        assert!(!Question::prompt(&scope, "ada", "\u{1b}[2Jcode\r", false).text.contains(['\u{1b}', '\r']));
    }
}
