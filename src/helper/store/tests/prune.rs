//! Retention, and the records it stands on.

use super::*;

fn retire(host: &Host, names: &[&str]) {
    for name in names {
        host.deploy(name, &tree(&[("a", name)]));
        host.set(name, |record| record.state = State::Retired);
    }
}

#[test]
fn pruning_keeps_the_newest_good_ones_the_live_one_and_its_rollback_target() {
    let host = Host::new();
    retire(&host, &["r1", "r2", "r3", "r4", "r5", "r6"]);
    std::fs::create_dir(host.path("releases/capistrano")).unwrap();
    host.root.dir.replace_link(b"releases/r3", "current").unwrap();
    host.set("r3", |record| {
        record.state = State::Confirmed;
        record.previous = Some(id("r1"));
    });
    for name in ["r7", "r8"] {
        host.begin(name, &tree(&[("b", name)])).unwrap();
    }
    let (removed, kept) = prune(&host.root, 2, None).unwrap();
    assert_eq!(removed, ["r2", "r4", "r7"].map(id));
    assert_eq!(kept, ["r1", "r3", "r5", "r6", "r8"].map(id));
    assert_eq!(host.names("releases"), ["capistrano", "r1", "r3", "r5", "r6", "r8"]);
    assert_eq!(host.names(".deployer/rel").len(), 5);
    assert_eq!(host.names(".deployer/manifest").len(), 5);
    assert!(host.names(".deployer/trash").is_empty());
    assert_eq!(prune(&host.root, 0, None).unwrap().0, ["r5", "r6"].map(id));
}

#[test]
fn one_release_is_removed_by_name_but_never_the_live_one_or_its_rollback_target() {
    let host = Host::new();
    retire(&host, &["r1", "r2", "r3"]);
    host.set("r2", |record| record.previous = Some(id("r1")));
    // As another tool writes it: absolute.
    symlink(host.path("releases/r2"), host.path("current")).unwrap();
    for name in ["r2", "r1"] {
        assert_eq!(prune(&host.root, 5, Some(&id(name))).unwrap_err().code, Code::Refused, "{name}");
    }
    assert_eq!(prune(&host.root, 5, Some(&id("r9"))).unwrap_err().code, Code::NotFound);
    assert_eq!(prune(&host.root, 5, Some(&id("r3"))).unwrap(), (vec![id("r3")], vec![id("r1"), id("r2")]));
    assert_eq!(host.names("releases"), ["r1", "r2"]);
}

#[test]
fn a_current_that_leads_to_a_release_in_an_unusual_way_protects_it_or_stops_the_pruning() {
    let host = Host::new();
    retire(&host, &["r1", "r2", "r3"]);
    host.set("r2", |record| record.previous = Some(id("r1")));
    let current = host.path("current");
    symlink("./releases/r2/", &current).unwrap();
    for name in ["r2", "r1"] {
        assert_eq!(prune(&host.root, 5, Some(&id(name))).unwrap_err().code, Code::Refused, "{name}");
    }
    assert_eq!(prune(&host.root, 0, None).unwrap().0, [id("r3")]);
    symlink("releases/r2", host.path("stage")).unwrap();
    for target in ["releases/r2/public", "stage"] {
        std::fs::remove_file(&current).unwrap();
        symlink(target, &current).unwrap();
        assert_eq!(prune(&host.root, 0, None).unwrap_err().code, Code::Refused, "{target}");
    }
    std::fs::remove_file(&current).unwrap();
    std::fs::create_dir(&current).unwrap();
    assert_eq!(prune(&host.root, 0, Some(&id("r1"))).unwrap_err().code, Code::CurrentIsDirectory);
    assert_eq!(host.names("releases"), ["r1", "r2"]);
}

#[test]
fn nothing_is_pruned_beside_a_record_that_cannot_be_read() {
    let host = Host::new();
    retire(&host, &["r1", "r2", "r3"]);
    host.root.dir.replace_link(b"releases/r3", "current").unwrap();
    host.set("r3", |record| record.previous = Some(id("r1")));
    std::fs::write(host.path(".deployer/rel/r3.json"), "{ torn").unwrap();
    for only in [None, Some(id("r1"))] {
        let refused = prune(&host.root, 0, only.as_ref()).unwrap_err();
        assert_eq!(refused.code, Code::Refused);
        assert!(refused.message.contains("rel/r3.json"), "{}", refused.message);
    }
    assert_eq!(host.names("releases"), ["r1", "r2", "r3"]);
}

#[test]
fn a_release_that_a_process_runs_in_is_not_pruned_until_it_ends() {
    let host = Host::new();
    retire(&host, &["r1", "r2", "r3"]);
    let mut child =
        std::process::Command::new("cat").current_dir(host.path("releases/r1")).stdin(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(prune(&host.root, 1, None).unwrap().0, [id("r2")]);
    assert_eq!(prune(&host.root, 1, Some(&id("r1"))).unwrap_err().code, Code::Refused);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(prune(&host.root, 1, None).unwrap().0, [id("r1")]);
}

#[test]
fn pruning_goes_on_where_a_crash_left_it() {
    let host = Host::new();
    retire(&host, &["r1", "r2"]);
    // A crash after the rename into the trash: the record is there, its files are not.
    host.set("r1", |record| record.state = State::Failed);
    host.root.dir.trash("releases/r1").unwrap();
    assert_eq!(prune(&host.root, 1, Some(&id("r1"))).unwrap().0, [id("r1")]);
    assert!(host.names(".deployer/trash").is_empty());
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_hides_no_other() {
    let host = Host::new();
    retire(&host, &["r1", "r2"]);
    std::fs::write(host.path(".deployer/rel/r1.json"), "{ torn").unwrap();
    std::fs::write(host.path(".deployer/rel/r9.json"), std::fs::read(host.path(".deployer/rel/r2.json")).unwrap()).unwrap();
    let scan = records::scan(&host.root).unwrap();
    assert_eq!(scan.records.iter().map(|record| record.release.id.as_str()).collect::<Vec<_>>(), ["r2"]);
    assert_eq!(scan.unreadable.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["r1.json", "r9.json"]);
    assert_eq!(scan.newer_format, None);
    std::fs::write(host.path(".deployer/rel/r3.json"), r#"{"format": 7, "what": "comes"}"#).unwrap();
    assert_eq!(records::scan(&host.root).unwrap().newer_format, Some(7));
    let before = host.names("releases");
    assert_eq!(host.begin("r4", &tree(&[("a", "1")])).unwrap_err().code, Code::NewerFormat);
    assert_eq!(host.names("releases"), before);
}
