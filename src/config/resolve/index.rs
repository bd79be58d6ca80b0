//! The package indexes that are asked, and where their credentials are read.

use super::Reader;
use crate::config::environment::{SecretSource, Upstream, Upstreams};
use crate::config::fault::Fault;
use crate::config::node::Node;

impl Reader<'_> {
    pub(in crate::config) fn upstreams(&self) -> Result<Upstreams, Fault> {
        Ok(Upstreams { pypi: self.upstream("pypi")?, crates: self.upstream("crates")?, npm: self.upstream("npm")? })
    }

    fn upstream(&self, name: &str) -> Result<Option<Upstream>, Fault> {
        let Some(table) = self.find(&["index", name]) else { return Ok(None) };
        let Some(url) = self.find(&["index", name, "url"]) else {
            let fault = Fault::new(&table.place, format!("`index.{name}` has no `url`"), "an index at no place");
            return Err(fault.help("add `url = \"https://…\"`, or leave the section out for the public index"));
        };
        check_url(url)?;
        let secret = self.secret(name)?;
        let user = self.find(&["index", name, "user"]);
        if let (Some(user), None) = (user, &secret) {
            let fault = Fault::new(&user.place, format!("`index.{name}.user` has no `secret`"), "a user without a password");
            return Err(fault.help("add `secret = { env = \"INDEX_PASSWORD\" }`; without both, your netrc is asked"));
        }
        let text = |node: &Node| node.text().unwrap_or_default().to_owned();
        Ok(Some(Upstream { url: text(url), user: user.map(text), secret }))
    }

    fn secret(&self, name: &str) -> Result<Option<SecretSource>, Fault> {
        let Some(node) = self.find(&["index", name, "secret"]) else { return Ok(None) };
        let at = |source| self.find(&["index", name, "secret", source]);
        match (at("env"), at("file"), at("command")) {
            (Some(env), None, None) => Ok(Some(SecretSource::Env(env.text().unwrap_or_default().to_owned()))),
            (None, Some(file), None) => Ok(Some(SecretSource::File(self.local_path(file)?))),
            (None, None, Some(command)) => Ok(Some(SecretSource::Command(self.command(command)?))),
            _ => {
                Err(Fault::new(&node.place, format!("`index.{name}.secret` is not one source"), "expected one of `env`, `file`, `command`")
                    .help("write `secret = { env = \"INDEX_TOKEN\" }`"))
            }
        }
    }
}

/// A password in the url would be read by everybody who has the file, and shown in errors.
fn check_url(node: &Node) -> Result<(), Fault> {
    let url = node.text().unwrap_or_default();
    let plain = url.strip_prefix("sparse+").unwrap_or(url);
    let rest = plain.strip_prefix("https://").or_else(|| plain.strip_prefix("http://"));
    if rest.and_then(|rest| rest.split('/').next()).is_some_and(|authority| authority.contains('@')) {
        let fault = Fault::new(&node.place, "the url of an index holds a user or a password", "everybody who has the file can read it");
        return Err(fault.help("write `user` and `secret = { env = \"…\" }` beside it, or leave it to your netrc"));
    }
    let begins = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']));
    if begins && url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains(['?', '#']) {
        return Ok(());
    }
    let fault = Fault::new(&node.place, format!("`{url}` is not the url of an index"), "expected `https://…`");
    Err(fault.help("for Python it ends with `/simple/`, for crates it is the sparse index"))
}
