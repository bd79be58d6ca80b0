//! `logs`: the stored output of a run on this machine.

use crate::cli::{self, Common};
use crate::command::print;
use crate::command::scene::{self, Directories};
use crate::error::Error;
use crate::event::{Step, Timed};
use crate::exit::Exit;
use crate::report::logs::{self, Wanted};
use crate::report::{RunStore, StoredRun};

/// Runs the verb.
pub fn logs(common: &Common, args: &cli::Logs) -> Result<Exit, Error> {
    let state = Directories::find()?.state;
    if args.list {
        return Ok(list(common, &state));
    }
    if !common.roles.is_empty() {
        return Err(Error::new(Exit::Usage, "no-roles", "a stored run knows hosts and no roles").hint("name the hosts: `-H 'app*'`"));
    }
    let step = args.step.as_deref().map(step).transpose()?;
    let wanted = Wanted { hosts: common.hosts.clone(), step };
    let run = match &args.run {
        Some(run) => run.clone(),
        None => last_run(common, &state, &wanted)?,
    };
    let events = RunStore::read(&state, &run).map_err(|error| {
        Error::new(Exit::Usage, "no-such-run", format!("the run `{run}` cannot be shown")).caused_by(error).hint("deployer logs --list")
    })?;
    check_hosts(&events, &run, &common.hosts)?;
    if common.json {
        return Ok(print(&logs::only(&events, &wanted).into_iter().map(crate::report::json::line).collect::<String>()));
    }
    let text = logs::text(&events, &wanted, common.display().stdout());
    if text.is_empty() {
        let of = args.step.as_deref().map(|step| format!(" of {step}")).unwrap_or_default();
        eprint(&format!("run {run} has no output{of}\n"));
    }
    Ok(print(&text))
}

/// Refuses a pattern that names no host of the run: silence would look like a host without output.
fn check_hosts(events: &[Timed], run: &str, patterns: &[String]) -> Result<(), Error> {
    let hosts = logs::hosts(events);
    for pattern in patterns.iter().flat_map(|text| crate::config::split(text)) {
        let name = pattern.trim_start_matches('!').to_owned();
        if logs::pick(hosts, std::slice::from_ref(&name)).is_empty() {
            return Err(Error::new(Exit::Usage, "no-such-hosts", format!("`{name}` names no host of run {run}"))
                .hint(format!("its hosts are {}", crate::config::ranges::fold(hosts))));
        }
    }
    Ok(())
}

fn eprint(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The last run of the environment; where a step or hosts are asked for, the last that has them. One that is not the last is named.
fn last_run(common: &Common, state: &std::path::Path, wanted: &Wanted) -> Result<String, Error> {
    let file = scene::load(common)?;
    let name = scene::environment_name(common, &file)?;
    let runs = RunStore::runs(state);
    let own: Vec<_> = runs.iter().filter(|run| run.meta.env == name && run.meta.project == file.project()).collect();
    let has = |run: &&&StoredRun| RunStore::read(state, &run.run).is_ok_and(|events| logs::is_there(&events, wanted));
    let asks = wanted.step.is_some() || !wanted.hosts.is_empty();
    let found = own.iter().find(has).filter(|_| asks).or(own.first());
    if let (Some(found), Some(last)) = (found, own.first().filter(|last| found.is_some_and(|found| found.run != last.run))) {
        let (run, verb) = (&found.run, &found.meta.verb);
        eprint(&format!("run {run} ({verb}): the last run, {} ({}), has no such output\n", last.run, last.meta.verb));
    }
    found.map(|run| run.run.clone()).ok_or_else(|| {
        Error::new(Exit::Usage, "no-such-run", format!("no run of {name} is stored on this machine")).hint("deployer logs --list")
    })
}

fn list(common: &Common, state: &std::path::Path) -> Exit {
    let of = |run: &StoredRun| common.env.as_ref().is_none_or(|env| run.meta.env == *env);
    let runs: Vec<StoredRun> = RunStore::runs(state).into_iter().filter(of).collect();
    if common.json {
        let metas: Vec<_> = runs.iter().map(|run| &run.meta).collect();
        return print(&format!("{}\n", serde_json::to_string(&metas).unwrap_or_default()));
    }
    print(&logs::list(&runs, scene::now(), common.display().stdout()))
}

fn step(name: &str) -> Result<Step, Error> {
    const STEPS: [Step; 19] = [
        Step::Mirror,
        Step::Resolve,
        Step::Export,
        Step::Connect,
        Step::Lock,
        Step::Push,
        Step::Cache,
        Step::Link,
        Step::Build,
        Step::Capture,
        Step::Hook,
        Step::Activate,
        Step::Check,
        Step::Confirm,
        Step::Revert,
        Step::Prune,
        Step::Setup,
        Step::Fill,
        Step::Run,
    ];
    STEPS.into_iter().find(|step| step.name() == name).ok_or_else(|| {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name()).collect();
        Error::new(Exit::Usage, "unknown-step", format!("unknown step `{name}`")).hint(format!("steps: {}", names.join(", ")))
    })
}
