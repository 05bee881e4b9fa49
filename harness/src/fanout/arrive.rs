//! The phases boot and connect: from a guest that runs to a session with one whose boot is over. Reboots of the image's own are survived.

use std::time::{Duration, Instant};

use reports::{Blame, Phase, Trouble, TroubleKind};

use super::attempt::{Attempt, Outcome, Up, deadline};
use crate::{
    guest::{Guest, Reboots, Seed},
    payload::{self, AfterBoot, FirstBootError},
    ssh::{self, Open, Session},
};

/// Handshake, authentication and a first command, before scaling: a server that has spoken does not need longer.
const CONNECT: Duration = Duration::from_secs(30);

impl Attempt<'_> {
    /// A session with the guest, the first thing that is done with it. Whether forks of a template come so far says what it is worth.
    pub(super) async fn awake(&self, up: &mut Up) -> Outcome<Session> {
        let session = async {
            let session = self.booted(up).await?;
            self.make_unique(up, &session).await?;
            Ok(session)
        };
        let session: Outcome<Session> = session.await;
        if let Some(template) = &up.fork_of {
            match &session {
                Ok(_) => template.worked(),
                // What nobody tried to its end says nothing of the template.
                Err(trouble) if trouble.fate().blame != Blame::Nobody && template.failed() => {
                    self.station.give_up(template, trouble);
                }
                Err(_) => {}
            }
        }
        session
    }

    /// A session with a guest whose boot is over. A fork does not boot.
    async fn booted(&self, up: &mut Up) -> Outcome<Session> {
        if up.fork_of.is_some() {
            return self.open(up).await;
        }
        let mut reboots = Reboots::at_most(up.guest.spec().reboots);
        loop {
            let once = async {
                let session = self.open(up).await?;
                self.boot_is_over(up, &session).await?;
                Ok(session)
            };
            let trouble = match once.await {
                Ok(session) => return Ok(session),
                Err(trouble) => trouble,
            };
            let Some(ended) = up.guest.has_ended().filter(|_| !self.kill.is_cancelled()) else { return Err(trouble) };
            if reboots.another(&ended) {
                let (count, most) = (reboots.count(), reboots.most());
                up.guest.boot_again().await.map_err(|error| {
                    let reason = format!("the guest cannot be rebooted: {error}");
                    Trouble::new(TroubleKind::QemuSilent, Phase::Boot, reason)
                })?;
                self.warn(format!("the guest rebooted itself before its boot was over ({count} of at most {most})"));
            } else if reboots.are_too_many() {
                // Another guest of this image reboots as often.
                let reason = format!(
                    "the guest rebooted itself {} times before its boot was over, at most {} are survived",
                    reboots.count(),
                    reboots.most()
                );
                let help = "a unit or script of the image reboots it at each boot: see console.log";
                return Err(Trouble::new(TroubleKind::RebootLoop, Phase::Boot, reason).with_help(help));
            } else {
                return Err(trouble);
            }
        }
    }

    /// The phases boot and connect.
    ///
    /// A fork does not boot, and its SSH server waits for us already.
    async fn open(&self, up: &mut Up) -> Outcome<Session> {
        let guest = &up.guest;
        let stream = match up.connection.take() {
            Some(connection) => connection,
            None => {
                let none = || Trouble::new(TroubleKind::Defect, Phase::Boot, "the guest has no network");
                let address = guest.ssh().ok_or_else(none)?;
                let limit = self.scaled(self.cell.timeouts.boot);
                let banner = ssh::banner(address, deadline(limit), self.kill);
                self.phase(Phase::Boot, Some(guest), Some(limit), banner).await?.map_err(|error| {
                    if let Some(complaint) = payload::complaint(&guest.console().tail(usize::MAX)) {
                        let reason = format!("{error}; on its console: {complaint}");
                        return Trouble::new(TroubleKind::Timeout, Phase::Boot, reason);
                    }
                    let help = "the guest runs but its SSH server never spoke: see its console and screen.png; if it is only \
                                slow, raise `timeout.boot`";
                    Trouble::new(TroubleKind::Timeout, Phase::Boot, error.to_string()).with_help(help)
                })?
            }
        };
        let limit = self.scaled(CONNECT);
        let user = self.station.image(self.cell).map_or("root", |image| &image.facts.login_user);
        let open = Session::open(Open {
            stream,
            user,
            sudo: user != "root",
            login: &up.login,
            host_keys: up.host_keys.public(),
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
            return Err(Trouble::new(TroubleKind::ImageUnusable, Phase::Image, error.to_string()).with_help(help));
        }
        self.explained_opening(guest, Phase::Connect, opened).await
    }

    /// Waits until the boot is over, and went well.
    async fn boot_is_over(&self, up: &Up, session: &Session) -> Outcome<()> {
        let (guest, limit) = (&up.guest, self.scaled(self.cell.timeouts.boot));
        let cloud = guest.spec().seed == Some(Seed::CloudInit);
        let waiting = async {
            if cloud {
                payload::first_boot(session, deadline(limit)).await?;
            }
            Ok(payload::boot_over(session, self.station.speed(self.cell)).await?)
        };
        let began = Instant::now();
        let over = self.phase(Phase::Boot, Some(guest), Some(limit + payload::STARTING), waiting).await?;
        let over = match over {
            // No other guest of this image does better.
            Err(error @ (FirstBootError::Failed(_) | FirstBootError::NoSeed(_))) => {
                let help =
                    "the whole of it is in the guest's /var/log/cloud-init.log: `--keep failed` leaves it running";
                return Err(Trouble::new(TroubleKind::ImageUnusable, Phase::Image, error.to_string()).with_help(help));
            }
            over => self.explained(guest, Phase::Boot, over).await?,
        };
        match over {
            AfterBoot::Up => Ok(()),
            AfterBoot::Slow => {
                let waited = began.elapsed().as_secs_f64();
                self.warn(format!("the guest still starts services {waited:.0} s after its SSH server answered"));
                Ok(())
            }
            AfterBoot::Down => self.goes_down(guest, limit).await,
            // One that is far away may never come; what it takes along then was not up to us.
            AfterBoot::Soon(soon) if soon <= limit => self.goes_down(guest, soon + limit).await,
            AfterBoot::Soon(_) => Ok(()),
        }
    }

    /// The guest is about to reboot or to power off: waits until it has.
    async fn goes_down(&self, guest: &Guest, limit: Duration) -> Outcome<()> {
        self.phase(Phase::Boot, Some(guest), Some(limit), tokio::time::sleep(limit)).await?;
        let reason =
            format!("timeout: the guest was about to go down, and did not within {:.0} s", limit.as_secs_f64());
        Err(Trouble::new(TroubleKind::Timeout, Phase::Boot, reason))
    }
}
