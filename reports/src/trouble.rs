//! What failed: one type for every cell, guest, template, image and runner that did not finish, and one table of the
//! consequences. The same for every kind of runner.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Phase, Verdict};

/// What failed, where, with evidence and the next step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What failed. Older journals lack it.
    #[serde(default)]
    pub kind: TroubleKind,
    /// The phase.
    #[serde(default = "runner")]
    pub phase: Phase,
    /// One line: what failed, and the measured value against its limit, if there is one.
    pub reason: String,
    /// Last lines of the console, or of the tool that failed.
    #[serde(default, alias = "console_tail", alias = "tail")]
    pub evidence: Vec<String>,
    /// The next step.
    #[serde(default)]
    pub help: Option<String>,
}

const fn runner() -> Phase {
    Phase::Runner
}

/// What failed. [`TroubleKind::fate`] is the table of consequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleKind {
    /// The guest's kernel panicked.
    GuestPanicked,
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The guest rebooted without an announcement.
    GuestRebooted,
    /// All of the guest's CPUs halted with interrupts off.
    GuestHalted,
    /// The guest runs but is unreachable over SSH, or lost the session.
    GuestUnreachable,
    /// The guest rebooted too often: before its boot was over, or by its suite.
    RebootLoop,
    /// A phase reached its time limit.
    Timeout,
    /// The guest answered something unexpected.
    Unexpected,
    /// The image is not available.
    ImageMissing,
    /// No guest of this image can be used.
    ImageUnusable,
    /// The package does not install.
    NotInstalled,
    /// It is unknown whether the package installs.
    InstallUnknown,
    /// A repository could not be used: it is unreachable, expired, its signature is wrong, or what it sent is not what its
    /// metadata says.
    RepositoryFailed,
    /// Another program holds the package manager's lock.
    PackageManagerLocked,
    /// The suite could not be started.
    SuiteNotStarted,
    /// A test failed.
    TestFailed,
    /// The guest asked for a host that the policy does not allow, and the matrix says that this is a failure.
    UnexpectedRequest,
    /// The suite left none of the results it declares.
    ResultsMissing,
    /// The suite's results did not arrive, or cannot be read.
    ResultsUnreadable,
    /// This machine failed: a file, a key, a process.
    Host,
    /// QEMU ended by itself.
    QemuGone,
    /// QEMU runs but does not answer.
    QemuSilent,
    /// The host's disk is full.
    HostDiskFull,
    /// The host's disk returns I/O errors.
    HostDiskBroken,
    /// The connection did not speak SSH, or nestmatrix failed to listen.
    ConnectionBroken,
    /// Out of memory: a fork was ended to make room for others.
    MemoryReclaimed,
    /// Out of memory: kept guests take the memory that this one needs.
    NoMemory,
    /// The machine that the guest ran on is lost.
    RunnerLost,
    /// No machine of this kind can be used.
    RunnerUnusable,
    /// KVM does not work in this kind of L1.
    KvmUnusable,
    /// The template could not be made.
    NoTemplate,
    /// The template is useless: no fork of it can run.
    TemplateBroken,
    /// A fork did not run, possibly because of the template.
    ForkFailed,
    /// A defect of nestmatrix.
    Defect,
    /// It was interrupted.
    Interrupted,
    /// Unknown.
    #[default]
    Unknown,
}

/// Who is to blame. Decides the verdict, and so the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// What is tested: failed, exit code 1.
    Package,
    /// The system under it: error, exit code 3.
    Image,
    /// This machine, QEMU or nestmatrix: error, exit code 3.
    Harness,
    /// It was not finished: not-run, exit code 3 (130 if the run was interrupted).
    Nobody,
}

/// What may succeed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: the next one fails in the same way.
    Never,
    /// A fresh guest, or a fresh runner of the same kind.
    Fresh,
    /// A runner of another kind.
    OtherRunner,
}

/// The consequences of a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Who is to blame.
    pub blame: Blame,
    /// What is retried.
    pub retry: Retry,
}

const QEMU_LOG: &str = "see qemu.log";
const REPORT: &str = "this is a defect of nestmatrix: please report it with the message above";

impl TroubleKind {
    /// The table: the consequences of this kind of failure in this phase.
    pub const fn fate(self, phase: Phase) -> Fate {
        let (blame, retry) = match self {
            Self::GuestPanicked
            | Self::GuestPoweredOff
            | Self::GuestRebooted
            | Self::GuestHalted
            | Self::GuestUnreachable => match phase {
                // The package has not run yet.
                Phase::Image | Phase::Runner | Phase::Boot | Phase::Connect | Phase::Prepare => {
                    (Blame::Image, Retry::Fresh)
                }
                // The package or the suite took its guest down, or broke its boot.
                Phase::Install | Phase::Reboot | Phase::Test => (Blame::Package, Retry::Never),
                // The suite had ended: the cause is unknown.
                Phase::Collect => (Blame::Image, Retry::Never),
            },
            Self::Timeout | Self::Unexpected => match phase {
                Phase::Runner | Phase::Boot | Phase::Connect => (Blame::Image, Retry::Fresh),
                Phase::Image | Phase::Prepare | Phase::Install | Phase::Reboot | Phase::Test | Phase::Collect => {
                    (Blame::Image, Retry::Never)
                }
            },
            Self::RebootLoop => match phase {
                Phase::Install | Phase::Reboot | Phase::Test => (Blame::Package, Retry::Never),
                // Another guest of this image reboots as often.
                Phase::Image | Phase::Runner | Phase::Boot | Phase::Connect | Phase::Prepare | Phase::Collect => {
                    (Blame::Image, Retry::Never)
                }
            },
            Self::ImageMissing
            | Self::ImageUnusable
            | Self::InstallUnknown
            | Self::RepositoryFailed
            | Self::SuiteNotStarted
            | Self::ResultsUnreadable
            | Self::NoTemplate => (Blame::Image, Retry::Never),
            // The lock may be free in the next guest.
            Self::PackageManagerLocked => (Blame::Image, Retry::Fresh),
            Self::NotInstalled | Self::TestFailed | Self::UnexpectedRequest | Self::ResultsMissing => {
                (Blame::Package, Retry::Never)
            }
            Self::Host
            | Self::QemuGone
            | Self::QemuSilent
            | Self::HostDiskFull
            | Self::HostDiskBroken
            | Self::ConnectionBroken
            | Self::MemoryReclaimed
            | Self::RunnerLost
            | Self::TemplateBroken
            | Self::ForkFailed => (Blame::Harness, Retry::Fresh),
            Self::KvmUnusable => (Blame::Harness, Retry::OtherRunner),
            Self::RunnerUnusable | Self::Defect | Self::Unknown => (Blame::Harness, Retry::Never),
            Self::Interrupted | Self::NoMemory => (Blame::Nobody, Retry::Never),
        };
        Fate { blame, retry }
    }

    /// The next step, if nothing more specific is known.
    const fn help(self) -> Option<&'static str> {
        Some(match self {
            Self::GuestPanicked | Self::GuestPoweredOff | Self::GuestHalted | Self::GuestUnreachable => {
                "see the end of console.log, and screen.png"
            }
            Self::GuestRebooted => {
                "see the end of console.log; a suite that is meant to reboot its guest says so with `reboot = true`"
            }
            Self::RepositoryFailed => "see install.log; `dependencies = \"artifacts\"` installs without repositories",
            Self::UnexpectedRequest => "report.html lists the requests of each cell",
            Self::QemuGone => "see qemu.log; was QEMU killed, or out of memory?",
            Self::QemuSilent => "see qemu.log; was QEMU stopped, or is this machine overloaded?",
            Self::HostDiskFull => "make room on the host's disk",
            Self::HostDiskBroken => "see qemu.log and the host's kernel log: its disk returns I/O errors",
            Self::ConnectionBroken => "if it happens again it is a defect of nestmatrix: please report it",
            Self::MemoryReclaimed => {
                "the next guest is booted and counts with all its memory; `runner.memory` sets the limit"
            }
            Self::TemplateBroken | Self::ForkFailed => QEMU_LOG,
            Self::Defect => REPORT,
            _ => return None,
        })
    }

    /// The phase it is counted in.
    const fn counted_in(self, phase: Phase) -> Phase {
        match self {
            Self::MemoryReclaimed | Self::RunnerLost | Self::Defect => Phase::Runner,
            _ => phase,
        }
    }
}

impl Trouble {
    /// A trouble in this phase, for this reason; with the help of its kind.
    pub fn new(kind: TroubleKind, phase: Phase, reason: impl Into<String>) -> Self {
        let help = kind.help().map(str::to_owned);
        Self { kind, phase: kind.counted_in(phase), reason: reason.into(), evidence: Vec::new(), help }
    }

    /// With this next step.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With these last lines of a console or a tool.
    #[must_use]
    pub fn with_evidence(mut self, evidence: Vec<String>) -> Self {
        self.evidence = evidence;
        self
    }

    /// The same as the cause of another failure: `what: reason`.
    #[must_use]
    pub fn within(mut self, what: &str) -> Self {
        self.reason = format!("{what}: {}", self.reason);
        self
    }

    /// Its consequences.
    pub const fn fate(&self) -> Fate {
        self.kind.fate(self.phase)
    }

    /// True if a fresh guest, or a fresh runner of the same kind, may succeed.
    pub fn may_pass(&self) -> bool {
        self.fate().retry == Retry::Fresh
    }

    /// The verdict of a cell that ended with it.
    pub fn verdict(&self) -> Verdict {
        let (phase, reason) = (self.phase, self.reason.clone());
        match self.fate().blame {
            Blame::Package => Verdict::Failed { phase, reason },
            Blame::Image | Blame::Harness => Verdict::Error { phase, reason },
            Blame::Nobody => Verdict::NotRun { reason },
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Recorded", try_from = "Recorded")]
pub enum Ending {
    /// Its test cases passed.
    Passed,
    /// Nothing was tested, with a reason.
    Skipped {
        /// One line.
        reason: String,
    },
    /// It failed, or has no verdict.
    Troubled(Trouble),
}

impl Ending {
    /// The verdict of the cell if no other attempt follows.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Passed => Verdict::Passed,
            Self::Skipped { reason } => Verdict::Skipped { reason: reason.clone() },
            Self::Troubled(trouble) => trouble.verdict(),
        }
    }

    /// The trouble, if it is not green.
    pub const fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Passed | Self::Skipped { .. } => None,
            Self::Troubled(trouble) => Some(trouble),
        }
    }
}

/// An [`Ending`] in the journal: with the verdict, for people and programs without the table.
#[derive(Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
enum Recorded {
    Passed,
    Skipped { reason: String },
    Failed(Trouble),
    Error(Trouble),
    NotRun(Trouble),
}

impl From<Ending> for Recorded {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Passed => Self::Passed,
            Ending::Skipped { reason } => Self::Skipped { reason },
            Ending::Troubled(trouble) => match trouble.fate().blame {
                Blame::Package => Self::Failed(trouble),
                Blame::Image | Blame::Harness => Self::Error(trouble),
                Blame::Nobody => Self::NotRun(trouble),
            },
        }
    }
}

impl TryFrom<Recorded> for Ending {
    type Error = String;

    fn try_from(recorded: Recorded) -> Result<Self, String> {
        // Older journals have the verdict alone.
        let known = |trouble: Trouble, kind: TroubleKind| match trouble.kind {
            TroubleKind::Unknown => Trouble { kind, ..trouble },
            _ => trouble,
        };
        let (trouble, said) = match recorded {
            Recorded::Passed => return Ok(Self::Passed),
            Recorded::Skipped { reason } => return Ok(Self::Skipped { reason }),
            Recorded::Failed(trouble) => (known(trouble, TroubleKind::TestFailed), "failed"),
            Recorded::Error(trouble) => (trouble, "error"),
            Recorded::NotRun(trouble) => (known(trouble, TroubleKind::Interrupted), "not-run"),
        };
        match trouble.verdict().name() {
            name if name == said => Ok(Self::Troubled(trouble)),
            name => Err(format!("the verdict is {said}, but {:?} in phase {} is {name}", trouble.kind, trouble.phase)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (Blame, Retry);

    const GUESTS_DOING: [TroubleKind; 5] = [
        TroubleKind::GuestPanicked,
        TroubleKind::GuestPoweredOff,
        TroubleKind::GuestRebooted,
        TroubleKind::GuestHalted,
        TroubleKind::GuestUnreachable,
    ];

    /// The fate in every phase.
    fn row(kind: TroubleKind) -> Vec<Row> {
        Phase::ALL.iter().map(|phase| kind.fate(*phase)).map(|Fate { blame, retry }| (blame, retry)).collect()
    }

    fn everywhere(blame: Blame, retry: Retry) -> Vec<Row> {
        vec![(blame, retry); Phase::ALL.len()]
    }

    /// One test for each row.
    macro_rules! rows {
        ($($name:ident: $kind:ident => $blame:ident, $again:ident;)*) => {
            $(#[test]
            fn $name() {
                assert_eq!(row(TroubleKind::$kind), everywhere(Blame::$blame, Retry::$again));
            })*

            /// Every kind with a row that is the same in all phases.
            const SAME_EVERYWHERE: &[TroubleKind] = &[$(TroubleKind::$kind),*];
        };
    }

    rows! {
        an_image_that_cannot_be_had_is_not_there_for_the_next_guest_either: ImageMissing => Image, Never;
        an_unusable_image_is_unusable_for_the_next_guest_too: ImageUnusable => Image, Never;
        a_template_that_cannot_be_made_is_no_verdict_about_the_package: NoTemplate => Image, Never;
        an_installation_that_nobody_understands_is_an_error: InstallUnknown => Image, Never;
        a_repository_that_cannot_be_used_is_no_verdict_about_the_package: RepositoryFailed => Image, Never;
        a_suite_that_cannot_be_started_is_no_verdict_about_the_package: SuiteNotStarted => Image, Never;
        results_that_cannot_be_read_are_an_error: ResultsUnreadable => Image, Never;
        a_locked_package_manager_is_tried_again: PackageManagerLocked => Image, Fresh;
        a_package_that_does_not_install_has_failed: NotInstalled => Package, Never;
        a_failed_test_has_failed: TestFailed => Package, Never;
        a_request_that_the_matrix_forbids_is_a_failure: UnexpectedRequest => Package, Never;
        a_suite_without_its_results_has_failed: ResultsMissing => Package, Never;
        what_this_machine_fails_to_do_is_tried_again: Host => Harness, Fresh;
        a_qemu_that_is_gone_says_nothing_about_the_package: QemuGone => Harness, Fresh;
        a_qemu_that_does_not_answer_says_nothing_about_the_package: QemuSilent => Harness, Fresh;
        a_full_disk_of_the_host_says_nothing_about_the_package: HostDiskFull => Harness, Fresh;
        a_broken_disk_of_the_host_says_nothing_about_the_package: HostDiskBroken => Harness, Fresh;
        a_broken_connection_says_nothing_about_the_package: ConnectionBroken => Harness, Fresh;
        a_fork_that_gave_its_memory_away_is_tried_again: MemoryReclaimed => Harness, Fresh;
        what_ran_on_a_lost_runner_is_tried_again: RunnerLost => Harness, Fresh;
        a_broken_template_says_nothing_about_the_package: TemplateBroken => Harness, Fresh;
        a_fork_that_does_not_run_says_nothing_about_the_package: ForkFailed => Harness, Fresh;
        where_kvm_does_not_work_another_kind_of_runner_may: KvmUnusable => Harness, OtherRunner;
        an_unusable_runner_is_not_tried_again: RunnerUnusable => Harness, Never;
        a_defect_of_ours_is_not_tried_again: Defect => Harness, Never;
        what_nobody_recorded_is_an_error: Unknown => Harness, Never;
        what_was_interrupted_did_not_run: Interrupted => Nobody, Never;
        what_found_no_memory_did_not_run: NoMemory => Nobody, Never;
    }

    #[test]
    fn a_guest_that_goes_down_fails_the_package_only_while_it_is_installed_or_tested_or_boots_again() {
        for kind in GUESTS_DOING {
            let (image, package) = ((Blame::Image, Retry::Fresh), (Blame::Package, Retry::Never));
            let collect = (Blame::Image, Retry::Never);
            assert_eq!(row(kind), [image, image, image, image, image, package, package, package, collect], "{kind:?}");
        }
    }

    #[test]
    fn a_reboot_loop_is_the_packages_fault_once_it_is_in_the_guest_and_never_retried() {
        let (image, package) = ((Blame::Image, Retry::Never), (Blame::Package, Retry::Never));
        let expected = [image, image, image, image, image, package, package, package, image];
        assert_eq!(row(TroubleKind::RebootLoop), expected);
    }

    #[test]
    fn a_time_limit_or_an_odd_answer_is_an_error_and_tried_again_before_the_package_is_in_the_guest() {
        for kind in [TroubleKind::Timeout, TroubleKind::Unexpected] {
            let (retry, never) = ((Blame::Image, Retry::Fresh), (Blame::Image, Retry::Never));
            assert_eq!(row(kind), [never, retry, retry, retry, never, never, never, never, never], "{kind:?}");
        }
    }

    fn all() -> impl Iterator<Item = TroubleKind> {
        let others = [TroubleKind::Timeout, TroubleKind::Unexpected, TroubleKind::RebootLoop];
        SAME_EVERYWHERE.iter().copied().chain(GUESTS_DOING).chain(others)
    }

    #[test]
    fn every_kind_has_a_row() {
        // serde lists all names, so this counts one more than the kinds here and fails.
        let unknown = serde_json::from_str::<TroubleKind>("\"none\"").expect_err("no kind").to_string();
        let known = unknown.matches('`').count() / 2 - 1;
        let listed: std::collections::HashSet<_> = all().collect();
        assert_eq!(listed.len(), known, "{unknown}");
    }

    #[test]
    fn a_run_ends_with_1_only_for_what_the_package_did() {
        let failing = all().flat_map(|kind| Phase::ALL.map(|phase| Trouble::new(kind, phase, "why")));
        let failing = failing.filter(|trouble| matches!(trouble.verdict(), Verdict::Failed { .. }));
        let kinds: std::collections::HashSet<_> = failing.map(|trouble| trouble.kind).collect();
        // A suite that keeps rebooting is in a loop, too.
        let package = [
            TroubleKind::NotInstalled,
            TroubleKind::TestFailed,
            TroubleKind::UnexpectedRequest,
            TroubleKind::ResultsMissing,
            TroubleKind::RebootLoop,
        ];
        assert_eq!(kinds, package.into_iter().chain(GUESTS_DOING).collect());
    }

    #[test]
    fn what_happens_to_a_runner_is_counted_there_whatever_its_cell_did() {
        for kind in [TroubleKind::RunnerLost, TroubleKind::MemoryReclaimed, TroubleKind::Defect] {
            assert_eq!(Trouble::new(kind, Phase::Test, "why").phase, Phase::Runner, "{kind:?}");
        }
        assert_eq!(Trouble::new(TroubleKind::QemuGone, Phase::Test, "why").phase, Phase::Test);
    }

    #[test]
    fn whoever_cannot_use_a_repository_is_told_how_to_do_without() {
        let help = Trouble::new(TroubleKind::RepositoryFailed, Phase::Install, "its signature is wrong").help;
        let expected = "see install.log; `dependencies = \"artifacts\"` installs without repositories";
        assert_eq!(help.as_deref(), Some(expected));
    }

    #[test]
    fn every_ending_is_read_back_as_it_was() {
        let troubles = all().flat_map(|kind| Phase::ALL.map(|phase| Trouble::new(kind, phase, "why")));
        let endings = troubles.map(Ending::Troubled).chain([Ending::Passed, Ending::Skipped { reason: "no".into() }]);
        for ending in endings {
            let text = serde_json::to_string(&ending).expect("JSON");
            assert_eq!(serde_json::from_str::<Ending>(&text).expect(&text), ending);
        }
    }

    #[test]
    fn a_verdict_that_does_not_follow_from_its_trouble_is_refused() {
        let read = |text: &str| serde_json::from_str::<Ending>(text).map_err(|error| error.to_string());
        let text = r#"{"verdict":"failed","kind":"qemu-gone","phase":"test","reason":"why"}"#;
        insta::assert_snapshot!(read(text).unwrap_err(), @"the verdict is failed, but QemuGone in phase test is error");
        assert!(
            read(r#"{"verdict":"passed","kind":"test-failed","phase":"test","reason":"why"}"#)
                .is_ok_and(|ending| ending == Ending::Passed)
        );
        assert!(read(r#"{"verdict":"error","kind":"sunspots","phase":"test","reason":"why"}"#).is_err());
    }

    #[test]
    fn journals_of_before_there_were_kinds_keep_their_verdicts_and_their_evidence() {
        let read = |text: &str| serde_json::from_str::<Ending>(text).expect(text);
        let old = read(
            r#"{"verdict":"failed","phase":"install","reason":"no","console_tail":["a"],"help":"read install.log"}"#,
        );
        let trouble = old.trouble().expect("a trouble");
        assert_eq!((&*trouble.evidence, trouble.help.as_deref()), (&["a".to_owned()][..], Some("read install.log")));
        assert_eq!(old.verdict(), Verdict::Failed { phase: Phase::Install, reason: "no".into() });
        let error = read(r#"{"verdict":"error","phase":"boot","reason":"no","console_tail":[],"help":null}"#);
        assert_eq!(error.verdict(), Verdict::Error { phase: Phase::Boot, reason: "no".into() });
        let stopped = read(r#"{"verdict":"not-run","reason":"interrupted","console_tail":[],"help":null}"#);
        assert_eq!(stopped.verdict(), Verdict::NotRun { reason: "interrupted".into() });
    }
}
