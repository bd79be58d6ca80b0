//! The screen of `lock status`: who has which host, and what is on hold.

use serde::Serialize;

use crate::figures::{age, counted};
use crate::report::fold::Names;
use crate::report::paper::{Paper, table};
use crate::report::status::written;

/// What `lock status` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LocksView {
    pub env: String,
    /// One row a host, in the order of the environment: rows that are alike are shown as one.
    pub rows: Vec<LockRow>,
}

/// What keeps others from one host, or from several alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LockRow {
    pub hosts: Vec<String>,
    /// `free`, `locked`, `on hold` or `unknown`.
    pub state: String,
    /// What `lock release` takes.
    pub id: Option<String>,
    pub run: Option<String>,
    pub by: Option<String>,
    /// Seconds since 1970.
    pub since: Option<i64>,
    /// Seconds since the holder last heard of its controller.
    pub heard: Option<i64>,
    /// What the run does, why the environment is on hold, or why nothing is known.
    pub what: String,
}

impl LockRow {
    #[must_use]
    pub fn free(host: &str) -> Self {
        Self::bare(host, "free", "")
    }

    #[must_use]
    pub fn unknown(host: &str, why: &str) -> Self {
        Self::bare(host, "unknown", why)
    }

    fn bare(host: &str, state: &str, what: &str) -> Self {
        let (hosts, state, what) = (vec![host.to_owned()], state.to_owned(), what.to_owned());
        Self { hosts, state, id: None, run: None, by: None, since: None, heard: None, what }
    }
}

impl LocksView {
    /// Writes the screen; `now` is in seconds since 1970.
    #[must_use]
    pub fn text(&self, now: i64, paper: Paper) -> String {
        let hosts: Vec<String> = self.rows.iter().flat_map(|row| row.hosts.clone()).collect();
        let names = Names::new(&hosts);
        let dash = || "-".to_owned();
        let mut rows = vec![["HOSTS", "STATE", "ID", "BY", "SINCE", "HEARD", ""].map(str::to_owned).to_vec()];
        rows.extend(self.grouped().iter().map(|row| {
            let hosts = names.fold(row.hosts.iter().map(String::as_str));
            let since = row.since.map_or_else(dash, |since| age(now - since));
            let heard = row.heard.map_or_else(dash, |heard| format!("{} ago", age(heard)));
            let (id, by) = (row.id.clone().unwrap_or_else(dash), row.by.clone().unwrap_or_else(dash));
            vec![hosts, row.state.clone(), id, by, since, heard, row.what.clone()]
        }));
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.iter().map(|cell| paper.safe(cell)).collect()).collect();
        let mut lines = vec![format!("{} · {}", self.env, counted(hosts.len() as u64, "host"))];
        lines.extend(table(&rows, 2).into_iter().map(|row| format!("  {row}")));
        let mut ids: Vec<(&str, &str)> = Vec::new();
        for row in &self.rows {
            let Some(id) = row.id.as_deref().filter(|id| !ids.iter().any(|(_, known)| known == id)) else { continue };
            ids.push((if row.run.is_some() { "end it" } else { "lift it" }, id));
        }
        let env = &self.env;
        lines.extend(ids.iter().map(|(label, id)| format!("  {label}:  deployer lock release -e {env} --id {id} --confirm={env}")));
        written(&lines, paper)
    }

    /// Puts hosts in one state together.
    fn grouped(&self) -> Vec<LockRow> {
        let mut groups: Vec<LockRow> = Vec::new();
        for row in &self.rows {
            match groups.iter_mut().find(|group| (&group.state, &group.id, &group.what) == (&row.state, &row.id, &row.what)) {
                Some(group) => {
                    group.hosts.extend(row.hosts.iter().cloned());
                    group.heard = group.heard.max(row.heard);
                }
                None => groups.push(row.clone()),
            }
        }
        groups
    }
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "snapbox writes the snapshots")]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;

    #[test]
    fn hosts_in_one_state_share_a_line_and_every_id_has_its_command() {
        let locked = |host: &str| LockRow {
            id: Some("7f3a91".into()),
            run: Some("20261123T054407-7f3a91".into()),
            by: Some("ada@laptop".into()),
            since: Some(1_000),
            heard: Some(4),
            ..LockRow::bare(host, "locked", "deploying a1b2c3d")
        };
        let held = LockRow {
            id: Some("00aa11".into()),
            by: Some("bob@desk".into()),
            since: Some(400),
            ..LockRow::bare("app4", "on hold", "audit \u{1b}[31m")
        };
        let rows = vec![locked("app1"), locked("app2"), LockRow::free("app3"), held, LockRow::unknown("app5", "unreachable: timeout")];
        assert_data_eq!(
            LocksView { env: "prod".into(), rows }.text(1_180, Paper::PLAIN),
            str![[r#"
prod · 5 hosts
  HOSTS     STATE    ID      BY          SINCE   HEARD
  app[1-2]  locked   7f3a91  ada@laptop  3 min   4 s ago  deploying a1b2c3d
  app3      free     -       -           -       -
  app4      on hold  00aa11  bob@desk    13 min  -        audit /u{1b}[31m
  app5      unknown  -       -           -       -        unreachable: timeout
  end it:  deployer lock release -e prod --id 7f3a91 --confirm=prod
  lift it:  deployer lock release -e prod --id 00aa11 --confirm=prod

"#]]
        );
    }
}
