//! Folds the events of machines that are created for runners.

use super::{MAX_ELAPSED_MS, clock::EventTime};
use crate::{
    CloudFacts, EventKind, MachineRun, clean,
    run::{Run, RunnerRun},
};

/// No machine costs more dollars per hour.
const MAX_USD_PER_HOUR: f64 = 1e6;

impl RunnerRun {
    /// Its machine exists. It is kept even where it contradicts what is known: it costs money.
    pub(super) fn create_machine(&mut self, now: EventTime, facts: &CloudFacts) -> Result<(), String> {
        let number = self.number;
        if self.machine.is_some() {
            return Err(format!("a second machine was created for runner {number}"));
        }
        self.machine = Some(MachineRun {
            facts: clean_machine(facts),
            created: now.at,
            created_ms: now.ms,
            held_ms: None,
            first_guest_after_ms: None,
        });
        if self.lost.is_some() {
            return Err(format!("the machine of runner {number} was created after the runner was lost"));
        }
        if self.facts.is_some() {
            return Err(format!("the machine of runner {number} was created after the runner was ready"));
        }
        Ok(())
    }

    /// Its machine is gone.
    pub(super) fn delete_machine(&mut self, held_ms: u64) -> Result<(), String> {
        let number = self.number;
        let Some(machine) = &mut self.machine else {
            return Err(format!("the machine of runner {number} was deleted, but none was created"));
        };
        if machine.held_ms.is_some() {
            return Err(format!("the machine of runner {number} was deleted twice"));
        }
        machine.held_ms = Some(held_ms.min(MAX_ELAPSED_MS));
        Ok(())
    }
}

impl Run {
    /// The first guest on a machine says how long that took.
    pub(super) fn note_guest(&mut self, now: EventTime, event: &EventKind) {
        let EventKind::GuestStarted { guest, .. } = event else { return };
        let runner = self.runners.iter_mut().find(|runner| runner.number == guest.runner);
        if let Some(machine) = runner.and_then(|runner| runner.machine.as_mut()) {
            machine.first_guest_after_ms.get_or_insert(now.ms.saturating_sub(machine.created_ms));
        }
    }
}

fn clean_machine(facts: &CloudFacts) -> CloudFacts {
    let is_price = |usd: &f64| usd.is_finite() && (0.0..MAX_USD_PER_HOUR).contains(usd);
    CloudFacts {
        provider: clean::line(&facts.provider),
        project: clean::line(&facts.project),
        zone: clean::line(&facts.zone),
        machine_type: clean::line(&facts.machine_type),
        name: clean::line(&facts.name),
        image: clean::line(&facts.image),
        cpu_platform: facts.cpu_platform.as_deref().map(clean::line),
        spot: facts.spot,
        max_seconds: facts.max_seconds.min(MAX_ELAPSED_MS / 1_000),
        usd_per_hour: facts.usd_per_hour.filter(is_price),
        creating_ms: facts.creating_ms.min(MAX_ELAPSED_MS),
    }
}
