//! QEMU's argument list as a pure function.
//!
//! Everything that decides what a guest is stands here, so that a change of it is a change of one snapshot.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use matrix::Network;
use serde::{Deserialize, Serialize};

/// How the guest's CPU is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// Hardware virtualization.
    Kvm,
    /// Software emulation.
    Tcg,
}

impl Accelerator {
    /// QEMU's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The fullest CPU the accelerator can give: releases with a raised baseline (x86-64-v3) must boot as well.
    const fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A file handed to the guest as a firmware-configuration item.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// Item name, `opt/...`.
    pub name: &'static str,
    /// The file with its content.
    pub file: PathBuf,
}

/// One guest, complete.
#[derive(Clone, Debug)]
pub struct Command {
    /// The emulator.
    pub qemu: PathBuf,
    /// Shown by process listings; no commas.
    pub name: String,
    /// Versioned machine type.
    pub machine: String,
    /// How its CPU is run.
    pub accelerator: Accelerator,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Its root disk (qcow2), written to; `None`: no disk.
    pub disk: Option<PathBuf>,
    /// Kernel to boot.
    pub kernel: PathBuf,
    /// Initial file system.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
    /// Firmware-configuration items.
    pub firmware: Vec<Firmware>,
    /// What it may reach; `None`: no network card at all.
    pub network: Option<Network>,
    /// Number of the inherited, connected socket that QMP is spoken on.
    pub qmp_fd: i32,
}

impl Command {
    /// The arguments, the program's own name excluded.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = Args(Vec::new());
        args.flag("-nodefaults").flag("-no-user-config");
        args.pair("-name", format!("guest={}", self.name));
        args.pair("-machine", format!("{},accel={},hpet=off,vmport=off", self.machine, self.accelerator));
        args.pair("-cpu", self.accelerator.cpu());
        args.pair("-smp", self.cpus.to_string());
        args.pair("-m", self.memory_mib.to_string());
        args.pair("-kernel", &self.kernel);
        args.pair("-initrd", &self.initrd);
        args.pair("-append", &self.cmdline);
        if let Some(disk) = &self.disk {
            // cache=unsafe: the overlay dies with the guest, so the host need never wait for its own disk.
            // werror=stop: a full host disk pauses the guest with an event instead of looking like the package's fault.
            let options = ",format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop";
            args.pair("-drive", joined("if=none,id=root,file=", disk, options));
            args.pair("-device", "virtio-blk-pci,drive=root,serial=root");
        }
        match self.network {
            Some(network) => {
                let restrict = if network == Network::Isolated { "on" } else { "off" };
                // Port 0: the kernel chooses, `info usernet` tells; there is no race for a number.
                args.pair("-netdev", format!("user,id=net,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22"));
                args.pair("-device", "virtio-net-pci,netdev=net,romfile=");
            }
            None => {
                args.pair("-nic", "none");
            }
        }
        args.pair("-object", "rng-builtin,id=rng");
        args.pair("-device", "virtio-rng-pci,rng=rng");
        args.pair("-device", "pvpanic-pci");
        args.pair("-device", "VGA,romfile=vgabios-stdvga.bin");
        args.pair("-display", "none");
        // The console comes over QEMU's stdout, where we count what a hostile guest prints, and not into a file that grows.
        args.pair("-chardev", "stdio,id=console,signal=off").pair("-serial", "chardev:console");
        args.pair("-chardev", format!("socket,id=qmp,fd={}", self.qmp_fd));
        args.pair("-mon", "chardev=qmp,mode=control");
        // Whatever ends the guest pauses it with an event: there is time for a last picture of its screen.
        args.pair("-action", "reboot=shutdown,shutdown=pause,panic=pause");
        args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        for item in &self.firmware {
            args.pair("-fw_cfg", joined(&format!("name={},file=", item.name), &item.file, ""));
        }
        args.0
    }
}

struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn pair(&mut self, flag: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(flag.into());
        self.0.push(value.into());
        self
    }
}

/// A path inside an option list: QEMU wants commas doubled.
fn joined(before: &str, path: &Path, after: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = before.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    bytes.extend_from_slice(after.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command {
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            name: "debian-12-minimal.smoke".into(),
            machine: "pc-q35-10.0".into(),
            accelerator: Accelerator::Tcg,
            cpus: 1,
            memory_mib: 512,
            disk: Some("/scratch/a,b/disk.qcow2".into()),
            kernel: "/store/vmlinuz".into(),
            initrd: "/store/initrd.img".into(),
            cmdline: "root=/dev/vda rw console=ttyS0".into(),
            firmware: vec![Firmware { name: images::seed::HOSTNAME, file: "/scratch/hostname".into() }],
            network: Some(Network::Isolated),
            qmp_fd: 7,
        }
    }

    fn text(command: &Command) -> String {
        let args: Vec<String> = command.args().iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        args.join("\n").replace("\n-", "\n\u{0}").replace('\n', " ").replace(" \u{0}", "\n-")
    }

    #[test]
    fn a_guest_is_isolated_sandboxed_and_pinned_to_a_machine_version() {
        insta::assert_snapshot!(text(&command()), @r"
        -nodefaults
        -no-user-config
        -name guest=debian-12-minimal.smoke
        -machine pc-q35-10.0,accel=tcg,hpet=off,vmport=off
        -cpu max
        -smp 1
        -m 512
        -kernel /store/vmlinuz
        -initrd /store/initrd.img
        -append root=/dev/vda rw console=ttyS0
        -drive if=none,id=root,file=/scratch/a,,b/disk.qcow2,format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop
        -device virtio-blk-pci,drive=root,serial=root
        -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22
        -device virtio-net-pci,netdev=net,romfile=
        -object rng-builtin,id=rng
        -device virtio-rng-pci,rng=rng
        -device pvpanic-pci
        -device VGA,romfile=vgabios-stdvga.bin
        -display none
        -chardev stdio,id=console,signal=off
        -serial chardev:console
        -chardev socket,id=qmp,fd=7
        -mon chardev=qmp,mode=control
        -action reboot=shutdown,shutdown=pause,panic=pause
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        -fw_cfg name=opt/nestmatrix/hostname,file=/scratch/hostname
        ");
    }

    #[test]
    fn only_network_open_lifts_the_restriction() {
        let open = Command { network: Some(Network::Open), ..command() };
        assert!(text(&open).contains("restrict=off"), "{}", text(&open));
        let none = Command { network: None, ..command() };
        assert!(text(&none).contains("-nic none") && !text(&none).contains("netdev"), "{}", text(&none));
    }

    #[test]
    fn under_kvm_the_guest_has_the_hosts_cpu() {
        let kvm = text(&Command { accelerator: Accelerator::Kvm, ..command() });
        assert!(kvm.contains("accel=kvm") && kvm.contains("-cpu host"), "{kvm}");
    }
}
