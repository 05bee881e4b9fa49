//! What a virtual machine is made of: everything that its operating system can tell apart, and nothing else. Pure.
//!
//! Guests with equal specs can be forks of one frozen guest. Where its files lie and what it may reach belong to one launch of it
//! ([`super::Launch`]).

use std::fmt;

use images::Start;
use matrix::{Arch, ByteSize, DiskInterface, Firmware};
use serde::{Deserialize, Serialize};

/// One virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineSpec {
    /// The kind of its CPU.
    pub arch: Arch,
    /// QEMU's versioned machine type.
    pub machine: String,
    /// How its CPU is run.
    pub accelerator: Accelerator,
    /// What its CPU must be able to do.
    pub cpu: Cpu,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, whole mebibytes.
    pub memory: ByteSize,
    /// Its disks, the root disk first; at most [`Self::MOST_DISKS`] more.
    pub disks: Vec<Disk>,
    /// Network cards. The first one carries SSH, nothing is at the other end of the others.
    pub nics: u32,
    /// What starts it.
    pub start: Start,
    /// How it receives its identity; `None`: it receives none.
    pub seed: Option<Seed>,
    /// It has a TPM 2.0 of its own.
    pub tpm: bool,
    /// It has a screen, of which a picture can be taken. Machines of aarch64 have none.
    pub screen: bool,
    /// It has a port, [`super::Launch::PORT`], that its first program speaks on without a network.
    pub port: bool,
    /// How often it may reboot itself before its boot is over. Any other reset is its end.
    pub reboots: u32,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// What the guest finds it by (`/sys/class/block/*/serial`): at most 20 letters, digits, `-` and `_`.
    pub serial: String,
    /// Its size; `None`: that of the file it is made of.
    pub size: Option<ByteSize>,
    /// What it is attached to.
    pub interface: DiskInterface,
    /// The guest may write to it.
    pub writable: bool,
}

impl Disk {
    /// Serial number of every root disk.
    pub const ROOT: &str = "root";

    /// The disk that a machine is started from; an overlay of this size.
    pub fn root(size: ByteSize) -> Self {
        Self::empty(Self::ROOT, size)
    }

    /// A disk with nothing in it.
    pub fn empty(serial: &str, size: ByteSize) -> Self {
        Self { size: Some(size), writable: true, ..Self::read_only(serial) }
    }

    /// A disk that the guest only reads.
    pub fn read_only(serial: &str) -> Self {
        Self { serial: serial.to_owned(), size: None, interface: DiskInterface::Virtio, writable: false }
    }
}

/// How a guest receives its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Seed {
    /// By firmware-configuration items, which images made by us read.
    Firmware,
    /// By a volume that cloud-init reads.
    CloudInit,
}

impl Seed {
    /// Serial number of the disk that tells a cloud image who it is.
    pub const DISK: &str = "seed";

    /// What an image that is started like this reads.
    pub fn of(start: &Start) -> Self {
        match start {
            Start::Kernel(_) => Self::Firmware,
            Start::Firmware(_) => Self::CloudInit,
        }
    }
}

/// How a guest's CPU is run.
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

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a guest's CPU must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Cpu {
    /// As much as the accelerator can give: releases with a raised baseline (x86-64-v3) must boot as well.
    Fullest,
    /// Run virtual machines itself.
    Nesting,
}

impl Cpu {
    /// QEMU's name of it.
    pub(super) const fn model(self, accelerator: Accelerator, arch: Arch) -> &'static str {
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

/// What a guest's kernel calls its serial port.
pub const fn serial_port(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "ttyS0",
        Arch::Aarch64 => "ttyAMA0",
    }
}

impl MachineSpec {
    /// Slots of the machine's bus that are kept for disks besides the root disk, eight to each.
    pub(super) const DISK_SLOTS: std::ops::Range<usize> = 0x10..0x1e;
    /// Most disks besides the root disk.
    pub const MOST_DISKS: usize = (Self::DISK_SLOTS.end - Self::DISK_SLOTS.start) * 8;

    /// A disk that starts it has its own boot loader.
    pub(super) fn has_firmware(&self) -> bool {
        matches!(self.start, Start::Firmware(_))
    }

    /// Whether QEMU can freeze it and go on with forks of it; else why not.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn can_be_frozen(&self) -> Result<(), &'static str> {
        if self.arch != Arch::here() {
            return Err(
                "guests of another kind of CPU than this machine's are booted: what wakes forks is a program for this machine's",
            );
        }
        if self.tpm {
            return Err("guests with a TPM are booted: each has secrets of its own in it");
        }
        if self.start == Start::Firmware(Firmware::UefiSecure) {
            return Err("guests with Secure Boot are booted: each has variables of its own in its firmware");
        }
        if self.disks.iter().any(|disk| disk.interface == DiskInterface::Nvme) {
            return Err("guests with NVMe disks are booted: QEMU saves no state of these");
        }
        Ok(())
    }
}
