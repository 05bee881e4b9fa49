//! Facts about the systems of guests, in the reports.

use matrix::CellId;
use reports::{Event, EventKind, Journal, Run, SystemFacts};

use crate::fixture::{self, Story, plan_of};

/// Two cells of one image, whose guests have these kernels.
fn two(kernels: [&str; 2]) -> (matrix::Plan, Story) {
    let plan = plan_of(
        "images = ['debian-12-minimal']\n[[suite]]\nname = 'a'\ninline = ':'\n[[suite]]\nname = 'b'\ninline = ':'\n",
    );
    let mut story = Story::new();
    story.start(&plan);
    for (cell, kernel) in plan.cells.iter().zip(kernels) {
        story.attempt(&cell.id, 1);
        let facts = fixture::system("12", "Debian <12> | \u{1b}[1mbookworm", kernel, "glibc 2.36", "systemd 252");
        story.emit(EventKind::SystemSeen { cell: cell.id.clone(), attempt: 1, facts });
    }
    story.finish();
    (plan, story)
}

/// One of the reports of these events.
pub(crate) fn rendered(plan: &matrix::Plan, events: &[Event], name: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder of our own");
    plan.write(&dir.path().join("plan.json")).expect("a folder of our own");
    let mut journal = Journal::create(dir.path()).expect("a folder of our own");
    events.iter().for_each(|event| journal.append(event).expect("a folder of our own"));
    reports::render::all(dir.path()).expect("a folder of our own");
    std::fs::read_to_string(dir.path().join(name)).expect("a folder of our own")
}

#[test]
fn guests_of_one_image_are_one_system_in_the_summary_and_two_if_they_differ() {
    let rows = |kernels| {
        let (plan, story) = two(kernels);
        let summary = rendered(&plan, &story.events, "summary.md");
        summary.lines().filter(|line| line.contains("glibc")).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(rows(["6.1.0-39", "6.1.0-39"]), @r"| debian-12-minimal | Debian &lt;12&gt; \| bookworm | 6.1.0-39 | glibc 2.36 | systemd 252 |");
    insta::assert_snapshot!(rows(["6.1.0-39", "6.1.0-40"]), @r"
    | debian-12-minimal | Debian &lt;12&gt; \| bookworm | 6.1.0-39 | glibc 2.36 | systemd 252 |
    | debian-12-minimal | Debian &lt;12&gt; \| bookworm | 6.1.0-40 | glibc 2.36 | systemd 252 |
    ");
}

#[test]
fn the_page_shows_both_kernels_where_they_differ_and_every_fact_of_a_cell() {
    let (plan, story) = two(["6.1.0-39", "6.1.0-40"]);
    let page = rendered(&plan, &story.events, "report.html");
    assert_eq!(page.matches("kernel 6.1.0-39<").count(), 1, "once, at its image");
    assert_eq!(page.matches("kernel 6.1.0-40<").count(), 1);
    assert!(page.contains("Debian &lt;12&gt; | bookworm"), "escaped and cleaned");
    assert_eq!(page.matches("<th scope=\"row\">selinux</th><td>absent</td>").count(), 2, "in both cells");
}

#[test]
fn programs_find_the_facts_in_run_json_and_in_the_properties_of_junit() {
    let (plan, story) = two(["6.1.0-39", "6.1.0-39"]);
    let json: serde_json::Value = serde_json::from_str(&rendered(&plan, &story.events, "run.json")).unwrap();
    let system = &json["cells"][0]["attempts"][0]["system"];
    assert_eq!((system["libc"].as_str(), system["cgroups"].as_str()), (Some("glibc 2.36"), Some("v2")));
    let junit = rendered(&plan, &story.events, "junit.xml");
    for property in
        ["system-kernel=6.1.0-39", "system-package-managers=apt 2.6.1, dpkg 1.21.22", "system-apparmor=enabled"]
    {
        assert!(junit.contains(&format!("[[PROPERTY|{property}]]")), "{property}");
    }
}

#[test]
fn journals_from_before_systems_were_seen_are_read_and_say_nothing_of_them() {
    let (plan, mut story) = two(["1", "2"]);
    story.events.retain(|event| !matches!(event.kind, EventKind::SystemSeen { .. }));
    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.contradictions, Vec::<String>::new());
    assert!(run.cells.iter().all(|cell| cell.attempts[0].system.is_none()));
    assert!(!rendered(&plan, &story.events, "summary.md").contains("Systems"));
}

#[test]
fn facts_of_an_attempt_that_never_started_are_a_contradiction() {
    let (plan, mut story) = two(["1", "1"]);
    let cell: CellId = plan.cells[0].id.clone();
    let end = story.events.pop().unwrap();
    story.emit(EventKind::SystemSeen { cell, attempt: 7, facts: SystemFacts::default() });
    story.events.push(end);
    assert_eq!(Run::fold(&plan, &story.events).contradictions.len(), 1);
}
