//! The site of the demo: throwaway hosts, the sample project, and the `deploy.toml` that brings them together. It does with what this
//! machine has, and says what it leaves out.

use std::fs;
use std::path::PathBuf;

use super::failed;
use crate::command::print;
use crate::error::Error;
use crate::exit::Exit;
use crate::sandbox::{Sample, SampleRepository, Sandbox};

/// The throwaway hosts, each with its environment.
const HOSTS: [(&str, &str); 5] = [("stg1", "staging"), ("stg2", "staging"), ("app01", "prod"), ("app02", "prod"), ("dev1", "dev")];
/// The one host that fetches packages, and makes the build environment. It is not the one that builds for the others.
pub(super) const FETCHER: &str = "stg2";
/// The host that is asked what it serves.
pub(super) const SERVING: &str = "app01";

/// How the `pip` of this machine reaches its index. Hosts have an environment of their own.
const OF_PIP: [&str; 9] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_CERT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
];

/// A build that needs nothing on its host but a Python.
const PLAIN_BUILD: &str = "python3 -m venv venv && venv/bin/pip install tabulate==0.9.0";
/// Lists what a revision needs, and fetches it.
const FETCH: &str = "mkdir -p \"$DEPLOYER_CACHE\"; for part in $(sh build.sh parts); do cp \"$PACKAGES/$part\" \"$DEPLOYER_CACHE/\"; done";

pub(super) struct Site {
    pub sandbox: Sandbox,
    pub repository: SampleRepository,
    /// Whether all hosts find their releases at the same path, as real ones do. Only then one can build for others.
    pub is_alike: bool,
    /// Whether there is a package index to be reached through.
    pub has_index: bool,
    sample: Sample,
    has_sshd: bool,
}

impl Site {
    pub(super) fn set_up(keep: bool) -> Result<Self, Error> {
        let mut sandbox = Sandbox::new(keep).map_err(failed)?;
        let tools = sandbox.tools();
        if let Err(reason) = &tools.git {
            return Err(Error::new(Exit::Usage, "demo", format!("the demo needs git: {reason}")));
        }
        let sshd = tools.sshd.and(tools.ssh);
        let alike = sshd.clone().and_then(|_| sandbox.mount_namespaces());
        let python = tools.python.map(drop).and_then(|()| sandbox.package_index());
        let sample = if python.is_ok() { Sample::Buildout } else { Sample::Shell };
        let own_index = OF_PIP[..2].iter().find(|name| std::env::var_os(name).is_some());
        let has_index = sample == Sample::Buildout && own_index.is_none();
        let mut text = String::from("Setting up throwaway hosts. Nothing of yours is read or changed.\n");
        let count = if has_index { "five" } else { "four" };
        text += &match &sshd {
            Ok(_) => format!("  hosts     {count}, each an sshd of its own on loopback, with a key of its own\n"),
            Err(reason) => format!("  hosts     {count}, directories of this machine, without ssh: {reason}\n"),
        };
        if let Err(reason) = &python {
            text += &format!("  sample    a project that a shell script builds, not buildout: {reason}\n");
        }
        if let Err(reason) = &alike {
            text += &format!("  left out  building once, and promotion: hosts have no path in common here: {}\n", last_line(reason));
        }
        match (sample, own_index) {
            (Sample::Shell, _) => text += "  left out  the package index: the project has no packages of one\n",
            (Sample::Buildout, Some(name)) => text += &format!("  left out  the package index: yours is another one ({name})\n"),
            (Sample::Buildout, None) => {}
        }
        let place = sandbox.directory.join("site");
        fs::create_dir_all(&place).map_err(failed)?;
        for (name, _) in HOSTS.iter().filter(|(_, environment)| has_index || *environment != "dev") {
            match (&sshd, &alike) {
                (Err(_), _) => {}
                (Ok(_), Err(_)) => sandbox.add_host(name).map(drop).map_err(failed)?,
                (Ok(_), Ok(())) => sandbox.add_host_at(name, place.clone()).map(drop).map_err(failed)?,
            }
        }
        let repository = sandbox.repository(sample).map_err(failed)?;
        let site = Self { repository, is_alike: alike.is_ok(), has_index, sample, has_sshd: sshd.is_ok(), sandbox };
        site.write_config()?;
        print(&format!("{text}  project   boskel, in {}\n", site.repository.directory.display()));
        Ok(site)
    }

    fn write_config(&self) -> Result<(), Error> {
        let directory = self.sandbox.directory.display();
        // All hosts share this machine's Python, and one environment made with it: two of them must not make it at once.
        let venv = format!("{directory}/venv");
        let (site, common) =
            if self.is_alike { (format!("{directory}/site"), "") } else { (format!("{directory}/hosts"), "parallel = 1\n") };
        let session = if self.has_sshd { format!("ssh     = {{ config = \"{directory}/ssh_config\" }}\n") } else { String::new() };
        let once = if self.is_alike { "on     = \"first\"\n" } else { "" };
        let build = match self.sample {
            Sample::Buildout => format!("recipe = \"buildout\"\nvenv   = \"{venv}\"\nconfig = \"offline.cfg\"\n{once}"),
            Sample::Shell => format!("command = \"sh build.sh\"\n{once}"),
        };
        let mut text = format!(
            "schema  = 1\nproject = \"boskel\"\n\n[source]\ngit = \".\"\n\n[defaults]\nenv     = \"staging\"\nrev     = \"master\"\n\
             root    = \"{site}/boskel\"\n{common}{session}shared  = {{ dirs = [\"var\"] }}\n\n\
             [defaults.cache]\npath = \"{site}/download-cache\"\nlink = \"downloads\"\n{}\n[defaults.build]\n{build}",
            self.fetching()?,
        );
        for environment in ["staging", "prod", "dev"] {
            text += &self.environment(environment)?;
        }
        fs::write(self.repository.directory.join("deploy.toml"), text).map_err(failed)
    }

    /// How a fill gets at packages.
    fn fetching(&self) -> Result<String, Error> {
        match self.sample {
            Sample::Buildout => {
                let said = OF_PIP.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?)));
                let env: Vec<String> = said.map(|(name, value)| format!("{name} = {}", serde_json::Value::from(value))).collect();
                Ok(if env.is_empty() { String::new() } else { format!("env  = {{ {} }}\n", env.join(", ")) })
            }
            Sample::Shell => {
                let packages = self.sandbox.download_cache(self.sample).map_err(failed)?;
                packages.add_late().map_err(failed)?;
                let packages = packages.directory.join("dist");
                Ok(format!("fill = '{FETCH}'\nenv  = {{ PACKAGES = \"{}\" }}\n", packages.display()))
            }
        }
    }

    /// An environment with its hosts. Their roots and caches are made, as root does it on real ones; all else the commands do.
    fn environment(&self, name: &str) -> Result<String, Error> {
        let hosts: Vec<&str> = HOSTS.iter().filter(|(_, environment)| *environment == name).map(|(host, _)| *host).collect();
        let settings = match name {
            "dev" if !self.has_index => return Ok(String::new()),
            "dev" => {
                let once = if self.is_alike { ", \"build.on\"" } else { "" };
                format!(
                    "unset = [\"cache\", \"build.recipe\", \"build.venv\", \"build.config\"{once}]\n\
                     build = {{ command = \"{PLAIN_BUILD}\", network = \"index\" }}\n"
                )
            }
            "prod" if self.is_alike => "only-from = \"staging\"\n".to_owned(),
            _ => String::new(),
        };
        let mut text = format!("\n[env.{name}]\n{settings}");
        if self.is_alike {
            text += &format!("hosts = [\"{}\"]\n", hosts.join("\", \""));
        }
        for host in hosts {
            let services = self.services(host);
            let cache = (name != "dev").then_some("download-cache");
            for place in std::iter::once("boskel").chain(cache) {
                fs::create_dir_all(services.join(place)).map_err(failed)?;
            }
            if !self.is_alike {
                let local = if self.has_sshd { "" } else { "session = \"local\"\n" };
                let cache = cache.map(|cache| format!("cache = \"{}/{cache}\"\n", services.display())).unwrap_or_default();
                text += &format!("[[env.{name}.host]]\nname = \"{host}\"\nroot = \"{}/boskel\"\n{cache}{local}", services.display());
            }
        }
        Ok(text)
    }

    /// Where a host's services are, as found from outside of it.
    fn services(&self, host: &str) -> PathBuf {
        self.sandbox.directory.join("hosts").join(host).join("srv")
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}
