//! One test case of a results file: the worst of its attributes and elements.

use super::element::{Attributes, ResultWord};
use crate::{CaseVerdict, TestCase, clean, fold::MAX_DETAIL, names::UniqueNames};

/// Maximum length of a failure's text that is kept while reading, in bytes.
const MAX_TEXT: usize = 256 << 10;

/// A test case in progress.
#[derive(Debug, Default)]
pub(super) struct Case {
    name: String,
    elapsed_ms: u64,
    file: Option<String>,
    line: Option<u64>,
    /// The result in its own attributes, and its words.
    said: Option<(ResultWord, String)>,
    /// The worst result of its elements.
    element: Option<Element>,
    /// It failed at first, and passed when it was retried.
    pub(super) flaky: bool,
}

/// A `<failure>` or `<skipped>` in a test case.
#[derive(Debug)]
struct Element {
    said: ResultWord,
    message: Option<String>,
    kind: Option<String>,
    text: String,
}

impl Case {
    /// The case of a `<testcase>`.
    pub(super) fn of(attributes: &Attributes) -> Self {
        let name = attributes.text("name").unwrap_or_else(|| "[unnamed]".to_owned());
        let class = attributes.text("classname");
        Self {
            name: class.map_or(name.clone(), |class| clean::line(&format!("{class}::{name}"))),
            elapsed_ms: attributes.text("time").map_or(0, |time| milliseconds(&time)),
            file: attributes.text("file"),
            line: attributes.text("line").and_then(|line| line.parse().ok()),
            said: said(attributes),
            ..Self::default()
        }
    }

    /// A case for a result outside of all test cases.
    pub(super) fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Adds a result element; returns whether its text is wanted.
    pub(super) fn enter(&mut self, said: ResultWord, attributes: &Attributes) -> bool {
        let outweighs = self.element.as_ref().is_none_or(|known| known.said < said);
        if outweighs {
            let (message, kind) = (attributes.text("message"), attributes.text("type"));
            self.element = Some(Element { said, message, kind, text: String::new() });
        }
        outweighs
    }

    /// Adds a failure without an element.
    pub(super) fn fail(&mut self, message: String) {
        self.element =
            Some(Element { said: ResultWord::Failed, message: Some(message), kind: None, text: String::new() });
    }

    /// Appends text to the last added element.
    pub(super) fn text(&mut self, text: &str) {
        if let Some(element) = &mut self.element {
            let room = MAX_TEXT.saturating_sub(element.text.len());
            element.text.push_str(clean::prefix(text, room));
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The worst result; a case without any passed.
    pub(super) fn worst(&self) -> ResultWord {
        let (said, element) = (self.said.as_ref().map(|(said, _)| *said), self.element.as_ref().map(|of| of.said));
        said.max(element).unwrap_or(ResultWord::Passed)
    }

    /// The finished test case, under a unique name.
    pub(super) fn finish(self, names: &mut UniqueNames) -> TestCase {
        let worst = self.worst();
        // An element has priority over an attribute.
        let (message, detail) = match (self.element, self.said) {
            (Some(element), _) if element.said == worst => element.words(),
            (_, Some((ResultWord::Unknown, words))) => {
                (format!("unknown result {words}: not counted as a pass"), String::new())
            }
            (_, Some((_, words))) => (words, String::new()),
            (_, None) => Default::default(),
        };
        let verdict = match worst {
            ResultWord::Passed => CaseVerdict::Passed,
            ResultWord::Skipped if message.is_empty() => {
                CaseVerdict::Skipped { reason: "no reason given by the suite".to_owned() }
            }
            ResultWord::Skipped => CaseVerdict::Skipped { reason: message },
            ResultWord::Unknown | ResultWord::Failed if message.is_empty() => {
                CaseVerdict::Failed { message: "failed without a message".to_owned(), detail }
            }
            ResultWord::Unknown | ResultWord::Failed => CaseVerdict::Failed { message, detail },
        };
        TestCase { name: names.take(self.name), verdict, elapsed_ms: self.elapsed_ms, file: self.file, line: self.line }
    }
}

impl Element {
    /// One line, and all of it. For a failure without a message the first line is more informative than its type.
    fn words(self) -> (String, String) {
        let detail = clean::excerpt(self.text.trim(), MAX_DETAIL);
        let first_line = || detail.lines().map(clean::line).find(|line| !line.is_empty());
        let message = self.message.or_else(first_line).or(self.kind).unwrap_or_default();
        (message, detail)
    }
}

/// The worst result in the attributes, and its words; `None`: they have none.
///
/// GoogleTest writes `status="notrun" result="suppressed"`, CTest `status="run
/// fail
/// disabled
/// notrun"`, others their own words.
pub(super) fn said(attributes: &Attributes) -> Option<(ResultWord, String)> {
    let mut worst: Option<(ResultWord, String)> = None;
    for (name, value) in attributes.all() {
        let said = match name {
            "status" | "result" | "outcome" => word(value),
            "success" | "passed" if is_no(value) => Some(ResultWord::Failed),
            "executed" if is_no(value) => Some(ResultWord::Skipped),
            "failed" | "failure" | "failures" | "error" | "errors" if is_yes(value) => Some(ResultWord::Failed),
            "skip" | "skipped" | "ignored" | "disabled" if is_yes(value) => Some(ResultWord::Skipped),
            _ => None,
        };
        if let Some(said) = said
            && worst.as_ref().is_none_or(|(known, _)| *known < said)
        {
            worst = Some((said, format!("{name}=\"{value}\"")));
        }
    }
    worst
}

/// The meaning of a result word; `None`: it is empty.
fn word(value: &str) -> Option<ResultWord> {
    let word: String = value.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).flat_map(char::to_lowercase).collect();
    Some(match word.as_str() {
        "" => return None,
        "pass" | "passed" | "passing" | "success" | "successful" | "succeeded" | "ok" | "run" | "ran" | "executed"
        | "complete" | "completed" | "done" | "finished" | "fixed" | "true" => ResultWord::Passed,
        "skip" | "skipped" | "notrun" | "notexecuted" | "suppressed" | "disabled" | "ignore" | "ignored"
        | "pending" | "todo" | "inactive" | "excluded" | "deselected" | "filtered" | "unsupported" | "inconclusive"
        | "incomplete" | "notapplicable" | "omitted" | "xfail" | "blacklisted" => ResultWord::Skipped,
        "fail" | "failed" | "failure" | "error" | "errored" | "broken" | "timeout" | "timedout" | "crash"
        | "crashed" | "abort" | "aborted" | "killed" | "xpass" | "false" => ResultWord::Failed,
        _ => ResultWord::Unknown,
    })
}

fn is_no(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "false" | "no" | "0")
}

fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "yes")
        || value.parse::<f64>().is_ok_and(|number| number > 0.0)
}

/// Seconds with a fraction as milliseconds; anything but a number is 0.
///
/// Surefire groups thousands (`1,234.5`), and many writers use the decimal comma of their locale (`0,160`; `1.234,5`): of two
/// different marks the last one is the decimal one, a repeated mark groups, and a single one is decimal.
fn milliseconds(seconds: &str) -> u64 {
    let seconds: String = seconds.chars().filter(|c| !c.is_whitespace() && *c != '\'').collect();
    let decimal = match (seconds.rfind(','), seconds.rfind('.')) {
        (Some(comma), Some(dot)) => Some(comma.max(dot)),
        (Some(mark), None) | (None, Some(mark)) => Some(mark),
        (None, None) => None,
    };
    // The last mark groups as well if it is repeated.
    let decimal = decimal.filter(|at| seconds.matches(&seconds[*at..=*at]).count() == 1);
    let plain = seconds.char_indices().filter_map(|(at, c)| match c {
        ',' | '.' if decimal == Some(at) => Some('.'),
        ',' | '.' => None,
        _ => Some(c),
    });
    let seconds: f64 = plain.collect::<String>().parse().unwrap_or(0.0);
    // The cast saturates; not-a-number becomes 0.
    (seconds * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_locales_are_seconds() {
        for (text, ms) in [
            ("0.25", 250),
            ("0,160", 160),
            ("1,234.5", 1_234_500),
            ("1.234,5", 1_234_500),
            ("1,234,567.25", 1_234_567_250),
            ("1,234,567", 1_234_567_000),
            ("1 234,5", 1_234_500),
            ("1\u{202f}234,5", 1_234_500),
            ("1'234.5", 1_234_500),
            ("1.6e-05", 0),
            ("12", 12_000),
            ("", 0),
            (",", 0),
        ] {
            assert_eq!(milliseconds(text), ms, "{text}");
        }
    }

    #[test]
    fn absurd_times_are_survived() {
        let shown = ["1e308", "-1", "NaN", "inf", "soon", "€,é"].map(milliseconds);
        assert_eq!(shown, [u64::MAX, 0, 0, u64::MAX, 0, 0]);
    }
}
