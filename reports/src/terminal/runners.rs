//! The permanent lines of runners.

use super::{
    paint::Paint,
    parts::{INDENT, MAX_EVIDENCE, help, label, quoted},
};
use crate::{Outcome, Run, clean, human, machine};

/// The kind of machine, with its reason.
pub(super) fn started(run: &Run, number: u32) -> Vec<String> {
    let Some(runner) = run.runner(number) else { return Vec::new() };
    let again = if run.runners.len() > 1 { format!(" (number {number})") } else { String::new() };
    vec![format!("  runner  {}{again}: {}", runner.kind, runner.reason)]
}

/// Progress of making it ready.
pub(super) fn progress(message: &str) -> Vec<String> {
    vec![format!("{INDENT}{}", clean::line(message))]
}

/// The machine that was created for it.
pub(super) fn created(run: &Run, number: u32) -> Vec<String> {
    let machine = run.runner(number).and_then(|runner| runner.machine.as_ref());
    let facts = machine.map(|machine| &machine.facts);
    facts.map(|facts| format!("  cloud   {}; {}", facts.words(), facts.limit())).into_iter().collect()
}

/// Its facts, and how its guests run.
pub(super) fn ready(run: &Run, number: u32) -> Vec<String> {
    let Some(runner) = run.runner(number) else { return Vec::new() };
    let Some(facts) = &runner.facts else { return Vec::new() };
    let state = machine::state(runner);
    let mut lines = Vec::new();
    match &facts.l1 {
        Some(l1) => lines.push(format!("  l1      image {}, {}; {state}", l1.image, machine::l1(l1))),
        None if !facts.steps.is_empty() => lines.push(format!("{INDENT}{state}")),
        None => {}
    }
    // QEMU's own words are only in `doctor` and the reports.
    let reason = match facts.accelerator_reason.split_once("; ") {
        Some((reason, _)) => format!("{reason}; details: `nestmatrix doctor`"),
        None => facts.accelerator_reason.clone(),
    };
    lines.push(format!("  guests  {}: {reason}", facts.accelerator));
    lines.push(format!(
        "{INDENT}QEMU {}{}, {} and {} for all guests; {}",
        facts.qemu,
        if facts.l1.is_some() { " in the L1" } else { "" },
        human::count(facts.cpus as usize, "CPU"),
        human::bytes(facts.memory),
        machine::limits(facts),
    ));
    lines.push(format!("{INDENT}{}", machine::depth(runner, facts)));
    lines
}

/// Why it is lost, its last lines, and the next step.
pub(super) fn lost(run: &Run, number: u32, paint: Paint) -> Vec<String> {
    let Some(runner) = run.runner(number) else { return Vec::new() };
    let Some(lost) = &runner.lost else { return Vec::new() };
    let text = format!("{}: {}", machine::name(runner), lost.trouble);
    let mut lines = vec![label("LOST", paint.outcome(Outcome::Failed, "LOST"), &text)];
    let tail = &lost.trouble.evidence;
    lines.extend(tail[tail.len().saturating_sub(MAX_EVIDENCE)..].iter().map(|line| quoted(line, paint)));
    lines.extend(lost.trouble.help.as_deref().map(help).unwrap_or_default());
    lines
}
