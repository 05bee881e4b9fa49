//! Tools and size: without these nothing runs at all.

use super::{
    facts::{Basics, Builder},
    finding::{Finding, State},
};
use crate::host::MemoryLimit;

/// Least free space for a store: three images and their overlays.
const DISK: u64 = 5 << 30;
/// Least spare memory: one small guest.
const MEMORY: u64 = 1 << 30;

pub(super) fn findings(basics: &Basics) -> Vec<Finding> {
    let mut findings = vec![qemu(basics)];
    findings.extend(basics.builders.iter().map(builder));
    findings.extend([tpm(basics), cpu(basics), memory(basics), disk(basics)]);
    findings
}

fn qemu(basics: &Basics) -> Finding {
    match &basics.qemu {
        Ok(qemu) => {
            let words = format!("{} at {}, machine {}", qemu.words, qemu.system.display(), qemu.machine());
            Finding::new("QEMU", State::Good, words)
        }
        Err(error) => Finding::new("QEMU", State::Bad, error).with_remedy("run `cargo xtask setup`"),
    }
}

fn builder(builder: &Builder) -> Finding {
    match &builder.path {
        Some(path) => Finding::new(builder.program, State::Good, path.display().to_string()),
        None => Finding::new(builder.program, State::Bad, format!("not installed ({})", builder.purpose))
            .with_remedy("run `cargo xtask setup`"),
    }
}

/// Most matrices ask for none.
fn tpm(basics: &Basics) -> Finding {
    match &basics.swtpm {
        Some(path) => Finding::new("swtpm", State::Good, path.display().to_string()),
        None => {
            let words = "not installed: guests have no TPM (`guest.tpm`; it comes with the package `swtpm`)";
            Finding::new("swtpm", State::Plain, words)
        }
    }
}

fn cpu(basics: &Basics) -> Finding {
    let machine = &basics.machine;
    let words = format!("{} x {}, kernel {}", machine.cpus, machine.cpu, machine.kernel);
    if machine.cpu_share < 1.0 {
        let words = format!("{words}; a control group allows {:.0} % of one CPU", machine.cpu_share * 100.0);
        return Finding::new("CPU", State::Weak, words).with_remedy(
            "raise the CPU limit of the container, job or service this runs in: time limits grow as it shrinks",
        );
    }
    Finding::new("CPU", State::Good, words)
}

fn memory(basics: &Basics) -> Finding {
    let spare = basics.machine.spare();
    let mut words = format!("{} MiB of {} MiB can go to guests", spare.mib(), basics.machine.memory.mib());
    if let Some(MemoryLimit { group, limit, left }) = &basics.machine.limit {
        let (limit, left) = (limit.mib(), left.mib());
        words += &format!(": the control group {} allows {limit} MiB, of which {left} MiB are left", group.display());
    }
    if spare.bytes() >= MEMORY {
        Finding::new("memory", State::Good, words)
    } else {
        let remedy = match basics.machine.limit {
            Some(_) => "raise the memory limit of the container, job or service this runs in, or lower `guest.memory`",
            None => "close other programs, or lower `guest.memory`",
        };
        Finding::new("memory", State::Weak, words).with_remedy(remedy)
    }
}

fn disk(basics: &Basics) -> Finding {
    let free = match &basics.free {
        Ok(free) => free,
        Err(error) => {
            return Finding::new("disk", State::Bad, error)
                .with_remedy("name a folder that can be written to: `--store DIR`, or NESTMATRIX_STORE");
        }
    };
    let words = format!("{} MiB free for the store {}", free.mib(), basics.store.display());
    if free.bytes() >= DISK {
        Finding::new("disk", State::Good, words)
    } else {
        Finding::new("disk", State::Weak, words).with_remedy("make room, or name another folder with --store")
    }
}

#[cfg(test)]
mod tests {
    use matrix::ByteSize;

    use super::{super::finding::render, *};
    use crate::host::Machine;

    fn basics(memory: ByteSize, free: Result<ByteSize, String>) -> Basics {
        let machine = Machine {
            cpu: "AMD EPYC 7B13".to_owned(),
            cpus: 2,
            flags: vec![],
            memory,
            available: memory,
            limit: None,
            cpu_share: 1.0,
            kernel: "6.12.0".to_owned(),
        };
        let qemu = Err("`qemu-system-x86_64` is not installed".to_owned());
        let builders = vec![
            Builder { program: "mke2fs", purpose: "builds images", path: Some("/usr/sbin/mke2fs".into()) },
            Builder { program: "mmdebstrap", purpose: "builds images", path: None },
        ];
        Basics { qemu, builders, swtpm: None, machine, store: "/store".into(), free }
    }

    #[test]
    fn a_small_machine_without_tools_is_told_what_to_do() {
        let small = basics(ByteSize::from_mib(1024), Ok(ByteSize::from_mib(100)));
        insta::assert_snapshot!(render(&findings(&small)), @"
         MISSING  QEMU        `qemu-system-x86_64` is not installed
         ok       mke2fs      /usr/sbin/mke2fs
         MISSING  mmdebstrap  not installed (builds images)
         -        swtpm       not installed: guests have no TPM (`guest.tpm`; it comes with the package `swtpm`)
         ok       CPU         2 x AMD EPYC 7B13, kernel 6.12.0
         warning  memory      512 MiB of 1024 MiB can go to guests
         warning  disk        100 MiB free for the store /store

        QEMU: run `cargo xtask setup`

        mmdebstrap: run `cargo xtask setup`

        memory: close other programs, or lower `guest.memory`

        disk: make room, or name another folder with --store
        ");
    }

    #[test]
    fn what_a_control_group_leaves_is_said_with_its_name_and_both_figures() {
        let mut contained = basics(ByteSize::from_mib(65536), Err(String::new()));
        let (limit, left) = (ByteSize::from_mib(4096), ByteSize::from_mib(1024));
        contained.machine.limit = Some(MemoryLimit { group: "/sys/fs/cgroup/ci.slice".into(), limit, left });
        contained.machine.cpu_share = 0.5;
        insta::assert_snapshot!(render(&[memory(&contained), cpu(&contained)]), @"
         warning  memory  512 MiB of 65536 MiB can go to guests: the control group /sys/fs/cgroup/ci.slice allows 4096 MiB, of which 1024 MiB are left
         warning  CPU     2 x AMD EPYC 7B13, kernel 6.12.0; a control group allows 50 % of one CPU

        memory: raise the memory limit of the container, job or service this runs in, or lower `guest.memory`

        CPU: raise the CPU limit of the container, job or service this runs in: time limits grow as it shrinks
        ");
    }

    #[test]
    fn a_machine_of_sufficient_size_is_not_warned() {
        let states: Vec<State> = [
            memory(&basics(ByteSize::from_mib(1536), Err(String::new()))),
            disk(&basics(ByteSize::from_mib(1536), Ok(ByteSize::from_mib(5 << 10)))),
        ]
        .map(|finding| finding.state)
        .into();
        assert!(states == [State::Good, State::Good]);
    }
}
