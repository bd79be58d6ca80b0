//! The Python index: the simple API as HTML (PEP 503) and JSON (PEP 691), files, and their metadata (PEP 658).

mod links;
mod page;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Response};
use axum::routing::get;
use reqwest::Url;

use super::Mode;
use super::error::IndexError;
use super::fetch;
use super::hash::Hash;
use super::heard::Remark;
use super::serve;
use super::source::{Checked, Kept, Source, Wanted};
use super::store::is_name;
use crate::figures::counted;
use page::{Format, Offer, Stored};

/// Bytes of written pages that are kept at hand.
const AT_HAND: usize = 6 * 1024 * 1024;

pub struct Pypi {
    source: Arc<Source>,
    written: Mutex<Written>,
}

/// Pages as they were served last.
#[derive(Default)]
struct Written {
    pages: HashMap<(String, Format), Page>,
    bytes: usize,
}

#[derive(Clone)]
struct Page {
    /// When what it was made from was fetched.
    fetched: u64,
    bytes: Bytes,
    etag: String,
    remark: Option<Remark>,
}

impl Pypi {
    pub(super) fn new(source: Arc<Source>) -> Arc<Self> {
        Arc::new(Self { source, written: Mutex::default() })
    }

    pub(super) fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            // A client that does not know a name asks for all names, and must hear at once that it gets none.
            .route("/simple/", get(nothing))
            .route("/simple/{project}", get(slash))
            .route("/simple/{project}/", get(simple))
            .route("/files/{project}/{hash}/{name}", get(file))
            .with_state(Arc::clone(self))
    }

    async fn kept(&self, project: &str) -> Result<Arc<Kept>, IndexError> {
        let url = self.source.upstream.url.join(&format!("{project}/")).map_err(|_| IndexError::Name(project.to_owned()))?;
        self.source.page(project, url, page::ACCEPT, check).await
    }

    async fn page(self: &Arc<Self>, project: &str, format: Format) -> Result<Page, IndexError> {
        let kept = self.kept(project).await?;
        let key = (project.to_owned(), format);
        let at_hand = {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.pages.get(&key).filter(|page| page.fetched == kept.head.fetched && self.source.mode == Mode::Online).cloned()
        };
        let doubt = kept.remark(project);
        if let Some(page) = at_hand {
            return Ok(Page { remark: doubt.or(page.remark), ..page });
        }
        let (pypi, fetched) = (Arc::clone(self), kept.head.fetched);
        // The page of a large project takes milliseconds to write.
        let write = move || pypi.write(&key.0, format, &kept.body);
        let written = tokio::task::spawn_blocking(write).await.map_err(|error| IndexError::Internal(error.to_string()))?;
        let (text, remark) = written?;
        let page = Page { fetched, etag: serve::etag(text.as_bytes()), bytes: Bytes::from(text), remark };
        self.put_at_hand((project.to_owned(), format), page.clone());
        Ok(Page { remark: doubt.or(page.remark), ..page })
    }

    fn write(&self, project: &str, format: Format, body: &[u8]) -> Result<(String, Option<Remark>), IndexError> {
        let stored = stored(project, body)?;
        let without = stored.files.iter().filter(|file| file.hash.is_none()).count();
        let mut remark = None;
        if without > 0 {
            let why = format!(
                "`{}{project}/` gives no digest for {}: what cannot be verified is left out",
                fetch::shown(&self.source.upstream.url),
                counted(without as u64, "file")
            );
            self.source.warn("index-unverifiable", project, &why, None);
            remark = Some(Remark::Doubt { package: project.to_owned(), why });
        }
        if self.source.mode == Mode::Online {
            return Ok((stored.write(project, format, &|_| Offer { file: true, metadata: true }), remark));
        }
        let held = self.source.store.files(project);
        let is_held = |name: &str, hash: Option<&str>| {
            let hash = hash.and_then(Hash::parse);
            hash.is_some_and(|hash| held.get(name).is_some_and(|hashes| hashes.contains(&hash)))
        };
        let offer = |file: &page::File| Offer {
            file: is_held(&file.name, file.hash.as_deref()),
            metadata: is_held(&metadata_name(&file.name), file.metadata.as_deref()),
        };
        Ok((stored.write(project, format, &offer), remark))
    }

    fn put_at_hand(&self, key: (String, Format), page: Page) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.bytes + page.bytes.len() > AT_HAND {
            *written = Written::default();
        }
        if page.bytes.len() <= AT_HAND {
            written.bytes += page.bytes.len();
            let before = written.pages.insert(key, page);
            written.bytes -= before.map_or(0, |page| page.bytes.len());
        }
    }

    /// Says where a file comes from, by the page of its project. Metadata lies beside its file, and has a digest of its own.
    async fn wanted(&self, project: &str, hash: &Hash, name: &str) -> Result<Wanted, IndexError> {
        let stored = stored(project, &self.kept(project).await?.body)?;
        let text = hash.to_string();
        let found = stored.files.into_iter().filter(|file| file.hash.as_deref() == Some(&text)).find_map(|file| {
            let mut url = Url::parse(&file.url).ok()?;
            if file.name == name {
                return Some((url, hash.clone(), file.size));
            }
            let hash = file.metadata.as_deref().filter(|_| metadata_name(&file.name) == name).and_then(Hash::parse)?;
            url.set_path(&format!("{}.metadata", url.path()));
            Some((url, hash, None))
        });
        let (url, hash, size) = found.ok_or_else(|| IndexError::Missing(name.to_owned()))?;
        Ok(Wanted { package: project.to_owned(), name: name.to_owned(), hash, url, size })
    }

    async fn file(&self, project: &str, hash: &Hash, name: &str) -> Result<(PathBuf, Hash), IndexError> {
        if let Some(path) = self.source.held(project, hash, name).await {
            return Ok((path, hash.clone()));
        }
        let wanted = self.wanted(project, hash, name).await?;
        let hash = wanted.hash.clone();
        Ok((self.source.file(wanted).await?, hash))
    }
}

fn metadata_name(name: &str) -> String {
    format!("{name}.metadata")
}

fn check(project: &str, page: &fetch::Page) -> Result<Checked, IndexError> {
    let stored = Stored::read(project, page)?;
    let body = serde_json::to_vec(&stored).map_err(|error| IndexError::Internal(error.to_string()))?;
    Ok(Checked { body, is_empty: stored.files.is_empty() })
}

fn stored(project: &str, body: &[u8]) -> Result<Stored, IndexError> {
    serde_json::from_slice(body).map_err(|error| IndexError::Internal(format!("the kept page of `{project}` is damaged: {error}")))
}

/// The one spelling of a project's name.
fn normal(project: &str) -> Option<String> {
    let mut normal = String::new();
    for c in project.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c if c.is_ascii_alphanumeric() => normal.push(c.to_ascii_lowercase()),
            _ => return None,
        }
    }
    (is_name(&normal) && normal.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(normal)
}

async fn nothing() -> Response<Body> {
    serve::failure(&IndexError::Missing("the list of all projects".to_owned()))
}

async fn slash(Path(project): Path<String>) -> Response<Body> {
    match normal(&project) {
        // Relative, because what is in front of it is not ours to know.
        Some(normal) => serve::moved(&format!("{normal}/")),
        None => serve::failure(&IndexError::Name(project)),
    }
}

async fn simple(State(pypi): State<Arc<Pypi>>, Path(project): Path<String>, headers: HeaderMap) -> Response<Body> {
    let Some(normal) = normal(&project) else { return serve::failure(&IndexError::Name(project)) };
    if normal != project {
        return serve::moved(&format!("../{normal}/"));
    }
    let format = Format::of(serve::text(&headers, &ACCEPT).unwrap_or_default());
    match pypi.page(&project, format).await {
        Ok(page) => serve::remarked(serve::page(&headers, page.bytes, &page.etag, format.content_type()), page.remark),
        Err(error) => serve::failure(&error),
    }
}

async fn file(
    State(pypi): State<Arc<Pypi>>,
    Path((project, hash, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    let (Some(hash), true, true) = (Hash::parse(&hash), is_name(&name), normal(&project).as_deref() == Some(&project)) else {
        return serve::failure(&IndexError::Name(name));
    };
    match pypi.file(&project, &hash, &name).await {
        Ok((path, hash)) => serve::file(&headers, &path, &hash).await,
        Err(error) => serve::failure(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_one_name() {
        for (name, expected) in
            [("Zope.Interface", Some("zope-interface")), ("a__b--c", Some("a-b-c")), ("..", None), ("-a", None), ("a/b", None), ("", None)]
        {
            assert_eq!(normal(name).as_deref(), expected, "{name}");
        }
    }
}
