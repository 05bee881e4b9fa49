//! Phase test: the suite's script, in its own process group.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    guarded::{self, Ended, Guarded},
    interpreter, words,
};
use crate::ssh::{DEFAULT_CAP, End, Exit, Session, Sink, SshError};

/// How long what a suite left behind must be quiet before no more is heard of it: its exit code is known.
const QUIET: Duration = Duration::from_secs(1);
/// The exit code of a test that chose not to run (automake's convention).
const SKIPPED: i32 = 77;

/// How to run the uploaded script.
#[derive(Clone, Copy, Debug)]
pub struct Suite<'a> {
    /// Where its standard output goes, on this machine.
    pub stdout: &'a Path,
    /// Where its standard error goes, on this machine.
    pub stderr: &'a Path,
    /// When it must be over.
    pub deadline: Instant,
    /// How long its processes have between TERM and KILL at the deadline (already scaled).
    pub grace: Duration,
    /// How often it has rebooted its guest, and so was run before; `None`: it may not do that.
    pub reboots: Option<u32>,
}

impl<'a> Suite<'a> {
    /// One that is just run.
    pub const fn new((stdout, stderr): (&'a Path, &'a Path), deadline: Instant, grace: Duration) -> Self {
        Self { stdout, stderr, deadline, grace, reboots: None }
    }

    fn sink(&self, path: &Path) -> Sink {
        let run = self.reboots.filter(|reboots| *reboots > 0);
        let after = run.map(|run| format!("[nestmatrix: the guest was rebooted, run {} follows]", run + 1));
        Sink::File { path: path.to_owned(), cap: DEFAULT_CAP, after }
    }
}

/// How the script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuiteOutcome {
    /// It exited with this code; 0 is a pass.
    Exited(i32),
    /// It exited with 77: it chose not to run, and its last line of output says why.
    Skipped {
        /// Its last line of output.
        reason: String,
    },
    /// It was killed by this signal (a name without `SIG`).
    Signal(String),
    /// It was still running at the deadline and was killed, with everything it had started.
    TimedOut {
        /// Something survived, or the guest no longer took orders.
        leftovers: bool,
    },
    /// It could not be started in this guest, for no fault of what it tests.
    NotStarted {
        /// What is in the way.
        reason: String,
        /// What to do about it.
        help: &'static str,
    },
}

impl SuiteOutcome {
    /// A script that rebooted its guest may end like this: by itself, because `reboot` does not wait, or killed with the rest, as a shell
    /// tells of it, too. Any other end is its own word.
    pub fn may_be_a_reboot(&self) -> bool {
        const ENDED: [(i32, &str); 4] = [(129, "HUP"), (137, "KILL"), (141, "PIPE"), (143, "TERM")];
        match self {
            Self::Exited(code) => *code == 0 || ENDED.iter().any(|(known, _)| known == code),
            Self::Signal(name) => ENDED.iter().any(|(_, known)| known == name),
            Self::Skipped { .. } | Self::TimedOut { .. } | Self::NotStarted { .. } => false,
        }
    }
}

/// What came of a script.
#[derive(Clone, Debug)]
pub struct SuiteRun {
    /// How it ended.
    pub outcome: SuiteOutcome,
    /// How long it ran.
    pub elapsed: Duration,
    /// The end of its standard output.
    pub stdout_tail: Vec<u8>,
    /// The end of its standard error.
    pub stderr_tail: Vec<u8>,
    /// Bytes it wrote to standard output.
    pub stdout_bytes: u64,
    /// Bytes it wrote to standard error.
    pub stderr_bytes: u64,
    /// What went wrong on our side of the streams.
    pub warnings: Vec<String>,
}

/// Runs the uploaded script. It is over when its main process is; what it left running is not waited for.
///
/// # Errors
/// The connection's ([`SshError::is_connection_lost`]: ask the virtual machine why) or the cancellation. Everything the script
/// did itself is an outcome.
pub async fn run(session: &Session, suite: &Suite<'_>) -> Result<SuiteRun, SshError> {
    let mut run = SuiteRun {
        outcome: SuiteOutcome::TimedOut { leftovers: false },
        elapsed: Duration::ZERO,
        stdout_tail: Vec::new(),
        stderr_tail: Vec::new(),
        stdout_bytes: 0,
        stderr_bytes: 0,
        warnings: Vec::new(),
    };
    let started = Instant::now();
    let ended = guarded::run(
        session,
        Guarded {
            script: "start",
            run: suite.reboots,
            stdout: suite.sink(suite.stdout),
            stderr: suite.sink(suite.stderr),
            deadline: suite.deadline,
            grace: suite.grace,
            quiet: QUIET,
        },
    )
    .await?;
    run.elapsed = started.elapsed();
    let exit = match ended {
        Ended::Itself(exit) => {
            run.outcome = outcome(&exit);
            Some(exit)
        }
        Ended::TimedOut { exit, leftovers } => {
            run.outcome = SuiteOutcome::TimedOut { leftovers };
            exit
        }
    };
    if let Some(exit) = exit {
        run.stdout_tail = exit.stdout_tail;
        run.stderr_tail = exit.stderr_tail;
        run.stdout_bytes = exit.stdout_bytes;
        run.stderr_bytes = exit.stderr_bytes;
        run.warnings.extend(exit.warnings);
    }
    Ok(run)
}

fn outcome(exit: &Exit) -> SuiteOutcome {
    match &exit.end {
        End::Exited(SKIPPED) => {
            let said = words::last_lines(&exit.stdout_tail, 1).pop();
            let reason =
                said.map_or_else(|| "it exited with 77 without a word".to_owned(), |line| line.trim().to_owned());
            SuiteOutcome::Skipped { reason }
        }
        End::Exited(code) => match interpreter::missing(*code, &exit.stderr_tail) {
            Some(missing) => SuiteOutcome::NotStarted {
                reason: format!("interpreter {missing} of the suite's script is not in the guest"),
                help: "install it with `prepare.packages` of the image, change the first line of the script, or exclude the image",
            },
            None => SuiteOutcome::Exited(*code),
        },
        End::Killed(signal) => SuiteOutcome::Signal(reports::clean::line(signal)),
        // No log is cut short; and what is not heard to its end has not passed.
        End::Cut => SuiteOutcome::Signal("PIPE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_skips_and_signals_are_told_apart() {
        let exit = |end, stdout: &str| {
            outcome(&Exit {
                end,
                at: Instant::now(),
                stdout_tail: stdout.into(),
                stderr_tail: Vec::new(),
                stdout_bytes: 0,
                stderr_bytes: 0,
                warnings: Vec::new(),
            })
        };
        assert_eq!(exit(End::Exited(0), ""), SuiteOutcome::Exited(0));
        assert_eq!(exit(End::Exited(137), ""), SuiteOutcome::Exited(137));
        assert_eq!(exit(End::Killed("KILL".into()), ""), SuiteOutcome::Signal("KILL".into()));
        let skipped = exit(End::Exited(77), "checking\n  no \x1b[1mnetwork\x1b[0m here \n\n");
        assert_eq!(skipped, SuiteOutcome::Skipped { reason: "no network here".into() });
    }

    #[test]
    fn a_crash_is_no_reboot() {
        let may = |outcome: SuiteOutcome| outcome.may_be_a_reboot();
        assert!([0, 129, 137, 141, 143].into_iter().all(|code| may(SuiteOutcome::Exited(code))));
        assert!(![1, 77, 125, 127, 128, 134, 139, 255].into_iter().any(|code| may(SuiteOutcome::Exited(code))));
        assert!(["TERM", "KILL", "HUP", "PIPE"].into_iter().all(|name| may(SuiteOutcome::Signal(name.into()))));
        assert!(!["SEGV", "ABRT", "BUS", "INT"].into_iter().any(|name| may(SuiteOutcome::Signal(name.into()))));
    }

    #[test]
    fn a_script_that_was_not_heard_to_its_end_has_not_passed() {
        let exit = Exit {
            end: End::Cut,
            at: Instant::now(),
            stdout_tail: Vec::new(),
            stderr_tail: Vec::new(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            warnings: Vec::new(),
        };
        assert!(matches!(outcome(&exit), SuiteOutcome::Signal(_)));
    }
}
