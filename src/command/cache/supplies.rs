//! What `setup` brings to a host that has nothing: the cache, and the pins of the environment that builds from it.

use super::known_set;
use crate::cli::What;
use crate::command::material::Material;
use crate::command::scene::Scene;
use crate::config::environment::{Cache, Environment};
use crate::event::{Events, Step};
use crate::host::Host;
use crate::provision::cache as caches;
use crate::provision::cache::Goods;
use crate::recipe;
use crate::shelf::{Set, Shelf};
use crate::stage::transfer::TransferError;
use crate::tree::Manifest;

/// What builds of the default revision need, in each way that hosts build. Empty where there is no default revision.
pub struct Supplies<'a> {
    ways: Vec<Way<'a>>,
}

struct Way<'a> {
    environment: &'a Environment,
    /// What a virtual environment must hold, as requirements.
    pins: Vec<String>,
    goods: Option<(Set, Goods)>,
}

impl<'a> Supplies<'a> {
    /// Finds out what is needed, from the revision that is deployed by default. Not to know it is no failure: there may be none yet.
    pub async fn find(scene: &'a Scene, hosts: &[Host], events: &Events) -> Self {
        let takes = |way: &Environment| way.build.as_ref().is_some_and(|build| way.cache.is_some() || build.venv.is_some());
        if scene.environment.rev.is_none() || !scene.environment.ways().any(takes) {
            return Self { ways: Vec::new() };
        }
        let Ok(local) = Material::prepare(&What::default(), scene, events).await else { return Self { ways: Vec::new() } };
        let shelf = Shelf::at(&scene.directories.cache);
        let mut ways = Vec::new();
        for environment in scene.environment.ways() {
            let config = environment.build.as_ref().filter(|build| build.venv.is_some()).and_then(|build| build.config.clone());
            let pins = config.map(|config| recipe::pinned(&config, &|path| local.artifact.text(path))).unwrap_or_default();
            let set = known_set(environment, &local.artifact, &shelf, hosts).await;
            let goods = set.and_then(|set| Some((set.clone(), goods(&shelf, &set.files, scene)?)));
            ways.push(Way { environment, pins, goods });
        }
        Self { ways }
    }

    fn of(&self, environment: &Environment) -> Option<&Way<'a>> {
        self.ways.iter().find(|way| std::ptr::eq(way.environment, environment))
    }

    /// The requirements of the virtual environment, where a revision pins them.
    #[must_use]
    pub fn pins(&self, environment: &Environment) -> &[String] {
        self.of(environment).map_or(&[], |way| &way.pins)
    }

    /// Completes the cache of a host, or only tells what it lacks. Gives a line where there is something to tell.
    pub async fn bring(
        &self,
        host: &Host,
        environment: &Environment,
        cache: &Cache,
        check: bool,
        events: &Events,
    ) -> Result<Option<String>, TransferError> {
        let Some((set, goods)) = self.of(environment).and_then(|way| way.goods.as_ref()) else { return Ok(None) };
        let directory = cache.on(host.target()).as_str();
        let line = |count: u64| (count > 0).then(|| format!("{} into {directory}", crate::figures::counted(count, "file")));
        if check {
            // A cache that is not there yet lacks all of it.
            let lacking = match caches::compare(host, directory, goods).await {
                Ok(compared) => caches::entries(&set.files, &caches::lacking(&compared)).len() as u64,
                Err(_) => set.files.totals().0,
            };
            return Ok(line(lacking));
        }
        let supplied = caches::complete(host, directory, goods, (Some(set.key), None), (Step::Setup, events)).await?;
        Ok(line(supplied.files))
    }
}

/// The list with its contents, where all of them are here.
fn goods(shelf: &Shelf, files: &Manifest, scene: &Scene) -> Option<Goods> {
    let here = files.entries().iter().all(|entry| shelf.holds(&entry.kind));
    here.then(|| Goods::new(shelf.artifact(files), &scene.directories.cache).ok()).flatten()
}
