//! `current`: what it is, and how it is changed. By one rename, or not at all.

use std::io;

use crate::failure;
use crate::fs::FileKind;
use crate::op::{Code, Current, Failure};
use crate::release::{ReleaseId, layout};
use crate::root::Root;
use crate::tree::path::Shown;

/// Reads what `current` is. A link counts as one to a release if it leads into `releases/`, relative or absolute.
pub fn read(root: &Root) -> io::Result<Current> {
    let target = match root.dir.stat(layout::CURRENT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Current::Absent),
        Err(error) => return Err(error),
        Ok(stat) if stat.kind != FileKind::Link => return Ok(Current::NotLink),
        Ok(_) => root.dir.read_link(layout::CURRENT)?,
    };
    let id = match release_of(&target, root.path.as_bytes()) {
        None => release_of(&target, &root.real_path()?),
        known => known,
    };
    let there = |id: &ReleaseId| match root.dir.stat(layout::release(id)) {
        Ok(stat) => Ok(stat.kind == FileKind::Directory),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        // It may be there: whoever took it for gone would put back what is not live.
        Err(error) => Err(error),
    };
    Ok(match id {
        Some(id) if there(&id)? => Current::Release(id),
        Some(_) => Current::Elsewhere { target: Shown(&target).to_string(), dangling: true },
        None => Current::Elsewhere { dangling: leads_nowhere(root), target: Shown(&target).to_string() },
    })
}

fn leads_nowhere(root: &Root) -> bool {
    rustix::fs::statat(&root.dir, layout::CURRENT, rustix::fs::AtFlags::empty()).is_err()
}

fn release_of(target: &[u8], root: &[u8]) -> Option<ReleaseId> {
    let relative = match target.strip_prefix(root) {
        Some(rest) => rest.strip_prefix(b"/")?,
        None => target.strip_prefix(b"./").unwrap_or(target),
    };
    let name = relative.strip_prefix(b"releases/")?;
    let name = name.strip_suffix(b"/").unwrap_or(name);
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Reads `current` where only a release or nothing will do.
pub fn release(root: &Root) -> Result<Option<ReleaseId>, Failure> {
    let path = format!("{}/{}", root.path, layout::CURRENT);
    match read(root).map_err(|error| failure::io("read", &path, &error))? {
        Current::Absent => Ok(None),
        Current::Release(id) => Ok(Some(id)),
        Current::NotLink => Err(failure::hinted(
            Code::CurrentIsDirectory,
            format!("`{path}` is not a link, so it cannot be switched"),
            format!("look what is in it, then move it away: `mv {path} {path}.before`"),
        )),
        Current::Elsewhere { target, dangling } => Err(failure::hinted(
            Code::Refused,
            format!("`{path}` leads to `{target}`, {}", if dangling { "which is not there" } else { "which is not a release here" }),
            format!("if nothing needs it, remove the link: `rm {path}`"),
        )),
    }
}

/// Makes `current` lead to `to`, durably, and reads it back. None removes it.
pub fn switch(root: &Root, to: Option<&ReleaseId>) -> Result<(), Failure> {
    let path = format!("{}/{}", root.path, layout::CURRENT);
    let changed = match to {
        Some(id) => root.dir.replace_link(layout::release(id).as_bytes(), layout::CURRENT),
        None => match root.dir.unlink(layout::CURRENT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| root.dir.sync()),
        },
    };
    changed.map_err(|error| failure::io("switch", &path, &error))?;
    let now = release(root)?;
    if now.as_ref() == to {
        return Ok(());
    }
    let shown = now.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    Err(failure::new(Code::Superseded, format!("`{path}` was changed by something else meanwhile: it leads to `{shown}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_other_tools_into_releases_are_recognised() {
        let id = |target: &str| release_of(target.as_bytes(), b"/srv/app").map(|id| id.to_string());
        assert_eq!(id("releases/20261123061200").as_deref(), Some("20261123061200"));
        assert_eq!(id("./releases/a/").as_deref(), Some("a"));
        assert_eq!(id("/srv/app/releases/20261123061200").as_deref(), Some("20261123061200"));
        for other in
            ["/srv/app2/releases/a", "/srv/appreleases/a", "releases/a/b", "releases/..", "releases/", "../releases/a", "/releases/a"]
        {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
