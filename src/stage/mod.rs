//! The stages of a deploy.

pub mod local;
