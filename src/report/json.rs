//! The stream as NDJSON: one event a line, `version` first, `run.finished` exactly once and last.

use std::collections::BTreeMap;

use crate::event::{Event, SCHEMA, Timed};

/// Puts a stream into the order that it promises, whatever the run did or failed to do.
#[derive(Debug, Default)]
pub struct Order {
    began: bool,
    run: Option<String>,
    finished: bool,
}

impl Order {
    /// Gives what is to be told for `timed`; `time` is the clock's, should the stream not tell.
    pub fn take(&mut self, timed: Timed, time: &str) -> Vec<Timed> {
        if self.finished {
            return Vec::new();
        }
        let mut told = Vec::new();
        match &timed.event {
            Event::Version { .. } if self.began => return told,
            Event::Version { .. } => {}
            _ if !self.began => told.push(Timed { event: version(time), t: 0.0 }),
            _ => {}
        }
        if let Event::RunStarted { run, .. } = &timed.event {
            self.run = Some(run.clone());
        }
        self.finished |= matches!(timed.event, Event::RunFinished { .. });
        self.began = true;
        told.push(timed);
        told
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Ends a run that began and broke off without a word.
    pub fn close(&mut self, t: f64) -> Option<Timed> {
        let run = self.run.take().filter(|_| !std::mem::replace(&mut self.finished, true))?;
        let (status, summary) = ("internal".to_owned(), String::new());
        let event =
            Event::RunFinished { run, status, exit: 1, live: BTreeMap::new(), ok: 0, failed: 0, secs: t, summary, next: Vec::new() };
        Some(Timed { event, t })
    }
}

/// The line that says which form the others have.
#[must_use]
pub fn version(time: &str) -> Event {
    Event::Version { schema: SCHEMA.to_owned(), deployer: env!("CARGO_PKG_VERSION").to_owned(), time: time.to_owned() }
}

/// Writes one event as a line, with its end.
#[must_use]
pub fn line(timed: &Timed) -> String {
    // An event is strings, numbers and maps with string keys: serde_json has no way to fail on it.
    let mut line = serde_json::to_string(timed).unwrap_or_default();
    line.push('\n');
    line
}
