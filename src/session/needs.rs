//! Whether a host's ssh configuration asks for what only the `ssh` program does.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::known_hosts::{self, KnownHosts};
use super::process;
use super::ssh_config::HostConfig;

/// Settings that libssh2 has no equal of: any value but ssh's own default needs ssh.
const NOT_IN_LIBSSH2: [&str; 18] = [
    "addressfamily",
    "bindaddress",
    "bindinterface",
    "casignaturealgorithms",
    "ciphers",
    "compression",
    "hostbasedauthentication",
    "hostkeyalgorithms",
    "ipqos",
    "kexalgorithms",
    "macs",
    "preferredauthentications",
    "proxyusefdpass",
    "pubkeyacceptedalgorithms",
    "pubkeyauthentication",
    "rekeylimit",
    "requiredrsasize",
    "revokedhostkeys",
];

/// Names the first thing that needs ssh: `text` is what `ssh -G` prints for the host, `plain` what it prints without a configuration.
pub(super) async fn only_ssh(text: &str, plain: Option<&str>, config: &HostConfig, flags: &[OsString], address: &str) -> Option<String> {
    // Without an ssh there is nothing else to take.
    let plain = plain?;
    let said = |key: &str| value(text, key);
    if config.untranslated.is_some() {
        return config.untranslated.clone();
    }
    for (key, name) in [("pkcs11provider", "PKCS11Provider"), ("knownhostscommand", "KnownHostsCommand")] {
        if said(key).is_some() {
            return Some(format!("`{name}` is set"));
        }
    }
    // Debian switches it on for everybody; without a ticket nothing comes of it.
    if said("gssapiauthentication") == Some("yes") && has_ticket() {
        return Some("`GSSAPIAuthentication` is on and there is a Kerberos ticket".to_owned());
    }
    if said("canonicalizehostname").is_some_and(|value| !matches!(value, "no" | "false")) {
        return Some("`CanonicalizeHostname` is on".to_owned());
    }
    if let Some(path) = config.identities.iter().find(|path| is_security_key(path)) {
        return Some(format!("`{}` is a security key", path.display()));
    }
    if let Some(key) = NOT_IN_LIBSSH2.iter().find(|key| said(key) != value(plain, key)) {
        return Some(format!("`{key}` is set"));
    }
    // A file that cannot be read is an error for both sessions, and is told when the key is judged.
    let files = KnownHosts::read(&config.known_hosts()).unwrap_or_default();
    if let Some(place) = known_hosts::beyond_plain(&files, &config.names()) {
        return Some(format!("{place} has a marker or a wildcard for it"));
    }
    if said("controlpath").is_some() && has_master(flags, address).await {
        return Some("there is an open ControlMaster connection".to_owned());
    }
    None
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found.filter(|value| !value.eq_ignore_ascii_case("none"))
}

fn has_ticket() -> bool {
    match std::env::var("KRB5CCNAME") {
        // Other kinds than files are kept by a daemon or the kernel, and are there because somebody logged in with one.
        Ok(name) => name.strip_prefix("FILE:").or(name.starts_with('/').then_some(&*name)).is_none_or(|path| Path::new(path).exists()),
        Err(_) => Path::new(&format!("/tmp/krb5cc_{}", rustix::process::getuid().as_raw())).exists(),
    }
}

fn is_security_key(path: &Path) -> bool {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let begins = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.trim_start().starts_with("sk-"));
    begins(Path::new(&public))
        || begins(path)
        || std::fs::read(path)
            .ok()
            .and_then(|bytes| ssh_key::PrivateKey::from_openssh(bytes).ok())
            .is_some_and(|key| key.algorithm().as_str().starts_with("sk-"))
}

/// Asks whether somebody is connected already and lets others in (`ssh -O check`, which touches only the socket).
async fn has_master(flags: &[OsString], address: &str) -> bool {
    let mut ssh = process::command("ssh");
    ssh.args(["-O", "check"]).args(flags).arg("--").arg(address);
    process::capture(ssh, Duration::from_secs(5)).await.is_ok_and(|output| output.status.success())
}
