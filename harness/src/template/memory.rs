//! What a process has for itself.

use procfs::process::Process;

/// Memory that no other process shares and no file holds, in bytes (`Anonymous` of `/proc/PID/smaps_rollup`); `None`: it is gone.
///
/// Of a fork these are the pages it wrote to, and QEMU's own; of a booted guest, all it ever touched.
pub fn own_memory(pid: u32) -> Option<u64> {
    counted(pid, "Anonymous")
}

fn counted(pid: u32, name: &str) -> Option<u64> {
    let rollup = Process::new(pid.try_into().ok()?).ok()?.smaps_rollup().ok()?;
    rollup.memory_map_rollup.0.first()?.extension.map.get(name).copied()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn what_is_shared_does_not_count() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It has come so far as to run.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let (own, all) = (own_memory(child.id()).unwrap(), counted(child.id(), "Rss").unwrap());
        assert!((4096..all).contains(&own), "{own} of {all}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((own_memory(child.id()), own_memory(0)), (None, None));
    }
}
