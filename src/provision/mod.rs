//! What offline builds are made of: caches on hosts, and the fill that finds out what belongs in one.

pub mod cache;
pub mod fill;
