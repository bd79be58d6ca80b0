//! What a built tree refers to and does not hold: targets of links, and absolute paths in the small texts by which built things find
//! each other (scripts, `.pth`, `.egg-link`, `pyvenv.cfg`). Only what is there on this host is told: the others must have it too.

use std::collections::BTreeSet;
use std::io::{self, Read};

use rustix::fs::{AtFlags, CWD, statat};

use crate::fs::{Dir, Stat};
use crate::op::Outside;
use crate::release::{ReleaseId, layout};
use crate::root::Root;
use crate::store::stored::MadeLink;
use crate::tree::TreePath;

/// The longest text that is searched.
const TEXT: u64 = 256 * 1024;
/// How many paths are told.
const MOST: usize = 2000;
/// Files by which Python finds what is elsewhere.
const POINTERS: [&[u8]; 3] = [b".pth", b".egg-link", b"pyvenv.cfg"];

/// Looks for references out of one release.
pub struct Seeker<'a> {
    root: &'a Root,
    /// `releases/<id>`, beneath the root.
    home: String,
    links: &'a [MadeLink],
}

impl<'a> Seeker<'a> {
    pub fn new(root: &'a Root, release: &ReleaseId, links: &'a [MadeLink]) -> Self {
        Self { root, home: layout::release(release), links }
    }

    /// Where a link leads, if that is outside.
    pub fn link(&self, path: &TreePath, target: &[u8]) -> Vec<Outside> {
        let whole = if target.starts_with(b"/") {
            target.to_vec()
        } else {
            let parent = path.split().0.unwrap_or_default();
            [self.root.path.as_bytes(), b"/", self.home.as_bytes(), b"/", parent, b"/", target].concat()
        };
        self.outside(&whole, path).into_iter().collect()
    }

    /// What a file that the build made names.
    pub fn file(&self, path: &TreePath, (dir, name): (&Dir, &[u8]), stat: &Stat) -> io::Result<Vec<Outside>> {
        let points = POINTERS.iter().any(|end| name.ends_with(end));
        if stat.size > TEXT || !(points || stat.mode & 0o111 != 0) {
            return Ok(Vec::new());
        }
        let mut text = Vec::new();
        dir.open_file(name)?.take(TEXT).read_to_end(&mut text)?;
        if text.contains(&0) || !(points || text.starts_with(b"#!")) {
            return Ok(Vec::new());
        }
        let named: BTreeSet<&[u8]> = absolute_paths(&text).collect();
        Ok(named.into_iter().filter_map(|named| self.outside(named, path)).collect())
    }

    fn outside(&self, whole: &[u8], from: &TreePath) -> Option<Outside> {
        let whole = normal(std::str::from_utf8(whole).ok()?);
        let path = self.elsewhere(&whole)?;
        let absolute = if path.starts_with('/') { path.clone() } else { format!("{}/{path}", self.root.path) };
        statat(CWD, absolute.as_str(), AtFlags::empty()).ok()?;
        Some(Outside { path, from: from.clone() })
    }

    /// Says where a path leads on any host: none where that is in the release, or depends on what is live.
    fn elsewhere(&self, whole: &str) -> Option<String> {
        let Some(beneath) = whole.strip_prefix(&*self.root.path).and_then(|rest| rest.strip_prefix('/')) else {
            return Some(whole.to_owned()).filter(|path| path != "/");
        };
        if beneath == layout::CURRENT || beneath.starts_with(&format!("{}/", layout::CURRENT)) {
            return None;
        }
        let Some(inner) = beneath.strip_prefix(&*self.home).and_then(|rest| rest.strip_prefix('/')) else {
            return Some(beneath.to_owned()).filter(|path| *path != self.home && path != layout::RELEASES);
        };
        // Through a link that every host makes itself, to what it finds there.
        let through = |link: &MadeLink| {
            let rest = inner.as_bytes().strip_prefix(&*link.path)?;
            if !rest.is_empty() && !rest.starts_with(b"/") {
                return None;
            }
            let (target, rest) = (std::str::from_utf8(&link.target).ok()?, std::str::from_utf8(rest).ok()?);
            if target.starts_with('/') {
                return Some(normal(&format!("{target}{rest}")));
            }
            let parent = std::str::from_utf8(&link.path).ok()?.rsplit_once('/').map_or("", |(parent, _)| parent);
            let whole = normal(&format!("/{}/{parent}/{target}{rest}", self.home));
            Some(whole.trim_start_matches('/').to_owned())
        };
        self.links.iter().find_map(through)
    }
}

/// Resolves `.` and `..` by their names alone.
fn normal(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Finds what looks like an absolute path: letters that paths on hosts consist of, from a slash that nothing of them precedes.
fn absolute_paths(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-@~".contains(byte);
    text.split(move |byte| !plain(byte)).filter(|word| word.len() > 1 && word.starts_with(b"/"))
}

/// Each path once, with the first of those that lead to it; no more than anybody reads.
pub fn few(mut outside: Vec<Outside>) -> Vec<Outside> {
    outside.sort();
    outside.dedup_by(|second, first| second.path == first.path);
    outside.truncate(MOST);
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_scripts_and_pointers() {
        let text =
            b"#!/srv/venv/bin/python\nsys.path[0:0] = [\n  '/srv/eggs/v5/a-1.0.egg', \"/srv/b\",]\nx = a/b http://c/d\nhome = /usr/bin\n";
        let found: Vec<&[u8]> = absolute_paths(text).collect();
        let expected: [&[u8]; 5] = [b"/srv/venv/bin/python", b"/srv/eggs/v5/a-1.0.egg", b"/srv/b", b"//c/d", b"/usr/bin"];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_path_is_followed_through_the_links_that_hosts_make_and_told_only_where_it_leaves_the_release() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Root::open(temporary.path().to_str().unwrap()).unwrap();
        let link = |path: &str, target: &str| MadeLink { path: path.into(), target: target.into() };
        let links = [link("downloads", "/srv/cache"), link("a/var", "../../../shared/a/var")];
        let seeker = Seeker::new(&root, &"r1".parse().unwrap(), &links);
        let at = |rest: &str| format!("{}/{rest}", root.path);
        for (path, told) in [
            (at("releases/r1/bin/x"), None),
            (at("releases/r1"), None),
            (at("current/bin/x"), None),
            (at("releases/r0/bin/x"), Some("releases/r0/bin/x")),
            (at("releases/r1/downloads/dist/x.whl"), Some("/srv/cache/dist/x.whl")),
            (at("releases/r1/downloads2"), None),
            (at("releases/r1/a/var/x"), Some("shared/a/var/x")),
            ("/srv/venv/bin/python".to_owned(), Some("/srv/venv/bin/python")),
        ] {
            assert_eq!(seeker.elsewhere(&path).as_deref(), told, "{path}");
        }
        assert_eq!(normal("/a/./b/../../../c//d/"), "/c/d");
    }
}
