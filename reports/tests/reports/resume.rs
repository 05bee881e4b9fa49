//! A run that another process continues: after a crash, or after Ctrl-C.

use std::{fs, path::Path};

use reports::{Event, EventKind, Journal, Outcome, Phase, Run, Terminal, TerminalStyle, Verdict};

use crate::{
    fixture::{self, Story},
    terminal::{Sink, shown},
};

fn resumed() -> EventKind {
    EventKind::RunResumed { version: "0.2.0".to_owned() }
}

/// One cell passes, one is cut off in its boot, the others are not-run.
fn interrupted(plan: &matrix::Plan) -> Story {
    let mut story = Story::new();
    story.start(plan);
    story.pass(&plan.cells[0].id);
    let cell = plan.cells[1].id.clone();
    story.attempt(&cell, 1);
    story.emit(EventKind::PhaseStarted { cell, attempt: 1, phase: Phase::Boot, timeout_ms: None });
    story.emit(EventKind::RunInterrupted { signal: "SIGINT".to_owned() });
    for cell in &plan.cells[2..] {
        story.end(&cell.id, Verdict::NotRun { reason: "interrupted before it started".to_owned() });
    }
    story.finish();
    story
}

/// Resumes a day later, on a runner of its own.
fn resume(story: &mut Story, runner: u32) {
    story.wait(24 * 3_600_000);
    story.emit(resumed());
    story.boot_runner(runner);
}

#[test]
fn cells_without_a_verdict_report_again_and_the_others_do_not() {
    let plan = fixture::plan();
    let mut story = interrupted(&plan);
    assert_eq!(Run::fold(&plan, &story.events).exit_code(), 130);
    resume(&mut story, 2);
    let open = Run::fold(&plan, &story.events);
    let finished: Vec<_> = open.cells.iter().map(|cell| cell.finished).collect();
    assert_eq!(finished, [true, false, false, false, false, false, false, false]);
    assert_eq!((open.interrupted, open.elapsed_ms, open.resumed), (None, None, 1));
    assert_eq!(open.version.as_deref(), Some("0.2.0"));

    // The attempt that was cut off stays; the next one has the next number.
    story.boot(&plan.cells[1].id, 2);
    story.case(&plan.cells[1].id, 2, "a", reports::CaseVerdict::Passed, 1);
    story.conclude(&plan.cells[1].id, 2, Verdict::Passed);
    plan.cells[2..].iter().for_each(|cell| story.pass(&cell.id));
    story.emit(EventKind::RunFinished { elapsed_ms: 60_000 });
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.problems(), [""; 0]);
    assert_eq!(run.exit_code(), 0);
    let attempts: Vec<_> = run.cells[1].attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(run.cells[1].attempts[0].outcome, None);
}

#[test]
fn a_run_may_be_resumed_as_often_as_it_is_interrupted() {
    let plan = fixture::plan();
    let mut story = interrupted(&plan);
    for runner in [2, 3] {
        resume(&mut story, runner);
        story.end(&plan.cells[7].id, Verdict::NotRun { reason: "the run's time was up".to_owned() });
        story.finish();
    }
    let run = Run::fold(&plan, &story.events);
    assert_eq!((run.resumed, &run.contradictions[..]), (2, &[][..]));
    assert_eq!(run.cells[2].verdict.reason(), Some("interrupted before it started"));
    assert_eq!(run.exit_code(), 3);
}

#[test]
fn the_time_of_a_resumed_run_is_wall_time_and_that_of_its_cells_is_not() {
    let plan = fixture::plan();
    let mut story = interrupted(&plan);
    resume(&mut story, 2);
    story.boot(&plan.cells[1].id, 2);
    story.end(&plan.cells[1].id, Verdict::Error { phase: Phase::Boot, reason: "no".to_owned() });
    story.emit(EventKind::RunFinished { elapsed_ms: 60_000 });
    let run = Run::fold(&plan, &story.events);
    let [.., last] = &story.events[..] else { panic!("events") };
    let wall = last.at.duration_since(story.events[0].at).as_millis() as u64;
    assert_eq!((run.elapsed_ms, run.duration_ms()), (Some(60_000), wall));
    assert_eq!(run.cells[1].elapsed_ms, 23_600);
    let text = shown(&plan, &story.events, Path::new("/nowhere"));
    assert!(text.contains("in 24h 01m (resumed 1 time, pauses included)"), "{text}");
    let dir = tempfile::tempdir().expect("temporary folder");
    plan.write(&dir.path().join("plan.json")).expect("writable");
    let mut journal = Journal::create(dir.path()).expect("a new journal");
    story.events.iter().for_each(|event| journal.append(event).expect("writable"));
    let rendered = reports::render::all(dir.path()).expect("rendered");
    for report in [&rendered.report_html, &rendered.summary_md] {
        let text = fs::read_to_string(report).expect("written");
        assert!(text.contains("ook 24h 01m (resumed 1 time, pauses included)"), "{}", report.display());
    }
}

#[test]
fn a_resumed_run_contradicts_itself_like_any_other() {
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    type Twist<'a> = (&'a str, &'a dyn Fn(&mut Story));
    let twists: [Twist<'_>; 4] = [
        ("reported twice", &|story| story.end(cell, Verdict::Passed)),
        ("attempt 1 started after attempt 1", &|story| story.attempt(&plan.cells[1].id, 1)),
        ("runner 1 started twice", &|story| {
            story.emit(EventKind::RunnerStarted { runner: 1, kind: "host".to_owned(), reason: "so".to_owned() });
        }),
        ("an event after the end of the run", &|story| {
            story.finish();
            story.emit(EventKind::Warning { cell: None, message: "late".to_owned() });
        }),
    ];
    for (expected, twist) in twists {
        let mut story = interrupted(&plan);
        resume(&mut story, 2);
        twist(&mut story);
        let run = Run::fold(&plan, &story.events);
        assert!(run.contradictions.iter().any(|text| text.contains(expected)), "{expected}: {:?}", run.contradictions);
    }
    let run = Run::fold(&plan, &[Event { at: jiff::Timestamp::UNIX_EPOCH, clock_ms: None, kind: resumed() }]);
    assert_eq!(run.contradictions, ["the run was resumed before it started"]);
    assert_eq!(run.exit_code(), 3);
}

#[test]
fn the_terminal_shows_what_happens_now_and_knows_what_happened_before() {
    let plan = fixture::plan();
    let mut story = interrupted(&plan);
    let before = story.events.len();
    resume(&mut story, 2);
    plan.cells[2..].iter().for_each(|cell| story.pass(&cell.id));
    let sink = Sink::default();
    let mut terminal = Terminal::plain(&plan, TerminalStyle { live: false, color: false, width: 100 }, sink.clone());
    story.events[..before].iter().for_each(|event| terminal.recall(event));
    story.events[before..].iter().for_each(|event| terminal.event(event));
    let text = sink.text();
    assert!(text.starts_with("  RESUME  7 of 8 cells have no verdict yet\n  runner  qemu (number 2): "), "{text}");
    assert_eq!(text.matches("PASS").count(), 6);
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.cells.iter().filter(|cell| cell.outcome() == Outcome::Passed).count(), 7);
}
