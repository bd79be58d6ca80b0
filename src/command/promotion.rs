//! Promotion: the very bytes that another environment confirmed, instead of a revision to be built. Refused where that environment
//! does not serve one confirmed, unaltered release on all of its hosts, or where the release would run at another path.

use crate::command::failure;
use crate::command::outcome;
use crate::config::environment::{Build, Environment, OnUnreachable};
use crate::error::Error;
use crate::event::{Event, Events, Severity};
use crate::exit::Exit;
use crate::fleet;
use crate::host::{Host, HostError};
use crate::op::Code;
use crate::plan::{self, Promoted as Wanted, short};
use crate::release::{NewRelease, Origin, Record, State};
use crate::stage::capture::{self, Capture, CaptureError};
use crate::tree::TreePath;
use crate::tree::path::Shown;

/// A confirmed release of another environment, and the host it is taken from.
pub struct Promoted {
    pub host: Host,
    pub root: String,
    pub build: Option<Build>,
    pub release: NewRelease,
    pub capture: Capture,
    environment: String,
}

impl Promoted {
    /// What is written down of where it comes from: who built it, wherever it went since.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let built = self.release.origin.as_ref().map(|origin| origin.host.clone());
        Origin {
            tree: self.capture.manifest.tree_digest(),
            host: built.unwrap_or_else(|| self.host.name().to_owned()),
            environment: Some(self.environment.clone()),
        }
    }

    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { tree: self.capture.manifest.tree_digest(), release: self.release.id.clone() }
    }
}

fn refused(code: &'static str, what: String) -> Error {
    Error::new(Exit::Refused, code, what).state("nothing was changed")
}

/// Reads what `from` confirmed, verified to the byte on the host that it is taken from.
pub async fn take(from: &Environment, to: &Environment, events: &Events) -> Result<Promoted, Error> {
    // Who they are and how they are reached is no event of this run.
    let (silent, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(from, &silent).await;
    let unreachable = !connected.unreachable.is_empty();
    let taken = if connected.hosts.is_empty() || (unreachable && from.on_unreachable == OnUnreachable::Fail) {
        Err(outcome::unreachable(&connected, format!("nothing was changed; what {} confirmed is not known", from.name)))
    } else {
        from_hosts(from, to, &connected.hosts).await
    };
    let used = taken.as_ref().ok().map(|promoted| promoted.host.name().to_owned());
    let others: Vec<Host> = connected.hosts.into_iter().filter(|host| Some(host.name()) != used.as_deref()).collect();
    fleet::close(&others).await;
    if let Ok(promoted) = &taken {
        tell(promoted, events);
    }
    taken
}

async fn from_hosts(from: &Environment, to: &Environment, hosts: &[Host]) -> Result<Promoted, Error> {
    let record = confirmed(from, hosts)?;
    let Some(host) = hosts.first() else { return Err(refused("nothing-confirmed", format!("{} has no hosts", from.name))) };
    let root = host.target().root.as_ref().unwrap_or(&from.root);
    for target in &to.targets {
        let own = target.root.as_ref().unwrap_or(&to.root);
        if own != root {
            let what = format!("what was built in `{root}` on `{}` does not run in `{own}` on `{}`", host.name(), target.name);
            return Err(refused("other-root", what).hint("give both environments the same `root`, or build for each"));
        }
    }
    let capture = capture::capture(host, &record.release.id).await.map_err(|error| not_taken(host, from, &error))?;
    same_links(from, to, &capture.about.links)?;
    Ok(Promoted {
        host: host.clone(),
        root: root.to_string(),
        build: from.build.clone(),
        release: record.release,
        capture,
        environment: from.name.clone(),
    })
}

/// Finds the one release that all hosts serve and that was confirmed on each. Gives the first host's record.
fn confirmed(from: &Environment, hosts: &[Host]) -> Result<Record, Error> {
    let hint = from.typed("status");
    let mut first: Option<Record> = None;
    for host in hosts {
        let facts = host.facts();
        let name = host.name();
        let Some(record) = plan::live_record(&facts) else {
            let what = format!("`{name}` of {} serves no release that could be promoted", from.name);
            return Err(refused("nothing-confirmed", what).hint(hint));
        };
        if facts.unresolved.is_some() || record.state != State::Confirmed {
            let what = format!("what `{name}` of {} serves was never confirmed: `{}`", from.name, record.release.id);
            return Err(refused("not-confirmed", what).hint(hint));
        }
        if record.release.project != from.project {
            let what = format!("`{name}` of {} serves another project: `{}`", from.name, Shown(record.release.project.as_bytes()));
            return Err(refused("other-project", what).hint(hint));
        }
        let key = |record: &Record| (record.release.commit.clone(), record.release.tree, record.release.build_key);
        match &first {
            None => first = Some(record.clone()),
            Some(first) if key(first) == key(record) => {}
            Some(_) => {
                let state = outcome::serving(&from.name, "serves", &fleet::live(hosts));
                let same = "the same commit, built in different ways";
                let what = if fleet::live(hosts).len() > 1 { state } else { format!("{} serves {same}", from.name) };
                return Err(refused("not-uniform", format!("{what}: there is no one release to promote"))
                    .hint(from.typed("deploy"))
                    .hint(hint));
            }
        }
    }
    first.ok_or_else(|| refused("nothing-confirmed", format!("{} has no hosts", from.name)).hint(hint))
}

fn not_taken(host: &Host, from: &Environment, error: &CaptureError) -> Error {
    let failure = failure::capture(host.name(), error);
    let what = format!("`{}` of {} cannot give its release: {}", host.name(), from.name, failure.message);
    let error = match error {
        CaptureError::Host(HostError::Failed(failure)) if failure.code == Code::Corrupt => refused("altered", what),
        CaptureError::Host(HostError::Failed(_)) | CaptureError::Wrong { .. } | CaptureError::Local { .. } => refused("not-taken", what),
        CaptureError::Host(HostError::Lost { .. } | HostError::Protocol { .. }) => {
            Error::new(Exit::Unreachable, "lost", what).state("nothing was changed")
        }
    };
    match failure.hint {
        Some(hint) => error.hint(hint).hint(format!("deployer status -e {} --verify", from.name)),
        None => error,
    }
}

/// Every host makes the links of its own environment: where they are others, the tree would have holes, or files under a link.
fn same_links(from: &Environment, to: &Environment, made: &[TreePath]) -> Result<(), Error> {
    let mut own: Vec<&TreePath> =
        to.shared.directories.iter().chain(&to.shared.files).chain(to.cache.iter().map(|cache| &cache.link)).collect();
    // A link to the directory around it leads there already.
    let outer = |path: &TreePath| to.shared.directories.iter().any(|outer| path.is_beneath(outer));
    own.retain(|path| !outer(path));
    let difference = made
        .iter()
        .find(|path| !own.contains(path))
        .map(|path| (path, &from.name, &to.name))
        .or_else(|| own.iter().find(|path| !made.contains(path)).map(|path| (*path, &to.name, &from.name)));
    match difference {
        None => Ok(()),
        Some((path, does, does_not)) => {
            let what = format!("{does} links `{path}` into a release and {does_not} does not");
            Err(refused("other-links", what).hint("give both environments the same `shared` and `cache.link`"))
        }
    }
}

fn tell(promoted: &Promoted, events: &Events) {
    let Promoted { release, capture, environment, host, .. } = promoted;
    let commit = release.commit.as_deref().map_or_else(|| release.id.to_string(), |commit| short(commit).to_owned());
    let emit = |severity, code: &str, message: String| {
        let (code, hosts) = (code.to_owned(), vec![host.name().to_owned()]);
        events.emit(Event::Diagnostic { severity, code, message, hosts, evidence: vec![], state: None, help: vec![] });
    };
    emit(Severity::Note, "promoted", format!("{commit} as {environment} confirmed it, taken from {}", host.name()));
    if capture.about.late > 0 {
        let names: Vec<String> = capture.about.late_names.iter().map(|name| format!("`{}`", Shown(name))).collect();
        let many = crate::figures::counted(capture.about.late, "path");
        let what = format!("{many} came to the release on {} after it was sealed ({}): not promoted", host.name(), names.join(", "));
        emit(Severity::Warning, "late-files", what);
    }
}
