//! Starts throwaway hosts for a script: `sandbox COUNT` prints what they are as one line of JSON, and ends them when stdin closes.

use std::io::{self, Read as _, Write as _};

use anyhow::Context as _;
use deployer::sandbox::Sandbox;
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let count: u32 = std::env::args().nth(1).context("usage: sandbox COUNT")?.parse().context("COUNT is a number")?;
    let mut sandbox = Sandbox::new(false)?;
    for number in 1..=count {
        sandbox.add_host(&format!("host{number}"))?;
    }
    let hosts: Vec<_> = sandbox.hosts().iter().map(|host| json!({ "name": host.name, "port": host.port, "root": host.root })).collect();
    let description = json!({
        "directory": sandbox.directory,
        "ssh_config": sandbox.ssh_config(),
        "known_hosts": sandbox.known_hosts(),
        "hosts": hosts,
    });
    writeln!(io::stdout(), "{description}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
