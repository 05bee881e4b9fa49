//! All outputs have the same counts.

use matrix::Plan;
use proptest::prelude::*;
use reports::{CaseVerdict, Counts, Event, EventKind, Outcome, Phase, Run, Tally, Trouble, TroubleKind, Verdict};

use crate::fixture::{self, Story};

/// The counts of junit.xml: tests, failures, errors, skipped.
pub(crate) fn junit_counts(xml: &str) -> (usize, usize, usize, usize) {
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    loop {
        match reader.read_event().expect("well-formed") {
            quick_xml::events::Event::Start(element) | quick_xml::events::Event::Empty(element) => {
                match element.name().as_ref() {
                    "testcase" => tests += 1,
                    "failure" => failures += 1,
                    "error" => errors += 1,
                    "skipped" => skipped += 1,
                    _ => {}
                }
            }
            quick_xml::events::Event::Eof => return (tests, failures, errors, skipped),
            _ => {}
        }
    }
}

pub(crate) fn expected_junit(tests: &Tally) -> (usize, usize, usize, usize) {
    (tests.total, tests.failed, tests.error + tests.not_run, tests.skipped)
}

/// The end of a cell in a made-up run, with its cases.
#[derive(Clone, Debug)]
enum Ending {
    Silent,
    CutOff(Phase),
    Ends(Verdict, Vec<CaseVerdict>, bool),
}

fn case() -> impl Strategy<Value = CaseVerdict> {
    prop_oneof![
        3 => Just(CaseVerdict::Passed),
        1 => ("\\PC{0,20}", any::<String>()).prop_map(|(message, detail)| CaseVerdict::Failed { message, detail }),
        1 => "[a-z]{1,9}".prop_map(|reason| CaseVerdict::Skipped { reason }),
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    proptest::sample::select(Phase::ALL.to_vec())
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Passed),
        1 => (phase(), any::<String>()).prop_map(|(phase, reason)| Verdict::Failed { phase, reason }),
        1 => (phase(), any::<String>()).prop_map(|(phase, reason)| Verdict::Error { phase, reason }),
        1 => any::<String>().prop_map(|reason| Verdict::Skipped { reason }),
        1 => any::<String>().prop_map(|reason| Verdict::NotRun { reason }),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        1 => Just(Ending::Silent),
        1 => phase().prop_map(Ending::CutOff),
        8 => (verdict(), proptest::collection::vec(case(), 0..4), any::<bool>())
            .prop_map(|(verdict, cases, retried)| Ending::Ends(verdict, cases, retried)),
    ]
}

fn told(plan: &Plan, endings: &[Ending], interrupted: bool, finished: bool) -> Vec<Event> {
    let mut story = Story::new();
    story.start(plan);
    for (cell, ending) in plan.cells.iter().zip(endings) {
        let id = &cell.id;
        match ending {
            Ending::Silent => {}
            Ending::CutOff(phase) => {
                story.attempt(id, 1);
                let (cell, phase) = (id.clone(), *phase);
                story.emit(EventKind::PhaseStarted { cell, attempt: 1, phase, timeout_ms: None });
            }
            Ending::Ends(verdict, cases, retried) => {
                let mut attempt = 1;
                story.boot(id, attempt);
                if *retried {
                    story.case(id, attempt, "of a lost attempt", CaseVerdict::Passed, 1);
                    let lost = Verdict::Error { phase: Phase::Runner, reason: "lost".to_owned() };
                    story.end_attempt(id, &lost, &[], None);
                    attempt = 2;
                    story.boot(id, attempt);
                }
                cases.iter().for_each(|case| story.case(id, attempt, "equal name", case.clone(), 1));
                story.conclude(id, attempt, verdict.clone());
            }
        }
    }
    if interrupted {
        story.emit(EventKind::RunInterrupted { signal: "SIGINT".to_owned() });
    }
    if finished {
        story.finish();
    }
    story.events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn counts_agree_in_every_output(
        endings in proptest::collection::vec(ending(), 8),
        interrupted in proptest::bool::weighted(0.1),
        finished in proptest::bool::weighted(0.9),
    ) {
        let plan = fixture::plan();
        let events = told(&plan, &endings, interrupted, finished);
        let dir = tempfile::tempdir().expect("temporary folder");
        plan.write(&dir.path().join("plan.json")).expect("writable");
        let mut journal = reports::Journal::create(dir.path()).expect("a new journal");
        events.iter().for_each(|event| journal.append(event).expect("writable"));
        let rendered = reports::render::all(dir.path()).expect("rendered");

        let run = Run::fold(&plan, &events);
        let counts = run.counts();
        prop_assert_eq!(&rendered.run, &run);
        prop_assert_eq!(counts.cells.total, plan.cells.len());
        for tally in [counts.cells, counts.tests] {
            prop_assert_eq!(Outcome::ALL.iter().map(|outcome| tally.of(*outcome)).sum::<usize>(), tally.total);
        }
        // Every bad cell is bad in formats that know only test cases.
        for cell in run.cells.iter().filter(|cell| cell.outcome().is_bad()) {
            prop_assert!(cell.reported_cases().any(|case| case.outcome.is_bad()));
        }

        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&rendered.run_json).expect("written")).expect("run.json");
        let in_json: Counts = serde_json::from_value(record["counts"].clone()).expect("counts");
        prop_assert_eq!(in_json, counts);
        prop_assert_eq!(&record["exit_code"], run.exit_code());
        let junit = std::fs::read_to_string(&rendered.junit_xml).expect("written");
        prop_assert_eq!(junit_counts(&junit), expected_junit(&counts.tests));
        let summary = std::fs::read_to_string(&rendered.summary_md).expect("written");
        let in_summary = format!("**{} tests**: {}", counts.tests.total, counts.tests);
        prop_assert!(summary.contains(&in_summary));
        let html = std::fs::read_to_string(&rendered.report_html).expect("written");
        let in_html = format!("{} tests: {}", counts.tests.total, counts.tests);
        prop_assert!(html.contains(&in_html));
        for outcome in Outcome::ALL {
            let slot = format!("class=\"slot {outcome}\"");
            prop_assert_eq!(html.matches(&slot).count(), counts.cells.of(outcome));
        }
        let in_terminal = format!("tests    {}: {}\n", counts.tests.total, counts.tests);
        prop_assert!(crate::terminal::shown(&plan, &events, dir.path()).contains(&in_terminal));
    }

    #[test]
    fn the_exit_code_says_what_happened(
        endings in proptest::collection::vec(ending(), 8),
        interrupted in proptest::bool::weighted(0.1),
        finished in proptest::bool::weighted(0.9),
    ) {
        let plan = fixture::plan();
        let run = Run::fold(&plan, &told(&plan, &endings, interrupted, finished));
        let counts = run.counts();
        let fine = counts.cells.passed + counts.cells.skipped == counts.cells.total;
        match run.exit_code() {
            130 => prop_assert!(interrupted),
            1 => prop_assert!(!interrupted && counts.tests.failed > 0),
            3 => prop_assert!(!interrupted && counts.tests.failed == 0 && (!fine || !run.problems().is_empty())),
            0 => {
                prop_assert!(!interrupted && finished && fine && counts.tests.failed == 0);
                for cell in &run.cells {
                    let passes = cell.reported_cases().any(|case| case.outcome == Outcome::Passed);
                    let told_why = cell.verdict.reason().is_some_and(|reason| !reason.is_empty());
                    prop_assert!(passes || told_why, "green by silence: {cell:?}");
                }
            }
            other => prop_assert!(false, "exit code {other}"),
        }
    }
}

#[test]
fn a_request_that_the_matrix_forbids_is_not_said_to_be_a_failed_installation_or_test() {
    let plan = fixture::plan();
    let mut story = Story::new();
    story.start(&plan);
    for (cell, phase) in plan.cells.iter().zip([Phase::Install, Phase::Test, Phase::Test, Phase::Collect]) {
        story.boot(&cell.id, 1);
        let trouble = Trouble::new(TroubleKind::UnexpectedRequest, phase, "it asked for telemetry.example.com:443");
        let verdict = trouble.verdict();
        let ending = reports::Ending::Troubled(trouble);
        story.emit(EventKind::AttemptFinished { cell: cell.id.clone(), attempt: 1, ending, retried: false });
        story.end(&cell.id, verdict);
    }
    plan.cells.iter().skip(4).for_each(|cell| story.pass(&cell.id));
    story.finish();
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.contradictions, [""; 0]);
    assert_eq!(
        (run.exit_code(), run.conclusion()),
        (1, "asks for hosts that are not allowed on 2 of 4 systems".into())
    );
}

#[test]
fn a_run_whose_cells_were_all_skipped_for_a_reason_is_green_and_says_so() {
    let plan = fixture::plan();
    let skip = |reason: &str| {
        let mut story = Story::new();
        story.start(&plan);
        plan.cells.iter().for_each(|cell| story.skip(&cell.id, reason));
        story.finish();
        Run::fold(&plan, &story.events)
    };
    let run = skip("only at night");
    assert_eq!((run.exit_code(), run.conclusion()), (0, "no cell ran, all skipped (8)".to_owned()));
    assert_eq!(skip("").exit_code(), 3);
}
