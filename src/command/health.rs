//! Whether what a host serves is well now, by the check of its environment: read-only, in the session that is open.

use crate::command::scene;
use crate::config::environment::Environment;
use crate::host::Host;
use crate::plan;
use crate::stage::remote::{self, Recipe, RemoteError};

/// Tries the check of what a host serves, once. Gives why it fails; none where it is well, serves nothing or has no check.
pub async fn check_now(environment: &Environment, host: &Host) -> Result<Option<String>, RemoteError> {
    let facts = host.facts();
    let Some(release) = plan::live_id(&facts) else { return Ok(None) };
    let rev = plan::live_record(&facts).and_then(|record| record.release.commit.clone()).unwrap_or_default();
    let values = scene::values(environment, host, release.as_str(), &rev, plan::short(&rev));
    remote::check_once(host, &Recipe { environment: environment.of(host.target()), release, values: &values, durable: true }).await
}
