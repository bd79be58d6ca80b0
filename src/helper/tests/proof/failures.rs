//! Each call of the helper fails once: the disk is full, broken or not ours, descriptors run out, a signal comes; and each read and
//! write does less than was asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::errno::Errno;

use crate::controller::Controller;
use crate::kills::{Harness, extent, on_all_cores};
use crate::scenarios::find;
use crate::tracer::{self, Fault, Plan, Watching};

/// How many calls of a run are left out where only some are tried.
const STRIDE: usize = 61;

const FAULTS: [Fault; 7] = [
    Fault::Error(Errno::ENOSPC),
    Fault::Error(Errno::EDQUOT),
    Fault::Error(Errno::EIO),
    Fault::Error(Errno::EACCES),
    Fault::Error(Errno::EMFILE),
    Fault::Error(Errno::EINTR),
    Fault::Short,
];

/// What between them makes every call that a helper makes.
const WORK: [&str; 5] = ["first deploy", "next deploy", "deploy that fails its check", "removal", "recovery of a switch"];

#[test]
fn whichever_call_fails_the_error_says_which_step_it_was_and_the_next_run_completes() {
    if !tracer::is_possible() {
        return;
    }
    let began = Instant::now();
    let (stride, first) = extent(STRIDE);
    let (mut points, mut prepared) = (Vec::new(), Vec::new());
    for name in WORK {
        let scenario = find(name);
        let (harness, host) = (Harness { scenario, bug: None }, scenario.prepared());
        let (_, shape, wrong) = harness.undisturbed(&host.copy());
        assert_eq!(wrong, [""; 0], "{name}");
        for fault in FAULTS {
            // Nothing happens to a run before its last call.
            let all = host.copy();
            let mut controller = Controller::connect(&all.root(), "first", None, Some(Watching::For(Plan { at: usize::MAX, fault })));
            (scenario.work)(&mut controller, "b").unwrap_or_else(|stopped| panic!("{name}: {stopped}"));
            let calls = controller.close().calls.len();
            assert!(calls > 0, "{name} makes no call that can end with {fault:?}");
            eprintln!("{name}: {calls} calls that can end with {fault:?}");
            points.extend((1..=calls).map(|at| (prepared.len(), Plan { at, fault })));
        }
        prepared.push((harness, host, shape));
    }
    let tried: Vec<_> = points.iter().skip(first % stride).step_by(stride).collect();
    let (hits, violations) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    on_all_cores(&tried, |(of, plan)| {
        let (harness, host, shape) = &prepared[*of];
        let tried = harness.tried(&host.copy(), *plan, shape);
        hits.fetch_add(usize::from(tried.is_hit), Ordering::Relaxed);
        violations.lock().unwrap().extend(tried.violations.into_iter().map(|violation| format!("{:?}: {violation}", plan.fault)));
    });
    let (hits, violations) = (hits.into_inner(), violations.into_inner().unwrap());
    let secs = began.elapsed().as_secs_f64();
    eprintln!("failures: {hits} of {} points, {} tried, {} violations, {secs:.1} s", points.len(), tried.len(), violations.len());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(hits * 10 >= tried.len() * 9, "{hits} of {}", tried.len());
}
