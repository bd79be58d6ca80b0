//! Processes that still run from a release that is not live: a restart that did not restart. Where this user may not look, the answer is
//! that it is not known, never that all is well.

use std::io;

use crate::current;
use crate::failure;
use crate::fs::Dir;
use crate::op::{Current, Failure, OldProcess, Processes};
use crate::process;
use crate::records;
use crate::release::{Record, layout};
use crate::root::Root;

/// What the kernel adds to the name of what was deleted.
const DELETED: &[u8] = b" (deleted)";
/// What one process may map.
const MAPS: u64 = 16 * 1024 * 1024;
/// The parent of the kernel's own threads.
const KERNEL: i32 = 2;

/// Looks at every process.
pub fn look(root: &Root) -> Result<Processes, Failure> {
    let failed = |error: io::Error| failure::io("look at the processes in", layout::RELEASES, &error);
    let live = match current::read(root).map_err(failed)? {
        Current::Release(id) => Some(id.to_string()),
        Current::Absent | Current::Elsewhere { .. } | Current::NotLink => None,
    };
    let records = records::records(root).map_err(failed)?;
    let prefix = [root.real_path().map_err(failed)?, format!("/{}/", layout::RELEASES).into_bytes()].concat();
    let proc = Dir::open_absolute("/proc").map_err(failed)?;
    let mut found = Processes { hidden: hides_processes(), ..Processes::default() };
    for name in proc.names().map_err(failed)? {
        let Some(pid) = std::str::from_utf8(&name).ok().and_then(|name| name.parse::<i32>().ok()) else { continue };
        match release_of(&proc, pid, &prefix) {
            Place::Nowhere => {}
            Place::Unknown => found.unknown += 1,
            Place::Release(release) if live.as_deref() == Some(release.as_str()) || is_being_made(&records, &release) => {}
            Place::Release(release) => found.old.push(OldProcess { pid, name: process::name(pid), release }),
        }
    }
    Ok(found)
}

/// A build runs in a release that was never live.
fn is_being_made(records: &[Record], release: &str) -> bool {
    records.iter().any(|record| record.release.id.as_str() == release && record.activated.is_none())
}

/// Where a process runs from.
enum Place {
    Release(String),
    Nowhere,
    Unknown,
}

fn release_of(proc: &Dir, pid: i32, prefix: &[u8]) -> Place {
    let file = |name: &str| format!("{pid}/{name}");
    let mut is_unknown = false;
    for link in ["cwd", "exe", "root"] {
        match proc.read_link(file(link)) {
            Ok(target) => {
                if let Some(release) = below(&target, prefix) {
                    return Place::Release(release);
                }
            }
            Err(error) => is_unknown |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    // Anybody may read how a process was called, unless the host hides it.
    let called = proc.read(file("cmdline"), MAPS).unwrap_or_default();
    let maps = proc.read(file("maps"), MAPS).unwrap_or_default();
    let paths = maps.split(|byte| *byte == b'\n').filter_map(|line| line.iter().position(|byte| *byte == b'/').map(|at| &line[at..]));
    if let Some(release) = called.split(|byte| *byte == 0).chain(paths).find_map(|path| below(path, prefix)) {
        return Place::Release(release);
    }
    let is_the_kernels = || pid == KERNEL || process::parent(pid) == Some(KERNEL);
    if is_unknown && !is_the_kernels() { Place::Unknown } else { Place::Nowhere }
}

/// Reads the name of the release that a path lies in.
fn below(path: &[u8], prefix: &[u8]) -> Option<String> {
    let rest = path.strip_prefix(prefix)?;
    let name = rest.split(|byte| *byte == b'/').next()?;
    let name = name.strip_suffix(DELETED).unwrap_or(name);
    (!name.is_empty()).then(|| crate::tree::path::Shown(name).to_string())
}

/// Tells whether `/proc` shows this user only its own processes.
fn hides_processes() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    !is_root && hides(&String::from_utf8_lossy(&process::read("/proc/self/mountinfo").unwrap_or_default()))
}

fn hides(mounts: &str) -> bool {
    let mut proc = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = proc.next_back().and_then(|line| line.split_once(" - ")).map(|(_, options)| options).unwrap_or_default();
    let hidden = |option: &str| option.strip_prefix("hidepid=").is_some_and(|value| !matches!(value, "0" | "off"));
    options.split([' ', ',']).any(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_release_names_it_whether_or_not_it_is_still_there() {
        let release = |path: &str| below(path.as_bytes(), b"/srv/app/releases/");
        assert_eq!(release("/srv/app/releases/a/bin/serve").as_deref(), Some("a"));
        assert_eq!(release("/srv/app/releases/a").as_deref(), Some("a"));
        assert_eq!(release("/srv/app/releases/a (deleted)").as_deref(), Some("a"));
        assert_eq!(release("/srv/app/releases/a/lib.so (deleted)").as_deref(), Some("a"));
        for other in ["/srv/app/releases/", "/srv/app/releases", "/srv/app2/releases/a", "releases/a", ""] {
            assert_eq!(release(other), None, "{other}");
        }
    }

    #[test]
    fn a_proc_that_hides_other_users_is_recognised() {
        let mount = |options: &str| format!("20 1 0:19 / /sys rw - sysfs sysfs rw\n21 1 0:20 / /proc rw,nosuid - proc proc {options}\n");
        assert!(hides(&mount("rw,hidepid=2")) && hides(&mount("rw,gid=4,hidepid=invisible")));
        assert!(!hides(&mount("rw")) && !hides(&mount("rw,hidepid=0")) && !hides(&mount("rw,hidepid=off")));
    }
}
