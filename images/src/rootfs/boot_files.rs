//! Boot files for a system without a kernel: kernel, drivers, SSH server and init. They are taken from an image that is built
//! from packages, and put into an initial RAM disk.
//!
//! Nothing of it is on the guest's disk: see `images/init/init.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::AtomicBool,
    time::Duration,
};

use matrix::{Arch, Digest};

use super::{cpio::Archive, elf};
use crate::{
    Control, PreparedImage,
    error::{Failure, PrepareErrorKind},
    tool,
};

/// The catalog image that they are taken from.
pub(crate) const IMAGE: &str = "debian-12-minimal";

/// Kernel command line of its guests; see `recipe`.
pub(super) const CMDLINE: &str = if cfg!(target_arch = "aarch64") {
    "console=tty0 console=ttyAMA0,115200 net.ifnames=0 panic=-1"
} else {
    "console=tty0 console=ttyS0,115200 net.ifnames=0 panic=-1"
};

/// The init, compiled for this machine's architecture.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// Drivers that a guest needs before it can load others.
const DRIVERS: [&str; 7] =
    ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio-rng", "qemu_fw_cfg", "ext4"];

/// The server's settings. Only root logs in, with our keys; the probes that wait for the guest open connections without sending
/// anything.
const SSHD: &str = "HostKey /etc/ssh/ssh_host_ecdsa_key
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
LogLevel FATAL
MaxStartups 100
Subsystem sftp internal-sftp
";

/// The users that the server knows; a login gets a shell in another root.
const USERS: &str = "root:x:0:0:root:/root:/enter\nsshd:x:100:65534::/run/sshd:/enter\n";

const READ_TIMEOUT: Duration = Duration::from_secs(600);
const RAW: &str = "donor.raw";
/// Maximum length of the listing of one folder, in bytes.
const MAX_LISTING_BYTES: u64 = 1 << 20;

/// The digest of everything in it beside the donor image.
pub(crate) fn digest() -> Digest {
    let mut all = INIT.to_vec();
    all.extend([CMDLINE, SSHD, USERS, &DRIVERS.join(" ")].join("\0").into_bytes());
    Digest::of(&all)
}

/// The initial RAM disk; `work` is a folder for temporary files.
pub(super) fn make(image: &PreparedImage, work: &Path, control: &Control<'_>) -> Result<Vec<u8>, Failure> {
    let raw = work.join(RAW);
    let mut convert = tool::command("qemu-img");
    convert.args(["convert", "-f", image.format.name(), "-O", "raw"]).arg(&image.disk).arg(&raw).stdout(Stdio::null());
    tool::run(convert, "qemu-img", READ_TIMEOUT, control.cancel, |_| {})?;
    let source = Source { work, cancel: control.cancel };
    let initrd = source.drivers().and_then(|drivers| Ok(archive(&drivers, &source.server(image.arch)?)))?;
    fs::remove_file(&raw).map_err(PrepareErrorKind::io("remove", &raw))?;
    Ok(initrd)
}

/// Drivers in load order: name and content.
type Drivers = Vec<(String, Vec<u8>)>;
/// Files by their path.
type Files = BTreeMap<String, Vec<u8>>;

fn archive(drivers: &Drivers, server: &Files) -> Vec<u8> {
    let mut archive = Archive::new();
    let fixed = ["bin", "drivers", "etc", "etc/ssh", "root", "run", "run/sshd", "disk", "dev", "proc", "sys", "var"];
    let parents = |path: &str| {
        let steps = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        steps.collect::<Vec<_>>()
    };
    let mut folders: BTreeSet<String> = server.keys().flat_map(|path| parents(path)).collect();
    folders.extend(fixed.map(str::to_owned));
    // Sorted: parent folders come first.
    for folder in &folders {
        archive.folder(folder, 0o755);
    }
    archive.file("init", 0o755, INIT);
    archive.file("enter", 0o755, INIT);
    // Every initial RAM disk has it: an accelerator is proved with it.
    archive.link("bin/true", "/init");
    archive.file("etc/ssh/sshd_config", 0o644, SSHD.as_bytes());
    archive.file("etc/passwd", 0o644, USERS.as_bytes());
    archive.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
    archive.link("var/run", "/run");
    for (name, content) in drivers {
        archive.file(&format!("drivers/{name}"), 0o644, content);
    }
    let order: String = drivers.iter().map(|(name, _)| format!("{name}\n")).collect();
    archive.file("drivers/order", 0o644, order.as_bytes());
    for (path, content) in server {
        archive.file(path, 0o755, content);
    }
    archive.finish()
}

/// The donor's disk.
struct Source<'a> {
    work: &'a Path,
    cancel: &'a AtomicBool,
}

impl Source<'_> {
    fn drivers(&self) -> Result<Drivers, Failure> {
        let mut list = tool::command("debugfs");
        list.args(["-R", "ls -p /usr/lib/modules", RAW]).current_dir(self.work);
        let said = tool::output(list, "debugfs", READ_TIMEOUT, MAX_LISTING_BYTES, self.cancel)?;
        let listing = String::from_utf8_lossy(&said).into_owned();
        let mut versions =
            listing.lines().filter_map(|line| line.split('/').nth(5)).filter(|name| !name.starts_with('.'));
        let Some(version) = versions.next().filter(|name| !name.is_empty()) else {
            return Err(missing("/usr/lib/modules/*"));
        };
        let folder = format!("/usr/lib/modules/{version}");
        let taken = self.take(&[format!("{folder}/modules.dep"), format!("{folder}/modules.builtin")])?;
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let order = order(&text(&taken[0]), &text(&taken[1]), &DRIVERS).map_err(|name| missing(&name))?;
        let paths: Vec<String> = order.iter().map(|path| format!("{folder}/{path}")).collect();
        let names = order.iter().map(|path| path.rsplit('/').next().unwrap_or_default().to_owned());
        Ok(names.zip(self.take(&paths)?).collect())
    }

    /// The server with all its libraries.
    fn server(&self, arch: Arch) -> Result<Files, Failure> {
        let (triplet, loader, link) = match arch {
            Arch::X86_64 => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
            Arch::Aarch64 => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1", "lib/ld-linux-aarch64.so.1"),
        };
        let program = self.take(&["/usr/sbin/sshd".to_owned()])?.remove(0);
        // All of them with their links, because the libraries themselves list their dependencies.
        // debugfs complains about owners that an ordinary user cannot set; a missing library is noticed below.
        self.debugfs(&[format!("rdump /usr/lib/{triplet} .")])?;
        let libraries = self.work.join(triplet);
        let mut files = Files::new();
        let mut wanted = vec![loader.to_owned()];
        wanted.extend(elf::needed(&program).ok_or_else(|| missing("/usr/sbin/sshd"))?);
        while let Some(name) = wanted.pop() {
            let place = format!("lib/{triplet}/{name}");
            if files.contains_key(&place) {
                continue;
            }
            let content = library(&libraries, &name).ok_or_else(|| missing(&name))?;
            wanted.extend(elf::needed(&content).ok_or_else(|| missing(&name))?);
            files.insert(place, content);
        }
        let loader = files.get(&format!("lib/{triplet}/{loader}")).cloned().unwrap_or_default();
        files.insert(link.to_owned(), loader);
        files.insert("usr/sbin/sshd".to_owned(), program);
        fs::remove_dir_all(&libraries).map_err(PrepareErrorKind::io("remove", &libraries))?;
        Ok(files)
    }

    /// The contents of these files.
    fn take(&self, paths: &[String]) -> Result<Vec<Vec<u8>>, Failure> {
        let to = |index: usize| self.work.join(format!("file-{index}"));
        let orders: Vec<String> =
            paths.iter().enumerate().map(|(index, path)| format!("dump \"{path}\" file-{index}")).collect();
        if let Some(words) = self.debugfs(&orders)? {
            return Err(missing(&words));
        }
        let read = |(index, path): (usize, &String)| match fs::read(to(index)) {
            Ok(bytes) if !bytes.is_empty() || path.ends_with("modules.builtin") => {
                fs::remove_file(to(index)).map_err(PrepareErrorKind::io("remove", &to(index)))?;
                Ok(bytes)
            }
            _ => Err(missing(path)),
        };
        paths.iter().enumerate().map(read).collect()
    }

    /// Its first complaint.
    fn debugfs(&self, orders: &[String]) -> Result<Option<String>, Failure> {
        let script = self.work.join("orders");
        fs::write(&script, orders.join("\n") + "\n").map_err(PrepareErrorKind::io("write", &script))?;
        let mut debugfs = tool::command("debugfs");
        debugfs.current_dir(self.work).args(["-f", "orders", RAW]).stdout(Stdio::null());
        let mut complaint = None;
        tool::run(debugfs, "debugfs", READ_TIMEOUT, self.cancel, |line| {
            tool::complaint("debugfs", line, &mut complaint)
        })?;
        Ok(complaint)
    }
}

fn missing(what: &str) -> Failure {
    PrepareErrorKind::Incomplete { what: format!("boot files for root file systems: `{what}` is not in {IMAGE}") }
        .into()
}

/// A library by its name; links between names of one folder are followed.
fn library(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let mut name = PathBuf::from(name);
    for _ in 0..8 {
        let path = folder.join(name.file_name()?);
        match fs::read_link(&path) {
            Ok(target) => name = target,
            Err(_) => return fs::read(path).ok(),
        }
    }
    None
}

/// Paths of these drivers and of their dependencies, each after its dependencies; the error is a missing one.
fn order(dependencies: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>, String> {
    let name =
        |path: &str| path.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default().to_owned();
    let mut order: Vec<String> = Vec::new();
    for driver in wanted {
        let line = dependencies.lines().find_map(|line| {
            let (path, needs) = line.split_once(':')?;
            (name(path) == *driver).then_some((path, needs))
        });
        let Some((path, needs)) = line else {
            if builtin.lines().any(|path| name(path) == *driver) {
                continue;
            }
            return Err((*driver).to_owned());
        };
        // modules.dep(5): the last name is loaded first.
        for path in needs.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    #[test]
    fn drivers_are_loaded_after_what_they_need_and_each_once() {
        let dependencies = "kernel/a/virtio_blk.ko: kernel/v/virtio.ko kernel/v/virtio_ring.ko\n\
                            kernel/v/virtio_ring.ko:\nkernel/v/virtio.ko: kernel/v/virtio_ring.ko\n\
                            kernel/n/virtio_net.ko: kernel/n/failover.ko kernel/v/virtio.ko kernel/v/virtio_ring.ko\n";
        let builtin = "kernel/fs/ext4/ext4.ko\n";
        let order = |wanted: &[&str]| super::order(dependencies, builtin, wanted);
        assert_eq!(
            order(&["virtio_blk", "ext4", "virtio_net"]).expect("all are there"),
            [
                "kernel/v/virtio_ring.ko",
                "kernel/v/virtio.ko",
                "kernel/a/virtio_blk.ko",
                "kernel/n/failover.ko",
                "kernel/n/virtio_net.ko"
            ]
        );
        assert_eq!(order(&["virtio"]).expect("it is there").len(), 2, "not one whose name only begins so");
        assert_eq!(order(&["floppy"]), Err("floppy".to_owned()));
    }
}
