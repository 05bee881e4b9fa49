//! The event stream.
//!
//! One Event is one line of JSON in the journal (`events.jsonl`). Attempts are numbered from 1. Text in events may come from a
//! guest and is untrusted: every reader cleans it for its own format.

use matrix::{CellId, Digest};
use serde::{Deserialize, Serialize};

use crate::{CloudFacts, Ending, NetworkRequest, Phase, SystemFacts, TestCase, Trouble, Verdict};

/// Something that happened, with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Wall-clock time on the machine that observed it: for people.
    pub at: jiff::Timestamp,
    /// Milliseconds of a monotonic clock since the observing process began: for durations. Older journals lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ms: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A package that is installed in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPackage {
    /// Its name.
    pub name: String,
    /// Its version as the package manager writes it, such as `1:2.12-1`.
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
        /// Digest of what `repositories.lock` pinned, if its guests get that and no other packages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        locked: Option<Digest>,
    },
    /// Another process continues the run: the one before died or was interrupted. Cells without a verdict (or with not-run) are
    /// open again.
    RunResumed {
        /// Version of nestmatrix.
        version: String,
    },
    /// A machine that will run guests is being made ready. Comes after the images: its accelerator is proved with one of them.
    RunnerStarted {
        /// Counts the run's runners, from 1.
        runner: u32,
        /// `host`, `qemu`, `ssh` or `gce`.
        kind: String,
        /// Why this kind.
        reason: String,
    },
    /// Progress of a runner that is being made ready.
    RunnerProgress {
        /// Which.
        runner: u32,
        /// The message.
        message: String,
    },
    /// The machine of a runner that is created in a cloud exists, and costs money. At most once for a runner, before it is ready.
    MachineCreated {
        /// Which.
        runner: u32,
        /// What it is.
        machine: CloudFacts,
    },
    /// That machine is known to be gone. May come after the runner was lost. Without this event nobody knows that it is gone.
    MachineDeleted {
        /// Which.
        runner: u32,
        /// How long it existed, in milliseconds.
        held_ms: u64,
    },
    /// The machine that runs the guests is ready.
    RunnerReady {
        /// What it is.
        runner: RunnerFacts,
    },
    /// A runner is lost or could not be made ready: its cells are retried on another one.
    RunnerLost {
        /// Which.
        runner: u32,
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
    },
    /// A template is looked up, and made if it is missing: a guest is booted, prepared and frozen, to fork guests from.
    TemplateStarted {
        /// The runner it is made for.
        runner: u32,
        /// Identity of what it is made of.
        template: Digest,
        /// Name of its image in the matrix.
        image: String,
    },
    /// What is frozen as a template asked the proxy of its runner for something while it was prepared. One event for each request.
    TemplateRequested {
        /// The runner it is made on.
        runner: u32,
        /// Which.
        template: Digest,
        /// What it asked for, and what came of it.
        request: NetworkRequest,
    },
    /// A template is ready: guests can be forked from it.
    TemplateReady {
        /// The runner it is on.
        runner: u32,
        /// Which.
        template: Digest,
        /// It was in the store already.
        cached: bool,
        /// How long it took.
        elapsed_ms: u64,
        /// Measured memory of one fork in bytes, without pages shared with the template.
        cost: u64,
    },
    /// A template could not be made, or is useless now. Guests of its image are booted instead, unless they need its preparation.
    TemplateFailed {
        /// The runner it is on.
        runner: u32,
        /// Which.
        template: Digest,
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
        /// Time spent on it.
        elapsed_ms: u64,
        /// Its guests are booted instead: no preparation is needed, or it is on the disk that they are booted from.
        bootable: bool,
    },
    /// An image is being looked up, downloaded or built.
    ImageStarted {
        /// Catalog name.
        image: String,
    },
    /// Progress of an image.
    ImageProgress {
        /// Catalog name.
        image: String,
        /// The message.
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
    /// An image is not available: every cell on it ends as error(image).
    ImageFailed {
        /// Catalog name.
        image: String,
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
    },
    /// An attempt at a cell starts, on a fresh guest.
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
    /// Facts about the system in the guest. Those of a fork were collected when its template was made.
    SystemSeen {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// As the system states them.
        facts: SystemFacts,
    },
    /// The package was installed. Lists the installed packages, as the guest's package manager reports them afterwards.
    PackagesInstalled {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// One for each file that applied to this guest.
        packages: Vec<InstalledPackage>,
    },
    /// The guest asked the proxy of its runner for something. One event for each request, up to the limit that the harness sets for
    /// one attempt.
    NetworkRequested {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// The phase it began in.
        phase: Phase,
        /// What it asked for, and what came of it.
        request: NetworkRequest,
    },
    /// Requests of a phase beyond that limit: they are only counted.
    NetworkNotRecorded {
        /// Which.
        cell: CellId,
        /// From 1.
        attempt: u32,
        /// The phase they began in.
        phase: Phase,
        /// How many, since the last such event.
        count: u64,
    },
    /// A test case is about to run, so that a killed one is still named.
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
    /// A warning for people, without influence on verdicts.
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
        /// Its path, relative to the attempt's folder.
        path: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The guest was left running, for inspection.
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
        /// Its ending.
        #[serde(flatten)]
        ending: Ending,
        /// It is retried on a fresh guest.
        retried: bool,
    },
    /// A cell has its verdict. Exactly one per cell.
    CellFinished {
        /// Which.
        cell: CellId,
        /// The verdict of its last attempt, or not-run.
        #[serde(flatten)]
        verdict: Verdict,
    },
    /// The run was interrupted: cells that have not started stay not-run. Running cells finish after the first `SIGINT`, and are
    /// ended after any other signal.
    RunInterrupted {
        /// For example `SIGINT`.
        signal: String,
    },
    /// Last event of a run.
    RunFinished {
        /// Duration of the run.
        elapsed_ms: u64,
    },
}

/// A machine that ran guests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerFacts {
    /// Counts the run's runners, from 1.
    pub number: u32,
    /// `host`, `qemu`, `ssh` or `gce`.
    pub kind: String,
    /// Why this kind.
    pub reason: String,
    /// The accelerator of its guests: `kvm` or `tcg`.
    pub accelerator: String,
    /// Why this accelerator.
    pub accelerator_reason: String,
    /// Version of QEMU on it.
    pub qemu: String,
    /// Its kernel.
    pub kernel: String,
    /// Factor of all time limits (measured; 1.0: a machine with hardware virtualization).
    pub speed: f64,
    /// Memory of all guests together, in bytes.
    pub memory: u64,
    /// Virtual CPUs of all guests together.
    pub cpus: u32,
    /// Nesting depth of a guest, itself included, as far as visible from here: 1 on bare metal.
    pub depth: u32,
    /// The virtual machine that was booted for it; `None`: none was booted.
    pub l1: Option<L1Facts>,
    /// The steps of making it ready, in order.
    pub steps: Vec<StepTime>,
}

/// A virtual machine booted to run guests in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct L1Facts {
    /// Catalog name of its image.
    pub image: String,
    /// Digest of that image.
    pub digest: Digest,
    /// Its own accelerator: `kvm` or `tcg`.
    pub accelerator: String,
    /// How it runs virtual machines.
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

/// The duration of one step.
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
    /// `kvm` or `tcg`, as QEMU reports it (`query-kvm`).
    pub accelerator: String,
    /// Versioned machine type, for example `pc-q35-10.0`.
    pub machine: String,
    /// Process id of its QEMU, on its runner.
    pub pid: u32,
    /// How it was started. Older journals lack it: every guest was booted then.
    #[serde(default)]
    pub boot: Boot,
}

/// How a guest was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Boot {
    /// Booted.
    Cold {
        /// Why, if a fork was wanted, in one line; `None`: no fork was wanted.
        reason: Option<String>,
    },
    /// Forked from a template.
    Forked {
        /// The template: ready on the guest's runner.
        template: Digest,
    },
}

impl Default for Boot {
    fn default() -> Self {
        Self::Cold { reason: None }
    }
}
