//! Where packages come from when they are not held, and the credentials for it. A secret has no `Debug`, and goes to its own upstream only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use super::error::{IndexError, Login};
use super::netrc;
use crate::config::environment::{SecretSource, Upstream as Configured, Upstreams as Sources};
use crate::op::Command;
use crate::session::process::{self, Ended};

/// The public indexes: what stands where `deploy.toml` names no other.
const PYPI: &str = "https://pypi.org/simple/";
const CRATES: &str = "https://index.crates.io/";
const NPM: &str = "https://registry.npmjs.org/";

/// How long a program that prints a secret may take, and how much it may print.
const ASKED: Duration = Duration::from_secs(30);
const LONGEST: usize = 64 * 1024;

/// What a request to an upstream says to be let in.
#[derive(Clone)]
pub enum Credential {
    Basic { user: String, password: String },
    Bearer(String),
}

/// One index that is asked.
pub struct Upstream {
    /// Its section of `[index]`.
    section: &'static str,
    /// Ends with a slash.
    pub url: Url,
    credential: Option<Credential>,
    netrc: String,
}

/// The three of them.
pub struct Upstreams {
    pub pypi: Upstream,
    pub crates: Upstream,
    pub npm: Upstream,
}

impl Upstreams {
    /// Settles urls, and reads the credentials. `directory` is where `deploy.toml` lies.
    ///
    /// # Errors
    /// A url is not one, or a credential cannot be read.
    pub async fn resolve(sources: &Sources, directory: &Path) -> Result<Self, IndexError> {
        Ok(Self {
            pypi: Upstream::resolve("pypi", sources.pypi.as_ref(), PYPI, directory).await?,
            crates: Upstream::resolve("crates", sources.crates.as_ref(), CRATES, directory).await?,
            npm: Upstream::resolve("npm", sources.npm.as_ref(), NPM, directory).await?,
        })
    }
}

impl Upstream {
    async fn resolve(section: &'static str, configured: Option<&Configured>, public: &str, directory: &Path) -> Result<Self, IndexError> {
        let text = configured.map_or(public, |configured| &configured.url);
        let text = text.strip_prefix("sparse+").unwrap_or(text);
        let url = Url::parse(&format!("{}/", text.trim_end_matches('/')))
            .map_err(|error| IndexError::Unreachable { url: text.to_owned(), why: error.to_string() })?;
        let mut credential = None;
        if let Some((configured, source)) = configured.and_then(|configured| Some((configured, configured.secret.as_ref()?))) {
            let secret = read(source, directory).await.map_err(|why| IndexError::Credential { url: configured.url.clone(), why })?;
            credential = Some(match &configured.user {
                Some(user) => Credential::Basic { user: user.clone(), password: secret },
                None => Credential::Bearer(secret),
            });
        }
        Ok(Self { section, url, credential, netrc: user_netrc() })
    }

    /// What a request to `url` says. The upstream's own secret is for its own origin; other hosts get what netrc has for them.
    #[must_use]
    pub fn credential(&self, url: &Url) -> Option<Credential> {
        if url.origin() == self.url.origin()
            && let Some(credential) = &self.credential
        {
            return Some(credential.clone());
        }
        let login = netrc::find(&self.netrc, url.host_str()?)?;
        Some(Credential::Basic { user: login.user, password: login.password })
    }

    /// Tells which login a request to `url` is sent with.
    #[must_use]
    pub fn login(&self, url: &Url) -> Login {
        let (section, host) = (self.section, url.host_str().unwrap_or_default().to_owned());
        let is_own = url.origin() == self.url.origin();
        match (is_own, self.credential.is_some(), netrc::find(&self.netrc, &host).is_some()) {
            (true, true, _) => Login::Configured { section },
            (_, _, true) => Login::Netrc { host },
            (true, false, false) => Login::None { section },
            (false, _, false) => Login::NoneElsewhere { host },
        }
    }
}

async fn read(source: &SecretSource, directory: &Path) -> Result<String, String> {
    let text = match source {
        SecretSource::Env(name) => std::env::var(name).map_err(|_| format!("the variable `{name}` is not set"))?,
        SecretSource::File(path) => {
            let failed = |error| format!("`{}`: {error}", path.display());
            let file = fs::File::open(at_home(path)).map_err(failed)?;
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::io::Read::take(file, LONGEST as u64), &mut text).map_err(failed)?;
            text
        }
        SecretSource::Command(command) => ask(command, directory).await?,
    };
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("it is empty, or more than one line".to_owned());
    }
    Ok(text.to_owned())
}

async fn ask(command: &Command, directory: &Path) -> Result<String, String> {
    let (program, arguments) = match command {
        Command::Argv(argv) => argv.split_first().map_or((String::new(), Vec::new()), |(first, rest)| (first.clone(), rest.to_vec())),
        Command::Shell(text) => ("sh".to_owned(), vec!["-euc".to_owned(), text.clone()]),
    };
    let mut process = process::command(&program);
    process.args(arguments).current_dir(directory);
    let said = process::listen(process, ASKED, LONGEST).await.map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    match said.ended {
        // What it printed may be the secret, so none of it is told.
        Ended::By(status) if status.success() => String::from_utf8(said.stdout).map_err(|_| format!("`{program}` prints no text")),
        Ended::By(status) => Err(format!("`{program}` ended with {status}")),
        Ended::TimedOut => Err(format!("`{program}` took longer than {} s", ASKED.as_secs())),
        Ended::TooMuch => Err(format!("`{program}` prints too much")),
    }
}

fn at_home(path: &Path) -> PathBuf {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(path.strip_prefix("~").ok()?));
    home().unwrap_or_else(|| path.to_owned())
}

fn user_netrc() -> String {
    let path = std::env::var_os("NETRC").map_or_else(|| at_home(Path::new("~/.netrc")), PathBuf::from);
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(url: &str, user: Option<&str>, file: Option<&Path>) -> Configured {
        Configured { url: url.to_owned(), user: user.map(str::to_owned), secret: file.map(|path| SecretSource::File(path.to_owned())) }
    }

    #[tokio::test]
    async fn a_secret_goes_to_its_own_upstream_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "hush\n").unwrap();
        let upstream =
            Upstream::resolve("pypi", Some(&configured("https://a.example/simple", None, Some(&file))), PYPI, directory.path()).await;
        let mut upstream = upstream.ok().unwrap();
        upstream.netrc = "machine files.a.example login ada password other".to_owned();
        assert_eq!(upstream.url.as_str(), "https://a.example/simple/");
        let said = |url: &str| match upstream.credential(&Url::parse(url).unwrap()) {
            Some(Credential::Basic { user, password }) => format!("{user}:{password}"),
            Some(Credential::Bearer(token)) => token,
            None => String::new(),
        };
        assert_eq!(said("https://a.example/files/x.whl"), "hush");
        assert_eq!(said("https://files.a.example/x.whl"), "ada:other");
        for other in ["http://a.example/", "https://a.example:8443/", "https://b.example/"] {
            assert_eq!(said(other), "", "{other}");
        }
        let login = |url: &str| upstream.login(&Url::parse(url).unwrap());
        assert_eq!(login("https://a.example/x"), Login::Configured { section: "pypi" });
        assert_eq!(login("https://files.a.example/x"), Login::Netrc { host: "files.a.example".to_owned() });
        assert_eq!(login("https://b.example/x"), Login::NoneElsewhere { host: "b.example".to_owned() });
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_read_is_named_and_not_told() {
        let directory = tempfile::tempdir().unwrap();
        let source = |source| Configured { secret: Some(source), ..configured("https://a.example", Some("ada"), None) };
        let shell = |text: &str| SecretSource::Command(Command::Shell(text.to_owned()));
        let failures = [
            (source(SecretSource::Env("NOT_SET_ANYWHERE".to_owned())), "the variable `NOT_SET_ANYWHERE` is not set"),
            (source(SecretSource::File(directory.path().join("gone"))), "No such file"),
            (source(shell("echo hush; exit 3")), "ended with exit status: 3"),
            (source(shell("echo; echo hush")), "more than one line"),
        ];
        for (configured, why) in failures {
            let Err(error) = Upstream::resolve("pypi", Some(&configured), PYPI, directory.path()).await else { panic!("{why}") };
            let text = error.to_string();
            assert!(text.contains(why) && text.contains("a.example") && !text.contains("hush"), "{text}");
        }
    }
}
