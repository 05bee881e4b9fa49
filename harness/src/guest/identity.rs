//! What an image's seed unit is told at power-on: whose key opens it, which host key it has, what it is called.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::command::Firmware;

/// Writes the identity into files in `folder`, for their owner only, and says how QEMU is to hand them over.
pub fn identity(folder: &Path, login_public: &str, host_private: &str, name: &str) -> io::Result<Vec<Firmware>> {
    let items = [
        (images::seed::AUTHORIZED_KEYS, "authorized_keys", format!("{login_public}\n")),
        (images::seed::HOST_KEY, "ssh_host_ed25519_key", host_private.to_owned()),
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
