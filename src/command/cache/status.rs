//! `cache status`: what a revision needs against what every host has, one round trip a host.

use super::stock::row;
use super::{Stock, Subject, known_set, look, overrides};
use crate::cli::{self, Common};
use crate::command::print;
use crate::command::scene::{self, Scene};
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::fleet;
use crate::host::Host;
use crate::report::cache::{CacheRow, CacheView, OtherKind};
use crate::shelf::Part;

/// Runs the verb.
pub async fn status(common: &Common, args: &cli::CacheStatus) -> Result<Exit, Error> {
    let rev = args.what.rev.as_deref();
    let scene = Scene::set(common, &overrides(common, rev)).await?;
    // A status is a result, not a run: nobody reads its events.
    let (events, _) = Events::new(std::time::Instant::now());
    let (connected, subjects) = tokio::join!(fleet::connect(&scene.environment, &events), Subject::settle_all(&scene, rev, &events));
    let subjects = match subjects {
        Ok(subjects) => subjects,
        Err(error) => {
            fleet::close(&connected.hosts).await;
            return Err(error);
        }
    };
    let mut views = Vec::new();
    let mut unknown = None;
    for subject in &subjects {
        match view(subject, &connected, &events).await {
            Ok(view) => views.push(view),
            Err(error) => unknown = Some(error),
        }
    }
    fleet::close(&connected.hosts).await;
    // One a way in which hosts build.
    for (number, view) in views.iter().enumerate() {
        if common.json {
            print(&format!("{}\n", serde_json::to_string(view).unwrap_or_default()));
        } else {
            let between = if number > 0 { "\n" } else { "" };
            print(&format!("{between}{}", view.text(scene::now(), common.display().stdout())));
        }
    }
    if let Some(error) = unknown {
        return Err(error);
    }
    if connected.hosts.is_empty() {
        return Ok(Exit::Unreachable);
    }
    Ok(if args.exit_code && !views.iter().all(CacheView::is_complete) { Exit::Pending } else { Exit::Ok })
}

async fn view(subject: &Subject<'_>, connected: &fleet::Connected, events: &Events) -> Result<CacheView, Error> {
    let environment = subject.environment;
    let (cache, shelf) = (subject.cache()?, subject.shelf());
    let own: Vec<Host> = connected.hosts.iter().filter(|host| subject.is_of(host.target())).cloned().collect();
    let set = known_set(environment, &subject.local.artifact, &shelf, &own).await.ok_or_else(|| subject.unknown(&own))?;
    let stock = Stock { environment, cache, set: &set, shelf: &shelf, spool: &subject.scene.directories.cache, events };
    let goods =
        stock.goods().map_err(|error| Error::new(Exit::Internal, "list", "the list cannot be packed").caused_by(error.to_string()))?;
    let (looked, misfits) = tokio::join!(look(&own, cache, &goods), stock.misfits(&own));
    let mut hosts: Vec<CacheRow> =
        own.iter().zip(looked.iter().zip(misfits)).map(|(host, (looked, unfit))| row(host, &set, looked, unfit)).collect();
    let away = connected.unreachable.iter().filter(|(target, _)| subject.is_of(target));
    hosts.extend(away.map(|(target, error)| CacheRow::unknown(&target.name, format!("unreachable: {error}"))));
    let (files, bytes) = set.files.totals();
    let here = set.files.entries().iter().filter(|entry| shelf.holds(&entry.kind)).count() as u64;
    let about = set.about.as_ref();
    Ok(CacheView {
        project: environment.project.clone(),
        env: environment.name.clone(),
        rev: subject.local.commit().unwrap_or_default(),
        reference: subject.local.reference(),
        path: cache.path.to_string(),
        files,
        bytes,
        here,
        filled_on: about.map(|about| about.on.clone()),
        filled_by: about.map(|about| about.by.clone()),
        filled: about.map(|about| about.filled),
        platform: about.map(|about| about.platform.clone()),
        proven: about.map(|about| about.proven),
        others: set.parts.iter().skip(1).map(other_kind).collect(),
        hosts,
        given: environment.given.clone(),
    })
}

fn other_kind(part: &Part) -> OtherKind {
    let kind = part.python.clone().unwrap_or_else(|| part.platform.clone());
    OtherKind { kind, on: part.on.clone(), files: part.files.len() as u64, proven: part.proven }
}
