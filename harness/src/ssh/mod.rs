//! SSH to a guest: keys, the wait for its first words, and one session to run commands over.
//!
//! libssh2 (crate `ssh2`) is a library of blocking calls around one lock, so one operating-system thread owns each session and
//! drives it without ever blocking in it; everybody else talks to that thread. Every wait has a deadline and can be
//! cancelled. The guest is hostile: its host key is pinned, its output capped, its silence noticed.

mod banner;
mod channel;
mod enter;
mod error;
mod exec;
mod keeper;
pub mod keys;
mod login;
mod offer;
mod pump;
mod session;
mod sink;
mod wake;
mod wire;

pub use banner::{BannerError, BannerStream, banner};
pub use enter::command_to_enter;
pub use error::SshError;
pub use exec::{End, Exec, Exit, Stdin, StdinWriter, Until};
pub use keys::{Keys, LOGIN_FILES};
pub use session::{Open, Session};
pub use sink::{DEFAULT_CAP, Sink, TAIL_BYTES};
