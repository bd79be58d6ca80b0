//! What people and programs are shown: every view is a pure function of the recorded events. `start` is the one place where
//! they are written, on a thread of its own; a view whose reader is gone is no reason to stop a deploy.

pub mod cache;
pub mod ci;
mod error;
pub mod fold;
pub mod human;
pub mod json;
mod live;
pub mod locks;
pub mod logs;
pub mod paper;
pub mod phrases;
pub mod plain;
pub mod plan;
pub mod releases;
pub mod run;
pub mod status;
mod store;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Instant;

use anstream::AutoStream;
pub use anstream::ColorChoice;
use indicatif::ProgressDrawTarget;

pub use ci::Ci;
pub use error::{error, told};
pub use paper::{Paper, escape};
pub use store::{Meta, RunStore, StoreError, StoredRun};

use crate::event::{Event, Severity, Timed};
use human::Human;
use json::Order;
use live::{Live, Terminal};
use plain::Plain;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Live on a terminal, else a log.
    #[default]
    Auto,
    Live,
    Log,
    /// The last line and errors.
    None,
}

/// What the person asked to be shown.
#[derive(Clone, Debug, Default)]
pub struct Display {
    pub progress: Progress,
    pub color: ColorChoice,
    /// From -2 (`-qq`, errors only) to 3 (`-vvv`).
    pub verbosity: i8,
    /// NDJSON on stdout.
    pub json: bool,
    /// NDJSON to a file, beside everything else.
    pub events: Option<PathBuf>,
    pub ci: Ci,
}

impl Display {
    /// How stderr is written to: for what is printed there outside of a run, such as an error.
    #[must_use]
    pub fn stderr(&self) -> Paper {
        self.paper(&io::stderr())
    }

    /// How stdout is written to: for results.
    #[must_use]
    pub fn stdout(&self) -> Paper {
        self.paper(&io::stdout())
    }

    fn paper(&self, stream: &impl anstream::stream::RawStream) -> Paper {
        let choice = if self.color == ColorChoice::Auto { AutoStream::choice(stream) } else { self.color };
        let unicode = self.ci.resolve(variable) != Ci::None || paper::is_utf8(variable);
        Paper { color: choice != ColorChoice::Never, unicode }
    }

    /// A terminal that two writers share, or that cannot move its cursor, gets a log.
    fn is_live(&self, ci: Ci) -> bool {
        let able = io::stderr().is_terminal() && variable("TERM").is_some_and(|term| term != "dumb");
        let wanted = match self.progress {
            Progress::Auto => ci == Ci::None,
            Progress::Live => true,
            Progress::Log | Progress::None => false,
        };
        able && wanted && self.verbosity >= 0 && !self.shares_terminal()
    }

    fn shares_terminal(&self) -> bool {
        self.json && io::stdout().is_terminal()
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Columns and rows of the terminal behind stderr.
fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

/// The thread that draws.
#[derive(Debug)]
pub struct Reporter {
    thread: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    written: Written,
}

/// Says whether every view has the whole of a run.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<AtomicBool>);

impl Written {
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Reporter {
    /// Gives what tells when all is written: for whoever ends the program from elsewhere.
    #[must_use]
    pub fn written(&self) -> Written {
        self.written.clone()
    }

    /// Waits until everything that was told is written.
    pub fn finish(self) {
        drop(self);
    }
}

/// A command that ends early still shows what it told.
impl Drop for Reporter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread that draws; every run goes through it.
#[must_use]
pub fn start(display: &Display, store: Option<RunStore>, receiver: Receiver<Timed>) -> Reporter {
    let mut views = Views::open(display, store);
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let written = Written::default();
    let done = written.clone();
    let draw = move || {
        views.draw(&receiver, &seen);
        drop(views);
        done.0.store(true, Ordering::Release);
    };
    Reporter { thread: std::thread::Builder::new().name("report".to_owned()).spawn(draw).ok(), over, written }
}

enum Screen {
    Live(Live),
    Log(Plain),
}

/// Everything that is told of a run.
struct Views {
    order: Order,
    screen: Screen,
    store: Option<RunStore>,
    /// Where NDJSON goes, with the name of the file if it is one; what fails is dropped.
    lines: Vec<(Option<PathBuf>, Box<dyn Write + Send>)>,
    /// What could not be written, until there is a time to tell it.
    warnings: Vec<String>,
    last: (f64, Instant),
}

impl Views {
    fn open(display: &Display, store: Option<RunStore>) -> Self {
        let ci = display.ci.resolve(variable);
        let paper = display.stderr();
        let stored = store.as_ref().is_some_and(RunStore::works);
        let quiet = display.progress == Progress::None || display.shares_terminal();
        let verbosity = if quiet { display.verbosity.min(-1) } else { display.verbosity };
        let screen = if display.is_live(ci) {
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(Terminal::new(terminal_size)), 20);
            Screen::Live(Live::new(Human::new(verbosity, stored), paper, target, terminal_size))
        } else {
            Screen::Log(Plain::new(paper, ci, verbosity, stored))
        };
        let mut views =
            Self { order: Order::default(), screen, store, lines: Vec::new(), warnings: Vec::new(), last: (0.0, Instant::now()) };
        if display.json {
            views.lines.push((None, Box::new(io::stdout())));
        }
        match display.events.as_ref().map(|path| (path, File::create(path))) {
            Some((path, Ok(file))) => views.lines.push((Some(path.clone()), Box::new(file))),
            Some((path, Err(error))) => views.warnings.push(cannot_write(path, &error)),
            None => {}
        }
        views
    }

    fn draw(&mut self, receiver: &Receiver<Timed>, over: &AtomicBool) {
        while !self.order.is_finished() {
            match receiver.recv_timeout(live::FRAME) {
                Ok(timed) => self.take(timed),
                // Whoever finishes the report has told everything, although a sender may still be held somewhere.
                Err(RecvTimeoutError::Timeout) if over.load(Ordering::Acquire) => break,
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(last) = self.order.close(self.now()) {
            self.tell(&last);
        }
        if let Screen::Live(live) = &mut self.screen {
            live.end(self.last.0);
        }
        // What failed with the last event has no event after it to be told by.
        let late = self.warnings.drain(..).chain(self.store.as_mut().and_then(RunStore::warning));
        write_lines(&late.map(|message| format!("warning: {message}")).collect::<Vec<_>>());
    }

    /// The time of the run: that of the newest event, and what went by since.
    fn now(&self) -> f64 {
        self.last.0 + self.last.1.elapsed().as_secs_f64()
    }

    fn take(&mut self, timed: Timed) {
        self.last = (timed.t, Instant::now());
        // A warning is told while the run still is: before its last event, which nothing may follow.
        if matches!(timed.event, Event::RunFinished { .. }) {
            self.warn(timed.t);
        }
        let began = matches!(timed.event, Event::RunStarted { .. });
        let t = timed.t;
        for told in self.order.take(timed, &jiff::Timestamp::now().to_string()) {
            self.tell(&told);
        }
        if began {
            self.warn(t);
        }
    }

    fn warn(&mut self, t: f64) {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.store.as_mut().and_then(RunStore::warning));
        for message in warnings {
            let (hosts, evidence, help) = Default::default();
            let (severity, code) = (Severity::Warning, "not-recorded".to_owned());
            self.tell(&Timed { event: Event::Diagnostic { severity, code, message, hosts, evidence, state: None, help }, t });
        }
    }

    fn tell(&mut self, timed: &Timed) {
        if let Some(store) = &mut self.store {
            store.take(timed);
        }
        if !self.lines.is_empty() {
            let line = json::line(timed);
            self.lines.retain_mut(|(path, out)| {
                let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                // Who closes stdout wants no more of it; who names a file wants it whole.
                if let (Err(error), Some(path)) = (&written, path) {
                    self.warnings.push(cannot_write(path, error));
                }
                written.is_ok()
            });
        }
        match &mut self.screen {
            Screen::Live(live) => live.take(timed),
            Screen::Log(plain) => write_lines(&plain.take(timed)),
        }
    }

    fn tick(&mut self) {
        let t = self.now();
        if let Some(store) = &mut self.store {
            store.flush();
        }
        match &mut self.screen {
            Screen::Live(live) => live.tick(t),
            Screen::Log(plain) => write_lines(&plain.tick(t)),
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write events to {}: {error}", path.display())
}

/// Writes lines to stderr at once. Nobody may be there to read them, and the deploy goes on.
fn write_lines(lines: &[String]) {
    if !lines.is_empty() {
        let _ = io::stderr().lock().write_all(format!("{}\n", lines.join("\n")).as_bytes());
    }
}
