//! A built release read for other hosts: what of it travels, what does not, and what is refused.

use std::io::Read;

use super::*;
use crate::op::Captured;
use crate::release::Origin;

/// A sealed release of `a` and `src/b`, in which a build changed `a` and made a script, a link, a private file and empty directories.
fn built(host: &Host) -> Tree {
    let tree = tree(&[("a", "alpha"), ("src/b", "beta")]);
    host.push("r1", &tree);
    std::fs::create_dir(host.path("shared/var")).unwrap();
    link(&host.root, &host.memory, &links("r1", &["var"], &[])).unwrap();
    host.set("r1", |record| record.state = State::Building);
    let at = |rel: &str| host.in_release("r1", rel);
    std::fs::write(at("a"), "alpha!").unwrap();
    std::fs::create_dir_all(at("bin")).unwrap();
    std::fs::write(at("bin/run"), format!("#!{0}/tool\nsys.path[0:0] = ['{0}/gone']\n", host.root.path)).unwrap();
    std::fs::set_permissions(at("bin/run"), Permissions::from_mode(0o775)).unwrap();
    std::fs::write(host.path("tool"), "").unwrap();
    symlink("../src/b", at("bin/b")).unwrap();
    symlink("../var/data", at("bin/data")).unwrap();
    std::fs::write(host.path("shared/var/data"), "").unwrap();
    std::fs::create_dir_all(at("empty/inner")).unwrap();
    std::fs::write(at("key"), "secret").unwrap();
    std::fs::set_permissions(at("key"), Permissions::from_mode(0o600)).unwrap();
    std::fs::create_dir(at("closed")).unwrap();
    std::fs::write(at("closed/x"), "x").unwrap();
    std::fs::set_permissions(at("closed"), Permissions::from_mode(0o700)).unwrap();
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    tree
}

fn read(host: &Host, name: &str) -> (Manifest, Captured) {
    let (packed, captured) = capture(&host.root, &id(name), &|| false).unwrap();
    let bytes = zstd::decode_all(&*packed).unwrap();
    assert_eq!(bytes.len() as u64, captured.size);
    (Manifest::decode(&bytes).unwrap(), captured)
}

fn fetched(host: &Host, name: &str, manifest: &Manifest) -> Tree {
    let paths: Vec<TreePath> =
        manifest.entries().iter().filter(|entry| matches!(entry.kind, Kind::File { .. })).map(|entry| entry.path.clone()).collect();
    let mut packed = Vec::new();
    give(&host.root, &id(name), &paths, &mut packed).unwrap();
    let mut stream = zstd::Decoder::new(&*packed).unwrap();
    let mut files = Tree::new();
    for path in paths {
        let Some(Kind::File { mode, digest, .. }) = manifest.find(path.as_bytes()) else { panic!("{path}") };
        let mut length = [0; 8];
        stream.read_exact(&mut length).unwrap();
        let mut content = vec![0; usize::try_from(u64::from_le_bytes(length)).unwrap()];
        stream.read_exact(&mut content).unwrap();
        assert_eq!(Digest::of(&content), *digest, "{path}");
        files.insert(path.as_bytes().to_vec(), What::File(content, *mode));
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    files
}

#[test]
fn a_built_release_is_read_with_what_its_build_made_and_without_what_every_host_makes_itself() {
    let host = Host::new();
    built(&host);
    std::fs::write(host.in_release("r1", "late.pyc"), "").unwrap();
    let (manifest, captured) = read(&host, "r1");
    let listed: Vec<(String, Option<u32>)> = manifest
        .entries()
        .iter()
        .map(|entry| (entry.path.to_string(), if let Kind::File { mode, .. } = entry.kind { Some(mode) } else { None }))
        .collect();
    let expected = [
        ("a", Some(0o644)),
        ("bin/b", None),
        ("bin/data", None),
        ("bin/run", Some(0o755)),
        ("closed/x", Some(0o600)),
        ("empty/inner", None),
        ("key", Some(0o600)),
        ("src/b", Some(0o644)),
    ];
    assert_eq!(listed, expected.map(|(path, mode)| (path.to_owned(), mode)));
    assert_eq!(captured.links, [TreePath::new("var").unwrap()]);
    assert_eq!((captured.late, captured.late_names), (1, vec![b"late.pyc".to_vec()]));
    let outside: Vec<(String, String)> = captured.outside.iter().map(|outside| (outside.path.clone(), outside.from.to_string())).collect();
    assert_eq!(outside, [("shared/var/data", "bin/data"), ("tool", "bin/run")].map(|(path, from)| (path.to_owned(), from.to_owned())));
    let files = fetched(&host, "r1", &manifest);
    assert!(matches!(&files[&b"a"[..]], What::File(content, _) if content == b"alpha!"));
}

#[test]
fn what_was_read_on_one_host_is_the_same_release_on_another_and_is_read_whole_before_it_goes_live() {
    let (first, second) = (Host::new(), Host::new());
    let source = built(&first);
    let (manifest, _) = read(&first, "r1");
    let files = fetched(&first, "r1", &manifest);
    let encoded = manifest.encode();
    let origin = Origin { tree: manifest.tree_digest(), host: "app01".into(), environment: None };
    let sent = NewRelease { manifest: manifest.manifest_digest(), origin: Some(origin), ..release("r1", &source) };
    let request = Begin { release: sent, source: ManifestSource::Whole { size: encoded.len() as u64 }, group: None };
    let begun = super::super::begin(&second.root, &second.memory, &request, None, &*zstd::encode_all(&*encoded, 1).unwrap()).unwrap();
    let mut bytes = Vec::new();
    for index in begun.missing.iter().flat_map(|(first, count)| *first..first + count) {
        let What::File(content, _) = &files[manifest.entries()[index as usize].path.as_bytes()] else { panic!("only files are missing") };
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(content);
    }
    assert_eq!(second.send_bytes("r1", bytes.len(), &bytes).unwrap().missing, []);
    std::fs::create_dir(second.path("shared/var")).unwrap();
    link(&second.root, &second.memory, &links("r1", &["var"], &[])).unwrap();
    seal(&second.root, &second.memory, &id("r1"), false).unwrap();
    assert_eq!(read(&second, "r1").0, manifest);

    let record = record(&second.root, &id("r1")).unwrap();
    let now = record.sealed.unwrap();
    assert_eq!(altered(&second.root, &record, now).unwrap(), []);
    // A medium that rots leaves no trace but in the bytes: here, a stamp that was forged.
    let mut stored = stored::load(&second.root, &id("r1")).unwrap();
    let index = manifest.entries().iter().position(|entry| entry.path.as_bytes() == b"src/b").unwrap();
    std::fs::write(second.in_release("r1", "src/b"), "BETA").unwrap();
    let stat = second.root.dir.stat(b"releases/r1/src/b").unwrap();
    stored.ledger.proofs[index] = Proof::Verified(stored::Stamp::from(&stat));
    stored.save(&second.root, &id("r1")).unwrap();
    assert_eq!(altered(&second.root, &record, now).unwrap().len(), 1);
}

#[test]
fn a_release_that_was_changed_since_its_seal_is_not_given_to_others() {
    for (harm, named) in [
        (Box::new(|host: &Host| std::fs::write(host.in_release("r1", "src/b"), "BETA").unwrap()) as Box<dyn Fn(&Host)>, "`src/b`"),
        (Box::new(|host| std::fs::write(host.in_release("r1", "bin/run"), "#!/bin/sh\n").unwrap()), "`bin/run`"),
        (Box::new(|host| std::fs::write(host.in_release("r1", "a"), "alpha?").unwrap()), "`a`"),
        (Box::new(|host| std::fs::remove_file(host.in_release("r1", "key")).unwrap()), "`key`"),
        (
            Box::new(|host| {
                std::fs::remove_file(host.in_release("r1", "bin/b")).unwrap();
                symlink("/etc/passwd", host.in_release("r1", "bin/b")).unwrap();
            }),
            "`bin/b`",
        ),
    ] {
        let host = Host::new();
        built(&host);
        harm(&host);
        let failure = capture(&host.root, &id("r1"), &|| false).unwrap_err();
        assert_eq!(failure.code, Code::Corrupt, "{failure}");
        assert!(failure.message.contains(named), "{failure}");
    }
}

#[test]
fn nothing_is_read_of_a_release_that_is_not_whole_nor_through_a_link_out_of_it() {
    let host = Host::new();
    host.push("r1", &tree(&[("a", "alpha")]));
    assert_eq!(capture(&host.root, &id("r1"), &|| false).unwrap_err().code, Code::NotSealed);
    let path = |path: &str| [TreePath::new(path).unwrap()];
    assert_eq!(give(&host.root, &id("r1"), &path("a"), Vec::new()).unwrap_err().code, Code::NotSealed);
    seal(&host.root, &host.memory, &id("r1"), false).unwrap();
    symlink("/etc", host.in_release("r1", "etc")).unwrap();
    assert_eq!(give(&host.root, &id("r1"), &path("etc/passwd"), Vec::new()).unwrap_err().code, Code::NotDirectory);
    assert_eq!(capture(&host.root, &id("r1"), &|| true).unwrap_err().code, Code::Stopped);
}
