//! Preparing a release on every host: push, link, build, seal. What hosts serve does not change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::{Deploy, Member};
use crate::command::cache::{self, Stock, Stocked};
use crate::command::failure::{self, HostFailure};
use crate::command::manifests;
use crate::command::material::Material;
use crate::command::outcome;
use crate::command::scene;
use crate::config::environment::{Build, Moment, Network};
use crate::config::placeholders::{Places, Values};
use crate::error::Error;
use crate::event::{Event, Severity, Status, Step};
use crate::fleet::{self, Done, Tally, each};
use crate::git::Artifact;
use crate::host::Host;
use crate::index::Index;
use crate::op::{Exited, Op};
use crate::plan::{self, Action};
use crate::release::{NewRelease, ReleaseId, layout};
use crate::shelf::Shelf;
use crate::stage::remote::{self, Recipe, RemoteError};
use crate::stage::transfer::{self, Parcel};
use crate::tree::{Digest, Manifest};

/// What the builds of all hosts share.
pub(super) struct Builds {
    gate: Semaphore,
    /// The hosts whose build should have been in a network namespace and was not.
    open: Mutex<Vec<String>>,
    /// The hosts whose build was in one, and whether it reached the package index from there.
    closed: Mutex<Vec<(String, bool)>>,
}

impl Deploy<'_> {
    /// Settles the times of files: those of the manifest that most hosts serve, wherever a file did not change.
    pub(super) async fn parcel(&self, local: &Material, members: &[Member], id: &ReleaseId) -> Result<Parcel, Error> {
        let base = self.base(members).await;
        let manifest = match &base {
            Some(base) => local.artifact.manifest.clone().with_times_of(base),
            None => local.artifact.manifest.clone(),
        };
        let release = NewRelease {
            id: id.clone(),
            project: self.environment.project.clone(),
            environment: self.environment.name.clone(),
            commit: local.commit(),
            reference: Some(local.reference()),
            tree: manifest.tree_digest(),
            manifest: manifest.manifest_digest(),
            build_key: crate::recipe::build_key(self.environment),
            run: self.scene.run.clone(),
            by: self.scene.actor.clone(),
            created: self.scene.now,
            origin: None,
        };
        manifests::keep(&self.scene.directories.cache, &manifest);
        let spool = &self.scene.directories.cache;
        let artifact: Arc<Artifact> = Arc::clone(&local.artifact);
        Ok(Parcel::new(release, self.environment.group.clone(), artifact, Arc::new(manifest), base, spool.clone()))
    }

    /// Finds the manifest that most hosts serve: in the cache here, else asked of one of those hosts.
    pub(super) async fn base(&self, members: &[Member]) -> Option<Arc<Manifest>> {
        let mut counts: HashMap<Digest, (usize, &Host, ReleaseId)> = HashMap::new();
        let facts: Vec<_> = members.iter().map(|member| (&member.host, member.host.facts())).collect();
        for (host, facts) in &facts {
            if let Some(record) = plan::live_record(facts) {
                counts.entry(record.release.manifest).or_insert_with(|| (0, host, record.release.id.clone())).0 += 1;
            }
        }
        let (digest, (_, host, release)) = counts.into_iter().max_by_key(|(digest, (count, ..))| (*count, *digest))?;
        manifests::find(&self.scene.directories.cache, host, &release, digest).await.map(Arc::new)
    }

    pub(super) async fn prepare(&self, members: &[Member], parcel: &Parcel, local: &Material) -> Vec<Result<(), HostFailure>> {
        let tally = Tally::new(self.events, members.len());
        let builds = Builds { gate: Semaphore::new(self.environment.parallel.max(1)), open: Mutex::default(), closed: Mutex::default() };
        let stocked = self.stock(members, local, &tally).await;
        let prepared = each(members.iter().zip(stocked), usize::MAX >> 4, async |(member, stocked)| match stocked {
            Ok(()) => self.prepare_one(member, parcel, local, &tally, Some(&builds)).await,
            Err(failure) => {
                tally.absent(&[Step::Push, Step::Link, Step::Build]);
                Err(failure)
            }
        });
        let prepared = prepared.await;
        let open = builds.open.into_inner().unwrap_or_else(PoisonError::into_inner);
        let closed = builds.closed.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (has_index, message) in [
            (false, "the build had no network: it ran in a namespace without any"),
            (true, "the build reached the package index and nothing else: it ran in a namespace without any network"),
        ] {
            let hosts: Vec<String> = closed.iter().filter(|(_, reached)| *reached == has_index).map(|(host, _)| host.clone()).collect();
            if !hosts.is_empty() {
                let (severity, code, message) = (Severity::Note, "isolated".to_owned(), message.to_owned());
                let (evidence, help) = (Vec::new(), Vec::new());
                self.events.emit(Event::Diagnostic { severity, code, message, hosts, evidence, state: None, help });
            }
        }
        if !open.is_empty() {
            let text = "no network namespace can be made there: only the environment keeps the build offline";
            self.warn("not-isolated", text.to_owned(), open);
        }
        prepared
    }

    /// Completes the caches of the hosts that will build, where it is known what the revision needs there.
    async fn stock(&self, members: &[Member], local: &Material, tally: &Tally<'_>) -> Vec<Stocked> {
        let own = Shelf::at(&self.scene.directories.cache);
        let mut groups = Vec::new();
        for way in self.environment.ways() {
            let builds =
                |member: &Member| member.plan.action == Action::Make && std::ptr::eq(self.environment.of(member.host.target()), way);
            let of_way: Vec<usize> = (0..members.len()).filter(|index| builds(&members[*index])).collect();
            let hosts: Vec<Host> = of_way.iter().map(|index| members[*index].host.clone()).collect();
            if let Some(set) = cache::known_set(way, &local.artifact, &own, &hosts).await {
                groups.push((way, set, of_way, hosts));
            }
        }
        let mut stocked: Vec<Stocked> = members.iter().map(|_| Ok(())).collect();
        if groups.is_empty() {
            return stocked;
        }
        let taking_part: usize = groups.iter().map(|(_, _, of_way, _)| of_way.len()).sum();
        (taking_part..members.len()).for_each(|_| tally.absent(&[Step::Cache]));
        for (way, set, of_way, hosts) in groups {
            let Some(cache) = &way.cache else { continue };
            let spool = &self.scene.directories.cache;
            let stock = Stock { environment: way, cache, set: &set, shelf: &own, spool, events: self.events };
            for (index, result) in of_way.into_iter().zip(stock.complete(&hosts, tally).await) {
                stocked[index] = result;
            }
        }
        stocked
    }

    pub(super) async fn prepare_one(
        &self,
        member: &Member,
        parcel: &Parcel,
        local: &Material,
        tally: &Tally<'_>,
        builds: Option<&Builds>,
    ) -> Result<(), HostFailure> {
        let name = member.host.name();
        if !matches!(member.plan.action, Action::Make) {
            tally.absent(&[Step::Push, Step::Link, Step::Build]);
            return Ok(());
        }
        let host = &member.host;
        let known = parcel.known_to(&host.facts());
        let key = local.wanted(self.environment.of(host.target()), false).build_key;
        let pushed = tally.step(name, Step::Push, transfer::push(host, parcel, key, known.as_ref(), self.events), |result| match result {
            Ok(pushed) => Done {
                sent_bytes: Some(pushed.sent_bytes),
                detail: (pushed.reused_bytes > 0 && pushed.tree_bytes > 0)
                    .then(|| format!("{}% already there", pushed.reused_bytes * 100 / pushed.tree_bytes)),
                ..Done::default()
            },
            Err(error) => Done { detail: Some(failure::transfer(name, error).message), ..Done::default() },
        });
        if let Err(error) = pushed.await {
            tally.absent(&[Step::Link, Step::Build]);
            return Err(self.failed(member, failure::transfer(name, &error)).await);
        }
        let values = self.values(member, local);
        let environment = self.environment.of(host.target());
        let recipe = Recipe { environment, release: &member.release, values: &values, durable: true };
        let linked = tally.step(name, Step::Link, remote::link(host, &recipe), |result| Done {
            detail: match result {
                Ok(()) => self.environment.cache.as_ref().map(|cache| format!("shared download cache {}", cache.on(host.target()))),
                Err(error) => Some(error.to_string()),
            },
            ..Done::default()
        });
        if let Err(error) = linked.await {
            tally.absent(&[Step::Build]);
            return Err(self.failed(member, failure::remote(name, Step::Link, &error)).await);
        }
        let built = async {
            // What came built is not built again.
            let Some((builds, build)) = builds.zip(environment.build.as_ref()) else {
                tally.absent(&[Step::Build]);
                return self.seal_apart(host, &recipe).await;
            };
            let _permit = builds.gate.acquire().await;
            if let Err(failure) = self.hooks_on(Moment::BeforeBuild, member, local).await {
                tally.absent(&[Step::Build]);
                return Err(failure);
            }
            let has_after = self.has_hooks(Moment::AfterBuild, member);
            let command = outcome::command_words(&build.command);
            // What is remarked on this host's requests explains this host's build.
            let index = self.index.as_ref().filter(|_| build.network == Network::Index).map(Index::apart);
            let work = async {
                let exited = self.build(member, local, &recipe, build, index.as_ref()).await?;
                if matches!(build.network, Network::Blocked | Network::Index) && !exited.isolated {
                    builds.open.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
                }
                if exited.isolated {
                    let closed = (name.to_owned(), build.network == Network::Index);
                    builds.closed.lock().unwrap_or_else(PoisonError::into_inner).push(closed);
                }
                // The seal comes last: an unsealed release is never activated.
                if has_after { Ok(()) } else { remote::seal(host, &recipe).await }
            };
            let done = tally.step(name, Step::Build, work, |result| failure::describe_command(result.err(), command)).await;
            done.map_err(|error| {
                let remarks = index.as_ref().map(Index::remarks).unwrap_or_default();
                failure::build(name, &error, build.network, &remarks)
            })?;
            if has_after {
                self.hooks_on(Moment::AfterBuild, member, local).await?;
                self.seal_apart(host, &recipe).await?;
            }
            Ok(())
        };
        match built.await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.failed(member, failure).await),
        }
    }

    /// Seals a release whose build was told of before, or that has none. A failure is told as one of the build.
    async fn seal_apart(&self, host: &Host, recipe: &Recipe<'_>) -> Result<(), HostFailure> {
        remote::seal(host, recipe).await.map_err(|error| {
            let done = failure::describe_command(Some(&error), Vec::new());
            fleet::tell(self.events, host.name(), Step::Build, Status::Failed, 0.0, done);
            failure::remote(host.name(), Step::Build, &error)
        })
    }

    /// Marks the release failed on its host, as far as the host still listens.
    pub(super) async fn failed(&self, member: &Member, failure: HostFailure) -> HostFailure {
        if !failure.lost {
            let _ = member.host.ask(Op::Fail { release: member.release.clone(), reason: failure.message.clone() }).await;
        }
        failure
    }

    /// Builds on one host. The way to the package index is there as long as the build is.
    async fn build(
        &self,
        member: &Member,
        local: &Material,
        recipe: &Recipe<'_>,
        build: &Build,
        index: Option<&Index>,
    ) -> Result<Exited, RemoteError> {
        let tunnel = index.map(|index| index.tunnel(&member.host)).transpose()?;
        let places = Places { index: tunnel.as_ref().map(|tunnel| tunnel.url().to_owned()), ..self.places(member, local) };
        remote::build(&member.host, recipe, build, &places, tunnel.as_ref(), self.events).await
    }

    /// Where the build of a release finds its packages, and where it may write.
    fn places(&self, member: &Member, local: &Material) -> Places {
        let root = member.host.target().root.as_ref().unwrap_or(&self.environment.root);
        Places {
            cache: cache::place_of(self.environment.of(member.host.target()), member.host.target(), &local.artifact),
            scratch: format!("{root}/{}", layout::scratch(&member.release)),
            index: None,
        }
    }

    pub(super) fn values(&self, member: &Member, local: &Material) -> Values {
        let rev = local.commit().unwrap_or_else(|| local.reference());
        scene::values(self.environment, &member.host, member.release.as_str(), &rev, &local.label())
    }
}

/// Marks releases that will not be finished, on hosts that still listen.
pub(super) async fn give_up(members: &[Member], reason: &str) {
    let making = members.iter().filter(|member| member.plan.action == Action::Make);
    each(making, usize::MAX >> 4, |member| member.host.ask(Op::Fail { release: member.release.clone(), reason: reason.to_owned() })).await;
}
