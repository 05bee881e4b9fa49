//! A guest for an attempt: forked where that can be done, else booted, and which of the two is said.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use matrix::{ByteSize, Cell, Identity};
use reports::{EventKind, GuestFacts, Phase, Trouble, TroubleKind};

use super::{
    attempt::{Attempt, deadline, keys},
    context::{Keep, Purpose, RunContext},
    disk_space,
    image::BootImage,
    machine,
    outbound::Outbound,
    world::{Origin as _, Outcome, Own, RunningGuest, Source, Talk as _, Talker, World},
};
use crate::{
    guest::{self, Below, GuestIdentity, Launch, Seed, StartError},
    payload,
    ssh::{Exec, Stdin},
    template::{self, Forked, Template, With},
};

/// Gives a fork an identity of its own.
const UNIQUE: &str = include_str!("unique.sh");

/// The logs of a fork that failed are kept beside those of the guest that is booted instead.
const LOGS: [&str; 3] = ["console.log", "qemu.log", "qemu.args"];

/// How long starting a guest may take, before scaling: forking one is done within a second, and a disk is made in no time.
const START: Duration = Duration::from_secs(120);

impl<W: World> Attempt<'_, W> {
    /// The guest, running; a fork is awake already.
    pub(super) async fn power_on(&self, logs: &Path, scratch: &Path) -> Outcome<RunningGuest<W>> {
        let error = |what: String| Trouble::new(TroubleKind::Host, Phase::Runner, what);
        for folder in [logs, scratch] {
            tokio::fs::create_dir_all(folder)
                .await
                .map_err(|source| error(format!("could not create {}: {source}", folder.display())))?;
        }
        let limit = Some(self.scaled(START));
        let (prepared, reason) = match self.world.source()? {
            Source::Fork(template) => {
                let forking = self.world.fork(&template, logs, scratch);
                match self.phase(Phase::Runner, None, limit, forking).await? {
                    Ok(made) => return Ok(self.started(made)),
                    Err(trouble) => {
                        let is_broken = match trouble.kind {
                            TroubleKind::TemplateBroken => true,
                            TroubleKind::ForkFailed => template.failed(),
                            _ => false,
                        };
                        if is_broken {
                            self.world.give_up(&template, &trouble);
                        }
                        for name in LOGS {
                            let _ = std::fs::rename(logs.join(name), logs.join(format!("fork-{name}")));
                        }
                        // What was prepared is on its disk, and nowhere else.
                        (self.context.prepares(self.cell).then_some(template), Some(trouble.reason))
                    }
                }
            }
            Source::Boot { prepared, reason } => (prepared, reason),
        };
        // Where a fork was to run there may be no room for a guest that shares nothing.
        tokio::select! {
            biased;
            () = self.kill.cancelled() => {
                let reason = "interrupted before its guest was booted";
                return Err(Trouble::new(TroubleKind::Interrupted, Phase::Runner, reason));
            }
            fits = self.admission.for_boot() => if !fits {
                let reason = "its guest could not be forked, and guests that were kept take the memory that booting it needs: \
                              keep fewer, or run it by itself with --cell";
                return Err(Trouble::new(TroubleKind::NoMemory, Phase::Runner, reason));
            }
        }
        let booting = self.world.boot(prepared.as_deref(), reason, logs, scratch);
        self.phase(Phase::Runner, None, limit, booting).await?.map(|made| self.started(made))
    }

    fn started(&self, (running, facts): (RunningGuest<W>, GuestFacts)) -> RunningGuest<W> {
        self.admission.process.watch(facts.pid);
        self.send(|cell, attempt| EventKind::GuestStarted { cell, attempt, guest: facts });
        running
    }

    /// Gives a guest with the disk of a template a machine id, SSH host keys and a name of its own; one that is booted from its image's
    /// disk has them. Once more, with the same ones, after each boot.
    pub(super) async fn make_unique(
        &self,
        running: &mut RunningGuest<W>,
        session: &Talker<W>,
        phase: Phase,
    ) -> Outcome<()> {
        let (machine_id, host_keys) = match &running.own {
            Some(own) => (own.machine_id.clone(), running.host_keys.clone()),
            None => (format!("{:032x}", rand::random::<u128>()), keys("host key")?),
        };
        let name = machine::hostname(self.cell.id.as_str());
        let limit = self.scaled(self.cell.timeouts.prepare);
        let halves = host_keys.public().into_iter().zip(host_keys.private());
        let stdin =
            Stdin::Bytes(halves.map(|(public, private)| format!("{public}\n{private}")).collect::<String>().into());
        let exec = session.exec(Exec::new(payload::script(UNIQUE, &[&machine_id, &name]), stdin, deadline(limit)));
        let exit = self.phase(phase, Some(&running.guest), Some(limit), exec).await?;
        let exit = self.explained(&running.guest, phase, exit).await?;
        if !exit.success() {
            let said = reports::clean::line(&String::from_utf8_lossy(&exit.stderr_tail));
            let reason = format!("the guest could not be made unique: {said}");
            return Err(Trouble::new(TroubleKind::Unexpected, phase, reason));
        }
        if running.own.is_none() {
            let told = std::mem::replace(&mut running.host_keys, host_keys);
            running.own = Some(Own { machine_id, told });
        }
        Ok(())
    }
}

/// QEMU, for the guest of one attempt.
pub(super) struct Qemu<'a> {
    pub(super) context: &'a RunContext,
    pub(super) cell: &'a Cell,
    /// From 1.
    pub(super) number: u32,
    /// Number of the last one there may be.
    pub(super) last: u32,
    /// It follows one that failed for no fault of the package.
    pub(super) again: bool,
}

impl World for Qemu<'_> {
    type Guest = guest::Guest;
    type Template = Template;

    fn source(&self) -> Outcome<Source<Template>> {
        let (context, cell) = (self.context, self.cell);
        let unasked = !context.forks(cell);
        let prepares = self.context.prepares(self.cell);
        let template = match (context.template_key(cell), &context.template_cache.templates) {
            (Some(key), _) => context.template_cache.known(key).unwrap_or_else(|| Err(unknown())),
            (None, Err(reason)) => Err(template::no_template(reason.clone())),
            (None, Ok(_)) => Err(unknown()),
        };
        match template {
            Err(none) if prepares => Err(Trouble { phase: Phase::Image, ..none.within("`image.prepare`") }),
            Ok(template) if !unasked && !self.again && template.unfrozen().is_none() => Ok(Source::Fork(template)),
            Ok(template) => {
                let reason = template.unfrozen().unwrap_or("the attempt before it failed").to_owned();
                Ok(Source::Boot { prepared: prepares.then_some(template), reason: (!unasked).then_some(reason) })
            }
            Err(none) => Ok(Source::Boot { prepared: None, reason: (!unasked).then_some(none.reason) }),
        }
        .map(|source| match source {
            Source::Boot { prepared, reason: None } if cell.options.boot == matrix::Boot::Warm => {
                let reason = if context.template_cache.cold { Some("--cold") } else { context.is_booted(cell) };
                Source::Boot { prepared, reason: reason.map(str::to_owned) }
            }
            source => source,
        })
    }

    async fn fork(
        &self,
        template: &Arc<Template>,
        logs: &Path,
        scratch: &Path,
    ) -> Outcome<(RunningGuest<Self>, GuestFacts)> {
        let (context, image) = (self.context, self.image()?);
        let launch = machine::launch(context, self.cell, image, context.terse);
        let launch = launch.map_err(|error| template::no_template(error.to_string()))?;
        let with = With {
            qemu: context.qemu(self.cell),
            spawner: &context.spawner,
            speed: context.speed(self.cell),
            dies_with_us: self.dies_with_us(),
        };
        let forked = template::fork(template, &with, launch, &BTreeMap::new(), (scratch, logs)).await;
        let Forked { mut guest, connection } = forked?;
        let outbound = self.outbound(&mut guest)?;
        let (login, host_keys) = (template.login().clone(), template.host_keys().clone());
        let fork_of = Some(Arc::clone(template));
        let connection = Some(connection);
        let running = RunningGuest {
            guest,
            login,
            host_keys,
            connection,
            fork_of,
            by_port: true,
            of_template: true,
            own: None,
            outbound,
        };
        let boot = reports::Boot::Forked { template: template.key() };
        match self.facts(&running.guest, image, boot).await {
            Ok(facts) => Ok((running, facts)),
            Err(trouble) => {
                // Gone for certain before another guest's disk is made in its place.
                running.guest.kill().await;
                Err(trouble)
            }
        }
    }

    async fn boot(
        &self,
        prepared: Option<&Template>,
        reason: Option<String>,
        logs: &Path,
        scratch: &Path,
    ) -> Outcome<(RunningGuest<Self>, GuestFacts)> {
        let (context, image) = (self.context, self.image()?);
        let error = |what: String, help: Option<String>| Trouble {
            help,
            ..Trouble::new(TroubleKind::Host, Phase::Runner, what)
        };
        let host_keys = keys("host key")?;
        let terse = context.is_terse(self.number, self.last);
        let launch = machine::launch(context, self.cell, image, terse);
        // Nor has it for another guest.
        let launch =
            launch.map_err(|failure| Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, failure.to_string()))?;
        // A prepared disk carries the identity it was prepared with.
        let seed = guest::raw_disk(scratch, Seed::DISK);
        let below = Below {
            root: &prepared.map_or_else(|| image.disk.clone(), Template::disk),
            others: prepared.map(Template::folder),
            given: &BTreeMap::from([(Seed::DISK.to_owned(), seed)]),
        };
        let disks = guest::make_disks(&context.qemu(self.cell).img, &launch.spec, &below, scratch).await;
        let disks = disks.map_err(|failure| {
            error(failure.to_string(), Some(format!("make room below {}", context.scratch.display())))
        })?;
        let hostname = match self.cell.options.identity {
            Identity::Shared => machine::hostname(&self.cell.image),
            Identity::Unique => machine::hostname(self.cell.id.as_str()),
        };
        let who = GuestIdentity {
            login: context.login.public(),
            host_private: host_keys.private(),
            host_public: host_keys.public(),
            hostname: &hostname,
        };
        guest::identity(scratch, &who, launch.spec.seed)
            .map_err(|source| error(format!("could not write into {}: {source}", scratch.display()), None))?;
        let launch = Launch { disks, folder: scratch.to_owned(), ..launch };
        let starting = guest::Guest::start(&context.spawner, launch, self.dies_with_us(), logs);
        let mut guest = starting.await.map_err(|failure| {
            let help =
                matches!(failure, StartError::Gone { .. }).then(|| format!("see {}", logs.join("qemu.log").display()));
            error(failure.to_string(), help)
        })?;
        let of_template = prepared.is_some();
        let outbound = self.outbound(&mut guest)?;
        let running = RunningGuest {
            guest,
            login: context.login.clone(),
            host_keys,
            connection: None,
            fork_of: None,
            by_port: false,
            of_template,
            own: None,
            outbound,
        };
        let facts = self.facts(&running.guest, image, reports::Boot::Cold { reason }).await?;
        Ok((running, facts))
    }

    fn give_up(&self, template: &Template, trouble: &Trouble) {
        self.context.give_up(template, trouble);
    }

    fn shortage(&self) -> Option<ByteSize> {
        disk_space::shortage(&self.context.scratch)
    }
}

impl Qemu<'_> {
    /// A guest that may be kept must survive us; if we are killed, the next start ends it (see `scratch::sweep`).
    fn dies_with_us(&self) -> bool {
        self.context.keep == Keep::Never || self.context.purpose == Purpose::Shell
    }

    /// The way out of a guest that was just started, if it is to have one.
    fn outbound(&self, guest: &mut guest::Guest) -> Outcome<Option<Outbound>> {
        let Some(socket) = guest.take_egress() else { return Ok(None) };
        let proxy = self.context.proxy.as_ref();
        let proxy = proxy.map_err(|reason| Trouble::new(TroubleKind::Host, Phase::Runner, reason.clone()))?;
        let events = self.context.events.clone();
        let pins = self.context.locking.pins(&self.cell.image);
        Ok(Some(Outbound::open(proxy, socket, pins, events, (self.cell.id.clone(), self.number))))
    }

    fn image(&self) -> Outcome<&BootImage> {
        let gone = || Trouble::new(TroubleKind::Host, Phase::Runner, "its image is not there");
        self.context.image(self.cell).ok_or_else(gone)
    }

    async fn facts(&self, guest: &guest::Guest, image: &BootImage, boot: reports::Boot) -> Outcome<GuestFacts> {
        let accelerator = guest.accelerator().await;
        let accelerator =
            accelerator.map_err(|failure| Trouble::new(TroubleKind::QemuSilent, Phase::Runner, failure.to_string()))?;
        Ok(GuestFacts {
            runner: self.context.runner,
            image: image.facts.digest,
            accelerator: accelerator.to_string(),
            machine: guest.spec().machine.clone(),
            pid: guest.pid(),
            boot,
        })
    }
}

fn unknown() -> Trouble {
    template::no_template("no template was looked for")
}
