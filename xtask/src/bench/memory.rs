//! Memory of a process.

use std::fs;

/// In KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Private anonymous memory.
    pub(super) anonymous: u64,
    /// Proportional share: a page shared by three processes counts a third.
    pub(super) pss: u64,
}

/// `None`: the process does not exist any more.
pub(super) fn of(pid: u32) -> Option<Memory> {
    parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse(rollup: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line?.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Memory { anonymous: kib("Anonymous")?, pss: kib("Pss")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_process_is_not_taken_for_its_dirty_or_anonymous_part() {
        let rollup = "5577-7ffc ---p 00000000 00:00 0  [rollup]\nRss:   165620 kB\nPss:   64218 kB\nPss_Dirty:  5 kB\n\
                      Pss_Anon:  6 kB\nAnonymous:     87232 kB\nLazyFree:   0 kB\n";
        assert_eq!(parse(rollup), Some(Memory { anonymous: 87_232, pss: 64_218 }));
        assert_eq!(parse("Rss: 1 kB\n"), None);
        assert_eq!(of(0), None);
    }
}
