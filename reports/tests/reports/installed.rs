//! Installed packages appear in the reports.

use reports::{EventKind, InstalledPackage, Run};

use crate::{
    fixture::{Story, plan_of},
    systems::rendered,
};

#[test]
fn what_a_guest_says_it_installed_is_on_the_page_in_run_json_and_in_junit() {
    let plan = plan_of("images = ['debian-12-minimal']\n[[suite]]\nname = 'a'\ninline = ':'\n");
    let mut story = Story::new();
    story.start(&plan);
    let cell = plan.cells[0].id.clone();
    story.attempt(&cell, 1);
    let package = |name: &str, version: &str| InstalledPackage { name: name.to_owned(), version: version.to_owned() };
    let packages = vec![package("hello", "1:2.12-1"), package("lib\u{1b}[1m<hello>", "2.12-1\n")];
    story.emit(EventKind::PackagesInstalled { cell, attempt: 1, packages });
    story.finish();

    let run = Run::fold(&plan, &story.events);
    assert_eq!(run.contradictions, Vec::<String>::new());
    let page = rendered(&plan, &story.events, "report.html");
    assert!(page.contains("installed: hello 1:2.12-1, lib&lt;hello&gt; 2.12-1<"), "escaped and cleaned");
    let json: serde_json::Value = serde_json::from_str(&rendered(&plan, &story.events, "run.json")).unwrap();
    assert_eq!(json["cells"][0]["attempts"][0]["installed"][0]["version"], "1:2.12-1");
    let junit = rendered(&plan, &story.events, "junit.xml");
    assert!(junit.contains("[[PROPERTY|installed=hello 1:2.12-1]]"), "{junit}");
}

#[test]
fn packages_that_were_installed_by_name_are_said_to_be() {
    let plan = plan_of(
        "images = ['debian-12-minimal']\npackage = { name = 'hello', artifacts = ['*.deb'], install = 'repository' }\n\
         [[suite]]\nname = 'a'\ninline = ':'\n[[suite]]\nname = 'b'\ninline = ':'\ninstall = 'file'\n",
    );
    let mut story = Story::new();
    story.start(&plan);
    for cell in plan.cells.iter().map(|cell| cell.id.clone()) {
        story.attempt(&cell, 1);
        let packages = vec![InstalledPackage { name: "hello".to_owned(), version: "2.12-1".to_owned() }];
        story.emit(EventKind::PackagesInstalled { cell, attempt: 1, packages });
    }
    story.finish();
    let page = rendered(&plan, &story.events, "report.html");
    assert!(
        page.contains("installed (the package by name): hello 2.12-1<") && page.contains("installed: hello 2.12-1<")
    );
    let summary = rendered(&plan, &story.events, "summary.md");
    let lines =
        "**Installed**: hello 2.12-1, the package by name (debian-12-minimal); hello 2.12-1 (debian-12-minimal).";
    assert!(summary.contains(lines), "{summary}");
    let json: serde_json::Value = serde_json::from_str(&rendered(&plan, &story.events, "run.json")).unwrap();
    assert_eq!((&json["cells"][0]["install"], &json["cells"][1]["install"]), (&"repository".into(), &"file".into()));
}
