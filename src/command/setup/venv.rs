//! The virtual environment of a buildout on a host: made of the wheels in the download cache, or through the package index where builds
//! go there.

use crate::command::package_index;
use crate::command::scene::Scene;
use crate::config::environment::{self, Environment, HostPath};
use crate::error::Error;
use crate::event::{Events, Step};
use crate::host::{Host, HostError, Reply};
use crate::index::{Index, Remark};
use crate::op::{Answer, Command, Exec, Network, Op, PathKind};
use crate::recipe;
use crate::stage::remote::{self, RemoteError};

/// What virtual environments are made through.
pub(super) struct Venvs {
    /// Where builds go through the index.
    index: Option<Index>,
}

impl Venvs {
    /// Opens the index where a virtual environment is made through it.
    pub async fn find(scene: &Scene, events: &Events) -> Result<Self, Error> {
        let environment = &scene.environment;
        if !environment.ways().any(is_through_the_index) {
            return Ok(Self { index: None });
        }
        Ok(Self { index: package_index::open(scene, events).await? })
    }

    /// What the index would say of its answers.
    pub fn remarks(&self) -> Vec<Remark> {
        self.index.as_ref().map(Index::remarks).unwrap_or_default()
    }

    /// Makes the one of a host, or only tells it. One that has another zc.buildout than the revision pins is changed. `pins` are empty
    /// where no revision is known.
    pub async fn make(
        &self,
        environment: &Environment,
        host: &Host,
        pins: &[String],
        check: bool,
        events: &Events,
    ) -> Result<Option<String>, RemoteError> {
        let Some(venv) = environment.build.as_ref().and_then(|build| build.venv.as_ref()) else { return Ok(None) };
        let probe = Op::Probe { paths: vec![format!("{venv}/bin/buildout"), format!("{venv}/bin/python")] };
        let has_buildout = match host.ask(probe).await? {
            Answer::Probed { paths } => paths.iter().all(|path| matches!(path.kind, PathKind::File | PathKind::Other) && path.executable),
            _ => false,
        };
        let pinned = pins.iter().find_map(|pin| pin.strip_prefix("zc.buildout=="));
        let line = match (has_buildout, pinned) {
            (true, None) => return Ok(None),
            (true, Some(wanted)) => match version(host, venv).await? {
                Some(found) if found == wanted => return Ok(None),
                found => format!("virtual environment {venv}: zc.buildout {} → {wanted}", found.as_deref().unwrap_or("?")),
            },
            (false, _) => format!("virtual environment {venv}"),
        };
        if check {
            return Ok(Some(line));
        }
        let tunnel = match &self.index {
            Some(index) if is_through_the_index(environment) => Some(index.tunnel(host).map_err(RemoteError::Index)?),
            Some(_) | None => None,
        };
        let wanted = if pins.is_empty() { recipe::pinned("", &|_| None) } else { pins.to_vec() };
        let script = ["/bin/sh", "-eu", "-c", recipe::VENV_SCRIPT, "venv"].map(str::to_owned);
        let links = environment.cache.as_ref().map(|cache| format!("{}/dist", cache.on(host.target()))).unwrap_or_default();
        let packages: Vec<(&str, String)> = match &tunnel {
            Some(tunnel) => recipe::ONLINE
                .iter()
                .filter(|(name, _)| name.starts_with("PIP_"))
                .map(|(name, value)| (*name, value.replace("{index}", tunnel.url())))
                .collect(),
            None => [
                ("PIP_NO_INDEX", "1"),
                ("PIP_FIND_LINKS", &links),
                ("PIP_CONFIG_FILE", "/dev/null"),
                ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
            ]
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec(),
        };
        let env: Vec<(&str, &str)> =
            packages.iter().map(|(name, value)| (*name, value.as_str())).chain([("VENV", venv.as_str())]).collect();
        let network = tunnel.as_ref().map_or(Network::Blocked, |tunnel| Network::Index { door: tunnel.door() });
        let exec = Exec { network, ..exec(script.into_iter().chain(wanted).collect(), &env) };
        let command = exec.command.clone();
        remote::run(host, Op::Exec(exec), command, Step::Setup, events).await?;
        Ok(Some(line))
    }
}

/// Whether what hosts build with comes through the index.
fn is_through_the_index(environment: &Environment) -> bool {
    let build = environment.build.as_ref();
    build.is_some_and(|build| build.venv.is_some() && build.network == environment::Network::Index)
}

/// Reads the version of zc.buildout that a virtual environment has; none where it has none that works.
async fn version(host: &Host, venv: &HostPath) -> Result<Option<String>, RemoteError> {
    let words = [&format!("{venv}/bin/python"), "-I", "-c", recipe::VERSION_SCRIPT].map(str::to_owned);
    let mut call = host.start(Op::Exec(exec(words.to_vec(), &[]))).await?;
    let mut printed = Vec::new();
    loop {
        match call.next().await? {
            Reply::Output { stderr: false, bytes } => printed.extend_from_slice(&bytes),
            Reply::Output { .. } | Reply::Progress(_) | Reply::End => {}
            Reply::Answer(Answer::Exited(exited)) => {
                let text = String::from_utf8_lossy(&printed).trim().to_owned();
                return Ok((exited.is_success() && !text.is_empty()).then_some(text));
            }
            Reply::Answer(other) => return Err(HostError::unexpected(host.name(), &other).into()),
        }
    }
}

fn exec(argv: Vec<String>, env: &[(&str, &str)]) -> Exec {
    Exec {
        command: Command::Argv(argv),
        directory: None,
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        umask: 0o022,
        timeout_ms: 600_000,
        idle_timeout_ms: 300_000,
        output_limit: 4 << 20,
        user: None,
        network: Network::Blocked,
    }
}
