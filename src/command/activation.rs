//! What is known of hosts after an activation that did not go well: whether they were switched, and what they serve.

use std::collections::BTreeMap;

use crate::command::failure::HostFailure;
use crate::fleet;
use crate::host::{Host, HostError};
use crate::release::ReleaseId;
use crate::stage::remote::RemoteError;

/// Says whether the host serves `release` although its activation failed, as far as it still answers.
pub async fn is_switched(host: &Host, release: &ReleaseId, error: &RemoteError) -> bool {
    match error {
        RemoteError::Check { .. } | RemoteError::Command { .. } | RemoteError::NotRestarted { .. } => true,
        // The helper may have failed on either side of the switch (a disk that was full for the record): the host knows.
        RemoteError::Host(HostError::Failed(_)) => host.refresh().await.is_ok_and(|facts| facts.unresolved.as_ref() == Some(release)),
        RemoteError::Host(HostError::Lost { .. } | HostError::Protocol { .. })
        | RemoteError::Placeholder(_)
        | RemoteError::Locked { .. } => false,
    }
}

/// Counts hosts by what they serve. Of a host that was lost while it was switched nobody knows.
#[must_use]
pub fn live(hosts: &[Host], failures: &[HostFailure]) -> BTreeMap<String, u32> {
    let is_unknown = |host: &&Host| failures.iter().any(|failure| failure.is_unknown() && failure.host == host.name());
    let (unknown, known): (Vec<&Host>, Vec<&Host>) = hosts.iter().partition(is_unknown);
    let mut live = fleet::live(&known.into_iter().cloned().collect::<Vec<_>>());
    if !unknown.is_empty() {
        live.insert("unknown".to_owned(), u32::try_from(unknown.len()).unwrap_or(u32::MAX));
    }
    live
}
