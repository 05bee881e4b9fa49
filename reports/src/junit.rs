//! `junit.xml`: for the test pages of continuous integration systems.
//!
//! One `<testsuite>` per image, `classname="<image>.<suite>"`, the axes in the test's name: every name is there once, because some
//! readers show only the first of equal ones. `<failure>` is the package's fault, `<error>` the harness's (or silence). What JUnit
//! has no element for goes into `<system-out>` as `[[PROPERTY|key=value]]` and `[[ATTACHMENT|path]]` lines, which readers pick up.

use std::{io, path::Path};

use quick_xml::{
    Writer,
    events::{BytesCData, BytesDecl, Event},
};
use rayon::prelude::*;

use crate::{
    CellRun, Outcome, ReportedCase, Run, Tally, evidence,
    fold::stays_inside,
    guests, human, logs, machine,
    names::UniqueNames,
    run::{Attempt, ImageState},
};

/// Most bytes of each captured stream in one test case.
const MAX_STREAM: u64 = 64 << 10;
/// Most bytes of captured streams in the whole file; GitLab refuses reports of 30 MB.
const MAX_ALL_STREAMS: u64 = 16 << 20;
/// Lines of evidence in the body of a failure that has no detail of its own.
const EVIDENCE_LINES: usize = 40;
/// The suite of what is wrong with the run itself; images cannot have its name, which is no word of the matrix file.
const OF_THE_RUN: &str = "[nestmatrix]";

/// Renders the file.
pub(crate) fn render(run: &Run, run_dir: &Path) -> Result<Vec<u8>, String> {
    write(run, run_dir).map_err(|error| error.to_string())
}

fn write(run: &Run, run_dir: &Path) -> io::Result<Vec<u8>> {
    let budget = MAX_STREAM.min(MAX_ALL_STREAMS / (2 * run.cells.len().max(1) as u64));
    let of_image = |image: &crate::ImageRun| Suite::of_image(run, &image.name, run_dir, budget);
    let mut suites = run.images.par_iter().map(of_image).collect::<io::Result<Vec<Suite>>>()?;
    suites.extend(Suite::of_run(run)?);
    let total = |of: fn(&Suite) -> usize| suites.iter().map(of).sum::<usize>().to_string();
    let mut writer = Writer::new(Vec::new());
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("utf-8"), None)))?;
    let root = writer.create_element("testsuites").with_attributes([
        // Without `skipped`: the schema that Jenkins' xUnit plugin checks against has none here.
        ("tests", total(|suite| suite.tally.total).as_str()),
        ("errors", &total(Suite::errors)),
        ("failures", &total(|suite| suite.tally.failed)),
        ("time", &seconds(suites.iter().map(|suite| suite.elapsed_ms).fold(0, u64::saturating_add))),
    ]);
    let timestamp = timestamp(run);
    root.write_inner_content(|writer| {
        suites.iter().enumerate().try_for_each(|(id, suite)| suite.write(id, &timestamp, writer))
    })?;
    let mut xml = writer.into_inner();
    xml.push(b'\n');
    Ok(xml)
}

/// When the run started; the beginning of time where that is not known or has no four digits.
fn timestamp(run: &Run) -> String {
    let started = run.started.filter(|at| (0..253_402_300_800).contains(&at.as_second())).unwrap_or_default();
    started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A `<testsuite>` whose test cases are written already.
struct Suite {
    name: String,
    tally: Tally,
    elapsed_ms: u64,
    cases: Vec<u8>,
}

impl Suite {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), tally: Tally::default(), elapsed_ms: 0, cases: Vec::new() }
    }

    fn of_image(run: &Run, image: &str, run_dir: &Path, budget: u64) -> io::Result<Self> {
        let mut suite = Self::new(image);
        let mut names = UniqueNames::default();
        for cell in run.cells.iter().filter(|cell| cell.image == image) {
            suite.add_cell(run, cell, run_dir, budget, &mut names)?;
        }
        Ok(suite)
    }

    /// Why the run as a whole cannot be trusted, as one error: its cells may all look good.
    fn of_run(run: &Run) -> io::Result<Option<Self>> {
        let mut suite = Self::new(OF_THE_RUN);
        let Some(case) = run.reported_case() else { return Ok(None) };
        let body = Body { kind: "run", text: case.detail.clone().into_owned(), out: None, err: None };
        suite.add(&case.name, OF_THE_RUN, &case, body)?;
        Ok(Some(suite))
    }

    /// What has neither failed nor passed nor been skipped.
    fn errors(&self) -> usize {
        self.tally.error + self.tally.not_run
    }

    fn write(&self, id: usize, timestamp: &str, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
        let suite = writer.create_element("testsuite").with_attributes([
            ("id", id.to_string().as_str()),
            ("name", &self.name),
            ("package", &format!("testsuite/{}", self.name)),
            ("tests", &self.tally.total.to_string()),
            ("errors", &self.errors().to_string()),
            ("failures", &self.tally.failed.to_string()),
            ("skipped", &self.tally.skipped.to_string()),
            ("hostname", "localhost"),
            ("timestamp", timestamp),
            ("time", &seconds(self.elapsed_ms)),
        ]);
        if self.cases.is_empty() {
            return suite.write_empty().map(drop);
        }
        suite.write_inner_content(|writer| io::Write::write_all(writer.get_mut(), &self.cases)).map(drop)
    }

    /// Adds the test cases of a cell.
    fn add_cell(
        &mut self,
        run: &Run,
        cell: &CellRun,
        run_dir: &Path,
        budget: u64,
        names: &mut UniqueNames,
    ) -> io::Result<()> {
        let axes = cell.axes_label();
        let reported: Vec<ReportedCase<'_>> = cell.reported_cases().collect();
        // The streams belong to the cell, so one case carries them: the worst that is bad, or else the first that ran.
        let carrier = reported.iter().enumerate().min_by_key(|(_, case)| match case.outcome {
            Outcome::Skipped => Outcome::ALL.len(),
            outcome if outcome.is_bad() => outcome as usize,
            _ => Outcome::ALL.len() - 1,
        });
        let carrier = carrier.map(|(index, _)| index);
        let words = evidence::words(run, cell, Some(run_dir), EVIDENCE_LINES);
        let class = format!("{}.{}", cell.image, cell.suite);
        for (index, case) in reported.iter().enumerate() {
            let carries = Some(index) == carrier;
            let name = if axes.is_empty() { case.name.to_string() } else { format!("{} [{axes}]", case.name) };
            // Unique by class and name together; the class is taken off again.
            let unique = names.take(format!("{class}\0{name}"));
            let name = unique.split_once('\0').map_or(name.as_str(), |(_, name)| name);
            let text = if case.detail.is_empty() && carries {
                words.as_ref().map(|words| words.lines.join("\n")).unwrap_or_default()
            } else {
                case.detail.clone().into_owned()
            };
            let out = carries.then(|| system_out(run, cell, run_dir, budget));
            let err = if carries { stream(cell, run_dir, "stderr.log", budget) } else { None };
            self.add(name, &class, case, Body { kind: kind(cell, case), text, out, err })?;
        }
        Ok(())
    }

    /// Adds one test case.
    fn add(&mut self, name: &str, class: &str, case: &ReportedCase<'_>, body: Body) -> io::Result<()> {
        self.tally.add(case.outcome);
        // What did not run took no time.
        let ms = if case.outcome == Outcome::Skipped { 0 } else { case.elapsed_ms };
        self.elapsed_ms = self.elapsed_ms.saturating_add(ms);
        let time = seconds(ms);
        let mut writer = Writer::new(&mut self.cases);
        let mut element = writer.create_element("testcase").with_attributes([
            ("name", name),
            ("time", time.as_str()),
            ("classname", class),
        ]);
        if let Some(file) = case.file {
            element = element.with_attribute(("file", file));
        }
        if case.outcome == Outcome::Passed && body.out.is_none() && body.err.is_none() {
            return element.write_empty().map(drop);
        }
        element.write_inner_content(|writer| body.write(case, writer)).map(drop)
    }
}

/// What stands in a test case.
struct Body {
    /// Of a failure.
    kind: &'static str,
    /// Of a failure, below its message.
    text: String,
    out: Option<String>,
    err: Option<String>,
}

impl Body {
    fn write<W: io::Write>(&self, case: &ReportedCase<'_>, writer: &mut Writer<W>) -> io::Result<()> {
        let (element, kind) = match case.outcome {
            Outcome::Passed => ("", ""),
            Outcome::Skipped => ("skipped", "skipped"),
            Outcome::Failed => ("failure", self.kind),
            Outcome::Error | Outcome::NotRun => ("error", self.kind),
        };
        if !element.is_empty() {
            let result = writer.create_element(element).with_attributes([("type", kind), ("message", &case.message)]);
            if case.outcome.is_bad() {
                let text = cdata(&disarm(&format!("{}\n{}", case.message, self.text)));
                result.write_cdata_content(BytesCData::new(text))?;
            } else {
                result.write_empty()?;
            }
        }
        for (name, text) in [("system-out", &self.out), ("system-err", &self.err)] {
            if let Some(text) = text {
                writer.create_element(name).write_cdata_content(BytesCData::new(cdata(text)))?;
            }
        }
        Ok(())
    }
}

/// Milliseconds as the seconds of a `time`.
fn seconds(ms: u64) -> String {
    (ms as f64 / 1_000.0).to_string()
}

/// `type` of a failure: the phase, so that readers can group by it.
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
        if let Some(facts) = &runner.facts {
            property("runner-kernel", &facts.kernel);
            property("runner-accelerator", &facts.accelerator);
            property("runner-qemu", &facts.qemu);
            property("runner-depth", &facts.depth.to_string());
        }
    }
    if let Some(help) = cell.last_attempt().and_then(|attempt| attempt.help.as_deref()) {
        property("help", &crate::clean::line(help));
    }
    if let Some(attempt) = cell.last_attempt() {
        let folder = attempt.folder(&cell.id);
        let present = |name: &&str| logs::size(&run_dir.join(&folder).join(name)).is_some();
        let files = evidence::LOGS.iter().copied().chain(["screen.png"]).filter(present);
        out.extend(files.map(|name| format!("[[ATTACHMENT|{folder}/{name}]]")));
        // The path is clean text by now, and cleaning may have made `..` of a name: what is written out is what is judged.
        let artifacts =
            attempt.artifacts.iter().filter(|artifact| artifact.href.is_some() && stays_inside(&artifact.path));
        out.extend(artifacts.map(|artifact| format!("[[ATTACHMENT|{folder}/{}]]", marked(&artifact.path))));
    }
    if let Some(stdout) = stream(cell, run_dir, "stdout.log", budget) {
        out.push(stdout);
    }
    out.join("\n")
}

/// What an attempt came to, in one line.
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

/// Text that may stand within a line of ours. Disarmed, too: one that ends in the beginning of an attachment would share the
/// line's closing brackets.
fn marked(text: &str) -> String {
    disarm(text).replace("]]", "] ]")
}

/// Text from a guest without lines that readers would take for ours: an attachment may be any file of the machine that reads.
fn disarm(text: &str) -> String {
    text.replace("[[ATTACHMENT|", "[ [ATTACHMENT|").replace("[[PROPERTY|", "[ [PROPERTY|")
}

/// The crate writes text into one CDATA section as it is; `]]>` would end it early, so it is spread over two sections.
fn cdata(text: &str) -> String {
    text.replace("]]>", "]]]]><![CDATA[>")
}
