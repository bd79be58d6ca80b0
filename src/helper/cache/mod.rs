//! Download caches, and what a fill works in: directories of files that are compared with a list, completed from it, listed and read.
//! A file gets its name by one rename, after its content had its digest. Builds never write here.
//!
//! What belongs to `deployer` in such a directory lies below `.deployer`, as in a root: what sets of files are known, what is being
//! written, and the place that a fill works in.

mod compare;
mod gather;
mod proofs;
mod supply;

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{Access, AtFlags, FlockOperation, accessat};

use crate::failure;
use crate::fs::Dir;
use crate::helper::Helper;
use crate::op::{Code, Failure};
use crate::pipe::{Request, hold};
use crate::release::layout;
use crate::store;
use crate::tree::path::Shown;
use crate::tree::{Digest, Manifest};
use crate::user;

pub use compare::compare;
pub use gather::{clear, fetch, gather};
pub use supply::supply;

/// Below the control directory of a cache: the lists of what was filled, by the key of what asked for them.
const SETS: &str = ".deployer/sets";
const LOCK: &str = ".deployer/lock";
/// Where fills work: a directory each, below the control directory of the cache they fill.
const WORK: &str = "/.deployer/fill-";
/// How often a lock that another has is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// The most bytes a list may have, unpacked.
const LIMIT: u64 = 256 * 1024 * 1024;

/// The lists that this session has begun to complete directories to.
#[derive(Default)]
pub struct Begun(Mutex<HashMap<String, Manifest>>);

impl Begun {
    fn begin(&self, directory: &str, list: Manifest) {
        hold(&self.0).insert(directory.to_owned(), list);
    }

    fn of(&self, directory: &str) -> Result<Manifest, Failure> {
        let list = hold(&self.0).get(directory).cloned();
        list.ok_or_else(|| failure::new(Code::Refused, format!("`{}` was not compared before it is supplied", shown(directory))))
    }
}

/// Opens a cache or a fill's directory to read it.
fn open(directory: &str) -> Result<Dir, Failure> {
    if !directory.starts_with('/') {
        return Err(failure::new(Code::Refused, format!("`{}` is not an absolute path", shown(directory))));
    }
    Dir::open_absolute(directory).map_err(|error| unopened(directory, &error))
}

fn unopened(directory: &str, error: &io::Error) -> Failure {
    let hint = "`setup` makes it where the login user may; or change `cache.path`";
    if error.kind() != io::ErrorKind::NotFound {
        return failure::hinted(
            failure::code(error),
            format!("the cache `{}` cannot be read: {}", shown(directory), failure::cause(error)),
            hint,
        );
    }
    match rustix::fs::readlink(directory, Vec::new()) {
        Ok(target) => failure::dangling(Code::CacheMissing, "the cache ", directory, target.as_bytes()),
        Err(_) => failure::hinted(Code::CacheMissing, format!("the cache `{}` does not exist", shown(directory)), hint),
    }
}

/// Opens a cache to write to it, with its control directory; a fill's own directory is made.
fn open_for_writing(helper: &Helper, directory: &str) -> Result<Dir, Failure> {
    let Some((cache, _)) = directory.split_once(WORK) else { return controlled(helper, directory) };
    let held = controlled(helper, cache)?;
    let below = directory.get(cache.len() + 1..).unwrap_or_default();
    let dir = held.make_dirs(below, 0o755).map_err(|error| failure::io("make", directory, &error))?;
    make_control(&dir).map_err(|error| failure::io("make", directory, &error))?;
    Ok(dir)
}

fn controlled(helper: &Helper, directory: &str) -> Result<Dir, Failure> {
    let dir = open(directory)?;
    if accessat(&dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        let owner = dir.own_stat().map_or_else(|_| "another".to_owned(), |stat| user::name_of(&helper.children, stat.uid));
        let me = &helper.user.name;
        let message = format!("the cache `{}` belongs to `{owner}`, and `{me}` may not write to it", shown(directory));
        let hint = format!("as root: chown {me} {}; or log in as its owner", shown(directory));
        return Err(failure::hinted(Code::Permission, message, hint));
    }
    make_control(&dir).map_err(|error| failure::io("make", format!("{directory}/{}", layout::CONTROL), &error))?;
    Ok(dir)
}

fn make_control(dir: &Dir) -> io::Result<()> {
    for (path, mode) in [(layout::CONTROL, 0o755), (SETS, 0o755), (layout::TEMPORARY, 0o700), (layout::TRASH, 0o700)] {
        dir.make_dirs(path, mode)?;
    }
    Ok(())
}

/// Waits for the right to name files in a directory. It goes with the value.
fn lock(dir: &Dir, directory: &str, request: &Request) -> Result<std::fs::File, Failure> {
    let file = dir.open_lock(LOCK, 0o644).map_err(|error| failure::io("open", format!("{directory}/{LOCK}"), &error))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if !request.is_stopped() => request.pause(AGAIN),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                return Err(failure::new(Code::Stopped, "stopped while it waited for another fill of the cache"));
            }
            Err(error) => return Err(failure::io("lock", format!("{directory}/{LOCK}"), &error.into())),
        }
    }
}

/// Reads a list that arrives compressed.
fn receive(stream: impl BufRead, size: u64) -> Result<Manifest, Failure> {
    if size > LIMIT {
        return Err(failure::new(Code::Protocol, format!("a list of {size} bytes, where {LIMIT} are the most")));
    }
    let bytes = store::unpack_whole(stream, size)?;
    Manifest::decode(&bytes).map_err(|error| failure::new(Code::Protocol, format!("the list cannot be used: {error}")))
}

fn set_path(key: Digest) -> String {
    format!("{SETS}/{key}")
}

/// Reads the list kept under `key`; none where there is none, or none that can be read.
fn kept(dir: &Dir, path: &str) -> Option<Manifest> {
    let packed = dir.read(path, LIMIT).ok()?;
    let mut bytes = Vec::new();
    zstd::Decoder::new(&*packed).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Manifest::decode(&bytes).ok()
}

fn pack(list: &Manifest) -> Result<Vec<u8>, Failure> {
    zstd::encode_all(&*list.encode(), 3).map_err(|error| failure::io("compress", "the list", &error))
}

fn shown(directory: &str) -> String {
    Shown(directory.as_bytes()).to_string()
}
