//! What runs between the helper and a command: one small, single-threaded child that makes itself a session, sets the umask,
//! leaves the network where that was asked for, and becomes the command. It is this program again, because what is done here
//! would change the whole of a process with threads.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use crate::exec;
use crate::process::Children;

use rustix::fs::{Mode, OFlags};
use rustix::process::{getgid, getuid, setsid, umask};
use rustix::thread::{CapabilitySet, UnshareFlags};

/// What the shells use, so that people recognise them.
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;
/// The namespace could not be made. Nothing was run.
pub const NO_NAMESPACE: u8 = 125;

/// `isolate UMASK host|blocked ARGV…`, or `isolate probe`
pub fn main(arguments: &[OsString]) -> ExitCode {
    if arguments.first().is_some_and(|first| first == "probe") {
        return if leave_network().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(NO_NAMESPACE) };
    }
    let [mask, network, program, rest @ ..] = arguments else { return ExitCode::from(NOT_FOUND) };
    let mask = mask.to_str().and_then(|mask| u32::from_str_radix(mask, 8).ok()).unwrap_or(0o022);
    // Without a session of its own a command could ask questions on the terminal of whoever started us.
    let _ = setsid();
    umask(Mode::from_raw_mode(mask & 0o777));
    if network == "blocked"
        && let Err(error) = leave_network()
    {
        eprintln!("no network namespace: {error}");
        return ExitCode::from(NO_NAMESPACE);
    }
    if network == "blocked" {
        raise_loopback(!getuid().is_root());
    }
    let error = exec::program(program).args(rest).exec();
    eprintln!("{}: {error}", Path::new(program).display());
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

/// Brings `lo` up with `ip`, the one way that needs no raw ioctl. Without `ip` the loopback device stays down: a build that talks
/// to itself over 127.0.0.1 then fails, all others do not notice.
fn raise_loopback(in_user_namespace: bool) {
    let Some(ip) = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"].into_iter().find(|path| Path::new(path).exists()) else { return };
    // Rights of a namespace do not survive an exec by a user that is not root, unless they are ambient.
    if in_user_namespace && ambient(true).is_err() {
        return;
    }
    let quiet =
        |command: &mut Command| command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().map(drop);
    let _ = quiet(exec::program(ip).args(["link", "set", "lo", "up"]));
    if in_user_namespace {
        let _ = ambient(false);
    }
}

fn ambient(on: bool) -> rustix::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = if on { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    if on {
        rustix::thread::configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true)
    } else {
        rustix::thread::clear_ambient_capability_set()
    }
}
