//! The three stages of a deploy, and how a command's output becomes events.

pub mod cache;
pub mod capture;
pub mod fill;
pub mod likeness;
pub mod local;
pub mod output;
pub mod remote;
pub mod transfer;
