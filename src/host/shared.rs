//! What the tasks and the requests of one host share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::HostError;
use crate::op::{Answer, Facts, Failure};
use crate::session::Diagnostics;
use crate::wire::{self, ToHelper, WINDOW};

/// Frames of data that wait for the writer, of all streams together.
const DATA_QUEUE: usize = 4;
/// Credit is given back in steps, so that it costs little.
const CREDIT_STEP: u64 = WINDOW / 4;

pub(super) struct Shared {
    pub name: String,
    pub sent: AtomicU64,
    pub data: mpsc::Sender<Vec<u8>>,
    pub diagnostics: Diagnostics,
    /// Bounded by what the other queues are: a message a request, and one for every `CREDIT_STEP` bytes received.
    control: mpsc::UnboundedSender<Vec<u8>>,
    facts: Mutex<Arc<Facts>>,
    calls: Mutex<Calls>,
    /// Why the pipe is of no use any more.
    end: watch::Sender<Option<String>>,
    /// Ends the session when dropped.
    owner: Mutex<Option<Box<dyn Send>>>,
}

#[derive(Default)]
struct Calls {
    last: u32,
    open: HashMap<u32, Arc<CallState>>,
}

/// The receiving ends of what is to be written.
pub(super) struct Queues {
    pub control: mpsc::UnboundedReceiver<Vec<u8>>,
    pub data: mpsc::Receiver<Vec<u8>>,
}

/// One request that was not answered yet, or whose answer was not taken yet.
pub(super) struct CallState {
    inbox: Mutex<Inbox>,
    pub ready: Notify,
    /// Bytes that may be sent.
    pub credit: Semaphore,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub items: VecDeque<Item>,
    pub outcome: Option<Result<Answer, HostError>>,
    /// How an answered request ended, for a sender that still has bytes.
    pub failure: Option<HostError>,
    pub answered: bool,
    /// Bytes received for which no credit was given back yet.
    owed: u64,
    /// Of these, what the receiver has taken.
    taken: u64,
    /// Nobody will take what arrives.
    abandoned: bool,
}

pub(super) enum Item {
    Output { stderr: bool, bytes: Vec<u8> },
    Progress(u64),
    End,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CallState {
    pub fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn settle(&self, outcome: Result<Answer, HostError>) {
        let mut inbox = self.inbox();
        if !inbox.answered {
            inbox.answered = true;
            inbox.failure = outcome.as_ref().err().cloned();
            inbox.outcome = Some(outcome);
        }
        drop(inbox);
        self.credit.close();
        self.ready.notify_one();
    }
}

impl Shared {
    pub fn new(name: &str, facts: Facts, diagnostics: Diagnostics, owner: Box<dyn Send>) -> (Arc<Self>, Queues) {
        let (control, control_queue) = mpsc::unbounded_channel();
        let (data, data_queue) = mpsc::channel(DATA_QUEUE);
        let shared = Self {
            name: name.to_owned(),
            sent: AtomicU64::new(0),
            data,
            diagnostics,
            control,
            facts: Mutex::new(Arc::new(facts)),
            calls: Mutex::default(),
            end: watch::Sender::new(None),
            owner: Mutex::new(Some(owner)),
        };
        (Arc::new(shared), Queues { control: control_queue, data: data_queue })
    }

    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(&lock(&self.facts))
    }

    pub fn protocol(&self, why: String) -> HostError {
        HostError::Protocol { host: self.name.clone(), why }
    }

    fn lost(&self, why: String) -> HostError {
        HostError::Lost { host: self.name.clone(), why }
    }

    /// Opens the books for a new request.
    pub fn register(&self) -> Result<(u32, Arc<CallState>), HostError> {
        let mut calls = lock(&self.calls);
        if let Some(why) = self.end.borrow().clone() {
            return Err(self.lost(why));
        }
        let id = calls.last.checked_add(1).ok_or_else(|| self.lost("its request numbers are used up".to_owned()))?;
        calls.last = id;
        let window = usize::try_from(WINDOW).unwrap_or(usize::MAX);
        let state = Arc::new(CallState { inbox: Mutex::default(), ready: Notify::new(), credit: Semaphore::new(window) });
        calls.open.insert(id, Arc::clone(&state));
        Ok((id, state))
    }

    pub fn forget(&self, id: u32) {
        lock(&self.calls).open.remove(&id);
    }

    /// Queues a control message. After the end it goes nowhere, which every request learns in its own way.
    pub fn control(&self, message: Vec<u8>) {
        let _ = self.control.send(message);
    }

    pub fn message(&self, message: &ToHelper) {
        if let Ok(bytes) = wire::encode(message) {
            self.control(bytes);
        }
    }

    /// Takes what arrived for a request.
    pub fn deliver(&self, id: u32, item: Item) -> Result<(), String> {
        let Some(state) = self.find(id)? else { return Ok(()) };
        let mut inbox = state.inbox();
        match item {
            Item::Output { stderr, bytes } => {
                let count = bytes.len() as u64;
                inbox.owed += count;
                if inbox.owed > WINDOW {
                    return Err(format!("request {id} was sent more than its window"));
                }
                if inbox.abandoned {
                    inbox.taken += count;
                    self.give_back(id, &mut inbox);
                } else {
                    inbox.push(stderr, bytes);
                }
            }
            Item::Progress(done) => {
                // Only the latest is of interest, so a flood of them takes no room.
                if let Some(Item::Progress(last)) = inbox.items.back_mut() {
                    *last = done;
                } else if !inbox.abandoned {
                    inbox.items.push_back(Item::Progress(done));
                }
            }
            Item::End => {
                if !matches!(inbox.items.back(), Some(Item::End)) {
                    inbox.items.push_back(Item::End);
                }
            }
        }
        drop(inbox);
        state.ready.notify_one();
        Ok(())
    }

    pub fn credit(&self, id: u32, bytes: u64) -> Result<(), String> {
        let Some(state) = self.find(id)? else { return Ok(()) };
        let available = state.credit.available_permits() as u64;
        match usize::try_from(bytes) {
            Ok(count) if bytes <= WINDOW && available + bytes <= WINDOW => {
                state.credit.add_permits(count);
                Ok(())
            }
            _ => Err(format!("request {id} was given more credit than its window")),
        }
    }

    pub fn answer(&self, id: u32, result: Result<Answer, Failure>) -> Result<(), String> {
        let Some(state) = self.find(id)? else { return Err(format!("request {id} was answered twice")) };
        self.forget(id);
        if let Ok(Answer::Facts(facts)) = &result {
            *lock(&self.facts) = Arc::new((**facts).clone());
        }
        state.settle(result.map_err(HostError::Failed));
        Ok(())
    }

    /// Finds an open request. None for one that was answered: what was under way may still arrive.
    fn find(&self, id: u32) -> Result<Option<Arc<CallState>>, String> {
        let calls = lock(&self.calls);
        if id == 0 || id > calls.last {
            return Err(format!("there was no request {id}"));
        }
        Ok(calls.open.get(&id).map(Arc::clone))
    }

    /// Notes that the receiver took bytes, and gives credit back in steps.
    pub fn took(&self, id: u32, inbox: &mut Inbox, count: usize) {
        inbox.taken += count as u64;
        self.give_back(id, inbox);
    }

    fn give_back(&self, id: u32, inbox: &mut Inbox) {
        if inbox.taken >= CREDIT_STEP && !inbox.answered {
            let bytes = std::mem::take(&mut inbox.taken);
            inbox.owed -= bytes;
            self.message(&ToHelper::Credit { id, bytes });
        }
    }

    /// Asks the host to end a request, and lets what it still sends go.
    pub fn abandon(&self, id: u32, state: &CallState) {
        let mut inbox = state.inbox();
        if inbox.answered || inbox.abandoned {
            return;
        }
        inbox.abandoned = true;
        let unread: u64 =
            inbox.items.drain(..).map(|item| if let Item::Output { bytes, .. } = item { bytes.len() as u64 } else { 0 }).sum();
        inbox.taken += unread;
        self.message(&ToHelper::Stop { id });
        self.give_back(id, &mut inbox);
    }

    /// Ends everything, once; the first reason stays.
    pub fn fail(&self, why: &str) {
        let mut calls = lock(&self.calls);
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(why.to_owned());
            }
            first
        });
        let why = self.end.borrow().clone().unwrap_or_default();
        let open: Vec<_> = calls.open.drain().map(|(_, state)| state).collect();
        drop(calls);
        for state in open {
            state.settle(Err(self.lost(why.clone())));
        }
        lock(&self.owner).take();
    }

    /// Why the pipe ended, if it did.
    pub fn end(&self) -> Option<HostError> {
        self.end.borrow().clone().map(|why| self.lost(why))
    }

    /// Waits for the end.
    pub async fn ended(&self) {
        let mut end = self.end.subscribe();
        let _ = end.wait_for(Option::is_some).await;
    }
}

impl Inbox {
    /// Appends output, to the last piece where it fits, so that many small frames take little room.
    fn push(&mut self, stderr: bool, bytes: Vec<u8>) {
        match self.items.back_mut() {
            Some(Item::Output { stderr: last, bytes: before })
                if *last == stderr && before.len() + bytes.len() <= wire::frame::MAX_PAYLOAD =>
            {
                before.extend_from_slice(&bytes);
            }
            _ => self.items.push_back(Item::Output { stderr, bytes }),
        }
    }
}
