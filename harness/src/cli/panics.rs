//! A panic is a defect of ours: wherever it happens, what this process says afterwards must not be green.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::atomic::{AtomicBool, Ordering},
};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Remembers every panic, on any thread, and what it says.
pub(super) fn watch() {
    let usual = take_hook();
    set_hook(Box::new(move |panic| {
        HAPPENED.store(true, Ordering::SeqCst);
        usual(panic);
    }));
}

/// What comes of this; `None`: a panic.
pub(super) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    // Nothing of it is looked at afterwards.
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// The exit code: 0 only if nothing panicked anywhere.
pub(super) fn judged(code: u8) -> u8 {
    if !HAPPENED.load(Ordering::SeqCst) {
        return code;
    }
    say!("nestmatrix: internal error (panic, see above): this is a defect of nestmatrix, please report it");
    if code == 0 { 3 } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_panic_on_any_thread_nothing_is_green() {
        assert_eq!((judged(0), judged(1)), (0, 1));
        watch();
        assert_eq!(caught(|| 5), Some(5));
        assert_eq!(judged(0), 0);
        let thread = std::thread::spawn(|| panic!("a panic that this test wants"));
        assert!(thread.join().is_err());
        assert_eq!([0, 1, 2, 130].map(judged), [3, 1, 2, 130]);
        assert_eq!(caught(|| panic!("another one that this test wants")), None::<()>);
    }
}
