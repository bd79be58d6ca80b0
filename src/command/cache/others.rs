//! Whom a fill should serve besides hosts like its builder: the hosts of the environment, each asked for its Python, and kinds that are
//! named because nobody can reach such a host from here.

use super::fill::plain;
use super::{Stock, Subject, python};
use crate::cli;
use crate::command::failure::{self, HostFailure};
use crate::command::outcome;
use crate::config::Environment;
use crate::config::environment::{Build, BuildOn, Target};
use crate::error::Error;
use crate::event::{Event, Events, Severity, Step};
use crate::exit::Exit;
use crate::fleet::each;
use crate::host::{ConnectError, Host};
use crate::index::Remark;
use crate::provision::fill::{FillError, Filled};
use crate::recipe::{self, Python, Recipe};
use crate::shelf::{Part, Set};
use crate::stage::remote::RemoteError;

/// Hosts with one Python, which is not that of the builder.
#[derive(Debug)]
pub struct Kind {
    pub python: Python,
    /// None where the kind was named.
    pub hosts: Vec<String>,
}

impl Kind {
    /// What is known of the part of a set that such hosts need.
    #[must_use]
    pub fn part(&self) -> Part {
        Part {
            platform: self.python.platform(),
            python: Some(self.python.to_string()),
            on: String::new(),
            proven: false,
            files: Vec::new(),
        }
    }
}

/// Everybody but the builder.
#[derive(Default)]
pub struct Others {
    pub hosts: Vec<Host>,
    pub kinds: Vec<Kind>,
    /// The Python that the builder's resolver chooses for.
    pub builder: Option<Python>,
}

/// The hosts that use what is filled, but the first, which fills: those that build, as far as they build in the same way.
pub fn targets(environment: &Environment, args: &cli::CacheFill) -> Result<Vec<Target>, Error> {
    let Some(first) = environment.targets.first() else { return Ok(Vec::new()) };
    let way = environment.of(first);
    let Some(build) = &way.build else { return Ok(Vec::new()) };
    let recipe = Recipe::find(&build.recipe);
    if !args.kinds.is_empty()
        && !recipe.is_some_and(|recipe| recipe.fill.others && way.cache.as_ref().is_some_and(|cache| cache.fill.is_none()))
    {
        return Err(Error::new(
            Exit::Usage,
            "no-kinds",
            "this build's files are not chosen by the Python of a host: `--for` has no meaning here",
        )
        .hint("`--for` goes with the recipes `buildout`, `pip` and `uv`, and their own fill"));
    }
    if recipe.is_some_and(|recipe| recipe.fill.portable) {
        return Ok(Vec::new());
    }
    let is_alike = |target: &&Target| super::is_alike(way, environment.of(target));
    let others = match &build.on {
        BuildOn::Host => environment.targets.iter().skip(usize::from(!args.local)).filter(is_alike).cloned().collect(),
        BuildOn::First if args.local => vec![first.clone()],
        BuildOn::First => Vec::new(),
        BuildOn::One(_) => environment.builder_of(first).into_iter().filter(|target| args.local || target.name != first.name).collect(),
    };
    Ok(others)
}

impl Others {
    /// Asks the builder and all other hosts which Python they have.
    pub async fn meet(
        subject: &Subject<'_>,
        builder: &Host,
        hosts: Vec<Host>,
        unreachable: &[(Target, ConnectError)],
        named: &[Python],
        events: &Events,
    ) -> Self {
        if !unreachable.is_empty() {
            events.emit(Event::Diagnostic {
                severity: Severity::Warning,
                code: "unreachable".to_owned(),
                message: "cannot be reached: nobody knows whether what is filled serves it".to_owned(),
                hosts: unreachable.iter().map(|(target, _)| target.name.clone()).collect(),
                evidence: unreachable.iter().map(|(target, error)| format!("{} | {error}", target.name)).collect(),
                state: None,
                help: Vec::new(),
            });
        }
        let environment = subject.environment;
        let Some(build) = &environment.build else { return Self::default() };
        // The resolver runs with the host's own, which need not be that of its virtual environment.
        let of_resolver = Build { venv: None, ..build.clone() };
        let own = python(builder, environment, &of_resolver).await;
        let fetches = Recipe::find(&build.recipe).is_some_and(|recipe| recipe.fill.others)
            && environment.cache.as_ref().is_some_and(|cache| cache.fill.is_none());
        let mut others = Self { hosts, kinds: Vec::new(), builder: own };
        if !fetches {
            return others;
        }
        let asked = each(&others.hosts, 64, |host| async {
            // A host that was not set up yet has no virtual environment, and will make it with its own.
            match python(host, environment, build).await {
                Some(python) => Some(python),
                None => python(host, environment, &of_resolver).await,
            }
        });
        let found = asked.await.into_iter().zip(others.hosts.iter().map(|host| Some(host.name().to_owned())));
        for (python, host) in found.chain(named.iter().map(|python| (Some(python.clone()), None))) {
            let Some(python) = python else { continue };
            let text = python.to_string();
            if others.builder.as_ref().is_some_and(|own| own.to_string() == text) {
                continue;
            }
            match others.kinds.iter_mut().find(|kind| kind.python.to_string() == text) {
                Some(kind) => kind.hosts.extend(host),
                None => others.kinds.push(Kind { python, hosts: host.into_iter().collect() }),
            }
        }
        others
    }

    #[must_use]
    pub fn pythons(&self) -> Vec<Python> {
        self.kinds.iter().map(|kind| kind.python.clone()).collect()
    }

    /// Names all kinds.
    #[must_use]
    pub fn named(&self) -> String {
        self.kinds.iter().map(|kind| kind.python.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Says whom of the others the cache does not serve, and why; none where it serves all.
    pub async fn refused(
        &self,
        subject: &Subject<'_>,
        host: &Host,
        (filled, set): (&Filled, &Set),
        remarks: &[Remark],
        events: &Events,
    ) -> Option<Error> {
        let scene = subject.scene;
        let contents = subject.shelf();
        let (environment, spool) = (subject.environment, &scene.directories.cache);
        let stock = Stock { environment, cache: subject.cache().ok()?, set, shelf: &contents, spool, events };
        let mut failures: Vec<HostFailure> = Vec::new();
        let mut first_of: Vec<&str> = Vec::new();
        for (kind, files) in self.kinds.iter().zip(&filled.others) {
            let Err(error) = files else { continue };
            if set.parts.iter().any(|part| part.is_for(&kind.part())) {
                continue;
            }
            let why = unavailable(error, &kind.python).unwrap_or_else(|| {
                let told = plain(host, Step::Fill, error, remarks);
                let cause = told.hints.into_iter().next().unwrap_or(told.what);
                format!("what {} needs cannot be fetched on `{}`: {cause}", kind.python, host.name())
            });
            let names = if kind.hosts.is_empty() { vec![kind.python.to_string()] } else { kind.hosts.clone() };
            first_of.extend(kind.hosts.first().map(String::as_str));
            let tail = match error {
                FillError::Remote(RemoteError::Command { tail, .. }) => tail.clone(),
                _ => Vec::new(),
            };
            // Of hosts that fail alike one shows what was said.
            let tails = std::iter::once(tail).chain(std::iter::repeat(Vec::new()));
            failures
                .extend(names.iter().zip(tails).map(|(name, tail)| HostFailure { tail, ..failure::step(name, Step::Fill, why.clone()) }));
        }
        for (other, misfit) in self.hosts.iter().zip(stock.misfits(&self.hosts).await) {
            let is_told = failures.iter().any(|failure| failure.host == other.name());
            if let Some(why) = misfit.filter(|_| !is_told) {
                first_of.push(other.name());
                failures.push(failure::step(other.name(), Step::Fill, why));
            }
        }
        if failures.is_empty() {
            return None;
        }
        let mut error = outcome::explain(Exit::BuildFailed, &failures, self.hosts.len() + 1, String::new());
        first_of.dedup();
        error.hints = first_of.iter().map(|name| scene.typed_on("cache fill", &subject.rev_flag(), &[name])).collect();
        Some(error)
    }
}

/// What there is no wheel of for this kind of host; none where the fetch failed for another reason.
fn unavailable(error: &FillError, python: &Python) -> Option<String> {
    let FillError::Remote(RemoteError::Command { tail, .. }) = error else { return None };
    let lacking = recipe::lacking(tail);
    let first = lacking.first()?;
    Some(format!("there is no wheel of `{first}` for {python}, and nothing can be built for another kind of host than the builder"))
}
