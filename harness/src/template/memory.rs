//! What a process has for itself.

/// Memory that no other process shares and no file holds, in bytes (`Anonymous` of `/proc/PID/smaps_rollup`); `None`: it is gone.
///
/// Of a fork these are the pages it wrote to, and QEMU's own; of a booted guest, all it ever touched.
pub fn own_memory(pid: u32) -> Option<u64> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_does_not_count() {
        let rollup = "5577-7ffc ---p 00000000 00:00 0  [rollup]\nRss:              165620 kB\nPss:              164218 kB\nAnonymous:         87232 kB\n";
        assert_eq!(parse(rollup), Some(87_232 << 10));
        assert_eq!(parse("Rss: 1 kB\n"), None);
        assert_eq!(own_memory(0), None);
        assert!(own_memory(std::process::id()).is_some_and(|bytes| bytes > 10_000));
    }
}
