//! Packages for hosts without internet: a caching proxy of a Python index (`pypi`, for `pip`, `uv` and `buildout`), of the index of
//! crates (`crates`) and of an npm registry (`npm`).
//!
//! `source` is an upstream with what is held of it (`store`, `fetch`, `flight`), `serve` and `listen` are the side of the clients. What
//! was served is kept with its digest, so that a later build needs no upstream.

mod crates;
mod error;
mod fetch;
mod flight;
mod hash;
mod heard;
mod listen;
mod netrc;
mod npm;
mod pypi;
mod serve;
mod source;
mod store;
mod tunnel;
mod upstream;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;

pub use error::{IndexError, Login};
pub use heard::Remark;
pub use listen::{accept, serve as serve_stream};
pub use tunnel::Tunnel;
pub use upstream::Upstreams;

use crates::Crates;
use fetch::Fetcher;
use heard::Heard;
use npm::Npm;
use pypi::Pypi;
use source::Source;
use store::Store;

/// Whether upstreams may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Online,
    /// Only what is held is offered.
    Offline,
}

/// What a person should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub code: &'static str,
    pub message: String,
    /// What can be done about it, where that is known.
    pub advice: Option<String>,
}

/// Whoever passes notices on.
pub type Tell = Arc<dyn Fn(Notice) + Send + Sync>;

/// A file that was served: what a build was made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// `pypi`, `crates` or `npm`.
    pub kind: &'static str,
    pub package: String,
    pub name: String,
    /// `sha256-<hex>`.
    pub hash: String,
    /// Where it is kept on this machine.
    pub path: PathBuf,
}

/// The files that were served, each once.
#[derive(Default)]
struct Book(Mutex<BTreeSet<Served>>);

impl Book {
    fn note(&self, served: Served) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(served);
    }
}

/// What the three indexes share.
struct Shared {
    mode: Mode,
    fetcher: Arc<Fetcher>,
    tell: Tell,
    book: Arc<Book>,
}

/// The index. Clones share what is held and what is under way.
#[derive(Clone)]
pub struct Index {
    pypi: Arc<Pypi>,
    crates: Arc<Crates>,
    npm: Arc<Npm>,
    book: Arc<Book>,
    heard: Heard,
}

impl Index {
    /// Opens what is held in `directory`, which is made where it is missing.
    ///
    /// # Errors
    /// The directory cannot be used, or is another user's.
    pub fn open(directory: &Path, upstreams: Upstreams, mode: Mode, tell: Tell) -> Result<Self, IndexError> {
        let book = Arc::<Book>::default();
        let shared = Shared { mode, fetcher: Arc::new(Fetcher::new()?), tell, book: Arc::clone(&book) };
        let source = |kind, upstream: upstream::Upstream| {
            let store = Store::open(directory, kind, upstream.url.as_str())?;
            Ok::<_, IndexError>(Source::new(kind, upstream, store, &shared))
        };
        Ok(Self {
            pypi: Pypi::new(source("pypi", upstreams.pypi)?),
            crates: Crates::new(source("crates", upstreams.crates)?),
            npm: Npm::new(source("npm", upstreams.npm)?),
            book,
            heard: Heard::default(),
        })
    }

    /// Makes what answers requests. With a token everything lies below `/<token>`, and nothing elsewhere.
    pub fn router(&self, token: Option<&str>) -> Router {
        let prefix = token.map_or(String::new(), |token| format!("/{token}"));
        let routes = Router::new()
            .nest("/pypi", self.pypi.routes())
            .nest("/crates", self.crates.routes(&prefix))
            .nest("/npm", self.npm.routes(&prefix));
        let routes = if prefix.is_empty() { routes } else { Router::new().nest(&prefix, routes) };
        routes.layer(middleware::from_fn_with_state(self.heard.clone(), heard::listen)).layer(middleware::from_fn(only_from_here))
    }

    /// The same index, for one client: what is remarked on its answers is not mixed with those of others.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { heard: Heard::default(), ..self.clone() }
    }

    /// Lists what is to be said of the answers that were given, the last one last.
    #[must_use]
    pub fn remarks(&self) -> Vec<Remark> {
        self.heard.remarks()
    }

    /// Lists what was served so far.
    #[must_use]
    pub fn served(&self) -> Vec<Served> {
        self.book.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The url by which a client came here: absolute links have to lead back the same way.
fn here(headers: &HeaderMap, prefix: &str) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("http://{host}{prefix}")
}

/// Refuses requests that came by another name than that of this machine itself: a web page that a person has open could make them.
async fn only_from_here(request: Request, next: Next) -> Result<Response, StatusCode> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    if matches!(name, "127.0.0.1" | "localhost" | "[::1]") { Ok(next.run(request).await) } else { Err(StatusCode::MISDIRECTED_REQUEST) }
}
