//! What one helper knows while it lives: where its root is, who it works as, what it runs, and the lock it may hold.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cache::Begun;
use crate::current;
use crate::deadman::DeadMan;
use crate::doors::Doors;
use crate::exec::{self, Job, Output};
use crate::failure;
use crate::freeze;
use crate::fs::Dir;
use crate::lock::Lock;
use crate::op::{Code, Current, Exec, Exited, Failure};
use crate::pipe::hold;
use crate::process::Children;
use crate::release::layout;
use crate::root::Root;
use crate::store::Memory;
use crate::user::User;

pub struct Helper {
    pub root_path: String,
    pub user: User,
    pub children: Children,
    pub doors: Doors,
    pub lock: Mutex<Option<Arc<Lock>>>,
    pub dead_man: Mutex<Option<DeadMan>>,
    /// Of the release that is being made.
    pub memory: Memory,
    /// A large release was begun: another may follow, and shall find a spare.
    pub spare_is_due: AtomicBool,
    /// The caches that this session completes.
    pub begun: Begun,
    /// Tells this helper's commands from those of any other, pids being reused.
    token: String,
    commands: AtomicU64,
}

impl Helper {
    pub fn new(root_path: String) -> Self {
        let children = Children::default();
        let user = User::find(&children);
        let mut random = [0_u8; 8];
        // Without random numbers the pid has to do: it tells apart all that lives now.
        let token = getrandom::fill(&mut random).map_or_else(|_| u64::from(std::process::id()), |()| u64::from_le_bytes(random));
        Self {
            root_path,
            user,
            children,
            doors: Doors::default(),
            lock: Mutex::new(None),
            dead_man: Mutex::new(None),
            memory: Memory::default(),
            spare_is_due: AtomicBool::new(false),
            begun: Begun::default(),
            commands: AtomicU64::new(0),
            token: format!("{token:016x}"),
        }
    }

    pub fn root(&self) -> Result<Root, Failure> {
        Root::open(&self.root_path).map_err(|error| failure::io("open", &self.root_path, &error))
    }

    /// The lock, or the failure of an op that needs it.
    pub fn locked(&self) -> Result<Arc<Lock>, Failure> {
        hold(&self.lock).clone().ok_or_else(|| failure::new(Code::NotLocked, "this run does not hold the host's lock"))
    }

    /// Says who asked the run that holds the lock here to stop, if somebody did.
    pub fn asked_to_end(&self) -> Option<String> {
        let run = hold(&self.lock).as_ref()?.run.run.clone();
        freeze::asked_to_end(&self.root().ok()?, &run)
    }

    /// Leaves a sign beside the lock, if it is held here, that the controller lives.
    pub fn leave_sign(&self) {
        if let Some(lock) = hold(&self.lock).as_ref() {
            lock.beat();
        }
    }

    /// A variable for the processes of one command, which no others carry: an activation's server must not be taken for a part of
    /// the check that follows.
    pub fn mark(&self) -> (String, String) {
        ("DEPLOYER_COMMAND".into(), format!("{}.{}", self.token, self.commands.fetch_add(1, Ordering::Relaxed)))
    }

    /// What processes of this helper carry as `DEPLOYER_RUN`.
    fn run_id(&self) -> String {
        hold(&self.lock).as_ref().map_or_else(|| format!("helper-{}", std::process::id()), |lock| lock.run.run.clone())
    }

    /// Runs a command of the user's. The first of `marks` tells its processes from those of other commands.
    pub fn run(&self, exec: &Exec, marks: Vec<(String, String)>, keep: bool, output: &mut Output<'_>) -> Result<Exited, Failure> {
        let directory = exec.directory.as_deref().map(|path| self.directory(path)).transpose()?;
        let run = self.run_id();
        let job = Job { exec, user: &self.user, children: &self.children, doors: &self.doors, run: &run, directory, marks, keep };
        exec::run(&job, output)
    }

    /// Opens where a command runs: an absolute path as the user wrote it, or one beneath the root that passes through no link but
    /// `current`.
    fn directory(&self, path: &str) -> Result<Dir, Failure> {
        if path.contains('\0') {
            return Err(failure::new(Code::Refused, "a directory with a NUL byte"));
        }
        if path.starts_with('/') {
            return Dir::open_absolute(path).map_err(|error| failure::io("enter", path, &error));
        }
        let root = self.root()?;
        let (first, rest) = path.split_once('/').map_or((path, ""), |(first, rest)| (first, rest));
        let beneath = if first == layout::CURRENT {
            let Current::Release(id) = current::read(&root).map_err(|error| failure::io("read", layout::CURRENT, &error))? else {
                return Err(failure::new(Code::NotFound, "`current` is not a link to a release"));
            };
            if rest.is_empty() { layout::release(&id) } else { format!("{}/{rest}", layout::release(&id)) }
        } else {
            path.to_owned()
        };
        let held = if beneath.is_empty() || beneath == "." { root.dir.try_clone() } else { root.dir.open_dir(&beneath) };
        held.map_err(|error| failure::io("enter", format!("{}/{beneath}", self.root_path), &error))
    }
}

/// Milliseconds since 1970 on this host's clock.
pub fn clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since 1970 on this host's clock.
pub fn clock() -> i64 {
    clock_ms() / 1000
}
