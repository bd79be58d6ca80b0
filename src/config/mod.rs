//! `deploy.toml`: what may be written in it, and the resolved `Environment` that comes out of it.

pub mod environment;

pub use environment::Environment;
