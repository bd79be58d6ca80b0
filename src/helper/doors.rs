//! Doors: where a command reaches a service of the controller, the package index. A door listens on loopback while its command runs;
//! each connection through it is the two streams of a request.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;

use crate::failure;
use crate::op::{Code, Failure};
use crate::pipe::{Request, hold};
use crate::wire::FrameKind;
use crate::wire::frame::MAX_PAYLOAD;

/// How often a wait looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// The doors that are open, by number.
#[derive(Default)]
pub struct Doors {
    open: Mutex<HashMap<u64, Arc<TcpListener>>>,
    changed: Condvar,
}

impl Doors {
    /// Opens a door until `Opened` is dropped.
    pub fn open(&self, id: u64, listener: TcpListener) -> io::Result<Opened<'_>> {
        listener.set_nonblocking(true)?;
        hold(&self.open).insert(id, Arc::new(listener));
        self.changed.notify_all();
        Ok(Opened { doors: self, id })
    }

    /// Waits for one connection through a door, and carries it to its end.
    pub fn carry(&self, id: u64, request: &Request) -> Result<(), Failure> {
        let stream = self.accept(id, request).ok_or_else(|| failure::new(Code::Stopped, "the door is closed"))?;
        // Requests and answers are short, and the peer waits for each.
        let _ = stream.set_nodelay(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = copy_in(request, &stream);
                let _ = stream.shutdown(Shutdown::Both);
            });
            copy_out(&stream, request);
            let _ = stream.shutdown(Shutdown::Both);
            // What the controller still sends is for nobody.
            request.stop();
        });
        Ok(())
    }

    fn accept(&self, id: u64, request: &Request) -> Option<TcpStream> {
        // A door that is not there is not there yet: the controller lets go of those that are there no more.
        let mut seen = false;
        while !request.is_stopped() {
            let Some(listener) = hold(&self.open).get(&id).cloned() else {
                if seen {
                    return None;
                }
                drop(self.changed.wait_timeout(hold(&self.open), LOOK).unwrap_or_else(PoisonError::into_inner));
                continue;
            };
            seen = true;
            if is_readable(&*listener)
                && let Ok((stream, _)) = listener.accept()
            {
                // On some systems it is not by itself.
                return stream.set_nonblocking(false).is_ok().then_some(stream);
            }
        }
        None
    }
}

/// An open door. It is closed when this is dropped, and what waits in front of it is refused.
pub struct Opened<'a> {
    doors: &'a Doors,
    id: u64,
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        hold(&self.doors.open).remove(&self.id);
        self.doors.changed.notify_all();
    }
}

fn is_readable(fd: &impl AsFd) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)).is_ok_and(|count| count > 0)
}

/// From the controller to the client.
fn copy_in(request: &Request, mut stream: &TcpStream) -> io::Result<()> {
    let (mut input, mut buffer) = (request.input(), vec![0; MAX_PAYLOAD]);
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

/// From the client to the controller, until either has had enough.
fn copy_out(mut stream: &TcpStream, request: &Request) {
    let mut buffer = vec![0; MAX_PAYLOAD];
    while !request.is_stopped() {
        if !is_readable(&stream) {
            continue;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if request.send(FrameKind::Data, &buffer[..count]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}
