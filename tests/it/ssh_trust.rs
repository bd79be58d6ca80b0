//! Host keys: strict, recorded by `hosts trust`, pinned in deploy.toml, accepted at first use; each in both ssh sessions.

use std::fs;

use deployer::sandbox::skip;

use crate::ssh_lab::{BOTH, Lab};

/// A lab whose `known_hosts` is empty.
fn stranger() -> Option<(Lab, std::path::PathBuf)> {
    let lab = Lab::with(&["app"])?;
    fs::write(lab.sandbox.known_hosts(), "").unwrap();
    let config = lab.config("");
    Some((lab, config))
}

fn own(lab: &Lab) -> String {
    fs::read_to_string(lab.path("state/deployer/known_hosts")).unwrap_or_default()
}

#[test]
fn an_unknown_key_is_told_by_its_fingerprint_and_trusted_by_it() {
    let Some((lab, config)) = stranger() else { return };
    let fingerprint = lab.fingerprint_of("app");
    for session in BOTH {
        let ran = lab.reach(session, &config, &["--json"]).unreachable(session);
        assert!(ran.stdout.contains("\"code\":\"host-key\""), "{session}: {}", ran.stdout);
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.stderr.contains(&fingerprint) && ran.stderr.contains("deployer hosts trust app"), "{session}: {}", ran.stderr);
    }
    for (arguments, code) in [
        (vec!["hosts", "trust", "app"], 2),
        (vec!["hosts", "trust", "app", "--yes"], 2),
        (vec!["hosts", "trust", "app", "--yes", "--fingerprint", "SHA256:AAAA"], 10),
        (vec!["hosts", "trust", "nobody.invalid", "--yes", "--fingerprint", "SHA256:AAAA"], 10),
    ] {
        let ran = lab.deployer(&config, &arguments);
        assert_eq!((ran.code, own(&lab).as_str()), (code, ""), "{arguments:?}: {}", ran.all());
    }
    let ran = lab.deployer(&config, &["hosts", "trust", "app", "--yes", "--fingerprint", &fingerprint]).succeeded("trust");
    assert!(ran.stdout.contains(&fingerprint) && ran.stdout.contains("state/deployer/known_hosts"), "{}", ran.stdout);
    assert_eq!(own(&lab), format!("{} {}\n", lab.lookup("app"), lab.key_of("app")));
    for session in BOTH {
        lab.reach(session, &config, &[]).succeeded(session);
    }
    let ran = lab.deployer(&config, &["hosts", "trust", "app"]).succeeded("again");
    assert!(ran.stdout.contains("known by this key already"));
    assert_eq!(fs::read_to_string(lab.sandbox.known_hosts()).unwrap(), "", "the user's file is never written");
}

#[test]
fn a_changed_key_stops_the_host_until_it_is_trusted_anew() {
    let Some((lab, config)) = stranger() else { return };
    let trust = |lab: &Lab| {
        let fingerprint = lab.fingerprint_of("app");
        lab.deployer(&config, &["hosts", "trust", "app", "--yes", "--fingerprint", &fingerprint])
    };
    trust(&lab).succeeded("first");
    for name in ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"] {
        fs::remove_file(lab.host("app").host_key().with_file_name(name)).unwrap();
    }
    // Of another type: that too is another key.
    let relative = lab.host("app").host_key().strip_prefix(&lab.sandbox.directory).unwrap().to_owned();
    lab.keygen(relative.to_str().unwrap(), &["-t", "ecdsa"]);
    lab.host("app").restart().unwrap();
    for session in BOTH {
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(
            ran.stderr.contains("not the known one") && ran.stderr.contains("state/deployer/known_hosts:1"),
            "{session}: {}",
            ran.stderr
        );
        assert!(ran.stderr.contains(&lab.fingerprint_of("app")), "{session}: {}", ran.stderr);
        assert!(ran.stderr.contains("deployer hosts trust app"), "{session}: {}", ran.stderr);
    }
    assert_eq!(lab.logins("app"), 0);
    trust(&lab).succeeded("anew");
    assert_eq!(own(&lab).lines().count(), 1, "the old key is forgotten");
    for session in BOTH {
        lab.reach(session, &config, &[]).succeeded(session);
    }
    // An old key in a file of the user's is not ours to remove.
    let other = fs::read_to_string(lab.keygen("other", &[]).with_extension("pub")).unwrap();
    fs::remove_file(lab.path("state/deployer/known_hosts")).unwrap();
    fs::write(lab.sandbox.known_hosts(), format!("{} {other}", lab.lookup("app"))).unwrap();
    let ran = trust(&lab).unreachable("the user's");
    assert!(ran.stderr.contains("ssh-keygen -R") && own(&lab).is_empty(), "{}", ran.stderr);
}

#[test]
fn a_revoked_key_is_refused_by_everything() {
    let Some((lab, config)) = stranger() else { return };
    let line = format!("{} {}\n", lab.lookup("app"), lab.key_of("app"));
    fs::write(lab.sandbox.known_hosts(), format!("{line}@revoked * {}\n", lab.key_of("app"))).unwrap();
    for session in ["ssh2", "openssh"] {
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.stderr.contains("revoked"), "{session}: {}", ran.stderr);
    }
    let ran = lab.deployer(&config, &["hosts", "trust", "app", "--yes", "--fingerprint", &lab.fingerprint_of("app")]).unreachable("trust");
    assert!(ran.stderr.contains("revoked") && own(&lab).is_empty(), "{}", ran.stderr);
}

#[test]
fn pinned_keys_are_the_only_ones_that_count() {
    let Some(lab) = Lab::with(&["bastion", "app"]) else { return };
    let config = lab.config("");
    let (app, bastion) = (lab.key_of("app"), lab.key_of("bastion"));
    let project = |keys: &str| {
        lab.project(&["app"], &format!("ssh = {{ host-keys = \"pinned\", jump = \"bastion\" }}\nhost-keys = {{ {keys} }}\n"));
    };
    for session in BOTH {
        project(&format!("app = \"{app}\", bastion = \"{bastion}\""));
        lab.reach(session, &config, &[]).succeeded(session);
        // Every key is in the user's known_hosts, which does not help.
        project(&format!("bastion = \"{bastion}\""));
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.stderr.contains("not among the pinned ones") && ran.stderr.contains(&format!("\"app\" = \"{app}\"")), "{}", ran.stderr);
        project(&format!("app = \"{app}\""));
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.stderr.contains(&format!("\"bastion\" = \"{bastion}\"")), "{session}: {}", ran.stderr);
        project(&format!("app = \"{bastion}\", bastion = \"{bastion}\""));
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.stderr.contains("`host-keys` of deploy.toml has another"), "{session}: {}", ran.stderr);
    }
    project("app = \"no key\"");
    assert_eq!(lab.deployer(&config, &["config", "check"]).code, 3);
}

#[test]
fn the_first_use_is_trusted_only_by_a_person() {
    let Some(lab) = Lab::with(&["bastion", "app"]) else { return };
    fs::write(lab.sandbox.known_hosts(), "").unwrap();
    lab.project(&["app"], "ssh = { jump = \"bastion\" }\n");
    let config = lab.config("");
    for session in BOTH {
        let ran = lab.reach(session, &config, &["--trust-first-use"]);
        assert!(ran.code == 2 && ran.stderr.contains("nobody to ask"), "{session}: {}", ran.all());
        let arguments = ["run", "--session", session, "--trust-first-use", "--", "true"];
        let question = "trust it from now on?";
        let Some((code, screen)) = lab.at_a_terminal(&config, &arguments, &[(question, "n")]) else { return };
        assert!(code == 10 && own(&lab).is_empty(), "{session}: {screen}");
        let (code, screen) = lab.at_a_terminal(&config, &arguments, &[(question, "y"), (question, "y")]).unwrap();
        assert_eq!(code, 0, "{session}: {screen}");
        assert!(screen.contains(&lab.fingerprint_of("app")) && screen.contains(&lab.fingerprint_of("bastion")), "{screen}");
        assert_eq!(own(&lab).lines().count(), 2);
        lab.reach(session, &config, &[]).succeeded(session);
        fs::remove_file(lab.path("state/deployer/known_hosts")).unwrap();
    }
}

#[test]
fn known_hosts_that_cannot_be_read_stop_the_host_and_no_other() {
    let Some(lab) = Lab::with(&["good", "bad"]) else { return };
    let unreadable = lab.path("unreadable");
    // A directory cannot be read by root either.
    fs::create_dir(&unreadable).unwrap();
    let config = lab.config(&format!("Host bad\nUserKnownHostsFile {}\n", unreadable.display()));
    for session in BOTH {
        let ran = lab.deployer(&config, &["run", "--session", session, "--", "echo", "reached"]).unreachable(session);
        assert!(ran.stdout.contains("reached") && ran.stdout.contains("good (1 host)"), "{session}: {}", ran.all());
        assert_eq!(lab.logins("bad"), 0, "{session}");
    }
    if rustix::process::geteuid().is_root() {
        skip("root reads files of mode 0 too");
        return;
    }
    let file = lab.path("mode0");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let config = lab.config(&format!("Host bad\nUserKnownHostsFile {} {}\n", file.display(), lab.sandbox.known_hosts().display()));
    let ran = lab.reach("ssh2", &config, &[]).unreachable("mode 0");
    assert!(ran.stderr.contains("known hosts cannot be read"), "{}", ran.stderr);
}
