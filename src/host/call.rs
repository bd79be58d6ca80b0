//! One request to a host, with its streams.

use std::sync::Arc;

use super::shared::{CallState, Item};
use super::{HostError, Inner};
use crate::op::Answer;
use crate::wire::frame::{self, FrameKind, MAX_PAYLOAD};

/// What comes back, in order; the answer is the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Output { stderr: bool, bytes: Vec<u8> },
    Progress(u64),
    End,
    Answer(Answer),
}

/// A request under way. When it is dropped without its answer, the host is asked to stop it.
pub struct Call {
    sender: CallSender,
    receiver: CallReceiver,
}

/// The stream to the host.
pub struct CallSender {
    host: Arc<Inner>,
    id: u32,
    state: Arc<CallState>,
}

/// The streams and the answer from the host.
pub struct CallReceiver {
    host: Arc<Inner>,
    id: u32,
    state: Arc<CallState>,
}

impl Call {
    pub(super) fn new(host: Arc<Inner>, id: u32, state: Arc<CallState>) -> Self {
        let sender = CallSender { host: Arc::clone(&host), id, state: Arc::clone(&state) };
        Self { sender, receiver: CallReceiver { host, id, state } }
    }

    /// Sends bytes, cut into frames, as fast as the host gives credit.
    ///
    /// # Errors
    /// The request has ended already, or the host is lost.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), HostError> {
        self.sender.send(bytes).await
    }

    /// Ends the stream to the host.
    ///
    /// # Errors
    /// As `send`.
    pub async fn end(&mut self) -> Result<(), HostError> {
        self.sender.end().await
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    /// The host failed to do what was asked, or is lost.
    pub async fn next(&mut self) -> Result<Reply, HostError> {
        self.receiver.next().await
    }

    /// Waits for the answer; output is not kept.
    ///
    /// # Errors
    /// As `next`.
    pub async fn answer(self) -> Result<Answer, HostError> {
        self.receiver.answer().await
    }

    /// Gives the two halves to two tasks.
    #[must_use]
    pub fn split(self) -> (CallSender, CallReceiver) {
        (self.sender, self.receiver)
    }
}

impl CallSender {
    /// As `Call::send`.
    ///
    /// # Errors
    /// As `Call::send`.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), HostError> {
        for chunk in bytes.chunks(MAX_PAYLOAD) {
            let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            match self.state.credit.acquire_many(count).await {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(self.ended()),
            }
            self.frame(FrameKind::Data, chunk).await?;
        }
        Ok(())
    }

    /// As `Call::end`.
    ///
    /// # Errors
    /// As `Call::send`.
    pub async fn end(&mut self) -> Result<(), HostError> {
        if self.state.credit.is_closed() {
            return Err(self.ended());
        }
        self.frame(FrameKind::End, &[]).await
    }

    async fn frame(&self, kind: FrameKind, payload: &[u8]) -> Result<(), HostError> {
        let mut bytes = Vec::with_capacity(payload.len() + frame::HEADER);
        frame::put(&mut bytes, kind, self.id, payload);
        self.host.shared.data.send(bytes).await.map_err(|_| self.ended())
    }

    /// Says why nothing can be sent any more.
    fn ended(&self) -> HostError {
        let failure = self.state.inbox().failure.clone();
        let shared = &self.host.shared;
        failure
            .or_else(|| shared.end())
            .unwrap_or_else(|| shared.protocol(format!("request {} was answered before its stream had ended", self.id)))
    }
}

impl CallReceiver {
    /// As `Call::next`.
    ///
    /// # Errors
    /// As `Call::next`.
    pub async fn next(&mut self) -> Result<Reply, HostError> {
        loop {
            let ready = self.state.ready.notified();
            if let Some(result) = self.take() {
                return result;
            }
            ready.await;
        }
    }

    fn take(&self) -> Option<Result<Reply, HostError>> {
        let mut inbox = self.state.inbox();
        match inbox.items.pop_front() {
            Some(Item::Output { stderr, bytes }) => {
                self.host.shared.took(self.id, &mut inbox, bytes.len());
                Some(Ok(Reply::Output { stderr, bytes }))
            }
            Some(Item::Progress(done)) => Some(Ok(Reply::Progress(done))),
            Some(Item::End) => Some(Ok(Reply::End)),
            None => match inbox.outcome.take() {
                Some(outcome) => Some(outcome.map(Reply::Answer)),
                None if inbox.answered => {
                    let again = || self.host.shared.protocol(format!("request {} was asked on after its answer", self.id));
                    Some(Err(inbox.failure.clone().unwrap_or_else(again)))
                }
                None => None,
            },
        }
    }

    /// As `Call::answer`.
    ///
    /// # Errors
    /// As `Call::next`.
    pub async fn answer(mut self) -> Result<Answer, HostError> {
        loop {
            if let Reply::Answer(answer) = self.next().await? {
                return Ok(answer);
            }
        }
    }
}

impl Drop for CallReceiver {
    fn drop(&mut self) {
        self.host.shared.abandon(self.id, &self.state);
    }
}
