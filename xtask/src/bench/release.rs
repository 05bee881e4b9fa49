//! `matrix` and `matrix-qemu`: what forks save in the matrix that `run-matrix` runs, where a run before has made the templates. Where
//! they do not outlive their runner they are made again, in the time that is measured: it is said whether they were there.

use std::{collections::BTreeMap, path::Path};

use serde_json::json;

use crate::failure::Failure;

use super::{Report, figures::Figures, journal::Journal, workbench::Workbench};

const MATRIX: &str = "release";

/// `runner`: `host` or `qemu`.
pub(super) fn measure(bench: &Workbench, runner: &str, pairs: usize) -> Result<Report, Failure> {
    let run = |name: String, args: &[&str]| {
        bench.run(Path::new(MATRIX), &format!("{MATRIX}-{runner}-{name}"), &[&["--runner", runner], args].concat())
    };
    eprintln!("bench: {MATRIX} on {runner}: a first run that does not count; it makes templates if there are none");
    run("first".into(), &[])?;
    let (mut figures, mut broken, mut forks) = (Vec::new(), Vec::new(), Vec::new());
    let mut templates = Vec::new();
    for number in 1..=pairs {
        let warm = run(format!("{number}-warm"), &[])?;
        let cold = run(format!("{number}-cold"), &["--cold"])?;
        eprintln!(
            "bench: {MATRIX} on {runner}: pair {number} of {pairs}: {:.2} s cold, {:.2} s warm",
            cold.wall, warm.wall
        );
        figures.push([cold.wall, warm.wall]);
        broken.extend(differences(&warm.journal.verdicts, &cold.journal.verdicts));
        if !warm.journal.attempts.iter().any(super::journal::Attempt::is_forked) {
            broken.push(format!("no guest of warm run {number} was forked: two cold runs were compared"));
        }
        forks.push(forked(&warm.journal));
        templates = warm.journal.templates;
    }
    let figures = Figures::new(["cold", "warm"], figures);
    let same = if broken.is_empty() { "the same verdicts, cell by cell" } else { "NOT the same" };
    let templates: String = templates.iter().map(|line| format!("last warm run: {line}\n")).collect();
    let mut json = figures.json();
    json["forked"] = json!(forks);
    Ok(Report { text: format!("{templates}{figures}warm guests: {}; {same}\n", forks.join(", ")), json, broken })
}

/// `5 of 6 forked`, and why not the others.
fn forked(warm: &Journal) -> String {
    let forked = warm.attempts.iter().filter(|attempt| attempt.is_forked()).count();
    let count = format!("{forked} of {} forked", warm.attempts.len());
    match &warm.reasons()[..] {
        [] => count,
        reasons => format!("{count} ({})", reasons.join("; ")),
    }
}

/// Cells of which warm and cold say different things, a line for each.
fn differences(warm: &BTreeMap<String, String>, cold: &BTreeMap<String, String>) -> Vec<String> {
    let mut cells: Vec<&String> = warm.keys().chain(cold.keys()).collect();
    cells.sort_unstable();
    cells.dedup();
    let said = |verdicts: &BTreeMap<String, String>, cell: &str| {
        verdicts.get(cell).cloned().unwrap_or_else(|| "nothing".to_owned())
    };
    let pairs = cells.into_iter().map(|cell| (cell, said(warm, cell), said(cold, cell)));
    pairs
        .filter(|(_, warm, cold)| warm != cold)
        .map(|(cell, warm, cold)| format!("{cell} is {warm} when forked and {cold} when booted"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_only_one_of_both_reports_is_a_difference() {
        let verdicts = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(cell, verdict)| ((*cell).to_owned(), (*verdict).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let (warm, cold) =
            (verdicts(&[("a", "passed"), ("b", "passed")]), verdicts(&[("b", "failed"), ("a", "passed")]));
        assert_eq!(differences(&warm, &warm), Vec::<String>::new());
        assert_eq!(differences(&warm, &cold), ["b is passed when forked and failed when booted"]);
        assert_eq!(
            differences(&verdicts(&[("a", "passed")]), &warm),
            ["b is nothing when forked and passed when booted"]
        );
    }
}
