//! The user this helper works as. The environment knows it on any sane host; where it does not, `getent` and `id` are asked,
//! because a static program has no name service of its own.

use crate::exec;
use crate::failure;
use crate::op::{Code, Failure};
use crate::process::Children;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub home: Option<String>,
    pub shell: String,
}

impl User {
    /// Finds out who we are.
    pub fn find(children: &Children) -> Self {
        let uid = rustix::process::getuid().as_raw();
        let set = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        let (name, home, shell) = (set("USER").or_else(|| set("LOGNAME")), set("HOME").filter(|home| home.starts_with('/')), set("SHELL"));
        if let (Some(name), Some(home)) = (&name, &home) {
            return Self { name: name.clone(), uid, home: Some(home.clone()), shell: shell.unwrap_or_else(|| "/bin/sh".into()) };
        }
        let entry = exec::ask(children, &["getent", "passwd", &uid.to_string()]);
        let known = entry.as_deref().and_then(parse_passwd);
        let (known_name, known_home, known_shell) =
            known.map_or((None, None, None), |(name, home, shell)| (Some(name), Some(home), Some(shell)));
        let name = name.or(known_name).or_else(|| {
            let answer = exec::ask(children, &["id", "-un"])?;
            Some(String::from_utf8_lossy(&answer).trim().to_owned())
        });
        Self {
            name: name.unwrap_or_else(|| uid.to_string()),
            uid,
            home: home.or(known_home),
            shell: shell.or(known_shell).unwrap_or_else(|| "/bin/sh".into()),
        }
    }

    /// What every command's environment begins with.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut env = vec![
            ("USER".into(), self.name.clone()),
            ("LOGNAME".into(), self.name.clone()),
            ("SHELL".into(), self.shell.clone()),
            ("PATH".into(), self.path()),
            ("LANG".into(), "C.UTF-8".into()),
        ];
        env.extend(self.home.as_ref().map(|home| ("HOME".into(), home.clone())));
        env
    }

    /// Where programs are looked for. The system's come first, so that a file in a home does not replace one by accident.
    pub fn path(&self) -> String {
        let system = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
        self.home.as_ref().map_or_else(|| system.into(), |home| format!("{system}:{home}/.local/bin"))
    }
}

/// Reads `name:x:uid:gid:comment:home:shell`.
fn parse_passwd(line: &[u8]) -> Option<(String, String, String)> {
    let line = std::str::from_utf8(line).ok()?;
    let fields: Vec<&str> = line.lines().next()?.split(':').collect();
    match fields.as_slice() {
        [name, _, _, _, _, home, shell] => Some(((*name).into(), (*home).into(), (*shell).into())),
        _ => None,
    }
}

/// Names the owner of something; the number where there is no name.
pub fn name_of(children: &Children, uid: u32) -> String {
    let entry = exec::ask(children, &["getent", "passwd", &uid.to_string()]);
    entry.as_deref().and_then(parse_passwd).map_or_else(|| uid.to_string(), |(name, ..)| name)
}

/// Finds a group's number.
pub fn group_id(children: &Children, name: &str) -> Result<u32, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
    let known = (!name.starts_with('-') && !name.is_empty() && name.bytes().all(plain))
        .then(|| exec::ask(children, &["getent", "group", name]))
        .flatten()
        .and_then(|line| String::from_utf8_lossy(&line).split(':').nth(2)?.trim().parse().ok());
    known.ok_or_else(|| {
        let hint = format!("make it (as root: `groupadd --system {name}`), or name another in `group`");
        failure::hinted(Code::NotFound, format!("the group `{name}` is not known on this host"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passwd_line_gives_name_home_and_shell() {
        let line = b"deploy:x:1000:1000:Deploy,,,:/home/deploy:/bin/sh\n";
        assert_eq!(parse_passwd(line), Some(("deploy".into(), "/home/deploy".into(), "/bin/sh".into())));
        assert_eq!(parse_passwd(b"deploy:x"), None);
    }
}
