//! One file that carries a revision, what its build needs, and helpers, to a site that reaches nothing: a plain tar, so that anybody
//! can look into it. What it says of itself is checked before it is shown or stored: contents have the digests of the list, helpers those
//! of the head, and names lead nowhere. That keeps damage and tricks out, not whoever made the file: its helpers run on hosts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::tree::Digest;

/// The format of the file.
const FORMAT: u32 = 1;
const BLOCK: usize = 512;
/// The first entry, which says what the file is.
const HEAD: &str = "deployer-export.json";
/// The most bytes that one small entry may have.
const SMALL: u64 = 64 << 20;

/// What the file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub format: u32,
    /// The version of the program that wrote it: helpers serve only their own.
    pub deployer: String,
    pub project: String,
    pub commit: String,
    /// The branch of the bundle.
    pub reference: String,
    /// The digests of the helpers, by platform.
    #[serde(default)]
    pub helpers: BTreeMap<String, Digest>,
}

impl Head {
    #[must_use]
    pub fn new(project: &str, commit: &str, reference: &str, helpers: &[(String, Vec<u8>)]) -> Self {
        let helpers = helpers.iter().map(|(platform, bytes)| (platform.clone(), Digest::of(bytes))).collect();
        let (project, commit, reference) = (project.to_owned(), commit.to_owned(), reference.to_owned());
        Self { format: FORMAT, deployer: env!("CARGO_PKG_VERSION").to_owned(), project, commit, reference, helpers }
    }

    /// Tells whether what it says is what an export says: it reaches a terminal, and commands to paste.
    fn is_plain(&self) -> bool {
        let is_commit = matches!(self.commit.len(), 40 | 64) && self.commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_version =
            self.deployer.len() <= 40 && self.deployer.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte));
        is_commit && is_version && is_branch(&self.reference)
    }
}

/// Tells whether a name is one that git takes for a branch, and that is nothing else to a shell or to git: no option, no id, no path.
#[must_use]
pub fn is_branch(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let is_id = name.len() >= 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && part.strip_suffix(".lock").is_none();
    name.len() <= 200 && name.chars().all(plain) && !name.starts_with('-') && !name.contains("..") && !is_id && name.split('/').all(part)
}

/// Says why a file cannot be read as one of ours.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error("it is no export of `deployer`")]
    Foreign,
    #[error("it was written by a newer deployer, in format {0}")]
    Newer(u32),
    #[error("it ends early")]
    Truncated,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for CarryError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(error) }
    }
}

/// Writes the file.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, head: &Head) -> io::Result<Self> {
        let mut writer = Self { out };
        let head = serde_json::to_vec_pretty(head)?;
        writer.add(HEAD, head.len() as u64, &mut &*head)?;
        Ok(writer)
    }

    /// Adds one entry, of exactly `size` bytes.
    pub fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.out.write_all(&header(name, size)?)?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::other(format!("`{name}` changed while it was read")));
        }
        self.out.write_all(&[0; BLOCK][..padding(size)])
    }

    /// Ends the file.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - rest) % BLOCK
}

fn header(name: &str, size: u64) -> io::Result<[u8; BLOCK]> {
    if name.len() > 100 || size >= 1 << 33 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is too large for the file")));
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Reads the file, entry by entry.
pub struct Reader {
    file: io::BufReader<File>,
    left: u64,
    padding: usize,
}

impl Reader {
    /// Reads what the file is.
    pub fn open(file: File) -> Result<(Self, Head), CarryError> {
        let mut reader = Self { file: io::BufReader::new(file), left: 0, padding: 0 };
        let first = match reader.next_entry() {
            Err(CarryError::Damaged(_) | CarryError::Truncated) => return Err(CarryError::Foreign),
            other => other?,
        };
        if first.as_deref() != Some(HEAD) {
            return Err(CarryError::Foreign);
        }
        let text = reader.small()?;
        let head: serde_json::Value = serde_json::from_slice(&text).map_err(|_| CarryError::Foreign)?;
        let format = head["format"].as_u64().and_then(|format| u32::try_from(format).ok()).ok_or(CarryError::Foreign)?;
        if format > FORMAT {
            return Err(CarryError::Newer(format));
        }
        let head: Head = serde_json::from_value(head).map_err(|_| CarryError::Foreign)?;
        if head.is_plain() { Ok((reader, head)) } else { Err(CarryError::Damaged("what it says of its revision")) }
    }

    /// Goes to the next entry and gives its name; none at the end.
    pub fn next_entry(&mut self) -> Result<Option<String>, CarryError> {
        let rest = self.left + self.padding as u64;
        if io::copy(&mut (&mut self.file).take(rest), &mut io::sink())? != rest {
            return Err(CarryError::Truncated);
        }
        (self.left, self.padding) = (0, 0);
        let mut block = [0; BLOCK];
        self.file.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let text = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&block[range]).ok().map(|text| text.split('\0').next().unwrap_or_default().trim().to_owned())
        };
        let sum: u32 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
        let told = text(148..156).and_then(|text| u32::from_str_radix(&text, 8).ok());
        if told != Some(sum) || block[156] != b'0' {
            return Err(CarryError::Damaged("the head of an entry"));
        }
        let size = text(124..136).and_then(|text| u64::from_str_radix(&text, 8).ok());
        (self.left, self.padding) = size.map(|size| (size, padding(size))).ok_or(CarryError::Damaged("the size of an entry"))?;
        text(0..100).map(Some).ok_or(CarryError::Damaged("the name of an entry"))
    }

    /// The whole of a small entry.
    pub fn small(&mut self) -> Result<Vec<u8>, CarryError> {
        if self.left > SMALL {
            return Err(CarryError::Damaged("an entry that is far too large"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        if self.left > 0 { Err(CarryError::Truncated) } else { Ok(bytes) }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.file).take(self.left).read(buffer)?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom};

    const COMMIT: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678";

    fn written(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &Head::new("boskel", COMMIT, "master", &[])).unwrap();
        for (name, content) in entries {
            writer.add(name, content.len() as u64, &mut &**content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, CarryError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let (mut reader, head) = Reader::open(file)?;
        assert_eq!(head.project, "boskel");
        let mut entries = Vec::new();
        while let Some(name) = reader.next_entry()? {
            entries.push((name, reader.small()?));
        }
        Ok(entries)
    }

    #[test]
    fn what_was_written_is_read_and_a_file_that_was_cut_or_changed_is_refused() {
        let entries: [(&str, &[u8]); 3] = [("a", b"one"), ("b/c", &[7; 513]), ("d", b"")];
        let bytes = written(&entries);
        let expected: Vec<(String, Vec<u8>)> = entries.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        assert_eq!(read(&bytes).unwrap(), expected);
        for cut in [0, 100, 512, 700, 1024, 1536, 2000, 2600, bytes.len() - 1024] {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut changed = bytes.clone();
        changed[1024 + 3] ^= 1;
        assert!(matches!(read(&changed), Err(CarryError::Damaged(_))));
        assert!(matches!(read(b"PK\x03\x04 something else"), Err(CarryError::Foreign)));
        let newer = String::from_utf8_lossy(&bytes).replacen("\"format\": 1", "\"format\": 9", 1);
        assert!(matches!(read(newer.as_bytes()), Err(CarryError::Newer(9))));
    }

    #[test]
    fn a_head_that_would_reach_a_terminal_or_a_shell_as_more_than_words_is_refused() {
        let head = |commit: &str, reference: &str, deployer: &str| {
            let head = Head { deployer: deployer.to_owned(), ..Head::new("boskel", commit, reference, &[]) };
            read(&Writer::new(Vec::new(), &head).unwrap().finish().unwrap())
        };
        let sha256 = "0".repeat(64);
        for (commit, reference) in [(COMMIT, "master"), (&*sha256, "feature/x-1"), (COMMIT, "v2.8.0")] {
            assert!(head(commit, reference, "0.1.0").is_ok(), "{commit} {reference}");
        }
        for commit in ["", "a1b2", "\u{1b}]0;x\u{7}", &COMMIT.replace('a', "g"), &COMMIT[1..]] {
            assert!(matches!(head(commit, "master", "0.1.0"), Err(CarryError::Damaged(_))), "{commit:?}");
        }
        for reference in
            ["", "x; rm -rf ~", "$(id)", "-x", "\u{1b}[2J", "a\nb", "a..b", "a//b", "x.lock", ".x", "x/", "a1b2c3d", "\u{202e}x"]
        {
            assert!(matches!(head(COMMIT, reference, "0.1.0"), Err(CarryError::Damaged(_))), "{reference:?}");
        }
        assert!(matches!(head(COMMIT, "master", "0.1\u{1b}[31m"), Err(CarryError::Damaged(_))));
    }
}
