//! Walks a directory of this machine into a manifest: what `--tree` sends. Links are kept, never followed; nothing special is taken.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::error::Error;
use crate::exit::Exit;
use crate::git::{Artifact, Content, ContentSource, Contents, oddities, on_two_threads, open_file};
use crate::tree::manifest::{EXECUTABLE, FILE, ManifestError};
use crate::tree::path::PathError;
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};

/// Says why a directory cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("`{}` is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{}` is a {kind}, which cannot be deployed", path.display())]
    Special { path: PathBuf, kind: &'static str },
    #[error("`{}` cannot be a path of a tree: {why}", path.display())]
    Path { path: PathBuf, why: PathError },
    #[error("the directory cannot be deployed")]
    Manifest(#[from] ManifestError),
}

impl From<WalkError> for Error {
    fn from(error: WalkError) -> Self {
        let code = match &error {
            WalkError::NotADirectory(_) => "no-directory",
            WalkError::Unreadable { .. } => "unreadable",
            WalkError::Special { .. } | WalkError::Path { .. } | WalkError::Manifest(_) => "hostile-tree",
        };
        let top = Self::new(Exit::Config, code, error.to_string());
        match std::error::Error::source(&error).map(ToString::to_string) {
            Some(cause) => top.caused_by(cause),
            None => top,
        }
    }
}

/// Reads everything beneath `directory`; every file gets the time `mtime` (`with_times_of` keeps older ones).
pub fn walk(directory: &Path, mtime: i64) -> Result<Artifact, WalkError> {
    if !directory.is_dir() {
        return Err(WalkError::NotADirectory(directory.to_owned()));
    }
    let found = find(directory)?;
    let hashed = on_two_threads(&found, hash_one)?;
    let mut both = Vec::with_capacity(found.len());
    for (found, (size, digest)) in found.into_iter().zip(hashed) {
        let (kind, source) = match found.leaf {
            Leaf::File { executable } => {
                let mode = if executable { EXECUTABLE } else { FILE };
                (Kind::File { mode, size, digest, mtime }, ContentSource::File(found.from))
            }
            Leaf::Link(target) => (Kind::Link { target }, ContentSource::Nothing),
            Leaf::Directory => (Kind::Directory, ContentSource::Nothing),
        };
        both.push((Entry { path: found.path, kind }, Content { size, digest, source }));
    }
    both.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let (entries, contents) = both.into_iter().unzip();
    let manifest = Manifest::new(entries)?;
    let warnings = oddities(&manifest);
    Ok(Artifact { manifest, contents: Contents::new(contents, Vec::new(), Vec::new()), warnings })
}

struct Found {
    path: TreePath,
    from: PathBuf,
    leaf: Leaf,
}

enum Leaf {
    File {
        executable: bool,
    },
    Link(Vec<u8>),
    /// With nothing in it.
    Directory,
}

fn find(directory: &Path) -> Result<Vec<Found>, WalkError> {
    let mut found: Vec<Found> = Vec::new();
    // Contents come before their directory, so that an empty one is told by what came before it.
    let entries = WalkDir::new(directory).min_depth(1).follow_links(false).contents_first(true).sort_by_file_name();
    let mut filled: Option<PathBuf> = None;
    for entry in entries {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(directory).to_owned();
            WalkError::Unreadable { path, error: error.into() }
        })?;
        let from = entry.path().to_owned();
        let unreadable = |error: io::Error| WalkError::Unreadable { path: from.clone(), error };
        let relative = from.strip_prefix(directory).unwrap_or(&from).as_os_str().as_bytes();
        let path = TreePath::new(relative).map_err(|why| WalkError::Path { path: from.clone(), why })?;
        let kind = entry.file_type();
        let leaf = if kind.is_symlink() {
            Leaf::Link(std::fs::read_link(&from).map_err(unreadable)?.into_os_string().as_bytes().to_vec())
        } else if kind.is_file() {
            let mode = entry.metadata().map_err(|error| unreadable(error.into()))?.permissions().mode();
            Leaf::File { executable: mode & 0o100 != 0 }
        } else if kind.is_dir() {
            let empty = filled.as_deref() != Some(&from);
            filled = from.parent().map(Path::to_owned);
            if !empty {
                continue;
            }
            Leaf::Directory
        } else {
            return Err(WalkError::Special { kind: special(kind), path: from });
        };
        filled = from.parent().map(Path::to_owned);
        found.push(Found { path, from, leaf });
    }
    Ok(found)
}

fn special(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_fifo() => "named pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    }
}

fn hash_one(found: &Found) -> Result<(u64, Digest), WalkError> {
    match found.leaf {
        Leaf::File { .. } => {
            let mut hasher = blake3::Hasher::new();
            let unreadable = |error| WalkError::Unreadable { path: found.from.clone(), error };
            hasher.update_reader(open_file(&found.from).map_err(unreadable)?).map_err(unreadable)?;
            Ok((hasher.count(), hasher.finalize().into()))
        }
        Leaf::Link(_) | Leaf::Directory => Ok((0, Digest([0; 32]))),
    }
}
