//! Building once: one host builds, what it built is taken from it, and the others get it at the very path at which it was built.

use std::sync::Arc;

use super::{Deploy, Member};
use crate::command::builder::{self, Giver, release_of, root_of};
use crate::command::failure::{self, HostFailure};
use crate::command::locks::{self, Attempt};
use crate::command::manifests;
use crate::command::material::Material;
use crate::command::promotion::Promoted;
use crate::config::environment::Target;
use crate::error::Error;
use crate::event::Step;
use crate::exit::Exit;
use crate::figures;
use crate::fleet::{Done, Tally, each};
use crate::git::Artifact;
use crate::host::Host;
use crate::op::Op;
use crate::plan::{Action, HostPlan};
use crate::release::{NewRelease, Origin, ReleaseId};
use crate::stage::capture::{self, Capture, CaptureError, Store};
use crate::stage::transfer::Parcel;

/// Whoever gives the built release to the others.
pub(super) struct Source {
    host: Host,
    root: String,
    /// What the release is called, here and on every host that gets it.
    pub release: ReleaseId,
    state: SourceState,
}

enum SourceState {
    /// One of the hosts of the run has it whole.
    Ready,
    /// One of the hosts of the run is to build it.
    Member,
    /// A host that takes no other part, or this machine, is to build it, or has it from an interrupted run.
    Apart(HostPlan),
    /// A host of another environment, which confirmed it.
    Promoted,
}

/// What came of preparing: a result for each host, or why there is nothing that any of them could get.
pub(super) type Prepared = Result<Vec<Result<(), HostFailure>>, Vec<HostFailure>>;

impl Deploy<'_> {
    /// Says who builds for all; none where every host builds for itself, or nothing has to be made. The hosts are locked.
    pub(super) async fn source(
        &self,
        local: &Material,
        hosts: &[Host],
        plans: &[HostPlan],
        fresh: &ReleaseId,
    ) -> Result<Option<Source>, Error> {
        if plans.iter().all(|plan| plan.action != Action::Make) {
            return Ok(None);
        }
        if let Some(promoted) = &local.promoted {
            let (host, root, release) = (promoted.host.clone(), promoted.root.clone(), promoted.release.id.clone());
            return Ok(Some(Source { host, root, release, state: SourceState::Promoted }));
        }
        let state = || format!("nothing was activated; {}", self.serving("still runs", hosts));
        let giver = builder::giver(self.environment, hosts, plans).map_err(|differ| differ.explain().state(state()))?;
        let member = |host: &Host, release: &ReleaseId, state| Source {
            host: host.clone(),
            root: root_of(self.environment, host.target()).to_string(),
            release: release.clone(),
            state,
        };
        match giver {
            None => Ok(None),
            Some(Giver::Ready(host, release)) => Ok(Some(member(host, release, SourceState::Ready))),
            Some(Giver::Member(host)) => Ok(Some(member(host, fresh, SourceState::Member))),
            Some(Giver::Apart(target)) => self.apart(&target, local, hosts, fresh).await.map(Some),
        }
    }

    /// Prepares every host: each for itself, or all from one source.
    pub(super) async fn prepare_all(
        &self,
        source: Option<&Source>,
        working: &[Member],
        local: &Material,
        release: &ReleaseId,
    ) -> Result<Prepared, Error> {
        match source {
            Some(source) => Box::pin(self.prepare_once(source, working, local)).await,
            None => Ok(Ok(self.prepare(working, &self.parcel(local, working, release).await?, local).await)),
        }
    }

    /// Connects to a builder that is no host of this run, and locks it too.
    async fn apart(&self, target: &Target, local: &Material, hosts: &[Host], fresh: &ReleaseId) -> Result<Source, Error> {
        let root = root_of(self.environment, target);
        let state = format!("nothing was activated; {}", self.serving("still runs", hosts));
        let host = Host::connect(target, root, &self.environment.connect).await.map_err(|error| {
            let what = format!("`{}`, which is to build, cannot be reached: {error}", target.name);
            let mut failure = Error::new(Exit::Unreachable, error.code(), what).state(state.clone());
            failure.hints.extend(error.hint());
            failure
        })?;
        // By another name it may be one of the hosts of the run.
        if let Some(member) = builder::twin(&host, hosts) {
            let root = root_of(self.environment, member.target()).to_string();
            return Ok(Source { host: member.clone(), root, release: fresh.clone(), state: SourceState::Member });
        }
        let plan = |host: &Host| builder::plan_apart(self.environment, host, local, self.args.what.force);
        plan(&host).map_err(|error| error.state(state.clone()))?;
        if let Attempt::Refused(error) = locks::take(self.scene, std::slice::from_ref(&host), "building for others").await {
            return Err(error.state(state));
        }
        // Recovery, or the run that had the lock before, may have changed what it has.
        let _ = host.refresh().await;
        let plan = plan(&host).map_err(|error| error.state(state))?;
        let release = release_of(&plan).unwrap_or(fresh).clone();
        Ok(Source { host, root: root.to_string(), release, state: SourceState::Apart(plan) })
    }

    /// Lets the source build, unless it has, and brings what it built to every host that has to be made. What hosts serve does not change.
    async fn prepare_once(&self, source: &Source, working: &[Member], local: &Material) -> Result<Prepared, Error> {
        let gets = |member: &&Member| member.plan.action == Action::Make && !source.is(member);
        let makers: Vec<Member> = working.iter().filter(gets).cloned().collect();
        let own = || makers.first().and_then(|member| self.environment.of(member.host.target()).build.as_ref());
        let build = local.promoted.as_ref().map_or_else(own, |promoted| promoted.build.as_ref());
        let getting: Vec<&Host> = makers.iter().map(|member| &member.host).collect();
        let mut failures = builder::unlike(self.environment, (&source.host, &source.root), &getting, build).await;
        if failures.len() > self.budget() {
            return Ok(Err(failures));
        }
        if let Some(failure) = self.build_for_others(source, working, local).await? {
            return Ok(Err(vec![failure]));
        }
        let is_left = |member: &&Member, failures: &[HostFailure]| failures.iter().all(|failure| failure.host != member.host.name());
        let left: Vec<Member> = makers.iter().filter(|member| is_left(member, &failures)).cloned().collect();
        if !left.is_empty() {
            let (capture, artifact) = match self.take(source, local).await {
                Ok(taken) => taken,
                Err(failure) => return Ok(Err(vec![failure])),
            };
            let hosts: Vec<&Host> = left.iter().map(|member| &member.host).collect();
            failures.extend(builder::dangling(&capture, &hosts).await);
            let left: Vec<Member> = left.iter().filter(|member| is_left(member, &failures)).cloned().collect();
            let parcel = self.built_parcel(source, local, &capture, artifact, &left).await;
            let tally = Tally::new(self.events, left.len());
            let pushed = each(&left, usize::MAX >> 4, |member| self.prepare_one(member, &parcel, local, &tally, None)).await;
            failures.extend(pushed.into_iter().filter_map(Result::err));
        }
        if let SourceState::Apart(_) = source.state {
            // What it cannot remove today it removes next time.
            let _ = source.host.ask(Op::Prune { keep: self.environment.keep_releases, only: None }).await;
        }
        let result = |member: &Member| failures.iter().find(|failure| failure.host == member.host.name()).cloned().map_or(Ok(()), Err);
        Ok(Ok(working.iter().map(result).collect()))
    }

    /// Builds where it must be done, and says why it was not.
    async fn build_for_others(&self, source: &Source, working: &[Member], local: &Material) -> Result<Option<HostFailure>, Error> {
        let apart;
        let builder = match &source.state {
            SourceState::Ready | SourceState::Promoted => return Ok(None),
            SourceState::Apart(plan) if plan.action != Action::Make => return Ok(None),
            SourceState::Apart(plan) => {
                apart = Member { host: source.host.clone(), plan: plan.clone(), release: source.release.clone() };
                &apart
            }
            SourceState::Member => match working.iter().find(|member| source.is(member)) {
                Some(member) => member,
                None => return Ok(None),
            },
        };
        let builder = std::slice::from_ref(builder);
        let parcel = self.parcel(local, builder, &source.release).await?;
        Ok(self.prepare(builder, &parcel, local).await.into_iter().find_map(Result::err))
    }

    /// Takes the built release from the source: its manifest, and the content that is not here.
    async fn take(&self, source: &Source, local: &Material) -> Result<(Capture, Arc<Artifact>), HostFailure> {
        let (host, name) = (&source.host, source.host.name());
        let work = async {
            let capture = match &local.promoted {
                Some(promoted) => promoted.capture.clone(),
                None => capture::capture(host, &source.release).await?,
            };
            let directory = capture::place(&self.scene.directories.cache, &self.environment.project, &self.environment.name);
            let store =
                Store::open(directory.clone()).map_err(|error| CaptureError::Local { host: name.to_owned(), path: directory, error })?;
            let known = local.promoted.is_none().then_some(&local.artifact);
            let (artifact, fetched) = capture::pull(host, &source.release, &capture, known, &store, self.events).await?;
            Ok::<_, CaptureError>((capture, Arc::new(artifact), fetched))
        };
        let tally = Tally::new(self.events, 1);
        let taken = tally.step(name, Step::Capture, work, |result| Done {
            detail: Some(match result {
                Ok((capture, _, fetched)) => {
                    let (files, bytes) = capture.manifest.totals();
                    let (files, bytes) = (figures::counted(files, "file"), figures::bytes(bytes));
                    format!("{files}, {bytes} from {name}, {} new", figures::bytes(*fetched))
                }
                Err(error) => failure::capture(name, error).message,
            }),
            ..Done::default()
        });
        taken.await.map(|(capture, artifact, _)| (capture, artifact)).map_err(|error| failure::capture(name, &error))
    }

    /// The built tree on its way to the others. Its times are the builder's: what was compiled there knows them.
    async fn built_parcel(
        &self,
        source: &Source,
        local: &Material,
        capture: &Capture,
        artifact: Arc<Artifact>,
        makers: &[Member],
    ) -> Parcel {
        let manifest = Arc::clone(&capture.manifest);
        let origin = local.promoted.as_ref().map_or_else(
            || {
                let record = source.host.facts().releases.iter().find(|record| record.release.id == source.release).cloned();
                let before = record.and_then(|record| record.release.origin).map(|origin| origin.host);
                let host = before.unwrap_or_else(|| source.host.name().to_owned());
                Origin { tree: manifest.tree_digest(), host, environment: None }
            },
            Promoted::origin,
        );
        let environment = makers.first().map_or(self.environment, |member| self.environment.of(member.host.target()));
        let wanted = local.wanted(environment, false);
        let release = NewRelease {
            id: source.release.clone(),
            project: self.environment.project.clone(),
            environment: self.environment.name.clone(),
            commit: local.commit(),
            reference: Some(local.reference()),
            tree: wanted.tree,
            manifest: manifest.manifest_digest(),
            build_key: wanted.build_key,
            run: self.scene.run.clone(),
            by: self.scene.actor.clone(),
            created: self.scene.now,
            origin: Some(origin),
        };
        manifests::keep(&self.scene.directories.cache, &manifest);
        let base = self.base(makers).await;
        Parcel::new(release, self.environment.group.clone(), artifact, manifest, base, self.scene.directories.cache.clone())
    }
}

impl Source {
    /// Tells whether a host of the run is the source itself.
    fn is(&self, member: &Member) -> bool {
        match self.state {
            SourceState::Ready | SourceState::Member => member.host.name() == self.host.name(),
            SourceState::Apart(_) | SourceState::Promoted => false,
        }
    }

    /// Ends the session of a source that takes no other part; its lock goes with it. What it did not finish is marked.
    pub(super) async fn close(&self) {
        if let SourceState::Apart(_) = self.state {
            // One that is finished cannot fail any more.
            let reason = "the run ended before it was built".to_owned();
            let _ = self.host.ask(Op::Fail { release: self.release.clone(), reason }).await;
            self.host.close().await;
        }
    }
}
