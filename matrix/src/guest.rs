//! The guest tables of the matrix file: the guest of a cell, from the narrowest table that has a key.

use std::ops::RangeInclusive;

use crate::{
    ByteSize, DataDisk, Firmware, Guest, Network, disks,
    error::Mistakes,
    file::{GuestTable, RunnerTable},
    located::At,
    quantity::{DISK_RANGE, MEMORY_RANGE, count, size_at},
};

const NIC_RANGE: RangeInclusive<u32> = 1..=8;
const GUEST_CPU_RANGE: RangeInclusive<u32> = 1..=64;

/// A guest table; keys that it lacks come from a wider one.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuestSize {
    cpus: Option<u32>,
    memory: Option<ByteSize>,
    disk: Option<ByteSize>,
    disks: Option<Vec<DataDisk>>,
    nics: Option<u32>,
    network: Option<Network>,
    firmware: Option<At<Firmware>>,
    tpm: Option<bool>,
}

impl GuestSize {
    /// Checks a table, also against the runner's budget: a guest that does not fit would wait forever.
    pub(crate) fn check(table: &GuestTable, runner: &RunnerTable, mistakes: &mut Mistakes) -> Self {
        let size = Self {
            cpus: table.cpus.as_ref().and_then(|cpus| count(cpus, GUEST_CPU_RANGE, mistakes)),
            memory: table.memory.as_ref().and_then(|memory| size_at(memory, MEMORY_RANGE, mistakes)),
            disk: table.disk.as_ref().and_then(|disk| size_at(disk, DISK_RANGE, mistakes)),
            disks: table.disks.as_ref().map(|disks| disks::check(disks, mistakes)),
            nics: table.nics.as_ref().and_then(|nics| count(nics, NIC_RANGE, mistakes)),
            network: table.network,
            firmware: table.firmware.clone(),
            tpm: table.tpm,
        };
        if let (Some(at), Some(memory), Some(budget)) = (&table.memory, size.memory, &runner.memory)
            && budget.get().0.parse::<ByteSize>().is_ok_and(|budget| memory > budget)
        {
            let problem = mistakes.at(at.span(), "the guest has more memory than the runner", "the guest's");
            mistakes.push(
                problem.with_label(budget.span(), "the runner's").with_help("lower the guest's or raise the runner's"),
            );
        }
        if let (Some(at), Some(cpus), Some(budget)) = (&table.cpus, size.cpus, &runner.cpus)
            && i64::from(cpus) > *budget.get()
        {
            let problem = mistakes.at(at.span(), "the guest has more CPUs than the runner", "the guest's");
            mistakes.push(
                problem.with_label(budget.span(), "the runner's").with_help("lower the guest's or raise the runner's"),
            );
        }
        size
    }

    /// True if it does not set the memory.
    pub(crate) fn leaves_memory_open(&self) -> bool {
        self.memory.is_none()
    }

    /// The guest described by these tables, the narrowest given first.
    pub(crate) fn resolve(narrowest_first: [&Self; 3]) -> Guest {
        let tables = || narrowest_first.into_iter();
        let usual = Guest::default();
        Guest {
            cpus: tables().find_map(|table| table.cpus).unwrap_or(usual.cpus),
            memory: tables().find_map(|table| table.memory).unwrap_or(usual.memory),
            disk: tables().find_map(|table| table.disk).unwrap_or(usual.disk),
            disks: tables().find_map(|table| table.disks.clone()).unwrap_or(usual.disks),
            nics: tables().find_map(|table| table.nics).unwrap_or(usual.nics),
            network: tables().find_map(|table| table.network).unwrap_or(usual.network),
            firmware: Self::firmware(narrowest_first).map(|at| *at.get()),
            tpm: tables().find_map(|table| table.tpm).unwrap_or(usual.tpm),
        }
    }

    /// The place of that guest's firmware in the file.
    pub(crate) fn firmware(narrowest_first: [&Self; 3]) -> Option<&At<Firmware>> {
        narrowest_first.into_iter().find_map(|table| table.firmware.as_ref())
    }
}
