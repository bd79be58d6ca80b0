//! Every host people have, as the ssh configuration describes it. What the issue asks for, and the test of it; each runs in both ssh
//! sessions unless the table says otherwise. (`s/` is `src/session/tests.rs`, `h/` is `tests/it/ssh_hostile.rs`, `t/` `tests/it/ssh_trust.rs`.)
//!
//! | Item | Test |
//! |---|---|
//! | `auto`, and why | `auto_takes_ssh2_unless_the_configuration_needs_ssh` |
//! | `ssh -G` remembered | `what_ssh_said_is_remembered_until_a_file_changes`, `ssh_config/printed.rs` |
//! | no `ssh` on the machine (ssh2) | `without_an_ssh_program_what_is_not_understood_is_refused` |
//! | HostName, User, Port | all; `a_user_of_a_domain_reaches_the_host_as_it_is` |
//! | several IdentityFiles | `the_second_of_two_identity_files_is_tried` |
//! | IdentitiesOnly, IdentityAgent | s/`an_agent_lets_a_key_with_a_passphrase_in` |
//! | encrypted keys: prompt once | `a_passphrase_is_asked_for_once_for_all_hosts` |
//! | encrypted keys: agent; no terminal | s/`an_agent_lets_a_key_with_a_passphrase_in`; s/`a_user_who_is_not_let_in_is_told_so` |
//! | user certificates | s/`certificates_of_host_and_user_work_beside_plain_keys` |
//! | ProxyJump, two hops | `two_hops_lead_to_the_host_whoever_names_them` |
//! | ProxyCommand | s/`a_proxy_command_and_a_jump_lead_to_the_host` |
//! | ConnectTimeout; a silent host | `a_silent_host_is_given_up_while_the_others_go_on` |
//! | ServerAliveInterval | `a_host_that_stops_answering_is_noticed_by_server_alive` |
//! | keyboard-interactive, asked once | `a_code_is_asked_for_once_for_all_hosts_behind_a_bastion` (with the password that `scripts/test` gives its user) |
//! | HostKeyAlias, several files, hashed, `[host]:port` | `a_key_is_found_under_an_alias_in_any_file_and_hashed`; s/`a_host_key_is_accepted_by_port_hash_and_wildcard` |
//! | `@cert-authority` (openssh; auto) | `a_host_certificate_is_checked_by_ssh` |
//! | FIDO keys (openssh; auto) | the choice only: `auto_takes_ssh2_unless_the_configuration_needs_ssh`; there is no token here |
//! | ControlMaster (openssh; auto) | `an_open_control_master_is_used_and_none_is_left_behind` |
//! | strict, unknown, changed, revoked, trust, pinned, first use | t/ |
//! | no payload before the key is accepted | h/`nothing_is_said_to_a_host_whose_key_is_not_accepted` |
//! | few starts at one door, retries | `fifty_hosts_behind_a_bastion_are_reached_with_max_startups`; `host/real_tests.rs` |
//! | hostile servers | h/ |
//! | what overrides the configuration; agent forwarding | `a_configuration_cannot_run_or_forward_anything`, `agent_forwarding_is_on_only_when_asked_for` |
//! | bad names | `names_that_ssh_could_act_on_are_refused_before_anything_starts` |
//! | known_hosts unreadable | t/`known_hosts_that_cannot_be_read_stop_the_host_and_no_other` |
//! | sudoers, rights | `the_rules_for_sudo_are_printed_exactly`, `setup_without_the_rights_prints_what_root_has_to_do` |

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use deployer::sandbox::skip;
use rustix::process::{Signal, kill_process};

use crate::ssh_lab::{BOTH, Ended, Lab};

fn session_of(lab: &Lab, config: &str) -> (String, String) {
    let ran = lab.deployer(&lab.config(config), &["hosts", "--json"]).succeeded(config);
    let list: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = |key: &str| list["hosts"][0][key].as_str().unwrap().to_owned();
    (text("session"), text("why"))
}

#[test]
fn auto_takes_ssh2_unless_the_configuration_needs_ssh() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let security_key = lab.path("id_sk");
    fs::write(&security_key, "").unwrap();
    fs::write(lab.path("id_sk.pub"), "sk-ssh-ed25519@openssh.com AAAA test\n").unwrap();
    let known = lab.path("known");
    let (name, key) = (lab.lookup("app"), lab.key_of("app"));
    let with_known = |text: &str| {
        fs::write(&known, text).unwrap();
        format!("Host app\nUserKnownHostsFile {}\n", known.display())
    };
    for (config, why) in [
        ("PKCS11Provider /usr/lib/token.so\n".to_owned(), "PKCS11Provider"),
        ("KnownHostsCommand /bin/echo %H\n".to_owned(), "KnownHostsCommand"),
        ("CanonicalizeHostname always\n".to_owned(), "CanonicalizeHostname"),
        ("RevokedHostKeys /etc/revoked\n".to_owned(), "revokedhostkeys"),
        ("Ciphers aes256-ctr\n".to_owned(), "ciphers"),
        ("BindAddress 127.0.0.1\n".to_owned(), "bindaddress"),
        (format!("IdentityFile {}\n", security_key.display()), "security key"),
        ("ProxyCommand nc %h %p %k\n".to_owned(), "%k"),
    ] {
        let (session, told) = session_of(&lab, &config);
        assert!(session == "openssh" && told.contains(why), "{config}: {session}, {told}");
    }
    for text in [format!("@cert-authority * {key}\n"), format!("@revoked * {key}\n"), format!("[127.0.0.*]:* {key}\n")] {
        let (session, told) = session_of(&lab, &with_known(&text));
        assert!(session == "openssh" && told.contains("known:1"), "{text}: {session}, {told}");
    }
    for config in [
        String::new(),
        "ConnectTimeout 3\nServerAliveInterval 5\nProxyCommand nc %h %p\n".to_owned(),
        with_known(&format!("{name} {key}\n")),
    ] {
        let (session, told) = session_of(&lab, &config);
        assert_eq!(session, "ssh2", "{config}: {told}");
    }
    let plain = lab.config("");
    let ran = lab.deployer(&plain, &["run", "-v", "--", "true"]).succeeded("-v");
    assert!(ran.stderr.contains("note: session ssh2: it does all that"), "{}", ran.stderr);
    let ran = lab.deployer(&plain, &["run", "--", "true"]).succeeded("quiet");
    assert!(!ran.stderr.contains("session"), "{}", ran.stderr);
}

#[test]
fn what_ssh_said_is_remembered_until_a_file_changes() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    // An `ssh` that counts how often it is asked.
    let (bin, count) = (lab.path("bin"), lab.path("count"));
    fs::create_dir(&bin).unwrap();
    let real = std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|path| path.join("ssh")).find(|path| path.is_file()).unwrap();
    fs::write(bin.join("ssh"), format!("#!/bin/sh\necho >>{}\nexec {} \"$@\"\n", count.display(), real.display())).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap()))).unwrap();
    let asked = |config: &str| {
        let _ = fs::remove_file(&count);
        let config = lab.config(config);
        let output = lab.command(env!("CARGO_BIN_EXE_deployer"), &config, &["hosts"]).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(&count).unwrap_or_default().lines().count()
    };
    assert_eq!(asked(""), 2, "once without a configuration, once for the host");
    assert_eq!(asked(""), 0);
    assert_eq!(asked("ConnectTimeout 4\n"), 1);
    assert_eq!(asked("Match exec true\nConnectTimeout 4\n"), 1);
    assert_eq!(asked("Match exec true\nConnectTimeout 4\n"), 1, "a command may say something else each time");
}

#[test]
fn without_an_ssh_program_what_is_not_understood_is_refused() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let empty = lab.path("empty");
    fs::create_dir(&empty).unwrap();
    let reach = |config: &str| {
        let config = lab.config(config);
        lab.command(env!("CARGO_BIN_EXE_deployer"), &config, &["run", "--", "true"]).env("PATH", &empty).output().unwrap()
    };
    // What the sandbox's own config sets is understood, but for what it uses to keep ssh quiet.
    let output = reach("");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (config, word) in [("Match user x\n", "`Match`"), ("ProxyJump other\n", "`proxyjump`"), ("Include */x\n", "`Include`")] {
        let output = reach(config);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(10), "{said}");
        assert!(said.contains(word) && said.contains("custom_config:1") && said.contains("no `ssh`"), "{said}");
    }
}

#[test]
fn a_user_of_a_domain_reaches_the_host_as_it_is() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    for session in BOTH {
        let ran = lab.reach(session, &lab.config(""), &["-u", r"CORP\ada"]).unreachable(session);
        assert!(ran.all().contains("CORP\\ada"), "{}", ran.all());
    }
    let log = fs::read_to_string(&lab.host("app").log).unwrap();
    assert_eq!(log.matches("nvalid user CORP\\\\ada").count().min(2), 2, "{log}");
}

#[test]
fn the_second_of_two_identity_files_is_tried() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let (wrong, right) = (lab.keygen("wrong", &[]), lab.keygen("right", &["-t", "ecdsa"]));
    fs::remove_file(lab.host("app").host_key().with_file_name("authorized_keys")).unwrap();
    fs::write(lab.host("app").host_key().with_file_name("authorized_keys"), "").unwrap();
    lab.authorize("app", &right);
    let config = |keys: &[&std::path::PathBuf]| {
        let lines: Vec<String> = keys.iter().map(|key| format!("IdentityFile {}\n", key.display())).collect();
        lab.config(&lines.concat())
    };
    for session in BOTH {
        lab.reach(session, &config(&[&wrong, &right]), &[]).succeeded(session);
        let ran = lab.reach(session, &config(&[&wrong]), &[]).unreachable(session);
        assert!(ran.all().contains("was not let in"), "{}", ran.all());
    }
}

#[test]
fn a_passphrase_is_asked_for_once_for_all_hosts() {
    let names = ["one", "two", "three"];
    let Some(lab) = Lab::with(&names) else { return };
    let locked = lab.keygen("locked", &["-N", "correct horse"]);
    for name in names {
        fs::write(lab.host(name).host_key().with_file_name("authorized_keys"), "").unwrap();
        lab.authorize(name, &locked);
    }
    let config = lab.config(&format!("IdentityFile {}\n", locked.display()));
    for session in BOTH {
        let arguments = ["run", "--session", session, "--", "echo", "reached"];
        let question = "passphrase of";
        let Some((code, screen)) = lab.at_a_terminal(&config, &arguments, &[(question, "wrong"), (question, "correct horse")]) else {
            return;
        };
        assert_eq!(code, 0, "{session}: {screen}");
        assert_eq!(screen.matches(question).count(), 2, "{session}: once, and again because it was wrong: {screen}");
        assert!(!screen.contains("horse") && screen.contains("reached"), "{session}: {screen}");
        // The control: without a terminal nobody is asked, and every host says why.
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.all().contains("has a passphrase") && ran.took < Duration::from_secs(20), "{session}: {}", ran.all());
    }
}

#[test]
fn two_hops_lead_to_the_host_whoever_names_them() {
    let Some(lab) = Lab::with(&["first", "second", "app"]) else { return };
    lab.project(&["app"], "");
    let configs =
        [("a list", "Host app\nProxyJump first,second\n"), ("each its own", "Host app\nProxyJump second\nHost second\nProxyJump first\n")];
    for session in BOTH {
        for (what, config) in configs {
            let before = (lab.logins("first"), lab.logins("second"), lab.logins("app"));
            lab.reach(session, &lab.config(config), &[]).succeeded(what);
            let after = (lab.logins("first"), lab.logins("second"), lab.logins("app"));
            assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 1), "{session}, {what}");
        }
        // `jump` of deploy.toml does the same without any ssh config.
        let before = lab.logins("second");
        lab.reach(session, &lab.config(""), &["--set", "ssh.jump=first,second"]).succeeded("ssh.jump");
        assert_eq!(lab.logins("second"), before + 1, "{session}");
        // A hop is held to strict keys as the host is, and is named.
        let config = lab.config("Host app\nProxyJump first,second\nHost second\nUserKnownHostsFile /dev/null\n");
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.all().contains("deployer hosts trust second") && ran.all().contains(&lab.fingerprint_of("second")), "{}", ran.all());
    }
}

#[test]
fn a_silent_host_is_given_up_while_the_others_go_on() {
    let Some(lab) = Lab::with(&["one", "two"]) else { return };
    lab.project(&["one", "silent", "two"], "");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!("Host silent\nHostName 127.0.0.1\nPort {}\nConnectTimeout 1\n", silent.local_addr().unwrap().port());
    for session in BOTH {
        let config = lab.config(&config);
        let ran = lab.deployer(&config, &["run", "--session", session, "--", "echo", "reached"]).unreachable(session);
        assert!(ran.stdout.contains("reached") && ran.stdout.contains("(2 hosts)"), "{session}: {}", ran.all());
        assert!(ran.all().contains("did not answer within 1 s"), "{session}: {}", ran.all());
        assert!(ran.took < Duration::from_secs(9), "{session}: {:?}", ran.took);
    }
}

#[test]
fn a_host_that_stops_answering_is_noticed_by_server_alive() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let config = lab.config("ServerAliveInterval 1\nServerAliveCountMax 1\n");
    for session in BOTH {
        let up = lab.path(&format!("up-{session}"));
        assert!(Command::new("mkfifo").arg(&up).status().unwrap().success());
        let script = format!("echo >{}; exec sleep 600", up.display());
        let began = std::time::Instant::now();
        let mut child =
            lab.command(env!("CARGO_BIN_EXE_deployer"), &config, &["run", "--session", session, "--", &script]).spawn().unwrap();
        fs::read(&up).unwrap();
        let stopped = lab.host("app").connections();
        for pid in &stopped {
            kill_process(*pid, Signal::STOP).unwrap();
        }
        let status = child.wait().unwrap();
        let took = began.elapsed();
        lab.host("app").cut();
        assert!(!stopped.is_empty() && !status.success(), "{session}");
        // By itself the protocol waits for twenty seconds.
        assert!(took < Duration::from_secs(15), "{session}: {took:?}");
    }
}

#[test]
fn a_key_is_found_under_an_alias_in_any_file_and_hashed() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let key = lab.key_of("app");
    fs::write(lab.path("empty"), "").unwrap();
    fs::write(lab.path("second"), format!("somebody-else {key}\nweb {key}\n")).unwrap();
    assert!(Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(lab.path("second")).output().unwrap().status.success());
    let files = format!("UserKnownHostsFile {} {}\n", lab.path("empty").display(), lab.path("second").display());
    for session in BOTH {
        lab.reach(session, &lab.config(&format!("{files}HostKeyAlias web\n")), &[]).succeeded(session);
        lab.reach(session, &lab.config(&format!("{files}HostKeyAlias other\n")), &[]).unreachable(session);
    }
}

#[test]
fn a_host_certificate_is_checked_by_ssh() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let (authority, stranger) = (lab.keygen("authority", &[]), lab.keygen("stranger", &[]));
    let host_key = lab.host("app").host_key();
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-h", "-I", "app", "-n", "127.0.0.1", "-s"]).arg(&authority).arg(host_key.with_extension("pub"));
    assert!(sign.status().unwrap().success());
    let certificate = host_key.with_file_name("ssh_host_ed25519_key-cert.pub");
    lab.host("app").set_config(&format!("HostCertificate {}", certificate.display())).unwrap();
    let known = |authority: &std::path::Path| {
        let key = fs::read_to_string(authority.with_extension("pub")).unwrap();
        fs::write(lab.path("known"), format!("@cert-authority * {key}")).unwrap();
        lab.config(&format!("UserKnownHostsFile {}\n", lab.path("known").display()))
    };
    let ran = lab.deployer(&known(&authority), &["run", "-v", "--", "true"]).succeeded("auto");
    assert!(ran.stderr.contains("session openssh"), "{}", ran.stderr);
    lab.deployer(&known(&stranger), &["run", "--", "true"]).unreachable("another authority");
    // A certificate does not make a host that is known by its plain key look changed.
    for session in BOTH {
        lab.reach(session, &lab.config(""), &[]).succeeded(session);
    }
}

#[test]
fn an_open_control_master_is_used_and_none_is_left_behind() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let socket = lab.path("master");
    let config = lab.config(&format!("ControlMaster auto\nControlPath {}\nControlPersist 60\n", socket.display()));
    lab.deployer(&config, &["run", "--session", "openssh", "--", "true"]).succeeded("without a master");
    assert!(!socket.exists(), "a master of deployer's stayed behind");
    let mut master = Command::new("ssh");
    master.arg("-F").arg(&config).args(["-M", "-N", "-o", "ControlPersist=no", "app"]).stdin(Stdio::null());
    let master = Ended(master.spawn().unwrap());
    let check = || Command::new("ssh").arg("-F").arg(&config).args(["-O", "check", "app"]).output().unwrap().status.success();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(std::time::Instant::now() < deadline, "the master does not listen");
        std::thread::yield_now();
    }
    let before = lab.logins("app");
    let ran = lab.deployer(&config, &["run", "-v", "--", "echo", "reached"]).succeeded("with a master");
    assert!(ran.stdout.contains("reached") && ran.stderr.contains("ControlMaster"), "{}", ran.all());
    assert_eq!(lab.logins("app"), before, "nobody logged in anew");
    drop(master);
    lab.deployer(&config, &["run", "--", "true"]).succeeded("after the master died");
}

#[test]
fn a_code_is_asked_for_once_for_all_hosts_behind_a_bastion() {
    let Ok(password) = std::env::var("DEPLOYER_TEST_PASSWORD") else {
        return skip("there is no DEPLOYER_TEST_PASSWORD of this user to log in with");
    };
    let Some(lab) = Lab::with(&["bastion", "one", "two", "three"]) else { return };
    // PAM lets whoever runs an sshd prove the own password to it.
    for name in ["one", "two", "three"] {
        let asking = "UsePAM yes\nKbdInteractiveAuthentication yes\nPubkeyAuthentication no\nAuthenticationMethods keyboard-interactive\n";
        lab.host(name).set_config(asking).unwrap();
    }
    lab.project(&["one", "two", "three"], "ssh = { jump = \"bastion\" }\n");
    let config = lab.config("");
    for session in BOTH {
        let arguments = ["run", "--session", session, "--", "echo", "reached"];
        let Some((code, screen)) = lab.at_a_terminal(&config, &arguments, &[("assword", &password)]) else { return };
        assert_eq!(code, 0, "{session}: {screen}");
        assert_eq!(screen.matches("assword").count(), 1, "{session}: once for all: {screen}");
        assert!(!screen.contains(&password) && screen.contains("reached"), "{session}: {screen}");
        // The control: without a terminal nobody is asked.
        let ran = lab.reach(session, &config, &[]).unreachable(session);
        assert!(ran.took < Duration::from_secs(20), "{session}: {}", ran.all());
    }
}

#[test]
fn fifty_hosts_behind_a_bastion_are_reached_with_max_startups() {
    let Some(lab) = Lab::with(&["bastion", "one", "two", "three"]) else { return };
    for name in ["bastion", "one", "two", "three"] {
        lab.host(name).set_config("MaxStartups 10:30:100").unwrap();
    }
    let names: Vec<String> = (1..=50).map(|number| format!("app{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    lab.project(&names, "ssh = { jump = \"bastion\" }\n");
    let mut entries = String::new();
    for (number, name) in names.iter().enumerate() {
        let behind = ["one", "two", "three"][number % 3];
        entries += &format!("Host {name}\nHostName 127.0.0.1\nPort {}\n", lab.host(behind).port);
    }
    let shared = format!(
        "Host app*\nUser {}\nIdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\n",
        lab.sandbox.user(),
        lab.sandbox.identity().display(),
        lab.sandbox.known_hosts().display()
    );
    let config = lab.config(&(entries + &shared));
    for session in BOTH {
        let before = lab.logins("bastion");
        let ran = lab.deployer(&config, &["run", "--session", session, "--connect-retries", "0", "--", "true"]).succeeded(session);
        assert!(ran.all().contains("50 ok"), "{session}: {}", ran.all());
        assert_eq!(lab.logins("bastion"), before + 50, "{session}");
    }
    // And the whole of a deploy: a directory, so that nothing but the way there is tried.
    let tree = lab.path("project/dist");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("hello"), "hello").unwrap();
    for name in &names {
        fs::create_dir_all(lab.path("other").join(name)).unwrap();
    }
    let ran = lab.deployer(&config, &["deploy", "--tree", "dist", "--connect-retries", "0"]).succeeded("a deploy");
    assert!(ran.all().contains("50 hosts"), "{}", ran.all());
    for name in &names {
        assert_eq!(fs::read_to_string(lab.path("other").join(name).join("current/hello")).unwrap(), "hello", "{name}");
    }
    let log = fs::read_to_string(&lab.host("bastion").log).unwrap();
    assert!(!log.contains("drop connection"), "the bastion was never asked by too many at once, so that no retry was needed");
}

#[test]
fn a_configuration_cannot_run_or_forward_anything() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let canary = lab.path("canary");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = lab.config(&format!(
        "PermitLocalCommand yes\nLocalCommand touch {0}\nRemoteCommand touch {0}\nForwardX11 yes\nForwardAgent yes\n\
         LocalForward {port} 127.0.0.1:1\nRemoteForward {port} 127.0.0.1:1\nTunnel yes\nRequestTTY force\nStrictHostKeyChecking no\n\
         UpdateHostKeys yes\nNoHostAuthenticationForLocalhost yes\n",
        canary.display()
    ));
    let known = fs::read_to_string(lab.sandbox.known_hosts()).unwrap();
    for session in BOTH {
        let ran =
            lab.deployer(&config, &["run", "--session", session, "--", "tty || :; echo \"agent=${SSH_AUTH_SOCK-} display=${DISPLAY-}\""]);
        assert!(ran.stdout.contains("not a tty\n") && ran.stdout.contains("agent= display=\n"), "{session}: {}", ran.all());
        assert!(!canary.exists(), "{session}");
    }
    assert_eq!(fs::read_to_string(lab.sandbox.known_hosts()).unwrap(), known, "the user's file is never written");
    fs::write(lab.sandbox.known_hosts(), "").unwrap();
    for session in BOTH {
        lab.reach(session, &config, &[]).unreachable("strict, whatever the configuration says");
    }
    assert_eq!(fs::read_to_string(lab.sandbox.known_hosts()).unwrap(), "");
}

#[test]
fn agent_forwarding_is_on_only_when_asked_for() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let socket = lab.path("agent");
    let mut agent = Ended(Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::piped()).spawn().unwrap());
    std::io::BufRead::read_line(&mut std::io::BufReader::new(agent.0.stdout.take().unwrap()), &mut String::new()).unwrap();
    let ssh_add = Command::new("ssh-add").env("SSH_AUTH_SOCK", &socket).arg("-q").arg(lab.sandbox.identity()).output().unwrap();
    assert!(ssh_add.status.success());
    let config = lab.config(&format!("IdentityAgent {}\n", socket.display()));
    let listed = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["run", "-v"].iter().chain(arguments).chain(&["--", "ssh-add -l"]).copied().collect();
        lab.command(env!("CARGO_BIN_EXE_deployer"), &config, &arguments).env("SSH_AUTH_SOCK", &socket).output().unwrap()
    };
    let output = listed(&["-A"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("ED25519") && said.contains("session openssh: agent forwarding"), "{said}");
    for arguments in [&[][..], &["--session", "openssh"]] {
        assert_eq!(listed(arguments).status.code(), Some(15), "there is no agent on the host");
    }
    let output = listed(&["-A", "--session", "ssh2"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(10) && said.contains("`ssh2` session cannot do"), "{said}");
}

#[test]
fn names_that_ssh_could_act_on_are_refused_before_anything_starts() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    let (canary, bin) = (lab.path("canary"), lab.path("bin"));
    fs::create_dir(&bin).unwrap();
    // Whatever is started, ssh or a shell, leaves a trace.
    fs::write(bin.join("ssh"), format!("#!/bin/sh\n: >{}\n", canary.display())).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let config = lab.config("");
    let refused = |arguments: &[&str], code: i32| {
        let output = lab.command(env!("CARGO_BIN_EXE_deployer"), &config, arguments).env("PATH", &bin).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.bytes().any(|byte| byte == 0x1b) && said.contains("error: "), "{arguments:?}: {said}");
        assert!(!canary.exists(), "{arguments:?} started something");
    };
    for name in ["-oProxyCommand=id", "a b", "a;id", "$(id)", "`id`", "a\nb", "\u{1b}[2J", "a$[+]b", "a'b"] {
        refused(&["hosts", "trust", "--no-input", "--", name], 3);
        let user = format!("--user={name}");
        refused(&["run", &user, "--", "true"], 3);
        for toml in [format!("hosts = [{}]\n", toml(name)), format!("host = [{{ name = \"a\", address = {} }}]\n", toml(name))] {
            let text = format!("schema = 1\nproject = \"p\"\n[env.lab]\nroot = \"/srv/p\"\n{toml}");
            fs::write(lab.path("project/deploy.toml"), text).unwrap();
            refused(&["run", "--", "true"], 3);
        }
        lab.project(&["app"], "");
    }
    refused(&["run", "--set", "ssh.jump=-oProxyCommand=id", "--", "true"], 3);
}

fn toml(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

#[test]
fn the_rules_for_sudo_are_printed_exactly() {
    let Some(lab) = Lab::with(&["app"]) else { return };
    lab.project(
        &["app"],
        "activate = { run = [\"/usr/bin/systemctl\", \"restart\", \"p@{env}\"], as = \"root\" }\ncheck = { run = [\"/opt/check\", \"{current}\"], as = \"app\" }\n",
    );
    let root = lab.path("no/such/root");
    let ran = lab.deployer(&lab.config(""), &["setup", "--print-sudoers"]).succeeded("sudoers");
    let user = lab.sandbox.user();
    // The host has a root of its own, so that `{current}` is not the same on every host.
    assert!(!ran.stdout.contains(&root.display().to_string()));
    assert_eq!(
        ran.stdout,
        format!(
            "{user} ALL=(root) NOPASSWD: /usr/bin/systemctl restart p@lab\n\
             # `check` differs from run to run or host to host: this rule needs sudo 1.9.10 or later\n\
             {user} ALL=(app) NOPASSWD: /opt/check ^({}/srv/boskel)/current$\n",
            lab.path("hosts/app").display()
        )
    );
    assert_eq!(lab.logins("app"), 0, "no host was asked");
}

#[test]
fn setup_without_the_rights_prints_what_root_has_to_do() {
    if rustix::process::geteuid().is_root() {
        skip("root may make every directory");
        return;
    }
    let Some(lab) = Lab::with(&["app"]) else { return };
    let text = "schema = 1\nproject = \"p\"\n[env.lab]\nroot = \"/srv/deployer-test-of-setup\"\nhosts = [\"app\"]\n";
    fs::write(lab.path("project/deploy.toml"), text).unwrap();
    for session in BOTH {
        let ran = lab.deployer(&lab.config(""), &["setup", "--session", session]);
        assert_eq!(ran.code, 4, "{}", ran.all());
        assert!(ran.all().contains("app | ") && ran.all().contains("/srv/deployer-test-of-setup"), "{}", ran.all());
    }
}
