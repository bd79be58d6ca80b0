//! The end of what a remote wrote to its stderr, shared between the session that gathers it and whoever explains a failure.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use super::error::SessionError;
use crate::tree::path::Shown;

/// Bytes that are kept.
pub const TAIL: usize = 64 * 1024;

/// A shared tail of stderr.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    tail: Arc<Mutex<VecDeque<u8>>>,
    closed: watch::Sender<bool>,
    judge: Option<Judge>,
}

/// What the stderr of a client program says of a session that came to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    pub classify: fn(&str, &Judge) -> Option<SessionError>,
    pub address: String,
    /// Under which its key is looked up.
    pub name: String,
    /// What a person calls it.
    pub trust: String,
    pub port: u16,
    pub user: String,
    pub timeout: Duration,
}

impl Diagnostics {
    pub(crate) fn new(judge: Option<Judge>) -> Self {
        Self { tail: Arc::default(), closed: watch::Sender::new(false), judge }
    }

    /// Appends bytes; the oldest beyond 64 KiB are forgotten.
    pub(super) fn push(&self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (tail.len() + bytes.len()).saturating_sub(TAIL);
        tail.drain(..excess);
        tail.extend(bytes);
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Gathers from `stream` until it ends.
    pub(super) async fn gather(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            self.push(&buffer[..count]);
        }
        self.close();
    }

    /// The last `count` lines, escaped.
    #[must_use]
    pub fn lines(&self, count: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let lines: Vec<String> = shown_lines(&bytes).collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }

    /// Waits until stderr has ended, but not for ever: a grandchild may hold it open.
    pub async fn settle(&self, patience: Duration) {
        let mut closed = self.closed.subscribe();
        let _ = tokio::time::timeout(patience, closed.wait_for(|closed| *closed)).await;
    }

    /// What a client program's stderr says about a session that ended before the remote had printed its marker.
    pub(super) async fn verdict(&self) -> Option<SessionError> {
        let judge = self.judge.as_ref()?;
        self.settle(Duration::from_secs(2)).await;
        (judge.classify)(&self.lines(100).join("\n"), judge)
    }
}

/// Cuts what a host printed into lines, escaped and each at most 200 characters long.
pub(super) fn shown_lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    let line = |line: &[u8]| Shown(line.trim_ascii_end()).to_string().chars().take(200).collect::<String>();
    bytes.split(|byte| *byte == b'\n').map(line).filter(|line| !line.is_empty())
}
