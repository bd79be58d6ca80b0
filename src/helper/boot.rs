//! `recover ROOT`: what a unit runs once at boot, so that an activation that nobody confirmed before the reboot is put back before
//! anybody comes.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use crate::helper::{Helper, clock};
use crate::lock;
use crate::op::{Failure, Locked, RunInfo};
use crate::pipe::{Pipe, Request, hold};
use crate::recover;

/// What a line begins with that tells of something not done.
const UNRESOLVED: &str = "unresolved";

/// `recover ROOT`
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [root] = arguments else { return ExitCode::from(2) };
    let Some(root) = root.to_str() else { return ExitCode::from(2) };
    let lines = match recover(root) {
        Ok(lines) => lines,
        Err(failure) => {
            eprintln!("deployer-helper: {failure}");
            return ExitCode::FAILURE;
        }
    };
    for line in &lines {
        println!("{line}");
    }
    if lines.iter().any(|line| line.starts_with(UNRESOLVED)) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn recover(root_path: &str) -> Result<Vec<String>, Failure> {
    let helper = Helper::new(root_path.to_owned());
    let root = helper.root()?;
    let pid = std::process::id();
    let run = RunInfo { run: format!("recover-{pid}"), by: "recover".into(), what: "looking after the last run".into(), since: clock() };
    // A hold keeps people from deploying, not a host from being made whole.
    let lock = match lock::acquire_frozen(&root, &run)? {
        Ok(lock) => Arc::new(lock),
        Err(Locked::Busy(holder)) => return Ok(vec![format!("run {} of {} is at work, and looks after it itself", holder.run, holder.by)]),
        Err(Locked::Held(_) | Locked::Yes { .. }) => return Ok(Vec::new()),
    };
    *hold(&helper.lock) = Some(Arc::clone(&lock));
    let lines = recover::run(&helper, &root, &lock, &Request::new(0, Arc::new(Pipe::default())));
    *hold(&helper.lock) = None;
    if let Some(lock) = Arc::into_inner(lock) {
        lock::release(&root, lock);
    }
    lines
}
