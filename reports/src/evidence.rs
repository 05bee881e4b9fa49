//! The lines that explain a failure: of the package manager, the test or the console, depending on the phase.

use std::path::Path;

use crate::{
    CaseVerdict, Phase, TroubleKind, logs,
    run::{Attempt, CellRun, ImageState, Run, RunnerLoss},
};

/// Maximum bytes of a log that are searched.
const MAX_BYTES: u64 = 64 << 10;

/// Logs of an attempt, as file names in its folder, in the order they are shown.
pub(crate) const LOGS: [&str; 7] =
    ["stdout.log", "stderr.log", "install.log", "dependencies.log", "repository.log", "console.log", "qemu.log"];

/// Some lines, and their source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Words {
    /// For people: `install.log`, `console`, a test's name.
    pub source: String,
    /// The lines, clean.
    pub lines: Vec<String>,
}

/// The lines that explain a cell's failure, at most `max_lines`; none for a cell that passed or was skipped. `run_dir`: the
/// folder with the logs, if any.
pub fn words(run: &Run, cell: &CellRun, run_dir: Option<&Path>, max_lines: usize) -> Option<Words> {
    if !cell.outcome().is_bad() {
        return None;
    }
    let image_failure = || match &run.image(&cell.image)?.state {
        ImageState::Failed(trouble) => from_lines("image", &trouble.evidence, max_lines),
        _ => None,
    };
    let runner_failure = || from_lines("runner's console", &lost_runner(run, cell)?.trouble.evidence, max_lines);
    let phase = cell.verdict.phase();
    let Some(attempt) = cell.last_attempt() else {
        return if phase == Some(Phase::Runner) { runner_failure() } else { image_failure() };
    };
    if phase == Some(Phase::Image) {
        return image_failure();
    }
    let log = |name: &str| from_log(cell, attempt, run_dir?, name, max_lines);
    let console = || from_lines("console", attempt.console_tail(), max_lines).or_else(|| log("console.log"));
    match phase {
        Some(Phase::Runner) => from_lines("console", attempt.console_tail(), max_lines).or_else(runner_failure),
        Some(Phase::Install) if of_repositories(attempt) => {
            log("dependencies.log").or_else(|| log("repository.log")).or_else(|| log("install.log")).or_else(console)
        }
        Some(Phase::Install) => log("install.log").or_else(console),
        Some(Phase::Test) => {
            // When the guest ended, its console has the reason; a failed test has its own message.
            from_case(attempt, max_lines)
                .or_else(|| from_lines("console", attempt.console_tail(), max_lines))
                .or_else(|| log("stderr.log"))
                .or_else(|| log("stdout.log"))
        }
        _ => console().or_else(|| log("qemu.log")),
    }
}

fn of_repositories(attempt: &Attempt) -> bool {
    attempt.trouble.as_ref().is_some_and(|trouble| trouble.kind == TroubleKind::RepositoryFailed)
}

/// The lost runner of a cell, or else the last lost one: without a runner the cell never got a guest.
fn lost_runner<'a>(run: &'a Run, cell: &CellRun) -> Option<&'a RunnerLoss> {
    match cell.last_attempt().and_then(|attempt| attempt.guest.as_ref()) {
        Some(guest) => run.runner(guest.runner)?.lost.as_ref(),
        None => run.runners.iter().rev().find_map(|runner| runner.lost.as_ref()),
    }
}

fn from_case(attempt: &Attempt, max_lines: usize) -> Option<Words> {
    attempt.cases.iter().find_map(|case| match &case.verdict {
        CaseVerdict::Failed { detail, .. } if !detail.trim().is_empty() => {
            let lines: Vec<String> = detail.trim_end().lines().map(str::to_owned).collect();
            from_lines(&case.name, &lines, max_lines)
        }
        _ => None,
    })
}

fn from_log(cell: &CellRun, attempt: &Attempt, run_dir: &Path, name: &str, max_lines: usize) -> Option<Words> {
    let path = run_dir.join(attempt.folder(&cell.id)).join(name);
    let lines: Vec<String> = logs::tail(&path, MAX_BYTES, max_lines).ok()?.text.lines().map(str::to_owned).collect();
    from_lines(name, &lines, max_lines)
}

fn from_lines(source: &str, lines: &[String], max_lines: usize) -> Option<Words> {
    let end = lines.iter().rposition(|line| !line.trim().is_empty())? + 1;
    let lines = lines[end.saturating_sub(max_lines)..end].to_vec();
    Some(Words { source: source.to_owned(), lines })
}
