//! Who may start now: admission by memory and CPU. Pure.
//!
//! What guests may take together is fixed before the first one starts. A guest that is booted counts with all the memory it has; a fork
//! with what forks of its template were seen to take, and with more as soon as it is seen to take more. So that one that grows does not take
//! what is not there, room for one whole guest stays free while forks are admitted; where several grow at once and that is not enough, the
//! youngest of them make room.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use matrix::{ByteSize, Guest};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    guest::{process_alive, process_start_time},
    template,
};

/// What QEMU itself needs beside a guest's memory (measured: 60-110 MiB of private pages for small guests).
const OVERHEAD: ByteSize = ByteSize::from_mib(128);

/// What one guest takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    memory: ByteSize,
    cpus: u32,
}

impl Cost {
    /// The cost of such a guest.
    pub fn of(guest: &Guest) -> Self {
        Self { memory: ByteSize::from_bytes(guest.memory.bytes().saturating_add(OVERHEAD.bytes())), cpus: guest.cpus }
    }

    /// The cost of a fork that takes so much memory for itself.
    pub fn of_fork(guest: &Guest, memory: ByteSize) -> Self {
        // Never more than if it shared nothing.
        Self { memory: memory.min(Self::of(guest).memory), cpus: guest.cpus }
    }

    /// Its memory, QEMU's own included.
    pub fn memory(&self) -> ByteSize {
        self.memory
    }
}

/// Which process a cell's guest is: its number and, because numbers are used again, when it started.
#[derive(Debug, Default)]
pub(super) struct GuestProcess(Mutex<Option<(u32, u64)>>);

/// What a cell was admitted with. A cell that was admitted for a fork and has to boot its guest asks again.
#[derive(Debug)]
pub(super) struct Admission {
    /// Which process its guest is.
    pub(super) process: Arc<GuestProcess>,
    /// It was admitted for a fork, and has not asked again.
    of_fork: AtomicBool,
    /// Set when its fork must make room for others.
    pub(super) make_room: CancellationToken,
    requests: mpsc::UnboundedSender<Request>,
}

/// A cell gives back what its fork would take and waits until a guest that is booted fits.
#[derive(Debug)]
pub(super) struct Request {
    /// That of its admission.
    pub(super) process: Arc<GuestProcess>,
    /// Completed when it fits; false: it never will.
    pub(super) fits: oneshot::Sender<bool>,
}

impl Admission {
    pub(super) fn new(of_fork: bool, requests: mpsc::UnboundedSender<Request>) -> Self {
        Self { process: Arc::default(), of_fork: of_fork.into(), make_room: CancellationToken::new(), requests }
    }

    /// Waits until its fork must make room, maybe forever: a guest that is booted never has to, it counts with all it can take.
    pub(super) async fn room_is_wanted(&self) {
        self.make_room.cancelled().await;
        if !self.is_of_fork() {
            std::future::pending().await
        }
    }

    /// It was admitted for a fork, and no guest of it was to be booted yet.
    pub(super) fn is_of_fork(&self) -> bool {
        self.of_fork.load(Ordering::Relaxed)
    }

    /// Waits until a guest may be booted. None of the cell's may run meanwhile. False: there will never be room.
    pub(super) async fn for_boot(&self) -> bool {
        self.process.rest();
        if !self.of_fork.swap(false, Ordering::Relaxed) {
            return true;
        }
        let (fits, answer) = oneshot::channel();
        // Without anybody who admits there is nobody to wait for.
        match self.requests.send(Request { process: Arc::clone(&self.process), fits }) {
            Ok(()) => answer.await.unwrap_or(true),
            Err(_) => true,
        }
    }
}

impl GuestProcess {
    /// There is no process any more.
    pub(super) fn rest(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// From now on at this process.
    pub(super) fn watch(&self, pid: u32) {
        let started = process_start_time(pid);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = started.map(|started| (pid, started));
    }

    /// Memory that its guest takes for itself, in bytes; `None`: it has none, or it has ended. Blocks: the kernel counts pages.
    pub(super) fn taken(&self) -> Option<u64> {
        let (pid, started) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        // Looked at afterwards: then what was counted was this process's.
        template::own_memory(pid).filter(|_| process_alive(pid, started))
    }
}

/// Which forks must go so that `excess` bytes come free: of those that run, the oldest first, what each takes in bytes. As few as
/// possible from the end, and `spare_first` never the first one.
pub(super) fn making_room(excess: u64, forks: &[u64], spare_first: bool) -> usize {
    let mut freed = 0;
    let may_go = forks.iter().skip(usize::from(spare_first)).rev();
    may_go
        .take_while(|bytes| {
            let wanted = freed < excess;
            freed += **bytes;
            wanted
        })
        .count()
}

/// What all guests together may take, and what they take now.
#[derive(Clone, Debug)]
pub struct Budget {
    memory: ByteSize,
    cpus: u32,
    jobs: usize,
    used_memory: u64,
    used_cpus: u32,
    running: usize,
}

impl Budget {
    /// At most `jobs` guests, with so much memory and so many CPUs together.
    pub fn new(memory: ByteSize, cpus: u32, jobs: usize) -> Self {
        Self { memory, cpus, jobs, used_memory: 0, used_cpus: 0, running: 0 }
    }

    /// Memory that all guests may take together.
    pub fn memory(&self) -> ByteSize {
        self.memory
    }

    /// Virtual CPUs that all guests may take together.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Could such a guest ever run?
    pub fn allows(&self, cost: Cost) -> bool {
        cost.memory <= self.memory
    }

    /// Takes what `cost` says if it fits now.
    ///
    /// A guest with more CPUs than the budget has runs when it is alone: its CPUs share, which is slow but not wrong; memory
    /// cannot be shared that way.
    pub fn take(&mut self, cost: Cost) -> bool {
        let memory = self.used_memory.saturating_add(cost.memory.bytes());
        let cpus = self.used_cpus.saturating_add(cost.cpus);
        let fits =
            self.running < self.jobs && memory <= self.memory.bytes() && (cpus <= self.cpus || self.running == 0);
        if fits {
            (self.used_memory, self.used_cpus, self.running) = (memory, cpus, self.running + 1);
        }
        fits
    }

    /// The same for a fork of a guest like this: only if one could grow to its full size and still fit.
    pub fn take_fork(&mut self, cost: Cost, guest: &Guest) -> bool {
        let grown = cost.memory.bytes().saturating_add(Cost::of(guest).memory.bytes());
        let reserve = if self.running == 0 { cost } else { Cost { memory: ByteSize::from_bytes(grown), ..cost } };
        self.clone().take(reserve) && self.take(cost)
    }

    /// A guest turned out to take this much: what follows is admitted by that.
    pub fn correct(&mut self, cost: &mut Cost, memory: ByteSize) {
        self.used_memory = self.used_memory.saturating_sub(cost.memory.bytes()).saturating_add(memory.bytes());
        cost.memory = memory;
    }

    /// By how much more than there is guests take now, in bytes.
    pub fn excess(&self) -> u64 {
        self.used_memory.saturating_sub(self.memory.bytes())
    }

    /// Gives back what [`Budget::take`] took.
    pub fn give_back(&mut self, cost: Cost) {
        self.used_memory = self.used_memory.saturating_sub(cost.memory.bytes());
        self.used_cpus = self.used_cpus.saturating_sub(cost.cpus);
        self.running = self.running.saturating_sub(1);
    }

    /// What [`Budget::take`] took for a guest that stays after its cell: all is given back but its memory.
    pub fn leave(&mut self, cost: Cost) {
        self.give_back(cost);
        self.used_memory = self.used_memory.saturating_add(cost.memory.bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(memory_mib: u64, cpus: u32) -> Cost {
        Cost { memory: ByteSize::from_mib(memory_mib), cpus }
    }

    #[test]
    fn a_guest_larger_than_the_machine_is_never_allowed() {
        let budget = Budget::new(ByteSize::from_mib(1024), 2, 9);
        assert!(budget.allows(cost(1024, 1)));
        assert!(!budget.allows(cost(1025, 1)));
    }

    #[test]
    fn a_guest_with_more_cpus_than_the_machine_runs_alone() {
        let mut budget = Budget::new(ByteSize::from_mib(4096), 2, 9);
        assert!(budget.take(cost(256, 4)));
        assert!(!budget.take(cost(256, 1)));
        budget.give_back(cost(256, 4));
        assert!(budget.take(cost(256, 1)));
        assert!(!budget.take(cost(256, 4)));
    }

    #[test]
    fn a_guest_that_is_kept_keeps_its_memory_but_neither_its_turn_nor_its_cpus() {
        let mut budget = Budget::new(ByteSize::from_mib(1024), 1, 1);
        assert!(budget.take(cost(600, 1)));
        budget.leave(cost(600, 1));
        assert!(!budget.take(cost(600, 1)), "the host would swap");
        assert!(budget.take(cost(400, 1)));
    }

    #[test]
    fn room_for_one_whole_guest_stays_free_while_forks_are_admitted() {
        let guest = Guest { memory: ByteSize::from_mib(512), ..Guest::default() };
        let fork = Cost::of_fork(&guest, ByteSize::from_mib(100));
        let mut budget = Budget::new(ByteSize::from_mib(1000), 9, 9);
        let admitted = (0..9).filter(|_| budget.take_fork(fork, &guest)).count();
        assert_eq!(admitted, 3, "300 MiB, and 640 for one that grows");
        let mut small = Budget::new(ByteSize::from_mib(650), 9, 9);
        assert!(small.take_fork(fork, &guest), "the first one may always");
        assert!(!small.take_fork(fork, &guest));
    }

    #[test]
    fn forks_are_admitted_by_what_they_take_and_one_that_grows_holds_up_the_next() {
        let guest = Guest { memory: ByteSize::from_mib(512), ..Guest::default() };
        let fork = |mib| Cost::of_fork(&guest, ByteSize::from_mib(mib));
        assert_eq!(fork(100).memory.mib(), 100);
        assert_eq!(fork(5000), Cost::of(&guest), "it cannot take more than all it has");
        let mut budget = Budget::new(ByteSize::from_mib(400), 9, 9);
        let mut first = fork(100);
        assert!(budget.take(first) && budget.take(fork(100)));
        budget.correct(&mut first, ByteSize::from_mib(250));
        assert!(!budget.take(fork(100)));
        budget.give_back(first);
        assert!(budget.take(fork(100)) && budget.take(fork(100)) && budget.take(fork(100)));
        assert!(!budget.take(fork(100)));
    }

    #[test]
    fn the_youngest_forks_make_room_and_no_more_of_them_than_must() {
        assert_eq!(making_room(0, &[5, 5, 5], true), 0);
        assert_eq!(making_room(5, &[9, 5, 5], true), 1);
        assert_eq!(making_room(6, &[9, 5, 5], true), 2);
        assert_eq!(making_room(60, &[9, 5, 5], true), 2, "alone it fits");
        assert_eq!(making_room(60, &[9, 5, 5], false), 3, "something else runs");
        assert_eq!(making_room(60, &[], true), 0);
        let mut budget = Budget::new(ByteSize::from_mib(400), 9, 9);
        let mut first = cost(100, 1);
        assert!(budget.take(first) && budget.take(cost(200, 1)));
        assert_eq!(budget.excess(), 0);
        budget.correct(&mut first, ByteSize::from_mib(250));
        assert_eq!(budget.excess(), 50 << 20);
    }

    #[test]
    fn a_process_that_has_ended_is_no_longer_measured_even_if_its_number_is_used_again() {
        let process = GuestProcess::default();
        assert_eq!(process.taken(), None);
        process.watch(std::process::id());
        assert!(process.taken().is_some_and(|bytes| bytes > 10_000));
        process.rest();
        assert_eq!(process.taken(), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        process.watch(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process.taken(), None);
        // The same number, another process: one that started at another time.
        *process.0.lock().unwrap() = Some((std::process::id(), 1));
        assert_eq!(process.taken(), None);
    }

    #[tokio::test]
    async fn only_a_cell_that_was_admitted_for_a_fork_makes_room() {
        let (requests, mut asked) = mpsc::unbounded_channel();
        let admission = Admission::new(true, requests);
        admission.make_room.cancel();
        admission.room_is_wanted().await;
        let answers = async { asked.recv().await.map(|request| request.fits.send(true)) };
        let (fits, answered) = tokio::join!(admission.for_boot(), answers);
        assert!(fits && answered.is_some_and(|sent| sent.is_ok()));
        assert!(!admission.is_of_fork(), "what it was admitted with now is all it can take");
        let wanted = tokio::time::timeout(std::time::Duration::from_millis(20), admission.room_is_wanted());
        wanted.await.expect_err("never");
    }

    proptest! {
        #[test]
        fn whatever_is_taken_and_given_back_the_limits_hold_and_nothing_starves(
            guests in prop::collection::vec((1u64..3000, 1u32..5), 1..40),
            jobs in 1usize..6,
        ) {
            let limit = 4096;
            let mut budget = Budget::new(ByteSize::from_mib(limit), 3, jobs);
            let mut waiting: Vec<Cost> = guests.iter().map(|&(memory, cpus)| cost(memory, cpus)).collect();
            let mut running: Vec<Cost> = Vec::new();
            while !waiting.is_empty() || !running.is_empty() {
                waiting.retain(|&guest| {
                    let started = budget.take(guest);
                    if started { running.push(guest); }
                    !started
                });
                prop_assert!(!running.is_empty(), "something must run");
                prop_assert!(running.len() <= jobs);
                prop_assert!(running.iter().map(|guest| guest.memory.mib()).sum::<u64>() <= limit);
                prop_assert!(running.len() == 1 || running.iter().map(|guest| guest.cpus).sum::<u32>() <= 3);
                budget.give_back(running.remove(0));
            }
        }
    }
}
