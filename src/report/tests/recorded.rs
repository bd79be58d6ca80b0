//! Streams as runs tell them, written down in full so that a change of a screen is seen.

use crate::event::{Event, OutputStream, STOPPING, Severity, Status, Step, Timed};
use crate::report::json::version;

pub const RUN: &str = "20261123T061200-a1b2c3d";
pub const LIVE: &str = "9f8e7d6";

/// A stream under construction.
pub struct Tape {
    pub events: Vec<Timed>,
    pub hosts: Vec<String>,
}

impl Tape {
    pub fn at(&mut self, t: f64, event: Event) -> &mut Self {
        self.events.push(Timed { event, t });
        self
    }

    /// A deploy up to the end of its local stage.
    pub fn deploy(env: &'static str, hosts: Vec<String>) -> Self {
        let mut tape = Self { events: Vec::new(), hosts: hosts.clone() };
        let text = str::to_owned;
        let reference = text("v2.8.0");
        tape.at(0.0, version("2026-11-23T06:12:00Z"));
        tape.at(
            0.0,
            Event::RunStarted { run: text(RUN), verb: text("deploy"), project: text("boskel"), env: text(env), hosts, actor: text("ada") },
        );
        let rev = text("a1b2c3d4e5f60718293a4b5c6d7e8f9012345678");
        // 2026-11-23T04:12:00Z
        let committed = 1_795_407_120;
        tape.at(0.1, Event::Revision { rev, reference, subject: text("Fix invoice rounding"), author: text("Ada"), committed });
        tape.begin(0.1, Step::Export, 1).end(0.6, Step::Export, (1, 1, 0), 0.5, "1,204 files, 18.3 MB");
        tape
    }

    pub fn all(&self) -> u32 {
        u32::try_from(self.hosts.len()).unwrap()
    }

    pub fn begin(&mut self, t: f64, step: Step, hosts: u32) -> &mut Self {
        self.at(t, Event::StepStarted { stage: step.stage(), step, hosts })
    }

    pub fn end(&mut self, t: f64, step: Step, (hosts, ok, failed): (u32, u32, u32), secs: f64, summary: &str) -> &mut Self {
        self.at(t, Event::StepFinished { stage: step.stage(), step, hosts, ok, failed, secs, summary: summary.to_owned() })
    }

    pub fn host(&mut self, t: f64, host: usize, step: Step, status: Status, secs: f64) -> &mut Self {
        let (exit, command) = match (status, step) {
            (Status::Failed, Step::Build) => (Some(1), ["/srv/venv/bin/buildout", "-c", "offline.cfg"].map(str::to_owned).to_vec()),
            _ => (None, Vec::new()),
        };
        let detail = (status == Status::Failed && step == Step::Check).then(|| "GET /healthz 503, 10 tries".to_owned());
        let host = self.hosts[host].clone();
        self.at(t, Event::HostStep { host, stage: step.stage(), step, status, secs, exit, command, detail, sent_bytes: None })
    }

    pub fn line(&mut self, t: f64, host: usize, step: Step, line: &str) -> &mut Self {
        let host = self.hosts[host].clone();
        self.at(t, Event::Output { host, step, stream: OutputStream::Stdout, line: line.to_owned() })
    }

    /// A step that goes well on all hosts.
    pub fn well(&mut self, t: f64, step: Step, secs: f64, summary: &str) -> &mut Self {
        let all = self.all();
        self.begin(t, step, all);
        for host in 0..self.hosts.len() {
            self.host(t + secs, host, step, Status::Ok, secs);
        }
        self.end(t + secs, step, (all, all, 0), secs, summary)
    }

    pub fn transfer(&mut self) -> &mut Self {
        let from = [(LIVE.to_owned(), self.all())].into();
        self.well(0.6, Step::Connect, 0.4, "");
        let (to, release) = ("a1b2c3d4e5f6".to_owned(), RUN.to_owned());
        self.at(1.0, Event::Changes { from, to, commits: Some(61), files: Some(148), release });
        self.well(1.0, Step::Lock, 0.1, "").well(1.1, Step::Push, 1.9, "2.1 MB sent per host, 88% already there").well(
            3.0,
            Step::Link,
            0.1,
            "",
        )
    }

    pub fn error(&mut self, t: f64, code: &str, message: &str, hosts: &[usize], state: &str, help: &[&str]) -> &mut Self {
        let hosts = hosts.iter().map(|host| self.hosts[*host].clone()).collect();
        let help = help.iter().map(|text| (*text).to_owned()).collect();
        let (code, message, state) = (code.to_owned(), message.to_owned(), Some(state.to_owned()));
        self.at(t, Event::Diagnostic { severity: Severity::Error, code, message, hosts, evidence: Vec::new(), state, help })
    }

    pub fn finish(&mut self, t: f64, exit: u8, (ok, failed): (u32, u32), summary: &str, next: &[(&str, &str)]) -> &mut Self {
        let next = next.iter().map(|(label, command)| ((*label).to_owned(), (*command).to_owned())).collect();
        let live = [(LIVE.to_owned(), self.all())].into();
        let status = if exit == 0 { "ok" } else { "failed" }.to_owned();
        self.at(t, Event::RunFinished { run: RUN.to_owned(), status, exit, live, ok, failed, secs: t, summary: summary.to_owned(), next })
    }
}

fn named(prefix: &str, width: usize, hosts: usize) -> Vec<String> {
    (1..=hosts).map(|n| format!("{prefix}{n:0width$}.example.net")).collect()
}

/// Three hosts, all well, their builds told as they go.
pub fn good() -> Tape {
    let mut tape = Tape::deploy("staging", named("stg", 1, 3));
    tape.transfer().begin(3.1, Step::Build, 3);
    tape.line(20.0, 0, Step::Build, "Installing django.").line(21.0, 1, Step::Build, "Getting distribution for 'lxml==5.3.0'.");
    tape.host(22.1, 2, Step::Build, Status::Ok, 19.0).host(26.0, 0, Step::Build, Status::Ok, 22.9).host(
        27.2,
        1,
        Step::Build,
        Status::Ok,
        24.1,
    );
    tape.end(27.2, Step::Build, (3, 3, 0), 24.1, "");
    tape.well(27.2, Step::Activate, 0.2, "current → 20261123T061200-a1b2c3d").well(
        27.4,
        Step::Check,
        1.1,
        "GET /healthz 200, release matches",
    );
    tape.well(28.5, Step::Confirm, 0.1, "").well(28.6, Step::Prune, 0.2, "kept 5, removed 1");
    let summary = "Deployed a1b2c3d to staging: 3 hosts in 28.8s (was 9f8e7d6, 4 days old)";
    tape.finish(28.8, 0, (3, 0), summary, &[("undo", "deployer rollback -e staging")]);
    tape
}

/// 200 hosts in four waves, one of which cannot be built and is within the budget.
pub fn fleet() -> Tape {
    let mut tape = Tape::deploy("prod", named("app", 3, 200));
    tape.transfer().begin(3.1, Step::Build, 200);
    for host in 0..179 {
        let name = tape.hosts[host].clone();
        tape.at(3.2, Event::HostStarted { host: name, step: Step::Build });
    }
    for line in ["While:", "  Installing lxml.", "Error: Couldn't find a distribution for 'lxml==5.3.1'."] {
        tape.line(34.0, 56, Step::Build, line);
    }
    tape.host(34.6, 56, Step::Build, Status::Failed, 31.4);
    for (host, line) in [(62, "Getting distribution for 'lxml==5.3.1'."), (40, "Installing django."), (69, "Develop: src/boskel")] {
        tape.line(60.0, host, Step::Build, line);
    }
    for host in (0..160).filter(|host| ![56, 62, 40, 69].contains(host)) {
        tape.host(61.0, host, Step::Build, Status::Ok, 57.0);
    }
    for host in [62, 40, 69].into_iter().chain(160..200) {
        tape.host(147.0, host, Step::Build, Status::Ok, 143.0);
    }
    tape.end(147.1, Step::Build, (200, 199, 1), 144.0, "");
    let mut t = 147.1;
    for (wave, range) in [(1, 0..2), (2, 2..22), (3, 22..100), (4, 100..200)] {
        let hosts: Vec<String> =
            tape.hosts[range.clone()].iter().enumerate().filter(|(at, _)| at + range.start != 56).map(|(_, host)| host.clone()).collect();
        let number = u32::try_from(hosts.len()).unwrap();
        tape.at(t, Event::WaveStarted { wave, waves: 4, hosts: hosts.clone() });
        tape.begin(t, Step::Activate, number).end(t + 1.0, Step::Activate, (number, number, 0), 1.0, "");
        tape.begin(t + 1.0, Step::Check, number).end(t + 4.0, Step::Check, (number, number, 0), 3.0, "");
        t += 4.0;
        tape.at(t, Event::WaveFinished { wave, waves: 4, hosts, ok: number, failed: 0, secs: 4.0, summary: String::new() });
    }
    let next = [
        ("held back", "app057 still runs 9f8e7d6: deployer logs -H app057 --step build"),
        ("finish", "deployer deploy -e prod --rev v2.8.0 -H app057"),
    ];
    tape.error(t, "partial", "199 of 200 hosts were switched", &[56], "app057 still serves 9f8e7d6", &[]);
    tape.finish(t, 12, (199, 1), "Deployed a1b2c3d to prod: 199 of 200 hosts in 2:43 (was 9f8e7d6)", &next);
    tape
}

/// Twelve hosts, one of which has no such distribution.
pub fn broken_build() -> Tape {
    let mut tape = Tape::deploy("prod", named("app", 2, 12));
    tape.transfer().begin(3.1, Step::Build, 12).line(5.0, 0, Step::Build, "Installing django.").host(
        27.4,
        0,
        Step::Build,
        Status::Ok,
        24.3,
    );
    for n in 1..=412 {
        tape.line(30.0, 6, Step::Build, &format!("Getting distribution number {n}."));
    }
    for line in ["While:", "  Installing lxml.", "Error: Couldn't find a distribution for 'lxml==5.3.1'. ##[add-mask]x \u{1b}[31m::error::"]
    {
        tape.line(61.3, 6, Step::Build, line);
    }
    tape.host(61.4, 6, Step::Build, Status::Failed, 58.3);
    for host in [1, 2, 3, 4, 5, 7, 8, 9, 10, 11] {
        tape.host(61.5, host, Step::Build, Status::Ok, 58.4);
    }
    tape.end(61.6, Step::Build, (12, 11, 1), 58.5, "");
    let hint = "lxml==5.3.1 is not in the shared download cache of app07";
    let retry = "deployer deploy -e prod --rev v2.8.0";
    tape.error(
        61.7,
        "build-failed",
        "build failed on 1 of 12 hosts",
        &[6],
        "nothing was activated",
        &[hint, "deployer logs -H app07 --step build", retry],
    );
    let summary = "Not deployed. Nothing was activated: prod still runs 9f8e7d6 on 12/12 hosts.";
    tape.finish(61.8, 11, (11, 1), summary, &[("retry", retry), ("without", "deployer deploy -e prod --rev v2.8.0 -H '!app07'")]);
    tape
}

/// A check that fails in the second wave; every host that was switched is put back.
pub fn put_back() -> Tape {
    let mut tape = Tape::deploy("prod", named("app", 2, 4));
    tape.transfer().well(3.1, Step::Build, 20.0, "");
    let waves = [(1, vec![0]), (2, vec![1, 2, 3])];
    for (wave, hosts) in waves {
        let t = 23.1 + 4.0 * f64::from(wave);
        let names: Vec<String> = hosts.iter().map(|host| tape.hosts[*host].clone()).collect();
        let number = u32::try_from(hosts.len()).unwrap();
        tape.at(t, Event::WaveStarted { wave, waves: 2, hosts: names.clone() });
        tape.begin(t, Step::Activate, number).end(t + 0.2, Step::Activate, (number, number, 0), 0.2, "").begin(
            t + 0.2,
            Step::Check,
            number,
        );
        for host in hosts {
            tape.host(t + 3.0, host, Step::Check, if host == 2 { Status::Failed } else { Status::Ok }, 2.8);
        }
        let failed = u32::from(wave == 2);
        tape.end(t + 3.0, Step::Check, (number, number - failed, failed), 2.8, "");
        tape.at(
            t + 3.1,
            Event::WaveFinished { wave, waves: 2, hosts: names, ok: number - failed, failed, secs: 3.1, summary: String::new() },
        );
    }
    tape.well(35.0, Step::Revert, 3.0, "app[01-04] → 9f8e7d6, restarted, checked");
    tape.error(38.0, "check-failed", "the check failed on 1 of 4 hosts", &[2], "all hosts serve 9f8e7d6", &[]);
    let summary = "Rolled back. prod runs 9f8e7d6 on 4/4 hosts; a1b2c3d is marked bad and will not be chosen again.";
    tape.finish(38.1, 13, (3, 1), summary, &[("look", "deployer logs -H app03 --step check")]);
    tape
}

pub fn already_live() -> Tape {
    let mut tape = Tape::deploy("staging", named("stg", 1, 3));
    tape.well(0.6, Step::Connect, 0.4, "");
    tape.finish(1.1, 0, (3, 0), "staging is at a1b2c3d on 3/3 hosts; nothing to do. (deploy --force rebuilds)", &[]);
    tape
}

/// Ctrl-C while two of three hosts build.
pub fn interrupted() -> Tape {
    let mut tape = Tape::deploy("staging", named("stg", 1, 3));
    tape.transfer().begin(3.1, Step::Build, 3).line(20.0, 0, Step::Build, "Installing django.").host(
        22.1,
        2,
        Step::Build,
        Status::Ok,
        19.0,
    );
    let (severity, code) = (Severity::Note, STOPPING.to_owned());
    let message = "Stopping at the next safe point. (^C again leaves at once)".to_owned();
    let (hosts, evidence, help) = Default::default();
    tape.at(30.0, Event::Diagnostic { severity, code, message, hosts, evidence, state: None, help });
    let state = "nothing was activated; staging still runs 9f8e7d6 on 3/3 hosts";
    let hint = "run the same command to continue: what is already on the hosts is kept and reused";
    tape.error(31.0, "interrupted", "interrupted after 31.0s", &[], state, &[hint]);
    tape.finish(31.0, 130, (0, 0), "Nothing was activated; staging still runs 9f8e7d6 on 3/3 hosts.", &[]);
    tape
}

/// Another run has the lock.
pub fn locked() -> Tape {
    let mut tape = Tape::deploy("prod", named("app", 2, 12));
    tape.well(0.6, Step::Connect, 0.4, "");
    tape.begin(1.0, Step::Lock, 12);
    let text = str::to_owned;
    let evidence = [
        "holder  ada@laptop, run 20261123T060900-9d9e6b, deploying 5011081",
        "since   3 min ago, last heard of 4 s ago; the lock goes when that run ends or dies",
    ];
    let help = [
        "wait: deployer deploy -e prod --rev v2.8.0 --wait-lock 15m",
        "look: deployer lock status -e prod",
        "end it: deployer lock release -e prod --id 9d9e6b --confirm=prod",
    ];
    let told = Event::Diagnostic {
        severity: Severity::Error,
        code: text("locked"),
        message: text("prod is locked"),
        hosts: tape.hosts.clone(),
        evidence: evidence.map(text).to_vec(),
        state: Some(text("prod still runs 9f8e7d6 on 12/12 hosts")),
        help: help.map(text).to_vec(),
    };
    tape.at(1.1, told);
    tape.finish(1.2, 14, (0, 0), "prod still runs 9f8e7d6 on 12/12 hosts.", &[]);
    tape
}
