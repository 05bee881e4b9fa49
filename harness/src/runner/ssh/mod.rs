//! A machine that one can log in to as the place where guests run.
//!
//! ```text
//! place    opens it, brings images, closes it      client   the system's OpenSSH client, one connection for all commands
//! words    what OpenSSH says, and what helps       probe    what the machine is and has (probe.sh)
//! ```

mod client;
mod place;
mod probe;
mod words;

pub(crate) use place::{SshPlace, look};
pub(crate) use probe::{Found, Kvm};
