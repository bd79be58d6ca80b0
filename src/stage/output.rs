//! A command's output on its way from a host to events: cut into lines, escaped, the last ones kept for the failure's text.

use std::collections::VecDeque;

use crate::event::{Event, Events, OutputStream, Step};
use crate::tree::path::Shown;

/// The longest line that is told as one, in bytes; what is longer is cut into several.
pub const MAX_LINE: usize = 8 * 1024;
/// How many of the last lines a failure shows.
const TAIL: usize = 20;

/// Collects the output of one command on one host.
pub struct Output<'a> {
    host: &'a str,
    step: Step,
    events: &'a Events,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: VecDeque<String>,
    kept: usize,
}

impl<'a> Output<'a> {
    #[must_use]
    pub fn new(host: &'a str, step: Step, events: &'a Events) -> Self {
        Self::keeping(TAIL, host, step, events)
    }

    /// Keeps that many of the last lines.
    #[must_use]
    pub fn keeping(kept: usize, host: &'a str, step: Step, events: &'a Events) -> Self {
        Self { host, step, events, stdout: Vec::new(), stderr: Vec::new(), tail: VecDeque::new(), kept }
    }

    /// Takes bytes as they arrive, and tells every line that is complete.
    pub fn feed(&mut self, stderr: bool, bytes: &[u8]) {
        let mut pending = std::mem::take(self.pending(stderr));
        for byte in bytes {
            match byte {
                b'\n' => self.tell(stderr, &std::mem::take(&mut pending)),
                _ if pending.len() == MAX_LINE => {
                    self.tell(stderr, &std::mem::take(&mut pending));
                    pending.push(*byte);
                }
                _ => pending.push(*byte),
            }
        }
        *self.pending(stderr) = pending;
    }

    /// Tells what did not end in a newline, and gives the last lines.
    #[must_use]
    pub fn finish(mut self) -> Vec<String> {
        for stderr in [false, true] {
            let rest = std::mem::take(self.pending(stderr));
            if !rest.is_empty() {
                self.tell(stderr, &rest);
            }
        }
        self.tail.into()
    }

    fn pending(&mut self, stderr: bool) -> &mut Vec<u8> {
        if stderr { &mut self.stderr } else { &mut self.stdout }
    }

    /// A carriage return that draws over the line (progress bars) leaves what a person would have seen last.
    fn tell(&mut self, stderr: bool, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let seen = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
        let line = Shown(seen).to_string();
        if self.tail.len() == self.kept {
            self.tail.pop_front();
        }
        if self.kept > 0 {
            self.tail.push_back(line.clone());
        }
        let stream = if stderr { OutputStream::Stderr } else { OutputStream::Stdout };
        self.events.emit(Event::Output { host: self.host.to_owned(), step: self.step, stream, line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn lines_are_whole_escaped_and_bounded_whatever_pieces_they_arrive_in() {
        let (events, received) = Events::new(Instant::now());
        let mut output = Output::new("web1", Step::Build, &events);
        output.feed(false, b"one\ntw");
        output.feed(true, b"\x1b[31merror\n");
        output.feed(false, b"o\n 10%\r 100%\r\n");
        output.feed(false, &vec![b'x'; 20_000]);
        let tail = output.finish();
        drop(events);
        let lines: Vec<_> = received
            .iter()
            .map(|timed| match timed.event {
                Event::Output { line, .. } => line,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lines, tail);
        assert_eq!(lines[..4], ["one", "\\u{1b}[31merror", "two", " 100%"]);
        assert_eq!(lines[4..].iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, 20_000 - 2 * MAX_LINE]);
    }
}
