//! `run.json`: the whole run for programs.

use serde::Serialize;

use crate::{Correlation, Counts, Run};

/// The content of `run.json`.
///
/// Field names are `snake_case`, values of enumerations `kebab-case`, durations whole milliseconds in fields named `..._ms`,
/// times RFC 3339 in UTC.
#[derive(Clone, Debug, Serialize)]
pub struct RunRecord<'a> {
    /// Version of this format. Raised when a field changes its meaning or is removed; new fields do not raise it.
    pub format: u32,
    /// The exit code of the run.
    pub exit_code: u8,
    /// The exit code as a sentence.
    pub conclusion: String,
    /// Cells and test cases by verdict.
    pub counts: Counts,
    /// Why the run as a whole cannot be trusted; usually empty.
    pub problems: Vec<String>,
    /// What failures have in common; empty: nothing was found, or there are none.
    pub correlations: Vec<Correlation>,
    /// Everything else.
    #[serde(flatten)]
    pub run: &'a Run,
}

impl<'a> RunRecord<'a> {
    /// The record of a run.
    pub fn new(run: &'a Run) -> Self {
        Self {
            format: 3,
            exit_code: run.exit_code(),
            conclusion: run.conclusion(),
            counts: run.counts(),
            problems: run.problems(),
            correlations: run.correlations(),
            run,
        }
    }
}
