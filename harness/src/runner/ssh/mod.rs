//! A machine that one can log in to as the place where guests run.
//!
//! ```text
//! place    opens it, brings images, closes it      machine  with our program there: what it is sent, how it answers (upload.sh)
//! words    what OpenSSH says, and what helps       probe    what the machine is and has (probe.sh)
//!                                                  client   the system's OpenSSH client, one connection for all commands
//! ```

mod client;
mod machine;
mod place;
mod probe;
mod words;

pub(crate) use client::{Pinned, Way};
pub(crate) use place::{SshEngine, SshPlace, look};
pub(crate) use probe::{Found, Kvm};
