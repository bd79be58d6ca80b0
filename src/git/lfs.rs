//! Git LFS: recognises its pointers, and finds the content they stand for beside the repository. Its filter never runs.

use std::io::{self, Read};
use std::path::PathBuf;

use git2::{ObjectType, Oid};
use sha2::{Digest as _, Sha256};

use crate::tree::TreePath;

use super::contents::{Content, Source, open_file};
use super::error::GitError;
use super::objects::{Objects, read};

/// A pointer is shorter than this (the format's own limit).
const LONGEST: usize = 1024;

/// The content a pointer stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Pointer {
    sha256: String,
    size: u64,
}

impl Pointer {
    /// Recognises a pointer by its first line and its two keys.
    pub fn read(blob: &[u8]) -> Option<Self> {
        if blob.len() >= LONGEST || !blob.starts_with(b"version https://git-lfs.github.com/spec/v1\n") {
            return None;
        }
        let text = std::str::from_utf8(blob).ok()?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let sha256 = value("oid sha256:")?;
        let hex = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        hex.then_some(Self { sha256: sha256.to_owned(), size: value("size ")?.parse().ok()? })
    }
}

/// Finds and verifies the content that the pointer `blob` at `path` stands for.
pub fn content(objects: &Objects, path: &TreePath, blob: Oid) -> Result<Content, GitError> {
    let (pointer, directory) = objects.with(|repository| {
        let blob = read(&repository.odb()?, blob, ObjectType::Blob)?;
        Ok((Pointer::read(&blob), repository.commondir().join("lfs/objects")))
    })?;
    let differs = |file: PathBuf| GitError::LfsDiffers { path: path.clone(), file };
    let Some(Pointer { sha256, size }) = pointer else { return Err(differs(directory)) };
    let file = directory.join(&sha256[..2]).join(&sha256[2..4]).join(&sha256);
    let mut reader = open_file(&file).map_err(|_| GitError::LfsAbsent { path: path.clone(), file: file.clone() })?;
    let (found, digest, length) =
        hash(&mut reader).map_err(|error| GitError::Io { what: "Git LFS content cannot be read", path: file.clone(), error })?;
    if found != sha256 || length != size {
        return Err(differs(file));
    }
    Ok(Content { size, digest, source: Source::File(file) })
}

fn hash(reader: &mut impl Read) -> io::Result<(String, crate::tree::Digest, u64)> {
    let (mut sha256, mut blake3, mut length) = (Sha256::new(), blake3::Hasher::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        sha256.update(&buffer[..read]);
        blake3.update(&buffer[..read]);
        length += read as u64;
    }
    // Both digests are 32 bytes, and show as 64 hex digits.
    let hex = crate::tree::Digest(sha256.finalize().into()).to_string();
    Ok((hex, blake3.finalize().into(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_recognised_and_text_about_pointers_is_not() {
        let hex = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{hex}\nsize 12345\n");
        assert_eq!(Pointer::read(pointer.as_bytes()), Some(Pointer { sha256: hex.to_owned(), size: 12345 }));
        assert_eq!(Pointer::read(format!("# {pointer}").as_bytes()), None);
        assert_eq!(Pointer::read(pointer.replace("4d7a", "../.").as_bytes()), None);
        assert_eq!(Pointer::read(b"version https://git-lfs.github.com/spec/v1\n"), None);
    }
}
