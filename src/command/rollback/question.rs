//! The one question of a rollback, where somebody can be asked: what from, what to, on which hosts. No lock is held while it waits, so
//! what was agreed to is compared with what is found under the lock.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use crate::cli::Common;
use crate::command::scene::{self, Scene};
use crate::config::ranges;
use crate::error::Error;
use crate::exit::Exit;
use crate::figures::counted;
use crate::fleet;
use crate::host::Host;
use crate::op::Facts;
use crate::plan::{self, Goal, RollbackError, Way};
use crate::report::escape;
use crate::session::ask;

/// What somebody has read, and said yes to.
pub(super) struct Agreed {
    /// What the hosts served.
    live: BTreeMap<String, u32>,
    /// What they were to return to; none where only the revision knows, which is exported later.
    goal: Option<String>,
}

impl Agreed {
    pub fn still_holds(&self, live: &BTreeMap<String, u32>, goal: &str) -> bool {
        self.live == *live && self.goal.as_deref().is_none_or(|agreed| agreed == goal)
    }
}

/// Tells whether somebody is there to be asked, and wants to be.
pub(super) fn is_due(common: &Common) -> bool {
    !common.yes && !common.no_input && io::stdin().is_terminal()
}

/// Asks. Nothing is asked where all hosts are there already.
pub(super) async fn ask(scene: &Scene, hosts: &[Host], to: Option<&str>) -> Result<Agreed, Error> {
    let facts: Vec<Arc<Facts>> = hosts.iter().map(Host::facts).collect();
    let named: Vec<(&str, &Facts)> = hosts.iter().map(Host::name).zip(facts.iter().map(|facts| &**facts)).collect();
    let (text, goal) = match (plan::select_rollback(&named, to), to) {
        (Ok(goal), _) => (describe(&named, &goal), Some(goal.name())),
        (Err(RollbackError::Missing { .. }), Some(to)) if super::commit_of(scene, to).is_some() => {
            (Some(format!("{} → {to} on {}, which do not have it any more", serving(&named), counted(named.len() as u64, "host"))), None)
        }
        (Err(refused), _) => return Err(super::no_target(scene, &refused)),
    };
    let agreed = Agreed { live: fleet::live(hosts), goal };
    let Some(text) = text else { return Ok(agreed) };
    let environment = &scene.environment.name;
    let question = format!("{environment}: {}\nRoll back?", escape(&text));
    let answer = tokio::task::spawn_blocking(move || ask::confirm(&question)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    match answer {
        Ok(true) => Ok(agreed),
        Ok(false) => Err(Error::new(Exit::Refused, "declined", format!("{environment} is not rolled back: the answer was no"))
            .hint("`--yes` answers the question")),
        // A ^C at the question is on its way to whoever stops the run.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => std::future::pending().await,
        Err(error) => Err(Error::new(Exit::Usage, "no-input", "nobody answered").hint("add `--yes`").caused_by(error)),
    }
}

/// Says what would be switched from what to what; none where nothing would.
fn describe(hosts: &[(&str, &Facts)], goal: &Goal) -> Option<String> {
    let ways = plan::ways(hosts, goal);
    let (there, moving): (Vec<_>, Vec<_>) = hosts.iter().zip(&ways).partition(|(_, target)| target.way == Way::Stay);
    if moving.is_empty() {
        return None;
    }
    let from: Vec<(&str, &Facts)> = moving.iter().map(|(host, _)| **host).collect();
    let record = hosts.iter().flat_map(|(_, facts)| &facts.releases).find(|record| Some(&record.release.id) == goal.release.as_ref());
    let known = record.map(|record| {
        let when = record.activated.map(scene::ago);
        let words = [record.release.reference.clone(), Some(format!("by {}", record.release.by)), when];
        format!(" ({})", words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    });
    let mut text = format!("{} → {}{} on {}", serving(&from), goal.name(), known.unwrap_or_default(), counted(moving.len() as u64, "host"));
    let names = |hosts: &[(&(&str, &Facts), &plan::Return)]| ranges::fold(&hosts.iter().map(|(host, _)| host.0).collect::<Vec<_>>());
    let lacking: Vec<_> = moving.iter().filter(|(_, target)| target.way == Way::Make).copied().collect();
    if !lacking.is_empty() {
        text += &format!("; made again on {}", names(&lacking));
    }
    if !there.is_empty() {
        text += &format!("; already there: {}", names(&there));
    }
    Some(text)
}

fn serving(hosts: &[(&str, &Facts)]) -> String {
    plan::live_counts(hosts.iter().map(|(_, facts)| *facts)).into_keys().collect::<Vec<_>>().join(", ")
}
