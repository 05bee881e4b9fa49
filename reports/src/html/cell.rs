//! One cell on the page.

use std::path::Path;

use matrix::InstallFrom;
use serde::Serialize;

use super::{
    budget::{Budget, beginning, last_lines},
    network::NetworkView,
};
use crate::{
    CellRun, Outcome, ReportedCase, Tally, evidence,
    fold::percent_encode,
    guests, human, logs, machine,
    run::{Attempt, KeptGuest, Run},
};

/// Maximum number of test cases and artifacts per cell.
const MAX_TESTS: usize = 200;
const MAX_ARTIFACTS: usize = 100;

/// The template's data of a cell.
#[derive(Debug, Serialize)]
pub(super) struct CellView<'a> {
    anchor: String,
    id: &'a str,
    outcome: Outcome,
    phase: &'static str,
    reason: &'a str,
    help: Option<&'a str>,
    duration: String,
    tests_text: String,
    warnings: &'a [String],
    kept: Option<&'a KeptGuest>,
    attempts: Vec<AttemptView>,
    tests: Vec<TestView>,
    tests_more: usize,
    logs: Vec<LogView>,
    screen: Option<String>,
    artifacts: Vec<FileView<'a>>,
    artifacts_more: usize,
}

#[derive(Debug, Serialize)]
struct AttemptView {
    number: u32,
    outcome: Outcome,
    summary: String,
    phases: Vec<PhaseView>,
    guest: Option<String>,
    runner: Option<String>,
    installed: String,
    /// The package under test, by name.
    by_name: bool,
    system: Vec<FactView>,
    network: Option<NetworkView>,
    tail: Option<String>,
}

/// One fact of the guest's system.
#[derive(Debug, Serialize)]
struct FactView {
    name: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
struct PhaseView {
    name: &'static str,
    duration: String,
    limit: String,
    /// Start and length of its bar, in per cent of the attempt.
    left: f64,
    width: f64,
    /// The phase that decided against the cell.
    bad: bool,
}

#[derive(Debug, Serialize)]
struct TestView {
    name: String,
    outcome: Outcome,
    place: String,
    message: String,
    detail: String,
    duration: String,
}

#[derive(Debug, Serialize)]
struct LogView {
    name: &'static str,
    href: String,
    size: String,
    text: String,
    cut: bool,
    open: bool,
}

#[derive(Debug, Serialize)]
struct FileView<'a> {
    path: &'a str,
    href: Option<&'a str>,
    size: String,
}

/// The anchor of a cell, by its index in the plan.
pub(super) fn anchor(index: usize) -> String {
    format!("c{index}")
}

/// The sign of an outcome, for people who cannot tell the colours apart.
pub(super) const fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "✓",
        Outcome::Failed => "✗",
        Outcome::Error => "!",
        Outcome::NotRun => "○",
        Outcome::Skipped => "–",
    }
}

impl<'a> CellView<'a> {
    pub(super) fn new(index: usize, cell: &'a CellRun, run: &Run, run_dir: &Path, budget: Budget) -> Self {
        let last = cell.last_attempt();
        let bad = cell.outcome().is_bad();
        let cases: Vec<ReportedCase<'_>> = cell.reported_cases().collect();
        let mut tally = Tally::default();
        cases.iter().for_each(|case| tally.add(case.outcome));
        let artifacts = last.map_or(&[][..], |attempt| &attempt.artifacts);
        let requests = Budget::requests(run.cells.len()) / cell.attempts.len().max(1);
        let (logs, screen) = last.map(|attempt| logs(cell, attempt, run_dir, budget.logs(bad))).unwrap_or_default();
        Self {
            anchor: anchor(index),
            id: cell.id.as_str(),
            outcome: cell.outcome(),
            phase: cell.verdict.phase().map(|phase| phase.name()).unwrap_or_default(),
            reason: cell.verdict.reason().unwrap_or_default(),
            help: last.and_then(Attempt::help),
            duration: if cell.started.is_some() { human::duration(cell.elapsed_ms) } else { String::new() },
            tests_text: if cell.attempts.len() > 1 {
                format!("{} · attempt {}", human::count(tally.total, "test"), cell.attempts.len())
            } else {
                human::count(tally.total, "test")
            },
            warnings: &cell.warnings,
            kept: last.and_then(|attempt| attempt.kept.as_ref()),
            attempts: cell.attempts.iter().map(|attempt| AttemptView::new(run, cell, attempt, requests)).collect(),
            tests_more: cases.len().saturating_sub(MAX_TESTS),
            tests: tests(cases, budget.tests(bad)),
            logs,
            screen,
            artifacts: artifacts
                .iter()
                .take(MAX_ARTIFACTS)
                .map(|file| FileView { path: &file.path, href: file.href.as_deref(), size: human::bytes(file.bytes) })
                .collect(),
            artifacts_more: artifacts.len().saturating_sub(MAX_ARTIFACTS),
        }
    }
}

impl AttemptView {
    /// `requests`: bytes for its requests.
    fn new(run: &Run, cell: &CellRun, attempt: &Attempt, requests: usize) -> Self {
        let outcome = attempt.outcome.as_ref().map_or(Outcome::NotRun, Outcome::from);
        let decided = attempt.outcome.as_ref().and_then(|verdict| verdict.phase());
        let ends = attempt.phases.iter().map(|run| run.after_ms.saturating_add(run.elapsed_ms.unwrap_or(0)));
        let whole = ends.fold(attempt.elapsed_ms.unwrap_or(0), u64::max).max(1) as f64;
        let percent = |ms: f64| (ms / whole * 1_000.0).round() / 10.0;
        // A phase may be entered twice.
        let decided = attempt.phases.iter().rposition(|run| decided == Some(run.phase));
        let phases = attempt.phases.iter().enumerate().map(|(at, run)| PhaseView {
            name: run.phase.name(),
            duration: run.elapsed_ms.map_or_else(|| "not ended".to_owned(), human::duration),
            limit: run.timeout_ms.map(|ms| format!("limit {}", human::duration(ms))).unwrap_or_default(),
            left: percent(run.after_ms as f64).min(99.0),
            width: percent(run.elapsed_ms.unwrap_or(0) as f64).min(100.0 - percent(run.after_ms as f64).min(99.0)),
            bad: decided == Some(at) || run.elapsed_ms.is_none(),
        });
        Self {
            number: attempt.number,
            outcome,
            summary: crate::junit::outcome(attempt),
            phases: phases.collect(),
            guest: attempt.guest.as_ref().map(|guest| {
                let how = guests::how(&guest.boot);
                format!("{} under {}, image {}, {how}", guest.machine, guest.accelerator, guest.image.short())
            }),
            runner: machine::of_attempt(run, attempt),
            system: attempt
                .system
                .iter()
                .flat_map(|facts| facts.all())
                .map(|(name, value)| FactView { name, value })
                .collect(),
            installed: attempt.installed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            by_name: cell.install == InstallFrom::Repository,
            network: NetworkView::new(&attempt.network, requests),
            // Logs of a retried attempt are not shown.
            tail: (attempt.retried && !attempt.console_tail().is_empty())
                .then(|| last_lines(&attempt.console_tail().join("\n"), 2 << 10).to_owned()),
        }
    }
}

/// The worst test cases first; their details share `budget` bytes.
fn tests(mut cases: Vec<ReportedCase<'_>>, mut budget: usize) -> Vec<TestView> {
    cases.sort_by_key(|case| case.outcome);
    let shown = cases.iter().take(MAX_TESTS).map(|case| {
        let detail = beginning(case.detail.trim_end(), budget.min(8 << 10));
        budget = budget.saturating_sub(detail.len());
        TestView {
            name: case.name.to_string(),
            outcome: case.outcome,
            place: match (case.file, case.line) {
                (Some(file), Some(line)) => format!("{file}:{line}"),
                (Some(file), None) => file.to_owned(),
                _ => String::new(),
            },
            message: beginning(&case.message, 600).to_owned(),
            detail: detail.to_owned(),
            duration: human::duration(case.elapsed_ms),
        }
    });
    shown.collect()
}

/// The logs of an attempt, which share `budget` bytes, and the link to the guest's last screen.
fn logs(cell: &CellRun, attempt: &Attempt, run_dir: &Path, budget: usize) -> (Vec<LogView>, Option<String>) {
    let folder = attempt.folder(&cell.id);
    let present: Vec<(&str, u64)> = evidence::LOGS
        .into_iter()
        .filter_map(|name| Some((name, logs::size(&run_dir.join(&folder).join(name))?)))
        .collect();
    let share = budget / present.len().max(1);
    let decisive = match cell.verdict.phase() {
        Some(crate::Phase::Install) => "install.log",
        Some(crate::Phase::Test | crate::Phase::Collect | crate::Phase::Prepare) | None => "stdout.log",
        Some(_) => "console.log",
    };
    let views = present
        .iter()
        .map(|(name, size)| {
            let path = run_dir.join(&folder).join(name);
            let excerpt = logs::tail(&path, share as u64, usize::MAX).unwrap_or_default();
            let text = last_lines(&excerpt.text, share);
            LogView {
                name,
                href: percent_encode(&format!("{folder}/{name}")),
                size: human::bytes(*size),
                cut: excerpt.omitted > 0 || text.len() < excerpt.text.len(),
                text: text.to_owned(),
                open: *name == decisive && cell.outcome().is_bad(),
            }
        })
        .collect();
    let screen = format!("{folder}/screen.png");
    let screen = logs::size(&run_dir.join(&screen)).map(|_| percent_encode(&screen));
    (views, screen)
}
