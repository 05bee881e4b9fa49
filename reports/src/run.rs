//! The state of a run: plain data, folded from the events (see [`crate::fold`]).
//!
//! Every text in here is cleaned ([`crate::clean`]) and bounded, so the renderers only escape it for their own format. A [`Run`]
//! is always the truth if the journal ended here: a cell that has not finished *is* not-run, so no reader can take silence for
//! success.

use std::{collections::HashMap, path::PathBuf};

use indexmap::IndexMap;
use jiff::Timestamp;
use matrix::{CellId, Digest, GceRunner, InstallFrom, SshHost, Step};
use serde::Serialize;

use crate::{
    GuestFacts, InstalledPackage, MachineRun, NetworkRun, Phase, RunnerFacts, SystemFacts, TestCase, Trouble, Verdict,
    fold::clock::Clock, human,
};

/// A run: the plan as a ledger, with its entries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Name of the run; `None`: it never started.
    pub run: Option<String>,
    /// Version of nestmatrix that ran it; if it was resumed, that of the last process.
    pub version: Option<String>,
    /// Digest of the plan.
    pub plan: Digest,
    /// The time of the run, as far as its events go.
    #[serde(skip)]
    pub(crate) clock: Clock,
    /// The matrix file, as the user named it.
    pub matrix: PathBuf,
    /// The machine that its guests run on, where that is reached with `ssh`.
    #[serde(skip)]
    pub(crate) host: Option<SshHost>,
    /// The machine that was asked for on Compute Engine, where its guests run on one.
    #[serde(skip)]
    pub(crate) gce: Option<GceRunner>,
    /// The package under test.
    pub package: Option<PackageName>,
    /// How often another process resumed it after a crash or an interrupt.
    pub resumed: u32,
    /// Digest of what `repositories.lock` pinned; `None`: its guests got what repositories offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Digest>,
    /// Its runners, in the order they were started: a lost one is followed by its replacement.
    pub runners: Vec<RunnerRun>,
    /// Its templates, in the order they were started.
    pub templates: Vec<TemplateRun>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When the last event happened.
    pub ended: Option<Timestamp>,
    /// Duration measured by the last process from its own start; `None`: the run has not ended. In a resumed run it excludes
    /// earlier processes and pauses, so reports show [`Run::duration_ms`].
    pub elapsed_ms: Option<u64>,
    /// The signal that stopped it, for example `SIGINT`; if there were several, the first and the last.
    pub interrupted: Option<String>,
    /// Warnings, without influence on verdicts.
    pub warnings: Vec<String>,
    /// Events that contradict the plan or each other. Not empty: the run is not green.
    pub contradictions: Vec<String>,
    /// Damaged lines of the journal. Not empty: the run is not green.
    pub damage: Vec<String>,
    /// Every image of the plan, in its order.
    pub images: Vec<ImageRun>,
    /// Every cell of the plan, in its order, exactly once.
    pub cells: Vec<CellRun>,
    /// Cell -> index in `cells`.
    #[serde(skip)]
    pub(crate) places: HashMap<CellId, usize>,
}

/// Name and version of the package under test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PackageName {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
}

/// A runner of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunnerRun {
    /// Counts the run's runners, from 1.
    pub number: u32,
    /// `host`, `qemu`, `ssh` or `gce`.
    pub kind: String,
    /// Why this kind.
    pub reason: String,
    /// When making it ready began.
    pub started: Timestamp,
    /// The same by the clock of the run.
    #[serde(skip)]
    pub(crate) began: u64,
    /// The last progress message.
    pub progress: Option<String>,
    /// The machine that was created for it; `None`: none was, as far as the journal says.
    pub machine: Option<MachineRun>,
    /// When it was ready; `None`: it never was.
    pub ready: Option<Timestamp>,
    /// From its start until it was ready.
    pub ready_after_ms: Option<u64>,
    /// Its facts, known once it is ready.
    pub facts: Option<RunnerFacts>,
    /// How it was lost, if it was.
    pub lost: Option<RunnerLoss>,
}

/// How a runner was lost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunnerLoss {
    /// When.
    pub at: Timestamp,
    /// The same by the clock of the run.
    #[serde(skip)]
    pub(crate) clock_ms: u64,
    /// Why.
    #[serde(flatten)]
    pub trouble: Trouble,
}

/// A template on one runner.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TemplateRun {
    /// Identity of what it is made of.
    pub template: Digest,
    /// Name of its image in the matrix.
    pub image: String,
    /// The runner it is on.
    pub runner: u32,
    /// When it was looked for.
    pub started: Timestamp,
    /// When it was ready; `None`: it never was.
    pub ready: Option<Timestamp>,
    /// What was fetched while it was prepared.
    pub network: NetworkRun,
    /// Its state.
    #[serde(flatten)]
    pub state: TemplateState,
}

/// The state of a template.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TemplateState {
    /// It was being looked up or made when the journal ended, or when its runner was lost.
    Freezing,
    /// Guests can be forked from it.
    Ready {
        /// It was there already.
        cached: bool,
        /// How long it took.
        elapsed_ms: u64,
        /// Measured memory of one fork in bytes; pages it shares with the template are not counted.
        cost: u64,
    },
    /// It could not be made, or became useless: guests of its image were booted.
    Failed {
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
        /// Time spent on it.
        elapsed_ms: u64,
    },
}

/// An image of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageRun {
    /// Its name in the matrix.
    pub name: String,
    /// The catalog entry it comes from.
    pub from: String,
    /// Its state.
    #[serde(flatten)]
    pub state: ImageState,
}

/// The state of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ImageState {
    /// It was not needed.
    Unused,
    /// It was being fetched or built when the journal ended.
    Preparing {
        /// The last progress message.
        message: Option<String>,
    },
    /// It is in the store and verified.
    Ready {
        /// Digest of its content.
        digest: Digest,
        /// It was in the store already.
        cached: bool,
        /// How long it took.
        elapsed_ms: u64,
    },
    /// It is not available.
    Failed(Trouble),
}

/// A cell of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellRun {
    /// Its identity.
    pub id: CellId,
    /// Its image's name.
    pub image: String,
    /// Its suite's name.
    pub suite: String,
    /// Axis name -> value.
    pub axes: IndexMap<String, String>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// How the package's artifacts are installed in it, if they are.
    pub install: InstallFrom,
    /// Its verdict; not-run until it has reported.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// It has reported.
    pub finished: bool,
    /// When its first attempt started; in a resumed run, the first one since then.
    pub started: Option<Timestamp>,
    /// When it reported.
    pub ended: Option<Timestamp>,
    /// [`CellRun::started`] by the clock of the run.
    #[serde(skip)]
    pub(crate) began: Option<u64>,
    /// From the start of that attempt to its end, or to the last event of an attempt.
    pub elapsed_ms: u64,
    /// Warnings, without influence on verdicts.
    pub warnings: Vec<String>,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
}

/// One attempt at a cell, on a fresh guest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it started.
    pub started: Timestamp,
    /// The same by the clock of the run.
    #[serde(skip)]
    pub(crate) began: u64,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// How long it took; `None`: it never ended.
    pub elapsed_ms: Option<u64>,
    /// Its ending; `None`: it has none.
    pub outcome: Option<Verdict>,
    /// It was retried, so its test cases do not count.
    pub retried: bool,
    /// Every phase it entered, in order.
    pub phases: Vec<PhaseRun>,
    /// Its virtual machine.
    pub guest: Option<GuestFacts>,
    /// The system in it; `None`: unknown.
    pub system: Option<SystemFacts>,
    /// Installed packages with their versions; empty: none, or unknown.
    pub installed: Vec<InstalledPackage>,
    /// What it asked the proxy of its runner for.
    pub network: NetworkRun,
    /// The test case that had started and not finished when it ended.
    pub running: Option<String>,
    /// Its test cases.
    pub cases: Vec<TestCase>,
    /// Why it is not green; `None`: it is green, or has not ended.
    pub trouble: Option<Trouble>,
    /// Files fetched from the guest.
    pub artifacts: Vec<Artifact>,
    /// The guest was left running.
    pub kept: Option<KeptGuest>,
}

/// A phase an attempt entered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseRun {
    /// Which.
    pub phase: Phase,
    /// When it was entered.
    pub started: Timestamp,
    /// From the start of the attempt until it was entered.
    pub after_ms: u64,
    /// Its time limit.
    pub timeout_ms: Option<u64>,
    /// How long it took; `None`: it never ended.
    pub elapsed_ms: Option<u64>,
}

/// A file fetched from the guest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Artifact {
    /// Its path in the attempt's folder, for people.
    pub path: String,
    /// The same as a relative URL from the folder of the run; `None`: the path leads out of the attempt's folder.
    pub href: Option<String>,
    /// Its size.
    pub bytes: u64,
}

/// A guest left running for inspection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptGuest {
    /// The command that enters it.
    pub ssh: String,
    /// The command that ends it.
    pub stop: String,
}

impl Run {
    /// Why the run as a whole cannot be trusted: damage of the journal, contradictions, a missing start or end.
    pub fn problems(&self) -> Vec<String> {
        let damage = self.damage.iter().map(|what| format!("{}: {what}", crate::journal::FILE_NAME));
        let mut problems: Vec<String> = damage.chain(self.contradictions.iter().cloned()).collect();
        if self.cells.is_empty() {
            problems.push("the plan has no cells".to_owned());
        }
        if self.run.is_none() {
            problems.push("the journal does not say that the run started".to_owned());
        }
        if self.elapsed_ms.is_none() {
            problems.push("the journal does not say that the run ended: it crashed or was killed".to_owned());
        }
        problems
    }

    /// Duration of the run in milliseconds: as its process measured it ([`Run::elapsed_ms`]). If the run was resumed, or has not
    /// ended, the time from its first event to its last, including pauses.
    pub fn duration_ms(&self) -> u64 {
        let measured = self.elapsed_ms.filter(|_| self.resumed == 0);
        measured.unwrap_or_else(|| self.clock.elapsed_ms())
    }

    /// [`Run::duration_ms`] for people.
    pub(crate) fn took(&self) -> String {
        let duration = human::duration(self.duration_ms());
        match self.resumed {
            0 => duration,
            resumed => format!("{duration} (resumed {}, pauses included)", human::count(resumed as usize, "time")),
        }
    }

    /// The package's name and version, or the matrix file's name if there is no package; and which packages its guests got, if they were
    /// pinned.
    pub fn title(&self) -> String {
        let what = match &self.package {
            Some(PackageName { name, version: Some(version) }) => format!("{name} {version}"),
            Some(PackageName { name, version: None }) => name.clone(),
            None => crate::clean::line(&self.matrix.to_string_lossy()),
        };
        match self.locked {
            Some(locked) => format!("{what} with the packages of repositories.lock ({})", locked.short()),
            None => what,
        }
    }

    /// A runner by its number.
    pub fn runner(&self, number: u32) -> Option<&RunnerRun> {
        self.runners.iter().find(|runner| runner.number == number)
    }

    /// A template on a runner; the last one if it was started there more than once.
    pub fn template(&self, runner: u32, template: Digest) -> Option<&TemplateRun> {
        self.templates.iter().rev().find(|known| (known.runner, known.template) == (runner, template))
    }

    /// The state of an image, by its name in the matrix.
    pub fn image(&self, name: &str) -> Option<&ImageRun> {
        self.images.iter().find(|image| image.name == name)
    }

    /// A cell by its id.
    pub fn cell(&self, id: &CellId) -> Option<&CellRun> {
        self.places.get(id).and_then(|place| self.cells.get(*place))
    }
}

impl RunnerRun {
    /// True if guests may run on it.
    pub const fn is_ready(&self) -> bool {
        self.facts.is_some() && self.lost.is_none()
    }
}

impl CellRun {
    /// The attempt whose test cases count: the last one.
    pub fn last_attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// `locale=C.UTF-8, memory=1GiB`, or nothing if the cell has no axes.
    pub fn axes_label(&self) -> String {
        let values: Vec<_> = self.axes.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
        values.join(", ")
    }
}

impl Attempt {
    /// The attempt's folder, relative to the run's: `cells/<cell>/attempt-<n>`.
    pub fn folder(&self, cell: &CellId) -> String {
        attempt_folder(cell, self.number)
    }

    /// The next step, if the attempt is not green and one is known.
    pub fn help(&self) -> Option<&str> {
        self.trouble.as_ref()?.help.as_deref()
    }

    /// Last lines of its console, if they may explain a failure.
    pub fn console_tail(&self) -> &[String] {
        self.trouble.as_ref().map_or(&[], |trouble| &trouble.evidence)
    }

    /// The phase that has started and not ended.
    pub fn current_phase(&self) -> Option<&PhaseRun> {
        self.phases.iter().rev().find(|run| run.elapsed_ms.is_none())
    }
}

/// The folder of an attempt, relative to the run's.
pub fn attempt_folder(cell: &CellId, attempt: u32) -> String {
    format!("cells/{cell}/attempt-{attempt}")
}
