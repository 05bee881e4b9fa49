//! One L2 guest: a QEMU process, its serial console, its QMP channel.
//!
//! `command` is the argument list and nothing else; `process` starts and ends the program; `console` keeps what the
//! guest prints; `qmp` speaks to QEMU; `vm` puts them together as a [`Guest`]; `migration` freezes and thaws one.

mod command;
mod console;
mod ended;
mod halt;
mod identity;
mod migration;
mod overlay;
mod process;
pub mod qmp;
mod reboots;
mod seed;
mod vm;
mod who;

pub use command::{Accelerator, Command, Cpu, Disk, Firmware, Loader, Port, Ram, serial_port};
pub use console::Console;
pub use ended::Ended;
pub use identity::{FIRMWARE_ITEMS, HOST_KEY_FILES, Seed, Told, identity, write_private};
pub use images::DiskFormat;
pub use migration::MigrationError;
pub use overlay::{OverlayError, create as create_overlay};
pub use process::{Spawner, alive as process_alive, cpu_time as process_cpu_time, start_time as process_start_time};
pub use reboots::{MOST_REBOOTS, Reboots};
pub use seed::recipe as seed_recipe;
pub use vm::{Guest, StartError};
pub use who::Who;
