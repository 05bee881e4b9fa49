//! One cell on one fresh guest, step by step.

use std::{path::Path, time::Duration};

use matrix::{Cell, DiskInterface, Step};
use reports::{Ending, EventKind, Phase, TestCase, Trouble, TroubleKind, Verdict};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    budget::Admission,
    context::{Keep, Purpose, RunContext},
    outbound::Outbound,
    verdict::{self, is_red},
    world::{Machine as _, Outcome, RunningGuest, World},
};
use crate::{
    guest,
    ssh::{self, Keys},
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
pub struct AttemptOutcome {
    /// What is said of the cell if nothing follows.
    pub ending: Ending,
    /// Its guest was left running.
    pub kept: bool,
}

/// One cell, one guest.
pub(super) struct Attempt<'a, W: World> {
    /// Where its guest comes from.
    pub(super) world: W,
    pub(super) context: &'a RunContext,
    pub(super) cell: &'a Cell,
    /// From 1.
    pub(super) number: u32,
    /// Number of the last one there may be.
    pub(super) last: u32,
    /// It follows one that failed for no fault of the package.
    pub(super) again: bool,
    /// What the cell was admitted with.
    pub(super) admission: &'a Admission,
    /// Ends everything at once.
    pub(super) kill: &'a CancellationToken,
}

impl<W: World> Attempt<'_, W> {
    /// Runs it to its end. Whatever happens, the guest is gone afterwards (or kept, if that was asked for).
    pub(super) async fn run(&self) -> AttemptOutcome {
        let logs = self.context.cells.join(self.cell.id.as_str()).join(format!("attempt-{}", self.number));
        let scratch = self.context.scratch.join(format!("{}-{}", self.cell.id, self.number));
        let outcome = self
            .with_guest(&logs, &scratch)
            .await
            .unwrap_or_else(|trouble| AttemptOutcome { ending: Ending::Troubled(trouble), kept: false });
        if !outcome.kept
            && let Err(error) = tokio::fs::remove_dir_all(&scratch).await
            && scratch.exists()
        {
            self.warn(format!("{} could not be removed: {error}", scratch.display()));
        }
        outcome
    }

    async fn with_guest(&self, logs: &Path, scratch: &Path) -> Outcome<AttemptOutcome> {
        let mut running = self.power_on(logs, scratch).await?;
        let result = self.inside(&mut running, logs).await;
        let RunningGuest { guest, login, host_keys, outbound, .. } = running;
        let mut ending = self.not_for_a_full_disk(result.unwrap_or_else(Ending::Troubled));
        let (green, may_pass) = (ending.trouble().is_none(), ending.trouble().is_some_and(Trouble::may_pass));
        if let Ending::Troubled(trouble) = &mut ending {
            trouble.evidence = guest.tail(TAIL);
            let picture = logs.join("screen.png");
            let _ = tokio::time::timeout(SCREENDUMP, guest.picture(&picture)).await;
        }
        let keep = match self.context.keep {
            _ if self.context.purpose == Purpose::Shell => true,
            Keep::Never => false,
            Keep::Failed => !green,
            Keep::Always => true,
        };
        let keep = keep && guest.has_ended().is_none() && !self.kill.is_cancelled() && !(may_pass && self.may_follow());
        let kept = keep && self.note(&guest, scratch, (&login, &host_keys));
        if kept {
            guest.release().await;
        } else {
            self.admission.process.rest();
            guest.kill().await;
        }
        if let Some(outbound) = outbound {
            outbound.close().await;
        }
        Ok(AttemptOutcome { ending, kept })
    }

    /// What is red although the host had no room for what the guest wrote is not the package's fault. QEMU stops a guest whose write fails on a
    /// virtio disk and says so; its NVMe controller passes the error on to the guest instead.
    fn not_for_a_full_disk(&self, ending: Ending) -> Ending {
        let nvme = self.cell.guest.disks.iter().any(|disk| disk.interface == DiskInterface::Nvme);
        match (ending.verdict(), self.world.shortage().filter(|_| nvme)) {
            (Verdict::Failed { phase, .. }, Some(free)) => {
                let what = format!("the guest's NVMe disk may have had write errors: {free} free below");
                Ending::Troubled(self.disk_full(phase, &format!("{what} {}", self.context.scratch.display())))
            }
            _ => ending,
        }
    }

    /// Everything between a started guest and its verdict.
    async fn inside(&self, running: &mut RunningGuest<W>, logs: &Path) -> Outcome<Ending> {
        let ended = self.steps(running, logs).await;
        let verdict = ended.as_ref().map_or_else(Trouble::verdict, Ending::verdict);
        match running.outbound.as_ref().and_then(Outbound::difference) {
            Some(trouble) if matches!(verdict, Verdict::Passed) => Err(trouble),
            // What failed later, or before, has its own reason.
            Some(trouble) if matches!(verdict, Verdict::Failed { phase, .. } if phase == trouble.phase) => Err(trouble),
            _ => ended,
        }
    }

    async fn steps(&self, running: &mut RunningGuest<W>, logs: &Path) -> Outcome<Ending> {
        let mut session = self.awake(running).await?;
        let (mut package, mut exit, mut told) = (None, None, None);
        for (at, step) in self.cell.options.steps.iter().enumerate() {
            if let (Some(outbound), Some(phase)) = (&running.outbound, phase_of(*step)) {
                outbound.enter(phase, &self.context.plan, self.cell);
            }
            let done = match step {
                Step::Prepare => self.prepare(running, &session).await.map(|found| package = found),
                Step::Install => self.install(running, &session, package.take(), logs).await,
                Step::Run if self.context.purpose == Purpose::Shell => {
                    return Ok(Ending::Skipped { reason: "only prepared, for a shell".into() });
                }
                Step::Run => self.test(running, &mut session, logs).await.map(|case| exit = Some(case)),
                Step::Reboot => {
                    let touched =
                        self.cell.options.steps[..at].iter().any(|step| matches!(step, Step::Install | Step::Run));
                    self.reboot(running, &mut session, touched).await
                }
                Step::Collect => {
                    self.collect(&running.guest, &session, exit.as_ref(), logs).await.map(|found| told = found)
                }
            };
            match (done, &exit) {
                (Ok(()), _) => {}
                // A red test is not made any redder by what comes after it, and its verdict must not be lost.
                (Err(trouble), Some(case)) if is_red(case) => {
                    let what = if *step == Step::Collect {
                        "results and artifacts could not be fetched"
                    } else {
                        "after the suite"
                    };
                    self.warn(format!("{what}: {trouble}"));
                    break;
                }
                (Err(trouble), _) => {
                    exit.into_iter().for_each(|case| self.finished(case));
                    return Err(trouble);
                }
            }
        }
        let ending = self.judged(exit, told)?;
        match running.outbound.as_ref().map_or(Ok(()), |outbound| outbound.judged(&self.context.plan.network)) {
            // What is red already stays red for its own reason.
            Err(trouble) if ending.trouble().is_none() => Err(trouble),
            _ => Ok(ending),
        }
    }

    /// What the cell came to: its test cases, reported.
    fn judged(&self, exit: Option<TestCase>, told: Option<verdict::ImportedResults>) -> Outcome<Ending> {
        let exit = exit.ok_or_else(|| Trouble::new(TroubleKind::Defect, Phase::Test, "the cell has no step `run`"))?;
        if self.cell.options.results.is_some() && told.is_none() && !is_red(&exit) {
            return Err(Trouble::new(TroubleKind::Defect, Phase::Collect, "the cell's results were not fetched"));
        }
        let judged = verdict::judged(&self.cell.suite, exit, told);
        for case in &judged.cases {
            self.finished(case.clone());
        }
        if let Some(warning) = judged.warning {
            self.warn(warning);
        }
        judged.instead.map_or_else(|| Ok(verdict::ending_of(&judged.cases)), Err)
    }

    /// A time limit of this cell on this machine.
    pub(super) fn scaled(&self, limit: Duration) -> Duration {
        self.context.scaled(self.cell, limit)
    }

    /// Runs one phase: its events, its time limit, the guest's end, and ours.
    ///
    /// `work` keeps to the limit by itself where it can do so more gently; here it is enforced.
    pub(super) async fn phase<T>(
        &self,
        phase: Phase,
        guest: Option<&W::Guest>,
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
            () = self.admission.room_is_wanted() => Err(Trouble::new(
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

    /// Whether another attempt may follow; its guest takes the place of this one's.
    fn may_follow(&self) -> bool {
        self.number < self.last || (!self.again && self.admission.is_of_fork())
    }

    /// Writes down what a person needs to enter the guest and a sweep to spare it; whether the guest can be left running.
    fn note(&self, guest: &W::Guest, scratch: &Path, (login, host_keys): (&Keys, &Keys)) -> bool {
        let Some(address) = guest.address() else { return false };
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
        let user = self.context.image(self.cell).map_or("root", |image| &image.facts.login_user);
        let ssh = ssh::command_to_enter(&keys, &known_hosts, user, address.port());
        let stop = format!("kill {pid}");
        self.send(|cell, attempt| EventKind::GuestKept { cell, attempt, ssh, stop });
        true
    }

    pub(super) fn finished(&self, case: TestCase) {
        self.send(|cell, attempt| EventKind::TestFinished { cell, attempt, case: case.clone() });
    }

    pub(super) fn warn(&self, message: String) {
        self.context.events.send(EventKind::Warning { cell: Some(self.cell.id.clone()), message });
    }

    pub(super) fn send(&self, kind: impl FnOnce(matrix::CellId, u32) -> EventKind) {
        self.context.events.send(kind(self.cell.id.clone(), self.number));
    }
}

/// The phase in which a guest asks for something at this step; `None`: that of the step before.
const fn phase_of(step: Step) -> Option<Phase> {
    match step {
        Step::Prepare => Some(Phase::Prepare),
        Step::Install => Some(Phase::Install),
        Step::Run => Some(Phase::Test),
        Step::Collect => Some(Phase::Collect),
        Step::Reboot => None,
    }
}

pub(super) fn deadline(limit: Duration) -> std::time::Instant {
    Instant::now().into_std() + limit
}

pub(super) fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

pub(super) fn keys(what: &str) -> Outcome<Keys> {
    Keys::generate(&format!("nestmatrix {what}"))
        .map_err(|error| Trouble::new(TroubleKind::Host, Phase::Runner, format!("could not make a {what}: {error}")))
}
