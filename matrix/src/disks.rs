//! `guest.disks`: empty disks besides the root disk. Checks them.

use std::collections::HashMap;

use crate::{
    ByteSize, DataDisk, DiskInterface,
    error::Mistakes,
    located::At,
    quantity::{DATA_DISK_RANGE, size},
    scalar::DiskEntry,
};

/// Maximum number of disks.
pub(crate) const MAX_DISKS: usize = 16;
/// Maximum length of a serial number of a virtio disk (virtio specification 1.2: 5.2.6).
const MAX_SERIAL_LEN: usize = 20;
/// Serial numbers that nestmatrix uses for its own disks.
const TAKEN: [&str; 2] = ["root", "seed"];

/// The disks that a guest table asks for.
pub(crate) fn check(list: &At<Vec<At<DiskEntry>>>, mistakes: &mut Mistakes) -> Vec<DataDisk> {
    if list.get().len() > MAX_DISKS {
        let message = format!("{} disks, the limit is {MAX_DISKS}", list.get().len());
        let problem = mistakes.at(list.span(), message, "too many");
        mistakes.push(problem.with_help("partition one large disk in the guest instead"));
        return Vec::new();
    }
    let mut disks = Vec::new();
    let mut serials = HashMap::new();
    for (index, at) in list.get().iter().enumerate() {
        let (bytes, table) = match at.get() {
            DiskEntry::Size(text) => (size(text, at.span(), DATA_DISK_RANGE, mistakes), None),
            DiskEntry::Table(table) => {
                (size(table.size.get(), table.size.span(), DATA_DISK_RANGE, mistakes), Some(table))
            }
        };
        let own = format!("disk-{}", index + 1);
        let named = table.and_then(|table| table.serial.as_ref());
        let serial = named.map_or(own, |serial| serial.text().to_owned());
        let span = named.map_or_else(|| at.span(), At::span);
        if let Some(named) = named {
            check_serial(named, mistakes);
        }
        if let Some(first) = serials.insert(serial.clone(), span.clone()) {
            let message = format!("two disks of a guest have the serial number `{serial}`");
            let problem = mistakes.at(span, message, "the second").with_label(first, "the first");
            mistakes.push(problem.with_help("name one of them differently: `{ size = \"1GiB\", serial = \"data\" }`"));
        }
        let interface = table.map_or(DiskInterface::Virtio, |table| table.interface);
        disks.push(DataDisk { serial, size: bytes.unwrap_or(ByteSize::from_mib(1)), interface });
    }
    disks
}

fn check_serial(at: &At<String>, mistakes: &mut Mistakes) {
    let serial = at.text();
    let plain = serial.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if serial.is_empty() || serial.len() > MAX_SERIAL_LEN || !plain {
        let problem = mistakes.at(at.span(), format!("{serial:?} is not a serial number"), "not a serial number");
        let help = format!("write 1 to {MAX_SERIAL_LEN} letters, digits, `-` and `_`, such as `data`");
        mistakes.push(problem.with_help(help));
    } else if TAKEN.contains(&serial) {
        let message = format!("the serial number `{serial}` is reserved for a disk of nestmatrix");
        let problem = mistakes.at(at.span(), message, "reserved");
        mistakes.push(problem.with_help("choose another, such as `data`"));
    }
}
