//! The helper: the host's end of the byte pipe. Started as `helper serve MARKER ROOT DIGEST` by the bootstrap, and by itself as
//! `isolate …` (between it and a command), `deadman …` (puts back an activation that nobody confirmed) and `spare …` (copies the live
//! release ahead for the next).

mod activate;
mod adopt;
mod boot;
mod cache;
mod current;
mod deadman;
mod dispatch;
mod doors;
mod exec;
mod facts;
mod failure;
mod faults;
mod freeze;
mod fs;
mod health;
mod helper;
mod isolate;
mod journal;
mod lock;
#[path = "../op/mod.rs"]
mod op;
mod pipe;
mod probe;
mod process;
mod processes;
mod records;
mod recover;
#[path = "../release.rs"]
mod release;
mod root;
mod serve;
mod setup;
mod store;
#[expect(dead_code, reason = "some words are the controller's alone")]
#[path = "../tree/mod.rs"]
mod tree;
mod unit;
mod user;
#[path = "../wire/mod.rs"]
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (verb, rest) = arguments.split_first().map_or(("", &[][..]), |(verb, rest)| (verb.to_str().unwrap_or(""), rest));
    match verb {
        "isolate" => isolate::main(rest),
        "deadman" => {
            shield();
            deadman::main(rest)
        }
        "recover" => {
            shield();
            boot::main(rest)
        }
        "spare" => {
            shield();
            store::spare_main(rest)
        }
        "serve" => {
            shield();
            serve::main(rest)
        }
        "version" => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("deployer starts this program by itself; there is nothing to do with it by hand");
            ExitCode::from(2)
        }
    }
}

/// Keeps what passes through this process out of core files and other processes' reach, and takes modes from nobody's umask.
/// Best effort: a kernel that refuses one of these is no reason not to deploy.
fn shield() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};
    rustix::process::umask(rustix::fs::Mode::empty());
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    if !faults::is_traced() {
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
    // Processes that a build leaves behind become ours, so that they can be found and ended.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}
