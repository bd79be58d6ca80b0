//! Changes of control files and links: written aside in `.deployer/tmp`, then one rename. All are asked of the host root.

use std::io::{self, Write};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, FileKind};
use crate::faults::{self, Bug};
use crate::release::layout;

/// What a loss of power may do to a replacement that was just made. Each step up costs one sync.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Anything: a later sync of the whole file system settles it.
    None,
    /// There is the old content or the new, and nothing between them.
    Whole,
    /// There is the new content.
    Durable,
}

impl Dir {
    /// Replaces a control file durably: after this returns, the new content survives a loss of power.
    pub fn replace(&self, rel: impl AsRef<[u8]>, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.replace_with(rel.as_ref(), bytes, mode, Durability::Durable)
    }

    /// Replaces a control file so that a loss of power leaves the old content or the new: for what is true again when it is redone.
    pub fn replace_whole(&self, rel: impl AsRef<[u8]>, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.replace_with(rel.as_ref(), bytes, mode, Durability::Whole)
    }

    /// Replaces a file whose durability a later sync of the whole file system brings, or that means nothing after a loss of power.
    pub fn replace_unsynced(&self, rel: impl AsRef<[u8]>, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.replace_with(rel.as_ref(), bytes, mode, Durability::None)
    }

    fn replace_with(&self, rel: &[u8], bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
        if faults::has(Bug::InPlace) {
            let mut file = self.open_append(rel, mode)?;
            return file.set_len(0).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
        }
        let aside = self.open_dir(layout::TEMPORARY)?;
        let name = random_name()?;
        let written = aside.create_file(&name, mode).and_then(|mut file| {
            file.write_all(bytes)?;
            if durability == Durability::None || faults::has(Bug::NoFileSync) { Ok(()) } else { file.sync_all() }
        });
        self.put_in_place(&aside, &name, rel, written, durability == Durability::Durable)
    }

    /// Replaces a link durably, or makes it, by one rename. Refuses where `rel` is anything but a link.
    pub fn replace_link(&self, target: &[u8], rel: impl AsRef<[u8]>) -> io::Result<()> {
        self.replace_link_unsynced(target, &rel)?;
        self.sync_parent(rel)
    }

    /// Replaces a link as `replace_link` does; a later sync of the whole file system makes it durable.
    pub fn replace_link_unsynced(&self, target: &[u8], rel: impl AsRef<[u8]>) -> io::Result<()> {
        let rel = rel.as_ref();
        match self.stat(rel) {
            Ok(stat) if stat.kind == FileKind::Directory => return Err(Errno::ISDIR.into()),
            Ok(stat) if stat.kind != FileKind::Link => return Err(Errno::EXIST.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let aside = self.open_dir(layout::TEMPORARY)?;
        let name = random_name()?;
        let made = rustix::fs::symlinkat(target, &aside, name.as_bytes()).map_err(io::Error::from);
        self.put_in_place(&aside, &name, rel, made, false)
    }

    fn put_in_place(&self, aside: &Self, name: &str, rel: &[u8], written: io::Result<()>, durable: bool) -> io::Result<()> {
        let moved = written.and_then(|()| self.at(rel, |dir, last| Ok(rustix::fs::renameat(aside, name, dir, last)?)));
        if moved.is_err() {
            // Best effort: what stays in `tmp` is swept with it, and the first error is the one to tell.
            let _ = rustix::fs::unlinkat(aside, name, AtFlags::empty());
        }
        moved?;
        if durable && !faults::has(Bug::NoDirectorySync) { self.sync_parent(rel) } else { Ok(()) }
    }

    /// Makes the name of `rel` durable.
    pub fn sync_parent(&self, rel: impl AsRef<[u8]>) -> io::Result<()> {
        let rel = rel.as_ref();
        match rel.iter().rposition(|byte| *byte == b'/') {
            None => self.sync(),
            Some(slash) => {
                let parent = self.open(&rel[..slash], OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
                Ok(rustix::fs::fsync(parent)?)
            }
        }
    }
}

/// Makes a name that no neighbour can foresee.
pub fn random_name() -> io::Result<String> {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().fold(String::with_capacity(32), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    }))
}
