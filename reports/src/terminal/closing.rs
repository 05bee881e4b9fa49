//! The summary at the end of a run: a plain function.

use std::{collections::BTreeMap, path::Path};

use matrix::GceRunner;

use super::paint::Paint;
use crate::{Outcome, Phase, Run, clean, guests, human, installed, network::NetworkTotal};

/// Maximum number of bad cells named at the end, and in the command that retries them.
const MAX_NAMED: usize = 20;
const MAX_AGAIN: usize = 8;
/// Maximum number of sentences on what failures have in common.
const MAX_COMMON: usize = 5;

/// The summary block. It states the exit code.
pub(super) fn lines(run: &Run, run_dir: &Path, paint: Paint) -> Vec<String> {
    let counts = run.counts();
    let code = run.exit_code();
    let outcome = match code {
        0 => Outcome::Passed,
        1 => Outcome::Failed,
        130 => Outcome::NotRun,
        _ => Outcome::Error,
    };
    let mut lines = vec![
        String::new(),
        format!(
            "  {} {} in {}",
            paint.outcome(outcome, if code == 0 { "GREEN" } else { "NOT GREEN" }),
            paint.bold(&run.title()),
            run.took()
        ),
        row("cells", &format!("{}: {}", counts.cells.total, counts.cells)),
        row("tests", &format!("{}: {}", counts.tests.total, counts.tests)),
    ];
    let guests = guests::summary(run);
    lines.extend(guests.iter().enumerate().map(|(index, text)| row(if index == 0 { "guests" } else { "" }, text)));
    lines.extend(machines(run, paint));
    lines.extend(installed::by_image(run).iter().take(MAX_NAMED).map(|text| row("package", text)));
    lines.extend(NetworkTotal::of(run).line().map(|text| row("network", &text)));
    lines.extend(match run.every_warning().as_slice() {
        [] => None,
        [one] => Some(row("warning", &paint.notice(one))),
        [first, more @ ..] => {
            let more = human::count(more.len(), "more warning");
            Some(row("warning", &paint.notice(&format!("{first} (and {more}, in the report)"))))
        }
    });
    lines.extend(time_by_phase(run).map(|text| row("time", &text)));
    lines.extend(slowest(run).map(|text| row("slowest", &text)));
    let problems = run.problems();
    lines.extend(problems.iter().take(MAX_NAMED).map(|problem| row("problem", &paint.notice(problem))));
    if problems.len() > MAX_NAMED {
        lines.push(row("", &format!("and {} more, see the report", problems.len() - MAX_NAMED)));
    }
    lines.extend(bad_cells(run, paint));
    let common = run.correlations();
    lines.extend(common.iter().take(MAX_COMMON).map(|common| row("common", &common.to_string())));
    if common.len() > MAX_COMMON {
        lines.push(row("", &format!("and {} more, see run.json", common.len() - MAX_COMMON)));
    }
    lines.push(row("report", &shown(&run_dir.join("report.html"))));
    lines.push(row("junit", &shown(&run_dir.join("junit.xml"))));
    match resume(run, run_dir) {
        Some(command) => lines.push(row("resume", &command)),
        None => lines.extend(again(run).map(|command| row("again", &command))),
    }
    lines.push(row("exit", &format!("{code}: {}", run.conclusion())));
    lines
}

fn row(title: &str, text: &str) -> String {
    format!("  {title:<8} {text}")
}

/// What the machines took that were created for the run.
fn machines(run: &Run, paint: Paint) -> Vec<String> {
    let machines = run.runners.iter().filter_map(|runner| runner.machine.as_ref());
    let shown = machines.take(MAX_NAMED).enumerate().map(|(index, machine)| {
        let text = format!("{}: {}", machine.facts.name, machine.usage());
        let text = if machine.held_ms.is_some() { text } else { paint.notice(&text) };
        row(if index == 0 { "cloud" } else { "" }, &text)
    });
    shown.collect()
}

/// The phases of all cells by their share of time, largest first.
fn time_by_phase(run: &Run) -> Option<String> {
    let mut by_phase = BTreeMap::<Phase, u64>::new();
    for phase in run.cells.iter().flat_map(|cell| &cell.attempts).flat_map(|attempt| &attempt.phases) {
        let sum = by_phase.entry(phase.phase).or_default();
        *sum = sum.saturating_add(phase.elapsed_ms.unwrap_or(0));
    }
    let total: u64 = by_phase.values().fold(0, |sum, ms| sum.saturating_add(*ms));
    let mut by_phase: Vec<_> = by_phase.into_iter().filter(|(_, ms)| ms.saturating_mul(100) >= total).collect();
    by_phase.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
    let parts: Vec<String> = by_phase
        .iter()
        .filter(|(_, ms)| *ms > 0)
        .map(|(phase, ms)| {
            let percent = (*ms as f64 / total as f64 * 100.0).round();
            format!("{phase} {percent}% ({})", human::duration(*ms))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn slowest(run: &Run) -> Option<String> {
    let mut cells: Vec<_> = run.cells.iter().filter(|cell| cell.elapsed_ms > 0).collect();
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.elapsed_ms));
    let parts: Vec<String> =
        cells.iter().take(3).map(|cell| format!("{} {}", cell.id, human::duration(cell.elapsed_ms))).collect();
    (cells.len() > 1).then(|| parts.join(", "))
}

fn bad_cells(run: &Run, paint: Paint) -> Vec<String> {
    let bad = run.bad_cells();
    let mut lines: Vec<String> = bad
        .iter()
        .take(MAX_NAMED)
        .map(|cell| {
            let phase = cell.verdict.phase().map(|phase| format!(" in {phase}")).unwrap_or_default();
            let outcome = cell.outcome();
            let verdict = paint.outcome(outcome, &format!("{outcome}{phase}"));
            row("", &format!("{} {verdict}: {}", cell.id, cell.verdict.reason().unwrap_or_default()))
        })
        .collect();
    if bad.len() > MAX_NAMED {
        lines.push(row("", &format!("and {} more, see the report", bad.len() - MAX_NAMED)));
    }
    lines
}

/// The command that resumes an incomplete run.
fn resume(run: &Run, run_dir: &Path) -> Option<String> {
    let is_cut_short = run.elapsed_ms.is_none() || run.interrupted.is_some();
    let is_open = run.cells.iter().any(|cell| matches!(cell.verdict, crate::Verdict::NotRun { .. }));
    let folder = quote(&clean::line(&run_dir.to_string_lossy()));
    (is_cut_short && is_open).then(|| format!("nestmatrix run --resume {folder}   (cells with a verdict keep it)"))
}

/// The command that retries the bad cells.
fn again(run: &Run) -> Option<String> {
    let bad = run.bad_cells();
    if bad.is_empty() {
        return None;
    }
    let matrix = quote(&clean::line(&run.matrix.to_string_lossy()));
    let cells: Vec<String> = bad.iter().take(MAX_AGAIN).map(|cell| format!(" --cell {}", cell.id)).collect();
    let more = if bad.len() > MAX_AGAIN { format!("   (and {} more)", bad.len() - MAX_AGAIN) } else { String::new() };
    // The runner is repeated, whether it was requested or chosen: the cells were bad there.
    let runner = match (&run.host, &run.gce) {
        (_, Some(gce)) => on_gce(gce),
        (Some(host), None) => format!(" --runner ssh:{host}"),
        (None, None) if run.runners.iter().any(|runner| runner.kind == "qemu") => " --runner qemu".to_owned(),
        (None, None) => String::new(),
    };
    // And a guest that was booted may fail where a fork does not.
    let is_asked =
        |boot: &crate::Boot| matches!(boot, crate::Boot::Cold { reason: Some(reason) } if reason == "--cold");
    let guests = bad.iter().flat_map(|cell| &cell.attempts).filter_map(|attempt| attempt.guest.as_ref());
    let cold = if guests.into_iter().any(|guest| is_asked(&guest.boot)) { " --cold" } else { "" };
    let locked = if run.locked.is_some() { " --locked" } else { "" };
    Some(format!("nestmatrix run {matrix}{runner}{cold}{locked}{}{more}", cells.concat()))
}

/// The options that ask for this machine on Compute Engine: whatever is not the default.
fn on_gce(gce: &GceRunner) -> String {
    let usual = GceRunner::default();
    let mut options = vec![("runner", "gce".to_owned())];
    let mut add = |name, value: Option<String>| options.extend(value.map(|value| (name, value)));
    add("gce-project", gce.project.clone());
    add("gce-zone", (!gce.zones.is_empty()).then(|| gce.zones.join(",")));
    add("gce-machine-type", gce.machine_type.clone());
    add("gce-disk", gce.disk.map(|disk| disk.to_string()));
    add("gce-image", (gce.image != usual.image).then(|| gce.image.to_string()));
    add("gce-network", gce.network.clone());
    add("gce-subnet", gce.subnet.clone());
    add("gce-external-ip", (gce.external_ip != usual.external_ip).then(|| gce.external_ip.to_string()));
    add("gce-proxy-command", gce.proxy_command.clone());
    add("gce-cache-disk", gce.cache_disk.clone());
    let seconds = gce.max_duration.as_secs();
    add("gce-max-duration", (gce.max_duration != usual.max_duration).then(|| format!("{seconds}s")));
    gce.labels.iter().for_each(|(key, value)| add("gce-label", Some(format!("{key}={value}"))));
    let spot = if gce.spot { " --gce-spot" } else { "" };
    let options: Vec<String> = options.iter().map(|(name, value)| format!(" --{name} {}", quote(value))).collect();
    options.concat() + spot
}

/// A word quoted for a shell.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=@%:,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn shown(path: &Path) -> String {
    clean::line(&path.to_string_lossy())
}
