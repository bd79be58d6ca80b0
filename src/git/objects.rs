//! Objects of one repository, read in-process from any number of threads: each borrows an open `git2::Repository`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ObjectType, Oid};

use super::error::GitError;
use super::isolated::Isolated;

/// The object database of the repository at `path`.
#[derive(Debug)]
pub struct Objects {
    path: PathBuf,
    idle: Mutex<Vec<Handle>>,
    isolated: Mutex<Option<Arc<Isolated>>>,
}

struct Handle(git2::Repository);

impl std::fmt::Debug for Handle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Repository")
    }
}

impl Objects {
    /// Keeps `repository` for the first who asks.
    pub fn new(repository: git2::Repository) -> Self {
        // The controller hashes content itself, and the host verifies it: a second hash of every object buys nothing.
        git2::opts::strict_hash_verification(false);
        Self { path: repository.path().to_owned(), idle: Mutex::new(vec![Handle(repository)]), isolated: Mutex::new(None) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lends an open repository to `work`.
    pub fn with<T>(&self, work: impl FnOnce(&git2::Repository) -> Result<T, GitError>) -> Result<T, GitError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let handle = match idle {
            Some(handle) => handle,
            None => Handle(open(&self.path)?),
        };
        let result = work(&handle.0);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        result
    }

    /// Gives the git directory in which git itself is asked about these objects; it is made when it is first needed.
    pub fn isolated(&self) -> Result<Arc<Isolated>, GitError> {
        let mut slot = self.isolated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(isolated) = &*slot {
            return Ok(Arc::clone(isolated));
        }
        let isolated = Arc::new(self.with(Isolated::new)?);
        Ok(Arc::clone(slot.insert(isolated)))
    }
}

/// Opens the repository at `path`, even where its work tree is gone (a submodule's may be).
pub fn open(path: &Path) -> Result<git2::Repository, git2::Error> {
    let bare = git2::RepositoryOpenFlags::BARE | git2::RepositoryOpenFlags::NO_SEARCH;
    git2::Repository::open(path).or_else(|_| git2::Repository::open_ext(path, bare, [] as [&Path; 0]))
}

/// Reads the object `id`, which must be a `kind`, into memory.
pub fn read(odb: &git2::Odb<'_>, id: Oid, kind: ObjectType) -> Result<Vec<u8>, GitError> {
    let object = odb.read(id).map_err(|source| GitError::Object { id, source })?;
    if object.kind() == kind { Ok(object.data().to_vec()) } else { Err(GitError::Kind { id, is: object.kind(), expected: kind }) }
}
