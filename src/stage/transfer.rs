//! The transfer stage: what a host lacks of a tree goes there, once, compressed once for all hosts that lack the same.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::event::{Event, Events, Step};
use crate::git::Artifact;
use crate::host::{Host, HostError, Reply};
use crate::op::{Answer, Begin, Begun, Code, Content, Facts, Failure, ManifestSource, Op, Written};
use crate::release::{NewRelease, Record, ReleaseId, State};
use crate::tree::{Digest, Kind, Manifest};

/// zstd's window: 8 MiB finds most of what files far apart share, and is memory that this end and every host has to spare.
const WINDOW_LOG: u32 = 23;
const LEVEL: i32 = 1;
/// How often one host is asked what is still missing before the push is given up.
const ATTEMPTS: u32 = 3;

/// What one push cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    pub sent_bytes: u64,
    pub reused_bytes: u64,
    pub tree_bytes: u64,
}

/// A release on its way to many hosts: the tree, and every encoding of it that some host asked for.
pub struct Parcel {
    pub release: NewRelease,
    pub group: Option<String>,
    artifact: Arc<Artifact>,
    manifest: Arc<Manifest>,
    /// The manifest that most hosts serve, if any; differences are to it.
    base: Option<Arc<Manifest>>,
    base_digest: Option<Digest>,
    /// Where compressed content is kept while hosts fetch it.
    spool: PathBuf,
    whole: Mutex<Option<Arc<Encoded>>>,
    delta: Mutex<Option<Arc<Encoded>>>,
    packs: Packs,
}

pub(crate) type Ranges = Vec<(u32, u32)>;

/// A manifest or difference, compressed, with its size before.
pub(crate) struct Encoded {
    pub size: u64,
    pub bytes: Vec<u8>,
}

impl Parcel {
    /// Prepares `artifact` for sending. `manifest` is the artifact's, with the times it shall have on hosts.
    #[must_use]
    pub fn new(
        release: NewRelease,
        group: Option<String>,
        artifact: Arc<Artifact>,
        manifest: Arc<Manifest>,
        base: Option<Arc<Manifest>>,
        spool: PathBuf,
    ) -> Self {
        Self {
            release,
            group,
            artifact,
            manifest,
            base_digest: base.as_ref().map(|base| base.manifest_digest()),
            base,
            spool,
            whole: Mutex::default(),
            delta: Mutex::default(),
            packs: Packs::default(),
        }
    }

    /// Finds a release of a host that has the base's manifest: a difference to it says everything.
    #[must_use]
    pub fn known_to(&self, facts: &Facts) -> Option<ReleaseId> {
        let base = self.base_digest?;
        let usable = |record: &&Record| record.release.manifest == base && record.state != State::Uploading;
        facts.releases.iter().rev().find(usable).map(|record| record.release.id.clone())
    }

    fn whole(&self) -> io::Result<Arc<Encoded>> {
        once(&self.whole, || compress(&self.manifest.encode()))
    }

    fn delta(&self, base: &Manifest) -> io::Result<Arc<Encoded>> {
        once(&self.delta, || {
            let delta = self.manifest.delta_from(base);
            compress(&postcard::to_allocvec(&delta).map_err(io::Error::other)?)
        })
    }

    fn pack(&self, missing: &[(u32, u32)]) -> io::Result<Arc<Pack>> {
        self.packs.of(&self.artifact, missing, &self.spool)
    }
}

/// What was compressed for some host, by what it lacks: for all hosts that lack the same.
#[derive(Default)]
pub(crate) struct Packs(Mutex<HashMap<Ranges, Arc<Pack>>>);

impl Packs {
    /// Gives the pack of these contents; the first host that lacks exactly these starts its making.
    pub fn of(&self, artifact: &Arc<Artifact>, missing: &[(u32, u32)], spool: &std::path::Path) -> io::Result<Arc<Pack>> {
        let mut packs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = packs.get(missing) {
            return Ok(Arc::clone(pack));
        }
        let pack = Arc::new(Pack::start(Arc::clone(artifact), missing.to_vec(), spool)?);
        packs.insert(missing.to_vec(), Arc::clone(&pack));
        Ok(pack)
    }
}

fn once(slot: &Mutex<Option<Arc<Encoded>>>, make: impl FnOnce() -> io::Result<Encoded>) -> io::Result<Arc<Encoded>> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(encoded) = &*slot {
        return Ok(Arc::clone(encoded));
    }
    let encoded = Arc::new(make()?);
    *slot = Some(Arc::clone(&encoded));
    Ok(encoded)
}

pub(crate) fn compress(bytes: &[u8]) -> io::Result<Encoded> {
    Ok(Encoded { size: bytes.len() as u64, bytes: zstd::encode_all(bytes, LEVEL)? })
}

/// Contents in one zstd stream, written to a file that has no name while hosts read behind the writer. A slow host stalls nobody,
/// and memory does not grow with the tree.
pub(crate) struct Pack {
    file: std::fs::File,
    pub size: u64,
    progress: watch::Receiver<Progress>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    written: u64,
    done: Option<Result<(), String>>,
}

impl Pack {
    pub fn start(artifact: Arc<Artifact>, missing: Ranges, spool: &std::path::Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(spool)?;
        let size = indices(&missing).map(|index| 4 + size_of_entry(&artifact.manifest, index)).sum();
        let (sender, progress) = watch::channel(Progress::default());
        let writer = file.try_clone()?;
        tokio::task::spawn_blocking(move || {
            let result = write_pack(&artifact, &missing, Spool { file: writer, progress: &sender });
            sender.send_modify(|progress| progress.done = Some(result.map_err(|error| error.to_string())));
        });
        Ok(Self { file, size, progress })
    }
}

struct Spool<'a> {
    file: std::fs::File,
    progress: &'a watch::Sender<Progress>,
}

impl Write for Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.progress.send_modify(|progress| progress.written += written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_pack(artifact: &Artifact, missing: &[(u32, u32)], spool: Spool<'_>) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(spool, LEVEL)?;
    encoder.window_log(WINDOW_LOG)?;
    for index in indices(missing) {
        encoder.write_all(&index.to_le_bytes())?;
        let expected = size_of_entry(&artifact.manifest, index);
        let sent = io::copy(&mut artifact.contents.open(index)?, &mut encoder)?;
        if sent != expected {
            let path = &artifact.manifest.entries()[index as usize].path;
            return Err(io::Error::other(format!("`{path}` changed while it was read: {sent} bytes instead of {expected}")));
        }
    }
    encoder.finish()?;
    Ok(())
}

fn indices(ranges: &[(u32, u32)]) -> impl Iterator<Item = u32> {
    ranges.iter().flat_map(|(first, count)| *first..first.saturating_add(*count))
}

fn size_of_entry(manifest: &Manifest, index: u32) -> u64 {
    match manifest.entries().get(index as usize).map(|entry| &entry.kind) {
        Some(Kind::File { size, .. }) => *size,
        Some(Kind::Link { .. } | Kind::Directory) | None => 0,
    }
}

/// Says why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the tree cannot be read or packed here")]
    Local(#[source] io::Error),
    #[error("the host asks for what is not in the tree")]
    Greedy,
    #[error("content was sent {ATTEMPTS} times and is still missing on the host")]
    Unverified,
}

/// Brings the parcel's release to one host, as far as `uploaded`. `known` is a release of that host which has the base's manifest; `build_key`
/// names how this host builds it.
pub async fn push(
    host: &Host,
    parcel: &Parcel,
    build_key: Digest,
    known: Option<&ReleaseId>,
    events: &Events,
) -> Result<Pushed, TransferError> {
    let before = host.sent_bytes();
    let begun = match begin(host, parcel, build_key, known).await {
        // The manifest that the difference is to is damaged there: the whole one needs no other.
        Err(TransferError::Host(HostError::Failed(failure))) if known.is_some() && is_base_unusable(&failure) => {
            begin(host, parcel, build_key, None).await?
        }
        other => other?,
    };
    let mut missing = begun.missing;
    let mut attempts = 0;
    while !missing.is_empty() {
        if attempts == ATTEMPTS {
            return Err(TransferError::Unverified);
        }
        attempts += 1;
        check_request(&parcel.manifest, &missing)?;
        missing = send_content(host, parcel, &missing, events).await?;
    }
    let (_, tree_bytes) = parcel.manifest.totals();
    Ok(Pushed { sent_bytes: host.sent_bytes() - before, reused_bytes: begun.reused_bytes, tree_bytes })
}

const fn is_base_unusable(failure: &Failure) -> bool {
    matches!(failure.code, Code::Corrupt | Code::NotFound)
}

async fn begin(host: &Host, parcel: &Parcel, build_key: Digest, known: Option<&ReleaseId>) -> Result<Begun, TransferError> {
    let (encoded, source) = if let (Some(release), Some(base)) = (known, &parcel.base) {
        let encoded = parcel.delta(base).map_err(TransferError::Local)?;
        let source = ManifestSource::Delta { size: encoded.size, base: release.clone() };
        (encoded, source)
    } else {
        let encoded = parcel.whole().map_err(TransferError::Local)?;
        let source = ManifestSource::Whole { size: encoded.size };
        (encoded, source)
    };
    let release = NewRelease { build_key, ..parcel.release.clone() };
    let op = Op::Begin(Begin { release, source, group: parcel.group.clone() });
    let mut call = host.start(op).await?;
    if call.send(&encoded.bytes).await.is_ok() {
        // A host may answer before it has seen the end of the stream, well or not: the answer decides, and a lost host has none.
        let _ = call.end().await;
    }
    match call.answer().await? {
        Answer::Begun(begun) => Ok(begun),
        other => Err(HostError::unexpected(host.name(), &other).into()),
    }
}

/// The most bytes a manifest may decompress to: `MAX_ENTRIES` of them would be far less.
const MAX_MANIFEST: u64 = 1 << 30;

/// Asks a host for the manifest of one of its releases.
pub async fn fetch_manifest(host: &Host, release: &ReleaseId) -> Result<Manifest, TransferError> {
    let mut call = host.start(Op::Manifest { release: release.clone() }).await?;
    let mut compressed = Vec::new();
    loop {
        match call.next().await? {
            Reply::Output { bytes, .. } => compressed.extend_from_slice(&bytes),
            Reply::Progress(_) | Reply::End => {}
            Reply::Answer(_) => break,
        }
    }
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(&*compressed).map_err(TransferError::Local)?;
    decoder.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(TransferError::Local)?;
    Manifest::decode(&bytes).map_err(|error| TransferError::Local(io::Error::other(error)))
}

/// A host names only files of the manifest we sent, each once: anything else is a host that lies.
pub(crate) fn check_request(manifest: &Manifest, missing: &[(u32, u32)]) -> Result<(), TransferError> {
    let mut next = 0;
    for (first, count) in missing {
        let end = first.checked_add(*count).filter(|_| *first >= next && *count > 0).ok_or(TransferError::Greedy)?;
        let entries = manifest.entries().get(*first as usize..end as usize).ok_or(TransferError::Greedy)?;
        if entries.iter().any(|entry| !matches!(entry.kind, Kind::File { .. })) {
            return Err(TransferError::Greedy);
        }
        next = end;
    }
    Ok(())
}

async fn send_content(host: &Host, parcel: &Parcel, missing: &[(u32, u32)], events: &Events) -> Result<Ranges, TransferError> {
    let pack = parcel.pack(missing).map_err(TransferError::Local)?;
    let op = Op::Content(Content { release: parcel.release.id.clone(), size: pack.size });
    Ok(send_pack(host, op, &pack, Step::Push, events).await?.missing)
}

/// Sends a pack as the stream of `op`.
pub(crate) async fn send_pack(host: &Host, op: Op, pack: &Pack, step: Step, events: &Events) -> Result<Written, TransferError> {
    let call = host.start(op).await?;
    let (mut sender, mut receiver) = call.split();
    let sending = async {
        let mut progress = pack.progress.clone();
        let mut sent = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Progress { written, done } = progress.borrow_and_update().clone();
            while sent < written {
                let length = buffer.len().min(usize::try_from(written - sent).unwrap_or(usize::MAX));
                pack.file.read_exact_at(&mut buffer[..length], sent).map_err(TransferError::Local)?;
                sender.send(&buffer[..length]).await?;
                sent += length as u64;
            }
            match done {
                Some(Ok(())) => break,
                Some(Err(error)) => return Err(TransferError::Local(io::Error::other(error))),
                None => progress.changed().await.map_err(|_| TransferError::Local(io::Error::other("the packing ended early")))?,
            }
        }
        sender.end().await?;
        Ok::<(), TransferError>(())
    };
    let receiving = async {
        loop {
            match receiver.next().await? {
                Reply::Progress(done_bytes) => {
                    events.emit(Event::Progress { host: host.name().to_owned(), step, done_bytes, total_bytes: pack.size });
                }
                Reply::Output { .. } | Reply::End => {}
                Reply::Answer(Answer::Written(written)) => return Ok(written),
                Reply::Answer(other) => return Err(HostError::unexpected(host.name(), &other).into()),
            }
        }
    };
    tokio::pin!(sending, receiving);
    // A host that fails says so in its answer: that is the better error, and no credit comes after it. So the answer decides.
    tokio::select! {
        answer = &mut receiving => answer,
        sent = &mut sending => match sent {
            Err(error @ TransferError::Local(_)) => Err(error),
            Ok(()) | Err(_) => receiving.await,
        },
    }
}
