//! Screens from recorded events, to the letter. Long because it is a list of them.
#![expect(clippy::needless_raw_string_hashes, reason = "snapbox writes the snapshots")]

use snapbox::{IntoData, assert_data_eq, str};

use super::recorded::{self, Tape};
use crate::event::{Event, Status, Step};
use crate::report::ci::Ci;
use crate::report::human::Human;
use crate::report::paper::Paper;
use crate::report::plain::Plain;

const ASCII: Paper = Paper { color: false, unicode: false };

/// What is in the scrollback when the run is over.
fn stays(tape: &Tape, verbosity: i8, paper: Paper) -> String {
    let mut human = Human::new(verbosity, true);
    tape.events.iter().flat_map(|timed| human.take(timed)).map(|line| line.write(paper) + "\n").collect()
}

/// What is redrawn at `t`, on a terminal of that size.
fn redrawn(tape: &Tape, t: f64, width: usize, rows: usize, paper: Paper) -> String {
    let mut human = Human::new(0, true);
    tape.events.iter().take_while(|timed| timed.t <= t).for_each(|timed| drop(human.take(timed)));
    human.live(t, rows).iter().map(|line| line.clipped(paper, width) + "\n").collect()
}

/// The log, with a second between one look at the clock and the next.
fn log(tape: &Tape, ci: Ci, verbosity: i8, paper: Paper) -> String {
    let mut plain = Plain::new(paper, ci, verbosity, true);
    let mut lines = Vec::new();
    let mut clock = 0.0;
    for timed in &tape.events {
        while clock + 1.0 < timed.t {
            clock += 1.0;
            lines.extend(plain.tick(clock));
        }
        lines.extend(plain.take(timed));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[test]
fn a_good_deploy_is_a_line_a_step() {
    assert_data_eq!(
        stays(&recorded::good(), 0, Paper::PLAIN),
        str![[r#"
boskel → staging · 3 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

✓ export    local  0.5s   1,204 files, 18.3 MB
✓ connect   3/3    0.4s
  changes  9f8e7d6..a1b2c3d · 61 commits, 148 files
  release  20261123T061200-a1b2c3d
✓ lock      3/3    0.1s
✓ push      3/3    1.9s   2.1 MB sent per host, 88% already there
✓ link      3/3    0.1s
✓ build     3/3   24.1s   slowest stg2 24.1s
✓ activate  3/3    0.2s   current → 20261123T061200-a1b2c3d
✓ check     3/3    1.1s   GET /healthz 200, release matches
✓ prune     3/3    0.2s   kept 5, removed 1

Deployed a1b2c3d to staging: 3 hosts in 28.8s (was 9f8e7d6, 4 days old)
  undo  deployer rollback -e staging

"#]]
        .raw()
    );
}

#[test]
fn three_hosts_that_build_have_a_line_each() {
    let tape = recorded::good();
    assert_data_eq!(
        redrawn(&tape, 26.0, 80, 40, Paper::PLAIN),
        str![[r#"
  build     2/3    0:22
    stg2  | 0:22  Getting distribution for 'lxml==5.3.0'.
  0:26 elapsed · ^C stops, nothing is live yet

"#]]
        .raw()
    );
    assert_data_eq!(
        redrawn(&tape, 21.0, 60, 40, Paper::PLAIN),
        str![[r#"
  build     0/3    0:17
    stg1  - 0:17  Installing django.
    stg2  - 0:17  Getting distribution for 'lxml==5.3.0'.
    stg3  - 0:17
  0:21 elapsed · ^C stops, nothing is live yet

"#]]
        .raw()
    );
    assert_data_eq!(
        redrawn(&tape, 21.0, 30, 12, ASCII),
        str![[r#"
  build     0/3    0:17
    stg1  - 0:17  Installing d
    ... 2 more
  0:21 elapsed - ^C stops, not

"#]]
        .raw()
    );
}

#[test]
fn a_good_deploy_without_a_terminal() {
    assert_data_eq!(
        log(&recorded::good(), Ci::None, 0, Paper::PLAIN),
        str![[r#"
boskel → staging · 3 hosts
[0:00.1] rev       a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)
[0:00.6] export    1,204 files, 18.3 MB
[0:01.0] connect     3/3
[0:01.0] changes   9f8e7d6..a1b2c3d · 61 commits, 148 files
[0:01.0] release   20261123T061200-a1b2c3d
[0:01.1] lock        3/3
[0:03.0] push        3/3  2.1 MB sent per host, 88% already there
[0:03.1] link        3/3
[0:27.2] build       3/3  slowest stg2 24.1s
[0:27.4] activate    3/3  current → 20261123T061200-a1b2c3d
[0:28.5] check       3/3  GET /healthz 200, release matches
[0:28.8] prune       3/3  kept 5, removed 1

Deployed a1b2c3d to staging: 3 hosts in 28.8s (was 9f8e7d6, 4 days old)
  undo  deployer rollback -e staging

"#]]
        .raw()
    );
}

#[test]
fn a_good_deploy_in_ascii() {
    assert_data_eq!(
        stays(&recorded::good(), 0, ASCII),
        str![[r#"
boskel -> staging - 3 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

ok     export    local  0.5s   1,204 files, 18.3 MB
ok     connect   3/3    0.4s
  changes  9f8e7d6..a1b2c3d - 61 commits, 148 files
  release  20261123T061200-a1b2c3d
ok     lock      3/3    0.1s
ok     push      3/3    1.9s   2.1 MB sent per host, 88% already there
ok     link      3/3    0.1s
ok     build     3/3   24.1s   slowest stg2 24.1s
ok     activate  3/3    0.2s   current -> 20261123T061200-a1b2c3d
ok     check     3/3    1.1s   GET /healthz 200, release matches
ok     prune     3/3    0.2s   kept 5, removed 1

Deployed a1b2c3d to staging: 3 hosts in 28.8s (was 9f8e7d6, 4 days old)
  undo  deployer rollback -e staging

"#]]
        .raw()
    );
}

#[test]
fn two_hundred_hosts_are_counted_and_those_that_failed_are_named() {
    let tape = recorded::fleet();
    assert_data_eq!(
        stays(&tape, 0, Paper::PLAIN),
        str![[r#"
boskel → prod · 200 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

✓ export      local   0.5s   1,204 files, 18.3 MB
✓ connect   200/200   0.4s
  changes  9f8e7d6..a1b2c3d · 61 commits, 148 files
  release  20261123T061200-a1b2c3d
✓ lock      200/200   0.1s
✓ push      200/200   1.9s   2.1 MB sent per host, 88% already there
✓ link      200/200   0.1s
✗ app057 build failed after 31.4s (exit 1)
    app057| While:
    app057|   Installing lxml.
    app057| Error: Couldn't find a distribution for 'lxml==5.3.1'.
✗ build     199/200   2:24   1 failed: app057
✓ wave 1        2/2   4.0s   app[001-002]
✓ wave 2      20/20   4.0s   app[003-022]
✓ wave 3      77/77   4.0s   app[023-056,058-100]
✓ wave 4    100/100   4.0s   app[101-200]
✗ app057.example.net · build · exit 1 after 31.4s
  $ /srv/venv/bin/buildout -c offline.cfg    (in releases/20261123T061200-a1b2c3d)
  app057| While:
  app057|   Installing lxml.
  app057| Error: Couldn't find a distribution for 'lxml==5.3.1'.

Deployed a1b2c3d to prod: 199 of 200 hosts in 2:43 (was 9f8e7d6)
  held back  app057 still runs 9f8e7d6: deployer logs -H app057 --step build
  finish     deployer deploy -e prod --rev v2.8.0 -H app057

"#]]
        .raw()
    );
}

#[test]
fn two_hundred_hosts_never_take_more_than_a_third_of_the_terminal() {
    let tape = recorded::fleet();
    assert_data_eq!(
        redrawn(&tape, 62.0, 200, 60, Paper::PLAIN),
        str![[r#"
  build     ━━━━━━━━━━━━━━━━━━        156/200 · 1 failed · 0:58
    waiting 21 · running 22 · done 156 · failed 1
    slowest  app041 0:58  Installing django.
             app063 0:58  Getting distribution for 'lxml==5.3.1'.
             app070 0:58  Develop: src/boskel
  1:02 elapsed · ^C stops, nothing is live yet

"#]]
        .raw()
    );
    assert_data_eq!(
        redrawn(&tape, 62.0, 60, 60, ASCII),
        str![[r#"
  build     ##################        156/200 - 1 failed - 0
    waiting 21 - running 22 - done 156 - failed 1
    slowest  app041 0:58  Installing django.
             app063 0:58  Getting distribution for 'lxml==5.
             app070 0:58  Develop: src/boskel
  1:02 elapsed - ^C stops, nothing is live yet

"#]]
        .raw()
    );
    for rows in 1..80 {
        for t in [0.3, 2.0, 30.0, 62.0, 100.0, 149.0] {
            let lines = redrawn(&tape, t, 60, rows, Paper::PLAIN).lines().count();
            assert!(lines <= (rows / 3).clamp(1, 12), "{lines} lines at {t} in {rows} rows");
        }
    }
}

#[test]
fn a_broken_build_ends_with_its_log_and_what_to_type_next() {
    assert_data_eq!(
        stays(&recorded::broken_build(), 0, Paper::PLAIN),
        str![[r#"
boskel → prod · 12 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

✓ export    local   0.5s   1,204 files, 18.3 MB
✓ connect   12/12   0.4s
  changes  9f8e7d6..a1b2c3d · 61 commits, 148 files
  release  20261123T061200-a1b2c3d
✓ lock      12/12   0.1s
✓ push      12/12   1.9s   2.1 MB sent per host, 88% already there
✓ link      12/12   0.1s
✗ app07 build failed after 58.3s (exit 1)
    app07| Getting distribution number 411.
    app07| Getting distribution number 412.
    app07| While:
    app07|   Installing lxml.
    app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##[add-mask]x \u{1b}[31m::error::
✗ build     11/12  58.5s   1 failed: app07
✗ app07.example.net · build · exit 1 after 58.3s
  $ /srv/venv/bin/buildout -c offline.cfg    (in releases/20261123T061200-a1b2c3d)
  … 395 earlier lines: deployer logs -H app07 --step build
  app07| Getting distribution number 396.
  app07| Getting distribution number 397.
  app07| Getting distribution number 398.
  app07| Getting distribution number 399.
  app07| Getting distribution number 400.
  app07| Getting distribution number 401.
  app07| Getting distribution number 402.
  app07| Getting distribution number 403.
  app07| Getting distribution number 404.
  app07| Getting distribution number 405.
  app07| Getting distribution number 406.
  app07| Getting distribution number 407.
  app07| Getting distribution number 408.
  app07| Getting distribution number 409.
  app07| Getting distribution number 410.
  app07| Getting distribution number 411.
  app07| Getting distribution number 412.
  app07| While:
  app07|   Installing lxml.
  app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##[add-mask]x \u{1b}[31m::error::
  hint: lxml==5.3.1 is not in the shared download cache of app07

Not deployed. Nothing was activated: prod still runs 9f8e7d6 on 12/12 hosts.
  retry    deployer deploy -e prod --rev v2.8.0
  without  deployer deploy -e prod --rev v2.8.0 -H '!app07'

"#]]
        .raw()
    );
}

#[test]
fn a_broken_build_in_ascii_is_ascii() {
    let text = stays(&recorded::broken_build(), 0, ASCII);
    assert!(text.is_ascii());
    assert!(text.contains("FAILED app07 build failed after 58.3s (exit 1)"), "{text}");
}

#[test]
fn a_broken_build_without_a_terminal_names_who_still_runs() {
    assert_data_eq!(
        log(&recorded::broken_build(), Ci::None, 0, Paper::PLAIN),
        str![[r#"
boskel → prod · 12 hosts
[0:00.1] rev       a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)
[0:00.6] export    1,204 files, 18.3 MB
[0:01.0] connect   12/12
[0:01.0] changes   9f8e7d6..a1b2c3d · 61 commits, 148 files
[0:01.0] release   20261123T061200-a1b2c3d
[0:01.1] lock      12/12
[0:03.0] push      12/12  2.1 MB sent per host, 88% already there
[0:03.1] link      12/12
[0:34.0] still running (11): app[02-12] build 0:30
[1:01.4] ✗ app07 build failed after 58.3s (exit 1): /srv/venv/bin/buildout -c offline.cfg
  … 395 earlier lines: deployer logs -H app07 --step build
app07| Getting distribution number 396.
app07| Getting distribution number 397.
app07| Getting distribution number 398.
app07| Getting distribution number 399.
app07| Getting distribution number 400.
app07| Getting distribution number 401.
app07| Getting distribution number 402.
app07| Getting distribution number 403.
app07| Getting distribution number 404.
app07| Getting distribution number 405.
app07| Getting distribution number 406.
app07| Getting distribution number 407.
app07| Getting distribution number 408.
app07| Getting distribution number 409.
app07| Getting distribution number 410.
app07| Getting distribution number 411.
app07| Getting distribution number 412.
app07| While:
app07|   Installing lxml.
app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##[add-mask]x \u{1b}[31m::error::
[1:01.6] ✗ build     11/12  1 failed: app07

✗ app07 · build · exit 1 after 58.3s
  app07| Getting distribution number 411.
  app07| Getting distribution number 412.
  app07| While:
  app07|   Installing lxml.
  app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##[add-mask]x \u{1b}[31m::error::
  hint: lxml==5.3.1 is not in the shared download cache of app07

Not deployed. Nothing was activated: prod still runs 9f8e7d6 on 12/12 hosts.
  retry    deployer deploy -e prod --rev v2.8.0
  without  deployer deploy -e prod --rev v2.8.0 -H '!app07'

"#]]
        .raw()
    );
}

#[test]
fn a_broken_build_on_github_folds_success_and_is_one_annotation() {
    let text = log(&recorded::broken_build(), Ci::Github, 0, Paper::PLAIN);
    assert!(!text.contains("##["), "the runner would act on it");
    assert_data_eq!(without_numbers(&text), str![[r#"
boskel → prod · 12 hosts
[0:00.1] rev       a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)
[0:00.6] export    1,204 files, 18.3 MB
[0:01.0] connect   12/12
[0:01.0] changes   9f8e7d6..a1b2c3d · 61 commits, 148 files
[0:01.0] release   20261123T061200-a1b2c3d
[0:01.1] lock      12/12
[0:03.0] push      12/12  2.1 MB sent per host, 88% already there
[0:03.1] link      12/12
::group::[0:27.4] ✓ app01 build 24.3s
app01| Installing django.
::endgroup::
[0:58.0] still running (11): app[02-12] build 0:54
::group::[1:01.4] app07 build, earlier output (395 lines)
app07| Getting distribution number 1.
::endgroup::
[1:01.4] ✗ app07 build failed after 58.3s (exit 1): /srv/venv/bin/buildout -c offline.cfg
app07| Getting distribution number 409.
app07| Getting distribution number 410.
app07| Getting distribution number 411.
app07| Getting distribution number 412.
app07| While:
app07|   Installing lxml.
app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##\[add-mask]x \u{1b}[31m::error::
[1:01.6] ✗ build     11/12  1 failed: app07

✗ app07 · build · exit 1 after 58.3s
  app07| Getting distribution number 411.
  app07| Getting distribution number 412.
  app07| While:
  app07|   Installing lxml.
  app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##\[add-mask]x \u{1b}[31m::error::
  hint: lxml==5.3.1 is not in the shared download cache of app07

Not deployed. Nothing was activated: prod still runs 9f8e7d6 on 12/12 hosts.
  retry    deployer deploy -e prod --rev v2.8.0
  without  deployer deploy -e prod --rev v2.8.0 -H '!app07'
::error title=deploy to prod failed::build failed on app07: Error: Couldn't find a distribution for 'lxml==5.3.1'. ##\[add-mask]x \u{1b}[31m::error::. Not deployed. Nothing was activated: prod still runs 9f8e7d6 on 12/12 hosts.

"#]].raw());
}

#[test]
fn a_broken_build_on_gitlab_is_an_open_section() {
    let text = log(&recorded::broken_build(), Ci::Gitlab, 0, Paper::PLAIN);
    let shown = without_numbers(&text).replace('\u{1b}', "<ESC>").replace('\r', "<CR>");
    assert_data_eq!(shown, str![[r#"
boskel → prod · 12 hosts
[0:00.1] rev       a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)
[0:00.6] export    1,204 files, 18.3 MB
[0:01.0] connect   12/12
[0:01.0] changes   9f8e7d6..a1b2c3d · 61 commits, 148 files
[0:01.0] release   20261123T061200-a1b2c3d
[0:01.1] lock      12/12
[0:03.0] push      12/12  2.1 MB sent per host, 88% already there
[0:03.1] link      12/12
<ESC>[0Ksection_start:1795414347:app01_build[collapsed=true]<CR><ESC>[0K[0:27.4] ✓ app01 build 24.3s
app01| Installing django.
<ESC>[0Ksection_end:1795414347:app01_build<CR><ESC>[0K
[0:58.0] still running (11): app[02-12] build 0:54
<ESC>[0Ksection_start:1795414381:app07_build<CR><ESC>[0K[1:01.4] ✗ app07 build failed after 58.3s (exit 1): /srv/venv/bin/buildout -c offline.cfg
app07| Getting distribution number 1.
app07| Getting distribution number 409.
app07| Getting distribution number 410.
app07| Getting distribution number 411.
app07| Getting distribution number 412.
app07| While:
app07|   Installing lxml.
app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##[add-mask]x \u{1b}[31m::error::
<ESC>[0Ksection_end:1795414381:app07_build<CR><ESC>[0K
[1:01.6] ✗ build     11/12  1 failed: app07

✗ app07 · build · exit 1 after 58.3s
  app07| Getting distribution number 411.
  app07| Getting distribution number 412.
  app07| While:
  app07|   Installing lxml.
  app07| Error: Couldn't find a distribution for 'lxml==5.3.1'. ##[add-mask]x \u{1b}[31m::error::
  hint: lxml==5.3.1 is not in the shared download cache of app07

Not deployed. Nothing was activated: prod still runs 9f8e7d6 on 12/12 hosts.
  retry    deployer deploy -e prod --rev v2.8.0
  without  deployer deploy -e prod --rev v2.8.0 -H '!app07'

"#]].raw());
}

/// Leaves out what 400 lines say alike.
fn without_numbers(text: &str) -> String {
    let numbered = |line: &&str| (2..=408).any(|n| line.ends_with(&format!("number {n}.")));
    text.lines().filter(|line| !numbered(line)).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn a_check_that_fails_is_put_back_and_says_so() {
    assert_data_eq!(
        stays(&recorded::put_back(), 0, Paper::PLAIN),
        str![[r#"
boskel → prod · 4 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

✓ export    local  0.5s   1,204 files, 18.3 MB
✓ connect   4/4    0.4s
  changes  9f8e7d6..a1b2c3d · 61 commits, 148 files
  release  20261123T061200-a1b2c3d
✓ lock      4/4    0.1s
✓ push      4/4    1.9s   2.1 MB sent per host, 88% already there
✓ link      4/4    0.1s
✓ build     4/4   20.0s   slowest app04 20.0s
✓ wave 1    1/1    3.1s   app01
✗ app03 check failed after 2.8s: GET /healthz 503, 10 tries
✗ wave 2    2/3    3.1s   1 failed: app03
✓ revert    4/4    3.0s   app[01-04] → 9f8e7d6, restarted, checked
✗ app03.example.net · check · failed after 2.8s
  GET /healthz 503, 10 tries

Rolled back. prod runs 9f8e7d6 on 4/4 hosts; a1b2c3d is marked bad and will not be chosen again.
  look  deployer logs -H app03 --step check

"#]]
        .raw()
    );
    assert_data_eq!(
        log(&recorded::put_back(), Ci::None, 0, Paper::PLAIN),
        str![[r#"
boskel → prod · 4 hosts
[0:00.1] rev       a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)
[0:00.6] export    1,204 files, 18.3 MB
[0:01.0] connect     4/4
[0:01.0] changes   9f8e7d6..a1b2c3d · 61 commits, 148 files
[0:01.0] release   20261123T061200-a1b2c3d
[0:01.1] lock        4/4
[0:03.0] push        4/4  2.1 MB sent per host, 88% already there
[0:03.1] link        4/4
[0:23.1] build       4/4  slowest app04 20.0s
[0:30.2] wave 1      1/1  app01
[0:34.1] ✗ app03 check failed after 2.8s: GET /healthz 503, 10 tries
[0:34.2] ✗ wave 2      2/3  1 failed: app03
[0:38.0] revert      4/4  app[01-04] → 9f8e7d6, restarted, checked

✗ app03 · check · failed after 2.8s
  reason: GET /healthz 503, 10 tries

Rolled back. prod runs 9f8e7d6 on 4/4 hosts; a1b2c3d is marked bad and will not be chosen again.
  look  deployer logs -H app03 --step check

"#]]
        .raw()
    );
}

#[test]
fn what_is_live_already_is_one_line() {
    assert_data_eq!(
        stays(&recorded::already_live(), 0, Paper::PLAIN),
        str![[r#"
boskel → staging · 3 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

✓ export    local  0.5s   1,204 files, 18.3 MB
✓ connect   3/3    0.4s

staging is at a1b2c3d on 3/3 hosts; nothing to do. (deploy --force rebuilds)

"#]]
        .raw()
    );
}

#[test]
fn an_interrupted_run_tells_what_was_stopped() {
    assert_data_eq!(
        stays(&recorded::interrupted(), 0, Paper::PLAIN),
        str![[r#"
boskel → staging · 3 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

✓ export    local  0.5s   1,204 files, 18.3 MB
✓ connect   3/3    0.4s
  changes  9f8e7d6..a1b2c3d · 61 commits, 148 files
  release  20261123T061200-a1b2c3d
✓ lock      3/3    0.1s
✓ push      3/3    1.9s   2.1 MB sent per host, 88% already there
✓ link      3/3    0.1s
Stopping at the next safe point. (^C again leaves at once)
✗ build     1/3   27.9s   2 stopped: stg[1-2]

error: interrupted after 31.0s
  hint: run the same command to continue: what is already on the hosts is kept and reused

Nothing was activated; staging still runs 9f8e7d6 on 3/3 hosts.

"#]]
        .raw()
    );
}

#[test]
fn a_run_that_is_asked_to_stop_says_that_it_does_for_as_long_as_it_takes() {
    let mut tape = recorded::interrupted();
    let before = redrawn(&tape, 29.0, 80, 24, Paper::PLAIN);
    assert!(before.ends_with("  0:29 elapsed · ^C stops, nothing is live yet\n"), "{before}");
    tape.events.retain(|timed| timed.t <= 30.0);
    let asked = redrawn(&tape, 30.0, 80, 24, Paper::PLAIN);
    assert!(asked.ends_with("  0:30 elapsed · stopping · ^C again leaves at once\n"), "{asked}");
    for verbosity in [-2, -1, 0] {
        let answer = "Stopping at the next safe point. (^C again leaves at once)\n";
        assert!(stays(&tape, verbosity, Paper::PLAIN).ends_with(answer) && log(&tape, Ci::None, verbosity, Paper::PLAIN).ends_with(answer));
    }
}

#[test]
fn a_fleet_that_failed_alike_but_for_names_times_and_output_is_one_line_at_the_end() {
    let mut tape = Tape::deploy("prod", (1..=200).map(|n| format!("app{n:03}.example.net")).collect());
    tape.begin(1.0, Step::Build, 200);
    for (host, secs) in (0..200).zip([4.0, 5.2].into_iter().cycle()) {
        tape.line(4.0, host, Step::Build, &format!("at {host}"));
        let name = tape.hosts[host].clone();
        let detail = Some(format!("the connection to `{name}` was lost after {secs}s"));
        let (stage, step, status, exit, command) = (Step::Build.stage(), Step::Build, Status::Failed, None, Vec::new());
        tape.at(5.0, Event::HostStep { host: name, stage, step, status, secs, exit, command, detail, sent_bytes: None });
    }
    tape.end(5.3, Step::Build, (200, 0, 200), 4.3, "").finish(5.4, 11, (0, 200), "Not deployed.", &[]);
    let text = log(&tape, Ci::None, 0, Paper::PLAIN);
    let end = text.split("200 failed: app[001-200]\n").last().unwrap();
    assert_data_eq!(
        end,
        str![[r#"

✗ app[001-200] · build · failed after 4.0s to 5.2s
  reason: the connection to `app001.example.net` was lost after 4s
  app001| at 0

Not deployed.

"#]]
        .raw()
    );
}

#[test]
fn a_lock_is_an_error_with_a_hint() {
    assert_data_eq!(
        stays(&recorded::locked(), 0, Paper::PLAIN),
        str![[r#"
boskel → prod · 12 hosts
  rev      a1b2c3d v2.8.0 "Fix invoice rounding" (Ada, 2 h ago)

✓ export    local   0.5s   1,204 files, 18.3 MB
✓ connect   12/12   0.4s
✗ lock       0/12   0.2s   stopped

error: prod is locked (app[01-12])
  holder  ada@laptop, run 20261123T060900-9d9e6b, deploying 5011081
  since   3 min ago, last heard of 4 s ago; the lock goes when that run ends or dies
  hint: wait: deployer deploy -e prod --rev v2.8.0 --wait-lock 15m
  hint: look: deployer lock status -e prod
  hint: end it: deployer lock release -e prod --id 9d9e6b --confirm=prod

prod still runs 9f8e7d6 on 12/12 hosts.

"#]]
        .raw()
    );
}

#[test]
fn quiet_is_the_end_and_quieter_is_errors_only() {
    assert_eq!(stays(&recorded::already_live(), -1, Paper::PLAIN).lines().count(), 1);
    assert_eq!(stays(&recorded::good(), -2, Paper::PLAIN), "");
    assert_eq!(log(&recorded::good(), Ci::None, -2, Paper::PLAIN), "");
    let failed = log(&recorded::put_back(), Ci::None, -2, Paper::PLAIN);
    assert!(failed.starts_with("[0:34.1] ✗ app03 check failed"), "{failed}");
    assert!(stays(&recorded::locked(), -2, Paper::PLAIN).starts_with("error: prod is locked"));
}

#[test]
fn loud_is_commands_and_louder_is_what_hosts_say() {
    let commands = stays(&recorded::broken_build(), 1, Paper::PLAIN);
    assert!(commands.contains("    app07$ /srv/venv/bin/buildout -c offline.cfg\n"), "{commands}");
    let said = stays(&recorded::good(), 2, Paper::PLAIN);
    assert!(said.contains("\nstg1| Installing django.\n"), "{said}");
    let block = log(&recorded::good(), Ci::None, 2, Paper::PLAIN);
    assert!(block.contains("[0:26.0] ✓ stg1 build 22.9s\nstg1| Installing django.\n"), "{block}");
}

#[test]
fn a_host_that_is_silent_shows_its_last_lines_once() {
    let mut tape = recorded::good();
    tape.events.retain(|timed| timed.t <= 21.0);
    tape.finish(400.0, 1, (0, 0), "", &[]);
    let text = log(&tape, Ci::None, 0, Paper::PLAIN);
    assert_eq!(
        text.matches("[2:20.0] stg1 has been silent for 2:00 in build; its last lines:\nstg1| Installing django.\n").count(),
        1,
        "{text}"
    );
    assert_eq!(text.matches("has been silent").count(), 2, "{text}");
    assert!(text.contains("[0:34.0] still running (3): stg[1-3] build 0:30; stg1 last line: Installing django.\n"), "{text}");
}

#[test]
fn hosts_that_failed_alike_are_told_once() {
    let mut tape = recorded::broken_build();
    let twin: Vec<_> =
        tape.events.iter().filter(|timed| serde_json::to_string(timed).unwrap().contains("\"host\":\"app07.")).cloned().collect();
    let at = tape.events.iter().position(|timed| timed.t > 61.4).unwrap();
    let twin =
        twin.into_iter().map(|timed| serde_json::from_str(&serde_json::to_string(&timed).unwrap().replace("app07.", "app08.")).unwrap());
    tape.events.splice(at..at, twin);
    let text = stays(&tape, 0, Paper::PLAIN);
    assert!(text.contains("✗ app08 build failed after 58.3s (exit 1), the same as app07\n"), "{text}");
    assert!(text.contains("✗ app[07-08] (2 hosts) · build · exit 1 after 58.3s\n"), "{text}");
}

#[test]
fn a_fleet_that_cannot_be_reached_is_not_a_flood() {
    let mut tape = Tape::deploy("prod", (1..=200).map(|n| format!("app{n:03}.example.net")).collect());
    tape.begin(1.0, Step::Connect, 200);
    for host in 0..200 {
        tape.host(11.0, host, Step::Connect, Status::Failed, 10.0);
    }
    tape.end(11.0, Step::Connect, (200, 0, 200), 10.0, "").finish(11.1, 10, (0, 200), "Not deployed: no host could be reached.", &[]);
    let text = stays(&tape, 0, Paper::PLAIN);
    assert_eq!(text.matches("connect failed after 10.0s, the same as app001").count(), 4, "{text}");
    assert!(text.contains("✗ connect     0/200  10.0s   200 failed: app[001-200]\n"), "{text}");
    assert!(text.contains("✗ app[001-200] (200 hosts) · connect · failed after 10.0s\n"), "{text}");
    assert_eq!(log(&tape, Ci::None, 0, Paper::PLAIN).lines().count(), 13);
}

#[test]
fn a_wave_is_drawn_with_its_own_hosts() {
    let mut tape = recorded::put_back();
    tape.events.retain(|timed| timed.t < 34.0);
    assert_data_eq!(
        redrawn(&tape, 33.0, 80, 40, Paper::PLAIN),
        str![[r#"
  wave 2    0/3    0:01
    app02  - 0:01
    app03  - 0:01
    app04  - 0:01
  0:33 elapsed · ^C stops after the hosts that are switching

"#]]
        .raw()
    );
}

#[test]
fn a_later_wave_counts_its_own_hosts_and_putting_back_names_those_that_had_switched() {
    let mut tape = Tape::deploy("prod", (1..=3).map(|n| format!("app{n:02}")).collect());
    let wave = |tape: &mut Tape, t: f64, wave: u32, host: usize| {
        let hosts = vec![tape.hosts[host].clone()];
        tape.at(t, Event::WaveStarted { wave, waves: 3, hosts });
    };
    wave(&mut tape, 1.0, 1, 0);
    tape.begin(1.0, Step::Activate, 3).host(4.0, 0, Step::Activate, Status::Ok, 3.0);
    wave(&mut tape, 4.0, 2, 1);
    assert_data_eq!(
        redrawn(&tape, 5.0, 80, 40, Paper::PLAIN),
        str![[r#"
  wave 2    0/1    0:01
    app02  - 0:01
  0:05 elapsed · ^C stops after the hosts that are switching

"#]]
        .raw()
    );
    tape.host(6.0, 1, Step::Activate, Status::Failed, 2.0);
    let hosts = vec![tape.hosts[1].clone()];
    tape.at(6.0, Event::WaveFinished { wave: 2, waves: 3, hosts, ok: 0, failed: 1, secs: 2.0, summary: String::new() });
    tape.end(6.0, Step::Activate, (2, 1, 1), 5.0, "").begin(6.0, Step::Revert, 2);
    let two = tape.hosts[..2].to_vec();
    for host in two {
        tape.at(6.0, Event::HostStarted { host, step: Step::Revert });
    }
    assert_data_eq!(
        redrawn(&tape, 7.0, 80, 40, Paper::PLAIN),
        str![[r#"
  revert    0/2    0:01
    app01  - 0:01
    app02  - 0:01
  0:07 elapsed · ^C stops after the hosts that are switching

"#]]
        .raw()
    );
    assert!(!stays(&tape, 0, Paper::PLAIN).contains("activate  1/2"), "the wave told it");
}
