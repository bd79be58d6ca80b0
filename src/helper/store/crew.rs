//! Work on many files: two threads, each taking runs of neighbours, so that a directory is opened about once.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::faults;
use crate::fs::Dir;
use crate::op::Failure;

/// Creating files scales to two threads and hardly beyond; the host has other work.
const THREADS: usize = 2;
const SHORTEST_RUN: usize = 16;
const LONGEST_RUN: usize = 512;

/// A directory and the one beneath it that was used last.
pub struct Cursor<'a> {
    base: &'a Dir,
    at: Option<(Vec<u8>, Dir)>,
}

impl<'a> Cursor<'a> {
    pub const fn new(base: &'a Dir) -> Self {
        Self { base, at: None }
    }

    /// Splits `path` into the directory, held, and the last name.
    pub fn enter<'p>(&mut self, path: &'p [u8]) -> io::Result<(&Dir, &'p [u8])> {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { return Ok((self.base, path)) };
        let (parent, name) = (&path[..slash], &path[slash + 1..]);
        if self.at.as_ref().is_none_or(|(at, _)| at != parent) {
            self.at = Some((parent.to_vec(), self.base.open_dir(parent)?));
        }
        Ok((self.at.as_ref().map_or(self.base, |(_, dir)| dir), name))
    }
}

/// Calls `work` for every item, in no order, and gathers what it gives. `equip` makes what a thread keeps between its calls.
/// The first failure stops the crew; what was done before it is given too.
pub fn each<T: Sync, S, R: Send>(
    items: &[T],
    equip: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<R, Failure> + Sync,
) -> (Vec<R>, Result<(), Failure>) {
    let run = (items.len() / (THREADS * 8)).clamp(SHORTEST_RUN, LONGEST_RUN);
    let runs: Vec<&[T]> = items.chunks(run).collect();
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (done, failed) = (Mutex::new(Vec::with_capacity(items.len())), Mutex::new(Ok(())));
    let member = || {
        let (mut held, mut mine) = (equip(), Vec::new());
        while let Some(items) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            for item in *items {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match work(&mut held, item) {
                    Ok(result) => mine.push(result),
                    Err(failure) => {
                        stop.store(true, Ordering::Relaxed);
                        let mut first = failed.lock().expect("no thread panics with it");
                        *first = first.clone().and(Err(failure));
                    }
                }
            }
        }
        done.lock().expect("no thread panics with it").append(&mut mine);
    };
    if runs.len() < 2 {
        member();
    } else {
        std::thread::scope(|scope| (0..faults::threads(THREADS)).for_each(|_| drop(scope.spawn(member))));
    }
    (done.into_inner().expect("no thread panics with it"), failed.into_inner().expect("no thread panics with it"))
}
