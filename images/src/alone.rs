//! Tests that must not run at the same time.
//!
//! From fork to exec a process holds copies of all open files of its parent, and with them their locks. So while any test starts
//! a process, every other test's locks seem to be held a moment longer than they are.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// While this is held, no other test locks files or starts processes.
pub(crate) type Alone = MutexGuard<'static, ()>;

/// Waits for the turn. Not reentrant.
pub(crate) fn alone() -> Alone {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
