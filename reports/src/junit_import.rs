//! JUnit XML that a suite left in its guest, as test cases.
//!
//! The guest is hostile: nothing is expanded, nesting, number and size are bounded, and whatever the file says about its own
//! totals is ignored. Reading is one pass over the text.

use quick_xml::{
    Reader,
    escape::{resolve_predefined_entity, unescape},
    events::{BytesRef, BytesStart, Event},
};

use crate::{CaseVerdict, TestCase, clean, names::UniqueNames};

/// Most test cases in one file.
pub const MAX_CASES: usize = 50_000;
/// Deepest nesting of elements.
pub const MAX_DEPTH: usize = 64;
/// Longest text of one failure that is kept while reading, in bytes.
const MAX_TEXT: usize = 256 << 10;

/// The file is no JUnit XML that can be believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportError {
    /// It is not well-formed.
    #[error("not well-formed XML at byte {position}: {reason}")]
    Malformed {
        /// Offset in the file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// It ends in the middle.
    #[error("the file ends inside <{element}>: it was cut off")]
    CutOff {
        /// The element that never ends.
        element: String,
    },
    /// It is some other kind of file.
    #[error("the outermost element is <{found}>, expected <testsuites> or <testsuite>")]
    NotJunit {
        /// What there is.
        found: String,
    },
    /// There is nothing in it.
    #[error("the file holds no XML element")]
    Empty,
    /// It is nested too deeply.
    #[error("elements are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// It holds too much.
    #[error("more than {MAX_CASES} test cases")]
    TooMany,
}

/// Reads the test cases of a file, in its order, with unique names: `classname::name`, or `name` if there is no class name.
///
/// A file without test cases gives an empty list; whoever asked for results decides what that means. A failure outside of any
/// test case becomes a failed case named after its suite.
///
/// # Errors
///
/// See [`ImportError`]; nothing of such a file should be believed.
pub fn parse(xml: &[u8]) -> Result<Vec<TestCase>, ImportError> {
    let text = String::from_utf8_lossy(xml);
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut import = Import::default();
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
            Event::Text(text) => import.text(&text),
            Event::CData(text) => import.text(&text),
            Event::GeneralRef(reference) => import.reference(&reference),
            // Declarations of entities are not read, so there is nothing that could be expanded.
            Event::DocType(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return import.end(),
        }
    }
}

/// Where reading stands.
#[derive(Debug, Default)]
struct Import {
    /// Names of the open elements.
    open: Vec<String>,
    /// Names of the open suites.
    suites: Vec<String>,
    /// The open test case, and the depth of its element.
    case: Option<(Case, usize)>,
    /// Depth of the open failure, error or skip whose text is being collected.
    collecting: Option<usize>,
    cases: Vec<TestCase>,
    names: UniqueNames,
    any: bool,
}

#[derive(Debug, Default)]
struct Case {
    name: String,
    elapsed_ms: u64,
    file: Option<String>,
    line: Option<u64>,
    result: Option<(Kind, String)>,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Skipped,
}

impl Import {
    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), ImportError> {
        let qualified = element.name();
        let name = clean::line(qualified.as_ref());
        if self.open.len() >= MAX_DEPTH {
            return Err(ImportError::TooDeep);
        }
        if self.open.is_empty() && !matches!(name.as_str(), "testsuites" | "testsuite") {
            return Err(ImportError::NotJunit { found: name });
        }
        self.any = true;
        match name.as_str() {
            "testsuite" => self.suites.push(attribute(element, "name").unwrap_or_default()),
            "testcase" if self.case.is_none() => self.case = Some((Case::of(element), self.open.len())),
            "failure" | "error" => self.result(element, Kind::Failed),
            "skipped" | "disabled" => self.result(element, Kind::Skipped),
            _ => {}
        }
        self.open.push(name);
        Ok(())
    }

    /// A result is only one directly inside its test case (others belong to a rerun), or outside of all.
    fn result(&mut self, element: &BytesStart<'_>, kind: Kind) {
        let depth = self.open.len();
        if self.case.is_none() && kind == Kind::Failed {
            let suite = self.suites.last().filter(|suite| !suite.is_empty());
            let name = suite.cloned().unwrap_or_else(|| "[suite]".to_owned());
            self.case = Some((Case { name, ..Case::default() }, depth));
        }
        let Some((case, case_depth)) = &mut self.case else { return };
        let outranks = match &case.result {
            None => true,
            Some((known, _)) => *known == Kind::Skipped && kind == Kind::Failed,
        };
        if outranks && depth <= *case_depth + 1 {
            let message = attribute(element, "message").or_else(|| attribute(element, "type"));
            case.result = Some((kind, message.unwrap_or_default()));
            case.text.clear();
            self.collecting = Some(depth);
        }
    }

    fn close(&mut self) -> Result<(), ImportError> {
        let name = self.open.pop().unwrap_or_default();
        let depth = self.open.len();
        if name == "testsuite" {
            self.suites.pop();
        }
        if self.collecting == Some(depth) {
            self.collecting = None;
        }
        if let Some((case, _)) = self.case.take_if(|(_, case_depth)| *case_depth == depth) {
            if self.cases.len() >= MAX_CASES {
                return Err(ImportError::TooMany);
            }
            self.cases.push(case.finish(&mut self.names));
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if let (Some(_), Some((case, _))) = (self.collecting, &mut self.case) {
            let room = MAX_TEXT.saturating_sub(case.text.len());
            case.text.push_str(clean::prefix(text, room));
        }
    }

    fn reference(&mut self, reference: &BytesRef<'_>) {
        let character = reference.resolve_char_ref().ok().flatten().map(String::from);
        let text = character.or_else(|| resolve_predefined_entity(reference).map(str::to_owned));
        self.text(&text.unwrap_or_else(|| format!("&{};", &**reference)));
    }

    fn end(self) -> Result<Vec<TestCase>, ImportError> {
        match self.open.last() {
            Some(element) => Err(ImportError::CutOff { element: element.clone() }),
            None if !self.any => Err(ImportError::Empty),
            None => Ok(self.cases),
        }
    }
}

impl Case {
    fn of(element: &BytesStart<'_>) -> Self {
        let name = attribute(element, "name").filter(|name| !name.is_empty()).unwrap_or_else(|| "[unnamed]".to_owned());
        let class = attribute(element, "classname").filter(|class| !class.is_empty());
        Self {
            name: class.map_or(name.clone(), |class| clean::line(&format!("{class}::{name}"))),
            elapsed_ms: attribute(element, "time").map_or(0, |time| milliseconds(&time)),
            file: attribute(element, "file").filter(|file| !file.is_empty()),
            line: attribute(element, "line").and_then(|line| line.parse().ok()),
            result: None,
            text: String::new(),
        }
    }

    fn finish(self, names: &mut UniqueNames) -> TestCase {
        let detail = clean::excerpt(self.text.trim(), crate::fold::MAX_DETAIL);
        let first_line = || clean::line(detail.lines().find(|line| !line.trim().is_empty()).unwrap_or_default());
        let verdict = match self.result {
            None => CaseVerdict::Passed,
            Some((kind, message)) => {
                let message = if message.is_empty() { first_line() } else { message };
                match kind {
                    Kind::Failed if message.is_empty() => {
                        CaseVerdict::Failed { message: "failed without a message".to_owned(), detail }
                    }
                    Kind::Failed => CaseVerdict::Failed { message, detail },
                    Kind::Skipped if message.is_empty() => {
                        CaseVerdict::Skipped { reason: "no reason given by the suite".to_owned() }
                    }
                    Kind::Skipped => CaseVerdict::Skipped { reason: message },
                }
            }
        };
        TestCase { name: names.take(self.name), verdict, elapsed_ms: self.elapsed_ms, file: self.file, line: self.line }
    }
}

/// An attribute as a clean line. A value with unknown or broken references is taken as it is written.
fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    // Without checks: a name that comes twice is not worth an error, and looking for it is quadratic.
    let mut attributes = element.attributes();
    let found = attributes.with_checks(false).flatten().find(|attribute| attribute.key.as_ref() == name)?;
    Some(clean::line(&unescape(&found.value).unwrap_or_else(|_| found.value.clone())))
}

/// Seconds with a fraction (some writers group thousands with commas) as milliseconds.
fn milliseconds(seconds: &str) -> u64 {
    let seconds: f64 = seconds.replace(',', "").parse().unwrap_or(0.0);
    // The cast saturates; not-a-number becomes 0.
    (seconds * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(xml: &str) -> Vec<String> {
        parse(xml.as_bytes()).expect("well-formed").into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn cases_of_nested_suites_are_read_in_order_with_their_verdicts() {
        let xml = r#"<?xml version="1.0"?><testsuites><testsuite name="s" tests="99" failures="0">
            <testcase classname="greet" name="says hello" time="0.25" file="t.sh" line="7"/>
            <testsuite name="inner"><testcase name="fails" time="1,000.5">
                <failure message="expected &lt;1&gt;">line 1<![CDATA[ <&> ]]>&amp;&#x41;&unknown;</failure>
                <system-out>noise</system-out>
            </testcase></testsuite>
            <testcase name="skips"><skipped message="no bus"/></testcase>
            <testcase name="breaks"><error type="Panic"/></testcase>
        </testsuite></testsuites>"#;
        let cases = parse(xml.as_bytes()).expect("well-formed");
        let shown: Vec<String> = cases.iter().map(|case| format!("{case:?}")).collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        TestCase { name: "greet::says hello", verdict: Passed, elapsed_ms: 250, file: Some("t.sh"), line: Some(7) }
        TestCase { name: "fails", verdict: Failed { message: "expected <1>", detail: "line 1 <&> &A&unknown;" }, elapsed_ms: 1000500, file: None, line: None }
        TestCase { name: "skips", verdict: Skipped { reason: "no bus" }, elapsed_ms: 0, file: None, line: None }
        TestCase { name: "breaks", verdict: Failed { message: "Panic", detail: "" }, elapsed_ms: 0, file: None, line: None }
        "#);
    }

    #[test]
    fn equal_names_are_numbered() {
        let xml = r#"<testsuite><testcase name="a"/><testcase name="a"/><testcase classname="a" name="b"/><testcase/></testsuite>"#;
        assert_eq!(names(xml), ["a", "a (2)", "a::b", "[unnamed]"]);
    }

    #[test]
    fn a_failure_outside_of_any_case_is_not_lost() {
        let cases = parse(b"<testsuite name='setup'><error message='no database'/></testsuite>").expect("well-formed");
        assert_eq!(cases[0].name, "setup");
        assert!(matches!(&cases[0].verdict, CaseVerdict::Failed { message, .. } if message == "no database"));
    }

    #[test]
    fn a_failed_case_stays_failed_whatever_else_is_said_of_it() {
        let xml = b"<testsuite><testcase name='a'><skipped/><failure message='no'/><skipped/>\
            <rerunFailure><failure message='other'/></rerunFailure></testcase></testsuite>";
        let cases = parse(xml).expect("well-formed");
        assert!(matches!(&cases[0].verdict, CaseVerdict::Failed { message, .. } if message == "no"));
    }

    #[test]
    fn a_file_that_was_cut_off_is_not_believed() {
        let cut = parse(b"<testsuite><testcase name='a'/><testcase name='b'>");
        assert_eq!(cut, Err(ImportError::CutOff { element: "testcase".to_owned() }));
        assert_eq!(parse(b"  "), Err(ImportError::Empty));
        assert_eq!(parse(b"<html/>"), Err(ImportError::NotJunit { found: "html".to_owned() }));
        assert!(matches!(parse(b"<testsuite></wrong>"), Err(ImportError::Malformed { .. })));
    }

    #[test]
    fn entities_are_never_expanded() {
        let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
            <testsuite><testcase name="&b;"><failure>&b;</failure></testcase></testsuite>"#;
        let cases = parse(bomb.as_bytes()).expect("well-formed");
        assert_eq!(cases[0].name, "&b;");
        assert!(matches!(&cases[0].verdict, CaseVerdict::Failed { detail, .. } if detail == "&b;"));
    }

    #[test]
    fn depth_and_number_are_bounded() {
        assert_eq!(parse("<testsuite>".repeat(1_000).as_bytes()), Err(ImportError::TooDeep));
        let many = format!("<testsuite>{}</testsuite>", "<testcase name='a'/>".repeat(MAX_CASES + 1));
        assert_eq!(parse(many.as_bytes()), Err(ImportError::TooMany));
    }

    #[test]
    fn absurd_times_are_survived() {
        for time in ["1e308", "-1", "NaN", "inf", "soon"] {
            let xml = format!("<testsuite><testcase name='a' time='{time}'/></testsuite>");
            assert_eq!(parse(xml.as_bytes()).expect("well-formed").len(), 1);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_cases_or_an_error(xml in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&xml);
        }

        #[test]
        fn any_markup_gives_cases_or_an_error(parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "<testsuite>", "</testsuite>", "<testcase name='a'>", "</testcase>", "<failure>", "</failure>", "<skipped/>",
                "<![CDATA[", "]]>", "&lt;", "&", "<!--", "-->", "<?x?>", "<!DOCTYPE a>", "text", "<a b=", "'", ">",
            ]), 0..40)) {
            let _ = parse(parts.concat().as_bytes());
        }
    }
}
