//! The machine we run on: its tools, its size, and what it can really virtualize.

mod cgroup;
mod choice;
mod firmware;
mod machine;
mod nesting;
mod probe;
mod tools;

pub use cgroup::MemoryLimit;
pub use choice::{Choice, RunnerChoice, choose, switch_on};
pub use firmware::{NoPart, swtpm, uefi};
pub use machine::{Machine, free_bytes};
pub use nesting::{Extension, Hardware, KvmDevice, Nesting};
pub use probe::{ProbeError, Proof, Target, known, kvm_opens, measure, measured, prove, prove_kvm};
pub use tools::{Qemu, ToolError, Version, find, too_old};
