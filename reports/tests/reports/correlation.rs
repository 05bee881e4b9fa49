//! What failures have in common.

use matrix::Plan;
use proptest::prelude::*;
use reports::{
    Boot, CaseVerdict, Ending, EventKind, InstalledPackage, Phase, Run, RunRecord, SystemFacts, Trouble, TroubleKind,
    Verdict,
};

use crate::{
    fixture::{Story, plan_of, template},
    systems::rendered,
};

/// What becomes of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passes,
    Fails,
    DoesNotInstall,
    /// For no fault of the package.
    Errs,
}

use End::{DoesNotInstall, Errs, Fails, Passes};

struct Guest {
    boot: Boot,
    system: Option<SystemFacts>,
    end: End,
    installed: Vec<InstalledPackage>,
}

fn system(libc: &str, init: &str, kernel: &str) -> SystemFacts {
    let fact = |fact: &str| Some(fact.to_owned());
    SystemFacts { libc: fact(libc), init: fact(init), kernel: fact(kernel), ..SystemFacts::default() }
}

fn guest(system: SystemFacts, end: End) -> Guest {
    Guest { boot: Boot::default(), system: Some(system), end, installed: Vec::new() }
}

/// A run of one suite on an image for each guest.
fn run_of(guests: &[Guest]) -> (Plan, Story) {
    let image = |number| format!("[[image]]\nname = 'g{number}'\nfrom = 'debian-12-minimal'\n");
    let images: String = (0..guests.len()).map(image).collect();
    let plan = plan_of(&format!("{images}[[suite]]\nname = 'full'\ninline = ':'\n"));
    let story = story_of(&plan, guests);
    (plan, story)
}

/// A guest for each cell.
fn story_of(plan: &Plan, guests: &[Guest]) -> Story {
    let mut story = Story::new();
    story.start(plan);
    story.freeze(&plan.images[0].name, 1);
    for (cell, guest) in plan.cells.iter().map(|cell| &cell.id).zip(guests) {
        story.boot = guest.boot.clone();
        story.attempt(cell, 1);
        story.phase(cell, 1, Phase::Boot, 1);
        if let Some(facts) = &guest.system {
            story.emit(EventKind::SystemSeen { cell: cell.clone(), attempt: 1, facts: facts.clone() });
        }
        if !guest.installed.is_empty() {
            let packages = guest.installed.clone();
            story.emit(EventKind::PackagesInstalled { cell: cell.clone(), attempt: 1, packages });
        }
        let failed = |phase| Verdict::Failed { phase, reason: "at least one test failed".to_owned() };
        let verdict = match guest.end {
            DoesNotInstall => {
                story.phase(cell, 1, Phase::Install, 1);
                failed(Phase::Install)
            }
            Errs => Trouble::new(TroubleKind::RepositoryFailed, Phase::Install, "gone").verdict(),
            Passes | Fails => {
                story.phase(cell, 1, Phase::Install, 1);
                let failure = CaseVerdict::Failed { message: "no".to_owned(), detail: String::new() };
                let verdict = if guest.end == Fails { failure } else { CaseVerdict::Passed };
                story.case(cell, 1, "tls", verdict, 1);
                story.case(cell, 1, "always", CaseVerdict::Passed, 1);
                if guest.end == Fails { failed(Phase::Test) } else { Verdict::Passed }
            }
        };
        story.conclude(cell, 1, verdict);
    }
    story.finish();
    story
}

fn said(guests: &[Guest]) -> Vec<String> {
    let (plan, story) = run_of(guests);
    said_of(&plan, &story)
}

fn said_of(plan: &Plan, story: &Story) -> Vec<String> {
    let run = Run::fold(plan, &story.events);
    assert_eq!(run.contradictions, Vec::<String>::new());
    RunRecord::new(&run).correlations.iter().map(ToString::to_string).collect()
}

fn debian(release: u32) -> SystemFacts {
    match release {
        11 => system("glibc 2.31", "systemd 247", "5.10.0-30"),
        12 => system("glibc 2.36", "systemd 252", "6.1.0-39"),
        _ => system("glibc 2.41", "systemd 257", "6.12.41"),
    }
}

fn alpine() -> SystemFacts {
    system("musl 1.2.5", "OpenRC 0.55.1", "6.12.41")
}

#[test]
fn a_test_that_fails_below_a_version_is_told_with_the_counts_and_with_what_is_as_true() {
    let guests = [
        guest(debian(11), Fails),
        guest(debian(11), Fails),
        guest(debian(12), Passes),
        guest(debian(13), Passes),
        guest(alpine(), Passes),
    ];
    assert_eq!(
        said(&guests),
        [
            "`full: tls` fails on 2 of 2 guests with `glibc` < 2.36, passes on 3 of 3 others (also true: `systemd` < 252; Linux < 6.1.0)"
        ]
    );
}

#[test]
fn what_is_there_or_is_not_there_is_a_condition() {
    let guests = [guest(debian(11), Passes), guest(debian(13), Passes), guest(alpine(), Fails)];
    assert!(
        said(&guests)[0].starts_with("`full: tls` fails on 1 of 1 guest with `musl`, passes on 2 of 2 others"),
        "{:?}",
        said(&guests)
    );
    let guests = [guest(debian(11), Fails), guest(debian(13), Fails), guest(alpine(), Passes)];
    assert!(said(&guests)[0].starts_with("`full: tls` fails on 2 of 2 guests with `glibc`, passes on 1 of 1 others"));
}

#[test]
fn two_conditions_are_named_where_no_single_one_separates() {
    let guests = [
        guest(system("glibc 2.31", "OpenRC 1", "6.1"), Fails),
        guest(system("glibc 2.28", "OpenRC 1", "6.1"), Fails),
        guest(system("glibc 2.31", "systemd 252", "6.1"), Passes),
        guest(system("glibc 2.36", "OpenRC 1", "6.1"), Passes),
    ];
    assert!(
        said(&guests)[0].contains("fails on 2 of 2 guests with `glibc` < 2.36 and `OpenRC`, passes on 2 of 2 others"),
        "{:?}",
        said(&guests)
    );
}

#[test]
fn nothing_is_said_where_a_guest_did_not_say_or_where_an_exception_is_seen_or_of_too_few() {
    let unknown = Guest { system: None, ..guest(SystemFacts::default(), Passes) };
    let old = || guest(debian(11), Fails);
    assert_eq!(said(&[old(), guest(debian(12), Passes), unknown]), Vec::<String>::new());
    assert_eq!(said(&[old(), guest(debian(12), Passes), guest(debian(11), Passes)]), Vec::<String>::new());
    assert_eq!(said(&[old(), guest(debian(12), Passes)]), Vec::<String>::new());
    assert_eq!(said(&[old(), old(), old()]), Vec::<String>::new());
}

#[test]
fn errors_tell_nothing_of_the_package_and_a_phase_it_failed_in_is_a_test() {
    let guests = [
        guest(debian(11), DoesNotInstall),
        guest(debian(12), Passes),
        guest(debian(13), Fails),
        // With an old C library it does not fail here, but neither does it pass.
        guest(debian(11), Errs),
    ];
    let said = said(&guests);
    assert!(
        said[0].starts_with("`full: installation` fails on 1 of 1 guest with `glibc` < 2.36, passes on 2 of 2 others; 1 more guest told nothing (also true"),
        "{said:?}"
    );
    assert_eq!(said.len(), 1, "of the other test only two cells tell: {said:?}");
}

#[test]
fn versions_of_packages_separate_only_where_all_guests_name_them() {
    let with = |versions: &[&str], end| {
        let package = |version: &str| InstalledPackage { name: "libssl3".to_owned(), version: version.to_owned() };
        Guest { installed: versions.iter().map(|version| package(version)).collect(), ..guest(debian(12), end) }
    };
    let told = |versions: [&[&str]; 3]| {
        let [failed, passed, more] = versions;
        said(&[with(failed, Fails), with(passed, Passes), with(more, Passes)])
    };
    assert_eq!(
        told([&["3.0.11-1"], &["3.5.1-1"], &["3.5.4-1"]]),
        ["`full: tls` fails on 1 of 1 guest with package `libssl3` < 3.5.1, passes on 2 of 2 others"]
    );
    for unclear in [
        [&["3.0.11-1"][..], &["3.5.1-1"], &[]],
        // Two at once, and of packagers that do not count alike.
        [&["3.0.11-1", "3.5.4-1"], &["3.5.1-1"], &["3.5.4-1"]],
        [&["1:1.9"], &["2.0"], &["2.1"]],
        // The same numbers.
        [&["3.0-1"], &["3.0-2"], &["3"]],
    ] {
        assert_eq!(told(unclear), Vec::<String>::new(), "{unclear:?}");
    }
}

#[test]
fn a_phase_is_not_passed_by_a_cell_that_is_red_for_what_it_asked_for() {
    let cells = [(11, Some(TroubleKind::UnexpectedRequest)), (12, None), (13, None)];
    let guests: Vec<_> = cells.iter().map(|(release, _)| guest(debian(*release), Passes)).collect();
    let (plan, mut story) = run_of(&guests);
    for (cell, (_, kind)) in plan.cells.iter().map(|cell| &cell.id).zip(cells) {
        let Some(kind) = kind else { continue };
        let trouble = Trouble::new(kind, Phase::Install, "the guest tried to reach telemetry.example");
        for event in &mut story.events {
            match &mut event.kind {
                EventKind::AttemptFinished { cell: of, ending, .. } if of == cell => {
                    *ending = Ending::Troubled(trouble.clone())
                }
                EventKind::CellFinished { cell: of, verdict } if of == cell => *verdict = trouble.verdict(),
                _ => {}
            }
        }
    }
    let run = Run::fold(&plan, &story.events);
    assert_eq!((run.counts().cells.failed, run.correlations()), (1, Vec::new()), "it installs");
}

#[test]
fn systems_that_count_differently_are_not_compared() {
    let freebsd = |version: &str| SystemFacts {
        id: Some("freebsd".to_owned()),
        version: Some(version.to_owned()),
        kernel: Some(format!("{version}-RELEASE")),
        arch: Some("amd64".to_owned()),
        ..SystemFacts::default()
    };
    let linux = || SystemFacts {
        id: Some("debian".to_owned()),
        version: Some("12".to_owned()),
        kernel: Some("6.1.0".to_owned()),
        arch: Some("x86_64".to_owned()),
        ..SystemFacts::default()
    };
    let said = said(&[guest(linux(), Fails), guest(linux(), Fails), guest(freebsd("15.0"), Passes)]);
    assert_eq!(
        said,
        ["`full: tls` fails on 2 of 2 guests with `debian`, passes on 1 of 1 others (also true: Linux; not `freebsd`)"]
    );
    let both = [guest(linux(), Fails), guest(freebsd("14.1"), Fails), guest(freebsd("15.0"), Passes)];
    assert_eq!(self::said(&both), Vec::<String>::new(), "neither of the two has a version of the other");
}

#[test]
fn names_that_guests_choose_stay_in_their_quotes() {
    let hostile = "x`, passes on 900 of 900 others (as true: `y".to_owned() + &"z".repeat(200);
    let odd = SystemFacts { libc: Some(hostile), ..debian(11) };
    let said = said(&[guest(odd, Fails), guest(debian(12), Passes), guest(debian(13), Passes)]);
    assert_eq!(said[0].matches('`').count() % 2, 0);
    assert!(
        said[0].starts_with("`full: tls` fails on 1 of 1 guest with `x', passes on 900 of 900 others (as true: 'y"),
        "{said:?}"
    );
    assert!(said[0].contains("zzz...`, passes on 2 of 2 others"), "{said:?}");
}

#[test]
fn tests_that_a_suite_names_alike_are_one_and_pseudo_cases_are_not_to_be_forged() {
    let (plan, mut story) = run_of(&[guest(debian(11), Fails), guest(debian(12), Passes), guest(debian(13), Passes)]);
    for event in &mut story.events {
        if let EventKind::TestFinished { case, .. } = &mut event.kind {
            case.name = "[install]".to_owned();
        }
    }
    let run = Run::fold(&plan, &story.events);
    let found: Vec<_> =
        run.correlations().iter().map(|found| (found.tests.clone(), found.failed, found.passed)).collect();
    assert_eq!(found, [(vec!["full: [install]".to_owned()], 1, 2)]);
}

#[test]
fn axes_are_conditions_and_how_a_guest_was_started_is_one() {
    let told = |values: &str, starts: &[(bool, End)]| {
        let plan = plan_of(&format!(
            "images = ['debian-12-minimal']\n[[suite]]\nname = 'full'\ninline = ':'\n[axes]\nphp = [{values}]\n"
        ));
        let guests: Vec<_> = starts
            .iter()
            .map(|(forked, end)| {
                let template = template("debian-12-minimal");
                let boot = if *forked { Boot::Forked { template } } else { Boot::default() };
                Guest { boot, ..guest(SystemFacts::default(), *end) }
            })
            .collect();
        said_of(&plan, &story_of(&plan, &guests))
    };
    let (warm, cold) = (true, false);
    let said = told("'8.1', '8.2', '8.10'", &[(warm, Fails), (warm, Fails), (warm, Passes)]);
    assert_eq!(said, ["`full: tls` fails on 2 of 2 guests with `php` < 8.10, passes on 1 of 1 others"]);
    // Of values that are no versions, none is higher.
    let said = told("'8.1', '8.2', 'latest'", &[(warm, Fails), (warm, Passes), (warm, Passes)]);
    assert_eq!(said, ["`full: tls` fails on 1 of 1 guest with `php=8.1`, passes on 2 of 2 others"]);
    // Nor of sizes and tags.
    for (values, value) in
        [("'512MiB', '1GiB', '2GiB'", "512MiB"), ("'mysql:8.0', 'postgres:16', 'postgres:17'", "mysql:8.0")]
    {
        let said = told(values, &[(warm, Fails), (warm, Passes), (warm, Passes)]);
        assert_eq!(said, [format!("`full: tls` fails on 1 of 1 guest with `php={value}`, passes on 2 of 2 others")]);
    }
    let said = told("'a', 'b', 'c'", &[(warm, Fails), (cold, Passes), (warm, Fails)]);
    assert_eq!(said, ["`full: tls` fails on 2 of 2 guests with forked start, passes on 1 of 1 others"]);
}

#[test]
fn the_reports_have_it_and_a_hostile_guest_writes_no_markup() {
    let hostile = SystemFacts { libc: Some("<b>evil|libc 1".to_owned()), ..debian(11) };
    let (plan, story) = run_of(&[guest(hostile, Fails), guest(debian(12), Passes), guest(debian(13), Passes)]);
    let summary = rendered(&plan, &story.events, "summary.md");
    assert!(
        summary.contains("In common: \\`full: tls\\` fails on 1 of 1 guest with \\`&lt;b&gt;evil\\|libc\\`, passes"),
        "{summary}"
    );
    let page = rendered(&plan, &story.events, "report.html");
    assert!(page.contains("fails on 1 of 1 guest with `&lt;b&gt;evil|libc`, passes on 2 of 2 others"), "{page}");
    let json: serde_json::Value = serde_json::from_str(&rendered(&plan, &story.events, "run.json")).unwrap();
    assert_eq!(
        (json["correlations"][0]["failed"].as_u64(), json["correlations"][0]["passed"].as_u64()),
        (Some(1), Some(2))
    );
}

proptest! {
    /// A condition on one version is said exactly if it is true of all guests.
    #[test]
    fn a_bound_is_said_exactly_if_no_guest_contradicts_it(cells in prop::collection::vec((1_u32..6, any::<bool>()), 3..12)) {
        let guests: Vec<_> = cells
            .iter()
            .map(|(libc, fails)| guest(system(&format!("glibc 2.{libc}"), "systemd 1", "6.1"), if *fails { Fails } else { Passes }))
            .collect();
        let told = said(&guests);
        let of = |wanted: bool| cells.iter().filter(|(_, fails)| *fails == wanted).map(|(libc, _)| *libc).collect::<Vec<_>>();
        let (failed, passed) = (of(true), of(false));
        let both = !failed.is_empty() && !passed.is_empty();
        let below = both && failed.iter().max() < passed.iter().min();
        let above = both && failed.iter().min() > passed.iter().max();
        let only = both && failed.iter().all(|libc| *libc == failed[0]) && !passed.contains(&failed[0]);
        let between = both && !passed.iter().any(|libc| failed.iter().min() <= Some(libc) && Some(libc) <= failed.iter().max());
        prop_assert_eq!(told.iter().any(|text| text.contains("with `glibc` < ") && !text.contains(" and `glibc`")), below, "{:?}", told);
        prop_assert_eq!(!told.is_empty(), below || above || only || between, "{:?}", told);
        for text in told {
            let counts = format!("fails on {} of {} guest", failed.len(), failed.len());
            prop_assert!(text.contains(&counts) && text.contains(&format!("passes on {} of {} others", passed.len(), passed.len())), "{}", text);
        }
    }
}
