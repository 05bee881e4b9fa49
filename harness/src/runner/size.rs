//! How large an L1 is: a plain function of the plan and of the machine it is to be booted on.

use matrix::{ByteSize, Plan};

use crate::fanout::Cost;

/// What an L1 needs besides its guests: its own system, and what is never given to guests (see [`crate::host::Machine::spare`]) ...
const OWN: ByteSize = ByteSize::from_mib(1024);
/// ... and, for every so many bytes of its guests, one more: its kernel keeps a record of each page (a 64th).
const RECORDS: u64 = 48;
/// What the QEMU of an L1 takes besides the L1's memory, and what it takes more where it translates its code (QEMU's default size of
/// the translation cache).
const QEMU: ByteSize = ByteSize::from_mib(128);
const TRANSLATION: ByteSize = ByteSize::from_mib(1024);
/// Scratch disk for the guests' overlays; it is sparse.
const SCRATCH: ByteSize = ByteSize::from_mib(64 << 10);
/// An L1 that takes all there is to spare takes a multiple of this.
const STEP: ByteSize = ByteSize::from_mib(256);
/// Guests that share the one CPU of an emulated L1: while one waits for a timer, the other runs.
const EMULATED_GUESTS: u32 = 2;

/// An L1's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Its memory.
    pub(crate) memory: ByteSize,
    /// Its virtual CPUs.
    pub(crate) cpus: u32,
    /// Virtual CPUs its guests may take together.
    pub(crate) guest_cpus: u32,
    /// Its scratch disk.
    pub(crate) scratch: ByteSize,
    /// What was asked for and is not done.
    pub(crate) warning: Option<String>,
}

/// This machine cannot provide an L1 of the size that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TooLarge {
    /// The matrix asks for more than there is.
    Asked {
        /// What it asks for, with what the L1 itself needs.
        asked: ByteSize,
    },
    /// A cell's guest does not fit.
    Cell {
        /// Which.
        cell: String,
        /// What it needs, with what the L1 itself needs.
        needed: ByteSize,
    },
}

/// What is there to take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supply {
    /// Memory the machine can spare.
    pub(crate) spare: ByteSize,
    /// Its CPUs.
    pub(crate) cpus: u32,
    /// The L1's CPU would be emulated.
    pub(crate) emulated: bool,
}

/// What the guests of a plan cost, the largest first.
fn costs(plan: &Plan) -> Vec<u64> {
    let mut costs: Vec<u64> = plan.cells.iter().map(|cell| Cost::of(&cell.guest).memory().bytes()).collect();
    costs.sort_unstable_by(|one, other| other.cmp(one));
    costs
}

/// What the largest of them that can run at once take together.
fn together(costs: &[u64], guest_cpus: u32, jobs: Option<usize>) -> u64 {
    let at_once = usize::try_from(guest_cpus).unwrap_or(usize::MAX).min(jobs.unwrap_or(usize::MAX)).max(1);
    costs.iter().take(at_once).fold(0_u64, |sum, cost| sum.saturating_add(*cost))
}

/// Memory of an L1 whose guests take so many bytes.
fn with_own(bytes: u64) -> ByteSize {
    ByteSize::from_bytes(bytes.saturating_add(bytes / RECORDS).saturating_add(OWN.bytes()))
}

/// Memory of an L1 with so many CPUs for this plan: what the matrix asks for, else what can run at once takes.
pub(crate) fn memory(plan: &Plan, cpus: u32, jobs: Option<usize>) -> ByteSize {
    with_own(plan.runner.memory.map_or_else(|| together(&costs(plan), cpus, jobs), |memory| memory.bytes()))
}

/// The least memory of an L1 for this plan, and the cell that needs it.
pub(crate) fn least_memory(plan: &Plan) -> Option<(ByteSize, &matrix::CellId)> {
    let cell = plan.cells.iter().max_by_key(|cell| Cost::of(&cell.guest).memory())?;
    Some((with_own(Cost::of(&cell.guest).memory().bytes()), &cell.id))
}

/// The size of the L1 for this plan.
pub(crate) fn size(plan: &Plan, jobs: Option<usize>, supply: Supply) -> Result<Size, TooLarge> {
    let Supply { spare, cpus, emulated } = supply;
    let qemu = QEMU.bytes() + if emulated { TRANSLATION.bytes() } else { 0 };
    let spare = ByteSize::from_bytes(spare.bytes().saturating_sub(qemu));
    let asked = plan.runner.cpus.unwrap_or(cpus);
    // QEMU 10.0's emulated SVM loses guests of an L1 with several CPUs, or the L1 itself, in most runs (measured); with one, none.
    let (cpus, guest_cpus) =
        if emulated { (1, EMULATED_GUESTS.max(plan.runner.cpus.unwrap_or(0))) } else { (asked, asked) };
    let warning = (emulated && plan.runner.cpus.is_some_and(|asked| asked > 1))
        .then(|| format!("the L1 has 1 CPU and not {asked}: emulated nested virtualization is not reliable with more"));
    let costs = costs(plan);
    let wanted = together(&costs, guest_cpus, jobs);
    let memory = match plan.runner.memory {
        Some(memory) if with_own(memory.bytes()) > spare => {
            return Err(TooLarge::Asked { asked: with_own(memory.bytes()) });
        }
        Some(memory) => with_own(memory.bytes()),
        None if with_own(wanted) <= spare => with_own(wanted),
        // In coarse steps: what a machine can spare changes by the second, and an L1 that was frozen has the size it had.
        None => {
            let least = with_own(costs.first().copied().unwrap_or_default()).min(spare);
            ByteSize::from_bytes(spare.bytes() - spare.bytes() % STEP.bytes()).max(least)
        }
    };
    let needed = |cell: &matrix::Cell| with_own(Cost::of(&cell.guest).memory().bytes());
    if let Some(cell) = plan.cells.iter().find(|cell| needed(cell) > memory) {
        let needed = needed(cell);
        return Err(TooLarge::Cell { cell: cell.id.to_string(), needed });
    }
    // QEMU takes whole mebibytes.
    let memory = ByteSize::from_mib(memory.bytes().div_ceil(1 << 20));
    Ok(Size { memory, cpus, guest_cpus, scratch: plan.runner.disk.unwrap_or(SCRATCH), warning })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(runner: &str) -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let text = format!(
            "images = ['a', 'b', 'c']\n[runner]\n{runner}\n[guest]\nmemory = '512MiB'\n[[suite]]\nname = 's'\ninline = 'true'\n"
        );
        std::fs::write(&file, text).unwrap();
        matrix::load(&file, &["a", "b", "c"]).unwrap().plan
    }

    fn supply(spare_mib: u64, emulated: bool) -> Supply {
        Supply { spare: ByteSize::from_mib(spare_mib), cpus: 8, emulated }
    }

    #[test]
    fn an_l1_has_room_for_what_can_run_at_once_and_for_itself() {
        // A guest of 512 MiB takes 640 with its QEMU.
        let emulated = size(&plan(""), None, supply(20_000, true)).unwrap();
        assert_eq!((emulated.cpus, emulated.guest_cpus, emulated.memory.mib()), (1, 2, 1024 + 2 * 640 + 27));
        let kvm = size(&plan(""), None, supply(20_000, false)).unwrap();
        assert_eq!((kvm.cpus, kvm.guest_cpus, kvm.memory.mib()), (8, 8, 1024 + 3 * 640 + 40));
        assert_eq!(size(&plan(""), Some(1), supply(20_000, false)).unwrap().memory.mib(), 1024 + 640 + 14);
        assert_eq!(size(&plan(""), None, supply(2128, false)).unwrap().memory.mib(), 1792, "never more than there is");
        assert_eq!(size(&plan(""), None, supply(1850, false)).unwrap().memory.mib(), 1678, "just enough for one");
    }

    #[test]
    fn what_is_asked_for_is_what_guests_get() {
        let asked = size(&plan("memory = '4GiB'\ncpus = 4\ndisk = '1GiB'"), None, supply(20_000, false)).unwrap();
        assert_eq!((asked.cpus, asked.memory.mib(), asked.scratch.mib()), (4, 4096 + 1024 + 86, 1024));
        assert_eq!(asked.warning, None);
    }

    #[test]
    fn an_emulated_l1_has_one_cpu_and_says_so_if_more_were_asked_for() {
        let size = size(&plan("cpus = 4"), None, supply(20_000, true)).unwrap();
        assert_eq!((size.cpus, size.guest_cpus), (1, 4));
        assert!(size.warning.unwrap().contains("not 4"));
    }

    #[test]
    fn more_than_there_is_cannot_be_had() {
        let asked = size(&plan("memory = '4GiB'"), None, supply(5000, false)).unwrap_err();
        assert!(matches!(asked, TooLarge::Asked { asked } if asked.mib() == (5 << 10) + 85), "{asked:?}");
        let cell = size(&plan(""), None, supply(1700, false)).unwrap_err();
        assert!(matches!(&cell, TooLarge::Cell { cell, needed } if cell == "a.s" && needed.mib() == 1677), "{cell:?}");
    }
}
