//! Puts a helper on a host and starts it, through one command line of one shape, whatever the login shell and whichever session.
//!
//! The script tells the controller how far it is by lines that begin with a random marker; what a shell's start-up files print before
//! it is noise. A helper is found by its digest, or asked for and sent as bare bytes on the same pipe. See `SCRIPT`.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::diagnostics::shown_lines;
use super::{ConnectError, Opener, Pipe};
use crate::config::environment::HostPath;
use crate::tree::path::Shown;
use crate::wire::DEAD_MS;

/// What a host may print before the marker.
const NOISE_LIMIT: usize = 64 * 1024;
/// A line of ours is never longer.
const LINE_LIMIT: usize = 8 * 1024;
/// The slowest line that a helper is sent over, in bytes a second.
const SLOWEST: u64 = 4 * 1024;
const CHUNK: usize = 16 * 1024;

/// Runs in `/bin/sh` with the arguments marker, digest, size, root, and `find` or `fresh`. It has no single quote, backslash, `!` or
/// newline, so that sh, bash, dash, busybox, zsh, csh, tcsh and fish all pass it on unchanged between single quotes.
///
/// Only directories and files of the user's own are trusted. Whether programs can be run from a directory is tried before the helper is
/// asked for, since its bytes come only once.
const SCRIPT: &str = concat!(
    // A limit on the size of files is an error that can be told, not the end of the helper: 25 is SIGXFSZ, and what is ignored stays so.
    r#"trap "" 25; umask 077; m=$1; d=$2; n=$3; r=$4; w=; c=; f=$5; "#,
    r#"set -- "$r/.deployer/helper" "${HOME:+$HOME/.cache/deployer/helper}" "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/deployer}"; "#,
    r#"if [ "$f" = find ]; then for p in "$@"; do if [ -n "$p" ] && [ -f "$p/$d" ] && [ -x "$p/$d" ] && [ -O "$p/$d" ]; "#,
    r#"then echo "$m run"; exec "$p/$d" serve "$m" "$r" "$d"; fi; done; fi; "#,
    r#"for p in "$@"; do [ -n "$p" ] || continue; case $p in "$r"/*) [ -d "$r" ] || continue;; esac; t=$p/.$m; "#,
    r#"if mkdir -p "$p" && [ -O "$p" ] && chmod 700 "$p" && echo >"$t" && chmod 700 "$t"; "#,
    r#"then if [ -x "$t" ]; then c=$p; break; fi; rm -f "$t"; w="$w, $p: noexec"; else w="$w, $p: not writable"; fi; done 2>/dev/null; "#,
    r#"if [ -z "$c" ]; then echo "$m none $w"; exit 1; fi; "#,
    r#"echo "$m need $(uname -sm)"; head -c "$n" >"$t"; "#,
    r#"if [ $(wc -c <"$t") -ne "$n" ]; then rm -f "$t"; echo "$m short"; exit 1; fi; "#,
    r#"if command -v sha256sum >/dev/null 2>&1; then case $(sha256sum <"$t") in "$d"*) ;; *) rm -f "$t"; echo "$m corrupt"; exit 1;; esac; fi; "#,
    r#"mv -f "$t" "$c/$d" || exit 1; find "$c" -type f -mtime +30 -exec rm -f {} + 2>/dev/null; "#,
    r#"echo "$m run"; exec "$c/$d" serve "$m" "$r" "$d""#,
);

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A helper's bytes, and what they are for.
#[derive(Clone, Debug)]
pub struct Helper {
    pub bytes: std::borrow::Cow<'static, [u8]>,
    /// SHA-256, since that is what hosts can check.
    pub digest: String,
    /// `x86_64-linux`.
    pub platform: String,
}

impl Helper {
    #[must_use]
    pub fn new(bytes: std::borrow::Cow<'static, [u8]>, platform: String) -> Self {
        let digest = hex(&Sha256::digest(&bytes));
        Self { bytes, digest, platform }
    }
}

/// The helper that is part of this program.
#[must_use]
pub fn embedded() -> &'static Helper {
    static HELPER: OnceLock<Helper> = OnceLock::new();
    let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    HELPER.get_or_init(|| Helper::new(include_bytes!(concat!(env!("OUT_DIR"), "/helper.bin")).into(), platform))
}

/// A helper that has checked itself and speaks.
pub struct Started {
    pub pipe: Pipe,
    /// What was read beyond the helper's first line: the beginning of its frames.
    pub early: Vec<u8>,
    /// What the host printed before, escaped.
    pub noise: Vec<String>,
    /// Bytes of the helper that had to be sent.
    pub uploaded: u64,
}

/// How one attempt ended without a helper that runs, in a way that another attempt may mend.
enum Attempt {
    Started(Box<Started>),
    /// The host is of this platform, as `uname -sm` says.
    Needs(String),
    /// The file is there and does not run, or is not what its name says.
    Broken {
        why: String,
        printed: Vec<String>,
    },
}

/// Starts a helper on the host, putting it there first where need be.
///
/// # Errors
/// The host cannot be reached, its shell does not run the command line, or no helper can be put there and run.
pub async fn start(opener: &Opener, root: &HostPath, timeout: Duration) -> Result<Started, ConnectError> {
    start_with(opener, root, timeout, embedded().clone()).await
}

pub(super) async fn start_with(opener: &Opener, root: &HostPath, timeout: Duration, helper: Helper) -> Result<Started, ConnectError> {
    let host = &opener.name;
    let (mut helper, mut fresh) = (helper, false);
    let ours = helper.platform.clone();
    loop {
        match attempt(opener, root, timeout, &helper, fresh).await? {
            Attempt::Started(started) => return Ok(*started),
            Attempt::Needs(theirs) => {
                let refused = |missing| ConnectError::Platform { host: host.clone(), theirs: theirs.clone(), ours: ours.clone(), missing };
                let platform = platform(&theirs).ok_or_else(|| refused(None))?;
                if helper.platform == platform {
                    return Err(ConnectError::Protocol { host: host.clone(), why: format!("it changed its platform to `{theirs}`") });
                }
                let path = helpers_directory().map(|directory| directory.join(&platform));
                let shown = path.as_ref().map_or_else(|| platform.clone(), |path| path.display().to_string());
                let bytes = path.and_then(|path| std::fs::read(path).ok()).ok_or_else(|| refused(Some(shown)))?;
                helper = Helper::new(bytes.into(), platform);
            }
            Attempt::Broken { .. } if !fresh => fresh = true,
            Attempt::Broken { why, printed } => return Err(ConnectError::NoHelper { host: host.clone(), why, printed }),
        }
    }
}

/// Where helpers for other platforms are.
fn helpers_directory() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("DEPLOYER_HELPERS").or_else(|| {
        let data = absolute("XDG_DATA_HOME").or_else(|| Some(etcetera::home_dir().ok()?.join(".local/share")))?;
        Some(data.join("deployer/helpers"))
    })
}

/// Every helper that is here, by platform: the one of this program, and those in the helpers directory.
#[must_use]
pub fn helpers() -> Vec<(String, Vec<u8>)> {
    let own = embedded();
    let mut found = vec![(own.platform.clone(), own.bytes.to_vec())];
    let entries = helpers_directory().and_then(|directory| std::fs::read_dir(directory).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_platform(&name)
            && name != own.platform
            && let Ok(bytes) = std::fs::read(entry.path())
        {
            found.push((name, bytes));
        }
    }
    found.sort();
    found
}

/// Keeps helpers in the helpers directory, for other platforms than the one that this program has.
pub fn keep_helpers(helpers: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    let others = helpers.iter().filter(|(platform, _)| is_platform(platform) && *platform != embedded().platform);
    for (platform, bytes) in others {
        let Some(directory) = helpers_directory() else { break };
        std::fs::create_dir_all(&directory)?;
        let mut file = tempfile::NamedTempFile::new_in(&directory)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.persist(directory.join(platform)).map_err(|error| error.error)?;
    }
    Ok(())
}

/// Tells whether a name is that of a platform, and so of a file and nothing else.
fn is_platform(name: &str) -> bool {
    name.strip_suffix("-linux")
        .is_some_and(|arch| !arch.is_empty() && arch.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// Names the platform of a host as helpers are named. None where there can be no helper.
fn platform(uname: &str) -> Option<String> {
    let machine = uname.strip_prefix("Linux ")?;
    let arch = match machine {
        "arm64" => "aarch64",
        "i386" | "i486" | "i586" | "i686" => "x86",
        arm if arm.starts_with("armv") => "arm",
        other if !other.is_empty() && other.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => other,
        _ => return None,
    };
    Some(format!("{arch}-linux"))
}

/// The command line. Its only variable parts are hex digits, a number, and a path of plain characters.
fn command_line(marker: &str, helper: &Helper, root: &HostPath, fresh: bool) -> String {
    let mode = if fresh { "fresh" } else { "find" };
    format!("exec /bin/sh -c '{SCRIPT}' deployer {marker} {} {} {root} {mode}", helper.digest, helper.bytes.len())
}

async fn attempt(opener: &Opener, root: &HostPath, timeout: Duration, helper: &Helper, fresh: bool) -> Result<Attempt, ConnectError> {
    let host = opener.name.clone();
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)
        .map_err(|error| ConnectError::Protocol { host: host.clone(), why: format!("there is no randomness: {error}") })?;
    let marker = hex(&random);
    // Held until the host has answered: then it has let the user in.
    let permits = opener.enter().await;
    let pipe = match opener.open(&command_line(&marker, helper, root, fresh)).await {
        Ok(pipe) => pipe,
        Err(error) => return Err(ConnectError::Session(opener.explain(error).await)),
    };
    let mut talk = Talk { pipe, marker: marker.into_bytes(), buffer: Vec::new(), noise: Vec::new() };
    // `ssh` is still connecting and authenticating at this point.
    let patience = timeout * 3;
    let first = match talk.next(patience).await {
        Ok(said) => said,
        Err(silence) => {
            return Err(match talk.explain(host, silence, patience).await {
                ConnectError::Session(error) => ConnectError::Session(opener.explain(error).await),
                other => other,
            });
        }
    };
    drop(permits);
    let uploaded = match first {
        Said::Run => 0,
        Said::Need(theirs) if platform(&theirs).as_ref() != Some(&helper.platform) => return Ok(Attempt::Needs(theirs)),
        Said::Need(_) => {
            if let Some(broken) = talk.upload(&helper.bytes).await {
                return Ok(broken);
            }
            helper.bytes.len() as u64
        }
        Said::None(tried) => return Err(ConnectError::Noexec { host, tried: tried.trim_start_matches([',', ' ']).to_owned() }),
        Said::Corrupt | Said::Short | Said::Ok => return Err(ConnectError::Protocol { host, why: "it answered out of turn".to_owned() }),
    };
    let why = match talk.next(Duration::from_millis(DEAD_MS)).await {
        Ok(Said::Ok) => {
            let noise = shown_lines(&talk.noise).take(20).collect();
            return Ok(Attempt::Started(Box::new(Started { pipe: talk.pipe, early: talk.buffer, noise, uploaded })));
        }
        Ok(Said::Corrupt) => "its file is not what was sent",
        Ok(Said::Run | Said::Need(_) | Said::None(_) | Said::Short) => "it answered out of turn",
        Err(Silence::Ended) => "it ended before it said anything",
        Err(Silence::Late) => "it said nothing",
        Err(Silence::Noise) => "what it says is not the protocol",
    };
    Ok(talk.broken(why).await)
}

/// What the script or the helper says after the marker.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Run,
    Need(String),
    None(String),
    Corrupt,
    Short,
    Ok,
}

/// Why nothing was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Ended,
    Late,
    Noise,
}

struct Talk {
    pipe: Pipe,
    marker: Vec<u8>,
    buffer: Vec<u8>,
    noise: Vec<u8>,
}

impl Talk {
    /// Waits for the next line of ours, and keeps what comes before it as noise.
    async fn next(&mut self, patience: Duration) -> Result<Said, Silence> {
        let mut deadline = Instant::now() + patience;
        let mut chunk = vec![0; 4096];
        loop {
            while let Some((start, end)) = self.line() {
                let said = parse(&self.buffer[start + self.marker.len()..end]);
                self.noise.extend_from_slice(&self.buffer[..start]);
                self.buffer.drain(..=end);
                // A shell that echoes what it runs shows the marker too, followed by something else.
                if let Some(said) = said {
                    return Ok(said);
                }
            }
            if self.noise.len() + self.buffer.len() > NOISE_LIMIT {
                self.noise.append(&mut self.buffer);
                return Err(Silence::Noise);
            }
            match tokio::time::timeout_at(deadline, self.pipe.reader.read(&mut chunk)).await {
                // While a person is typing, time stands still.
                Err(_) if super::ask::busy() => deadline += patience,
                Ok(Ok(count @ 1..)) => self.buffer.extend_from_slice(&chunk[..count]),
                Ok(Ok(0) | Err(_)) => {
                    self.noise.append(&mut self.buffer);
                    return Err(Silence::Ended);
                }
                Err(_) => {
                    self.noise.append(&mut self.buffer);
                    return Err(Silence::Late);
                }
            }
        }
    }

    /// Finds the marker and the end of its line.
    fn line(&self) -> Option<(usize, usize)> {
        let start = self.buffer.windows(self.marker.len()).position(|window| window == self.marker)?;
        let length = self.buffer[start..].iter().position(|byte| *byte == b'\n')?;
        Some((start, start + length))
    }

    /// Sends the helper. Gives how it failed, if it did.
    async fn upload(&mut self, bytes: &[u8]) -> Option<Attempt> {
        let stall = Duration::from_millis(DEAD_MS);
        for chunk in bytes.chunks(CHUNK) {
            match tokio::time::timeout(stall, self.pipe.writer.write_all(chunk)).await {
                Ok(Ok(())) => {}
                // The script says why it stopped reading.
                Ok(Err(_)) => break,
                Err(_) => return Some(self.broken("the host stopped taking its bytes").await),
            }
        }
        let _ = tokio::time::timeout(stall, self.pipe.writer.flush()).await;
        // Much of it may still be in buffers on the way.
        let why = match self.next(stall + Duration::from_secs(bytes.len() as u64 / SLOWEST)).await {
            Ok(Said::Run) => return None,
            Ok(Said::Short) => "the host could not store it",
            Ok(Said::Corrupt) => "what arrived is not what was sent",
            Ok(Said::Need(_) | Said::None(_) | Said::Ok) => "it answered out of turn",
            Err(Silence::Ended | Silence::Noise) => "the host ended the connection while it was sent",
            Err(Silence::Late) => "the host did not store it in time",
        };
        Some(self.broken(why).await)
    }

    async fn broken(&mut self, why: &str) -> Attempt {
        Attempt::Broken { why: why.to_owned(), printed: self.printed().await }
    }

    /// The first lines the host printed, and the last of its stderr.
    async fn printed(&mut self) -> Vec<String> {
        self.pipe.diagnostics.settle(Duration::from_millis(500)).await;
        shown_lines(&self.noise).take(10).chain(self.pipe.diagnostics.lines(10)).collect()
    }

    /// Explains why the marker did not come: ssh gave up, or the login shell did something else.
    async fn explain(&mut self, host: String, silence: Silence, patience: Duration) -> ConnectError {
        if silence == Silence::Ended
            && self.noise.is_empty()
            && let Some(error) = self.pipe.diagnostics.verdict().await
        {
            return ConnectError::Session(error);
        }
        let why = match silence {
            Silence::Ended => "it ended without doing so".to_owned(),
            Silence::Late => format!("nothing came of it for {} s", patience.as_secs_f32()),
            Silence::Noise => "it printed more than 64 KiB of something else".to_owned(),
        };
        ConnectError::Shell { host, why, printed: self.printed().await }
    }
}

/// Reads what follows the marker on its line.
fn parse(rest: &[u8]) -> Option<Said> {
    if rest.len() > LINE_LIMIT {
        return None;
    }
    let text = Shown(rest.strip_suffix(b"\r").unwrap_or(rest)).to_string();
    let (word, rest) = text.strip_prefix(' ')?.split_once(' ').unwrap_or((text.trim_start(), ""));
    match (word, rest) {
        ("run", "") => Some(Said::Run),
        ("ok", "") => Some(Said::Ok),
        ("corrupt", "") => Some(Said::Corrupt),
        ("short", "") => Some(Said::Short),
        ("need", platform) => Some(Said::Need(platform.to_owned())),
        ("none", tried) => Some(Said::None(tried.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_passes_unchanged_through_every_login_shell() {
        assert!(!SCRIPT.contains(['\'', '\\', '!', '\n', '\r']) && SCRIPT.is_ascii());
        assert!(SCRIPT.len() < 2048, "csh knows words of a limited length");
    }

    #[test]
    fn the_helper_that_is_sent_has_nothing_of_what_tests_ask_of_one() {
        for name in [&b"DEPLOYER_SEEDED_BUG"[..], b"DEPLOYER_TRACED", b"SealBeforeVerify"] {
            assert!(!embedded().bytes.windows(name.len()).any(|bytes| bytes == name), "{}", String::from_utf8_lossy(name));
        }
        // The control: what it does say is found that way.
        let said = b"is not a release of this host";
        assert!(embedded().bytes.windows(said.len()).any(|bytes| bytes == said));
    }

    #[test]
    fn a_marker_that_a_shell_echoes_is_not_an_answer() {
        assert_eq!(parse(b" 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c 123 /srv/app find"), None);
        assert_eq!(parse(b" need Linux x86_64"), Some(Said::Need("Linux x86_64".to_owned())));
        assert_eq!(parse(b" run\r"), Some(Said::Run));
        assert_eq!(parse(b"run"), None);
    }

    #[test]
    fn platforms_are_named_as_helpers_are() {
        assert_eq!(platform("Linux x86_64").as_deref(), Some("x86_64-linux"));
        assert_eq!(platform("Linux armv7l").as_deref(), Some("arm-linux"));
        for none in ["Darwin arm64", "Linux ../../x", "Linux ", ""] {
            assert_eq!(platform(none), None, "{none}");
        }
    }
}
