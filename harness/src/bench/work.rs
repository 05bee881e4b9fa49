//! The work that is measured: a fixed amount, the same in every place, done by this very program.
//!
//! No digests and nothing else that a library does with special instructions where a CPU has them: a guest's CPU may lack them,
//! and then two places would not do the same work.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
    time::Instant,
};

use serde::{Deserialize, Serialize};

/// Numbers mixed and sorted at once.
const NUMBERS: usize = 1 << 20;
/// How often every number is mixed before it is sorted. Little against the sorting: emulation is nearly as fast as a CPU where
/// there is neither a branch nor memory.
const MIXES: u64 = 4;
/// How often all that is done in one round, so that it takes about 0.3 s on a machine of today.
const SORTS: usize = 4;
/// One write and one read. Small, because each costs a way through all the layers.
const BLOCK: usize = 4096;
/// Blocks written and read back in one round: 32 MiB.
const BLOCKS: usize = 8192;
/// Blocks written between two waits for the disk.
const BLOCKS_A_SYNC: usize = 64;

/// What the work came to and how long it took, round by round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Times {
    /// What was computed: the same in every place, or it was not the same work.
    pub(crate) checksum: String,
    /// The CPU-bound work, milliseconds a round.
    pub(crate) cpu_ms: Vec<f64>,
    /// The I/O-bound work, milliseconds a round.
    pub(crate) io_ms: Vec<f64>,
}

/// Does the work so many times, with its file in `folder`, where nothing is left behind.
pub(crate) fn work(rounds: u16, folder: &Path) -> io::Result<Times> {
    let (mut checksum, mut cpu_ms, mut io_ms) = (0, Vec::new(), Vec::new());
    for round in 0..rounds {
        let began = Instant::now();
        let computed = compute(u64::from(round));
        cpu_ms.push(milliseconds(began));
        let began = Instant::now();
        let read = write_and_read(folder)?;
        io_ms.push(milliseconds(began));
        checksum = mix(checksum ^ computed).wrapping_add(read);
    }
    Ok(Times { checksum: format!("{checksum:016x}"), cpu_ms, io_ms })
}

impl Times {
    /// What the program printed, if it is the times of so many rounds.
    pub(crate) fn parse(text: &str, rounds: u16) -> Result<Self, String> {
        let times: Self = serde_json::from_str(text).map_err(|error| format!("it printed no times: {error}"))?;
        let complete = |times: &[f64]| times.len() == usize::from(rounds) && times.iter().all(|time| *time > 0.0);
        if complete(&times.cpu_ms) && complete(&times.io_ms) {
            Ok(times)
        } else {
            Err(format!("it did not print the times of {rounds} rounds: {}", reports::clean::line(text)))
        }
    }
}

fn milliseconds(since: Instant) -> f64 {
    // Whole microseconds: what is finer is noise.
    since.elapsed().as_micros() as f64 / 1000.0
}

/// CPU-bound: arithmetic, and sorting, which is branches and memory. Every sort begins with what the one before came to, so none
/// can be left out.
fn compute(seed: u64) -> u64 {
    let mut numbers: Vec<u64> = (0..NUMBERS as u64).collect();
    (0..SORTS).fold(seed, |seed, _| {
        for number in &mut numbers {
            *number = (0..MIXES).fold(*number ^ seed, |mixed, turn| mix(mixed ^ turn));
        }
        numbers.sort_unstable();
        // Depends on their order.
        numbers.iter().fold(0, |sum, number| mix(sum).wrapping_add(*number))
    })
}

/// The finalizer of SplitMix64.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// I/O-bound: small blocks written, waited for every so often, and read back from the disk. The sum of what was read.
fn write_and_read(folder: &Path) -> io::Result<u64> {
    // It has no name, so that it is gone even if we are killed.
    let mut file: File = tempfile::tempfile_in(folder)?;
    let mut block = [0; BLOCK];
    for number in 0..BLOCKS {
        block.fill(number as u8);
        file.write_all(&block)?;
        if (number + 1).is_multiple_of(BLOCKS_A_SYNC) {
            file.sync_data()?;
        }
    }
    // Else it is read from memory, and no layer below has anything to do.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    file.rewind()?;
    let mut sum = 0;
    for _ in 0..BLOCKS {
        file.read_exact(&mut block)?;
        sum += block.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rounds_come_to_the_same_result_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| work(1, folder.path()).unwrap());
        assert_eq!(one.checksum, other.checksum);
        assert_eq!((one.cpu_ms.len(), one.io_ms.len()), (1, 1));
        assert!(one.cpu_ms[0] > 0.0 && one.io_ms[0] > 0.0, "{one:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_the_times_of_every_round_are_taken_for_times() {
        let good = r#"{"checksum":"00ff","cpu_ms":[1.5,2.0],"io_ms":[3.0,4.25]}"#;
        assert_eq!(Times::parse(good, 2).unwrap().io_ms, [3.0, 4.25]);
        assert!(Times::parse(good, 3).unwrap_err().contains("of 3 rounds"));
        assert!(Times::parse(&good.replace("1.5", "0.0"), 2).is_err(), "a clock that stands still");
        assert!(Times::parse("", 2).unwrap_err().contains("no times"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(work(1, &folder.path().join("missing")).is_err());
    }
}
