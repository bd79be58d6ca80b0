//! Trust in host keys: which keys are pinned, which key a host shows, and how a key that somebody accepted is recorded in our own file.
//! The user's files are never written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use super::known_hosts::{self, KnownHosts, Verdict};
use super::ssh_config::{HostConfig, Proxy};
use super::{HostKeyError, Opener, SessionError, ask, ssh2};
use crate::config::environment::{Connect, HostKeys, SessionKind, Target};

/// What the pinned keys are called where a file would be named.
const PINNED: &str = "`host-keys` of deploy.toml";

/// Where keys are pinned, makes them the only file of known hosts, for the host and for those on the way.
pub(super) fn pin(config: &mut HostConfig, target: &Target, connect: &Connect) -> Result<Option<Arc<NamedTempFile>>, SessionError> {
    let HostKeys::Pinned(keys) = &connect.host_keys else { return Ok(None) };
    let mut text = String::new();
    let key = keys.get(&target.name).or_else(|| keys.get(&target.address));
    text.extend(key.map(|key| format!("{} {key}\n", config.names().name)));
    if let Some(Proxy::Jump(hops)) = &config.proxy {
        let known = hops.iter().filter_map(|hop| Some((hop.config.names().name, keys.get(&hop.address)?)));
        text.extend(known.map(|(name, key)| format!("{name} {key}\n")));
    }
    let written = NamedTempFile::with_prefix("deployer-host-keys-").and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        Ok(file)
    });
    let file = written.map_err(|error| {
        SessionError::HostKey(HostKeyError::Unreadable {
            place: "the temporary file of the pinned keys".to_owned(),
            why: error.to_string(),
        })
    })?;
    let only = |config: &mut HostConfig| {
        config.user_known_hosts = vec![file.path().to_owned()];
        config.global_known_hosts = Vec::new();
    };
    only(config);
    if let Some(Proxy::Jump(hops)) = &mut config.proxy {
        for hop in hops {
            only(&mut hop.config);
        }
    }
    Ok(Some(Arc::new(file)))
}

/// A key that a host shows, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Under which name it is looked up and recorded.
    pub name: String,
    /// `type base64`.
    pub key: String,
    /// Its type and fingerprint.
    pub fingerprint: String,
    pub verdict: Verdict,
    /// Other keys that are known for the name, and where.
    pub others: Vec<(String, String)>,
}

impl Opener {
    /// Asks the host for its key, without logging in, and holds it against the files of known hosts.
    ///
    /// # Errors
    /// The host cannot be reached, shows nothing that is a key, or a file cannot be read.
    pub async fn shown_key(&self) -> Result<Shown, SessionError> {
        let names = self.config.names();
        let blob = ssh2::host_key(self).await?;
        let no_key = || SessionError::Other { address: self.address.clone(), doing: "exchanging keys", why: "it shows no key".to_owned() };
        let files = KnownHosts::read(&self.config.known_hosts()).map_err(SessionError::HostKey)?;
        Ok(Shown {
            key: known_hosts::written(&blob).ok_or_else(no_key)?,
            fingerprint: known_hosts::describe(&blob),
            verdict: known_hosts::judge(&files, &names, &blob).map_err(SessionError::HostKey)?,
            others: known_hosts::known(&files, &names).map_err(SessionError::HostKey)?,
            name: names.name,
        })
    }

    /// Completes what is said of a host key that was not accepted: its fingerprint where the `ssh` program does not tell it, whose it is
    /// (the host's, or that of one on the way), and what is to be done about it.
    pub(super) async fn explain(&self, error: SessionError) -> SessionError {
        let error = match error {
            SessionError::HostKey(error) => error,
            SessionError::Auth { user, address, why } if self.kind == SessionKind::Openssh && self.askpass.is_none() => {
                let locked = ssh2::locked(&self.config.identities)
                    .map(|path| format!("; `{}` has a passphrase, and there is no terminal to ask at", path.display()));
                return SessionError::Auth { user, address, why: why + &locked.collect::<String>() };
            }
            other => return other,
        };
        let pinned = self.pins.is_some();
        SessionError::HostKey(match error {
            HostKeyError::Said { name, unknown: true, said, .. } => {
                let refused = self.on_the_way(&name);
                match refused.shown_key().await {
                    Ok(Shown { name, key, fingerprint, .. }) => refused.unknown(name, fingerprint, &key),
                    Err(_) => HostKeyError::Said { name, said, trust: refused.name, unknown: true },
                }
            }
            HostKeyError::Unknown { name, key, line, .. } if pinned => HostKeyError::NotPinned { name, key, host: self.name.clone(), line },
            HostKeyError::Changed { name, key, trust, .. } if pinned => {
                HostKeyError::Changed { name, key, place: PINNED.to_owned(), trust }
            }
            HostKeyError::Changed { name, key, place, .. } => {
                let trust = self.on_the_way(&name).name;
                HostKeyError::Changed { name, key, place, trust }
            }
            other => other,
        })
    }

    /// Asks the person about a key that is not known yet, and records it where the answer is yes.
    pub async fn trust(&self, error: &SessionError) -> bool {
        let SessionError::HostKey(HostKeyError::Unknown { name, key, trust, line }) = error else { return false };
        let question = format!("the host key of `{trust}` is not known: {key}\ntrust it from now on?");
        let (name, line) = (name.clone(), line.clone());
        let asked = tokio::task::spawn_blocking(move || Ok::<_, io::Error>(ask::confirm(&question)? && record(&name, &line).is_ok()));
        asked.await.is_ok_and(|answer| answer.unwrap_or(false))
    }

    /// Says that a key is not known.
    pub(super) fn unknown(&self, name: String, fingerprint: String, key: &str) -> HostKeyError {
        let line = key.to_owned();
        if self.pins.is_some() {
            return HostKeyError::NotPinned { name, key: fingerprint, host: self.name.clone(), line };
        }
        HostKeyError::Unknown { name, key: fingerprint, trust: self.name.clone(), line }
    }

    /// The host, or the one on the way to it, whose key is looked up as `name`.
    fn on_the_way(&self, name: &str) -> Self {
        let Some(Proxy::Jump(hops)) = &self.config.proxy else { return self.clone() };
        let Some(index) = hops.iter().position(|hop| hop.config.names().name == name) else { return self.clone() };
        let (before, hop) = (&hops[..index], &hops[index]);
        let proxy = if before.is_empty() { hop.config.proxy.clone() } else { Some(Proxy::Jump(before.to_vec())) };
        Self {
            kind: SessionKind::Ssh2,
            name: hop.address.clone(),
            address: hop.address.clone(),
            config: HostConfig { proxy, ..(*hop.config).clone() },
            ..self.clone()
        }
    }
}

/// Records `key` as one of `name` in our own file, and forgets the other keys that the file has for it.
///
/// # Errors
/// The file cannot be written.
pub fn record(name: &str, key: &str) -> io::Result<PathBuf> {
    let path = known_hosts::own_file().ok_or_else(|| io::Error::other("your home directory is not known"))?;
    record_in(&path, name, key)?;
    Ok(path)
}

/// Writes by rename under a lock: who reads sees the old file or the new one, and two who record at once lose nothing.
fn record_in(path: &Path, name: &str, key: &str) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("it has no directory"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let lock = File::options().create(true).append(true).open(path.with_extension("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let kept = before.lines().filter(|line| line.split(' ').next() != Some(name));
    let text = kept.chain([format!("{name} {key}").as_str(), ""]).collect::<Vec<_>>().join("\n");
    let mut file = NamedTempFile::new_in(directory)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_keys_recorded_at_once_are_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/known_hosts");
        let threads: Vec<_> = (0..50)
            .map(|number| {
                let path = path.clone();
                std::thread::spawn(move || record_in(&path, &format!("app{number}"), "ssh-ed25519 AAAA").unwrap())
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 50);
        record_in(&path, "app7", "ssh-ed25519 BBBB").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.matches("app7 ").count()), (50, 1), "the new key takes the place of the old one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
