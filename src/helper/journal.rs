//! `.deployer/journal`: the history of a host, append-only. Each frame is `length (u32) | crc32c (u32) | JSON` and names the hash of
//! the frame before it. A torn end, left by a crash, is not an event: it is ignored, and cut off by the next append. A journal that was
//! damaged in any other way is set aside whole: what follows the damage may be history yet.

use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use crate::faults::{self, Bug};
use crate::fs::stat_of;
use crate::release::{ReleaseId, layout};
use crate::root::Root;

/// The longest event: a length from the disk is checked against it.
const LONGEST: usize = 256 * 1024;
/// The longest journal that is read: hundreds of thousands of events.
const LIMIT: u64 = 256 * 1024 * 1024;
const HEADER: usize = 8;

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
struct History {
    events: Vec<JournalEvent>,
    /// Where the next frame belongs.
    end: usize,
    /// The hash of the last frame; empty before the first.
    hash: String,
}

/// Reads the events, oldest first. Ends at the first byte that is not a whole, linked frame.
pub fn read(root: &Root) -> io::Result<Vec<JournalEvent>> {
    match root.dir.read(layout::JOURNAL, LIMIT) {
        Ok(bytes) => Ok(parse(&bytes).events),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Appends an event. Its sequence follows from what is there. Only for the holder of the lock. One that is not `durable` becomes so
/// with the next that is.
pub fn append(root: &Root, mut event: JournalEvent, durable: bool) -> io::Result<()> {
    let mut file = root.dir.open_append(layout::JOURNAL, 0o600)?;
    let mut bytes = Vec::new();
    (&mut file).take(LIMIT).read_to_end(&mut bytes)?;
    let read = parse(&bytes);
    if !is_torn(&bytes[read.end..]) {
        return set_aside(root, &event).and_then(|()| append(root, event, durable));
    }
    event.sequence = read.events.last().map_or(1, |last| last.sequence + 1);
    let frame = frame(&read.hash, &event)?;
    if stat_of(&file)?.size > read.end as u64 && !faults::has(Bug::TornTailStays) {
        file.set_len(read.end as u64)?;
    }
    file.seek(SeekFrom::End(0))?;
    file.write_all(&frame)?;
    if !durable {
        return Ok(());
    }
    file.sync_all()?;
    if read.end == 0 { root.dir.sync_parent(layout::JOURNAL) } else { Ok(()) }
}

/// Tells whether what follows the last event is no more than the beginning of another: what a crash leaves.
fn is_torn(rest: &[u8]) -> bool {
    // The length of a file may reach the disk before its content does.
    if rest.iter().all(|byte| *byte == 0) {
        return true;
    }
    let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return true };
    let [l0, l1, l2, l3, ..] = *header;
    usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).is_ok_and(|length| length <= LONGEST && rest.len() < length)
}

/// Moves the damaged journal away, and begins the next with an event that says so.
fn set_aside(root: &Root, at: &JournalEvent) -> io::Result<()> {
    let aside = format!("{}.damaged-{}", layout::JOURNAL, at.epoch);
    root.dir.rename(layout::JOURNAL, &aside)?;
    let detail = Some(format!("the journal before this event was damaged and is kept as `{aside}`"));
    append(root, JournalEvent { what: "journal-damaged".into(), release: None, from: None, detail, ..at.clone() }, true)
}

fn frame(previous: &str, event: &JournalEvent) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(&Line { previous: previous.to_owned(), event })?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the event is too long"))?;
    Ok([&length.to_le_bytes()[..], &crc32c::crc32c(&json).to_le_bytes(), &json].concat())
}

fn parse(bytes: &[u8]) -> History {
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
fn next_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok().filter(|length| *length <= LONGEST)?;
    let json = rest.get(..length)?;
    (crc32c::crc32c(json) == u32::from_le_bytes([c0, c1, c2, c3])).then_some((json, HEADER + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str) -> JournalEvent {
        JournalEvent {
            sequence: 0,
            at: 5,
            epoch: 1,
            run: "r".into(),
            by: "ada".into(),
            what: what.into(),
            release: None,
            from: None,
            detail: None,
        }
    }

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path().to_str().unwrap()).unwrap();
        root.ensure_control().unwrap();
        (directory, root)
    }

    fn names(root: &Root) -> Vec<(u64, String)> {
        read(root).unwrap().into_iter().map(|event| (event.sequence, event.what)).collect()
    }

    #[test]
    fn a_torn_end_is_ignored_and_cut_off_by_the_next_append_at_every_byte() {
        let (_directory, root) = root();
        append(&root, event("one"), true).unwrap();
        append(&root, event("two"), true).unwrap();
        let whole = root.dir.read(layout::JOURNAL, LIMIT).unwrap();
        let first = next_frame(&whole).unwrap().1;
        for cut in first..whole.len() {
            root.dir.replace(layout::JOURNAL, &whole[..cut], 0o600).unwrap();
            assert_eq!(names(&root), [(1, "one".into())], "cut at {cut}");
            append(&root, event("three"), true).unwrap();
            assert_eq!(names(&root), [(1, "one".into()), (2, "three".into())], "cut at {cut}");
        }
    }

    #[test]
    fn an_end_of_zeros_is_torn_and_not_damaged() {
        let (_directory, root) = root();
        append(&root, event("one"), true).unwrap();
        let whole = root.dir.read(layout::JOURNAL, LIMIT).unwrap();
        for zeros in [1, HEADER, HEADER + 1, 4096] {
            root.dir.replace(layout::JOURNAL, &[&whole[..], &vec![0; zeros]].concat(), 0o600).unwrap();
            append(&root, event("two"), true).unwrap();
            assert_eq!(names(&root), [(1, "one".into()), (2, "two".into())], "{zeros}");
        }
    }

    #[test]
    fn an_event_that_was_changed_or_taken_out_ends_the_chain() {
        let (_directory, root) = root();
        for what in ["one", "two", "three"] {
            append(&root, event(what), true).unwrap();
        }
        let whole = root.dir.read(layout::JOURNAL, LIMIT).unwrap();
        let first = next_frame(&whole).unwrap().1;
        let second = next_frame(&whole[first..]).unwrap().1;
        assert_eq!(parse(&whole).events.len(), 3);
        assert_eq!(parse(&[&whole[..first], &whole[first + second..]].concat()).events.len(), 1);
        let mut flipped = whole;
        flipped[first + HEADER + 3] ^= 1;
        assert_eq!(parse(&flipped).events.len(), 1);
    }

    #[test]
    fn a_damaged_journal_is_set_aside_whole_and_the_next_says_so() {
        let (_directory, root) = root();
        for what in ["one", "two", "three"] {
            append(&root, event(what), true).unwrap();
        }
        let mut damaged = root.dir.read(layout::JOURNAL, LIMIT).unwrap();
        damaged[HEADER + 3] ^= 1;
        root.dir.replace(layout::JOURNAL, &damaged, 0o600).unwrap();
        append(&root, event("four"), true).unwrap();
        assert_eq!(names(&root), [(1, "journal-damaged".into()), (2, "four".into())]);
        assert_eq!(root.dir.read(format!("{}.damaged-1", layout::JOURNAL), LIMIT).unwrap(), damaged);
    }

    #[test]
    fn a_length_from_the_disk_is_not_believed() {
        assert_eq!(parse(&[0xff; 64]), History::default());
    }
}
