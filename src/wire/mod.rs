//! The pipe's language: frames (`frame`), and the messages that control frames carry. Shared by both ends.
//!
//! A helper begins its output with the marker it was given, a newline, and one `FromHelper::Hello`. Then both sides send
//! frames as they like. A `Request` owns the byte streams of its id in both directions; `End` ends a direction once.

pub mod frame;

use serde::{Deserialize, Serialize};

use crate::op::{Answer, Facts, Failure, Op};

pub use frame::{Decoder, Frame, FrameError, FrameKind};

/// Equality is all that is asked of it: helpers are sent by digest, so both ends come from one build.
pub const VERSION: u32 = 1;
/// A byte of life at least this often, in milliseconds.
pub const BEAT_MS: u64 = 5_000;
/// A pipe that was silent for so long is dead, in milliseconds.
pub const DEAD_MS: u64 = 20_000;
/// What a build group gets between TERM and KILL when the pipe died, in milliseconds.
pub const GRACE_MS: u64 = 5_000;
/// Bytes of a stream that may be under way before the receiver has given credit for more.
pub const WINDOW: u64 = 2 * 1024 * 1024;
/// The longest control message, whatever number of frames carries it.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// The controller's side of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHelper {
    Request {
        id: u32,
        op: Box<Op>,
    },
    /// Ends the processes of a request, or leaves its stream unread. The request still ends with an answer.
    Stop {
        id: u32,
    },
    Credit {
        id: u32,
        bytes: u64,
    },
    Beat,
    /// Unlock and exit.
    Bye,
}

/// The helper's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHelper {
    Hello {
        version: u32,
        facts: Box<Facts>,
    },
    Answer {
        id: u32,
        result: Result<Answer, Failure>,
    },
    Credit {
        id: u32,
        bytes: u64,
    },
    Beat,
    /// How far a request came: a number to draw, never to decide on.
    Progress {
        id: u32,
        done: u64,
    },
}

/// Encodes a message into as many frames as it takes.
///
/// # Errors
/// The message is longer than `MAX_MESSAGE`.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_allocvec(message).map_err(|error| FrameError::Malformed(error.to_string()))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(FrameError::LongMessage(bytes.len()));
    }
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let mut chunks = bytes.chunks(frame::MAX_PAYLOAD).peekable();
    while let Some(chunk) = chunks.next() {
        let kind = if chunks.peek().is_some() { FrameKind::Part } else { FrameKind::Message };
        frame::put(&mut out, kind, 0, chunk);
    }
    Ok(out)
}

/// Gathers the parts of control messages.
#[derive(Debug, Default)]
pub struct Messages {
    parts: Vec<u8>,
}

impl Messages {
    /// Takes the payload of a `Part` frame.
    ///
    /// # Errors
    /// The message grows beyond `MAX_MESSAGE`.
    pub fn part(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        if self.parts.len() + payload.len() > MAX_MESSAGE {
            return Err(FrameError::LongMessage(self.parts.len() + payload.len()));
        }
        self.parts.extend_from_slice(payload);
        Ok(())
    }

    /// Takes the payload of a `Message` frame, which completes a message.
    ///
    /// # Errors
    /// The bytes are no message, or too many.
    pub fn message<M: for<'a> Deserialize<'a>>(&mut self, payload: &[u8]) -> Result<M, FrameError> {
        self.part(payload)?;
        let (message, rest) = postcard::take_from_bytes(&self.parts).map_err(|error| FrameError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(FrameError::Malformed(format!("{} bytes after the message", rest.len())));
        }
        self.parts.clear();
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Code, RunInfo};

    #[test]
    fn a_message_longer_than_a_frame_arrives_whole() {
        let run = RunInfo { run: "r".repeat(200_000), by: "ada".into(), what: "deploying".into(), since: 0 };
        let sent = ToHelper::Request { id: 7, op: Box::new(Op::Lock(run)) };
        let mut decoder = Decoder::default();
        let mut messages = Messages::default();
        let mut received = None;
        for chunk in encode(&sent).unwrap().chunks(1000) {
            decoder.feed(chunk);
            while let Some(frame) = decoder.next_frame().unwrap() {
                match frame.kind {
                    FrameKind::Part => messages.part(&frame.payload).unwrap(),
                    FrameKind::Message => received = Some(messages.message::<ToHelper>(&frame.payload).unwrap()),
                    FrameKind::Data | FrameKind::DataErr | FrameKind::End => panic!("not sent"),
                }
            }
        }
        assert_eq!(received, Some(sent));
    }

    #[test]
    fn an_answer_that_is_a_failure_keeps_its_code() {
        let failure = Failure { code: Code::DiskFull, message: "no space".into(), hint: None };
        let sent = FromHelper::Answer { id: 1, result: Err(failure) };
        let mut decoder = Decoder::default();
        decoder.feed(&encode(&sent).unwrap());
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(Messages::default().message::<FromHelper>(&frame.payload).unwrap(), sent);
    }

    #[test]
    fn a_message_that_never_ends_is_refused_at_its_limit() {
        let mut messages = Messages::default();
        let part = vec![0; frame::MAX_PAYLOAD];
        let accepted = (0..1000).take_while(|_| messages.part(&part).is_ok()).count();
        assert_eq!(accepted, MAX_MESSAGE / frame::MAX_PAYLOAD);
    }
}
