//! A command under the guard (`guard.sh`): its end is seen at once, and a time-out kills all of its family in the guest.

use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use crate::ssh::{Exec, Exit, Session, Sink, SshError, Stdin, Until};

/// How long a guest has, besides the grace, to carry out an order to kill.
const ORDER: Duration = Duration::from_secs(10);
/// A guest that gives no sign of life for so long, at its time limit, is not asked any further.
const UNHEARD: Duration = Duration::from_secs(10);

/// A timer that is later says that nestmatrix itself stood still.
const PUNCTUAL: Duration = Duration::from_secs(5);
/// How long it takes after that to read what has come.
const CATCHING_UP: Duration = Duration::from_secs(2);

/// What is run and for how long.
pub(super) struct Guarded {
    /// The uploaded script to run, by name.
    pub(super) script: &'static str,
    /// How often it was run before, each time until it rebooted its guest; `None`: it may not do that.
    pub(super) run: Option<u32>,
    pub(super) stdout: Sink,
    pub(super) stderr: Sink,
    pub(super) deadline: Instant,
    /// Between TERM and KILL.
    pub(super) grace: Duration,
    /// How long what it left behind must be quiet, once it has ended, before no more is heard of it.
    pub(super) quiet: Duration,
}

/// How it ended.
pub(super) enum Ended {
    /// By itself.
    Itself(Exit),
    /// It was killed at the deadline.
    TimedOut {
        /// What it left, if the guest still told.
        exit: Option<Exit>,
        /// Something is still running in the guest, or may be.
        leftovers: bool,
    },
}

/// Runs a command under the guard.
///
/// # Errors
/// The connection's or the cancellation. [`SshError::Frozen`] also where the time limit is reached and the guest gives no sign of
/// life: nobody knows what the script did.
pub(super) async fn run(session: &Session, guarded: Guarded) -> Result<Ended, SshError> {
    let mark = format!("{:032x}", rand::random::<u128>());
    // Kept until the command is over: the end of its input is the end of its watcher.
    let (orders, stdin) = session.stdin_stream();
    let mut exec = std::pin::pin!(session.exec(Exec {
        command: guard(&format!(
            "run {mark} {} {}",
            guarded.script,
            guarded.run.map_or_else(String::new, |run| run.to_string())
        )),
        stdin,
        stdout: guarded.stdout,
        stderr: guarded.stderr,
        deadline: guarded.deadline + guarded.grace + guarded.grace + ORDER,
        until: Until::Ended { quiet: guarded.quiet },
    }));
    tokio::select! {
        biased;
        exit = &mut exec => return exit.map(Ended::Itself),
        () = sleep_until(guarded.deadline.into()) => {}
    }
    // Late only if nestmatrix itself stood still. What came meanwhile has not been read yet, and may be the end.
    let late = guarded.deadline.elapsed();
    if late > PUNCTUAL {
        tokio::select! {
            biased;
            exit = &mut exec => return exit.map(Ended::Itself),
            () = sleep(CATCHING_UP) => {}
        }
        let reason = format!("nestmatrix stood still for {:.0} s across the script's time limit", late.as_secs_f64());
        return Err(SshError::Broken { doing: "a script is to be ended", reason });
    }

    let ordered = Instant::now();
    orders.try_send(b"TERM\n");
    let silent = |exit: Option<&Result<Exit, SshError>>| {
        let silence = session.silent_for();
        let unheard =
            matches!(exit, None | Some(Err(SshError::Timeout { .. }))) && silence >= UNHEARD.max(2 * guarded.grace);
        unheard.then_some(SshError::Frozen { doing: "a script is ended at its time limit", silence })
    };
    let exit = tokio::select! {
        biased;
        exit = &mut exec => exit,
        () = sleep(guarded.grace) => {
            let punctual = ordered.elapsed() < guarded.grace + PUNCTUAL;
            if let Some(silent) = silent(None).filter(|_| punctual) {
                return Err(silent);
            }
            orders.try_send(b"KILL\n");
            exec.await
        }
    };
    if let Some(silent) = silent(Some(&exit)) {
        return Err(silent);
    }
    match exit {
        // A guest that is silent was not killed by us: how the script would have ended is unknown.
        Err(error @ (SshError::Cancelled | SshError::Frozen { .. })) => return Err(error),
        // It had ended before it was told to; only last words of what it left behind were still waited for.
        Ok(exit) if exit.at <= ordered => return Ok(Ended::Itself(exit)),
        _ => {}
    }
    // Asked in any case: daemons are not waited for, and the watcher may have been killed by those it watched.
    let swept = session
        .exec(Exec {
            command: guard(&format!("sweep {mark}")),
            stdin: Stdin::None,
            stdout: Sink::Tail,
            stderr: Sink::Tail,
            deadline: Instant::now() + guarded.grace + ORDER,
            until: Until::Silent,
        })
        .await;
    match swept {
        Err(SshError::Cancelled) => Err(SshError::Cancelled),
        swept => Ok(Ended::TimedOut { exit: exit.ok(), leftovers: !swept.is_ok_and(|exit| exit.success()) }),
    }
}

pub(super) fn guard(arguments: &str) -> String {
    format!("d=${{NESTMATRIX_ROOT:-/var/tmp/nestmatrix}}; exec sh \"$d/guard\" {arguments}")
}
