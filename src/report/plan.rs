//! The screen of `plan`: what a deploy would do, what would stop it, and what cannot be known.

use serde::Serialize;

use crate::figures::{bytes, count, counted, duration};
use crate::report::fold::Names;
use crate::report::paper::{Paper, table};
use crate::report::phrases::short_commit;
use crate::report::status::written;

/// What a deploy would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanView {
    pub project: String,
    pub env: String,
    pub rev: String,
    pub reference: String,
    pub subject: String,
    /// Between what is live and the revision; none where it cannot be told.
    pub commits: Option<u32>,
    /// Commits that are live and go: more than 0 is a step back or sideways.
    pub behind: Option<u32>,
    pub files: Option<u32>,
    /// None where too many files changed to count lines.
    pub added_lines: Option<u64>,
    pub removed_lines: Option<u64>,
    /// The commits that come, where they were asked for and can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<PlanCommit>>,
    pub tree_files: u64,
    pub tree_bytes: u64,
    /// One row a host, in the order of the environment.
    pub hosts: Vec<PlanRow>,
    pub build: Option<PlanBuild>,
    /// The environment whose confirmed release is taken instead of building, and who built it.
    pub promoted_from: Option<String>,
    pub built_on: Option<String>,
    /// Of the roles whose hosts build another way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub role_builds: Vec<PlanRoleBuild>,
    /// `push`, `link`, `build` … in the order in which they come.
    pub steps: Vec<String>,
    /// The sizes of the activation waves.
    pub waves: Vec<u32>,
    pub warnings: Vec<String>,
    /// What only the deploy itself can find out.
    pub unknowns: Vec<String>,
    pub blockers: Vec<Blocker>,
}

/// A commit that comes with the revision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanCommit {
    pub id: String,
    pub author: String,
    pub subject: String,
    /// Seconds since 1970.
    pub time: i64,
}

/// What would happen on one host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanRow {
    pub host: String,
    /// The commit that is live.
    pub from: Option<String>,
    /// Content to send; none where it is not known before the deploy.
    pub push_bytes: Option<u64>,
    /// `complete`, `3 of 212 files missing`; none where it is not known what the build needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// `new`, `kept build`, `already live` …
    pub action: String,
    pub free_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanBuild {
    /// An argv, or one text for a shell.
    pub command: Vec<String>,
    /// Whose command it is; none where it is the user's own.
    pub recipe: Option<String>,
    /// The command for people, with all that is known filled in.
    #[serde(skip)]
    pub runs: String,
    /// `blocked`, `none`, `host`.
    pub network: String,
    pub timeout_secs: f64,
    /// The one host that builds for all; none where each builds for itself.
    pub once_on: Option<String>,
}

/// How the hosts of a role build.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanRoleBuild {
    pub role: String,
    pub build: Option<PlanBuild>,
}

impl PlanBuild {
    fn text(&self) -> String {
        let recipe = self.recipe.as_ref().map_or_else(String::new, |recipe| format!("recipe {recipe}: "));
        let once = self.once_on.as_ref().map_or_else(String::new, |host| format!(" · once on {host}, for all"));
        format!("{recipe}{} · network {}, at most {}{once}", self.runs, self.network, duration(self.timeout_secs))
    }
}

/// Something that would stop the deploy, and what removes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Blocker {
    pub hosts: Vec<String>,
    pub what: String,
    pub fix: Option<String>,
}

impl PlanView {
    #[must_use]
    pub fn text(&self, paper: Paper) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(|row| row.host.clone()).collect();
        let names = Names::new(&hosts);
        let mut lines =
            vec![format!("{} → {} · {} · read-only, nothing was changed", self.project, self.env, counted(hosts.len() as u64, "host"))];
        let mut tell = |label: &str, text: &str| lines.push(format!("  {label:<9}  {text}"));
        tell("rev", &self.revision());
        tell("tree", &format!("{}, {}", counted(self.tree_files, "file"), bytes(self.tree_bytes)));
        if let Some(build) = &self.build {
            tell("build", &build.text());
        }
        for PlanRoleBuild { role, build } in &self.role_builds {
            tell("build", &format!("{role}: {}", build.as_ref().map_or_else(|| "none".to_owned(), PlanBuild::text)));
        }
        if let (Some(from), Some(host)) = (&self.promoted_from, &self.built_on) {
            tell("from", &format!("{from}, as it confirmed it; built on {host}"));
        }
        let waves: Vec<String> = self.waves.iter().map(|wave| count((*wave).into())).collect();
        let waves = if waves.len() > 1 { format!(" · waves of {}", waves.join(", ")) } else { String::new() };
        tell("steps", &format!("{}{waves}", self.steps.join(" → ")));
        self.warnings.iter().for_each(|warning| tell("watch out", warning));
        let rows: Vec<Vec<String>> = self.rows(&names).into_iter().map(|row| row.iter().map(|cell| paper.safe(cell)).collect()).collect();
        lines.extend(table(&rows, 2).into_iter().map(|row| format!("  {row}")));
        lines.extend(self.unknowns.iter().map(|unknown| format!("  unknown    {unknown}")));
        for blocker in &self.blockers {
            let hosts = names.fold(blocker.hosts.iter().map(String::as_str));
            let who = if hosts.is_empty() { String::new() } else { format!("{hosts}: ") };
            let fix = blocker.fix.as_ref().map_or(String::new(), |fix| format!(". Fix: {fix}"));
            lines.push(format!("  would stop: {who}{}{fix}", blocker.what));
        }
        written(&lines, paper)
    }

    fn revision(&self) -> String {
        let mut from: Vec<&str> = self.hosts.iter().map(|row| row.from.as_deref().map_or("none", short_commit)).collect();
        from.sort_unstable();
        from.dedup();
        let to = if self.rev.is_empty() { self.reference.as_str() } else { short_commit(&self.rev) };
        let reference =
            if self.rev.is_empty() || self.rev.starts_with(&self.reference) { String::new() } else { format!(" ({})", self.reference) };
        let way = self.behind.and_then(|behind| match (behind, self.commits.unwrap_or_default()) {
            (0, 0) => None,
            (0, _) => Some("fast-forward".to_owned()),
            (_, 0) => Some(format!("back by {}", counted(behind.into(), "commit"))),
            (_, _) => Some(format!("sideways: {} go", counted(behind.into(), "commit"))),
        });
        let lines = self.added_lines.zip(self.removed_lines).map(|(added, removed)| format!("+{} −{}", count(added), count(removed)));
        let commits = self.commits.filter(|commits| *commits > 0).map(|n| counted(n.into(), "commit"));
        let files = self.files.filter(|files| *files > 0);
        let figures = [commits, files.map(|n| counted(n.into(), "file")), lines.filter(|_| files.is_some())];
        let figures: Vec<String> = figures.into_iter().flatten().collect();
        let figures: Vec<String> = way.into_iter().chain((!figures.is_empty()).then(|| figures.join(", "))).collect();
        let figures = if figures.is_empty() { String::new() } else { format!(" · {}", figures.join(" · ")) };
        let subject = if self.subject.is_empty() { String::new() } else { format!(" \"{}\"", self.subject) };
        format!("{} → {to}{reference}{subject}{figures}", from.join(", "))
    }

    fn rows(&self, names: &Names) -> Vec<Vec<String>> {
        let mut groups: Vec<(&PlanRow, Vec<&str>)> = Vec::new();
        for row in &self.hosts {
            let alike = |(other, _): &&mut (&PlanRow, Vec<&str>)| other.cells() == row.cells();
            match groups.iter_mut().find(alike) {
                Some((_, hosts)) => hosts.push(&row.host),
                None => groups.push((row, vec![&row.host])),
            }
        }
        // A column that says nothing of any host is none.
        let has_cache = self.hosts.iter().any(|row| row.cache.is_some());
        let cut =
            |cells: Vec<String>| cells.into_iter().enumerate().filter(|(at, _)| has_cache || *at != 3).map(|(_, cell)| cell).collect();
        let head = ["HOSTS", "FROM", "PUSH", "CACHE", "DISK FREE", ""].map(str::to_owned).to_vec();
        let row = |(row, hosts): (&PlanRow, Vec<&str>)| std::iter::once(names.fold(hosts)).chain(row.cells()).collect();
        std::iter::once(head).chain(groups.into_iter().map(row)).map(cut).collect()
    }
}

impl PlanRow {
    /// What a person reads: rows that read the same are the same.
    fn cells(&self) -> [String; 5] {
        let unknown = || "?".to_owned();
        [
            self.from.as_deref().map_or_else(|| "none".to_owned(), |from| short_commit(from).to_owned()),
            self.push_bytes.map_or_else(unknown, bytes),
            self.cache.clone().unwrap_or_else(unknown),
            self.free_bytes.map_or_else(unknown, bytes),
            self.action.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;

    #[test]
    fn a_plan_says_what_would_happen_where_and_what_would_stop_it() {
        let row = |n: u32| PlanRow {
            host: format!("app{n:02}.example.net"),
            from: (n != 12).then(|| "9f8e7d6a1b2c3d".to_owned()),
            push_bytes: (n != 12).then_some(2_100_000),
            cache: None,
            action: if n == 3 { "kept build" } else { "new" }.to_owned(),
            free_bytes: Some(11_600_000_000),
        };
        let view = PlanView {
            project: "boskel".into(),
            env: "prod".into(),
            rev: "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678".into(),
            reference: "v2.8.0".into(),
            subject: "Release \u{1b}[31m2.8.0".into(),
            commits: Some(61),
            behind: Some(0),
            files: Some(148),
            added_lines: Some(3_102),
            removed_lines: Some(1_877),
            changes: None,
            tree_files: 1_204,
            tree_bytes: 18_340_000,
            hosts: (1..=12).map(row).collect(),
            build: Some(PlanBuild {
                command: ["venv/bin/buildout", "-c", "my file.cfg"].map(str::to_owned).to_vec(),
                recipe: Some("buildout".into()),
                runs: "venv/bin/buildout -c 'my file.cfg'".into(),
                network: "blocked".into(),
                timeout_secs: 900.0,
                once_on: Some("app01".into()),
            }),
            promoted_from: Some("staging".into()),
            built_on: Some("stg1".into()),
            role_builds: Vec::new(),
            steps: ["lock", "push", "link", "build", "activate", "check", "prune"].map(str::to_owned).to_vec(),
            waves: vec![1, 2, 9],
            warnings: vec!["the work tree has changes that are not committed: only commits travel".into()],
            unknowns: vec!["what app12 must be sent: it holds no release to compare with".into()],
            blockers: vec![Blocker {
                hosts: vec!["app07.example.net".into()],
                what: "`shared/etc/site.cfg` is missing".into(),
                fix: Some("deployer setup -e prod -H app07".into()),
            }],
        };
        assert_data_eq!(
            view.text(Paper::PLAIN),
            str![[r#"
boskel → prod · 12 hosts · read-only, nothing was changed
  rev        9f8e7d6, none → a1b2c3d (v2.8.0) "Release /u{1b}[31m2.8.0" · fast-forward · 61 commits, 148 files, +3,102 −1,877
  tree       1,204 files, 18.3 MB
  build      recipe buildout: venv/bin/buildout -c 'my file.cfg' · network blocked, at most 15:00 · once on app01, for all
  from       staging, as it confirmed it; built on stg1
  steps      lock → push → link → build → activate → check → prune · waves of 1, 2, 9
  watch out  the work tree has changes that are not committed: only commits travel
  HOSTS             FROM     PUSH    DISK FREE
  app[01-02,04-11]  9f8e7d6  2.1 MB  11.6 GB    new
  app03             9f8e7d6  2.1 MB  11.6 GB    kept build
  app12             none     ?       11.6 GB    new
  unknown    what app12 must be sent: it holds no release to compare with
  would stop: app07: `shared/etc/site.cfg` is missing. Fix: deployer setup -e prod -H app07

"#]]
        );
        assert!(view.text(Paper { color: false, unicode: false }).is_ascii());
        assert_eq!(serde_json::to_value(&view).unwrap()["hosts"][11]["push_bytes"], serde_json::Value::Null);
    }
}
