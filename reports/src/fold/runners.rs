//! Folds the events of runners.

use super::{MAX_ELAPSED_MS, MAX_LIST, clean_trouble, clock::EventTime};
use crate::{
    EventKind, L1Facts, RunnerFacts, StepTime, clean,
    run::{Run, RunnerLoss, RunnerRun},
};

impl Run {
    /// Folds an event about a runner; the error is its contradiction to what is known.
    pub(super) fn fold_runner(&mut self, now: EventTime, event: &EventKind) -> Result<(), String> {
        match event {
            EventKind::RunnerStarted { runner, kind, reason } => self.start_runner(now, *runner, kind, reason),
            EventKind::RunnerProgress { runner, message } => {
                self.known_runner(*runner)?.progress = Some(clean::line(message));
                Ok(())
            }
            EventKind::MachineCreated { runner, machine } => self.known_runner(*runner)?.create_machine(now, machine),
            EventKind::MachineDeleted { runner, held_ms } => self.known_runner(*runner)?.delete_machine(*held_ms),
            EventKind::RunnerReady { runner: facts } => {
                let runner = self.known_runner(facts.number)?;
                if runner.lost.is_some() {
                    return Err(format!("runner {} is ready after it was lost", facts.number));
                }
                if runner.facts.is_some() {
                    return Err(format!("runner {} is ready twice", facts.number));
                }
                runner.ready = Some(now.at);
                runner.ready_after_ms = Some(now.ms.saturating_sub(runner.began));
                runner.facts = Some(clean_facts(facts));
                Ok(())
            }
            EventKind::RunnerLost { runner: number, trouble } => {
                let runner = self.known_runner(*number)?;
                if runner.lost.is_some() {
                    return Err(format!("runner {number} was lost twice"));
                }
                let trouble = clean_trouble(trouble);
                runner.lost = Some(RunnerLoss { at: now.at, clock_ms: now.ms, trouble });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A guest must be on a ready runner.
    pub(super) fn check_runner(&self, event: &EventKind) -> Result<(), String> {
        let EventKind::GuestStarted { guest, .. } = event else { return Ok(()) };
        match self.runner(guest.runner) {
            Some(runner) if runner.is_ready() => Ok(()),
            _ => Err(format!("a guest started on runner {}, which is not ready", guest.runner)),
        }
    }

    fn start_runner(&mut self, now: EventTime, number: u32, kind: &str, reason: &str) -> Result<(), String> {
        if self.runner(number).is_some() {
            return Err(format!("runner {number} started twice"));
        }
        if self.runners.len() >= MAX_LIST {
            return Err("too many runners".to_owned());
        }
        let last = self.runners.last().map_or(0, |runner| runner.number);
        self.runners.push(RunnerRun {
            number,
            kind: clean::line(kind),
            reason: clean::line(reason),
            started: now.at,
            began: now.ms,
            progress: None,
            machine: None,
            ready: None,
            ready_after_ms: None,
            facts: None,
            lost: None,
        });
        let in_order = last.checked_add(1) == Some(number);
        if in_order { Ok(()) } else { Err(format!("runner {number} started after runner {last}")) }
    }

    fn known_runner(&mut self, number: u32) -> Result<&mut RunnerRun, String> {
        let known = self.runners.iter_mut().find(|runner| runner.number == number);
        known.ok_or_else(|| format!("an event about runner {number}, which has not started"))
    }
}

fn clean_facts(facts: &RunnerFacts) -> RunnerFacts {
    let step =
        |step: &StepTime| StepTime { step: clean::line(&step.step), elapsed_ms: step.elapsed_ms.min(MAX_ELAPSED_MS) };
    RunnerFacts {
        number: facts.number,
        kind: clean::line(&facts.kind),
        reason: clean::line(&facts.reason),
        accelerator: clean::line(&facts.accelerator),
        accelerator_reason: clean::line(&facts.accelerator_reason),
        qemu: clean::line(&facts.qemu),
        kernel: clean::line(&facts.kernel),
        speed: facts.speed,
        memory: facts.memory,
        cpus: facts.cpus,
        depth: facts.depth,
        l1: facts.l1.as_ref().map(clean_l1),
        steps: facts.steps.iter().take(MAX_LIST).map(step).collect(),
    }
}

fn clean_l1(l1: &L1Facts) -> L1Facts {
    L1Facts {
        image: clean::line(&l1.image),
        digest: l1.digest,
        accelerator: clean::line(&l1.accelerator),
        nesting: clean::line(&l1.nesting),
        machine: clean::line(&l1.machine),
        qemu: clean::line(&l1.qemu),
        host_kernel: clean::line(&l1.host_kernel),
        memory: l1.memory,
        cpus: l1.cpus,
        pid: l1.pid,
    }
}
