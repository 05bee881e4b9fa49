//! The elements of JUnit XML and their attributes, as far as they affect a verdict.

use quick_xml::{escape::unescape, events::BytesStart};

use super::ImportError;
use crate::clean;

/// Maximum number of attributes of one element; real ones have about ten.
const MAX_ATTRIBUTES: usize = 64;

/// A result of a test case. A later one outweighs an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ResultWord {
    /// It passed.
    Passed,
    /// It did not run.
    Skipped,
    /// An unknown word: no pass.
    Unknown,
    /// It failed.
    Failed,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `<testsuites>` or `<testsuite>`.
    Suite,
    /// `<testcase>`.
    Case,
    /// A result of the surrounding test case, or else of the suite.
    Result(ResultWord),
    /// Surefire's element for a failed try of a test that passed when it was retried.
    Flaky,
    /// Anything else.
    Other,
}

/// The meaning of an element. Names are compared without prefix and case: a `<Failure>` is one.
pub(super) fn kind(name: &str) -> Kind {
    match local(name).to_ascii_lowercase().as_str() {
        "testsuites" | "testsuite" => Kind::Suite,
        "testcase" => Kind::Case,
        "failure" | "error" | "fail" | "failed" | "rerunfailure" | "rerunerror" => Kind::Result(ResultWord::Failed),
        "skipped" | "skip" | "disabled" | "ignored" | "pending" | "notrun" => Kind::Result(ResultWord::Skipped),
        "flakyfailure" | "flakyerror" => Kind::Flaky,
        _ => Kind::Other,
    }
}

/// The kind of file with this outermost element, in words; empty if unknown.
pub(super) fn format(name: &str) -> &'static str {
    match local(name) {
        "assemblies" | "assembly" => " (results of xUnit.net)",
        "TestRun" => " (TRX, results of Visual Studio)",
        "test-run" => " (results of NUnit 3)",
        "test-results" => " (results of NUnit 2)",
        "testng-results" => " (results of TestNG)",
        "robot" => " (output of Robot Framework; its option `--xunit` writes JUnit XML)",
        "Site" => " (results of CTest for a dashboard; its option `--output-junit` writes JUnit XML)",
        "TestLog" | "TestResult" => " (a log of Boost.Test; its `--log_format=JUNIT` writes JUnit XML)",
        "Catch" | "Catch2TestRun" => " (Catch2's own format; its `--reporter junit` writes JUnit XML)",
        "doctest" => " (doctest's own format; its `--reporters=junit` writes JUnit XML)",
        "testrun" => " (a test run exported by Eclipse)",
        "testExecutions" => " (test executions for SonarQube)",
        "coverage" | "report" => " (a coverage report?)",
        "checkstyle" => " (findings of a linter)",
        "html" => " (a web page)",
        _ => "",
    }
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// The attributes of one element, as clean lines.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// Reads all of them. A value with unknown or broken references is taken literally.
    pub(super) fn of(element: &BytesStart<'_>) -> Result<Self, ImportError> {
        let bad = |reason: String| {
            let element = clean::line(element.name().as_ref());
            ImportError::Attributes { element, reason: clean::line(&reason) }
        };
        let mut known: Vec<(String, String)> = Vec::new();
        // Checked here, because it bounds the number first.
        for attribute in element.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| bad(error.to_string()))?;
            let name = clean::line(local(attribute.key.as_ref()));
            if known.len() >= MAX_ATTRIBUTES {
                return Err(bad(format!("more than {MAX_ATTRIBUTES}")));
            }
            // It is undefined which of the two counts.
            if known.iter().any(|(other, _)| *other == name) {
                return Err(bad(format!("`{name}` appears twice")));
            }
            let value = clean::line(&unescape(&attribute.value).unwrap_or_else(|_| attribute.value.clone()));
            known.push((name, value));
        }
        Ok(Self(known))
    }

    /// An attribute; `None` if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.clone())
    }

    /// Name and value of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(all: I) -> Self {
        Self(all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}
