//! Makes a host ready: directories, groups and modes. What the login user may not do is told as the exact commands for root.

use std::io;

use rustix::fs::{Access, AtFlags, accessat};

use crate::facts::existing_parent;
use crate::failure::{self, quoted};
use crate::fs::{Dir, FileKind};
use crate::helper::Helper;
use crate::lock;
use crate::op::{Code, Failure, SetUpResult, Setup};
use crate::release::layout;
use crate::root::Root;
use crate::tree::TreePath;
use crate::user;

const PLAIN: u32 = 0o755;
/// Writable by the group, and what is made inside belongs to the group as well.
const SHARED: u32 = 0o2775;

/// One run of setup.
struct Work<'a> {
    helper: &'a Helper,
    check: bool,
    /// The name, and its number where the system knows it.
    group: Option<(&'a str, u32)>,
    result: SetUpResult,
}

/// Makes what is missing, or only tells it.
pub fn set_up(helper: &Helper, setup: &Setup) -> Result<SetUpResult, Failure> {
    for path in setup.shared_directories.iter().chain(&setup.shared_files) {
        TreePath::new(path.as_bytes()).map_err(|error| failure::new(Code::Refused, format!("`shared/{path}`: {error}")))?;
    }
    let mut work = Work { helper, check: setup.check, group: None, result: SetUpResult::default() };
    work.group = setup.group.as_deref().map(|name| user::group_id(&helper.children, name).map(|gid| (name, gid))).transpose()?;
    work.directory(&helper.root_path, PLAIN)?;
    if let Some(cache) = &setup.cache {
        work.directory(cache, PLAIN)?;
    }
    match Root::open(&helper.root_path) {
        Ok(root) if work.may_write(&root) => work.beneath(&root, setup)?,
        Ok(root) => work.missing_files(Some(&root), setup),
        Err(_) => {
            let wanted = shared_directories(setup).into_iter().map(|path| format!("{}/{path}", layout::SHARED));
            let names = [layout::RELEASES.to_owned(), layout::SHARED.to_owned()].into_iter().chain(wanted);
            work.result.changed.extend(names.map(|name| format!("make `{}/{name}`", helper.root_path)));
            work.missing_files(None, setup);
        }
    }
    Ok(work.result)
}

/// The shared directories, and those that the shared files are put into.
fn shared_directories(setup: &Setup) -> Vec<&str> {
    let around = setup.shared_files.iter().filter_map(|path| path.rsplit_once('/')).map(|(directory, _)| directory);
    let mut all: Vec<&str> = setup.shared_directories.iter().map(String::as_str).collect();
    for directory in around {
        if !all.contains(&directory) {
            all.push(directory);
        }
    }
    all
}

impl Work<'_> {
    /// Makes a directory of the operator's own, or says what root has to run.
    fn directory(&mut self, path: &str, mode: u32) -> Result<(), Failure> {
        match Dir::open_absolute(path) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failure::io("open", path, &error)),
        }
        let parent = existing_parent(path);
        let held = Dir::open_absolute(parent).map_err(|error| failure::io("open", parent, &error))?;
        let rest = path.strip_prefix(parent).unwrap_or(path).trim_matches('/');
        let first = rest.split('/').next().unwrap_or(rest);
        if let Ok(target) = held.read_link(first) {
            return Err(failure::dangling(Code::NotFound, "", &format!("{}/{first}", parent.trim_end_matches('/')), &target));
        }
        if accessat(&held, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err() {
            self.result.root_commands.push(self.install(path, mode));
            return Ok(());
        }
        self.result.changed.push(format!("make `{path}`"));
        if self.check {
            return Ok(());
        }
        held.make_dirs(rest, mode).map(drop).map_err(|error| failure::io("make", path, &error))
    }

    /// Whether the root is ours to work in; the commands that make it so otherwise.
    fn may_write(&mut self, root: &Root) -> bool {
        if accessat(&root.dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok() {
            return true;
        }
        let owner = self.owner();
        self.result.root_commands.push(format!("chown {owner} {path} && chmod 0755 {path}", path = quoted(&root.path)));
        false
    }

    fn beneath(&mut self, root: &Root, setup: &Setup) -> Result<(), Failure> {
        if !root.has_control().map_err(|error| failure::io("read", layout::CONTROL, &error))? {
            self.result.changed.push(format!("make `{}/{}`", root.path, layout::CONTROL));
        }
        for path in [layout::RELEASES, layout::SHARED] {
            self.shared(&root.dir, path, &format!("{}/{path}", root.path), PLAIN)?;
        }
        let mode = if self.group.is_some() { SHARED } else { PLAIN };
        // What is made in a link's place is made where the link leads.
        let linked = root.dir.stat(layout::SHARED).is_ok_and(|stat| stat.kind == FileKind::Link);
        let linked = if linked { root.dir.open_dir_or_linked(layout::SHARED).map(Some) } else { Ok(None) };
        let linked = linked.map_err(|error| failure::io("open", format!("{}/{}", root.path, layout::SHARED), &error))?;
        for path in shared_directories(setup) {
            let within = format!("{}/{path}", layout::SHARED);
            let whole = format!("{}/{within}", root.path);
            match &linked {
                Some(shared) => self.shared(shared, path, &whole, mode)?,
                None => self.shared(&root.dir, &within, &whole, mode)?,
            }
        }
        if !self.check {
            lock::prepare(root)?;
        }
        self.missing_files(Some(root), setup);
        Ok(())
    }

    /// Makes the directory `path` of `base`, which people know as `whole`, and gives one that is to be shared to the group.
    fn shared(&mut self, base: &Dir, path: &str, whole: &str, mode: u32) -> Result<(), Failure> {
        let stat = match base.stat(path) {
            Ok(stat) if stat.kind == FileKind::Directory => Some(stat),
            // A link to another disk is the operator's own way to have `shared` elsewhere: what it leads to is the operator's too.
            Ok(stat) if stat.kind == FileKind::Link => return Ok(()),
            Ok(_) => return Err(failure::new(Code::NotDirectory, format!("`{whole}` is not a directory"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failure::io("look at", whole, &error)),
        };
        let group = self.group.filter(|_| mode == SHARED);
        let fits = stat.is_some_and(|stat| group.is_none_or(|(_, gid)| stat.gid == gid && stat.mode & 0o2070 == 0o2070));
        if fits {
            return Ok(());
        }
        if stat.is_some_and(|stat| stat.uid != self.helper.user.uid && self.helper.user.uid != 0) || !self.may_give(group) {
            self.result.root_commands.push(self.install(whole, mode));
            return Ok(());
        }
        let group_shown = group.map_or_else(String::new, |(name, _)| format!(", writable by `{name}`"));
        self.result.changed.push(format!("{} `{whole}`{group_shown}", if stat.is_some() { "change" } else { "make" }));
        if self.check {
            return Ok(());
        }
        let given = base.make_dirs(path, PLAIN).and_then(|dir| match group {
            Some((_, gid)) => dir.set_group(gid).and_then(|()| dir.set_mode(mode)),
            None => Ok(()),
        });
        given.map_err(|error| failure::io("make", whole, &error))
    }

    /// Whether this user may give files to the group: only to one it is in.
    fn may_give(&self, group: Option<(&str, u32)>) -> bool {
        let Some((_, gid)) = group else { return true };
        let mine = rustix::process::getgroups().unwrap_or_default();
        self.helper.user.uid == 0 || rustix::process::getegid().as_raw() == gid || mine.iter().any(|group| group.as_raw() == gid)
    }

    fn missing_files(&mut self, root: Option<&Root>, setup: &Setup) {
        let missing = |path: &&String| {
            root.is_none_or(|root| accessat(&root.dir, format!("{}/{path}", layout::SHARED), Access::READ_OK, AtFlags::EACCESS).is_err())
        };
        self.result.missing_files.extend(setup.shared_files.iter().filter(missing).cloned());
    }

    fn owner(&self) -> String {
        let user = quoted(&self.helper.user.name);
        self.group.map_or_else(|| user.clone(), |(group, _)| format!("{user}:{}", quoted(group)))
    }

    fn install(&self, path: &str, mode: u32) -> String {
        let group = self.group.map_or_else(String::new, |(group, _)| format!(" -g {}", quoted(group)));
        format!("install -d -o {}{group} -m {mode:04o} {}", quoted(&self.helper.user.name), quoted(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Helper) {
        let directory = tempfile::tempdir().unwrap();
        let helper = Helper::new(directory.path().join("srv/app").to_str().unwrap().to_owned());
        (directory, helper)
    }

    fn wanted(check: bool) -> Setup {
        let (shared_directories, shared_files) = (vec!["var/log".into()], vec!["etc/site.cfg".into()]);
        Setup { shared_directories, shared_files, group: None, cache: None, check }
    }

    #[test]
    fn a_check_changes_nothing_and_tells_what_setup_then_does_once() {
        let (directory, helper) = host();
        let told = set_up(&helper, &wanted(true)).unwrap();
        assert!(!directory.path().join("srv").exists());
        assert!(told.changed.iter().any(|line| line.contains("shared/var/log")), "{told:?}");
        let done = set_up(&helper, &wanted(false)).unwrap();
        assert!(directory.path().join("srv/app/shared/var/log").is_dir());
        assert!(directory.path().join("srv/app/.deployer/rel").is_dir());
        assert_eq!(done.missing_files, ["etc/site.cfg"]);
        let again = set_up(&helper, &wanted(false)).unwrap();
        assert_eq!(again, SetUpResult { missing_files: vec!["etc/site.cfg".into()], ..SetUpResult::default() });
    }

    #[test]
    fn paths_that_leave_shared_are_refused() {
        let (_directory, helper) = host();
        let setup = Setup { shared_directories: vec!["../x".into()], ..wanted(false) };
        assert_eq!(set_up(&helper, &setup).unwrap_err().code, Code::Refused);
    }

    #[test]
    fn a_place_that_is_a_link_to_nothing_is_named_with_what_to_type() {
        let (directory, helper) = host();
        let place = directory.path().join("srv");
        let held = Dir::open_absolute(directory.path().to_str().unwrap()).unwrap();
        rustix::fs::symlinkat("over there", &held, "srv").unwrap();
        for check in [true, false] {
            let failure = set_up(&helper, &wanted(check)).unwrap_err();
            let (place, there) = (place.display(), directory.path().join("over there"));
            assert_eq!(failure.message, format!("`{place}` leads to `over there`, which does not exist"));
            assert!(failure.hint.unwrap().contains(&format!("`mkdir -p '{}'`; or remove the link: `rm {place}`", there.display())));
        }
        held.make_dirs("over there", PLAIN).unwrap();
        set_up(&helper, &wanted(false)).unwrap();
        assert!(directory.path().join("over there/app/.deployer").is_dir());
    }
}
