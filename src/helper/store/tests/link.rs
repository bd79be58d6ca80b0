//! Links into a release.

use super::*;

#[test]
fn links_lead_to_shared_and_to_the_cache_and_making_them_again_changes_nothing() {
    let host = Host::new();
    let cache = tempfile::tempdir().unwrap();
    host.push("r1", &tree(&[("a", "1")]));
    std::fs::create_dir(host.path("shared/etc")).unwrap();
    std::fs::write(host.path("shared/etc/site.cfg"), "secret").unwrap();
    let mut links = links("r1", &["var", "media/user"], &["etc/site.cfg"]);
    links.cache = Some(CacheLink { link: "downloads".into(), target: cache.path().to_str().unwrap().into() });
    for _ in 0..2 {
        link(&host.root, &host.memory, &links).unwrap();
        assert_eq!(std::fs::read_link(host.in_release("r1", "var")).unwrap().to_str(), Some("../../shared/var"));
        assert_eq!(std::fs::read_link(host.in_release("r1", "media/user")).unwrap().to_str(), Some("../../../shared/media/user"));
        assert_eq!(std::fs::read(host.in_release("r1", "etc/site.cfg")).unwrap(), b"secret");
        assert_eq!(std::fs::read_link(host.in_release("r1", "downloads")).unwrap(), cache.path());
        assert_eq!(host.in_release("r1", "media/user").canonicalize().unwrap(), host.path("shared/media/user").canonicalize().unwrap());
    }
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    assert_eq!(host.differences("r1"), []);
    std::fs::remove_file(host.in_release("r1", "var")).unwrap();
    assert_eq!(host.differences("r1"), [("var".to_owned(), DifferenceKind::Missing)]);
}

#[test]
fn all_missing_shared_files_are_named_at_once() {
    let host = Host::new();
    host.push("r1", &tree(&[("a", "1")]));
    let failure = link(&host.root, &host.memory, &links("r1", &["var"], &["one.cfg", "etc/two.cfg"])).unwrap_err();
    assert_eq!(failure.code, Code::SharedMissing);
    assert!(failure.message.contains("`shared/one.cfg`, `shared/etc/two.cfg`"), "{}", failure.message);
    assert!(!host.in_release("r1", "var").exists());
}

#[test]
fn a_path_in_the_way_of_a_link_is_told_and_replaced_only_when_asked() {
    let host = Host::new();
    host.push("r1", &tree(&[("a", "1"), ("var/keep", ""), ("var/log/x", "2")]));
    let mut wanted = links("r1", &["var"], &[]);
    let failure = link(&host.root, &host.memory, &wanted).unwrap_err();
    assert_eq!(failure.code, Code::PathInTheWay);
    assert_eq!(failure.message, "`releases/r1/var` is a directory that the revision tracks, where a link must go");
    std::fs::create_dir(host.in_release("r1", "made")).unwrap();
    let failure = link(&host.root, &host.memory, &links("r1", &["made"], &[])).unwrap_err();
    assert!(failure.message.contains("does not track"), "{}", failure.message);
    std::fs::remove_dir(host.in_release("r1", "made")).unwrap();
    wanted.replace = true;
    link(&host.root, &host.memory, &wanted).unwrap();
    assert!(host.in_release("r1", "var").is_symlink());
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    assert_eq!(host.differences("r1"), []);
}

#[test]
fn a_link_is_not_made_through_a_tracked_link() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    let target: &'static str = Box::leak(outside.path().to_str().unwrap().to_owned().into_boxed_str());
    let mut tree = tree(&[("a", "1")]);
    tree.insert(b"way".to_vec(), What::Link(target));
    host.push("r1", &tree);
    assert!(link(&host.root, &host.memory, &links("r1", &["way/var"], &[])).is_err());
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
}

#[test]
fn a_cache_that_is_missing_or_no_directory_is_told_before_anything_is_linked() {
    let host = Host::new();
    host.push("r1", &tree(&[("a", "1")]));
    std::fs::write(host.path("file"), "").unwrap();
    for (target, cause) in [
        (host.path("nowhere").to_str().unwrap().to_owned(), "does not exist"),
        (host.path("file").to_str().unwrap().to_owned(), "not a directory"),
        ("cache".to_owned(), "not an absolute path"),
    ] {
        let mut links = links("r1", &["var"], &[]);
        links.cache = Some(CacheLink { link: "downloads".into(), target });
        let failure = link(&host.root, &host.memory, &links).unwrap_err();
        assert_eq!((failure.code, failure.message.contains(cause)), (Code::CacheMissing, true), "{}", failure.message);
        assert!(!host.in_release("r1", "var").is_symlink());
    }
}

#[test]
fn a_shared_directory_and_shared_itself_may_be_links_to_another_disk() {
    let (host, disk) = (Host::new(), tempfile::tempdir().unwrap());
    for name in ["all", "all/media", "media"] {
        std::fs::create_dir(disk.path().join(name)).unwrap();
    }
    std::fs::write(disk.path().join("all/site.cfg"), "secret").unwrap();
    host.push("r1", &tree(&[("a", "1")]));
    symlink(disk.path().join("media"), host.path("shared/media")).unwrap();
    link(&host.root, &host.memory, &links("r1", &["media"], &[])).unwrap();
    std::fs::write(host.in_release("r1", "media/x"), "x").unwrap();
    assert!(disk.path().join("media/x").exists());

    std::fs::remove_file(host.path("shared/media")).unwrap();
    std::fs::remove_dir(host.path("shared")).unwrap();
    symlink(disk.path().join("all"), host.path("shared")).unwrap();
    host.root.ensure_control().unwrap();
    host.push("r2", &tree(&[("a", "1")]));
    link(&host.root, &host.memory, &links("r2", &["media", "made"], &["site.cfg"])).unwrap();
    assert_eq!(std::fs::read(host.in_release("r2", "site.cfg")).unwrap(), b"secret");
    assert!(disk.path().join("all/made").is_dir());

    // Between the two, programs write: a link there is not followed.
    symlink(disk.path(), disk.path().join("all/way")).unwrap();
    assert!(link(&host.root, &host.memory, &links("r2", &["way/made"], &[])).is_err());
    assert!(!disk.path().join("made").exists());
    // A link that leads nowhere is told, not filled.
    symlink(disk.path().join("nowhere"), disk.path().join("all/lost")).unwrap();
    assert!(link(&host.root, &host.memory, &links("r2", &["lost"], &[])).is_err());
}
