//! What a guest is told at power-on: whose key opens it, which host key it has, what it is called.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{
    command::{Disk, Firmware},
    seed,
    who::Who,
};

/// Name of the file with a guest's host key.
pub const HOST_KEY_FILE: &str = "ssh_host_ed25519_key";
/// What a guest may be told by its firmware.
pub const FIRMWARE_ITEMS: [&str; 3] = [images::seed::AUTHORIZED_KEYS, images::seed::HOST_KEY, images::seed::HOSTNAME];
/// Serial number of the disk that tells a cloud image who it is; also its file's name.
const SEED: &str = "seed";

/// How a guest is told who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// By firmware-configuration items, which images made by us read.
    Firmware,
    /// By a volume that cloud-init reads.
    CloudInit,
}

/// How QEMU is to tell a guest who it is.
#[derive(Debug, Default)]
pub struct Told {
    /// As firmware-configuration items.
    pub firmware: Vec<Firmware>,
    /// As a disk, read-only.
    pub disk: Option<Disk>,
}

/// Writes the identity into files in `folder`, for their owner only, and says how QEMU is to hand them over. The host key is in
/// [`HOST_KEY_FILE`] in any case.
pub fn identity(folder: &Path, who: &Who<'_>, seed: Seed) -> io::Result<Told> {
    let key = folder.join(HOST_KEY_FILE);
    write_private(&key, who.host_private)?;
    if seed == Seed::CloudInit {
        let file = folder.join(format!("{SEED}.raw"));
        seed::write(&file, who)?;
        let disk = Disk { file, format: images::DiskFormat::Raw, serial: SEED.to_owned(), writable: false };
        return Ok(Told { firmware: Vec::new(), disk: Some(disk) });
    }
    let mut firmware = vec![Firmware { name: images::seed::HOST_KEY, file: key }];
    let items = [
        (images::seed::AUTHORIZED_KEYS, "authorized_keys", format!("{}\n", who.login)),
        (images::seed::HOSTNAME, "hostname", who.hostname.to_owned()),
    ];
    for (name, file, content) in items {
        let file = folder.join(file);
        write_private(&file, &content)?;
        firmware.push(Firmware { name, file });
    }
    Ok(Told { firmware, disk: None })
}

/// Writes a file that only its owner can read.
pub fn write_private(file: &Path, content: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(content.as_bytes())
}
