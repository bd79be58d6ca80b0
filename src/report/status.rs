//! The screen of `status`: what is live where, hosts in the same state together.

use serde::Serialize;

use crate::figures::{age, counted};
use crate::report::fold::Names;
use crate::report::paper::{Paper, Tone, table};
use crate::report::phrases::short_commit;

/// The column that is left out where no host has a check.
const HEALTH: usize = 5;

/// What `status` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusView {
    pub env: String,
    /// `locked by ada@laptop, deploying a1b2c3d`, or why the environment is on hold.
    pub lock: Option<String>,
    /// One row a host, in the order of the environment: rows that are alike are shown as one.
    pub rows: Vec<StatusRow>,
    /// What is worth knowing of all hosts: `master is 3 commits ahead of a1b2c3d`.
    pub notes: Vec<String>,
    /// What to type next: a label, and the command.
    pub next: Vec<(String, String)>,
}

/// What one host, or several alike, serve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusRow {
    pub hosts: Vec<String>,
    /// The short commit; none where nothing is live.
    pub live: Option<String>,
    pub release: Option<String>,
    /// Seconds since 1970.
    pub since: Option<i64>,
    pub by: Option<String>,
    /// Whether it passes the check of its environment now; none where there is no check, or nothing to check.
    pub health: Option<Health>,
    /// `unreachable: timeout`, `61 commits behind`, `current is not a link` …
    pub notes: Vec<String>,
    /// What differs from what was deployed; none where it was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Vec<Drift>>,
    /// `current` where all processes that were seen run from the live release, `old` where some do not, `unknown` where some could not
    /// be looked at; none where the host did not answer.
    pub processes: Option<String>,
}

/// What the check of an environment says of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Health {
    Ok,
    Failed {
        why: String,
    },
    /// The check is a command, and nobody asked for it to be run.
    Unasked,
}

impl Health {
    /// Writes it of so many hosts: `11 ok`.
    fn of(&self, hosts: usize) -> String {
        match self {
            Self::Ok => format!("{hosts} ok"),
            Self::Failed { why } => format!("{hosts} failed: {why}"),
            Self::Unasked => "not asked".to_owned(),
        }
    }
}

/// One path of the live release that is not as it was deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub path: String,
    /// `added`, `modified`, `missing`, `mode`, `link-target` or `type`.
    pub kind: &'static str,
}

impl StatusView {
    /// Writes the screen; `now` is in seconds since 1970.
    #[must_use]
    pub fn text(&self, now: i64, paper: Paper) -> String {
        let hosts: Vec<String> = self.rows.iter().flat_map(|row| row.hosts.clone()).collect();
        let names = Names::new(&hosts);
        let lock = self.lock.as_deref().unwrap_or("not locked");
        let mut lines = vec![format!("{} · {} · {lock}", self.env, counted(hosts.len() as u64, "host"))];
        let mut rows = vec![["HOSTS", "LIVE", "RELEASE", "SINCE", "BY", "HEALTH", ""].map(str::to_owned).to_vec()];
        rows.extend(self.grouped().iter().map(|row| cells(row, &names, now)));
        if self.rows.iter().all(|row| row.health.is_none()) {
            for row in &mut rows {
                row.remove(HEALTH);
            }
        }
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.iter().map(|cell| paper.safe(cell)).collect()).collect();
        lines.extend(table(&rows, 2).into_iter().map(|row| format!("  {row}")));
        lines.extend(self.notes.iter().map(|note| format!("  {note}")));
        lines.extend(self.next.iter().map(|(label, command)| format!("  {label}:  {command}")));
        written(&lines, paper)
    }

    /// Puts hosts in one state together, in the order in which the states first appear.
    #[must_use]
    pub fn grouped(&self) -> Vec<StatusRow> {
        let mut groups: Vec<StatusRow> = Vec::new();
        for row in &self.rows {
            let state = |row: &StatusRow| (row.live.clone(), row.release.clone(), row.health.clone(), row.notes.clone());
            let alike = |group: &&mut StatusRow| state(group) == state(row);
            match groups.iter_mut().find(alike) {
                Some(group) => {
                    group.hosts.extend(row.hosts.iter().cloned());
                    // Hosts of one rollout switch seconds apart: the last of them is when it was done.
                    group.since = group.since.max(row.since);
                }
                None => groups.push(row.clone()),
            }
        }
        groups
    }
}

fn cells(row: &StatusRow, names: &Names, now: i64) -> Vec<String> {
    let dash = || "-".to_owned();
    vec![
        names.fold(row.hosts.iter().map(String::as_str)),
        row.live.as_deref().map_or_else(dash, |live| short_commit(live).to_owned()),
        row.release.clone().unwrap_or_else(dash),
        row.since.map_or_else(dash, |since| age(now - since)),
        row.by.clone().unwrap_or_else(dash),
        row.health.as_ref().map_or_else(dash, |health| health.of(row.hosts.len())),
        row.notes.join(", "),
    ]
}

/// Writes lines as they are but for what a terminal would act on, the first of them strong.
pub(super) fn written(lines: &[String], paper: Paper) -> String {
    let shown = lines.iter().enumerate().map(|(at, line)| {
        let line = paper.safe(line);
        paper.toned(if at == 0 { Tone::Strong } else { Tone::Plain }, &line) + "\n"
    });
    shown.collect()
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "snapbox writes the snapshots")]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;

    fn row(host: &str, live: &str, since: i64, by: &str, notes: &[&str]) -> StatusRow {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        let release = format!("20261123T061200-{live}");
        StatusRow {
            hosts: vec![host.into()],
            live: Some(live.into()),
            release: Some(release),
            since: Some(since),
            by: Some(by.into()),
            health: None,
            notes,
            drift: None,
            processes: None,
        }
    }

    fn view() -> StatusView {
        let mut rows: Vec<StatusRow> =
            (1..=12).filter(|n| *n != 7).map(|n| row(&format!("app{n:02}.example.net"), "a1b2c3d", 1_000_000 + n, "ada", &[])).collect();
        rows.insert(6, row("app07.example.net", "9f8e7d6", 655_000, "bob", &["61 commits behind"]));
        let lost = StatusRow {
            hosts: vec!["db1.example.net".into()],
            live: None,
            release: None,
            since: None,
            by: None,
            health: None,
            notes: vec!["unreachable: \u{1b}[31mtimeout".into()],
            drift: None,
            processes: None,
        };
        rows.push(lost);
        let notes = vec!["master is 3 commits ahead of a1b2c3d".to_owned()];
        let next = vec![("Bring app07 up".to_owned(), "deployer deploy -e prod --rev a1b2c3d -H app07".to_owned())];
        StatusView { env: "prod".into(), lock: None, rows, notes, next }
    }

    #[test]
    fn hosts_in_one_state_share_a_line() {
        assert_data_eq!(
            view().text(1_000_740, Paper::PLAIN),
            str![[r#"
prod · 13 hosts · not locked
  HOSTS             LIVE     RELEASE                  SINCE   BY
  app[01-06,08-12]  a1b2c3d  20261123T061200-a1b2c3d  12 min  ada
  app07             9f8e7d6  20261123T061200-9f8e7d6  4 d     bob  61 commits behind
  db1               -        -                        -       -    unreachable: /u{1b}[31mtimeout
  master is 3 commits ahead of a1b2c3d
  Bring app07 up:  deployer deploy -e prod --rev a1b2c3d -H app07

"#]]
        );
    }

    #[test]
    fn hosts_that_are_not_well_are_named_with_what_their_check_says() {
        let mut view = view();
        for row in &mut view.rows[..12] {
            row.health = Some(Health::Ok);
        }
        view.rows[2].health = Some(Health::Failed { why: "the status is 503".into() });
        view.rows[3].health = Some(Health::Unasked);
        assert_data_eq!(
            view.text(1_000_740, Paper::PLAIN),
            str![[r#"
prod · 13 hosts · not locked
  HOSTS                   LIVE     RELEASE                  SINCE   BY   HEALTH
  app[01-02,05-06,08-12]  a1b2c3d  20261123T061200-a1b2c3d  12 min  ada  9 ok
  app03                   a1b2c3d  20261123T061200-a1b2c3d  12 min  ada  1 failed: the status is 503
  app04                   a1b2c3d  20261123T061200-a1b2c3d  12 min  ada  not asked
  app07                   9f8e7d6  20261123T061200-9f8e7d6  4 d     bob  1 ok                         61 commits behind
  db1                     -        -                        -       -    -                            unreachable: /u{1b}[31mtimeout
  master is 3 commits ahead of a1b2c3d
  Bring app07 up:  deployer deploy -e prod --rev a1b2c3d -H app07

"#]]
        );
        let json = serde_json::to_value(view).unwrap();
        assert_eq!(json["rows"][2]["health"], serde_json::json!({ "state": "failed", "why": "the status is 503" }));
        assert_eq!(json["rows"][3]["health"], serde_json::json!({ "state": "unasked" }));
        assert_eq!(json["rows"][12]["health"], serde_json::Value::Null);
    }

    #[test]
    fn machines_read_one_row_a_host() {
        let json = serde_json::to_value(view()).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 13);
        assert_eq!(json["rows"][6]["hosts"][0], "app07.example.net");
        assert_eq!(json["rows"][12]["live"], serde_json::Value::Null);
    }
}
