//! Sealing and verifying, with and without a build.

use super::*;

#[test]
fn a_release_that_is_not_whole_is_not_sealed() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("d/b", "beta")]);
    host.begin("r1", &tree).unwrap();
    assert_eq!(seal(&host.root, &host.memory, &id("r1"), false).unwrap_err().code, Code::Refused);
    for (name, harm) in [
        ("r2", Box::new(|path: &std::path::Path| std::fs::remove_file(path.join("a")).unwrap()) as Box<dyn Fn(&std::path::Path)>),
        ("r3", Box::new(|path| std::fs::write(path.join("a"), "ALPHA").unwrap())),
        ("r4", Box::new(|path| std::fs::set_permissions(path.join("a"), Permissions::from_mode(0o600)).unwrap())),
        (
            "r5",
            Box::new(|path| {
                std::fs::remove_dir_all(path.join("d")).unwrap();
                symlink("/tmp", path.join("d")).unwrap();
            }),
        ),
    ] {
        host.push(name, &tree);
        harm(&host.path(format!("releases/{name}")));
        assert_eq!(seal(&host.root, &host.memory, &id(name), false).unwrap_err().code, Code::Corrupt, "{name}");
        assert_eq!(host.state(name), State::Uploaded);
    }
}

#[test]
fn what_a_build_made_and_changed_is_noted_and_later_changes_show() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("b", "beta"), ("c", "gamma")]);
    host.push("r1", &tree);
    host.set("r1", |record| record.state = State::Building);
    std::fs::File::options().append(true).open(host.in_release("r1", "a")).unwrap().write_all(b"!").unwrap();
    std::fs::create_dir(host.in_release("r1", "bin")).unwrap();
    std::fs::write(host.in_release("r1", "bin/run"), "run").unwrap();
    std::fs::write(host.in_release("r1", "bin/gone"), "").unwrap();
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    assert_eq!(host.differences("r1"), []);
    // The build changed `a` in this release alone, and it is not taken for what the revision has.
    assert_eq!(host.begin("r2", &tree).unwrap().missing, [(0, 1)]);

    std::fs::write(host.in_release("r1", "a"), "changed").unwrap();
    std::fs::write(host.in_release("r1", "b"), "BETA").unwrap();
    std::fs::set_permissions(host.in_release("r1", "c"), Permissions::from_mode(0o755)).unwrap();
    std::fs::write(host.in_release("r1", "bin/run"), "walk").unwrap();
    std::fs::remove_file(host.in_release("r1", "bin/gone")).unwrap();
    std::fs::write(host.in_release("r1", "bin/later"), "").unwrap();
    std::fs::write(host.in_release("r1", "REVISION"), "?").unwrap();
    let expected = [
        ("REVISION", DifferenceKind::Modified),
        ("a", DifferenceKind::Modified),
        ("b", DifferenceKind::Modified),
        ("bin/gone", DifferenceKind::Missing),
        ("bin/later", DifferenceKind::Extra),
        ("bin/run", DifferenceKind::Modified),
        ("c", DifferenceKind::Mode),
    ];
    assert_eq!(host.differences("r1"), expected.map(|(path, kind)| (path.to_owned(), kind)));
}

#[test]
fn a_failed_release_can_be_begun_again_and_a_sealed_one_cannot_fail() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha")]);
    host.push("r1", &tree);
    fail(&host.root, &id("r1"), "build exited with status 1").unwrap();
    assert_eq!(host.state("r1"), State::Failed);
    std::fs::write(host.in_release("r1", "half-built"), "").unwrap();
    assert_eq!(host.begin("r1", &tree).unwrap().missing, []);
    assert!(!host.in_release("r1", "half-built").exists());
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    assert_eq!(fail(&host.root, &id("r1"), "no").unwrap_err().code, Code::Refused);
    assert_eq!(fail(&host.root, &id("r9"), "no").unwrap_err().code, Code::NotFound);
}

#[test]
fn what_was_altered_since_the_seal_forbids_a_switch_and_what_a_running_program_writes_does_not() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("d/b", "beta"), ("e", "gamma")]);
    host.push("r1", &tree);
    host.set("r1", |record| record.state = State::Building);
    std::fs::write(host.in_release("r1", "built"), "built").unwrap();
    std::fs::write(host.in_release("r1", "e"), "GAMMA").unwrap();
    let at = seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    let altered = |now: i64| -> Vec<String> {
        let record = crate::records::read(&host.root, &id("r1")).unwrap().unwrap();
        let found = super::super::altered(&host.root, &record, now).unwrap();
        found.iter().map(|difference| String::from_utf8(difference.path.clone()).unwrap()).collect()
    };
    assert_eq!(altered(at), [""; 0]);
    // What is added, and a file that only looks as if it were another, say nothing.
    std::fs::write(host.in_release("r1", "cache.pyc"), "").unwrap();
    std::fs::hard_link(host.in_release("r1", "a"), host.path("elsewhere")).unwrap();
    assert_eq!(altered(at), [""; 0]);
    std::fs::write(host.in_release("r1", "built"), "BUILT").unwrap();
    std::fs::write(host.in_release("r1", "e"), "Gamma").unwrap();
    assert_eq!(altered(at), ["built", "e"]);
    host.set("r1", |record| record.activated = Some(at));
    assert_eq!(altered(at), [""; 0], "a program may write to what its build made while it runs");
    std::fs::write(host.in_release("r1", "d/b"), "BETA").unwrap();
    std::fs::remove_file(host.in_release("r1", "a")).unwrap();
    assert_eq!(altered(at), ["a", "d/b"]);
}

#[test]
fn an_old_seal_is_checked_to_the_byte() {
    let host = Host::new();
    host.push("r1", &tree(&[("a", "alpha")]));
    let at = seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    let record = crate::records::read(&host.root, &id("r1")).unwrap().unwrap();
    // What a medium that rots does, which no stat shows: the proof says that the file looks as it should.
    std::fs::write(host.in_release("r1", "a"), "ALPHA").unwrap();
    let stat = open_release(&host.root, &id("r1")).unwrap().stat("a").unwrap();
    let mut stored = super::super::stored::load(&host.root, &id("r1")).unwrap();
    stored.ledger.proofs[0] = super::super::stored::Proof::Verified(super::super::stored::Stamp::from(&stat));
    stored.save(&host.root, &id("r1")).unwrap();
    let found = |now: i64| super::super::altered(&host.root, &record, now).unwrap().len();
    assert_eq!((found(at + 3600), found(at + 25 * 3600), found(at - 3600)), (0, 1, 1));
}

#[test]
fn an_error_of_writing_back_is_final_even_when_a_later_sync_is_well() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("d/b", "beta")]);
    host.push("r1", &tree);
    host.memory.early(&host.root, &id("r1"), |_| Err(std::io::Error::from(rustix::io::Errno::IO)));
    host.memory.write_back(&host.root, &id("r1"));
    let failure = seal(&host.root, &host.memory, &id("r1"), true).unwrap_err();
    assert!(failure.message.contains("sync the file system of"), "{}", failure.message);
    assert_eq!(host.state("r1"), State::Failed);
    assert!(!host.path("releases/r1").exists(), "what was written reads well from memory, and nobody shall go on with it");
    assert_eq!(seal(&host.root, &host.memory, &id("r1"), true).unwrap_err().code, Code::Refused);
    // Begun again, everything is written again.
    assert_eq!(host.push("r1", &tree).missing, [(0, 2)]);
    seal(&host.root, &host.memory, &id("r1"), true).unwrap();
    assert_eq!(host.differences("r1"), []);
}

#[test]
fn what_could_not_be_written_back_is_out_of_sight_of_whoever_goes_on() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("d/b", "beta")]);
    host.push("r1", &tree);
    // Held by whoever seals it: the other thread may take the name away at any time from here.
    let dir = open_release(&host.root, &id("r1")).unwrap();
    host.memory.early(&host.root, &id("r1"), |_| Err(std::io::Error::from(rustix::io::Errno::IO)));
    assert_eq!(host.memory.sync(&host.root, &id("r1"), &dir), Err(host.memory.lost(&id("r1")).unwrap()));
    // This helper is killed before it marks anything; another one goes on.
    let host = Host { memory: Memory::default(), ..host };
    assert_eq!(host.push("r1", &tree).missing, [(0, 2)]);
    seal(&host.root, &host.memory, &id("r1"), true).unwrap();
    assert_eq!(host.differences("r1"), []);
}

#[test]
fn what_is_remembered_does_not_outlive_a_change_of_its_file() {
    let host = Host::new();
    let (first, second) = (tree(&[("a", "alpha")]), tree(&[("b", "beta")]));
    host.push("r1", &first);
    host.push("r2", &second);
    // Another process went on with `r2` meanwhile, and another run with `r1`.
    let other = Memory::default();
    seal(&host.root, &other, &id("r1"), false).unwrap();
    link(&host.root, &other, &links("r2", &["var"], &[])).unwrap();
    seal(&host.root, &host.memory, &id("r2"), true).unwrap();
    assert_eq!((host.differences("r1"), host.differences("r2")), (vec![], vec![]));
}
