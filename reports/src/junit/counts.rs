//! The counts that junit-report does not write: skipped cases of each suite, and the totals of all suites.

use junit_report::{Duration, TestSuite};
use quick_xml::{
    Reader, Writer,
    events::{BytesStart, Event},
};

/// junit-report's `xml` of these suites, with attributes for their counts added.
pub(super) fn add(xml: &str, suites: &[TestSuite]) -> quick_xml::Result<Vec<u8>> {
    let mut reader = Reader::from_str(xml);
    let mut writer = Writer::new(Vec::with_capacity(xml.len()));
    let mut written = suites.iter();
    loop {
        let event = match reader.read_event()? {
            Event::Start(tag) => Event::Start(counted(tag, suites, &mut written)),
            Event::Empty(tag) => Event::Empty(counted(tag, suites, &mut written)),
            Event::Eof => return Ok(writer.into_inner()),
            other => other,
        };
        writer.write_event(event)?;
    }
}

/// A start tag with its counts; `written` is at the suite of the next tag.
fn counted<'xml, 'suites>(
    mut tag: BytesStart<'xml>,
    suites: &[TestSuite],
    written: &mut impl Iterator<Item = &'suites TestSuite>,
) -> BytesStart<'xml> {
    let total = |of: fn(&TestSuite) -> usize| suites.iter().map(of).sum::<usize>().to_string();
    match tag.name().as_ref() {
        // Without `skipped`: the schema of Jenkins' xUnit plugin does not allow it here.
        "testsuites" => tag.extend_attributes([
            ("tests", total(TestSuite::tests).as_str()),
            ("errors", &total(TestSuite::errors)),
            ("failures", &total(TestSuite::failures)),
            ("time", &suites.iter().map(TestSuite::time).sum::<Duration>().as_seconds_f64().to_string()),
        ]),
        "testsuite" => {
            let skipped = written.next().map(|suite| suite.skipped().to_string());
            tag.extend_attributes(skipped.iter().map(|count| ("skipped", count.as_str())))
        }
        _ => &mut tag,
    };
    tag
}

#[cfg(test)]
mod tests {
    use junit_report::{Report, TestCaseBuilder, TestSuiteBuilder};

    use super::*;

    #[test]
    fn counts_are_added_and_nothing_else_is_changed() {
        let hostile = "</testsuite><testsuite tests=\"9\"> & ]]]]><![CDATA[> \n\t <!-- é";
        let mut failed = TestCaseBuilder::failure(hostile, Duration::milliseconds(1_500), "test", hostile);
        failed.set_trace(hostile).set_system_out(hostile);
        let skipped = TestCaseBuilder::skipped_with_cause("b", "skipped", hostile);
        let mut report = Report::new();
        report.add_testsuite(TestSuiteBuilder::new("empty").build());
        report.add_testsuite(TestSuiteBuilder::new("full").add_testcases([failed.build(), skipped.build()]).build());
        let mut xml = Vec::new();
        report.write_xml(&mut xml).expect("written");
        let xml = String::from_utf8(xml).expect("UTF-8");
        let counted = String::from_utf8(add(&xml, report.testsuites()).expect("well-formed")).expect("UTF-8");
        let totals = " tests=\"2\" errors=\"0\" failures=\"1\" time=\"1.5\">";
        assert!(counted.contains(&format!("<testsuites{totals}")), "{counted}");
        assert!(counted.contains("time=\"0\" skipped=\"0\"/>"), "{counted}");
        assert!(counted.contains("time=\"1.5\" skipped=\"1\">"), "{counted}");
        let without = counted.replace(totals, ">").replace(" skipped=\"0\"", "").replace(" skipped=\"1\"", "");
        assert_eq!(without, xml);
    }
}
