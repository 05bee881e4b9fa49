//! What goes wrong, and when.

use std::time::Duration;

use super::refusal::Refusal;

/// What happens to a request instead of what should.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is refused, nothing is done.
    Refuse(Refusal),
    /// It is done, and then refused.
    DoAndRefuse(Refusal),
    /// The connection ends, nothing is done.
    Cut,
    /// It is done, and then the connection ends.
    DoAndCut,
    /// It is done, and then answered with what is no answer.
    DoAndGarble,
    /// It is done, and answered later.
    DoAndDelay(Duration),
    /// It is served later.
    Delay(Duration),
}

/// What is to happen yet.
#[derive(Default)]
pub(super) struct Faults(Vec<(String, usize, Fault)>);

impl Faults {
    /// Stands for every method.
    pub(super) const ANY: &str = "*";

    /// `nth`: how many requests of the method from now; the next one is the first.
    pub(super) fn add(&mut self, method: &str, nth: usize, fault: Fault) {
        self.0.push((method.to_owned(), nth.max(1), fault));
    }

    /// What is due at this request; the first one of several.
    pub(super) fn due(&mut self, method: &str) -> Option<Fault> {
        let mut due = None;
        self.0.retain_mut(|(of, nth, fault)| {
            if of != method && of != Self::ANY {
                return true;
            }
            *nth -= 1;
            if *nth > 0 {
                return true;
            }
            due.get_or_insert_with(|| fault.clone());
            false
        });
        due
    }
}
