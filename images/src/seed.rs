//! The contract between an image and its guests: how a guest gets its identity.||An image has no key and no host name. At power-on a guest gets them as QEMU firmware-configuration items (`-fw_cfg name=...,file=...`); a small unit in the image, `nestmatrix-seed.service`, ordered before sshd, copies them into place. So one image serves every run, and no image in any store has a secret.

/// Content of root's `authorized_keys`.
pub const AUTHORIZED_KEYS: &str = "opt/nestmatrix/authorized_keys";
/// The guest's SSH host keys, OpenSSH private key format. We know the public halves before the guest boots.
///
/// Two, so that a hardened server can reject one: FIPS mode refuses ed25519, other rules forbid the NIST curves.
pub const HOST_KEYS: [&str; 2] = ["opt/nestmatrix/ssh_host_ecdsa_key", "opt/nestmatrix/ssh_host_ed25519_key"];
/// The guest's host name (one label).
pub const HOSTNAME: &str = "opt/nestmatrix/hostname";
