//! The one integration binary: a file a behaviour.
//!
//! What can go wrong, and the test that tries it (`helper:` is in `src/helper`, `unit:` beside the code in `src`):
//!
//! | Fault | Where |
//! |---|---|
//! | controller killed at every event, at every step over ssh, at random, in a build | `kill` |
//! | signals once, twice, between waves, too late; ^C at a terminal; a reader that goes away | `interrupt`, `kill` |
//! | controller asleep with open connections | `kill`; `helper: a_pipe_that_is_silent_…` |
//! | connection cut in push, build, activation; host without power; closed port; silent host | `rollout_faults`, `host_faults`, `fleet` |
//! | host keys, authentication, jumps, banners, names as options | `unit: session` |
//! | remote exit 255, odd login shells, noisy start-up files | `host_faults`, `unit: session` |
//! | disk or inodes run out at any point after the build; read-only; noexec; file size limit | `host_faults` |
//! | helper, kept file, manifest, record, intent, epoch, journal damaged | `host_faults`, `helper: journal`, `helper: store` |
//! | `current` is a directory, moved by hand, of another tool, dangling | `host_faults`, `locks`, `helper: serve` |
//! | sealed release altered before its switch, or while retired | `rollout_faults` |
//! | build hangs, floods, reads stdin, daemonises, ignores TERM; no network | `helper: serve`, `kill`, `interrupt` |
//! | check fails in a late wave; restart fails both ways; helper dies between switch and confirmation; deadline | `rollout_faults` |
//! | helper killed at every change of activation, revert, recovery; seeded bugs | `helper: kill`, `helper: recover` |
//! | runs at once, waiting, all or none, contention | `locks`, `helper: serve` |
//! | sixteen hosts with three unwell, budgets, skipping | `fleet` |
//! | the unwell first, too few that are well, pauses, failures within the budget | `waves` |
//! | hooks that fail, hang, are interrupted | `hooks` |
//! | wave arithmetic, plan, rollback target | `unit: rollout`, `unit: plan` |
//! | index upstream poisoned, truncated, endless, HTML for JSON, 500, 404, down; file rotted; many at once | `index`, `index_tools`, `index_tunnel` |
//! | hostile names, links, trees, revisions | `names`, `git_export`, `git_resolve`, `helper: fs`, `unit: tree` |
//!
//! Not tried here: loss of power and torn writes below the file system, EIO of a device, quotas, `SELinux`, NFS, a real reboot and other
//! clocks (they need root or a machine of their own); 30 % loss and reordering (they need `tc`); another user's processes and `sudo`
//! with a password (they need a second account); other architectures and kernels.
#![expect(clippy::disallowed_methods, reason = "tests start what they look at")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

// What `decide` and `invariants` are written in terms of, here as in the helper.
use deployer::{op, release, tree};

mod bad_input;
mod barrier;
mod build;
mod cache;
#[path = "../../src/helper/recover/decide.rs"]
mod decide;
mod deploy;
mod fleet;
mod git_export;
mod git_resolve;
mod harness;
mod holds;
mod hooks;
mod host_faults;
mod index;
mod index_tools;
mod index_tunnel;
mod interrupt;
#[path = "../../src/helper/tests/proof/invariants.rs"]
mod invariants;
mod inventory;
mod kill;
mod layers;
mod leaving;
mod locks;
mod model;
mod names;
mod once;
mod output;
mod plan;
mod promotion;
mod readme;
mod recipes;
mod roles;
mod rollback;
mod rollout_faults;
mod run;
mod running;
mod scratch;
mod shell;
mod ssh;
mod ssh_hostile;
mod ssh_lab;
mod ssh_trust;
mod status;
mod upkeep;
mod upstream;
mod waves;
mod whole;
mod windows;
