//! Taking a built release from one host, for others: its manifest, then the content that this machine does not have, verified file by
//! file as it arrives. What arrived is kept by its digest, so that whoever is interrupted goes on, and the next build sends its news.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::event::{Event, Events, Step};
use crate::git::{Artifact, Content, ContentSource, Contents};
use crate::host::{Call, Host, HostError, Reply};
use crate::op::{self, Answer, Op};
use crate::release::ReleaseId;
use crate::tree::{Digest, Kind, Manifest, TreePath};

/// The most bytes a manifest may take, compressed or not: `MAX_ENTRIES` of them would be far less.
const MAX_MANIFEST: u64 = 1 << 30;
/// What is asked for at once: an interrupted run loses no more than that.
const BATCH_FILES: usize = 2000;
const BATCH_BYTES: u64 = 32 << 20;
/// Pieces of a stream that wait to be unpacked.
const QUEUE: usize = 16;
/// The longest distance a stream may look back, as a power of two: what the helper uses.
const WINDOW_LOG: u32 = 23;
const BUFFER: usize = 128 * 1024;

/// Says why a release could not be taken from its host.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("`{host}` does not send what it announced: {why}")]
    Wrong { host: String, why: String },
    #[error("what `{host}` sends cannot be kept in `{}`", path.display())]
    Local {
        host: String,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// A built release, as its host describes it.
#[derive(Clone, Debug)]
pub struct Capture {
    pub manifest: Arc<Manifest>,
    pub about: op::Captured,
}

/// Reads a sealed release on its host and gives its manifest, with what the build made.
pub async fn capture(host: &Host, release: &ReleaseId) -> Result<Capture, CaptureError> {
    let wrong = |why: String| CaptureError::Wrong { host: host.name().to_owned(), why };
    let mut call = host.start(Op::Capture { release: release.clone() }).await?;
    let mut packed = Vec::new();
    let about = loop {
        match call.next().await? {
            Reply::Output { bytes, .. } => {
                packed.extend_from_slice(&bytes);
                if packed.len() as u64 > MAX_MANIFEST {
                    return Err(wrong("a manifest without end".to_owned()));
                }
            }
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(Answer::Captured(about)) => break about,
            Reply::Answer(other) => return Err(HostError::unexpected(host.name(), &other).into()),
        }
    };
    if about.size > MAX_MANIFEST {
        return Err(wrong(format!("a manifest of {} bytes", about.size)));
    }
    let mut encoded = Vec::new();
    let mut decoder = decoder(&*packed).map_err(|error| wrong(error.to_string()))?.take(about.size + 1);
    decoder.read_to_end(&mut encoded).map_err(|error| wrong(error.to_string()))?;
    if encoded.len() as u64 != about.size {
        return Err(wrong("its manifest has another size".to_owned()));
    }
    let manifest = Manifest::decode(&encoded).map_err(|error| wrong(error.to_string()))?;
    Ok(Capture { manifest: Arc::new(manifest), about })
}

fn decoder<R: Read>(stream: R) -> io::Result<zstd::Decoder<'static, io::BufReader<R>>> {
    let mut decoder = zstd::Decoder::new(stream)?.single_frame();
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

/// Contents on this machine, each in a file named by its digest.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Makes the directory, for this user alone: what a build makes may be for nobody else.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    /// Tells whether a content is here whole. A machine that lost its power may have left a part of it.
    fn holds(&self, digest: Digest, size: u64) -> bool {
        let Ok(mut file) = File::open(self.path(digest)) else { return false };
        let mut hasher = blake3::Hasher::new();
        file.metadata().is_ok_and(|metadata| metadata.len() == size)
            && hasher.update_reader(&mut file).is_ok()
            && Digest::from(hasher.finalize()) == digest
    }

    /// Writes what `content` holds under its digest, if it has it.
    fn write(&self, digest: Digest, content: &mut impl Read) -> io::Result<bool> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read])?;
        }
        if Digest::from(hasher.finalize()) != digest {
            return Ok(false);
        }
        file.persist(self.path(digest)).map_err(|error| error.error)?;
        Ok(true)
    }

    /// Removes what `manifest` has no use for.
    fn keep_only(&self, manifest: &Manifest) -> io::Result<()> {
        let wanted: HashSet<String> = manifest.by_digest().into_keys().map(|digest| digest.to_string()).collect();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !wanted.contains(name)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file whose content is to be fetched.
#[derive(Clone, Debug)]
struct Wanted {
    path: TreePath,
    size: u64,
    digest: Digest,
}

/// Brings the content of `capture` here, as far as neither `known` nor the store has it, and gives the tree ready to be sent. Gives
/// the bytes of content that were fetched too.
pub async fn pull(
    host: &Host,
    release: &ReleaseId,
    capture: &Capture,
    known: Option<&Arc<Artifact>>,
    store: &Store,
    events: &Events,
) -> Result<(Artifact, u64), CaptureError> {
    let local = |error: io::Error| CaptureError::Local { host: host.name().to_owned(), path: store.directory.clone(), error };
    let known_digests: HashMap<Digest, u32> = known.map(|known| known.manifest.by_digest()).unwrap_or_default();
    let (manifest, here) = (Arc::clone(&capture.manifest), store.clone());
    let held: HashSet<Digest> = known_digests.keys().copied().collect();
    let missing = blocking(move || here.keep_only(&manifest).map(|()| missing(&manifest, &held, &here))).await.map_err(local)?;
    let total: u64 = missing.iter().map(|wanted| wanted.size).sum();
    let mut done = 0;
    for batch in batches(missing) {
        let bytes: u64 = batch.iter().map(|wanted| wanted.size).sum();
        fetch(host, release, batch, store).await?;
        done += bytes;
        events.emit(Event::Progress { host: host.name().to_owned(), step: Step::Capture, done_bytes: done, total_bytes: total });
    }
    Ok((artifact(&capture.manifest, known, &known_digests, store), total))
}

/// Lists what has to come, each content once. The empty one is nobody's to send.
fn missing(manifest: &Manifest, held: &HashSet<Digest>, store: &Store) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for entry in manifest.entries() {
        let Kind::File { size, digest, .. } = &entry.kind else { continue };
        if *size > 0 && seen.insert(*digest) && !held.contains(digest) && !store.holds(*digest, *size) {
            missing.push(Wanted { path: entry.path.clone(), size: *size, digest: *digest });
        }
    }
    missing
}

fn batches(missing: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut batches: Vec<Vec<Wanted>> = Vec::new();
    let mut bytes = 0;
    for wanted in missing {
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_FILES && bytes + wanted.size <= BATCH_BYTES => {
                bytes += wanted.size;
                batch.push(wanted);
            }
            Some(_) | None => {
                bytes = wanted.size;
                batches.push(vec![wanted]);
            }
        }
    }
    batches
}

async fn fetch(host: &Host, release: &ReleaseId, batch: Vec<Wanted>, store: &Store) -> Result<(), CaptureError> {
    let files = batch.iter().map(|wanted| wanted.path.clone()).collect();
    let call = host.start(Op::Give { release: release.clone(), files }).await?;
    let (pieces, stream) = mpsc::channel(QUEUE);
    let (here, name) = (store.clone(), host.name().to_owned());
    let unpacking = tokio::task::spawn_blocking(move || unpack(Stream { pieces: stream, piece: Vec::new(), at: 0 }, &batch, &here, &name));
    let received = receive(call, host.name(), pieces).await;
    let unpacked = unpacking.await.unwrap_or_else(|error| {
        Err(CaptureError::Local { host: host.name().to_owned(), path: store.directory.clone(), error: io::Error::other(error) })
    });
    // A host that failed says why, and then what arrived is cut off, which says less.
    received.and(unpacked)
}

/// Passes the stream on until the host has answered. Whoever unpacks may have had enough before that.
async fn receive(mut call: Call, host: &str, pieces: mpsc::Sender<Vec<u8>>) -> Result<(), CaptureError> {
    loop {
        match call.next().await? {
            Reply::Output { bytes, .. } => {
                if pieces.send(bytes).await.is_err() {
                    return Ok(());
                }
            }
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(Answer::Done) => return Ok(()),
            Reply::Answer(other) => return Err(HostError::unexpected(host, &other).into()),
        }
    }
}

/// Writes the contents of one stream, in the order in which they were asked for. None may be longer than its manifest says.
fn unpack(stream: Stream, batch: &[Wanted], store: &Store, host: &str) -> Result<(), CaptureError> {
    let wrong = |why: String| CaptureError::Wrong { host: host.to_owned(), why };
    let early = |error: io::Error| wrong(format!("the content ends early: {error}"));
    let mut decoder = decoder(stream).map_err(early)?;
    for Wanted { path, size, digest } in batch {
        let mut length = [0; 8];
        decoder.read_exact(&mut length).map_err(early)?;
        let length = u64::from_le_bytes(length);
        if length != *size {
            return Err(wrong(format!("`{path}` has {length} bytes, where its manifest says {size}")));
        }
        let mut content = Counted { inner: &mut decoder, left: *size };
        let whole = store.write(*digest, &mut content).map_err(|error| CaptureError::Local {
            host: host.to_owned(),
            path: store.directory.clone(),
            error,
        })?;
        if !whole {
            return Err(wrong(format!("the content of `{path}` does not have its digest")));
        }
    }
    match decoder.read(&mut [0]).map_err(early)? {
        0 => Ok(()),
        _ => Err(wrong("more than was asked for".to_owned())),
    }
}

/// Exactly so many bytes of a stream: fewer are an error, and not an end.
struct Counted<'a, R> {
    inner: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        if read == 0 && most > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
    }
}

/// Bytes that another task receives.
struct Stream {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Some(piece) = self.pieces.blocking_recv() else { return Ok(0) };
            (self.piece, self.at) = (piece, 0);
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Puts the tree together from what was known and what was fetched.
fn artifact(manifest: &Manifest, known: Option<&Arc<Artifact>>, digests: &HashMap<Digest, u32>, store: &Store) -> Artifact {
    let content = |kind: &Kind| match kind {
        Kind::File { size, digest, .. } => {
            let source = match (known, digests.get(digest)) {
                (Some(known), Some(index)) => ContentSource::Of(known.contents.clone(), *index),
                _ => ContentSource::File(store.path(*digest)),
            };
            Content { size: *size, digest: *digest, source }
        }
        Kind::Link { .. } | Kind::Directory => Content { size: 0, digest: Digest([0; 32]), source: ContentSource::Nothing },
    };
    let contents = manifest.entries().iter().map(|entry| content(&entry.kind)).collect();
    Artifact { manifest: manifest.clone(), contents: Contents::new(contents, Vec::new(), Vec::new()), warnings: Vec::new() }
}

/// Where the store of an environment is, below the user's cache directory.
#[must_use]
pub fn place(cache: &Path, project: &str, environment: &str) -> PathBuf {
    cache.join("built").join(format!("{project}-{environment}"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(content: &[u8]) -> Wanted {
        Wanted { path: TreePath::new("a").unwrap(), size: content.len() as u64, digest: Digest::of(content) }
    }

    fn given(contents: &[&[u8]]) -> Vec<u8> {
        let stream: Vec<u8> = contents.iter().flat_map(|content| [&(content.len() as u64).to_le_bytes()[..], content].concat()).collect();
        zstd::encode_all(&*stream, 1).unwrap()
    }

    /// Unpacks `bytes` as they would arrive, in small pieces.
    fn arrive(bytes: &[u8], batch: &[Wanted], store: &Store) -> Result<(), CaptureError> {
        let (pieces, stream) = mpsc::channel(bytes.len() + 1);
        bytes.chunks(7).for_each(|piece| pieces.try_send(piece.to_vec()).unwrap());
        drop(pieces);
        unpack(Stream { pieces: stream, piece: Vec::new(), at: 0 }, batch, store, "app01")
    }

    #[test]
    fn what_arrives_whole_is_kept_and_anything_else_is_refused_and_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let store = Store::open(temporary.path().join("built")).unwrap();
        let (alpha, beta) = (b"alpha".as_slice(), b"beta".as_slice());
        for (what, bytes, batch) in [
            ("other content", given(&[b"ALPHA"]), vec![wanted(alpha)]),
            ("a longer file", given(&[b"alpha!"]), vec![wanted(alpha)]),
            ("too little", given(&[alpha]), vec![wanted(alpha), wanted(beta)]),
            ("too much", given(&[beta, alpha]), vec![wanted(beta)]),
            ("a stream that is cut off", given(&[alpha])[..12].to_vec(), vec![wanted(alpha)]),
            ("no stream", b"ssh: no route".to_vec(), vec![wanted(alpha)]),
        ] {
            let result = arrive(&bytes, &batch, &store);
            assert!(result.is_err(), "{what}");
        }
        assert!(!store.holds(Digest::of(b"ALPHA"), 5));
        arrive(&given(&[alpha, beta]), &[wanted(alpha), wanted(beta)], &store).unwrap();
        assert!(store.holds(Digest::of(alpha), 5) && store.holds(Digest::of(beta), 4));
        fs::write(store.path(Digest::of(alpha)), "alph").unwrap();
        assert!(!store.holds(Digest::of(alpha), 5), "a part of a file");
        let kind = Kind::File { mode: 0o644, size: 4, digest: Digest::of(beta), mtime: 0 };
        let manifest = Manifest::new(vec![crate::tree::Entry { path: TreePath::new("b").unwrap(), kind }]).unwrap();
        store.keep_only(&manifest).unwrap();
        let names: Vec<_> = fs::read_dir(&store.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [std::ffi::OsString::from(Digest::of(beta).to_string())]);
    }

    #[test]
    fn what_is_asked_for_at_once_is_bounded_and_a_large_file_goes_alone() {
        let file = |size: u64| Wanted { size, ..wanted(b"x") };
        let sizes: Vec<Vec<u64>> = batches(vec![file(BATCH_BYTES - 1), file(1), file(1), file(BATCH_BYTES * 9), file(1)])
            .into_iter()
            .map(|batch| batch.into_iter().map(|wanted| wanted.size).collect())
            .collect();
        assert_eq!(sizes, [vec![BATCH_BYTES - 1, 1], vec![1], vec![BATCH_BYTES * 9], vec![1]]);
        assert_eq!(batches(vec![file(1); BATCH_FILES * 2 + 1]).len(), 3);
    }
}
