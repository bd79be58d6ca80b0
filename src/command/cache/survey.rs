//! What `plan` and `doctor` tell of caches: what every host lacks of what a revision needs, and whether a deploy could send it.

use std::collections::BTreeMap;

use super::stock::row;
use super::{Stock, fill_command, known_set, look, rev_flag};
use crate::command::material::Material;
use crate::command::scene::Scene;
use crate::config::environment::Environment;
use crate::config::ranges;
use crate::event::Events;
use crate::figures::counted;
use crate::host::Host;
use crate::provision::cache as caches;
use crate::recipe::Recipe;
use crate::report::cache::CacheRow;
use crate::report::plan::Blocker;
use crate::shelf::Shelf;
use crate::tree::Entry;

/// The caches of hosts against what a revision needs.
#[derive(Default)]
pub struct Survey {
    /// One a host, in their order; none where it is not known what its build needs.
    pub rows: Vec<Option<CacheRow>>,
    /// The hosts that lack what nobody could send them.
    pub beyond_help: Vec<String>,
}

/// Whether anybody could know what a revision of this environment needs.
#[must_use]
pub fn is_fillable(environment: &Environment) -> bool {
    let (Some(build), Some(cache)) = (&environment.build, &environment.cache) else { return false };
    cache.fill.is_some() || Recipe::find(&build.recipe).is_some_and(|recipe| !recipe.fill.command.is_empty())
}

/// Looks at all hosts; none where it is known of no host what the revision needs there.
pub async fn survey(scene: &Scene, local: &Material, hosts: &[Host], events: &Events) -> Option<Survey> {
    let mut survey = Survey { rows: hosts.iter().map(|_| None).collect(), beyond_help: Vec::new() };
    for way in scene.environment.ways() {
        let of_way = |index: &usize| std::ptr::eq(scene.environment.of(hosts[*index].target()), way);
        let indices: Vec<usize> = (0..hosts.len()).filter(of_way).collect();
        let hosts: Vec<Host> = indices.iter().map(|index| hosts[*index].clone()).collect();
        let Some((rows, beyond_help)) = survey_way(scene, way, local, &hosts, events).await else { continue };
        survey.beyond_help.extend(beyond_help);
        for (index, row) in indices.into_iter().zip(rows) {
            survey.rows[index] = Some(row);
        }
    }
    survey.rows.iter().any(Option::is_some).then_some(survey)
}

/// Looks at the hosts that build in one way.
async fn survey_way(
    scene: &Scene,
    environment: &Environment,
    local: &Material,
    hosts: &[Host],
    events: &Events,
) -> Option<(Vec<CacheRow>, Vec<String>)> {
    let cache = environment.cache.as_ref()?;
    let shelf = Shelf::at(&scene.directories.cache);
    let set = known_set(environment, &local.artifact, &shelf, hosts).await?;
    let stock = Stock { environment, cache, set: &set, shelf: &shelf, spool: &scene.directories.cache, events };
    let goods = stock.goods().ok()?;
    let (looked, misfits) = tokio::join!(look(hosts, cache, &goods), stock.misfits(hosts));
    // What each host lacks; a host that could not be looked at gives nothing to others either.
    let lacking: Vec<Option<Vec<&Entry>>> =
        looked.iter().map(|looked| looked.as_ref().ok().map(|compared| caches::entries(&set.files, &caches::lacking(compared)))).collect();
    let can_be_had = |entry: &Entry| {
        shelf.holds(&entry.kind) || lacking.iter().flatten().any(|lacks| lacks.iter().all(|lacked| lacked.path != entry.path))
    };
    let rows = hosts.iter().zip(looked.iter().zip(misfits)).map(|(host, (looked, unfit))| row(host, &set, looked, unfit)).collect();
    let is_beyond_help = |lacks: &Option<Vec<&Entry>>| lacks.as_ref().is_some_and(|lacks| lacks.iter().any(|entry| !can_be_had(entry)));
    let beyond_help =
        hosts.iter().zip(&lacking).filter(|(_, lacks)| is_beyond_help(lacks)).map(|(host, _)| host.name().to_owned()).collect();
    Some((rows, beyond_help))
}

impl Survey {
    /// What would stop a deploy: what is lacking and nobody has, and caches that cannot be looked at.
    #[must_use]
    pub fn blockers(&self, environment: &Environment) -> Vec<Blocker> {
        let refill = |row: &CacheRow| format!("{} -H {}", fill_command(environment), row.host);
        let blocker = |row: &CacheRow| match &row.unfit {
            Some(what) => Some(Blocker { hosts: vec![row.host.clone()], what: what.clone(), fix: Some(refill(row)) }),
            None if self.beyond_help.contains(&row.host) => Some(Blocker {
                hosts: vec![row.host.clone()],
                what: format!("{} in its cache, and nobody here has them", row.text()),
                fix: Some(fill_command(environment)),
            }),
            None => None,
        };
        self.rows().filter_map(blocker).collect()
    }

    /// The text of `doctor`: `11/12 complete; app07 lacks 1 file`.
    #[must_use]
    pub fn summary(&self) -> String {
        let complete = self.rows().filter(|row| row.is_complete()).count();
        let files = self.rows().map(|row| row.files).max().unwrap_or_default();
        let mut text = format!("{complete}/{} complete, {} each", self.rows().count(), counted(files, "file"));
        for (count, hosts) in self.lacking() {
            text += &format!("; {} lacks {}", ranges::fold(&hosts), counted(count as u64, "file"));
        }
        for row in self.rows().filter(|row| row.error.is_some() || row.unfit.is_some()) {
            text += &format!("; {}: {}", row.host, row.text());
        }
        text
    }

    pub fn rows(&self) -> impl Iterator<Item = &CacheRow> {
        self.rows.iter().flatten()
    }

    /// Hosts by how many files they lack.
    fn lacking(&self) -> BTreeMap<usize, Vec<&str>> {
        let mut hosts: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for row in self.rows().filter(|row| row.error.is_none() && row.unfit.is_none() && !row.is_complete()) {
            hosts.entry(row.missing.len() + row.damaged.len()).or_default().push(&row.host);
        }
        hosts
    }

    /// What completes the caches, where something is lacking that can be had.
    #[must_use]
    pub fn fix(&self, environment: &Environment) -> Option<String> {
        if !self.beyond_help.is_empty() {
            return Some(fill_command(environment));
        }
        if let Some(unfit) = self.rows().find(|row| row.unfit.is_some()) {
            return Some(format!("{} -H {}", fill_command(environment), unfit.host));
        }
        let lacking: Vec<&str> = self.lacking().into_values().flatten().collect();
        (!lacking.is_empty()).then(|| format!("{}{} -H {}", environment.typed("cache push"), rev_flag(environment), ranges::fold(&lacking)))
    }
}
