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

/// Names of the files with a guest's host keys: ECDSA, ed25519.
pub const HOST_KEY_FILES: [&str; 2] = ["ssh_host_ecdsa_key", "ssh_host_ed25519_key"];
/// What a guest may be told by its firmware.
pub const FIRMWARE_ITEMS: [&str; 4] =
    [images::seed::AUTHORIZED_KEYS, images::seed::HOST_KEYS[0], images::seed::HOST_KEYS[1], images::seed::HOSTNAME];
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

/// Writes the identity into files in `folder`, for their owner only, and says how QEMU is to hand them over. The host keys are in
/// [`HOST_KEY_FILES`] in any case.
pub fn identity(folder: &Path, who: &Who<'_>, seed: Seed) -> io::Result<Told> {
    let host_keys = HOST_KEY_FILES.map(|name| folder.join(name));
    for (file, key) in host_keys.iter().zip(who.host_private) {
        write_private(file, key)?;
    }
    if seed == Seed::CloudInit {
        let file = folder.join(format!("{SEED}.raw"));
        seed::write(&file, who)?;
        let disk = Disk { file, format: images::DiskFormat::Raw, serial: SEED.to_owned(), writable: false };
        return Ok(Told { firmware: Vec::new(), disk: Some(disk) });
    }
    let host_keys = images::seed::HOST_KEYS.into_iter().zip(host_keys);
    let mut firmware: Vec<_> = host_keys.map(|(name, file)| Firmware { name, file }).collect();
    let items = [
        (images::seed::AUTHORIZED_KEYS, "authorized_keys", who.login.map(|line| format!("{line}\n")).concat()),
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
