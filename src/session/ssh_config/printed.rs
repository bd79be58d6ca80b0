//! What `ssh -G` prints, asked once: within a run it is remembered by what was asked and the digest of the configuration, and across
//! runs in a file of the cache directory. Where files do not say it all (`Match exec`), ssh is asked each time.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::super::{diagnostics, process};
use super::{files, strict};

/// How long an answer that nobody asks for is kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is asked of ssh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub address: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub file: Option<PathBuf>,
}

/// What ssh says, and what it would say without any configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Printed {
    pub text: String,
    /// None without an `ssh` on this machine.
    pub plain: Option<String>,
    pub home: PathBuf,
}

type Memory = LazyLock<Mutex<HashMap<(Query, [u8; 32]), Arc<OnceCell<String>>>>>;

static MEMORY: Memory = LazyLock::new(Mutex::default);
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Says where answers are kept from run to run. Without it they are not.
pub fn remember_in(cache: &Path) {
    DIRECTORY.get_or_init(|| cache.join("ssh"));
}

impl Query {
    /// The flags that `ssh` and `ssh -G` take for what `deploy.toml` and the command line say.
    pub fn flags(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = Vec::new();
        if let Some(file) = &self.file {
            flags.extend(["-F".into(), file.into()]);
        }
        if let Some(user) = &self.user {
            flags.extend(["-l".into(), user.into()]);
        }
        if let Some(port) = self.port {
            flags.extend(["-p".into(), port.to_string().into()]);
        }
        flags
    }
}

/// Asks ssh, or reads the configuration strictly where there is no ssh.
pub(super) async fn printed(query: &Query) -> Result<Printed, String> {
    let nothing = Query { address: "localhost".to_owned(), user: None, port: None, file: Some("none".into()) };
    let none_read = files::digest(nothing.file.as_deref(), Path::new("/"));
    let Some(plain) = remembered(&nothing, none_read).await? else {
        let home = etcetera::home_dir().unwrap_or_default();
        return Ok(Printed { text: strict::evaluate(query, &home)?, plain: None, home });
    };
    let home = home(&plain);
    let digest = files::digest(query.file.as_deref(), &home);
    let text = remembered(query, digest).await?.ok_or("`ssh` is gone")?;
    Ok(Printed { text, plain: Some(plain), home })
}

/// ssh takes the home directory of the user database, not `$HOME`; its default file of known hosts tells which that is.
fn home(plain: &str) -> PathBuf {
    let known = plain.lines().find_map(|line| line.strip_prefix("userknownhostsfile "));
    let first = known.and_then(|paths| paths.split("/.ssh/known_hosts").next()).filter(|path| path.starts_with('/'));
    first.map_or_else(|| etcetera::home_dir().unwrap_or_default(), PathBuf::from)
}

/// Gives None where there is no ssh.
async fn remembered(query: &Query, digest: Option<[u8; 32]>) -> Result<Option<String>, String> {
    let Some(program) = program() else { return Ok(None) };
    let Some(digest) = digest else { return ask(query).await };
    let cell = {
        let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(memory.entry((query.clone(), digest)).or_default())
    };
    let text = cell
        .get_or_try_init(|| async {
            let kept = DIRECTORY.get().map(|directory| directory.join(name(query, &digest, &program)));
            if let Some(text) = kept.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) {
                return Ok(text);
            }
            let text = ask(query).await.and_then(|text| text.ok_or_else(|| "`ssh` is gone".to_owned()))?;
            if let Some(path) = kept {
                // An answer that cannot be kept is asked for again.
                let _ = keep(&path, &text);
            }
            Ok::<_, String>(text)
        })
        .await?;
    Ok(Some(text.clone()))
}

async fn ask(query: &Query) -> Result<Option<String>, String> {
    let mut ssh = process::command("ssh");
    ssh.arg("-G").args(query.flags()).arg("--").arg(&query.address);
    match process::capture(ssh, Duration::from_secs(20)).await {
        Ok(output) if output.status.success() => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(output) => {
            let noise = "Pseudo-terminal will not be allocated";
            let said: Vec<String> = diagnostics::shown_lines(&output.stderr).filter(|line| !line.starts_with(noise)).collect();
            Err(if said.is_empty() { output.status.to_string() } else { said.join("; ") })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("`ssh -G`: {error}")),
    }
}

/// The `ssh` that would be run, as its path, size and time: another one may say something else.
fn program() -> Option<String> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join("ssh")).find(|path| path.is_file())?;
    let meta = std::fs::metadata(&found).ok()?;
    Some(format!("{} {} {:?}", found.display(), meta.len(), meta.modified().ok()?))
}

/// Everything that an answer depends on, as a file name.
fn name(query: &Query, digest: &[u8; 32], program: &str) -> String {
    let system = rustix::system::uname();
    let me = (rustix::process::getuid().as_raw(), system.nodename().to_string_lossy().into_owned());
    let hash = Sha256::digest(format!("{query:?} {digest:?} {program} {me:?}"));
    hash.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Writes by rename, and once a run throws away what is old.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    static SWEPT: OnceLock<()> = OnceLock::new();
    let Some(directory) = path.parent() else { return Ok(()) };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    SWEPT.get_or_init(|| sweep(directory));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_remembered_until_the_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let query = Query { address: "app".into(), user: None, port: None, file: Some(file.clone()) };
        for port in ["2201", "2202"] {
            std::fs::write(&file, format!("Host app\nPort {port}\n")).unwrap();
            for _ in 0..2 {
                assert!(printed(&query).await.unwrap().text.contains(&format!("\nport {port}\n")));
            }
        }
        let count = directory.path().join("count");
        std::fs::write(&file, format!("Match host app exec \"echo >>{}\"\nPort 7\n", count.display())).unwrap();
        for _ in 0..3 {
            assert!(printed(&query).await.unwrap().text.contains("\nport 7\n"));
        }
        assert_eq!(std::fs::read_to_string(count).unwrap().lines().count(), 3, "`Match exec` is run each time");
    }
}
