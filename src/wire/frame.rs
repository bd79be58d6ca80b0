//! Frames: `length (u32) | kind (u8) | id (u32) | payload`, little endian. The length is that of the payload and at most 64 KiB,
//! and is checked before anything is allocated.

/// The longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The bytes before a payload.
pub const HEADER: usize = 9;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// The last, or only, part of a control message.
    Message = 0,
    /// A part of a control message that goes on.
    Part = 1,
    /// Bytes of a stream; standard output where the stream is a command's.
    Data = 2,
    /// Bytes of a command's standard error.
    DataErr = 3,
    /// The end of a stream in this direction. Its payload is empty.
    End = 4,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameKind,
    pub id: u32,
    pub payload: Vec<u8>,
}

/// Says why bytes are not frames. After one of these the pipe is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes, where {MAX_PAYLOAD} is the most")]
    LongFrame(u32),
    #[error("a message of {0} bytes, where {max} is the most", max = super::MAX_MESSAGE)]
    LongMessage(usize),
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("not a message: {0}")]
    Malformed(String),
}

/// Appends one frame to `out`.
///
/// # Panics
/// The payload is longer than `MAX_PAYLOAD`: callers cut it.
pub fn put(out: &mut Vec<u8>, kind: FrameKind, id: u32, payload: &[u8]) {
    assert!(payload.len() <= MAX_PAYLOAD, "payloads are cut before they are framed");
    out.extend_from_slice(&header(kind, id, payload.len()));
    out.extend_from_slice(payload);
}

/// Makes the bytes that precede a payload of `length` bytes.
///
/// # Panics
/// The length does not fit: callers cut payloads at `MAX_PAYLOAD`.
#[must_use]
pub fn header(kind: FrameKind, id: u32, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).expect("payloads are cut before they are framed");
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind as u8;
    header[5..].copy_from_slice(&id.to_le_bytes());
    header
}

/// Reads a header: kind, id and the length of the payload that follows.
///
/// # Errors
/// The length is over the limit or the kind is unknown.
pub fn parse_header(header: [u8; HEADER]) -> Result<(FrameKind, u32, usize), FrameError> {
    let [l0, l1, l2, l3, kind, i0, i1, i2, i3] = header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let kind = match kind {
        0 => FrameKind::Message,
        1 => FrameKind::Part,
        2 => FrameKind::Data,
        3 => FrameKind::DataErr,
        4 => FrameKind::End,
        other => return Err(FrameError::Kind(other)),
    };
    match usize::try_from(length) {
        Ok(length) if length <= MAX_PAYLOAD => Ok((kind, u32::from_le_bytes([i0, i1, i2, i3]), length)),
        _ => Err(FrameError::LongFrame(length)),
    }
}

/// Cuts a byte stream into frames, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    read: usize,
}

impl Decoder {
    /// Takes more bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Gives the next whole frame, if there is one.
    ///
    /// # Errors
    /// The stream does not consist of frames.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some((header, body)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let (kind, id, length) = parse_header(*header)?;
        let Some(payload) = body.get(..length) else { return Ok(None) };
        let frame = Frame { kind, id, payload: payload.to_vec() };
        self.read += HEADER + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_anything_is_allocated() {
        for length in [u32::MAX, 1 << 31, 64 * 1024 + 1] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(&[2, 1, 0, 0, 0]);
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            assert_eq!(decoder.next_frame(), Err(FrameError::LongFrame(length)));
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8), cut in 1_usize..50) {
            let mut bytes = Vec::new();
            for (id, payload) in (0..).zip(&payloads) {
                put(&mut bytes, FrameKind::Data, id, payload);
            }
            let (mut decoder, mut received) = (Decoder::default(), Vec::new());
            for chunk in bytes.chunks(cut) {
                decoder.feed(chunk);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    received.push(frame.payload);
                }
            }
            prop_assert_eq!(received, payloads);
        }

        #[test]
        fn any_bytes_give_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
