//! A throw-away git directory that sees the objects and refs of a repository and nothing else of it: no configuration, filters,
//! hooks, `info/attributes`, grafts or replacements. What git's own formats need is asked of the system's git in here.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::command::Call;
use super::error::GitError;

/// The directory; it goes when this is dropped.
#[derive(Debug)]
pub struct Isolated {
    directory: TempDir,
    objects: PathBuf,
}

impl Isolated {
    /// Makes the directory for `repository`.
    pub fn new(repository: &git2::Repository) -> Result<Self, GitError> {
        let failed =
            |error: io::Error| GitError::Io { what: "a temporary git directory could not be written", path: std::env::temp_dir(), error };
        let directory = TempDir::with_prefix("deployer-git-").map_err(failed)?;
        let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).map_err(failed);
        for name in ["refs", "objects", "work"] {
            fs::create_dir(directory.path().join(name)).map_err(failed)?;
        }
        write("config", b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n")?;
        write("HEAD", head(repository)?.as_slice())?;
        write("packed-refs", references(repository)?.as_slice())?;
        match fs::read(repository.commondir().join("shallow")) {
            Ok(shallow) => write("shallow", &shallow)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let objects = repository.commondir().join("objects");
        let objects =
            objects.canonicalize().map_err(|error| GitError::Io { what: "the object directory cannot be read", path: objects, error })?;
        Ok(Self { directory, objects })
    }

    /// The work tree, always empty: where calls run.
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Describes a call of git that sees this directory, and no configuration but what is written here.
    pub fn call(&self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Call {
        let options =
            ["core.autocrlf=false", "core.eol=lf", "core.attributesFile=/dev/null", "core.hooksPath=/dev/null", "core.fsmonitor=false"];
        let options = options.iter().flat_map(|option| ["-c", option]).map(OsString::from);
        let inherited = std::env::vars_os().map(|(name, _)| name).filter(|name| name.as_bytes().starts_with(b"GIT_"));
        let mut environment: Vec<(OsString, Option<OsString>)> = inherited.map(|name| (name, None)).collect();
        let home = self.directory.path().as_os_str();
        let ours = [
            ("GIT_DIR", home),
            ("GIT_WORK_TREE", self.work().as_os_str()),
            ("GIT_OBJECT_DIRECTORY", self.objects.as_os_str()),
            ("GIT_CONFIG_NOSYSTEM", "1".as_ref()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".as_ref()),
            // An older git (before 2.32) knows no GIT_CONFIG_GLOBAL.
            ("HOME", home),
            ("XDG_CONFIG_HOME", home),
            ("GIT_ATTR_NOSYSTEM", "1".as_ref()),
            ("GIT_NO_REPLACE_OBJECTS", "1".as_ref()),
            ("GIT_LITERAL_PATHSPECS", "1".as_ref()),
            ("GIT_OPTIONAL_LOCKS", "0".as_ref()),
            ("GIT_TERMINAL_PROMPT", "0".as_ref()),
        ]
        .map(|(name, value)| (name.into(), Some(value.to_owned())));
        environment.extend(ours);
        Call { arguments: options.chain(arguments.into_iter().map(Into::into)).collect(), environment, input: Vec::new(), apart: false }
    }
}

/// `HEAD` as a file: formats like `%D` and `%(describe)` show it.
fn head(repository: &git2::Repository) -> Result<Vec<u8>, GitError> {
    let head = repository.find_reference("HEAD")?;
    Ok(match (head.symbolic_target_bytes(), head.target()) {
        (Some(target), _) => [b"ref: ", target, b"\n"].concat(),
        (None, Some(id)) => format!("{id}\n").into_bytes(),
        (None, None) => b"ref: refs/heads/master\n".to_vec(),
    })
}

fn references(repository: &git2::Repository) -> Result<Vec<u8>, GitError> {
    let mut lines = Vec::new();
    for reference in repository.references()? {
        let reference = reference?;
        // A symbolic reference to nothing (a remote's deleted HEAD) is none.
        let Some(id) = reference.resolve().ok().and_then(|resolved| resolved.target()) else { continue };
        lines.push((reference.name_bytes().to_vec(), id));
    }
    lines.sort();
    let mut file = Vec::new();
    for (name, id) in lines {
        let mut line = String::new();
        let _ = write!(line, "{id} ");
        file.extend_from_slice(line.as_bytes());
        file.extend_from_slice(&name);
        file.push(b'\n');
    }
    Ok(file)
}
