//! What a run sends: a revision of the repository, or a directory as it is, ready for the transfer stage.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::What;
use crate::command::promotion::{self, Promoted};
use crate::command::scene::Scene;
use crate::config::Environment;
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::git::{Artifact, Changes, Contents, Repository, Revision};
use crate::host::Host;
use crate::op::Facts;
use crate::plan::{self, HostPlan, Need, Wanted, short};
use crate::release::NewRelease;
use crate::stage::local::{self, Local, Request};

/// The tree, and where it comes from.
pub struct Material {
    pub artifact: Arc<Artifact>,
    /// None for a directory.
    pub revision: Option<Revision>,
    /// A built release of another environment, which `artifact` is then.
    pub promoted: Option<Promoted>,
    repository: Option<Repository>,
    directory: Option<PathBuf>,
}

impl Material {
    /// Runs the local stage for what was asked for.
    pub async fn prepare(what: &What, scene: &Scene, events: &Events) -> Result<Self, Error> {
        if let Some(from) = &scene.from {
            return Box::pin(Self::promote(from, what, scene, events)).await;
        }
        if let Some(directory) = &what.tree {
            return Self::walk(directory.clone(), what, scene, events).await;
        }
        let Local { repository, revision, artifact } = local::export(request(what, scene)?, events).await?;
        Ok(Self { artifact: Arc::new(artifact), revision: Some(revision), promoted: None, repository: Some(repository), directory: None })
    }

    /// Takes what another environment confirmed. The history here may not know it; a revision that is named must be it.
    async fn promote(from: &Environment, what: &What, scene: &Scene, events: &Events) -> Result<Self, Error> {
        let promoted = promotion::take(from, &scene.environment, events).await?;
        let commit = promoted.release.commit.clone();
        let rev = what.rev.clone().or_else(|| commit.clone());
        let known = match rev {
            Some(rev) => Some(local::resolve(request_of(rev, what, scene), events).await),
            None => None,
        };
        let known = match known {
            Some(Err(error)) if what.rev.is_some() || what.expect.is_some() => return Err(error),
            Some(Err(_)) | None => None,
            Some(Ok(known)) => Some(known),
        };
        if let Some((_, revision)) = &known
            && commit.as_ref() != Some(&revision.commit)
        {
            let confirmed = commit.as_deref().map_or("no commit", short);
            let what = format!("`{}` is {}, and {} confirmed {confirmed}", revision.reference, short(&revision.commit), from.name);
            return Err(Error::new(Exit::Refused, "other-revision", what)
                .state("nothing was changed")
                .hint(format!("{} --rev {}", from.typed("deploy"), revision.reference))
                .hint(format!("{} --from {}", scene.environment.typed("deploy"), from.name)));
        }
        let (repository, revision) = known.unzip();
        let manifest = (*promoted.capture.manifest).clone();
        let contents = Contents::new(Vec::new(), Vec::new(), Vec::new());
        let artifact = Arc::new(Artifact { manifest, contents, warnings: Vec::new() });
        Ok(Self { artifact, revision, promoted: Some(promoted), repository, directory: None })
    }

    /// Takes a directory; `--rev` only labels it.
    async fn walk(directory: PathBuf, what: &What, scene: &Scene, events: &Events) -> Result<Self, Error> {
        let labelled = match what.rev {
            Some(_) => Some(local::resolve(request(what, scene)?, events).await?),
            None => None,
        };
        let commit = labelled.as_ref().map(|(_, revision)| revision.commit.clone());
        let artifact = local::walk(directory.clone(), commit, scene.now, events).await?;
        let (repository, revision) = labelled.unzip();
        Ok(Self { artifact: Arc::new(artifact), revision, promoted: None, repository, directory: Some(directory) })
    }

    /// A commit built elsewhere is not that commit's tree: only its content says what it is.
    #[must_use]
    pub fn commit(&self) -> Option<String> {
        let promoted = self.promoted.as_ref().and_then(|promoted| promoted.release.commit.clone());
        promoted.or_else(|| self.revision.as_ref().map(|revision| revision.commit.clone()))
    }

    /// Names the code as people do: a short commit, or the start of the tree's digest.
    #[must_use]
    pub fn label(&self) -> String {
        match self.commit() {
            Some(commit) => short(&commit).to_owned(),
            None => format!("tree-{}", short(&self.artifact.manifest.tree_digest().to_string())),
        }
    }

    /// What the operator called it.
    #[must_use]
    pub fn reference(&self) -> String {
        if let Some(promoted) = &self.promoted {
            return promoted.release.reference.clone().unwrap_or_default();
        }
        match (&self.revision, &self.directory) {
            (Some(revision), _) => revision.reference.clone(),
            (None, Some(directory)) => directory.display().to_string(),
            (None, None) => String::new(),
        }
    }

    /// What is to be live.
    #[must_use]
    pub fn wanted(&self, environment: &Environment, force: bool) -> Wanted {
        if let Some(promoted) = &self.promoted {
            let NewRelease { commit, tree, build_key, .. } = promoted.release.clone();
            return Wanted { commit, tree, build_key, promoted: Some(promoted.wanted()), force, bad: BTreeSet::new() };
        }
        Wanted {
            commit: self.commit().filter(|_| self.directory.is_none()),
            tree: self.artifact.manifest.tree_digest(),
            build_key: crate::recipe::build_key(environment),
            promoted: None,
            force,
            bad: BTreeSet::new(),
        }
    }

    /// Plans every host: what did not hold on one of them is chosen on none.
    #[must_use]
    pub fn plans(&self, environment: &Environment, hosts: &[Host], force: bool) -> Vec<HostPlan> {
        let facts: Vec<Arc<Facts>> = hosts.iter().map(Host::facts).collect();
        let bad = plan::bad(facts.iter().map(|facts| &**facts));
        let plan = |(host, facts): (&Host, &Arc<Facts>)| {
            let wanted = Wanted { bad: bad.clone(), ..self.wanted(environment.of(host.target()), force) };
            plan::host(host.name(), facts, &wanted, self.need(), &environment.as_typed())
        };
        hosts.iter().zip(&facts).map(plan).collect()
    }

    /// What a release of it takes on a host.
    #[must_use]
    pub fn need(&self) -> Need {
        let (_, bytes) = self.artifact.manifest.totals();
        Need { bytes, files: self.artifact.manifest.entries().len() as u64 }
    }

    /// Compares with a commit that is live; none where the history does not tell.
    #[must_use]
    pub fn changes(&self, from: &str) -> Option<Changes> {
        let (repository, revision) = (self.repository.as_ref()?, self.revision.as_ref()?);
        repository.changes(from, &revision.commit).ok().flatten()
    }

    /// Writes the revision and its history as one file that git takes as a repository. There is none of a directory.
    pub fn bundle(&self, branch: &str, to: &std::path::Path) -> Result<(), crate::git::GitError> {
        match (&self.repository, &self.revision) {
            (Some(repository), Some(revision)) => repository.bundle(&revision.commit, branch, to),
            (None, _) | (_, None) => Ok(()),
        }
    }

    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.artifact.warnings.clone();
        warnings.extend(self.revision.iter().flat_map(|revision| revision.warnings.clone()));
        if self.repository.as_ref().is_some_and(|repository| repository.dirty().unwrap_or(false)) {
            warnings.push("the work tree has changes that no commit has; they do not travel".to_owned());
        }
        warnings
    }
}

fn request(what: &What, scene: &Scene) -> Result<Request, Error> {
    let environment = &scene.environment;
    let rev = what.rev.clone().or_else(|| environment.rev.clone()).ok_or_else(|| {
        Error::new(Exit::Usage, "which-revision", format!("which revision? [env.{}] names none", environment.name))
            .hint(format!("deployer deploy -e {} --rev master", environment.name))
    })?;
    Ok(request_of(rev, what, scene))
}

fn request_of(rev: String, what: &What, scene: &Scene) -> Request {
    let environment = &scene.environment;
    Request {
        source: environment.source.clone(),
        base: environment.directory.clone(),
        cache: scene.directories.cache.clone(),
        rev,
        expect: what.expect.clone(),
    }
}
