//! Where a run's guests run: chosen, checked, and put to work.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use images::{Source, Templates};
use matrix::{Arch, Network, Plan, RunnerKind, SshHost};
use reports::{EventKind, Phase, StepTime, Trouble, TroubleKind};
use tokio::sync::OnceCell;

use super::{
    arriving::Arriving,
    error::RunError,
    feed::Images,
    foreign::{self, EMULATION},
    image_phase::missing,
    limits,
    options::Options,
};
use crate::{
    events::Events,
    fanout::{BootImage, Budget, Emulation, Keep, Purpose, Stop},
    gce::{Client, Settings},
    guest::{Accelerator, Spawner},
    host::{self, Choice, Machine, Nesting, Proof, Qemu, RunnerChoice},
    runner::{
        Cloud, Forked, GcePlace, HostPlace, L1_IMAGE, L1Spec, Ledger, Proofs, QemuPlace, RunnerPool, SshPlace, Supply,
        intend, longest_silence, note, owner, size, sweep,
    },
    template::{Freezing, HostFingerprint},
};

/// This machine and what is asked of it.
pub(super) struct Place<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
    /// That of this machine; `None`: guests run on another one, and what this one can do decides nothing.
    pub(super) qemu: Option<&'a Qemu>,
    pub(super) machine: &'a Machine,
    pub(super) nesting: &'a Nesting,
}

/// What a run has made ready for its cells.
pub(super) struct Where<'a> {
    /// Number of the first runner.
    pub(super) number: u32,
    pub(super) spawner: &'a Spawner,
    pub(super) events: &'a Events,
    pub(super) stop: &'a Stop,
    /// The store's folder.
    pub(super) store: &'a Path,
    /// Its templates; else why it has none.
    pub(super) templates: Result<Templates, String>,
    /// The run's own scratch folder.
    pub(super) scratch: &'a Path,
    /// The run's folder.
    pub(super) run: &'a Path,
    pub(super) proof: &'a Proof,
    /// How guests of other kinds of CPU are run.
    pub(super) emulations: BTreeMap<Arch, Emulation>,
    /// What the proofs took.
    pub(super) proved: Vec<StepTime>,
}

impl Where<'_> {
    /// No guest can be run: every cell that has not reported says so.
    fn refuse(&self, ledger: &mut Ledger, trouble: &Trouble) {
        ledger.refuse(trouble).into_iter().for_each(|event| self.events.send(event));
    }
}

impl Place<'_> {
    /// Refuses what cannot be done, before anything is started.
    pub(super) fn check(&self) -> Result<(), RunError> {
        limits::check_guests(self.plan, &self.options.catalog)?;
        let (spare, cpus) = (self.machine.spare(), self.machine.cpus);
        if !matches!(self.plan.runner.kind, RunnerKind::Qemu | RunnerKind::Ssh | RunnerKind::Gce) {
            return limits::on_this_machine(self.plan, spare, cpus).map(drop);
        }
        if self.keeps() {
            return Err(RunError::KeepInL1);
        }
        let foreign = foreign::cells(self.plan, &self.options.catalog);
        if let Some((_, arch)) = foreign.first() {
            let cells: Vec<&str> = foreign.iter().map(|(cell, _)| cell.id.as_str()).collect();
            return Err(RunError::ForeignInL1 { cells: cells.join(", "), arch: *arch });
        }
        if self.qemu.is_none() {
            let runner = &self.plan.runner;
            let of_an_l1 = runner.image.is_some() || !runner.kernel_args.is_empty() || runner.disk.is_some();
            return match runner.kind {
                _ if of_an_l1 => Err(RunError::BootedElsewhere),
                RunnerKind::Gce => match intend(self.plan, self.options.jobs, &Settings::read()) {
                    Ok(_) => Ok(()),
                    Err(Trouble { reason, help, .. }) => Err(RunError::Gce(match help {
                        Some(help) => format!("{reason}: {help}"),
                        None => reason,
                    })),
                },
                _ => Ok(()),
            };
        }
        let name = self.plan.runner.image.as_deref().unwrap_or(L1_IMAGE);
        let entry = self.options.catalog.get(name);
        if !entry.is_some_and(|entry| matches!(entry.source, Source::Bootstrap(_)) && entry.arch == Arch::here()) {
            return Err(RunError::L1Image(name.to_owned()));
        }
        let supply = Supply { spare, cpus, emulated: !self.may_nest() };
        size(self.plan, self.options.jobs, supply).map(drop).map_err(|error| limits::l1_too_large(error, spare))
    }

    /// Guests are left to a person.
    fn keeps(&self) -> bool {
        self.options.keep != Keep::Never || self.options.purpose == Purpose::Shell
    }

    fn may_nest(&self) -> bool {
        self.nesting.hardware.as_ref().is_some_and(|hardware| hardware.nests())
    }

    /// Catalog name of the image an L1 is booted from; `None`: no L1 will be.
    pub(super) fn l1_image(&self) -> Option<&str> {
        let wanted = match self.plan.runner.kind {
            RunnerKind::Host | RunnerKind::Ssh | RunnerKind::Gce => false,
            RunnerKind::Qemu => true,
            RunnerKind::Auto => self.choose(Accelerator::Kvm).kind == RunnerChoice::Qemu,
        };
        wanted.then(|| self.plan.runner.image.as_deref().unwrap_or(L1_IMAGE))
    }

    fn choose(&self, accelerator: Accelerator) -> Choice {
        let asked = match self.plan.runner.kind {
            RunnerKind::Auto if self.keeps() => {
                let reason = "guests that are kept must not end with an L1".to_owned();
                return Choice { kind: RunnerChoice::Host, reason };
            }
            RunnerKind::Auto if !foreign::cells(self.plan, &self.options.catalog).is_empty() => {
                let reason = "an L1 has no emulator for guests of another kind of CPU".to_owned();
                return Choice { kind: RunnerChoice::Host, reason };
            }
            RunnerKind::Auto => None,
            RunnerKind::Host | RunnerKind::Ssh | RunnerKind::Gce => Some(RunnerChoice::Host),
            RunnerKind::Qemu => Some(RunnerChoice::Qemu),
        };
        let choice = host::choose(asked, self.nesting, Some(accelerator == Accelerator::Kvm));
        if asked.is_none() && choice.kind == RunnerChoice::Qemu {
            let supply = Supply { spare: self.machine.spare(), cpus: self.machine.cpus, emulated: false };
            if size(self.plan, self.options.jobs, supply).is_err() {
                let reason = "the guests fit beside each other here, but not into an L1".to_owned();
                return Choice { kind: RunnerChoice::Host, reason };
            }
        }
        choice
    }

    /// Runs every open cell of the ledger where it is best run.
    pub(super) async fn run_cells(&self, to: &Where<'_>, images: &mut Arriving, ledger: &mut Ledger) {
        let choice = self.choose(to.proof.accelerator);
        match (self.qemu, &self.plan.runner.host, choice.kind) {
            (None, ..) if self.plan.runner.kind == RunnerKind::Gce => {
                if let Err(trouble) = self.on_compute_engine(to, images, ledger).await {
                    to.refuse(ledger, &trouble);
                }
            }
            (Some(qemu), _, RunnerChoice::Host) => {
                self.on_this_machine(to, (&choice.reason, qemu), images, ledger).await;
            }
            (Some(qemu), _, RunnerChoice::Qemu) => self.in_an_l1(to, (&choice.reason, qemu), images, ledger).await,
            (None, Some(host), _) => self.over_ssh(to, host, images, ledger).await,
            (None, None, _) => to.refuse(ledger, &unusable("no machine is named (`runner.host`)".to_owned())),
        }
    }

    fn pool<'p, P>(&self, to: &Where<'p>, place: P) -> RunnerPool<'p, P> {
        RunnerPool {
            place,
            events: to.events,
            stop: to.stop,
            scratch: to.scratch,
            run: to.run,
            retries: self.plan.runner.retries,
            longest_silence: longest_silence(self.plan, self.options.cold),
        }
    }

    async fn on_this_machine(
        &self,
        to: &Where<'_>,
        (reason, qemu): (&str, &Qemu),
        images: &mut Arriving,
        ledger: &mut Ledger,
    ) {
        let limits = match limits::on_this_machine(self.plan, self.machine.spare(), self.machine.cpus) {
            Ok(limits) => limits,
            Err(error) => return to.refuse(ledger, &unusable(error.to_string())),
        };
        let place = HostPlace {
            plan: self.plan,
            reason,
            qemu,
            machine: self.machine,
            spawner: to.spawner,
            proof: to.proof,
            emulations: &to.emulations,
            proved: &to.proved,
            freezing: self.freezing(to, qemu, to.proof.accelerator),
            proxy: self.proxy(to),
            locking: Arc::clone(&self.options.locking),
            cold: self.options.cold,
            budget: Budget::new(limits.memory, limits.cpus, self.options.jobs.unwrap_or(usize::MAX)),
            keep: self.options.keep,
            purpose: self.options.purpose,
            stop: to.stop,
            scratch: to.scratch,
            run: to.run,
            depth: self.depth(),
        };
        let mut images = Images { plan: self.plan, arriving: images, events: to.events };
        self.pool(to, place).run(to.number, true, ledger, &mut images).await;
    }

    async fn over_ssh(&self, to: &Where<'_>, host: &SshHost, images: &mut Arriving, ledger: &mut Ledger) {
        let place = SshPlace::new(
            self.plan,
            host,
            to.spawner,
            self.options.jobs,
            self.options.cold,
            self.options.templates,
            (self.options.offline, &self.options.locking),
        );
        let mut images = Images { plan: self.plan, arriving: images, events: to.events };
        self.pool(to, place).run(to.number, true, ledger, &mut images).await;
    }

    async fn on_compute_engine(
        &self,
        to: &Where<'_>,
        images: &mut Arriving,
        ledger: &mut Ledger,
    ) -> Result<(), Trouble> {
        let settings = Settings::read();
        let intended = intend(self.plan, self.options.jobs, &settings)?;
        let client = Client::new(&settings).map_err(|error| unusable(error.to_string()))?;
        let cloud = Arc::new(Cloud { client, settings, project: intended.project.clone() });
        let owner = owner(to.store).map_err(|error| unusable(format!("{}: {error}", to.store.display())))?;
        // What a run left that was killed costs money.
        let say = |message| to.events.send(EventKind::Warning { cell: None, message });
        tokio::select! {
            () = to.stop.drain.cancelled() => {}
            swept = sweep(&cloud, to.store, &owner, say) => swept?,
        }
        let run = to.scratch.file_name().unwrap_or_default().to_string_lossy().into_owned();
        note(to.store, &run).map_err(|error| unusable(format!("{}: {error}", to.store.display())))?;
        let reason = format!("it was asked for: {} in {}", intended.machine_type, intended.zones.join(", else "));
        let place = GcePlace {
            intended,
            cloud,
            owner,
            run,
            store: to.store.to_owned(),
            spawner: to.spawner,
            events: to.events.clone(),
            jobs: self.options.jobs,
            cold: self.options.cold,
            templates: self.options.templates,
            offline: self.options.offline,
            locking: &self.options.locking,
            reason,
            checked: OnceCell::new(),
        };
        let mut images = Images { plan: self.plan, arriving: images, events: to.events };
        self.pool(to, place).run(to.number, true, ledger, &mut images).await;
        Ok(())
    }

    /// How guests on this machine get to repositories.
    fn proxy(&self, to: &Where<'_>) -> Result<egress::Proxy, String> {
        let cache = &images::packages(to.store);
        let (limit, offline) = (egress::Settings::LIMIT, self.options.offline);
        egress::Proxy::open(egress::Settings { cache, limit, through: None, offline })
    }

    /// Where guests that are run here with this accelerator are frozen.
    fn freezing(&self, to: &Where<'_>, qemu: &Qemu, accelerator: Accelerator) -> Freezing {
        let templates = to.templates.clone()?;
        let host_fingerprint = HostFingerprint::new(qemu, self.machine, accelerator);
        Ok((templates, host_fingerprint.map_err(|error| format!("{}: {error}", qemu.system.display()))?))
    }

    async fn in_an_l1(
        &self,
        to: &Where<'_>,
        (reason, qemu): (&str, &Qemu),
        arriving: &mut Arriving,
        ledger: &mut Ledger,
    ) {
        // All are attached to it when it starts.
        while arriving.next().await.is_some() {}
        let prepared = arriving.prepared();
        let name = self.plan.runner.image.as_deref().unwrap_or(L1_IMAGE);
        let image = match prepared.get(name) {
            Some(Ok(image)) => Ok(BootImage::of(Arc::clone(image), None)),
            Some(Err(trouble)) => Err(trouble.clone()),
            None => Err(missing("it was never prepared")),
        };
        let image = match image {
            Ok(image) => image,
            Err(Trouble { reason, help, .. }) => {
                let trouble = unusable(format!("the L1's image {name} is not there: {reason}"));
                return to.refuse(ledger, &Trouble { help, ..trouble });
            }
        };
        let used = |name: &str| self.plan.images.iter().any(|image| image.from == name);
        let images = arriving.boot_images().filter(|(name, _)| used(name)).collect();
        // Where KVM does not let virtual machines be run in virtual machines, whatever it says, a CPU that does is emulated.
        let mut kinds = vec![(Accelerator::Tcg, "emulated AMD SVM")];
        if to.proof.accelerator == Accelerator::Kvm && self.may_nest() {
            kinds.insert(0, (Accelerator::Kvm, "KVM of this machine nests"));
        }
        if let Some(cell) = self.plan.cells.iter().find(|cell| cell.guest.network == Network::Open) {
            let message = format!(
                "the L1 reaches what this machine reaches, because guests of {} may (`network = \"open\"`); every other guest stays \
                 isolated in it",
                cell.id
            );
            to.events.send(EventKind::Warning { cell: None, message });
        }
        let mut prepared = self.plan.images.iter().filter(|image| image.prepare.is_some());
        if let Some(image) =
            prepared.find(|image| image.prepare.as_ref().is_some_and(|prepare| prepare.network == Network::Open))
        {
            let message = format!(
                "an L1 reaches what this machine reaches while guests of {} are prepared in it (`prepare.network = \"open\"`), and \
                 until its end if it is not forked",
                image.name
            );
            to.events.send(EventKind::Warning { cell: None, message });
        }
        let mut number = to.number;
        while let Some((accelerator, nesting)) = (!kinds.is_empty()).then(|| kinds.remove(0)) {
            let emulated = accelerator == Accelerator::Tcg;
            let spare = self.machine.spare();
            let supply = Supply { spare, cpus: self.machine.cpus, emulated };
            let size = match size(self.plan, self.options.jobs, supply) {
                Ok(size) => size,
                Err(error) => {
                    return to.refuse(ledger, &unusable(limits::l1_too_large(error, spare).to_string()));
                }
            };
            if let Some(message) = size.warning.clone() {
                to.events.send(EventKind::Warning { cell: None, message });
            }
            let key = format!(
                "{} | {:?} | {accelerator} | qemu {} | {} | {}",
                image.facts.digest, self.plan.runner.kernel_args, qemu.words, self.machine.kernel, self.machine.cpu
            );
            let place = QemuPlace {
                spec: L1Spec {
                    plan: self.plan,
                    size: &size,
                    image: &image,
                    image_name: name,
                    images: &images,
                    qemu,
                    speed: if emulated { to.proof.speed.max(EMULATION) } else { to.proof.speed },
                    nesting,
                    accelerator,
                    host_kernel: &self.machine.kernel,
                },
                reason,
                spawner: to.spawner,
                jobs: self.options.jobs,
                cold: self.options.cold,
                freezing: self.freezing(to, qemu, accelerator),
                proxy: self.proxy(to),
                locking: &self.options.locking,
                proofs: Proofs::new(to.store, key),
                depth: self.depth(),
            };
            let images = &mut Images { plan: self.plan, arriving: &mut *arriving, events: to.events };
            let last_resort = kinds.is_empty();
            let next = if self.options.cold {
                self.pool(to, place).run(number, last_resort, ledger, images).await
            } else {
                self.pool(to, Forked(place)).run(number, last_resort, ledger, images).await
            };
            match next {
                Some(next) => number = next,
                None => return,
            }
        }
    }

    /// How many virtual machines this machine lies in, as far as it can be seen from here.
    fn depth(&self) -> u32 {
        u32::from(self.machine.is_virtual())
    }
}

/// No guest can be run, here or in an L1.
fn unusable(reason: String) -> Trouble {
    Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason)
}
