//! The index of crates: the sparse protocol, its `config.json`, and the crates themselves, checked by the sum in their index line.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use axum::routing::get;
use serde::Deserialize;

use super::Mode;
use super::error::IndexError;
use super::fetch;
use super::hash::{Hash, Kind};
use super::heard::Remark;
use super::serve;
use super::source::{Checked, Source, Wanted};
use super::store::is_name;

/// The name under which the upstream's own `config.json` is kept. No crate can have it.
const CONFIG: &str = "config.json";
const TEXT: &str = "text/plain";

pub struct Crates {
    source: Arc<Source>,
}

/// The routes below one prefix, which absolute links have to hold.
#[derive(Clone)]
struct Site {
    crates: Arc<Crates>,
    prefix: Arc<str>,
}

/// One version of a crate, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    name: String,
    vers: String,
    cksum: String,
}

#[derive(Deserialize)]
struct Config {
    dl: String,
}

impl Crates {
    pub(super) fn new(source: Arc<Source>) -> Arc<Self> {
        Arc::new(Self { source })
    }

    pub(super) fn routes(self: &Arc<Self>, prefix: &str) -> Router {
        Router::new()
            .route("/config.json", get(config))
            .route("/{a}/{name}", get(short))
            .route("/{a}/{b}/{name}", get(long))
            .route("/dl/{name}/{version}/download", get(download))
            .with_state(Site { crates: Arc::clone(self), prefix: prefix.into() })
    }

    /// The index lines of a crate. Offline, those of versions that are held.
    async fn lines(&self, name: &str) -> Result<(String, Option<Remark>), IndexError> {
        let url = self.source.upstream.url.join(&place(name)).map_err(|_| IndexError::Name(name.to_owned()))?;
        let kept = self.source.page(name, url, "text/plain, */*;q=0.1", check_lines).await?;
        let text = String::from_utf8_lossy(&kept.body).into_owned();
        if self.source.mode == Mode::Online {
            return Ok((text, kept.remark(name)));
        }
        let held = self.source.store.files(name);
        let is_held = |line: &&str| {
            let Ok(line) = serde_json::from_str::<Line>(line) else { return false };
            held.get(&file_name(&line.name, &line.vers)).is_some_and(|hashes| hashes.iter().any(|hash| hash.hex() == line.cksum))
        };
        Ok((text.lines().filter(is_held).fold(String::new(), |text, line| text + line + "\n"), None))
    }

    async fn file(&self, name: &str, version: &str) -> Result<(PathBuf, Hash), IndexError> {
        let lower = name.to_ascii_lowercase();
        let (lines, _) = self.lines(&lower).await?;
        let found = lines.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).find(|line| line.vers == version);
        let missing = || IndexError::Missing(format!("{name} {version}"));
        let line = found.ok_or_else(missing)?;
        let hash = Hash::from_hex(Kind::Sha256, &line.cksum).ok_or_else(|| IndexError::Unverifiable(format!("{name} {version}")))?;
        let file = file_name(&line.name, &line.vers);
        if let Some(path) = self.source.held(&lower, &hash, &file).await {
            return Ok((path, hash));
        }
        if self.source.mode == Mode::Offline {
            return Err(IndexError::Offline(file));
        }
        let url = self.download_url(&line).await?;
        let wanted = Wanted { package: lower, name: file, hash: hash.clone(), url, size: None };
        Ok((self.source.file(wanted).await?, hash))
    }

    /// Where the upstream has a crate, as its `config.json` says.
    async fn download_url(&self, line: &Line) -> Result<reqwest::Url, IndexError> {
        let url = self.source.upstream.url.join(CONFIG).map_err(|error| IndexError::Internal(error.to_string()))?;
        let kept = self.source.page(CONFIG, url.clone(), "application/json", check_config).await?;
        let config: Config = serde_json::from_slice(&kept.body).map_err(|error| IndexError::Internal(error.to_string()))?;
        let marked = ["{crate}", "{version}", "{prefix}", "{lowerprefix}", "{sha256-checksum}"].iter().any(|mark| config.dl.contains(mark));
        let text = if marked { config.dl } else { format!("{}/{{crate}}/{{version}}/download", config.dl) };
        let prefix = |name: &str| place(name).rsplit_once('/').map_or(String::new(), |(prefix, _)| prefix.to_owned());
        let text = text
            .replace("{crate}", &line.name)
            .replace("{version}", &line.vers)
            .replace("{prefix}", &prefix(&line.name))
            .replace("{lowerprefix}", &prefix(&line.name.to_ascii_lowercase()))
            .replace("{sha256-checksum}", &line.cksum);
        url.join(&text).map_err(|error| IndexError::Unreachable { url: text, why: error.to_string() })
    }
}

fn file_name(name: &str, version: &str) -> String {
    format!("{name}-{version}.crate")
}

/// Where the index has a crate: by the length and the first letters of its name.
fn place(name: &str) -> String {
    match (name.len(), name.get(..1), name.get(..2), name.get(2..4)) {
        (1, ..) => format!("1/{name}"),
        (2, ..) => format!("2/{name}"),
        (3, Some(first), ..) => format!("3/{first}/{name}"),
        (_, _, Some(first), Some(second)) => format!("{first}/{second}/{name}"),
        _ => name.to_owned(),
    }
}

fn is_crate(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
}

/// Every line is a version of the crate, and there is one: anything else is a page of some other kind.
fn check_lines(name: &str, page: &fetch::Page) -> Result<Checked, IndexError> {
    let garbled = |got: String| IndexError::Garbled { url: fetch::shown(&page.url), got, wanted: "the lines of a crate" };
    let text = std::str::from_utf8(&page.body).map_err(|_| garbled("bytes that are no text".to_owned()))?;
    let mut lines = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line = serde_json::from_str::<Line>(line).map_err(|error| garbled(format!("a line that is none ({error})")))?;
        if !line.name.eq_ignore_ascii_case(name) {
            return Err(garbled("the lines of another one".to_owned()));
        }
        lines += 1;
    }
    if lines == 0 {
        return Err(garbled("an empty page".to_owned()));
    }
    Ok(Checked { body: page.body.clone(), is_empty: false })
}

fn check_config(_: &str, page: &fetch::Page) -> Result<Checked, IndexError> {
    let garbled = |error: serde_json::Error| IndexError::Garbled {
        url: fetch::shown(&page.url),
        got: format!("something else ({error})"),
        wanted: "the config of an index",
    };
    serde_json::from_slice::<Config>(&page.body).map_err(garbled)?;
    Ok(Checked { body: page.body.clone(), is_empty: false })
}

async fn config(State(site): State<Site>, headers: HeaderMap) -> Response<Body> {
    let url = super::here(&headers, &site.prefix);
    let text = serde_json::json!({ "dl": format!("{url}/crates/dl"), "api": null }).to_string();
    serve::page(&headers, Bytes::from(text.clone()), &serve::etag(text.as_bytes()), "application/json")
}

async fn short(site: State<Site>, Path((a, name)): Path<(String, String)>, headers: HeaderMap) -> Response<Body> {
    lines(site, &format!("{a}/{name}"), &name, &headers).await
}

async fn long(site: State<Site>, Path((a, b, name)): Path<(String, String, String)>, headers: HeaderMap) -> Response<Body> {
    lines(site, &format!("{a}/{b}/{name}"), &name, &headers).await
}

async fn lines(State(site): State<Site>, asked: &str, name: &str, headers: &HeaderMap) -> Response<Body> {
    if !is_crate(name) {
        return serve::failure(&IndexError::Name(name.to_owned()));
    }
    if place(name) != asked || name.chars().any(|c| c.is_ascii_uppercase()) {
        return serve::failure(&IndexError::Missing(asked.to_owned()));
    }
    match site.crates.lines(name).await {
        Ok((text, remark)) => {
            let etag = serve::etag(text.as_bytes());
            serve::remarked(serve::page(headers, Bytes::from(text), &etag, TEXT), remark)
        }
        Err(error) => serve::failure(&error),
    }
}

async fn download(State(site): State<Site>, Path((name, version)): Path<(String, String)>, headers: HeaderMap) -> Response<Body> {
    if !is_crate(&name) || !is_name(&file_name(&name, &version)) {
        return serve::failure(&IndexError::Name(name));
    }
    match site.crates.file(&name, &version).await {
        Ok((path, hash)) => serve::file(&headers, &path, &hash).await,
        Err(error) => serve::failure(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_has_its_place_by_its_name() {
        for (name, expected) in [("a", "1/a"), ("ab", "2/ab"), ("abc", "3/a/abc"), ("anyhow", "an/yh/anyhow")] {
            assert_eq!(place(name), expected);
        }
        assert!(!is_crate("ä") && !is_crate("") && !is_crate("a.b") && is_crate("a-b_C"));
    }
}
