//! `payload.rs` once more, in a "guest" whose shell and tools are busybox's: what is sent into guests needs nothing else.

#[path = "payload.rs"]
mod payload;
