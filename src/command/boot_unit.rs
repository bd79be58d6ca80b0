//! The optional unit of systemd that runs the helper's recovery once at boot: without it a host that was rebooted between its switch and
//! its confirmation serves what nobody confirmed until somebody comes.

use crate::cli::Common;
use crate::command::outcome;
use crate::command::print as print_text;
use crate::command::scene::Scene;
use crate::config::ranges;
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::fleet;
use crate::op::Facts;

/// Prints the unit of every host, hosts with the same one together.
pub async fn print(common: &Common, scene: &Scene) -> Result<Exit, Error> {
    let environment = &scene.environment;
    let (events, _) = Events::new(std::time::Instant::now());
    let connected = fleet::connect(environment, &events).await;
    let mut units: Vec<(Vec<String>, String)> = Vec::new();
    for host in &connected.hosts {
        let root = host.target().root.as_ref().unwrap_or(&environment.root);
        let text = unit(&environment.project, &environment.name, root.as_str(), &host.facts());
        match units.iter_mut().find(|(_, other)| *other == text) {
            Some((hosts, _)) => hosts.push(host.name().to_owned()),
            None => units.push((vec![host.name().to_owned()], text)),
        }
    }
    fleet::close(&connected.hosts).await;
    if !connected.unreachable.is_empty() {
        // The unit names where the helper is, which only the host knows.
        return Err(outcome::unreachable(&connected, "nothing was changed".to_owned()));
    }
    let name = format!("deployer-{}-{}.service", environment.project, environment.name);
    if common.json {
        let rows: Vec<serde_json::Value> =
            units.iter().map(|(hosts, text)| serde_json::json!({ "hosts": hosts, "name": name, "unit": text })).collect();
        return Ok(print_text(&format!("{}\n", serde_json::Value::from(rows))));
    }
    let install = format!("systemctl daemon-reload && systemctl enable {name}");
    let blocks = units.iter().map(|(hosts, text)| {
        format!(
            "# on {}, as root: /etc/systemd/system/{name}, then: {install}\n# print it again after an upgrade of deployer\n{text}",
            ranges::fold(hosts)
        )
    });
    Ok(print_text(&blocks.collect::<Vec<_>>().join("\n")))
}

fn unit(project: &str, environment: &str, root: &str, facts: &Facts) -> String {
    format!(
        "[Unit]\nDescription=Put back what nobody confirmed of {project} {environment} before the reboot\nRequiresMountsFor={root}\n\
         After=network.target\n\n[Service]\nType=oneshot\nUser={}\nExecStart={} recover {root}\n\n[Install]\nWantedBy=multi-user.target\n",
        escaped(&facts.user),
        escaped(&facts.helper),
    )
}

/// What systemd would read as a specifier is doubled.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}
