//! Beginning releases and filling them: whole, by difference, from kept releases, and after interruptions. One file, for one flow.

use super::*;

#[test]
fn a_release_is_the_tree_to_the_byte() {
    let host = Host::new();
    let mut tree = tree(&[("README", "hello"), ("src/a.py", "print(1)"), ("src/empty", ""), ("src/deep/er/b", "b")]);
    tree.insert(b"run.sh".to_vec(), What::File(b"#!/bin/sh\n".to_vec(), EXECUTABLE));
    tree.insert(b"link".to_vec(), What::Link("../../outside"));
    tree.insert(b"void".to_vec(), What::Directory);
    tree.insert(b"big".to_vec(), What::File(large(0, 700_000).into_bytes(), FILE));
    host.push("r1", &tree);
    assert_eq!(host.state("r1"), State::Uploaded);
    for (path, what) in &tree {
        let at = host.path([b"releases/r1/", path.as_slice()].concat());
        let stat = std::fs::symlink_metadata(&at).unwrap();
        match what {
            What::File(content, mode) => {
                assert_eq!(std::fs::read(&at).unwrap(), *content);
                assert_eq!((stat.permissions().mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (*mode, 1_700_000_000, 0));
            }
            What::Link(target) => assert_eq!(std::fs::read_link(&at).unwrap().to_str(), Some(*target)),
            What::Directory => assert_eq!(stat.permissions().mode() & 0o7777, 0o755),
        }
    }
    assert_eq!(std::fs::read_to_string(host.in_release("r1", "REVISION")).unwrap(), format!("{COMMIT}\n"));
    seal(&host.root, &host.memory, &id("r1"), true).unwrap();
    assert_eq!((host.state("r1"), host.differences("r1")), (State::Sealed, vec![]));
    assert_eq!(zstd::decode_all(&*manifest(&host.root, &id("r1")).unwrap()).unwrap(), manifest_of(&tree).encode());
}

#[test]
fn a_tracked_revision_file_is_not_replaced() {
    let host = Host::new();
    host.deploy("r1", &tree(&[("REVISION", "mine")]));
    assert_eq!(std::fs::read_to_string(host.in_release("r1", "REVISION")).unwrap(), "mine");
    assert_eq!(host.differences("r1"), []);
}

#[test]
fn a_second_release_takes_what_the_first_has_and_shares_no_inode() {
    let host = Host::new();
    let mut tree = tree(&[("a", "alpha"), ("d/b", "beta"), ("d/c", "gamma")]);
    host.deploy("r1", &tree);
    tree.insert(b"moved/b".to_vec(), tree[&b"d/b"[..]].clone());
    tree.insert(b"new".to_vec(), What::File(b"delta".to_vec(), FILE));
    let begun = host.deploy("r2", &tree);
    let new = (0..).zip(manifest_of(&tree).entries()).find(|(_, entry)| entry.path.as_bytes() == b"new").unwrap().0;
    assert_eq!(begun, Begun { missing: vec![(new, 1)], reused_files: 4, reused_bytes: 5 + 4 + 5 + 4 });
    let (one, two) = (host.in_release("r1", "a").metadata().unwrap(), host.in_release("r2", "a").metadata().unwrap());
    assert_ne!(one.ino(), two.ino());
    assert_eq!((one.nlink(), two.nlink()), (1, 1));
    assert_eq!(host.differences("r2"), []);
}

#[test]
fn a_tree_that_is_there_already_needs_no_content() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("d/b", "beta")]);
    host.deploy("r1", &tree);
    assert_eq!(host.begin("r2", &tree).unwrap().missing, []);
    assert_eq!(host.state("r2"), State::Uploaded);
    assert_eq!(std::fs::read(host.in_release("r2", "d/b")).unwrap(), b"beta");
}

#[test]
fn a_difference_makes_the_same_release_as_the_whole_manifest() {
    let host = Host::new();
    let (old, new) = (tree(&[("a", "1"), ("b", "2")]), tree(&[("a", "1"), ("c", "3")]));
    host.deploy("r1", &old);
    let delta = postcard::to_allocvec(&manifest_of(&new).delta_from(&manifest_of(&old))).unwrap();
    let source = ManifestSource::Delta { size: delta.len() as u64, base: id("r1") };
    let request = Begin { release: release("r2", &new), source, group: None };
    let begun = super::begin(&host.root, &host.memory, &request, None, &*zstd::encode_all(&*delta, 1).unwrap()).unwrap();
    assert_eq!((begun.missing, begun.reused_files), (vec![(1, 1)], 1));
    assert_eq!(stored::load(&host.root, &id("r2")).unwrap().manifest, manifest_of(&new));
}

#[test]
fn a_manifest_with_another_digest_is_refused_and_leaves_nothing() {
    let host = Host::new();
    let encoded = manifest_of(&tree(&[("a", "1")])).encode();
    let source = ManifestSource::Whole { size: encoded.len() as u64 };
    let request = Begin { release: release("r1", &tree(&[("a", "2")])), source, group: None };
    let failure = super::begin(&host.root, &host.memory, &request, None, &*zstd::encode_all(&*encoded, 1).unwrap()).unwrap_err();
    assert_eq!(failure.code, Code::Protocol);
    assert!(host.names("releases").is_empty() && host.names(".deployer/rel").is_empty());
}

#[test]
fn a_source_that_was_corrupted_is_not_reused_and_an_intact_one_is() {
    let host = Host::new();
    let tree = tree(&[("broken", "alpha"), ("intact", "gamma")]);
    host.deploy("r1", &tree);
    let broken = host.in_release("r1", "broken");
    let time = broken.metadata().unwrap().modified().unwrap();
    std::fs::write(&broken, "ALPHA").unwrap();
    std::fs::File::options().write(true).open(&broken).unwrap().set_modified(time).unwrap();
    let begun = host.begin("r2", &tree).unwrap();
    assert_eq!((begun.missing, begun.reused_files), (vec![(0, 1)], 1));
    assert!(!host.in_release("r2", "broken").exists());
    assert_eq!(std::fs::read(host.in_release("r2", "intact")).unwrap(), b"gamma");
}

#[test]
fn a_large_source_that_was_corrupted_leaves_no_copy() {
    let host = Host::new();
    let content = large(3, 600_000);
    let tree = tree(&[("big", &content)]);
    host.deploy("r1", &tree);
    std::fs::write(host.in_release("r1", "big"), large(4, 600_000)).unwrap();
    assert_eq!(host.begin("r2", &tree).unwrap().missing, [(0, 1)]);
    assert!(!host.in_release("r2", "big").exists());
}

#[test]
fn a_proof_is_believed_only_when_it_is_older_than_a_tick() {
    let host = Host::new();
    host.deploy("r1", &tree(&[("a", "alpha")]));
    let mut stored = stored::load(&host.root, &id("r1")).unwrap();
    while stored.ledger.trusted(0).is_none() {
        stored.save(&host.root, &id("r1")).unwrap();
    }
    let Proof::Verified(stamp) = stored.ledger.proofs[0] else { panic!("it was verified") };
    assert_eq!(stored.ledger.trusted(0), Some(stamp));
    stored.ledger.proofs[0] = Proof::Changed(stamp);
    assert_eq!(stored.ledger.trusted(0), None);
    // A believed proof lets the file be taken unread: what is copied is not hashed, yet it is the same.
    assert_eq!(host.begin("r2", &tree(&[("a", "alpha")])).unwrap().reused_files, 1);
    assert_eq!(std::fs::read(host.in_release("r2", "a")).unwrap(), b"alpha");
}

#[test]
fn a_stored_manifest_with_a_flipped_bit_is_no_source_and_no_failure() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("b", "beta")]);
    host.deploy("r1", &tree);
    let path = host.path(".deployer/manifest/r1");
    let intact = std::fs::read(&path).unwrap();
    let proofs = stored::load(&host.root, &id("r1")).unwrap().ledger.proofs;
    let mut unnoticed = 0;
    for at in 0..intact.len() {
        let mut bytes = intact.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        match stored::load(&host.root, &id("r1")) {
            Err(failure) => assert_eq!(failure.code, Code::Corrupt, "byte {at}"),
            Ok(stored) => {
                assert_eq!((stored.manifest, stored.ledger.proofs), (manifest_of(&tree), proofs.clone()), "byte {at}");
                unnoticed += 1;
            }
        }
    }
    // Each of the two frames has one bit in its header that means nothing.
    assert!(unnoticed <= 2);
    std::fs::write(&path, &intact[..intact.len() - 1]).unwrap();
    assert_eq!(host.begin("r2", &tree).unwrap().missing, [(0, 2)]);
}

#[test]
fn an_interrupted_transfer_goes_on_with_only_what_is_missing() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("b", "beta"), ("c", "gamma"), ("d", "delta")]);
    assert_eq!(host.begin("r1", &tree).unwrap().missing, [(0, 4)]);
    let whole = stream(&tree, &[(0, 4)]);
    let cut = stream(&tree, &[(0, 2)]).len() + 6;
    let failure = host.send_bytes("r1", whole.len(), &whole[..cut]).unwrap_err();
    assert_eq!(failure.code, Code::Protocol);
    // What a killed helper leaves: half a file, a file of nobody's, a link.
    std::fs::write(host.in_release("r1", "c"), "gam").unwrap();
    std::fs::write(host.in_release("r1", "stray"), "").unwrap();
    symlink("/etc", host.in_release("r1", "d")).unwrap();
    let again = host.begin("r1", &tree).unwrap().missing;
    assert_eq!(again, [(2, 2)]);
    assert!(!host.in_release("r1", "stray").exists());
    assert_eq!(host.send("r1", &tree, &again).unwrap().missing, []);
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    assert_eq!(host.differences("r1"), []);
}

#[test]
fn what_an_interrupted_release_left_serves_the_next_one() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("b", "beta"), ("c", "gamma")]);
    host.begin("r1", &tree).unwrap();
    assert_eq!(host.send("r1", &tree, &[(0, 2)]).unwrap().missing, [(2, 1)]);
    assert_eq!(host.state("r1"), State::Uploading);
    std::fs::write(host.in_release("r1", "b"), "BETA").unwrap();
    let begun = host.begin("r2", &tree).unwrap();
    assert_eq!((begun.missing, begun.reused_files), (vec![(1, 2)], 1));
    // Begun again itself, it keeps what is whole.
    assert_eq!(host.begin("r1", &tree).unwrap().missing, [(1, 2)]);
}

#[test]
fn a_release_begun_with_another_tree_or_made_by_another_tool_is_refused() {
    let host = Host::new();
    host.begin("r1", &tree(&[("a", "1")])).unwrap();
    assert_eq!(host.begin("r1", &tree(&[("a", "2")])).unwrap_err().code, Code::Refused);
    std::fs::create_dir(host.path("releases/20200101000000")).unwrap();
    assert_eq!(host.begin("20200101000000", &tree(&[("a", "1")])).unwrap_err().code, Code::Refused);
    host.deploy("r2", &tree(&[("a", "1")]));
    assert_eq!(host.begin("r2", &tree(&[("a", "1")])).unwrap_err().code, Code::Refused);
}

#[test]
fn a_stream_that_unpacks_to_more_than_it_declared_is_refused() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha")]);
    host.begin("r1", &tree).unwrap();
    let bomb = [stream(&tree, &[(0, 1)]), vec![0; 64 * 1024 * 1024]].concat();
    let failure = host.send_bytes("r1", 9, &bomb).unwrap_err();
    assert_eq!((failure.code, failure.message.contains("declared")), (Code::Protocol, true));
    // The control: exactly what was declared is taken. (It was written before the bomb showed, and counts.)
    assert_eq!(host.begin("r1", &tree).unwrap().missing, []);

    let encoded = manifest_of(&tree).encode();
    let request = Begin { release: release("r2", &tree), source: ManifestSource::Whole { size: encoded.len() as u64 }, group: None };
    let bomb = [encoded, vec![0; 64 * 1024 * 1024]].concat();
    let failure = super::begin(&host.root, &host.memory, &request, None, &*zstd::encode_all(&*bomb, 1).unwrap()).unwrap_err();
    assert_eq!(failure.code, Code::Protocol);
    let request = Begin { source: ManifestSource::Whole { size: u64::MAX }, ..request };
    assert_eq!(super::begin(&host.root, &host.memory, &request, None, &b""[..]).unwrap_err().code, Code::Protocol);
}

#[test]
fn content_that_is_not_missing_or_not_known_is_refused() {
    let host = Host::new();
    let mut tree = tree(&[("a", "alpha"), ("b", "beta")]);
    tree.insert(b"link".to_vec(), What::Link("a"));
    host.begin("r1", &tree).unwrap();
    for index in [2_u32, 3, u32::MAX] {
        let bytes = [&index.to_le_bytes()[..], b"alpha"].concat();
        assert_eq!(host.send_bytes("r1", bytes.len(), &bytes).unwrap_err().code, Code::Protocol, "{index}");
    }
    let twice = [stream(&tree, &[(0, 1)]), stream(&tree, &[(0, 1)])].concat();
    assert_eq!(host.send_bytes("r1", twice.len(), &twice).unwrap_err().code, Code::Protocol);
    let bytes = stream(&tree, &[(1, 1)]);
    assert_eq!(host.send_bytes("r1", bytes.len() - 1, &bytes[..bytes.len() - 1]).unwrap_err().code, Code::Protocol);
    assert_eq!(host.send_bytes("r1", 0, b"").unwrap().missing, [(1, 1)]);
}

#[test]
fn content_with_another_digest_is_named_and_leaves_no_file() {
    let host = Host::new();
    let content = large(1, 700_000);
    let tree = tree(&[("big", &content), ("small", "alpha")]);
    for (path, index) in [("big", 0), ("small", 1)] {
        host.begin("r1", &tree).unwrap();
        let mut bytes = stream(&tree, &[(index, 1)]);
        *bytes.last_mut().unwrap() ^= 1;
        let failure = host.send_bytes("r1", bytes.len(), &bytes).unwrap_err();
        assert_eq!((failure.code, failure.message.contains(path)), (Code::Corrupt, true), "{}", failure.message);
        assert!(!host.in_release("r1", path).exists());
    }
    assert_eq!(host.state("r1"), State::Uploading);
    assert_eq!(host.begin("r1", &tree).unwrap().missing, [(0, 2)]);
}

#[test]
fn content_that_several_paths_share_is_asked_for_once() {
    let host = Host::new();
    let mut tree = tree(&[("a", "same"), ("b", "other"), ("c", "same"), ("d/e", "same")]);
    tree.insert(b"x".to_vec(), What::File(b"same".to_vec(), EXECUTABLE));
    let begun = host.push("r1", &tree);
    assert_eq!(begun.missing, [(0, 2)]);
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    assert_eq!(host.differences("r1"), []);
    assert_eq!(std::fs::read(host.in_release("r1", "d/e")).unwrap(), b"same");
    assert_eq!(host.in_release("r1", "x").metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn paths_beyond_the_kernel_s_limit_and_odd_names_travel() {
    let host = Host::new();
    let mut tree = Tree::new();
    let deep = vec!["d".repeat(200); 60].join("/").into_bytes();
    let long = vec![b'n'; 255];
    for name in [&[&deep[..], b"/leaf"].concat()[..], b"\xff\xfe", b"new\nline", b"-rf", b" ", &long] {
        tree.insert(name.to_vec(), What::File(name.to_vec(), FILE));
    }
    host.deploy("r1", &tree);
    let reused = host.deploy("r2", &tree).reused_files;
    assert_eq!(reused, 6);
    let (differences, files) = verify(&host.root, &id("r2")).unwrap();
    assert_eq!((differences, files), (vec![], 6));
    let leaf = host.root.dir.read([b"releases/r2/", &deep[..], b"/leaf"].concat(), 1 << 20).unwrap();
    assert_eq!(leaf, [&deep[..], b"/leaf"].concat());
}

#[test]
fn a_link_in_place_of_a_directory_is_not_written_through() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    let tree = tree(&[("d/a", "alpha"), ("d/b", "beta")]);
    host.begin("r1", &tree).unwrap();
    std::fs::remove_dir(host.in_release("r1", "d")).unwrap();
    symlink(outside.path(), host.in_release("r1", "d")).unwrap();
    assert!(host.send("r1", &tree, &[(0, 2)]).is_err());
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
    // Begun again, the link goes and the directory comes back.
    assert_eq!(host.push("r1", &tree).missing, [(0, 2)]);
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
}

#[test]
fn a_release_with_a_group_is_closed_to_others() {
    let host = Host::new();
    let tree = tree(&[("a", "1")]);
    let encoded = manifest_of(&tree).encode();
    let source = ManifestSource::Whole { size: encoded.len() as u64 };
    let request = Begin { release: release("r1", &tree), source, group: Some("www".into()) };
    let gid = rustix::process::getegid().as_raw();
    super::begin(&host.root, &host.memory, &request, Some(gid), &*zstd::encode_all(&*encoded, 1).unwrap()).unwrap();
    let stat = host.path("releases/r1").metadata().unwrap();
    assert_eq!((stat.permissions().mode() & 0o7777, stat.gid()), (0o750, gid));
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let name = prop_oneof!["[a-c]", "[a-c]-", "[a-c]/[a-c]", "[a-c]/[a-c]/[a-c]", "d{200}/[a-c]"];
    let what = prop_oneof![
        3 => ("[xy]{0,3}", prop_oneof![Just(FILE), Just(EXECUTABLE)]).prop_map(|(content, mode)| What::File(content.into_bytes(), mode)),
        1 => Just(What::Link("../elsewhere")),
        1 => Just(What::Directory),
    ];
    proptest::collection::vec((name, what), 0..12).prop_map(|items| {
        let mut tree = Tree::new();
        for (path, what) in items {
            let mut with = tree.clone();
            with.insert(path.into_bytes(), what);
            let entries = with.keys().map(|path| Entry { path: TreePath::new(path.clone()).unwrap(), kind: Kind::Directory });
            if Manifest::from_unsorted(entries.collect()).is_ok() {
                tree = with;
            }
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_after_any_other_is_whole_and_asks_for_no_content_twice(first in any_tree(), second in any_tree()) {
        let host = Host::new();
        host.deploy("r1", &first);
        let begun = host.deploy("r2", &second);
        prop_assert_eq!(host.differences("r1"), []);
        prop_assert_eq!(host.differences("r2"), []);
        let contents = |tree: &Tree| -> std::collections::HashSet<Vec<u8>> {
            tree.values().filter_map(|what| if let What::File(content, _) = what { Some(content.clone()) } else { None }).collect()
        };
        let new = contents(&second).difference(&contents(&first)).filter(|content| !content.is_empty()).count();
        prop_assert_eq!(begun.missing.iter().map(|(_, count)| *count as usize).sum::<usize>(), new);
    }
}

#[test]
fn what_did_not_hold_is_made_again_from_the_same_bytes_unless_it_is_live() {
    let host = Host::new();
    let tree = tree(&[("a", "alpha"), ("b", "beta")]);
    host.deploy("r1", &tree);
    host.set("r1", |record| (record.state, record.activated) = (State::Bad, Some(1)));
    symlink("releases/r1", host.path("current")).unwrap();
    assert_eq!(host.begin("r1", &tree).unwrap_err().code, Code::Refused);
    std::fs::remove_file(host.path("current")).unwrap();
    assert_eq!(host.begin("r1", &super::tree(&[("a", "alpha")])).unwrap_err().code, Code::Refused);
    std::fs::write(host.in_release("r1", "a"), "ALPHA").unwrap();
    assert_eq!(host.push("r1", &tree).missing, [(0, 1)]);
    let record = record(&host.root, &id("r1")).unwrap();
    assert_eq!((record.state, record.activated, record.sequence), (State::Uploaded, None, 2));
}

#[test]
fn a_source_that_cannot_be_read_is_no_error_of_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("from"), "alpha").unwrap();
    let held = crate::fs::Dir::open_absolute(dir.path().to_str().unwrap()).unwrap();
    // Not opened for reading, which fails as a bad block does: in the middle of the copy.
    let mut source = std::fs::File::options().write(true).open(dir.path().join("from")).unwrap();
    let looks = crate::fs::stat_of(&source).unwrap();
    let wanted = super::super::copy::Wanted { mode: FILE, size: 5, digest: Digest::of(b"alpha"), mtime: 1_700_000_000 };
    for trusted in [None, Some(super::super::stored::Stamp::from(&looks))] {
        let copier = super::super::copy::Copier::default();
        let result = copier.copy((&mut source, &looks), trusted, (&held, b"to"), &wanted, &mut Vec::new());
        assert!(matches!(result, Err(super::super::copy::NotCopied::Source)));
        assert!(!dir.path().join("to").exists());
    }
}
