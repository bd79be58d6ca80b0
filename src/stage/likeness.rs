//! Whether what one host built runs on another: their processors, C libraries, interpreters and the place the release has there.

use std::collections::BTreeMap;

use crate::config::environment::Build;
use crate::host::{Host, HostError, Reply};
use crate::op::{self, Answer, Command, Exec, Op};

/// More than a host has to say.
const LIMIT: usize = 64 * 1024;
const TIMEOUT_MS: u64 = 30_000;

/// Prints a line for each thing: its name, a blank, and what it is there. It needs nothing but a shell.
const SCRIPT: &str = r#"
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || { ldd --version 2>&1 || :; } | head -n 2 | tr '\n' ' ')
echo "libc $libc"
echo "place $(cd "$PLACE" && pwd -P)"
if [ "$CHOSEN" ]; then RUNTIME=$(uv python find --no-cache --no-config --no-project "$CHOSEN" 2>/dev/null) || RUNTIME=; fi
case "$RUNTIME" in
'') ;;
*node) echo "interpreter node $("$RUNTIME" -p 'process.versions.modules' 2>&1 | tail -n 1)" ;;
*) echo "interpreter $("$RUNTIME" -c 'import sys, sysconfig as c
print(sys.implementation.cache_tag, c.get_config_var("SOABI"), "%d.%d.%d" % sys.version_info[:3])' 2>&1 | tail -n 1)" ;;
esac
"#;

/// What a host is, as far as built things depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Likeness {
    pub platform: String,
    /// `glibc 2.36`, `musl libc (x86_64) Version 1.2.5`.
    pub libc: String,
    /// `cpython-311 cpython-311-x86_64-linux-gnu`; none where the build needs none that is known of.
    pub interpreter: Option<String>,
    /// Of the interpreter, where it tells: `3.11.7`. Built things do not depend on its last number.
    pub version: Option<String>,
    /// The root, without links in its path.
    pub place: String,
}

/// Asks a host.
pub async fn of(host: &Host, root: &str, build: Option<&Build>) -> Result<Likeness, HostError> {
    let mut env = vec![("PLACE".to_owned(), root.to_owned()), ("RUNTIME".to_owned(), build.and_then(runtime).unwrap_or_default())];
    let said = |name: &str| build.and_then(|build| build.env.get(name)).filter(|value| !value.contains('{'));
    // What the build finds first is what it is made for.
    env.extend(said("PATH").map(|path| ("PATH".to_owned(), path.clone())));
    // But uv can be told of another one.
    let chosen = said("UV_PYTHON").filter(|_| build.is_some_and(|build| build.recipe == "uv"));
    env.push(("CHOSEN".to_owned(), chosen.cloned().unwrap_or_default()));
    let exec = Exec {
        command: Command::Shell(SCRIPT.to_owned()),
        directory: Some("/".to_owned()),
        env,
        umask: 0o022,
        timeout_ms: TIMEOUT_MS,
        idle_timeout_ms: 0,
        output_limit: LIMIT as u64,
        user: None,
        network: op::Network::Host,
    };
    let mut call = host.start(Op::Exec(exec)).await?;
    let mut text = Vec::new();
    loop {
        match call.next().await? {
            Reply::Output { stderr: false, bytes } if text.len() < LIMIT => text.extend_from_slice(&bytes),
            Reply::Output { .. } | Reply::Progress(_) | Reply::End => {}
            Reply::Answer(Answer::Exited(_)) => break,
            Reply::Answer(other) => return Err(HostError::unexpected(host.name(), &other)),
        }
    }
    Ok(read(&String::from_utf8_lossy(&text), host.facts().platform.clone()))
}

/// The interpreter that a build's products are made for.
fn runtime(build: &Build) -> Option<String> {
    match (&build.venv, build.recipe.as_str()) {
        (Some(venv), _) => Some(format!("{venv}/bin/python")),
        (None, "buildout" | "pip" | "uv") => Some("python3".to_owned()),
        (None, "npm") => Some("node".to_owned()),
        (None, _) => None,
    }
}

fn read(text: &str, platform: String) -> Likeness {
    let lines: BTreeMap<&str, String> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name, rest.trim().chars().filter(|c| !c.is_control()).take(200).collect()))
        .collect();
    let line = |name: &str| lines.get(name).cloned().unwrap_or_default();
    let said = lines.get("interpreter").map(String::as_str);
    let is_version = |word: &str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let (interpreter, version) = match said.and_then(|said| said.rsplit_once(' ')).filter(|(_, word)| is_version(word)) {
        Some((interpreter, version)) => (Some(interpreter), Some(version)),
        None => (said, None),
    };
    let [interpreter, version] = [interpreter, version].map(|text| text.map(str::to_owned));
    Likeness { platform, libc: line("libc"), interpreter, version, place: line("place") }
}

impl Likeness {
    /// Says why what `builder` builds does not run here; none where it does. Both sides are named.
    #[must_use]
    pub fn differs_from(&self, builder: &Self, names: (&str, &str)) -> Option<String> {
        let (here, there) = names;
        let differs = |what: &str, mine: &str, theirs: &str| {
            let said = |text: &str| if text.is_empty() { "none that is known".to_owned() } else { format!("`{text}`") };
            format!("{what} differs: `{here}` has {} and `{there}`, which builds, has {}", said(mine), said(theirs))
        };
        if self.platform != builder.platform {
            return Some(differs("the platform", &self.platform, &builder.platform));
        }
        if !runs_with(&self.libc, &builder.libc) {
            return Some(differs("the C library", &self.libc, &builder.libc));
        }
        if self.interpreter != builder.interpreter {
            let text = |likeness: &Self| likeness.interpreter.clone().unwrap_or_default();
            return Some(differs("the interpreter", &text(self), &text(builder)));
        }
        (self.place != builder.place).then(|| differs("the place of the root", &self.place, &builder.place))
    }
}

/// What was linked with one glibc runs with the same and later ones; of any other library nothing is known.
fn runs_with(mine: &str, built: &str) -> bool {
    let version = |text: &str| -> Option<Vec<u32>> {
        let numbers: Option<Vec<u32>> = text.strip_prefix("glibc ")?.split('.').map(|number| number.parse().ok()).collect();
        numbers
    };
    match (version(mine), version(built)) {
        (Some(mine), Some(built)) => mine >= built,
        _ => mine == built && !mine.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Likeness {
        read("libc glibc 2.36\nplace /srv/boskel\ninterpreter cpython-311 cpython-311-x86_64-linux-gnu 3.11.7\n", "x86_64-linux".to_owned())
    }

    #[test]
    fn hosts_that_are_alike_share_a_build_and_a_later_c_library_does_no_harm() {
        let names = ("app02", "app01");
        assert_eq!(host().differs_from(&host(), names), None);
        assert_eq!(host().interpreter.as_deref(), Some("cpython-311 cpython-311-x86_64-linux-gnu"));
        assert_eq!(Likeness { version: Some("3.11.9".into()), ..host() }.differs_from(&host(), names), None);
        assert_eq!(Likeness { libc: "glibc 2.41".into(), ..host() }.differs_from(&host(), names), None);
        assert_eq!(Likeness { libc: "glibc 2.36.1".into(), ..host() }.differs_from(&host(), names), None);
    }

    #[test]
    fn a_difference_names_both_sides() {
        let names = ("app02", "app01");
        for (other, what, mine) in [
            (Likeness { platform: "aarch64-linux".into(), ..host() }, "the platform", "`aarch64-linux`"),
            (Likeness { libc: "glibc 2.31".into(), ..host() }, "the C library", "`glibc 2.31`"),
            (Likeness { libc: "musl libc (x86_64) Version 1.2.5".into(), ..host() }, "the C library", "`musl libc (x86_64) Version 1.2.5`"),
            (Likeness { libc: String::new(), ..host() }, "the C library", "none that is known"),
            (Likeness { interpreter: Some("cpython-312 x".into()), ..host() }, "the interpreter", "`cpython-312 x`"),
            (Likeness { place: "/data/boskel".into(), ..host() }, "the place of the root", "`/data/boskel`"),
        ] {
            let text = other.differs_from(&host(), names).expect(what);
            assert!(text.starts_with(&format!("{what} differs: `app02` has {mine} and `app01`, which builds, has `")), "{text}");
        }
        let unknown = Likeness { libc: String::new(), ..host() };
        assert!(unknown.differs_from(&unknown, names).is_some(), "what is not known is not the same");
    }
}
