//! Machines that are created for runners, in every output: created, deleted, left.

use std::path::Path;

use reports::{CloudFacts, EventKind, Phase, Run, Verdict};

use crate::{
    fixture::{self, Story},
    runners::{EVIL, lost, written},
    terminal::shown,
};

fn facts() -> CloudFacts {
    CloudFacts {
        provider: "Compute Engine".to_owned(),
        project: "my-project".to_owned(),
        zone: "us-central1-a".to_owned(),
        machine_type: "n2-standard-4".to_owned(),
        name: "nm-k3x9-1".to_owned(),
        image: "debian-cloud/debian-13".to_owned(),
        cpu_platform: Some("Intel Ice Lake".to_owned()),
        spot: true,
        max_seconds: 4 * 3_600,
        usd_per_hour: Some(0.2),
        creating_ms: 40_000,
    }
}

fn started(runner: u32) -> EventKind {
    EventKind::RunnerStarted { runner, kind: "gce".to_owned(), reason: "asked for".to_owned() }
}

fn created(runner: u32, machine: CloudFacts) -> EventKind {
    EventKind::MachineCreated { runner, machine }
}

fn deleted(runner: u32) -> EventKind {
    EventKind::MachineDeleted { runner, held_ms: 723_000 }
}

fn ready(runner: u32) -> EventKind {
    EventKind::RunnerReady { runner: fixture::runner_facts(runner, "gce", "asked for") }
}

/// A run whose first cell passes on a machine of its own, a minute after that was created.
fn on_machine(plan: &matrix::Plan, machine: CloudFacts) -> Story {
    let mut story = Story::new();
    story.start_run(plan);
    story.emit(started(1));
    story.wait(40_000);
    story.emit(created(1, machine));
    story.wait(60_000);
    story.emit(ready(1));
    plan.cells.iter().for_each(|cell| story.pass(&cell.id));
    story
}

fn fold(plan: &matrix::Plan, events: Vec<EventKind>) -> Run {
    let mut story = Story::new();
    story.start_run(plan);
    events.into_iter().for_each(|event| story.emit(event));
    Run::fold(plan, &story.events)
}

#[test]
fn a_machine_is_in_the_run_with_what_it_took_and_cost() {
    let plan = fixture::plan();
    let mut story = on_machine(&plan, facts());
    story.emit(deleted(1));
    story.finish();
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.contradictions, [""; 0]);
    let machine = run.runners[0].machine.as_ref().expect("created");
    assert_eq!(machine.facts, facts());
    // The guests after the first one do not count.
    assert_eq!((machine.held_ms, machine.first_guest_after_ms), (Some(723_000), Some(60_000)));
    assert_eq!(machine.insert_to_first_guest_ms(), Some(100_000));
    assert!(machine.usd().is_some_and(|usd| (usd - 0.0402).abs() < 0.000_1), "{:?}", machine.usd());
}

#[test]
fn every_output_names_the_machine_and_what_it_took_and_cost() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = on_machine(&plan, facts());
    story.emit(deleted(1));
    story.finish();
    let text = shown(&plan, &story.events, dir.path());
    for part in [
        "\n  cloud   n2-standard-4 (Spot) in us-central1-a, project my-project, instance nm-k3x9-1; deleted after 4h 00m at the latest\n",
        "\n  cloud    nm-k3x9-1: deleted after 12m 03s, first guest 1m 40s after the request, about $0.04\n",
        "guests in the instance, which is itself a VM",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for (name, text) in written(dir.path(), &plan, &story) {
        let parts: &[&str] = match name {
            "summary.md" => &[
                "It is an instance of Compute Engine: n2-standard-4 (Spot) in us-central1-a, project my-project, instance nm-k3x9-1, \
                 debian-cloud/debian-13, Intel Ice Lake; deleted after 12m 03s, first guest 1m 40s after the request, about $0.04.",
            ],
            "junit.xml" => &[
                "[[PROPERTY|runner-machine=Compute Engine: n2-standard-4 (Spot) in us-central1-a, project my-project, instance nm-k3x9-1]]",
                "[[PROPERTY|runner-image=debian-cloud/debian-13]]",
                "[[PROPERTY|runner-cpu=Intel Ice Lake]]",
            ],
            "report.html" => &[
                "<dt>instance</dt><dd>nm-k3x9-1",
                "created on Compute Engine for this run</",
                "n2-standard-4 (Spot) <span class=\"soft\">Intel Ice Lake",
                "us-central1-a <span class=\"soft\">project my-project",
                "<dt>first guest</dt><dd>1m 40s",
                "<dt>time</dt><dd>deleted after 12m 03s",
                "<dt>cost</dt><dd>about $0.04",
                "on runner 1 (gce): n2-standard-4 (Spot) in us-central1-a",
            ],
            _ => &["\"usd_per_hour\": 0.2", "\"held_ms\": 723000", "\"first_guest_after_ms\": 60000"],
        };
        for part in parts {
            assert!(text.contains(part), "{name}: {part}: {text}");
        }
    }
}

#[test]
fn a_machine_that_may_still_exist_is_named_with_how_to_look_for_it() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::new();
    story.start_run(&plan);
    for event in [started(1), created(1, facts()), lost(1)] {
        story.emit(event);
    }
    let gone = Verdict::Error { phase: Phase::Runner, reason: "runner 1 was lost".to_owned() };
    plan.cells.iter().for_each(|cell| story.end(&cell.id, gone.clone()));
    story.finish();
    let text = shown(&plan, &story.events, dir.path());
    let left = "not known to be deleted: `nestmatrix gce list` shows what is left\n";
    assert!(text.contains(&format!("\n  cloud    nm-k3x9-1: {left}")), "{text}");
    for (name, text) in written(dir.path(), &plan, &story) {
        let part = match name {
            "summary.md" => r"at the latest; not known to be deleted: \`nestmatrix gce list\` shows what is left.",
            "report.html" => "<dt>state</dt><dd>not known to be deleted: `nestmatrix gce list` shows what is left",
            "run.json" => "\"held_ms\": null",
            // Its test cases are those of guests, and there was none.
            _ => continue,
        };
        assert!(text.contains(part), "{name}: {part}: {text}");
        assert!(!text.contains("about $"), "{name}: nobody knows for how long");
    }
}

#[test]
fn a_machine_that_is_deleted_after_its_runner_was_lost_is_no_contradiction() {
    let plan = fixture::plan();
    let events = vec![started(1), created(1, facts()), lost(1), started(2), created(2, facts()), deleted(1)];
    let run = fold(&plan, events);
    assert_eq!(run.contradictions, [""; 0]);
    let held =
        |number| run.runner(number).and_then(|runner| runner.machine.as_ref()).and_then(|machine| machine.held_ms);
    assert_eq!((held(1), held(2)), (Some(723_000), None));
}

#[test]
fn a_stream_that_contradicts_itself_about_machines_is_not_green() {
    let plan = fixture::plan();
    let other = || CloudFacts { name: "nm-other".to_owned(), ..facts() };
    let cases: [(&str, Vec<EventKind>, Option<&str>); 7] = [
        ("runner 1, which has not started", vec![created(1, facts())], None),
        ("runner 1, which has not started", vec![deleted(1)], None),
        ("a second machine", vec![started(1), created(1, facts()), created(1, other())], Some("nm-k3x9-1")),
        ("after the runner was ready", vec![started(1), ready(1), created(1, facts())], Some("nm-k3x9-1")),
        ("after the runner was lost", vec![started(1), lost(1), created(1, facts())], Some("nm-k3x9-1")),
        ("none was created", vec![started(1), deleted(1)], None),
        ("was deleted twice", vec![started(1), created(1, facts()), deleted(1), deleted(1)], Some("nm-k3x9-1")),
    ];
    for (expected, events, name) in cases {
        let run = fold(&plan, events);
        assert_eq!(run.contradictions.len(), 1, "{expected}: {:?}", run.contradictions);
        assert!(run.contradictions[0].contains(expected), "{expected}: {:?}", run.contradictions);
        // It costs money whatever the stream says.
        let machine = run.runners.first().and_then(|runner| runner.machine.as_ref());
        assert_eq!(machine.map(|machine| machine.facts.name.as_str()), name, "{expected}");
    }
}

#[test]
fn hostile_facts_of_a_machine_are_clean_and_bounded_once_they_are_in_the_run() {
    let plan = fixture::plan();
    let year_ms = 366 * 24 * 3_600 * 1_000;
    for (usd, kept) in [
        (f64::NAN, None),
        (f64::INFINITY, None),
        (-0.01, None),
        (1e6, None),
        (0.0, Some(0.0)),
        (999_999.0, Some(999_999.0)),
    ] {
        let evil = || EVIL.to_owned();
        let machine = CloudFacts {
            provider: evil(),
            project: evil(),
            zone: evil(),
            machine_type: evil(),
            name: evil(),
            image: "x".repeat(1 << 20),
            cpu_platform: Some(evil()),
            spot: false,
            max_seconds: u64::MAX,
            usd_per_hour: Some(usd),
            creating_ms: u64::MAX,
        };
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut story = on_machine(&plan, machine);
        story.emit(EventKind::MachineDeleted { runner: 1, held_ms: u64::MAX });
        story.finish();
        let run = Run::fold(&plan, &story.events);
        let machine = run.runners[0].machine.as_ref().expect("created");
        assert_eq!(machine.facts.usd_per_hour, kept);
        assert_eq!((machine.held_ms, machine.facts.creating_ms), (Some(year_ms), year_ms));
        assert_eq!(machine.facts.max_seconds, year_ms / 1_000);
        let text = shown(&plan, &story.events, Path::new("/nowhere"));
        for (name, text) in written(dir.path(), &plan, &story).into_iter().chain([("terminal", text)]) {
            assert!(text.contains("evil"), "{name}");
            let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
            assert_eq!(bad, None, "{name}");
            assert!(text.len() < 500_000, "{name}: {} bytes", text.len());
            assert!(!text.contains("NaN") && !text.contains("$inf"), "{name}");
            assert!(text.matches("<script").count() <= 1 || !name.ends_with("html"), "{name}");
        }
    }
}

#[test]
fn what_retries_bad_cells_asks_for_the_same_machine() {
    let mut plan = fixture::plan();
    let again = |plan: &matrix::Plan| {
        let text = shown(plan, &fixture::story(plan).events, Path::new("nowhere"));
        text.lines().find(|line| line.trim_start().starts_with("again ")).expect("bad cells").to_owned()
    };
    plan = plan.on(matrix::RunnerKind::Gce);
    let line = again(&plan);
    assert!(line.contains("hello.toml --runner gce --cell"), "{line}");
    let overrides = matrix::GceOverrides {
        project: Some("my-project".to_owned()),
        zones: ["us-central1-a", "us-central1-b"].map(str::to_owned).to_vec(),
        spot: Some(true),
        proxy_command: Some("nc %h %p".to_owned()),
        max_duration: Some(std::time::Duration::from_secs(5_400)),
        labels: [("team".to_owned(), "qa".to_owned())].into(),
        ..matrix::GceOverrides::default()
    };
    let line = again(&plan.on_gce(overrides).expect("it may be"));
    let options = "--runner gce --gce-project my-project --gce-zone us-central1-a,us-central1-b --gce-proxy-command 'nc %h %p' \
                   --gce-max-duration 5400s --gce-label team=qa --gce-spot --cell";
    assert!(line.contains(options), "{line}");
}
