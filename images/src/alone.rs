//! Tests that must not run beside each other.
//!
//! A process holds copies of all open files of its parent, and with them their locks, from fork to exec. So while any test
//! starts a process, every other test's locks seem to be held a moment longer than they are.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// For as long as this is held no other test locks files or starts processes.
pub(crate) type Alone = MutexGuard<'static, ()>;

/// Waits for the turn. Whoever has it must not ask again.
pub(crate) fn alone() -> Alone {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
