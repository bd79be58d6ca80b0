//! The npm registry: what it says of a package, with links to ourselves, and tarballs checked by their `integrity`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{any, get};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Mode;
use super::error::IndexError;
use super::fetch;
use super::hash::{Hash, Kind};
use super::heard::Remark;
use super::serve;
use super::source::{Checked, Kept, Source, Wanted};
use super::store::is_name;

/// The short form is asked for: it has all that an installation needs, and is a tenth of the other.
const ACCEPT: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8";
const SHORT: &str = "application/vnd.npm.install-v1+json";

pub struct Npm {
    source: Arc<Source>,
}

/// The routes below one prefix, which absolute links have to hold.
#[derive(Clone)]
struct Site {
    npm: Arc<Npm>,
    prefix: Arc<str>,
}

/// What a registry says of a package. Versions stay text until one of them is looked at: there may be thousands.
#[derive(Deserialize, Serialize)]
struct Packument {
    versions: BTreeMap<String, Box<RawValue>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Version {
    dist: Dist,
}

#[derive(Deserialize)]
struct Dist {
    tarball: String,
    integrity: Option<String>,
    shasum: Option<String>,
}

impl Dist {
    fn hash(&self) -> Option<Hash> {
        let strong = self.integrity.as_deref().and_then(Hash::from_integrity);
        strong.or_else(|| Hash::from_hex(Kind::Sha1, self.shasum.as_deref()?))
    }

    /// The tarball's name: the last component of where it is.
    fn file(&self) -> Option<&str> {
        let path = self.tarball.split(['?', '#']).next()?;
        path.rsplit('/').next().filter(|name| is_name(name))
    }
}

impl Npm {
    pub(super) fn new(source: Arc<Source>) -> Arc<Self> {
        Arc::new(Self { source })
    }

    pub(super) fn routes(self: &Arc<Self>, prefix: &str) -> Router {
        let routes = Router::new()
            // Audits and the like: nothing is known, which is an answer, and one that comes at once.
            .route("/-/{*rest}", any(nothing))
            .route("/{name}", get(packument))
            .route("/{scope}/{name}", get(scoped))
            .route("/{name}/-/{file}", get(tarball))
            .route("/{scope}/{name}/-/{file}", get(scoped_tarball));
        // npm puts ours for the host in a link of a lock, and leaves the path as the registry has it.
        let routes = match self.below() {
            Some(path) => routes
                .route(&format!("{path}/{{name}}/-/{{file}}"), get(tarball))
                .route(&format!("{path}/{{scope}}/{{name}}/-/{{file}}"), get(scoped_tarball)),
            None => routes,
        };
        routes.with_state(Site { npm: Arc::clone(self), prefix: prefix.into() })
    }

    /// The path of the registry, where it has one of plain characters.
    fn below(&self) -> Option<&str> {
        let path = self.source.upstream.url.path().trim_end_matches('/');
        let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) && !path.contains("//");
        (!path.is_empty() && plain).then_some(path)
    }

    async fn kept(&self, package: &str) -> Result<Arc<Kept>, IndexError> {
        let place = package.replace('/', "%2f");
        let url = self.source.upstream.url.join(&place).map_err(|_| IndexError::Name(package.to_owned()))?;
        self.source.page(package, url, ACCEPT, check).await
    }

    /// What the registry says, with every link leading to `url`; offline, of the versions that are held.
    fn write(&self, package: &str, kept: &Kept, url: &str) -> Result<String, IndexError> {
        let mut packument = read(package, &kept.body)?;
        let held = (self.source.mode == Mode::Offline).then(|| self.source.store.files(package));
        let mut versions = BTreeMap::new();
        for (version, text) in packument.versions {
            let Ok(mut value) = serde_json::from_str::<Value>(text.get()) else { continue };
            let Ok(Version { dist }) = serde_json::from_str::<Version>(text.get()) else { continue };
            let (Some(file), Some(hash)) = (dist.file(), dist.hash()) else { continue };
            if held.as_ref().is_some_and(|held| held.get(file).is_none_or(|hashes| !hashes.contains(&hash))) {
                continue;
            }
            value["dist"]["tarball"] = Value::String(format!("{url}/{package}/-/{file}"));
            let text = serde_json::value::to_raw_value(&value).map_err(|error| IndexError::Internal(error.to_string()))?;
            versions.insert(version, text);
        }
        if held.is_some() {
            // A tag that leads to what cannot be had would be followed all the same.
            if let Some(Value::Object(tags)) = packument.rest.get_mut("dist-tags") {
                tags.retain(|_, version| version.as_str().is_some_and(|version| versions.contains_key(version)));
            }
        }
        packument.versions = versions;
        serde_json::to_string(&packument).map_err(|error| IndexError::Internal(error.to_string()))
    }

    async fn page(self: &Arc<Self>, package: &str, url: String) -> Result<(String, Option<Remark>), IndexError> {
        let kept = self.kept(package).await?;
        let remark = kept.remark(package);
        let (npm, package) = (Arc::clone(self), package.to_owned());
        let write = move || npm.write(&package, &kept, &url);
        let text = tokio::task::spawn_blocking(write).await.map_err(|error| IndexError::Internal(error.to_string()))??;
        Ok((text, remark))
    }

    async fn file(&self, package: &str, file: &str) -> Result<(PathBuf, Hash), IndexError> {
        // A published file never changes, so one that is held needs no packument.
        if let Some([hash]) = self.source.store.files(package).get(file).map(Vec::as_slice)
            && let Some(path) = self.source.held(package, hash, file).await
        {
            return Ok((path, hash.clone()));
        }
        let packument = read(package, &self.kept(package).await?.body)?;
        let found = packument.versions.values().find_map(|text| {
            // Most can be told by a look that costs nothing.
            let dist = text.get().contains(file).then(|| serde_json::from_str::<Version>(text.get()).ok())??.dist;
            (dist.file() == Some(file)).then_some(dist)
        });
        let dist = found.ok_or_else(|| IndexError::Missing(file.to_owned()))?;
        let hash = dist.hash().ok_or_else(|| IndexError::Unverifiable(file.to_owned()))?;
        let url = self.source.upstream.url.join(&dist.tarball);
        let url: Url = url.map_err(|error| IndexError::Unreachable { url: dist.tarball.clone(), why: error.to_string() })?;
        let wanted = Wanted { package: package.to_owned(), name: file.to_owned(), hash: hash.clone(), url, size: None };
        Ok((self.source.file(wanted).await?, hash))
    }
}

fn check(_: &str, page: &fetch::Page) -> Result<Checked, IndexError> {
    let garbled = |error: serde_json::Error| IndexError::Garbled {
        url: fetch::shown(&page.url),
        got: format!("something else ({error})"),
        wanted: "what a registry says of a package",
    };
    let packument = serde_json::from_slice::<Packument>(&page.body).map_err(garbled)?;
    Ok(Checked { body: page.body.clone(), is_empty: packument.versions.is_empty() })
}

fn read(package: &str, body: &[u8]) -> Result<Packument, IndexError> {
    serde_json::from_slice(body).map_err(|error| IndexError::Internal(format!("the kept page of `{package}` is damaged: {error}")))
}

/// The package of a path: a scope and a name, or a name, in which a client may have escaped the slash.
fn package(scope: Option<&str>, name: &str) -> Option<String> {
    let whole = scope.map_or_else(|| name.to_owned(), |scope| format!("{scope}/{name}"));
    let right = match whole.strip_prefix('@').map(|rest| rest.split_once('/')) {
        Some(Some((scope, name))) => is_name(scope) && is_name(name),
        Some(None) => false,
        None => is_name(&whole),
    };
    right.then_some(whole)
}

async fn nothing() -> Response<Body> {
    serve::page(&HeaderMap::new(), Bytes::from_static(b"{}"), "\"none\"", "application/json")
}

async fn packument(site: State<Site>, Path(name): Path<String>, headers: HeaderMap) -> Response<Body> {
    page(site, package(None, &name), &headers).await
}

async fn scoped(site: State<Site>, Path((scope, name)): Path<(String, String)>, headers: HeaderMap) -> Response<Body> {
    let package = scope.starts_with('@').then(|| package(Some(&scope), &name)).flatten();
    page(site, package, &headers).await
}

async fn page(State(site): State<Site>, package: Option<String>, headers: &HeaderMap) -> Response<Body> {
    let Some(package) = package else { return serve::failure(&IndexError::Name("this".to_owned())) };
    let url = format!("{}/npm", super::here(headers, &site.prefix));
    match site.npm.page(&package, url).await {
        Ok((text, remark)) => {
            let etag = serve::etag(text.as_bytes());
            serve::remarked(serve::page(headers, Bytes::from(text), &etag, SHORT), remark)
        }
        Err(error) => serve::failure(&error),
    }
}

async fn tarball(site: State<Site>, Path((name, file)): Path<(String, String)>, headers: HeaderMap) -> Response<Body> {
    send(site, package(None, &name), file, &headers).await
}

async fn scoped_tarball(
    site: State<Site>,
    Path((scope, name, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    send(site, package(Some(&scope), &name), file, &headers).await
}

async fn send(State(site): State<Site>, package: Option<String>, file: String, headers: &HeaderMap) -> Response<Body> {
    let Some(package) = package.filter(|_| is_name(&file)) else { return serve::failure(&IndexError::Name(file)) };
    match site.npm.file(&package, &file).await {
        Ok((path, hash)) => serve::file(headers, &path, &hash).await,
        Err(error) => serve::failure(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_a_name_or_a_name_in_a_scope() {
        assert_eq!(package(None, "left-pad").as_deref(), Some("left-pad"));
        assert_eq!(package(None, "@a/b").as_deref(), Some("@a/b"));
        assert_eq!(package(Some("@a"), "b").as_deref(), Some("@a/b"));
        for (scope, name) in [(None, "@a"), (None, "../x"), (None, "a/b"), (Some("@.."), "b"), (Some("@a"), "b/c"), (None, "")] {
            assert_eq!(package(scope, name), None, "{scope:?} {name}");
        }
    }
}
