//! junit.xml as other programs read it.

use std::{fs, path::Path};

use proptest::prelude::*;
use reports::{CaseVerdict, EventKind, Journal, Phase, Run, Verdict, attempt_folder};

use crate::{
    counts::{expected_junit, junit_counts},
    fixture::{self, Story},
};

fn rendered(dir: &Path) -> String {
    fs::read_to_string(reports::render::all(dir).expect("rendered").junit_xml).expect("written")
}

#[test]
fn a_run_is_one_suite_per_image_with_the_whole_story() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fixture::write(dir.path());
    let xml = rendered(dir.path());
    // A line per element, to be read by people.
    let lines = xml.replace("><testsuite ", ">\n<testsuite ").replace("><testcase", ">\n<testcase");
    insta::assert_snapshot!(lines, @r#"
    <?xml version="1.0" encoding="utf-8"?><testsuites tests="10" errors="2" failures="3" time="8.52">
    <testsuite id="0" name="debian-11-minimal" package="testsuite/debian-11-minimal" tests="2" errors="0" failures="2" hostname="localhost" timestamp="2026-11-22T10:30:00Z" time="4.4" skipped="0">
    <testcase name="[install]" time="2.2" classname="debian-11-minimal.smoke"><failure type="install" message="hello 2.12 does not install: dpkg exited with 1"><![CDATA[hello 2.12 does not install: dpkg exited with 1
    Selecting previously unselected package hello.
    (Reading database ... 9241 files and directories currently installed.)
    Preparing to unpack .../hello_2.12-1_amd64.deb ...
    Unpacking hello (2.12-1) ...
    dpkg: dependency problems prevent configuration of hello:
     hello depends on libc6 (>= 2.34); however:
      Version of libc6:amd64 on system is 2.31-13+deb11u13.

    dpkg: error processing package hello (--install):
     dependency problems - leaving unconfigured
    Errors were encountered while processing:
     hello]]></failure><system-out><![CDATA[[[PROPERTY|cell=debian-11-minimal.smoke]]
    [[PROPERTY|verdict=failed]]
    [[PROPERTY|duration=25.8s]]
    [[PROPERTY|image-digest=sha256:b8720b7fd44531a8811a9a34a17c79993179ede5a68c8bd6bef608da5f0f9dd4]]
    [[PROPERTY|attempt 1=failed in install: hello 2.12 does not install: dpkg exited with 1]]
    [[PROPERTY|attempt 1 ran on=runner 1 (qemu): a virtual machine of image debian-13-runner]]
    [[PROPERTY|guest=pc-q35-10.0 under kvm]]
    [[PROPERTY|nestmatrix.guest=cold]]
    [[PROPERTY|system-name=Debian GNU/Linux 11 (bullseye)]]
    [[PROPERTY|system-id=debian]]
    [[PROPERTY|system-version=11]]
    [[PROPERTY|system-kernel=5.10.0-35-cloud-amd64]]
    [[PROPERTY|system-arch=x86_64]]
    [[PROPERTY|system-libc=glibc 2.31]]
    [[PROPERTY|system-init=systemd 247]]
    [[PROPERTY|system-package-managers=apt 2.6.1, dpkg 1.21.22]]
    [[PROPERTY|system-cgroups=v2]]
    [[PROPERTY|system-selinux=absent]]
    [[PROPERTY|system-apparmor=enabled]]
    [[PROPERTY|runner=1 (qemu)]]
    [[PROPERTY|runner-kernel=6.12.43+deb13-cloud-amd64]]
    [[PROPERTY|runner-accelerator=kvm]]
    [[PROPERTY|runner-qemu=10.0.2]]
    [[PROPERTY|runner-depth=2]]
    [[PROPERTY|help=install.log has every word of it; the package asks for more than this system has]]
    [[ATTACHMENT|cells/debian-11-minimal.smoke/attempt-1/install.log]]
    [[ATTACHMENT|cells/debian-11-minimal.smoke/attempt-1/console.log]]]]></system-out></testcase>
    <testcase name="[install]" time="2.2" classname="debian-11-minimal.service"><failure type="install" message="hello 2.12 does not install: dpkg exited with 1"><![CDATA[hello 2.12 does not install: dpkg exited with 1
    Selecting previously unselected package hello.
    (Reading database ... 9241 files and directories currently installed.)
    Preparing to unpack .../hello_2.12-1_amd64.deb ...
    Unpacking hello (2.12-1) ...
    dpkg: dependency problems prevent configuration of hello:
     hello depends on libc6 (>= 2.34); however:
      Version of libc6:amd64 on system is 2.31-13+deb11u13.

    dpkg: error processing package hello (--install):
     dependency problems - leaving unconfigured
    Errors were encountered while processing:
     hello]]></failure><system-out><![CDATA[[[PROPERTY|cell=debian-11-minimal.service]]
    [[PROPERTY|verdict=failed]]
    [[PROPERTY|duration=25.8s]]
    [[PROPERTY|image-digest=sha256:b8720b7fd44531a8811a9a34a17c79993179ede5a68c8bd6bef608da5f0f9dd4]]
    [[PROPERTY|attempt 1=failed in install: hello 2.12 does not install: dpkg exited with 1]]
    [[PROPERTY|attempt 1 ran on=runner 1 (qemu): a virtual machine of image debian-13-runner]]
    [[PROPERTY|guest=pc-q35-10.0 under kvm]]
    [[PROPERTY|nestmatrix.guest=cold]]
    [[PROPERTY|system-name=Debian GNU/Linux 11 (bullseye)]]
    [[PROPERTY|system-id=debian]]
    [[PROPERTY|system-version=11]]
    [[PROPERTY|system-kernel=5.10.0-35-cloud-amd64]]
    [[PROPERTY|system-arch=x86_64]]
    [[PROPERTY|system-libc=glibc 2.31]]
    [[PROPERTY|system-init=systemd 247]]
    [[PROPERTY|system-package-managers=apt 2.6.1, dpkg 1.21.22]]
    [[PROPERTY|system-cgroups=v2]]
    [[PROPERTY|system-selinux=absent]]
    [[PROPERTY|system-apparmor=enabled]]
    [[PROPERTY|runner=1 (qemu)]]
    [[PROPERTY|runner-kernel=6.12.43+deb13-cloud-amd64]]
    [[PROPERTY|runner-accelerator=kvm]]
    [[PROPERTY|runner-qemu=10.0.2]]
    [[PROPERTY|runner-depth=2]]
    [[PROPERTY|help=install.log has every word of it; the package asks for more than this system has]]
    [[ATTACHMENT|cells/debian-11-minimal.service/attempt-1/install.log]]
    [[ATTACHMENT|cells/debian-11-minimal.service/attempt-1/console.log]]]]></system-out></testcase></testsuite>
    <testsuite id="1" name="debian-12-minimal" package="testsuite/debian-12-minimal" tests="4" errors="0" failures="1" hostname="localhost" timestamp="2026-11-22T10:30:00Z" time="0.88" skipped="1">
    <testcase name="greet::says hello" time="0.12" classname="debian-12-minimal.smoke"><system-out><![CDATA[[[PROPERTY|cell=debian-12-minimal.smoke]]
    [[PROPERTY|verdict=passed]]
    [[PROPERTY|duration=28.0s]]
    [[PROPERTY|image-digest=sha256:742e192ef6eb8d380d09cec0913922717b28d29786e1e302fbfadaaa78ba29b8]]
    [[PROPERTY|attempt 1=passed]]
    [[PROPERTY|attempt 1 ran on=runner 1 (qemu): a virtual machine of image debian-13-runner]]
    [[PROPERTY|guest=pc-q35-10.0 under kvm]]
    [[PROPERTY|nestmatrix.guest=forked]]
    [[PROPERTY|system-name=Debian GNU/Linux 12 (bookworm)]]
    [[PROPERTY|system-id=debian]]
    [[PROPERTY|system-version=12]]
    [[PROPERTY|system-kernel=6.1.0-39-cloud-amd64]]
    [[PROPERTY|system-arch=x86_64]]
    [[PROPERTY|system-libc=glibc 2.36]]
    [[PROPERTY|system-init=systemd 252]]
    [[PROPERTY|system-package-managers=apt 2.6.1, dpkg 1.21.22]]
    [[PROPERTY|system-cgroups=v2]]
    [[PROPERTY|system-selinux=absent]]
    [[PROPERTY|system-apparmor=enabled]]
    [[PROPERTY|runner=1 (qemu)]]
    [[PROPERTY|runner-kernel=6.12.43+deb13-cloud-amd64]]
    [[PROPERTY|runner-accelerator=kvm]]
    [[PROPERTY|runner-qemu=10.0.2]]
    [[PROPERTY|runner-depth=2]]
    [[ATTACHMENT|cells/debian-12-minimal.smoke/attempt-1/stdout.log]]
    [[ATTACHMENT|cells/debian-12-minimal.smoke/attempt-1/console.log]]
    [[ATTACHMENT|cells/debian-12-minimal.smoke/attempt-1/results/tests.xml]]
    Hello, world!
    3 tests, 0 failures
    ]]></system-out></testcase>
    <testcase name="greet::says it in Turkish" time="0" classname="debian-12-minimal.smoke"><skipped type="skipped" message="locale tr_TR is not there"/></testcase>
    <testcase name="version" time="0.06" classname="debian-12-minimal.smoke"/>
    <testcase name="service" time="0.7" classname="debian-12-minimal.service"><failure type="test" message="exit code 3"><![CDATA[exit code 3
    $ systemctl is-active hello
    failed
    hello.service: Failed with result 'exit-code'.
    ]]></failure><system-out><![CDATA[[[PROPERTY|cell=debian-12-minimal.service]]
    [[PROPERTY|verdict=failed]]
    [[PROPERTY|duration=27.7s]]
    [[PROPERTY|image-digest=sha256:742e192ef6eb8d380d09cec0913922717b28d29786e1e302fbfadaaa78ba29b8]]
    [[PROPERTY|attempt 1=failed in test: service: exit code 3]]
    [[PROPERTY|attempt 1 ran on=runner 1 (qemu): a virtual machine of image debian-13-runner]]
    [[PROPERTY|guest=pc-q35-10.0 under kvm]]
    [[PROPERTY|nestmatrix.guest=forked]]
    [[PROPERTY|system-name=Debian GNU/Linux 12 (bookworm)]]
    [[PROPERTY|system-id=debian]]
    [[PROPERTY|system-version=12]]
    [[PROPERTY|system-kernel=6.1.0-39-cloud-amd64]]
    [[PROPERTY|system-arch=x86_64]]
    [[PROPERTY|system-libc=glibc 2.36]]
    [[PROPERTY|system-init=systemd 252]]
    [[PROPERTY|system-package-managers=apt 2.6.1, dpkg 1.21.22]]
    [[PROPERTY|system-cgroups=v2]]
    [[PROPERTY|system-selinux=absent]]
    [[PROPERTY|system-apparmor=enabled]]
    [[PROPERTY|runner=1 (qemu)]]
    [[PROPERTY|runner-kernel=6.12.43+deb13-cloud-amd64]]
    [[PROPERTY|runner-accelerator=kvm]]
    [[PROPERTY|runner-qemu=10.0.2]]
    [[PROPERTY|runner-depth=2]]
    [[ATTACHMENT|cells/debian-12-minimal.service/attempt-1/stdout.log]]
    [[ATTACHMENT|cells/debian-12-minimal.service/attempt-1/stderr.log]]
    checking the service <hello> & its socket ]]]]><![CDATA[> done
    ]]></system-out><system-err><![CDATA[hello.service: Failed with result 'exit-code'.
    ]]></system-err></testcase></testsuite>
    <testsuite id="2" name="debian-13-minimal" package="testsuite/debian-13-minimal" tests="2" errors="1" failures="0" hostname="localhost" timestamp="2026-11-22T10:30:00Z" time="3.24" skipped="0">
    <testcase name="smoke" time="0.84" classname="debian-13-minimal.smoke"><system-out><![CDATA[[[PROPERTY|cell=debian-13-minimal.smoke]]
    [[PROPERTY|verdict=passed]]
    [[PROPERTY|duration=27.7s]]
    [[PROPERTY|image-digest=sha256:f212df2e4f45d5beb9319b3ab963db0fd8e3bbdbe33f1d9af4ab0d2a2882a2aa]]
    [[PROPERTY|attempt 1=passed]]
    [[PROPERTY|attempt 1 ran on=runner 1 (qemu): a virtual machine of image debian-13-runner]]
    [[PROPERTY|guest=pc-q35-10.0 under kvm]]
    [[PROPERTY|nestmatrix.guest=cold: no template of debian-13-minimal: the guest did not answer over SSH in 1m 00s]]
    [[PROPERTY|runner=1 (qemu)]]
    [[PROPERTY|runner-kernel=6.12.43+deb13-cloud-amd64]]
    [[PROPERTY|runner-accelerator=kvm]]
    [[PROPERTY|runner-qemu=10.0.2]]
    [[PROPERTY|runner-depth=2]]
    [[ATTACHMENT|cells/debian-13-minimal.smoke/attempt-1/stdout.log]]
    Hello, world!
    ]]></system-out></testcase>
    <testcase name="[boot]" time="2.4" classname="debian-13-minimal.service"><error type="boot" message="the guest&apos;s kernel panicked"><![CDATA[the guest's kernel panicked
    [    1.902] VFS: Unable to mount root fs on unknown-block(0,0)
    [    1.903] Kernel panic - not syncing: VFS]]></error><system-out><![CDATA[[[PROPERTY|cell=debian-13-minimal.service]]
    [[PROPERTY|verdict=error]]
    [[PROPERTY|duration=50.7s]]
    [[PROPERTY|image-digest=sha256:f212df2e4f45d5beb9319b3ab963db0fd8e3bbdbe33f1d9af4ab0d2a2882a2aa]]
    [[PROPERTY|attempt 1=error in runner: runner 1 was lost; tried again]]
    [[PROPERTY|attempt 1 ran on=runner 1 (qemu): a virtual machine of image debian-13-runner; it was lost: it no longer answers: no heartbeat for 30s]]
    [[PROPERTY|attempt 2=error in boot: the guest's kernel panicked]]
    [[PROPERTY|attempt 2 ran on=runner 2 (qemu): a virtual machine of image debian-13-runner]]
    [[PROPERTY|guest=pc-q35-10.0 under kvm]]
    [[PROPERTY|nestmatrix.guest=cold]]
    [[PROPERTY|runner=2 (qemu)]]
    [[PROPERTY|runner-kernel=6.12.43+deb13-cloud-amd64]]
    [[PROPERTY|runner-accelerator=kvm]]
    [[PROPERTY|runner-qemu=10.0.2]]
    [[PROPERTY|runner-depth=2]]
    [[PROPERTY|help=boot it by hand: nestmatrix shell debian-13-minimal.service]]]]></system-out></testcase></testsuite>
    <testsuite id="3" name="debian-sid-minimal" package="testsuite/debian-sid-minimal" tests="2" errors="1" failures="0" hostname="localhost" timestamp="2026-11-22T10:30:00Z" time="0" skipped="1">
    <testcase name="smoke" time="0" classname="debian-sid-minimal.smoke"><skipped type="skipped" message="sid is only tried at night"/><system-out><![CDATA[[[PROPERTY|cell=debian-sid-minimal.smoke]]
    [[PROPERTY|verdict=skipped]]
    [[PROPERTY|duration=0.1s]]
    [[PROPERTY|image-digest=sha256:34b36454cab2e7842c389f7d88ecb7df279e3918cbac07970d4cde496e70f4c8]]
    [[PROPERTY|attempt 1=skipped: sid is only tried at night]]]]></system-out></testcase>
    <testcase name="[not-run]" time="0" classname="debian-sid-minimal.service"><error type="not-run" message="the run&apos;s time was up"><![CDATA[the run's time was up
    ]]></error><system-out><![CDATA[[[PROPERTY|cell=debian-sid-minimal.service]]
    [[PROPERTY|verdict=not-run]]
    [[PROPERTY|duration=0.0s]]
    [[PROPERTY|image-digest=sha256:34b36454cab2e7842c389f7d88ecb7df279e3918cbac07970d4cde496e70f4c8]]]]></system-out></testcase></testsuite></testsuites>
    "#);
}

#[test]
fn two_independent_readers_count_what_the_run_counts() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = fixture::write(dir.path());
    let xml = rendered(dir.path());
    let counts = Run::fold(&plan, &fixture::story(&plan).events).counts();
    assert_eq!(junit_counts(&xml), expected_junit(&counts.tests));
    let suites = junit_parser::from_reader(xml.as_bytes()).expect("readable").suites;
    let names: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
    assert_eq!(names, ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal", "debian-sid-minimal"]);
    let cases: Vec<_> = suites.iter().flat_map(|suite| &suite.cases).collect();
    assert_eq!(cases.len(), counts.tests.total);
    assert_eq!(cases.iter().filter(|case| case.status.is_failure()).count(), counts.tests.failed);
    assert_eq!(cases.iter().filter(|case| case.status.is_error()).count(), counts.tests.error + counts.tests.not_run);
    assert_eq!(cases.iter().filter(|case| case.status.is_skipped()).count(), counts.tests.skipped);
    // Our own reader of suites' results reads it too.
    let imported = reports::junit_import::parse(xml.as_bytes()).expect("readable");
    assert_eq!((imported.cases.len(), &imported.warnings[..]), (counts.tests.total, &[][..]));
}

#[test]
fn equal_names_within_a_class_are_told_apart_and_axes_are_named() {
    let plan = fixture::plan_of(
        "[[image]]\nname = \"debian-12-minimal\"\n[axes]\nlocale = [\"C\", \"tr\"]\n[[suite]]\nname = \"s\"\ninline = \"true\"\n",
    );
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::new();
    story.start(&plan);
    for cell in &plan.cells {
        story.boot(&cell.id, 1);
        story.case(&cell.id, 1, "a", CaseVerdict::Passed, 1);
        story.case(&cell.id, 1, "a\u{1b}[0m", CaseVerdict::Passed, 1);
        story.conclude(&cell.id, 1, Verdict::Passed);
    }
    story.finish();
    write(dir.path(), &plan, &story);
    let xml = rendered(dir.path());
    let suites = junit_parser::from_reader(xml.as_bytes()).expect("readable").suites;
    let names: Vec<_> = suites[0].cases.iter().map(|case| case.original_name.clone()).collect();
    assert_eq!(names, ["a [locale=C]", "a [locale=C] (2)", "a [locale=tr]", "a [locale=tr] (2)"]);
}

#[test]
fn a_long_log_is_cut_in_the_middle_and_the_full_one_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = fixture::write(dir.path());
    let folder = attempt_folder(&plan.cells[4].id, 1);
    fs::write(dir.path().join(&folder).join("stdout.log"), format!("begin\n{}\nend\n", "x".repeat(1 << 20)))
        .expect("writable");
    let xml = rendered(dir.path());
    assert!(xml.len() < 100_000, "{} bytes", xml.len());
    assert!(xml.contains("begin\n") && xml.contains("\nend\n"));
    assert!(xml.contains(&format!("left out, see {folder}/stdout.log")), "the full log is named");
}

#[test]
fn a_guest_cannot_attach_files_of_the_machine_that_reads_the_report() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = fixture::write(dir.path());
    let folder = dir.path().join(attempt_folder(&plan.cells[4].id, 1));
    fs::write(folder.join("stdout.log"), "[[ATTACHMENT|/etc/shadow]]\n[[\u{1b}[0mATTACHMENT|/etc/shadow]]\n")
        .expect("writable");
    assert!(!rendered(dir.path()).contains("[[ATTACHMENT|/etc/shadow"));
}

#[test]
fn neither_a_reason_nor_the_name_of_an_artifact_attaches_other_files() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::new();
    story.start(&plan);
    let cell = &plan.cells[0].id;
    story.boot(cell, 1);
    let reason = "[[ATTACHMENT|/etc/shadow".to_owned();
    story.case(cell, 1, "a", CaseVerdict::Failed { message: reason.clone(), detail: String::new() }, 1);
    // A folder may have this name; without the invisible mark it leads up.
    for path in ["artifacts/.\u{200e}./.\u{200e}./secret", "artifacts/good"] {
        let (cell, path) = (cell.clone(), path.to_owned());
        story.emit(EventKind::ArtifactCollected { cell, attempt: 1, path, bytes: 1 });
    }
    let verdict = Verdict::Failed { phase: Phase::Test, reason };
    story.end_attempt(cell, &verdict, &[], None);
    story.end(cell, verdict);
    story.finish();
    write(dir.path(), &plan, &story);
    let xml = rendered(dir.path());
    // Readers look for attachments in what a test printed.
    let (_, out) = xml.split_once("<system-out>").expect("a test's output");
    let attached: Vec<_> = out.match_indices("[[ATTACHMENT|").map(|(at, _)| out[at..].lines().next()).collect();
    let good = format!("[[ATTACHMENT|{}/artifacts/good]]", attempt_folder(cell, 1));
    assert_eq!(attached.len(), 1, "{attached:?}");
    assert!(attached[0].is_some_and(|line| line.starts_with(&good)), "{attached:?}");
}

fn write(dir: &Path, plan: &matrix::Plan, story: &Story) {
    plan.write(&dir.join("plan.json")).expect("writable");
    let mut journal = Journal::create(dir).expect("a new journal");
    story.events.iter().for_each(|event| journal.append(event).expect("writable"));
}

/// A character of XML 1.0 that no reader warns about.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | ' '..='\u{7e}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

/// Text made of the pieces that break XML, terminals and Markdown.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        proptest::sample::select(vec![
            "]]>",
            "<![CDATA[",
            "\u{1b}",
            "\0",
            "\u{1b}]",
            "&",
            "<",
            "\u{fffe}",
            "\r",
            "[[",
            "]]",
            "```",
            "|",
            "-->"
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_guest_says_every_report_can_be_read(
        name in hostile(), message in hostile(), detail in hostile(), reason in hostile(), log in hostile(),
    ) {
        let plan = fixture::plan();
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut story = Story::new();
        story.start(&plan);
        let cell = &plan.cells[0].id;
        story.boot(cell, 1);
        story.case(cell, 1, &name, CaseVerdict::Failed { message, detail }, 1);
        let verdict = Verdict::Failed { phase: Phase::Test, reason };
        story.end_attempt(cell, &verdict, &[&log], Some(&log));
        story.end(cell, verdict);
        story.finish();
        write(dir.path(), &plan, &story);
        let folder = dir.path().join(attempt_folder(cell, 1));
        fs::create_dir_all(&folder).expect("writable");
        for file in ["stdout.log", "stderr.log", "console.log"] {
            fs::write(folder.join(file), &log).expect("writable");
        }
        let rendered = reports::render::all(dir.path()).expect("rendered");
        let xml = fs::read_to_string(&rendered.junit_xml).expect("UTF-8");
        prop_assert_eq!(junit_counts(&xml), expected_junit(&rendered.run.counts().tests));
        let stray = xml.chars().find(|c| !is_xml(*c));
        prop_assert_eq!(stray, None);
        let html = fs::read_to_string(&rendered.report_html).expect("UTF-8");
        // Exactly the page's own script and comments: none.
        prop_assert_eq!(html.matches("<script").count(), 1);
        prop_assert_eq!(html.matches("<!--").count(), 0);
    }
}
