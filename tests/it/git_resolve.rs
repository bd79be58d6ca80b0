//! A revision is resolved once, as people mean it; hostile text is a name that does not exist. Mirrors and what lies between commits.

use std::fs;
use std::path::Path;

use deployer::config::environment::Source;
use deployer::error::Error;
use deployer::exit::Exit;
use deployer::git::{ExportOptions, GitError};

use crate::scratch::{Scratch, clone, git_in, same, tree_of};

/// Commits `count` times, and gives the ids.
fn history(scratch: &Scratch, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| {
            scratch.write("file", format!("{number}\n"));
            scratch.commit(&format!("Change {number}"))
        })
        .collect()
}

fn commit(scratch: &Scratch, rev: &str) -> String {
    scratch.resolve(rev).unwrap_or_else(|error| panic!("{rev}: {error}")).commit
}

#[test]
fn branches_remote_branches_tags_ids_and_patterns_are_what_people_mean() {
    let origin = Scratch::new();
    let ids = history(&origin, 4);
    origin.git(["tag", "v1.9.0", &ids[0]]);
    origin.git(["tag", "-a", "-m", "annotated", "v1.10.0", &ids[1]]);
    origin.git(["tag", "v1.10.0-rc1", &ids[2]]);
    origin.git(["branch", "feature/x", &ids[2]]);
    let (_directory, path) = clone(origin.path(), &[]);
    let scratch = Scratch::new();
    let open = || scratch.open_as(path.to_str().unwrap()).unwrap();
    for (rev, expected) in [
        ("master", &ids[3]),
        ("HEAD", &ids[3]),
        ("feature/x", &ids[2]),
        ("origin/feature/x", &ids[2]),
        ("refs/remotes/origin/feature/x", &ids[2]),
        ("v1.9.0", &ids[0]),
        ("v1.10.0", &ids[1]),
        ("tags/v1.10.0", &ids[1]),
        ("refs/tags/v1.10.0", &ids[1]),
        ("v*", &ids[1]),
        ("v1.9*", &ids[0]),
        (&ids[2], &ids[2]),
        (&ids[2][..10], &ids[2]),
        (&ids[2].to_uppercase()[..10], &ids[2]),
        ("HEAD~2", &ids[1]),
        ("v1.10.0^0", &ids[1]),
        ("@", &ids[3]),
    ] {
        assert_eq!(&open().resolve(rev).unwrap_or_else(|error| panic!("{rev}: {error}")).commit, expected, "{rev}");
    }
    let revision = open().resolve("master").unwrap();
    assert_eq!((revision.subject.as_str(), revision.author.as_str(), revision.committed), ("Change 3", "Ada", 1_700_000_000));
    assert_eq!((revision.reference.as_str(), revision.warnings.len()), ("master", 0));
}

#[test]
fn a_local_branch_that_is_not_where_its_remote_is_is_taken_with_a_warning() {
    let origin = Scratch::new();
    let ids = history(&origin, 3);
    let (_directory, path) = clone(origin.path(), &[]);
    git_in(&path, ["reset", "-q", "--hard", &ids[0]], b"");
    let revision = origin.open_as(path.to_str().unwrap()).unwrap().resolve("master").unwrap();
    assert_eq!(revision.commit, ids[0]);
    assert_eq!(revision.warnings, ["the local branch `master` is 2 commits behind `origin/master`"]);
}

#[test]
fn what_does_not_exist_is_an_error_that_lists_what_there_is() {
    let scratch = Scratch::new();
    history(&scratch, 1);
    scratch.git(["tag", "v1.0"]);
    let error = scratch.resolve("mastre").unwrap_err();
    assert!(matches!(&error, GitError::UnknownRevision { near, .. } if near == &["master"]), "{error}");
    let top = Error::from(error);
    assert_eq!((top.exit, top.code), (Exit::Config, "unknown-revision"));
    assert!(top.what.starts_with("no revision `mastre` in "));
    assert_eq!(top.hints, ["did you mean `master`?", "there is the branch `master`, the tag `v1.0`"]);
    let empty = Scratch::new();
    assert!(matches!(empty.resolve("master"), Err(GitError::Empty { .. })));
    assert!(matches!(empty.open_as("/"), Err(GitError::NoRepository { .. })));
}

#[test]
fn what_means_two_commits_is_an_error_that_says_what_to_write() {
    let scratch = Scratch::new();
    let ids = history(&scratch, 2);
    scratch.git(["tag", "master", &ids[0]]);
    match scratch.resolve("master") {
        Err(GitError::AmbiguousRevision { candidates, .. }) => {
            assert_eq!(candidates, ["refs/heads/master", "refs/tags/master"]);
            assert_eq!(commit(&scratch, &candidates[0]), ids[1]);
            assert_eq!(commit(&scratch, &candidates[1]), ids[0]);
        }
        other => panic!("{other:?}"),
    }
    // The same commit under both names is no question.
    scratch.git(["tag", "-f", "master", &ids[1]]);
    assert_eq!(commit(&scratch, "master"), ids[1]);
    // A branch that looks like the id of another commit.
    scratch.git(["update-ref", &format!("refs/heads/{}", ids[0]), &ids[1]]);
    assert!(matches!(scratch.resolve(&ids[0]), Err(GitError::AmbiguousRevision { .. })));
}

#[test]
fn trees_and_blobs_are_not_deployed_and_tags_of_tags_are_peeled() {
    let scratch = Scratch::new();
    let ids = history(&scratch, 1);
    scratch.git(["tag", "of-tree", "HEAD^{tree}"]);
    scratch.git(["tag", "-a", "-m", "x", "of-blob", "HEAD:file"]);
    scratch.git(["tag", "-a", "-m", "x", "once", "HEAD"]);
    scratch.git(["tag", "-a", "-m", "x", "twice", "once"]);
    assert_eq!(commit(&scratch, "twice"), ids[0]);
    let tree = scratch.git(["rev-parse", "HEAD^{tree}"]);
    for rev in ["of-tree", "of-blob", &tree, &tree[..12]] {
        assert!(matches!(scratch.resolve(rev), Err(GitError::NotCommit { .. })), "{rev}");
    }
}

#[test]
fn hostile_revisions_are_names_that_do_not_exist_and_nothing_runs() {
    let scratch = Scratch::new();
    history(&scratch, 1);
    let canary = scratch.path().join("canary");
    let touch = format!("touch {}", canary.display());
    let hostile = [
        "",
        " ",
        "-",
        "--",
        "--help",
        "-rmaster",
        "--upload-pack=touch canary",
        "--output=canary",
        "--exec=x",
        "$(touch canary)",
        "`touch canary`",
        "; touch canary",
        "| touch canary",
        "&& touch canary",
        "> canary",
        "master\ntouch canary",
        "master\0",
        "\0",
        "master;id",
        "master..HEAD",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "refs/../../config",
        "HEAD:file",
        ":/Change",
        ":file",
        "master:",
        "@{u}",
        "@{-1}",
        "master@{upstream}",
        "master^{tree}",
        "master^{/x}",
        "~",
        "^master",
        "*",
        "[",
        "\\",
        "\u{202e}master",
        "\x1b[2J",
        "master.lock",
        "a//b",
        ".git",
        "%s%n",
        "{}",
        "${IFS}",
        "master^9",
        "master~99999999",
        "HEAD^{blob}",
    ];
    let padded = "a".repeat(100_000);
    for rev in hostile.iter().copied().chain([padded.as_str(), &touch]) {
        let error = scratch.resolve(rev).err().unwrap_or_else(|| panic!("{rev:?} was resolved"));
        let top = Error::from(error);
        let text = format!("{} {}", top.what, top.hints.join(" "));
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    assert!(hostile.len() >= 40);
    assert!(!canary.exists());
}

#[test]
fn a_branch_of_a_hostile_name_is_found_by_exactly_that_name() {
    let scratch = Scratch::new();
    let ids = history(&scratch, 2);
    for name in ["$(id)", "`id`", "a;b", "a&b|c", "%s", "'quote'", "\"double\"", "gr\u{fc}n", "a@b"] {
        scratch.git(["update-ref", &format!("refs/heads/{name}"), &ids[0]]);
        assert_eq!(commit(&scratch, name), ids[0], "{name}");
    }
}

#[test]
fn changes_between_two_commits_are_counted_where_the_history_is_whole() {
    let scratch = Scratch::new();
    let ids = history(&scratch, 3);
    scratch.write("new", "a\nb\n");
    let last = scratch.commit("Add a file");
    let repository = scratch.open();
    let changes = repository.changes(&ids[0], &last).unwrap().unwrap();
    let subjects: Vec<&str> = changes.ahead.iter().map(|line| line.subject.as_str()).collect();
    assert_eq!(subjects, ["Add a file", "Change 2", "Change 1"]);
    assert_eq!((changes.behind, changes.files, changes.added_lines, changes.removed_lines), (0, 2, Some(3), Some(1)));
    assert_eq!(changes.paths, [b"file".to_vec(), b"new".to_vec()]);
    let back = repository.changes(&last, &ids[0]).unwrap().unwrap();
    assert_eq!((back.ahead.len(), back.behind), (0, 3));
    assert_eq!(repository.changes(&"0".repeat(40), &last).unwrap(), None);
    let (_directory, path) = clone(scratch.path(), &["--depth", "2"]);
    let shallow = scratch.open_as(path.to_str().unwrap()).unwrap();
    assert_eq!(shallow.changes(&ids[2], &last).unwrap(), None);
}

#[test]
fn a_work_tree_is_dirty_when_tracked_files_differ() {
    let scratch = Scratch::new();
    history(&scratch, 1);
    scratch.git(["reset", "-q", "--hard"]);
    assert!(!scratch.open().dirty().unwrap());
    scratch.write("untracked", "x");
    assert!(!scratch.open().dirty().unwrap());
    scratch.write("file", "something else");
    assert!(scratch.open().dirty().unwrap());
    let (_directory, path) = clone(scratch.path(), &["--bare"]);
    assert!(!scratch.open_as(path.to_str().unwrap()).unwrap().dirty().unwrap());
}

fn url(scratch: &Scratch) -> String {
    format!("file://{}", scratch.path().display())
}

#[test]
fn a_mirror_follows_its_source_and_forgets_what_is_gone() {
    let origin = Scratch::new();
    let ids = history(&origin, 2);
    origin.git(["branch", "gone"]);
    let here = Scratch::new();
    let mirror = here.open_as(&url(&origin)).unwrap();
    for rev in ["master", "origin/master", "HEAD", "gone"] {
        assert_eq!(mirror.resolve(rev).unwrap().commit, ids[1], "{rev}");
    }
    let newer = history(&origin, 1);
    origin.git(["branch", "-D", "gone"]);
    origin.git(["reset", "-q", "--hard", &ids[0]]);
    origin.git(["branch", "newer", &newer[0]]);
    let mirror = here.open_as(&url(&origin)).unwrap();
    assert_eq!(mirror.resolve("master").unwrap().commit, ids[0]);
    assert_eq!(mirror.resolve("newer").unwrap().commit, newer[0]);
    assert!(mirror.resolve("gone").is_err());
    let revision = mirror.resolve("newer").unwrap();
    let artifact = mirror.export(&revision, &ExportOptions::default(), here.cache.path()).unwrap();
    same(&tree_of(&artifact), &origin.archive("newer"));
}

fn mirror_of(here: &Scratch) -> std::path::PathBuf {
    let mirrors = fs::read_dir(here.cache.path().join("mirror")).unwrap();
    let mut found: Vec<_> = mirrors.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_damaged_mirror_is_made_again_and_a_stale_lock_is_removed() {
    let origin = Scratch::new();
    let ids = history(&origin, 3);
    let here = Scratch::new();
    // The cache may lie in a work tree: that of whoever keeps a home directory in git.
    let around = |arguments: &[&str]| String::from_utf8(git_in(here.cache.path(), arguments, b"")).unwrap();
    around(&["init", "-q", "-b", "precious"]);
    let empty = around(&["hash-object", "-t", "tree", "-w", "/dev/null"]);
    let own = around(&["commit-tree", "-m", "mine", empty.trim()]);
    around(&["update-ref", "refs/heads/kept", own.trim()]);
    let refs = around(&["for-each-ref"]);
    here.open_as(&url(&origin)).unwrap();
    let mirror = mirror_of(&here);
    fs::write(mirror.join("packed-refs.lock"), "").unwrap();
    fs::write(mirror.join("refs/heads/master.lock"), "").unwrap();
    origin.git(["branch", "other"]);
    assert_eq!(here.open_as(&url(&origin)).unwrap().resolve("other").unwrap().commit, ids[2]);
    for damage in [
        damage_objects as fn(&Path),
        |mirror| fs::write(mirror.join("HEAD"), "nonsense").unwrap(),
        |mirror| fs::remove_file(mirror.join("HEAD")).unwrap(),
        |mirror| fs::remove_dir_all(mirror.join("objects")).unwrap(),
    ] {
        damage(&mirror);
        let repository = here.open_as(&url(&origin)).unwrap();
        let revision = repository.resolve("master").unwrap();
        assert_eq!(revision.commit, ids[2]);
        repository.export(&revision, &ExportOptions::default(), here.cache.path()).unwrap();
        assert_eq!(around(&["for-each-ref"]), refs);
    }
}

fn damage_objects(mirror: &Path) {
    let mut waiting = vec![mirror.join("objects")];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                fs::remove_file(&path).unwrap();
                fs::write(path, "damaged").unwrap();
            }
        }
    }
}

#[test]
fn a_source_that_does_not_answer_says_so_without_its_password_and_leaves_nothing() {
    let here = Scratch::new();
    let error = here.open_as("http://ada:s3cret@127.0.0.1:1/app.git").unwrap_err();
    let top = Error::from(error);
    let text = format!("{} {:?} {:?} {:?}", top.what, top.evidence, top.hints, top.cause);
    assert_eq!((top.exit, top.code), (Exit::Unreachable, "fetch"));
    assert!(text.contains("http://127.0.0.1:1/app.git") && !text.contains("s3cret"), "{text}");
    assert!(!top.evidence.is_empty());
    let left: Vec<_> =
        fs::read_dir(here.cache.path().join("mirror")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_mirror_that_its_source_no_longer_answers_for_is_kept() {
    let origin = Scratch::new();
    history(&origin, 1);
    let here = Scratch::new();
    here.open_as(&url(&origin)).unwrap();
    let mirror = mirror_of(&here);
    let source = url(&origin);
    drop(origin);
    assert!(matches!(here.open_as(&source), Err(GitError::Fetch { .. })));
    assert!(mirror.join("HEAD").exists());
}

#[test]
fn a_bundle_is_a_source() {
    let origin = Scratch::new();
    let ids = history(&origin, 2);
    origin.git(["bundle", "create", "-q", "all.bundle", "--all", "HEAD"]);
    let source = Source { git: "all.bundle".to_owned(), path: None, submodules: false, lfs: false };
    let repository = deployer::git::open(&source, origin.path(), origin.cache.path(), &|_| {}).unwrap();
    assert_eq!(repository.resolve("master").unwrap().commit, ids[1]);
}

#[test]
fn commands_in_a_url_do_not_run() {
    let here = Scratch::new();
    let canary = here.path().join("canary");
    for url in [
        format!("ext::sh -c touch% {}", canary.display()),
        format!("--upload-pack=touch {}", canary.display()),
        format!("-u:touch {}", canary.display()),
    ] {
        let error = here.open_as(&url).unwrap_err();
        assert!(matches!(error, GitError::Url { .. } | GitError::NoRepository { .. }), "{url}: {error}");
    }
    assert!(!canary.exists());
}

#[test]
fn a_repository_of_sha_256_objects_is_refused_plainly() {
    let scratch = Scratch::new();
    scratch.git(["init", "-q", "--object-format=sha256", "other"]);
    let error = scratch.open_as("other").unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
}

#[tokio::test]
async fn the_local_stage_tells_each_step_and_refuses_what_was_not_expected() {
    use deployer::event::{Event, Events, Step};
    let scratch = Scratch::new();
    let ids = history(&scratch, 1);
    let source = Source { git: ".".to_owned(), path: None, submodules: false, lfs: false };
    let mut request = deployer::stage::local::Request {
        source,
        base: scratch.path().to_owned(),
        cache: scratch.cache.path().to_owned(),
        rev: "master".to_owned(),
        expect: Some(ids[0][..7].to_owned()),
    };
    let (events, received) = Events::new(std::time::Instant::now());
    let local = deployer::stage::local::export(request.clone(), &events).await.unwrap();
    assert_eq!(local.revision.commit, ids[0]);
    drop(events);
    let told: Vec<Event> = received.iter().map(|timed| timed.event).collect();
    assert!(told.iter().any(|event| matches!(event, Event::Revision { rev, .. } if *rev == ids[0])));
    assert!(
        told.iter().any(|event| matches!(event, Event::StepFinished { step: Step::Export, summary, .. } if summary == "1 file, 2 B")),
        "{told:?}"
    );
    assert!(!told.iter().any(|event| matches!(event, Event::StepStarted { step: Step::Mirror, .. })));
    request.expect = Some("0000000".to_owned());
    let (events, _received) = Events::new(std::time::Instant::now());
    let error = deployer::stage::local::export(request, &events).await.unwrap_err();
    assert_eq!((error.exit, error.code), (Exit::Refused, "unexpected-revision"));
}
