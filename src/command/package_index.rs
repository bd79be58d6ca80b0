//! The package index as verbs open it: below the user's cache directory, and only where a build is to reach it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::command::scene::{Directories, Scene};
use crate::config::environment::Network;
use crate::error::Error;
use crate::event::{Event, Events, Severity};
use crate::exit::Exit;
use crate::index::{Index, IndexError, Mode, Upstreams};
use crate::tree::path::Shown;

/// Where what was served is kept.
pub fn directory(directories: &Directories) -> PathBuf {
    directories.cache.join("index")
}

/// Opens the index for a run whose builds reach it; what it has to say joins the events of the run.
pub async fn open(scene: &Scene, events: &Events) -> Result<Option<Index>, Error> {
    if !scene.environment.ways().any(|way| way.build.as_ref().is_some_and(|build| build.network == Network::Index)) {
        return Ok(None);
    }
    opened(scene, events, Said::default()).await.map(Some)
}

/// What the index had to say, in its own words.
pub type Said = Arc<Mutex<Vec<String>>>;

/// Opens the index. What it has to say joins the events of the run, and `said`.
pub async fn opened(scene: &Scene, events: &Events, said: Said) -> Result<Index, Error> {
    let environment = &scene.environment;
    let upstreams = Upstreams::resolve(&environment.upstreams, &environment.directory).await.map_err(unusable)?;
    let events = Mutex::new(events.clone());
    let tell = move |notice: crate::index::Notice| {
        let message = Shown(notice.message.as_bytes()).to_string();
        said.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
        events.lock().unwrap_or_else(PoisonError::into_inner).emit(Event::Diagnostic {
            severity: Severity::Warning,
            code: notice.code.to_owned(),
            message,
            hosts: Vec::new(),
            evidence: Vec::new(),
            state: None,
            help: Vec::new(),
        });
    };
    Index::open(&directory(&scene.directories), upstreams, Mode::Online, Arc::new(tell)).map_err(unusable)
}

/// The error of an index that cannot be opened.
pub fn unusable(error: IndexError) -> Error {
    let (exit, hint) = match &error {
        IndexError::Credential { .. } => (Exit::Config, "put the secret where `[index]` of deploy.toml says, or say another place"),
        IndexError::Unreachable { .. } => (Exit::Config, "mend the `url` in `[index]` of deploy.toml"),
        IndexError::Missing(_)
        | IndexError::Offline(_)
        | IndexError::Name(_)
        | IndexError::Status { .. }
        | IndexError::Garbled { .. }
        | IndexError::TooLong { .. }
        | IndexError::Poisoned { .. }
        | IndexError::Unverifiable(_)
        | IndexError::Disk { .. }
        | IndexError::Foreign { .. }
        | IndexError::Internal(_) => (Exit::Usage, "it keeps packages below XDG_CACHE_HOME; that must be a directory of yours"),
    };
    Error::new(exit, "index", "the package index cannot be opened").caused_by(error).hint(hint)
}
