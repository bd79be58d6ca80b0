//! All hosts' locks or none.

use std::time::Duration;

use crate::command::failure;
use crate::command::outcome;
use crate::command::scene;
use crate::error::Error;
use crate::event::Step;
use crate::exit::Exit;
use crate::fleet::each;
use crate::host::{Host, HostError};
use crate::op::{Answer, Locked, Op, RunInfo};

/// How trying for all locks at once went.
pub enum Attempt {
    Taken {
        /// What was read of the hosts before is old: another run was there meanwhile, or recovery changed something.
        moved: bool,
    },
    /// Nobody holds anything.
    Refused(Error),
}

/// Tries in all, where other runs hold some of the hosts: two that begin at the same moment may each take a part and refuse the other.
const TRIES: u32 = 4;

/// Tries to lock every host; on any refusal all that was taken is let go.
pub async fn take(hosts: &[Host], run: &RunInfo) -> Attempt {
    for _ in 1..TRIES {
        let (attempt, taken) = take_once(hosts, run).await;
        if taken == 0 || taken == hosts.len() || !matches!(&attempt, Attempt::Refused(error) if error.code == "locked") {
            return attempt;
        }
        let chance = getrandom::u32().unwrap_or_else(|_| std::process::id());
        tokio::time::sleep(Duration::from_millis(50 + u64::from(chance % 250))).await;
    }
    take_once(hosts, run).await.0
}

/// One try. Tells how many hosts were not refused.
async fn take_once(hosts: &[Host], run: &RunInfo) -> (Attempt, usize) {
    let answers = each(hosts, usize::MAX >> 4, |host| host.ask(Op::Lock(run.clone()))).await;
    let mut moved = false;
    let mut refused = None;
    for (host, answer) in hosts.iter().zip(&answers) {
        let error = match answer {
            Ok(Answer::Locked(Locked::Yes { epoch, recovered })) => {
                let facts = host.facts();
                let was_at_rest = facts.holder.is_none() && facts.unresolved.is_none();
                moved |= !recovered.is_empty() || !was_at_rest || *epoch != facts.epoch + 1;
                continue;
            }
            // Two hosts without an id yet, or two paths to one root: only the lock tells.
            Ok(Answer::Locked(Locked::Busy(holder))) if holder.run == run.run => {
                let what = format!("`{}` is another name of a host and root that this run has locked", host.name());
                Error::new(Exit::Config, "twins", what).hint("remove one of the two names from deploy.toml")
            }
            Ok(Answer::Locked(Locked::Busy(holder))) => {
                Error::new(Exit::Locked, "locked", format!("`{}` is locked by another run", host.name())).evidence([
                    format!("holder: {}, run {}, {}", holder.by, holder.run, holder.what),
                    format!("since:  {}", scene::ago(holder.since)),
                ])
            }
            Ok(Answer::Locked(Locked::Held(hold))) => Error::new(
                Exit::Locked,
                "hold",
                format!("`{}` is on hold: {}", host.name(), hold.reason),
            )
            .evidence([format!("by {}, {}, id {}", hold.by, scene::ago(hold.since), hold.id)]),
            Ok(other) => Error::new(Exit::Internal, "protocol", HostError::unexpected(host.name(), other).to_string()),
            Err(error) => {
                let mut failure = outcome::explain(Exit::BuildFailed, &[failure::host(host.name(), Step::Lock, error)], 1, String::new());
                failure.state = None;
                failure
            }
        };
        refused.get_or_insert(error);
    }
    match refused {
        None => (Attempt::Taken { moved }, hosts.len()),
        Some(error) => {
            let taken: Vec<Host> = hosts
                .iter()
                .zip(&answers)
                .filter(|(_, answer)| matches!(answer, Ok(Answer::Locked(Locked::Yes { .. }))))
                .map(|(host, _)| host.clone())
                .collect();
            unlock(&taken).await;
            (Attempt::Refused(error), taken.len())
        }
    }
}

/// Lets go of every lock.
pub async fn unlock(hosts: &[Host]) {
    each(hosts, usize::MAX >> 4, |host| host.ask(Op::Unlock)).await;
}
