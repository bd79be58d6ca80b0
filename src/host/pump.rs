//! The two tasks of a host: one reads the pipe and delivers, the other writes, control messages first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::{Item, Queues, Shared};
use crate::op::Facts;
use crate::wire::frame::MAX_PAYLOAD;
use crate::wire::{self, BEAT_MS, DEAD_MS, Decoder, Frame, FrameKind, FromHelper, Messages, ToHelper, VERSION};

const DEAD: Duration = Duration::from_millis(DEAD_MS);

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The stream from the host, cut into frames. Any byte of it is a sign of life.
pub(super) struct Incoming {
    decoder: Decoder,
    messages: Messages,
    buffer: Vec<u8>,
}

impl Incoming {
    pub fn new(early: &[u8]) -> Self {
        let mut decoder = Decoder::default();
        decoder.feed(early);
        Self { decoder, messages: Messages::default(), buffer: vec![0; MAX_PAYLOAD] }
    }

    /// Reads the first message, which is a greeting of our own version.
    pub async fn hello(&mut self, reader: &mut Reader) -> Result<Facts, String> {
        loop {
            let frame = self.next(reader).await?;
            match self.message(&frame)? {
                None if frame.kind == FrameKind::Part => {}
                Some(FromHelper::Hello { version: VERSION, facts }) => return Ok(*facts),
                Some(FromHelper::Hello { version, .. }) => return Err(format!("it speaks version {version}, and this is {VERSION}")),
                Some(FromHelper::Beat) => {}
                None | Some(FromHelper::Answer { .. } | FromHelper::Credit { .. } | FromHelper::Progress { .. }) => {
                    return Err("it did not greet first".to_owned());
                }
            }
        }
    }

    async fn next(&mut self, reader: &mut Reader) -> Result<Frame, String> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(|error| error.to_string())? {
                return Ok(frame);
            }
            match timeout(DEAD, reader.read(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err("the host ended it".to_owned()),
                Ok(Ok(count)) => self.decoder.feed(&self.buffer[..count]),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("the host was silent for {} s", DEAD.as_secs())),
            }
        }
    }

    /// Completes a control message with this frame, if it is one and the last of it.
    fn message(&mut self, frame: &Frame) -> Result<Option<FromHelper>, String> {
        match frame.kind {
            FrameKind::Part => self.messages.part(&frame.payload).map(|()| None),
            FrameKind::Message => self.messages.message(&frame.payload).map(Some),
            FrameKind::Data | FrameKind::DataErr | FrameKind::End => Ok(None),
        }
        .map_err(|error| error.to_string())
    }
}

/// Delivers what arrives until the pipe ends, and says so to all who wait.
pub(super) async fn read(shared: Arc<Shared>, mut incoming: Incoming, mut reader: Reader) {
    let why = loop {
        let delivered = match incoming.next(&mut reader).await {
            Ok(frame) => deliver(&shared, &mut incoming, frame),
            Err(why) => Err(why),
        };
        if let Err(why) = delivered {
            break why;
        }
    };
    // What it printed last may say why, and comes by another way.
    shared.diagnostics.settle(Duration::from_millis(200)).await;
    let said = shared.diagnostics.lines(3).join("; ");
    shared.fail(&if said.is_empty() { why } else { format!("{why} ({said})") });
}

fn deliver(shared: &Shared, incoming: &mut Incoming, frame: Frame) -> Result<(), String> {
    let message = incoming.message(&frame)?;
    match (frame.kind, message) {
        (FrameKind::Data | FrameKind::DataErr, _) if frame.payload.is_empty() => Ok(()),
        (FrameKind::Data, _) => shared.deliver(frame.id, Item::Output { stderr: false, bytes: frame.payload }),
        (FrameKind::DataErr, _) => shared.deliver(frame.id, Item::Output { stderr: true, bytes: frame.payload }),
        (FrameKind::End, _) => shared.deliver(frame.id, Item::End),
        (FrameKind::Message | FrameKind::Part, None | Some(FromHelper::Beat)) => Ok(()),
        (_, Some(FromHelper::Answer { id, result })) => shared.answer(id, result),
        (_, Some(FromHelper::Credit { id, bytes })) => shared.credit(id, bytes),
        (_, Some(FromHelper::Progress { id, done })) => shared.deliver(id, Item::Progress(done)),
        (_, Some(FromHelper::Hello { .. })) => Err("the host greeted twice".to_owned()),
    }
}

/// Puts a frame of data behind all that was asked before it. Both may have been queued since the other queue was looked at, and a frame
/// that overtakes its own request is of a request that the host does not know.
fn behind(control: &mut mpsc::UnboundedReceiver<Vec<u8>>, frame: Vec<u8>) -> Vec<u8> {
    let mut before = Vec::new();
    while let Ok(message) = control.try_recv() {
        before.extend(message);
    }
    if before.is_empty() {
        return frame;
    }
    before.extend(frame);
    before
}

/// Writes what is queued, and a beat every so often.
pub(super) async fn write(shared: Arc<Shared>, mut queues: Queues, mut writer: Writer) {
    let Ok(beat) = wire::encode(&ToHelper::Beat) else { return };
    let mut beats = interval(Duration::from_millis(BEAT_MS));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let bytes = tokio::select! {
            biased;
            () = shared.ended() => return,
            Some(message) = queues.control.recv() => message,
            _ = beats.tick() => beat.clone(),
            Some(frame) = queues.data.recv() => behind(&mut queues.control, frame),
        };
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        // A host that reads nothing more must not keep this task.
        let result = tokio::select! {
            result = written => result,
            () = shared.ended() => return,
        };
        if let Err(error) = result {
            // The reader may be about to learn a better reason.
            shared.diagnostics.settle(Duration::from_millis(200)).await;
            shared.fail(&format!("nothing can be sent to it: {error}"));
            return;
        }
        shared.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_overtakes_what_was_asked_before_it() {
        let (sender, mut control) = mpsc::unbounded_channel();
        assert_eq!(behind(&mut control, b"data".to_vec()), b"data");
        sender.send(b"request ".to_vec()).unwrap();
        sender.send(b"another ".to_vec()).unwrap();
        assert_eq!(behind(&mut control, b"data".to_vec()), b"request another data");
        assert_eq!(behind(&mut control, b"more".to_vec()), b"more");
    }
}
