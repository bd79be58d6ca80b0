//! One upstream with what is held of it: a page while it is fresh, a page that is stale where nothing better can be had, a file once.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::error::IndexError;
use super::fetch::{self, Fetched, Fetcher, Page, Validators};
use super::flight::Flights;
use super::hash::Hash;
use super::heard::Remark;
use super::store::Store;
use super::upstream::Upstream;
use super::{Book, Mode, Notice, Served, Tell};

/// How long a page is served without asking again, as the public indexes say of theirs.
const FRESH: Duration = Duration::from_secs(600);
/// How long an upstream that did not answer is not asked for what is held.
const PAUSE: Duration = Duration::from_secs(30);

/// What is known of a kept page beside its content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Seconds since 1970 when the upstream last said it.
    pub fetched: u64,
    pub validators: Validators,
    /// Whether there is nothing on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_empty: bool,
    /// When there last was something on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<u64>,
}

/// A page as it was kept.
#[derive(Debug)]
pub struct Kept {
    pub head: Head,
    pub body: Vec<u8>,
    /// Why it may not be all that there is.
    pub doubt: Option<String>,
}

impl Kept {
    /// When there last was something on it.
    fn listed(&self) -> Option<u64> {
        self.head.listed.or_else(|| (!self.head.is_empty).then_some(self.head.fetched))
    }

    /// What is to be said of an answer that is made from it.
    pub fn remark(&self, package: &str) -> Option<Remark> {
        self.doubt.as_ref().map(|why| Remark::Doubt { package: package.to_owned(), why: why.clone() })
    }
}

/// What an upstream sent, found to be a page.
pub struct Checked {
    /// What is kept of it.
    pub body: Vec<u8>,
    pub is_empty: bool,
}

/// A file that a page names.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub package: String,
    pub name: String,
    pub hash: Hash,
    pub url: Url,
    pub size: Option<u64>,
}

/// What the page of a package must be to be kept: the function that checks it, and makes of it what is kept.
pub type Check = fn(&str, &Page) -> Result<Checked, IndexError>;

pub struct Source {
    pub kind: &'static str,
    pub upstream: Upstream,
    pub store: Store,
    pub mode: Mode,
    fetcher: Arc<Fetcher>,
    tell: Tell,
    book: Arc<Book>,
    pages: Flights<Arc<Kept>>,
    files: Flights<PathBuf>,
    /// What was told already: a fleet that asks for one thing hears of it once.
    told: Mutex<HashSet<String>>,
    /// When the upstream last did not answer, and why.
    down: Mutex<Option<(Instant, IndexError)>>,
}

impl Source {
    pub(super) fn new(kind: &'static str, upstream: Upstream, store: Store, shared: &super::Shared) -> Arc<Self> {
        Arc::new(Self {
            kind,
            upstream,
            store,
            mode: shared.mode,
            fetcher: Arc::clone(&shared.fetcher),
            tell: Arc::clone(&shared.tell),
            book: Arc::clone(&shared.book),
            pages: Flights::default(),
            files: Flights::default(),
            told: Mutex::default(),
            down: Mutex::default(),
        })
    }

    /// Gives a page: what is held if it is fresh, else what the upstream says now, else what is held.
    pub async fn page(self: &Arc<Self>, package: &str, url: Url, accept: &'static str, check: Check) -> Result<Arc<Kept>, IndexError> {
        let held = self.held_page(package);
        match (held, self.mode) {
            (Some(kept), Mode::Offline) => Ok(Arc::new(kept)),
            (None, Mode::Offline) => Err(IndexError::Offline(package.to_owned())),
            (Some(kept), Mode::Online) if age(&kept.head) < FRESH => Ok(Arc::new(self.doubted(package, &url, kept))),
            (held, Mode::Online) => match (held, self.down()) {
                // It was warned of when it did not answer: a build with many packages is not to say so for each.
                (Some(kept), Some(error)) => Ok(Arc::new(instead(package, &error, kept).1)),
                (held, _) => {
                    let (source, package) = (Arc::clone(self), package.to_owned());
                    self.pages.join(&package.clone(), || async move { source.ask(&package, url, accept, check, held).await }).await
                }
            },
        }
    }

    async fn ask(&self, package: &str, url: Url, accept: &'static str, check: Check, held: Option<Kept>) -> Result<Arc<Kept>, IndexError> {
        let known = held.as_ref().map(|kept| kept.head.validators.clone()).unwrap_or_default();
        let fetched = self.fetcher.page(&self.upstream, &url, accept, &known).await;
        let kept = match (fetched, held) {
            (Ok(Fetched::Page(page)), held) => match check(package, &page) {
                Ok(Checked { body, is_empty }) => {
                    let before = held.and_then(|kept| kept.listed());
                    let listed = if is_empty { before } else { Some(now()) };
                    Kept { head: Head { fetched: now(), validators: page.validators, is_empty, listed }, body, doubt: None }
                }
                Err(error) => return self.stale(package, error, held),
            },
            (Ok(Fetched::Unchanged), Some(kept)) => {
                let listed = if kept.head.is_empty { kept.head.listed } else { Some(now()) };
                Kept { head: Head { fetched: now(), listed, ..kept.head }, ..kept }
            }
            (Ok(Fetched::Unchanged), None) => {
                let got = "nothing new".to_owned();
                return Err(IndexError::Garbled { url: url.to_string(), got, wanted: "a page" });
            }
            (Err(error), held) => {
                if matches!(error, IndexError::Unreachable { .. }) {
                    *self.down.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), error.clone()));
                }
                return self.stale(package, error, held);
            }
        };
        let mut bytes = serde_json::to_vec(&kept.head).map_err(|error| IndexError::Internal(error.to_string()))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&kept.body);
        // A page that cannot be kept is still the right one.
        if let Err(error) = self.store.keep_page(package, &bytes) {
            self.warn("index-disk", package, &error.to_string(), None);
        }
        Ok(Arc::new(self.doubted(package, &url, kept)))
    }

    /// Warns of a page on which there is nothing any more.
    fn doubted(&self, package: &str, url: &Url, kept: Kept) -> Kept {
        let Some(listed) = kept.head.listed.filter(|_| kept.head.is_empty) else { return kept };
        let why = format!("`{}` lists nothing of `{package}` any more, and did {}", fetch::shown(url), ago(listed));
        self.warn("index-empty", package, &why, None);
        Kept { doubt: Some(why), ..kept }
    }

    /// What stands in for an answer that did not come.
    fn stale(&self, package: &str, error: IndexError, held: Option<Kept>) -> Result<Arc<Kept>, IndexError> {
        let Some(kept) = held.filter(|_| error.allows_stale()) else {
            self.warn_of(package, &error);
            return Err(error);
        };
        let (why, kept) = instead(package, &error, kept);
        self.warn("index-stale", package, &why, error.advice());
        Ok(Arc::new(kept))
    }

    fn held_page(&self, package: &str) -> Option<Kept> {
        let mut bytes = self.store.page(package)?;
        let line = bytes.iter().position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice(&bytes[..line]).ok()?;
        bytes.drain(..=line);
        Some(Kept { head, body: bytes, doubt: None })
    }

    /// Why the upstream is not asked just now.
    fn down(&self) -> Option<IndexError> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.as_ref().filter(|(since, _)| since.elapsed() < PAUSE).map(|(_, error)| error.clone())
    }

    /// Finds a file that is held, and lists it as served.
    pub async fn held(self: &Arc<Self>, package: &str, hash: &Hash, name: &str) -> Option<PathBuf> {
        let (source, hash_of, package_of, name_of) = (Arc::clone(self), hash.clone(), package.to_owned(), name.to_owned());
        // It may have to read the whole file once.
        let path = tokio::task::spawn_blocking(move || source.store.held(&package_of, &hash_of, &name_of)).await.ok()??;
        self.book.note(Served {
            kind: self.kind,
            package: package.to_owned(),
            name: name.to_owned(),
            hash: hash.to_string(),
            path: path.clone(),
        });
        Some(path)
    }

    /// Gives a file, fetched and verified if it is not held.
    pub async fn file(self: &Arc<Self>, wanted: Wanted) -> Result<PathBuf, IndexError> {
        if let Some(path) = self.held(&wanted.package, &wanted.hash, &wanted.name).await {
            return Ok(path);
        }
        if self.mode == Mode::Offline {
            return Err(IndexError::Offline(wanted.name));
        }
        let key = format!("{}/{}/{}", wanted.package, wanted.hash, wanted.name);
        let (source, fill) = (Arc::clone(self), wanted.clone());
        let filled = self.files.join(&key, || async move { source.fill(fill).await }).await;
        match filled {
            Ok(path) => Ok(self.held(&wanted.package, &wanted.hash, &wanted.name).await.unwrap_or(path)),
            Err(error) => Err(error),
        }
    }

    async fn fill(self: Arc<Self>, wanted: Wanted) -> Result<PathBuf, IndexError> {
        // It may have landed between the look and the flight.
        if let Some(path) = self.held(&wanted.package, &wanted.hash, &wanted.name).await {
            return Ok(path);
        }
        let filled = async {
            let filling = self.store.begin(&wanted.package, &wanted.hash, &wanted.name)?;
            let filling = self.fetcher.file(&self.upstream, &wanted.url, wanted.size, filling).await?;
            tokio::task::spawn_blocking(move || filling.finish()).await.map_err(|error| IndexError::Internal(error.to_string()))?
        };
        filled.await.inspect_err(|error| self.warn_of(&wanted.name, error))
    }

    pub fn warn_of(&self, about: &str, error: &IndexError) {
        if error.is_loud() {
            self.warn("index", about, &error.to_string(), error.advice());
        }
    }

    /// Tells a warning, once for each thing it is about.
    pub fn warn(&self, code: &'static str, about: &str, message: &str, advice: Option<String>) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{code} {about}")) {
            (self.tell)(Notice { code, message: message.to_owned(), advice });
        }
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is held, with the word that it is served in place of what could not be had.
fn instead(package: &str, error: &IndexError, kept: Kept) -> (String, Kept) {
    let why = format!("{error}; what it said of `{package}` {} is served", ago(kept.head.fetched));
    let doubt = error.advice().map_or_else(|| why.clone(), |advice| format!("{why}; {advice}"));
    (why, Kept { doubt: Some(doubt), ..kept })
}

/// How long ago something was, in hours.
fn ago(seconds: u64) -> String {
    format!("{} h ago", now().saturating_sub(seconds) / 3600)
}

/// How old a page is. One from the future is not trusted to be fresh.
fn age(head: &Head) -> Duration {
    now().checked_sub(head.fetched).map_or(Duration::MAX, Duration::from_secs)
}
