//! Phases, verdicts and test cases.

use std::fmt;

use matrix::Step;
use serde::{Deserialize, Serialize};

/// The phases of a cell, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its disk is fetched or built.
    Image,
    /// The machine that runs the guests is made ready; the guest waits for memory and CPUs on it.
    Runner,
    /// The guest boots: from power-on to the SSH server's first bytes.
    Boot,
    /// SSH: handshake, authentication, a first command answered.
    Connect,
    /// The payload is uploaded, and the guest made ready for the package and the suite.
    Prepare,
    /// The package is installed with the guest's own package manager.
    Install,
    /// The guest reboots, with the changes of the package or the suite.
    Reboot,
    /// The suite runs.
    Test,
    /// Results and artifacts are fetched.
    Collect,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 9] = [
        Self::Image,
        Self::Runner,
        Self::Boot,
        Self::Connect,
        Self::Prepare,
        Self::Install,
        Self::Reboot,
        Self::Test,
        Self::Collect,
    ];

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Runner => "runner",
            Self::Boot => "boot",
            Self::Connect => "connect",
            Self::Prepare => "prepare",
            Self::Install => "install",
            Self::Reboot => "reboot",
            Self::Test => "test",
            Self::Collect => "collect",
        }
    }

    /// Infrastructure: a failure here says nothing about the package and is retried on a fresh guest.
    pub const fn is_infrastructure(self) -> bool {
        matches!(self, Self::Image | Self::Runner | Self::Boot | Self::Connect)
    }
}

impl From<Step> for Phase {
    fn from(step: Step) -> Self {
        match step {
            Step::Prepare => Self::Prepare,
            Step::Install => Self::Install,
            Step::Reboot => Self::Reboot,
            Step::Run => Self::Test,
            Step::Collect => Self::Collect,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The verdict of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Every test case passed or was skipped, and at least one passed.
    Passed,
    /// The package's fault: a test case failed, it did not install, it took the guest down.
    Failed {
        /// In which phase ([`Phase::Install`], [`Phase::Reboot`] or [`Phase::Test`]; [`Phase::Collect`] if its results are missing).
        phase: Phase,
        /// One line.
        reason: String,
    },
    /// Nothing was tested, with a reason.
    Skipped {
        /// One line.
        reason: String,
    },
    /// The fault of the image, the machine or the harness: no statement about the package.
    Error {
        /// In which phase.
        phase: Phase,
        /// One line.
        reason: String,
    },
    /// It never reported.
    NotRun {
        /// One line.
        reason: String,
    },
}

impl Verdict {
    /// The word used in every output.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Error { .. } => "error",
            Self::NotRun { .. } => "not-run",
        }
    }

    /// The reason, where there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed { reason, .. }
            | Self::Skipped { reason }
            | Self::Error { reason, .. }
            | Self::NotRun { reason } => Some(reason),
        }
    }

    /// The phase, where there is one.
    pub const fn phase(&self) -> Option<Phase> {
        match self {
            Self::Failed { phase, .. } | Self::Error { phase, .. } => Some(*phase),
            Self::Passed | Self::Skipped { .. } | Self::NotRun { .. } => None,
        }
    }
}

/// One verdict inside a cell: the suite's exit code, or one case of the results it left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestCase {
    /// Unique within its cell.
    pub name: String,
    /// Its verdict.
    #[serde(flatten)]
    pub verdict: CaseVerdict,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// The source file of the test, as the suite's own results name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// The verdict of a test case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum CaseVerdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed {
        /// One line.
        message: String,
        /// More lines, may be empty.
        detail: String,
    },
    /// It was skipped.
    Skipped {
        /// One line.
        reason: String,
    },
}
