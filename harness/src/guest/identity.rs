//! What an image's seed unit is told at power-on: whose key opens it, which host key it has, what it is called.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::command::Firmware;

/// Name of the file with a guest's host key.
pub const HOST_KEY_FILE: &str = "ssh_host_ed25519_key";
/// What a guest may be told.
pub const FIRMWARE_ITEMS: [&str; 3] = [images::seed::AUTHORIZED_KEYS, images::seed::HOST_KEY, images::seed::HOSTNAME];

/// Writes the identity into files in `folder`, for their owner only, and says how QEMU is to hand them over.
pub fn identity(folder: &Path, login_public: &str, host_private: &str, name: &str) -> io::Result<Vec<Firmware>> {
    let items = [
        (images::seed::AUTHORIZED_KEYS, "authorized_keys", format!("{login_public}\n")),
        (images::seed::HOST_KEY, HOST_KEY_FILE, host_private.to_owned()),
        (images::seed::HOSTNAME, "hostname", name.to_owned()),
    ];
    let mut firmware = Vec::new();
    for (name, file, content) in items {
        let file = folder.join(file);
        write_private(&file, &content)?;
        firmware.push(Firmware { name, file });
    }
    Ok(firmware)
}

/// Writes a file that only its owner can read.
pub fn write_private(file: &Path, content: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(content.as_bytes())
}
