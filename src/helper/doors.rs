//! Doors: where a command reaches a service of the controller, the package index. A door listens on loopback while its command runs;
//! each connection through it is the two streams of a request.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::getuid;

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
                && is_ours(&stream)
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

/// Whether this user made a connection: everybody on a host reaches its loopback device. One out of a namespace of ours is in no table
/// here, and nobody else has a way to the door from elsewhere.
fn is_ours(stream: &TcpStream) -> bool {
    let (Ok(SocketAddr::V4(door)), Ok(SocketAddr::V4(client))) = (stream.local_addr(), stream.peer_addr()) else { return false };
    // Read to its end: whoever has many connections must not push another out of sight.
    let Ok(table) = table() else { return true };
    owner(table, client, door).is_none_or(|uid| uid == getuid().as_raw())
}

fn table() -> io::Result<impl BufRead> {
    let file = rustix::fs::open("/proc/net/tcp", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(BufReader::new(File::from(file)))
}

/// Finds whose socket leads from one address to another in the table of proc(5). One that nobody holds any more is root's.
fn owner(table: impl BufRead, from: SocketAddrV4, to: SocketAddrV4) -> Option<u32> {
    let written = |address: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let ends = [written(from), written(to)];
    table.lines().map_while(Result::ok).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let found = words.get(1..3)? == ends;
        words.get(7).filter(|_| found)?.parse().ok()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_connection_is_known_and_one_of_another_user_is_not_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (client.local_addr().unwrap(), client.peer_addr().unwrap()) else { panic!() };
        assert_eq!(owner(table().unwrap(), from, to), Some(getuid().as_raw()));
        assert!(is_ours(&accepted));
        let address = |text: &str| u32::from_ne_bytes(text.parse::<std::net::Ipv4Addr>().unwrap().octets());
        let here = address("127.0.0.1");
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: {here:08X}:1F90 {here:08X}:C350 01 00000000:00000000 00:00000000 00000000  1000        0 1 1 0\n   \
             1: {here:08X}:C350 {here:08X}:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1 0\n"
        );
        let at = |port| SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
        assert_eq!(owner(table.as_bytes(), at(50000), at(8080)), Some(1001));
        assert_eq!(owner(table.as_bytes(), at(8080), at(50000)), Some(1000));
        assert_eq!(owner(table.as_bytes(), at(50001), at(8080)), None);
    }
}
