//! `demo`: the whole cycle on throwaway hosts of this machine, with the very commands that a person would type.

use std::fs;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use crate::cli::{self, Common};
use crate::command::print;
use crate::error::Error;
use crate::exit::Exit;
use crate::sandbox::{DownloadCache, Sample, SampleRepository, Sandbox};
use crate::session::process;

/// Names of the throwaway hosts, and the environment each belongs to.
const HOSTS: [(&str, &str); 3] = [("stg1", "staging"), ("app01", "prod"), ("app02", "prod")];

/// Runs the verb.
pub async fn demo(_common: &Common, args: &cli::Demo) -> Result<Exit, Error> {
    let demo = Demo::set_up(args.keep)?;
    let result = demo.play().await;
    if args.keep {
        print(&format!("\nEverything is in {}\n", demo.sandbox.directory.display()));
        if std::io::stdin().is_terminal() {
            print("The hosts live until Enter is pressed.\n");
            let _ = std::io::stdin().lock().read_line(&mut String::new());
        }
    }
    result.map(|()| Exit::Ok)
}

struct Demo {
    sandbox: Sandbox,
    repository: SampleRepository,
    cache: DownloadCache,
    has_sshd: bool,
    program: PathBuf,
    keep: bool,
}

impl Demo {
    fn set_up(keep: bool) -> Result<Self, Error> {
        let mut sandbox = Sandbox::new(keep).map_err(failed)?;
        let tools = sandbox.tools();
        if let Err(reason) = &tools.git {
            return Err(Error::new(Exit::Usage, "demo", format!("the demo needs git: {reason}")));
        }
        let mut text = String::from("Setting up throwaway hosts. Nothing of yours is read or changed.\n");
        let has_sshd = match (&tools.sshd, &tools.ssh) {
            (Ok(_), Ok(_)) => {
                for (name, _) in HOSTS {
                    sandbox.add_host(name).map_err(failed)?;
                }
                text += "  hosts    three sshd of their own on loopback, with keys of their own\n";
                true
            }
            (Err(reason), _) | (_, Err(reason)) => {
                text += &format!("  hosts    three directories of this machine, without ssh: {reason}\n");
                false
            }
        };
        let python = tools.python.clone().map(|_| ()).and_then(|()| sandbox.package_index());
        let sample = match &python {
            Ok(()) => Sample::Buildout,
            Err(reason) => {
                text += &format!("  sample   a project that a shell script builds, not buildout: {reason}\n");
                Sample::Shell
            }
        };
        print(&text);
        let repository = sandbox.repository(sample).map_err(failed)?;
        let cache = sandbox.download_cache(sample).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let demo = Self { sandbox, repository, cache, has_sshd, program, keep };
        demo.write_config(sample)?;
        print(&format!("  project  boskel, in {}\n  cache    {}\n", demo.repository.directory.display(), demo.cache.directory.display()));
        Ok(demo)
    }

    fn root(&self, host: &str) -> PathBuf {
        self.sandbox.directory.join("srv").join(host)
    }

    fn write_config(&self, sample: Sample) -> Result<(), Error> {
        let directory = self.sandbox.directory.display();
        let build = match sample {
            Sample::Buildout => {
                format!("[defaults.build]\nrecipe = \"buildout\"\nvenv   = \"{directory}/venv\"\nconfig = \"offline.cfg\"\n")
            }
            Sample::Shell => "[defaults.build]\ncommand = \"sh build.sh\"\n".to_owned(),
        };
        let session = if self.has_sshd { format!("ssh     = {{ config = \"{directory}/ssh_config\" }}\n") } else { String::new() };
        let mut text = format!(
            "schema  = 1\nproject = \"boskel\"\n\n[source]\ngit = \".\"\n\n[defaults]\nenv     = \"staging\"\nrev     = \"master\"\n\
             root    = \"{directory}/srv/boskel\"\n{session}shared  = {{ dirs = [\"var\"] }}\n\n[defaults.cache]\npath = \"{}\"\nlink = \"downloads\"\n\n{build}",
            self.cache.directory.display()
        );
        for environment in ["staging", "prod"] {
            text += &format!("\n[env.{environment}]\n");
            for (host, _) in HOSTS.iter().filter(|(_, of)| *of == environment) {
                let local = if self.has_sshd { "" } else { "session = \"local\"\n" };
                text += &format!("[[env.{environment}.host]]\nname = \"{host}\"\nroot = \"{}\"\n{local}", self.root(host).display());
                fs::create_dir_all(self.root(host)).map_err(failed)?;
            }
        }
        fs::write(self.repository.directory.join("deploy.toml"), text).map_err(failed)
    }

    async fn play(&self) -> Result<(), Error> {
        let v1 = self.repository.v1.as_str();
        let wanting = self.repository.wanting.as_str();
        self.act("Prepare the hosts: directories, and the build environment, offline from the cache.", &["setup"], Exit::Ok).await?;
        self.quiet(&["setup", "-e", "prod"], Exit::Ok).await?;
        self.act("Version 1 to staging.", &["deploy", "--rev", "v1", "-e", "staging"], Exit::Ok).await?;
        self.act("And to both hosts of prod.", &["deploy", "--rev", v1, "-e", "prod"], Exit::Ok).await?;
        let broken = "A revision that needs a package which the download cache does not have: its build fails, and nothing changes.";
        self.act(broken, &["deploy", "--rev", wanting, "-e", "prod"], Exit::BuildFailed).await?;
        self.act("What is live where.", &["status", "-e", "prod"], Exit::Ok).await?;
        self.act("What would version 2 do?", &["plan", "--rev", "v2", "-e", "prod"], Exit::Ok).await?;
        self.act("Version 2, by the branch's name.", &["deploy", "--rev", "master", "-e", "prod"], Exit::Ok).await?;
        self.serves("2.0.0").await?;
        self.act("And back: no push, no build.", &["rollback", "-e", "prod"], Exit::Ok).await?;
        self.serves("1.0.0").await?;
        self.act("The releases that each host keeps.", &["releases", "-e", "prod"], Exit::Ok).await?;
        let end = if self.keep { "" } else { " The throwaway hosts and files are removed." };
        print(&format!("\nThat was the whole cycle.{end}\n"));
        Ok(())
    }

    /// Runs what is live on the hosts, as a user of it would.
    async fn serves(&self, version: &str) -> Result<(), Error> {
        let host = HOSTS[1].0;
        let live = self.root(host).join("current/bin/boskel");
        let mut command = process::command(&live);
        command.arg("--version");
        let output = process::capture(command, std::time::Duration::from_secs(60)).await.map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        print(&format!("\n$ {} --version       # on {host}\n{said}\n", live.display()));
        if said.contains(version) {
            return Ok(());
        }
        Err(Error::new(Exit::Internal, "demo", format!("{host} should serve {version} and says `{said}`")))
    }

    async fn act(&self, why: &str, arguments: &[&str], expected: Exit) -> Result<(), Error> {
        print(&format!("\n# {why}\n$ deployer {}\n", arguments.join(" ")));
        self.quiet(arguments, expected).await
    }

    async fn quiet(&self, arguments: &[&str], expected: Exit) -> Result<(), Error> {
        let home = &self.sandbox.directory;
        let mut command = process::command(&self.program);
        command.args(arguments).current_dir(&self.repository.directory);
        for (name, below) in
            [("HOME", "home"), ("XDG_CACHE_HOME", "home/cache"), ("XDG_STATE_HOME", "home/state"), ("XDG_DATA_HOME", "home/data")]
        {
            fs::create_dir_all(home.join(below)).map_err(failed)?;
            command.env(name, home.join(below));
        }
        for name in
            ["DEPLOYER_ENV", "DEPLOYER_CONFIG", "DEPLOYER_USER", "DEPLOYER_PROGRESS", "SSH_AUTH_SOCK", "GITHUB_ACTIONS", "GITLAB_CI"]
        {
            command.env_remove(name);
        }
        let status = command.status().await.map_err(failed)?;
        if status.code() == Some(i32::from(expected.code())) {
            return Ok(());
        }
        let what = format!("`deployer {}` ended with {status} instead of {}", arguments.join(" "), expected.code());
        Err(Error::new(Exit::Internal, "demo", what).hint("deployer demo --keep"))
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Exit::Internal, "demo", "the demo cannot be set up").caused_by(error)
}
