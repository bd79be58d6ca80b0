//! How the helper gets hold of the socket that a command's index listens on: it is made where the command will run, in its network
//! namespace, by the process that becomes the command, and handed back over that process's stdin.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};

use crate::doors::{Doors, Opened};
use crate::op::Network;

/// How long a process may take from its start to its socket.
const PATIENCE: Duration = Duration::from_secs(10);

/// The two ends of the way back.
pub struct Entrance {
    door: u64,
    ours: OwnedFd,
    theirs: Option<OwnedFd>,
}

impl Entrance {
    /// Prepares for a command that has a door; none for one that has not.
    pub fn of(network: Network) -> io::Result<Option<Self>> {
        match network {
            Network::Host | Network::Blocked | Network::None => Ok(None),
            Network::Index { door } | Network::HostAndIndex { door } => {
                let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                Ok(Some(Self { door, ours, theirs: Some(theirs) }))
            }
        }
    }

    /// What the process has as its stdin until it has sent the socket.
    pub fn stdin(&mut self) -> Option<OwnedFd> {
        self.theirs.take()
    }

    /// Takes the socket and opens the door. None where the process ended before: it says why itself.
    pub fn open(self, doors: &Doors) -> Option<Opened<'_>> {
        let limit = Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).ok()?, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.ours, PollFlags::IN)], Some(&limit)).ok().filter(|count| *count > 0)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
        recvmsg(&self.ours, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
        let socket = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })?;
        doors.open(self.door, TcpListener::from(socket)).ok()
    }
}

/// Sends a socket over `way`, the stdin of the process that made it.
pub fn hand_over(way: &impl AsFd, socket: &impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut control, fds) = (SendAncillaryBuffer::new(&mut space), [socket.as_fd()]);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(way, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
