//! The three stages of a deploy, and how a command's output becomes events.

pub mod capture;
pub mod likeness;
pub mod local;
pub mod output;
pub mod remote;
pub mod transfer;
