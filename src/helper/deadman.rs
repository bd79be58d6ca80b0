//! The dead man: waits for the deadline of an activation without holding anything, and puts it back if nobody confirmed it.

use std::ffi::OsString;
use std::process::{Child, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::activate::{self, Verdict};
use crate::exec::{self, Output};
use crate::facts;
use crate::failure;
use crate::helper::Helper;
use crate::lock::{self, Lock};
use crate::op::{Code, Failure, RunInfo};
use crate::pipe::hold;
use crate::recover::{self, Intent};
use crate::release::ReleaseId;
use crate::root::Root;

/// How often it looks whether it is still needed.
const LOOK: Duration = Duration::from_secs(1);

/// The process that puts an unconfirmed release back when nobody else does.
#[derive(Debug)]
pub struct DeadMan(Child);

/// Starts the dead man: this program again, with nothing of ours but the root's path.
pub fn arm(helper: &Helper, lock: &Lock, intent: &Intent) -> Result<(), Failure> {
    let mut process = exec::program("/proc/self/exe");
    process
        .args(["deadman", &helper.root_path, intent.to.as_str(), &lock.epoch.to_string()])
        .env_clear()
        .envs(helper.user.environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = helper.children.spawn_apart(&mut process);
    let child =
        child.map_err(|error| failure::new(Code::Command, format!("the dead man cannot be started: {}", failure::cause(&error))))?;
    *hold(&helper.dead_man) = Some(DeadMan(child));
    Ok(())
}

/// Calls the dead man off. One of another helper finds that there is nothing to do.
pub fn disarm(helper: &Helper) {
    if let Some(DeadMan(mut child)) = hold(&helper.dead_man).take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// `deadman ROOT RELEASE EPOCH`
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [root, release, epoch] = arguments else { return ExitCode::from(2) };
    let (Some(root), Some(release), Some(epoch)) = (root.to_str(), parse(release), parse(epoch)) else { return ExitCode::from(2) };
    let _ = rustix::process::setsid();
    let helper = Helper::new(root.to_owned());
    match watch(&helper, &release, epoch) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads an error here: the intent stays, and the next contact reports it as unresolved.
        Err(_) => ExitCode::FAILURE,
    }
}

fn parse<T: std::str::FromStr>(text: &OsString) -> Option<T> {
    text.to_str()?.parse().ok()
}

fn watch(helper: &Helper, release: &ReleaseId, epoch: u64) -> Result<(), Failure> {
    let root = helper.root()?;
    let intent = loop {
        let Some(intent) = ours(&root, release, epoch) else { return Ok(()) };
        let left = Duration::from_millis(intent.deadline_ms.saturating_sub(recover::boot_ms()));
        if left.is_zero() {
            break intent;
        }
        thread::sleep(left.min(LOOK));
    };
    let run = RunInfo { run: intent.run, by: intent.by, what: format!("putting back {release}"), since: crate::helper::clock() };
    // While the controller lives it holds the lock, and decides.
    let Some(lock) = lock::wait(&root, epoch, &run)? else { return Ok(()) };
    let lock = Arc::new(lock);
    *hold(&helper.lock) = Some(Arc::clone(&lock));
    if ours(&root, release, epoch).is_none() {
        return Ok(());
    }
    let verdict = Verdict::Bad("it was not confirmed in time".into());
    activate::put_back(helper, &root, &lock, release, &verdict, &mut Output::default()).map(drop)
}

/// Reads the intent as long as it is the one this dead man was armed for.
fn ours(root: &Root, release: &ReleaseId, epoch: u64) -> Option<Intent> {
    let intent = recover::read_intent(root).ok().flatten()?;
    (intent.to == *release && intent.epoch == epoch && intent.boot_id == facts::boot_id()).then_some(intent)
}
