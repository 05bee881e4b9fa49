//! What makes a guest of the project's own image one of Compute Engine's: Google's guest agent, and a disk with what belongs to it.
//!
//! The image is started by its kernel, so units come in by the kernel's command line as system credentials (systemd.system-credentials(7),
//! `systemd.extra-unit.*`), and what they start lies on a disk of its own. The agent is the one that Debian packages.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use base64::Engine as _;
use matrix::Digest;

/// What Google's images have besides, from this machine's own Debian.
const PACKAGES: [&str; 2] = ["google-guest-agent", "sudo"];
/// What of them is run from the disk.
const PROGRAMS: [&str; 2] = ["usr/bin/google_guest_agent", "usr/bin/google_metadata_script_runner"];
/// What of them is copied into the system.
const FILES: [&str; 5] =
    ["etc/default/instance_configs.cfg", "usr/bin/sudo", "usr/libexec/sudo", "etc/pam.d", "etc/sudoers"];
/// Beside what belongs to them.
const SCRIPTS: [(&str, &str); 2] =
    [("setup.sh", include_str!("guest/setup.sh")), ("power-button.sh", include_str!("guest/power-button.sh"))];
const UNITS: [(&str, &str); 4] = [
    ("gce", include_str!("guest/gce.service")),
    ("google-guest-agent", include_str!("guest/google-guest-agent.service")),
    ("google-startup-scripts", include_str!("guest/google-startup-scripts.service")),
    ("power-button", include_str!("guest/power-button.service")),
];
/// Longest command line that a kernel for x86 takes (`COMMAND_LINE_SIZE`), with its final zero.
const LONGEST: usize = 2048;
/// The disk's serial number.
pub(super) const SERIAL: &str = "gce";

/// The program that QEMU starts for each connection to the metadata server.
pub(super) const RELAY: &str = include_str!("guest/relay.sh");

/// What is added to the kernel's command line. `disks`: serial numbers and what Compute Engine calls them.
pub(super) fn kernel_words(image: &str, hostname: &str, disks: &[(String, String)]) -> String {
    // Without it, a kernel whose emulated CPU has to wait for a real one panics (see `guest/command.rs`).
    let mut words = format!("no_timer_check {image} systemd.hostname={hostname}");
    for (name, unit) in UNITS {
        let unit = base64::prelude::BASE64_STANDARD.encode(unit);
        words += &format!(
            " systemd.wants={name}.service systemd.set_credential_binary=systemd.extra-unit.{name}.service:{unit}"
        );
    }
    for (serial, name) in disks {
        words += &format!(" gce.disk={serial}:{name}");
    }
    assert!(words.len() < LONGEST, "{} bytes are too much for a kernel's command line: {words}", words.len());
    words
}

/// The disk, which is kept in the store. Made anew if what goes on it has changed; packages are downloaded once.
pub(super) fn disk(store: &Path) -> PathBuf {
    let folder = store.join("google");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let recipe = format!("{}{SCRIPTS:?}", include_str!("guest.rs"));
    let disk = folder.join(format!("{}.ext4", &Digest::of(recipe.as_bytes()).to_string()[7..23]));
    if disk.exists() {
        return disk;
    }
    let work = tempfile::tempdir_in(&folder).unwrap();
    let (all, whole) = (work.path().join("all"), work.path().join("disk"));
    for package in PACKAGES {
        run(Command::new("dpkg-deb").arg("-x").arg(package_file(&folder, package)).arg(&all));
    }
    let programs = PROGRAMS.map(|file| (file, whole.join(file.trim_start_matches("usr/bin/"))));
    let files = FILES.map(|file| (file, whole.join("tree").join(file)));
    for (file, to) in programs.into_iter().chain(files) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp").arg("-r").arg(all.join(file)).arg(to));
    }
    // RSA takes an emulated guest half a minute, and the image's SSH server does not use it. The network is set up already.
    let settings = whole.join("tree/etc/default/instance_configs.cfg");
    let text = fs::read_to_string(&settings).unwrap();
    let text = text.replace("ecdsa,ed25519,rsa", "ecdsa,ed25519").replace("\nsetup = true", "\nsetup = false");
    fs::write(settings, text).unwrap();
    for (name, text) in SCRIPTS {
        fs::write(whole.join(name), text).unwrap();
    }
    let new = work.path().join("new");
    run(Command::new("/usr/sbin/mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&whole).arg(&new).arg("64M"));
    fs::rename(new, &disk).unwrap();
    disk
}

fn package_file(folder: &Path, package: &str) -> PathBuf {
    let known = || {
        let files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        let prefix = format!("{package}_");
        files.into_iter().find(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&prefix) && name.ends_with(".deb")
        })
    };
    known().unwrap_or_else(|| {
        run(Command::new("apt-get")
            .args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(folder));
        known().unwrap_or_else(|| panic!("apt-get downloaded no {package}"))
    })
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
