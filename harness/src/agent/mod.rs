//! The other end of an L1: this program, running there as `nestmatrix agent`.
//!
//! `protocol` is what both sides say, `brief` what the agent is given, `serve` the agent itself, which runs the very fan-out
//! that the host runner runs; `files` brings logs and artifacts back, `link` is our side of the line.

pub(crate) mod brief;
mod files;
mod link;
pub mod protocol;
mod serve;

pub(crate) use files::Received;
pub(crate) use link::{Broken, Link};
pub use serve::serve;
