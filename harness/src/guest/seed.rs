//! The volume that a cloud image looks for at its first boot (cloud-init's NoCloud data source), with a guest's identity on it.
//!
//! A FAT volume labelled `CIDATA` with two files (cloud-init docs: reference/datasources/nocloud). The host keys go along, so that they are
//! known to us before the guest has booted and need never be trusted on first use.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use matrix::Digest;
use serde_json::json;

use super::identity::GuestIdentity;

/// Size of the volume: FAT needs some of it, the files a few KiB.
const BYTES: u64 = 1 << 20;
/// An ordinary user in every cloud image, for tests that must not run as root.
const USER: &str = "nestmatrix";

/// Prepares SSH and keeps the system from changing under a test; run by cloud-init before anything else.
const EARLY: &str = include_str!("seed-early.sh");

/// Writes the volume.
pub(super) fn write(file: &Path, who: &GuestIdentity<'_>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut volume = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(file)?;
    volume.set_len(BYTES)?;
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     ");
    fatfs::format_volume(&mut volume, options)?;
    {
        let fat = fatfs::FileSystem::new(&mut volume, fatfs::FsOptions::new())?;
        let root = fat.root_dir();
        for (name, text) in [("meta-data", meta_data(who)), ("user-data", user_data(who))] {
            root.create_file(name)?.write_all(text.as_bytes())?;
        }
    }
    volume.sync_all()
}

/// What decides the system that comes of a first boot with this seed, besides who the guest is.
pub fn recipe() -> Digest {
    let nobody = GuestIdentity { login: [""; 2], host_private: [""; 2], host_public: [""; 2], hostname: "" };
    Digest::of(user_data(&nobody).as_bytes())
}

/// Who the guest is. An instance that is not known is one that boots for the first time.
fn meta_data(who: &GuestIdentity<'_>) -> String {
    json!({ "instance-id": format!("nestmatrix-{:032x}", rand::random::<u128>()), "local-hostname": who.hostname })
        .to_string()
}

/// What is done at the first boot. JSON is YAML.
fn user_data(who: &GuestIdentity<'_>) -> String {
    let user = json!({
        "name": USER,
        "gecos": USER,
        "shell": "/bin/sh",
        "lock_passwd": true,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": who.login,
    });
    let config = json!({
        "preserve_hostname": false,
        "hostname": who.hostname,
        "bootcmd": [["sh", "-c", EARLY]],
        "disable_root": false,
        "ssh_pwauth": false,
        "users": ["default", user],
        // Of the image's own user, and of root.
        "ssh_authorized_keys": who.login,
        "ssh_deletekeys": true,
        "ssh_keys": {
            "ecdsa_private": who.host_private[0],
            "ecdsa_public": who.host_public[0],
            "ed25519_private": who.host_private[1],
            "ed25519_public": who.host_public[1],
        },
        "ssh": { "emit_keys_to_console": false },
        "no_ssh_fingerprints": true,
        "package_update": false,
        "package_upgrade": false,
    });
    format!("#cloud-config\n{config:#}\n")
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_volume_is_what_cloud_init_looks_for_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        let who = GuestIdentity {
            login: ["ecdsa-sha2-nistp256 LOGIN", "ssh-ed25519 LOGIN"],
            host_private: ["ECDSA\n", "ED25519\n"],
            host_public: ["ecdsa-sha2-nistp256 HOST", "ssh-ed25519 HOST"],
            hostname: "box",
        };
        write(&path, &who).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let volume =
            fatfs::FileSystem::new(File::open(&path).unwrap(), fatfs::FsOptions::new().update_accessed_date(false))
                .unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
        let read = |name: &str| {
            let mut text = String::new();
            volume.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let meta: serde_json::Value = serde_json::from_str(&read("meta-data")).unwrap();
        assert_eq!(meta["local-hostname"], "box");
        let text = read("user-data");
        let config: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        let keys = &config["ssh_keys"];
        assert_eq!((&keys["ecdsa_private"], &keys["ed25519_private"]), (&json!("ECDSA\n"), &json!("ED25519\n")));
        assert_eq!(
            (&keys["ecdsa_public"], &keys["ed25519_public"]),
            (&json!(who.host_public[0]), &json!(who.host_public[1]))
        );
        assert_eq!(config["users"][1]["ssh_authorized_keys"], json!(who.login));
        assert_eq!(config["ssh_authorized_keys"], json!(who.login));
        assert_eq!(config["disable_root"], false);
    }

    #[test]
    fn no_two_guests_are_one_instance() {
        let who = GuestIdentity { login: ["l"; 2], host_private: ["p"; 2], host_public: ["h"; 2], hostname: "box" };
        assert_ne!(meta_data(&who), meta_data(&who));
    }
}
