//! Runners in every output: booted, lost, replaced.

use std::{fs, path::Path};

use reports::{Boot, EventKind, GuestFacts, Journal, Phase, Run, StepTime, Trouble, TroubleKind, Verdict};

use crate::{
    fixture::{self, Story},
    terminal::shown,
};

pub(crate) const EVIL: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}evil <script>\nsecond";

fn progress(runner: u32) -> EventKind {
    EventKind::RunnerProgress { runner, message: "booting".to_owned() }
}

pub(crate) fn lost(runner: u32) -> EventKind {
    let trouble = Trouble::new(TroubleKind::GuestPanicked, Phase::Runner, "its kernel panicked")
        .with_evidence(vec!["Kernel panic - not syncing".to_owned()])
        .with_help("look at runner.memory");
    EventKind::RunnerLost { runner, trouble }
}

fn started(runner: u32) -> EventKind {
    EventKind::RunnerStarted { runner, kind: "qemu".to_owned(), reason: "asked for".to_owned() }
}

fn ready(runner: u32) -> EventKind {
    EventKind::RunnerReady { runner: fixture::l1_facts(runner, "asked for") }
}

#[test]
fn a_lost_runner_stays_in_the_run_beside_the_one_that_replaced_it() {
    let plan = fixture::plan();
    let run = Run::fold(&plan, &fixture::story(&plan).events);
    assert_eq!(run.contradictions, [""; 0]);
    let [first, second] = &run.runners[..] else { panic!("two runners, not {}", run.runners.len()) };
    assert!(!first.is_ready() && second.is_ready());
    assert_eq!(first.ready_after_ms, Some(24_700));
    assert_eq!(first.progress.as_deref(), Some("proving that guests run on it"));
    let loss = first.lost.as_ref().expect("lost");
    assert_eq!(loss.trouble.reason, "it no longer answers: no heartbeat for 30s");
    assert_eq!(loss.trouble.evidence.len(), 2);
    let on = |cell: usize, attempt: usize| run.cells[cell].attempts[attempt].guest.as_ref().map(|guest| guest.runner);
    assert_eq!((on(5, 0), on(5, 1)), (Some(1), Some(2)));
}

#[test]
fn a_runner_that_could_not_be_made_ready_is_no_contradiction() {
    let plan = fixture::plan();
    let mut story = Story::new();
    story.start_run(&plan);
    for event in [started(1), progress(1), lost(1), started(2), ready(2)] {
        story.emit(event);
    }
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.contradictions, [""; 0]);
    assert!(run.runner(2).is_some_and(|runner| runner.is_ready()));
}

#[test]
fn a_stream_that_contradicts_itself_about_runners_is_not_green() {
    let plan = fixture::plan();
    let cases: [(&str, Vec<EventKind>); 9] = [
        ("runner 1, which has not started", vec![ready(1)]),
        ("runner 1, which has not started", vec![progress(1)]),
        ("runner 2, which has not started", vec![started(1), lost(2)]),
        ("runner 1 started twice", vec![started(1), started(1)]),
        ("runner 2 started after runner 0", vec![started(2)]),
        ("runner 3 started after runner 1", vec![started(1), started(3)]),
        ("runner 1 is ready twice", vec![started(1), ready(1), ready(1)]),
        ("runner 1 is ready after it was lost", vec![started(1), lost(1), ready(1)]),
        ("runner 1 was lost twice", vec![started(1), lost(1), lost(1)]),
    ];
    for (expected, events) in cases {
        let mut story = Story::new();
        story.start_run(&plan);
        events.into_iter().for_each(|event| story.emit(event));
        let run = Run::fold(&plan, &story.events);
        assert_eq!(run.contradictions.len(), 1, "{expected}: {:?}", run.contradictions);
        assert!(run.contradictions[0].contains(expected), "{expected}: {:?}", run.contradictions);
    }
}

#[test]
fn a_guest_can_only_be_where_guests_can_run() {
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    for before in [vec![], vec![started(1)], vec![started(1), ready(1), lost(1)], vec![started(1), ready(1)]] {
        let fits = before.len() == 2;
        let mut story = Story::new();
        story.start_run(&plan);
        before.into_iter().for_each(|event| story.emit(event));
        story.attempt(cell, 1);
        story.phase(cell, 1, Phase::Boot, 1);
        let run = Run::fold(&plan, &story.events);
        let expected = "debian-11-minimal.smoke: a guest started on runner 1, which is not ready";
        assert_eq!(run.contradictions, if fits { vec![] } else { vec![expected.to_owned()] });
    }
}

#[test]
fn text_from_a_runner_is_clean_and_bounded_once_it_is_in_the_run() {
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::new();
    story.start_run(&plan);
    let evil = || EVIL.to_owned();
    story.emit(EventKind::RunnerStarted { runner: 1, kind: evil(), reason: evil() });
    story.emit(EventKind::RunnerProgress { runner: 1, message: evil() });
    let mut facts = fixture::l1_facts(1, EVIL);
    let l1 = facts.l1.as_mut().expect("an L1");
    for text in
        [&mut l1.image, &mut l1.accelerator, &mut l1.nesting, &mut l1.machine, &mut l1.qemu, &mut l1.host_kernel]
    {
        *text = evil();
    }
    for text in [&mut facts.kind, &mut facts.accelerator, &mut facts.accelerator_reason, &mut facts.qemu] {
        *text = evil();
    }
    facts.kernel = "x".repeat(1 << 20);
    facts.steps = vec![StepTime { step: evil(), elapsed_ms: u64::MAX }; 5_000];
    story.emit(EventKind::RunnerReady { runner: facts });
    story.attempt(cell, 1);
    let image = plan.digest;
    let guest = GuestFacts { runner: 1, image, accelerator: evil(), machine: evil(), pid: 1, boot: Boot::default() };
    story.emit(EventKind::GuestStarted { cell: cell.clone(), attempt: 1, guest });
    let trouble = Trouble::new(TroubleKind::RunnerLost, Phase::Runner, evil())
        .with_evidence(vec![evil(); 5_000])
        .with_help(evil());
    story.emit(EventKind::RunnerLost { runner: 1, trouble });
    let verdict = Verdict::Error { phase: Phase::Runner, reason: evil() };
    story.end_attempt(cell, &verdict, &[], Some(EVIL));
    story.end(cell, verdict);
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.runners[0].lost.as_ref().map(|lost| lost.trouble.evidence.len()), Some(1_000));
    assert_eq!(run.runners[0].facts.as_ref().map(|facts| facts.steps.len()), Some(1_000));

    let text = shown(&plan, &story.events, Path::new("/nowhere"));
    let reports = written(dir.path(), &plan, &story).into_iter().chain([("terminal", text)]);
    for (name, text) in reports {
        assert!(text.contains("evil"), "{name}");
        let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{name}");
        assert!(text.len() < 500_000, "{name}: {} bytes", text.len());
        let scripts = text.matches("<script").count();
        assert!(scripts <= 1 || !name.ends_with("html"), "{name}");
    }
}

#[test]
fn every_output_names_the_machine_and_how_it_was_lost() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::new();
    story.start_run(&plan);
    story.boot_runner(1);
    story.pass(&plan.cells[0].id);
    story.boot(&plan.cells[1].id, 1);
    story.emit(lost(1));
    let gone = Verdict::Error { phase: Phase::Runner, reason: "runner 1 was lost".to_owned() };
    story.end_attempt(&plan.cells[1].id, &gone, &[], Some("start again"));
    story.end(&plan.cells[1].id, gone.clone());
    // The next one never becomes ready: no cell gets a guest.
    story.emit(started(2));
    story.emit(progress(2));
    story.emit(lost(2));
    plan.cells[2..].iter().for_each(|cell| story.end(&cell.id, gone.clone()));
    story.finish();
    let text = shown(&plan, &story.events, dir.path());
    for part in [
        "LOST  runner 1 (qemu): its kernel panicked\n          | Kernel panic - not syncing\n          help: look at",
        "LOST  runner 2 (qemu): its kernel panicked",
        "  runner  qemu (number 2): asked for\n          booting\n",
        // The cells that were lost with it have its reason.
        "runner's console:\n          | Kernel panic - not syncing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for (name, text) in written(dir.path(), &plan, &story) {
        let parts: &[&str] = match name {
            "summary.md" => &[
                "runner 1 (qemu) with kvm",
                "kernel 6.12.43+deb13-cloud-amd64",
                "nesting depth 2: guests in the L1, the L1 on bare metal",
                "It was lost: its kernel panicked.",
                "No guest ran on runner 2 (qemu): never ready; lost: its kernel panicked.",
            ],
            "junit.xml" => &[
                "[[PROPERTY|runner=1 (qemu)]]",
                "[[PROPERTY|runner-kernel=6.12.43+deb13-cloud-amd64]]",
                "[[PROPERTY|runner-accelerator=kvm]]",
                "[[PROPERTY|runner-qemu=10.0.2]]",
                "[[PROPERTY|runner-depth=2]]",
                "it was lost: its kernel panicked]]",
                "Kernel panic - not syncing",
            ],
            "report.html" => &[
                "Runner 1 <span class=\"pill\">lost</span>",
                "Runner 2 <span class=\"pill\">lost</span>",
                "never ready; last message: booting",
                "Ready after <span class=\"as-is\">24.7s",
                "nests by emulated SVM",
                "on runner 1 (qemu): a virtual machine of image debian-13-runner; it was lost",
                "Kernel panic - not syncing",
                "look at runner.memory",
            ],
            _ => &["\"runners\": [", "\"reason\": \"its kernel panicked\"", "\"nesting\": \"emulated SVM\""],
        };
        for part in parts {
            assert!(text.contains(part), "{name}: {part}");
        }
    }
}

#[test]
fn the_only_machine_there_was_is_not_named_with_every_attempt() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::new();
    story.start(&plan);
    plan.cells.iter().for_each(|cell| story.pass(&cell.id));
    story.finish();
    for (name, text) in written(dir.path(), &plan, &story) {
        assert!(!text.contains("on runner 1") || name == "summary.md", "{name}");
        assert!(!text.contains("ran on="), "{name}");
    }
}

/// The reports of a run, by name.
pub(crate) fn written(dir: &Path, plan: &matrix::Plan, story: &Story) -> [(&'static str, String); 4] {
    plan.write(&dir.join("plan.json")).expect("writable");
    let mut journal = Journal::create(dir).expect("a new journal");
    story.events.iter().for_each(|event| journal.append(event).expect("writable"));
    reports::render::all(dir).expect("rendered");
    ["run.json", "junit.xml", "report.html", "summary.md"]
        .map(|name| (name, fs::read_to_string(dir.join(name)).expect("written")))
}
