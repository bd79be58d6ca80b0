//! Processes of this host as `/proc` shows them: finding all that belong to a command, and ending them.

use std::collections::HashSet;
use std::io;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::pipe::hold;

/// How long a scan waits before it looks again.
pub const TICK: Duration = Duration::from_millis(20);

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
}

/// The commands of this helper that run, and what stays when they ended (a server that an activation started).
#[derive(Default)]
pub struct Children {
    leaders: Mutex<HashSet<i32>>,
    kept: Mutex<HashSet<i32>>,
    /// Something that serves was kept: what it starts later may become our orphan too, and is nobody's leftover.
    serving: AtomicBool,
}

impl Children {
    /// Starts a command and counts its leader as one. Whoever looks at processes waits until that is done.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut leaders = hold(&self.leaders);
        let child = command.spawn()?;
        leaders.insert(child.id().cast_signed());
        Ok(child)
    }

    /// Starts a process that is nobody's command and stays whatever happens.
    pub fn spawn_apart(&self, command: &mut Command) -> io::Result<Child> {
        // Held over the start, so that nobody takes the process for an orphan of a command.
        let leaders = hold(&self.leaders);
        let child = command.spawn()?;
        hold(&self.kept).insert(child.id().cast_signed());
        drop(leaders);
        Ok(child)
    }

    /// Takes note that a command and all of its processes ended.
    pub fn ended(&self, leader: i32) {
        let mut leaders = hold(&self.leaders);
        leaders.remove(&leader);
        reap_orphans(&leaders, &hold(&self.kept));
    }

    /// Leaves processes alone from now on.
    pub fn keep(&self, pids: impl IntoIterator<Item = i32>) {
        let mut kept = hold(&self.kept);
        for pid in pids {
            kept.insert(pid);
            self.serving.store(true, Ordering::Relaxed);
        }
    }

    /// Finds every live process of a command: its session and group, what carries `mark` in its environment, what descends from
    /// those, and, where no other command runs or serves, orphans that this helper inherited because it is their subreaper.
    pub fn of(&self, leader: i32, mark: &str) -> Vec<i32> {
        let processes = all();
        let me = std::process::id().cast_signed();
        let leaders = hold(&self.leaders).clone();
        let kept = hold(&self.kept).clone();
        let alone = leaders.iter().all(|other| *other == leader) && !self.serving.load(Ordering::Relaxed);
        let belongs = |process: &Process| {
            let orphan = alone && process.parent == me && !leaders.contains(&process.pid);
            process.pid == leader || process.session == leader || process.group == leader || orphan || has_env(process.pid, mark)
        };
        let usable = |process: &&Process| process.pid != me && !kept.contains(&process.pid);
        let mut found: HashSet<i32> =
            processes.iter().filter(usable).filter(|process| belongs(process)).map(|process| process.pid).collect();
        loop {
            let before = found.len();
            let children: Vec<i32> =
                processes.iter().filter(usable).filter(|process| found.contains(&process.parent)).map(|process| process.pid).collect();
            found.extend(children);
            if found.len() == before {
                return found.into_iter().collect();
            }
        }
    }
}

/// Ends what `find` finds: TERM once, KILL after the grace, until nothing is left or waiting longer is of no use.
pub struct Ending {
    began: Instant,
    grace: Duration,
    told: HashSet<i32>,
}

/// A process that survives KILL for so long is stuck in the kernel, or another user's.
const STUCK: Duration = Duration::from_secs(5);

impl Ending {
    pub fn begin(grace: Duration) -> Self {
        Self { began: Instant::now(), grace, told: HashSet::new() }
    }

    /// Signals what is there now. True when nothing is left to wait for.
    pub fn step(&mut self, there: &[i32]) -> bool {
        let elapsed = self.began.elapsed();
        for pid in there {
            if elapsed >= self.grace {
                signal(*pid, Signal::KILL);
            } else if self.told.insert(*pid) {
                signal(*pid, Signal::TERM);
                // A stopped process takes TERM only when it goes on.
                signal(*pid, Signal::CONT);
            }
        }
        there.is_empty() || elapsed > self.grace + STUCK
    }

    /// How many processes were signalled.
    pub fn count(&self) -> u32 {
        u32::try_from(self.told.len()).unwrap_or(u32::MAX)
    }
}

/// Ends every process that carries `mark` in its environment. Says how many there were, and whether all are gone.
pub fn end_marked(mark: &str, grace: Duration) -> (u32, bool) {
    let mut ending = Ending::begin(grace);
    loop {
        let there: Vec<i32> = all().iter().map(|process| process.pid).filter(|pid| has_env(*pid, mark)).collect();
        if ending.step(&there) {
            return (ending.count(), there.is_empty());
        }
        thread::sleep(TICK);
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Lists live processes; zombies are dead.
fn all() -> Vec<Process> {
    let Ok(proc) = rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = rustix::fs::Dir::new(proc) else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse::<i32>().ok());
    pids.filter_map(|pid| parse_stat(&read(&format!("/proc/{pid}/stat"))?)).collect()
}

/// Reads `pid (name) state ppid pgrp session …`. The name may hold anything, brackets too.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let pid = stat.split(' ').next()?.parse().ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let mut number = || fields.next()?.parse().ok();
    Some(Process { pid, parent: number()?, group: number()?, session: number()? })
}

/// Says when a live process was started, in ticks since the boot: with its pid it names one process of this boot.
pub fn started(pid: i32) -> Option<u64> {
    started_field(&read(&format!("/proc/{pid}/stat"))?)
}

/// Names a process as the kernel does: the first 15 bytes of its program's name.
pub fn name(pid: i32) -> String {
    let name = read(&format!("/proc/{pid}/comm")).unwrap_or_default();
    crate::tree::path::Shown(name.trim_ascii_end()).to_string()
}

/// Says who started a live process, or took it over.
pub fn parent(pid: i32) -> Option<i32> {
    parse_stat(&read(&format!("/proc/{pid}/stat"))?).map(|process| process.parent)
}

/// Tells whether a process is stopped, as by SIGSTOP.
pub fn is_stopped(pid: i32) -> bool {
    let stat = read(&format!("/proc/{pid}/stat")).unwrap_or_default();
    String::from_utf8_lossy(&stat).rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

fn started_field(stat: &[u8]) -> Option<u64> {
    parse_stat(stat)?;
    let stat = String::from_utf8_lossy(stat);
    let (_, rest) = stat.rsplit_once(')')?;
    // The 22nd field of proc_pid_stat(5); the first two are before the bracket.
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Tells whether a process has the entry `mark` (`KEY=value`) in the environment it was started with.
fn has_env(pid: i32, mark: &str) -> bool {
    read(&format!("/proc/{pid}/environ")).is_some_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
}

/// Collects orphans that this helper inherited and that have ended.
fn reap_orphans(leaders: &HashSet<i32>, kept: &HashSet<i32>) {
    let me = std::process::id().to_string();
    let Some(children) = read(&format!("/proc/{me}/task/{me}/children")) else { return };
    let children = String::from_utf8_lossy(&children).into_owned();
    for pid in
        children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| !leaders.contains(pid) && !kept.contains(pid))
    {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Reads a small file of `/proc` or `/sys`, 1 MiB at most.
pub fn read(path: &str) -> Option<Vec<u8>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    while bytes.len() < 1024 * 1024 {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_call_itself_anything() {
        let expected = Process { pid: 12, parent: 1, group: 12, session: 7 };
        assert_eq!(parse_stat(b"12 (a) S 99 (x) R 1 12 7 0"), Some(expected));
        assert_eq!(parse_stat(b"12 (a) Z 1 12 7 0"), None);
        assert_eq!(parse_stat(b"12 (a"), None);
    }

    #[test]
    fn a_process_is_known_by_when_it_was_started() {
        let me = std::process::id().cast_signed();
        assert!(started(me).is_some_and(|ticks| ticks > 0) && started(me) == started(me));
        assert_eq!(started_field(b"12 (a) b) S 1 12 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9"), Some(777));
        assert_eq!(started_field(b"12 (a) Z 1 12 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9"), None);
    }

    #[test]
    fn this_process_is_found_by_its_environment() {
        let me = std::process::id().cast_signed();
        let path = read("/proc/self/environ").unwrap();
        let entry = path.split(|byte| *byte == 0).find(|entry| entry.starts_with(b"PATH=")).unwrap();
        assert!(has_env(me, std::str::from_utf8(entry).unwrap()));
        assert!(!has_env(me, "PATH=nowhere at all"));
        assert!(all().iter().any(|process| process.pid == me));
    }
}
