//! One host with its open session: requests go in, answers and streams come out, and a pipe that fell silent ends every one of them.
//!
//! `shared` is the state, `pump` the two tasks that own the pipe's ends, `call` one request.

mod call;
mod pump;
#[cfg(test)]
mod real_tests;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::environment::{Connect, HostPath, SessionKind, Target};
use crate::op::{Answer, Facts, Failure, Op};
use crate::session::bootstrap::{self, Started};
use crate::session::{Opener, Pipe};
use crate::wire::{self, ToHelper};

pub use crate::session::ConnectError;
pub use call::{Call, CallReceiver, CallSender, Reply};
use shared::Shared;

/// What a helper gets to say goodbye in.
const GOODBYE: Duration = Duration::from_secs(2);
/// Hosts on the way whose keys a person may accept one after the other.
const MOST_TRUSTED: u32 = 9;
/// The longest wait between two tries to connect.
const BACKOFF: Duration = Duration::from_secs(8);

/// Says why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// What the host did of it is not known.
    #[error("the connection to `{host}` was lost: {why}")]
    Lost { host: String, why: String },
    /// The host did not do it, and says why.
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("`{host}` does not keep to the protocol: {why}")]
    Protocol { host: String, why: String },
}

/// A target with an open session. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    session: (SessionKind, String),
    shared: Arc<Shared>,
    noise: Vec<String>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.fail("it was closed");
    }
}

impl HostError {
    /// Says that a host answered a request with what is no answer to it.
    #[must_use]
    pub fn unexpected(host: &str, answer: &Answer) -> Self {
        let answer = format!("{answer:?}");
        let kind = answer.split(['(', ' ']).next().unwrap_or_default().to_owned();
        Self::Protocol { host: host.to_owned(), why: format!("`{kind}` is no answer to what was asked") }
    }
}

impl Host {
    /// Connects, puts a helper there if need be, and waits for its first word. Tries again where that may help.
    ///
    /// # Errors
    /// As `ConnectError` says; after it nothing was changed on the host but, perhaps, a helper left in its cache.
    pub async fn connect(target: &Target, root: &HostPath, connect: &Connect) -> Result<Self, ConnectError> {
        let opener = Opener::prepare(target, connect).await?;
        let (mut tries, mut trusted) = (0, 0);
        loop {
            match Self::try_connect(target, root, connect.timeout, &opener).await {
                // The key that was recorded is the one that the next try insists on. Each host on the way may be unknown too.
                Err(ConnectError::Session(error)) if connect.trust_first_use && trusted < MOST_TRUSTED && opener.trust(&error).await => {
                    trusted += 1;
                }
                Err(error) if error.is_transient() && tries < connect.retries => {
                    sleep(backoff(tries)).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_connect(target: &Target, root: &HostPath, timeout: Duration, opener: &Opener) -> Result<Self, ConnectError> {
        let started = bootstrap::start(opener, root, timeout).await?;
        Self::greet(target, (opener.kind, opener.reason.clone()), started).await
    }

    /// Takes over a pipe at whose other end a helper has checked itself.
    async fn greet(target: &Target, session: (SessionKind, String), started: Started) -> Result<Self, ConnectError> {
        let Started { pipe, early, noise, uploaded } = started;
        let Pipe { mut reader, writer, diagnostics, owner } = pipe;
        let mut incoming = pump::Incoming::new(&early);
        let refused = |why: String| ConnectError::Protocol { host: target.name.clone(), why };
        let facts = incoming.hello(&mut reader).await.map_err(refused)?;
        let (shared, queues) = Shared::new(&target.name, facts, diagnostics, owner);
        shared.sent.store(uploaded, Ordering::Relaxed);
        let tasks = [
            tokio::spawn(pump::read(Arc::clone(&shared), incoming, reader)),
            tokio::spawn(pump::write(Arc::clone(&shared), queues, writer)),
        ];
        Ok(Self { inner: Arc::new(Inner { target: target.clone(), session, shared, noise, tasks }) })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.target.name
    }

    #[must_use]
    pub fn target(&self) -> &Target {
        &self.inner.target
    }

    /// What opened the pipe, and why that.
    #[must_use]
    pub fn session(&self) -> (SessionKind, &str) {
        (self.inner.session.0, &self.inner.session.1)
    }

    /// What the host said of itself last.
    #[must_use]
    pub fn facts(&self) -> Arc<Facts> {
        self.inner.shared.facts()
    }

    /// What the host's shell printed before the helper ran, escaped: a reason for a note.
    #[must_use]
    pub fn noise(&self) -> &[String] {
        &self.inner.noise
    }

    /// Bytes written to the pipe, an uploaded helper included.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.inner.shared.sent.load(Ordering::Relaxed)
    }

    /// Reads the host's state again.
    ///
    /// # Errors
    /// As `ask`.
    pub async fn refresh(&self) -> Result<Arc<Facts>, HostError> {
        match self.ask(Op::Facts).await? {
            Answer::Facts(_) => Ok(self.facts()),
            other => Err(self.inner.shared.protocol(format!("facts were asked for, and the answer is {other:?}"))),
        }
    }

    /// Makes a request whose stream does not matter.
    ///
    /// # Errors
    /// The host failed to do it, or was lost.
    pub async fn ask(&self, op: Op) -> Result<Answer, HostError> {
        self.start(op).await?.answer().await
    }

    /// Makes a request and gives its streams.
    ///
    /// # Errors
    /// The host is lost, or the request is longer than a message may be.
    #[expect(clippy::unused_async, reason = "callers await it: starting may come to wait for room")]
    pub async fn start(&self, op: Op) -> Result<Call, HostError> {
        let shared = &self.inner.shared;
        let (id, state) = shared.register()?;
        let call = Call::new(Arc::clone(&self.inner), id, state);
        let message = wire::encode(&ToHelper::Request { id, op: Box::new(op) }).map_err(|error| {
            shared.forget(id);
            shared.protocol(error.to_string())
        })?;
        shared.control(message);
        Ok(call)
    }

    /// Says goodbye, waits briefly for the helper to let its lock go, and ends the session. Requests that are open are lost.
    pub async fn close(&self) {
        let shared = &self.inner.shared;
        if let Ok(message) = wire::encode(&ToHelper::Bye) {
            shared.control(message);
        }
        let _ = timeout(GOODBYE, shared.ended()).await;
        shared.fail("it was closed");
    }
}

/// Doubles the wait with each try, and adds chance so that hosts behind one door do not knock together again.
fn backoff(tries: u32) -> Duration {
    let most = Duration::from_millis(250).saturating_mul(2_u32.saturating_pow(tries)).min(BACKOFF);
    let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
    most / 2 + (most / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}
