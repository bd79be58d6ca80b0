//! The bytes of a journal: what is an event, what is torn, and how the next one is written. Nothing of a host is in it.

use std::io;

use serde::{Deserialize, Serialize};

use crate::release::ReleaseId;

/// The longest event: a length from the disk is checked against it.
const LONGEST: usize = 256 * 1024;
pub const HEADER: usize = 8;

/// One line of a host's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEvent {
    pub sequence: u64,
    /// Seconds since 1970 on the host's clock.
    pub at: i64,
    pub epoch: u64,
    pub run: String,
    pub by: String,
    /// `deploy-started`, `activated`, `confirmed`, `reverted`, `pruned` …
    pub what: String,
    pub release: Option<ReleaseId>,
    pub from: Option<ReleaseId>,
    pub detail: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Line<E> {
    previous: String,
    event: E,
}

/// What the bytes of a journal hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct History {
    pub events: Vec<JournalEvent>,
    /// Where the next frame belongs.
    pub end: usize,
    /// The hash of the last frame; empty before the first.
    pub hash: String,
}

/// Tells whether what follows the last event is no more than the beginning of another: what a crash leaves.
pub fn is_torn(rest: &[u8]) -> bool {
    // The length of a file may reach the disk before its content does.
    if rest.iter().all(|byte| *byte == 0) {
        return true;
    }
    let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return true };
    let [l0, l1, l2, l3, ..] = *header;
    usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).is_ok_and(|length| length <= LONGEST && rest.len() < length)
}

/// Makes the frame of an event that follows the one with the hash `previous`.
pub fn frame(previous: &str, event: &JournalEvent) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(&Line { previous: previous.to_owned(), event })?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the event is too long"))?;
    Ok([&length.to_le_bytes()[..], &crc32c::crc32c(&json).to_le_bytes(), &json].concat())
}

/// Reads events up to the first byte that is not a whole, linked frame.
pub fn parse(bytes: &[u8]) -> History {
    let mut read = History::default();
    while let Some((json, length)) = next_frame(bytes.get(read.end..).unwrap_or_default()) {
        let Ok(line) = serde_json::from_slice::<Line<JournalEvent>>(json) else { break };
        if line.previous != read.hash {
            break;
        }
        read.hash = blake3::hash(&bytes[read.end..read.end + length]).to_string();
        read.end += length;
        read.events.push(line.event);
    }
    read
}

/// Cuts off the first frame: its JSON and its whole length.
pub fn next_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok().filter(|length| *length <= LONGEST)?;
    let json = rest.get(..length)?;
    (crc32c::crc32c(json) == u32::from_le_bytes([c0, c1, c2, c3])).then_some((json, HEADER + length))
}
