//! `cache serve`: the package index for people and other tools of this machine.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::cli::{CacheServe, Common};
use crate::command::interrupt::Interrupt;
use crate::command::scene::{self, Directories};
use crate::command::{locate, package_index, print};
use crate::config::environment::Upstreams;
use crate::error::Error;
use crate::exit::Exit;
use crate::index::{self, Index, Mode, Notice};
use crate::tree::path::Shown;

/// Runs the verb.
pub async fn serve(common: &Common, args: &CacheServe) -> Result<Exit, Error> {
    let listen = args.listen;
    if !listen.ip().is_loopback() {
        let error = Error::new(
            Exit::Usage,
            "listen",
            format!("`{listen}` can be reached from other machines, and the index asks nobody who they are"),
        );
        return Err(
            error.hint("listen on `127.0.0.1:PORT`; hosts reach the index through their own connection, with `build.network = \"index\"`")
        );
    }
    let (sources, beside) = sources(common)?;
    let directory = match &args.store {
        Some(directory) => directory.clone(),
        None => package_index::directory(&Directories::find()?),
    };
    let upstreams = index::Upstreams::resolve(&sources, &beside).await.map_err(package_index::unusable)?;
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let index = Index::open(&directory, upstreams, mode, Arc::new(|notice| warn(&notice))).map_err(package_index::unusable)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        let hint = "name another port: `--listen 127.0.0.1:0` takes one that is free";
        Error::new(Exit::Usage, "listen", format!("nothing can listen at `{listen}`")).caused_by(error).hint(hint)
    })?;
    let at = listener.local_addr().map_err(|error| Error::new(Exit::Internal, "listen", "the port is not known").caused_by(error))?;
    let interrupt = Interrupt::listen("stopping");
    print(&usage(common.json, &format!("http://{at}")));
    let exit = match interrupt.until(index::accept(listener, index.router(None))).await {
        Ok(()) => Exit::Ok,
        Err(exit) => exit,
    };
    Ok(exit)
}

/// The upstreams that `deploy.toml` names, where there is one.
fn sources(common: &Common) -> Result<(Upstreams, PathBuf), Error> {
    let here = common.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    // One that is there and cannot be read may name others than the public ones.
    if common.config.is_none() && locate::discover(&here, None).is_err_and(|error| error.code == "no-config") {
        return Ok((Upstreams::default(), here));
    }
    let file = scene::load(common)?;
    Ok((file.upstreams()?, file.directory().to_owned()))
}

/// What to type so that a tool finds the index.
fn usage(json: bool, url: &str) -> String {
    let (simple, crates, npm) = (format!("{url}/pypi/simple/"), format!("sparse+{url}/crates/"), format!("{url}/npm/"));
    if json {
        return format!("{}\n", serde_json::json!({ "url": url, "pypi": simple, "crates": crates, "npm": npm }));
    }
    format!(
        "pip    PIP_INDEX_URL={simple}\nuv     UV_DEFAULT_INDEX={simple}\nnpm    npm_config_registry={npm}\n\
         cargo  --config 'source.crates-io.replace-with=\"deployer\"' --config 'source.deployer.registry=\"{crates}\"'\n"
    )
}

fn warn(notice: &Notice) {
    let _ = writeln!(std::io::stderr(), "warning: {}", Shown(notice.message.as_bytes()));
}
