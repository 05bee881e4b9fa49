//! Templates, and forked or booted guests, in every output.

use std::path::Path;

use matrix::{Digest, Plan};
use reports::{Boot, Event, EventKind, GuestFacts, Phase, Run, TemplateState, Trouble, TroubleKind};

use crate::{
    fixture::{self, Story, template},
    runners::{EVIL, lost, written},
    terminal::shown,
};

const IMAGE: &str = "debian-12-minimal";

fn started(runner: u32) -> EventKind {
    EventKind::TemplateStarted { runner, template: template(IMAGE), image: IMAGE.to_owned() }
}

fn ready(runner: u32) -> EventKind {
    EventKind::TemplateReady { runner, template: template(IMAGE), cached: true, elapsed_ms: 300, cost: 64 << 20 }
}

fn failed(runner: u32) -> EventKind {
    let trouble = Trouble::new(TroubleKind::NoTemplate, Phase::Prepare, "the disk is full");
    EventKind::TemplateFailed { runner, template: template(IMAGE), trouble, elapsed_ms: 2_000, bootable: true }
}

/// A guest of the first cell, on runner 1.
fn guest(plan: &Plan, boot: Boot) -> EventKind {
    let (accelerator, machine) = ("tcg".to_owned(), "pc".to_owned());
    let guest = GuestFacts { runner: 1, image: plan.digest, accelerator, machine, pid: 1, boot };
    EventKind::GuestStarted { cell: plan.cells[0].id.clone(), attempt: 1, guest }
}

/// The beginning of a run, then these events.
fn story(plan: &Plan, events: Vec<EventKind>) -> Story {
    let mut story = Story::new();
    story.start(plan);
    story.attempt(&plan.cells[0].id, 1);
    events.into_iter().for_each(|event| story.emit(event));
    story
}

/// A run whose guests are started in these ways, in turn.
fn run_of(plan: &Plan, boots: &[Boot]) -> Story {
    let mut story = Story::new();
    story.start(plan);
    story.freeze(IMAGE, 5_000);
    for (cell, boot) in plan.cells.iter().zip(boots.iter().cycle()) {
        story.boot = boot.clone();
        story.pass(&cell.id);
    }
    story.finish();
    story
}

fn cold(reason: &str) -> Boot {
    Boot::Cold { reason: Some(reason.to_owned()) }
}

#[test]
fn a_run_keeps_what_became_of_every_template_and_how_every_guest_came_to_be() {
    let plan = fixture::plan();
    let run = Run::fold(&plan, &fixture::story(&plan).events);
    assert_eq!(run.contradictions, [""; 0]);
    let [frozen, failed] = &run.templates[..] else { panic!("two templates, not {}", run.templates.len()) };
    assert_eq!((frozen.image.as_str(), frozen.runner), (IMAGE, 1));
    let state = TemplateState::Ready { cached: false, elapsed_ms: 24_600, cost: 61 << 20 };
    assert!(frozen.state == state && frozen.ready.is_some());
    assert!(matches!(failed.state, TemplateState::Failed { elapsed_ms: 60_000, .. }) && failed.ready.is_none());
    let boot = |cell: usize| run.cells[cell].attempts[0].guest.as_ref().map(|guest| guest.boot.clone());
    assert_eq!(boot(0), Some(Boot::Cold { reason: None }));
    assert_eq!(boot(2), Some(Boot::Forked { template: template(IMAGE) }));
    assert!(matches!(boot(4), Some(Boot::Cold { reason: Some(_) })));
}

#[test]
fn a_journal_of_before_there_were_forks_says_that_every_guest_was_booted() {
    let plan = fixture::plan();
    let line = r#"{"at":"2026-11-22T10:30:00Z","event":"guest-started","cell":"debian-11-minimal.smoke","attempt":1,"guest":{"runner":1,"image":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","accelerator":"kvm","machine":"pc-q35-10.0","pid":4711}}"#;
    let mut story = story(&plan, Vec::new());
    story.events.push(serde_json::from_str::<Event>(line).expect("an event"));
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.contradictions, [""; 0]);
    let guest = run.cells[0].attempts[0].guest.as_ref().expect("a guest");
    assert_eq!(guest.boot, Boot::Cold { reason: None });
}

#[test]
fn an_event_about_a_template_is_read_back_as_it_was_written() {
    let plan = fixture::plan();
    let forked = guest(&plan, Boot::Forked { template: template(IMAGE) });
    for event in story(&plan, vec![started(1), ready(1), failed(1), forked]).events {
        let line = serde_json::to_string(&event).expect("JSON");
        assert_eq!(serde_json::from_str::<Event>(&line).expect("an event"), event, "{line}");
    }
}

#[test]
fn a_template_that_came_to_an_end_may_be_made_again_and_each_runner_has_its_own() {
    let plan = fixture::plan();
    let mut story = story(&plan, vec![started(1), failed(1), started(1), ready(1), failed(1)]);
    // A guest that was forked before others found the template useless.
    story.emit(guest(&plan, Boot::Forked { template: template(IMAGE) }));
    story.emit(lost(1));
    story.boot_runner(2);
    story.emit(started(2));
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.contradictions, [""; 0]);
    assert_eq!(run.templates.len(), 3);
    assert!(run.templates[1].ready.is_some());
    assert_eq!(run.template(2, template(IMAGE)).map(|template| &template.state), Some(&TemplateState::Freezing));
}

#[test]
fn a_stream_that_contradicts_itself_about_templates_is_not_green() {
    let plan = fixture::plan();
    let unknown = || EventKind::TemplateStarted { runner: 1, template: plan.digest, image: "plan9".to_owned() };
    let forked = || guest(&plan, Boot::Forked { template: template(IMAGE) });
    let cases: [(&str, Vec<EventKind>); 11] = [
        ("on runner 1, which has not started", vec![ready(1)]),
        ("on runner 1, which has not started", vec![failed(1)]),
        ("on runner 2, which has not started", vec![started(1), ready(2)]),
        ("a template started on runner 2, which is not ready", vec![started(2)]),
        ("a template started on runner 1, which is not ready", vec![lost(1), started(1)]),
        ("a template of image plan9, which is not in the plan", vec![unknown()]),
        ("started twice on runner 1", vec![started(1), started(1)]),
        ("is ready twice", vec![started(1), ready(1), ready(1)]),
        ("is ready after it failed", vec![started(1), failed(1), ready(1)]),
        ("failed twice", vec![started(1), failed(1), failed(1)]),
        ("debian-11-minimal.smoke: a guest was forked from template", vec![started(1), failed(1), forked()]),
    ];
    for (expected, events) in cases {
        let run = Run::fold(&plan, &story(&plan, events).events);
        assert_eq!(run.contradictions.len(), 1, "{expected}: {:?}", run.contradictions);
        assert!(run.contradictions[0].contains(expected), "{expected}: {:?}", run.contradictions);
    }
}

#[test]
fn text_about_a_template_is_clean_and_bounded_once_it_is_in_the_run() {
    let plan = fixture::plan();
    let evil = || EVIL.to_owned();
    let mut story = story(&plan, vec![guest(&plan, cold(&EVIL.repeat(5_000)))]);
    for number in 0..5_000_u32 {
        let template = Digest::of(&number.to_le_bytes());
        story.emit(EventKind::TemplateStarted { runner: 1, template, image: IMAGE.to_owned() });
        let trouble = Trouble::new(TroubleKind::NoTemplate, Phase::Prepare, evil()).with_help(evil());
        let (runner, elapsed_ms) = (1, u64::MAX);
        story.emit(EventKind::TemplateFailed { runner, template, trouble, elapsed_ms, bootable: true });
    }
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.templates.len(), 1_000);
    assert!(run.contradictions.iter().any(|text| text == "too many templates"));
    let Some(Boot::Cold { reason: Some(reason) }) = run.cells[0].attempts[0].guest.as_ref().map(|guest| &guest.boot)
    else {
        panic!("a reason");
    };
    assert!(reason.chars().count() <= reports::clean::MAX_LINE);

    let dir = tempfile::tempdir().expect("temporary folder");
    let text = shown(&plan, &story.events[..20], Path::new("/nowhere"));
    for (name, text) in written(dir.path(), &plan, &story).into_iter().chain([("terminal", text)]) {
        assert!(text.contains("evil"), "{name}");
        let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{name}");
        assert!(text.len() < 1 << 20, "{name}: {} bytes", text.len());
        assert!(text.matches("<script").count() <= 1 || !name.ends_with("html"), "{name}");
    }
}

#[test]
fn a_reason_that_says_nothing_is_none() {
    let plan = fixture::plan();
    let run = Run::fold(&plan, &story(&plan, vec![guest(&plan, cold(" \u{1b}[0m "))]).events);
    let guest = run.cells[0].attempts[0].guest.as_ref().expect("a guest");
    assert_eq!(guest.boot, Boot::default());
}

#[test]
fn the_terminal_tells_of_a_template_that_was_found_frozen_or_could_not_be_had() {
    let plan = fixture::plan();
    let mut story = story(&plan, vec![started(1), ready(1)]);
    story.freeze("debian-13-minimal", 14_200);
    story.fail_to_freeze("debian-sid-minimal", 3_000, "the disk is full");
    let text = shown(&plan, &story.events, Path::new("/nowhere"));
    let told: Vec<_> = text.lines().skip_while(|line| !line.contains("TEMPLATE")).take(7).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    TEMPLATE  debian-12-minimal: checking for a template, creating one if missing
    TEMPLATE  debian-12-minimal: from the store, 0.3s, a fork takes 64.0 MiB  e3378bc6e2be
    TEMPLATE  debian-13-minimal: checking for a template, creating one if missing
    TEMPLATE  debian-13-minimal: frozen, 14.2s, a fork takes 61.0 MiB  4a068f2513df
    TEMPLATE  debian-sid-minimal: checking for a template, creating one if missing
        WARN  no template of `debian-sid-minimal` to fork guests from: the disk is full (after 3.0s)
              help: raise timeout.boot in the matrix file
    ");
}

#[test]
fn every_output_says_how_guests_came_to_be() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let fork = || Boot::Forked { template: template(IMAGE) };
    let story = run_of(&plan, &[fork(), fork(), cold("no KVM <here>"), Boot::default()]);
    let text = shown(&plan, &story.events, dir.path());
    assert!(text.contains("\n  guests   4 forked, 2 cold, 2 cold (no KVM <here>)\n"), "{text}");
    for (name, text) in written(dir.path(), &plan, &story) {
        let parts: &[&str] = match name {
            "summary.md" => &["\n**Guests**: 4 forked, 2 cold, 2 cold (no KVM &lt;here&gt;).\n"],
            "junit.xml" => &[
                "[[PROPERTY|nestmatrix.guest=forked]]",
                "[[PROPERTY|nestmatrix.guest=cold]]",
                "[[PROPERTY|nestmatrix.guest=cold: no KVM <here>]]",
            ],
            "report.html" => &[
                "<h3>Templates</h3>",
                "frozen for this run",
                "61.0 MiB of memory for each fork",
                ", forked</div>",
                ", cold</div>",
                ", cold: no KVM &lt;here&gt;</div>",
            ],
            _ => &["\"templates\": [", "\"state\": \"ready\"", "\"how\": \"forked\"", "\"reason\": \"no KVM <here>\""],
        };
        for part in parts {
            assert!(text.contains(part), "{name}: {part}");
        }
    }
}

#[test]
fn what_could_not_be_frozen_is_on_the_page_with_its_reason_and_remedy() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let [_, _, (_, html), _] = written(dir.path(), &plan, &fixture::story(&plan));
    for part in [
        "could not be made: the guest did not answer over SSH in 1m 00s",
        "<b>What to do:</b> raise timeout.boot in the matrix file",
        ", cold: no template of debian-13-minimal: the guest did not answer over SSH in 1m 00s · on runner 1",
        "<span class=\"soft\">on runner 1</span>",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn many_reasons_are_three_lines_and_no_guest_is_left_out() {
    let plan = fixture::plan();
    let boots = ["a", "b", "b", "c", "a", "a", "d", "e"].map(cold);
    let text = shown(&plan, &run_of(&plan, &boots).events, Path::new("/nowhere"));
    let told: Vec<_> = text.lines().skip_while(|line| !line.starts_with("  tests ")).skip(1).take(4).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    guests   0 forked, 3 cold (a)
             2 cold (b)
             3 cold for 3 other reasons
    time     boot 77% (2m 51s), install 11% (24.8s), connect 7% (15.2s), test 3% (7.2s), prepare 1% (2.4s)
    ");
}

#[test]
fn a_run_in_which_nobody_wanted_a_fork_does_not_speak_of_it() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::new();
    story.start(&plan);
    plan.cells.iter().for_each(|cell| story.pass(&cell.id));
    story.finish();
    let text = shown(&plan, &story.events, dir.path());
    assert!(!text.contains(" forked") && !text.contains(" cold"), "{text}");
    for (name, text) in written(dir.path(), &plan, &story) {
        assert!(!text.contains("Templates") && !text.contains("**Guests**"), "{name}");
    }
}
