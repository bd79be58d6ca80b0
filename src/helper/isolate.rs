//! What runs between the helper and a command: one small, single-threaded child that makes itself a session, sets the umask,
//! leaves the network where that was asked for, and becomes the command. It is this program again, because what is done here
//! would change the whole of a process with threads.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::exec;
use crate::op::INDEX_ADDRESS;
use crate::process::Children;

use rustix::fs::{Mode, OFlags};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{getgid, getuid, setsid, umask};
use rustix::thread::UnshareFlags;

/// What the shells use, so that people recognise them.
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;
/// The namespace could not be made. Nothing was run.
pub const NO_NAMESPACE: u8 = 125;

/// `isolate UMASK host|blocked -|door ARGV…`, or `isolate probe`
pub fn main(arguments: &[OsString]) -> ExitCode {
    if arguments.first().is_some_and(|first| first == "probe") {
        return if leave_network().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(NO_NAMESPACE) };
    }
    let [mask, network, door, argv @ ..] = arguments else { return ExitCode::from(NOT_FOUND) };
    let mask = mask.to_str().and_then(|mask| u32::from_str_radix(mask, 8).ok()).unwrap_or(0o022);
    // Without a session of its own a command could ask questions on the terminal of whoever started us.
    let _ = setsid();
    umask(Mode::from_raw_mode(mask & 0o777));
    if network == "blocked" {
        if let Err(error) = leave_network() {
            eprintln!("no network namespace: {error}");
            return ExitCode::from(NO_NAMESPACE);
        }
        // A build that talks to itself over 127.0.0.1 needs it; all others do not notice.
        let _ = raise_loopback();
    }
    let address = match door.to_str() {
        Some("door") => match listen() {
            Ok(address) => Some(address),
            Err(error) => {
                eprintln!("nothing can listen on the loopback device: {error}");
                return ExitCode::from(NO_NAMESPACE);
            }
        },
        _ => None,
    };
    let mut words = argv.iter().map(|word| addressed(word, address.as_deref()));
    let Some(program) = words.next() else { return ExitCode::from(NOT_FOUND) };
    let mut command = exec::program(&program);
    command.args(words);
    if address.is_some() {
        command.envs(std::env::vars_os().map(|(key, value)| (key, addressed(&value, address.as_deref()))));
    }
    let error = command.exec();
    eprintln!("{}: {error}", Path::new(&program).display());
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
}

static AVAILABLE: OnceLock<bool> = OnceLock::new();

/// Tells whether this user may make a network namespace, by making one in a child; once.
pub fn is_available(children: &Children) -> bool {
    *AVAILABLE.get_or_init(|| exec::ask(children, &["/proc/self/exe", "isolate", "probe"]).is_some())
}

/// Moves this process into a network namespace with nothing but the loopback device in it.
///
/// Users other than root need a user namespace for that. It maps the user and group to themselves, so files keep their owners.
fn leave_network() -> io::Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    if uid == 0 {
        unshare(UnshareFlags::NEWNET)?;
    } else {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
        write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    }
    Ok(())
}

#[expect(deprecated, reason = "its successor is unsafe because of `FILES`, which is not asked for here")]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}

fn write(path: &str, text: &str) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, text.as_bytes()).map(drop)
}

/// Brings `lo` up by one message to the kernel, which needs no raw ioctl and no program.
fn raise_loopback() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const UP: u32 = 1;
    // In every namespace the loopback device is the first.
    const LOOPBACK: i32 = 1;
    let mut message = Vec::with_capacity(32);
    // struct nlmsghdr: length, type, flags, sequence, port.
    message.extend_from_slice(&32_u32.to_ne_bytes());
    message.extend_from_slice(&NEW_LINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    // struct ifinfomsg: family, device type, index, flags, which of the flags.
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&LOOPBACK.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    // No protocol is the one of routes and devices.
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (count, _) = net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // The answer is a header and an errno, negative; zero is well.
    match answer.get(16..20).filter(|_| count >= 20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Listens where only this namespace reaches, or only this machine; hands the socket to the helper; and says where that is.
fn listen() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    exec::hand_over(&io::stdin(), &listener)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(address)
}

/// Puts the index's address where its place is kept.
fn addressed(text: &OsStr, address: Option<&str>) -> OsString {
    match (text.to_str(), address) {
        (Some(text), Some(address)) => text.replace(INDEX_ADDRESS, address).into(),
        _ => text.to_owned(),
    }
}
