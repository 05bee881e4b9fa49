//! Rebooting a guest from the inside, so that it shuts down as it does for anybody; and whether a script has announced that it does.

use std::time::Instant;

use super::{guarded::guard, words};
use crate::ssh::{End, Exec, Session, SshError, Stdin};

/// What to do where a script announced a reboot that did not come.
pub const NO_REBOOT: &str =
    "write to the file NESTMATRIX_MARK only in a run that reboots the guest; each such write announces a reboot";

/// What every system has, and what some have instead.
const REBOOT: &str = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; sync; reboot || shutdown -r now || systemctl reboot";

/// Tells the guest to reboot. It may be gone before it answers. `Some`: it does not, in its own words.
///
/// # Errors
///
/// The connection's, which a guest that goes down closes, or the cancellation.
pub async fn reboot(session: &Session, deadline: Instant) -> Result<Option<String>, SshError> {
    let exit = session.exec(Exec::new(REBOOT, Stdin::None, deadline)).await?;
    // What is killed meanwhile is killed by the reboot.
    Ok(matches!(exit.end, End::Exited(1..128)).then(|| words::last_lines(&exit.stderr_tail, 3).join("; ")))
}

/// Whether the uploaded script announced in its last run that it reboots its guest. What is not known was not announced.
///
/// # Errors
///
/// The connection's, which a guest that goes down closes, or the cancellation.
pub async fn announced(session: &Session, deadline: Instant) -> Result<bool, SshError> {
    Ok(session.exec(Exec::new(guard("announced -"), Stdin::None, deadline)).await?.success())
}
