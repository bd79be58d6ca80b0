//! Reads an inventory file: a regular one, and no more of it than an inventory can be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::MOST_BYTES;
use super::error::InventoryError;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, InventoryError> {
    let unreadable = |error: io::Error| InventoryError::Unreadable { path: path.to_owned(), error };
    // A pipe without a writer would wait for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    let limit = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() > MOST_BYTES { Err(InventoryError::TooMuch { stderr: Vec::new() }) } else { Ok(bytes) }
}
