//! Links what outlives a release into it: shared directories and files by relative links, the download cache by an absolute one.

use std::io;

use super::stored::{MadeLink, Stored};
use super::{Memory, failure, is_absent, open_release, record, shown};
use crate::fs::{Dir, FileKind};
use crate::op::{CacheLink, Code, Failure, Links};
use crate::release::{State, layout};
use crate::root::Root;
use crate::tree::TreePath;
use crate::tree::path::Shown;

/// Directories made in a release on the way to a link.
const MODE: u32 = 0o755;
/// Of `shared`'s own mode, what a directory made below it gets: rights and the group's bit.
const SHARED_MODE: u32 = 0o2775;

/// Makes the links of a release. Done again, it changes nothing.
pub fn link(root: &Root, memory: &Memory, links: &Links) -> Result<(), Failure> {
    let record = record(root, &links.release)?;
    match record.state {
        State::Uploaded | State::Building => {}
        State::Uploading | State::Failed | State::Bad | State::Sealed | State::Active | State::Confirmed | State::Retired => {
            return Err(failure::new(Code::Refused, format!("release `{}` cannot be linked: it is not freshly uploaded", links.release)));
        }
    }
    let directories = links.directories.iter().map(|path| checked(path)).collect::<Result<Vec<_>, _>>()?;
    let files = links.files.iter().map(|path| checked(path)).collect::<Result<Vec<_>, _>>()?;
    check_shared_files(root, &files)?;
    if let Some(cache) = &links.cache {
        check_cache(&cache.target)?;
    }
    let mut made = Vec::new();
    for path in &directories {
        make_shared(root, path)?;
    }
    for path in directories.iter().chain(&files) {
        // A link to the directory around it leads there already.
        if !directories.iter().any(|outer| path.is_beneath(outer)) {
            made.push(MadeLink { path: path.as_bytes().to_vec(), target: shared_target(path) });
        }
    }
    if let Some(CacheLink { link, target }) = &links.cache {
        made.push(MadeLink { path: checked(link)?.as_bytes().to_vec(), target: target.clone().into_bytes() });
    }
    let mut stored = memory.load(root, &links.release)?;
    let dir = open_release(root, &links.release)?;
    for link in &made {
        place(root, links, &dir, &stored, link)?;
    }
    if stored.ledger.links != made {
        stored.ledger.links = made;
        stored.save(root, &links.release)?;
    }
    memory.keep(root, &links.release, stored);
    Ok(())
}

fn checked(path: &str) -> Result<TreePath, Failure> {
    TreePath::new(path.as_bytes())
        .map_err(|error| failure::new(Code::Refused, format!("`{}` cannot be linked: {error}", Shown(path.as_bytes()))))
}

/// Leads from a path of a release to the same path of `shared`: past the path's directories, the release and `releases`.
fn shared_target(path: &TreePath) -> Vec<u8> {
    let up = path.components().count() + 1;
    [b"../".repeat(up), layout::SHARED.as_bytes().to_vec(), b"/".to_vec(), path.as_bytes().to_vec()].concat()
}

fn check_shared_files(root: &Root, files: &[TreePath]) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for path in files {
        let look = || root.dir.open_dir_or_linked(layout::SHARED)?.stat(path.as_bytes());
        match look() {
            Ok(_) => {}
            Err(error) if is_absent(&error) => missing.push(format!("`{}`", Shown(&in_shared(path)))),
            Err(error) => return Err(failure::io("look at", in_shared(path), &error)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {} shared files missing: {}", missing.len(), files.len(), missing.join(", "));
    Err(failure::hinted(Code::SharedMissing, message, format!("put them below `{}/{}` on the host", root.path, layout::SHARED)))
}

fn check_cache(target: &str) -> Result<(), Failure> {
    let hint = "make it and fill it on the host, or change `cache.path`";
    let missing =
        |why: String| failure::hinted(Code::CacheMissing, format!("the download cache `{}` {why}", Shown(target.as_bytes())), hint);
    if !target.starts_with('/') {
        return Err(missing("is not an absolute path".to_owned()));
    }
    match Dir::open_absolute(target).and_then(|dir| dir.names()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(match rustix::fs::readlink(target, Vec::new()) {
            Ok(to) => failure::dangling(Code::CacheMissing, "the download cache ", target, to.as_bytes()),
            Err(_) => missing("does not exist".to_owned()),
        }),
        Err(error) => Err(missing(format!("cannot be read: {}", failure::cause(&error)))),
    }
}

fn in_shared(path: &TreePath) -> Vec<u8> {
    [layout::SHARED.as_bytes(), b"/", path.as_bytes()].concat()
}

/// Makes a shared directory where it is missing, with the rights and the group that `shared` itself has. It, and `shared`, may be
/// links of the operator's to another disk; what lies between them may not, since programs write there.
fn make_shared(root: &Root, path: &TreePath) -> Result<(), Failure> {
    let make = || {
        let shared = root.dir.open_dir_or_linked(layout::SHARED)?;
        match shared.open_dir_or_linked(path.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let like = shared.own_stat()?;
        path.components().try_fold(shared, |dir, name| {
            let (inner, is_new) = dir.make_dir(name, like.mode & SHARED_MODE)?;
            if is_new && inner.own_stat()?.gid != like.gid {
                inner.set_group(like.gid)?;
                inner.set_mode(like.mode & SHARED_MODE)?;
            }
            Ok(inner)
        })
    };
    make().map(drop).map_err(|error: io::Error| failure::io("make", in_shared(path), &error))
}

fn place(root: &Root, links: &Links, dir: &Dir, stored: &Stored, link: &MadeLink) -> Result<(), Failure> {
    let at = shown(&links.release, &link.path);
    let failed = |error: io::Error| failure::io("link", &at, &error);
    if let Some(slash) = link.path.iter().rposition(|byte| *byte == b'/') {
        dir.make_dirs(&link.path[..slash], MODE).map_err(failed)?;
    }
    match dir.stat(&link.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(stat) => {
            let path = TreePath::new(link.path.clone()).map_err(|error| failure::new(Code::Refused, error.to_string()))?;
            let tracked = stored.manifest.holds(&path);
            if stat.kind == FileKind::Link && dir.read_link(&link.path).map_err(failed)? == link.target {
                return Ok(());
            }
            if !links.replace && (tracked || stat.kind != FileKind::Link) {
                return Err(in_the_way(&at, stat.kind, tracked));
            }
            if stat.kind != FileKind::Link {
                root.dir.trash(&at).map_err(failed)?;
            }
        }
    }
    root.dir.replace_link_unsynced(&link.target, &at).map_err(failed)
}

fn in_the_way(at: &[u8], kind: FileKind, tracked: bool) -> Failure {
    let what = match kind {
        FileKind::File => "a file",
        FileKind::Directory => "a directory",
        FileKind::Link => "a link",
        FileKind::Other => "something else",
    };
    let whose = if tracked { "that the revision tracks" } else { "that the revision does not track" };
    let hint = if tracked { "remove it from the revision, or set `replace = true`" } else { "remove it, or set `replace = true`" };
    failure::hinted(Code::PathInTheWay, format!("`{}` is {what} {whose}, where a link must go", Shown(at)), hint)
}
