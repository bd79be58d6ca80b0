//! The package index as verbs open it: below the user's cache directory, and only where a build is to reach it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::command::scene::{Directories, Scene};
use crate::config::environment::Network;
use crate::error::Error;
use crate::event::{Event, Events, Severity};
use crate::exit::Exit;
use crate::index::{Index, IndexError, Mode, Remark, Upstreams};
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
    opened(scene, events).await.map(Some)
}

/// Opens the index, whether builds reach it or not.
pub async fn opened(scene: &Scene, events: &Events) -> Result<Index, Error> {
    let environment = &scene.environment;
    let upstreams = Upstreams::resolve(&environment.upstreams, &environment.directory).await.map_err(unusable)?;
    let events = Mutex::new(events.clone());
    let tell = move |notice: crate::index::Notice| {
        events.lock().unwrap_or_else(PoisonError::into_inner).emit(Event::Diagnostic {
            severity: Severity::Warning,
            code: notice.code.to_owned(),
            message: Shown(notice.message.as_bytes()).to_string(),
            hosts: Vec::new(),
            evidence: Vec::new(),
            state: None,
            help: Vec::new(),
        });
    };
    Index::open(&directory(&scene.directories), upstreams, Mode::Online, Arc::new(tell)).map_err(unusable)
}

/// Signs of a package, or of a version of it, that a build did not find where it looked.
const NOT_FOUND: [&str; 8] = [
    "Couldn't find a distribution for",
    "No matching distribution found for",
    "Could not find a version that satisfies the requirement",
    "there is no version of",
    "was not found in the package registry",
    "No matching version found for",
    "no matching package named",
    "failed to select a version for the requirement",
];

/// Says why a build that failed did not get its packages, in the words of the index that it used: `remarks` is what is to be said of the
/// answers it got, and `tail` the last that it printed.
#[must_use]
pub fn why(remarks: &[Remark], tail: &[String]) -> Option<String> {
    let plain = |text: &str| format!("the package index: {}", Shown(text.as_bytes()));
    // A page that may lack something is to blame where that is what the build did not find.
    let doubt = remarks.iter().rev().find_map(|remark| match remark {
        Remark::Doubt { package, why } if lacks(tail, package) => Some(plain(why)),
        Remark::Doubt { .. } | Remark::Fault(_) | Remark::Missing(_) => None,
    });
    let fault = || {
        remarks.iter().rev().find_map(|remark| match remark {
            Remark::Fault(error) => Some(plain(&error.advised())),
            Remark::Doubt { .. } | Remark::Missing(_) => None,
        })
    };
    doubt.or_else(fault)
}

/// Names what a build was told that there is none of, where it says so itself: the reason that is left when no other is known.
#[must_use]
pub fn missing(remarks: &[Remark], tail: &[String]) -> Option<String> {
    remarks.iter().rev().find_map(|remark| match remark {
        Remark::Missing(name) => {
            // A scope and its name are one part of a path.
            let name = name.replace("%2f", "/");
            let is_told = tail.iter().any(|line| line.contains("404") && names(line, &name));
            is_told.then(|| {
                let name = Shown(name.as_bytes());
                format!("the package index has no `{name}`: correct the name or the version, or let `[index]` name an upstream that has it")
            })
        }
        Remark::Fault(_) | Remark::Doubt { .. } => None,
    })
}

/// Tells whether a build says that it did not find a package.
fn lacks(tail: &[String], package: &str) -> bool {
    tail.iter().any(|line| NOT_FOUND.iter().any(|sign| line.contains(sign)) && names(line, package))
}

/// Tells whether a line has the name of a package in it, however it is spelled.
fn names(line: &str, package: &str) -> bool {
    let normal = |text: &str| text.to_ascii_lowercase().replace(['_', '.'], "-");
    let (line, package) = (normal(line), normal(package));
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-');
    line.match_indices(&package).any(|(at, _)| edge(line[..at].chars().next_back()) && edge(line[at + package.len()..].chars().next()))
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
        | IndexError::Denied { .. }
        | IndexError::Gone { .. }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_fault_explains_a_build_and_a_doubt_only_one_that_did_not_find_what_is_doubted() {
        let fault = |status| Remark::Fault(IndexError::Status { url: format!("https://x/{status}"), status });
        let doubt = |package: &str| Remark::Doubt { package: package.to_owned(), why: format!("`{package}` is old") };
        let tail = lines("ERROR: No matching distribution found for Zope_Interface>=6 (from x)\n");
        assert_eq!(why(&[], &tail), None);
        assert_eq!(why(&[Remark::Missing("zope-interface".to_owned())], &tail), None);
        assert_eq!(why(&[fault(500), doubt("zope-interface"), fault(501)], &tail).unwrap(), "the package index: `zope-interface` is old");
        let last = why(&[fault(500), doubt("zope"), doubt("interface"), fault(503)], &tail).unwrap();
        assert!(last.starts_with("the package index: `https://x/503` answers 503; "), "{last}");
        assert_eq!(why(&[doubt("zope-interface")], &lines("zope.interface/_c.c: error\n")), None);
    }

    #[test]
    fn what_there_is_not_is_named_where_the_build_says_so() {
        let told = [Remark::Missing("@a%2fb".to_owned()), Remark::Missing("b".to_owned())];
        let tail = lines("npm error code E404\nnpm error 404  '@a/b@1.0.0' is not in this registry.\n");
        assert_eq!(missing(&told[..1], &tail).unwrap().split(':').next(), Some("the package index has no `@a/b`"));
        assert_eq!(missing(&told[..1], &lines("@a/b: error\nnpm error code E404\n")), None);
    }
}
