//! Draws the human view on a terminal, with `indicatif`: lines that stay go to ordinary scrollback, the others are redrawn below.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
    }
}
