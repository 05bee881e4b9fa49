//! `summary.md`: a short summary for the page of a CI job.

use std::{fmt::Write as _, path::Path};

use crate::{
    CellRun, MachineRun, Outcome, Run, RunnerRun,
    failures::{Failure, failures},
    grid::Grid,
    guests, human, installed, machine,
    network::NetworkTotal,
    system,
};

/// Maximum number of failures with details.
const MAX_FAILURES: usize = 20;
/// Maximum number of rows of the table. GitHub shows at most 1 MiB.
const MAX_ROWS: usize = 200;
/// Cells named per failure.
const MAX_NAMED: usize = 10;
/// Maximum number of runners named.
const MAX_RUNNERS: usize = 10;
/// Lines of evidence per failure.
const MAX_LINES: usize = 15;

/// Renders the file.
pub(crate) fn render(run: &Run, run_dir: &Path) -> String {
    let mut md = String::new();
    // Writing to a String cannot fail.
    let _ = write(run, run_dir, &mut md);
    md
}

fn write(run: &Run, run_dir: &Path, md: &mut String) -> std::fmt::Result {
    let counts = run.counts();
    let code = run.exit_code();
    let mark = match code {
        0 => "✅",
        1 => "❌",
        _ => "⚠️",
    };
    writeln!(md, "## {mark} {}: {}\n", escape(&run.title()), run.conclusion())?;
    writeln!(
        md,
        "**{}**: {}. **{}**: {}. Took {}. Exit code {code}.\n",
        human::count(counts.cells.total, "cell"),
        counts.cells,
        human::count(counts.tests.total, "test"),
        counts.tests,
        run.took(),
    )?;
    let guests = guests::summary(run);
    if !guests.is_empty() {
        writeln!(md, "**Guests**: {}.\n", escape(&guests.join(", ")))?;
    }
    let installed = installed::by_image(run);
    if !installed.is_empty() {
        writeln!(md, "**Installed**: {}.\n", escape(&limited(&installed, MAX_NAMED).join("; ")))?;
    }
    if let Some(network) = NetworkTotal::of(run).line() {
        writeln!(md, "**Network**: {}.\n", escape(&network))?;
    }
    for warning in limited(&run.every_warning(), MAX_NAMED) {
        writeln!(md, "> Warning: {}\n", escape(&warning))?;
    }
    for problem in limited(&run.problems(), MAX_NAMED) {
        writeln!(md, "> ⚠️ {}\n", escape(&problem))?;
    }
    if let Some(signal) = &run.interrupted {
        writeln!(md, "> Interrupted by {}.\n", escape(signal))?;
    }
    write_table(run, md)?;
    let failures = failures(run, run_dir, MAX_LINES);
    if !failures.is_empty() {
        writeln!(md, "\n### What went wrong")?;
    }
    let common: Vec<_> = run.correlations().iter().map(ToString::to_string).collect();
    for common in limited(&common, MAX_NAMED) {
        writeln!(md, "\nIn common: {}.", escape(&common))?;
    }
    for failure in failures.iter().take(MAX_FAILURES) {
        write_failure(failure, md)?;
    }
    if failures.len() > MAX_FAILURES {
        writeln!(md, "\n{} more: see `report.html`.", failures.len() - MAX_FAILURES)?;
    }
    write_systems(run, md)?;
    for runner in run.runners.iter().take(MAX_RUNNERS) {
        write_runner(runner, md)?;
    }
    Ok(())
}

/// The first of these, and the number of others.
fn limited(lines: &[String], most: usize) -> Vec<String> {
    let mut shown: Vec<String> = lines.iter().take(most).cloned().collect();
    if lines.len() > most {
        shown.push(format!("{} more: see `report.html`", lines.len() - most));
    }
    shown
}

/// The systems of each image's guests, one row per system.
fn write_systems(run: &Run, md: &mut String) -> std::fmt::Result {
    let seen = run.images.iter().flat_map(|image| {
        let systems = system::of_image(run, &image.name).into_iter();
        systems.map(move |system| (&image.name, system))
    });
    let mut seen = seen.peekable();
    if seen.peek().is_none() {
        return Ok(());
    }
    writeln!(
        md,
        "\n<details><summary>Systems</summary>\n\n| image | system | kernel | libc | init |\n|---|---|---|---|---|"
    )?;
    for (image, system) in seen.take(MAX_ROWS) {
        let facts = [&system.name, &system.kernel, &system.libc, &system.init];
        let facts = facts.map(|fact| escape(fact.as_deref().unwrap_or("?")));
        writeln!(md, "| {} | {} |", escape(image), facts.join(" | "))?;
    }
    writeln!(md, "\n</details>")
}

/// A runner.
fn write_runner(runner: &RunnerRun, md: &mut String) -> std::fmt::Result {
    let instance = runner.machine.as_ref().map(|machine| {
        let MachineRun { facts, .. } = machine;
        let platform = facts.cpu_platform.as_ref().map(|platform| format!(", {platform}")).unwrap_or_default();
        let what = format!("{}, {}{platform}", facts.words(), facts.image);
        let limit = machine.limit().map_or_else(String::new, |limit| format!("{limit}; "));
        let words = format!("{what}; {limit}{}", machine.usage());
        format!(" It is an instance of {}: {}.", escape(&facts.provider), escape(&words))
    });
    let instance = instance.unwrap_or_default();
    let Some(facts) = &runner.facts else {
        return writeln!(
            md,
            "\n<sub>No guest ran on {}: {}.{instance}</sub>",
            escape(&machine::name(runner)),
            escape(&machine::state(runner))
        );
    };
    write!(
        md,
        "\n<sub>Guests ran on {} with {} ({}), QEMU {}, kernel {}; {}; {}.",
        escape(&machine::name(runner)),
        escape(&facts.accelerator),
        escape(&facts.accelerator_reason),
        escape(&facts.qemu),
        escape(&facts.kernel),
        machine::depth(runner, facts),
        machine::limits(facts),
    )?;
    if let Some(l1) = &facts.l1 {
        write!(md, " The L1 is a virtual machine of image {}: {}.", escape(&l1.image), escape(&machine::l1(l1)))?;
    }
    md.push_str(&instance);
    if let Some(lost) = &runner.lost {
        write!(md, " It was lost: {}.", escape(&lost.trouble.reason))?;
    }
    writeln!(md, "</sub>")
}

fn write_table(run: &Run, md: &mut String) -> std::fmt::Result {
    let grid = Grid::new(run);
    write!(md, "| image |")?;
    for (suite, axes) in &grid.columns {
        let title = if axes.is_empty() { suite.clone() } else { format!("{suite} ({axes})") };
        write!(md, " {} |", escape(&title))?;
    }
    writeln!(md, "\n|---{}|", "|---".repeat(grid.columns.len()))?;
    for row in grid.rows.iter().take(MAX_ROWS) {
        let title = if row.axes.is_empty() { row.image.clone() } else { format!("{} ({})", row.image, row.axes) };
        write!(md, "| {} |", escape(&title))?;
        for cells in &row.cells {
            let shown: Vec<String> = cells.iter().filter_map(|index| run.cells.get(*index)).map(mark).collect();
            write!(md, " {} |", shown.join(" "))?;
        }
        writeln!(md)?;
    }
    if grid.rows.len() > MAX_ROWS {
        writeln!(md, "\n{} more rows: see `report.html`.", grid.rows.len() - MAX_ROWS)?;
    }
    Ok(())
}

fn mark(cell: &CellRun) -> String {
    let time = human::duration(cell.elapsed_ms);
    match (cell.outcome(), cell.verdict.phase()) {
        (Outcome::Passed, _) if cell.attempts.len() > 1 => {
            format!("✅ passed {time} (attempt {})", cell.attempts.len())
        }
        (Outcome::Passed, _) => format!("✅ passed {time}"),
        (Outcome::Failed, Some(phase)) => format!("❌ **failed** in {phase}"),
        (Outcome::Error, Some(phase)) => format!("⚠️ **error** in {phase}"),
        (Outcome::Skipped, _) => "➖ skipped".to_owned(),
        (outcome, _) => format!("⚪ **{outcome}**"),
    }
}

fn write_failure(failure: &Failure<'_>, md: &mut String) -> std::fmt::Result {
    let Some(cell) = failure.first() else { return Ok(()) };
    let names: Vec<String> = failure.cells.iter().take(MAX_NAMED).map(|(_, cell)| format!("`{}`", cell.id)).collect();
    let more = match failure.cells.len() {
        length if length > MAX_NAMED => format!(" and {} more", length - MAX_NAMED),
        _ => String::new(),
    };
    let phase = cell.verdict.phase().map(|phase| format!(" in {phase}")).unwrap_or_default();
    let reason = cell.verdict.reason().unwrap_or_default();
    writeln!(md, "\n**{}**{more}: {}{phase}: {}", names.join(", "), cell.verdict.name(), escape(reason))?;
    for attempt in cell.attempts.iter().filter(|attempt| attempt.retried) {
        writeln!(md, "\nAttempt {}: {}.", attempt.number, escape(&crate::junit::outcome(attempt)))?;
    }
    if let Some(words) = &failure.words {
        let text: Vec<String> =
            words.lines.iter().map(|line| crate::clean::excerpt(line, 400).replace('\n', " ")).collect();
        let text = text.join("\n");
        let fence = fence(&text);
        writeln!(md, "\n{fence}text\n{text}\n{fence}")?;
    }
    if let Some(help) = cell.last_attempt().and_then(crate::Attempt::help) {
        writeln!(md, "\n*{}*", escape(&crate::clean::line(help)))?;
    }
    Ok(())
}

/// A fence longer than any run of backticks in the text, so that the text cannot end its block.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

/// Text escaped for Markdown, its tables and its HTML. `@` too: a guest must not notify people.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '@' => escaped.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    // Bare addresses are made into links.
    escaped.replace("://", ":&#47;/").replace("www.", "www&#46;")
}
