//! The virtual machine of a cell, the same whether it is booted or forked. Pure.

use matrix::Cell;

use super::{image::BootImage, station::Station};
use crate::{
    guest::{Launch, MachineSpec},
    host::NoUefi,
};

/// The machine.
pub(super) fn spec(station: &Station, cell: &Cell, image: &BootImage, terse: bool) -> MachineSpec {
    let words = terse.then_some("quiet").into_iter();
    let words = words.chain(station.kernel_args(cell).iter().map(String::as_str));
    MachineSpec {
        cpus: cell.guest.cpus,
        memory: cell.guest.memory,
        screen: !terse,
        ..image.machine(station.qemu(cell), station.accelerator(cell), cell.guest.disk, words)
    }
}

/// A launch of it that has neither disks nor an identity yet.
pub(super) fn launch(station: &Station, cell: &Cell, image: &BootImage, terse: bool) -> Result<Launch, NoUefi> {
    let spec = spec(station, cell, image, terse);
    Ok(Launch {
        qemu: station.qemu(cell).system.clone(),
        name: cell.id.to_string(),
        boot: image.boot_files(&spec)?,
        network: cell.guest.network,
        ..Launch::new(spec)
    })
}

/// A host name from an image's name: one label, letters, digits and hyphens, at most 63.
pub(super) fn hostname(image: &str) -> String {
    let mut label: String = image.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    label = label.trim_matches('-').to_owned();
    if label.is_empty() { "guest".into() } else { label }
}
