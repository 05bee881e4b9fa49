//! Groups failures: cells that failed in the same way with the same lines are one failure.

use std::path::Path;

use rayon::prelude::*;

use crate::{
    CellRun, Run,
    evidence::{self, Words},
};

/// Cells with the same failure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure<'a> {
    /// The cells, with their places in the plan; at least one.
    pub(crate) cells: Vec<(usize, &'a CellRun)>,
    /// The lines that explain it.
    pub(crate) words: Option<Words>,
}

impl<'a> Failure<'a> {
    /// The first of them.
    pub(crate) fn first(&self) -> Option<&'a CellRun> {
        self.cells.first().map(|(_, cell)| *cell)
    }
}

/// The failures of a run, the package's first, otherwise in the plan's order; each with at most `max_lines` of evidence.
pub(crate) fn failures<'a>(run: &'a Run, run_dir: &Path, max_lines: usize) -> Vec<Failure<'a>> {
    let mut bad: Vec<_> = run.cells.iter().enumerate().filter(|(_, cell)| cell.outcome().is_bad()).collect();
    bad.sort_by_key(|(_, cell)| cell.outcome());
    let words: Vec<_> = bad.par_iter().map(|(_, cell)| evidence::words(run, cell, Some(run_dir), max_lines)).collect();
    let mut by_end = indexmap::IndexMap::new();
    for ((index, cell), words) in bad.into_iter().zip(words) {
        let failure = Failure { cells: Vec::new(), words: words.clone() };
        by_end.entry((end(cell), words)).or_insert(failure).cells.push((index, cell));
    }
    by_end.into_values().collect()
}

/// The key of a failure, besides its lines. Without the help: it may name a file of the cell.
fn end(cell: &CellRun) -> (&'static str, Option<crate::Phase>, Option<&str>, usize) {
    (cell.verdict.name(), cell.verdict.phase(), cell.verdict.reason(), cell.attempts.len())
}
