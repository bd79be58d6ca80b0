//! Writes content that arrives. The stream is unpacked on the calling thread and written by two others; nothing counts that does
//! not have its digest. What is under way is bounded: small files travel in batches, large ones in pieces, in buffers that come back,
//! since fresh memory costs more than what is done in it.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::begin::{complete, missing};
use super::copy::{self, BUFFER, Copier, Wanted};
use super::crew::Cursor;
use super::reuse::{Filling, NEVER, wanted};
use super::stored::{Proof, Stamp, Stored};
use super::unpack::Unpack;
use super::{Memory, failure, open_release, record, shown};
use crate::faults;
use crate::fs::Dir;
use crate::op::{Code, Content, Failure, Written};
use crate::release::{ReleaseId, State};
use crate::root::Root;
use crate::tree::Digest;

const WRITERS: usize = 2;
/// Messages that wait for a writer; each holds at most about `BUFFER` bytes.
const QUEUE: usize = 4;
/// Files of one batch.
const BATCH: usize = 128;
/// Content that is worth writing back before its end; less is written in no time.
const EARLY: u64 = 4 * 1024 * 1024;
/// How often that is begun again in one stream: each time costs the disk a flush.
const EARLY_TIMES: u64 = 4;

/// A writer has a third of the processor time of whatever else wants it.
const NICE: i32 = 5;

/// What a writer is given.
enum Work {
    /// Whole files, one behind the other: each one's entry and size.
    Files(Vec<(usize, usize)>, Vec<u8>),
    /// The start of a file that comes in pieces, then the pieces. It ends when its size is reached.
    Large(usize),
    Piece(Vec<u8>),
}

/// What a writer did until it was through or failed.
struct Report {
    proofs: Vec<(usize, Stamp)>,
    result: Result<(), Failure>,
}

/// Writes the content of one stream into a begun release. Calls `progress` with the unpacked bytes taken so far.
pub fn content(root: &Root, memory: &Memory, content: &Content, stream: impl BufRead, progress: &dyn Fn(u64)) -> Result<Written, Failure> {
    let release = &content.release;
    let mut record = record(root, release)?;
    match record.state {
        State::Uploading | State::Uploaded => {}
        State::Building | State::Sealed | State::Active | State::Confirmed | State::Retired | State::Failed | State::Bad => {
            return Err(failure::new(Code::Refused, format!("release `{release}` takes no content: begin it first")));
        }
    }
    let mut stored = memory.load(root, release)?;
    let dir = open_release(root, release)?;
    let (step, due) = ((content.size / EARLY_TIMES).max(EARLY), Cell::new(EARLY));
    let write_back = |taken: u64| {
        if taken >= due.get() {
            due.set(taken + step);
            memory.write_back(root, release);
        }
    };
    let (proofs, received) = receive(release, &dir, &stored, (stream, content.size), &|taken| {
        write_back(taken);
        progress(taken);
    });
    if content.size >= EARLY {
        memory.write_back(root, release);
    }
    let mut written = Written::default();
    for (index, stamp) in proofs {
        stored.ledger.proofs[index] = Proof::Verified(stamp);
        written.files += 1;
        written.bytes += wanted(&stored.manifest.entries()[index]).map_or(0, |wanted| wanted.size);
    }
    let filling = Filling { root, release, dir: &dir, copier: Copier::default(), give_up: NEVER };
    let shared = received.and_then(|()| filling.copy_within(&mut stored));
    // What was proven is saved, however it ended: the next run need not send it again.
    let saved = complete(root, &mut record, &mut stored);
    shared.and(saved)?;
    written.missing = missing(&stored);
    memory.keep(root, release, stored);
    Ok(written)
}

fn receive(
    release: &ReleaseId,
    dir: &Dir,
    stored: &Stored,
    (stream, size): (impl BufRead, u64),
    progress: &dyn Fn(u64),
) -> (Vec<(usize, Stamp)>, Result<(), Failure>) {
    if size == 0 {
        return (Vec::new(), Ok(()));
    }
    std::thread::scope(|scope| {
        let (mut senders, mut writers) = (Vec::new(), Vec::new());
        let (back, empty) = channel();
        for _ in 0..faults::threads(WRITERS) {
            let (sender, receiver) = sync_channel(QUEUE);
            senders.push(sender);
            let back = back.clone();
            writers.push(scope.spawn(move || write(release, dir, stored, &receiver, back)));
        }
        drop(back);
        let mut desk = Desk { stored, senders, progress, taken: 0, turn: 0, batch: Vec::new(), bytes: Vec::new(), empty };
        let dealt = desk.deal(stream, size);
        drop(desk);
        let (mut proofs, mut result) = (Vec::new(), Ok(()));
        for writer in writers {
            let mut report = writer.join().expect("a writer does not panic");
            proofs.append(&mut report.proofs);
            result = result.and(report.result);
        }
        // A writer that failed is why the stream could not be dealt out.
        (proofs, result.and(dealt))
    })
}

/// Deals the content out to the writers, in turn.
struct Desk<'a> {
    stored: &'a Stored,
    senders: Vec<SyncSender<Work>>,
    progress: &'a dyn Fn(u64),
    /// Bytes of the stream that were taken, as `progress` tells them.
    taken: u64,
    turn: usize,
    /// The files that are gathered, and their content.
    batch: Vec<(usize, usize)>,
    bytes: Vec<u8>,
    /// Buffers that the writers are through with.
    empty: Receiver<Vec<u8>>,
}

impl Desk<'_> {
    fn deal(&mut self, stream: impl BufRead, size: u64) -> Result<(), Failure> {
        let dealt = self.deal_files(stream, size);
        // What arrived whole before a connection was lost need not come again.
        dealt.and(self.flush())
    }

    fn deal_files(&mut self, stream: impl BufRead, size: u64) -> Result<(), Failure> {
        let mut unpack = Unpack::new(stream, size)?;
        let mut missing: HashSet<usize> = self.stored.unproven().into_iter().collect();
        while unpack.left() > 0 {
            let mut index = [0; 4];
            unpack.fill(&mut index)?;
            self.taken += 4;
            let number = u32::from_le_bytes(index);
            let index = usize::try_from(number).ok().filter(|index| missing.remove(index));
            let Some(index) = index else {
                return Err(failure::new(Code::Protocol, format!("content for entry {number}, which is not missing")));
            };
            let entry = &self.stored.manifest.entries()[index];
            let Some(wanted) = wanted(entry) else { continue };
            if wanted.size > unpack.left() {
                return Err(failure::new(Code::Protocol, format!("the content of `{}` is longer than the stream", entry.path)));
            }
            match usize::try_from(wanted.size) {
                Ok(size) if size <= BUFFER => self.small(index, size, &mut unpack)?,
                Ok(_) | Err(_) => self.large(index, &wanted, &mut unpack)?,
            }
        }
        unpack.finish()
    }

    fn small(&mut self, index: usize, size: usize, unpack: &mut Unpack<impl BufRead>) -> Result<(), Failure> {
        if self.bytes.len() + size > BUFFER || self.batch.len() >= BATCH {
            self.flush()?;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + size, 0);
        unpack.fill(&mut self.bytes[start..])?;
        self.taken += size as u64;
        self.batch.push((index, size));
        Ok(())
    }

    /// Gives an empty buffer with room for a batch or a piece.
    fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        buffer.clear();
        buffer
    }

    fn large(&mut self, index: usize, wanted: &Wanted, unpack: &mut Unpack<impl BufRead>) -> Result<(), Failure> {
        self.flush()?;
        self.send(Work::Large(index))?;
        let mut left = wanted.size;
        while left > 0 {
            let mut piece = self.buffer();
            piece.resize(BUFFER.min(usize::try_from(left).unwrap_or(BUFFER)), 0);
            unpack.fill(&mut piece)?;
            left -= piece.len() as u64;
            self.taken += piece.len() as u64;
            self.send(Work::Piece(piece))?;
        }
        self.turn += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (batch, next) = (std::mem::take(&mut self.batch), self.buffer());
        let bytes = std::mem::replace(&mut self.bytes, next);
        self.send(Work::Files(batch, bytes))?;
        self.turn += 1;
        Ok(())
    }

    fn send(&self, work: Work) -> Result<(), Failure> {
        (self.progress)(self.taken);
        // Only a writer that failed lets its end go; its own report says why.
        self.senders[self.turn % self.senders.len()].send(work).map_err(|_| failure::new(Code::Io, "a writer stopped"))
    }
}

fn write(release: &ReleaseId, dir: &Dir, stored: &Stored, work: &Receiver<Work>, back: Sender<Vec<u8>>) -> Report {
    // Best effort: the connection, the disk's own threads and what the host serves come first.
    let _ = rustix::process::nice(NICE);
    let mut writer = Writer { release, stored, cursor: Cursor::new(dir), large: None, proofs: Vec::new(), back };
    let mut result = Ok(());
    while let (true, Ok(work)) = (result.is_ok(), work.recv()) {
        result = writer.take(work);
    }
    writer.abandon();
    Report { proofs: writer.proofs, result }
}

struct Writer<'a> {
    release: &'a ReleaseId,
    stored: &'a Stored,
    cursor: Cursor<'a>,
    large: Option<Large>,
    proofs: Vec<(usize, Stamp)>,
    back: Sender<Vec<u8>>,
}

struct Large {
    index: usize,
    file: File,
    hasher: blake3::Hasher,
    left: u64,
}

impl Writer<'_> {
    fn take(&mut self, work: Work) -> Result<(), Failure> {
        match work {
            Work::Files(files, bytes) => {
                let mut rest = &*bytes;
                for (index, size) in files {
                    let (file, behind) = rest.split_at(size);
                    self.small(index, file)?;
                    rest = behind;
                }
                self.give_back(bytes);
                Ok(())
            }
            Work::Large(index) => {
                let file = self.create(index)?;
                self.large = Some(Large { index, file, hasher: blake3::Hasher::new(), left: self.wanted(index).size });
                Ok(())
            }
            Work::Piece(bytes) => {
                self.piece(&bytes)?;
                self.give_back(bytes);
                Ok(())
            }
        }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        // The desk may have dealt out everything by now.
        let _ = self.back.send(buffer);
    }

    fn small(&mut self, index: usize, bytes: &[u8]) -> Result<(), Failure> {
        // Hashed before anything is created: what is corrupt leaves no trace.
        if Digest::of(bytes) != self.wanted(index).digest {
            return Err(self.corrupt(index));
        }
        let mut file = self.create(index)?;
        file.write_all(bytes).map_err(|error| self.failed(index, &error))?;
        self.finish(index, &file)
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(large) = &mut self.large else { return Ok(()) };
        let index = large.index;
        large.hasher.update(bytes);
        large.left -= bytes.len() as u64;
        let digest = if large.left == 0 { Some(Digest::from(large.hasher.finalize())) } else { None };
        let written = large.file.write_all(bytes);
        written.map_err(|error| self.failed(index, &error))?;
        match digest {
            None => Ok(()),
            Some(digest) if digest == self.wanted(index).digest => {
                self.large.take().map_or(Ok(()), |large| self.finish(index, &large.file))
            }
            Some(_) => Err(self.corrupt(index)),
        }
    }

    /// Removes a file that did not become whole.
    fn abandon(&mut self) {
        if let Some(large) = self.large.take()
            && let Ok((dir, name)) = self.cursor.enter(self.stored.manifest.entries()[large.index].path.as_bytes())
        {
            // Best effort: it counts for nothing, and beginning again hashes whatever is there.
            let _ = dir.unlink(name);
        }
    }

    fn create(&mut self, index: usize) -> Result<File, Failure> {
        let mode = self.wanted(index).mode;
        let path = self.stored.manifest.entries()[index].path.as_bytes();
        let created = self.cursor.enter(path).and_then(|(dir, name)| copy::create(dir, name, mode));
        created.map_err(|error| self.failed(index, &error))
    }

    fn finish(&mut self, index: usize, file: &File) -> Result<(), Failure> {
        let stamp = copy::finish(file, &self.wanted(index)).map_err(|error| self.failed(index, &error))?;
        self.proofs.push((index, stamp));
        Ok(())
    }

    fn wanted(&self, index: usize) -> Wanted {
        wanted(&self.stored.manifest.entries()[index]).expect("only files are dealt out")
    }

    fn failed(&self, index: usize, error: &std::io::Error) -> Failure {
        failure::io("write", shown(self.release, self.stored.manifest.entries()[index].path.as_bytes()), error)
    }

    fn corrupt(&self, index: usize) -> Failure {
        let path = &self.stored.manifest.entries()[index].path;
        failure::new(Code::Corrupt, format!("the content that arrived for `{path}` does not have its digest"))
    }
}
