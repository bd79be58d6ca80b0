//! Ctrl-C, SIGTERM and SIGHUP: the first asks for a stop at the next safe point, the second leaves at once.

use std::io::Write;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

/// Tells everybody who waits that the run shall stop.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: watch::Receiver<Option<Exit>>,
}

impl Interrupt {
    /// Begins to listen. `notice` is what a person reads at the first signal, at once.
    #[must_use]
    pub fn listen(notice: &'static str) -> Self {
        let (sender, asked) = watch::channel(None);
        let signals = [
            (SignalKind::interrupt(), Exit::Interrupted),
            (SignalKind::terminate(), Exit::Terminated),
            (SignalKind::hangup(), Exit::Terminated),
        ];
        let sender = std::sync::Arc::new(sender);
        for (kind, exit) in signals {
            let Ok(mut stream) = signal(kind) else { continue };
            let sender = std::sync::Arc::clone(&sender);
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.borrow().is_some() {
                        let _ = writeln!(std::io::stderr(), "left at once; each host ends what was running and lets its lock go by itself");
                        std::process::exit(i32::from(exit.code()));
                    }
                    let _ = writeln!(std::io::stderr(), "{notice}");
                    sender.send_replace(Some(exit));
                }
            });
        }
        Self { asked }
    }

    /// Says whether, and how, the run was asked to stop.
    #[must_use]
    pub fn asked(&self) -> Option<Exit> {
        *self.asked.borrow()
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
            if let Some(exit) = *asked.borrow_and_update() {
                return exit;
            }
            if asked.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
