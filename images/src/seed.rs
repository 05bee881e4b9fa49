//! The contract between an image and whoever boots it: how a guest gets its identity.
//!
//! An image holds no key and no host name. At power-on it is given them as QEMU firmware-configuration items
//! (`-fw_cfg name=...,file=...`); a small unit in the image, `nestmatrix-seed.service`, ordered before sshd, copies them into place.
//! So one image serves every run, and no image in any store holds a secret.

/// Content of root's `authorized_keys`.
pub const AUTHORIZED_KEYS: &str = "opt/nestmatrix/authorized_keys";
/// The guest's SSH host key, OpenSSH private key format: of any kind, whatever the name says (servers go by the content). The public
/// half is known to us before the guest boots.
pub const HOST_KEY: &str = "opt/nestmatrix/ssh_host_ed25519_key";
/// The guest's host name (one label).
pub const HOSTNAME: &str = "opt/nestmatrix/hostname";
