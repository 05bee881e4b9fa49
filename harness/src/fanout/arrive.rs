//! From a guest that runs to a session with one whose boot is over: the phases boot and connect, or the phase reboot. Reboots of the image's
//! own are survived.

use std::time::Duration;

use matrix::Identity;
use reports::{Blame, Phase, Trouble, TroubleKind};
use tokio::time::Instant;

use super::{
    attempt::{Attempt, deadline},
    world::{Login, Machine, Origin as _, Outcome, RunningGuest, Talk as _, Talker, World},
};
use crate::{
    guest::{Next, Reboots, Seed},
    payload::{self, AfterBoot, FirstBootError},
    ssh::{Keys, Session},
};

/// Handshake, authentication and a first command, before scaling: a server that has spoken does not need longer.
const CONNECT: Duration = Duration::from_secs(30);

/// A connection to an attempt's guest.
type Connection<W> = <<W as World>::Guest as Machine>::Connection;

impl<W: World> Attempt<'_, W> {
    /// A session with the guest, the first thing that is done with it. Whether forks of a template come so far says what it is worth.
    pub(super) async fn awake(&self, running: &mut RunningGuest<W>) -> Outcome<Talker<W>> {
        let session = async {
            // A fork does not boot, and its SSH server waits for us already.
            let session = match running.connection.take() {
                Some(connection) => self.open(running, connection, Phase::Connect).await?,
                None => self.booted(running, Phase::Boot).await?,
            };
            if running.of_template && self.cell.options.identity == Identity::Unique {
                self.make_unique(running, &session, Phase::Connect).await?;
            }
            Ok(session)
        };
        let session: Outcome<Talker<W>> = session.await;
        if let Some(template) = &running.fork_of {
            match &session {
                Ok(_) => template.worked(),
                // What nobody tried to its end says nothing of the template.
                Err(trouble) if trouble.fate().blame != Blame::Nobody && template.failed() => {
                    self.world.give_up(template, trouble);
                }
                Err(_) => {}
            }
        }
        session
    }

    /// The step `reboot`: reboots the guest from the inside. `touched`: the package or the suite has run in it, and is to blame if it does not come back.
    pub(super) async fn reboot(
        &self,
        running: &mut RunningGuest<W>,
        session: &mut Talker<W>,
        touched: bool,
    ) -> Outcome<()> {
        let again = async {
            let limit = self.scaled(self.cell.timeouts.boot);
            let until = deadline(limit);
            let telling = async {
                let told = session.reboot(until).await;
                // One that goes down closes its connections first, and its end is news that our caller waits for.
                if !matches!(told, Ok(Some(_))) {
                    tokio::time::sleep_until(until.into()).await;
                }
                told
            };
            let trouble = match self.phase(Phase::Reboot, Some(&running.guest), Some(limit), telling).await {
                Err(trouble) if trouble.kind == TroubleKind::GuestRebooted => return self.comes_back(running).await,
                Err(trouble) => trouble,
                Ok(told) => match self.explained(&running.guest, Phase::Reboot, told).await {
                    Ok(Some(said)) => {
                        let reason = format!("the guest cannot be told to reboot: {said}");
                        Trouble::new(TroubleKind::Unexpected, Phase::Reboot, reason)
                    }
                    Ok(None) => not_down(Phase::Reboot, limit),
                    Err(trouble) => trouble,
                },
            };
            Err(trouble)
        };
        let again: Outcome<Talker<W>> = again.await;
        *session = again.map_err(|trouble| match trouble.phase {
            // Nothing but the image can have broken this boot.
            Phase::Reboot if !touched => Trouble { phase: Phase::Boot, ..trouble },
            _ => trouble,
        })?;
        Ok(())
    }

    /// A guest that has reset itself boots again, with the package or the suite in it: a session, and all as it was before.
    pub(super) async fn comes_back(&self, running: &mut RunningGuest<W>) -> Outcome<Talker<W>> {
        // Its port is no SSH server's any more.
        running.by_port = false;
        boot_again(&running.guest, Phase::Reboot).await?;
        let session = self.booted(running, Phase::Reboot).await?;
        if running.own.is_some() {
            self.make_unique(running, &session, Phase::Reboot).await?;
        }
        let limit = self.scaled(self.cell.timeouts.prepare);
        let restored =
            self.phase(Phase::Reboot, Some(&running.guest), Some(limit), self.restore_payload(&session)).await?;
        self.explained(&running.guest, Phase::Reboot, restored).await?;
        Ok(session)
    }

    /// A session with a guest whose boot is over; `boot` is the phase it boots in.
    async fn booted(&self, running: &mut RunningGuest<W>, boot: Phase) -> Outcome<Talker<W>> {
        // One that has booted before may need another boot (SELinux labels its files), and is in no loop then.
        let most = if boot == Phase::Reboot { 1 } else { running.guest.reboots() };
        let mut reboots = Reboots::at_most(most);
        loop {
            let once = async {
                let connection = self.served(running, boot).await?;
                let session =
                    self.open(running, connection, if boot == Phase::Boot { Phase::Connect } else { boot }).await?;
                self.boot_is_over(running, &session, boot).await?;
                Ok(session)
            };
            let trouble = match once.await {
                Ok(session) => return Ok(session),
                Err(trouble) => trouble,
            };
            let Some(ended) = running.guest.has_ended().filter(|_| !self.kill.is_cancelled()) else {
                return Err(trouble);
            };
            match reboots.next(&ended) {
                Next::Ended => return Err(trouble),
                Next::Boots => {
                    boot_again(&running.guest, boot).await?;
                    self.warn(format!(
                        "the guest rebooted itself before its boot was over ({} of at most {})",
                        reboots.count(),
                        reboots.most()
                    ));
                }
                Next::TooMany => {
                    let reason = reboots.too_many("before its boot was over the guest rebooted itself");
                    let help = "a unit or script of the image or the package reboots it at each boot: see console.log";
                    return Err(Trouble::new(TroubleKind::RebootLoop, boot, reason).with_help(help));
                }
            }
        }
    }

    /// A connection to a booting guest's SSH server.
    async fn served(&self, running: &RunningGuest<W>, boot: Phase) -> Outcome<Connection<W>> {
        let guest = &running.guest;
        let limit = self.scaled(self.cell.timeouts.boot);
        let serving = guest.served(deadline(limit), self.kill);
        let error = match self.phase(boot, Some(guest), Some(limit), serving).await? {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if boot == Phase::Reboot {
            return Err(self.mute(guest, boot, &error).await);
        }
        if let Some(complaint) = payload::complaint(&guest.tail(usize::MAX)) {
            let reason = format!("{error}; on its console: {complaint}");
            return Err(Trouble::new(TroubleKind::Timeout, boot, reason));
        }
        let help = "the guest runs but its SSH server never spoke: see its console and screen.png; if it is only slow, raise \
                    `timeout.boot`";
        Err(Trouble::new(TroubleKind::Timeout, boot, error).with_help(help))
    }

    /// A session over this connection.
    async fn open(&self, running: &RunningGuest<W>, connection: Connection<W>, connect: Phase) -> Outcome<Talker<W>> {
        let (guest, limit) = (&running.guest, self.scaled(CONNECT));
        let user = self.context.image(self.cell).map_or("root", |image| &image.facts.login_user);
        let login = Login {
            user,
            login: &running.login,
            host_keys: Self::shown_keys(running, connect),
            deadline: deadline(limit),
            silence: self.scaled(Session::SILENCE),
            cancel: self.kill.child_token(),
        };
        let open = guest.open(connection, login);
        let opened = self.phase(connect, Some(guest), Some(limit), open).await?;
        if let Err(error) = &opened
            && connect == Phase::Connect
            && error.is_the_images_fault()
        {
            // Known at once, and the same in every guest of this image.
            let help = "set up the SSH server and the account's start-up files of the image so that this works";
            return Err(Trouble::new(TroubleKind::ImageUnusable, Phase::Image, error.to_string()).with_help(help));
        }
        self.explained_opening(guest, connect, opened).await
    }

    /// The host keys that a guest shows in this phase. One that was given keys of its own and boots again has got those of its firmware
    /// back; cloud-init writes none at the second boot of an instance.
    fn shown_keys(running: &RunningGuest<W>, connect: Phase) -> &Keys {
        match &running.own {
            Some(own) if connect == Phase::Reboot && running.guest.seed() == Some(Seed::Firmware) => &own.told,
            _ => &running.host_keys,
        }
    }

    /// Waits until the boot is over, and went well.
    async fn boot_is_over(&self, running: &RunningGuest<W>, session: &Talker<W>, boot: Phase) -> Outcome<()> {
        let (guest, limit) = (&running.guest, self.scaled(self.cell.timeouts.boot));
        // Its second boot is no first one.
        let cloud = boot == Phase::Boot && guest.seed() == Some(Seed::CloudInit);
        let waiting = async {
            if cloud {
                session.first_boot(deadline(limit)).await?;
            }
            Ok(session.boot_over(self.context.speed(self.cell)).await)
        };
        let began = Instant::now();
        let over = self.phase(boot, Some(guest), Some(limit + payload::STARTING), waiting).await?;
        let over = match over {
            // No other guest of this image does better.
            Err(error @ (FirstBootError::Failed(_) | FirstBootError::NoSeed(_))) => {
                let help =
                    "the whole of it is in the guest's /var/log/cloud-init.log: `--keep failed` leaves it running";
                return Err(Trouble::new(TroubleKind::ImageUnusable, Phase::Image, error.to_string()).with_help(help));
            }
            first => self.explained(guest, boot, first).await?,
        };
        let over = self.explained(guest, boot, over).await?;
        if over == AfterBoot::Slow {
            let waited = began.elapsed().as_secs_f64();
            self.warn(format!("the guest still starts services {waited:.0} s after its SSH server answered"));
        }
        match self.going(over) {
            Some(limit) => Err(self.goes_down(guest, boot, limit).await),
            None => Ok(()),
        }
    }

    /// Within which time a guest goes down that is about to.
    pub(super) fn going(&self, after: AfterBoot) -> Option<Duration> {
        let limit = self.scaled(self.cell.timeouts.boot);
        match after {
            AfterBoot::Up | AfterBoot::Slow => None,
            AfterBoot::Down => Some(limit),
            // One that is far away may never come; what it takes along then was not up to us.
            AfterBoot::Soon(soon) => (soon <= limit).then(|| soon + limit),
        }
    }

    /// The guest is about to reboot or to power off: waits until it has. What became of it.
    pub(super) async fn goes_down(&self, guest: &W::Guest, phase: Phase, limit: Duration) -> Trouble {
        let gone = self.phase(phase, Some(guest), Some(limit), tokio::time::sleep(limit)).await;
        gone.err().unwrap_or_else(|| not_down(phase, limit))
    }
}

fn not_down(phase: Phase, limit: Duration) -> Trouble {
    let reason = format!("timeout: the guest was about to go down, and did not within {:.0} s", limit.as_secs_f64());
    Trouble::new(TroubleKind::Timeout, phase, reason)
}

async fn boot_again(guest: &impl Machine, phase: Phase) -> Outcome<()> {
    guest
        .boot_again()
        .await
        .map_err(|error| Trouble::new(TroubleKind::QemuSilent, phase, format!("the guest cannot be rebooted: {error}")))
}
