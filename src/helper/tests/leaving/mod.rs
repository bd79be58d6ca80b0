//! Taking over what another tool deployed, where it is, and taking `.deployer` away again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command as Process;

use crate::client::*;
use crate::op::*;
use crate::release::State;

const COMMIT: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678";

/// A tree that Capistrano left: three releases, the second of which was rolled back from, and one that it never finished.
fn capistrano(root: &Path) {
    for name in ["20261120061200", "20261121061200", "20261122061200", "20261123061200"] {
        let release = root.join("releases").join(name);
        fs::create_dir_all(release.join("config")).unwrap();
        fs::write(release.join("app"), format!("{name}\n")).unwrap();
        fs::write(release.join("config/site.rb"), "same\n").unwrap();
        symlink("/srv/shared/log", release.join("log")).unwrap();
        fs::write(release.join("REVISION"), format!("{COMMIT}\n")).unwrap();
    }
    fs::create_dir_all(root.join("shared/log")).unwrap();
    let line = |name: &str| format!("Branch master (at a1b2c3d) deployed as release {name} by ada\n");
    let log = format!(
        "{}{}{}ada rolled back to release 20261121061200\n",
        line("20261120061200"),
        line("20261121061200"),
        line("20261122061200")
    );
    fs::write(root.join("revisions.log"), log).unwrap();
    symlink(root.join("releases/20261121061200"), root.join("current")).unwrap();
}

fn wanted(check: bool) -> Op {
    Op::Adopt(Adopt { project: "app".into(), environment: "test".into(), run: "run1".into(), by: "ada@laptop".into(), check })
}

fn adopted(client: &mut Client, check: bool) -> Adopted {
    match client.well(wanted(check)) {
        Answer::Adopted(adopted) => adopted,
        other => panic!("{other:?}"),
    }
}

fn everything(root: &Path) -> String {
    let output = Process::new("find").arg(root).args(["-printf", "%P %y %l %T@ %s %i\\n"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_capistrano_left_is_taken_over_where_it_is() {
    let (_directory, root) = root();
    capistrano(&root);
    let before = everything(&root);
    let mut client = Client::start(&root);
    assert_eq!(client.refused(wanted(false)).code, Code::NotLocked);
    let told = adopted(&mut client, true);
    assert_eq!(everything(&root), before, "looking changes nothing");
    assert!(matches!(client.lock("run1"), Locked::Yes { .. }));
    let done = adopted(&mut client, false);
    assert_eq!(done, told, "what is done is what was told");
    assert_eq!(
        done.done,
        [
            "record releases/20261120061200",
            "record the live releases/20261121061200",
            "record releases/20261122061200",
            &format!("make `current` relative: {}/releases/20261121061200 -> releases/20261121061200", root.display()),
        ]
    );
    assert_eq!(done.left, ["releases/20261123061200 is in no log of deploys: whether it is whole is not known"]);
    assert_eq!(live(&root).as_deref(), Some("releases/20261121061200"));
    let record = client.record("20261121061200");
    assert_eq!(
        (record.state, record.release.commit.as_deref(), record.previous),
        (State::Confirmed, Some(COMMIT), Some(id("20261120061200")))
    );
    assert_eq!(client.record("20261122061200").state, State::Retired);
    assert_eq!(client.well(Op::Verify { release: id("20261121061200") }), Answer::Verified { differences: Vec::new(), files: 3 });
    assert_eq!(adopted(&mut client, false).done, Vec::<String>::new(), "there is nothing left to take over");
    let after = everything(&root);
    for line in before.lines().filter(|line| line.starts_with("releases/") || line.starts_with("shared")) {
        assert!(after.lines().any(|other| other == line), "{line} was changed");
    }
}

#[test]
fn an_adopted_release_is_one_to_return_to_and_to_copy_from() {
    let (_directory, root) = root();
    capistrano(&root);
    let (mut client, _) = Client::locked(&root, "run1");
    adopted(&mut client, false);
    client.sealed("b", "run1");
    let failing =
        Check { probe: Probe::Run(shell("exit 1")), retries: 1, every_ms: 1, successes: 1, timeout_ms: 5000, stay_up_ms: 0, unit: None };
    client.activate(Activate { check: Some(failing), ..activation("b", Some("20261121061200")) });
    let Answer::Activated(back) = client.well(Op::Revert { release: id("b"), reason: "sick".into(), bad: true }) else { panic!() };
    assert_eq!((back.to, live(&root).as_deref()), (Some(id("20261121061200")), Some("releases/20261121061200")));
    assert_eq!(restarts(&root), "b b", "the command of the new release serves for what has none of its own");
    // A return to a release that was live before, as `rollback` makes it.
    let target = Activate { rollback: true, ..activation("20261120061200", Some("20261121061200")) };
    assert!(matches!(client.activate(target).outcome, ActivationOutcome::Well { .. }));
    client.well(Op::Confirm { release: id("20261120061200") });
    assert_eq!(live(&root).as_deref(), Some("releases/20261120061200"));
}

#[test]
fn a_name_that_cannot_be_an_id_is_refused_and_told() {
    let (_directory, root) = root();
    fs::create_dir_all(root.join("releases/my release")).unwrap();
    symlink("releases/my release", root.join("current")).unwrap();
    let mut client = Client::start(&root);
    let refused = client.refused(wanted(true));
    assert!(refused.code == Code::Refused && refused.message.contains("`my release`"), "{refused:?}");
    fs::remove_file(root.join("current")).unwrap();
    assert!(adopted(&mut client, true).left[0].contains("nothing is live"));
    fs::create_dir(root.join("current")).unwrap();
    assert_eq!(client.refused(wanted(true)).code, Code::CurrentIsDirectory);
}

#[test]
fn what_deployer_for_php_left_is_taken_over_but_for_what_it_marked() {
    let (_directory, root) = root();
    fs::create_dir_all(root.join(".dep")).unwrap();
    let mut log = String::new();
    for name in ["10", "11", "12"] {
        fs::create_dir_all(root.join("releases").join(name)).unwrap();
        fs::write(root.join("releases").join(name).join("index.php"), name).unwrap();
        let line = serde_json::json!({ "created_at": "2026-11-20T06:12:00+0000", "release_name": name, "user": "ada", "target": "master" });
        log.extend([line.to_string(), "\n".to_owned()]);
    }
    fs::write(root.join(".dep/releases_log"), log).unwrap();
    fs::write(root.join("releases/11/BAD_RELEASE"), "").unwrap();
    symlink("releases/12", root.join("current")).unwrap();
    let (mut client, _) = Client::locked(&root, "run1");
    let done = adopted(&mut client, false);
    assert_eq!(done.done, ["record releases/10", "record the live releases/12"]);
    assert_eq!(done.left, ["releases/11 is marked as bad"]);
    assert_eq!(client.record("12").release.reference.as_deref(), Some("master"));
}

#[test]
fn what_is_taken_away_leaves_a_tree_that_serves_and_that_can_be_begun_anew() {
    let (_directory, root) = root();
    let (mut client, _) = Client::locked(&root, "run1");
    client.deployed("a", "run1", None);
    client.upload("half", "run1", "half");
    client.well(Op::Fail { release: id("half"), reason: "the build failed".into() });
    let mut other = Client::start(&root);
    assert_eq!(other.refused(Op::Remove).code, Code::NotLocked);
    client.sealed("b", "run1");
    client.activate(activation("b", Some("a")));
    assert_eq!(client.refused(Op::Remove).code, Code::Refused, "what is live is not settled");
    client.well(Op::Confirm { release: id("b") });
    assert_eq!(client.well(Op::Remove), Answer::Done);
    assert_eq!(client.well(Op::Unlock), Answer::Done);
    assert_eq!(fs::read_to_string(root.join("current/app")).unwrap(), "b");
    let mut names: Vec<String> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["current", "releases", "restarts", "revisions.log", "shared"]);
    let mut releases: Vec<String> =
        fs::read_dir(root.join("releases")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    releases.sort();
    assert_eq!(releases, ["a", "b"], "what no build had finished is no release to anybody");
    assert_eq!(Client::start(&root).facts.root, RootState::Bare);
    let (mut again, _) = Client::locked(&root, "run2");
    assert_eq!(adopted(&mut again, false).done, ["record releases/a", "record the live releases/b"]);
}
