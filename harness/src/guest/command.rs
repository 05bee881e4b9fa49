//! QEMU's argument list as a pure function.
//!
//! Everything that decides what a guest is stands here, so that a change of it is a change of one snapshot.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use images::DiskFormat;
use matrix::{Arch, Network};
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
}

/// What a guest's kernel calls its serial port.
pub const fn serial_port(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "ttyS0",
        Arch::Aarch64 => "ttyAMA0",
    }
}

/// What a guest's CPU must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// As much as the accelerator can give: releases with a raised baseline (x86-64-v3) must boot as well.
    Fullest,
    /// Run virtual machines itself.
    Nesting,
}

impl Cpu {
    /// QEMU's name of it.
    const fn model(self, accelerator: Accelerator, arch: Arch) -> &'static str {
        match (self, accelerator, arch) {
            // With the extensions, wherever the host's KVM module lets them through (its parameter `nested`).
            (_, Accelerator::Kvm, _) => "host",
            // Signing of pointers as the architecture defines it takes half of the emulation's time (QEMU docs: arm/cpu-features).
            // A smaller model is no quicker (measured: Debian 12 to its SSH server with 23 and, on a busier machine, 33 s of CPU time; neoverse-n1 22 s, cortex-a72
            // 21 to 26 s).
            (_, Accelerator::Tcg, Arch::Aarch64) => "max,pauth-impdef=on",
            (Self::Fullest, Accelerator::Tcg, Arch::X86_64) => "max",
            // TCG emulates AMD's extensions only. The baseline x86-64-v2 and no more: with `max` everything in the L1 takes a
            // fifth longer (measured: boot 17.8 s instead of 14.6 s, a guest in it 27 s instead of 23 s).
            (Self::Nesting, Accelerator::Tcg, Arch::X86_64) => {
                "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm,+nx"
            }
        }
    }
}

/// A disk besides the root disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file.
    pub file: PathBuf,
    /// How its content is stored.
    pub format: DiskFormat,
    /// What the guest finds it by (`/sys/class/block/*/serial`): at most 20 characters, no commas.
    pub serial: String,
    /// The guest may write to it.
    pub writable: bool,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a guest's memory is kept.
#[derive(Clone, Debug)]
pub enum Ram {
    /// Nowhere: it is gone when the guest is.
    Anonymous,
    /// In this file, which is made: what a guest is frozen with.
    Kept(PathBuf),
    /// What is in this file at first; nothing is ever written to it. The guest does not boot: it waits for the state of the devices that
    /// belong to it ([`super::Guest::thaw`]).
    Forked(PathBuf),
}

/// A port that the guest's first program speaks on, without a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// There is none.
    Absent,
    /// Nobody is at its other end.
    Idle,
    /// We are at its other end ([`super::Guest::take_port`]).
    Open,
}

/// What a guest is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loader {
    /// With this kernel.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// Its initial file system.
        initrd: PathBuf,
        /// Its command line.
        cmdline: String,
    },
    /// With what the firmware of PCs finds on the root disk.
    Bios,
    /// With what UEFI finds on the root disk; the file with its code.
    Uefi(PathBuf),
}

impl Loader {
    /// The same with more words for the kernel, where it is we who give it some.
    #[must_use]
    pub fn with_words<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        if let Self::Kernel { cmdline, .. } = &mut self {
            for word in words {
                cmdline.push(' ');
                cmdline.push_str(word);
            }
        }
        self
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
    /// The kind of its CPU.
    pub arch: Arch,
    /// Versioned machine type.
    pub machine: String,
    /// How its CPU is run.
    pub accelerator: Accelerator,
    /// Virtual CPUs.
    pub cpus: u32,
    /// What its CPU must be able to do.
    pub cpu: Cpu,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Where that is kept.
    pub ram: Ram,
    /// Its root disk (qcow2), written to; `None`: no disk.
    pub disk: Option<PathBuf>,
    /// More disks, at most [`Command::MOST_DISKS`].
    pub more_disks: Vec<Disk>,
    /// What it is started with.
    pub loader: Loader,
    /// It has a screen, of which a picture can be taken. Machines of aarch64 have none.
    pub screen: bool,
    /// Firmware-configuration items.
    pub firmware: Vec<Firmware>,
    /// What it may reach; `None`: no network card at all.
    pub network: Option<Network>,
    /// It has a port of this kind, found as [`Command::PORT`].
    pub port: Port,
    /// Number of the inherited, connected socket that QMP is spoken on.
    pub qmp_fd: i32,
    /// Number of the inherited, connected socket behind an open port.
    pub port_fd: i32,
}

impl Command {
    /// Slots of the guest's bus that are kept for [`Command::more_disks`], eight to each.
    const DISK_SLOTS: std::ops::Range<usize> = 0x10..0x1e;
    /// Most disks besides the root disk.
    pub const MOST_DISKS: usize = (Self::DISK_SLOTS.end - Self::DISK_SLOTS.start) * 8;

    /// The port's name in the guest: `/dev/virtio-ports/` and this.
    pub const PORT: &str = "nestmatrix.wake";
    /// QEMU's own name of the port: without one it does not tell when the guest opens and closes it.
    pub(super) const PORT_ID: &str = "wake";

    /// The arguments, the program's own name excluded.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = Args(Vec::new());
        args.flag("-nodefaults").flag("-no-user-config");
        args.pair("-name", format!("guest={}", self.name));
        let memory = if matches!(self.ram, Ram::Anonymous) { "" } else { ",memory-backend=ram" };
        let without = match self.arch {
            Arch::X86_64 => ",hpet=off,vmport=off",
            Arch::Aarch64 => ",gic-version=max",
        };
        args.pair("-machine", format!("{},accel={}{without}{memory}", self.machine, self.accelerator));
        args.pair("-cpu", self.cpu.model(self.accelerator, self.arch));
        args.pair("-smp", self.cpus.to_string());
        args.pair("-m", self.memory_mib.to_string());
        let file = format!("memory-backend-file,id=ram,size={}M,mem-path=", self.memory_mib);
        match &self.ram {
            Ram::Anonymous => {}
            Ram::Kept(path) => drop(args.pair("-object", joined(&file, path, ",share=on"))),
            Ram::Forked(path) => {
                args.pair("-object", joined(&file, path, ",share=off,readonly=on,rom=off"));
                // -S: not one instruction before the state is all there.
                args.pair("-incoming", "defer").flag("-S");
            }
        }
        match &self.loader {
            Loader::Kernel { kernel, initrd, cmdline } => {
                args.pair("-kernel", kernel).pair("-initrd", initrd).pair("-append", self.kernel_words(cmdline));
            }
            Loader::Bios => {}
            Loader::Uefi(code) => {
                args.pair("-drive", joined("if=pflash,unit=0,format=raw,readonly=on,file=", code, ""));
            }
        }
        if let Some(disk) = &self.disk {
            // cache=unsafe: the overlay dies with the guest, so the host need never wait for its own disk.
            // werror=stop: a full host disk pauses the guest with an event instead of looking like the package's fault.
            let options = ",format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop";
            args.pair("-drive", joined("if=none,id=root,file=", disk, options));
            let first = if matches!(self.loader, Loader::Kernel { .. }) { "" } else { ",bootindex=0" };
            args.pair("-device", format!("virtio-blk-pci,drive=root,serial=root{first}"));
        }
        for (index, disk) in self.more_disks.iter().enumerate() {
            let mode = if disk.writable { "cache=unsafe,discard=unmap,werror=stop,rerror=stop" } else { "readonly=on" };
            let options = format!(",format={},{mode}", disk.format.name());
            args.pair("-drive", joined(&format!("if=none,id=disk{index},file="), &disk.file, &options));
            // Above the root disk's slot, so that that one stays the first; eight in a slot, because there are few slots.
            let (slot, function) = (Self::DISK_SLOTS.start + index / 8, index % 8);
            let place = format!("addr={slot:#x}.{function},multifunction=on");
            args.pair("-device", format!("virtio-blk-pci,drive=disk{index},serial={},{place}", disk.serial));
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
        if self.port != Port::Absent {
            let end = if self.port == Port::Open {
                format!("socket,id=port,fd={}", self.port_fd)
            } else {
                "null,id=port".into()
            };
            // Behind the disks of a machine that has more of them.
            args.pair("-device", "virtio-serial-pci,addr=0x1e").pair("-chardev", end);
            args.pair("-device", format!("virtserialport,id={},chardev=port,name={}", Self::PORT_ID, Self::PORT));
        }
        args.pair("-object", "rng-builtin,id=rng");
        args.pair("-device", "virtio-rng-pci,rng=rng");
        args.pair("-device", "pvpanic-pci");
        if self.screen && self.arch == Arch::X86_64 {
            args.pair("-device", "VGA,romfile=vgabios-stdvga.bin");
        }
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

    /// The kernel's command line; without a screen nothing is printed on one.
    ///
    /// Linux checks that its timer ticks by counting ticks against the CPU's own clock. If QEMU has to wait for a CPU of a busy host
    /// meanwhile, the check fails and the kernel panics ("IO-APIC + timer doesn't work!", measured). Under KVM it knows better.
    fn kernel_words(&self, cmdline: &str) -> String {
        // In front, because what follows a `--` is not the kernel's.
        let checks = self.accelerator == Accelerator::Tcg && self.arch == Arch::X86_64;
        let first = checks.then_some("no_timer_check");
        let words = cmdline.split_whitespace().filter(|word| self.screen || *word != "console=tty0");
        first.into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
impl Command {
    /// A kernel as any, with this command line.
    pub(crate) fn sample_loader(cmdline: &str) -> Loader {
        let (kernel, initrd) = ("/store/vmlinuz".into(), "/store/initrd.img".into());
        Loader::Kernel { kernel, initrd, cmdline: cmdline.into() }
    }

    /// A guest as any.
    pub(crate) fn sample() -> Self {
        Self {
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            name: "debian-12-minimal.smoke".into(),
            arch: Arch::X86_64,
            machine: "pc-q35-10.0".into(),
            accelerator: Accelerator::Tcg,
            cpus: 1,
            cpu: Cpu::Fullest,
            memory_mib: 512,
            ram: Ram::Anonymous,
            disk: Some("/scratch/a,b/disk.qcow2".into()),
            more_disks: Vec::new(),
            loader: Self::sample_loader("root=/dev/vda rw console=tty0 console=ttyS0"),
            screen: true,
            firmware: vec![Firmware { name: images::seed::HOSTNAME, file: "/scratch/hostname".into() }],
            network: Some(Network::Isolated),
            port: Port::Absent,
            qmp_fd: 7,
            port_fd: 8,
        }
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
        Command::sample()
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
        -append no_timer_check root=/dev/vda rw console=tty0 console=ttyS0
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

    /// The lines of `changed` that are not those of a guest that is booted.
    fn difference(changed: &Command) -> String {
        let (before, after) = (text(&command()), text(changed));
        after.lines().filter(|line| !before.lines().any(|known| known == *line)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_fork_differs_from_what_was_frozen_in_where_its_memory_is_and_in_that_it_waits() {
        let with = |ram| difference(&Command { ram, port: Port::Open, ..command() });
        insta::assert_snapshot!(with(Ram::Kept("/t/a,b/ram".into())), @r"
        -machine pc-q35-10.0,accel=tcg,hpet=off,vmport=off,memory-backend=ram
        -object memory-backend-file,id=ram,size=512M,mem-path=/t/a,,b/ram,share=on
        -device virtio-serial-pci,addr=0x1e
        -chardev socket,id=port,fd=8
        -device virtserialport,id=wake,chardev=port,name=nestmatrix.wake
        ");
        insta::assert_snapshot!(with(Ram::Forked("/t/a,b/ram".into())), @r"
        -machine pc-q35-10.0,accel=tcg,hpet=off,vmport=off,memory-backend=ram
        -object memory-backend-file,id=ram,size=512M,mem-path=/t/a,,b/ram,share=off,readonly=on,rom=off
        -incoming defer
        -S
        -device virtio-serial-pci,addr=0x1e
        -chardev socket,id=port,fd=8
        -device virtserialport,id=wake,chardev=port,name=nestmatrix.wake
        ");
    }

    #[test]
    fn a_guest_of_64_bit_arm_is_another_machine_with_the_same_devices() {
        let arm = Command {
            arch: Arch::Aarch64,
            machine: "virt-10.0".into(),
            loader: Command::sample_loader("root=/dev/vda rw console=ttyAMA0"),
            ..command()
        };
        insta::assert_snapshot!(difference(&arm), @r"
        -machine virt-10.0,accel=tcg,gic-version=max
        -cpu max,pauth-impdef=on
        -append root=/dev/vda rw console=ttyAMA0
        ");
        let kvm = text(&Command { accelerator: Accelerator::Kvm, ..arm });
        assert!(kvm.contains("-cpu host") && !kvm.contains("VGA"), "{kvm}");
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
        assert!(!kvm.contains("no_timer_check"), "{kvm}");
    }

    #[test]
    fn a_guest_that_runs_guests_has_a_cpu_for_it() {
        let nesting = |accelerator| text(&Command { accelerator, cpu: Cpu::Nesting, ..command() });
        assert!(nesting(Accelerator::Tcg).contains("+svm,+npt"));
        assert!(nesting(Accelerator::Kvm).contains("-cpu host"));
        assert!(!text(&command()).contains("svm"));
    }

    #[test]
    fn without_a_screen_the_kernel_prints_on_the_serial_console_alone() {
        let text = text(&Command { screen: false, ..command() });
        assert!(text.contains("root=/dev/vda rw console=ttyS0\n") && !text.contains("VGA"), "{text}");
    }

    #[test]
    fn more_disks_are_found_by_serial_number_and_leave_the_root_disk_the_first() {
        let disk = |number: usize, writable| Disk {
            file: format!("/store/{number},x").into(),
            format: if writable { DiskFormat::Qcow2 } else { DiskFormat::Raw },
            serial: format!("disk-{number}"),
            writable,
        };
        let more_disks = (0..10).map(|number| disk(number, number == 0)).collect();
        let text = text(&Command { more_disks, ..command() });
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("disk0") || line.contains("disk9")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        -drive if=none,id=disk0,file=/store/0,,x,format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop
        -device virtio-blk-pci,drive=disk0,serial=disk-0,addr=0x10.0,multifunction=on
        -drive if=none,id=disk9,file=/store/9,,x,format=raw,readonly=on
        -device virtio-blk-pci,drive=disk9,serial=disk-9,addr=0x11.1,multifunction=on
        ");
    }
}
