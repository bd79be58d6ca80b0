//! The helper: the host's end of the byte pipe.

#[path = "../op.rs"]
mod op;
#[path = "../release.rs"]
mod release;
#[path = "../tree/mod.rs"]
mod tree;
#[path = "../wire/mod.rs"]
mod wire;

fn main() {}
