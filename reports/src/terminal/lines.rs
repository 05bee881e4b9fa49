//! The permanent lines of an event: a plain function.

use std::path::Path;

use super::{
    paint::Paint,
    parts::{INDENT, MAX_EVIDENCE, help, label, quoted},
    runners, templates,
};
use crate::{
    Attempt, CellRun, Event, EventKind, Outcome, Phase, Run, Trouble, clean, evidence, fold::SIGNAL_SEPARATOR, human,
    run::ImageState,
};

/// Lines of evidence below an attempt that is retried.
const MAX_RETRY_EVIDENCE: usize = 4;
/// Maximum width of the column of cell names; a longer name pushes the rest to the right.
const MAX_NAME: usize = 48;

/// The permanent lines of an event that has just been folded into `run`. In a live view running cells have rows, so starts are
/// not printed.
pub(super) fn about(run: &Run, event: &Event, paint: Paint, logs: Option<&Path>, live: bool) -> Vec<String> {
    let plain = !live;
    match &event.kind {
        EventKind::RunStarted { .. } => heading(run, paint),
        EventKind::RunResumed { .. } => {
            let open = run.cells.iter().filter(|cell| !cell.finished).count();
            let text = format!("{open} of {} have no verdict yet", human::count(run.cells.len(), "cell"));
            vec![label("RESUME", paint.notice("RESUME"), &text)]
        }
        EventKind::RunnerStarted { runner, .. } => runners::started(run, *runner),
        EventKind::RunnerProgress { message, .. } if plain => runners::progress(message),
        EventKind::MachineCreated { runner, .. } => runners::created(run, *runner),
        EventKind::RunnerReady { runner } => runners::ready(run, runner.number),
        EventKind::RunnerLost { runner, .. } => runners::lost(run, *runner, paint),
        EventKind::TemplateStarted { runner, template, .. } if plain => {
            templates::started(run, *runner, *template, paint)
        }
        EventKind::TemplateReady { runner, template, .. } => templates::ready(run, *runner, *template, paint),
        EventKind::TemplateFailed { runner, template, .. } => templates::failed(run, *runner, *template, paint),
        EventKind::ImageProgress { image, message } if plain => {
            vec![label("IMAGE", paint.dim("IMAGE"), &format!("{}: {}", clean::line(image), clean::line(message)))]
        }
        EventKind::ImageReady { image, digest, cached, elapsed_ms } => {
            let how = if *cached { "from the store" } else { "built" };
            let text = format!("{}: {how}, {}  {}", clean::line(image), human::duration(*elapsed_ms), digest.short());
            vec![label("IMAGE", paint.dim("IMAGE"), &text)]
        }
        EventKind::ImageFailed { image, .. } => image_failure(run, image, paint),
        EventKind::AttemptStarted { cell, attempt, .. } if plain => {
            let again = if *attempt > 1 { format!("  attempt {attempt}") } else { String::new() };
            vec![label("START", paint.dim("START"), &format!("{}{again}", clean::line(cell.as_str())))]
        }
        EventKind::AttemptFinished { cell, attempt, retried: true, .. } => {
            run.cell(cell).map(|cell| retry(run, cell, *attempt, paint, logs)).unwrap_or_default()
        }
        EventKind::GuestKept { cell, ssh, stop, .. } => vec![
            label("KEPT", paint.notice("KEPT"), &format!("{}: its guest keeps running", clean::line(cell.as_str()))),
            format!("{INDENT}enter it: {}", clean::line(ssh)),
            format!("{INDENT}end it:   {}", clean::line(stop)),
        ],
        EventKind::Warning { cell, message } => {
            let about = cell.as_ref().map(|cell| format!("{}: ", clean::line(cell.as_str()))).unwrap_or_default();
            vec![label("WARN", paint.notice("WARN"), &format!("{about}{}", clean::line(message)))]
        }
        EventKind::CellFinished { cell, .. } => match run.cell(cell) {
            // After Ctrl-C all cells that never started would scroll the failures away; the summary counts them.
            Some(cell) if cell.outcome() == Outcome::NotRun && run.interrupted.is_some() => Vec::new(),
            Some(cell) => finished(run, cell, paint, logs),
            None => Vec::new(),
        },
        EventKind::RunInterrupted { signal } => {
            let again = run.interrupted.as_deref().is_some_and(|signals| signals.contains(SIGNAL_SEPARATOR));
            let what = if signal == "SIGINT" && !again {
                "no new cells start, running cells finish; interrupt again to end them now"
            } else {
                "running cells are ended"
            };
            let text = format!("interrupted by {}: {what}", clean::line(signal));
            vec![label("STOP", paint.notice("STOP"), &text)]
        }
        _ => Vec::new(),
    }
}

fn heading(run: &Run, paint: Paint) -> Vec<String> {
    let cells = human::count(run.cells.len(), "cell");
    let images = human::count(run.images.len(), "image");
    let version = run.version.as_deref().unwrap_or_default();
    let title = paint.bold(&run.title());
    vec![format!("nestmatrix {version}: {title}, {cells} on {images}")]
}

fn image_failure(run: &Run, from: &str, paint: Paint) -> Vec<String> {
    let failed = run.images.iter().filter(|image| image.from == from).find_map(|image| match &image.state {
        ImageState::Failed(trouble) => Some(trouble),
        _ => None,
    });
    let Some(Trouble { reason, evidence: tail, .. }) = failed else { return Vec::new() };
    let painted = paint.outcome(Outcome::Error, "IMAGE");
    let mut lines = vec![label("IMAGE", painted, &format!("{}: {reason}", clean::line(from)))];
    let recent = &tail[tail.len().saturating_sub(MAX_EVIDENCE)..];
    lines.extend(recent.iter().map(|line| quoted(line, paint)));
    lines
}

fn retry(run: &Run, cell: &CellRun, number: u32, paint: Paint, logs: Option<&Path>) -> Vec<String> {
    let Some(attempt) = cell.attempts.iter().find(|attempt| attempt.number == number) else { return Vec::new() };
    let text = format!("{}  attempt {number}: {} on a fresh guest", name(run, cell), crate::junit::outcome(attempt));
    let mut lines = vec![label("RETRY", paint.notice("RETRY"), &text)];
    let tail = attempt.console_tail();
    // The lost runner's own lines precede this; its guests were not the cause.
    let runner_lost = attempt.outcome.as_ref().and_then(|verdict| verdict.phase()) == Some(Phase::Runner);
    if tail.is_empty() && !runner_lost {
        lines.extend(evidence(run, cell, paint, logs, MAX_RETRY_EVIDENCE));
    } else {
        lines.extend(tail[tail.len().saturating_sub(MAX_RETRY_EVIDENCE)..].iter().map(|line| quoted(line, paint)));
    }
    lines
}

fn finished(run: &Run, cell: &CellRun, paint: Paint, logs: Option<&Path>) -> Vec<String> {
    let outcome = cell.outcome();
    let word = match outcome {
        Outcome::Passed => "PASS",
        Outcome::Failed => "FAIL",
        Outcome::Skipped => "SKIP",
        Outcome::Error => "ERROR",
        Outcome::NotRun => "NOT RUN",
    };
    // A cell that never started has no duration.
    let time = cell.started.map(|_| human::duration(cell.elapsed_ms)).unwrap_or_default();
    let mut text = format!("{} {time:>8}", name(run, cell));
    if cell.attempts.len() > 1 {
        text.push_str(&format!("  attempt {}", cell.attempts.len()));
    }
    match (cell.verdict.phase(), cell.verdict.reason()) {
        (Some(phase), Some(reason)) => text.push_str(&format!("  {phase}: {reason}")),
        (None, Some(reason)) => text.push_str(&format!("  {reason}")),
        _ => {}
    }
    let mut lines = vec![label(word, paint.outcome(outcome, word), &text)];
    if outcome.is_bad() {
        lines.extend(failed_cases(cell));
        lines.extend(evidence(run, cell, paint, logs, MAX_EVIDENCE));
        lines.extend(cell.last_attempt().and_then(Attempt::help).map(help).unwrap_or_default());
    }
    lines
}

/// Names of the failed test cases, if there are several.
fn failed_cases(cell: &CellRun) -> Vec<String> {
    let failed: Vec<_> = cell.reported_cases().filter(|case| case.outcome == Outcome::Failed).collect();
    if failed.len() < 2 {
        return Vec::new();
    }
    let shown = failed.iter().take(5).map(|case| format!("{INDENT}{}: {}", case.name, case.message));
    let more = (failed.len() > 5).then(|| format!("{INDENT}and {} more", failed.len() - 5));
    shown.chain(more).collect()
}

fn evidence(run: &Run, cell: &CellRun, paint: Paint, logs: Option<&Path>, max: usize) -> Vec<String> {
    let Some(words) = evidence::words(run, cell, logs, max) else { return Vec::new() };
    let heading = format!("{INDENT}{}", paint.dim(&format!("{}:", words.source)));
    std::iter::once(heading).chain(words.lines.iter().map(|line| quoted(line, paint))).collect()
}

/// The cell's name, padded to the column width.
fn name(run: &Run, cell: &CellRun) -> String {
    let width = run.cells.iter().map(|cell| cell.id.as_str().len()).max().unwrap_or(0).min(MAX_NAME);
    format!("{:<width$}", cell.id.as_str())
}
