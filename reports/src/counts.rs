//! Counts verdicts in one place, so that the terminal, the summary, JUnit, HTML and `run.json` agree.
//!
//! A cell whose verdict does not follow from its test cases (it did not install, its guest never booted, it never ran, it was
//! skipped) reports one extra case named after its outcome, such as `[install]` or `[not-run]`. So every cell is visible in
//! formats that only know test cases, and a red cell is red there too. A run whose events cannot be trusted reports one extra
//! case of its own, `[run]`.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    CaseVerdict, Phase, TroubleKind, Verdict, human,
    run::{CellRun, Run},
};

/// Counts by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub total: usize,
    /// Passed.
    pub passed: usize,
    /// Failed: the package's fault.
    pub failed: usize,
    /// Skipped, with a reason.
    pub skipped: usize,
    /// The fault of the image, the machine or the harness.
    pub error: usize,
    /// Never reported.
    pub not_run: usize,
}

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The cells of the plan.
    pub cells: Tally,
    /// Their test cases, see [`CellRun::reported_cases`], and that of the run, see [`Run::reported_case`].
    pub tests: Tally,
}

/// One test case as every output shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedCase<'a> {
    /// Its name; in brackets for the extra case of a cell.
    pub name: Cow<'a, str>,
    /// Its outcome.
    pub outcome: Outcome,
    /// The reason, one line.
    pub message: Cow<'a, str>,
    /// More lines, may be empty.
    pub detail: Cow<'a, str>,
    /// How long it took.
    pub elapsed_ms: u64,
    /// The source file of the test.
    pub file: Option<&'a str>,
    /// The line in that file.
    pub line: Option<u64>,
}

/// The outcome of a cell or test case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The package's fault.
    Failed,
    /// The fault of the image, the machine or the harness.
    Error,
    /// It never reported.
    NotRun,
    /// Skipped, with a reason.
    Skipped,
    /// It passed.
    Passed,
}

impl Outcome {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Failed, Self::Error, Self::NotRun, Self::Skipped, Self::Passed];

    /// The word used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Error => "error",
            Self::NotRun => "not-run",
        }
    }

    /// Neither passed nor skipped.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Error | Self::NotRun)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<&Verdict> for Outcome {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Passed => Self::Passed,
            Verdict::Failed { .. } => Self::Failed,
            Verdict::Skipped { .. } => Self::Skipped,
            Verdict::Error { .. } => Self::Error,
            Verdict::NotRun { .. } => Self::NotRun,
        }
    }
}

impl From<&CaseVerdict> for Outcome {
    fn from(verdict: &CaseVerdict) -> Self {
        match verdict {
            CaseVerdict::Passed => Self::Passed,
            CaseVerdict::Failed { .. } => Self::Failed,
            CaseVerdict::Skipped { .. } => Self::Skipped,
        }
    }
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome) {
        self.total += 1;
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed => &mut self.failed,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Error => &mut self.error,
            Outcome::NotRun => &mut self.not_run,
        } += 1;
    }

    /// The count of this outcome.
    pub const fn of(&self, outcome: Outcome) -> usize {
        match outcome {
            Outcome::Passed => self.passed,
            Outcome::Failed => self.failed,
            Outcome::Skipped => self.skipped,
            Outcome::Error => self.error,
            Outcome::NotRun => self.not_run,
        }
    }
}

/// `3 passed, 1 failed, 1 not-run`: the nonzero counts in reading order.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = [Outcome::Passed, Outcome::Failed, Outcome::Error, Outcome::NotRun, Outcome::Skipped];
        let mut parts = order.into_iter().filter(|outcome| self.of(*outcome) > 0);
        match parts.next() {
            None => f.write_str("none"),
            Some(first) => {
                write!(f, "{} {first}", self.of(first))?;
                parts.try_for_each(|outcome| write!(f, ", {} {outcome}", self.of(outcome)))
            }
        }
    }
}

impl CellRun {
    /// The outcome of the cell.
    pub fn outcome(&self) -> Outcome {
        Outcome::from(&self.verdict)
    }

    /// Its test cases as every output shows and counts them: those of its last attempt, and one extra case if they alone do not
    /// explain its verdict.
    pub fn reported_cases(&self) -> impl Iterator<Item = ReportedCase<'_>> {
        let cases = self.last_attempt().map_or(&[][..], |attempt| &attempt.cases);
        let told = match &self.verdict {
            Verdict::Passed => true,
            Verdict::Skipped { .. } => {
                !cases.is_empty() && cases.iter().all(|case| matches!(case.verdict, CaseVerdict::Skipped { .. }))
            }
            Verdict::Failed { phase: Phase::Test | Phase::Reboot, .. } => {
                cases.iter().any(|case| matches!(case.verdict, CaseVerdict::Failed { .. }))
            }
            _ => false,
        };
        let cases = cases.iter().map(|case| {
            let (message, detail) = match &case.verdict {
                CaseVerdict::Passed => ("", ""),
                CaseVerdict::Failed { message, detail } => (message.as_str(), detail.as_str()),
                CaseVerdict::Skipped { reason } => (reason.as_str(), ""),
            };
            ReportedCase {
                name: Cow::Borrowed(&case.name),
                outcome: Outcome::from(&case.verdict),
                message: Cow::Borrowed(message),
                detail: Cow::Borrowed(detail),
                elapsed_ms: case.elapsed_ms,
                file: case.file.as_deref(),
                line: case.line,
            }
        });
        (!told).then(|| self.extra_case()).into_iter().chain(cases)
    }

    /// It is red for a request that is not allowed. Its phase says when it asked, not that it does not install or that a test failed.
    pub(crate) fn asked_for_what_it_must_not(&self) -> bool {
        let trouble = self.last_attempt().and_then(|attempt| attempt.trouble.as_ref());
        trouble.is_some_and(|trouble| trouble.kind == TroubleKind::UnexpectedRequest)
    }

    fn extra_case(&self) -> ReportedCase<'_> {
        let name = self.verdict.phase().map_or(self.verdict.name(), |phase| phase.name());
        let reason = self.verdict.reason().unwrap_or_default();
        let last = self.last_attempt();
        let message = match last.and_then(|attempt| attempt.running.as_deref()) {
            Some(test) if self.outcome().is_bad() => Cow::Owned(format!("{reason} (while {test} was running)")),
            _ => Cow::Borrowed(reason),
        };
        ReportedCase {
            name: Cow::Owned(format!("[{name}]")),
            outcome: self.outcome(),
            message,
            detail: Cow::Borrowed(""),
            elapsed_ms: self
                .verdict
                .phase()
                .and_then(|phase| last?.phases.iter().rev().find(|run| run.phase == phase)?.elapsed_ms)
                .unwrap_or(0),
            file: None,
            line: None,
        }
    }
}

impl Run {
    /// Every warning; those about a cell have its name.
    pub(crate) fn every_warning(&self) -> Vec<String> {
        let of_cell =
            |cell: &CellRun| cell.warnings.iter().map(|text| format!("{}: {text}", cell.id)).collect::<Vec<_>>();
        self.warnings.iter().cloned().chain(self.cells.iter().flat_map(of_cell)).collect()
    }

    /// Counts cells and test cases by verdict. The cells add up to the cells of the plan.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for cell in &self.cells {
            counts.cells.add(cell.outcome());
            cell.reported_cases().for_each(|case| counts.tests.add(case.outcome));
        }
        if let Some(case) = self.reported_case() {
            counts.tests.add(case.outcome);
        }
        counts
    }

    /// The run itself as a test case, if it cannot be trusted as a whole ([`Run::problems`]): all its cells may look good.
    pub fn reported_case(&self) -> Option<ReportedCase<'static>> {
        let problems = self.problems();
        let message = match &problems[..] {
            [] => return None,
            [one] => one.clone(),
            [first, more @ ..] => format!("{first} (and {} more)", human::count(more.len(), "problem")),
        };
        Some(ReportedCase {
            name: Cow::Borrowed("[run]"),
            outcome: Outcome::Error,
            message: Cow::Owned(message),
            detail: Cow::Owned(problems.join("\n")),
            elapsed_ms: 0,
            file: None,
            line: None,
        })
    }

    /// The exit code: 130 interrupted; 1 something failed; 3 nothing failed, but not every cell has a verdict or the run
    /// contradicts itself; 0 all expected cells reported, and passed or were skipped.
    pub fn exit_code(&self) -> u8 {
        let counts = self.counts();
        if self.interrupted.is_some() {
            130
        } else if counts.cells.failed > 0 || counts.tests.failed > 0 {
            1
        } else if counts.cells.error > 0 || counts.cells.not_run > 0 || !self.problems().is_empty() {
            3
        } else {
            0
        }
    }

    /// The exit code as a sentence.
    pub fn conclusion(&self) -> String {
        let cells = self.counts().cells;
        let open = cells.error + cells.not_run;
        let of_all = format!("{open} of {} without a verdict", human::count(cells.total, "cell"));
        match (self.exit_code(), open) {
            (130, 0) => "interrupted".to_owned(),
            (130, _) => format!("interrupted, {of_all}"),
            (1, _) => self.failed_where(),
            (3, 0) => "no test failed, but the event log cannot be trusted".to_owned(),
            (3, _) => format!("no test failed, but {of_all}"),
            _ if cells.passed == 0 => format!("no cell ran, all skipped ({})", cells.skipped),
            _ => format!("all cells passed ({} skipped)", cells.skipped),
        }
    }

    /// What failed, and on how many systems: `does not install on 1 of 3 systems`.
    fn failed_where(&self) -> String {
        let images = |is: &dyn Fn(&CellRun) -> bool| {
            self.cells.iter().filter(|cell| is(cell)).map(|cell| &cell.image).collect::<HashSet<_>>().len()
        };
        let all = images(&|_| true);
        let failed = |is: fn(Option<Phase>) -> bool, what: &str| {
            let bad = images(&|cell| match &cell.verdict {
                Verdict::Failed { phase, .. } => is((!cell.asked_for_what_it_must_not()).then_some(*phase)),
                _ => false,
            });
            match (bad, all) {
                (0, _) => None,
                (_, 1) => Some(what.to_owned()),
                _ => Some(format!("{what} on {bad} of {all} systems")),
            }
        };
        let parts = [
            failed(|phase| phase == Some(Phase::Install), "does not install"),
            failed(|phase| phase == Some(Phase::Reboot), "does not boot again"),
            failed(|phase| !matches!(phase, None | Some(Phase::Install | Phase::Reboot)), "tests fail"),
            failed(|phase| phase.is_none(), "asks for hosts that are not allowed"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "a test failed".to_owned() } else { parts.join("; ") }
    }

    /// The cells that are neither passed nor skipped, the package's faults first, otherwise in the plan's order.
    pub fn bad_cells(&self) -> Vec<&CellRun> {
        let mut cells: Vec<_> = self.cells.iter().filter(|cell| cell.outcome().is_bad()).collect();
        cells.sort_by_key(|cell| cell.outcome());
        cells
    }
}
