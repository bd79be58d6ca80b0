//! The fuzz targets of `tests/fuzz` as plain tests: the corpora that are kept, and a bounded number of random changes of them.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "../fuzz/targets.rs"]
mod targets;

/// Random inputs for each target.
const CASES: u32 = 300;

/// One change: a byte is replaced, removed, doubled, or what follows is cut off.
fn changed(bytes: &[u8], changes: &[(u16, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte, kind) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(*at) % bytes.len();
        match kind % 4 {
            0 => bytes[at] = *byte,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, *byte),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[track_caller]
fn survives(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(corpus.len() > 2, "there is a corpus of {name}");
    for bytes in &corpus {
        target(bytes);
    }
    let changes = proptest::collection::vec((any::<u16>(), any::<u8>(), any::<u8>()), 1..6);
    let input = (0..corpus.len(), changes).prop_map(|(which, changes)| changed(&corpus[which], &changes));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&prop_oneof![8 => input, 1 => proptest::collection::vec(any::<u8>(), 0..200)], |bytes| {
        target(&bytes);
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn frames_are_read_or_refused_whatever_they_are() {
    survives("frames", targets::frames);
}

#[test]
fn manifests_are_read_or_refused_whatever_they_are() {
    survives("manifest", targets::manifest);
}

#[test]
fn journals_are_read_as_far_as_they_are_whole_whatever_they_are() {
    survives("journal", targets::journal);
}

#[test]
fn configurations_are_read_or_refused_whatever_they_are() {
    survives("config", targets::config);
}

#[test]
fn git_trees_are_exported_or_refused_whatever_they_are() {
    survives("git_tree", targets::git_tree);
}
