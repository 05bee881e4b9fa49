//! How many tests run guests at a time: two, for the smallest machine these tests run on has two CPUs and a guest has one.
//!
//! None has to be alone: time limits grow with the CPU time that a guest was measured to take, and are several times that.

use std::{
    cell::Cell,
    sync::{Condvar, Mutex, PoisonError},
};

static FREE: Mutex<u32> = Mutex::new(2);
static GIVEN_BACK: Condvar = Condvar::new();

thread_local! {
    /// The test of this thread has one.
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// The right to run guests, until it is dropped.
pub(crate) struct Place(());

impl Place {
    /// Waits for one. A test has one at a time: two tests that wait for their second would wait for ever.
    pub(crate) fn take() -> Self {
        assert!(!TAKEN.replace(true), "this test has a place already: drop its other lab first");
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = GIVEN_BACK.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.set(false);
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        GIVEN_BACK.notify_one();
    }
}
