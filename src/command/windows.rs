//! Deploy windows: a deploy outside of them is refused, unless a flag whose name says so goes past.

use jiff::Timestamp;

use crate::config::Environment;
use crate::error::Error;
use crate::event::{Event, Events, Severity};
use crate::exit::Exit;
use crate::figures;
use crate::window::{self, Opening};

/// Refuses a deploy while no window is open. `again` is the command that was typed.
pub fn insist(environment: &Environment, outside: bool, again: &str) -> Result<(), Error> {
    let now = Timestamp::now();
    let Some(closed) = closed(environment, now).filter(|_| !outside) else { return Ok(()) };
    let refused = Error::new(Exit::Refused, "outside-window", closed.what).state("nothing was changed");
    Err(refused.hint(closed.opens).hint(format!("past it: {again} --outside-window")).hint("`rollback` is bound by no window"))
}

/// Tells that a deploy goes on although no window is open.
pub fn tell_outside(environment: &Environment, events: &Events) {
    let Some(closed) = closed(environment, Timestamp::now()) else { return };
    events.emit(Event::Diagnostic {
        severity: Severity::Warning,
        code: "outside-window".to_owned(),
        message: closed.what,
        hosts: Vec::new(),
        evidence: Vec::new(),
        state: None,
        help: Vec::new(),
    });
}

/// What is told of windows that are closed.
pub struct Closed {
    /// What is wrong: `prod is deployed to mon-thu 09:00-16:00 Europe/Berlin, and it is Fri 17:12 in Europe/Berlin`.
    pub what: String,
    /// When that ends.
    pub opens: String,
}

/// Says why now is no time to deploy; none where it is one.
#[must_use]
pub fn closed(environment: &Environment, now: Timestamp) -> Option<Closed> {
    let Opening::Closed { next } = window::opening(&environment.windows, now) else { return None };
    let all: Vec<String> = environment.windows.iter().map(ToString::to_string).collect();
    let what =
        format!("{} is deployed to {} only, and it is {}", environment.name, all.join(", "), window::now_in(&environment.windows, now));
    let opens = next.map_or_else(
        || "it never opens: correct `window` in deploy.toml".to_owned(),
        |(next, _)| {
            let left = next.timestamp().as_second().saturating_sub(now.as_second());
            format!("it opens {}, in {}", window::shown(&next), figures::age(left))
        },
    );
    Some(Closed { what, opens })
}
