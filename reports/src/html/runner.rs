//! One machine that ran guests, on the page.

use serde::Serialize;

use super::budget::last_lines;
use crate::{L1Facts, MachineRun, RunnerRun, human, machine, run::RunnerLoss};

/// Maximum number of runners with details.
pub(super) const MAX_RUNNERS: usize = 20;
/// Maximum bytes of a lost runner's console.
const MAX_TAIL: usize = 8 << 10;
/// Maximum number of steps with a bar.
const MAX_STEPS: usize = 40;

/// The template's data of a runner.
#[derive(Debug, Serialize)]
pub(super) struct RunnerView<'a> {
    number: u32,
    kind: &'a str,
    reason: &'a str,
    /// Its progress, if it never was ready.
    unready: String,
    ready_after: Option<String>,
    guests: Option<GuestsView<'a>>,
    l1: Option<L1View<'a>>,
    cloud: Option<CloudView<'a>>,
    steps: Vec<StepView<'a>>,
    lost: Option<LossView<'a>>,
}

/// How its guests run.
#[derive(Debug, Serialize)]
struct GuestsView<'a> {
    accelerator: &'a str,
    accelerator_reason: &'a str,
    qemu: &'a str,
    kernel: &'a str,
    limits: String,
    memory: String,
    cpus: String,
    depth: String,
}

/// The virtual machine it is.
#[derive(Debug, Serialize)]
struct L1View<'a> {
    image: &'a str,
    digest: String,
    digest_short: String,
    accelerator: &'a str,
    nesting: &'a str,
    machine: &'a str,
    qemu: &'a str,
    host_kernel: &'a str,
    memory: String,
    cpus: String,
}

/// The machine that was created for it.
#[derive(Debug, Serialize)]
struct CloudView<'a> {
    provider: &'a str,
    project: &'a str,
    zone: &'a str,
    machine_type: &'a str,
    spot: bool,
    name: &'a str,
    image: &'a str,
    cpu_platform: Option<&'a str>,
    limit: Option<String>,
    held: String,
    /// It is not known to be deleted.
    left: bool,
    first_guest: Option<String>,
    cost: Option<String>,
}

#[derive(Debug, Serialize)]
struct StepView<'a> {
    name: &'a str,
    duration: String,
    /// Start and length of its bar, in per cent of all steps.
    left: f64,
    width: f64,
}

#[derive(Debug, Serialize)]
struct LossView<'a> {
    at: String,
    reason: &'a str,
    tail: String,
    help: Option<&'a str>,
}

impl<'a> RunnerView<'a> {
    pub(super) fn new(runner: &'a RunnerRun) -> Self {
        let facts = runner.facts.as_ref();
        Self {
            number: runner.number,
            kind: &runner.kind,
            reason: &runner.reason,
            unready: match (facts, &runner.progress) {
                (None, Some(message)) => format!("never ready; last message: {message}"),
                (None, None) => "never ready".to_owned(),
                (Some(_), _) => String::new(),
            },
            ready_after: runner.ready_after_ms.map(human::duration),
            guests: facts.map(|facts| GuestsView {
                accelerator: &facts.accelerator,
                accelerator_reason: &facts.accelerator_reason,
                qemu: &facts.qemu,
                kernel: &facts.kernel,
                limits: machine::limits(facts),
                memory: human::bytes(facts.memory),
                cpus: human::count(facts.cpus as usize, "CPU"),
                depth: machine::depth(runner, facts),
            }),
            l1: facts.and_then(|facts| facts.l1.as_ref()).map(L1View::new),
            cloud: runner.machine.as_ref().map(CloudView::new),
            steps: facts.map(|facts| steps(&facts.steps)).unwrap_or_default(),
            lost: runner.lost.as_ref().map(LossView::new),
        }
    }
}

impl<'a> L1View<'a> {
    fn new(l1: &'a L1Facts) -> Self {
        Self {
            image: &l1.image,
            digest: l1.digest.to_string(),
            digest_short: l1.digest.short(),
            accelerator: &l1.accelerator,
            nesting: &l1.nesting,
            machine: &l1.machine,
            qemu: &l1.qemu,
            host_kernel: &l1.host_kernel,
            memory: human::bytes(l1.memory),
            cpus: human::count(l1.cpus as usize, "CPU"),
        }
    }
}

impl<'a> CloudView<'a> {
    fn new(machine: &'a MachineRun) -> Self {
        let facts = &machine.facts;
        Self {
            provider: &facts.provider,
            project: &facts.project,
            zone: &facts.zone,
            machine_type: &facts.machine_type,
            spot: facts.spot,
            name: &facts.name,
            image: &facts.image,
            cpu_platform: facts.cpu_platform.as_deref(),
            limit: machine.limit(),
            held: machine.held(),
            left: machine.held_ms.is_none(),
            first_guest: machine.insert_to_first_guest_ms().map(human::duration),
            cost: machine.cost(),
        }
    }
}

impl<'a> LossView<'a> {
    fn new(lost: &'a RunnerLoss) -> Self {
        Self {
            at: lost.at.strftime("%H:%M:%S UTC").to_string(),
            reason: &lost.trouble.reason,
            tail: last_lines(&lost.trouble.evidence.join("\n"), MAX_TAIL).to_owned(),
            help: lost.trouble.help.as_deref(),
        }
    }
}

/// One after the other, with their durations.
fn steps(steps: &[crate::StepTime]) -> Vec<StepView<'_>> {
    let steps = &steps[..steps.len().min(MAX_STEPS)];
    let whole = steps.iter().map(|step| step.elapsed_ms as f64).sum::<f64>().max(1.0);
    let percent = |ms: f64| (ms / whole * 1_000.0).round() / 10.0;
    let mut before = 0.0;
    steps
        .iter()
        .map(|step| {
            let left = percent(before).min(99.0);
            before += step.elapsed_ms as f64;
            let width = percent(step.elapsed_ms as f64).min(100.0 - left);
            StepView { name: &step.step, duration: human::duration(step.elapsed_ms), left, width }
        })
        .collect()
}
