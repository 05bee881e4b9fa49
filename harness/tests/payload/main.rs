//! Upload, suite and collection against a real SSH server on loopback; its "guest" is this machine, in a folder of its own.
//!
//! `payload_busybox.rs` is the same in a "guest" that has busybox for its tools.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod collecting;
mod endings;
mod guest;
mod results;
#[path = "../sshd/mod.rs"]
mod sshd;
mod uploads;
