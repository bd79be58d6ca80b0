//! Starts throwaway hosts for a script: `sandbox COUNT` prints what they are as one line of JSON, and ends them when stdin closes.
//! `sandbox COUNT alike` gives them one path for their root, and beside them the sample project with what builds it.

use std::io::{self, Read as _, Write as _};

use anyhow::Context as _;
use deployer::sandbox::{Sample, Sandbox};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let count: u32 = std::env::args().nth(1).context("usage: sandbox COUNT")?.parse().context("COUNT is a number")?;
    let is_alike = std::env::args().nth(2).is_some_and(|word| word == "alike");
    let mut sandbox = Sandbox::new(false)?;
    let site = sandbox.directory.join("site");
    std::fs::create_dir(&site)?;
    for number in 1..=count {
        let name = format!("host{number}");
        if is_alike {
            sandbox.add_host_at(&name, site.clone())?
        } else {
            sandbox.add_host(&name)?
        };
    }
    let sample = if is_alike {
        let cache = sandbox.download_cache(Sample::Buildout)?;
        let (repository, venv) = (sandbox.repository(Sample::Buildout)?, sandbox.venv(&cache)?);
        json!({ "repository": repository.directory, "cache": cache.directory, "venv": venv, "root": site.join("boskel") })
    } else {
        json!(null)
    };
    let hosts: Vec<_> = sandbox.hosts().iter().map(|host| json!({ "name": host.name, "port": host.port, "root": host.root })).collect();
    let description = json!({
        "directory": sandbox.directory,
        "ssh_config": sandbox.ssh_config(),
        "known_hosts": sandbox.known_hosts(),
        "hosts": hosts,
        "sample": sample,
    });
    writeln!(io::stdout(), "{description}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
