//! Where a command's output goes: to the peer as far as it gives credit, to a log, and never more of it than the limit and an end.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use crate::pipe::Request;
use crate::wire::FrameKind;

/// What is kept of the output beyond the limit: its end, where the reason of a failure is.
const TAIL: usize = 64 * 1024;
/// What is kept of the beginning of standard error, to recognise sudo.
const HEAD: usize = 512;

/// Where output goes.
#[derive(Default)]
pub struct Output<'a> {
    stream: Option<&'a Request>,
    /// The request whose stop ends the command, where none hears what it says.
    stopper: Option<&'a Request>,
    log: Option<Box<dyn Write + 'a>>,
    pub(super) log_error: Option<io::Error>,
    pub(super) total: u64,
    pub(super) dropped: u64,
    tail: VecDeque<u8>,
    pub(super) error_head: Vec<u8>,
}

impl<'a> Output<'a> {
    /// To the stream of a request.
    pub fn to(request: &'a Request) -> Self {
        Self { stream: Some(request), ..Self::default() }
    }

    /// To the stream of a request, and to a log on the disk.
    pub fn to_both(request: &'a Request, log: impl Write + 'a) -> Self {
        Self { log: Some(Box::new(log)), ..Self::to(request) }
    }

    /// To nobody; a stop of the request still ends the command.
    pub fn unheard(request: &'a Request) -> Self {
        Self { stopper: Some(request), ..Self::default() }
    }

    /// Adds a line of our own to what the command says.
    pub fn say(&mut self, line: &str) {
        self.pass(FrameKind::DataErr, format!("{line}\n").as_bytes());
    }

    pub fn is_stopped(&self) -> bool {
        self.stream.or(self.stopper).is_some_and(Request::is_stopped)
    }

    /// Waits for `limit`, or until a stop.
    pub fn pause(&self, limit: Duration) {
        match self.stream.or(self.stopper) {
            Some(request) => request.pause(limit),
            None => std::thread::sleep(limit),
        }
    }

    pub(super) fn room(&self, wait: Duration) -> u64 {
        self.stream.map_or(u64::MAX, |stream| stream.credit(wait))
    }

    fn pass(&mut self, kind: FrameKind, bytes: &[u8]) {
        if let Some(stream) = self.stream {
            // A stopped request's output is of no use to anybody.
            let _ = stream.send(kind, bytes);
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log.write_all(bytes)
        {
            self.log_error.get_or_insert(error);
            self.log = None;
        }
    }

    /// Takes output as it comes: passes it on up to `limit`, then keeps its end.
    pub(super) fn take(&mut self, kind: FrameKind, bytes: &[u8], limit: u64) {
        if kind == FrameKind::DataErr && self.error_head.len() < HEAD {
            self.error_head.extend(bytes.iter().take(HEAD));
        }
        let left = usize::try_from(limit.saturating_sub(self.total)).unwrap_or(usize::MAX).min(bytes.len());
        self.total += bytes.len() as u64;
        let (now, beyond) = bytes.split_at(left);
        if !now.is_empty() {
            self.pass(kind, now);
        }
        self.dropped += beyond.len() as u64;
        self.tail.extend(beyond);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
    }

    /// Sends the end of what was beyond the limit.
    pub(super) fn finish(&mut self) {
        let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        if tail.is_empty() {
            return;
        }
        self.dropped -= tail.len() as u64;
        if self.dropped > 0 {
            self.pass(FrameKind::Data, format!("\n… {} bytes omitted …\n", self.dropped).as_bytes());
        }
        self.pass(FrameKind::Data, &tail);
    }
}
