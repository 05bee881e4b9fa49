//! Optional colours. Never the only carrier of a meaning.

use crate::Outcome;

/// Paints or does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    color: bool,
}

impl Paint {
    pub(super) const fn new(color: bool) -> Self {
        Self { color }
    }

    fn sgr(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// In the colour of an outcome.
    pub(super) fn outcome(self, outcome: Outcome, text: &str) -> String {
        let code = match outcome {
            Outcome::Passed => "1;32",
            Outcome::Failed => "1;31",
            Outcome::Error => "1;33",
            Outcome::NotRun => "1;35",
            Outcome::Skipped => "1;34",
        };
        self.sgr(code, text)
    }

    /// For notices.
    pub(super) fn notice(self, text: &str) -> String {
        self.sgr("33", text)
    }

    /// For unimportant text.
    pub(super) fn dim(self, text: &str) -> String {
        self.sgr("2", text)
    }

    /// For headings.
    pub(super) fn bold(self, text: &str) -> String {
        self.sgr("1", text)
    }
}
