//! QEMU's argument list as a pure function of a machine and of one launch of it.
//!
//! Everything that decides what a guest is stands here, so that a change of it is a change of one snapshot.

use std::{
    ffi::OsString,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

use images::{DiskFormat, Kernel, Start};
use matrix::{Arch, DiskInterface, Firmware, Network};

use super::{
    disks::DiskFile,
    identity_media,
    spec::{Accelerator, MachineSpec},
};

/// One launch of a machine: where its files lie here, and what it may reach. Nothing of that can be seen in the guest.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The machine.
    pub spec: MachineSpec,
    /// The emulator.
    pub qemu: PathBuf,
    /// Shown by process listings; no commas.
    pub name: String,
    /// Where its memory is kept.
    pub ram: Ram,
    /// The files of its disks, in their order.
    pub disks: Vec<DiskFile>,
    /// The files that start it.
    pub boot: BootFiles,
    /// The program that is its TPM.
    pub swtpm: PathBuf,
    /// A folder of its own: its identity ([`super::identity`]), and what it keeps besides its disks ([`Launch::NVRAM`]).
    pub folder: PathBuf,
    /// What its first network card reaches.
    pub network: Network,
    /// We are at the other end of its port ([`super::Guest::take_port`]); else nobody is.
    pub port: bool,
    /// On its first network there is a proxy of ours, whatever else that reaches ([`super::Guest::take_egress`]).
    pub egress: bool,
}

/// The files that start a machine; those that its spec has no use for are not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootFiles {
    /// A kernel's.
    pub kernel: Kernel,
    /// UEFI's.
    pub uefi: Uefi,
}

/// The files of UEFI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uefi {
    /// Its code.
    pub code: PathBuf,
    /// What its variables are at first; each guest that needs a place for them has a copy.
    pub variables: PathBuf,
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

/// Numbers of the inherited, connected sockets that QEMU speaks over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sockets {
    /// QMP.
    pub(crate) qmp: RawFd,
    /// Behind an open port.
    pub(crate) port: RawFd,
    /// The TPM's.
    pub(crate) tpm: RawFd,
    /// What the guest sends, what of that its network receives, and what the guest receives besides.
    pub(crate) egress: [RawFd; 3],
}

impl Launch {
    /// The port's name in the guest: `/dev/virtio-ports/` and this.
    pub const PORT: &str = "nestmatrix.wake";
    /// The folder in its own one with what a guest keeps besides its disks: the variables of its firmware, the state of its TPM.
    pub const NVRAM: &str = "nvram";
    /// QEMU's own name of the port: without one it does not tell when the guest opens and closes it.
    pub(super) const PORT_ID: &str = "wake";

    /// What looks at what the guest sends, by QEMU's names.
    pub(super) const FILTERS: [&str; 2] = ["egress-from-guest", "egress-to-guest"];

    /// A launch of a machine whose files are nowhere yet.
    pub fn new(spec: MachineSpec) -> Self {
        let disk = DiskFile { file: PathBuf::new(), format: DiskFormat::Raw };
        Self {
            disks: vec![disk; spec.disks.len()],
            spec,
            qemu: PathBuf::new(),
            name: String::new(),
            ram: Ram::Anonymous,
            boot: BootFiles::default(),
            swtpm: PathBuf::new(),
            folder: PathBuf::new(),
            network: Network::Isolated,
            port: false,
            egress: false,
        }
    }

    /// The file with the variables of its firmware, if it needs a place for them.
    pub(super) fn variables(&self) -> Option<PathBuf> {
        let secure = self.spec.start == Start::Firmware(Firmware::UefiSecure);
        secure.then(|| self.folder.join(Self::NVRAM).join("variables.fd"))
    }

    /// The arguments, the program's own name excluded.
    pub(crate) fn args(&self, sockets: Sockets) -> Vec<OsString> {
        let spec = &self.spec;
        let mut args = Args(Vec::new());
        args.flag("-nodefaults").flag("-no-user-config");
        args.pair("-name", format!("guest={}", self.name));
        let memory = if matches!(self.ram, Ram::Anonymous) { "" } else { ",memory-backend=ram" };
        let without = match spec.arch {
            Arch::X86_64 => ",hpet=off,vmport=off",
            Arch::Aarch64 => ",gic-version=max",
        };
        let variables = self.variables();
        // Only code that the firmware has put into system management mode may write to its variables.
        let smm = if variables.is_some() { ",smm=on" } else { "" };
        args.pair("-machine", format!("{},accel={}{without}{smm}{memory}", spec.machine, spec.accelerator));
        args.pair("-cpu", spec.cpu.model(spec.accelerator, spec.arch));
        args.pair("-smp", spec.cpus.to_string());
        args.pair("-m", spec.memory.mib().to_string());
        let file = format!("memory-backend-file,id=ram,size={}M,mem-path=", spec.memory.mib());
        match &self.ram {
            Ram::Anonymous => {}
            Ram::Kept(path) => drop(args.pair("-object", joined(&file, path, ",share=on"))),
            Ram::Forked(path) => {
                args.pair("-object", joined(&file, path, ",share=off,readonly=on,rom=off"));
                // -S: not one instruction before the state is all there.
                args.pair("-incoming", "defer").flag("-S");
            }
        }
        match &spec.start {
            Start::Kernel(cmdline) => {
                let Kernel { kernel, initrd } = &self.boot.kernel;
                args.pair("-kernel", kernel).pair("-initrd", initrd).pair("-append", kernel_words(spec, cmdline));
            }
            Start::Firmware(Firmware::Bios) => {}
            Start::Firmware(Firmware::Uefi | Firmware::UefiSecure) => {
                args.pair("-drive", joined("if=pflash,unit=0,format=raw,readonly=on,file=", &self.boot.uefi.code, ""));
            }
        }
        if let Some(variables) = &variables {
            args.pair("-global", "driver=cfi.pflash01,property=secure,value=on");
            args.pair("-drive", joined("if=pflash,unit=1,format=raw,file=", variables, ""));
        }
        for (index, (disk, file)) in spec.disks.iter().zip(&self.disks).enumerate() {
            // cache=unsafe: the overlay dies with the guest, so the host need never wait for its own disk.
            // werror=stop: a full host disk pauses the guest with an event instead of looking like the package's fault.
            let mode = if disk.writable { "cache=unsafe,discard=unmap,werror=stop,rerror=stop" } else { "readonly=on" };
            let id = if index == 0 { "root".to_owned() } else { format!("disk{}", index - 1) };
            let options = format!(",format={},{mode}", file.format.name());
            args.pair("-drive", joined(&format!("if=none,id={id},file="), &file.file, &options));
            let device = match disk.interface {
                DiskInterface::Virtio => "virtio-blk-pci",
                DiskInterface::Nvme => "nvme",
            };
            let place = match index.checked_sub(1) {
                None if spec.has_firmware() => ",bootindex=0".to_owned(),
                None => String::new(),
                // Above the root disk's slot, so that that one stays the first; eight in a slot, because there are few slots.
                Some(more) => {
                    format!(",addr={:#x}.{},multifunction=on", MachineSpec::DISK_SLOTS.start + more / 8, more % 8)
                }
            };
            args.pair("-device", format!("{device},drive={id},serial={}{place}", disk.serial));
        }
        if spec.nics == 0 {
            args.pair("-nic", "none");
        } else {
            let restrict = if self.network == Network::Open { "off" } else { "on" };
            // Port 0: the kernel chooses, `info usernet` tells; there is no race for a number.
            args.pair("-netdev", format!("user,id=net,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22"));
            if self.egress {
                // What the guest sends is looked at by the proxy before its network is. A `guestfwd` carries one connection only, or starts a
                // process for each, which the sandbox forbids.
                for (id, fd) in ["from-guest", "passed-on", "to-guest"].into_iter().zip(sockets.egress) {
                    args.pair("-chardev", format!("socket,id={id},fd={fd}"));
                }
                for (id, filter) in
                    Self::FILTERS.into_iter().zip(["rx,outdev=from-guest,indev=passed-on", "tx,indev=to-guest"])
                {
                    args.pair("-object", format!("filter-redirector,id={id},netdev=net,queue={filter}"));
                }
            }
            args.pair("-device", "virtio-net-pci,netdev=net,romfile=");
        }
        // A hub of its own: nobody is there who could configure it.
        for more in 1..spec.nics {
            args.pair("-netdev", format!("hubport,id=net{more},hubid={more}"));
            args.pair("-device", format!("virtio-net-pci,netdev=net{more},romfile="));
        }
        if spec.port {
            let end = if self.port { format!("socket,id=port,fd={}", sockets.port) } else { "null,id=port".into() };
            // Behind the disks of a machine that has more of them.
            args.pair("-device", "virtio-serial-pci,addr=0x1e").pair("-chardev", end);
            args.pair("-device", format!("virtserialport,id={},chardev=port,name={}", Self::PORT_ID, Self::PORT));
        }
        if spec.tpm {
            let device = match spec.arch {
                Arch::X86_64 => "tpm-crb",
                Arch::Aarch64 => "tpm-tis-device",
            };
            args.pair("-chardev", format!("socket,id=tpm,fd={}", sockets.tpm));
            args.pair("-tpmdev", "emulator,id=tpm,chardev=tpm").pair("-device", format!("{device},tpmdev=tpm"));
        }
        args.pair("-object", "rng-builtin,id=rng");
        args.pair("-device", "virtio-rng-pci,rng=rng");
        args.pair("-device", "pvpanic-pci");
        if spec.screen && spec.arch == Arch::X86_64 {
            args.pair("-device", "VGA,romfile=vgabios-stdvga.bin");
        }
        args.pair("-display", "none");
        // The console comes over QEMU's stdout, where we count what a hostile guest prints, and not into a file that grows.
        args.pair("-chardev", "stdio,id=console,signal=off").pair("-serial", "chardev:console");
        args.pair("-chardev", format!("socket,id=qmp,fd={}", sockets.qmp));
        args.pair("-mon", "chardev=qmp,mode=control");
        // Whatever ends the guest pauses it with an event: there is time for a last picture of its screen.
        args.pair("-action", "reboot=shutdown,shutdown=pause,panic=pause");
        args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        for (name, file) in spec.seed.map(identity_media::items).unwrap_or_default() {
            args.pair("-fw_cfg", joined(&format!("name={name},file="), &self.folder.join(file), ""));
        }
        args.0
    }
}

/// The kernel's command line; without a screen nothing is printed on one.
///
/// Linux checks that its timer ticks by counting ticks against the CPU's own clock. If QEMU has to wait for a CPU of a busy host
/// meanwhile, the check fails and the kernel panics ("IO-APIC + timer doesn't work!", measured). Under KVM it knows better.
fn kernel_words(spec: &MachineSpec, cmdline: &str) -> String {
    // In front, because what follows a `--` is not the kernel's.
    let checks = spec.accelerator == Accelerator::Tcg && spec.arch == Arch::X86_64;
    let first = checks.then_some("no_timer_check");
    let words = cmdline.split_whitespace().filter(|word| spec.screen || *word != "console=tty0");
    first.into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
impl MachineSpec {
    /// A machine as any.
    pub(crate) fn sample() -> Self {
        use super::{Cpu, Disk, Seed};
        use matrix::ByteSize;
        Self {
            arch: Arch::X86_64,
            machine: "pc-q35-10.0".into(),
            accelerator: Accelerator::Tcg,
            cpu: Cpu::Fullest,
            cpus: 1,
            memory: ByteSize::from_mib(512),
            disks: vec![Disk::root(ByteSize::from_mib(4096))],
            nics: 1,
            start: Start::Kernel("root=/dev/vda rw console=tty0 console=ttyS0".into()),
            seed: Some(Seed::Firmware),
            tpm: false,
            screen: true,
            port: false,
            reboots: 3,
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
    use matrix::ByteSize;

    use super::*;
    use crate::guest::{Cpu, Disk, Seed};

    fn launch(spec: MachineSpec) -> Launch {
        let (kernel, initrd) = ("/store/vmlinuz".into(), "/store/initrd.img".into());
        let disk = |disk: &Disk| match disk.writable {
            true => DiskFile { file: format!("/scratch/a,b/{}.qcow2", disk.serial).into(), format: DiskFormat::Qcow2 },
            false => DiskFile { file: format!("/store/{},x", disk.serial).into(), format: DiskFormat::Raw },
        };
        Launch {
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            name: "debian-12-minimal.smoke".into(),
            disks: spec.disks.iter().map(disk).collect(),
            boot: BootFiles {
                kernel: Kernel { kernel, initrd },
                uefi: Uefi { code: "/firmware/a,b/code.fd".into(), variables: "/firmware/variables.fd".into() },
            },
            folder: "/scratch".into(),
            ..Launch::new(spec)
        }
    }

    fn spec() -> MachineSpec {
        MachineSpec::sample()
    }

    fn text(launch: &Launch) -> String {
        let args = launch.args(Sockets { qmp: 7, port: 8, tpm: 9, egress: [10, 11, 12] });
        let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        args.join("\n").replace("\n-", "\n\u{0}").replace('\n', " ").replace(" \u{0}", "\n-")
    }

    fn text_of(spec: MachineSpec) -> String {
        text(&launch(spec))
    }

    #[test]
    fn a_guest_is_isolated_sandboxed_and_pinned_to_a_machine_version() {
        insta::assert_snapshot!(text_of(spec()), @r"
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
        -drive if=none,id=root,file=/scratch/a,,b/root.qcow2,format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop
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
        -fw_cfg name=opt/nestmatrix/ssh_host_ecdsa_key,file=/scratch/ssh_host_ecdsa_key
        -fw_cfg name=opt/nestmatrix/ssh_host_ed25519_key,file=/scratch/ssh_host_ed25519_key
        -fw_cfg name=opt/nestmatrix/authorized_keys,file=/scratch/authorized_keys
        -fw_cfg name=opt/nestmatrix/hostname,file=/scratch/hostname
        ");
    }

    /// The lines of `changed` that are not those of a guest that is booted.
    fn difference(changed: &Launch) -> String {
        let (before, after) = (text_of(spec()), text(changed));
        after.lines().filter(|line| !before.lines().any(|known| known == *line)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_fork_differs_from_what_was_frozen_in_where_its_memory_is_and_in_that_it_waits() {
        let with = |ram| difference(&Launch { ram, port: true, ..launch(MachineSpec { port: true, ..spec() }) });
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
        let arm = MachineSpec {
            arch: Arch::Aarch64,
            machine: "virt-10.0".into(),
            start: Start::Kernel("root=/dev/vda rw console=ttyAMA0".into()),
            ..spec()
        };
        insta::assert_snapshot!(difference(&launch(arm.clone())), @r"
        -machine virt-10.0,accel=tcg,gic-version=max
        -cpu max,pauth-impdef=on
        -append root=/dev/vda rw console=ttyAMA0
        ");
        let kvm = text_of(MachineSpec { accelerator: Accelerator::Kvm, ..arm });
        assert!(kvm.contains("-cpu host") && !kvm.contains("VGA"), "{kvm}");
    }

    #[test]
    fn only_network_open_lifts_the_restriction() {
        let open = Launch { network: Network::Open, ..launch(spec()) };
        assert!(text(&open).contains("restrict=off"), "{}", text(&open));
        let none = text_of(MachineSpec { nics: 0, ..spec() });
        assert!(none.contains("-nic none") && !none.contains("netdev"), "{none}");
    }

    #[test]
    fn a_guest_with_a_proxy_has_it_on_the_network_of_its_first_card() {
        insta::assert_snapshot!(difference(&Launch { egress: true, network: Network::Repositories, ..launch(spec()) }), @"
        -chardev socket,id=from-guest,fd=10
        -chardev socket,id=passed-on,fd=11
        -chardev socket,id=to-guest,fd=12
        -object filter-redirector,id=egress-from-guest,netdev=net,queue=rx,outdev=from-guest,indev=passed-on
        -object filter-redirector,id=egress-to-guest,netdev=net,queue=tx,indev=to-guest
        ");
    }

    #[test]
    fn under_kvm_the_guest_has_the_hosts_cpu() {
        let kvm = text_of(MachineSpec { accelerator: Accelerator::Kvm, ..spec() });
        assert!(kvm.contains("accel=kvm") && kvm.contains("-cpu host"), "{kvm}");
        assert!(!kvm.contains("no_timer_check"), "{kvm}");
    }

    #[test]
    fn a_guest_that_runs_guests_has_a_cpu_for_it() {
        let nesting = |accelerator| text_of(MachineSpec { accelerator, cpu: Cpu::Nesting, ..spec() });
        assert!(nesting(Accelerator::Tcg).contains("+svm,+npt"));
        assert!(nesting(Accelerator::Kvm).contains("-cpu host"));
        assert!(!text_of(spec()).contains("svm"));
    }

    #[test]
    fn without_a_screen_the_kernel_prints_on_the_serial_console_alone() {
        let text = text_of(MachineSpec { screen: false, ..spec() });
        assert!(text.contains("root=/dev/vda rw console=ttyS0\n") && !text.contains("VGA"), "{text}");
    }

    #[test]
    fn more_disks_are_found_by_serial_number_and_leave_the_root_disk_the_first() {
        let root = spec().disks;
        let more = (0..10).map(|number| match number {
            0 => Disk::empty("disk-0", ByteSize::from_mib(64)),
            _ => Disk::read_only(&format!("disk-{number}")),
        });
        let text = text_of(MachineSpec { disks: root.into_iter().chain(more).collect(), ..spec() });
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("disk0") || line.contains("disk9")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        -drive if=none,id=disk0,file=/scratch/a,,b/disk-0.qcow2,format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop
        -device virtio-blk-pci,drive=disk0,serial=disk-0,addr=0x10.0,multifunction=on
        -drive if=none,id=disk9,file=/store/disk-9,,x,format=raw,readonly=on
        -device virtio-blk-pci,drive=disk9,serial=disk-9,addr=0x11.1,multifunction=on
        ");
    }

    #[test]
    fn a_guest_of_many_parts_has_a_device_for_each() {
        let nvme = Disk { interface: DiskInterface::Nvme, ..Disk::empty("data", ByteSize::from_mib(64)) };
        let disks = spec().disks.into_iter().chain([Disk::empty("disk-1", ByteSize::from_mib(64)), nvme]);
        let parts = MachineSpec { disks: disks.collect(), nics: 3, tpm: true, ..spec() };
        insta::assert_snapshot!(difference(&launch(parts.clone())), @"
        -drive if=none,id=disk0,file=/scratch/a,,b/disk-1.qcow2,format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop
        -device virtio-blk-pci,drive=disk0,serial=disk-1,addr=0x10.0,multifunction=on
        -drive if=none,id=disk1,file=/scratch/a,,b/data.qcow2,format=qcow2,cache=unsafe,discard=unmap,werror=stop,rerror=stop
        -device nvme,drive=disk1,serial=data,addr=0x10.1,multifunction=on
        -netdev hubport,id=net1,hubid=1
        -device virtio-net-pci,netdev=net1,romfile=
        -netdev hubport,id=net2,hubid=2
        -device virtio-net-pci,netdev=net2,romfile=
        -chardev socket,id=tpm,fd=9
        -tpmdev emulator,id=tpm,chardev=tpm
        -device tpm-crb,tpmdev=tpm
        ");
        let text = text_of(MachineSpec { arch: Arch::Aarch64, ..parts });
        assert!(text.contains("-device tpm-tis-device,tpmdev=tpm"), "{text}");
    }

    #[test]
    fn firmware_with_secure_boot_has_variables_of_its_own_that_only_it_may_write() {
        let with = |firmware| {
            difference(&launch(MachineSpec { start: Start::Firmware(firmware), seed: Some(Seed::CloudInit), ..spec() }))
        };
        insta::assert_snapshot!(with(Firmware::Bios), @"-device virtio-blk-pci,drive=root,serial=root,bootindex=0");
        insta::assert_snapshot!(with(Firmware::Uefi), @"
        -drive if=pflash,unit=0,format=raw,readonly=on,file=/firmware/a,,b/code.fd
        -device virtio-blk-pci,drive=root,serial=root,bootindex=0
        ");
        insta::assert_snapshot!(with(Firmware::UefiSecure), @"
        -machine pc-q35-10.0,accel=tcg,hpet=off,vmport=off,smm=on
        -drive if=pflash,unit=0,format=raw,readonly=on,file=/firmware/a,,b/code.fd
        -global driver=cfi.pflash01,property=secure,value=on
        -drive if=pflash,unit=1,format=raw,file=/scratch/nvram/variables.fd
        -device virtio-blk-pci,drive=root,serial=root,bootindex=0
        ");
    }
}
