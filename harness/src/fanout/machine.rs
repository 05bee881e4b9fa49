//! The virtual machine of a cell, the same whether it is booted or forked. Pure.

use matrix::Cell;

use super::station::{BootImage, Station};
use crate::guest::{Command, Cpu, Port, Ram};

/// The machine without its disk and its identity.
pub(super) fn command(station: &Station, cell: &Cell, image: &BootImage, terse: bool) -> Command {
    let words = terse.then_some("quiet").into_iter();
    let words = words.chain(station.kernel_args(cell).iter().map(String::as_str));
    Command {
        qemu: station.qemu(cell).system.clone(),
        name: cell.id.to_string(),
        arch: image.arch,
        machine: station.qemu(cell).machine(),
        accelerator: station.accelerator(cell),
        cpus: cell.guest.cpus,
        cpu: Cpu::Fullest,
        memory_mib: cell.guest.memory.mib(),
        ram: Ram::Anonymous,
        disk: None,
        more_disks: Vec::new(),
        loader: image.loader.clone().with_words(words),
        screen: !terse,
        firmware: Vec::new(),
        network: Some(cell.guest.network),
        // What a fork is woken over: a booted guest has it, too, so that both are the same machine.
        port: Port::Idle,
        qmp_fd: -1,
        port_fd: -1,
    }
}

/// A host name from an image's name: one label, letters, digits and hyphens, at most 63.
pub(super) fn hostname(image: &str) -> String {
    let mut label: String = image.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    label = label.trim_matches('-').to_owned();
    if label.is_empty() { "guest".into() } else { label }
}
