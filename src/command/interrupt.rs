//! Ctrl-C, SIGTERM and SIGHUP: the first asks for a stop at the next safe point, the second leaves at once.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::command::outcome;
use crate::command::scene::{self, Scene};
use crate::config::quantity;
use crate::error::Error;
use crate::event::{Event, Events, STOPPING, Serving, Severity};
use crate::exit::Exit;
use crate::report::{self, Reporter, Written};

const LEFT: &str = "left at once; each host ends what was running and lets its lock go by itself";
/// Signals so close are one request: `timeout` signals its child and then its group, and a terminal that closes is not the only one to tell.
const ONE: Duration = Duration::from_millis(100);
/// How long a terminal or a pipe that takes nothing may keep whoever wants to leave.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Tells everybody who waits that the run shall stop.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: watch::Receiver<Option<(Exit, Instant)>>,
}

/// The run that is asked to stop: its views are told, for whatever is written past them they wipe away.
struct Asked {
    events: Events,
    written: Written,
    run: String,
    environment: String,
    confirm_within: Duration,
}

impl Interrupt {
    /// Begins to listen, where there is no run. `notice` is what a person reads at the first signal, at once.
    #[must_use]
    pub fn listen(notice: &'static str) -> Self {
        Self::begin(notice, None)
    }

    /// Begins to listen for a run, which tells `notice` at the first signal, and how it ended at the second.
    #[must_use]
    pub fn of(scene: &Scene, notice: &'static str, events: &Events, reporter: &Reporter) -> Self {
        let environment = &scene.environment;
        Self::begin(
            notice,
            Some(Asked {
                events: events.clone(),
                written: reporter.written(),
                run: scene.run.clone(),
                environment: environment.name.clone(),
                confirm_within: environment.confirm_within,
            }),
        )
    }

    fn begin(notice: &'static str, run: Option<Asked>) -> Self {
        let (sender, asked) = watch::channel::<Option<(Exit, Instant)>>(None);
        let signals = [
            (SignalKind::interrupt(), Exit::Interrupted),
            (SignalKind::terminate(), Exit::Terminated),
            (SignalKind::hangup(), Exit::Terminated),
        ];
        let shared = Arc::new((sender, run));
        for (kind, exit) in signals {
            let Ok(mut stream) = signal(kind) else { continue };
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let (sender, run) = &*shared;
                while stream.recv().await.is_some() {
                    let first = sender.borrow().map(|(_, at)| at);
                    if first.is_some_and(|at| at.elapsed() < ONE) {
                        continue;
                    }
                    if first.is_some() {
                        match run {
                            Some(run) => run.leave(exit).await,
                            None => say("left at once"),
                        }
                        std::process::exit(i32::from(exit.code()));
                    }
                    match run {
                        Some(run) => run.stop(notice),
                        None => say(notice),
                    }
                    sender.send_replace(Some((exit, Instant::now())));
                }
            });
        }
        Self { asked }
    }

    /// Says whether, and how, the run was asked to stop.
    #[must_use]
    pub fn asked(&self) -> Option<Exit> {
        self.asked.borrow().map(|(exit, _)| exit)
    }

    /// Does `work`, unless the run is asked to stop first: then it is dropped where it is.
    pub async fn until<T>(&self, work: impl Future<Output = T>) -> Result<T, Exit> {
        tokio::select! {
            result = work => Ok(result),
            exit = self.wait() => Err(exit),
        }
    }

    /// Waits until the run is asked to stop.
    pub async fn wait(&self) -> Exit {
        let mut asked = self.asked.clone();
        loop {
            if let Some((exit, _)) = *asked.borrow_and_update() {
                return exit;
            }
            if asked.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Asked {
    fn stop(&self, notice: &str) {
        let (hosts, evidence, help) = Default::default();
        let (code, message) = (STOPPING.to_owned(), notice.to_owned());
        self.events.emit(Event::Diagnostic { severity: Severity::Note, code, message, hosts, evidence, state: None, help });
    }

    /// Ends the run for every view, and waits until they have it. What it was doing goes on until the program ends.
    async fn leave(&self, exit: Exit) {
        let serving = self.events.serving();
        let error = Error::new(exit, "left", LEFT).state(self.state(&serving));
        self.events.emit(report::told(&error));
        self.events.emit(Event::RunFinished {
            run: self.run.clone(),
            status: "failed".to_owned(),
            exit: exit.code(),
            live: scene::known(serving),
            ok: 0,
            failed: 0,
            secs: self.events.seconds(),
            summary: scene::verdict(&error, &self.environment),
            next: vec![("look".to_owned(), format!("deployer status -e {}", self.environment))],
        });
        let written = async {
            while !self.written.is_all() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, written).await;
    }

    fn state(&self, serving: &Serving) -> String {
        match serving {
            Serving::AsBefore(live) if live.is_empty() => "no host was changed".to_owned(),
            Serving::AsBefore(live) => outcome::serving(&self.environment, "still runs", live),
            Serving::Switching if self.confirm_within.is_zero() => {
                "what was switched stays switched, confirmed or not: `confirm-within` is zero".to_owned()
            }
            Serving::Switching => format!(
                "a host that was switched and is not confirmed puts back, within {}, what it served before",
                quantity::show_duration(self.confirm_within)
            ),
        }
    }
}
