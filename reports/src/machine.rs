//! Runners, in the words of every output.

use crate::{
    L1Facts, RunnerFacts, human,
    run::{Attempt, Run, RunnerRun},
};

/// Maximum number of steps that are named.
const MAX_STEPS: usize = 12;

/// `runner 2 (qemu)`.
pub(crate) fn name(runner: &RunnerRun) -> String {
    format!("runner {} ({})", runner.number, runner.kind)
}

/// Its state: `ready after 28.0s: boot 14.5s, upload 1.2s, proof 9.0s`, or how far it came.
pub(crate) fn state(runner: &RunnerRun) -> String {
    let state = match (runner.ready_after_ms, &runner.facts) {
        (Some(ms), Some(facts)) if facts.steps.is_empty() => format!("ready after {}", human::duration(ms)),
        (Some(ms), Some(facts)) => {
            let steps = facts.steps.iter().take(MAX_STEPS);
            let steps: Vec<String> =
                steps.map(|step| format!("{} {}", step.step, human::duration(step.elapsed_ms))).collect();
            format!("ready after {}: {}", human::duration(ms), steps.join(", "))
        }
        _ => "never ready".to_owned(),
    };
    match &runner.lost {
        Some(lost) => format!("{state}; lost: {}", lost.trouble),
        None => state,
    }
}

/// The nesting depth of a guest, in words.
pub(crate) fn depth(runner: &RunnerRun, facts: &RunnerFacts) -> String {
    let inside = match (facts.l1.is_some(), facts.depth) {
        _ if runner.machine.is_some() => "guests in the instance, which is itself a VM",
        (false, 0 | 1) => "guests on bare metal",
        (false, _) => "guests on this machine, which is itself a VM",
        (true, 0..=2) => "guests in the L1, the L1 on bare metal",
        (true, _) => "guests in the L1, the L1 on this machine, which is itself a VM",
    };
    format!("nesting depth {}: {inside}", facts.depth)
}

/// The effect of its speed on time limits.
pub(crate) fn limits(facts: &RunnerFacts) -> String {
    if facts.speed < 1.05 {
        return "time limits as they are set".to_owned();
    }
    format!("time limits are {:.1} times longer: this machine is slower than the reference", facts.speed)
}

/// `1 CPU, 4.0 GiB, tcg (emulated SVM), QEMU 10.0.2`.
pub(crate) fn l1(l1: &L1Facts) -> String {
    let cpus = human::count(l1.cpus as usize, "CPU");
    let nesting = if l1.nesting.is_empty() { String::new() } else { format!(" ({})", l1.nesting) };
    format!("{cpus}, {}, {}{nesting}, QEMU {}", human::bytes(l1.memory), l1.accelerator, l1.qemu)
}

/// Where an attempt's guest ran: `runner 2 (qemu): a virtual machine of image debian-13-runner`. `None` if that is obvious: there
/// was only one machine, and nothing was booted or created for it.
pub(crate) fn of_attempt(run: &Run, attempt: &Attempt) -> Option<String> {
    let runner = run.runner(attempt.guest.as_ref()?.runner)?;
    let l1 = runner.facts.as_ref().and_then(|facts| facts.l1.as_ref());
    let what = match (l1, &runner.machine) {
        (Some(l1), _) => format!(": a virtual machine of image {}", l1.image),
        (None, Some(machine)) => format!(": {}", machine.facts.words()),
        (None, None) if run.runners.len() < 2 => return None,
        (None, None) => String::new(),
    };
    // An attempt that was over by then was not affected.
    let lost = runner
        .lost
        .as_ref()
        .filter(|lost| attempt.elapsed_ms.is_none_or(|elapsed| attempt.began.saturating_add(elapsed) >= lost.clock_ms));
    let lost = lost.map(|lost| format!("; it was lost: {}", lost.trouble)).unwrap_or_default();
    Some(format!("{}{what}{lost}", name(runner)))
}
