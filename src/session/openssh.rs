//! The openssh session: the system's `ssh` program, one process a host, its stdin and stdout being the pipe.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use super::diagnostics::Judge;
use super::error::{HostKeyError, SessionError};
use super::ssh_config::{Hop, HostConfig, Proxy};
use super::{Diagnostics, Opener, Pipe, local, process, ssh_config};

/// Starts `ssh`. Whether it was let in is known only once the remote prints something, or ssh ends.
pub(super) fn open(opener: &Opener, command: &str) -> Result<Pipe, SessionError> {
    let (connect, config) = (&opener.connect, &opener.config);
    let mut ssh = process::command("ssh");
    ssh.args(options(config, opener)?);
    ssh.arg("-o").arg(format!("ForwardAgent={}", if connect.forward_agent { "yes" } else { "no" }));
    for identity in &connect.identities {
        ssh.arg("-i").arg(identity);
    }
    if !connect.identities.is_empty() {
        ssh.args(["-o", "IdentitiesOnly=yes"]);
    }
    match &config.proxy {
        // ssh would start the jump without any of these options.
        Some(Proxy::Jump(hops)) => {
            ssh.args(through(hops, config, opener)?);
        }
        Some(Proxy::Command { .. }) => {}
        None => {
            ssh.args(["-o", "ProxyJump=none", "-o", "ProxyCommand=none"]);
        }
    }
    // Both as resolved: they are what `ssh -G` answered for these very flags.
    ssh.args(ssh_config::flags(Some(&config.user), Some(config.port), connect.ssh_config.as_deref()));
    ssh.arg("--").arg(&opener.address).arg(command);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    opener.equip(&mut ssh);
    local::pipe(ssh, "ssh", Duration::ZERO, Diagnostics::new(Some(judge(opener))))
}

/// What an `ssh` that ends without a session is judged by.
pub(super) fn judge(opener: &Opener) -> Judge {
    let config = &opener.config;
    Judge {
        classify,
        address: opener.address.clone(),
        name: config.names().name,
        trust: opener.name.clone(),
        port: config.port,
        user: config.user.clone(),
        timeout: opener.timeout(),
    }
}

/// The arguments of `ssh` that lead through `hops` to the sshd of `to`.
pub(super) fn jump(hops: &[Hop], to: &HostConfig, opener: &Opener) -> Result<Vec<OsString>, SessionError> {
    let Some((last, before)) = hops.split_last() else { return Ok(Vec::new()) };
    let mut arguments = options(&last.config, opener)?;
    if !before.is_empty() {
        arguments.extend(through(before, &last.config, opener)?);
    }
    arguments.extend(ssh_config::flags(last.user.as_deref(), last.port, opener.connect.ssh_config.as_deref()));
    arguments.extend(["-W".into(), format!("[{}]:{}", to.hostname, to.port).into(), "--".into(), (&last.address).into()]);
    Ok(arguments)
}

fn through(hops: &[Hop], to: &HostConfig, opener: &Opener) -> Result<Vec<OsString>, SessionError> {
    let command = shell_words(&jump(hops, to, opener)?, opener)?;
    Ok(vec!["-o".into(), "ProxyJump=none".into(), "-o".into(), format!("ProxyCommand={command}").into()])
}

/// The options that hold for the host and for every host on the way.
fn options(config: &HostConfig, opener: &Opener) -> Result<Vec<OsString>, SessionError> {
    let mut options: Vec<OsString> = hardening().map(OsString::from).collect();
    let mut set = |option: String| options.extend(["-o".into(), option.into()]);
    set(format!("BatchMode={}", if opener.askpass.is_some() { "no" } else { "yes" }));
    set(format!("ConnectTimeout={}", opener.timeout().as_secs().max(1)));
    set(format!("ServerAliveInterval={}", config.alive.every.as_secs().max(1)));
    set(format!("ServerAliveCountMax={}", config.alive.count.max(1)));
    set(format!("UserKnownHostsFile={}", ssh_config::quote_paths(&config.user_known_hosts)?));
    set(format!("GlobalKnownHostsFile={}", ssh_config::quote_paths(&config.global_known_hosts)?));
    if opener.pins.is_some() {
        // Whoever opened it may have trusted another key; and nothing but the pinned keys counts.
        set("ControlPath=none".to_owned());
        set("KnownHostsCommand=none".to_owned());
    }
    Ok(options)
}

/// Writes a command of `ssh` as a `ProxyCommand`: for the shell, and with ssh's own tokens left alone.
fn shell_words(arguments: &[OsString], opener: &Opener) -> Result<String, SessionError> {
    let words: Option<Vec<&str>> = std::iter::once(Some("ssh")).chain(arguments.iter().map(|argument| argument.to_str())).collect();
    let joined = words.and_then(|words| shlex::try_join(words).ok());
    let refused = || SessionError::Config { address: opener.address.clone(), why: "a path is not UTF-8, or has a NUL".to_owned() };
    Ok(joined.ok_or_else(refused)?.replace('%', "%%"))
}

/// What holds whatever the user's configuration says: nothing is forwarded, run locally or written, and no key is taken unseen.
fn hardening() -> impl Iterator<Item = &'static str> {
    let options = [
        "StrictHostKeyChecking=yes",
        "NoHostAuthenticationForLocalhost=no",
        "ClearAllForwardings=yes",
        "ForwardX11=no",
        "Tunnel=no",
        "PermitLocalCommand=no",
        "UpdateHostKeys=no",
        "ControlMaster=no",
        "RemoteCommand=none",
        "RequestTTY=no",
        "NumberOfPasswordPrompts=3",
        "LogLevel=ERROR",
    ];
    std::iter::once("-T").chain(options.into_iter().flat_map(|option| ["-o", option]))
}

/// Reads why `ssh` gave up. Its texts are the only thing it tells, since its status is 255 for all of them.
pub(super) fn classify(said: &str, judge: &Judge) -> Option<SessionError> {
    let has = |text: &str| said.contains(text);
    let Judge { address, port, user, timeout, .. } = judge;
    let (address, port) = (address.clone(), *port);
    let line = |text: &str| said.lines().find(|line| line.contains(text)).unwrap_or_default().trim_end_matches('.').to_owned();
    let last = said.lines().next_back()?.trim_end_matches('.').to_owned();
    Some(if has("Host key verification failed") || has("HOST IDENTIFICATION HAS CHANGED") || has("REVOKED HOST KEY") {
        SessionError::HostKey(host_key(said, judge))
    } else if has("Permission denied (") || has("Too many authentication failures") || has("No more authentication methods") {
        let denied = line("Permission denied (");
        SessionError::Auth { user: user.clone(), address, why: if denied.is_empty() { last } else { denied } }
    } else if has("Could not resolve hostname") {
        SessionError::Dns { why: line("Could not resolve hostname"), address }
    } else if has("Connection refused") {
        SessionError::Refused { address, port }
    } else if has("timed out") {
        SessionError::Timeout { address, doing: "connecting", after: *timeout }
    } else if has("No route to host") || has("unreachable") {
        SessionError::Unreachable { address, why: last }
    } else if has("kex_exchange_identification") || has("Connection reset by") || has("Connection closed by") || has("banner exchange") {
        SessionError::Reset { address, doing: "before authentication", why: last }
    } else if has("Bad configuration option") || has("Can't open user config file") || has("configuration options") {
        SessionError::Config { address, why: last }
    } else {
        return None;
    })
}

fn host_key(said: &str, judge: &Judge) -> HostKeyError {
    // `No ED25519 host key is known for [app]:2222 and you have requested strict checking.` names the one on the way, if it is that.
    let unknown = said.lines().find_map(|line| line.split_once(" host key is known for ")?.1.split_once(" and you have requested"));
    // `Host key for [app]:2222 has changed and you have requested strict checking.`
    let changed = said.lines().find_map(|line| line.strip_prefix("Host key for ")?.split_once(" has changed"));
    let named = unknown.or(changed).map_or_else(|| judge.name.clone(), |(name, _)| name.to_lowercase());
    let key = said.split_ascii_whitespace().find(|word| word.starts_with("SHA256:")).unwrap_or_default().trim_end_matches('.').to_owned();
    // `Offending ED25519 key in /etc/ssh/ssh_known_hosts:3`
    let offending = said.lines().find(|line| line.starts_with("Offending ")).and_then(|line| line.rsplit_once(" in "));
    let place = offending.map(|(_, place)| format!("`{place}`"));
    let revoked = said.contains("REVOKED HOST KEY");
    match place {
        _ if revoked => HostKeyError::Revoked { name: named, key, place: place.unwrap_or_else(|| "known_hosts".to_owned()) },
        Some(place) if said.contains("HAS CHANGED") => HostKeyError::Changed { name: named, key, place, trust: judge.trust.clone() },
        _ => HostKeyError::Said {
            name: named,
            said: said.lines().find(|line| line.starts_with("No ")).or(said.lines().next_back()).unwrap_or_default().to_owned(),
            trust: judge.trust.clone(),
            unknown: !said.contains("HAS CHANGED"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_gets_a_code() {
        let judge = Judge {
            classify,
            address: "app".into(),
            name: "app".into(),
            trust: "app".into(),
            port: 22,
            user: "ada".into(),
            timeout: Duration::from_secs(5),
        };
        for (said, code) in [
            ("No ED25519 host key is known for app and you have requested strict checking.\nHost key verification failed.", "host-key"),
            ("Load key \"x\": error in libcrypto\nada@app: Permission denied (publickey,password).", "auth"),
            ("Received disconnect from ::1 port 22:2: Too many authentication failures\nDisconnected from ::1", "auth"),
            ("ssh: Could not resolve hostname app: Name or service not known", "dns"),
            ("ssh: connect to host app port 22: Connection refused", "refused"),
            ("Connection timed out during banner exchange", "timeout"),
            ("ssh: connect to host app port 22: No route to host", "unreachable"),
            ("kex_exchange_identification: Connection closed by remote host", "reset"),
            ("/x: line 1: Bad configuration option: foo\n/x: terminating, 1 bad configuration options", "ssh-config"),
        ] {
            assert_eq!(classify(said, &judge).map(|error| error.code()), Some(code), "{said}");
        }
        assert_eq!(classify("sh: 1: no such thing", &judge), None);
        assert_eq!(classify("", &judge), None);
    }
}
