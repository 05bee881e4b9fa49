//! The run of a plan after a stream of events.

use reports::{CaseVerdict, EventKind, ImageState, Outcome, Phase, Run, TestCase, Trouble, TroubleKind, Verdict};

use crate::fixture::{self, Story};

fn reason(run: &Run, cell: usize) -> &str {
    run.cells[cell].verdict.reason().unwrap_or_default()
}

#[test]
fn a_cell_that_says_nothing_is_not_run() {
    let plan = fixture::plan();
    let run = Run::fold(&plan, &[]);
    assert!(run.cells.iter().all(|cell| cell.outcome() == Outcome::NotRun && !cell.finished));
    assert_eq!(reason(&run, 0), "never reported");
    assert_eq!(run.exit_code(), 3);
}

#[test]
fn a_cell_cut_off_by_a_crash_names_the_phase_it_was_in() {
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    let mut story = Story::new();
    story.start(&plan);
    story.boot(cell, 1);
    story.emit(EventKind::PhaseStarted { cell: cell.clone(), attempt: 1, phase: Phase::Install, timeout_ms: None });
    let run = Run::fold(&plan, &story.events);
    assert_eq!(reason(&run, 0), "interrupted in phase install");
    assert_eq!(run.exit_code(), 3);
    assert!(run.problems().iter().any(|problem| problem.contains("crashed or was killed")), "{:?}", run.problems());
}

#[test]
fn the_last_attempt_counts_and_the_others_stay_visible() {
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    let mut story = Story::new();
    story.start(&plan);
    story.boot(cell, 1);
    story.case(cell, 1, "early", CaseVerdict::Passed, 1);
    let error = Verdict::Error { phase: Phase::Connect, reason: "the guest went away".to_owned() };
    story.end_attempt(cell, &error, &[], None);
    story.boot(cell, 2);
    story.case(cell, 2, "late", CaseVerdict::Passed, 1);
    story.conclude(cell, 2, Verdict::Passed);
    let run = Run::fold(&plan, &story.events);
    let names: Vec<_> = run.cells[0].reported_cases().map(|case| case.name.into_owned()).collect();
    assert_eq!(names, ["late"]);
    assert_eq!(run.cells[0].attempts.len(), 2);
    assert_eq!(run.cells[0].attempts[0].outcome, Some(error));
    assert!(run.cells[0].attempts[0].retried);
    assert_eq!(run.contradictions, [""; 0]);
}

#[test]
fn a_test_that_was_killed_is_named() {
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    let mut story = Story::new();
    story.start(&plan);
    story.boot(cell, 1);
    story.emit(EventKind::TestStarted { cell: cell.clone(), attempt: 1, name: "eats memory".to_owned() });
    let verdict = Verdict::Failed { phase: Phase::Test, reason: "the guest ran out of memory".to_owned() };
    story.end_attempt(cell, &verdict, &[], None);
    story.end(cell, verdict);
    let run = Run::fold(&plan, &story.events);
    let case = run.cells[0].reported_cases().next().expect("the extra case");
    assert_eq!(
        (&*case.name, &*case.message),
        ("[test]", "the guest ran out of memory (while eats memory was running)")
    );
}

#[test]
fn a_stream_that_contradicts_the_plan_or_itself_is_not_green() {
    let plan = fixture::plan();
    let other =
        fixture::plan_of("[[image]]\nname = \"debian-12-minimal\"\n[[suite]]\nname = \"x\"\ninline = \"true\"\n");
    let cell = &plan.cells[0].id;
    type Twist<'a> = (&'a str, &'a dyn Fn(&mut Story));
    let ends = |story: &mut Story, told: Verdict, verdict: Verdict| {
        let cell = &plan.cells[7].id;
        story.boot(cell, 1);
        story.phase(cell, 1, Phase::Test, 100);
        story.case(cell, 1, "a", CaseVerdict::Passed, 1);
        story.end_attempt(cell, &told, &[], None);
        story.end(cell, verdict);
    };
    let no_verdict = Verdict::Error { phase: Phase::Boot, reason: "no".to_owned() };
    let skipped = || Verdict::Skipped { reason: "why".to_owned() };
    let twists: [Twist<'_>; 15] = [
        ("is not in the plan", &|story| story.end(&other.cells[0].id, Verdict::Passed)),
        ("reported twice", &|story| story.end(cell, Verdict::Passed)),
        ("after it reported", &|story| story.attempt(cell, 2)),
        ("the run started twice", &|story| story.start(&plan)),
        ("belongs to plan", &|story| story.start(&other)),
        ("passed without an attempt", &|story| story.end(&plan.cells[7].id, Verdict::Passed)),
        ("skipped without an attempt", &|story| story.end(&plan.cells[7].id, skipped())),
        ("passed without a test case that passed", &|story| {
            story.boot(&plan.cells[7].id, 1);
            story.conclude(&plan.cells[7].id, 1, Verdict::Passed);
        }),
        ("passed without its phase test", &|story| {
            story.boot(&plan.cells[7].id, 1);
            story.case(&plan.cells[7].id, 1, "a", CaseVerdict::Passed, 1);
            story.end_attempt(&plan.cells[7].id, &Verdict::Passed, &[], None);
            story.end(&plan.cells[7].id, Verdict::Passed);
        }),
        ("it passed but its last attempt is error", &|story| ends(story, no_verdict.clone(), Verdict::Passed)),
        ("it was skipped but its last attempt is passed", &|story| ends(story, Verdict::Passed, skipped())),
        ("it was skipped with a test case that passed", &|story| ends(story, skipped(), skipped())),
        ("an event of attempt 1 after it ended", &|story| {
            story.boot(&plan.cells[7].id, 1);
            story.end_attempt(&plan.cells[7].id, &no_verdict, &[], Some("none"));
            story.case(&plan.cells[7].id, 1, "late", CaseVerdict::Passed, 1);
            story.end(&plan.cells[7].id, no_verdict.clone());
        }),
        ("skipped without a reason", &|story| {
            story.end(&plan.cells[7].id, Verdict::Skipped { reason: " \u{1b}[0m ".to_owned() });
        }),
        ("which has not started", &|story| {
            story.case(&plan.cells[7].id, 1, "ghost", CaseVerdict::Passed, 1);
            story.end(&plan.cells[7].id, Verdict::Skipped { reason: "none".to_owned() });
        }),
    ];
    for (expected, twist) in twists {
        let mut story = Story::new();
        story.start(&plan);
        plan.cells.iter().take(7).for_each(|cell| story.pass(&cell.id));
        twist(&mut story);
        if !story
            .events
            .iter()
            .any(|event| matches!(&event.kind, EventKind::CellFinished { cell, .. } if *cell == plan.cells[7].id))
        {
            story.pass(&plan.cells[7].id);
        }
        story.finish();
        let run = Run::fold(&plan, &story.events);
        assert!(run.contradictions.iter().any(|text| text.contains(expected)), "{expected}: {:?}", run.contradictions);
        assert_eq!(run.exit_code(), 3, "{expected}");
        assert!(!expected.starts_with("it ") || run.cells[7].outcome() == Outcome::Error, "{expected}");
        assert!(!run.problems().is_empty());
    }
}

#[test]
fn a_cell_that_passed_with_a_failed_test_is_a_failure() {
    let plan = fixture::plan();
    let mut story = Story::new();
    story.start(&plan);
    for cell in &plan.cells {
        story.boot(&cell.id, 1);
        let failed = CaseVerdict::Failed { message: "no".to_owned(), detail: String::new() };
        story.case(&cell.id, 1, "a", failed, 1);
        story.conclude(&cell.id, 1, Verdict::Passed);
    }
    story.finish();
    assert_eq!(Run::fold(&plan, &story.events).exit_code(), 1);
}

#[test]
fn the_state_of_an_image_is_known_by_its_name_in_the_matrix() {
    let plan = fixture::plan();
    let mut story = Story::new();
    story.start(&plan);
    let image = "debian-11-minimal".to_owned();
    let tail = vec!["E: no space left".to_owned()];
    story.emit(EventKind::ImageFailed {
        image,
        trouble: Trouble::new(TroubleKind::ImageMissing, Phase::Image, "mmdebstrap exited with 1").with_evidence(tail),
    });
    let run = Run::fold(&plan, &story.events);
    assert!(matches!(&run.image("debian-11-minimal").expect("in the plan").state, ImageState::Failed { .. }));
}

#[test]
fn text_from_guests_is_clean_and_bounded_once_it_is_in_the_run() {
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    let mut story = Story::new();
    story.start(&plan);
    story.boot(cell, 1);
    let verdict =
        CaseVerdict::Failed { message: "a\nb\u{1b}[31m".repeat(10_000), detail: "\u{202e}x\0\n".repeat(100_000) };
    let case = TestCase {
        name: "\u{1b}]0;title\u{7}evil\u{202e}".to_owned(),
        verdict,
        elapsed_ms: u64::MAX,
        file: Some("a\nb".to_owned()),
        line: None,
    };
    story.emit(EventKind::TestFinished { cell: cell.clone(), attempt: 1, case });
    let bytes = 1;
    for path in ["../../etc/passwd", "/etc/passwd", "ok/a b<.txt"] {
        let path = path.to_owned();
        story.emit(EventKind::ArtifactCollected { cell: cell.clone(), attempt: 1, path, bytes });
    }
    let run = Run::fold(&plan, &story.events);
    let text = serde_json::to_string(&run).expect("JSON");
    assert!(!text.contains("\\u001b") && !text.contains('\u{202e}') && !text.contains("\\u0000"));
    assert!(text.len() < 40_000, "{} bytes", text.len());
    let attempt = &run.cells[0].attempts[0];
    assert_eq!(attempt.cases[0].name, "evil");
    let links: Vec<_> = attempt.artifacts.iter().map(|artifact| artifact.href.as_deref()).collect();
    assert_eq!(links, [None, None, Some("cells/debian-11-minimal.smoke/attempt-1/ok/a%20b%3C.txt")]);
}
