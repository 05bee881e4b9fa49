//! How many tests run guests at a time: two, for the smallest machine these tests run on has two CPUs and a guest has one.
//!
//! None has to be alone: time limits grow with the CPU time that a guest was measured to take, and are several times that.

use std::sync::{Condvar, Mutex, PoisonError};

static FREE: Mutex<u32> = Mutex::new(2);
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to run guests, until it is dropped.
pub(crate) struct Place(());

impl Place {
    /// Waits for one.
    pub(crate) fn take() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = GIVEN_BACK.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        GIVEN_BACK.notify_one();
    }
}
