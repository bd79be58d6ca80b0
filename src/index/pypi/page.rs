//! A project's page: read from an upstream's JSON (PEP 691) or HTML (PEP 503), kept, and written as either, with links to ourselves.

use std::collections::{BTreeMap, HashMap};

use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::links::{self, escaped};
use crate::index::error::IndexError;
use crate::index::fetch::{self, Page as Fetched};
use crate::index::hash::{Hash, Kind};
use crate::index::store::is_name;

pub const JSON: &str = "application/vnd.pypi.simple.v1+json";
pub const HTML: &str = "application/vnd.pypi.simple.v1+html";
/// What is asked of an upstream.
pub const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// What is kept of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    pub files: Vec<File>,
}

/// One file of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub name: String,
    pub url: String,
    /// `sha256-…`; none where the upstream publishes none that can be checked.
    pub hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires_python: Option<String>,
    /// The reason, which may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yanked: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<String>,
    /// The digest of the wheel's metadata, where the upstream offers it apart (PEP 658).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Json,
    /// For a client that names the versioned type.
    VersionedHtml,
    /// For one that names nothing: buildout and old tools.
    Html,
}

impl Format {
    /// Reads an `Accept`. There is an answer to every one.
    #[must_use]
    pub fn of(accept: &str) -> Self {
        match accept {
            _ if accept.contains("simple.v1+json") || accept.contains("simple.latest+json") => Self::Json,
            _ if accept.contains("simple.v1+html") || accept.contains("simple.latest+html") => Self::VersionedHtml,
            _ => Self::Html,
        }
    }

    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::VersionedHtml => HTML,
            Self::Html => "text/html; charset=utf-8",
        }
    }
}

#[derive(Deserialize)]
struct Document {
    meta: Meta,
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "api-version")]
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: HashMap<String, String>,
    requires_python: Option<String>,
    #[serde(default)]
    yanked: Value,
    size: Option<u64>,
    upload_time: Option<String>,
    #[serde(default)]
    core_metadata: Value,
    #[serde(default)]
    dist_info_metadata: Value,
}

impl Stored {
    /// Reads what an upstream sent for a project, whatever it says it is.
    ///
    /// # Errors
    /// It is neither kind of page.
    pub fn read(project: &str, page: &Fetched) -> Result<Self, IndexError> {
        let garbled =
            |got: &str| IndexError::Garbled { url: fetch::shown(&page.url), got: got.to_owned(), wanted: "the page of a project" };
        let files = if page.content_type.contains("json") || page.body.trim_ascii_start().starts_with(b"{") {
            let document: Document = serde_json::from_slice(&page.body).map_err(|error| garbled(&format!("broken JSON ({error})")))?;
            if document.meta.version.split('.').next() != Some("1") {
                return Err(garbled(&format!("version {} of the interface", document.meta.version)));
            }
            document.files.into_iter().filter_map(|listed| from_json(listed, &page.url)).collect()
        } else {
            let text = std::str::from_utf8(&page.body).map_err(|_| garbled("bytes that are no text"))?;
            let links = links::find(text).ok_or_else(|| garbled("neither JSON nor HTML"))?;
            let files: Vec<File> = links.iter().filter_map(|link| from_link(link, &page.url)).collect();
            // What a log-in or an error shows to people is HTML too, and may even have links.
            if !is_of(project, text, &files) {
                return Err(garbled(if text.contains("<form") { "a form to fill in" } else { "HTML that lists no file of it" }));
            }
            files
        };
        Ok(Self { files })
    }

    /// Writes the page, with those files that `offered` lets through. Links lead from `simple/<project>/` to `files/`.
    #[must_use]
    pub fn write(&self, project: &str, format: Format, offered: &dyn Fn(&File) -> Offer) -> String {
        match format {
            Format::Json => self.json(project, offered),
            Format::VersionedHtml | Format::Html => self.html(project, format, offered),
        }
    }

    fn json(&self, project: &str, offered: &dyn Fn(&File) -> Offer) -> String {
        let mut versions = Vec::new();
        let files: Vec<Value> = self
            .files
            .iter()
            .filter_map(|file| {
                let offer = offered(file);
                let hash = Hash::parse(file.hash.as_deref()?).filter(|_| offer.file)?;
                let mut value = json!({ "filename": file.name, "url": link(project, &hash, &file.name), "hashes": hashes(&hash) });
                let entries = value.as_object_mut()?;
                for (key, text) in [("requires-python", &file.requires_python), ("upload-time", &file.uploaded)] {
                    if let Some(text) = text {
                        entries.insert(key.to_owned(), json!(text));
                    }
                }
                if let Some(size) = file.size {
                    entries.insert("size".to_owned(), json!(size));
                }
                if let Some(reason) = &file.yanked {
                    entries.insert("yanked".to_owned(), if reason.is_empty() { json!(true) } else { json!(reason) });
                }
                if let Some(hash) = file.metadata.as_deref().filter(|_| offer.metadata).and_then(Hash::parse) {
                    entries.insert("core-metadata".to_owned(), hashes(&hash));
                    entries.insert("dist-info-metadata".to_owned(), hashes(&hash));
                }
                versions.extend(version(&file.name));
                Some(value)
            })
            .collect();
        versions.sort_unstable();
        versions.dedup();
        json!({ "meta": { "api-version": "1.1" }, "name": project, "versions": versions, "files": files }).to_string()
    }

    fn html(&self, project: &str, format: Format, offered: &dyn Fn(&File) -> Offer) -> String {
        let mut text = format!(
            "<!DOCTYPE html>\n<html>\n<head><meta name=\"pypi:repository-version\" content=\"1.0\"><title>Links for {0}</title></head>\n<body>\n<h1>Links for {0}</h1>\n",
            escaped(project)
        );
        for file in &self.files {
            let offer = offered(file);
            // A client of the old kind knows nothing of yanked files, and would take one.
            let hidden = format == Format::Html && file.yanked.is_some();
            let Some(hash) = file.hash.as_deref().and_then(Hash::parse).filter(|_| offer.file && !hidden) else { continue };
            text += &format!("<a href=\"{}#{}={}\"", escaped(&link(project, &hash, &file.name)), algorithm(&hash), hash.hex());
            for (name, value) in [("data-requires-python", &file.requires_python), ("data-yanked", &file.yanked)] {
                if let Some(value) = value {
                    text += &format!(" {name}=\"{}\"", escaped(value));
                }
            }
            if let Some(hash) = file.metadata.as_deref().filter(|_| offer.metadata).and_then(Hash::parse) {
                let value = format!("{}={}", algorithm(&hash), hash.hex());
                text += &format!(" data-core-metadata=\"{value}\" data-dist-info-metadata=\"{value}\"");
            }
            text += &format!(">{}</a><br>\n", escaped(&file.name));
        }
        text + "</body>\n</html>\n"
    }
}

/// Tells whether HTML is the page of a project: it lists a file of it, or says what it is. An index that lists no file does: all that is
/// known of write `Links for NAME` into the title, and newer ones say the version of the interface. A list that is no index's, such as
/// that of a directory, is of use only where a file is in it.
fn is_of(project: &str, text: &str, files: &[File]) -> bool {
    let is_its = |name: &str| {
        // A version may hold what no name does.
        let plain = name.split(['+', '!', '%']).next().unwrap_or_default();
        let normal = super::normal(plain).unwrap_or_default();
        normal.strip_prefix(project).is_some_and(|rest| rest.starts_with('-'))
    };
    let lower = text.to_ascii_lowercase();
    let is_titled = || {
        let mut titles = lower.split("links for ").skip(1).filter_map(|rest| rest.split('<').next());
        titles.any(|title| super::normal(title.trim()).as_deref() == Some(project))
    };
    files.iter().any(|file| is_its(&file.name)) || lower.contains("pypi:repository-version") || is_titled()
}

/// What of a file a client may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub file: bool,
    pub metadata: bool,
}

/// The version in a file's name, as far as it can be told without knowing the project's spelling.
fn version(name: &str) -> Option<String> {
    let stem = match name.strip_suffix(".whl") {
        Some(stem) => return stem.split('-').nth(1).map(str::to_owned),
        None => name.strip_suffix(".tar.gz").or_else(|| name.strip_suffix(".zip")).or_else(|| name.strip_suffix(".tar.bz2"))?,
    };
    stem.rsplit_once('-').map(|(_, version)| version.to_owned())
}

fn algorithm(hash: &Hash) -> &'static str {
    match hash.kind() {
        Kind::Sha1 => "sha1",
        Kind::Sha256 => "sha256",
        Kind::Sha512 => "sha512",
    }
}

fn hashes(hash: &Hash) -> Value {
    Value::Object([(algorithm(hash).to_owned(), Value::String(hash.hex().to_owned()))].into_iter().collect())
}

fn link(project: &str, hash: &Hash, name: &str) -> String {
    let name: String =
        name.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() || b"-._+!~".contains(&byte) {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
    format!("../../files/{project}/{hash}/{name}")
}

/// The digest to check by: only these two are worth it.
fn best<'a>(mut digest: impl FnMut(&str) -> Option<&'a String>) -> Option<String> {
    let sha256 = digest("sha256").and_then(|hex| Hash::from_hex(Kind::Sha256, hex));
    sha256.or_else(|| digest("sha512").and_then(|hex| Hash::from_hex(Kind::Sha512, hex))).map(|hash| hash.to_string())
}

fn from_json(listed: Listed, base: &Url) -> Option<File> {
    let url = base.join(&listed.url).ok()?;
    let metadata = [&listed.core_metadata, &listed.dist_info_metadata].into_iter().find_map(|value| {
        let hex = value.get("sha256")?.as_str()?;
        Some(Hash::from_hex(Kind::Sha256, hex)?.to_string())
    });
    let yanked = match listed.yanked {
        Value::String(reason) => Some(reason),
        Value::Bool(true) => Some(String::new()),
        _ => None,
    };
    is_name(&listed.filename).then(|| File {
        hash: best(|name| listed.hashes.get(name)),
        name: listed.filename,
        url: url.into(),
        requires_python: listed.requires_python,
        yanked,
        size: listed.size,
        uploaded: listed.upload_time,
        metadata,
    })
}

fn from_link(link: &links::Link, base: &Url) -> Option<File> {
    let mut url = base.join(link.attributes.get("href")?).ok()?;
    let fragment: BTreeMap<String, String> = pairs(url.fragment().unwrap_or_default());
    url.set_fragment(None);
    let name =
        if is_name(&link.text) && url.path().contains('.') { link.text.clone() } else { url.path_segments()?.next_back()?.to_owned() };
    let distribution = [".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".egg", ".tar.xz"].iter().any(|suffix| name.ends_with(suffix));
    let metadata = ["data-core-metadata", "data-dist-info-metadata"].into_iter().find_map(|attribute| {
        let pairs = pairs(link.attributes.get(attribute)?);
        Some(Hash::from_hex(Kind::Sha256, pairs.get("sha256")?)?.to_string())
    });
    (distribution && is_name(&name)).then(|| File {
        name,
        url: url.into(),
        hash: best(|name| fragment.get(name)),
        requires_python: link.attributes.get("data-requires-python").cloned(),
        yanked: link.attributes.get("data-yanked").cloned(),
        size: None,
        uploaded: None,
        metadata,
    })
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::fetch::Validators;

    const ALL: Offer = Offer { file: true, metadata: true };

    fn page(content_type: &str, body: &str) -> Result<Stored, IndexError> {
        let url = Url::parse("https://index.example/simple/a-b/").unwrap();
        let page = Fetched { body: body.into(), validators: Validators::default(), url, content_type: content_type.to_owned() };
        Stored::read("a-b", &page)
    }

    fn hex(digit: &str) -> String {
        digit.repeat(64)
    }

    #[test]
    fn a_page_says_the_same_as_json_and_as_html() {
        let json = format!(
            r#"{{"meta":{{"api-version":"1.3"}},"name":"a-b","files":[
              {{"filename":"a_b-1-py3-none-any.whl","url":"../../f/a_b-1-py3-none-any.whl","hashes":{{"md5":"0","sha256":"{0}"}},"requires-python":">=3.8","core-metadata":{{"sha256":"{1}"}},"yanked":false}},
              {{"filename":"a_b-2.tar.gz","url":"https://files.example/a_b-2.tar.gz","hashes":{{"sha256":"{1}"}},"yanked":"broken"}}]}}"#,
            hex("0"),
            hex("1")
        );
        let html = format!(
            "<html><body><a href=\"../../f/a_b-1-py3-none-any.whl#sha256={0}\" data-requires-python=\"&gt;=3.8\" data-core-metadata=\"sha256={1}\">a_b-1-py3-none-any.whl</a>\
             <a href=\"https://files.example/a_b-2.tar.gz#sha256={1}\" data-yanked=\"broken\">a_b-2.tar.gz</a></body></html>",
            hex("0"),
            hex("1")
        );
        let (json, html) = (page(JSON, &json).unwrap(), page("text/html", &html).unwrap());
        assert_eq!(json.files, html.files);
        assert_eq!(json.files[0].url, "https://index.example/f/a_b-1-py3-none-any.whl");
        // What is written is read back, and leads to ourselves.
        for format in [Format::Json, Format::VersionedHtml] {
            let again = page(format.content_type(), &json.write("a-b", format, &|_| ALL)).unwrap();
            let link = format!("https://index.example/files/a-b/sha256-{}/a_b-1-py3-none-any.whl", hex("0"));
            assert_eq!(again.files[0], File { url: link, ..json.files[0].clone() }, "{format:?}");
            assert_eq!(again.files.len(), 2);
        }
        let old = json.write("a-b", Format::Html, &|_| ALL);
        assert!(old.contains("a_b-1-py3") && !old.contains("a_b-2"), "a yanked file is hidden from who does not know of it: {old}");
        assert_eq!(json.write("a-b", Format::VersionedHtml, &|_| Offer { file: false, metadata: false }).matches("<a ").count(), 0);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (content_type, body) in [
            (JSON, "{\"meta\":{\"api-version\":\"2.0\"},\"files\":[]}"),
            (JSON, "<html><a href='a-1.zip'>a-1.zip</a></html>"),
            (JSON, "{\"meta\":{\"api-version\":\"1.0\"},\"files\":[{}"),
            ("text/html", "<html><form action='login'></form></html>"),
            ("text/html", "<html>login please</html>"),
            ("text/html", "<html><title>Links for visitors</title><a href='/terms'>terms</a></html>"),
            ("text/html", "<html><a href='/vpn-client-3.zip'>first get our client</a></html>"),
            ("text/html", "<html><title>Index of /simple/a-b/</title><a href='../'>..</a></html>"),
            (JSON, "{\"meta\":{\"api-version\":\"1.0\"}}"),
            (JSON, "{\"error\":\"log in\"}"),
            ("text/plain", "service unavailable"),
            ("text/html", ""),
        ] {
            assert!(matches!(page(content_type, body), Err(IndexError::Garbled { .. })), "{body}");
        }
    }

    #[test]
    fn a_page_of_an_index_may_be_empty_and_a_list_of_a_directory_may_be_a_page() {
        for (content_type, body, files) in [
            ("text/html", "<!DOCTYPE html><html><head><title>Links for a-b</title></head><body><h1>Links for a-b</h1></body></html>", 0),
            ("text/html", "<html><head><title>root/dev: links for A.b</title></head></html>", 0),
            ("text/html", "<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"></head></html>", 0),
            (JSON, "{\"meta\":{\"api-version\":\"1.0\"},\"files\":[]}", 0),
            ("text/html", "<html><title>Directory listing for /simple/a-b/</title><a href=\"A.B-1.tar.gz\">A.B-1.tar.gz</a></html>", 1),
            ("text/html", "<html><head><title>Links for a-b</title></head><a href='ab1.zip'>ab1.zip</a></html>", 1),
            ("text/html", "<html><a href='a_b-1+cpu-py3-none-any.whl'>a_b-1+cpu-py3-none-any.whl</a></html>", 1),
        ] {
            let found = page(content_type, body).map(|page| page.files.len());
            assert_eq!(found, Ok(files), "{body}");
        }
    }

    #[test]
    fn files_whose_names_lead_elsewhere_are_left_out() {
        let html =
            "<html><a href='/f/..%2f..%2fx.zip'>x</a><a href='https://u:p@h/a-b-1.zip?x=1#md5=0'>a-b-1.zip</a><a href='../'>up</a></html>";
        let files = page("text/html", html).unwrap().files;
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].name.as_str(), files[0].hash.as_deref()), ("a-b-1.zip", None));
    }

    #[test]
    fn every_accept_has_an_answer() {
        let pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
        for (accept, format) in [
            (pip, Format::Json),
            ("application/vnd.pypi.simple.v1+html", Format::VersionedHtml),
            ("", Format::Html),
            ("*/*", Format::Html),
            ("text/html", Format::Html),
            ("image/png", Format::Html),
        ] {
            assert_eq!(Format::of(accept), format, "{accept}");
        }
    }
}
