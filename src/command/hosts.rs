//! `hosts`: the hosts of an environment and how each would be reached, without reaching it. `hosts trust`: look at a host's key, compare,
//! remember.

use std::io::IsTerminal as _;

use serde::Serialize;

use crate::cli::{self, Common, HostsAction};
use crate::command::print;
use crate::command::scene::{self, Directories, Scene};
use crate::config::environment::{Connect, HostKeys, SessionKind, Target};
use crate::error::Error;
use crate::exit::Exit;
use crate::fleet::each;
use crate::inventory;
use crate::report::paper::table;
use crate::session::known_hosts::{Verdict, own_file};
use crate::session::trust::{self, Shown};
use crate::session::{HostKeyError, Opener, SessionError, ask};

/// One line of the list.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    address: String,
    /// None on this machine, as is the port: nobody logs in.
    user: Option<String>,
    port: Option<u16>,
    /// The hosts on the way, or the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    roles: Vec<String>,
    session: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct List<'a> {
    env: &'a str,
    hosts: Vec<Row>,
}

/// Runs the verb.
pub async fn hosts(common: &Common, args: &cli::Hosts) -> Result<Exit, Error> {
    match &args.action {
        None => list(common).await,
        Some(HostsAction::Trust { host, fingerprint }) => trust(common, host, fingerprint.as_deref()).await,
    }
}

async fn list(common: &Common) -> Result<Exit, Error> {
    let scene = Scene::set(common, &scene::common_overrides(common)).await?;
    let Scene { environment, .. } = &scene;
    let rows = each(&environment.targets, 16, |target| async {
        let opener = Opener::prepare(target, &environment.connect).await.map_err(|error| unusable(target, &error))?;
        let (address, user, port) = opener.place();
        Ok::<_, Error>(Row {
            name: target.name.clone(),
            address: address.to_owned(),
            user: Some(user.to_owned()).filter(|user| !user.is_empty()),
            port: Some(port).filter(|port| *port > 0),
            via: opener.via(),
            roles: target.roles.clone(),
            session: opener.kind.name(),
            why: opener.reason.clone(),
        })
    })
    .await;
    let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
    if common.json {
        let list = List { env: &environment.name, hosts: rows };
        let document = serde_json::to_string(&list).map_err(|error| Error::new(Exit::Internal, "json", "no JSON").caused_by(error))?;
        return Ok(print(&format!("{document}\n")));
    }
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let head = ["NAME", "ADDRESS", "USER", "PORT", "VIA", "ROLES", "SESSION", "WHY"].map(str::to_owned).to_vec();
    let cells = rows.into_iter().map(|row| {
        let port = row.port.map(|port| port.to_string()).unwrap_or_default();
        let (user, via) = (row.user.unwrap_or_default(), row.via.unwrap_or_default());
        vec![row.name, row.address, dash(user), dash(port), dash(via), dash(row.roles.join(",")), row.session.to_owned(), row.why]
    });
    let paper = common.display().stdout();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(cells).map(|row| row.iter().map(|cell| paper.safe(cell)).collect()).collect();
    Ok(print(&table(&rows, 2).into_iter().map(|row| row.trim_end().to_owned() + "\n").collect::<String>()))
}

fn unusable(target: &Target, error: &SessionError) -> Error {
    let mut failure = Error::new(Exit::Config, error.code(), format!("`{}` cannot be reached: {error}", target.name));
    failure.hints.extend(error.hint());
    failure
}

async fn trust(common: &Common, host: &str, fingerprint: Option<&str>) -> Result<Exit, Error> {
    if common.yes && fingerprint.is_none() {
        return Err(Error::new(Exit::Usage, "fingerprint", "`--yes` alone would accept any key")
            .hint(format!("deployer hosts trust {host} --yes --fingerprint SHA256:…")));
    }
    let (target, connect) = wanted(common, host).await?;
    let opener = Opener::prepare(&target, &connect).await.map_err(|error| unusable(&target, &error))?;
    if opener.kind == SessionKind::Local {
        return Err(Error::new(Exit::Usage, "local", format!("`{host}` is this machine and has no key")));
    }
    let shown = opener.shown_key().await.map_err(|error| {
        let mut failure = Error::new(Exit::Unreachable, error.code(), format!("the key of `{host}` cannot be fetched: {error}"));
        failure.hints.extend(error.hint());
        failure
    })?;
    let text = format!("{}  {}\n", shown.name, shown.fingerprint);
    if let Some(wanted) = fingerprint.filter(|wanted| !shown.fingerprint.split(' ').any(|word| word == *wanted)) {
        return Err(refused(format!("`{host}` shows {}, and not {wanted}", shown.fingerprint)));
    }
    match &shown.verdict {
        Verdict::Match => {
            print(&text);
            return Ok(print(&format!("`{host}` is known by this key already\n")));
        }
        Verdict::Revoked(place) => {
            let error = HostKeyError::Revoked { name: shown.name.clone(), key: shown.fingerprint.clone(), place: place.clone() };
            let mut failure = refused(error.to_string());
            failure.hints = error.hint();
            return Err(failure);
        }
        Verdict::Changed(_) => changed(&shown)?,
        Verdict::Unknown | Verdict::Authority(_) => {}
    }
    print(&text);
    // With `--yes` the fingerprint was compared above.
    if !common.yes && !agreed(common, host, &shown)? {
        return Err(refused(format!("the key of `{host}` was not accepted")).hint("nothing was recorded"));
    }
    let path = trust::record(&shown.name, &shown.key)
        .map_err(|error| Error::new(Exit::Refused, "known-hosts", "the key cannot be recorded").caused_by(error))?;
    Ok(print(&format!("recorded in {}\n", path.display())))
}

/// A host whose old key stands in a file of the user's would go on being accepted by it, and that file is never written.
fn changed(shown: &Shown) -> Result<(), Error> {
    let own = own_file().map(|path| format!("`{}:", path.display()));
    let elsewhere = shown.others.iter().find(|(_, place)| own.as_ref().is_none_or(|own| !place.starts_with(own.as_str())));
    let Some((_, place)) = elsewhere else { return Ok(()) };
    let what = format!("`{}` shows {}, and {place} has another key", shown.name, shown.fingerprint);
    let file = place.trim_matches('`').rsplit_once(':').map_or(place.as_str(), |(file, _)| file);
    Err(Error::new(Exit::Unreachable, "host-key", what)
        .hint(format!("verify the new fingerprint with who runs the host, then: ssh-keygen -R '{}' -f '{file}'", shown.name))
        .hint("then the same command again"))
}

fn agreed(common: &Common, host: &str, shown: &Shown) -> Result<bool, Error> {
    let nobody = || {
        Error::new(Exit::Usage, "no-input", format!("whether to trust `{host}` has to be answered, and there is nobody to ask"))
            .hint(format!("compare the fingerprint, then: deployer hosts trust {host} --yes --fingerprint {}", fingerprint(shown)))
    };
    if common.no_input || !std::io::stdin().is_terminal() {
        return Err(nobody());
    }
    let question =
        if shown.others.is_empty() { "trust this key from now on?" } else { "the host is known by ANOTHER key; trust this one instead?" };
    ask::confirm(question).map_err(|error| nobody().caused_by(error))
}

fn fingerprint(shown: &Shown) -> &str {
    shown.fingerprint.rsplit(' ').next().unwrap_or_default()
}

fn refused(what: String) -> Error {
    Error::new(Exit::Unreachable, "host-key", what)
}

/// A host of the environment by its name; any other name is given to ssh as it is, as that of a bastion.
async fn wanted(common: &Common, host: &str) -> Result<(Target, Connect), Error> {
    let directories = Directories::find()?;
    let loaded = match scene::load(common) {
        Ok(file) => Some(file),
        // Without a project there is still a host.
        Err(_) if common.config.is_none() && common.env.is_none() => None,
        Err(error) => return Err(error),
    };
    let bare = Target {
        name: host.to_owned(),
        address: host.to_owned(),
        user: None,
        port: common.port,
        roles: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        session: None,
        root: None,
        cache: None,
    };
    let (target, mut connect) = match loaded {
        Some(file) => {
            let name = scene::environment_name(common, &file)?;
            let mut environment = file.environment(&name, &scene::common_overrides(common))?;
            inventory::resolve(&mut environment, &directories.cache).await?;
            let found = environment.targets.iter().find(|target| target.name == host).cloned();
            match found {
                Some(target) => (target, environment.connect),
                // The settings of the environment's hosts are not those of another host.
                None => (bare, Connect { user: None, port: None, jump: None, ..environment.connect }),
            }
        }
        None => (bare, alone(common)),
    };
    scene::connecting(common, &mut connect, &directories)?;
    // With pinned keys nothing that is recorded would be read.
    connect.host_keys = HostKeys::Strict;
    Ok((target, connect))
}

/// How a host is reached without any project.
fn alone(common: &Common) -> Connect {
    let timeout = common.connect_timeout.as_deref().and_then(|text| crate::config::quantity::duration(text).ok());
    Connect {
        session: None,
        user: common.user.clone(),
        port: common.port,
        identities: Vec::new(),
        ssh_config: common.ssh_config.clone(),
        known_hosts: Vec::new(),
        host_keys: HostKeys::Strict,
        jump: None,
        forward_agent: false,
        ask: false,
        trust_first_use: false,
        timeout: timeout.unwrap_or(std::time::Duration::from_secs(10)),
        retries: 0,
        parallel: 1,
    }
}
