//! That a host survives anything: the helper is killed at every call by which it changes a disk, each of its calls fails, the disk is
//! full at any point; and bugs that are put into it on purpose are found by what finds nothing in the real one.
//!
//! Needs the feature `faults`. How much is tried is decided by `DEPLOYER_PROOF`: `some` (a part that is different in every run, and is
//! told) or `all`. A part of it can be tried again with the seed that was told: `DEPLOYER_PROOF_SEED=…`.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside, as a neighbour would")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bugs;
#[expect(dead_code, reason = "shared with other tests of the helper")]
#[path = "../client/mod.rs"]
mod client;
mod controller;
mod failures;
mod invariants;
mod kills;
#[expect(dead_code, reason = "these tests build nothing from an index")]
#[path = "../../../op/mod.rs"]
mod op;
mod races;
#[expect(dead_code, reason = "the layout is the helper's")]
#[path = "../../../release.rs"]
mod release;
mod scenarios;
mod small;
mod tracer;
#[expect(dead_code, reason = "these tests need a manifest and no more")]
#[path = "../../../tree/mod.rs"]
mod tree;
#[expect(dead_code, reason = "these tests keep no time")]
#[path = "../../../wire/mod.rs"]
mod wire;
