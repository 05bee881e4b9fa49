//! Compares a suite's totals with its content.
//!
//! A program that dies while writing, a converter that loses an element, a filter: only the totals show what is missing. So
//! totals are never believed to be good news, and always to be bad news.

use super::{
    case::said,
    element::{Attributes, ResultWord},
};

/// The content of a suite, at any depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) tests: u64,
    /// Test cases that failed.
    pub(super) failed: u64,
    /// Failure elements: some writers count them, and a test case may have several.
    pub(super) failures: u64,
    pub(super) skipped: u64,
}

/// An open `<testsuites>` or `<testsuite>`.
#[derive(Debug)]
pub(super) struct Suite {
    /// Its name; empty if it has none.
    pub(super) name: String,
    /// At any depth.
    pub(super) found: Found,
    /// Test cases that are directly in it.
    pub(super) own_tests: u64,
    tests: Option<u64>,
    failures: u64,
    skipped: u64,
    /// Its own statement that it failed as a whole.
    failed: Option<String>,
    /// Totals that are not numbers.
    unreadable: Vec<String>,
}

/// A total that is not a number, and yet means that there are some: `1,000`, or an absurdly large one.
fn is_some(total: &str) -> bool {
    total.contains(|c: char| ('1'..='9').contains(&c)) && !total.starts_with('-')
}

/// A finding about a suite that has been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Its totals have failures that none of its test cases has.
    pub(super) failure: Option<String>,
    /// Its totals are wrong.
    pub(super) warnings: Vec<String>,
}

impl Suite {
    pub(super) fn of(attributes: &Attributes) -> Self {
        let mut unreadable = Vec::new();
        let mut number = |name: &str| {
            let text = attributes.text(name)?;
            let number = text.parse::<f64>().ok().filter(|number| (0.0..1e9).contains(number));
            if number.is_none() {
                unreadable.push(format!("{name}=\"{text}\" is not a number"));
            }
            number.map(|number| number.ceil() as u64)
        };
        let mut bad = |name: &str| {
            number(name).unwrap_or_else(|| u64::from(attributes.text(name).is_some_and(|total| is_some(&total))))
        };
        let (failures, errors) = (bad("failures"), bad("errors"));
        // Different names of the same total.
        let skipped = ["skipped", "disabled", "ignored", "skips"].map(|name| number(name).unwrap_or(0));
        let tests = number("tests");
        let of_verdict = |name: &str| matches!(name, "status" | "result" | "outcome" | "success");
        let whole = Attributes::from_iter(attributes.all().filter(|(name, _)| of_verdict(name)));
        Self {
            name: attributes.text("name").unwrap_or_default(),
            found: Found::default(),
            own_tests: 0,
            tests,
            failures: failures.saturating_add(errors),
            skipped: skipped.into_iter().max().unwrap_or(0),
            failed: said(&whole).filter(|(said, _)| *said == ResultWord::Failed).map(|(_, words)| words),
            unreadable,
        }
    }

    /// Adds a test case.
    pub(super) fn add(&mut self, said: ResultWord, failures: u64) {
        self.found.tests += 1;
        self.found.failures += failures;
        match said {
            ResultWord::Failed | ResultWord::Unknown => self.found.failed += 1,
            ResultWord::Skipped => self.found.skipped += 1,
            ResultWord::Passed => {}
        }
    }

    /// Compares its totals with its content. [`Suite::found`] is then what outer suites should count: a difference is reported
    /// once.
    pub(super) fn judge(&mut self) -> Findings {
        let Found { tests, failed, failures, skipped } = self.found;
        let mut judgement = Findings { failure: None, warnings: std::mem::take(&mut self.unreadable) };
        let passed = tests.saturating_sub(failed).saturating_sub(skipped);
        let failing = failed.max(failures);
        if failing == 0 && self.failures > 0 {
            judgement.failure = Some(format!("its totals say {} failed, and no test case in it did", self.failures));
        } else if failing == 0
            && let Some(words) = &self.failed
        {
            judgement.failure = Some(format!("it says {words}, and no test case in it failed"));
        } else if failing == 0 && passed > 0 && self.tests.is_some_and(|tests| tests > 0 && self.skipped >= tests) {
            judgement.failure =
                Some(format!("its totals say that all {} were skipped, and {passed} passed", self.skipped));
        } else if self.failures > failing {
            judgement.warnings.push(format!("it says that {} failed, and {failing} did", self.failures));
        }
        if self.skipped > skipped {
            judgement.warnings.push(format!("it says that {} were skipped, and {skipped} were", self.skipped));
        }
        // Some writers count inner suites, others do not.
        if let Some(told) = self.tests.filter(|told| *told != tests && *told != self.own_tests) {
            judgement.warnings.push(format!("it says that it has {told} test cases, and {tests} are there"));
        }
        self.found.tests = tests.max(self.tests.unwrap_or(0));
        self.found.failures = failures.max(self.failures);
        self.found.skipped = skipped.max(self.skipped);
        judgement
    }

    /// Adds the content of an inner suite.
    pub(super) fn join(&mut self, inner: Found) {
        self.found.tests += inner.tests;
        self.found.failed += inner.failed;
        self.found.failures += inner.failures;
        self.found.skipped += inner.skipped;
    }
}
