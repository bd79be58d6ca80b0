//! Fills a download cache with all that a revision needs: the recipe's own resolver runs in the revision's tree on a builder, which
//! reaches the package index of this machine through its connection, and what it left is proven by a build without any network before
//! anybody else gets it. For hosts of another Python or platform the wheels of the same packages are fetched there too.

use std::borrow::Cow;
use std::path::Path;

use crate::config::environment::{self, Build, Cache, Environment};
use crate::config::placeholders::{self, Places, Values};
use crate::event::{Events, Step};
use crate::git::{Artifact, Contents};
use crate::host::{Host, HostError, Reply};
use crate::index::Index;
use crate::op::{Answer, Command, Exec, Exited, Network, Op};
use crate::provision::cache::{self, Goods};
use crate::recipe::{self, Python, Recipe, Settings};
use crate::shelf::Shelf;
use crate::stage::output::Output;
use crate::stage::remote::{self, RemoteError};
use crate::stage::transfer::TransferError;
use crate::tree::manifest::ManifestError;
use crate::tree::path::PathError;
use crate::tree::{Digest, Entry, Kind, Manifest, TreePath};

/// How often a build that lacks something is tried again with what it named.
const TRIES: usize = 12;
/// How much of a tried build's output is read for what it lacks: pip tells that long before the end.
const READ: usize = 400;
/// How much of it people are shown.
const SHOWN: usize = 20;

/// Says why a cache was not filled. What is in the cache did not change.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("the recipe `{0}` has no fill of its own, and `cache.fill` names none")]
    NoFill(String),
    /// The build was tried without network, and still lacks these.
    #[error("the cache is not complete: a build without network lacks `{}`", lacking.join("`, `"))]
    Incomplete { lacking: Vec<String>, tail: Vec<String> },
    #[error("`{0}` cannot be a path of the fill")]
    Path(#[from] PathError),
    #[error("the tree cannot be sent")]
    Manifest(#[from] ManifestError),
}

impl From<HostError> for FillError {
    fn from(error: HostError) -> Self {
        Self::Remote(error.into())
    }
}

/// Everything that one fill works with.
pub struct Fill<'a> {
    pub host: &'a Host,
    pub environment: &'a Environment,
    pub build: &'a Build,
    pub cache: &'a Cache,
    pub artifact: &'a Artifact,
    pub values: &'a Values,
    pub key: Digest,
    /// What the resolver gets everything from; none where it is to ask whatever the builder's tools ask.
    pub index: Option<&'a Index>,
    /// Variables of whoever fills on this machine.
    pub inherited: Vec<(String, String)>,
    pub shelf: &'a Shelf,
    pub spool: &'a Path,
    pub events: &'a Events,
    /// The Python that the builder's resolver chooses for.
    pub like: Option<&'a Python>,
    /// Whom the cache should serve besides hosts like the builder.
    pub others: &'a [Python],
}

/// What a fill found, and whether a build passed with it.
#[derive(Debug)]
pub struct Filled {
    /// All files, for whatever kind of host.
    pub files: Manifest,
    /// What hosts like the builder need of them.
    pub own: Manifest,
    pub proof: Proof,
    /// What each of the others needs of them, or why it cannot be had.
    pub others: Vec<Result<Manifest, FillError>>,
}

/// What a fill calls itself that is for another kind of host.
const OTHER: &str = "other";

/// One run of the resolver.
#[derive(Clone, Copy)]
struct Run<'a> {
    kind: &'a str,
    /// The directory that it fills.
    out: &'a str,
    /// What follows behind its arguments: of a build that was tried what it lacked.
    lacking: &'a [String],
}

/// How the build that was tried ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It passed; whether it had no network for certain.
    Passed { isolated: bool },
    /// It failed for another reason than a missing file.
    Failed { why: String, tail: Vec<String> },
}

impl Fill<'_> {
    /// Where this fill works: one place for one root and cache, which the root's lock keeps others out of.
    fn work(&self) -> String {
        let root = self.host.target().root.as_ref().unwrap_or(&self.environment.root);
        format!("{}/.deployer/fill-{}", self.cache.on(self.host.target()), &Digest::of(root.as_str().as_bytes()).to_string()[..16])
    }

    /// Fills the cache of the builder and the shelf. The caller holds the builder's lock.
    pub async fn run(&self) -> Result<Filled, FillError> {
        let recipe = Recipe::find(&self.build.recipe).ok_or_else(|| FillError::NoFill(self.build.recipe.clone()))?;
        let work = self.work();
        cache::clear(self.host, &work).await?;
        let filled = self.work_in(&work, recipe).await;
        // What it worked in goes however it ended; a failure to remove it is none of the fill.
        let _ = cache::clear(self.host, &work).await;
        filled
    }

    async fn work_in(&self, work: &str, recipe: &Recipe) -> Result<Filled, FillError> {
        let place = recipe::place(recipe, self.key);
        let out = format!("{work}/out");
        self.send_tree(work).await?;
        self.copy(work, "src").await?;
        let own = Run { kind: recipe.name, out: &out, lacking: &[] };
        self.fill(work, &place, recipe, &own).await?;
        let mut asked: Vec<String> = Vec::new();
        for _ in 0..TRIES {
            let files = cache::gather(self.host, &out, true).await?;
            let (exited, tail) = self.try_build(work, &place, recipe).await?;
            let lacking = recipe::lacking(&tail);
            let shown = || tail[tail.len().saturating_sub(SHOWN)..].to_vec();
            let proof = match (exited.is_success(), lacking.is_empty()) {
                (true, _) => Proof::Passed { isolated: exited.isolated },
                (false, true) => Proof::Failed { why: remote::describe(&exited), tail: shown() },
                (false, false) => {
                    // What was asked for and is lacking still cannot be had.
                    let new: Vec<String> = lacking.iter().filter(|name| !asked.contains(name)).cloned().collect();
                    if new.is_empty() || !recipe.fill.again || self.cache.fill.is_some() {
                        return Err(FillError::Incomplete { lacking, tail: shown() });
                    }
                    self.fill(work, &place, recipe, &Run { lacking: &new, ..own }).await?;
                    asked.extend(new);
                    continue;
                }
            };
            let filled =
                self.with_others(work, &place, recipe, Filled { files: files.clone(), own: files, proof, others: Vec::new() }).await?;
            self.publish(&out, &filled.files).await?;
            return Ok(filled);
        }
        Err(FillError::Incomplete { lacking: asked, tail: Vec::new() })
    }

    /// Fetches what the others need beside what is there. What cannot be had for one of them is no fault of the rest.
    async fn with_others(&self, work: &str, place: &str, recipe: &Recipe, mut filled: Filled) -> Result<Filled, FillError> {
        let first = format!("{work}/out");
        for (number, python) in self.others.iter().enumerate() {
            let own = filled.own.entries().iter().filter_map(|entry| std::str::from_utf8(entry.path.as_bytes()).ok());
            if self.like.is_some_and(|like| (like.minor, &like.machine) == (python.minor, &python.machine))
                && python.cannot_use(own).is_none()
            {
                filled.others.push(Ok(filled.own.clone()));
                continue;
            }
            let out = format!("{work}/other-{number}");
            let lacking = [python.described(), first.clone()];
            let files = match self.fill(work, place, recipe, &Run { kind: OTHER, out: &out, lacking: &lacking }).await {
                Ok(()) => cache::gather(self.host, &out, true).await.map_err(FillError::from),
                Err(error) => Err(error),
            };
            if let Ok(files) = &files {
                let new = files.entries().iter().filter(|entry| !filled.files.holds(&entry.path));
                filled.files = Manifest::from_unsorted(filled.files.entries().iter().chain(new).cloned().collect())?;
            }
            filled.others.push(files);
        }
        Ok(filled)
    }

    /// The fill's command with its places in it, and what a build that was tried lacked behind it.
    fn command(&self, recipe: &Recipe, work: &str, places: &Places, run: &Run<'_>) -> Result<Command, FillError> {
        let text = |text: &str| self.text(text, places);
        let words = match &self.cache.fill {
            Some(Command::Shell(text)) => return Ok(Command::Shell(text.clone())),
            Some(Command::Argv(words)) => words.iter().map(|word| text(word)).collect::<Result<Vec<_>, _>>()?,
            None => {
                let argv = recipe.fill.argv(places.index.is_some());
                if argv.is_empty() {
                    return Err(FillError::NoFill(recipe.name.to_owned()));
                }
                let out = places.cache.clone().unwrap_or_default();
                // A flat cache is made in the directory above, as the tools name what is in it.
                let target = out.strip_suffix("/dist").unwrap_or(&out);
                let filled_in = |word: &&str| match *word {
                    "{kind}" => Ok(run.kind.to_owned()),
                    "{config}" => Ok(self.build.config.clone().unwrap_or_default()),
                    "{out}" => Ok(target.to_owned()),
                    "{work}" => Ok(work.to_owned()),
                    other if other.contains("{index}") => text(other),
                    other => Ok(other.to_owned()),
                };
                argv.iter().map(filled_in).collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(Command::Argv(words.into_iter().chain(run.lacking.iter().cloned()).collect()))
    }

    fn text(&self, text: &str, places: &Places) -> Result<String, FillError> {
        placeholders::expand_build(text, self.values, places)
            .map_err(|error| FillError::Remote(RemoteError::Placeholder(error.to_string())))
    }

    /// Runs the resolver. The way to the index is there as long as it runs.
    async fn fill(&self, work: &str, place: &str, recipe: &Recipe, run: &Run<'_>) -> Result<(), FillError> {
        let tunnel = self.index.map(|index| index.tunnel(self.host)).transpose().map_err(RemoteError::Index)?;
        let places = Places {
            cache: Some(format!("{}/{place}", run.out)),
            scratch: format!("{work}/scratch"),
            index: tunnel.as_ref().map(|tunnel| tunnel.url().to_owned()),
        };
        let command = self.command(recipe, work, &places, run)?;
        let network = tunnel.as_ref().map_or(Network::Host, |tunnel| Network::HostAndIndex { door: tunnel.door() });
        let env = self.variables(recipe, &places)?;
        let exec = Exec { network, ..self.exec(command, format!("{work}/src"), env) };
        // What is told of it does not hold the way to the index.
        let index = tunnel.as_ref().map(|_| "{index}".to_owned());
        let told = self.command(recipe, work, &Places { index, ..places }, run)?;
        remote::run(self.host, Op::Exec(exec), told, Step::Fill, self.events).await?;
        Ok(())
    }

    /// The variables of the fill. Those of the index win over what this machine has, and `cache.env` wins over all.
    fn variables(&self, recipe: &Recipe, places: &Places) -> Result<Vec<(String, String)>, FillError> {
        let mut env = self.inherited.clone();
        env.extend(placeholders::variables(self.values));
        env.extend(places.variables());
        if places.index.is_some() {
            for (name, value) in recipe::ONLINE {
                env.push(((*name).to_owned(), self.text(value, places)?));
            }
        }
        let of_build = match self.build.network {
            environment::Network::Index => recipe::ONLINE,
            environment::Network::Blocked | environment::Network::None | environment::Network::Host => recipe.env,
        };
        let own = self.build.env.iter().filter(|(name, _)| !of_build.iter().any(|(other, _)| other == name));
        env.extend(own.chain(&self.cache.env).map(|(name, value)| (name.clone(), value.clone())));
        if places.index.is_some() {
            let direct = recipe::direct(&env);
            env.extend(direct);
        }
        Ok(env)
    }

    fn exec(&self, command: Command, directory: String, env: Vec<(String, String)>) -> Exec {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Exec {
            command,
            directory: Some(directory),
            env,
            umask: 0o022,
            timeout_ms: millis(self.build.timeout),
            idle_timeout_ms: millis(self.build.idle_timeout),
            output_limit: self.build.output_limit,
            user: None,
            network: Network::Host,
        }
    }

    /// Sends the tree once; every copy of it is made there.
    async fn send_tree(&self, work: &str) -> Result<(), FillError> {
        let below = |entry: &Entry| -> Result<Entry, FillError> {
            let path = TreePath::new([b"tree/", entry.path.as_bytes()].concat())?;
            Ok(Entry { path, kind: entry.kind.clone() })
        };
        let tree = Manifest::new(self.artifact.manifest.entries().iter().map(below).collect::<Result<_, _>>()?)?;
        let places = ["out", "scratch"].map(|name| TreePath::new(name.as_bytes()).map(|path| Entry { path, kind: Kind::Directory }));
        let places = Manifest::new(places.into_iter().collect::<Result<_, _>>()?)?;
        let contents: Contents = self.artifact.contents.clone();
        let goods = |artifact: Artifact| Goods::new(artifact, self.spool).map_err(TransferError::Local);
        let tree = goods(Artifact { manifest: tree, contents, warnings: Vec::new() })?;
        let places = goods(self.shelf.artifact(&places))?;
        for goods in [tree, places] {
            cache::complete(self.host, work, &goods, (None, None), (Step::Push, self.events)).await?;
        }
        Ok(())
    }

    async fn copy(&self, work: &str, name: &str) -> Result<(), FillError> {
        let words = ["sh", "-eu", "-c", "rm -rf \"$1\"\nmkdir -p tree\nexec cp -R tree \"$1\"", "copy", name];
        let command = Command::Argv(words.map(str::to_owned).to_vec());
        let exec = self.exec(command.clone(), work.to_owned(), Vec::new());
        remote::run(self.host, Op::Exec(exec), command, Step::Fill, self.events).await?;
        Ok(())
    }

    /// Builds as a host would, with nothing but what was filled.
    async fn try_build(&self, work: &str, place: &str, recipe: &Recipe) -> Result<(Exited, Vec<String>), FillError> {
        self.copy(work, "try").await?;
        self.link(work).await?;
        let venv = format!("{work}/venv");
        let link = self.cache.link.to_string();
        let settings = Settings { venv: Some(&venv), config: self.build.config.as_deref(), link: Some(&link) };
        let command = recipe.argv(settings, false).map_or_else(|| self.build.command.clone(), Command::Argv);
        let places = Places { cache: Some(format!("{work}/out/{place}")), scratch: format!("{work}/scratch"), index: None };
        let build = match self.build.network {
            environment::Network::Blocked | environment::Network::None | environment::Network::Host => Cow::Borrowed(self.build),
            // With a cache that is complete it needs none.
            environment::Network::Index => {
                let mut env = recipe.variables(settings, false);
                let own = self.build.env.iter().filter(|(name, _)| !recipe::ONLINE.iter().any(|(other, _)| other == name));
                env.extend(own.map(|(name, value)| (name.clone(), value.clone())));
                Cow::Owned(Build { env, network: environment::Network::Blocked, ..self.build.clone() })
            }
        };
        let exec = remote::build_exec(&build, &command, self.values, &places, format!("{work}/try"), 0)?;
        let mut output = Output::keeping(READ, self.host.name(), Step::Build, self.events);
        let mut call = self.host.start(Op::Exec(exec)).await?;
        loop {
            match call.next().await? {
                Reply::Output { stderr, bytes } => output.feed(stderr, &bytes),
                Reply::Progress(_) | Reply::End => {}
                Reply::Answer(Answer::Exited(exited)) => return Ok((exited, output.finish())),
                Reply::Answer(other) => return Err(HostError::unexpected(self.host.name(), &other).into()),
            }
        }
    }

    /// Makes the links that a release would have, as far as the tree does not track what lies there.
    async fn link(&self, work: &str) -> Result<(), FillError> {
        let root = self.host.target().root.as_ref().unwrap_or(&self.environment.root);
        let shared = &self.environment.shared;
        let shared = shared.directories.iter().chain(&shared.files).map(|path| (path, format!("{root}/shared/{path}")));
        let mut entries = Vec::new();
        for (path, target) in shared.chain([(&self.cache.link, format!("{work}/out"))]) {
            if !self.artifact.manifest.holds(path) {
                let path = TreePath::new([b"try/", path.as_bytes()].concat())?;
                entries.push(Entry { path, kind: Kind::Link { target: target.into_bytes() } });
            }
        }
        let links = Manifest::from_unsorted(entries)?;
        let goods = Goods::new(self.shelf.artifact(&links), self.spool).map_err(TransferError::Local)?;
        cache::complete(self.host, work, &goods, (None, None), (Step::Fill, self.events)).await?;
        Ok(())
    }

    /// Brings what was filled here, and then into the builder's own cache, file by file.
    async fn publish(&self, out: &str, files: &Manifest) -> Result<(), FillError> {
        let wanted: Vec<Entry> = files.entries().iter().filter(|entry| !self.shelf.holds(&entry.kind)).cloned().collect();
        if !wanted.is_empty() {
            cache::fetch(self.host, out, Manifest::new(wanted)?, self.shelf, self.spool).await?;
        }
        let goods = Goods::new(self.shelf.artifact(files), self.spool).map_err(TransferError::Local)?;
        let (set, from) = (Some(self.key), Some(out));
        cache::complete(self.host, self.cache.on(self.host.target()).as_str(), &goods, (set, from), (Step::Cache, self.events)).await?;
        Ok(())
    }
}
