//! Guests that no longer answer: noticed, and told apart from those that are gone. What follows is in the table of [`TroubleKind`].

use std::{fmt::Display, time::Duration};

use reports::{Phase, Trouble, TroubleKind};
use tokio::time::Instant;

use super::{
    attempt::{Attempt, GRACE, deadline},
    world::{Machine as _, Outcome, RunningGuest, World},
};
use crate::{
    guest::Ended,
    payload::{CollectError, FirstBootError, InstallError, UploadError},
    ssh::SshError,
};

/// How long a lost connection waits for QEMU's word on why, before scaling: a guest that shuts down closes SSH first.
const EXPLANATION: Duration = Duration::from_secs(10);
/// The same after a silence that was longer than a shutdown takes: its SSH server is asked at once.
const ALREADY_SILENT: Duration = Duration::ZERO;
/// A guest whose SSH server still answers so much later, before scaling, is not shutting down.
const SHUTTING_DOWN: Duration = Duration::from_secs(2);
/// How long, besides the grace, a guest has to answer anything once a command is past its time limit.
const LAST_CHANCE: Duration = Duration::from_secs(10);

/// What to do where a time limit of this phase was reached.
fn time_limit(phase: Phase) -> Option<String> {
    let key = match phase {
        Phase::Boot | Phase::Reboot => "boot",
        Phase::Prepare => "prepare",
        Phase::Install => "install",
        Phase::Test => "suite",
        Phase::Collect => "collect",
        Phase::Image | Phase::Runner | Phase::Connect => return None,
    };
    Some(format!("raise `timeout.{key}` if the guest is only slow"))
}

/// An exchange with the guest that failed.
pub(super) trait OfSession: Display {
    /// What the session with it said, if that is why.
    fn session(&self) -> Option<&SshError>;
}

impl OfSession for SshError {
    fn session(&self) -> Option<&SshError> {
        Some(self)
    }
}

/// For errors with a variant `Ssh`.
macro_rules! of_session {
    ($($error:ty),*) => {$(
        impl OfSession for $error {
            fn session(&self) -> Option<&SshError> {
                match self {
                    Self::Ssh(error) => Some(error),
                    _ => None,
                }
            }
        }
    )*};
}

of_session!(CollectError, FirstBootError, InstallError, UploadError);

/// What became of a guest that does not answer as it should.
enum Why {
    /// It is gone.
    GoingDown(Trouble),
    /// Its SSH server answers, and it is not shutting down.
    Serves,
    /// Nobody said.
    Unknown,
}

impl<W: World> Attempt<'_, W> {
    /// A phase in which the package, or its test, has the guest in its hands until `limit`: a guest that answers nothing afterwards is
    /// not asked for long.
    pub(super) async fn supervised<T>(
        &self,
        running: &RunningGuest<W>,
        phase: Phase,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Outcome<T> {
        let (guest, until) = (&running.guest, deadline(limit));
        let watched = async {
            tokio::select! {
                biased;
                done = work => Some(done),
                // What a fork says comes over a port of its own, which stands when its network does not.
                () = self.is_silent(guest, until), if !running.by_port => None,
            }
        };
        match self.phase(phase, Some(guest), Some(limit), watched).await? {
            Some(done) => Ok(done),
            None => {
                let limit = limit.as_secs_f64();
                let reason = format!(
                    "the guest no longer answers in phase {phase}, its machine still runs: no SSH server answered after the time \
                     limit of {limit:.0} s"
                );
                Err(Trouble::new(TroubleKind::GuestUnreachable, phase, reason))
            }
        }
    }

    /// Waits until the time is up and nothing in the guest answers any more; possibly forever.
    async fn is_silent(&self, guest: &W::Guest, until: std::time::Instant) {
        tokio::time::sleep_until(until.into()).await;
        let silent = guest.address().is_some() && !self.serves(guest, self.scaled(GRACE) + LAST_CHANCE).await;
        if !silent || self.kill.is_cancelled() || !guest.answers().await {
            std::future::pending::<()>().await;
        }
    }

    /// What a failed exchange with the guest means: if its connection was lost, QEMU may know why.
    pub(super) async fn explained<T, E: OfSession>(
        &self,
        guest: &W::Guest,
        phase: Phase,
        result: Result<T, E>,
    ) -> Outcome<T> {
        let error = match result {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let reason = error.to_string();
        Err(match error.session() {
            Some(SshError::Frozen { .. }) => self.unanswered(guest, phase, &reason, ALREADY_SILENT).await,
            Some(SshError::Broken { .. }) => match self.explanation(guest, phase, self.patience(phase)).await {
                Some(trouble) => trouble,
                None => Trouble::new(TroubleKind::ConnectionBroken, phase, reason),
            },
            Some(lost) if lost.is_connection_lost() => {
                self.unanswered(guest, phase, &reason, self.patience(phase)).await
            }
            Some(SshError::Timeout { .. }) => {
                Trouble { help: time_limit(phase), ..Trouble::new(TroubleKind::Timeout, phase, reason) }
            }
            _ => Trouble::new(TroubleKind::Unexpected, phase, reason),
        })
    }

    /// What it means that no session with the guest could be opened.
    pub(super) async fn explained_opening<T>(
        &self,
        guest: &W::Guest,
        phase: Phase,
        opened: Result<T, SshError>,
    ) -> Outcome<T> {
        let error = match opened {
            Err(error) if !error.is_connection_lost() => error,
            opened => return self.explained(guest, phase, opened).await,
        };
        // A server that is being stopped refuses, too.
        Err(match (self.why(guest, phase, self.patience(phase)).await, error) {
            (Why::GoingDown(trouble), _) => trouble,
            (Why::Unknown, error @ SshError::Timeout { .. }) => self.mute(guest, phase, &error.to_string()).await,
            (Why::Serves | Why::Unknown, error) => Trouble::new(TroubleKind::Unexpected, phase, error.to_string()),
        })
    }

    /// What it means that a session is lost. If the guest may be shutting down, QEMU has so long to tell.
    async fn unanswered(&self, guest: &W::Guest, phase: Phase, reason: &str, patience: Duration) -> Trouble {
        match self.why(guest, phase, patience).await {
            Why::GoingDown(trouble) => trouble,
            _ if self.kill.is_cancelled() => Trouble::new(TroubleKind::Interrupted, phase, reason),
            Why::Serves => {
                let words = "the guest lost that session, and its SSH server takes new ones";
                Trouble::new(TroubleKind::GuestUnreachable, phase, format!("{reason}; in phase {phase} {words}"))
            }
            Why::Unknown => self.mute(guest, phase, reason).await,
        }
    }

    /// What it means that nothing in the guest answers over SSH.
    pub(super) async fn mute(&self, guest: &W::Guest, phase: Phase, reason: &str) -> Trouble {
        if guest.answers().await {
            let words = "the guest no longer answers, its machine still runs";
            let reason = format!("{reason}; in phase {phase} {words}");
            return Trouble::new(TroubleKind::GuestUnreachable, phase, reason);
        }
        // An end that QEMU could not tell of in time.
        let silent =
            || Trouble::new(TroubleKind::QemuSilent, phase, format!("QEMU no longer answers in phase {phase}"));
        guest.has_ended().map_or_else(silent, |ended| self.died(phase, &ended))
    }

    /// What became of a guest that does not answer as it should.
    async fn why(&self, guest: &W::Guest, phase: Phase, patience: Duration) -> Why {
        let why = tokio::select! {
            biased;
            why = self.explanation(guest, phase, patience) => why.map_or(Why::Unknown, Why::GoingDown),
            () = self.still_serves(guest) => Why::Serves,
        };
        match why {
            Why::Unknown if patience == ALREADY_SILENT && self.serves(guest, self.scaled(SHUTTING_DOWN)).await => {
                Why::Serves
            }
            why => why,
        }
    }

    /// Why the guest is going down, if it is. Waits for QEMU's word on that for so long, before scaling.
    async fn explanation(&self, guest: &W::Guest, phase: Phase, patience: Duration) -> Option<Trouble> {
        tokio::select! {
            ended = guest.ended() => Some(self.died(phase, &ended)),
            () = self.kill.cancelled() => None,
            () = tokio::time::sleep(self.scaled(patience)) => None,
        }
    }

    /// How long QEMU has to say why a session was lost, before scaling: a suite that may reboot its guest is shut down with all that runs there.
    fn patience(&self, phase: Phase) -> Duration {
        if phase == Phase::Test && self.cell.options.reboot {
            self.cell.timeouts.boot.max(EXPLANATION)
        } else {
            EXPLANATION
        }
    }

    /// A script was killed by a signal: why the guest is going down, if it is.
    pub(super) async fn explained_kill(&self, guest: &W::Guest, phase: Phase) -> Option<Trouble> {
        self.explanation(guest, phase, self.patience(phase)).await
    }

    /// Waits until it is seen that the guest is not shutting down; possibly forever.
    async fn still_serves(&self, guest: &W::Guest) {
        let limit = deadline(self.scaled(EXPLANATION));
        tokio::time::sleep(self.scaled(SHUTTING_DOWN)).await;
        if !self.serves(guest, limit.saturating_duration_since(Instant::now().into_std())).await {
            std::future::pending::<()>().await;
        }
    }

    /// Whether its SSH server speaks within this time.
    async fn serves(&self, guest: &W::Guest, within: Duration) -> bool {
        guest.served(deadline(within), self.kill).await.is_ok()
    }

    /// What it means that the guest runs no more.
    pub(super) fn died(&self, phase: Phase, ended: &Ended) -> Trouble {
        let reason = format!("{ended} in phase {phase}");
        match ended.kind() {
            TroubleKind::HostDiskFull => self.disk_full(phase, &reason),
            kind => Trouble::new(kind, phase, reason),
        }
    }

    /// There is no room for what guests write: the rest of the run is told through `disk_full`.
    pub(super) fn disk_full(&self, phase: Phase, reason: &str) -> Trouble {
        self.context.disk_full.cancel();
        let help = format!("make room below {}", self.context.scratch.display());
        Trouble::new(TroubleKind::HostDiskFull, phase, reason).with_help(help)
    }
}
