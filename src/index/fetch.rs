//! Asking an upstream: bounded in time and size, with the system's certificate authorities and proxy, and never more than was asked for.

use std::time::Duration;

use reqwest::header::{ACCEPT, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};

use super::error::IndexError;
use super::store::Filling;
use super::upstream::{Credential, Upstream};

const CONNECT: Duration = Duration::from_secs(15);
/// Without a byte.
const SILENCE: Duration = Duration::from_secs(30);
/// Of a whole page, and of a whole file.
const PAGE: Duration = Duration::from_secs(120);
const FILE: Duration = Duration::from_secs(3600);
/// The longest page: larger than any of the public indexes, and small enough to be held in memory.
pub const LONGEST_PAGE: u64 = 32 * 1024 * 1024;
/// The longest file where the index does not say how long it is.
pub const LONGEST_FILE: u64 = 16 * 1024 * 1024 * 1024;

/// What an upstream said to tell a page by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    pub etag: Option<String>,
    pub modified: Option<String>,
}

/// A page as it came.
pub struct Page {
    pub body: Vec<u8>,
    pub validators: Validators,
    /// Where it came from in the end: relative links start there.
    pub url: Url,
    pub content_type: String,
}

/// What an upstream has at a place.
pub enum Fetched {
    Page(Box<Page>),
    Unchanged,
}

pub struct Fetcher {
    client: Client,
}

impl Fetcher {
    /// Prepares the client.
    ///
    /// # Errors
    /// The system's certificate authorities cannot be used.
    pub fn new() -> Result<Self, IndexError> {
        // Another part of the process may have installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = redirect::Policy::custom(|attempt| {
            let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > 5 {
                attempt.error("too many redirections")
            } else if from_tls && attempt.url().scheme() != "https" {
                attempt.error("it redirects from https to something else")
            } else {
                attempt.follow()
            }
        });
        let client = Client::builder()
            .user_agent(concat!("deployer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(policy)
            .pool_max_idle_per_host(8)
            .build()
            .map_err(|error| IndexError::Internal(chain(&error)))?;
        Ok(Self { client })
    }

    /// Asks for a page, unless it is still the one that `known` tells.
    pub async fn page(&self, upstream: &Upstream, url: &Url, accept: &'static str, known: &Validators) -> Result<Fetched, IndexError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, reqwest::header::HeaderValue::from_static(accept));
        for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)] {
            if let Some(value) = value.as_ref().and_then(|value| value.parse().ok()) {
                headers.insert(name, value);
            }
        }
        let mut response = self.send(upstream, url, headers, PAGE).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::Unchanged);
        }
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let validators = Validators { etag: text(ETAG), modified: text(LAST_MODIFIED) };
        let content_type = text(reqwest::header::CONTENT_TYPE).unwrap_or_default();
        let from = response.url().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > LONGEST_PAGE {
                return Err(IndexError::TooLong { url: shown(url), most: LONGEST_PAGE });
            }
        }
        Ok(Fetched::Page(Box::new(Page { body, validators, url: from, content_type })))
    }

    /// Writes a file into `filling`: `size` bytes where that is known, and never more.
    pub async fn file(&self, upstream: &Upstream, url: &Url, size: Option<u64>, mut filling: Filling) -> Result<Filling, IndexError> {
        let mut headers = HeaderMap::new();
        headers.insert(reqwest::header::ACCEPT_ENCODING, reqwest::header::HeaderValue::from_static("identity"));
        let mut response = self.send(upstream, url, headers, FILE).await.map_err(|error| match error {
            IndexError::Missing(_) => IndexError::Gone { url: shown(url) },
            other => other,
        })?;
        let most = size.unwrap_or(LONGEST_FILE);
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
            if filling.size() + chunk.len() as u64 > most {
                return Err(IndexError::TooLong { url: shown(url), most });
            }
            // One chunk is short, and waiting for the disk here is what keeps the network from running ahead of it.
            filling.write(&chunk)?;
        }
        Ok(filling)
    }

    async fn send(&self, upstream: &Upstream, url: &Url, headers: HeaderMap, limit: Duration) -> Result<Response, IndexError> {
        let mut request = self.client.get(url.clone()).headers(headers).timeout(limit);
        request = match upstream.credential(url) {
            Some(Credential::Basic { user, password }) => request.basic_auth(user, Some(password)),
            Some(Credential::Bearer(token)) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.map_err(|error| unreachable(url, &error))?;
        match response.status() {
            StatusCode::OK | StatusCode::NOT_MODIFIED => Ok(response),
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
                Err(IndexError::Missing(url.path_segments().into_iter().flatten().rfind(|part| !part.is_empty()).unwrap_or("").to_owned()))
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(IndexError::Denied { url: shown(url), status: status.as_u16(), login: upstream.login(url) })
            }
            status => Err(IndexError::Status { url: shown(url), status: status.as_u16() }),
        }
    }
}

fn unreachable(url: &Url, error: &reqwest::Error) -> IndexError {
    IndexError::Unreachable { url: shown(url), why: chain(error) }
}

/// The innermost reason, which is the one that says something. The outer ones repeat the url, whose query may be a secret.
fn chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// A url as people may see it: without user, password, query and fragment.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}
