//! What a template is worth, after what became of its forks. Pure.

use std::sync::atomic::{AtomicU32, Ordering};

/// That many forks in a row, from the first one on, are not bad luck.
const HOPELESS: u32 = 3;
/// What counts instead once a fork did its work.
const PROVED: u32 = u32::MAX;

/// Counts forks that failed, until one did its work; then none counts any more.
#[derive(Debug, Default)]
pub(super) struct FailureCounter(AtomicU32);

impl FailureCounter {
    /// A fork did its work.
    pub(super) fn earned(&self) {
        self.0.store(PROVED, Ordering::Relaxed);
    }

    /// A fork failed. True: so many did, and no fork ever worked, that the template must be to blame.
    pub(super) fn failed_too_often(&self) -> bool {
        let counted = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failures| {
            (failures != PROVED).then(|| (failures + 1).min(HOPELESS))
        });
        counted.is_ok_and(|before| before + 1 >= HOPELESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_that_fail_and_none_that_works_are_the_templates_fault() {
        let failures = FailureCounter::default();
        assert_eq!([(); 4].map(|()| failures.failed_too_often()), [false, false, true, true]);
        let failures = FailureCounter::default();
        assert!(!failures.failed_too_often());
        failures.earned();
        assert_eq!([(); 4].map(|()| failures.failed_too_often()), [false; 4], "what worked once is not to blame");
    }
}
