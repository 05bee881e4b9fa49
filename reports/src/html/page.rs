//! The template's data, as plain data.

use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::{
    budget::{Budget, last_lines},
    cell::{CellView, anchor, mark},
    network::TotalView,
    runner::{MAX_RUNNERS, RunnerView},
    template::{MAX_TEMPLATES, TemplateView},
};
use crate::{
    CellRun, Outcome, Run, clean,
    failures::{Failure, failures},
    grid::Grid,
    human,
    run::ImageState,
    system::{self, Seen},
};

/// Number of failures with details; the others are only named.
const MAX_WRONG: usize = 40;
/// Lines of evidence of each.
const WRONG_LINES: usize = 24;
/// Number of failures named below those.
const MAX_WRONG_NAMED: usize = 1_000;
/// Cells named per failure.
const MAX_CELLS: usize = 12;
/// Maximum number of sentences on what failures have in common.
const MAX_COMMON: usize = 20;
/// Failed tests named per failure.
const MAX_FAILED_TESTS: usize = 6;

/// The page.
#[derive(Debug, Serialize)]
pub(super) struct Page<'a> {
    title: String,
    mark: &'static str,
    outcome: Outcome,
    word: &'static str,
    conclusion: String,
    exit_code: u8,
    run: Option<&'a str>,
    version: Option<&'a str>,
    started: Option<String>,
    duration: String,
    matrix: String,
    plan: String,
    interrupted: Option<&'a str>,
    problems: Vec<String>,
    warnings: &'a [String],
    tallies: Vec<TallyView>,
    cells_total: usize,
    cells_text: String,
    tests_total: usize,
    tests_text: String,
    runners: Vec<RunnerView<'a>>,
    runners_more: usize,
    templates: Vec<TemplateView<'a>>,
    templates_more: usize,
    network: Option<TotalView>,
    images: Vec<ImageView<'a>>,
    grid: GridView,
    common: Vec<String>,
    common_more: usize,
    wrong: Vec<WrongView<'a>>,
    wrong_more: Vec<LinkView<'a>>,
    cells: Vec<CellView<'a>>,
}

#[derive(Debug, Serialize)]
struct TallyView {
    outcome: Outcome,
    count: usize,
}

#[derive(Debug, Serialize)]
struct ImageView<'a> {
    name: &'a str,
    from: &'a str,
    state: String,
    digest: String,
    digest_short: String,
    duration: String,
    /// The systems of its guests.
    systems: Vec<Seen>,
}

#[derive(Debug, Serialize)]
struct GridView {
    axes_across: bool,
    axes_down: bool,
    suites: Vec<SuiteView>,
    axes: Vec<String>,
    rows: Vec<RowView>,
}

#[derive(Debug, Serialize)]
struct SuiteView {
    name: String,
    span: usize,
}

#[derive(Debug, Serialize)]
struct RowView {
    image: String,
    /// Rows of this image from here on; 0: its name is in a row above.
    span: usize,
    axes: String,
    slots: Vec<Vec<SlotView>>,
}

#[derive(Debug, Serialize)]
struct SlotView {
    anchor: String,
    outcome: Outcome,
    mark: &'static str,
    note: String,
}

#[derive(Debug, Serialize)]
struct LinkView<'a> {
    anchor: String,
    id: &'a str,
    outcome: Outcome,
    phase: &'static str,
}

#[derive(Debug, Serialize)]
struct WrongView<'a> {
    cells: Vec<LinkView<'a>>,
    cells_more: usize,
    outcome: Outcome,
    phase: &'static str,
    reason: &'a str,
    attempts: usize,
    failed_tests: Vec<String>,
    failed_more: usize,
    source: String,
    lines: String,
    help: Option<&'a str>,
}

impl<'a> Page<'a> {
    pub(super) fn new(run: &'a Run, run_dir: &Path) -> Self {
        let counts = run.counts();
        let exit_code = run.exit_code();
        let (outcome, word) = match exit_code {
            0 => (Outcome::Passed, "green"),
            1 => (Outcome::Failed, "failed"),
            130 => (Outcome::NotRun, "interrupted"),
            _ => (Outcome::Error, "incomplete"),
        };
        let failures = failures(run, run_dir, WRONG_LINES);
        let common = run.correlations();
        let budget = Budget::new(run);
        let order = [Outcome::Passed, Outcome::Failed, Outcome::Error, Outcome::NotRun, Outcome::Skipped];
        Self {
            title: run.title(),
            mark: mark(outcome),
            outcome,
            word,
            conclusion: run.conclusion(),
            exit_code,
            run: run.run.as_deref(),
            version: run.version.as_deref(),
            started: run.started.map(|at| at.strftime("%-d %B %Y, %H:%M UTC").to_string()),
            duration: run.took(),
            matrix: clean::line(&run.matrix.to_string_lossy()),
            plan: run.plan.short(),
            interrupted: run.interrupted.as_deref(),
            problems: run.problems(),
            warnings: &run.warnings,
            tallies: order.map(|outcome| TallyView { outcome, count: counts.cells.of(outcome) }).into(),
            cells_total: counts.cells.total,
            cells_text: counts.cells.to_string(),
            tests_total: counts.tests.total,
            tests_text: counts.tests.to_string(),
            runners: run.runners.iter().take(MAX_RUNNERS).map(RunnerView::new).collect(),
            runners_more: run.runners.len().saturating_sub(MAX_RUNNERS),
            templates: run
                .templates
                .iter()
                .take(MAX_TEMPLATES)
                .map(|template| TemplateView::new(template, Budget::requests(run.templates.len().min(MAX_TEMPLATES))))
                .collect(),
            templates_more: run.templates.len().saturating_sub(MAX_TEMPLATES),
            network: TotalView::new(run),
            images: run.images.iter().map(|of| image(run, of)).collect(),
            grid: grid(run),
            common: common.iter().take(MAX_COMMON).map(ToString::to_string).collect(),
            common_more: common.len().saturating_sub(MAX_COMMON),
            wrong: failures.iter().take(MAX_WRONG).filter_map(wrong).collect(),
            wrong_more: failures.iter().skip(MAX_WRONG).flat_map(links).take(MAX_WRONG_NAMED).collect(),
            cells: run
                .cells
                .par_iter()
                .enumerate()
                .map(|(index, cell)| CellView::new(index, cell, run, run_dir, budget))
                .collect(),
        }
    }
}

fn image<'a>(run: &Run, image: &'a crate::ImageRun) -> ImageView<'a> {
    let (state, digest, elapsed_ms) = match &image.state {
        ImageState::Unused => ("not used".to_owned(), None, None),
        ImageState::Preparing { message: None } => ("was being prepared".to_owned(), None, None),
        ImageState::Preparing { message: Some(message) } => (format!("was being prepared: {message}"), None, None),
        ImageState::Ready { digest, cached, elapsed_ms } => {
            let state = if *cached { "from the store" } else { "made for this run" };
            (state.to_owned(), Some(*digest), Some(*elapsed_ms))
        }
        ImageState::Failed(trouble) => (format!("failed: {trouble}"), None, None),
    };
    ImageView {
        name: &image.name,
        from: &image.from,
        state,
        digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
        digest_short: digest.map(|digest| digest.short()).unwrap_or_default(),
        duration: elapsed_ms.map(human::duration).unwrap_or_default(),
        systems: system::of_image(run, &image.name),
    }
}

fn grid(run: &Run) -> GridView {
    let grid = Grid::new(run);
    let axes_across = grid.columns.iter().any(|(_, axes)| !axes.is_empty());
    let axes_down = grid.rows.iter().any(|row| !row.axes.is_empty());
    let mut suites: Vec<SuiteView> = Vec::new();
    for (suite, _) in &grid.columns {
        match suites.last_mut() {
            Some(last) if last.name == *suite => last.span += 1,
            _ => suites.push(SuiteView { name: suite.clone(), span: 1 }),
        }
    }
    let mut rows: Vec<RowView> = Vec::new();
    for row in &grid.rows {
        let first = rows.iter().rposition(|known| known.span > 0);
        let span = match first.and_then(|at| rows.get_mut(at)) {
            Some(first) if first.image == row.image => {
                first.span += 1;
                0
            }
            _ => 1,
        };
        let slot =
            |cells: &Vec<usize>| cells.iter().filter_map(|index| Some(slot(*index, run.cells.get(*index)?))).collect();
        rows.push(RowView {
            image: row.image.clone(),
            span,
            axes: row.axes.clone(),
            slots: row.cells.iter().map(slot).collect(),
        });
    }
    GridView { axes_across, axes_down, suites, axes: grid.columns.into_iter().map(|(_, axes)| axes).collect(), rows }
}

fn slot(index: usize, cell: &CellRun) -> SlotView {
    let note = match cell.verdict.phase() {
        Some(phase) => format!("in {phase}"),
        None if cell.attempts.len() > 1 => {
            format!("attempt {} · {}", cell.attempts.len(), human::duration(cell.elapsed_ms))
        }
        None if cell.started.is_some() => human::duration(cell.elapsed_ms),
        None => String::new(),
    };
    SlotView { anchor: anchor(index), outcome: cell.outcome(), mark: mark(cell.outcome()), note }
}

/// Links to the cells of a failure.
fn links<'a>(failure: &Failure<'a>) -> Vec<LinkView<'a>> {
    let link = |(index, cell): &(usize, &'a CellRun)| LinkView {
        anchor: anchor(*index),
        id: cell.id.as_str(),
        outcome: cell.outcome(),
        phase: cell.verdict.phase().map(|phase| phase.name()).unwrap_or_default(),
    };
    failure.cells.iter().map(link).collect()
}

fn wrong<'a>(failure: &Failure<'a>) -> Option<WrongView<'a>> {
    let cell = failure.first()?;
    let failed: Vec<String> = cell
        .reported_cases()
        .filter(|case| case.outcome == Outcome::Failed && !case.name.starts_with('['))
        .map(|case| case.name.to_string())
        .collect();
    // A single failed test is named as the source of the lines.
    let failed = if failed.len() > 1 { failed } else { Vec::new() };
    let (source, lines) = match &failure.words {
        Some(words) => (words.source.clone(), last_lines(&words.lines.join("\n"), 8 << 10).to_owned()),
        None => Default::default(),
    };
    let mut cells = links(failure);
    let cells_more = cells.len().saturating_sub(MAX_CELLS);
    cells.truncate(MAX_CELLS);
    Some(WrongView {
        cells,
        cells_more,
        outcome: cell.outcome(),
        phase: cell.verdict.phase().map(|phase| phase.name()).unwrap_or_default(),
        reason: cell.verdict.reason().unwrap_or_default(),
        attempts: cell.attempts.len(),
        failed_more: failed.len().saturating_sub(MAX_FAILED_TESTS),
        failed_tests: failed.into_iter().take(MAX_FAILED_TESTS).collect(),
        source,
        lines,
        help: cell.last_attempt().and_then(crate::Attempt::help),
    })
}
