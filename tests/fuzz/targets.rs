//! What reads bytes that somebody else wrote, each with what must hold of it whatever they are: it ends, it does not panic, and what it
//! takes means the same when it is written again.

use std::path::Path;
use std::sync::OnceLock;

use deployer::config::environment::Source;
use deployer::config::{self, Overrides};
use deployer::git::{self, ExportOptions};
use deployer::tree::Manifest;
use deployer::wire::{Decoder, FrameKind, FromHelper, Messages, ToHelper, frame};
use git2::{ObjectType, Repository};
use tempfile::TempDir;

#[path = "../../src/helper/journal/frames.rs"]
pub mod journal_frames;

/// The pipe between a controller and a helper, in both directions. The first byte says in how small pieces it arrives.
pub fn frames(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let (mut decoder, mut to_helper, mut to_controller) = (Decoder::default(), Messages::default(), Messages::default());
    let mut again = Vec::new();
    for piece in bytes.chunks(usize::from(*first) + 1) {
        decoder.feed(piece);
        loop {
            let Ok(next) = decoder.next_frame() else { return };
            let Some(frame) = next else { break };
            assert!(frame.payload.len() <= frame::MAX_PAYLOAD, "a frame is longer than any may be");
            frame::put(&mut again, frame.kind, frame.id, &frame.payload);
            assert!(bytes.starts_with(&again), "a frame that is written again is another one");
            let taken = match frame.kind {
                FrameKind::Part => to_helper.part(&frame.payload).and_then(|()| to_controller.part(&frame.payload)).is_ok(),
                // What one side may say the other may not, and one of them is the side that reads.
                FrameKind::Message => {
                    let helper = to_helper.message::<ToHelper>(&frame.payload).is_ok();
                    to_controller.message::<FromHelper>(&frame.payload).is_ok() || helper
                }
                FrameKind::Data | FrameKind::DataErr | FrameKind::End => true,
            };
            if !taken {
                return;
            }
        }
    }
}

/// A manifest from the pipe or a disk.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(bytes) else { return };
    let paths: Vec<&[u8]> = manifest.entries().iter().map(|entry| entry.path.as_bytes()).collect();
    assert!(paths.windows(2).all(|pair| pair[0] < pair[1]), "entries are not sorted, or twice");
    let ends = |path: &[u8]| path.split(|byte| *byte == b'/').any(|name| matches!(name, b"" | b"." | b".."));
    assert!(!paths.iter().any(|path| ends(path)), "a path leads elsewhere");
    let again = Manifest::decode(&manifest.encode()).expect("what was written can be read");
    assert_eq!(again.manifest_digest(), manifest.manifest_digest());
}

/// A host's history.
pub fn journal(bytes: &[u8]) {
    let history = journal_frames::parse(bytes);
    assert!(history.end <= bytes.len());
    let whole = &bytes[..history.end];
    assert_eq!(journal_frames::parse(whole), history, "what follows the last event changes what it is");
    if journal_frames::is_torn(&bytes[history.end..])
        && let Some(event) = history.events.last()
        && let Ok(frame) = journal_frames::frame(&history.hash, event)
    {
        let longer = journal_frames::parse(&[whole, &frame].concat());
        assert_eq!(longer.events.len(), history.events.len() + 1, "what is appended is not read");
    }
}

/// `deploy.toml`.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(file) = config::parse(Path::new("deploy.toml"), text) else { return };
    for name in file.environments() {
        let Ok(environment) = file.environment(&name, &Overrides::default()) else { continue };
        for target in &environment.targets {
            assert!(!target.address.starts_with('-'), "a host's name is an option: {}", target.address);
        }
    }
}

/// The raw object of a git tree, as a repository of anybody's may have it.
pub fn git_tree(bytes: &[u8]) {
    static REPOSITORY: OnceLock<TempDir> = OnceLock::new();
    let directory = REPOSITORY.get_or_init(|| {
        let directory = TempDir::new().expect("there is room for a repository");
        Repository::init_bare(directory.path()).expect("a repository is made");
        directory
    });
    let repository = Repository::open_bare(directory.path()).expect("it was made");
    let database = repository.odb().expect("it has objects");
    // What an entry may lead to: the empty file and the empty tree.
    for (kind, bytes) in [(ObjectType::Blob, &b""[..]), (ObjectType::Tree, b"")] {
        database.write(kind, bytes).expect("an object is written");
    }
    let Ok(tree) = database.write(ObjectType::Tree, bytes) else { return };
    let commit = format!("tree {tree}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nfuzz\n");
    let commit = database.write(ObjectType::Commit, commit.as_bytes()).expect("a commit is written");
    let git = directory.path().to_str().expect("a temporary directory has a plain name").to_owned();
    let source = Source { git, path: None, submodules: false, lfs: false };
    let opened = git::open(&source, directory.path(), directory.path(), &|_| {}).expect("the repository is one");
    let Ok(revision) = opened.resolve(&commit.to_string()) else { return };
    if let Ok(artifact) = opened.export(&revision, &ExportOptions::default(), directory.path()) {
        manifest(&artifact.manifest.encode());
    }
}
