//! `releases`: what each host keeps, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cli::Common;
use crate::command::outcome;
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::fleet;
use crate::host::Host;
use crate::op::Facts;
use crate::plan;
use crate::release::State;
use crate::report::releases::{ReleaseRow, ReleasesView};

/// Runs the verb.
pub async fn releases(common: &Common) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let (events, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(&scene.environment, &events).await;
    let facts: Vec<(String, Arc<Facts>)> = connected.hosts.iter().map(|host: &Host| (host.name().to_owned(), host.facts())).collect();
    fleet::close(&connected.hosts).await;
    let view = view(&scene.environment.name, &facts);
    if common.json {
        let document =
            serde_json::to_string(&view).map_err(|error| Error::new(Exit::Internal, "json", "the list is no JSON").caused_by(error))?;
        print(&format!("{document}\n"));
    } else {
        print(&view.text(scene.now, common.display().stdout()));
    }
    if connected.unreachable.is_empty() {
        return Ok(Exit::Ok);
    }
    Err(outcome::unreachable(&connected, outcome::serving(&scene.environment.name, "runs", &fleet::live(&connected.hosts))))
}

fn view(environment: &str, facts: &[(String, Arc<Facts>)]) -> ReleasesView {
    let mut rows: Vec<ReleaseRow> = Vec::new();
    // The order in which hosts began them: two may be of one second.
    let mut order: BTreeMap<String, u64> = BTreeMap::new();
    for (host, facts) in facts {
        let live = plan::live_id(facts);
        for record in &facts.releases {
            let id = record.release.id.to_string();
            let sequence = order.entry(id.clone()).or_default();
            *sequence = record.sequence.max(*sequence);
            let state = state(record.state);
            let index = rows.iter().position(|row| row.release == id && row.state == state).unwrap_or_else(|| {
                rows.push(ReleaseRow {
                    release: id,
                    commit: record.release.commit.clone().unwrap_or_default(),
                    reference: record.release.reference.clone().unwrap_or_default(),
                    state: state.to_owned(),
                    created: record.release.created,
                    by: record.release.by.clone(),
                    hosts: Vec::new(),
                    live: Vec::new(),
                    token: None,
                });
                rows.len() - 1
            });
            rows[index].hosts.push(host.clone());
            if live == Some(&record.release.id) {
                rows[index].live.push(host.clone());
            }
        }
    }
    if let Some((_, facts)) = facts.first() {
        for (token, id) in plan::chain(facts).into_iter().enumerate() {
            if let Some(row) = rows.iter_mut().find(|row| row.release == id.as_str()) {
                row.token = Some(format!("~{token}"));
            }
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.created, order.get(&row.release).copied())));
    ReleasesView { env: environment.to_owned(), hosts: facts.iter().map(|(host, _)| host.clone()).collect(), rows }
}

const fn state(state: State) -> &'static str {
    match state {
        State::Uploading => "uploading",
        State::Uploaded => "uploaded",
        State::Building => "building",
        State::Sealed => "sealed",
        State::Active => "active",
        State::Confirmed => "confirmed",
        State::Retired => "retired",
        State::Failed => "failed",
        State::Bad => "bad",
    }
}
