//! What happened: the one stream of [`Event`]s and everything that reads it.
//!
//! The parts that run a plan only write Events. The journal on disk, the live terminal, JUnit, HTML, the summary and the exit
//! code are readers of that stream. This crate knows nothing of QEMU, SSH, images or processes; it depends on `matrix` because
//! the plan is the ledger: every cell in it must report.
//!
//! Events are folded into a [`Run`] (one plain function, [`Run::fold_one`]), and every output is rendered from that, so no two
//! outputs can disagree.

pub mod clean;
mod cloud;
mod correlation;
mod counts;
mod event;
pub mod evidence;
mod failures;
mod fold;
mod grid;
mod guests;
mod html;
mod human;
mod installed;
pub mod journal;
mod json_lines;
mod junit;
pub mod junit_import;
pub mod logs;
mod machine;
mod names;
mod network;
mod record;
mod regular;
pub mod render;
mod run;
mod summary;
mod system;
mod terminal;
mod trouble;
mod verdict;

pub use cloud::{CloudFacts, MachineRun};
pub use correlation::Correlation;
pub use counts::{Counts, Outcome, ReportedCase, Tally};
pub use event::{Boot, Event, EventKind, GuestFacts, InstalledPackage, L1Facts, RunnerFacts, StepTime};
pub use journal::{Damage, Journal, JournalError, JournalErrorKind};
pub use json_lines::JsonLines;
pub use names::UniqueNames;
pub use network::{
    ContentSource, NetworkRequest, NetworkRun, NetworkSummary, RefusedHost, RequestOutcome, RequestRun, Traffic,
};
pub use record::RunRecord;
pub use run::{
    Artifact, Attempt, CellRun, ImageRun, ImageState, KeptGuest, PackageName, PhaseRun, Run, RunnerLoss, RunnerRun,
    TemplateRun, TemplateState, attempt_folder,
};
pub use system::{Cgroups, Selinux, SystemFacts};
pub use terminal::{Terminal, TerminalStyle};
pub use trouble::{Blame, Ending, Fate, Retry, Trouble, TroubleKind};
pub use verdict::{CaseVerdict, Phase, TestCase, Verdict};
