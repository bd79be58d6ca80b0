//! Answers: pages and files with validators, ranges, and errors as text.

use std::io;
use std::path::Path;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::error::IndexError;
use super::hash::Hash;
use super::heard::Remark;

const PIECE: u64 = 64 * 1024;

/// Makes the strong validator of a text.
pub fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", crate::tree::Digest(Sha256::digest(bytes).into()))
}

/// Answers with a text, or with the word that it is still the same.
pub fn page(headers: &HeaderMap, bytes: Bytes, etag: &str, content_type: &str) -> Response<Body> {
    let response = Response::builder()
        .header(ETAG, etag)
        .header(VARY, "Accept")
        .header(CACHE_CONTROL, "max-age=600")
        .header(CONTENT_TYPE, content_type);
    let built = if is_known(headers, etag) {
        response.status(StatusCode::NOT_MODIFIED).body(Body::empty())
    } else {
        response.header(CONTENT_LENGTH, bytes.len()).body(Body::from(bytes))
    };
    built.unwrap_or_else(|error| failure(&IndexError::Internal(error.to_string())))
}

/// Answers with a file, or with the part of it that was asked for.
pub async fn file(headers: &HeaderMap, path: &Path, hash: &Hash) -> Response<Body> {
    match try_file(headers, path, hash).await {
        Ok(response) => response,
        Err(error) => failure(&IndexError::disk(path, "read", &error)),
    }
}

async fn try_file(headers: &HeaderMap, path: &Path, hash: &Hash) -> io::Result<Response<Body>> {
    let etag = format!("\"{hash}\"");
    let content_type =
        if path.extension().is_some_and(|extension| extension == "metadata") { "text/plain" } else { "application/octet-stream" };
    let response = Response::builder()
        .header(ETAG, &etag)
        .header(CACHE_CONTROL, "max-age=31536000, immutable")
        .header(ACCEPT_RANGES, "bytes")
        .header(CONTENT_TYPE, content_type);
    if is_known(headers, &etag) {
        return response.status(StatusCode::NOT_MODIFIED).body(Body::empty()).map_err(io::Error::other);
    }
    let mut file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    let same = text(headers, &IF_RANGE).is_none_or(|validator| validator == etag);
    let part = match text(headers, &RANGE).filter(|_| same) {
        Some(range) => wanted(range, size),
        None => Part::Whole,
    };
    let (first, length, response) = match part {
        Part::Whole => (0, size, response.status(StatusCode::OK)),
        Part::Bytes(first, last) => {
            let response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
            (first, last + 1 - first, response)
        }
        Part::Nothing => {
            let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE).header(CONTENT_RANGE, format!("bytes */{size}"));
            return response.body(Body::empty()).map_err(io::Error::other);
        }
    };
    file.seek(io::SeekFrom::Start(first)).await?;
    let pieces = futures_util::stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(usize::try_from(left.min(PIECE)).unwrap_or(0));
        let count = (&mut file).take(left.min(PIECE)).read_to_end(&mut piece).await? as u64;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(Some((Bytes::from(piece), (file, left - count))))
    });
    response.header(CONTENT_LENGTH, length).body(Body::from_stream(pieces)).map_err(io::Error::other)
}

/// Says why there is nothing.
pub fn failure(error: &IndexError) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{error}\n")));
    *response.status_mut() = error.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    remarked(response, Remark::of(error))
}

/// Adds what is to be said of an answer, for whoever listens on this side.
pub fn remarked(mut response: Response<Body>, remark: Option<Remark>) -> Response<Body> {
    if let Some(remark) = remark {
        response.extensions_mut().insert(remark);
    }
    response
}

/// Sends a client to where the thing is.
pub fn moved(to: &str) -> Response<Body> {
    let built = Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(axum::http::header::LOCATION, to).body(Body::empty());
    built.unwrap_or_else(|error| failure(&IndexError::Internal(error.to_string())))
}

pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = text(headers, &IF_NONE_MATCH).unwrap_or_default();
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// What a `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// It is none that we know, and is ignored.
    Whole,
    /// From the first to the last byte.
    Bytes(u64, u64),
    /// There are no such bytes.
    Nothing,
}

fn wanted(range: &str, size: u64) -> Part {
    let ends = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let Some((first, last)) = ends else { return Part::Whole };
    let end = size.saturating_sub(1);
    let (first, last) = match (first, first.parse::<u64>(), last, last.parse::<u64>()) {
        ("", _, _, Ok(count)) => (if count == 0 { size } else { size.saturating_sub(count) }, end),
        (_, Ok(first), "", _) => (first, end),
        (_, Ok(first), _, Ok(last)) => (first, last.min(end)),
        _ => return Part::Whole,
    };
    if first < size && first <= last { Part::Bytes(first, last) } else { Part::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        for (range, expected) in [
            ("bytes=0-9", Part::Bytes(0, 9)),
            ("bytes=90-", Part::Bytes(90, 99)),
            ("bytes=-10", Part::Bytes(90, 99)),
            ("bytes=-1000", Part::Bytes(0, 99)),
            ("bytes=90-1000", Part::Bytes(90, 99)),
            ("bytes=100-", Part::Nothing),
            ("bytes=9-0", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=0-1,5-6", Part::Whole),
            ("items=0-1", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=99999999999999999999-", Part::Whole),
        ] {
            assert_eq!(wanted(range, 100), expected, "{range}");
        }
        assert_eq!(wanted("bytes=0-", 0), Part::Nothing);
        assert_eq!(wanted("bytes=-5", 0), Part::Nothing);
    }
}
