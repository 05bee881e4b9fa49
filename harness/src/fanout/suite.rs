//! The step run: the suite, again after each reboot of its own.

use std::{path::Path, time::Duration};

use reports::{CaseVerdict, EventKind, Phase, TestCase, Trouble, TroubleKind, Verdict};
use tokio::time::Instant;

use super::{
    attempt::{Attempt, GRACE, deadline, millis},
    verdict::{NotStarted, case_verdict},
    world::{Machine as _, Outcome, RunningGuest, Talk as _, Talker, World},
};
use crate::{
    guest::{Next, Reboots},
    payload::{self, Suite, SuiteOutcome, SuiteRun},
};

/// Most reboots of a suite that may reboot its guest.
const MOST_REBOOTS: u32 = 10;
const ANNOUNCE: &str = "if it was the suite: have it write to the file NESTMATRIX_MARK before it reboots, and `sync`; if not, see console.log";

impl<W: World> Attempt<'_, W> {
    /// Runs the suite; its exit code as a test case.
    pub(super) async fn test(
        &self,
        running: &mut RunningGuest<W>,
        session: &mut Talker<W>,
        logs: &Path,
    ) -> Outcome<TestCase> {
        let cell = self.cell;
        self.remove_old_results(&running.guest, session).await?;
        let name = cell.suite.clone();
        self.send(|cell, attempt| EventKind::TestStarted { cell, attempt, name: name.clone() });
        let started = Instant::now();
        let run = match self.runs(running, session, logs).await {
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
        let verdict = case_verdict(&run, limit, self.context.speed(cell)).map_err(|NotStarted { reason, help }| {
            Trouble::new(TroubleKind::SuiteNotStarted, Phase::Test, reason).with_help(help)
        })?;
        Ok(TestCase { name, verdict, elapsed_ms, file: None, line: None })
    }

    /// The last of its runs, with the time of all of them.
    async fn runs(&self, running: &mut RunningGuest<W>, session: &mut Talker<W>, logs: &Path) -> Outcome<SuiteRun> {
        let (mut reboots, mut elapsed) = (Reboots::at_most(MOST_REBOOTS), Duration::ZERO);
        loop {
            let before = elapsed;
            let ran = self.run_once(running, session, logs, &mut elapsed, reboots.count()).await;
            let goes_on = match &ran {
                Ok(run) => self.goes_on(running, session, run).await,
                Err(_) => Ok(None),
            };
            let trouble = match (ran, goes_on) {
                (Err(trouble), _) | (_, Err(trouble)) => trouble,
                (Ok(run), Ok(None)) => return Ok(SuiteRun { elapsed: before + run.elapsed, ..run }),
                (Ok(_), Ok(Some(why))) => {
                    let limit = self.scaled(self.cell.timeouts.boot);
                    let trouble = self.goes_down(&running.guest, Phase::Reboot, limit).await;
                    match trouble.kind {
                        TroubleKind::Timeout => {
                            let seconds = limit.as_secs_f64();
                            let reason = format!("timeout: {why}, and its guest was still up {seconds:.0} s later");
                            Trouble { reason, ..trouble }.with_help(payload::NO_REBOOT)
                        }
                        _ => trouble,
                    }
                }
            };
            let ended = running
                .guest
                .has_ended()
                .filter(|_| self.cell.options.reboot && trouble.kind == TroubleKind::GuestRebooted);
            match ended.map_or(Next::Ended, |ended| reboots.next(&ended)) {
                Next::Boots => {
                    *session = self.comes_back(running).await?;
                    // What it wrote before decides, and not what it says of itself.
                    if !self.is_announced(running, session).await? {
                        let reason = "the guest rebooted itself in phase test, and the suite had not announced it";
                        return Err(Trouble::new(TroubleKind::GuestRebooted, Phase::Test, reason).with_help(ANNOUNCE));
                    }
                }
                Next::Ended => return Err(trouble),
                Next::TooMany => {
                    let reason = reboots.too_many("the suite rebooted its guest");
                    let help = "have it end when NESTMATRIX_REBOOT, or what it wrote to the file NESTMATRIX_MARK, says that it is done";
                    return Err(Trouble::new(TroubleKind::RebootLoop, Phase::Test, reason).with_help(help));
                }
            }
        }
    }

    /// Why this was not its last run: it has announced a reboot, or its guest is going down although it has not. Both are waited for.
    async fn goes_on(
        &self,
        running: &RunningGuest<W>,
        session: &Talker<W>,
        run: &SuiteRun,
    ) -> Outcome<Option<&'static str>> {
        if !self.cell.options.reboot || !run.outcome.may_be_a_reboot() {
            return Ok(None);
        }
        if self.is_announced(running, session).await? {
            return Ok(Some("the suite ended after it had announced a reboot (it wrote to NESTMATRIX_MARK)"));
        }
        let limit = self.scaled(self.cell.timeouts.boot);
        let asking = session.boot_over(self.context.speed(self.cell));
        let after = self.phase(Phase::Reboot, Some(&running.guest), Some(limit), asking).await?;
        let going = self.going(self.explained(&running.guest, Phase::Reboot, after).await?);
        Ok(going.map(|_| "the suite ended while its guest was going down"))
    }

    async fn is_announced(&self, running: &RunningGuest<W>, session: &Talker<W>) -> Outcome<bool> {
        let limit = self.scaled(self.cell.timeouts.prepare);
        let asking = session.announced(deadline(limit));
        let told = self.phase(Phase::Reboot, Some(&running.guest), Some(limit), asking).await?;
        self.explained(&running.guest, Phase::Reboot, told).await
    }

    /// One run, in what all before have left of the time limit.
    async fn run_once(
        &self,
        running: &RunningGuest<W>,
        session: &Talker<W>,
        logs: &Path,
        elapsed: &mut Duration,
        reboots: u32,
    ) -> Outcome<SuiteRun> {
        let limit = self.scaled(self.cell.timeouts.suite).saturating_sub(*elapsed);
        let guest = &running.guest;
        let (stdout, stderr) = (logs.join("stdout.log"), logs.join("stderr.log"));
        let (deadline, grace) = (deadline(limit), self.scaled(GRACE));
        let reboots = self.cell.options.reboot.then_some(reboots);
        let suite = Suite { stdout: &stdout, stderr: &stderr, deadline, grace, reboots };
        let started = Instant::now();
        let ran = self.supervised(running, Phase::Test, limit, session.run(&suite)).await;
        *elapsed += started.elapsed();
        let run = self.explained(guest, Phase::Test, ran?).await?;
        // A guest that goes down ends every process in it first; that is not what happened, only how it looked from inside.
        let killed = matches!(&run.outcome, SuiteOutcome::Signal(name) if name == "TERM" || name == "KILL");
        match killed {
            true => self.explained_kill(guest, Phase::Test).await.map_or(Ok(run), Err),
            false => Ok(run),
        }
    }
}
