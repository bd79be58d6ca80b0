//! Finds `deploy.toml` and reads it; what it says is for `config`.

use std::path::{Path, PathBuf};

use crate::config::{self, File};
use crate::error::Error;
use crate::exit::Exit;

const NAME: &str = "deploy.toml";

/// Finds the file: the one that was named, else `deploy.toml` in `start` or above it, up to the root of the repository.
pub fn discover(start: &Path, explicit: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = explicit {
        let path = start.join(path);
        return if path.is_file() { Ok(path) } else { Err(missing(format!("there is no file `{}`", path.display()))) };
    }
    let absolute = std::path::absolute(start).map_err(|error| unreadable(start, error))?;
    let mut last = absolute.as_path();
    for directory in absolute.ancestors() {
        let path = directory.join(NAME);
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(unreadable(&path, error)),
            Ok(_) | Err(_) => {}
        }
        last = directory;
        if directory.join(".git").exists() {
            break;
        }
    }
    let what = if last == absolute {
        format!("there is no `{NAME}` in `{}`, the root of the repository", absolute.display())
    } else {
        format!("there is no `{NAME}` in `{}` or above it, up to `{}`", absolute.display(), last.display())
    };
    Err(missing(what))
}

fn missing(what: String) -> Error {
    Error::new(Exit::Config, "no-config", what)
        .hint("write one: copy `deploy.toml.example` to the root of your repository and edit it")
        .hint("or name it: `deployer deploy -c FILE`, `deployer deploy -C DIR`")
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Exit::Config, "config-unreadable", format!("`{}` cannot be read", path.display())).caused_by(error)
}

/// Reads and parses the file at `path`. Errors call it by its path from the current directory.
pub fn load(path: &Path) -> Result<File, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
    let current = std::env::current_dir().unwrap_or_default();
    let shown = path.strip_prefix(&current).unwrap_or(path);
    config::named(&shown.display().to_string(), path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_searched_upward_and_not_beyond_the_repository() {
        let directory = tempfile::tempdir().unwrap();
        let outer = directory.path();
        let repository = outer.join("repository");
        let deep = repository.join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir(repository.join(".git")).unwrap();
        std::fs::write(outer.join(NAME), "schema = 1").unwrap();

        let error = discover(&deep, None).unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        assert_eq!(error.what, format!("there is no `deploy.toml` in `{}` or above it, up to `{}`", deep.display(), repository.display()));
        let error = discover(&repository, None).unwrap_err();
        assert_eq!(error.what, format!("there is no `deploy.toml` in `{}`, the root of the repository", repository.display()));

        std::fs::write(repository.join(NAME), "schema = 1").unwrap();
        assert_eq!(discover(&deep, None).unwrap(), repository.join(NAME));
        assert_eq!(discover(&repository, None).unwrap(), repository.join(NAME));
    }

    #[test]
    fn a_named_file_starts_at_the_start_directory_and_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("other.toml"), "schema = 1\nproject = \"p\"\n").unwrap();
        let found = discover(directory.path(), Some(Path::new("other.toml"))).unwrap();
        assert_eq!(load(&found).unwrap().environments(), Vec::<String>::new());
        assert_eq!(discover(directory.path(), Some(Path::new("no.toml"))).unwrap_err().code, "no-config");
        std::fs::write(directory.path().join("bytes.toml"), b"\xff").unwrap();
        assert_eq!(load(&directory.path().join("bytes.toml")).unwrap_err().code, "config-unreadable");
    }
}
