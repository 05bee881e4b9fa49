//! What a plan may take of this machine, and whether that is enough for it. Pure.

use matrix::{ByteSize, Plan};

use super::error::RunError;
use crate::{
    fanout::{Budget, Cost},
    runner::TooLarge,
};

/// What guests may take together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) memory: ByteSize,
    pub(super) cpus: u32,
}

/// Of guests that run on this machine itself, which can spare so much memory and has so many CPUs.
pub(super) fn on_this_machine(plan: &Plan, spare: ByteSize, cpus: u32) -> Result<Limits, RunError> {
    let memory = plan.runner.memory.unwrap_or(spare);
    if memory > spare {
        return Err(RunError::Budget { asked: memory, spare });
    }
    let limits = Limits { memory, cpus: plan.runner.cpus.unwrap_or(cpus) };
    let budget = Budget::new(limits.memory, limits.cpus, usize::MAX);
    match plan.cells.iter().map(|cell| (cell, Cost::of(&cell.guest))).find(|(_, cost)| !budget.allows(*cost)) {
        Some((cell, cost)) => {
            Err(RunError::TooLarge { cell: cell.id.to_string(), needed: cost.memory(), budget: memory, spare })
        }
        None => Ok(limits),
    }
}

/// No guest's disk may cut its image short.
pub(super) fn check_disks(plan: &Plan) -> Result<(), RunError> {
    match plan.cells.iter().find(|cell| cell.guest.disk.bytes() < images::DISK_BYTES) {
        Some(cell) => {
            let least = ByteSize::from_bytes(images::DISK_BYTES);
            Err(RunError::SmallDisk { cell: cell.id.to_string(), asked: cell.guest.disk, least })
        }
        None => Ok(()),
    }
}

/// An L1 that cannot be had, as an error of the run.
pub(super) fn l1_too_large(error: TooLarge, spare: ByteSize) -> RunError {
    match error {
        TooLarge::Asked { asked } => RunError::L1Memory { asked, spare },
        TooLarge::Cell { cell, needed } => RunError::L1Cell { cell, needed, spare },
    }
}
