//! What a helper remembers of the release that it makes, from one request to the next: its directory, the stored manifest as it was
//! saved last, and the writing back to the disk that was begun early. Without it everything is read again.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::failure;
use super::stored::{self, Stamp, Stored};
use crate::fs::Dir;
use crate::op::Failure;
use crate::pipe::hold;
use crate::release::{ReleaseId, layout};
use crate::root::Root;

#[derive(Default)]
pub struct Memory {
    made: Mutex<Option<Made>>,
    /// Why what was written of a release is suspect: nothing else would tell of it again.
    lost: Arc<Mutex<Option<(ReleaseId, Failure)>>>,
}

/// The release that is being made.
struct Made {
    release: ReleaseId,
    /// A sync tells of the errors since its descriptor was opened: this one was before the content was written.
    dir: Arc<Dir>,
    /// With what its file looked like when it was saved.
    stored: Option<(Stored, Stamp)>,
    early: Option<JoinHandle<()>>,
}

impl Made {
    fn wait(&mut self) {
        if let Some(early) = self.early.take() {
            early.join().expect("a sync does not panic");
        }
    }
}

impl Memory {
    /// Begins to remember `release`, and forgets any other.
    pub fn begin(&self, release: &ReleaseId, dir: &Dir) -> io::Result<()> {
        let dir = Arc::new(dir.try_clone()?);
        let mut made = hold(&self.made);
        if let Some(before) = made.as_mut() {
            before.wait();
        }
        *made = Some(Made { release: release.clone(), dir, stored: None, early: None });
        *hold(&self.lost) = None;
        Ok(())
    }

    /// Gives the stored manifest of a release: what was kept, if that is still what its file has.
    pub fn load(&self, root: &Root, release: &ReleaseId) -> Result<Stored, Failure> {
        let kept = hold(&self.made).as_mut().filter(|made| made.release == *release).and_then(|made| made.stored.take());
        match (kept, root.dir.stat(layout::manifest(release))) {
            (Some((stored, looked)), Ok(looks)) if looked == Stamp::from(&looks) => Ok(stored),
            _ => stored::load(root, release),
        }
    }

    /// Keeps what was just saved.
    pub fn keep(&self, root: &Root, release: &ReleaseId, stored: Stored) {
        if let Some(made) = hold(&self.made).as_mut().filter(|made| made.release == *release) {
            made.stored = root.dir.stat(layout::manifest(release)).ok().map(|looks| (stored, Stamp::from(&looks)));
        }
    }

    /// Begins to write back what was written of a release, so that its seal has less to wait for. Does nothing while that is under way.
    pub fn write_back(&self, root: &Root, release: &ReleaseId) {
        self.early(root, release, Dir::sync_file_system);
    }

    /// Runs `sync` beside what follows.
    pub(super) fn early(&self, root: &Root, release: &ReleaseId, sync: impl FnOnce(&Dir) -> io::Result<()> + Send + 'static) {
        let mut made = hold(&self.made);
        let Some(made) = made.as_mut().filter(|made| made.release == *release) else { return };
        // Where it cannot be begun, the seal does it all.
        let Ok(root) = root.dir.try_clone() else { return };
        if made.early.as_ref().is_some_and(|early| !early.is_finished()) {
            return;
        }
        made.wait();
        let (dir, release, lost) = (Arc::clone(&made.dir), release.clone(), Arc::clone(&self.lost));
        let work = move || {
            if let Err(error) = sync(&dir) {
                // At once, as far as it goes: whoever goes on with it once this process is gone would read it from memory, and no
                // sync of his would fail.
                let _ = root.trash(layout::release(&release));
                let failure = unsynced(&layout::release(&release), &error);
                *hold(&lost) = Some((release, failure));
            }
        };
        made.early = thread::Builder::new().spawn(work).ok();
    }

    /// Waits for what was begun early, and makes everything durable that is on the file systems of `dir`, the release's directory,
    /// and of its manifest, each once.
    pub fn sync(&self, root: &Root, release: &ReleaseId, dir: &Dir) -> Result<(), Failure> {
        let mut made = hold(&self.made);
        let mut made = made.as_mut().filter(|made| made.release == *release);
        if let Some(made) = &mut made {
            made.wait();
        }
        let sync_manifests = || {
            let manifests = root.dir.open_dir(layout::MANIFESTS)?;
            if manifests.own_stat()?.device == dir.own_stat()?.device { Ok(()) } else { manifests.sync_file_system() }
        };
        let synced = made.map_or(dir, |made| &made.dir).sync_file_system();
        let synced = synced.map_err(|error| unsynced(&layout::release(release), &error));
        let synced = synced.and_then(|()| sync_manifests().map_err(|error: io::Error| unsynced(layout::MANIFESTS, &error)));
        let mut lost = hold(&self.lost);
        if let (Err(failure), None) = (synced, lost.as_ref()) {
            *lost = Some((release.clone(), failure));
        }
        lost.as_ref().filter(|(of, _)| of == release).map_or(Ok(()), |(_, failure)| Err(failure.clone()))
    }

    /// Tells why what was written of a release is suspect.
    pub fn lost(&self, release: &ReleaseId) -> Option<Failure> {
        hold(&self.lost).as_ref().filter(|(of, _)| of == release).map(|(_, failure)| failure.clone())
    }
}

fn unsynced(path: &str, error: &io::Error) -> Failure {
    failure::io("sync the file system of", path, error)
}
