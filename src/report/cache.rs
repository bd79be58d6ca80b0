//! The screen of `cache status`: what a revision needs, and what every host has of it.

use serde::Serialize;

use crate::figures::{age, bytes, count, counted};
use crate::report::fold::Names;
use crate::report::paper::{Paper, table};
use crate::report::phrases::short_commit;
use crate::report::status::written;

/// How many missing files are named.
const NAMED: usize = 3;

/// What a revision needs, and who has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheView {
    pub project: String,
    pub env: String,
    pub rev: String,
    pub reference: String,
    pub path: String,
    pub files: u64,
    pub bytes: u64,
    /// How many of the files this machine could send.
    pub here: u64,
    pub filled_on: Option<String>,
    pub filled_by: Option<String>,
    /// Seconds since 1970.
    pub filled: Option<i64>,
    pub platform: Option<String>,
    /// Whether a build without network passed with these files.
    pub proven: Option<bool>,
    /// What the files were chosen for besides.
    pub others: Vec<OtherKind>,
    pub hosts: Vec<CacheRow>,
    /// The flags that said which config was read.
    #[serde(skip)]
    pub given: String,
}

/// A kind of host that the builder is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherKind {
    /// `CPython 3.9 (x86_64, glibc 2.31)`, or the platform where the files do not depend on a Python.
    pub kind: String,
    pub on: String,
    pub files: u64,
    /// A build on a host of this kind passed; otherwise the files are wheels that were fetched elsewhere.
    pub proven: bool,
}

/// One host's cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheRow {
    pub host: String,
    /// How many files are needed there.
    pub files: u64,
    pub missing: Vec<String>,
    /// Files that have other content than they must have.
    pub damaged: Vec<String>,
    /// Why the files are of no use on this host.
    pub unfit: Option<String>,
    /// Why the cache could not be looked at.
    pub error: Option<String>,
}

impl CacheRow {
    #[must_use]
    pub fn unknown(host: &str, error: String) -> Self {
        Self { host: host.to_owned(), files: 0, missing: Vec::new(), damaged: Vec::new(), unfit: None, error: Some(error) }
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty() && self.unfit.is_none() && self.error.is_none()
    }

    /// `3 of 212 files missing`: what stands in a table of other things.
    #[must_use]
    pub fn short(&self) -> String {
        match (self.missing.len() + self.damaged.len(), &self.error) {
            (_, Some(_)) => "cannot be read".to_owned(),
            (_, None) if self.unfit.is_some() => "filled for others".to_owned(),
            (0, None) => "complete".to_owned(),
            (count, None) => format!("{count} of {} missing", counted(self.files, "file")),
        }
    }

    /// `3 of 212 files missing: a.whl, b.whl …`: what a person reads.
    #[must_use]
    pub fn text(&self) -> String {
        let some = |what: &str, names: &[String]| {
            let named: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
            let more = if names.len() > NAMED { ", …" } else { "" };
            (!names.is_empty()).then(|| format!("{} of {} {what}: {}{more}", names.len(), counted(self.files, "file"), named.join(", ")))
        };
        if let Some(why) = self.error.as_ref().or(self.unfit.as_ref()) {
            return why.clone();
        }
        let parts: Vec<String> = [some("missing", &self.missing), some("damaged", &self.damaged)].into_iter().flatten().collect();
        if parts.is_empty() { "complete".to_owned() } else { parts.join("; ") }
    }
}

impl CacheView {
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.hosts.iter().all(CacheRow::is_complete)
    }

    #[must_use]
    pub fn text(&self, now: i64, paper: Paper) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(|row| row.host.clone()).collect();
        let names = Names::new(&hosts);
        let reference = if self.rev.starts_with(&self.reference) { String::new() } else { format!(" ({})", self.reference) };
        let what = format!("{}{reference} needs {}, {}", short_commit(&self.rev), counted(self.files, "file"), bytes(self.bytes));
        let mut lines = vec![format!("{} → {} · {what} in {}", self.project, self.env, self.path)];
        if let (Some(on), Some(by), Some(filled)) = (&self.filled_on, &self.filled_by, self.filled) {
            let platform = self.platform.as_deref().unwrap_or_default();
            let proven = if self.proven == Some(true) { ", proven by a build" } else { ", not proven by a build" };
            lines.push(format!("  filled on {on} by {by}, {} ago, for {platform}{proven}", age(now - filled)));
        }
        for OtherKind { kind, on, files, proven } in &self.others {
            let proof = if *proven { "proven by a build" } else { "wheels only, not proven by a build" };
            lines.push(format!("  and on {on} for {kind}: {}, {proof}", counted(*files, "file")));
        }
        if self.here < self.files {
            lines.push(format!("  {} of {} are on this machine", count(self.here), counted(self.files, "file")));
        }
        let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
        for row in &self.hosts {
            let text = row.text();
            match groups.iter_mut().find(|(other, _)| *other == text) {
                Some((_, hosts)) => hosts.push(&row.host),
                None => groups.push((text, vec![&row.host])),
            }
        }
        let head = ["HOSTS", "CACHE"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> =
            std::iter::once(head).chain(groups.into_iter().map(|(text, hosts)| vec![names.fold(hosts), text])).collect();
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.iter().map(|cell| paper.safe(cell)).collect()).collect();
        lines.extend(table(&rows, 2).into_iter().map(|row| format!("  {row}")));
        let hosts_of = |wanted: &dyn Fn(&CacheRow) -> bool| -> Vec<&str> {
            self.hosts.iter().filter(|row| wanted(row)).map(|row| row.host.as_str()).collect()
        };
        let lacking = hosts_of(&|row| !row.is_complete() && row.error.is_none() && row.unfit.is_none());
        if !lacking.is_empty() {
            let only =
                if lacking.len() == self.hosts.len() { String::new() } else { format!(" -H {}", crate::config::ranges::fold(&lacking)) };
            lines.push(format!("  Fix: deployer cache push -e {}{} --rev {}{only}", self.env, self.given, self.reference));
        }
        // One of a kind fills for all of its kind.
        if let Some(first) = hosts_of(&|row| row.unfit.is_some() && row.error.is_none()).first() {
            lines.push(format!("  Fix: deployer cache fill -e {}{} --rev {} -H {first}", self.env, self.given, self.reference));
        }
        written(&lines, paper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapbox::{assert_data_eq, str};

    #[test]
    fn what_is_missing_where_is_told_with_what_completes_it() {
        let row = |n: u32| CacheRow {
            host: format!("app{n:02}.example.net"),
            files: 212,
            missing: if n == 7 { ["lxml", "zope", "six", "ply"].map(|name| format!("dist/{name}-1.whl")).to_vec() } else { Vec::new() },
            damaged: if n == 9 { vec!["dist/a\u{1b}[1m.whl".to_owned()] } else { Vec::new() },
            unfit: (n == 11).then(|| "`lxml-5-cp311-cp311-linux_x86_64.whl` is of no use here: this host has CPython 3.9".to_owned()),
            error: (n == 3).then(|| "the cache `/srv/cache` does not exist".to_owned()),
        };
        let view = CacheView {
            project: "boskel".into(),
            env: "prod".into(),
            rev: "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678".into(),
            reference: "v2.8.0".into(),
            path: "/srv/cache".into(),
            files: 212,
            bytes: 48_100_000,
            here: 211,
            filled_on: Some("app01".into()),
            filled_by: Some("ada@laptop".into()),
            filled: Some(1000),
            platform: Some("x86_64-linux".into()),
            proven: Some(true),
            others: vec![OtherKind { kind: "CPython 3.9 (x86_64, glibc 2.31)".into(), on: "app01".into(), files: 9, proven: false }],
            hosts: (1..=12).map(row).collect(),
            given: " -c other.toml".into(),
        };
        assert_data_eq!(
            view.text(1180, Paper::PLAIN),
            str![[r"
boskel → prod · a1b2c3d (v2.8.0) needs 212 files, 48.1 MB in /srv/cache
  filled on app01 by ada@laptop, 3 min ago, for x86_64-linux, proven by a build
  and on app01 for CPython 3.9 (x86_64, glibc 2.31): 9 files, wheels only, not proven by a build
  211 of 212 files are on this machine
  HOSTS                      CACHE
  app[01-02,04-06,08,10,12]  complete
  app03                      the cache `/srv/cache` does not exist
  app07                      4 of 212 files missing: dist/lxml-1.whl, dist/zope-1.whl, dist/six-1.whl, …
  app09                      1 of 212 files damaged: dist/a/u{1b}[1m.whl
  app11                      `lxml-5-cp311-cp311-linux_x86_64.whl` is of no use here: this host has CPython 3.9
  Fix: deployer cache push -e prod -c other.toml --rev v2.8.0 -H app[07,09].example.net
  Fix: deployer cache fill -e prod -c other.toml --rev v2.8.0 -H app11.example.net

"]]
        );
        assert!(!view.is_complete());
        assert!(view.text(1180, Paper { color: false, unicode: false }).is_ascii());
    }
}
