//! A bad way to a host: a relay before a real sshd that cuts, stalls, slows down, refuses or changes what passes, at any byte. What a
//! run tells must be so, and the same command must complete when the way is good again.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::running::{Ended, Running};
use crate::whole::{Stage, live_commit};

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];
const HOSTS: [&str; 2] = ["app1", "app2"];
/// The host with the bad way to it.
const FAR: &str = "app2";
/// Far beyond what any of this takes on a machine that has other work.
const NOTICED: Duration = Duration::from_secs(45);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToHost = 0,
    ToController = 1,
}

/// What happens to the byte of this number, counted from when it was asked for, and to all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Both ways end before it.
    Cut(Way, usize),
    /// Nothing comes any more, either way, and nothing is closed.
    Stall(Way, usize),
    Flip(Way, usize),
    /// Whoever connects is sent away.
    Refuse,
}

#[derive(Debug)]
struct Road {
    fault: Mutex<Fault>,
    /// Bytes so far, each way.
    passed: [AtomicUsize; 2],
    /// Where the pieces that were read ended, each way: frames, more or less.
    edges: [Mutex<Vec<usize>>; 2],
    latency: Mutex<Duration>,
    /// Bytes in a second; 0 is any number.
    rate: AtomicUsize,
}

impl Road {
    /// Leads the way to `host` through this from now on.
    fn build(stage: &Stage, host: &str) -> Arc<Self> {
        let (real, listener) = stage.detour(host);
        let road = Arc::new(Self {
            fault: Mutex::new(Fault::None),
            passed: Default::default(),
            edges: Default::default(),
            latency: Mutex::default(),
            rate: AtomicUsize::new(0),
        });
        let open = Arc::clone(&road);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let refused = *open.fault.lock().unwrap() == Fault::Refuse;
                let Some(server) = (!refused).then(|| TcpStream::connect(("127.0.0.1", real)).ok()).flatten() else { continue };
                for (way, from, to) in [(Way::ToHost, &client, &server), (Way::ToController, &server, &client)] {
                    let (from, to, road) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&open));
                    thread::spawn(move || road.carry(way, from, to));
                }
            }
        });
        road
    }

    /// Begins to count at the byte that comes next.
    fn set(&self, fault: Fault) {
        let from = |way: Way, byte: usize| byte + self.passed[way as usize].load(Ordering::SeqCst);
        *self.fault.lock().unwrap() = match fault {
            Fault::Cut(way, byte) => Fault::Cut(way, from(way, byte)),
            Fault::Stall(way, byte) => Fault::Stall(way, from(way, byte)),
            Fault::Flip(way, byte) => Fault::Flip(way, from(way, byte)),
            Fault::None | Fault::Refuse => fault,
        };
    }

    fn carry(&self, way: Way, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            thread::sleep(*self.latency.lock().unwrap());
            if let rate @ 1.. = self.rate.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_secs_f64(f64::from(u32::try_from(count).unwrap()) / f64::from(u32::try_from(rate).unwrap())));
            }
            let fault = *self.fault.lock().unwrap();
            let start = self.passed[way as usize].fetch_add(count, Ordering::SeqCst);
            self.edges[way as usize].lock().unwrap().push(start + count);
            let piece = &mut buffer[..count];
            let whole = match fault {
                Fault::Cut(of, byte) if of == way => byte.saturating_sub(start).min(count),
                Fault::Stall(of, byte) if of == way && byte < start + count => {
                    // Whatever was to come stays on the way, for as long as anybody waits.
                    while *self.fault.lock().unwrap() == fault {
                        thread::sleep(Duration::from_millis(20));
                    }
                    break;
                }
                Fault::Flip(of, byte) if of == way => {
                    if let Some(byte) = byte.checked_sub(start).and_then(|at| piece.get_mut(at)) {
                        *byte ^= 1;
                    }
                    count
                }
                Fault::None | Fault::Cut(..) | Fault::Stall(..) | Fault::Flip(..) | Fault::Refuse => count,
            };
            if to.write_all(&piece[..whole]).is_err() || whole < count {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

/// Compares what a run says that hosts serve with what they do: a host may be told as unknown, and none as what it is not.
#[track_caller]
fn tells_the_truth(stage: &Stage, ended: &Ended, at: &str) {
    let told = ended.events.last().filter(|event| event["type"] == "run.finished").expect("the last event is the end");
    let live: Vec<String> = HOSTS.iter().map(|host| live_commit(stage.world.root(host))[..7].to_owned()).collect();
    for (name, count) in told["live"].as_object().unwrap() {
        let so = live.iter().filter(|live| *live == name).count() as u64;
        assert!(
            name == "unknown" || Some(so) >= count.as_u64(),
            "{at}: {name} is said to be live on {count}, and {live:?} are: {ended:#?}"
        );
    }
    assert!(matches!(ended.status, 0 | 10 | 11 | 12 | 13), "{at}: {ended:#?}");
    if ended.status == 0 {
        assert_eq!(live[0], live[1], "{at}: all is said to be well");
    }
}

/// Deploys the next version while `fault` happens from the start of `step` on, then again on a good way.
fn tried(stage: &Stage, road: &Road, (step, fault): (&str, Fault)) -> Ended {
    let at = format!("{fault:?} from {step}");
    let app = format!("{at}\n");
    stage.commit(&app);
    let mut run = Running::start(&stage.world, &DEPLOY);
    if step == "begin" {
        road.set(fault);
    } else {
        run.until_step(step);
        road.set(fault);
    }
    let began = Instant::now();
    let ended = run.end();
    assert!(began.elapsed() < NOTICED, "{at}: {:?}", began.elapsed());
    stage.rests();
    tells_the_truth(stage, &ended, &at);
    road.set(Fault::None);
    stage.completes(&app);
    ended
}

fn stage(session: &'static str) -> (Stage, Arc<Road>) {
    let stage = Stage::ssh(session, &HOSTS, "keep-releases = 2\n");
    let road = Road::build(&stage, FAR);
    stage.commit("one\n");
    stage.settles("one\n");
    (stage, road)
}

#[test]
fn a_connection_that_is_cut_at_any_byte_is_told_as_it_is_and_the_same_command_completes() {
    let seed = getrandom::u32().unwrap() as usize;
    let mut failed = 0;
    for (session, cuts) in [("ssh2", 4), ("openssh", 1)] {
        let (stage, road) = stage(session);
        let passed = || [Way::ToHost, Way::ToController].map(|way| road.passed[way as usize].load(Ordering::SeqCst));
        // What an undisturbed run says, each way.
        let before = passed();
        stage.commit("whole\n");
        stage.world.deployer(DEPLOY).ok();
        let after = passed();
        for way in [Way::ToHost, Way::ToController] {
            let (before, after) = (before[way as usize], after[way as usize]);
            let edges = road.edges[way as usize].lock().unwrap().clone();
            let edges: Vec<usize> =
                edges.into_iter().filter(|edge| (before + 1..=after).contains(edge)).map(|edge| edge - before).collect();
            for turn in 0..cuts {
                // An edge of what was said, the byte before it and the one behind it, and any byte.
                let edge = edges[(seed % edges.len() + turn * edges.len() / cuts) % edges.len()];
                let byte = [edge - 1, edge, edge + 1, seed % (after - before)][turn];
                failed += usize::from(tried(&stage, &road, ("begin", Fault::Cut(way, byte))).status != 0);
            }
        }
    }
    assert!(failed > 0, "the control: something is cut, {seed}");
}

#[test]
fn a_host_that_vanishes_between_intent_switch_restart_and_confirmation_is_told_as_it_is() {
    let (stage, road) = stage("ssh2");
    // What a run says to the host while it activates, and what the host answers, is some hundred bytes each way.
    for bytes in [0, 60, 200, 400] {
        for way in [Way::ToHost, Way::ToController] {
            tried(&stage, &road, ("activate", Fault::Cut(way, bytes)));
        }
    }
}

#[test]
fn a_byte_that_is_changed_on_the_way_never_reaches_a_release() {
    let (stage, road) = stage("openssh");
    for (step, way, byte) in [("push", Way::ToHost, 20), ("push", Way::ToController, 5), ("activate", Way::ToHost, 30)] {
        tried(&stage, &road, (step, Fault::Flip(way, byte)));
    }
}

#[test]
fn a_way_on_which_nothing_comes_any_more_is_noticed_and_the_hosts_are_let_go() {
    let (stage, road) = stage("ssh2");
    stage.commit("two\n");
    stage.mark("slow", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("waiting", 2);
    road.set(Fault::Stall(Way::ToController, 0));
    let began = Instant::now();
    stage.mark("slow", false);
    let ended = run.end();
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    ended.exits(11);
    road.set(Fault::None);
    stage.rests();
    tells_the_truth(&stage, &ended, "stalled");
    stage.settles("two\n");
}

#[test]
fn a_host_that_sends_everybody_away_is_unreachable_and_nothing_is_changed() {
    let (stage, road) = stage("ssh2");
    let before = HOSTS.map(|host| live_commit(stage.world.root(host)));
    stage.commit("two\n");
    road.set(Fault::Refuse);
    let ended = Running::start(&stage.world, &DEPLOY).end();
    ended.exits(10);
    assert_eq!(HOSTS.map(|host| live_commit(stage.world.root(host))), before);
    assert!(HOSTS.iter().all(|host| stage.world.releases(host).len() == 1));
    road.set(Fault::None);
    stage.settles("two\n");
}

#[test]
fn a_long_and_narrow_way_is_slow_and_nothing_else() {
    for session in ["ssh2", "openssh"] {
        let (stage, road) = stage(session);
        *road.latency.lock().unwrap() = Duration::from_millis(50);
        road.rate.store(56_000 / 8, Ordering::SeqCst);
        stage.commit("two\n");
        let ended = Running::start(&stage.world, &DEPLOY).end();
        ended.exits(0);
        let finished: Vec<&Value> = ended.events.iter().filter(|event| event["type"] == "run.finished").collect();
        assert_eq!(finished.len(), 1, "{ended:#?}");
        stage.serves("two\n");
    }
}
