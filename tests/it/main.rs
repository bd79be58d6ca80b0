//! The one integration binary: a file a behaviour.
//!
//! What can go wrong, and the test that tries it: `unit` is beside the code in `src`, `helper` in `src/helper`, `proof` in
//! `src/helper/tests/proof`, anything else a file here. After each fault hosts are compared with what must hold of one (`invariants`).
//!
//! | Fault | Where |
//! |---|---|
//! | **A. Controller** | |
//! | killed at every event, at every step over ssh, at random | `kill`; for as long as asked: `soak` |
//! | signals once, twice, between waves, too late; ^C at a terminal; HUP | `interrupt` |
//! | asleep with open connections | `kill`; `helper: a_pipe_that_is_silent_…` |
//! | its output closed; a CI runner that ends it | `kill: a_reader_that_goes_away_…`, `interrupt` |
//! | little memory | `ssh_hostile` (each run is bounded) |
//! | **B. Network** | |
//! | cut at any byte, at frame edges and beside them | `proxy`; in push, build, activation: `rollout_faults` |
//! | host vanishes between intent, switch, restart, confirmation | `proxy`, `rollout_faults`, `proof: kills` |
//! | stalled without an end | `proxy: a_way_on_which_nothing_comes_…` |
//! | 56 kbit/s and a long way | `proxy: a_long_and_narrow_way_…` |
//! | refused, unreachable, no such name, silent, without power | `proxy`, `fleet`, `host_faults`, `interrupt`, `unit: session` |
//! | host key changed, unknown, of another type; authentication refused | `ssh_trust`, `ssh_hostile`, `ssh` |
//! | jump hosts, `MaxStartups`, `MaxSessions` | `ssh`, `unit: session` |
//! | remote exit 255 | `host_faults` |
//! | a bit flipped | `proxy: a_byte_that_is_changed_…`, `ssh_hostile` |
//! | **C. File system** | |
//! | helper killed at every change, in every write: upload, link, seal, switch, confirm, revert, rollback, prune, recovery | `proof: kills` |
//! | ENOSPC, EDQUOT, EIO, EACCES, EMFILE, EINTR at any call; short reads and writes | `proof: failures` |
//! | disk or inodes too few by any amount | `proof: small`; after the build: `host_faults` |
//! | read-only, noexec, limit on the size of files, no right to write | `host_faults` |
//! | `current` a directory, dangling, absolute, of another tool, moved by hand | `host_faults`, `locks`, `helper: serve`, `proof: scenarios` |
//! | store object corrupt, cut, altered; sealed release altered; previous release missing | `host_faults`, `rollout_faults`, `unit: plan` |
//! | record, manifest, intent, epoch, journal, helper damaged | `host_faults`, `helper: journal`, `fuzz` |
//! | names that fold to one | `names` |
//! | **D. Build, hooks, activation** | |
//! | hangs, floods, reads stdin, daemonises, ignores TERM, leaves processes, needs the network | `build`, `kill`, `interrupt`, `helper: serve` |
//! | hooks that fail, hang, are interrupted | `hooks` |
//! | umask, locale, odd login shells, noisy start-up files, `sudo` | `build`, `host_faults`, `helper: serve` |
//! | restart fails both ways; check fails in a late wave; deadline; dead man | `rollout_faults`, `barrier`, `helper: serve` |
//! | rollback twice, of a rollback; what is bad is not chosen | `rollback`, `unit: plan`, `proof: kills` |
//! | a fill whose upstream does any of that, two fills, a full disk, another Python | `fills` |
//! | index upstream poisoned, truncated, endless, HTML for JSON, 500, 404, down; file rotted; many at once | `index`, `index_tools`, `index_tunnel` |
//! | **E. Fleet** | |
//! | two deploys on two hosts, a crash at each step | `model` (every state); `locks` |
//! | many that want one host; holder killed, stopped | `proof: races`, `locks`, `helper: freeze` |
//! | some of the fleet fail; budget; a straggler | `fleet`, `barrier` |
//! | wave arithmetic; the unwell first, too few that are well, pauses, failures within the budget | `unit: rollout`, `waves` |
//! | two names for one host; records of a newer version | `bad_input: two_names_…`, `helper: store` |
//! | **Content** | |
//! | hostile names, links, trees, revisions, archives | `names`, `git_export`, `git_resolve`, `fuzz`, `helper: fs`, `unit: tree` |
//! | frames, manifests, journals, configurations, git trees of any bytes | `fuzz` (and `tests/fuzz`) |
//! | **The tests themselves** | |
//! | bugs put into the helper on purpose are found | `proof: bugs`; into what a recovery decides: `helper: recover`, `model` |
//!
//! Not tried here: loss of power and torn writes below the file system (only the order of syncs is: `proof: kills`), errors of a real
//! device, project quotas, `SELinux`, NFS, a real reboot and other clocks (they need root or a machine of their own); 30 % loss and
//! reordering (they need `tc`); another user's processes (they need a second account); overlayfs, btrfs, xfs and ZFS (they need
//! devices); other architectures and kernels. EFBIG is tried and EDQUOT is injected, since quotas need a device as well.
#![expect(clippy::disallowed_methods, reason = "tests start what they look at")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

// What `decide` and `invariants` are written in terms of, here as in the helper.
use deployer::{op, release, tree};

mod all_ways;
mod bad_input;
mod barrier;
mod build;
mod builder;
mod cache;
#[path = "../../src/helper/recover/decide.rs"]
mod decide;
mod deploy;
mod explained;
mod fills;
mod fleet;
mod fuzz;
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
mod kinds;
mod layers;
mod leaving;
mod lines;
mod locks;
mod model;
mod names;
mod once;
mod output;
mod plan;
mod promotion;
mod proxy;
mod readme;
mod recipes;
mod roles;
mod rollback;
mod rollout_faults;
mod run;
mod running;
mod scratch;
mod shell;
mod soak;
mod ssh;
mod ssh_hostile;
mod ssh_lab;
mod ssh_trust;
mod status;
mod tools;
mod typed;
mod upkeep;
mod upstream;
mod uv;
mod waves;
mod whole;
mod windows;
