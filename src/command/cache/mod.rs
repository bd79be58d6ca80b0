//! `cache`: what offline builds of a revision need, filled where an index is reached, compared with what every host has, and sent.

mod carry;
mod fill;
mod hint;
mod others;
mod push;
mod serve;
mod status;
mod stock;
mod supplies;
mod survey;

use std::sync::Arc;

use crate::cli::{self, Common, What};
use crate::command::material::Material;
use crate::command::scene::{self, Scene};
use crate::config::Overrides;
use crate::config::environment::{Cache, Environment, Target};
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::fleet::each;
use crate::git::Artifact;
use crate::host::Host;
use crate::provision::cache as caches;
use crate::recipe::{self, Recipe};
use crate::shelf::{Set, Shelf};
use crate::tree::Digest;

pub use hint::explain_lacking;
pub use stock::{Stock, Stocked, look, python};
pub use supplies::Supplies;
pub use survey::{Survey, is_fillable, survey};

/// Runs the verb.
pub async fn cache(common: &Common, args: &cli::Cache) -> Result<Exit, Error> {
    match args {
        cli::Cache::Fill(args) => Box::pin(fill::fill(common, args)).await,
        cli::Cache::Status(args) => status::status(common, args).await,
        cli::Cache::Push(args) => push::push(common, args).await,
        cli::Cache::Export(args) => carry::export(common, args).await,
        cli::Cache::Import(args) => carry::import(common, args).await,
        cli::Cache::Serve(args) => serve::serve(common, args).await,
    }
}

/// Names the directory of a host's cache that has the files of a tree; none where there is no cache or no build.
#[must_use]
pub fn place_of(environment: &Environment, target: &Target, tree: &Artifact) -> Option<String> {
    let (build, cache) = (environment.build.as_ref()?, environment.cache.as_ref()?);
    let (recipe, key) = (Recipe::find(&build.recipe)?, set_key(environment, tree)?);
    Some(format!("{}/{}", cache.on(target), recipe::place(recipe, key)))
}

fn set_key(environment: &Environment, tree: &Artifact) -> Option<Digest> {
    recipe::set_key(environment, &tree.manifest, &|path| tree.text(path))
}

/// The files that a tree needs: known here, or by one of the hosts.
pub async fn known_set(environment: &Environment, tree: &Artifact, shelf: &Shelf, hosts: &[Host]) -> Option<Set> {
    let (key, cache) = (set_key(environment, tree)?, environment.cache.as_ref()?);
    if let Some(set) = shelf.set(key) {
        return Some(set);
    }
    if hosts.is_empty() || !is_fillable(environment) {
        return None;
    }
    let recalled = each(hosts, 64, |host| caches::recall(host, cache.on(host.target()).as_str(), key)).await;
    let files = recalled.into_iter().find_map(|files| files.ok().flatten())?;
    Some(Set { key, files, about: None, parts: Vec::new() })
}

/// The revision that a verb is about, and the key of what it needs.
struct Subject<'a> {
    scene: &'a Scene,
    /// As some of the selected hosts build.
    environment: &'a Environment,
    local: Arc<Material>,
    key: Digest,
}

impl<'a> Subject<'a> {
    /// Exports the revision for the way in which all selected hosts build; nothing of it is sent.
    async fn settle(scene: &'a Scene, rev: Option<&str>, events: &Events) -> Result<Self, Error> {
        let mut subjects = Self::settle_all(scene, rev, events).await?;
        if subjects.len() > 1 {
            return Err(Error::new(Exit::Usage, "which-way", "the selected hosts build in different ways, and need different files")
                .hint("narrow to those of one way: `-R NAME`, or `-H NAME`"));
        }
        Ok(subjects.remove(0))
    }

    /// Exports the revision once; one subject for each way in which selected hosts build. There is at least one.
    async fn settle_all(scene: &'a Scene, rev: Option<&str>, events: &Events) -> Result<Vec<Self>, Error> {
        let mut ways: Vec<&Environment> = Vec::new();
        for way in scene.environment.targets.iter().map(|target| scene.environment.of(target)) {
            if !ways.iter().any(|other| is_alike(other, way)) {
                cache_of(way)?;
                ways.push(way);
            }
        }
        if ways.is_empty() {
            ways.push(&scene.environment);
        }
        let what = What { rev: rev.map(str::to_owned), expect: None, tree: None, from: None, force: false };
        let local = Arc::new(Material::prepare(&what, scene, events).await?);
        let subject = |environment| {
            let Some(key) = set_key(environment, &local.artifact) else {
                let what = format!("[env.{}] has no build that needs a cache", scene.environment.name);
                let found = recipe::detect(&local.artifact.manifest).map(|recipe| format!("add `build.recipe = \"{}\"`", recipe.name));
                return Err(Error::new(Exit::Config, "no-build", what).hint(found.unwrap_or_else(|| "add `[defaults.build]`".to_owned())));
            };
            Ok(Self { scene, environment, local: Arc::clone(&local), key })
        };
        ways.into_iter().map(subject).collect()
    }

    /// Whether a host builds in this way.
    fn is_of(&self, target: &Target) -> bool {
        is_alike(self.environment, self.scene.environment.of(target))
    }

    fn cache(&self) -> Result<&Cache, Error> {
        cache_of(self.environment)
    }

    fn shelf(&self) -> Shelf {
        Shelf::at(&self.scene.directories.cache)
    }

    /// Says that nobody knows what the revision needs, and where one of these hosts could find out.
    fn unknown(&self, hosts: &[Host]) -> Error {
        let what = format!("what {} needs is not known here, nor on any host", self.local.label());
        let is_narrow = self.scene.environment.targets.iter().any(|target| !self.is_of(target));
        let builder = hosts.first().filter(|_| is_narrow).map(|host| format!(" -H {}", host.name())).unwrap_or_default();
        Error::new(Exit::Refused, "not-filled", what).hint(format!("{}{builder}", self.fill_command()))
    }

    /// The flag that says which revision it is about.
    fn rev_flag(&self) -> String {
        rev_flag(self.environment)
    }

    fn fill_command(&self) -> String {
        fill_command(self.environment)
    }
}

/// Whether hosts that build in both ways need the same files.
fn is_alike(way: &Environment, other: &Environment) -> bool {
    way.build == other.build && way.cache == other.cache
}

fn cache_of(environment: &Environment) -> Result<&Cache, Error> {
    environment.cache.as_ref().ok_or_else(|| {
        Error::new(Exit::Config, "no-cache", format!("[env.{}] has no download cache", environment.name))
            .hint("add `path = \"/srv/download-cache\"` to `[defaults.cache]`")
    })
}

fn overrides(common: &Common, rev: Option<&str>) -> Overrides {
    Overrides { rev: rev.map(str::to_owned), ..scene::common_overrides(common) }
}

/// What to type to have a cache filled with what this revision needs.
pub fn fill_command(environment: &Environment) -> String {
    format!("{}{}", environment.typed("cache fill"), rev_flag(environment))
}

fn rev_flag(environment: &Environment) -> String {
    environment.rev.as_ref().map(|rev| format!(" --rev {rev}")).unwrap_or_default()
}
