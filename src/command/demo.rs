//! `demo`: the whole cycle on throwaway hosts of this machine, with the very commands that a person would type.

mod site;

use std::fs;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use site::{FETCHER, SERVING, Site};
use tokio::process::Command;

use crate::cli::{self, Common};
use crate::command::print;
use crate::error::Error;
use crate::exit::Exit;
use crate::session::process;

/// Runs the verb.
pub async fn demo(_common: &Common, args: &cli::Demo) -> Result<Exit, Error> {
    let program = std::env::current_exe().map_err(failed)?;
    let demo = Demo { site: Site::set_up(args.keep)?, program, keep: args.keep };
    let result = demo.play().await;
    if args.keep {
        print(&format!("\nEverything is in {}\n", demo.site.sandbox.directory.display()));
        if std::io::stdin().is_terminal() {
            print("The hosts live until Enter is pressed.\n");
            let _ = std::io::stdin().lock().read_line(&mut String::new());
        }
    }
    result.map(|()| Exit::Ok)
}

struct Demo {
    site: Site,
    program: PathBuf,
    keep: bool,
}

impl Demo {
    async fn play(&self) -> Result<(), Error> {
        self.prepare().await?;
        self.first_version().await?;
        self.missing_package().await?;
        self.second_version().await?;
        if self.site.has_index {
            self.package_index().await?;
        }
        let end = if self.keep { "" } else { " The throwaway hosts and files are removed." };
        print(&format!("{}That was the whole cycle.{end}\n", gap()));
        Ok(())
    }

    async fn prepare(&self) -> Result<(), Error> {
        let fill = format!(
            "Fill the download cache for version 1. Only {FETCHER} fetches packages: it finds out\n\
             what the build needs, and proves it by a build without network."
        );
        self.act(&fill, &["cache", "fill", "-H", FETCHER, "--rev", "v1"]).await?;
        let prepare = "Prepare the hosts: directories, and the build environment, made of the cache\n(made once: these hosts are all of one machine, and share its Python).";
        self.act(prepare, &["setup", "-H", FETCHER]).await?;
        self.and(&["setup"]).await?;
        self.and(&["setup", "-e", "prod"]).await?;
        self.act("What do the other hosts lack of it?", &["cache", "status", "--rev", "v1"]).await
    }

    async fn first_version(&self) -> Result<(), Error> {
        self.act("What would a deploy do?", &["plan", "--rev", "v1"]).await?;
        if self.site.is_alike {
            let once = "Version 1 to staging. One host builds it, offline, once what its cache lacks is\nsent to it; the other gets what it built.";
            self.act(once, &["deploy", "--rev", "v1"]).await?;
            let promotion = "And to prod, which builds nothing: it takes only what staging confirmed,\nto the byte.";
            return self.act(promotion, &["deploy", "-e", "prod", "--from", "staging"]).await;
        }
        self.act("Version 1 to staging. What caches lack is sent, and every host builds offline.", &["deploy", "--rev", "v1"]).await?;
        self.act("And to both hosts of prod.", &["deploy", "--rev", "v1", "-e", "prod"]).await
    }

    async fn missing_package(&self) -> Result<(), Error> {
        let broken = "A revision that needs a package which no cache has. Its build fails,\nand nothing changes.";
        self.fails(broken, &["deploy", "--rev", "sizes"], Exit::BuildFailed).await?;
        self.act("What is live where.", &["status"]).await
    }

    async fn second_version(&self) -> Result<(), Error> {
        self.act("Version 2, by the branch's name, and on to prod.", &["deploy", "--rev", "master"]).await?;
        if self.site.is_alike {
            self.and(&["deploy", "-e", "prod", "--from", "staging"]).await?;
        } else {
            self.and(&["deploy", "--rev", "master", "-e", "prod"]).await?;
        }
        self.serves("2.0.0").await?;
        self.act("And back: no push, no build.", &["rollback", "-e", "prod"]).await?;
        self.serves("1.0.0").await?;
        self.act("The releases that each host keeps.", &["releases", "-e", "prod"]).await
    }

    async fn package_index(&self) -> Result<(), Error> {
        let index = "A host with neither cache nor internet. Its build reaches the package index\nthrough deployer's own connection, and nothing else.";
        self.act(index, &["deploy", "--rev", "v2", "-e", "dev"]).await?;
        self.act("Where its packages came from: a port of its loopback, open while it builds.", &["logs", "-e", "dev", "--step", "build"])
            .await
    }

    /// Runs what is live on a host, as a user of it would.
    async fn serves(&self, version: &str) -> Result<(), Error> {
        let arguments = ["run", "-e", "prod", "-H", SERVING, "--raw", "--", "$DEPLOYER_CURRENT/bin/boskel --version"];
        print(&format!("{}{}", gap(), typed(&arguments)));
        let output = process::capture(self.command(&arguments)?, Duration::from_secs(60)).await.map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        print(&format!("{said}\n"));
        if said.contains(version) {
            return Ok(());
        }
        Err(Error::new(Exit::Internal, "demo", format!("{SERVING} should serve {version} and says `{said}`")))
    }

    async fn act(&self, why: &str, arguments: &[&str]) -> Result<(), Error> {
        self.fails(why, arguments, Exit::Ok).await
    }

    /// One more command of the same act.
    async fn and(&self, arguments: &[&str]) -> Result<(), Error> {
        print(&format!("{}{}", gap(), typed(arguments)));
        self.run(arguments, Exit::Ok).await
    }

    async fn fails(&self, why: &str, arguments: &[&str], expected: Exit) -> Result<(), Error> {
        print(&format!("{}# {}\n{}", gap(), why.replace('\n', "\n# "), typed(arguments)));
        self.run(arguments, expected).await
    }

    async fn run(&self, arguments: &[&str], expected: Exit) -> Result<(), Error> {
        let status = self.command(arguments)?.status().await.map_err(failed)?;
        if status.code() == Some(i32::from(expected.code())) {
            return Ok(());
        }
        let what = format!("`deployer {}` ended with {status} instead of {}", arguments.join(" "), expected.code());
        Err(Error::new(Exit::Internal, "demo", what).hint("deployer demo --keep"))
    }

    /// The program with these arguments, in the project, with a home of the demo's own.
    fn command(&self, arguments: &[&str]) -> Result<Command, Error> {
        let home = &self.site.sandbox.directory;
        let mut command = process::command(&self.program);
        command.args(arguments).current_dir(&self.site.repository.directory);
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
        Ok(command)
    }
}

/// An empty line. A live view ends behind the last column of a terminal, where a line feed alone begins no line; a blank does.
fn gap() -> &'static str {
    if std::io::stdout().is_terminal() { " \n" } else { "\n" }
}

/// A command as one would type it.
fn typed(arguments: &[&str]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| shlex::try_quote(word).unwrap_or_else(|_| (*word).into())).collect();
    format!("$ deployer {}\n", words.join(" "))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Exit::Internal, "demo", "the demo cannot be set up").caused_by(error)
}
