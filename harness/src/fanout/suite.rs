//! The step run: the suite, again after each reboot of its own.

use std::{path::Path, time::Duration};

use reports::{CaseVerdict, EventKind, Phase, TestCase, Trouble, TroubleKind, Verdict};
use tokio::time::Instant;

use super::{
    attempt::{Attempt, GRACE, deadline, millis},
    judge::{NotStarted, case_verdict},
    world::{Machine as _, Outcome, Talk as _, Talker, Up, World},
};
use crate::{
    guest::{Next, Reboots},
    payload::{AfterBoot, Suite, SuiteOutcome, SuiteRun},
    ssh::SshError,
};

/// Most reboots of a suite that may reboot its guest.
const MOST_REBOOTS: u32 = 10;

impl<W: World> Attempt<'_, W> {
    /// Runs the suite; its exit code as a test case.
    pub(super) async fn test(&self, up: &mut Up<W>, session: &mut Talker<W>, logs: &Path) -> Outcome<TestCase> {
        let cell = self.cell;
        self.remove_old_results(&up.guest, session).await?;
        let name = cell.suite.clone();
        self.send(|cell, attempt| EventKind::TestStarted { cell, attempt, name: name.clone() });
        let started = Instant::now();
        let run = match self.runs(up, session, logs).await {
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
        let (elapsed_ms, limit) = (run.elapsed.as_millis() as u64, self.scaled(cell.timeouts.suite));
        let verdict = case_verdict(&run, limit, self.station.speed(cell)).map_err(|NotStarted { reason, help }| {
            Trouble::new(TroubleKind::SuiteNotStarted, Phase::Test, reason).with_help(help)
        })?;
        Ok(TestCase { name, verdict, elapsed_ms, file: None, line: None })
    }

    /// The last of its runs, with the time of all of them.
    async fn runs(&self, up: &mut Up<W>, session: &mut Talker<W>, logs: &Path) -> Outcome<SuiteRun> {
        let (mut reboots, mut elapsed) = (Reboots::at_most(MOST_REBOOTS), Duration::ZERO);
        loop {
            let before = elapsed;
            let trouble = match self.run_once(up, session, logs, &mut elapsed, reboots.count()).await {
                Ok((run, None)) => return Ok(SuiteRun { elapsed: before + run.elapsed, ..run }),
                Ok((_, Some(going))) => self.goes_down(&up.guest, Phase::Reboot, going).await,
                Err(trouble) => trouble,
            };
            let ended = up.guest.has_ended().filter(|_| self.cell.reboot && trouble.kind == TroubleKind::GuestRebooted);
            match ended.map_or(Next::Ended, |ended| reboots.next(&ended)) {
                Next::Boots => *session = self.comes_back(up).await?,
                Next::Ended => return Err(trouble),
                Next::TooMany => {
                    let reason = reboots.too_many("the suite rebooted its guest");
                    let help = "have it end when NESTMATRIX_REBOOT, or what it wrote to the file NESTMATRIX_MARK, says that it is done";
                    return Err(Trouble::new(TroubleKind::RebootLoop, Phase::Test, reason).with_help(help));
                }
            }
        }
    }

    /// One run, in what all before have left of the time limit; and within which time the guest will go down, if it is about to.
    async fn run_once(
        &self,
        up: &Up<W>,
        session: &Talker<W>,
        logs: &Path,
        elapsed: &mut Duration,
        reboots: u32,
    ) -> Outcome<(SuiteRun, Option<Duration>)> {
        let limit = self.scaled(self.cell.timeouts.suite).saturating_sub(*elapsed);
        let guest = &up.guest;
        let (stdout, stderr) = (logs.join("stdout.log"), logs.join("stderr.log"));
        let (deadline, grace, speed) = (deadline(limit), self.scaled(GRACE), self.station.speed(self.cell));
        let may_reboot = self.cell.reboot;
        let suite = Suite { stdout: &stdout, stderr: &stderr, deadline, grace, reboots: may_reboot.then_some(reboots) };
        let running = async {
            let run = session.run(&suite).await?;
            // What reboots its guest need not wait for it.
            let then = match may_reboot && run.outcome.may_be_a_reboot() {
                true => session.boot_over(speed).await?,
                false => AfterBoot::Up,
            };
            Ok::<_, SshError>((run, then))
        };
        let started = Instant::now();
        let ran = self.supervised(up, Phase::Test, limit, running).await;
        *elapsed += started.elapsed();
        let (run, then) = self.explained(guest, Phase::Test, ran?).await?;
        let going = self.going(then);
        // A guest that goes down ends every process in it first; that is not what happened, only how it looked from inside.
        let killed = matches!(&run.outcome, SuiteOutcome::Signal(name) if name == "TERM" || name == "KILL");
        if killed
            && going.is_none()
            && let Some(trouble) = self.explained_kill(guest, Phase::Test).await
        {
            return Err(trouble);
        }
        Ok((run, going))
    }
}
