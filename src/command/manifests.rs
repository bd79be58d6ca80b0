//! Manifests of what hosts serve, kept here by digest: the next run sends a difference instead of the whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::release::ReleaseId;
use crate::stage::transfer;
use crate::tree::{Digest, Manifest};

fn path(cache: &Path, digest: Digest) -> PathBuf {
    cache.join("manifest").join(digest.to_string())
}

/// Finds the manifest with this digest: here, else on the host that has it as that of `release`.
pub async fn find(cache: &Path, host: &Host, release: &ReleaseId, digest: Digest) -> Option<Manifest> {
    if let Some(manifest) = kept(cache, digest) {
        return Some(manifest);
    }
    let manifest = transfer::fetch_manifest(host, release).await.ok()?;
    if manifest.manifest_digest() != digest {
        return None;
    }
    keep(cache, &manifest);
    Some(manifest)
}

/// What was kept is trusted only if it still has its digest.
fn kept(cache: &Path, digest: Digest) -> Option<Manifest> {
    let bytes = zstd::decode_all(File::open(path(cache, digest)).ok()?).ok()?;
    Manifest::decode(&bytes).ok().filter(|manifest| manifest.manifest_digest() == digest)
}

/// Keeps a manifest. Without it the next run asks a host, so a failure here is none.
pub fn keep(cache: &Path, manifest: &Manifest) {
    let path = path(cache, manifest.manifest_digest());
    let Some(directory) = path.parent() else { return };
    if path.exists() || fs::create_dir_all(directory).is_err() {
        return;
    }
    let Ok(mut file) = tempfile::NamedTempFile::new_in(directory) else { return };
    let written = zstd::encode_all(&*manifest.encode(), 1).and_then(|bytes| file.write_all(&bytes));
    if written.is_ok() {
        let _ = file.persist(path);
    }
}
