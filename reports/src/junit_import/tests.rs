use proptest::prelude::*;

use super::*;
use crate::CaseVerdict;

fn imported(xml: &str) -> Imported {
    parse(xml.as_bytes()).expect("well-formed")
}

fn cases(xml: &str) -> Vec<TestCase> {
    imported(xml).cases
}

/// Name and verdict of each case, as `name: failed: message`.
fn shown(xml: &str) -> Vec<String> {
    let shown = cases(xml).into_iter().map(|case| match case.verdict {
        CaseVerdict::Passed => format!("{}: passed", case.name),
        CaseVerdict::Failed { message, .. } => format!("{}: failed: {message}", case.name),
        CaseVerdict::Skipped { reason } => format!("{}: skipped: {reason}", case.name),
    });
    shown.collect()
}

/// What the only case of a suite comes to.
fn of(case: &str) -> String {
    let shown = shown(&format!("<testsuite>{case}</testsuite>"));
    let [one] = &shown[..] else { panic!("{shown:?}") };
    one.strip_prefix("a: ").expect("its name").to_owned()
}

#[test]
fn cases_of_nested_suites_are_read_in_order_with_their_verdicts() {
    let xml = r#"<?xml version="1.0"?><testsuites><testsuite name="s" tests="4" failures="1" errors="1" skipped="1">
        <testcase classname="greet" name="says hello" time="0.25" file="t.sh" line="7"/>
        <testsuite name="inner"><testcase name="fails" time="1,000.5">
            <failure message="expected &lt;1&gt;">line 1<![CDATA[ <&> ]]>&amp;&#x41;&unknown;</failure>
            <system-out>noise</system-out>
        </testcase></testsuite>
        <testcase name="skips"><skipped message="no bus"/></testcase>
        <testcase name="breaks"><error type="Panic"/></testcase>
    </testsuite></testsuites>"#;
    let Imported { cases, warnings } = imported(xml);
    let shown: Vec<String> = cases.iter().map(|case| format!("{case:?}")).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    TestCase { name: "greet::says hello", verdict: Passed, elapsed_ms: 250, file: Some("t.sh"), line: Some(7) }
    TestCase { name: "fails", verdict: Failed { message: "expected <1>", detail: "line 1 <&> &A&unknown;" }, elapsed_ms: 1000500, file: None, line: None }
    TestCase { name: "skips", verdict: Skipped { reason: "no bus" }, elapsed_ms: 0, file: None, line: None }
    TestCase { name: "breaks", verdict: Failed { message: "Panic", detail: "" }, elapsed_ms: 0, file: None, line: None }
    "#);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn equal_names_are_numbered() {
    let xml = r#"<testsuite><testcase name="a"/><testcase name="a"/><testcase classname="a" name="b"/><testcase/></testsuite>"#;
    let names: Vec<_> = cases(xml).into_iter().map(|case| case.name).collect();
    assert_eq!(names, ["a", "a (2)", "a::b", "[unnamed]"]);
}

#[test]
fn a_case_that_says_it_did_not_run_is_skipped_for_that_reason() {
    // GoogleTest.
    assert_eq!(
        of(r#"<testcase name="a" status="notrun" result="suppressed" time="0,160"/>"#),
        r#"skipped: status="notrun""#
    );
    assert_eq!(
        of(r#"<testcase name="a" status="run" result="skipped"><skipped message="no GPU"/></testcase>"#),
        "skipped: no GPU"
    );
    assert_eq!(of(r#"<testcase name="a" status="run" result="completed"/>"#), "passed");
    // CTest.
    assert_eq!(of(r#"<testcase name="a" status="disabled"/>"#), r#"skipped: status="disabled""#);
    assert_eq!(
        of(r#"<testcase name="a" status="disabled"><disabled message="Disabled"/></testcase>"#),
        "skipped: Disabled"
    );
    // Others.
    for word in ["skipped", "Skipped", "NOT RUN", "not_run", "ignored", "pending", "inactive", "todo"] {
        assert_eq!(of(&format!(r#"<testcase name="a" status="{word}"/>"#)), format!("skipped: status=\"{word}\""));
    }
    for attribute in [r#"executed="False""#, r#"skipped="true""#, r#"ignored="1""#] {
        assert_eq!(of(&format!("<testcase name='a' {attribute}/>")), format!("skipped: {attribute}"));
    }
    for element in ["skipped", "skip", "ignored", "disabled", "j:skipped", "Skipped"] {
        assert_eq!(of(&format!("<testcase name='a'><{element}/></testcase>")), "skipped: no reason given by the suite");
    }
    for words in ["", r#"status="""#, r#"status="passed""#, r#"result="OK" skipped="false" failures="0""#] {
        assert_eq!(of(&format!("<testcase name='a' {words}/>")), "passed", "{words}");
    }
}

#[test]
fn a_case_that_says_it_failed_is_no_pass_even_without_a_failure_in_it() {
    for attribute in [
        r#"status="fail""#,
        r#"status="FAILED""#,
        r#"result="error""#,
        r#"outcome="timed out""#,
        r#"success="false""#,
        r#"failures="1""#,
        r#"errors="1.0""#,
    ] {
        assert_eq!(of(&format!("<testcase name='a' {attribute}/>")), format!("failed: {attribute}"));
        let skipped = format!("<testcase name='a' {attribute}><skipped message='no'/></testcase>");
        assert_eq!(of(&skipped), format!("failed: {attribute}"));
    }
    assert_eq!(of(r#"<testcase name="a" status="passed"><failure message="no"/></testcase>"#), "failed: no");
    assert_eq!(of(r#"<testcase name="a" status="skipped"><failure message="no"/></testcase>"#), "failed: no");
}

#[test]
fn a_result_that_is_not_known_is_no_pass() {
    let expected = r#"failed: unknown result status="frobnicated": not counted as a pass"#;
    assert_eq!(of(r#"<testcase name="a" status="frobnicated"/>"#), expected);
    assert_eq!(of(r#"<testcase name="a" status="frobnicated"><skipped message="no"/></testcase>"#), expected);
    assert!(of(r#"<testcase name="a" status="&pass;"/>"#).starts_with("failed"));
}

#[test]
fn the_reason_of_a_failure_without_a_message_is_its_first_line_and_only_then_its_type() {
    let phpunit = "<testcase name='a'><failure type='PHPUnit\\Framework\\ExpectationFailedException'>\n  \n GreetTest::testHello\n\
                   Failed asserting that false is true.\n</failure></testcase>";
    assert_eq!(of(phpunit), "failed: GreetTest::testHello");
    assert_eq!(
        of("<testcase name='a'><failure type='failure'>(in test file t.bats, line 3)</failure></testcase>"),
        "failed: (in test file t.bats, line 3)"
    );
    assert_eq!(of("<testcase name='a'><failure type='T' message='said'>text</failure></testcase>"), "failed: said");
    assert_eq!(of("<testcase name='a'><failure type='T' message=''> </failure></testcase>"), "failed: T");
    assert_eq!(of("<testcase name='a'><failure/></testcase>"), "failed: failed without a message");
    assert_eq!(of("<testcase name='a'><skipped>no bus</skipped></testcase>"), "skipped: no bus");
}

#[test]
fn a_failure_counts_at_any_depth() {
    let nested =
        "<testsuite><testcase name='a'><testcase name='b'><failure message='no'/></testcase></testcase></testsuite>";
    assert_eq!(shown(nested), ["a: passed", "b: failed: no"]);
    assert_eq!(of("<testcase name='a'><results><failure message='no'/></results></testcase>"), "failed: no");
    assert_eq!(of("<testcase name='a'><system-out>x<error message='no'/></system-out></testcase>"), "failed: no");
    assert_eq!(
        of("<testcase name='a'><rerunFailure message='no'><stackTrace/></rerunFailure></testcase>"),
        "failed: no"
    );
    assert_eq!(of("<testcase name='a'><j:Failure message='no'/></testcase>"), "failed: no");
    let deep =
        format!("{}<testcase name='a'><failure/></testcase>{}", "<testsuite>".repeat(40), "</testsuite>".repeat(40));
    assert_eq!(shown(&deep), ["a: failed: failed without a message"]);
}

#[test]
fn a_result_outside_of_any_case_is_not_lost() {
    assert_eq!(
        shown("<testsuite name='setup'><error message='no database'/></testsuite>"),
        ["setup: failed: no database"]
    );
    assert_eq!(shown("<testsuites><failure/></testsuites>"), ["[suite]: failed: failed without a message"]);
    assert_eq!(shown("<testsuite name='s'><skipped message='no bus'/></testsuite>"), ["s: skipped: no bus"]);
    // It accounts for what the totals say.
    let xml = "<testsuite name='s' tests='1' errors='1'><testcase name='a'/><error message='teardown'/></testsuite>";
    assert_eq!(shown(xml), ["a: passed", "s: failed: teardown"]);
    assert_eq!(imported(xml).warnings, [""; 0]);
}

#[test]
fn a_failed_case_stays_failed_whatever_else_is_said_of_it() {
    let xml = "<testcase name='a'><skipped/><failure message='no'/><skipped/>\
        <rerunFailure><failure message='other'/></rerunFailure></testcase>";
    assert_eq!(of(xml), "failed: no");
}

#[test]
fn a_test_that_passed_only_when_tried_again_is_named() {
    let flaky = "<testsuite tests='2' failures='0'><testcase name='a'>\
        <flakyFailure message='no' type='T'><stackTrace>x</stackTrace><failure/></flakyFailure></testcase>\
        <testcase name='b'><flakyError/><failure message='no'/></testcase></testsuite>";
    assert_eq!(shown(flaky), ["a: passed", "b: failed: no"]);
    assert_eq!(imported(flaky).warnings, ["1 test case passed only when retried: a"]);
}

#[test]
fn totals_that_tell_of_failures_which_no_case_has_are_a_failure() {
    let one = "<testcase name='a'/>";
    assert_eq!(
        shown(&format!("<testsuite name='s' tests='1' failures='2'>{one}</testsuite>")),
        ["a: passed", "s: failed: suite s: its totals say 2 failed, and no test case in it did"]
    );
    // Told once, where it is; and again only where there is more.
    for (outer, failed) in [("failures='1'", 1), ("errors='1'", 1), ("tests='1'", 1), ("status='failed'", 1)] {
        let xml = format!("<testsuites {outer}><testsuite errors='1'>{one}</testsuite></testsuites>");
        let shown = shown(&xml);
        assert_eq!(shown.iter().filter(|case| case.contains(": failed: ")).count(), failed, "{outer}: {shown:?}");
    }
    assert!(
        shown(&format!("<testsuites failures='1'><testsuite>{one}</testsuite></testsuites>"))[1]
            .contains("say 1 failed")
    );
    assert!(shown(&format!("<testsuite result='Failed'>{one}</testsuite>"))[1].contains("it says result=\"Failed\""));
    assert!(
        shown(&format!("<testsuite tests='1' skipped='1'>{one}</testsuite>"))[1].contains("that all 1 were skipped")
    );
    for fine in ["failures='0'", "failures=''", "tests='1' errors='0' skipped='0'", "status='run'", "status='1'"] {
        let xml = format!("<testsuite {fine}>{one}</testsuite>");
        assert_eq!((shown(&xml), imported(&xml).warnings), (vec!["a: passed".to_owned()], vec![]), "{fine}");
    }
}

#[test]
fn totals_that_do_not_add_up_are_a_warning() {
    let inside = "<testcase name='a'/><testcase name='b'><failure/></testcase>";
    let warnings = |totals: &str| imported(&format!("<testsuite name='s' {totals}>{inside}</testsuite>")).warnings;
    assert_eq!(warnings("tests='3'"), ["suite s: it says that it has 3 test cases, and 2 are there"]);
    assert_eq!(warnings("failures='2'"), ["suite s: it says that 2 failed, and 1 did"]);
    assert_eq!(warnings("skipped='1'"), ["suite s: it says that 1 were skipped, and 0 were"]);
    assert_eq!(warnings("failures='many'"), ["suite s: failures=\"many\" is not a number"]);
    // Whether suites in it count differs between writers; and what is missing in one of them is missing once.
    for tests in [2, 3] {
        let xml =
            format!("<testsuite tests='{tests}'>{inside}<testsuite tests='1'><testcase/></testsuite></testsuite>");
        assert_eq!(imported(&xml).warnings, [""; 0], "{tests}");
    }
    let xml = format!("<testsuites tests='7'><testsuite tests='7' name='s'>{inside}</testsuite></testsuites>");
    assert_eq!(imported(&xml).warnings, ["suite s: it says that it has 7 test cases, and 2 are there"]);
    let many = format!("<testsuites>{}</testsuites>", "<testsuite tests='1'/>".repeat(100));
    assert_eq!(imported(&many).warnings.len(), MAX_WARNINGS + 1);
}

#[test]
fn a_file_that_was_cut_off_is_not_believed() {
    let cut = parse(b"<testsuite><testcase name='a'/><testcase name='b'>");
    assert_eq!(cut, Err(ImportError::CutOff { element: "testcase".to_owned() }));
    assert_eq!(parse(b"  "), Err(ImportError::Empty));
    assert_eq!(parse(b""), Err(ImportError::Empty));
    assert_eq!(parse(b"<!-- <testsuite/> -->"), Err(ImportError::Empty));
    assert!(matches!(parse(b"<testsuite></wrong>"), Err(ImportError::Malformed { .. })));
    let whole = "<testsuite tests='1'><testcase name='a'><failure><![CDATA[x]]></failure></testcase></testsuite>";
    for cut in 1..whole.len() {
        assert!(parse(&whole.as_bytes()[..cut]).is_err(), "{}", &whole[..cut]);
    }
}

#[test]
fn a_file_of_another_kind_is_named() {
    let error = |xml: &str| parse(xml.as_bytes()).expect_err("no JUnit XML").to_string();
    assert_eq!(
        error("<assemblies/>"),
        "not JUnit XML: the outermost element is <assemblies> (results of xUnit.net), expected <testsuites> or <testsuite>"
    );
    assert!(error("<TestRun xmlns='x'/>").contains("TRX"));
    assert!(error("<test-run/>").contains("NUnit 3"));
    assert!(error("<html/>").contains("<html> (a web page)"));
    assert!(error("<thing/>").contains("<thing>, expected"));
    assert!(error("<testcase name='a'/>").contains("<testcase>, expected"));
}

#[test]
fn a_file_that_is_not_well_formed_is_not_believed() {
    let element = || "testcase".to_owned();
    for (xml, reason) in [
        ("<testsuite><testcase name='a' status='run' status='fail'/></testsuite>", "`status` appears twice"),
        ("<testsuite><testcase name='a' status=fail/></testsuite>", ""),
        ("<testsuite><testcase name='a' failed/></testsuite>", ""),
    ] {
        match parse(xml.as_bytes()) {
            Err(ImportError::Attributes { element: named, reason: why }) => {
                assert!(named == element() && why.contains(reason), "{why}");
            }
            other => panic!("{xml}: {other:?}"),
        }
    }
    let many: String = (0..70).map(|number| format!("a{number}='' ")).collect();
    assert!(parse(format!("<testsuite {many}/>").as_bytes()).is_err());
    assert_eq!(
        parse(b"<testsuite/><testsuite><testcase><failure/></testcase></testsuite>"),
        Err(ImportError::Outside("a second element"))
    );
    assert_eq!(parse(b"<testsuite/> and more"), Err(ImportError::Outside("text")));
    assert_eq!(parse(b"Building...\n<testsuite/>"), Err(ImportError::Outside("text")));
}

#[test]
fn an_encoding_is_read_or_named() {
    let xml = "<?xml version=\"1.0\" encoding=\"UTF-16\"?><testsuite><testcase name=\"größer\"><failure message=\"ü\"/></testcase></testsuite>";
    let utf16: Vec<u8> = format!("\u{feff}{xml}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin: Vec<u8> = xml.replace("UTF-16", "ISO-8859-1").chars().map(|c| c as u8).collect();
    for bytes in [utf16, latin] {
        let read = parse(&bytes).expect("readable");
        assert_eq!((read.cases[0].name.as_str(), read.warnings.len()), ("größer", 0));
        assert!(matches!(&read.cases[0].verdict, CaseVerdict::Failed { message, .. } if message == "ü"));
    }
    let error = parse(xml.replace("UTF-16", "utf-7").as_bytes()).expect_err("unknown");
    assert_eq!(error.to_string(), "encoding utf-7 cannot be read: write the file in UTF-8");
    let binary = parse(b"<testsuite><testcase name='a'><system-out>\xff\xfe</system-out></testcase></testsuite>");
    assert_eq!(binary.expect("readable").warnings, ["bytes that are invalid in its encoding were replaced"]);
}

#[test]
fn entities_are_never_expanded() {
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
        <testsuite><testcase name="&b;"><failure>&b;</failure></testcase></testsuite>"#;
    assert_eq!(shown(bomb), ["&b;: failed: &b;"]);
}

#[test]
fn depth_and_number_are_bounded() {
    assert_eq!(parse("<testsuite>".repeat(1_000).as_bytes()), Err(ImportError::TooDeep));
    let many = format!("<testsuite>{}</testsuite>", "<testcase name='a'/>".repeat(MAX_CASES + 1));
    assert_eq!(parse(many.as_bytes()), Err(ImportError::TooMany));
    for each in ["<failure/>", "<testsuite failures='1'/>", "<skipped/>"] {
        let many = format!("<testsuite>{}</testsuite>", each.repeat(MAX_CASES + 1));
        assert_eq!(parse(many.as_bytes()), Err(ImportError::TooMany), "{each}");
    }
}

/// Markup in every order.
fn markup() -> impl Strategy<Value = String> {
    let parts = proptest::sample::select(vec![
        "<testsuites>",
        "<testsuite>",
        "</testsuite>",
        "<testsuite failures='1'>",
        "<testsuite tests='9' skipped='9'>",
        "<testcase name='a'>",
        "</testcase>",
        "<testcase status='fail'/>",
        "<testcase result='?'/>",
        "<failure>",
        "</failure>",
        "<skipped/>",
        "<flakyFailure>",
        "</flakyFailure>",
        "<![CDATA[",
        "]]>",
        "&lt;",
        "&",
        "<!--",
        "-->",
        "<?x?>",
        "<!DOCTYPE a>",
        "text",
        "<a b=",
        "'",
        ">",
    ]);
    proptest::collection::vec(parts, 0..40).prop_map(|parts| parts.concat())
}

/// A file as programs write it: suites in suites, test cases with what there is in them, and totals that are right.
fn suite() -> impl Strategy<Value = (String, [u64; 3])> {
    let case = proptest::sample::select(vec![
        ("<testcase name='a'/>", [0, 0]),
        ("<testcase name='b' status='run'><system-out>&lt;failure/></system-out></testcase>", [0, 0]),
        ("<testcase name='c'><failure message='no'>at t.c:3</failure></testcase>", [1, 0]),
        ("<testcase name='d'><error/></testcase>", [1, 0]),
        ("<testcase name='e'><skipped message='no'/></testcase>", [0, 1]),
        ("<testcase name='f' status='disabled'/>", [0, 1]),
    ]);
    let write = |name: &str, inside: Vec<(String, [u64; 3])>| {
        let sum = inside.iter().fold([0; 3], |sum, (_, counts)| std::array::from_fn(|at| sum[at] + counts[at]));
        let inside: String = inside.into_iter().map(|(text, _)| text).collect();
        let [tests, failed, skipped] = sum;
        let totals = format!("tests='{tests}' failures='{failed}' errors='0' skipped='{skipped}'");
        (format!("<{name} {totals}>{inside}</{name}>"), sum)
    };
    let case = case.prop_map(|(text, [failed, skipped])| (text.to_owned(), [1, failed, skipped]));
    let inner = proptest::collection::vec(case, 0..5).prop_map(move |cases| write("testsuite", cases));
    proptest::collection::vec(inner, 1..4).prop_map(move |suites| write("testsuites", suites))
}

fn is_green(xml: &[u8]) -> bool {
    parse(xml).is_ok_and(|read| {
        !read.cases.is_empty() && !read.cases.iter().any(|case| matches!(case.verdict, CaseVerdict::Failed { .. }))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_cases_or_an_error(xml in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&xml);
    }

    #[test]
    fn any_markup_gives_cases_or_an_error_whatever_its_encoding(xml in markup()) {
        let utf16: Vec<u8> = xml.encode_utf16().flat_map(u16::to_be_bytes).collect();
        prop_assert_eq!(parse(xml.as_bytes()), parse(&utf16));
    }

    #[test]
    fn a_file_with_right_totals_is_read_as_it_is((xml, [tests, failed, skipped]) in suite()) {
        let Imported { cases, warnings } = parse(xml.as_bytes()).expect("well-formed");
        let count = |is: fn(&CaseVerdict) -> bool| cases.iter().filter(|case| is(&case.verdict)).count() as u64;
        prop_assert_eq!(warnings, [""; 0]);
        prop_assert_eq!(cases.len() as u64, tests);
        prop_assert_eq!(count(|verdict| matches!(verdict, CaseVerdict::Failed { .. })), failed);
        prop_assert_eq!(count(|verdict| matches!(verdict, CaseVerdict::Skipped { .. })), skipped);
    }

    #[test]
    fn a_failure_is_not_lost_with_any_piece_of_the_file(
        (xml, [_, failed, _]) in suite(),
        from in any::<proptest::sample::Index>(),
        length in 1_usize..200,
    ) {
        prop_assume!(failed > 0);
        // Dropped, as by a full disk or a lost packet; and cut off there.
        let from = from.index(xml.len());
        let to = (from + length).min(xml.len());
        let bytes = xml.as_bytes();
        for damaged in [[&bytes[..from], &bytes[to..]].concat(), bytes[..from].to_vec(), bytes[from..].to_vec()] {
            prop_assert!(!is_green(&damaged), "{}", String::from_utf8_lossy(&damaged));
        }
    }
}

#[test]
fn totals_of_failures_that_are_no_numbers_are_not_read_as_none() {
    for (total, failed) in
        [("1,000", true), ("2 of 3", true), ("10000000000", true), ("none", false), ("-1", false), ("0,0", false)]
    {
        let xml = format!("<testsuite name=\"s\" failures=\"{total}\"><testcase name=\"a\"/></testsuite>");
        let imported = parse(xml.as_bytes()).expect("JUnit");
        let bad = imported.cases.iter().any(|case| matches!(case.verdict, CaseVerdict::Failed { .. }));
        assert_eq!(bad, failed, "{total}: {imported:?}");
        assert!(imported.warnings.iter().any(|warning| warning.contains("is not a number")), "{total}: {imported:?}");
    }
}
