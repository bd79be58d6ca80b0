//! The serve loop: reads frames until the controller says goodbye or is gone. Requests that change the host run one at a time, in
//! order; the others run beside them. When the pipe is dead, what runs is ended and the lock goes with this process.

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::helper::Helper;
use crate::op::Op;
use crate::pipe::{Pipe, Request, hold};
use crate::wire::{self, DEAD_MS, Decoder, Frame, FrameError, FrameKind, FromHelper, GRACE_MS, Messages, ToHelper};
use crate::{dispatch, facts, lock, store};

/// Requests at one time; no controller comes near it.
const MOST: usize = 256;
/// What ending everything may take, beyond the grace of what runs.
const MARGIN: Duration = Duration::from_secs(3);
const CORRUPT: u8 = 3;
/// What the pipe from sshd shall hold: as much as any user may ask for.
const INPUT: usize = 1024 * 1024;
/// How often it looks whether somebody wants this run to end.
const LOOK: Duration = Duration::from_secs(1);
/// How often it leaves a sign beside the lock that its controller lives.
const SIGN: Duration = Duration::from_secs(4);

/// Why the loop ended.
#[derive(Debug)]
enum Over {
    Bye,
    /// The pipe is closed or silent.
    Dead,
    /// What came is not our language.
    Garbled(String),
    /// Somebody asked for the end of the run that holds the lock: who.
    Asked(String),
}

impl From<FrameError> for Over {
    fn from(error: FrameError) -> Self {
        Self::Garbled(error.to_string())
    }
}

/// `serve MARKER ROOT DIGEST`
pub fn main(arguments: &[OsString]) -> ExitCode {
    let words: Option<Vec<&str>> = arguments.iter().map(|argument| argument.to_str()).collect();
    let Some([marker, root, digest]) = words.as_deref() else { return ExitCode::from(2) };
    let stdout = std::io::stdout();
    if own_digest().is_none_or(|own| !own.eq_ignore_ascii_case(digest)) {
        let _ = rustix::io::write(&stdout, format!("{marker} corrupt\n").as_bytes());
        return ExitCode::from(CORRUPT);
    }
    let pipe = Arc::new(Pipe::default());
    pipe.first(format!("{marker} ok\n").into_bytes());
    let writer = Arc::clone(&pipe);
    thread::spawn(move || writer.write_to(stdout));
    let helper = Arc::new(Helper::new((*root).to_owned()));
    pipe.message(&FromHelper::Hello { version: wire::VERSION, facts: Box::new(facts::read(&helper)) });
    let server = Server::new(helper, pipe);
    let input = std::io::stdin();
    // Best effort: what does not fit waits in sshd, whose buffers are costly to grow.
    let _ = rustix::pipe::fcntl_setpipe_size(&input, INPUT);
    let over = server.read(&input);
    server.close(&over)
}

/// Hashes the bytes that are running: what was sent may have been cut short or changed on the way or on the disk.
fn own_digest() -> Option<String> {
    let file = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => return Some(crate::tree::Digest(hasher.finalize().into()).to_string()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

struct Server {
    helper: Arc<Helper>,
    pipe: Arc<Pipe>,
    running: Arc<Running>,
    /// To the thread that changes the host.
    changes: mpsc::Sender<(Arc<Request>, Op)>,
}

/// The requests under way.
#[derive(Default)]
struct Running {
    requests: Mutex<HashMap<u32, Arc<Request>>>,
    fewer: Condvar,
}

impl Server {
    fn new(helper: Arc<Helper>, pipe: Arc<Pipe>) -> Self {
        let (changes, queue) = mpsc::channel::<(Arc<Request>, Op)>();
        let running = Arc::new(Running::default());
        let (for_helper, for_pipe, for_running) = (Arc::clone(&helper), Arc::clone(&pipe), Arc::clone(&running));
        thread::spawn(move || {
            for (request, op) in queue {
                perform(&for_helper, &for_pipe, &for_running, &request, op);
            }
        });
        Self { helper, pipe, running, changes }
    }

    /// Reads frames until there is a reason to end.
    fn read(&self, input: &impl AsFd) -> Over {
        let mut decoder = Decoder::default();
        let mut messages = Messages::default();
        let mut buffer = vec![0; 128 * 1024];
        let tick = Timespec { tv_sec: i64::try_from(LOOK.as_secs()).unwrap_or(1), tv_nsec: 0 };
        let (mut heard, mut looked, mut signed) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                if let Some(by) = self.helper.asked_to_end() {
                    return Over::Asked(by);
                }
            }
            let mut watched = [PollFd::new(input, PollFlags::IN)];
            match poll(&mut watched, Some(&tick)) {
                Ok(0) if heard.elapsed() < Duration::from_millis(DEAD_MS) => continue,
                Ok(0) => return Over::Dead,
                Ok(_) => heard = Instant::now(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Over::Dead,
            }
            match rustix::io::read(input, &mut buffer) {
                Ok(0) => return Over::Dead,
                Ok(count) => {
                    if signed.elapsed() >= SIGN {
                        signed = Instant::now();
                        self.helper.leave_sign();
                    }
                    if let Err(over) = self.take(&mut decoder, &mut messages, &buffer[..count]) {
                        return over;
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => return Over::Dead,
            }
        }
    }

    fn take(&self, decoder: &mut Decoder, messages: &mut Messages, bytes: &[u8]) -> Result<(), Over> {
        decoder.feed(bytes);
        while let Some(Frame { kind, id, payload }) = decoder.next_frame()? {
            match kind {
                FrameKind::Part => messages.part(&payload)?,
                FrameKind::Message => self.obey(messages.message(&payload)?)?,
                // A stream that nobody reads any more: its request was answered while this was on its way.
                FrameKind::Data => {
                    if let Some(request) = self.request(id) {
                        request.receive(payload).map_err(|_| Over::Garbled(format!("stream {id} sends more than it may")))?;
                    }
                }
                FrameKind::End => {
                    if let Some(request) = self.request(id) {
                        request.receive_end();
                    }
                }
                FrameKind::DataErr => return Err(Over::Garbled("a controller has no standard error".into())),
            }
        }
        Ok(())
    }

    fn obey(&self, message: ToHelper) -> Result<(), Over> {
        match message {
            ToHelper::Request { id, op } => self.start(id, *op)?,
            ToHelper::Stop { id } => {
                if let Some(request) = self.request(id) {
                    request.stop();
                }
            }
            ToHelper::Credit { id, bytes } => {
                if let Some(request) = self.request(id) {
                    request.grant(bytes);
                }
            }
            ToHelper::Beat => {}
            ToHelper::Bye => return Err(Over::Bye),
        }
        Ok(())
    }

    fn request(&self, id: u32) -> Option<Arc<Request>> {
        hold(&self.running.requests).get(&id).cloned()
    }

    fn start(&self, id: u32, op: Op) -> Result<(), Over> {
        let request = Arc::new(Request::new(id, Arc::clone(&self.pipe)));
        let mut requests = hold(&self.running.requests);
        if requests.len() >= MOST || requests.insert(id, Arc::clone(&request)).is_some() {
            return Err(Over::Garbled(format!("request {id} is under way already, or too many are")));
        }
        drop(requests);
        if dispatch::changes_the_host(&op) {
            return self.changes.send((request, op)).map_err(|_| Over::Garbled("the worker is gone".into()));
        }
        let (helper, pipe, running) = (Arc::clone(&self.helper), Arc::clone(&self.pipe), Arc::clone(&self.running));
        thread::spawn(move || perform(&helper, &pipe, &running, &request, op));
        Ok(())
    }

    /// Ends what runs, lets the lock go, and says how this process ends.
    fn close(&self, over: &Over) -> ExitCode {
        let code = match over {
            Over::Bye => ExitCode::SUCCESS,
            Over::Dead => ExitCode::FAILURE,
            Over::Garbled(why) => {
                eprintln!("deployer-helper: {why}");
                ExitCode::FAILURE
            }
            Over::Asked(by) => {
                eprintln!("deployer-helper: {} ended this run", crate::tree::path::Shown(by.as_bytes()));
                ExitCode::FAILURE
            }
        };
        match over {
            Over::Bye => {}
            // Nobody reads: whoever waits to write must not.
            Over::Dead | Over::Garbled(_) | Over::Asked(_) => self.pipe.die(),
        }
        for request in hold(&self.running.requests).values() {
            request.stop();
        }
        let limit = Duration::from_millis(GRACE_MS) + MARGIN;
        let waiting = self.running.fewer.wait_timeout_while(hold(&self.running.requests), limit, |requests| !requests.is_empty());
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
        let held = hold(&self.helper.lock).take().and_then(Arc::into_inner);
        if let (Some(lock), Ok(root)) = (held, self.helper.root()) {
            lock::release(&root, lock);
        }
        self.pipe.flush(MARGIN);
        if matches!(over, Over::Bye) && self.helper.spare_is_due.load(Ordering::Relaxed) {
            // Best effort: without a spare the next release is copied.
            let _ = store::start_spare(&self.helper);
        }
        code
    }
}

/// Answers one request: its stream first, then the answer.
fn perform(helper: &Helper, pipe: &Pipe, running: &Running, request: &Request, op: Op) {
    let streams = dispatch::writes_a_stream(&op);
    let result = dispatch::answer(helper, request, op);
    hold(&running.requests).remove(&request.id);
    running.fewer.notify_all();
    let answer = FromHelper::Answer { id: request.id, result };
    if streams {
        request.send_end();
        pipe.message_in_order(&answer);
    } else {
        pipe.message(&answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server() -> Server {
        let helper = Arc::new(Helper::new("/nonexistent/deployer".into()));
        Server::new(helper, Arc::new(Pipe::default()))
    }

    #[test]
    fn a_request_under_an_id_that_is_in_use_ends_the_conversation() {
        let server = server();
        hold(&server.running.requests).insert(7, Arc::new(Request::new(7, Arc::clone(&server.pipe))));
        assert!(matches!(server.start(7, Op::Facts), Err(Over::Garbled(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_end_the_conversation_or_are_waited_for(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1_usize..40) {
            let server = server();
            let (mut decoder, mut messages) = (Decoder::default(), Messages::default());
            for chunk in bytes.chunks(cut) {
                if server.take(&mut decoder, &mut messages, chunk).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn any_frames_end_the_conversation_or_are_waited_for(frames in proptest::collection::vec((0_u8..6, 0_u32..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..12)) {
            let server = server();
            let (mut decoder, mut messages) = (Decoder::default(), Messages::default());
            for (kind, id, payload) in frames {
                let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
                bytes.push(kind);
                bytes.extend_from_slice(&id.to_le_bytes());
                bytes.extend_from_slice(&payload);
                if server.take(&mut decoder, &mut messages, &bytes).is_err() {
                    break;
                }
            }
        }
    }
}
