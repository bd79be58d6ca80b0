//! What is exported is what `git archive` would export, to the byte; hostile trees are refused before anything is sent.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use deployer::git::{ExportOptions, GitError, TreeFault};
use deployer::tree::{Kind, TreePath};
use proptest::prelude::*;

use crate::scratch::{Leaf, Scratch, Tree, clone, read_directory, same, tree_of};

/// Every attribute that `git archive` knows, in a tree of odd names.
fn rich() -> Scratch {
    let scratch = Scratch::new();
    scratch.write(
        ".gitattributes",
        "[attr]stamped export-subst -text\n*.bat text eol=crlf\n*.c ident\n*.utf16 working-tree-encoding=UTF-16LE-BOM text eol=crlf\n\
         docs/ export-ignore\n/secret export-ignore\nversion stamped\n*.ign export-ignore\nkeep.ign -export-ignore\n*.bin binary\n\
         *.filtered filter=canary\n\"quo ted\" export-subst\n",
    );
    scratch.write("sub/.gitattributes", "*.c -ident\n*.ign !export-ignore\ninner export-ignore\nversion -export-subst\n");
    for directory in ["", "sub/", "docs/", "deep/er/"] {
        scratch.write(format!("{directory}run.bat"), "one\ntwo\r\nthree\n");
        scratch.write(format!("{directory}main.c"), "/* $Id$ $Id: old $ */\n");
        scratch.write(format!("{directory}text.utf16"), "grüße\nline\n");
        scratch.write(format!("{directory}version"), "$Format:%H %h %an <%ae> %cI %s%n%b$ $Format:%D|%d$ $Format:%(describe)$ $Format:$\n");
        scratch.write(format!("{directory}a.ign"), "x");
        scratch.write(format!("{directory}keep.ign"), "x");
        scratch.write(format!("{directory}data.bin"), b"\r\n\0\xff\n");
        scratch.write(format!("{directory}x.filtered"), "untouched\n");
        scratch.write(format!("{directory}inner/file"), "x");
        scratch.write(format!("{directory}secret"), "x");
    }
    scratch.write("quo ted", "$Format:%aN$");
    scratch.write(".mailmap", "Countess <ada@example.net>\n");
    for name in [
        &b"-rf"[..],
        b"new\nline",
        b"\xff\xfe",
        b"$(id)",
        b"quote\"'",
        b" lead",
        b"trail ",
        b"back\\slash",
        "gr\u{fc}n".as_bytes(),
        &[b'n'; 255],
    ] {
        scratch.write(name, name);
        scratch.write([b"sub/".as_slice(), name, b".bat"].concat().get(..name.len().min(240) + 4).unwrap(), "a\nb\n");
        scratch.write([b"crlf/".as_slice(), &name[..name.len().min(251)], b".bat"].concat(), "a\nb\n");
    }
    scratch.write("bin/tool", "#!/bin/sh\n");
    scratch.make_executable("bin/tool");
    scratch.write("bin/tool.bat", "x\ny\n");
    scratch.make_executable("bin/tool.bat");
    symlink("tool", scratch.path().join("bin/link")).unwrap();
    symlink("../../etc/passwd", scratch.path().join("bin/away")).unwrap();
    symlink("x", scratch.path().join("bin/link.bat")).unwrap();
    scratch.write("empty", "");
    scratch
}

#[test]
fn every_attribute_and_every_odd_name_comes_out_as_git_archive_gives_it() {
    let scratch = rich();
    let commit = scratch.commit("Say it\n\nwith a body");
    scratch.git(["tag", "-a", "-m", "one", "v1.0"]);
    let reference = scratch.archive(&commit);
    let artifact = scratch.export("master");
    same(&tree_of(&artifact), &reference);
    // The reference is what it should be: each attribute did something.
    let content = |path: &str| match &reference[path.as_bytes()] {
        Leaf::File { content, .. } => content.clone(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(content("run.bat"), b"one\r\ntwo\r\nthree\r\n");
    assert!(content("main.c").starts_with(b"/* $Id: "));
    assert!(content("sub/main.c").starts_with(b"/* $Id$"));
    assert!(content("text.utf16").starts_with(b"\xff\xfe"));
    assert!(String::from_utf8(content("version")).unwrap().contains("tag: v1.0"));
    assert_eq!(content("quo ted"), b"Countess");
    for (path, exported) in [
        ("docs/run.bat", false),
        ("secret", false),
        ("sub/secret", true),
        ("a.ign", false),
        ("sub/a.ign", true),
        ("keep.ign", true),
        ("sub/inner/file", false),
    ] {
        assert_eq!(reference.contains_key(path.as_bytes()), exported, "{path}");
    }
    assert!(artifact.warnings.iter().any(|warning| warning.contains("bin/away")), "{:?}", artifact.warnings);
}

#[test]
fn a_second_export_is_the_same_and_so_is_one_from_a_clone_a_bare_clone_a_shallow_clone_and_a_worktree() {
    let scratch = rich();
    scratch.commit("first");
    scratch.write("empty", "no more");
    let commit = scratch.commit("second");
    let first = scratch.export(&commit);
    let again = scratch.export(&commit);
    assert_eq!(first.manifest, again.manifest);
    same(&tree_of(&first), &tree_of(&again));
    scratch.git(["worktree", "add", "-q", "--detach", "../tree-of-scratch", "HEAD"]);
    let worktree = scratch.path().parent().unwrap().join("tree-of-scratch");
    for (options, from) in [
        (&[][..], scratch.path()),
        (&["--bare"], scratch.path()),
        (&["--depth", "1"], scratch.path()),
        (&["--shared"], scratch.path()),
        (&["WORKTREE"], &worktree),
    ] {
        let clone = if options == ["WORKTREE"] { None } else { Some(clone(from, options)) };
        let place = clone.as_ref().map_or(worktree.as_path(), |(_, place)| place);
        let repository = scratch.open_as(place.to_str().unwrap()).unwrap();
        let revision = repository.resolve("HEAD").unwrap();
        let artifact = repository.export(&revision, &ExportOptions::default(), scratch.cache.path()).unwrap();
        // `%D` and `%(describe)` show the refs of each repository, as `git archive` there would.
        let drop_refs = |mut tree: Tree| {
            tree.retain(|path, _| !path.ends_with(b"version"));
            tree
        };
        assert_eq!(drop_refs(tree_of(&artifact)), drop_refs(tree_of(&first)), "{options:?}");
    }
    scratch.git(["worktree", "remove", "--force", worktree.to_str().unwrap()]);
}

#[test]
fn what_a_repository_configures_neither_runs_nor_changes_anything() {
    let scratch = rich();
    let commit = scratch.commit("first");
    let reference = scratch.archive(&commit);
    let canary = scratch.path().join(".git/canary");
    let run = format!("touch '{}'; tr a-z A-Z", canary.display());
    for (key, value) in [
        ("filter.canary.smudge", run.as_str()),
        ("filter.canary.process", &run),
        ("filter.canary.required", "true"),
        ("core.fsmonitor", &run),
        ("core.autocrlf", "true"),
        ("core.eol", "crlf"),
        ("tar.umask", "0077"),
    ] {
        scratch.git(["config", key, value]);
    }
    fs::create_dir_all(scratch.path().join(".git/info")).unwrap();
    fs::write(scratch.path().join(".git/info/attributes"), "* export-ignore\n").unwrap();
    same(&tree_of(&scratch.export(&commit)), &reference);
    assert!(!canary.exists());
    // The control: all this does change what git itself gives.
    fs::remove_file(scratch.path().join(".git/info/attributes")).unwrap();
    scratch.git(["config", "--unset", "filter.canary.process"]);
    assert!(scratch.archive_with(&[], &commit) != reference);
    assert!(canary.exists());
}

#[test]
fn replaced_objects_and_attributes_of_the_work_tree_are_ignored() {
    let scratch = Scratch::new();
    scratch.write("file", "true");
    let commit = scratch.commit("first");
    let other = scratch.blob(b"replaced");
    scratch.git(["replace", &scratch.git(["rev-parse", "HEAD:file"]), &other]);
    scratch.write(".gitattributes", "* export-ignore\n");
    let tree = tree_of(&scratch.export(&commit));
    assert_eq!(tree, BTreeMap::from([(b"file".to_vec(), Leaf::File { executable: false, content: b"true".to_vec() })]));
}

#[test]
fn one_directory_is_exported_as_git_archive_gives_that_tree() {
    let scratch = rich();
    scratch.commit("first");
    for path in ["sub", "deep/er", "bin"] {
        let options = ExportOptions { path: Some(TreePath::new(path).unwrap()), ..ExportOptions::default() };
        let artifact = scratch.try_export("master", &options).unwrap();
        assert_eq!(tree_of(&artifact), scratch.archive(&format!("HEAD:{path}")), "{path}");
    }
    for path in ["nothing", "empty", "bin/link"] {
        let options = ExportOptions { path: Some(TreePath::new(path).unwrap()), ..ExportOptions::default() };
        assert!(matches!(scratch.try_export("master", &options), Err(GitError::NoSuchPath { .. })), "{path}");
    }
}

#[test]
fn every_file_has_the_time_of_its_commit() {
    let scratch = Scratch::new();
    scratch.write("file", "x");
    scratch.commit("first");
    let artifact = scratch.export("master");
    assert!(matches!(artifact.manifest.entries()[0].kind, Kind::File { mtime: 1_700_000_000, mode: 0o644, .. }));
}

#[test]
fn this_projects_own_history_is_exported_as_git_archive_gives_it() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The checkout may belong to another user than the tests do.
    let ask = |what: &[&str]| {
        let output = Command::new("git").args(["-c", "safe.directory=*", "rev-parse"]).args(what).current_dir(here).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    let (Some(head), Some(common)) = (ask(&["--verify", "-q", "HEAD"]), ask(&["--git-common-dir"])) else {
        eprintln!("skipped: this is no git checkout with a commit");
        return;
    };
    let common = here.join(common);
    let scratch = Scratch::new();
    let objects = common.join("objects").into_os_string().into_vec();
    fs::write(scratch.path().join(".git/objects/info/alternates"), [objects, b"\n".to_vec()].concat()).unwrap();
    if common.join("shallow").exists() {
        fs::copy(common.join("shallow"), scratch.path().join(".git/shallow")).unwrap();
    }
    let commits = scratch.git(["rev-list", "--max-count=30", &head]);
    assert!(commits.lines().count() > 0);
    for commit in commits.lines() {
        assert_eq!(tree_of(&scratch.export(commit)), scratch.archive(commit), "{commit}");
    }
}

#[test]
fn a_large_blob_streams_and_many_converted_paths_come_from_one_archive() {
    let scratch = Scratch::new();
    let large = vec![7; 65 * 1024 * 1024];
    scratch.write("large", &large);
    scratch.write(".gitattributes", "*.bat eol=crlf text\n");
    let deep = [0; 3].map(|_| "d".repeat(200)).join("/");
    for number in 0..750 {
        scratch.write(format!("{deep}/{number}.bat"), "a\nb\n");
    }
    let commit = scratch.commit("first");
    let artifact = scratch.export(&commit);
    let tree = tree_of(&artifact);
    assert_eq!(tree[b"large".as_slice()], Leaf::File { executable: false, content: large });
    let converted = tree
        .iter()
        .filter(|(path, leaf)| path.ends_with(b".bat") && matches!(leaf, Leaf::File { content, .. } if content == b"a\r\nb\r\n"));
    assert_eq!(converted.count(), 750);
}

#[test]
fn malformed_trees_are_refused_with_the_id_of_the_object() {
    let scratch = Scratch::new();
    let blob = scratch.blob(b"x");
    let empty = scratch.git_with(["mktree"], b"");
    let long = vec![b'a'; 256];
    let path = |fault: &TreeFault| matches!(fault, TreeFault::Path { .. });
    let slash = |fault: &TreeFault| matches!(fault, TreeFault::Slash(_));
    let duplicate = |fault: &TreeFault| matches!(fault, TreeFault::Duplicate(_));
    let unsorted = |fault: &TreeFault| matches!(fault, TreeFault::Unsorted(_));
    let mode = |fault: &TreeFault| matches!(fault, TreeFault::Mode { .. });
    let refused = |entries: &[(&str, &[u8], &str)], expected: fn(&TreeFault) -> bool| {
        let (tree, commit) = scratch.commit_raw_tree(entries);
        match scratch.try_export(&commit, &ExportOptions::default()) {
            Err(GitError::Tree { id, fault }) => assert!(id.to_string() == tree && expected(&fault), "{entries:?}: {fault}"),
            other => panic!("{entries:?}: {other:?}"),
        }
    };
    for name in [&b".git"[..], b"git~1", b"..", b".", b"", &long] {
        refused(&[("100644", name, &blob)], path);
    }
    refused(&[("40000", b".GiT", &empty)], path);
    refused(&[("100644", b"a/b", &blob)], slash);
    refused(&[("100644", b"/etc", &blob)], slash);
    refused(&[("100644", b"a", &blob), ("100644", b"a", &blob)], duplicate);
    refused(&[("120000", b"d", &blob), ("100644", b"d-x", &blob), ("40000", b"d", &empty)], duplicate);
    refused(&[("100644", b"b", &blob), ("100644", b"a", &blob)], unsorted);
    refused(&[("40000", b"a", &empty), ("100644", b"a-b", &blob)], unsorted);
    for odd in ["0", "20644", "10644", "140644"] {
        refused(&[(odd, b"a", &blob)], mode);
    }
    refused(&[("1006x4", b"a", &blob)], |fault| matches!(fault, TreeFault::Malformed));
    // The control, with an old mode and an empty directory.
    let (_, commit) = scratch.commit_raw_tree(&[("100664", b"a", &blob), ("100775", b"d.x", &blob), ("40000", b"d", &empty)]);
    let reference = scratch.archive(&commit);
    same(&tree_of(&scratch.export(&commit)), &reference);
    assert_eq!(reference.len(), 2);
}

#[test]
fn a_link_with_an_endless_target_is_refused_and_the_longest_is_kept() {
    let scratch = Scratch::new();
    for (length, kept) in [(4096, true), (4097, false), (0, false)] {
        let target = scratch.blob(&vec![b't'; length]);
        let (_, commit) = scratch.commit_raw_tree(&[("120000", b"link", &target)]);
        let exported = scratch.try_export(&commit, &ExportOptions::default());
        match exported {
            Ok(artifact) => assert!(kept && tree_of(&artifact)[b"link".as_slice()] == Leaf::Link(vec![b't'; length]), "{length}"),
            Err(error) => assert!(!kept && matches!(error, GitError::Manifest(_)), "{length}: {error}"),
        }
    }
}

#[test]
fn a_tree_of_trees_that_would_be_endless_is_refused() {
    let scratch = Scratch::new();
    let mut tree = scratch.git_with(["mktree"], format!("100644 blob {}\tx\n", scratch.blob(b"x")).as_bytes());
    for _ in 0..12 {
        let entries: Vec<String> = (0..10).map(|name| format!("040000 tree {tree}\t{name}\n")).collect();
        tree = scratch.git_with(["mktree"], entries.concat().as_bytes());
    }
    let commit = scratch.git(["commit-tree", "-m", "bomb", &tree]);
    assert!(matches!(scratch.try_export(&commit, &ExportOptions::default()), Err(GitError::Tree { fault: TreeFault::TooMany, .. })));
}

#[test]
fn submodules_are_refused_or_exported_and_never_silently_empty() {
    let library = Scratch::new();
    library.write("lib.py", "x = 1\n");
    library.write(".gitattributes", "tests export-ignore\n");
    library.write("tests/test.py", "");
    let inside = library.commit("library");
    let scratch = Scratch::new();
    scratch.write("main.py", "");
    scratch.commit("first");
    scratch.git(["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.path().to_str().unwrap(), "vendor/lib"]);
    scratch.git(["commit", "-q", "-m", "with a submodule"]);
    let error = scratch.try_export("master", &ExportOptions::default()).unwrap_err();
    assert!(matches!(&error, GitError::Submodules { paths } if paths[0].as_bytes() == b"vendor/lib"), "{error}");
    let asked = ExportOptions { submodules: true, ..ExportOptions::default() };
    let tree = tree_of(&scratch.try_export("master", &asked).unwrap());
    let paths: Vec<&[u8]> = tree.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b".gitmodules"[..], b"main.py", b"vendor/lib/.gitattributes", b"vendor/lib/lib.py"]);
    // Without its checkout it is found where git keeps it.
    fs::remove_dir_all(scratch.path().join("vendor")).unwrap();
    assert_eq!(tree_of(&scratch.try_export("master", &asked).unwrap()), tree);
    let vendor = ExportOptions { path: Some(TreePath::new("vendor").unwrap()), ..asked.clone() };
    assert!(tree_of(&scratch.try_export("master", &vendor).unwrap()).contains_key(b"lib/lib.py".as_slice()));
    fs::remove_dir_all(scratch.path().join(".git/modules")).unwrap();
    match scratch.try_export("master", &asked) {
        Err(GitError::SubmoduleAbsent { commit, .. }) => assert_eq!(commit.to_string(), inside),
        other => panic!("{other:?}"),
    }
    scratch.git(["read-tree", "HEAD"]);
    let attributes = scratch.blob(b"vendor/lib export-ignore\n");
    scratch.git(["update-index", "--add", "--cacheinfo", &format!("100644,{attributes},.gitattributes")]);
    scratch.git(["commit", "-q", "-m", "left out"]);
    assert!(scratch.try_export("master", &ExportOptions::default()).is_ok());
}

#[test]
fn a_submodule_within_a_submodule_is_exported_at_its_own_commit() {
    let (inner, middle, scratch) = (Scratch::new(), Scratch::new(), Scratch::new());
    inner.write("deep", "$Format:%s$");
    inner.write(".gitattributes", "deep export-subst\n");
    inner.commit("the inner one");
    for (parent, child, place) in [(&middle, &inner, "inner"), (&scratch, &middle, "middle")] {
        parent.write("file", place);
        parent.commit("first");
        parent.git(["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", child.path().to_str().unwrap(), place]);
        parent.git(["commit", "-q", "-m", "with a submodule"]);
    }
    let asked = ExportOptions { submodules: true, ..ExportOptions::default() };
    match scratch.try_export("master", &asked) {
        Err(GitError::SubmoduleAbsent { path, .. }) => assert_eq!(path.as_bytes(), b"middle/inner"),
        other => panic!("{other:?}"),
    }
    scratch.git(["-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive"]);
    let tree = tree_of(&scratch.try_export("master", &asked).unwrap());
    let content = |path: &str| match &tree[path.as_bytes()] {
        Leaf::File { content, .. } => content.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(content("middle/inner/deep"), b"the inner one");
    assert_eq!(content("middle/file"), b"inner");
}

#[test]
fn lfs_pointers_are_refused_or_replaced_by_verified_content() {
    let scratch = Scratch::new();
    let content = b"large content";
    let hex = sha256(content);
    scratch.write("model.bin", format!("version https://git-lfs.github.com/spec/v1\noid sha256:{hex}\nsize {}\n", content.len()));
    scratch.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    scratch.commit("first");
    // Twice: the second time nothing but the cache knows of the pointer.
    for _ in 0..2 {
        let error = scratch.try_export("master", &ExportOptions::default()).unwrap_err();
        assert!(matches!(&error, GitError::LfsPointers { paths } if paths[0].as_bytes() == b"model.bin"), "{error}");
    }
    let asked = ExportOptions { lfs: true, ..ExportOptions::default() };
    assert!(matches!(scratch.try_export("master", &asked), Err(GitError::LfsAbsent { .. })));
    let place = scratch.path().join(".git/lfs/objects").join(&hex[..2]).join(&hex[2..4]).join(&hex);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, b"other content").unwrap();
    assert!(matches!(scratch.try_export("master", &asked), Err(GitError::LfsDiffers { .. })));
    fs::write(&place, content).unwrap();
    let artifact = scratch.try_export("master", &asked).unwrap();
    assert_eq!(tree_of(&artifact)[b"model.bin".as_slice()], Leaf::File { executable: false, content: content.to_vec() });
    // Content that changes after it was hashed is an error, not other content.
    fs::write(&place, b"LARGE content").unwrap();
    let index = artifact.manifest.entries().iter().position(|entry| entry.path.as_bytes() == b"model.bin").unwrap();
    let mut bytes = Vec::new();
    assert!(artifact.contents.open(u32::try_from(index).unwrap()).unwrap().read_to_end(&mut bytes).is_err());
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn names_that_fold_into_one_are_a_warning() {
    let scratch = Scratch::new();
    scratch.write("Dir/file", "");
    scratch.write("dir/other", "");
    scratch.write("README", "");
    scratch.write("readme", "");
    scratch.write("gr\u{fc}n", "");
    scratch.write("GRU\u{308}N", "");
    scratch.commit("first");
    let warnings = scratch.export("master").warnings.join("\n");
    assert!(warnings.contains("`README` and `readme`") && warnings.contains("`Dir` and `dir`"), "{warnings}");
    assert!(warnings.contains("`GRU\u{308}N` and `gr\u{fc}n`"), "{warnings}");
}

#[test]
fn a_damaged_memory_of_digests_is_as_good_as_none() {
    let scratch = Scratch::new();
    scratch.write("file", "x");
    scratch.commit("first");
    let first = scratch.export("master");
    let files: Vec<_> = fs::read_dir(scratch.cache.path().join("digests")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let mut bytes = fs::read(&files[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&files[0], bytes).unwrap();
    assert_eq!(scratch.export("master").manifest, first.manifest);
}

#[test]
fn a_directory_is_walked_into_the_same_tree_as_it_is() {
    let scratch = rich();
    fs::create_dir_all(scratch.path().join("hollow/inner")).unwrap();
    fs::rename(scratch.path().join(".git"), scratch.path().join("sub").with_extension("moved")).unwrap();
    fs::remove_dir_all(scratch.path().join("sub.moved")).unwrap();
    let artifact = deployer::walk::walk(scratch.path(), 42).unwrap();
    let mut expected = Tree::new();
    read_directory(scratch.path(), Path::new(""), &mut expected);
    assert_eq!(tree_of(&artifact), expected);
    assert_eq!(expected[b"hollow/inner".as_slice()], Leaf::EmptyDirectory);
    // What changes afterwards is found when it is read.
    fs::write(scratch.path().join("run.bat"), "one\ntwo\r\nTHREE\n").unwrap();
    let index = artifact.manifest.entries().iter().position(|entry| entry.path.as_bytes() == b"run.bat").unwrap();
    let read = artifact.contents.open(u32::try_from(index).unwrap()).unwrap().read_to_end(&mut Vec::new());
    assert!(read.is_err());
}

#[test]
fn a_directory_with_a_pipe_in_it_is_refused_and_so_is_one_with_gits_own_directory() {
    let directory = tempfile::tempdir().unwrap();
    assert!(deployer::walk::walk(&directory.path().join("none"), 0).is_err());
    assert!(deployer::walk::walk(directory.path(), 0).unwrap().manifest.entries().is_empty());
    fs::create_dir(directory.path().join(".git")).unwrap();
    assert!(deployer::walk::walk(directory.path(), 0).unwrap_err().to_string().contains("git's own directory"));
    fs::remove_dir(directory.path().join(".git")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, directory.path().join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(deployer::walk::walk(directory.path(), 0).unwrap_err().to_string().contains("named pipe"));
}

fn attribute_lines() -> impl Strategy<Value = String> {
    let pattern = prop_oneof![
        Just("*"),
        Just("*.a"),
        Just("*.b"),
        Just("a*"),
        Just("/x.a"),
        Just("d/"),
        Just("d/*"),
        Just("d/**"),
        Just("**/e"),
        Just("/d/e"),
        Just("e"),
        Just("[attr]m"),
        Just("x.?"),
        Just("\"x.b\""),
        Just("!x.a"),
    ];
    let attribute = prop_oneof![
        Just("export-ignore"),
        Just("-export-ignore"),
        Just("!export-ignore"),
        Just("export-subst"),
        Just("-export-subst"),
        Just("text"),
        Just("-text"),
        Just("text=auto"),
        Just("eol=crlf"),
        Just("eol=lf"),
        Just("!eol"),
        Just("crlf"),
        Just("-crlf"),
        Just("crlf=input"),
        Just("ident"),
        Just("-ident"),
        Just("working-tree-encoding=UTF-16"),
        Just("working-tree-encoding=latin1"),
        Just("binary"),
        Just("m"),
        Just("-m"),
        Just("filter=x"),
    ];
    proptest::collection::vec((pattern, proptest::collection::vec(attribute, 1..3)), 0..6)
        .prop_map(|lines| lines.into_iter().map(|(pattern, attributes)| [pattern, " ", &attributes.join(" "), "\n"].concat()).collect())
}

fn files() -> impl Strategy<Value = BTreeMap<&'static str, (&'static str, bool)>> {
    let path = prop_oneof![
        Just("x.a"),
        Just("x.b"),
        Just("ax"),
        Just("d/x.a"),
        Just("d/x.b"),
        Just("d/e/x.a"),
        Just("d/e/ax"),
        Just("e/x.b"),
        Just("f/d/x.a"),
        Just("f/e/d/x.b"),
        Just("d-x"),
        Just("dd/\"q\n"),
    ];
    let content = prop_oneof![
        Just("a\nb\n"),
        Just("a\r\nb\n"),
        Just("a\r\nb\r\n"),
        Just("$Id$\n$Format:%h$\r\n"),
        Just("\0\n"),
        Just(""),
        Just("h\u{e9}\n"),
        Just("$Id: x $ $Format:%an")
    ];
    proptest::collection::btree_map(path, (content, any::<bool>()), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_with_any_attributes_is_exported_as_git_archive_gives_it(
        files in files(),
        top in attribute_lines(),
        below in attribute_lines(),
    ) {
        let scratch = Scratch::new();
        for (path, (content, executable)) in &files {
            scratch.write(path, content);
            if *executable {
                scratch.make_executable(path);
            }
        }
        scratch.write(".gitattributes", &top);
        scratch.write("d/.gitattributes", &below);
        let commit = scratch.commit("first");
        same(&tree_of(&scratch.export(&commit)), &scratch.archive(&commit));
        let options = ExportOptions { path: Some(TreePath::new("d").unwrap()), ..ExportOptions::default() };
        same(&tree_of(&scratch.try_export(&commit, &options).unwrap()), &scratch.archive(&format!("{commit}:d")));
    }
}

#[test]
fn the_comparison_can_fail() {
    let scratch = Scratch::new();
    scratch.write(".gitattributes", "run.bat text\n");
    scratch.write("run.bat", "a\nb\n");
    let commit = scratch.commit("first");
    let exported = tree_of(&scratch.export(&commit));
    assert_eq!(exported, scratch.archive(&commit));
    assert_ne!(exported, scratch.archive_with(&["-c", "core.eol=crlf"], &commit));
    let name = std::ffi::OsStr::from_bytes(b"run.bat");
    fs::remove_file(scratch.path().join(name)).unwrap();
    let other = scratch.commit("second");
    assert_ne!(exported, scratch.archive(&other));
}
