//! The walk against hostile links, names, modes and depths.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside, as a neighbour would")]

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::RenameFlags;
use tempfile::TempDir;

use super::*;
use crate::root::Root;

fn root() -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path().to_str().unwrap()).unwrap();
    root.ensure_control().unwrap();
    (dir, root)
}

fn mode(path: impl AsRef<std::path::Path>) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Removes `rel` and everything beneath it, through the trash.
fn remove_tree(root: &Dir, rel: impl AsRef<[u8]>) -> io::Result<()> {
    root.trash(rel)?;
    root.empty_trash()
}

#[test]
fn a_link_as_parent_is_followed_by_no_operation() {
    let (dir, root) = root();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("canary"), "safe").unwrap();
    std::fs::create_dir(outside.path().join("inner")).unwrap();
    symlink(outside.path(), dir.path().join("way")).unwrap();
    let root = &root.dir;
    assert!(root.open_dir("way").is_err());
    assert!(root.open_dir("way/inner").is_err());
    assert!(root.make_dirs("way/made", 0o755).is_err());
    assert!(root.open_file("way/canary").is_err());
    assert!(root.create_file("way/new", 0o644).is_err());
    assert!(root.open_append("way/canary", 0o644).is_err());
    assert!(root.open_lock("way/lock", 0o644).is_err());
    assert!(root.replace("way/canary", b"gone", 0o600).is_err());
    assert!(root.replace_link(b"gone", "way/link").is_err());
    assert!(root.stat("way/canary").is_err());
    assert!(root.unlink("way/canary").is_err());
    assert!(root.trash("way/canary").is_err());
    let mut names: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["canary", "inner"]);
    assert_eq!(std::fs::read(outside.path().join("canary")).unwrap(), b"safe");
    // The link itself goes, and not what it leads to.
    remove_tree(root, "way").unwrap();
    assert!(outside.path().join("canary").exists());
}

#[test]
fn the_walk_by_names_refuses_what_the_kernel_s_own_refuses() {
    let (dir, root) = root();
    symlink("releases", dir.path().join("way")).unwrap();
    std::fs::write(dir.path().join("releases/file"), "x").unwrap();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    assert!(open_by_names(root.dir.as_fd(), b"releases/file", flags, Mode::empty()).is_ok());
    assert!(open_by_names(root.dir.as_fd(), b"way/file", flags, Mode::empty()).is_err());
    assert!(open_by_names(root.dir.as_fd(), b"way", flags, Mode::empty()).is_err());
    // A link that stays beneath the root is refused as well: it could lead from one release into another.
    assert!(root.dir.open_file("releases/file").is_ok());
    assert!(root.dir.open_file("way/file").is_err());
    assert!(root.dir.create_file("way/new", 0o644).is_err());
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let (_dir, root) = root();
    for path in ["..", ".", "", "/etc", "releases/..", "releases/../../x", "releases//x", "a/./b"] {
        assert_eq!(root.dir.open_file(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
        assert_eq!(root.dir.create_file(path, 0o600).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
        assert_eq!(root.dir.trash(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
    }
}

#[test]
fn a_parent_that_flips_between_directory_and_link_lets_nothing_out() {
    let (dir, root) = root();
    let outside = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("flip"), dir.path().join("flip.link"));
    std::fs::create_dir(&real).unwrap();
    symlink(outside.path(), &link).unwrap();
    let stop = AtomicBool::new(false);
    let escaped = || std::fs::read_dir(outside.path()).unwrap().count();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for turn in 0..800 {
            if let Ok(mut file) = root.dir.create_file(format!("flip/held-{turn}"), 0o644) {
                file.write_all(b"x").unwrap();
            }
            let _ = root.dir.replace_unsynced(format!("flip/replaced-{turn}"), b"x", 0o644);
        }
        let by_descriptor = escaped();
        // The control: the same race by path names does let files out.
        let by_path = (0..200_000).any(|turn| std::fs::write(real.join(format!("path-{turn}")), b"x").is_ok() && escaped() > 0);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(by_descriptor, 0);
        assert!(by_path, "the race was never won, so the test shows nothing");
    });
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let (dir, root) = root();
    for umask in [0o000, 0o027, 0o077] {
        let before = rustix::process::umask(Mode::from_raw_mode(umask));
        let name = |what: &str| format!("{what}-{umask:o}");
        root.dir.make_dirs(format!("{}/inner", name("dir")), 0o755).unwrap();
        root.dir.ensure_dir(name("bare"), 0o755).unwrap();
        let file = root.dir.create_about(name("about"), 0o644).unwrap();
        assert_eq!(super::finish_file(&file, 0o644, 0).unwrap().mode, 0o644);
        root.dir.create_file(name("file"), 0o755).unwrap();
        root.dir.open_append(name("append"), 0o644).unwrap();
        root.dir.replace(name("control"), b"", 0o644).unwrap();
        rustix::process::umask(before);
        assert_eq!(mode(dir.path().join(name("dir"))), 0o755);
        assert_eq!(mode(dir.path().join(name("dir")).join("inner")), 0o755);
        assert_eq!(mode(dir.path().join(name("bare"))), 0o755);
        assert_eq!(mode(dir.path().join(name("about"))), 0o644);
        assert_eq!(mode(dir.path().join(name("file"))), 0o755);
        assert_eq!(mode(dir.path().join(name("append"))), 0o644);
        assert_eq!(mode(dir.path().join(name("control"))), 0o644);
    }
}

#[test]
fn a_directory_made_below_a_set_group_id_one_keeps_the_bit() {
    let (dir, root) = root();
    std::fs::set_permissions(dir.path().join("shared"), std::fs::Permissions::from_mode(0o2775)).unwrap();
    root.dir.make_dirs("shared/var", 0o775).unwrap();
    assert_eq!(mode(dir.path().join("shared/var")), 0o2775);
    root.dir.open_dir("shared").unwrap().ensure_dir("log", 0o775).unwrap();
    assert_eq!(mode(dir.path().join("shared/log")), 0o2775);
}

#[test]
fn what_is_new_takes_the_place_of_nothing() {
    let (dir, root) = root();
    std::fs::write(dir.path().join("file"), "old").unwrap();
    symlink("file", dir.path().join("link")).unwrap();
    symlink("shared", dir.path().join("way")).unwrap();
    for name in ["file", "link", "way"] {
        assert_eq!(root.dir.create_about(name, 0o644).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{name}");
        assert!(root.dir.ensure_dir(name, 0o755).is_err(), "{name}");
    }
    for name in ["", ".", "..", "way/x"] {
        assert!(root.dir.create_about(name, 0o644).is_err(), "{name}");
    }
    root.dir.ensure_dir("shared", 0o755).unwrap();
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"old");
}

#[test]
fn all_names_are_listed_and_again_by_whoever_holds_the_same_directory() {
    let (dir, root) = root();
    let long = "n".repeat(200);
    let mut expected: Vec<Vec<u8>> = (0..1000).map(|at| format!("{long}-{at}").into_bytes()).collect();
    expected.sort();
    let inner = root.dir.make_dirs("many", 0o755).unwrap();
    for name in &expected {
        std::fs::write(dir.path().join("many").join(std::str::from_utf8(name).unwrap()), "").unwrap();
    }
    let held = inner.try_clone().unwrap();
    assert!(inner.names().unwrap() == expected && held.names().unwrap() == expected);
    assert!(held.names_once().unwrap() == expected);
}

#[test]
fn paths_beyond_what_the_kernel_takes_at_once_are_made_read_and_removed() {
    let (dir, root) = root();
    // 300 names of 100 bytes: seven times `PATH_MAX`, and more levels than are held at once.
    let deep = vec!["d".repeat(100); 300].join("/");
    root.dir.make_dirs(&deep, 0o755).unwrap();
    root.dir.create_file(format!("{deep}/file"), 0o644).unwrap().write_all(b"deep").unwrap();
    assert_eq!(root.dir.read(format!("{deep}/file"), 10).unwrap(), b"deep");
    assert_eq!(root.dir.stat(format!("{deep}/file")).unwrap().size, 4);
    remove_tree(&root.dir, "d".repeat(100)).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join(".deployer/trash")).unwrap().count(), 0);
    assert!(root.dir.stat("d".repeat(100)).is_err());
}

#[test]
fn more_levels_than_there_are_descriptors_are_removed() {
    let (dir, root) = root();
    root.dir.make_dirs(vec!["d"; 1200].join("/"), 0o755).unwrap();
    remove_tree(&root.dir, "d").unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join(".deployer/trash")).unwrap().count(), 0);
}

#[test]
fn odd_names_are_bytes() {
    let (_dir, root) = root();
    let long = vec![b'n'; 255];
    for name in [&b"\xff\xfe"[..], b"new\nline", b"-rf", b"*", &long] {
        root.dir.create_file([b"releases/", name].concat(), 0o644).unwrap();
    }
    assert_eq!(root.dir.open_dir("releases").unwrap().names().unwrap().len(), 5);
    assert!(root.dir.create_file(vec![b'n'; 256], 0o644).is_err());
}

#[test]
fn a_control_file_is_replaced_whole_and_leaves_nothing_aside() {
    let (dir, root) = root();
    root.dir.replace(".deployer/hold", b"one", 0o600).unwrap();
    let before = std::fs::metadata(dir.path().join(".deployer/hold")).unwrap().ino();
    root.dir.replace(".deployer/hold", b"two", 0o600).unwrap();
    assert_ne!(std::fs::metadata(dir.path().join(".deployer/hold")).unwrap().ino(), before);
    assert_eq!(root.dir.read(".deployer/hold", 3).unwrap(), b"two");
    assert_eq!(root.dir.read(".deployer/hold", 2).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert!(root.dir.replace("releases", b"a directory is in the way", 0o600).is_err());
    assert_eq!(std::fs::read_dir(dir.path().join(".deployer/tmp")).unwrap().count(), 0);
}

#[test]
fn a_link_is_replaced_but_never_a_directory_or_a_file() {
    let (dir, root) = root();
    root.dir.replace_link(b"releases/one", "current").unwrap();
    root.dir.replace_link(b"releases/two", "current").unwrap();
    assert_eq!(root.dir.read_link("current").unwrap(), b"releases/two");
    std::fs::write(dir.path().join("file"), "").unwrap();
    for path in ["releases", "file"] {
        assert!(root.dir.replace_link(b"x", path).is_err(), "{path}");
    }
    assert_eq!(std::fs::read_dir(dir.path().join(".deployer/tmp")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("releases")).unwrap().count(), 0);
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_block() {
    let (dir, root) = root();
    rustix::fs::mknodat(CWD, dir.path().join("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    assert!(root.dir.open_file("pipe").is_err());
}

#[test]
fn the_control_directory_is_made_once_with_private_modes() {
    let (dir, root) = root();
    assert_eq!(mode(dir.path().join(".deployer")), 0o700);
    root.ensure_host_id().unwrap();
    assert_eq!(mode(dir.path().join(".deployer/id")), 0o600);
    assert_eq!(mode(dir.path().join("releases")), 0o755);
    let id = root.host_id().unwrap().unwrap();
    root.ensure_control().and_then(|()| root.ensure_host_id()).unwrap();
    assert_eq!(root.host_id().unwrap().unwrap(), id);
    assert_eq!(id.len(), 32);
}

/// Permissions do not bind root: as root, the test runs itself again as another user.
#[test]
fn directories_without_rights_are_removed_by_their_owner() {
    const AGAIN: &str = "DEPLOYER_TEST_AS_NOBODY";
    if rustix::process::geteuid().is_root() && std::env::var_os(AGAIN).is_none() {
        let program = tempfile::tempdir_in("/tmp").unwrap();
        // Set afterwards: another test may have changed the umask.
        std::fs::set_permissions(program.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = program.path().join("tests");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let status = std::process::Command::new(&copy)
            .args(["--exact", "fs::tests::directories_without_rights_are_removed_by_their_owner"])
            .current_dir("/")
            .env(AGAIN, "1")
            .env("TMPDIR", "/tmp")
            .uid(65534)
            .gid(65534)
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let (dir, root) = root();
    let locked = dir.path().join("releases/old/locked");
    std::fs::create_dir_all(locked.join("inner")).unwrap();
    std::fs::write(locked.join("file"), "").unwrap();
    for (path, mode) in [("inner", 0o000), ("", 0o500)] {
        std::fs::set_permissions(locked.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(dir.path().join("releases/old"), std::fs::Permissions::from_mode(0o555)).unwrap();
    // The control: without opening them up they cannot be removed.
    assert!(std::fs::remove_dir_all(dir.path().join("releases/old")).is_err());
    remove_tree(&root.dir, "releases/old").unwrap();
    assert!(!dir.path().join("releases/old").exists());
    assert_eq!(std::fs::read_dir(dir.path().join(".deployer/trash")).unwrap().count(), 0);
}
