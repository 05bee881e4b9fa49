//! What a run came to: plain data, folded from the events (see [`crate::fold`] for how).
//!
//! Every text in here has been cleaned ([`crate::clean`]) and cut to a bounded size on its way in, so the renderers only escape
//! it for their own format. At any moment a [`Run`] says what would be true if the journal ended there: a cell that has not
//! finished *is* not-run, so no reader can take silence for success.

use std::{collections::HashMap, path::PathBuf};

use indexmap::IndexMap;
use jiff::Timestamp;
use matrix::{CellId, Digest, Step};
use serde::Serialize;

use crate::{
    GuestFacts, InstalledPackage, Phase, RunnerFacts, SystemFacts, TestCase, Trouble, Verdict, fold::clock::Clock,
    human,
};

/// A run: the plan as a ledger, and what was entered in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Name of the run; `None`: it never started.
    pub run: Option<String>,
    /// Version of nestmatrix that ran it; where it was resumed, that of the last process.
    pub version: Option<String>,
    /// Digest of the plan.
    pub plan: Digest,
    /// The time of the run, as far as its events go.
    #[serde(skip)]
    pub(crate) clock: Clock,
    /// The matrix file, as it was named.
    pub matrix: PathBuf,
    /// The package under test.
    pub package: Option<PackageName>,
    /// How often it was continued by another process after the one before had died or was interrupted.
    pub resumed: u32,
    /// The machines its guests ran on, in the order they were started: a lost one is followed by the one that replaced it.
    pub runners: Vec<RunnerRun>,
    /// The templates that guests were or were to be forked from, in the order they were started.
    pub templates: Vec<TemplateRun>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When the last event happened.
    pub ended: Option<Timestamp>,
    /// What the process that ended the run measured from its own start; `None`: no process said that the run ended. Where the
    /// run was resumed it leaves out the processes before and the pauses between, so reports show [`Run::duration_ms`].
    pub elapsed_ms: Option<u64>,
    /// The signal that stopped it, for example `SIGINT`; where there were several, the first and the last.
    pub interrupted: Option<String>,
    /// What a person should know that decides nothing.
    pub warnings: Vec<String>,
    /// Events that contradict the plan or each other. Not empty: the run is not green.
    pub contradictions: Vec<String>,
    /// What in the journal was not understood, or does not follow from what is before it. Not empty: the run is not green.
    pub damage: Vec<String>,
    /// Every image of the plan, in its order.
    pub images: Vec<ImageRun>,
    /// Every cell of the plan, in its order, exactly once.
    pub cells: Vec<CellRun>,
    /// Cell -> place in `cells`.
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

/// What became of a machine that was to run guests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunnerRun {
    /// Counts the run's runners, from 1.
    pub number: u32,
    /// `host` or `qemu`.
    pub kind: String,
    /// Why this kind.
    pub reason: String,
    /// When making it ready began.
    pub started: Timestamp,
    /// The same by the clock of the run.
    #[serde(skip)]
    pub(crate) began: u64,
    /// The last line said about it while it was made ready.
    pub progress: Option<String>,
    /// When it was ready; `None`: it never was.
    pub ready: Option<Timestamp>,
    /// From its start until it was ready.
    pub ready_after_ms: Option<u64>,
    /// What it is, known once it is ready.
    pub facts: Option<RunnerFacts>,
    /// It went away or could not be made ready.
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

/// What became of a template on one runner.
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
    /// What became of it.
    #[serde(flatten)]
    pub state: TemplateState,
}

/// What became of a template.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TemplateState {
    /// It was looked for or being made when the journal ended, or when its runner was lost.
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
    /// It could not be made, or was of no use any more: guests of its image were booted.
    Failed {
        /// Why.
        #[serde(flatten)]
        trouble: Trouble,
        /// How long was tried.
        elapsed_ms: u64,
    },
}

/// What became of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageRun {
    /// Its name in the matrix.
    pub name: String,
    /// The catalog entry it comes from.
    pub from: String,
    /// What became of it.
    #[serde(flatten)]
    pub state: ImageState,
}

/// What became of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ImageState {
    /// Nobody asked for it.
    Unused,
    /// It was being fetched or built when the journal ended.
    Preparing {
        /// The last line said about it.
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
    /// It could not be had.
    Failed(Trouble),
}

/// What became of a cell.
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
    /// What is done with its guest, in this order.
    pub steps: Vec<Step>,
    /// What is said of it; not-run until it has reported.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// It has reported.
    pub finished: bool,
    /// When its first attempt started; where the run was resumed for it, the first one since.
    pub started: Option<Timestamp>,
    /// When it reported.
    pub ended: Option<Timestamp>,
    /// [`CellRun::started`] by the clock of the run.
    #[serde(skip)]
    pub(crate) began: Option<u64>,
    /// From the start of that attempt to its end, or to the last that was heard of an attempt.
    pub elapsed_ms: u64,
    /// What a person should know that decides nothing.
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
    /// What it came to; `None`: it never said.
    pub outcome: Option<Verdict>,
    /// It was tried again, so its test cases do not count.
    pub retried: bool,
    /// Every phase it entered, in order.
    pub phases: Vec<PhaseRun>,
    /// Its virtual machine.
    pub guest: Option<GuestFacts>,
    /// The system in it; `None`: it was not heard of, or journals of before did not say.
    pub system: Option<SystemFacts>,
    /// What was installed in it of the package, with its versions; empty: nothing, or nothing is known of it.
    pub installed: Vec<InstalledPackage>,
    /// The test case that had started and not finished when it ended.
    pub running: Option<String>,
    /// Its test cases.
    pub cases: Vec<TestCase>,
    /// Why it is not green; `None`: it is, or it never said what it came to.
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
    /// Where it lies in the attempt's folder, for people.
    pub path: String,
    /// The same as a relative URL from the folder of the run; `None`: its path leads out of the attempt's folder.
    pub href: Option<String>,
    /// Its size.
    pub bytes: u64,
}

/// A guest left running for a person to look into.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptGuest {
    /// The command that enters it.
    pub ssh: String,
    /// The command that ends it.
    pub stop: String,
}

impl Run {
    /// Why the run as a whole cannot be trusted: a journal that was damaged, contradictions, and a beginning or an end that is
    /// missing.
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

    /// How long the run took, in milliseconds: what its process measured ([`Run::elapsed_ms`]). Where the run was resumed, or
    /// never said that it ended, the time from its first event to its last, pauses included.
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

    /// The package's name and version, or the matrix file's name if there is no package.
    pub fn title(&self) -> String {
        match &self.package {
            Some(PackageName { name, version: Some(version) }) => format!("{name} {version}"),
            Some(PackageName { name, version: None }) => name.clone(),
            None => crate::clean::line(&self.matrix.to_string_lossy()),
        }
    }

    /// A runner by its number.
    pub fn runner(&self, number: u32) -> Option<&RunnerRun> {
        self.runners.iter().find(|runner| runner.number == number)
    }

    /// A template on a runner; where it was started there more than once, the last time counts.
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
    /// Guests may run on it.
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

    /// The next step, where the attempt is not green and one is known.
    pub fn help(&self) -> Option<&str> {
        self.trouble.as_ref()?.help.as_deref()
    }

    /// Last lines of its console, where they may explain a failure.
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
