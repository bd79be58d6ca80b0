//! What a host is and holds, read in one go. Needs no lock, changes nothing, and takes a few milliseconds.

use std::io;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::fs::{Dir, FileKind};
use crate::helper::{Helper, clock_ms};
use crate::op::{Current, Facts, RootState};
use crate::records::Scan;
use crate::release::{Record, ReleaseId, layout};
use crate::root::Root;
use crate::tree::path::Shown;
use crate::{current, lock, process, records, recover, user};

/// Reads everything.
pub fn read(helper: &Helper) -> Facts {
    let opened = Root::open(&helper.root_path);
    let epoch = opened.as_ref().ok().and_then(|root| lock::read_epoch(root).ok()).unwrap_or(0);
    let scan = opened.as_ref().ok().and_then(|root| records::scan(root).ok()).unwrap_or_default();
    let state = root_state(helper, &opened, &scan);
    let root = opened.ok();
    let (free_bytes, total_bytes, free_inodes) = space(&helper.root_path);
    let uname = rustix::system::uname();
    Facts {
        platform: format!("{}-{}", uname.machine().to_string_lossy(), uname.sysname().to_string_lossy().to_lowercase()),
        user: helper.user.name.clone(),
        uid: helper.user.uid,
        home: helper.user.home.clone(),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        boot_id: boot_id(),
        host_id: root.as_ref().and_then(|root| root.host_id().ok().flatten()),
        helper: std::env::current_exe().map_or_else(|_| String::new(), |path| path.to_string_lossy().into_owned()),
        clock_ms: clock_ms(),
        root: state,
        filesystem: root.as_ref().map_or_else(String::new, filesystem),
        free_bytes,
        total_bytes,
        free_inodes,
        current: root.as_ref().and_then(|root| current::read(root).ok()).unwrap_or(Current::Absent),
        foreign: root.as_ref().map_or_else(Vec::new, |root| foreign(root, &scan.records)),
        unreadable: scan.unreadable.iter().map(|(name, why)| format!("`{}/{name}` cannot be read: {why}", layout::RECORDS)).collect(),
        releases: scan.records,
        holder: root.as_ref().and_then(lock::holder),
        hold: root.as_ref().and_then(lock::hold_record),
        epoch,
        unresolved: root.as_ref().and_then(unresolved),
    }
}

/// The random id of this boot: a deadline on the monotonic clock means nothing in another one.
pub fn boot_id() -> String {
    let text = process::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn unresolved(root: &Root) -> Option<ReleaseId> {
    recover::read_intent(root).ok().flatten().map(|intent| intent.to)
}

fn root_state(helper: &Helper, opened: &io::Result<Root>, scan: &Scan) -> RootState {
    let path = helper.root_path.as_str();
    let root = match opened {
        Ok(root) => root,
        Err(error) => return unopened(helper, path, error),
    };
    if let Some(format) = scan.newer_format {
        return RootState::NewerFormat(format);
    }
    let writable = accessat(&root.dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    match writable {
        Ok(()) => {}
        Err(rustix::io::Errno::ROFS) => return RootState::ReadOnly,
        Err(_) => return denied(helper, root.dir.own_stat().map_or(0, |stat| stat.uid)),
    }
    match root.dir.stat(layout::CONTROL) {
        Ok(stat) if stat.kind != FileKind::Directory || stat.uid != helper.user.uid => denied(helper, stat.uid),
        // The helper may have been put there already, and nothing else.
        Ok(_) if root.host_id().ok().flatten().is_some() => RootState::Ready,
        Ok(_) | Err(_) => RootState::Bare,
    }
}

fn denied(helper: &Helper, uid: u32) -> RootState {
    RootState::Denied { owner: user::name_of(&helper.children, uid) }
}

fn unopened(helper: &Helper, path: &str, error: &io::Error) -> RootState {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let parent = existing_parent(path);
            RootState::Missing { creatable: accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok() }
        }
        io::ErrorKind::NotADirectory => RootState::NotDirectory,
        _ => denied(helper, rustix::fs::stat(path).map_or(0, |stat| stat.st_uid)),
    }
}

/// Finds the nearest directory above `path` that is there.
pub fn existing_parent(path: &str) -> &str {
    let mut path = path.trim_end_matches('/');
    while let Some((parent, _)) = path.rsplit_once('/') {
        if parent.is_empty() {
            break;
        }
        if Dir::open_absolute(parent).is_ok() {
            return parent;
        }
        path = parent;
    }
    "/"
}

/// Free bytes (for this user), bytes in all and free inodes of the file system that has, or would have, the root.
fn space(path: &str) -> (u64, u64, u64) {
    let stat = rustix::fs::statvfs(path).or_else(|_| rustix::fs::statvfs(existing_parent(path)));
    stat.map_or((0, 0, 0), |stat| (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_favail))
}

/// Names the root's file system; the magic number in hex where the name is not known.
pub fn filesystem(root: &Root) -> String {
    let Ok(stat) = rustix::fs::fstatfs(&root.dir) else { return String::new() };
    // The type of the field differs between architectures; the numbers are those of statfs(2) and fit 32 bits.
    let magic = u64::try_from(stat.f_type).unwrap_or_default() & 0xffff_ffff;
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x6969 => "nfs",
        0xff53_4d42 => "cifs",
        0xfe53_4d42 => "smb2",
        0x0102_1997 => "9p",
        0x5346_414f => "afs",
        0x00c3_6400 => "ceph",
        0x6573_5546 => "fuse",
        other => return format!("{other:x}"),
    };
    name.to_owned()
}

/// Lists what is in `releases` and has no record.
fn foreign(root: &Root, records: &[Record]) -> Vec<String> {
    let names = root.dir.open_dir(layout::RELEASES).and_then(|dir| dir.names()).unwrap_or_default();
    let ours = |name: &[u8]| records.iter().any(|record| record.release.id.as_str().as_bytes() == name);
    names.iter().filter(|name| !ours(name)).map(|name| Shown(name).to_string()).collect()
}
