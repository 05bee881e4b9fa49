//! The identity of a guest, as files that it reads at power-on: authorized keys, host keys, hostname.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{disks, identity::GuestIdentity, seed, spec::Seed};

/// Names of the files with a guest's host keys: ECDSA, ed25519.
pub const HOST_KEY_FILES: [&str; 2] = ["ssh_host_ecdsa_key", "ssh_host_ed25519_key"];
const AUTHORIZED_KEYS: &str = "authorized_keys";
const HOSTNAME: &str = "hostname";

/// The firmware-configuration items (QEMU's `fw_cfg`) of the identity, each with the name of its file.
pub(super) fn items(seed: Seed) -> Vec<(&'static str, &'static str)> {
    let host_keys = images::seed::HOST_KEYS.into_iter().zip(HOST_KEY_FILES);
    let rest = [(images::seed::AUTHORIZED_KEYS, AUTHORIZED_KEYS), (images::seed::HOSTNAME, HOSTNAME)];
    match seed {
        Seed::Firmware => host_keys.chain(rest).collect(),
        Seed::CloudInit => Vec::new(),
    }
}

/// Writes the identity into files in `folder`, for their owner only. The host keys are in [`HOST_KEY_FILES`] in any case.
pub fn identity(folder: &Path, who: &GuestIdentity<'_>, seed: Option<Seed>) -> io::Result<()> {
    for (file, key) in HOST_KEY_FILES.into_iter().zip(who.host_private) {
        write_private(&folder.join(file), key)?;
    }
    match seed {
        None => Ok(()),
        Some(Seed::CloudInit) => seed::write(&disks::raw(folder, Seed::DISK).file, who),
        Some(Seed::Firmware) => {
            let authorized_keys = who.login.map(|line| format!("{line}\n")).concat();
            write_private(&folder.join(AUTHORIZED_KEYS), &authorized_keys)?;
            write_private(&folder.join(HOSTNAME), who.hostname)
        }
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(file: &Path, content: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(content.as_bytes())
}
