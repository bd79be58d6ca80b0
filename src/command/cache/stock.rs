//! Making the caches of hosts complete before anything is built: what they lack is found first, then brought here where it is not, then sent.

use std::collections::HashMap;

use super::fill_command;
use crate::command::failure::{self, HostFailure};
use crate::config::environment::{Build, Cache, Environment};
use crate::event::{Events, Step};
use crate::figures::counted;
use crate::fleet::{Done, Tally, each};
use crate::host::Host;
use crate::op::Compared;
use crate::provision::cache::{self as caches, Goods, Supplied};
use crate::recipe::{self, Python, Recipe};
use crate::report::cache::CacheRow;
use crate::shelf::{Part, Set, Shelf};
use crate::stage::likeness;
use crate::stage::transfer::TransferError;
use crate::tree::{Digest, Entry, Kind, Manifest};

/// What the caches of hosts are completed with.
pub struct Stock<'a> {
    pub environment: &'a Environment,
    pub cache: &'a Cache,
    pub set: &'a Set,
    pub shelf: &'a Shelf,
    pub spool: &'a std::path::Path,
    pub events: &'a Events,
}

/// How one host's cache compares with what is needed.
pub type Looked = Result<Compared, TransferError>;
/// How one host came to have it all.
pub type Stocked = Result<(), HostFailure>;

/// Compares all hosts with a set, in one round trip each.
pub async fn look(hosts: &[Host], cache: &Cache, goods: &Goods) -> Vec<Looked> {
    each(hosts, 64, |host| caches::compare(host, cache.on(host.target()).as_str(), goods)).await
}

impl Stock<'_> {
    pub fn goods(&self) -> Result<Goods, TransferError> {
        Goods::new(self.shelf.artifact(&self.set.files), self.spool).map_err(TransferError::Local)
    }

    /// Completes the caches of the hosts, and tells it as one step.
    pub async fn complete(&self, hosts: &[Host], tally: &Tally<'_>) -> Vec<Stocked> {
        let goods = match self.goods() {
            Ok(goods) => goods,
            Err(error) => return hosts.iter().map(|host| Err(failed(host, &error))).collect(),
        };
        let looked = look(hosts, self.cache, &goods).await;
        let absent = self.obtain(hosts, &looked).await;
        let both: Vec<(&Host, Looked)> = hosts.iter().zip(looked).collect();
        each(both, 64, |(host, looked)| {
            let supplied = self.supply(host, looked, &goods, &absent);
            let stocked = async { supplied.await.map_err(Box::new) };
            async {
                let result = tally.step(host.name(), Step::Cache, stocked, |result| describe(result.map_err(|failure| &**failure))).await;
                result.map(drop).map_err(|failure| *failure)
            }
        })
        .await
    }

    /// Brings what hosts lack and is not here from hosts that have it. Gives what nobody has.
    async fn obtain(&self, hosts: &[Host], looked: &[Looked]) -> Vec<Digest> {
        let mut wanted: HashMap<Digest, &Entry> = HashMap::new();
        for compared in looked.iter().flatten() {
            for entry in caches::entries(&self.set.files, &caches::lacking(compared)) {
                if let Kind::File { digest, .. } = &entry.kind
                    && !self.shelf.holds(&entry.kind)
                {
                    wanted.insert(*digest, entry);
                }
            }
        }
        for (host, compared) in hosts.iter().zip(looked) {
            let Ok(compared) = compared else { continue };
            let lacks: Vec<&[u8]> =
                caches::entries(&self.set.files, &caches::lacking(compared)).iter().map(|entry| entry.path.as_bytes()).collect();
            let has: Vec<Entry> =
                wanted.values().filter(|entry| !lacks.contains(&entry.path.as_bytes())).map(|entry| (*entry).clone()).collect();
            let Ok(list) = Manifest::from_unsorted(has) else { continue };
            if list.entries().is_empty() {
                continue;
            }
            // A host that cannot give it is passed over: the next one may.
            let _ = caches::fetch(host, self.cache.on(host.target()).as_str(), list, self.shelf, self.spool).await;
            wanted.retain(|_, entry| !self.shelf.holds(&entry.kind));
        }
        wanted.into_keys().collect()
    }

    async fn supply(&self, host: &Host, looked: Looked, goods: &Goods, absent: &[Digest]) -> Result<Supplied, HostFailure> {
        let compared = looked.map_err(|error| failed(host, &error))?;
        if let Some(message) = self.misfit(host).await {
            let hint = Some(format!("{} -H {}", fill_command(self.environment), host.name()));
            return Err(HostFailure { hint, ..failure::step(host.name(), Step::Cache, message) });
        }
        let lacking = caches::lacking(&compared);
        if lacking.is_empty() {
            return Ok(Supplied::default());
        }
        let is_absent = |entry: &&&Entry| matches!(&entry.kind, Kind::File { digest, .. } if absent.contains(digest));
        let entries = caches::entries(&self.set.files, &lacking);
        if let Some(first) = entries.iter().find(is_absent) {
            let count = counted(entries.len() as u64, "file");
            let message = format!("{count} missing in the cache, `{}` among them, and nobody has it", first.path);
            let hint = Some(fill_command(self.environment));
            return Err(HostFailure { hint, ..failure::step(host.name(), Step::Cache, message) });
        }
        let (set, cache) = (Some(self.set.key), self.cache.on(host.target()).as_str());
        caches::complete(host, cache, goods, (set, None), (Step::Cache, self.events)).await.map_err(|error| failed(host, &error))
    }

    /// Says for each host why the files are of no use there; none where they are not known to be.
    pub async fn misfits(&self, hosts: &[Host]) -> Vec<Option<String>> {
        each(hosts, 64, |host| self.misfit(host)).await
    }

    async fn misfit(&self, host: &Host) -> Option<String> {
        let build = self.environment.build.as_ref()?;
        let here = &host.facts().platform;
        let portable = Recipe::find(&build.recipe).is_some_and(|recipe| recipe.fill.portable);
        if let Some(about) = self.set.about.as_ref().filter(|_| !portable) {
            let mut known = self.set.parts.iter().map(|part| &part.platform).chain([&about.platform]);
            if !known.any(|platform| platform == here) {
                return Some(format!("the files were filled on `{}` for {}, and this host is {here}", about.on, about.platform));
            }
        }
        // Asking takes a moment, and what serves every interpreter needs no question.
        if !recipe::is_particular(&self.set.files) {
            return None;
        }
        let python = python(host, self.environment, build).await?;
        let serves = |part: &Part| python.cannot_use(part.files.iter().map(String::as_str)).is_none();
        if self.set.parts.iter().any(serves) {
            return None;
        }
        let file =
            python.cannot_use(self.set.files.entries().iter().filter_map(|entry| std::str::from_utf8(entry.path.as_bytes()).ok()))?;
        let of_file = self.set.parts.iter().find(|part| part.files.iter().any(|path| path.rsplit('/').next() == Some(file)));
        let filled = of_file.and_then(|part| Some((part, part.python.as_ref()?)));
        let why = filled.map_or_else(String::new, |(part, python)| format!("the files were filled on `{}` for {python}, and ", part.on));
        Some(format!("`{file}` is of no use here: {why}this host has {python}"))
    }
}

/// What is told of one host's cache.
pub fn row(host: &Host, set: &Set, looked: &Looked, unfit: Option<String>) -> CacheRow {
    let names = |ranges: &[(u32, u32)]| caches::entries(&set.files, ranges).iter().map(|entry| entry.path.to_string()).collect();
    match looked {
        Ok(compared) => CacheRow {
            host: host.name().to_owned(),
            files: set.files.totals().0,
            missing: names(&compared.missing),
            damaged: names(&compared.differing),
            unfit,
            error: None,
        },
        Err(error) => CacheRow::unknown(host.name(), error.to_string()),
    }
}

/// The Python that the build of a host runs with; none where it is none, or cannot be asked.
pub async fn python(host: &Host, environment: &Environment, build: &Build) -> Option<Python> {
    let root = host.target().root.as_ref().unwrap_or(&environment.root);
    let likeness = likeness::of(host, root.as_str(), Some(build)).await.ok()?;
    let python = Python::read(likeness.interpreter.as_deref()?, &likeness.libc, &likeness.platform)?;
    Some(Python { version: likeness.version, ..python })
}

fn failed(host: &Host, error: &TransferError) -> HostFailure {
    HostFailure { step: Step::Cache, ..failure::transfer(host.name(), error) }
}

fn describe(result: Result<&Supplied, &HostFailure>) -> Done {
    match result {
        Ok(Supplied { files: 0, .. }) => Done { detail: Some("complete".to_owned()), ..Done::default() },
        Ok(supplied) => {
            let detail = format!("{} {} missing", counted(supplied.files, "file"), if supplied.files == 1 { "was" } else { "were" });
            Done { detail: Some(detail), sent_bytes: Some(supplied.sent_bytes), ..Done::default() }
        }
        Err(failure) => Done { detail: Some(failure.message.clone()), ..Done::default() },
    }
}
