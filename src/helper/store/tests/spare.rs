//! The spare: what of it counts, and that nothing else does.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::current;
use crate::lock;
use crate::op::RunInfo;
use crate::store::spare::prepare;

/// A host with `tree` live as `r1`, and a spare of it.
fn spared(tree: &Tree) -> Host {
    let host = Host::new();
    live(&host, "r1", tree);
    prepare(&host.root).unwrap();
    assert!(host.path(layout::SPARE_MANIFEST).exists());
    host
}

fn live(host: &Host, name: &str, tree: &Tree) {
    host.deploy(name, tree);
    host.set(name, |record| record.state = State::Confirmed);
    current::switch(&host.root, Some(&id(name))).unwrap();
}

fn inode(host: &Host, rel: &str) -> u64 {
    host.path(rel).metadata().unwrap().ino()
}

#[test]
fn the_next_release_begins_with_the_spare_and_differs_from_its_manifest_in_nothing() {
    let mut before =
        tree(&[("a", "alpha"), ("d/b", "beta"), ("d/gone", "gone"), ("file", "was a file"), ("dir/inner", "was below"), ("e", "")]);
    before.insert(b"link".to_vec(), What::Link("old"));
    before.insert(b"linked".to_vec(), What::Link("away"));
    let mut after = tree(&[("a", "alpha"), ("d/b", "changed"), ("file/now", "below"), ("dir", "a file"), ("e", ""), ("new/er", "new")]);
    after.insert(b"link".to_vec(), What::Link("new"));
    after.insert(b"linked".to_vec(), What::File(b"alpha".to_vec(), EXECUTABLE));
    let host = spared(&before);
    let (kept, changed) = (inode(&host, ".deployer/spare/tree/a"), inode(&host, ".deployer/spare/tree/d/b"));
    // Held open, so that its number goes to no other file.
    let _held = std::fs::File::open(host.path(".deployer/spare/tree/d/b")).unwrap();
    host.deploy("r2", &after);
    assert_eq!(host.differences("r2"), []);
    assert_eq!(inode(&host, "releases/r2/a"), kept);
    assert_ne!(inode(&host, "releases/r2/d/b"), changed);
    assert_eq!(host.in_release("r2", "a").metadata().unwrap().nlink(), 1);
    assert_eq!(host.path("releases/r2").metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(!host.path(layout::SPARE_MANIFEST).exists());
    // The first is what it was, and the third finds no spare and is whole all the same.
    assert_eq!(host.differences("r1"), []);
    host.deploy("r3", &after);
    assert_eq!(host.differences("r3"), []);
}

#[test]
fn a_file_of_the_spare_that_was_written_to_does_not_count() {
    let tree = tree(&[("a", "alpha"), ("b", "beta")]);
    let host = spared(&tree);
    let path = host.path(".deployer/spare/tree/a");
    let before = std::fs::metadata(&path).unwrap();
    std::fs::write(&path, "alphA").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    std::fs::write(host.path(".deployer/spare/tree/stranger"), "x").unwrap();
    let untouched = inode(&host, ".deployer/spare/tree/b");
    host.deploy("r2", &tree);
    assert_eq!(host.differences("r2"), []);
    assert_eq!(std::fs::read(host.in_release("r2", "a")).unwrap(), b"alpha");
    assert_eq!(inode(&host, "releases/r2/b"), untouched);
}

#[test]
fn a_spare_without_its_manifest_is_never_used() {
    let tree = tree(&[("a", "alpha")]);
    let host = spared(&tree);
    std::fs::remove_file(host.path(layout::SPARE_MANIFEST)).unwrap();
    // Held open, so that its number goes to no other file.
    let _held = std::fs::File::open(host.path(".deployer/spare/tree/a")).unwrap();
    let spare = inode(&host, ".deployer/spare/tree/a");
    host.deploy("r2", &tree);
    assert_ne!(inode(&host, "releases/r2/a"), spare);
    // What lies there is replaced by the next.
    host.set("r2", |record| record.state = State::Confirmed);
    current::switch(&host.root, Some(&id("r2"))).unwrap();
    prepare(&host.root).unwrap();
    assert_eq!(host.names(layout::SPARE), ["manifest", "tree"]);
}

#[test]
fn a_spare_that_would_give_files_to_another_group_is_not_used() {
    let tree = tree(&[("a", "alpha")]);
    let host = spared(&tree);
    std::fs::set_permissions(host.path("releases"), Permissions::from_mode(0o2755)).unwrap();
    // Held open, so that its number goes to no other file.
    let _held = std::fs::File::open(host.path(".deployer/spare/tree/a")).unwrap();
    let spare = inode(&host, ".deployer/spare/tree/a");
    host.deploy("r2", &tree);
    assert_ne!(inode(&host, "releases/r2/a"), spare);
    assert_eq!(host.names(layout::SPARE), [""; 0]);
    assert_eq!(host.names(layout::TRASH), [""; 0]);
    assert_eq!(host.path("releases/r2").metadata().unwrap().mode() & 0o2000, 0o2000);
}

#[test]
fn the_making_of_a_spare_gives_way_to_a_run() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha")]);
    live(&host, "r1", &tree);
    let run = RunInfo { run: "run".into(), by: "ada@laptop".into(), what: "deploying".into(), since: 0 };
    let lock = lock::acquire(&host.root, &run).unwrap().unwrap();
    assert_eq!(prepare(&host.root).unwrap_err().code, Code::Stopped);
    assert!(!host.path(layout::SPARE_MANIFEST).exists());
    lock::release(&host.root, lock);
    prepare(&host.root).unwrap();
    assert!(host.path(layout::SPARE_MANIFEST).exists());
}

#[test]
fn a_spare_is_made_of_what_holds_and_only_once() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha")]);
    prepare(&host.root).unwrap();
    host.deploy("r1", &tree);
    current::switch(&host.root, Some(&id("r1"))).unwrap();
    prepare(&host.root).unwrap();
    assert!(!host.path(layout::SPARE).exists());
    host.set("r1", |record| record.state = State::Confirmed);
    prepare(&host.root).unwrap();
    let first = inode(&host, ".deployer/spare/tree/a");
    prepare(&host.root).unwrap();
    assert_eq!(inode(&host, ".deployer/spare/tree/a"), first);
}

#[test]
fn what_sorts_between_a_directory_that_goes_and_what_is_in_it_stops_nothing() {
    let before = tree(&[("a", "alpha"), ("models/x.py", "x"), ("models/y/z.py", "z"), ("models.py", "m"), ("models-old", "o")]);
    let after = tree(&[("a", "alpha")]);
    let host = spared(&before);
    host.deploy("r2", &after);
    assert_eq!(host.differences("r2"), []);
    assert_eq!(host.names("releases/r2"), ["REVISION", "a"]);
    // The same where an interrupted run is gone on with.
    host.begin("r3", &after).unwrap();
    for path in before.keys() {
        let path = host.in_release("r3", std::str::from_utf8(path).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "left").unwrap();
    }
    host.deploy("r3", &after);
    assert_eq!(host.names("releases/r3"), ["REVISION", "a"]);
}
