//! The loop that moves bytes between a channel and the socket pair, without ever blocking on either.
//!
//! Rules of libssh2 that it keeps: after `WouldBlock` a write is repeated with the same slice; stdout and stderr are both drained after
//! every wake, since a packet for one may have been read on behalf of the other and the socket is then silent; the channel and the
//! session are dropped on this thread.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, Session};

use super::super::Diagnostics;
use super::super::ssh_config::Alive;
use super::Opened;

const BUFFER: usize = 64 * 1024;
/// How long saying goodbye may take.
const GOODBYE_MS: u32 = 300;

/// This side's ends: the pipe, and a socket whose end means that nobody wants the session any more.
pub(super) struct Ends {
    pub local: UnixStream,
    pub life: UnixStream,
}

/// Bytes on their way in one direction.
struct Flow {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    finished: bool,
}

impl Flow {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER], start: 0, end: 0, finished: false }
    }

    const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads once if there is room. Tells whether anything happened.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        if self.finished || !self.is_empty() {
            return Ok(false);
        }
        let Some(count) = unless_blocked(from.read(&mut self.buffer))? else { return Ok(false) };
        (self.start, self.end, self.finished) = (0, count, count == 0);
        Ok(true)
    }

    /// Writes once if there is anything.
    fn drain(&mut self, to: &mut impl Write) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let Some(count) = unless_blocked(to.write(&self.buffer[self.start..self.end]))? else { return Ok(false) };
        self.start += count;
        Ok(count > 0)
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// When a sign of life is asked for next, and when anything was heard last.
struct Watch {
    alive: Alive,
    due: Instant,
    heard: Instant,
}

/// Relays until either side is done, then closes the session.
pub(super) fn run(mut opened: Opened, ends: &Ends, diagnostics: &Diagnostics) {
    // An error here is the end of a connection; who reads the pipe sees it end and decides what that means.
    let _ = relay(&mut opened, ends, diagnostics);
    let _ = ends.local.shutdown(Shutdown::Both);
    say_goodbye(opened);
}

fn relay(opened: &mut Opened, ends: &Ends, diagnostics: &Diagnostics) -> io::Result<()> {
    let Opened { session, channel, socket, alive } = opened;
    session.set_timeout(0);
    session.set_blocking(false);
    session.set_keepalive(true, u32::try_from(alive.every.as_secs()).unwrap_or(15));
    ends.local.set_nonblocking(true)?;
    ends.life.set_nonblocking(true)?;
    let (mut up, mut down, mut errors) = (Flow::new(), Flow::new(), Flow::new());
    let mut said_end = false;
    let mut watch = Watch { alive: *alive, due: Instant::now() + alive.every, heard: Instant::now() };
    loop {
        let mut moved = up.fill(&mut &ends.local)? | up.drain(channel)?;
        moved |= down.fill(channel)? | down.drain(&mut &ends.local)?;
        if errors.fill(&mut channel.stderr())? {
            diagnostics.push(&errors.buffer[errors.start..errors.end]);
            errors.start = errors.end;
            moved = true;
        }
        if up.finished && up.is_empty() && !said_end {
            said_end = send_end(channel)?;
        }
        if down.finished && down.is_empty() && errors.finished {
            return Ok(());
        }
        if !moved && !wait(session, socket.as_fd(), ends, (&up, &down), &mut watch)? {
            return Ok(());
        }
    }
}

fn send_end(channel: &mut Channel) -> io::Result<bool> {
    Ok(unless_blocked(channel.send_eof().map(|()| 0).map_err(io::Error::from))?.is_some())
}

/// Sleeps until one of the ends can go on, and keeps the connection alive. Tells whether anybody still wants the session.
fn wait(
    session: &Session,
    socket: std::os::fd::BorrowedFd<'_>,
    ends: &Ends,
    (up, down): (&Flow, &Flow),
    watch: &mut Watch,
) -> io::Result<bool> {
    let outbound = matches!(session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
    let mut socket_wants = PollFlags::IN;
    socket_wants.set(PollFlags::OUT, outbound);
    let mut local_wants = PollFlags::empty();
    local_wants.set(PollFlags::IN, up.is_empty() && !up.finished);
    local_wants.set(PollFlags::OUT, !down.is_empty());
    let left = watch.due.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    let mut polled = vec![PollFd::from_borrowed_fd(socket, socket_wants), PollFd::new(&ends.life, PollFlags::IN)];
    // A pipe whose reader is gone reports a hang-up for ever; it is left out while nothing is expected of it.
    if !local_wants.is_empty() {
        polled.push(PollFd::new(&ends.local, local_wants));
    }
    match poll(&mut polled, Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if polled.first().is_some_and(|socket| socket.revents().contains(PollFlags::IN)) {
        watch.heard = Instant::now();
    }
    if Instant::now() >= watch.due {
        watch.due = Instant::now() + watch.alive.every;
        // libssh2 does not count the answers that stay out.
        if watch.heard.elapsed() > watch.alive.every * (watch.alive.count + 1) {
            return Ok(false);
        }
        // libssh2 keeps a half-sent keep-alive in a buffer that it then forgets, so it must find room for the whole of it.
        let mut room = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
        if !outbound && poll(&mut room, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready == 1) {
            session.keepalive_send()?;
        }
    }
    Ok(unless_blocked((&ends.life).read(&mut [0]))?.is_none())
}

/// Ends channel and session in order if the host answers at once, and by cutting the socket if not.
fn say_goodbye(opened: Opened) {
    let Opened { session, mut channel, socket, .. } = opened;
    session.set_blocking(true);
    session.set_timeout(GOODBYE_MS);
    let _ = channel.close();
    let _ = session.disconnect(None, "done", None);
    let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
    drop(channel);
}
