//! The virtual machine of a cell, the same whether it is booted or forked. Pure.

use images::Start;
use matrix::{Cell, Guest};

use super::{context::RunContext, image::BootImage, outbound};
use crate::{
    guest::{Disk, Launch, MachineSpec},
    host::NoPart,
};

/// The machine.
pub(super) fn spec(context: &RunContext, cell: &Cell, image: &BootImage, terse: bool) -> MachineSpec {
    let words = terse.then_some("quiet").into_iter();
    let words = words.chain(context.kernel_args(cell).iter().map(String::as_str));
    let Guest { cpus, memory, disk, disks, nics, network: _, firmware, tpm } = &cell.guest;
    let mut spec = MachineSpec {
        cpus: *cpus,
        memory: *memory,
        nics: *nics,
        tpm: *tpm,
        screen: !terse,
        ..image.machine(context.qemu(cell), context.accelerator(cell), *disk, words)
    };
    let more = disks.iter().map(|disk| Disk { interface: disk.interface, ..Disk::empty(&disk.serial, disk.size) });
    // After the root disk, so that the root disk stays the first one of the guest.
    spec.disks.splice(1..1, more);
    if let (Start::Firmware(usual), Some(asked)) = (&mut spec.start, firmware) {
        *usual = *asked;
    }
    spec
}

/// A launch of it that has neither disks nor an identity yet.
pub(super) fn launch(context: &RunContext, cell: &Cell, image: &BootImage, terse: bool) -> Result<Launch, NoPart> {
    let launch = image.launch(spec(context, cell, image, terse), context.qemu(cell))?;
    let egress = outbound::is_wanted(cell);
    Ok(Launch { name: cell.id.to_string(), network: cell.guest.network, egress, ..launch })
}

/// A host name from an image's name: one label, letters, digits and hyphens, at most 63.
pub(super) fn hostname(image: &str) -> String {
    let mut label: String = image.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    label = label.trim_matches('-').to_owned();
    if label.is_empty() { "guest".into() } else { label }
}
