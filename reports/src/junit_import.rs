//! Imports a suite's JUnit XML as test cases.
//!
//! The guest is hostile: nothing is expanded; nesting, number and size are bounded. Reading is one pass over the text. Bad
//! results count at any depth; good results count only if nothing contradicts them. An unknown word is not a pass.

mod case;
mod element;
mod encoding;
mod totals;

use quick_xml::{
    Reader,
    escape::resolve_predefined_entity,
    events::{BytesRef, BytesStart, Event},
};

use self::{
    case::Case,
    element::{Attributes, Kind, ResultWord},
    totals::Suite,
};
use crate::{TestCase, clean, names::UniqueNames};

/// Maximum number of test cases in one file.
pub const MAX_CASES: usize = 50_000;
/// Maximum nesting of elements.
pub const MAX_DEPTH: usize = 64;
/// Maximum number of warnings about one file, and of flaky tests named.
const MAX_WARNINGS: usize = 10;

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// Its test cases, in its order, with unique names: `classname::name`, or `name` if there is no class name.
    pub cases: Vec<TestCase>,
    /// Warnings for people, one line each; at most a few.
    pub warnings: Vec<String>,
}

/// The file is not valid JUnit XML.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportError {
    /// Its encoding is not supported.
    #[error("encoding {0} cannot be read: write the file in UTF-8")]
    Encoding(String),
    /// It is not well-formed.
    #[error("not well-formed XML at byte {position}: {reason}")]
    Malformed {
        /// Offset in the file, as UTF-8.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// An element has attributes that cannot be read.
    #[error("not well-formed XML: attributes of <{element}>: {reason}")]
    Attributes {
        /// The element.
        element: String,
        /// What is wrong.
        reason: String,
    },
    /// It is truncated.
    #[error("the file ends inside <{element}>: it was cut off")]
    CutOff {
        /// The unclosed element.
        element: String,
    },
    /// It is another kind of file.
    #[error("not JUnit XML: the outermost element is <{found}>{format}, expected <testsuites> or <testsuite>")]
    NotJunit {
        /// Its outermost element.
        found: String,
        /// The kind of file, in brackets, if known.
        format: &'static str,
    },
    /// It is empty.
    #[error("the file holds no XML element")]
    Empty,
    /// It has content beside its outermost element.
    #[error("not well-formed XML: {0} outside of the outermost element (several files in one?)")]
    Outside(&'static str),
    /// It is nested too deeply.
    #[error("elements are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// It has too many test cases.
    #[error("more than {MAX_CASES} test cases")]
    TooMany,
}

/// Reads the test cases of a file.
///
/// A file without test cases gives an empty list; the caller decides what that means. A failure outside of any test case becomes
/// a failed case named after its suite, and so do totals of a suite with more failures than its cases have.
///
/// # Errors
///
/// See [`ImportError`]; such a file must not be used.
pub fn parse(xml: &[u8]) -> Result<Imported, ImportError> {
    let (text, replaced) = encoding::decode(xml).map_err(ImportError::Encoding)?;
    let mut reader = Reader::from_str(&text);
    let mut import = Import::default();
    if replaced {
        import.warn("bytes that are invalid in its encoding were replaced");
    }
    loop {
        let event = reader.read_event().map_err(|error| ImportError::Malformed {
            position: reader.error_position(),
            reason: clean::line(&error.to_string()),
        })?;
        match event {
            Event::Start(element) => import.open(&element)?,
            Event::Empty(element) => {
                import.open(&element)?;
                import.close()?;
            }
            Event::End(_) => import.close()?,
            Event::Text(text) => import.text(&text)?,
            Event::CData(text) => import.text(&text)?,
            Event::GeneralRef(reference) => import.reference(&reference)?,
            // Entity declarations are not read, so nothing can be expanded.
            Event::DocType(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return import.end(),
        }
    }
}

/// The state of reading.
#[derive(Debug, Default)]
struct Import {
    open: Vec<Open>,
    suites: Vec<Suite>,
    /// In the order of their start tags.
    cases: Vec<Case>,
    /// Depth of the element whose text is being collected, and the index of its case.
    collecting: Option<(usize, usize)>,
    /// The outermost element has ended.
    over: bool,
    warnings: Vec<String>,
    more_warnings: usize,
    flaky: Vec<String>,
}

/// An open element.
#[derive(Debug)]
struct Open {
    name: String,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Suite,
    /// The case with this index, and the number of its failures.
    Case(usize, u64),
    /// Its content belongs to an earlier try.
    Flaky,
    Other,
}

impl Import {
    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), ImportError> {
        let qualified = element.name();
        let name = clean::line(qualified.as_ref());
        let kind = element::kind(qualified.as_ref());
        if self.open.len() >= MAX_DEPTH {
            return Err(ImportError::TooDeep);
        }
        if self.over {
            return Err(ImportError::Outside("a second element"));
        }
        if self.open.is_empty() && kind != Kind::Suite {
            let format = element::format(qualified.as_ref());
            return Err(ImportError::NotJunit { found: name, format });
        }
        let is = match kind {
            Kind::Suite => {
                self.suites.push(Suite::of(&Attributes::of(element)?));
                Is::Suite
            }
            Kind::Case => Is::Case(self.push(Case::of(&Attributes::of(element)?))?, 0),
            Kind::Result(said) => {
                self.result(said, &Attributes::of(element)?)?;
                Is::Other
            }
            Kind::Flaky => {
                if let Some(Open { is: Is::Case(place, _), .. }) = self.innermost_case() {
                    let place = *place;
                    self.cases[place].flaky = true;
                }
                Is::Flaky
            }
            Kind::Other => Is::Other,
        };
        self.open.push(Open { name, is });
        Ok(())
    }

    /// A result belongs to the innermost test case around it, or else to its suite.
    fn result(&mut self, said: ResultWord, attributes: &Attributes) -> Result<(), ImportError> {
        let depth = self.open.len();
        let inside = self.open.iter().rev().take_while(|open| !matches!(open.is, Is::Case(..)));
        if inside.clone().any(|open| open.is == Is::Flaky) {
            return Ok(());
        }
        let place = match self.innermost_case() {
            Some(Open { is: Is::Case(place, failures), .. }) => {
                *failures += u64::from(said == ResultWord::Failed);
                *place
            }
            _ => {
                let name = self.suites.last().map(|suite| suite.name.clone()).filter(|name| !name.is_empty());
                let place = self.push(Case::named(name.unwrap_or_else(|| "[suite]".to_owned())))?;
                if let Some(suite) = self.suites.last_mut() {
                    // Not one of the test cases that the suite counts.
                    suite.found.failures += u64::from(said == ResultWord::Failed);
                    suite.found.skipped += u64::from(said == ResultWord::Skipped);
                }
                place
            }
        };
        if self.cases[place].enter(said, attributes) {
            self.collecting = Some((depth, place));
        }
        Ok(())
    }

    fn innermost_case(&mut self) -> Option<&mut Open> {
        self.open.iter_mut().rev().find(|open| matches!(open.is, Is::Case(..)))
    }

    fn push(&mut self, case: Case) -> Result<usize, ImportError> {
        if self.cases.len() >= MAX_CASES {
            return Err(ImportError::TooMany);
        }
        self.cases.push(case);
        Ok(self.cases.len() - 1)
    }

    fn close(&mut self) -> Result<(), ImportError> {
        let Some(Open { is, .. }) = self.open.pop() else { return Ok(()) };
        self.over = self.open.is_empty();
        if self.collecting.is_some_and(|(depth, _)| depth == self.open.len()) {
            self.collecting = None;
        }
        match is {
            Is::Case(place, failures) => {
                let said = self.cases[place].worst();
                if self.cases[place].flaky && said == ResultWord::Passed {
                    self.flaky.push(self.cases[place].name().to_owned());
                }
                if let Some(suite) = self.suites.last_mut() {
                    suite.own_tests += 1;
                    suite.add(said, failures);
                }
            }
            Is::Suite => self.close_suite()?,
            Is::Flaky | Is::Other => {}
        }
        Ok(())
    }

    fn close_suite(&mut self) -> Result<(), ImportError> {
        let Some(mut suite) = self.suites.pop() else { return Ok(()) };
        let judgement = suite.judge();
        let name = if suite.name.is_empty() { "[suite]".to_owned() } else { suite.name.clone() };
        for warning in judgement.warnings {
            self.warn(&format!("suite {name}: {warning}"));
        }
        if let Some(message) = judgement.failure {
            let mut case = Case::named(name.clone());
            case.fail(format!("suite {name}: {message}"));
            self.push(case)?;
        }
        if let Some(outer) = self.suites.last_mut() {
            outer.join(suite.found);
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), ImportError> {
        if self.open.is_empty() && !text.trim().is_empty() {
            return Err(ImportError::Outside("text"));
        }
        if let Some((_, place)) = self.collecting {
            self.cases[place].text(text);
        }
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), ImportError> {
        let character = reference.resolve_char_ref().ok().flatten().map(String::from);
        let text = character.or_else(|| resolve_predefined_entity(reference).map(str::to_owned));
        self.text(&text.unwrap_or_else(|| format!("&{};", &**reference)))
    }

    fn warn(&mut self, warning: &str) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(clean::line(warning));
        } else {
            self.more_warnings += 1;
        }
    }

    fn end(mut self) -> Result<Imported, ImportError> {
        if let Some(open) = self.open.pop() {
            return Err(ImportError::CutOff { element: open.name });
        }
        if !self.over {
            return Err(ImportError::Empty);
        }
        if !self.flaky.is_empty() {
            let named = self.flaky.iter().take(MAX_WARNINGS).cloned().collect::<Vec<_>>().join(", ");
            let more = if self.flaky.len() > MAX_WARNINGS { ", ..." } else { "" };
            let count = crate::human::count(self.flaky.len(), "test case");
            self.warn(&format!("{count} passed only when retried: {named}{more}"));
        }
        if self.more_warnings > 0 {
            self.warnings.push(format!("{} more of this kind", self.more_warnings));
        }
        let mut names = UniqueNames::default();
        let cases = self.cases.into_iter().map(|case| case.finish(&mut names)).collect();
        Ok(Imported { cases, warnings: self.warnings })
    }
}

#[cfg(test)]
mod tests;
