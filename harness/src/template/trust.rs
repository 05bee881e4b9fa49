//! What a template is worth, after what became of its forks. Pure.

use std::sync::atomic::{AtomicU32, Ordering};

/// That many forks in a row, from the first one on, are not bad luck.
const HOPELESS: u32 = 3;
/// What counts instead once a fork did its work.
const PROVED: u32 = u32::MAX;

/// Forks that came to nothing, until one did its work; then none counts any more.
#[derive(Debug, Default)]
pub(super) struct Trust(AtomicU32);

impl Trust {
    /// A fork did its work.
    pub(super) fn earned(&self) {
        self.0.store(PROVED, Ordering::Relaxed);
    }

    /// A fork came to nothing. True: so many did, and never another, that the template must be to blame.
    pub(super) fn disappointed(&self) -> bool {
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
        let trust = Trust::default();
        assert_eq!([(); 4].map(|()| trust.disappointed()), [false, false, true, true]);
        let trust = Trust::default();
        assert!(!trust.disappointed());
        trust.earned();
        assert_eq!([(); 4].map(|()| trust.disappointed()), [false; 4], "what worked once is not to blame");
    }
}
