//! `.deployer/journal`: the history of a host, append-only. Each frame is `length (u32) | crc32c (u32) | JSON` and names the hash of
//! the frame before it. A torn end, left by a crash, is not an event: it is ignored, and cut off by the next append. A journal that was
//! damaged in any other way is set aside whole: what follows the damage may be history yet.

mod frames;

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::faults::{self, Bug};
use crate::fs::stat_of;
use crate::release::layout;
use crate::root::Root;

pub use frames::JournalEvent;
use frames::{frame, is_torn, parse};

/// The longest journal that is read: hundreds of thousands of events.
const LIMIT: u64 = 256 * 1024 * 1024;

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

/// Moves the damaged journal away, and begins the next with an event that says so.
fn set_aside(root: &Root, at: &JournalEvent) -> io::Result<()> {
    let aside = format!("{}.damaged-{}", layout::JOURNAL, at.epoch);
    root.dir.rename(layout::JOURNAL, &aside)?;
    let detail = Some(format!("the journal before this event was damaged and is kept as `{aside}`"));
    append(root, JournalEvent { what: "journal-damaged".into(), release: None, from: None, detail, ..at.clone() }, true)
}

#[cfg(test)]
mod tests {
    use super::frames::{HEADER, next_frame};
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
        assert_eq!(parse(&[0xff; 64]), frames::History::default());
    }
}
