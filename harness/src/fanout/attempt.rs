//! One cell on one fresh guest, phase by phase.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::{Cell, Results};
use reports::{CaseVerdict, EventKind, Phase, TestCase, Verdict};
use tokio_util::sync::CancellationToken;

use super::{
    budget::Slot,
    judge::{NotStarted, case_verdict, verdict_of},
    station::{Keep, Purpose, Station},
};
use crate::{
    guest::{self, Ended, Guest, Seed},
    payload::{self, FirstBootError, Suite, SuiteOutcome},
    ssh::{self, BannerStream, Keypair, Open, Session, SshError},
    template::Template,
};

/// How long processes have between TERM and KILL when a time limit is reached, before scaling.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// Handshake, authentication and a first command, before scaling: a server that has spoken does not need longer.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a lost connection waits for QEMU's word on why, before scaling: a guest that shuts down closes SSH first.
const EXPLANATION: Duration = Duration::from_secs(10);
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
    pub verdict: Verdict,
    /// What to do about it.
    pub help: Option<String>,
    /// Last lines of the console.
    pub console_tail: Vec<String>,
    /// Its guest was left running.
    pub kept: bool,
}

/// Why a phase did not come to its end.
pub(super) struct Stopped {
    pub(super) verdict: Verdict,
    pub(super) help: Option<String>,
}

pub(super) type Outcome<T> = Result<T, Stopped>;

/// A guest that runs.
pub(super) struct Up {
    pub(super) guest: Guest,
    /// What opens it.
    pub(super) login: Keypair,
    pub(super) host_key: Keypair,
    /// Of a fork: the connection its SSH server waits at.
    pub(super) connection: Option<BannerStream>,
    /// What it is a fork of.
    pub(super) fork_of: Option<Arc<Template>>,
    /// Its disk is that of a template, with the identity that was frozen there.
    pub(super) of_template: bool,
}

/// Where a running guest is reached by a person.
struct Kept {
    key: PathBuf,
    known_hosts: PathBuf,
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
        let conclusion = self.with_guest(&logs, &scratch).await.unwrap_or_else(|Stopped { verdict, help }| {
            Conclusion { verdict, help, console_tail: Vec::new(), kept: false }
        });
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
        let Up { guest, login, host_key, .. } = up;
        let (verdict, help) = match result {
            Ok(verdict) => (verdict, None),
            Err(Stopped { verdict, help }) => (verdict, help),
        };
        let green = matches!(verdict, Verdict::Passed | Verdict::Skipped { .. });
        let mut console_tail = Vec::new();
        if !green {
            console_tail = guest.console().tail(TAIL);
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
        let keep = keep && guest.has_ended().is_none() && !self.kill.is_cancelled() && !self.is_retried(&verdict);
        let kept = keep && self.note(&guest, scratch, (&login, &host_key));
        if kept {
            guest.release();
        } else {
            guest.kill().await;
        }
        Ok(Conclusion { verdict, help, console_tail, kept })
    }

    /// Everything between a started guest and its verdict.
    async fn inside(&self, up: &mut Up, logs: &Path) -> Outcome<Verdict> {
        let session = self.awake(up).await?;
        self.deliver(up, &session, logs).await?;
        if self.station.purpose == Purpose::Shell {
            return Ok(Verdict::Skipped { reason: "only prepared, for a shell".into() });
        }
        let case = self.test(&up.guest, &session, logs).await?;
        let cases = self.collect(&up.guest, &session, case, logs).await?;
        Ok(verdict_of(&cases))
    }

    /// A session with the guest, the first thing that is done with it. Whether forks of a template come so far says what it is worth.
    async fn awake(&self, up: &mut Up) -> Outcome<Session> {
        let session = async {
            let session = self.open(up).await?;
            self.first_boot(up, &session).await?;
            self.make_unique(up, &session).await?;
            Ok(session)
        };
        let session = session.await;
        if let Some(template) = &up.fork_of {
            match &session {
                Ok(_) => template.worked(),
                Err(Stopped { verdict: Verdict::Error { reason, .. }, .. }) if template.failed() => {
                    self.station.give_up(template, reason);
                }
                Err(_) => {}
            }
        }
        session
    }

    /// The phases boot and connect.
    ///
    /// A fork does not boot, and its SSH server waits for us already.
    async fn open(&self, up: &mut Up) -> Outcome<Session> {
        let guest = &up.guest;
        let stream = match up.connection.take() {
            Some(connection) => connection,
            None => {
                let none = || self.error(Phase::Boot, "the guest has no network".into(), None);
                let address = guest.ssh().ok_or_else(none)?;
                let limit = self.scaled(self.cell.timeouts.boot);
                let banner = ssh::banner(address, deadline(limit), self.kill);
                self.phase(Phase::Boot, Some(guest), Some(limit), banner).await?.map_err(|error| {
                    if let Some(complaint) = payload::complaint(&guest.console().tail(usize::MAX)) {
                        return self.error(Phase::Boot, format!("{error}; on its console: {complaint}"), None);
                    }
                    let help = "the guest runs but its SSH server never spoke: see its console and screen.png; if it is only \
                                slow, raise `timeout.boot`";
                    self.error(Phase::Boot, error.to_string(), Some(help.into()))
                })?
            }
        };
        let limit = self.scaled(CONNECT);
        let user = self.station.image(self.cell).map_or("root", |image| &image.login_user);
        let open = Session::open(Open {
            stream,
            user,
            sudo: user != "root",
            login: &up.login,
            host_key: up.host_key.public(),
            deadline: deadline(limit),
            silence: self.scaled(Session::SILENCE),
            cancel: self.kill.child_token(),
        });
        let opened = self.phase(Phase::Connect, Some(guest), Some(limit), open).await?;
        if let Err(error) = &opened
            && error.is_the_images_fault()
        {
            // Known at once, and the same in every guest of this image.
            let help = "set up the SSH server and the account's start-up files of the image so that this works";
            return Err(self.error(Phase::Image, error.to_string(), Some(help.into())));
        }
        self.explained(guest, Phase::Connect, opened, |error| (error.to_string(), true)).await
    }

    /// Of a guest that was booted from a cloud image: the first boot is over, and went well.
    async fn first_boot(&self, up: &Up, session: &Session) -> Outcome<()> {
        let image = self.station.image(self.cell);
        // One with the disk of a template boots for the first time under its new identity.
        if up.fork_of.is_some() || image.is_none_or(|image| image.seed() != Seed::CloudInit) {
            return Ok(());
        }
        let limit = self.scaled(self.cell.timeouts.boot);
        let over = payload::first_boot(session, deadline(limit));
        let over = self.phase(Phase::Boot, Some(&up.guest), Some(limit), over).await?;
        match over {
            // No other guest of this image does better.
            Err(error) if error.is_the_images_fault() => Err(self.error(
                Phase::Image,
                error.to_string(),
                Some(
                    "the whole of it is in the guest's /var/log/cloud-init.log: `--keep failed` leaves it running"
                        .into(),
                ),
            )),
            over => {
                let lost = |error: &FirstBootError| {
                    let lost = matches!(error, FirstBootError::Ssh(error) if error.is_connection_lost());
                    (error.to_string(), lost)
                };
                self.explained(&up.guest, Phase::Boot, over, lost).await
            }
        }
    }

    /// Runs the suite; its exit code as a test case.
    async fn test(&self, guest: &Guest, session: &Session, logs: &Path) -> Outcome<TestCase> {
        let cell = self.cell;
        let name = cell.suite.clone();
        self.send(|cell, attempt| EventKind::TestStarted { cell, attempt, name: name.clone() });
        let limit = self.scaled(cell.timeouts.suite);
        let (stdout, stderr) = (logs.join("stdout.log"), logs.join("stderr.log"));
        let results = cell.results.as_ref().map(|Results::Junit { glob }| glob.as_str());
        let (deadline, grace) = (deadline(limit), self.scaled(GRACE));
        let suite = Suite { stdout: &stdout, stderr: &stderr, deadline, grace, results };
        let started = Instant::now();
        let ran = self.phase(Phase::Test, Some(guest), Some(limit), payload::run(session, &suite)).await;
        let ran = match ran {
            Ok(ran) => {
                let lost = |error: &SshError| (error.to_string(), error.is_connection_lost());
                self.explained(guest, Phase::Test, ran, lost).await
            }
            Err(stopped) => Err(stopped),
        };
        // A guest that powers off ends every process in it first; that is not what happened, only how it looked from inside.
        let ran = match ran {
            Ok(run) if matches!(&run.outcome, SuiteOutcome::Signal(name) if name == "TERM" || name == "KILL") => {
                self.explanation(guest, Phase::Test).await.map_or(Ok(run), Err)
            }
            ran => ran,
        };
        let run = match ran {
            Ok(run) => run,
            Err(stopped) => {
                // The package took its guest down: that test has failed, and is named.
                if let Verdict::Failed { reason, .. } = &stopped.verdict {
                    let verdict = CaseVerdict::Failed { message: reason.clone(), detail: String::new() };
                    self.finished(TestCase { name, verdict, elapsed_ms: millis(started), file: None, line: None });
                }
                return Err(stopped);
            }
        };
        for warning in &run.warnings {
            self.warn(warning.clone());
        }
        let elapsed_ms = run.elapsed.as_millis() as u64;
        let verdict = case_verdict(&run, limit, self.station.speed(cell))
            .map_err(|NotStarted { reason, help }| self.error(Phase::Test, reason, Some(help.to_owned())))?;
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
            () = self.kill.cancelled() => Err(Stopped {
                verdict: Verdict::NotRun { reason: format!("interrupted in phase {phase}") },
                help: None,
            }),
            done = work => Ok(done),
            ended = ended => Err(self.died(phase, &ended)),
            () = self.slot.room_is_wanted() => Err(self.error(
                Phase::Runner,
                format!("its fork was ended in phase {phase} to make room: together forks took more memory than guests may"),
                Some("its next guest is booted and counts with all its memory; `runner.memory` says how much there is".into()),
            )),
            () = tokio::time::sleep(hard) => Err(self.error(
                phase,
                format!("nothing came of it within {:.0} s", hard.as_secs_f64()),
                Some("the guest or this machine is stuck; see console.log".into()),
            )),
        };
        self.send(|cell, attempt| EventKind::PhaseFinished { cell, attempt, phase, elapsed_ms: millis(started) });
        result
    }

    /// What a failed exchange with the guest means: if its connection was lost, QEMU may know why.
    pub(super) async fn explained<T, E>(
        &self,
        guest: &Guest,
        phase: Phase,
        result: Result<T, E>,
        words: impl FnOnce(&E) -> (String, bool),
    ) -> Outcome<T> {
        let error = match result {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let (reason, lost) = words(&error);
        if lost && let Some(stopped) = self.explanation(guest, phase).await {
            return Err(stopped);
        }
        Err(self.error(phase, reason, None))
    }

    /// Why the guest is going down, if it is.
    async fn explanation(&self, guest: &Guest, phase: Phase) -> Option<Stopped> {
        tokio::select! {
            ended = guest.ended() => Some(self.died(phase, &ended)),
            () = self.kill.cancelled() => None,
            () = tokio::time::sleep(self.scaled(EXPLANATION)) => None,
        }
    }

    /// Whose fault it is that the guest runs no more.
    ///
    /// A guest that goes down while the package is installed or tested was taken down by it; QEMU's own end and the host's
    /// disk say nothing about the package.
    fn died(&self, phase: Phase, ended: &Ended) -> Stopped {
        let reason = format!("{ended} in phase {phase}");
        match ended {
            Ended::Panicked { .. } | Ended::PoweredOff | Ended::Reset
                if matches!(phase, Phase::Install | Phase::Test) =>
            {
                Stopped {
                    verdict: Verdict::Failed { phase, reason },
                    help: Some("its last words are in console.log".into()),
                }
            }
            Ended::HostDisk { full: true } => {
                self.station.disk_full.cancel();
                let help = format!("make room below {}", self.station.scratch.display());
                self.error(phase, reason, Some(help))
            }
            Ended::QemuGone { .. } => {
                self.error(phase, reason, Some("see qemu.log; was it killed, or out of memory?".into()))
            }
            _ => self.error(phase, reason, Some("its last words are in console.log and screen.png".into())),
        }
    }

    pub(super) fn error(&self, phase: Phase, reason: String, help: Option<String>) -> Stopped {
        Stopped { verdict: Verdict::Error { phase, reason }, help }
    }

    pub(super) fn keypair(&self, what: &str) -> Outcome<Keypair> {
        Keypair::generate(&format!("nestmatrix {what}"))
            .map_err(|error| self.error(Phase::Runner, format!("could not make a {what}: {error}"), None))
    }

    /// Whether another attempt may follow this verdict; its guest takes the place of this one's.
    fn is_retried(&self, verdict: &Verdict) -> bool {
        let more = self.number < self.last || (!self.again && self.slot.is_of_fork());
        more && may_do_better(verdict)
    }

    /// Writes down what a person needs to enter the guest and a sweep to spare it; whether the guest can be left running.
    fn note(&self, guest: &Guest, scratch: &Path, (login, host_key): (&Keypair, &Keypair)) -> bool {
        let Some(address) = guest.ssh() else { return false };
        let kept = Kept { key: scratch.join("login_key"), known_hosts: scratch.join("known_hosts") };
        let line = format!("[127.0.0.1]:{} {}\n", address.port(), host_key.public());
        let pid = guest.pid();
        // All of it first: a guest that is let go without a note is found by nobody, and its disk swept away under it.
        let written = login
            .write_private(&kept.key)
            .and_then(|()| guest::write_private(&kept.known_hosts, &line))
            .and_then(|()| crate::scratch::note_kept(scratch, pid));
        if let Err(error) = written {
            self.warn(format!("the guest is not kept, its keys or its note could not be written: {error}"));
            return false;
        }
        let user = self.station.image(self.cell).map_or("root", |image| &image.login_user);
        let ssh = ssh::command_to_enter(&kept.key, &kept.known_hosts, user, address.port());
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

/// Whether another guest may come to a verdict where this one did not. An image that is not there is not there for it either.
pub(super) fn may_do_better(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Error { phase, .. } if phase.is_infrastructure() && *phase != Phase::Image)
}

pub(super) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}
