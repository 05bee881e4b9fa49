//! What goes over SSH, against a real server on loopback: sessions, and what is sent into guests and fetched from them.
//!
//! The "guest" of the latter is this machine, in a folder of its own. One program for all of it: most of these tests wait, for a server or for
//! a time limit, and so they do at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod payload;
mod session;
#[path = "../sshd/mod.rs"]
mod sshd;

/// The tests of `payload` once more, in a "guest" whose shell and tools are busybox's: what is sent into guests needs nothing else.
#[path = "payload/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests with other tools")]
mod payload_busybox;
