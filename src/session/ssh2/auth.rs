//! Authentication: the agent's keys first, then the identity files, then, where somebody is there to be asked, questions.

use std::io;
use std::path::{Path, PathBuf};

use ssh_key::{PrivateKey, PublicKey};
use ssh2::{ErrorCode, KeyboardInteractivePrompt, Prompt, Session};

use super::super::ask::{self, Question, Scope};
use super::super::ssh_config::HostConfig;
use super::libssh2;

/// How long a host may take to say what it thinks of an answer, typing included: sshd's own `LoginGraceTime` is two minutes.
const TYPING_MS: u32 = 150_000;
/// A wrong answer is asked for again so often.
const TRIES: usize = 3;

/// Why the user is not let in.
pub(super) enum Refusal {
    Refused(String),
    /// The connection failed meanwhile.
    Broken(ssh2::Error),
}

/// One identity file, looked at.
struct Identity {
    path: PathBuf,
    /// The public key as a blob, where it can be told.
    blob: Option<Vec<u8>>,
    form: Form,
}

enum Form {
    Usable,
    Encrypted,
    /// Only the agent has the private key: a `.pub` file, or a hardware key's handle.
    PublicOnly,
    Unreadable(String),
}

pub(super) fn authenticate(session: &Session, config: &HostConfig, scope: &Scope) -> Result<(), Refusal> {
    let identities: Vec<Identity> = config.identities.iter().filter_map(|path| look_at(path)).collect();
    let mut notes = Vec::new();
    if let Some(path) = &config.agent
        && by_agent(session, config, path, &identities, &mut notes)?
    {
        return Ok(());
    }
    for identity in &identities {
        let path = identity.path.display();
        match &identity.form {
            Form::Usable => {
                for certificate in certificates(config, &identity.path).map(Some).chain([None]) {
                    let result = session.userauth_pubkey_file(&config.user, certificate.as_deref(), &identity.path, None);
                    if accepted(session, result, &mut notes)? {
                        return Ok(());
                    }
                }
                notes.push(format!("`{path}` was not accepted"));
            }
            Form::Encrypted => {
                if by_passphrase(session, config, scope, identity, &mut notes)? {
                    return Ok(());
                }
            }
            Form::PublicOnly => notes.push(format!("`{path}` is only a public key")),
            Form::Unreadable(why) => notes.push(format!("`{path}` cannot be read: {why}")),
        }
    }
    let methods = session.auth_methods(&config.user).map(str::to_owned);
    if session.authenticated() {
        return Ok(());
    }
    let methods = methods.unwrap_or_default();
    if by_questions(session, config, scope, &methods, &mut notes)? {
        return Ok(());
    }
    if notes.is_empty() {
        notes.push("there is no key to try, neither in an agent nor in a file".to_owned());
    }
    let offered = if methods.is_empty() { None } else { Some(format!("the host accepts {methods}")) };
    Err(Refusal::Refused(offered.into_iter().chain(notes).collect::<Vec<_>>().join("; ")))
}

/// Tries a key whose passphrase somebody may be asked for, but only once the host wants the key.
fn by_passphrase(
    session: &Session,
    config: &HostConfig,
    scope: &Scope,
    identity: &Identity,
    notes: &mut Vec<String>,
) -> Result<bool, Refusal> {
    let path = identity.path.display();
    let mut public = identity.path.as_os_str().to_owned();
    public.push(".pub");
    let public = Some(PathBuf::from(public)).filter(|path| path.is_file());
    for offered in certificates(config, &identity.path).map(Some).chain([public]) {
        let attempt = |passphrase: &str| session.userauth_pubkey_file(&config.user, offered.as_deref(), &identity.path, Some(passphrase));
        // With a public key libssh2 asks the host before it reads the private one. The passphrase is never empty, and never NULL, which
        // libssh2 would take the length of.
        if offered.is_some() && is_refusal(&attempt("")) {
            notes.push(format!("`{path}` was not accepted"));
            continue;
        }
        if !scope.ask {
            notes.push(format!("`{path}` has a passphrase, was not accepted from the agent, and there is no terminal to ask at"));
            return Ok(false);
        }
        let question = Question::passphrase(&identity.path.to_string_lossy());
        for _ in 0..TRIES {
            let Some(passphrase) = ask::answer(&question) else { break };
            let result = attempt(&passphrase);
            if let Err(error) = &result
                && matches!(error.code(), ErrorCode::Session(libssh2::FILE | libssh2::KEYFILE_AUTH_FAILED | libssh2::PUBLICKEY_UNVERIFIED))
            {
                ask::refuse(&question, &passphrase);
                continue;
            }
            if accepted(session, result, notes)? {
                return Ok(true);
            }
            break;
        }
        notes.push(format!("`{path}` has a passphrase, and was not accepted with what was typed"));
    }
    Ok(false)
}

fn is_refusal(result: &Result<(), ssh2::Error>) -> bool {
    result.as_ref().is_err_and(|error| error.code() == ErrorCode::Session(libssh2::AUTHENTICATION_FAILED))
}

/// Answers what the host asks: by keyboard-interactive, else with a password.
fn by_questions(session: &Session, config: &HostConfig, scope: &Scope, methods: &str, notes: &mut Vec<String>) -> Result<bool, Refusal> {
    let offers = |method: &str| methods.split(',').any(|offered| offered == method);
    let interactive = config.keyboard_interactive && offers("keyboard-interactive");
    let password = config.password && offers("password");
    if !scope.ask || !(interactive || password) {
        return Ok(false);
    }
    let before = session.timeout();
    session.set_timeout(TYPING_MS);
    let mut let_in = Ok(false);
    for _ in 0..TRIES {
        let mut answers = Answers { user: &config.user, scope, given: Vec::new() };
        let result = if interactive {
            session.userauth_keyboard_interactive(&config.user, &mut answers)
        } else {
            let question = Question::password(scope, &config.user, &config.hostname);
            let Some(answer) = ask::answer(&question) else { break };
            let result = session.userauth_password(&config.user, &answer);
            answers.given.push((question, answer));
            result
        };
        let_in = accepted(session, result, notes);
        if !matches!(let_in, Ok(false)) || answers.given.is_empty() {
            break;
        }
        for (question, answer) in &answers.given {
            ask::refuse(question, answer);
        }
    }
    session.set_timeout(before);
    if matches!(let_in, Ok(false)) {
        notes.push("what was typed was not accepted".to_owned());
    }
    let_in
}

/// Passes a host's prompts on to the person.
struct Answers<'a> {
    user: &'a str,
    scope: &'a Scope,
    given: Vec<(Question, String)>,
}

impl KeyboardInteractivePrompt for Answers<'_> {
    fn prompt<'b>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'b>]) -> Vec<String> {
        let answer = |prompt: &Prompt<'b>| {
            let question = Question::prompt(self.scope, self.user, &prompt.text, prompt.echo);
            let answer = ask::answer(&question).unwrap_or_default();
            self.given.push((question, answer.clone()));
            answer
        };
        // A host that asks without end is not answered without end.
        let mut answers: Vec<String> = prompts.iter().take(8).map(answer).collect();
        answers.resize(prompts.len(), String::new());
        answers
    }
}

/// Tries the agent's keys: those that are also identity files first, and the others only where that is allowed.
fn by_agent(
    session: &Session,
    config: &HostConfig,
    path: &Path,
    identities: &[Identity],
    notes: &mut Vec<String>,
) -> Result<bool, Refusal> {
    let keys = session.agent().and_then(|mut agent| {
        agent.set_identity_path(path)?;
        agent.connect()?;
        agent.list_identities()?;
        let keys = agent.identities()?;
        Ok((agent, keys))
    });
    let (agent, keys) = match keys {
        Ok(found) => found,
        Err(error) => {
            notes.push(format!("the agent at `{}` does not answer: {}", path.display(), error.message()));
            return Ok(false);
        }
    };
    let named = |blob: &[u8]| identities.iter().any(|identity| identity.blob.as_deref() == Some(blob));
    let (first, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| named(key.blob()));
    let others = if config.identities_only { Vec::new() } else { others };
    let mut tried = 0;
    for key in first.into_iter().chain(others) {
        tried += 1;
        if accepted(session, agent.userauth(&config.user, key), notes)? {
            return Ok(true);
        }
    }
    if tried > 0 {
        notes.push(format!("{tried} of the agent's keys were not accepted"));
    }
    Ok(false)
}

fn accepted(session: &Session, result: Result<(), ssh2::Error>, notes: &mut Vec<String>) -> Result<bool, Refusal> {
    match result {
        Ok(()) => Ok(session.authenticated()),
        Err(error) => match error.code() {
            ErrorCode::Session(libssh2::AUTHENTICATION_FAILED | libssh2::PUBLICKEY_UNVERIFIED) => Ok(false),
            // sshd hangs up after `MaxAuthTries` keys; another try would end the same way.
            ErrorCode::Session(libssh2::SOCKET_DISCONNECT | libssh2::SOCKET_RECV | libssh2::SOCKET_SEND) => {
                let tried = std::mem::take(notes).join("; ");
                let why = "the host ended the connection: too many keys, or it does not want this user";
                Err(Refusal::Refused(if tried.is_empty() { why.to_owned() } else { format!("{why} ({tried})") }))
            }
            ErrorCode::Session(libssh2::TIMEOUT) => Err(Refusal::Broken(error)),
            ErrorCode::Session(_) | ErrorCode::SFTP(_) => {
                notes.push(error.message().to_owned());
                Ok(false)
            }
        },
    }
}

fn certificates<'a>(config: &'a HostConfig, identity: &Path) -> impl Iterator<Item = PathBuf> + 'a {
    let mut beside = identity.as_os_str().to_owned();
    beside.push("-cert.pub");
    config.certificates.iter().cloned().chain([PathBuf::from(beside)]).filter(|path| path.is_file())
}

/// The identity files that a passphrase protects.
pub(in crate::session) fn locked(identities: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    identities.iter().filter(|path| look_at(path).is_some_and(|identity| matches!(identity.form, Form::Encrypted)))
}

/// Looks at an identity file. None where there is none, as is usual for ssh's default names.
fn look_at(path: &Path) -> Option<Identity> {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let beside = std::fs::read_to_string(public).ok().and_then(|text| blob(&text));
    let identity = |blob, form| Some(Identity { path: path.to_owned(), blob, form });
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return beside.and_then(|blob| identity(Some(blob), Form::PublicOnly)),
        Err(error) => return identity(beside, Form::Unreadable(error.to_string())),
    };
    let text = String::from_utf8_lossy(&bytes);
    if let Some(blob) = blob(&text) {
        return identity(Some(blob), Form::PublicOnly);
    }
    match PrivateKey::from_openssh(&bytes) {
        Ok(key) => {
            let hardware = key.algorithm().as_str().starts_with("sk-");
            let form = if hardware {
                Form::PublicOnly
            } else if key.is_encrypted() {
                Form::Encrypted
            } else {
                Form::Usable
            };
            identity(beside.or_else(|| key.public_key().to_bytes().ok()), form)
        }
        Err(_) if text.contains("ENCRYPTED") => identity(beside, Form::Encrypted),
        // libssh2 reads more formats than this; what it cannot read, it says.
        Err(_) => identity(beside, Form::Usable),
    }
}

fn blob(text: &str) -> Option<Vec<u8>> {
    PublicKey::from_openssh(text.trim()).ok()?.to_bytes().ok()
}
