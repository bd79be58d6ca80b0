//! `deployer` turns a git revision into the active release of many hosts, in three stages: **local stage**, **transfer stage**,
//! **remote stage**. This is the map; a module imports only from its own layer and from layers below.
//!
//! The helper, the host's end of the pipe, is a program of its own in `src/helper/`; it shares `op`, `release`, `tree` and `wire`.

// Edge: arguments in, text and exit code out.

/// The command line.
pub mod cli;
/// One file a verb: wires config, plan, stages and report.
pub mod command;
/// Events as text: terminal, log, NDJSON, the run store, and the screens of the commands.
pub mod report;

// Work.

/// The same work on many hosts.
pub mod fleet;
/// One host with its open session: requests in, answers and streams out.
pub mod host;
/// Packages for hosts without internet: a caching proxy of the indexes.
pub mod index;
/// The hosts that `deploy.toml` leaves to others: a file, a program, Ansible, the ssh config.
pub mod inventory;
/// Download caches of hosts: filled, compared, completed.
pub mod provision;
/// Waves, barrier, budget: pure decisions.
pub mod rollout;
/// The three stages of a deploy.
pub mod stage;

// Doors: the only code that touches the world.

/// One file that carries a revision and what its build needs to another site.
pub mod carry;
/// Mirrors, resolves and exports git revisions.
pub mod git;
/// Throwaway hosts and a sample project, for the demo, the tests and the benchmark.
pub mod sandbox;
/// What opens a byte pipe to a host, and puts a helper at its other end.
pub mod session;
/// What this machine keeps for the download caches of hosts.
pub mod shelf;
/// Walks a directory of this machine into a manifest.
pub mod walk;
/// Frames and messages of the byte pipe to a helper.
pub mod wire;

// Words: no I/O, no clock.

/// `deploy.toml`: what may be written, and the resolved environment.
pub mod config;
/// The error that reaches a person.
pub mod error;
/// The one event stream.
pub mod event;
/// The exit codes.
pub mod exit;
/// Bytes, counts and durations for people.
pub mod figures;
/// What can be asked of a host, and what it answers.
pub mod op;
/// Environment, wanted release and facts in, a plan out.
pub mod plan;
/// What a kind of project needs to be built offline, as data.
pub mod recipe;
/// Release ids, states, records, and where things lie on a host.
pub mod release;
/// Paths, digests and manifests of trees.
pub mod tree;
/// Deploy windows: when an environment may be deployed to.
pub mod window;
