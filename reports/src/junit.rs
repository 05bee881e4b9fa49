//! `junit.xml`: for the test pages of CI systems.
//!
//! One `<testsuite>` per image, `classname="<image>.<suite>"`, the axes in the test's name. Names are unique, because some
//! readers show only the first of equal ones. `<failure>` is the package's fault, `<error>` the harness's (or silence). Other
//! facts go into `<system-out>` as `[[PROPERTY
//! key=value]]` and `[[ATTACHMENT
//! path]]` lines, which readers pick up.

mod counts;

use std::path::Path;

use junit_report::{Duration, OffsetDateTime, Report, TestCase, TestCaseBuilder, TestSuite};
use rayon::prelude::*;

use crate::{
    CellRun, ImageRun, Outcome, ReportedCase, Run, evidence,
    fold::stays_inside,
    guests, human, logs, machine,
    names::UniqueNames,
    run::{Attempt, ImageState},
};

/// Maximum bytes of each captured stream in one test case.
const MAX_STREAM: u64 = 64 << 10;
/// Maximum bytes of captured streams in the whole file; GitLab refuses reports of 30 MB.
const MAX_ALL_STREAMS: u64 = 16 << 20;
/// Lines of evidence in the body of a failure without details.
const EVIDENCE_LINES: usize = 40;
/// The suite for problems of the run itself; this cannot be the name of an image.
const OF_THE_RUN: &str = "[nestmatrix]";

/// Renders the file.
pub(crate) fn render(run: &Run, run_dir: &Path) -> Result<Vec<u8>, String> {
    let budget = MAX_STREAM.min(MAX_ALL_STREAMS / (2 * run.cells.len().max(1) as u64));
    let of_image = |image: &ImageRun| {
        let mut names = UniqueNames::default();
        let cells = run.cells.iter().filter(|cell| cell.image == image.name);
        suite(run, &image.name, cells.flat_map(|cell| cases(run, cell, run_dir, budget, &mut names)).collect())
    };
    let mut report = Report::new();
    report.add_testsuites(run.images.par_iter().map(of_image).collect::<Vec<_>>());
    // The problems of the run are one error: all its cells may look good.
    report.add_testsuites(run.reported_case().map(|case| {
        let built = test_case(&case.name, OF_THE_RUN, "run", &case, &case.detail);
        suite(run, OF_THE_RUN, vec![built.testcase])
    }));
    let mut xml = Vec::new();
    report.write_xml(&mut xml).map_err(|error| error.to_string())?;
    let xml = String::from_utf8(xml).map_err(|error| error.to_string())?;
    let mut xml = counts::add(&xml, report.testsuites()).map_err(|error| error.to_string())?;
    xml.push(b'\n');
    Ok(xml)
}

fn suite(run: &Run, name: &str, testcases: Vec<TestCase>) -> TestSuite {
    // The epoch, if the start is unknown or its year has not four digits.
    let started = run.started.map(jiff::Timestamp::as_second).filter(|at| (0..253_402_300_800).contains(at));
    let timestamp = started.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    TestSuite { timestamp: timestamp.unwrap_or(OffsetDateTime::UNIX_EPOCH), testcases, ..TestSuite::new(name) }
}

/// The test cases of a cell.
fn cases(run: &Run, cell: &CellRun, run_dir: &Path, budget: u64, names: &mut UniqueNames) -> Vec<TestCase> {
    let axes = cell.axes_label();
    let reported: Vec<ReportedCase<'_>> = cell.reported_cases().collect();
    // The streams belong to the cell, so one case carries them: the worst bad one, or else the first that ran.
    let carrier = reported.iter().enumerate().min_by_key(|(_, case)| match case.outcome {
        Outcome::Skipped => Outcome::ALL.len(),
        outcome if outcome.is_bad() => outcome as usize,
        _ => Outcome::ALL.len() - 1,
    });
    let carrier = carrier.map(|(index, _)| index);
    let words = evidence::words(run, cell, Some(run_dir), EVIDENCE_LINES);
    let class = format!("{}.{}", cell.image, cell.suite);
    let build = |(index, case): (usize, &ReportedCase<'_>)| {
        let carries = Some(index) == carrier;
        let name = if axes.is_empty() { case.name.to_string() } else { format!("{} [{axes}]", case.name) };
        // Unique by class and name together; the class is removed again.
        let unique = names.take(format!("{class}\0{name}"));
        let name = unique.split_once('\0').map_or(name.as_str(), |(_, name)| name);
        let evidence = words.as_ref().filter(|_| carries && case.detail.is_empty());
        let text = evidence.map_or_else(|| case.detail.to_string(), |words| words.lines.join("\n"));
        let mut built = test_case(name, &class, kind(cell, case), case, &text);
        if carries {
            built.set_system_out(&cdata(&system_out(run, cell, run_dir, budget)));
            if let Some(stderr) = stream(cell, run_dir, "stderr.log", budget) {
                built.set_system_err(&cdata(&stderr));
            }
        }
        built.testcase
    };
    reported.iter().enumerate().map(build).collect()
}

/// A test case without streams; `kind` and `text` (below its message) belong to a failure.
fn test_case(name: &str, class: &str, kind: &str, case: &ReportedCase<'_>, text: &str) -> TestCaseBuilder {
    let time = Duration::milliseconds(i64::try_from(case.elapsed_ms).unwrap_or(i64::MAX));
    let mut built = match case.outcome {
        Outcome::Passed => TestCaseBuilder::success(name, time),
        Outcome::Skipped => TestCaseBuilder::skipped_with_cause(name, "skipped", &case.message),
        Outcome::Failed => TestCaseBuilder::failure(name, time, kind, &case.message),
        Outcome::Error | Outcome::NotRun => TestCaseBuilder::error(name, time, kind, &case.message),
    };
    built.set_classname(class).set_trace(&cdata(&disarm(&format!("{}\n{text}", case.message))));
    if let Some(file) = case.file {
        built.set_filepath(file);
    }
    built
}

/// `type` of a failure: its phase, so that readers can group by it.
fn kind(cell: &CellRun, case: &ReportedCase<'_>) -> &'static str {
    match cell.verdict.phase() {
        Some(phase) if case.name.starts_with('[') => phase.name(),
        _ if case.outcome == Outcome::NotRun => Outcome::NotRun.name(),
        _ => "test",
    }
}

fn system_out(run: &Run, cell: &CellRun, run_dir: &Path, budget: u64) -> String {
    let mut out = Vec::new();
    let mut property = |key: &str, value: &str| out.push(format!("[[PROPERTY|{key}={}]]", marked(value)));
    property("cell", cell.id.as_str());
    property("verdict", cell.verdict.name());
    property("duration", &human::duration(cell.elapsed_ms));
    if let Some(ImageState::Ready { digest, .. }) = run.image(&cell.image).map(|image| &image.state) {
        property("image-digest", &digest.to_string());
    }
    for attempt in &cell.attempts {
        property(&format!("attempt {}", attempt.number), &outcome(attempt));
        if let Some(machine) = machine::of_attempt(run, attempt) {
            property(&format!("attempt {} ran on", attempt.number), &machine);
        }
    }
    if let Some(guest) = cell.last_attempt().and_then(|attempt| attempt.guest.as_ref()) {
        property("guest", &format!("{} under {}", guest.machine, guest.accelerator));
        property("nestmatrix.guest", &guests::how(&guest.boot));
    }
    if let Some(system) = cell.last_attempt().and_then(|attempt| attempt.system.as_ref()) {
        for (name, fact) in system.all() {
            property(&format!("system-{name}"), &fact);
        }
    }
    for package in cell.last_attempt().iter().flat_map(|attempt| &attempt.installed) {
        property("installed", &package.to_string());
    }
    for warning in &cell.warnings {
        property("warning", warning);
    }
    let runner = cell.last_attempt().and_then(|attempt| run.runner(attempt.guest.as_ref()?.runner));
    if let Some(runner) = runner {
        property("runner", &format!("{} ({})", runner.number, runner.kind));
        if let Some(machine) = &runner.machine {
            property("runner-machine", &format!("{}: {}", machine.facts.provider, machine.facts.words()));
            property("runner-image", &machine.facts.image);
            if let Some(platform) = &machine.facts.cpu_platform {
                property("runner-cpu", platform);
            }
        }
        if let Some(facts) = &runner.facts {
            property("runner-kernel", &facts.kernel);
            property("runner-accelerator", &facts.accelerator);
            property("runner-qemu", &facts.qemu);
            property("runner-depth", &facts.depth.to_string());
        }
    }
    if let Some(help) = cell.last_attempt().and_then(Attempt::help) {
        property("help", &crate::clean::line(help));
    }
    if let Some(attempt) = cell.last_attempt() {
        let folder = attempt.folder(&cell.id);
        let present = |name: &&str| logs::size(&run_dir.join(&folder).join(name)).is_some();
        let files = evidence::LOGS.iter().copied().chain(["screen.png"]).filter(present);
        out.extend(files.map(|name| format!("[[ATTACHMENT|{folder}/{name}]]")));
        // The path is cleaned by now, and cleaning may have produced `..`: the check is on the written text.
        let artifacts =
            attempt.artifacts.iter().filter(|artifact| artifact.href.is_some() && stays_inside(&artifact.path));
        out.extend(artifacts.map(|artifact| format!("[[ATTACHMENT|{folder}/{}]]", marked(&artifact.path))));
    }
    if let Some(stdout) = stream(cell, run_dir, "stdout.log", budget) {
        out.push(stdout);
    }
    out.join("\n")
}

/// The result of an attempt, in one line.
pub(crate) fn outcome(attempt: &Attempt) -> String {
    let said = match &attempt.outcome {
        None => "never ended".to_owned(),
        Some(verdict) => match (verdict.phase(), verdict.reason()) {
            (Some(phase), Some(reason)) => format!("{} in {phase}: {reason}", verdict.name()),
            (None, Some(reason)) => format!("{}: {reason}", verdict.name()),
            _ => verdict.name().to_owned(),
        },
    };
    if attempt.retried { format!("{said}; tried again") } else { said }
}

fn stream(cell: &CellRun, run_dir: &Path, name: &str, budget: u64) -> Option<String> {
    let path = format!("{}/{name}", cell.last_attempt()?.folder(&cell.id));
    let excerpt = logs::head_tail(&run_dir.join(&path), budget, &path).ok()?;
    (!excerpt.text.is_empty()).then(|| disarm(&excerpt.text))
}

/// Text that may appear within a line of ours. Defused, too: text that ends with the beginning of an attachment would share the
/// line's closing brackets.
fn marked(text: &str) -> String {
    disarm(text).replace("]]", "] ]")
}

/// Text from a guest, without lines that readers take for ours: an attachment may name any file of the reading machine.
fn disarm(text: &str) -> String {
    text.replace("[[ATTACHMENT|", "[ [ATTACHMENT|").replace("[[PROPERTY|", "[ [PROPERTY|")
}

/// junit-report writes text into one CDATA section unchanged; `]]>` would end it early, so it is split over two sections.
fn cdata(text: &str) -> String {
    text.replace("]]>", "]]]]><![CDATA[>")
}
