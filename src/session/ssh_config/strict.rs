//! The ssh configuration without an `ssh` to ask: `Host` blocks and the settings that are understood. Whatever else is there is refused,
//! because a guess could lead to another host, or as another user, than the one ssh would take.

use std::path::Path;

use super::super::known_hosts::glob;
use super::Query;
use super::files::{self, Line};

/// What the `ssh2` session honours.
const HONOURED: [&str; 16] = [
    "hostname",
    "user",
    "port",
    "identityfile",
    "identitiesonly",
    "identityagent",
    "certificatefile",
    "userknownhostsfile",
    "globalknownhostsfile",
    "hostkeyalias",
    "connecttimeout",
    "serveraliveinterval",
    "serveralivecountmax",
    "proxycommand",
    "kbdinteractiveauthentication",
    "passwordauthentication",
];

/// What `deployer` decides by itself, or what has no meaning for it.
const WITHOUT_MEANING: [&str; 31] = [
    "addkeystoagent",
    "batchmode",
    "checkhostip",
    "clearallforwardings",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forwardagent",
    "forwardx11",
    "forwardx11trusted",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "hashknownhosts",
    "ipqos",
    "localcommand",
    "localforward",
    "loglevel",
    "permitlocalcommand",
    "remoteforward",
    "requesttty",
    "sendenv",
    "stricthostkeychecking",
    "tcpkeepalive",
    "updatehostkeys",
    "visualhostkey",
];

/// Says what `ssh -G` would say, as far as it is needed.
pub(super) fn evaluate(query: &Query, home: &Path) -> Result<String, String> {
    let mut state = State { query, home, said: Vec::new() };
    if let Some(user) = &query.user {
        state.say("user", user);
    }
    if let Some(port) = query.port {
        state.say("port", &port.to_string());
    }
    for root in files::roots(query.file.as_deref(), home) {
        let system = query.file.is_none() && root.starts_with("/etc");
        state.file(&root, system, true, 0)?;
    }
    Ok(state.finish())
}

struct State<'a> {
    query: &'a Query,
    home: &'a Path,
    said: Vec<(String, String)>,
}

impl State<'_> {
    /// ssh takes the first value that it reads of each setting, but all the files of an identity.
    fn say(&mut self, key: &str, value: &str) {
        if matches!(key, "identityfile" | "certificatefile") || !self.said.iter().any(|(known, _)| known == key) {
            self.said.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Gives whether the block that the file ends in holds for the host.
    fn file(&mut self, path: &Path, system: bool, mut holds: bool, depth: usize) -> Result<(), String> {
        if depth > 16 {
            return Err(format!("`{}` is included too deep", path.display()));
        }
        for line in files::lines(path)? {
            match line.keyword.as_str() {
                "host" => holds = self.is_meant(&line.words),
                "match" => return Err(refused(&line, "`Match` is understood by ssh alone")),
                "include" => {
                    let paths = files::included(&line, system, self.home)
                        .ok_or_else(|| refused(&line, "this form of `Include` is understood by ssh alone"))?;
                    for path in paths {
                        self.file(&path, system, holds, depth + 1)?;
                    }
                }
                known if HONOURED.contains(&known) => {
                    if holds {
                        self.setting(&line)?;
                    }
                }
                known if WITHOUT_MEANING.contains(&known) => {}
                // In another host's block it does no harm.
                _ if !holds => {}
                other => return Err(refused(&line, &format!("`{other}` is understood by ssh alone"))),
            }
        }
        Ok(())
    }

    fn is_meant(&self, patterns: &[String]) -> bool {
        let matches = |pattern: &str| glob(pattern.to_ascii_lowercase().as_bytes(), self.query.address.to_ascii_lowercase().as_bytes());
        let denied = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(matches);
        !denied && patterns.iter().any(|pattern| !pattern.starts_with('!') && matches(pattern))
    }

    fn setting(&mut self, line: &Line) -> Result<(), String> {
        let value = match line.keyword.as_str() {
            "proxycommand" => line.rest.clone(),
            "userknownhostsfile" | "globalknownhostsfile" => line.words.join(" "),
            _ => match line.words.as_slice() {
                [only] => only.clone(),
                _ => return Err(refused(line, "one value is expected")),
            },
        };
        if value.contains("${") {
            return Err(refused(line, "a variable is understood by ssh alone"));
        }
        self.say(&line.keyword, &value);
        Ok(())
    }

    fn finish(mut self) -> String {
        let address = self.query.address.clone();
        self.say("hostname", "%h");
        self.say("port", "22");
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
        self.say("user", &user);
        for (key, default) in [
            ("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"),
            ("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"),
            ("kbdinteractiveauthentication", "yes"),
            ("passwordauthentication", "yes"),
        ] {
            self.say(key, default);
        }
        if !self.said.iter().any(|(key, _)| key == "identityfile") {
            for name in ["id_rsa", "id_ecdsa", "id_ed25519"] {
                self.say("identityfile", &format!("~/.ssh/{name}"));
            }
        }
        let line = |(key, value): &(String, String)| match key.as_str() {
            "hostname" => format!("hostname {}\n", value.replace("%h", &address).replace("%%", "%")),
            _ => format!("{key} {value}\n"),
        };
        self.said.iter().map(line).collect()
    }
}

fn refused(line: &Line, why: &str) -> String {
    format!("{}: {why}, and there is no `ssh` on this machine; install it, or name another file with `-F`", line.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(address: &str, file: &Path) -> Query {
        Query { address: address.to_owned(), user: Some("ada".to_owned()), port: None, file: Some(file.to_owned()) }
    }

    const CONFIG: &str = "Host app* !app9\n  HostName %h.example.net\n  Port=2222\n  IdentityFile \"~/.ssh/id app\"\n  IdentityFile ~/.ssh/two\n\
        Host *\n  Port 1\n  User bob\n  HostKeyAlias web\n  ConnectTimeout 7\n  ServerAliveInterval 5\n  UserKnownHostsFile /a /b\n  ForwardAgent yes\n\
        Host other\n  Tunnel yes\n";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "`ssh` is what it is compared with")]
    fn what_is_understood_is_understood_as_ssh_does() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        std::fs::write(&file, CONFIG).unwrap();
        for address in ["app1", "app9", "db"] {
            let ours = super::super::parse(&evaluate(&query(address, &file), Path::new("/h")).unwrap(), address, Path::new("/h")).unwrap();
            let ssh = std::process::Command::new("ssh").arg("-G").arg("-F").arg(&file).args(["-l", "ada", "--", address]).output().unwrap();
            let theirs = super::super::parse(&String::from_utf8(ssh.stdout).unwrap(), address, Path::new("/h")).unwrap();
            assert_eq!((&ours.hostname, ours.port, &ours.user), (&theirs.hostname, theirs.port, &theirs.user));
            assert_eq!((&ours.host_key_alias, ours.connect_timeout), (&theirs.host_key_alias, theirs.connect_timeout));
            assert_eq!((&ours.user_known_hosts, ours.alive), (&theirs.user_known_hosts, theirs.alive));
            if address == "app1" {
                assert_eq!(ours.identities, theirs.identities);
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        for (text, word) in [
            ("Match user ada\nPort 1\n", "Match"),
            ("ProxyJump bastion\n", "proxyjump"),
            ("Frobnicate yes\n", "frobnicate"),
            ("Include /x/*/y\n", "Include"),
            ("IdentityFile ${HOME}/id\n", "variable"),
            ("User \"ada\n", "quote"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = evaluate(&query("app", &file), Path::new("/h")).unwrap_err();
            assert!(error.contains(word) && error.contains("config:1"), "{error}");
        }
    }
}
