//! Known hosts: whether a key is the one a host must show. Pure but for reading the files, and in doubt the answer is no.

use std::io;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use ssh_key::known_hosts::{HostPatterns, Marker};
use ssh_key::{HashAlg, PublicKey};

use super::error::HostKeyError;

/// One file of known hosts, read.
#[derive(Clone, Debug)]
pub struct KnownHosts {
    path: PathBuf,
    text: String,
}

/// Under which names a host is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The name, or `[name]:port` where the port is not 22.
    pub name: String,
    /// The name alone. As in ssh, a line without a port vouches for every port, and says nothing against one.
    pub bare: Option<String>,
}

impl Names {
    /// Makes the names ssh would look up: the alias as it is, else host and port.
    #[must_use]
    pub fn new(hostname: &str, port: u16, alias: Option<&str>) -> Self {
        match alias {
            Some(alias) => Self { name: alias.to_lowercase(), bare: None },
            None if port == 22 => Self { name: hostname.to_lowercase(), bare: None },
            None => Self { name: format!("[{}]:{port}", hostname.to_lowercase()), bare: Some(hostname.to_lowercase()) },
        }
    }
}

/// What the files say of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Match,
    Unknown,
    /// The host is known by other keys only; where the first of them is.
    Changed(String),
    Revoked(String),
    /// The host is known by the authority that signs its keys.
    Authority(String),
}

impl KnownHosts {
    #[must_use]
    pub const fn new(path: PathBuf, text: String) -> Self {
        Self { path, text }
    }

    /// Reads the files that exist.
    ///
    /// # Errors
    /// A file exists and cannot be read: a revocation might be in it.
    pub fn read(paths: &[PathBuf]) -> Result<Vec<Self>, HostKeyError> {
        let mut files = Vec::new();
        for path in paths {
            match std::fs::read(path) {
                Ok(bytes) => files.push(Self::new(path.clone(), String::from_utf8_lossy(&bytes).into_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(HostKeyError::Unreadable { place: format!("`{}`", path.display()), why: error.to_string() }),
            }
        }
        Ok(files)
    }
}

/// One line that speaks of the host.
struct Line {
    marker: Option<Marker>,
    key: PublicKey,
    exact: bool,
    /// The host is meant by a pattern, not by its name.
    wild: bool,
    place: String,
}

/// Judges a host's key, as the blob that it showed.
///
/// # Errors
/// A line that revokes a key of the host cannot be read.
pub fn judge(files: &[KnownHosts], names: &Names, blob: &[u8]) -> Result<Verdict, HostKeyError> {
    let lines = lines(files, names)?;
    let same = |line: &&Line| line.key.to_bytes().is_ok_and(|known| known == blob);
    let of = |marker: Option<Marker>| lines.iter().filter(move |line| line.marker == marker);
    if let Some(line) = of(Some(Marker::Revoked)).find(same) {
        return Ok(Verdict::Revoked(line.place.clone()));
    }
    // A line with the port speaks for the host; one without it is heard only where there is none.
    let exact = of(None).find(|line| line.exact);
    if of(None).any(|line| same(&line) && (line.exact || exact.is_none())) {
        return Ok(Verdict::Match);
    }
    if let Some(line) = exact {
        return Ok(Verdict::Changed(line.place.clone()));
    }
    Ok(of(Some(Marker::CertAuthority)).next().map_or(Verdict::Unknown, |line| Verdict::Authority(line.place.clone())))
}

/// The types of the keys that a host is known by. They are asked for first, or a host known by its RSA key would show its Ed25519 one.
///
/// # Errors
/// As `judge`.
pub fn types(files: &[KnownHosts], names: &Names) -> Result<Vec<String>, HostKeyError> {
    let known = lines(files, names)?.into_iter().filter(|line| line.marker.is_none());
    let mut types: Vec<String> = known.map(|line| line.key.algorithm().as_str().to_owned()).collect();
    types.dedup();
    Ok(types)
}

/// Where the first line is that speaks of the host by a marker or a wildcard.
#[must_use]
pub fn beyond_plain(files: &[KnownHosts], names: &Names) -> Option<String> {
    // A line that cannot be read is told when the key is judged.
    let lines = lines(files, names).unwrap_or_default();
    lines.into_iter().find(|line| line.marker.is_some() || line.wild).map(|line| line.place)
}

/// The plain keys that the files know for exactly this name, as `type base64` with their places.
///
/// # Errors
/// As `judge`.
pub fn known(files: &[KnownHosts], names: &Names) -> Result<Vec<(String, String)>, HostKeyError> {
    let plain = lines(files, names)?.into_iter().filter(|line| line.marker.is_none() && line.exact);
    Ok(plain.filter_map(|line| Some((line.key.to_openssh().ok()?, line.place))).collect())
}

/// Writes a key as in a file of known hosts: `type base64`. None where it is no key.
#[must_use]
pub fn written(blob: &[u8]) -> Option<String> {
    let mut key = PublicKey::from_bytes(blob).ok()?;
    key.set_comment("");
    Some(key.to_openssh().ok()?.trim_end().to_owned())
}

/// Names a key for people: its type and its SHA256 fingerprint.
#[must_use]
pub fn describe(blob: &[u8]) -> String {
    match PublicKey::from_bytes(blob) {
        Ok(key) => format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256)),
        Err(_) => "a key of an unknown type".to_owned(),
    }
}

fn lines(files: &[KnownHosts], names: &Names) -> Result<Vec<Line>, HostKeyError> {
    let mut found = Vec::new();
    for file in files {
        for (number, text) in (1..).zip(file.text.lines()) {
            let place = || format!("`{}:{number}`", file.path.display());
            let Some((marker, hosts, key)) = split(text) else { continue };
            let exact = matches(hosts, &names.name);
            if !exact && !names.bare.as_deref().is_some_and(|bare| matches(hosts, bare)) {
                continue;
            }
            match PublicKey::from_openssh(&key) {
                Ok(key) => found.push(Line { marker, key, exact, wild: is_wild(hosts, names), place: place() }),
                Err(error) if marker == Some(Marker::Revoked) => {
                    return Err(HostKeyError::Unreadable { place: place(), why: format!("a revoked key that is no key: {error}") });
                }
                // As ssh does: a key of a type from the future does not make the others useless.
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

/// Splits a line into marker, host patterns and `type base64`. None where there is no entry.
fn split(line: &str) -> Option<(Option<Marker>, &str, String)> {
    let mut fields = line.split_ascii_whitespace().peekable();
    let marker = match fields.peek()? {
        first if first.starts_with('#') => return None,
        first if first.starts_with('@') => Some(first.parse().ok()?),
        _ => None,
    };
    if marker.is_some() {
        fields.next();
    }
    let hosts = fields.next()?;
    Some((marker, hosts, format!("{} {}", fields.next()?, fields.next()?)))
}

fn is_wild(hosts: &str, names: &Names) -> bool {
    let own = |pattern: &str| std::iter::once(&names.name).chain(&names.bare).any(|name| pattern.eq_ignore_ascii_case(name));
    hosts.contains(['*', '?']) && !hosts.split(',').any(own)
}

fn matches(hosts: &str, name: &str) -> bool {
    match hosts.parse() {
        Ok(HostPatterns::HashedName { salt, hash }) => match Hmac::<Sha1>::new_from_slice(&salt) {
            Ok(mac) => mac.chain_update(name.as_bytes()).verify_slice(&hash).is_ok(),
            Err(_) => false,
        },
        Ok(HostPatterns::Patterns(patterns)) => {
            let (denied, allowed): (Vec<_>, Vec<_>) =
                patterns.iter().map(|pattern| pattern.to_lowercase()).partition(|p| p.starts_with('!'));
            let denied = denied.iter().any(|pattern| glob(&pattern.as_bytes()[1..], name.as_bytes()));
            !denied && allowed.iter().any(|pattern| glob(pattern.as_bytes(), name.as_bytes()))
        }
        Err(_) => false,
    }
}

/// Matches `*` and `?`, in time proportional to the product of the lengths.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                p = after + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Where `deployer` itself remembers keys that somebody accepted.
#[must_use]
pub fn own_file() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME").map(PathBuf::from) {
        Some(path) if path.is_absolute() => path,
        _ => etcetera::home_dir().ok()?.join(".local/state"),
    };
    Some(state.join(Path::new("deployer/known_hosts")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn verdict(text: &str, host: &str, port: u16) -> Verdict {
        let files = [KnownHosts::new("kh".into(), text.to_owned())];
        judge(&files, &Names::new(host, port, None), &PublicKey::from_openssh(KEY).unwrap().to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn a_key_matches_by_name_port_wildcard_and_hash() {
        for (hosts, host, port, matched) in [
            ("app1", "app1", 22, true),
            ("APP1,other", "app1", 22, true),
            ("app1", "app2", 22, false),
            ("[app1]:2222", "app1", 2222, true),
            ("[app1]:2222", "app1", 2223, false),
            ("[app1]:2222", "app1", 22, false),
            ("app1", "app1", 2222, true),
            ("*.example.net", "a.example.net", 22, true),
            ("*.example.net,!b.example.net", "b.example.net", 22, false),
            ("[*.example.net]:22??", "a.example.net", 2201, true),
            ("app?", "app12", 22, false),
        ] {
            let expected = if matched { Verdict::Match } else { Verdict::Unknown };
            assert_eq!(verdict(&format!("{hosts} {KEY} a comment\n"), host, port), expected, "{hosts} for {host} {port}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "`ssh-keygen` is what it is compared with")]
    fn a_hashed_name_made_by_ssh_keygen_matches_only_its_host() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_hosts");
        std::fs::write(&path, format!("app1,[app2]:2222 {KEY}\n")).unwrap();
        let status = std::process::Command::new("ssh-keygen").arg("-q").arg("-H").arg("-f").arg(&path).output().unwrap();
        assert!(status.status.success());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("|1|") && !text.contains("app"), "{text}");
        assert_eq!(verdict(&text, "app1", 22), Verdict::Match);
        assert_eq!(verdict(&text, "app2", 2222), Verdict::Match);
        assert_eq!(verdict(&text, "app3", 22), Verdict::Unknown);
    }

    #[test]
    fn another_key_of_any_type_is_a_change_and_names_its_line() {
        let text = format!("# a comment\n\napp1 {OTHER}\n");
        assert_eq!(verdict(&text, "app1", 22), Verdict::Changed("`kh:3`".to_owned()));
        let rsa = "app1 ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7\n";
        assert_eq!(verdict(rsa, "app1", 22), Verdict::Unknown, "a line that is no key is no knowledge");
        assert_eq!(verdict(&format!("{text}app1 {KEY}\n"), "app1", 22), Verdict::Match);
    }

    #[test]
    fn a_revoked_key_stays_revoked_whatever_else_is_known() {
        let text = format!("app1 {KEY}\n@revoked * {KEY}\n");
        assert_eq!(verdict(&text, "app1", 22), Verdict::Revoked("`kh:2`".to_owned()));
        assert_eq!(verdict(&format!("app1 {KEY}\n@revoked * {OTHER}\n"), "app1", 22), Verdict::Match);
        let broken = [KnownHosts::new("kh".into(), format!("app1 {KEY}\n@revoked app1 ssh-ed25519 AAAA\n"))];
        assert!(judge(&broken, &Names::new("app1", 22, None), b"").is_err());
    }

    #[test]
    fn an_authority_is_told_apart_from_an_unknown_host() {
        assert_eq!(verdict(&format!("@cert-authority *.net {OTHER}\n"), "a.net", 22), Verdict::Authority("`kh:1`".to_owned()));
        assert_eq!(verdict(&format!("@cert-authority *.net {KEY}\n"), "a.org", 22), Verdict::Unknown);
    }

    #[test]
    fn a_line_without_a_port_does_not_outvote_one_with_it() {
        let text = format!("[app1]:2222 {OTHER}\napp1 {KEY}\n");
        assert_eq!(verdict(&text, "app1", 2222), Verdict::Changed("`kh:1`".to_owned()));
    }

    #[test]
    fn an_alias_replaces_name_and_port() {
        assert_eq!(Names::new("10.0.0.1", 2222, Some("Web")), Names { name: "web".to_owned(), bare: None });
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_a_missing_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        assert!(KnownHosts::read(&[directory.path().join("missing")]).unwrap().is_empty());
        assert!(KnownHosts::read(&[directory.path().to_owned()]).is_err());
    }
}
