//! Draws the human view on a terminal, with `indicatif`: lines that stay go to ordinary scrollback, the others are redrawn below.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::event::Timed;
use crate::report::human::Human;
use crate::report::paper::{Line, Paper};

/// At most ten frames a second.
pub const FRAME: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Live {
    human: Human,
    paper: Paper,
    bar: ProgressBar,
    /// Lines that stay and are not drawn yet.
    pending: Vec<Line>,
    drawn: Option<Instant>,
    size: fn() -> (usize, usize),
}

impl Live {
    /// Draws on `target`; `size` tells columns and rows, which may change at any time.
    #[must_use]
    pub fn new(human: Human, paper: Paper, target: ProgressDrawTarget, size: fn() -> (usize, usize)) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is a constant: the fallback is never taken.
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { human, paper, bar, pending: Vec::new(), drawn: None, size }
    }

    pub fn take(&mut self, timed: &Timed) {
        self.pending.extend(self.human.take(timed));
        self.tick(timed.t);
    }

    /// Draws, unless it did a moment ago.
    pub fn tick(&mut self, t: f64) {
        // Not over a question, and the line that it is typed on.
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME) && !crate::session::ask::busy() {
            self.draw(t);
        }
    }

    fn draw(&mut self, t: f64) {
        let (width, rows) = (self.size)();
        // The last column stays free: some terminals wrap when it is written.
        let live = self.human.live(t, rows);
        let live: Vec<String> = live.iter().map(|line| line.clipped(self.paper, width.saturating_sub(1))).collect();
        self.bar.set_message(live.join("\n"));
        if self.pending.is_empty() {
            self.bar.tick();
        } else {
            let lines: Vec<String> = self.pending.drain(..).map(|line| line.write(self.paper)).collect();
            self.bar.println(lines.join("\n"));
        }
        self.drawn = Some(Instant::now());
    }

    /// Removes what is redrawn and leaves what stays.
    pub fn end(&mut self, t: f64) {
        self.draw(t);
        self.bar.finish_and_clear();
        // The cursor rests on the last line, and what comes next is not to be written over it.
        let _ = writeln!(io::stderr());
    }
}

/// The terminal behind stderr, written to once a frame. The cursor rests at the beginning of the last line: at its end, where `indicatif`
/// leaves it, the `^C` that a terminal echoes begins a new line, and the next frame is drawn one line too low.
#[derive(Debug)]
pub struct Terminal {
    size: fn() -> (usize, usize),
    frame: Mutex<String>,
}

impl Terminal {
    #[must_use]
    pub fn new(size: fn() -> (usize, usize)) -> Self {
        Self { size, frame: Mutex::default() }
    }

    fn add(&self, text: &str) {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }

    /// Moves the cursor; by none is not at all, which a terminal would take for one.
    fn go(&self, count: usize, direction: char) {
        if count > 0 {
            self.add(&format!("\x1b[{count}{direction}"));
        }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        u16::try_from((self.size)().0).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        u16::try_from((self.size)().1).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.go(count, 'A');
        Ok(())
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.go(count, 'B');
        Ok(())
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.go(count, 'C');
        Ok(())
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.go(count, 'D');
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text);
        self.add("\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame.lock().unwrap_or_else(PoisonError::into_inner));
        if frame.is_empty() { Ok(()) } else { io::stderr().lock().write_all(format!("{frame}\r").as_bytes()) }
    }
}
