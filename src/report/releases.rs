//! The screen of `releases`: what is kept on the hosts, newest first.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::figures::{age, counted};
use crate::report::fold::Names;
use crate::report::paper::{Paper, table};
use crate::report::phrases::short_commit;
use crate::report::status::written;

/// The releases of an environment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReleasesView {
    pub env: String,
    /// All hosts that were asked.
    pub hosts: Vec<String>,
    /// Newest first.
    pub rows: Vec<ReleaseRow>,
}

/// One release, on all hosts that have it in this state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReleaseRow {
    pub release: String,
    pub commit: String,
    pub reference: String,
    /// `sealed`, `confirmed`, `failed` …
    pub state: String,
    /// Seconds since 1970.
    pub created: i64,
    pub by: String,
    pub hosts: Vec<String>,
    /// The hosts on which it is live.
    pub live: Vec<String>,
    /// What a rollback can go back to: `~1`.
    pub token: Option<String>,
}

impl ReleasesView {
    /// Writes the screen; `now` is in seconds since 1970.
    #[must_use]
    pub fn text(&self, now: i64, paper: Paper) -> String {
        let names = Names::new(&self.hosts);
        let mut rows = vec![["", "ID", "RELEASE", "REF", "STATE", "WHEN", "BY", "HOSTS", "LIVE ON"].map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(|row| {
            let dash = || "-".to_owned();
            let live = if row.live.is_empty() { dash() } else { names.fold(row.live.iter().map(String::as_str)) };
            let reference = if row.reference.is_empty() { short_commit(&row.commit) } else { &row.reference };
            let hosts = format!("{}/{}", row.hosts.len(), self.hosts.len());
            let mark = if row.live.is_empty() { "" } else { "*" };
            let when = format!("{} ago", age(now - row.created));
            let cells = [mark, row.token.as_deref().unwrap_or("-"), &row.release, reference, &row.state, &when, &row.by, &hosts, &live];
            cells.map(str::to_owned).to_vec()
        }));
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.iter().map(|cell| paper.safe(cell)).collect()).collect();
        // One release may be in other states on other hosts: a row each.
        let ids: BTreeSet<&str> = self.rows.iter().map(|row| row.release.as_str()).collect();
        let mut lines =
            vec![format!("{} · {} · {}", self.env, counted(self.hosts.len() as u64, "host"), counted(ids.len() as u64, "release"))];
        lines.extend(table(&rows, 2).into_iter().map(|row| format!("  {row}")));
        written(&lines, paper)
    }
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "snapbox writes the snapshots")]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;

    #[test]
    fn releases_say_where_they_are_live_and_what_can_be_gone_back_to() {
        let hosts: Vec<String> = (1..=3).map(|n| format!("stg{n}.example.net")).collect();
        let row = |release: &str, state: &str, created, live: &[String], token: Option<&str>| ReleaseRow {
            release: release.into(),
            commit: release[16..].into(),
            reference: "master".into(),
            state: state.into(),
            created,
            by: "ada".into(),
            hosts: hosts.clone(),
            live: live.to_vec(),
            token: token.map(str::to_owned),
        };
        let rows = vec![
            row("20261123T061200-a1b2c3d", "confirmed", 1_000_000, &hosts, Some("~0")),
            row("20261121T061200-0d4c9b2", "failed", 900_000, &[], None),
            row("20261119T101500-9f8e7d6", "retired", 600_000, &[], Some("~1")),
        ];
        let view = ReleasesView { env: "staging".into(), hosts: hosts.clone(), rows };
        assert_data_eq!(
            view.text(1_000_060, Paper { color: false, unicode: false }),
            str![[r#"
staging - 3 hosts - 3 releases
     ID  RELEASE                  REF     STATE      WHEN       BY   HOSTS  LIVE ON
  *  ~0  20261123T061200-a1b2c3d  master  confirmed  1 min ago  ada  3/3    stg[1-3]
     -   20261121T061200-0d4c9b2  master  failed     1 d ago    ada  3/3    -
     ~1  20261119T101500-9f8e7d6  master  retired    4 d ago    ada  3/3    -

"#]]
        );
    }
}
