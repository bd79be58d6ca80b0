//! A disk that is too small by any amount, in bytes and in inodes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::controller::{Controller, Stopped};
use crate::invariants::{unsettled, violations};
use crate::op::Code;
use crate::scenarios::{Host, Scenario, Shape, find};

/// Room for everything.
const ROOMY: &str = "size=64m,nr_inodes=10000";

/// A file system of its own for a root, in a namespace that lives as long as this.
struct Disk {
    keeper: Child,
    /// The root, seen from outside.
    root: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(at: &Path) -> Option<Self> {
        if !Command::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no user namespace with mounts is allowed here");
            return None;
        }
        let mut keeper = Command::new("unshare");
        keeper.args(["-Urm", "sh", "-c", "mount -t tmpfs none \"$0\" && echo ready && read end"]).arg(at);
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        keeper.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let root = PathBuf::from(format!("/proc/{}/root{}", keeper.id(), at.display()));
        Some(Self { keeper, root, at: at.to_owned() })
    }

    fn enter(&self, program: &str) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &self.keeper.id().to_string(), "-U", "-m", "--preserve-credentials", program]);
        inside
    }

    /// Lets the disk hold so much and no more.
    fn limit(&self, option: &str) {
        let remounted = self.enter("mount").args(["-o", &format!("remount,{option}"), "none"]).arg(&self.at).status().unwrap();
        assert!(remounted.success(), "{option}");
    }

    fn used(&self) -> (u64, u64) {
        let stat = rustix::fs::statvfs(&self.root).unwrap();
        ((stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_files - stat.f_ffree)
    }

    fn controller(&self, run: &'static str) -> Controller {
        Controller::connect_under(self.enter(crate::client::HELPER), &self.at, run)
    }

    /// Empties the disk and fills it with what `host` has.
    fn reset(&self, host: &Host) {
        self.limit(ROOMY);
        let script = "rm -rf \"$0\"/* \"$0\"/.deployer && cp -a \"$1/.\" \"$0\"";
        assert!(self.enter("sh").args(["-c", script]).arg(&self.at).arg(host.root()).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// More steps than any work here needs.
const MOST: u64 = 200;

/// Does the work with more and more room, from none until it comes to its end, and after each again with room. Gives how many runs
/// failed for want of it.
fn sweep(scenario: Scenario, step: u64, limit: fn((u64, u64), u64) -> String) -> Option<u64> {
    let place = Host::new();
    let disk = Disk::new(&place.root())?;
    let host = scenario.prepared();
    disk.reset(&host);
    let mut controller = disk.controller("whole");
    (scenario.work)(&mut controller, "b").unwrap_or_else(|stopped| panic!("{}: {stopped}", scenario.name));
    controller.close();
    let shape = Shape::of(&disk.root);
    for n in 0..MOST {
        let at = format!("{} with room for {}", scenario.name, n * step);
        disk.reset(&host);
        disk.limit(&limit(disk.used(), n * step));
        let mut controller = disk.controller("first");
        let is_done = match (scenario.work)(&mut controller, "b") {
            Ok(()) => true,
            Err(Stopped::Failed { failure, .. }) if failure.code == Code::DiskFull => false,
            // A command of the user's says it in its own words.
            Err(Stopped::Wrong(what)) if what.contains("Exited") => false,
            Err(stopped) => panic!("{at}: {stopped}"),
        };
        controller.close();
        assert_eq!(violations(&disk.root), [""; 0], "{at}");
        disk.limit(ROOMY);
        let mut again = disk.controller("second");
        (scenario.work)(&mut again, "b").unwrap_or_else(|stopped| panic!("{at}, again: {stopped}"));
        again.close();
        assert_eq!(unsettled(&disk.root), [""; 0], "{at}, again");
        assert_eq!(Shape::of(&disk.root).difference(&shape), None, "{at}, again");
        if is_done {
            return Some(n);
        }
    }
    panic!("{} does not come to its end with any room", scenario.name)
}

#[test]
fn a_disk_that_is_too_small_by_any_amount_is_told_and_the_next_run_with_room_completes() {
    let bytes = |used: (u64, u64), room: u64| format!("size={}", used.0 + room);
    let inodes = |used: (u64, u64), room: u64| format!("nr_inodes={}", used.1 + room);
    for (name, step) in [("first deploy", 64 * 1024), ("next deploy", 64 * 1024), ("rollback", 4096)] {
        let scenario = find(name);
        let Some(sizes) = sweep(scenario, step, bytes) else { return };
        let Some(counts) = sweep(scenario, 1, inodes) else { return };
        eprintln!("{name}: {sizes} sizes and {counts} numbers of inodes were too small");
        assert!(sizes > 0 && counts > 0, "the control: with no room {name} fails");
    }
}
