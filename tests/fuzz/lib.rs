//! The targets as a library, so that each of the binaries is one line.

// The journal's own module names it so.
use deployer::release;

mod targets;

pub use targets::{config, frames, git_tree, journal, journal_frames, manifest};
