//! The pipe as this end uses it: one writer that sends control frames first, credit for each stream in both directions, a
//! request's input as a `Read`. Memory is bounded whatever the peer does, and every wait ends when the pipe dies. A third of the file
//! is its tests.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fd::AsFd;

use crate::wire::{self, BEAT_MS, FrameKind, FromHelper, WINDOW, frame};

/// Bytes of stream data that wait for the writer, of all streams together.
const QUEUE: usize = 1024 * 1024;
/// How often at most a request tells how far it came.
const PROGRESS: Duration = Duration::from_millis(100);

/// The way out: what waits to be written, and whether anybody can still read it.
#[derive(Default)]
pub struct Pipe {
    queues: Mutex<Queues>,
    changed: Condvar,
}

#[derive(Default)]
struct Queues {
    control: VecDeque<Vec<u8>>,
    data: VecDeque<Vec<u8>>,
    data_bytes: usize,
    writing: bool,
    dead: bool,
}

/// Takes a mutex. Every value behind one is whole between two statements, so a thread that panicked spoils none.
pub fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipe {
    /// Queues bytes that overtake all stream data.
    pub fn first(&self, bytes: Vec<u8>) {
        hold(&self.queues).control.push_back(bytes);
        self.changed.notify_all();
    }

    /// Queues a message that overtakes all stream data.
    pub fn message(&self, message: &FromHelper) {
        self.first(encode(message));
    }

    /// Queues a message behind the stream data that is queued already.
    pub fn message_in_order(&self, message: &FromHelper) {
        let bytes = encode(message);
        let mut queues = hold(&self.queues);
        queues.data_bytes += bytes.len();
        queues.data.push_back(bytes);
        drop(queues);
        self.changed.notify_all();
    }

    /// Queues a frame of a stream; waits while too much is queued. Tells whether the pipe lives.
    fn data(&self, kind: FrameKind, id: u32, payload: &[u8]) -> bool {
        let mut queues = hold(&self.queues);
        while queues.data_bytes >= QUEUE && !queues.dead {
            queues = self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
        if queues.dead {
            return false;
        }
        let mut bytes = Vec::with_capacity(frame::HEADER + payload.len());
        frame::put(&mut bytes, kind, id, payload);
        queues.data_bytes += bytes.len();
        queues.data.push_back(bytes);
        drop(queues);
        self.changed.notify_all();
        true
    }

    /// Says that nobody reads any more. All that waits is woken.
    pub fn die(&self) {
        hold(&self.queues).dead = true;
        self.changed.notify_all();
    }

    /// Waits until everything queued was written, the pipe died, or `limit` is over.
    pub fn flush(&self, limit: Duration) {
        let queues = hold(&self.queues);
        let busy = |queues: &mut Queues| !queues.dead && (queues.writing || !queues.control.is_empty() || !queues.data.is_empty());
        drop(self.changed.wait_timeout_while(queues, limit, busy).unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes what is queued to `out`, and a beat now and then, until the pipe dies. The writer thread's body.
    pub fn write_to(&self, out: impl AsFd) {
        let beat = encode(&FromHelper::Beat);
        let every = Duration::from_millis(BEAT_MS);
        let mut next_beat = Instant::now() + every;
        while let Some(bytes) = self.next(next_beat) {
            let beating = Instant::now() >= next_beat;
            let alive = (!beating || write_all(&out, &beat).is_ok()) && write_all(&out, &bytes).is_ok();
            if beating {
                next_beat = Instant::now() + every;
            }
            hold(&self.queues).writing = false;
            self.changed.notify_all();
            if !alive {
                self.die();
            }
        }
    }

    /// Takes what is to be written next; nothing (empty) at `deadline`; none when the pipe is dead.
    fn next(&self, deadline: Instant) -> Option<Vec<u8>> {
        let mut queues = hold(&self.queues);
        loop {
            if queues.dead {
                return None;
            }
            if let Some(bytes) = queues.control.pop_front() {
                queues.writing = true;
                return Some(bytes);
            }
            if let Some(bytes) = queues.data.pop_front() {
                queues.data_bytes -= bytes.len();
                queues.writing = true;
                return Some(bytes);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Vec::new());
            }
            queues = self.changed.wait_timeout(queues, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn write_all(out: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(out, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Encodes a message, or the failure that stands for one that is too long to send.
fn encode(message: &FromHelper) -> Vec<u8> {
    use crate::op::{Code, Failure};
    let too_long = |error: wire::FrameError| match message {
        FromHelper::Answer { id, .. } => {
            let failure = Failure { code: Code::Protocol, message: format!("the answer cannot be sent: {error}"), hint: None };
            wire::encode(&FromHelper::Answer { id: *id, result: Err(failure) }).unwrap_or_default()
        }
        FromHelper::Hello { .. } | FromHelper::Credit { .. } | FromHelper::Beat | FromHelper::Progress { .. } => Vec::new(),
    };
    wire::encode(message).unwrap_or_else(too_long)
}

/// Says that the peer sent more than it had credit for.
#[derive(Debug, PartialEq, Eq)]
pub struct Overrun;

/// Says that a stream's reader is gone, or that its request was stopped.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

/// One request under way: its two streams and whether it was asked to stop.
pub struct Request {
    pub id: u32,
    pipe: Arc<Pipe>,
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Default)]
struct Flow {
    /// Bytes that may be sent.
    credit: u64,
    input: VecDeque<Vec<u8>>,
    /// Bytes received and not yet granted again.
    outstanding: u64,
    /// Bytes consumed since the last grant.
    consumed: u64,
    ended: bool,
    stopped: bool,
    /// When the peer was told last how far this came.
    told: Option<Instant>,
}

impl Request {
    pub fn new(id: u32, pipe: Arc<Pipe>) -> Self {
        Self { id, pipe, flow: Mutex::new(Flow { credit: WINDOW, ..Flow::default() }), changed: Condvar::new() }
    }

    /// Asks the request to end. Its waits end with an error; what it runs is ended.
    pub fn stop(&self) {
        hold(&self.flow).stopped = true;
        self.changed.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        hold(&self.flow).stopped
    }

    /// Waits for `limit`, or until the request is stopped.
    pub fn pause(&self, limit: Duration) {
        drop(self.changed.wait_timeout_while(hold(&self.flow), limit, |flow| !flow.stopped).unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes credit that the peer grants.
    pub fn grant(&self, bytes: u64) {
        let mut flow = hold(&self.flow);
        flow.credit = flow.credit.saturating_add(bytes);
        drop(flow);
        self.changed.notify_all();
    }

    /// Takes a part of the request's input.
    pub fn receive(&self, payload: Vec<u8>) -> Result<(), Overrun> {
        // It costs no credit, so there may be any number of them.
        if payload.is_empty() {
            return Ok(());
        }
        let mut flow = hold(&self.flow);
        flow.outstanding += payload.len() as u64;
        if flow.outstanding > WINDOW {
            return Err(Overrun);
        }
        flow.input.push_back(payload);
        drop(flow);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes the end of the request's input.
    pub fn receive_end(&self) {
        hold(&self.flow).ended = true;
        self.changed.notify_all();
    }

    /// Waits up to `limit` for credit; says how many bytes may be sent.
    pub fn credit(&self, limit: Duration) -> u64 {
        let flow = hold(&self.flow);
        let none = |flow: &mut Flow| flow.credit == 0 && !flow.stopped;
        self.changed.wait_timeout_while(flow, limit, none).unwrap_or_else(PoisonError::into_inner).0.credit
    }

    /// Sends bytes of the request's stream, waiting for credit.
    pub fn send(&self, kind: FrameKind, mut bytes: &[u8]) -> Result<(), Closed> {
        while !bytes.is_empty() {
            let mut flow = hold(&self.flow);
            while flow.credit == 0 && !flow.stopped {
                flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
            }
            if flow.stopped {
                return Err(Closed);
            }
            let most = usize::try_from(flow.credit).unwrap_or(usize::MAX).min(frame::MAX_PAYLOAD).min(bytes.len());
            flow.credit -= most as u64;
            drop(flow);
            let (now, later) = bytes.split_at(most);
            if !self.pipe.data(kind, self.id, now) {
                return Err(Closed);
            }
            bytes = later;
        }
        Ok(())
    }

    /// The request's stream as a `Write`.
    pub const fn output(&self) -> Output<'_> {
        Output { request: self }
    }

    /// Ends the request's stream. Costs no credit.
    pub fn send_end(&self) {
        self.pipe.data(FrameKind::End, self.id, &[]);
    }

    /// Tells how far the request came, unless it was told just now: each message wakes four processes.
    pub fn progress(&self, done: u64) {
        let mut flow = hold(&self.flow);
        let now = Instant::now();
        if flow.told.is_some_and(|told| now.duration_since(told) < PROGRESS) {
            return;
        }
        flow.told = Some(now);
        drop(flow);
        self.pipe.message(&FromHelper::Progress { id: self.id, done });
    }

    /// The request's input. An end of file is the peer's word that all was sent; anything else is an error.
    pub fn input(&self) -> Input<'_> {
        Input { request: self, piece: Vec::new(), at: 0 }
    }
}

/// A request's stream as a `Write`.
pub struct Output<'a> {
    request: &'a Request,
}

impl io::Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.request.send(FrameKind::Data, bytes);
        sent.map(|()| bytes.len()).map_err(|_| io::Error::new(io::ErrorKind::ConnectionAborted, "the stream was cut off"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request's input as a `Read`.
pub struct Input<'a> {
    request: &'a Request,
    piece: Vec<u8>,
    at: usize,
}

impl Input<'_> {
    /// Waits for the next piece; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        let request = self.request;
        let mut flow = hold(&request.flow);
        loop {
            if flow.stopped {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the stream was cut off"));
            }
            if let Some(piece) = flow.input.pop_front() {
                self.piece = piece;
                self.at = 0;
                return Ok(true);
            }
            if flow.ended {
                return Ok(false);
            }
            flow = request.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn grant(&self, bytes: u64) {
        let request = self.request;
        let mut flow = hold(&request.flow);
        flow.consumed += bytes;
        // A grant for each frame would cost a message each; one for each quarter of the window never lets the peer wait.
        if flow.consumed >= WINDOW / 4 {
            let bytes = std::mem::take(&mut flow.consumed);
            flow.outstanding -= bytes;
            drop(flow);
            request.pipe.message(&FromHelper::Credit { id: request.id, bytes });
        }
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.len() && self.next()? {}
        Ok(self.piece.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        self.grant(count as u64);
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = if buffer.is_empty() { &[] } else { self.fill_buf()? };
        let count = rest.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn request() -> Request {
        Request::new(1, Arc::new(Pipe::default()))
    }

    #[test]
    fn input_ends_only_with_an_end_frame() {
        let request = request();
        request.receive(b"half".to_vec()).unwrap();
        request.stop();
        assert!(request.input().read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_peer_that_sends_more_than_the_window_is_refused() {
        let request = request();
        let piece = vec![0; frame::MAX_PAYLOAD];
        let taken = (0..1000).take_while(|_| request.receive(piece.clone()).is_ok()).count();
        assert_eq!(taken as u64, WINDOW / frame::MAX_PAYLOAD as u64);
    }

    #[test]
    fn frames_without_content_are_not_kept() {
        let request = request();
        (0..1000).for_each(|_| request.receive(Vec::new()).unwrap());
        assert!(hold(&request.flow).input.is_empty());
    }

    #[test]
    fn consumed_input_is_granted_again() {
        let request = request();
        let piece = vec![7; frame::MAX_PAYLOAD];
        let mut input = request.input();
        let mut buffer = vec![0; frame::MAX_PAYLOAD];
        for _ in 0..500 {
            request.receive(piece.clone()).unwrap();
            input.read_exact(&mut buffer).unwrap();
        }
        assert_eq!(buffer, piece);
    }

    #[test]
    fn a_sender_without_credit_waits_and_a_stop_lets_it_go() {
        let request = request();
        thread::scope(|scope| {
            let sender = scope.spawn(|| request.send(FrameKind::Data, &vec![0; 3 * 1024 * 1024]));
            request.stop();
            request.pipe.die();
            assert_eq!(sender.join().unwrap(), Err(Closed));
        });
    }

    #[test]
    fn control_frames_overtake_data() {
        let pipe = Arc::new(Pipe::default());
        let request = Request::new(1, Arc::clone(&pipe));
        request.send(FrameKind::Data, b"data").unwrap();
        pipe.first(b"control".to_vec());
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!(pipe.next(soon).unwrap(), b"control");
        assert!(pipe.next(soon).unwrap().ends_with(b"data"));
    }
}
