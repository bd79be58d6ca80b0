//! Trees as data: paths, digests and manifests. Shared by both ends of the pipe; no I/O.

pub mod digest;
pub mod manifest;
pub mod path;

pub use digest::Digest;
pub use manifest::{Entry, Kind, Manifest};
pub use path::TreePath;
