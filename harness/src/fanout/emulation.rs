//! What a cell's guest is run with: guests of another kind of CPU than this machine's are always emulated, by a QEMU of their own.

use std::time::Duration;

use matrix::{Arch, Cell};

use super::context::{Emulation, RunContext};
use crate::{guest::Accelerator, host::Qemu};

impl RunContext {
    /// `None`: it is of this machine's own kind.
    pub(super) fn emulation(&self, cell: &Cell) -> Option<&Emulation> {
        self.emulations.get(&self.image(cell)?.facts.arch)
    }

    /// It is of another kind than this machine.
    pub(super) fn is_foreign(&self, cell: &Cell) -> bool {
        self.image(cell).is_some_and(|image| image.facts.arch != Arch::here())
    }

    pub(super) fn qemu(&self, cell: &Cell) -> &Qemu {
        self.emulation(cell).map_or(&self.qemu, |emulation| &emulation.qemu)
    }

    pub(super) fn accelerator(&self, cell: &Cell) -> Accelerator {
        if self.is_foreign(cell) { Accelerator::Tcg } else { self.accelerator }
    }

    /// What the cell's time limits are multiplied by.
    pub(super) fn speed(&self, cell: &Cell) -> f64 {
        self.emulation(cell).map_or(self.speed, |emulation| emulation.speed)
    }

    /// A time limit of a cell on this machine.
    pub(super) fn scaled(&self, cell: &Cell, limit: Duration) -> Duration {
        limit.mul_f64(self.speed(cell))
    }
}
