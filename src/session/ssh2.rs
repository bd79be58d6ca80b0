//! The ssh2 session: libssh2 in this process, one thread a host that owns its session. What it needs to know of libssh2 is beside the
//! code that works around it.
//!
//! Connecting (dialling, key exchange, host key, `auth`) is blocking with deadlines; then one non-blocking loop (`relay`) moves bytes
//! between the channel and a socket pair. In blocking mode a read would hold the session's lock for ever.

mod auth;
mod proxy;
mod relay;

pub(super) use auth::locked;

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ssh2::{Channel, ErrorCode, MethodType, Session};
use tokio::sync::oneshot;

use super::known_hosts::{self, KnownHosts, Names, Verdict};
use super::ssh_config::{Alive, HostConfig};
use super::{Diagnostics, HostKeyError, Opener, Pipe, SessionError, ask};
use crate::wire::DEAD_MS;

/// Enough for libssh2 and OpenSSL, and little enough for hundreds of hosts.
const STACK: usize = 512 * 1024;
/// libssh2's own 2 MiB would be the limit at a long round trip.
const RECEIVE_WINDOW: u32 = 16 << 20;
const PACKET: u32 = 32_768;
/// Without the certificate types: a host that has one would be compared with its plain key and seem to have changed.
const HOST_KEYS: [&str; 6] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256"];
const CIPHERS: &str = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr";

const DIALLING: &str = "connecting";
const EXCHANGING: &str = "exchanging keys";
const AUTHENTICATING: &str = "authenticating";
const STARTING: &str = "starting the remote shell";

/// Connects, authenticates and starts `command`.
pub(super) async fn open(opener: &Opener, command: &str) -> Result<Pipe, SessionError> {
    let system = |error: io::Error| system(opener, &error);
    let (ours, theirs) = UnixStream::pair().map_err(system)?;
    let (life, watched) = UnixStream::pair().map_err(system)?;
    let (job, owner) = job(opener)?;
    let diagnostics = Diagnostics::new(None);
    let work = Work { command: command.to_owned(), ends: relay::Ends { local: theirs, life: watched }, diagnostics: diagnostics.clone() };
    // Dialling with key exchange, and authenticating with the start, have one timeout each.
    launch(opener, &owner, opener.timeout() * 2, move |ready| job.run(&work, ready)).await?;
    ours.set_nonblocking(true).map_err(system)?;
    let (reader, writer) = tokio::net::UnixStream::from_std(ours).map_err(system)?.into_split();
    Ok(Pipe { reader: Box::new(reader), writer: Box::new(writer), diagnostics, owner: Box::new((owner, life)) })
}

/// Connects as far as the host shows its key, and gives it. Nothing is said of who is asking.
pub(super) async fn host_key(opener: &Opener) -> Result<Vec<u8>, SessionError> {
    let (mut job, owner) = job(opener)?;
    let key = move |ready: oneshot::Sender<_>| {
        // Nobody may be waiting any more.
        let _ = ready.send(job.greet(&|| false).and_then(|greeted| job.key(&greeted.session)));
    };
    launch(opener, &owner, opener.timeout(), key).await
}

/// Runs a session's thread and waits for its first word. On the last line of defence the owner is dropped by the caller, which cuts the
/// thread's socket; but while a person is typing, time stands still.
async fn launch<T: Send + 'static>(
    opener: &Opener,
    owner: &Owner,
    limit: Duration,
    work: impl FnOnce(oneshot::Sender<Result<T, SessionError>>) + Send + 'static,
) -> Result<T, SessionError> {
    let (ready, mut result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("ssh {}", opener.name)).stack_size(STACK).spawn(move || work(ready));
    thread.map_err(|error| system(opener, &error))?;
    let limit = limit + opener.timeout() / 2;
    let address = opener.config.hostname.clone();
    let result = loop {
        match tokio::time::timeout(limit, &mut result).await {
            Ok(Ok(result)) => break result,
            Ok(Err(_)) => break Err(SessionError::Other { address, doing: STARTING, why: "its thread ended".to_owned() }),
            Err(_) if ask::busy() => {}
            Err(_) => break Err(SessionError::Timeout { address, doing: AUTHENTICATING, after: limit }),
        }
    };
    match (result, &owner.proxy) {
        (Err(error), Some(proxy)) => Err(proxy.explain(error).await),
        (result, _) => result,
    }
}

/// Prepares the thread's part and the part that ends it, with the proxy between this machine and the host under way.
fn job(opener: &Opener) -> Result<(Job, Owner), SessionError> {
    let (proxy_socket, proxy) = match &opener.config.proxy {
        Some(proxy) => {
            let (socket, process) = proxy::spawn(proxy, opener)?;
            (Some(socket), Some(process))
        }
        None => (None, None),
    };
    let socket = Arc::new(Mutex::new(None));
    let owner = Owner { socket: Arc::clone(&socket), proxy };
    let job = Job {
        config: opener.config.clone(),
        trust: opener.name.clone(),
        scope: opener.scope(),
        timeout: opener.timeout(),
        proxy: proxy_socket,
        socket,
    };
    Ok((job, owner))
}

fn system(opener: &Opener, error: &io::Error) -> SessionError {
    SessionError::Other { address: opener.config.hostname.clone(), doing: STARTING, why: error.to_string() }
}

/// Ends the thread while it is connecting, by cutting its socket; later the end of `life` does.
struct Owner {
    socket: Arc<Mutex<Option<OwnedFd>>>,
    proxy: Option<proxy::Running>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
    }
}

/// What the thread is given.
struct Job {
    config: HostConfig,
    /// What a person calls the host.
    trust: String,
    scope: ask::Scope,
    timeout: Duration,
    /// The way through a proxy, where there is one.
    proxy: Option<UnixStream>,
    /// What the owner may cut while the thread connects.
    socket: Arc<Mutex<Option<OwnedFd>>>,
}

/// What the thread does once it is let in.
struct Work {
    command: String,
    ends: relay::Ends,
    diagnostics: Diagnostics,
}

/// A host that has shown its key, which nobody has looked at yet.
struct Greeted {
    session: Session,
    /// A second descriptor of the socket, to poll.
    socket: OwnedFd,
    files: Vec<KnownHosts>,
    names: Names,
}

/// A channel on which the command runs.
struct Opened {
    session: Session,
    channel: Channel,
    socket: OwnedFd,
    alive: Alive,
}

impl Job {
    fn run(mut self, work: &Work, ready: oneshot::Sender<Result<(), SessionError>>) {
        let result = self.establish(&work.command, &|| ready.is_closed());
        // From here on the end of `life` ends the session in order.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        match result {
            Ok(opened) => {
                if ready.send(Ok(())).is_ok() {
                    relay::run(opened, &work.ends, &work.diagnostics);
                }
            }
            Err(error) => {
                // Nobody may be waiting any more.
                let _ = ready.send(Err(error));
            }
        }
        work.diagnostics.close();
    }

    /// Connects and exchanges keys. `given_up` tells that nobody waits any more: then nothing may be started on the host.
    fn greet(&mut self, given_up: &dyn Fn() -> bool) -> Result<Greeted, SessionError> {
        let deadline = Instant::now() + self.timeout;
        let config = &self.config;
        let files = KnownHosts::read(&config.known_hosts()).map_err(SessionError::HostKey)?;
        let names = config.names();
        let types = known_hosts::types(&files, &names).map_err(SessionError::HostKey)?;
        let stream: OwnedFd = match self.proxy.take() {
            Some(socket) => socket.into(),
            None => dial(config, self.timeout, deadline)?.into(),
        };
        let system = |error: io::Error| self.other(DIALLING, &error.to_string());
        let socket = stream.try_clone().map_err(system)?;
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.try_clone().map_err(system)?);

        if given_up() {
            return Err(self.other(DIALLING, "it was given up"));
        }
        let mut session = Session::new().map_err(|error| self.failed(DIALLING, &error))?;
        prefer(&session, &types).map_err(|error| self.failed(EXCHANGING, &error))?;
        session.set_timeout(millis(deadline.saturating_duration_since(Instant::now())));
        session.set_tcp_stream(stream);
        session.handshake().map_err(|error| self.failed(EXCHANGING, &error))?;
        Ok(Greeted { session, socket, files, names })
    }

    fn establish(&mut self, command: &str, given_up: &dyn Fn() -> bool) -> Result<Opened, SessionError> {
        let Greeted { session, socket, files, names } = self.greet(given_up)?;
        self.check_host_key(&session, &files, &names)?;
        let config = &self.config;
        session.set_timeout(millis(self.timeout));
        auth::authenticate(&session, config, &self.scope).map_err(|refusal| match refusal {
            auth::Refusal::Refused(why) => SessionError::Auth { user: config.user.clone(), address: config.hostname.clone(), why },
            auth::Refusal::Broken(error) => self.failed(AUTHENTICATING, &error),
        })?;
        if given_up() {
            return Err(self.other(STARTING, "it was given up"));
        }
        session.set_timeout(millis(self.timeout));
        let starting = |error: ssh2::Error| self.other(STARTING, error.message());
        let mut channel = session.channel_open("session", RECEIVE_WINDOW, PACKET, None).map_err(starting)?;
        channel.exec(command).map_err(starting)?;
        Ok(Opened { session, channel, socket, alive: config.alive })
    }

    fn key(&self, session: &Session) -> Result<Vec<u8>, SessionError> {
        session.host_key().map(|(blob, _)| blob.to_vec()).ok_or_else(|| self.other(EXCHANGING, "the host showed no key"))
    }

    fn check_host_key(&self, session: &Session, files: &[KnownHosts], names: &Names) -> Result<(), SessionError> {
        let blob = self.key(session)?;
        let (name, key) = (names.name.clone(), known_hosts::describe(&blob));
        let trust = self.trust.clone();
        let error = match known_hosts::judge(files, names, &blob).map_err(SessionError::HostKey)? {
            Verdict::Match => return Ok(()),
            Verdict::Unknown => HostKeyError::Unknown { name, key, trust, line: known_hosts::written(&blob).unwrap_or_default() },
            Verdict::Changed(place) => HostKeyError::Changed { name, key, place, trust },
            Verdict::Revoked(place) => HostKeyError::Revoked { name, key, place },
            Verdict::Authority(place) => HostKeyError::Authority { name, place },
        };
        Err(SessionError::HostKey(error))
    }

    /// Says what an error of libssh2 means while nothing was decided yet.
    fn failed(&self, doing: &'static str, error: &ssh2::Error) -> SessionError {
        let address = self.config.hostname.clone();
        match error.code() {
            ErrorCode::Session(libssh2::TIMEOUT) => SessionError::Timeout { address, doing, after: self.timeout },
            ErrorCode::Session(libssh2::BANNER_RECV | libssh2::SOCKET_DISCONNECT | libssh2::SOCKET_SEND | libssh2::SOCKET_RECV) => {
                SessionError::Reset { address, doing, why: error.message().to_owned() }
            }
            ErrorCode::Session(_) | ErrorCode::SFTP(_) => self.other(doing, error.message()),
        }
    }

    fn other(&self, doing: &'static str, why: &str) -> SessionError {
        SessionError::Other { address: self.config.hostname.clone(), doing, why: why.to_owned() }
    }
}

/// The codes of libssh2 that are told apart (`libssh2.h`, `LIBSSH2_ERROR_…`).
mod libssh2 {
    pub const BANNER_RECV: i32 = -2;
    pub const SOCKET_SEND: i32 = -7;
    pub const TIMEOUT: i32 = -9;
    pub const SOCKET_DISCONNECT: i32 = -13;
    pub const FILE: i32 = -16;
    pub const AUTHENTICATION_FAILED: i32 = -18;
    pub const PUBLICKEY_UNVERIFIED: i32 = -19;
    pub const SOCKET_RECV: i32 = -43;
    pub const KEYFILE_AUTH_FAILED: i32 = -48;
}

/// Connects to the first address of the host that answers.
fn dial(config: &HostConfig, timeout: Duration, deadline: Instant) -> Result<TcpStream, SessionError> {
    let address = || config.hostname.clone();
    let unknown = |why: String| SessionError::Dns { address: address(), why };
    let found = (config.hostname.as_str(), config.port).to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    let mut last = unknown("it has no address".to_owned());
    for candidate in found {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SessionError::Timeout { address: address(), doing: DIALLING, after: timeout });
        }
        match TcpStream::connect_timeout(&candidate, left) {
            Ok(stream) => {
                // Each only makes a dead connection known earlier; a kernel without it is no reason to fail.
                let _ = stream.set_nodelay(true);
                let _ = rustix::net::sockopt::set_socket_keepalive(stream.as_fd(), true);
                let _ = rustix::net::sockopt::set_tcp_user_timeout(stream.as_fd(), u32::try_from(DEAD_MS).unwrap_or(u32::MAX));
                return Ok(stream);
            }
            Err(error) => last = refused(config, timeout, &error),
        }
    }
    Err(last)
}

fn refused(config: &HostConfig, timeout: Duration, error: &io::Error) -> SessionError {
    let address = config.hostname.clone();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => SessionError::Refused { address, port: config.port },
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => SessionError::Timeout { address, doing: DIALLING, after: timeout },
        io::ErrorKind::ConnectionReset => SessionError::Reset { address, doing: DIALLING, why: error.to_string() },
        _ => SessionError::Unreachable { address, why: error.to_string() },
    }
}

/// Says which algorithms are wanted: the host keys that are known first.
fn prefer(session: &Session, known: &[String]) -> Result<(), ssh2::Error> {
    let known = known.iter().flat_map(|name| match name.as_str() {
        "ssh-rsa" => vec!["rsa-sha2-512", "rsa-sha2-256"],
        name => vec![name],
    });
    let mut types: Vec<&str> = known.filter(|name| HOST_KEYS.contains(name)).collect();
    for name in HOST_KEYS {
        if !types.contains(&name) {
            types.push(name);
        }
    }
    session.method_pref(MethodType::HostKey, &types.join(","))?;
    session.method_pref(MethodType::CryptCs, CIPHERS)?;
    session.method_pref(MethodType::CryptSc, CIPHERS)
}

fn millis(duration: Duration) -> u32 {
    // Zero would mean no limit.
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}
