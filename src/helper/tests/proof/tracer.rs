//! The helper under a tracer that sees each of its system calls before it is made: it counts those that matter, and at the n-th one
//! kills the helper, makes the call fail, or makes it do less than was asked. All threads are counted together, and a helper that is
//! told to work with one thread makes the same calls in every run.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::FlockOperation;

/// What happens at the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The helper is killed before it.
    Kill,
    /// The half of what was to be written is, and then the helper is killed.
    Torn,
    /// It fails and does nothing.
    Error(Errno),
    /// It reads or writes the half of what was asked.
    Short,
}

/// What a tracer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// To see each change of the disk closely, and let it happen.
    Closely,
    For(Plan),
}

/// Which of the calls is hit, and how. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub at: usize,
    pub fault: Fault,
}

/// A system call, as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: &'static str,
    /// What it is made on, where that was looked at.
    pub path: String,
    /// Whether the host's lock was held.
    pub is_locked: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The calls that count.
    pub calls: Vec<Call>,
    /// The call that something happened to.
    pub hit: Option<Call>,
}

/// A traced helper. Its calls count from `arm` on.
pub struct Trace {
    armed: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    tracer: JoinHandle<()>,
}

impl Trace {
    /// Starts `command` under a tracer.
    pub fn start(mut command: Command, root: &Path, watching: Watching) -> (Child, Self) {
        // Whoever is traced has to be one before it becomes the helper, so that all of it is.
        let mut shell = Command::new("sh");
        shell.args(["-c", "read go; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?)))).stdin(Stdio::piped()).stdout(Stdio::piped());
        command = shell;
        let (armed, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (sender, child) = channel();
        let plan = match watching {
            Watching::Closely => None,
            Watching::For(plan) => Some(plan),
        };
        let mut watch =
            Watch { root: root.canonicalize().unwrap(), plan, armed: Arc::clone(&armed), seen: Arc::clone(&seen), entered: HashMap::new() };
        let tracer = thread::spawn(move || {
            let mut child = command.spawn().unwrap();
            let pid = Pid::from_raw(child.id().cast_signed());
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEEXEC;
            ptrace::seize(pid, options | Options::PTRACE_O_EXITKILL).unwrap();
            child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
            sender.send(child).unwrap();
            watch.follow();
        });
        (child.recv().unwrap(), Self { armed, seen, tracer })
    }

    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Waits for the end of the helper, which must be coming.
    pub fn end(self) -> Seen {
        self.tracer.join().unwrap();
        Arc::into_inner(self.seen).unwrap().into_inner().unwrap()
    }
}

/// Tells whether this user may trace what it starts, on a machine whose registers are known here.
pub fn is_possible() -> bool {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let is_possible = cfg!(target_arch = "x86_64") && matches!(scope.trim(), "" | "0" | "1");
    if !is_possible {
        eprintln!("skipped: nothing can be traced here");
    }
    is_possible
}

/// What a call that was entered still needs when it returns.
enum Entered {
    Plain,
    /// Kill the helper.
    Torn,
    /// Say that it failed.
    Failing(Errno),
    /// Give the register back that was changed.
    Shortened(u64),
}

struct Watch {
    root: PathBuf,
    plan: Option<Plan>,
    armed: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    entered: HashMap<Pid, Entered>,
}

#[cfg(target_arch = "x86_64")]
impl Watch {
    fn follow(&mut self) {
        // Only what this thread started: other tests have children too.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let (pid, signal) = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    // A thread that is being killed is gone whenever it likes, and then there is nothing to do with it.
                    let _ = self.call(pid);
                    (pid, None)
                }
                Ok(WaitStatus::PtraceEvent(pid, _, _)) => (pid, None),
                Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => return,
                Err(error) => panic!("{error}"),
            };
            let _ = ptrace::syscall(pid, signal);
        }
    }

    fn call(&mut self, pid: Pid) -> nix::Result<()> {
        match self.entered.remove(&pid) {
            None => {
                let entered = self.enter(pid)?;
                self.entered.insert(pid, entered);
            }
            Some(Entered::Plain) => {}
            Some(Entered::Torn) => kill(leader(pid), Signal::SIGKILL)?,
            Some(Entered::Failing(error)) => {
                let mut registers = ptrace::getregs(pid)?;
                registers.rax = (-i64::from(error as i32)).cast_unsigned();
                ptrace::setregs(pid, registers)?;
            }
            Some(Entered::Shortened(count)) => {
                let mut registers = ptrace::getregs(pid)?;
                registers.rdx = count;
                ptrace::setregs(pid, registers)?;
            }
        }
        Ok(())
    }

    fn enter(&self, pid: Pid) -> nix::Result<Entered> {
        if !self.armed.load(Ordering::SeqCst) {
            return Ok(Entered::Plain);
        }
        let mut registers = ptrace::getregs(pid)?;
        let Some(call) = self.call_that_counts(pid, &registers)? else { return Ok(Entered::Plain) };
        let mut seen = self.seen.lock().unwrap();
        seen.calls.push(call.clone());
        let Some(plan) = self.plan.filter(|plan| plan.at == seen.calls.len()) else { return Ok(Entered::Plain) };
        seen.hit = Some(call);
        drop(seen);
        let whole = registers.rdx;
        match plan.fault {
            Fault::Kill => {
                kill(leader(pid), Signal::SIGKILL)?;
                Ok(Entered::Plain)
            }
            Fault::Error(error) => {
                registers.orig_rax = u64::MAX;
                ptrace::setregs(pid, registers)?;
                Ok(Entered::Failing(error))
            }
            Fault::Torn | Fault::Short => {
                registers.rdx = (whole / 2).max(1);
                ptrace::setregs(pid, registers)?;
                Ok(if plan.fault == Fault::Torn { Entered::Torn } else { Entered::Shortened(whole) })
            }
        }
    }

    /// Says which call this is, if it is one that the plan is about.
    fn call_that_counts(&self, pid: Pid, registers: &libc::user_regs_struct) -> nix::Result<Option<Call>> {
        let number = registers.orig_rax.cast_signed();
        let Some((_, name, kind)) = CALLS.iter().find(|(of, _, _)| *of == number) else { return Ok(None) };
        let kind = match kind {
            Kind::Open if opens_to_create(pid, number, registers)? => Kind::Change,
            Kind::Open => Kind::Look,
            // What is asked of a descriptor that is there cannot fail.
            Kind::Other if registers.rsi != F_DUPFD_CLOEXEC => return Ok(None),
            Kind::Lock if registers.rsi & u64::from(libc::LOCK_EX.cast_unsigned()) == 0 => Kind::Other,
            other => *other,
        };
        let is_counted = match self.plan.map(|plan| plan.fault) {
            None | Some(Fault::Kill) => matches!(kind, Kind::Change | Kind::Write | Kind::Sync | Kind::Lock),
            Some(Fault::Torn) => kind == Kind::Write,
            Some(Fault::Short) => matches!(kind, Kind::Write | Kind::Read),
            Some(Fault::Error(error)) => can_fail(name, kind, error),
        };
        if !is_counted {
            return Ok(None);
        }
        let has_file = matches!(kind, Kind::Write | Kind::Read | Kind::Sync | Kind::Lock | Kind::Look);
        let file = if has_file { self.file(pid, registers.rdi) } else { None };
        // Pipes are the controller's and the commands' own, and what is read of other processes is not the disk's.
        if file.is_none() && matches!(kind, Kind::Write | Kind::Read | Kind::Look) {
            return Ok(None);
        }
        let closely = self.plan.is_none();
        let path = match file {
            Some(path) => path.strip_prefix(&self.root).unwrap_or(&path).display().to_string(),
            None if closely && *name == "renameat" => text(pid, registers.r10)?,
            None if closely && *name == "unlinkat" => text(pid, registers.rsi)?,
            None => String::new(),
        };
        Ok(Some(Call { name, path, is_locked: !closely || self.is_locked() }))
    }

    /// The file beneath the root that a descriptor is of.
    fn file(&self, pid: Pid, descriptor: u64) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok().filter(|path| path.starts_with(&self.root))
    }

    fn is_locked(&self) -> bool {
        let Ok(lock) = File::open(self.root.join(".deployer/lock")) else { return false };
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Watch {
    fn follow(&mut self) {
        unreachable!("`is_possible` says so");
    }
}

/// What a call does, as far as faults are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Opens something, and may create it.
    Open,
    Change,
    Write,
    Sync,
    /// Takes a lock.
    Lock,
    Read,
    /// Looks at something, or opens it.
    Look,
    Other,
}

#[cfg(target_arch = "x86_64")]
const CALLS: &[(i64, &str, Kind)] = &[
    (libc::SYS_open, "open", Kind::Open),
    (libc::SYS_openat, "openat", Kind::Open),
    (libc::SYS_openat2, "openat2", Kind::Open),
    (libc::SYS_creat, "creat", Kind::Change),
    (libc::SYS_write, "write", Kind::Write),
    (libc::SYS_pwrite64, "pwrite64", Kind::Write),
    (libc::SYS_writev, "writev", Kind::Write),
    (libc::SYS_pwritev, "pwritev", Kind::Write),
    (libc::SYS_pwritev2, "pwritev2", Kind::Write),
    (libc::SYS_copy_file_range, "copy_file_range", Kind::Change),
    (libc::SYS_sendfile, "sendfile", Kind::Change),
    (libc::SYS_truncate, "truncate", Kind::Change),
    (libc::SYS_ftruncate, "ftruncate", Kind::Change),
    (libc::SYS_fallocate, "fallocate", Kind::Change),
    (libc::SYS_rename, "rename", Kind::Change),
    (libc::SYS_renameat, "renameat", Kind::Change),
    (libc::SYS_renameat2, "renameat2", Kind::Change),
    (libc::SYS_link, "link", Kind::Change),
    (libc::SYS_linkat, "linkat", Kind::Change),
    (libc::SYS_symlink, "symlink", Kind::Change),
    (libc::SYS_symlinkat, "symlinkat", Kind::Change),
    (libc::SYS_unlink, "unlink", Kind::Change),
    (libc::SYS_unlinkat, "unlinkat", Kind::Change),
    (libc::SYS_rmdir, "rmdir", Kind::Change),
    (libc::SYS_mkdir, "mkdir", Kind::Change),
    (libc::SYS_mkdirat, "mkdirat", Kind::Change),
    (libc::SYS_mknod, "mknod", Kind::Change),
    (libc::SYS_mknodat, "mknodat", Kind::Change),
    (libc::SYS_chmod, "chmod", Kind::Change),
    (libc::SYS_fchmod, "fchmod", Kind::Change),
    (libc::SYS_fchmodat, "fchmodat", Kind::Change),
    (libc::SYS_chown, "chown", Kind::Change),
    (libc::SYS_fchown, "fchown", Kind::Change),
    (libc::SYS_fchownat, "fchownat", Kind::Change),
    (libc::SYS_utimensat, "utimensat", Kind::Change),
    (libc::SYS_setxattr, "setxattr", Kind::Change),
    (libc::SYS_fsetxattr, "fsetxattr", Kind::Change),
    (libc::SYS_fsync, "fsync", Kind::Sync),
    (libc::SYS_fdatasync, "fdatasync", Kind::Sync),
    (libc::SYS_sync_file_range, "sync_file_range", Kind::Sync),
    (libc::SYS_syncfs, "syncfs", Kind::Sync),
    (libc::SYS_flock, "flock", Kind::Lock),
    (libc::SYS_read, "read", Kind::Read),
    (libc::SYS_pread64, "pread64", Kind::Read),
    (libc::SYS_newfstatat, "newfstatat", Kind::Look),
    (libc::SYS_statx, "statx", Kind::Look),
    (libc::SYS_readlinkat, "readlinkat", Kind::Look),
    (libc::SYS_getdents64, "getdents64", Kind::Look),
    (libc::SYS_fcntl, "fcntl", Kind::Other),
];

/// `fcntl` makes a copy of a descriptor.
const F_DUPFD_CLOEXEC: u64 = 1030;

/// Tells whether a call may end with this error, as far as a test is interested in it.
fn can_fail(name: &str, kind: Kind, error: Errno) -> bool {
    let creates = matches!(name, "openat" | "openat2" | "mkdirat" | "symlinkat" | "renameat") && kind == Kind::Change;
    match error {
        Errno::ENOSPC | Errno::EDQUOT => creates || kind == Kind::Write || matches!(name, "copy_file_range" | "ftruncate"),
        Errno::EIO => !matches!(kind, Kind::Lock | Kind::Other | Kind::Look) || name == "getdents64",
        Errno::EACCES => matches!(name, "openat" | "openat2" | "mkdirat" | "symlinkat" | "renameat" | "unlinkat" | "newfstatat" | "statx"),
        Errno::EMFILE => matches!(name, "openat" | "openat2" | "fcntl"),
        Errno::EINTR => matches!(kind, Kind::Write | Kind::Read | Kind::Lock) || name.starts_with("openat"),
        _ => false,
    }
}

fn opens_to_create(pid: Pid, number: i64, registers: &libc::user_regs_struct) -> nix::Result<bool> {
    let flags = if number == libc::SYS_openat2 { word(pid, registers.rdx)? } else { registers.rdx };
    Ok(flags & u64::from(libc::O_CREAT.cast_unsigned()) != 0)
}

/// The process of a thread: threads are stopped one by one and killed all at once.
fn leader(thread: Pid) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    Pid::from_raw(group.unwrap_or(thread.as_raw()))
}

fn word(pid: Pid, address: u64) -> nix::Result<u64> {
    Ok(ptrace::read(pid, std::ptr::without_provenance_mut(usize::try_from(address).unwrap_or(0)))?.cast_unsigned())
}

fn text(pid: Pid, mut address: u64) -> nix::Result<String> {
    let mut bytes = Vec::new();
    loop {
        for byte in word(pid, address)?.to_le_bytes() {
            if byte == 0 {
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            bytes.push(byte);
        }
        address += 8;
    }
}
