//! The tests of `payload` once more, in a "guest" whose shell and tools are busybox's: what is sent into guests needs nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "payload/collecting.rs"]
mod collecting;
#[path = "payload/endings.rs"]
mod endings;
#[path = "payload/guest.rs"]
mod guest;
#[path = "payload/results.rs"]
mod results;
mod sshd;
#[path = "payload/uploads.rs"]
mod uploads;
