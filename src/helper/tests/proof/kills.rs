//! The helper killed before each call by which it changes the disk, and in the middle of each write.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::client::restarts;
use crate::controller::{Controller, Stopped};
use crate::invariants::{left_in, records, unsettled, violations};
use crate::release::State;
use crate::scenarios::{Host, SCENARIOS, Scenario, Shape};
use crate::tracer::{self, Call, Fault, Plan, Seen, Watching};

/// How many calls of a run are left out where only some are tried.
const STRIDE: usize = 3;

/// A scenario with a helper that may have a bug.
#[derive(Clone, Copy)]
pub struct Harness {
    pub scenario: Scenario,
    pub bug: Option<&'static str>,
}

/// How a run ended that was tried.
pub struct Tried {
    pub is_hit: bool,
    pub violations: Vec<String>,
}

impl Harness {
    /// Lets the work come to its end on `host`, and gives what it did, what remains, and what is wrong with either.
    pub fn undisturbed(&self, host: &Host) -> (Seen, Shape, Vec<String>) {
        let mut controller = Controller::connect(&host.root(), "first", self.bug, Some(Watching::Closely));
        let done = (self.scenario.work)(&mut controller, "b");
        let seen = controller.close();
        let mut found = unsettled(&host.root());
        found.extend(host.trespasses());
        if let Err(stopped) = done {
            found.push(format!("it did not come to its end: {stopped}"));
        }
        found.extend(order(&seen.calls));
        (seen, Shape::of(&host.root()), found)
    }

    /// Does the work with something that happens on the way, then what anybody does next, and looks after each step. `n` decides who
    /// that is: the same run that comes back, or another, which goes on with the same release or makes its own.
    pub fn tried(&self, host: &Host, plan: Plan, expected: &Shape) -> Tried {
        let root = host.root();
        let mut controller = Controller::connect(&root, "first", self.bug, Some(Watching::For(plan)));
        let done = (self.scenario.work)(&mut controller, "b");
        let seen = controller.close();
        let Some(hit) = seen.hit else { return Tried { is_hit: false, violations: Vec::new() } };
        let at = hit.name;
        let mut found = Vec::new();
        let mut look = |when: &str, what: Vec<String>| {
            found.extend(what.into_iter().map(|what| format!("{} {} ({at}), {when}: {what}", self.scenario.name, plan.at)));
        };
        look("at once", violations(&root));
        match (plan.fault, done) {
            (Fault::Kill | Fault::Torn, Ok(()) | Err(Stopped::Gone)) | (_, Ok(())) => {}
            // It names what it was about.
            (Fault::Error(_), Err(Stopped::Failed { failure, .. })) if failure.message.contains('`') => {}
            (_, Err(stopped)) => look("at once", vec![format!("it ended with {stopped}")]),
        }
        let condemned = condemned(&root);
        look("recovered", self.recovered(host, plan.at));
        if let Some(release) = condemned {
            let state = records(&root, &mut Vec::new()).get(&release).map(|record| record.state);
            look(
                "recovered",
                (state != Some(State::Bad)).then(|| format!("I10: `{release}` did not hold, and is {state:?}")).into_iter().collect(),
            );
        }
        let (run, release) = if plan.at.is_multiple_of(2) { ("second", "b") } else { ("third", "c") };
        let mut again = Controller::connect(&root, run, self.bug, None);
        if let Err(stopped) = (self.scenario.work)(&mut again, release) {
            look("again", vec![format!("I6: it does not come to its end: {stopped}")]);
        }
        again.close();
        look("again", unsettled(&root));
        let difference = Shape::of(&root).difference(expected);
        look("again", difference.into_iter().map(|difference| format!("I6: it came to another end: {difference}")).collect());
        look("in the end", host.trespasses());
        Tried { is_hit: true, violations: found }
    }

    /// The next contact, and one after that, which must find nothing to do.
    fn recovered(&self, host: &Host, n: usize) -> Vec<String> {
        let root = host.root();
        let comes_back = n.is_multiple_of(3);
        let mut next = Controller::connect(&root, if comes_back { "first" } else { "next" }, self.bug, None);
        let recovered = next.lock();
        let mut found = match &recovered {
            Ok(lines) => lines.iter().filter(|line| line.contains("unresolved")).cloned().collect(),
            Err(stopped) => vec![format!("it cannot be recovered: {stopped}")],
        };
        let _ = next.unlock();
        next.close();
        // A run that comes back goes on with its own release, so that is not settled yet.
        if comes_back {
            found.extend(violations(&root));
            return found;
        }
        found.extend(unsettled(&root));
        found.extend(left_in(&root, "trash"));
        let (shape, serving) = (Shape::of(&root), restarts(&root));
        let live = std::fs::read_link(root.join("current")).ok();
        if let Some(live) =
            live.as_ref().and_then(|target| target.to_str()?.strip_prefix("releases/")).filter(|live| !serving.ends_with(live))
        {
            found.push(format!("`{live}` is live, and these were restarted: {serving}"));
        }
        let mut other = Controller::connect(&root, "other", self.bug, None);
        match other.lock() {
            Ok(lines) if lines.is_empty() => {}
            lines => found.push(format!("I5: recovery leaves something for another: {lines:?}, after {recovered:?}")),
        }
        let _ = other.unlock();
        other.close();
        if Shape::of(&root) != shape {
            found.push("I5: recovering twice is not recovering once".to_owned());
        }
        found
    }
}

/// The release that was being put back because it did not hold.
fn condemned(root: &Path) -> Option<String> {
    let intent: Value = serde_json::from_slice(&std::fs::read(root.join(".deployer/intent")).ok()?).ok()?;
    intent["bad"].as_str()?;
    let release = intent["to"].as_str()?.to_owned();
    // Beside a record that is confirmed it means nothing yet.
    let state = records(root, &mut Vec::new()).get(&release)?.state;
    (state != State::Confirmed).then_some(release)
}

/// Says what is wrong with the order of calls: what is written without the lock, what is put in its place before it is durable, and a
/// change of what decides everything that is not made durable before the next.
fn order(calls: &[Call]) -> Vec<String> {
    let mut found = Vec::new();
    let mut unsynced: Option<&str> = None;
    for (at, call) in calls.iter().enumerate() {
        // The lock lies in what has to be made first.
        let makes_way = matches!(call.name, "mkdirat" | "openat2" | "openat" | "flock" | "fchmod");
        if !call.is_locked && !makes_way {
            found.push(format!("I4: {} of `{}` without the lock", call.name, call.path));
        }
        match call.name {
            "write" => unsynced = Some(&call.path),
            "fsync" => unsynced = None,
            "renameat" => {
                let is_durable = |name: &str| name == "intent" || Path::new(name).extension() == Some(OsStr::new("json"));
                if is_durable(&call.path) && unsynced.is_some_and(|path| path.contains(".deployer/tmp/")) {
                    found.push(format!("I5: `{}` is put in its place before it is durable", call.path));
                }
                let next = calls.get(at + 1).map(|call| call.name);
                if matches!(call.path.as_str(), "intent" | "current") && next != Some("fsync") {
                    found.push(format!("I5: the rename of `{}` is not made durable: {next:?} follows", call.path));
                }
            }
            _ => {}
        }
    }
    found
}

/// How many points there are from one that is tried to the next, and where to begin.
pub fn extent(stride: usize) -> (usize, usize) {
    if std::env::var("DEPLOYER_PROOF").is_ok_and(|extent| extent == "all") {
        return (1, 0);
    }
    let seed = std::env::var("DEPLOYER_PROOF_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id() as usize);
    eprintln!("DEPLOYER_PROOF_SEED={seed}");
    (stride, seed)
}

/// Does pieces of work on all cores.
pub fn on_all_cores<T: Sync>(work: &[T], each: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(2, usize::from) + 1;
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(piece) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(piece);
                }
            });
        }
    });
}

#[test]
fn a_helper_killed_at_any_change_leaves_a_host_that_is_whole_and_the_same_work_done_again_comes_to_the_same_end() {
    if !tracer::is_possible() {
        return;
    }
    let began = Instant::now();
    let (stride, first) = extent(STRIDE);
    let mut points = Vec::new();
    let mut undisturbed = Vec::new();
    for scenario in SCENARIOS {
        let harness = Harness { scenario, bug: None };
        let host = scenario.prepared();
        let (seen, shape, wrong) = harness.undisturbed(&host.copy());
        assert_eq!(wrong, [""; 0], "{}", scenario.name);
        let (again, _, _) = harness.undisturbed(&host.copy());
        let names = |seen: &Seen| seen.calls.iter().map(|call| call.name).collect::<Vec<_>>();
        assert_eq!(names(&seen), names(&again), "{} makes the same calls in every run", scenario.name);
        let writes = seen.calls.iter().filter(|call| call.name == "write").count();
        eprintln!("{}: {} changes, {writes} writes", scenario.name, seen.calls.len());
        let plans = (1..=seen.calls.len()).map(|at| Plan { at, fault: Fault::Kill });
        let torn = (1..=writes).map(|at| Plan { at, fault: Fault::Torn });
        points.extend(plans.chain(torn).map(|plan| (undisturbed.len(), plan)).skip(first % stride).step_by(stride));
        undisturbed.push((harness, host, shape));
    }
    let (kills, violations) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    on_all_cores(&points, |(of, plan)| {
        let (harness, host, shape) = &undisturbed[*of];
        let tried = harness.tried(&host.copy(), *plan, shape);
        kills.fetch_add(usize::from(tried.is_hit), Ordering::Relaxed);
        violations.lock().unwrap().extend(tried.violations);
    });
    let (kills, violations) = (kills.into_inner(), violations.into_inner().unwrap());
    eprintln!("kills: {kills} of {} points, {} violations, {:.1} s", points.len(), violations.len(), began.elapsed().as_secs_f64());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(kills * 10 >= points.len() * 9, "{kills} of {}", points.len());
}
