//! One cell on one fresh guest, phase by phase.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::Cell;
use reports::{CaseVerdict, Ending, EventKind, Phase, TestCase, Trouble, TroubleKind, Verdict};
use tokio_util::sync::CancellationToken;

use super::{
    budget::Slot,
    judge::{NotStarted, case_verdict, ending_of},
    station::{Keep, Purpose, Station},
};
use crate::{
    guest::{self, Guest},
    payload::{self, Suite, SuiteOutcome},
    ssh::{self, BannerStream, Keys, Session},
    template::Template,
};

/// How long processes have between TERM and KILL when a time limit is reached, before scaling.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// Console lines that go with a failure.
const TAIL: usize = 30;
/// What ending a script takes at the most besides its grace: orders to kill, a closed channel, a last sweep, each with a limit
/// of its own (`payload::guarded`, `ssh`). A script that must be killed is a failed test, not a stuck machine.
const ENDING: Duration = Duration::from_secs(60);
/// A picture of the screen is not worth a longer wait.
const SCREENDUMP: Duration = Duration::from_secs(3);

/// What an attempt came to.
#[derive(Debug)]
pub struct Conclusion {
    /// What is said of the cell if nothing follows.
    pub ending: Ending,
    /// Its guest was left running.
    pub kept: bool,
}

pub(super) type Outcome<T> = Result<T, Trouble>;

/// A guest that runs.
pub(super) struct Up {
    pub(super) guest: Guest,
    /// What opens it.
    pub(super) login: Keys,
    pub(super) host_keys: Keys,
    /// Of a fork: the connection its SSH server waits at.
    pub(super) connection: Option<BannerStream>,
    /// What it is a fork of.
    pub(super) fork_of: Option<Arc<Template>>,
    /// Its disk is that of a template, with the identity that was frozen there.
    pub(super) of_template: bool,
}

/// One cell, one guest.
pub(super) struct Attempt<'a> {
    pub(super) station: &'a Station,
    pub(super) cell: &'a Cell,
    /// From 1.
    pub(super) number: u32,
    /// Number of the last one there may be.
    pub(super) last: u32,
    /// It follows one that failed for no fault of the package.
    pub(super) again: bool,
    /// What the cell was admitted with.
    pub(super) slot: &'a Slot,
    /// Ends everything at once.
    pub(super) kill: &'a CancellationToken,
}

impl Attempt<'_> {
    /// Runs it to its end. Whatever happens, the guest is gone afterwards (or kept, if that was asked for).
    pub(super) async fn run(&self) -> Conclusion {
        let logs = self.station.cells.join(self.cell.id.as_str()).join(format!("attempt-{}", self.number));
        let scratch = self.station.scratch.join(format!("{}-{}", self.cell.id, self.number));
        let conclusion = self
            .with_guest(&logs, &scratch)
            .await
            .unwrap_or_else(|trouble| Conclusion { ending: Ending::Troubled(trouble), kept: false });
        if !conclusion.kept
            && let Err(error) = tokio::fs::remove_dir_all(&scratch).await
            && scratch.exists()
        {
            self.warn(format!("{} could not be removed: {error}", scratch.display()));
        }
        conclusion
    }

    async fn with_guest(&self, logs: &Path, scratch: &Path) -> Outcome<Conclusion> {
        let mut up = self.power_on(logs, scratch).await?;
        let result = self.inside(&mut up, logs).await;
        let Up { guest, login, host_keys, .. } = up;
        let mut ending = result.unwrap_or_else(Ending::Troubled);
        let (green, may_pass) = (ending.trouble().is_none(), ending.trouble().is_some_and(Trouble::may_pass));
        if let Ending::Troubled(trouble) = &mut ending {
            trouble.evidence = guest.console().tail(TAIL);
            let picture = logs.join("screen.png");
            // No picture is no loss to the verdict, which stands.
            let _ = tokio::time::timeout(SCREENDUMP, guest.screendump(&picture)).await;
        }
        let keep = match self.station.keep {
            _ if self.station.purpose == Purpose::Shell => true,
            Keep::Never => false,
            Keep::Failed => !green,
            Keep::Always => true,
        };
        let keep = keep && guest.has_ended().is_none() && !self.kill.is_cancelled() && !(may_pass && self.may_follow());
        let kept = keep && self.note(&guest, scratch, (&login, &host_keys));
        if kept {
            guest.release();
        } else {
            self.slot.gauge.rest();
            guest.kill().await;
        }
        Ok(Conclusion { ending, kept })
    }

    /// Everything between a started guest and its verdict.
    async fn inside(&self, up: &mut Up, logs: &Path) -> Outcome<Ending> {
        let session = self.awake(up).await?;
        self.deliver(up, &session, logs).await?;
        if self.station.purpose == Purpose::Shell {
            return Ok(Ending::Skipped { reason: "only prepared, for a shell".into() });
        }
        let case = self.test(up, &session, logs).await?;
        let cases = self.collect(&up.guest, &session, case, logs).await?;
        Ok(ending_of(&cases))
    }

    /// Runs the suite; its exit code as a test case.
    async fn test(&self, up: &Up, session: &Session, logs: &Path) -> Outcome<TestCase> {
        let (cell, guest) = (self.cell, &up.guest);
        self.remove_old_results(guest, session).await?;
        let name = cell.suite.clone();
        self.send(|cell, attempt| EventKind::TestStarted { cell, attempt, name: name.clone() });
        let limit = self.scaled(cell.timeouts.suite);
        let (stdout, stderr) = (logs.join("stdout.log"), logs.join("stderr.log"));
        let (deadline, grace) = (deadline(limit), self.scaled(GRACE));
        let suite = Suite { stdout: &stdout, stderr: &stderr, deadline, grace };
        let started = Instant::now();
        let ran = self.supervised(up, Phase::Test, limit, payload::run(session, &suite)).await;
        let ran = match ran {
            Ok(ran) => self.explained(guest, Phase::Test, ran).await,
            Err(trouble) => Err(trouble),
        };
        // A guest that powers off ends every process in it first; that is not what happened, only how it looked from inside.
        let ran = match ran {
            Ok(run) if matches!(&run.outcome, SuiteOutcome::Signal(name) if name == "TERM" || name == "KILL") => {
                self.explained_kill(guest, Phase::Test).await.map_or(Ok(run), Err)
            }
            ran => ran,
        };
        let run = match ran {
            Ok(run) => run,
            Err(trouble) => {
                // The package took its guest down: that test has failed, and is named.
                if let Verdict::Failed { reason: message, .. } = trouble.verdict() {
                    let verdict = CaseVerdict::Failed { message, detail: String::new() };
                    self.finished(TestCase { name, verdict, elapsed_ms: millis(started), file: None, line: None });
                }
                return Err(trouble);
            }
        };
        for warning in &run.warnings {
            self.warn(warning.clone());
        }
        let elapsed_ms = run.elapsed.as_millis() as u64;
        let verdict = case_verdict(&run, limit, self.station.speed(cell)).map_err(|NotStarted { reason, help }| {
            Trouble::new(TroubleKind::SuiteNotStarted, Phase::Test, reason).with_help(help)
        })?;
        Ok(TestCase { name, verdict, elapsed_ms, file: None, line: None })
    }

    /// A time limit of this cell on this machine.
    pub(super) fn scaled(&self, limit: Duration) -> Duration {
        self.station.scaled(self.cell, limit)
    }

    /// Runs one phase: its events, its time limit, the guest's end, and ours.
    ///
    /// `work` keeps to the limit by itself where it can do so more gently; here it is enforced.
    pub(super) async fn phase<T>(
        &self,
        phase: Phase,
        guest: Option<&Guest>,
        limit: Option<Duration>,
        work: impl Future<Output = T>,
    ) -> Outcome<T> {
        let timeout_ms = limit.map(|limit| limit.as_millis() as u64);
        self.send(|cell, attempt| EventKind::PhaseStarted { cell, attempt, phase, timeout_ms });
        let started = Instant::now();
        let ended = async {
            match guest {
                Some(guest) => guest.ended().await,
                None => std::future::pending().await,
            }
        };
        // Ending a script with everything it started takes its time after the limit.
        let hard = limit.map_or(Duration::from_secs(120), |limit| limit + self.scaled(GRACE) * 4 + ENDING);
        let result = tokio::select! {
            biased;
            () = self.kill.cancelled() => {
                Err(Trouble::new(TroubleKind::Interrupted, phase, format!("interrupted in phase {phase}")))
            }
            done = work => Ok(done),
            ended = ended => Err(self.died(phase, &ended)),
            () = self.slot.room_is_wanted() => Err(Trouble::new(
                TroubleKind::MemoryReclaimed,
                phase,
                format!("out of memory: its fork was ended in phase {phase}, together forks took more than guests may"),
            )),
            () = tokio::time::sleep(hard) => Err(Trouble::new(
                TroubleKind::Timeout,
                phase,
                format!("timeout: phase {phase} was not over within {:.0} s", hard.as_secs_f64()),
            )
            .with_help("the guest or this machine is stuck; see console.log")),
        };
        self.send(|cell, attempt| EventKind::PhaseFinished { cell, attempt, phase, elapsed_ms: millis(started) });
        result
    }

    pub(super) fn keys(&self, what: &str) -> Outcome<Keys> {
        Keys::generate(&format!("nestmatrix {what}")).map_err(|error| {
            Trouble::new(TroubleKind::Host, Phase::Runner, format!("could not make a {what}: {error}"))
        })
    }

    /// Whether another attempt may follow; its guest takes the place of this one's.
    fn may_follow(&self) -> bool {
        self.number < self.last || (!self.again && self.slot.is_of_fork())
    }

    /// Writes down what a person needs to enter the guest and a sweep to spare it; whether the guest can be left running.
    fn note(&self, guest: &Guest, scratch: &Path, (login, host_keys): (&Keys, &Keys)) -> bool {
        let Some(address) = guest.ssh() else { return false };
        let (known_hosts, pid) = (scratch.join("known_hosts"), guest.pid());
        // All of it first: a guest that is let go without a note is found by nobody, and its disk swept away under it.
        let written = login.write_private(scratch, ssh::LOGIN_FILES).and_then(|keys| {
            guest::write_private(&known_hosts, &host_keys.known_hosts(address.port()))?;
            crate::scratch::note_kept(scratch, pid)?;
            Ok(keys)
        });
        let keys = match written {
            Ok(keys) => keys,
            Err(error) => {
                self.warn(format!("the guest is not kept, its keys or its note could not be written: {error}"));
                return false;
            }
        };
        let user = self.station.image(self.cell).map_or("root", |image| &image.facts.login_user);
        let ssh = ssh::command_to_enter(&keys, &known_hosts, user, address.port());
        let stop = format!("kill {pid}");
        self.send(|cell, attempt| EventKind::GuestKept { cell, attempt, ssh, stop });
        true
    }

    pub(super) fn finished(&self, case: TestCase) {
        self.send(|cell, attempt| EventKind::TestFinished { cell, attempt, case: case.clone() });
    }

    pub(super) fn warn(&self, message: String) {
        self.station.events.send(EventKind::Warning { cell: Some(self.cell.id.clone()), message });
    }

    pub(super) fn send(&self, kind: impl FnOnce(matrix::CellId, u32) -> EventKind) {
        self.station.events.send(kind(self.cell.id.clone(), self.number));
    }
}

pub(super) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}
