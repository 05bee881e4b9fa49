//! Who is to blame when a cell comes to no verdict of its suite, and whether another guest may do better. One table, pure: the same for
//! guests on this machine and in an L1, and for the L1 itself.

use reports::{Phase, Verdict};

use crate::guest::Ended;

/// What ended a cell's attempt from outside of what ran in the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure<'a> {
    /// The guest runs no more.
    Guest(&'a Ended),
    /// The guest runs, and no longer answers over SSH, or lost the session.
    Unreachable,
    /// What came over the connection with it was no SSH, or nestmatrix failed to listen.
    Connection,
    /// QEMU runs, and no longer answers.
    QemuSilent,
    /// The fork was ended to make room for others.
    CrowdedOut,
    /// The machine that the guest ran on is lost.
    RunnerLost,
    /// A defect of ours: the task that ran the cell panicked.
    Panicked,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// What is tested: the cell has failed.
    Package,
    /// The system under it: an error.
    Image,
    /// This machine, QEMU or nestmatrix: an error.
    Harness,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Whose fault it is.
    pub(crate) blame: Blame,
    /// The phase that the verdict names.
    pub(crate) phase: Phase,
    /// Another guest may come to a verdict.
    pub(crate) retried: bool,
    /// What to do about it.
    pub(crate) help: Option<&'static str>,
}

impl Finding {
    /// The verdict, with this reason.
    pub(crate) fn verdict(&self, reason: String) -> Verdict {
        match self.blame {
            Blame::Package => Verdict::Failed { phase: self.phase, reason },
            Blame::Image | Blame::Harness => Verdict::Error { phase: self.phase, reason },
        }
    }
}

const CONSOLE: &str = "see its last words in console.log and screen.png";

/// What a failure in a phase means.
pub(crate) fn finding(failure: Failure<'_>, phase: Phase) -> Finding {
    let harness = |phase, help| Finding { blame: Blame::Harness, phase, retried: true, help };
    match failure {
        Failure::Guest(Ended::QemuGone { .. }) => {
            harness(phase, Some("see qemu.log; was QEMU killed, or out of memory?"))
        }
        Failure::Guest(Ended::HostDisk { full: true }) => harness(phase, Some("make room on the host's disk")),
        Failure::Guest(Ended::HostDisk { full: false }) => {
            harness(phase, Some("see qemu.log and the host's kernel log: its disk returns I/O errors"))
        }
        Failure::Connection => {
            harness(phase, Some("if it happens again it is a defect of nestmatrix: please report it"))
        }
        Failure::QemuSilent => harness(phase, Some("see qemu.log; was QEMU stopped, or is this machine overloaded?")),
        Failure::CrowdedOut => harness(
            Phase::Runner,
            Some("the next guest is booted and counts with all its memory; `runner.memory` says how much there is"),
        ),
        Failure::RunnerLost => harness(Phase::Runner, None),
        Failure::Panicked => Finding {
            retried: false,
            ..harness(Phase::Runner, Some("this is a defect of nestmatrix: please report it with the words above"))
        },
        Failure::Guest(Ended::Panicked { .. } | Ended::PoweredOff | Ended::Reset | Ended::Halted)
        | Failure::Unreachable => of_the_guest(phase),
    }
}

/// The guest did it itself.
fn of_the_guest(phase: Phase) -> Finding {
    let (blame, retried) = match phase {
        // Nothing of the package has run yet.
        Phase::Image | Phase::Runner | Phase::Boot | Phase::Connect | Phase::Prepare => (Blame::Image, true),
        // What is installed or tested took its guest down.
        Phase::Install | Phase::Test => (Blame::Package, false),
        // The suite had come to its end: nobody knows what did it.
        Phase::Collect => (Blame::Image, false),
    };
    Finding { blame, phase, retried, help: Some(CONSOLE) }
}

/// Whether another guest may come to a verdict where this one did not. An image that is not there is not there for it either.
pub(crate) fn may_do_better(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Error { phase, .. } if phase.is_infrastructure() && *phase != Phase::Image)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 8] = [
        Phase::Image,
        Phase::Runner,
        Phase::Boot,
        Phase::Connect,
        Phase::Prepare,
        Phase::Install,
        Phase::Test,
        Phase::Collect,
    ];

    /// Blame, phase of the verdict, retried: in each phase from runner to collect.
    fn row(failure: Failure<'_>) -> Vec<(Blame, Phase, bool)> {
        let found = PHASES[1..].iter().map(|phase| finding(failure, *phase));
        found.map(|Finding { blame, phase, retried, .. }| (blame, phase, retried)).collect()
    }

    /// The harness is to blame in every phase, under that phase's name, and another guest is tried.
    fn harness() -> Vec<(Blame, Phase, bool)> {
        PHASES[1..].iter().map(|phase| (Blame::Harness, *phase, true)).collect()
    }

    fn guest() -> Vec<(Blame, Phase, bool)> {
        let of = |phase| match phase {
            Phase::Install | Phase::Test => (Blame::Package, phase, false),
            Phase::Collect => (Blame::Image, phase, false),
            phase => (Blame::Image, phase, true),
        };
        PHASES[1..].iter().copied().map(of).collect()
    }

    #[test]
    fn a_qemu_that_is_gone_says_nothing_about_the_package_in_any_phase() {
        assert_eq!(row(Failure::Guest(&Ended::QemuGone { how: "signal: 9".into() })), harness());
    }

    #[test]
    fn a_connection_that_breaks_says_nothing_about_the_package_in_any_phase() {
        assert_eq!(row(Failure::Connection), harness());
    }

    #[test]
    fn a_qemu_that_does_not_answer_says_nothing_about_the_package_in_any_phase() {
        assert_eq!(row(Failure::QemuSilent), harness());
    }

    #[test]
    fn a_full_disk_of_the_host_says_nothing_about_the_package_in_any_phase() {
        assert_eq!(row(Failure::Guest(&Ended::HostDisk { full: true })), harness());
    }

    #[test]
    fn a_broken_disk_of_the_host_says_nothing_about_the_package_in_any_phase() {
        assert_eq!(row(Failure::Guest(&Ended::HostDisk { full: false })), harness());
    }

    #[test]
    fn a_fork_that_makes_room_for_others_is_tried_again_as_the_runners_fault() {
        assert_eq!(row(Failure::CrowdedOut), vec![(Blame::Harness, Phase::Runner, true); 7]);
    }

    #[test]
    fn what_ran_on_a_lost_runner_is_tried_again_whatever_phase_it_was_in() {
        assert_eq!(row(Failure::RunnerLost), vec![(Blame::Harness, Phase::Runner, true); 7]);
    }

    #[test]
    fn a_defect_of_ours_is_no_verdict_about_the_package_and_not_tried_again() {
        assert_eq!(row(Failure::Panicked), vec![(Blame::Harness, Phase::Runner, false); 7]);
    }

    #[test]
    fn a_kernel_panic_fails_the_package_only_while_it_is_installed_or_tested() {
        assert_eq!(row(Failure::Guest(&Ended::Panicked { words: None })), guest());
    }

    #[test]
    fn a_guest_that_powers_off_fails_the_package_only_while_it_is_installed_or_tested() {
        assert_eq!(row(Failure::Guest(&Ended::PoweredOff)), guest());
    }

    #[test]
    fn a_guest_that_reboots_fails_the_package_only_while_it_is_installed_or_tested() {
        assert_eq!(row(Failure::Guest(&Ended::Reset)), guest());
    }

    #[test]
    fn a_guest_that_halts_fails_the_package_only_while_it_is_installed_or_tested() {
        assert_eq!(row(Failure::Guest(&Ended::Halted)), guest());
    }

    #[test]
    fn a_guest_that_no_longer_answers_fails_the_package_only_while_it_is_installed_or_tested() {
        assert_eq!(row(Failure::Unreachable), guest());
    }

    #[test]
    fn no_failure_in_any_phase_is_green() {
        let ends = [
            Ended::Panicked { words: None },
            Ended::PoweredOff,
            Ended::Reset,
            Ended::Halted,
            Ended::HostDisk { full: true },
            Ended::HostDisk { full: false },
            Ended::QemuGone { how: String::new() },
        ];
        let failures = ends.iter().map(Failure::Guest).chain([
            Failure::Unreachable,
            Failure::Connection,
            Failure::QemuSilent,
            Failure::CrowdedOut,
            Failure::RunnerLost,
            Failure::Panicked,
        ]);
        for failure in failures {
            for phase in PHASES {
                let verdict = finding(failure, phase).verdict("why".into());
                assert!(matches!(verdict, Verdict::Failed { .. } | Verdict::Error { .. }), "{failure:?} in {phase}");
            }
        }
    }
}
