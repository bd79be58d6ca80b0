//! What arrives compressed: one zstd frame whose decompressed size was declared, and is the limit.

use std::io::{self, BufRead, Read};

use crate::failure;
use crate::op::{Code, Failure};

/// The longest distance a frame may look back, as a power of two: what it costs in memory.
const WINDOW_LOG: u32 = 27;

/// Reads the content of one frame, never beyond the declared size.
pub struct Unpack<R: BufRead> {
    decoder: zstd::Decoder<'static, R>,
    left: u64,
}

impl<R: BufRead> Unpack<R> {
    pub fn new(stream: R, size: u64) -> Result<Self, Failure> {
        let mut decoder = zstd::Decoder::with_buffer(stream).map_err(|error| broken(&error))?.single_frame();
        decoder.window_log_max(WINDOW_LOG).map_err(|error| broken(&error))?;
        Ok(Self { decoder, left: size })
    }

    /// Bytes of the declared size that were not read yet.
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Fills `buffer` to the end.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        if buffer.len() as u64 > self.left {
            return Err(failure::new(Code::Protocol, "the stream holds more than it declared"));
        }
        self.decoder.read_exact(buffer).map_err(|error| broken(&error))?;
        self.left -= buffer.len() as u64;
        Ok(())
    }

    /// Checks that nothing comes after the declared size.
    pub fn finish(mut self) -> Result<(), Failure> {
        if self.left > 0 {
            return Err(failure::new(Code::Protocol, "the stream ends before the size it declared"));
        }
        match self.decoder.read(&mut [0]).map_err(|error| broken(&error))? {
            0 => Ok(()),
            _ => Err(failure::new(Code::Protocol, "the stream decompresses to more than it declared")),
        }
    }
}

/// Reads a whole frame. Memory grows with what arrives, not with what was declared.
pub fn whole(stream: impl BufRead, size: u64) -> Result<Vec<u8>, Failure> {
    const STEP: u64 = 1024 * 1024;
    let mut unpack = Unpack::new(stream, size)?;
    let mut bytes = Vec::new();
    while unpack.left() > 0 {
        let start = bytes.len();
        let step = usize::try_from(unpack.left().min(STEP)).expect("a mebibyte fits");
        bytes.resize(start + step, 0);
        unpack.fill(&mut bytes[start..])?;
    }
    unpack.finish()?;
    Ok(bytes)
}

fn broken(error: &io::Error) -> Failure {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the stream ends early".to_owned(),
        _ => format!("the stream cannot be read: {}", failure::cause(error)),
    };
    failure::new(Code::Protocol, text)
}
