//! One file a verb: wires config, plan, stages and report. Here is what verbs share.

mod activation;
mod adopt;
mod boot_unit;
mod builder;
mod cache;
mod config;
mod confirm;
mod demo;
mod deploy;
mod doctor;
mod failure;
mod health;
mod hosts;
mod interrupt;
mod locate;
mod lock;
mod locks;
mod logs;
mod manifests;
mod material;
mod outcome;
mod package_index;
mod plan;
mod processes;
mod promotion;
mod prune;
mod releases;
mod remove;
mod rollback;
mod run;
mod scene;
mod setup;
mod status;
mod sudoers;
mod typed;
mod windows;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use clap::CommandFactory;

use crate::cli::{self, Cli, Verb};
use crate::config::Overrides;
use crate::error::Error;
use crate::exit::Exit;
use crate::report;

pub use scene::Scene;

/// Runs the program to its exit code. Every error that reaches this point is printed here, once.
#[must_use]
pub fn main(cli: Cli) -> Exit {
    let paper = cli.common.display().stderr();
    match dispatch(cli) {
        Ok(exit) => exit,
        Err(error) => {
            let text = report::error(&error, paper);
            let _ = std::io::stderr().write_all(text.as_bytes());
            error.exit
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Error> {
    refuse_unused(&cli)?;
    if let Verb::Completions { shell } = cli.verb {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "deployer", &mut script);
        return Ok(print(&String::from_utf8_lossy(&script)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::new(Exit::Internal, "runtime", "the runtime does not start").caused_by(error))?;
    let result = runtime.block_on(verb(cli));
    // A blocking task may still read a tree that nobody wants any more.
    runtime.shutdown_background();
    result
}

/// A flag that would do nothing is refused: whoever typed it meant something.
fn refuse_unused(cli: &Cli) -> Result<(), Error> {
    let (name, tells) = match &cli.verb {
        Verb::Deploy(args) => ("deploy --dry-run", !args.dry_run),
        Verb::Setup(args) if args.print_sudoers || args.print_boot_unit => ("setup --print", false),
        Verb::Cache(cli::Cache::Status(_) | cli::Cache::Serve(_)) => ("cache", false),
        Verb::Rollback(_) | Verb::Run(_) | Verb::Prune(_) | Verb::Setup(_) | Verb::Cache(_) => ("", true),
        Verb::Plan(_) => ("plan", false),
        Verb::Status(_) => ("status", false),
        Verb::Releases => ("releases", false),
        Verb::Logs(_) => ("logs", false),
        Verb::Hosts(_) => ("hosts", false),
        Verb::Doctor(_) => ("doctor", false),
        Verb::Config(_) => ("config", false),
        Verb::Lock(_) => ("lock", false),
        Verb::Remove(_) => ("remove", false),
        Verb::Demo(_) => ("demo", false),
        Verb::Completions { .. } => ("completions", false),
    };
    let Some(events) = &cli.common.events else { return Ok(()) };
    if tells {
        return insist_on(events);
    }
    let what = format!("`--events` keeps the events of a run, and `{name}` is none");
    Err(Error::new(Exit::Usage, "events", what).hint("what it finds is told by `--json`"))
}

/// Whoever names a file for the events relies on it: what cannot be written there is found before anything is done.
fn insist_on(events: &Path) -> Result<(), Error> {
    // Opening a pipe a second time would end its reader, or wait for another one.
    if std::fs::metadata(events).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Ok(());
    }
    match OpenOptions::new().append(true).create(true).open(events) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(Exit::Usage, "events", format!("cannot write events to `{}`", events.display()))
            .caused_by(error)
            .state("nothing was done")),
    }
}

async fn verb(cli: Cli) -> Result<Exit, Error> {
    let common = cli.common;
    match cli.verb {
        Verb::Deploy(args) if args.dry_run => plan::plan(&common, &args.what, &scene::deploy_overrides(&common, &args), false, false).await,
        Verb::Deploy(args) => deploy::deploy(&common, &args).await,
        Verb::Plan(args) => {
            let overrides = Overrides { rev: args.what.rev.clone(), ..scene::common_overrides(&common) };
            plan::plan(&common, &args.what, &overrides, args.changes, args.exit_code).await
        }
        Verb::Rollback(args) => rollback::rollback(&common, &args).await,
        Verb::Status(args) => status::status(&common, &args).await,
        Verb::Releases => releases::releases(&common).await,
        Verb::Logs(args) => logs::logs(&common, &args),
        Verb::Run(args) => run::run(&common, &args).await,
        Verb::Hosts(args) => hosts::hosts(&common, &args).await,
        Verb::Setup(args) => Box::pin(setup::setup(&common, &args)).await,
        Verb::Prune(args) => prune::prune(&common, &args).await,
        Verb::Doctor(args) if args.adopt => adopt::adopt(&common).await,
        Verb::Cache(args) => Box::pin(cache::cache(&common, &args)).await,
        Verb::Doctor(args) => doctor::doctor(&common, &args).await,
        Verb::Config(args) => config::config(&common, &args),
        Verb::Remove(args) => remove::remove(&common, &args).await,
        Verb::Lock(args) => lock::lock(&common, &args).await,
        Verb::Demo(args) => demo::demo(&common, &args).await,
        Verb::Completions { .. } => Ok(Exit::Ok),
    }
}

/// Writes a result to stdout. A reader that went away is no failure.
fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Exit::Ok
}
