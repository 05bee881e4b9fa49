//! One L2 guest: a QEMU process, its serial console, its QMP channel.
//!
//! `spec` says what a machine is made of; `command` is the argument list of one launch of it and nothing else; `disks` makes the files of
//! its disks, `identity` those that tell it who it is; `process` starts and ends programs, `tpm` the one that is a TPM; `console` keeps what the guest prints;
//! `qmp` speaks to QEMU; `vm` puts them together as a [`Guest`]; `migration` freezes and thaws one.

mod command;
mod console;
mod disks;
mod ended;
mod halt;
mod identity;
mod identity_media;
mod migration;
mod process;
pub mod qmp;
mod reboots;
mod seed;
mod spec;
mod tpm;
mod vm;

pub use command::{BootFiles, Launch, Ram, Uefi};
pub use console::Console;
pub use disks::{Below, DiskError, DiskFile, ROOT as ROOT_DISK, make as make_disks, raw as raw_disk};
pub use ended::Ended;
pub use identity::GuestIdentity;
pub use identity_media::{HOST_KEY_FILES, identity, write_private};
pub use images::DiskFormat;
pub use migration::MigrationError;
pub(crate) use process::Process;
pub use process::{Spawner, alive as process_alive, cpu_time as process_cpu_time, start_time as process_start_time};
pub use reboots::{Next, Reboots};
pub use seed::recipe as seed_recipe;
pub use spec::{Accelerator, Cpu, Disk, MachineSpec, Seed, serial_port};
pub use vm::{Guest, StartError};
