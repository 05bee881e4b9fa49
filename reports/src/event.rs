//! The one stream of events.
//!
//! One Event is one line of JSON in the journal (`events.jsonl`). Attempts are numbered from 1. Text in events may come from
//! a guest and is never trusted: every reader cleans it for its own format.

use matrix::{CellId, Digest};
use serde::{Deserialize, Serialize};

use crate::{Ending, Phase, SystemFacts, TestCase, Trouble, Verdict};

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Wall-clock time on the machine that saw it: for people.
    pub at: jiff::Timestamp,
    /// Milliseconds since the process that saw it began to tell, by a clock that nobody sets: for durations. Journals of before
    /// there was one do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ms: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A package that a guest's package manager has installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPackage {
    /// Its name.
    pub name: String,
    /// Its version as that package manager writes it, such as `1:2.12-1`.
    pub version: String,
}

impl std::fmt::Display for InstalledPackage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// First event of a run. The plan lies beside the journal as `plan.json`.
    RunStarted {
        /// Name of the run (also of its folder unless `--out` was given).
        run: String,
        /// Digest of the plan.
        plan: Digest,
        /// Version of nestmatrix.
        version: String,
    },
    /// The run is continued by another process: the one before died or was interrupted. Cells without a verdict (not-run is
    /// none) are open again.
    RunResumed {
        /// Version of nestmatrix.
        version: String,
    },
    /// A machine that will run guests is being made ready. Comes after the images: its accelerator is proved with one of them.
    RunnerStarted {
        /// Counts the run's runners, from 1.
        runner: u32,
        /// `host` or `qemu`.
        kind: String,
        /// Why this kind.
        reason: String,
    },
    /// A line about a runner in the making.
    RunnerProgress {
        /// Which.
        runner: u32,
        /// What is going on.
        message: String,
    },
    /// The machine that runs the guests is ready.
    RunnerReady {
        /// What it is.
        runner: RunnerFacts,
    },
    /// A runner is gone or could not be made ready: what ran on it is tried again on another one.
    RunnerLost {
        /// Which.
        runner: u32,
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
    },
    /// A template is looked for, and made where there is none: a guest is booted, prepared and frozen, to fork guests from.
    TemplateStarted {
        /// The runner it is made on, and whose guests are forked from it.
        runner: u32,
        /// Identity of what it is made of.
        template: Digest,
        /// Name of its image in the matrix.
        image: String,
    },
    /// Guests can be forked from a template.
    TemplateReady {
        /// The runner it is on.
        runner: u32,
        /// Which.
        template: Digest,
        /// It was there already.
        cached: bool,
        /// How long it took.
        elapsed_ms: u64,
        /// Measured memory of one fork in bytes; pages it shares with the template are not counted.
        cost: u64,
    },
    /// A template could not be made, or is of no use any more. Guests of its image are booted instead, unless they had to be prepared.
    TemplateFailed {
        /// The runner it is on.
        runner: u32,
        /// Which.
        template: Digest,
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
        /// How long was tried.
        elapsed_ms: u64,
        /// Its guests are booted instead: nothing had to be prepared, or it is on the disk that they are booted from.
        bootable: bool,
    },
    /// An image is being looked up, fetched or built.
    ImageStarted {
        /// Catalog name.
        image: String,
    },
    /// A line about an image in the making.
    ImageProgress {
        /// Catalog name.
        image: String,
        /// What is going on.
        message: String,
    },
    /// An image is in the store and verified.
    ImageReady {
        /// Catalog name.
        image: String,
        /// Digest of its content.
        digest: Digest,
        /// It was in the store already.
        cached: bool,
        /// How long it took.
        elapsed_ms: u64,
    },
    /// An image could not be had: every cell on it ends as error(image).
    ImageFailed {
        /// Catalog name.
        image: String,
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
    },
    /// A cell is tried on a fresh guest.
    AttemptStarted {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
    },
    /// A cell enters a phase.
    PhaseStarted {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// The phase.
        phase: Phase,
        /// Its time limit, already scaled.
        timeout_ms: Option<u64>,
    },
    /// A cell leaves a phase.
    PhaseFinished {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// The phase.
        phase: Phase,
        /// How long it took.
        elapsed_ms: u64,
    },
    /// The guest's virtual machine exists.
    GuestStarted {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// What it is.
        guest: GuestFacts,
    },
    /// What the system in the guest is. A fork's was asked for when its template was made.
    SystemSeen {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// In its own words.
        facts: SystemFacts,
    },
    /// The package was installed. What is there now, as the guest's package manager says after it.
    PackagesInstalled {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// One for each file that was for this guest.
        packages: Vec<InstalledPackage>,
    },
    /// A test case is about to run: one that is killed is still named.
    TestStarted {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// [`TestCase::name`].
        name: String,
    },
    /// A test case has a verdict.
    TestFinished {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// The verdict.
        case: TestCase,
    },
    /// Something a person should know that decides nothing.
    Warning {
        /// The cell it is about, if it is about one.
        cell: Option<CellId>,
        /// One line.
        message: String,
    },
    /// A file was fetched from the guest.
    ArtifactCollected {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// Where it lies, relative to the attempt's folder.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// The guest was left running for a person to look into.
    GuestKept {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// The command that enters it.
        ssh: String,
        /// The command that ends it.
        stop: String,
    },
    /// An attempt is over and its guest is gone (or kept).
    AttemptFinished {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// What it came to.
        #[serde(flatten)]
        ending: Ending,
        /// It will be tried again on a fresh guest.
        retried: bool,
    },
    /// A cell is over. Exactly one per cell.
    CellFinished {
        /// Which.
        cell: CellId,
        /// What is said of it: the verdict of its last attempt, or not-run.
        #[serde(flatten)]
        verdict: Verdict,
    },
    /// Somebody asked us to stop: what has not started stays not-run. What runs comes to its end after the first `SIGINT`,
    /// and is ended after any other signal.
    RunInterrupted {
        /// For example `SIGINT`.
        signal: String,
    },
    /// Last event of a run.
    RunFinished {
        /// From start to here.
        elapsed_ms: u64,
    },
}

/// Where guests of a run ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerFacts {
    /// Counts the run's runners, from 1.
    pub number: u32,
    /// `host` or `qemu`.
    pub kind: String,
    /// Why this one.
    pub reason: String,
    /// What its guests are run with: `kvm` or `tcg`.
    pub accelerator: String,
    /// Why this one.
    pub accelerator_reason: String,
    /// Version of QEMU on it.
    pub qemu: String,
    /// Its kernel.
    pub kernel: String,
    /// All time limits are multiplied by this (measured; 1.0: a machine with hardware virtualization).
    pub speed: f64,
    /// Memory the guests may take together, in bytes.
    pub memory: u64,
    /// Virtual CPUs the guests may take together.
    pub cpus: u32,
    /// How many virtual machines a guest lies in, itself included, as far as it can be seen from here: 1 on bare metal.
    pub depth: u32,
    /// The virtual machine that was booted for it; `None`: it is the machine nestmatrix was started on.
    pub l1: Option<L1Facts>,
    /// What making it ready took, in order.
    pub steps: Vec<StepTime>,
}

/// A virtual machine booted to run guests in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct L1Facts {
    /// Catalog name of its image.
    pub image: String,
    /// Digest of that image.
    pub digest: Digest,
    /// What it is run with itself: `kvm` or `tcg`.
    pub accelerator: String,
    /// How it can run virtual machines of its own.
    pub nesting: String,
    /// Versioned machine type.
    pub machine: String,
    /// Version of the QEMU that runs it.
    pub qemu: String,
    /// Kernel of the machine it runs on.
    pub host_kernel: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its virtual CPUs.
    pub cpus: u32,
    /// Process id of its QEMU.
    pub pid: u32,
}

/// How long one step took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// For example `boot`.
    pub step: String,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// One virtual machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestFacts {
    /// The runner it ran on.
    pub runner: u32,
    /// Digest of the image below its overlay.
    pub image: Digest,
    /// `kvm` or `tcg`, as QEMU itself says (`query-kvm`).
    pub accelerator: String,
    /// Versioned machine type, for example `pc-q35-10.0`.
    pub machine: String,
    /// Process id of its QEMU, on its runner.
    pub pid: u32,
    /// How it came to be. Journals of before there were forks do not say: every guest was booted.
    #[serde(default)]
    pub boot: Boot,
}

/// How a guest came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Boot {
    /// It was booted.
    Cold {
        /// Why it was, although a fork was wanted, in one line; `None`: nobody wanted one.
        reason: Option<String>,
    },
    /// It was forked from a template.
    Forked {
        /// Which: ready on the runner the guest is on.
        template: Digest,
    },
}

impl Default for Boot {
    fn default() -> Self {
        Self::Cold { reason: None }
    }
}
