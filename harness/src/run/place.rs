//! Where a run's guests run: chosen, checked, and put to work.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use images::{Source, Templates};
use matrix::{Arch, Cell, Network, Plan, RunnerKind};
use reports::{EventKind, Phase, RunnerFacts, StepTime, Trouble, TroubleKind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    arriving::Arriving,
    error::RunError,
    foreign::{self, EMULATION, Emulations},
    limits,
    options::Options,
    settle::settle,
};
use crate::{
    events::Events,
    fanout::{BootImage, BootImages, Budget, Emulation, Keep, Purpose, Station, Stop, Todo, Warmth, dispatch},
    guest::{Accelerator, Spawner},
    host::{self, Choice, Machine, Nesting, Proof, Qemu, RunnerChoice},
    runner::{Blueprint, Campaign, Freezing, L1_IMAGE, Ledger, Proofs, Supply, size},
    ssh::Keys,
    template::Birthplace,
};

/// This machine and what is asked of it.
pub(super) struct Place<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
    pub(super) qemu: &'a Qemu,
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
    /// Images, some of which may still be on their way.
    pub(super) images: &'a mut Arriving,
    pub(super) proof: &'a Proof,
    /// How guests of other kinds of CPU are run.
    pub(super) emulations: BTreeMap<Arch, Emulation>,
    /// What the proofs took.
    pub(super) proved: Vec<StepTime>,
}

impl Place<'_> {
    /// Refuses what cannot be done, before anything is started.
    pub(super) fn check(&self) -> Result<(), RunError> {
        limits::check_disks(self.plan, &self.options.catalog)?;
        let (spare, cpus) = (self.machine.spare(), self.machine.cpus);
        if self.plan.runner.kind != RunnerKind::Qemu {
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
            RunnerKind::Host => false,
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
            RunnerKind::Host => Some(RunnerChoice::Host),
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
    pub(super) async fn run_cells(&self, to: Where<'_>, ledger: &mut Ledger) {
        let choice = self.choose(to.proof.accelerator);
        match choice.kind {
            RunnerChoice::Host => self.on_this_machine(to, &choice.reason, ledger).await,
            RunnerChoice::Qemu => self.in_an_l1(to, &choice.reason, ledger).await,
        }
    }

    async fn on_this_machine(&self, to: Where<'_>, reason: &str, ledger: &mut Ledger) {
        let refuse = |ledger: &mut Ledger, reason: String| {
            ledger.refuse(&unusable(reason)).into_iter().for_each(|event| to.events.send(event));
        };
        let spare = self.machine.spare();
        let limits = match limits::on_this_machine(self.plan, spare, self.machine.cpus) {
            Ok(limits) => limits,
            Err(error) => return refuse(ledger, error.to_string()),
        };
        let login = match Keys::generate("nestmatrix login") {
            Ok(login) => login,
            Err(error) => return refuse(ledger, format!("could not make a login key: {error}")),
        };
        let warmth = self.warmth(&to);
        let (kind, reason) = ("host".to_owned(), reason.to_owned());
        to.events.send(EventKind::RunnerStarted { runner: to.number, kind: kind.clone(), reason: reason.clone() });
        let runner = RunnerFacts {
            number: to.number,
            kind,
            reason,
            accelerator: to.proof.accelerator.to_string(),
            accelerator_reason: to.proof.reason.clone(),
            qemu: self.qemu.words.clone(),
            kernel: self.machine.kernel.clone(),
            speed: to.proof.speed,
            memory: limits.memory.bytes(),
            cpus: limits.cpus,
            depth: self.depth() + 1,
            l1: None,
            steps: to.proved,
        };
        to.events.send(EventKind::RunnerReady { runner });
        let station = Station {
            runner: to.number,
            plan: Arc::new(self.plan.clone()),
            images: BootImages::of(self.plan),
            spawner: to.spawner.clone(),
            qemu: self.qemu.clone(),
            accelerator: to.proof.accelerator,
            emulations: to.emulations,
            terse: false,
            speed: to.proof.speed,
            scratch: to.scratch.to_owned(),
            cells: to.run.join("cells"),
            warmth,
            login,
            purpose: self.options.purpose,
            keep: self.options.keep,
            disk_full: CancellationToken::new(),
            events: to.events.clone(),
        };
        let budget = Budget::new(limits.memory, limits.cpus, self.options.jobs.unwrap_or(usize::MAX));
        let station = Arc::new(station);
        let (arrive, arriving) = mpsc::unbounded_channel();
        let feed = self.feed(&station, arrive, to.images, ledger, to.stop);
        tokio::join!(dispatch(&station, arriving, budget, to.stop), feed);
    }

    /// Hands out the cells of every image that is in or comes in; those that no guest can be started for are reported.
    async fn feed(
        &self,
        station: &Station,
        arrive: mpsc::UnboundedSender<Vec<Todo>>,
        images: &mut Arriving,
        ledger: &mut Ledger,
        stop: &Stop,
    ) {
        let mut handed_out = HashSet::new();
        loop {
            // Images are not prepared to their end after an interrupt: that is what is to be said of their cells, and dispatch says it.
            let interrupted = stop.drain.is_cancelled();
            for (name, image) in images.prepared() {
                let image = image.as_ref().ok().and_then(|image| BootImage::of(Arc::clone(image)).ok());
                image.into_iter().for_each(|image| station.images.add(name, image));
            }
            if !interrupted {
                settle(self.plan, images, (Ok(()), &Emulations::new()), ledger, &station.events);
            }
            let is_in =
                |cell: &Cell| self.plan.image(cell).is_some_and(|image| images.prepared().contains_key(&image.from));
            let mut todo = ledger.todo();
            todo.retain(|todo| (interrupted || is_in(&todo.cell)) && handed_out.insert(todo.cell.id.clone()));
            if arrive.send(todo).is_err() || images.next().await.is_none() {
                return;
            }
        }
    }

    /// Where guests on this machine are forked from.
    fn warmth(&self, to: &Where<'_>) -> Warmth {
        Warmth::new(self.freezing(to, to.proof.accelerator), self.options.cold, to.run.join("templates"))
    }

    /// Where guests that are run here with this accelerator are frozen.
    fn freezing(&self, to: &Where<'_>, accelerator: Accelerator) -> Freezing {
        let templates = to.templates.clone()?;
        let birthplace = Birthplace::new(self.qemu, self.machine, accelerator);
        Ok((templates, birthplace.map_err(|error| format!("{}: {error}", self.qemu.system.display()))?))
    }

    async fn in_an_l1(&self, to: Where<'_>, reason: &str, ledger: &mut Ledger) {
        let refuse = |ledger: &mut Ledger, trouble: Trouble| {
            ledger.refuse(&trouble).into_iter().for_each(|event| to.events.send(event));
        };
        // All are attached to it when it starts.
        while to.images.next().await.is_some() {}
        settle(self.plan, to.images, (Ok(()), &Emulations::new()), ledger, to.events);
        let prepared = to.images.prepared();
        let name = self.plan.runner.image.as_deref().unwrap_or(L1_IMAGE);
        let image = match prepared.get(name) {
            Some(Ok(image)) => BootImage::of(Arc::clone(image)).map_err(|error| (error.to_string(), None)),
            Some(Err(missing)) => Err((missing.reason.clone(), missing.help.clone())),
            None => Err(("it was never prepared".to_owned(), None)),
        };
        let image = match image {
            Ok(image) => &image.clone(),
            Err((why, help)) => {
                let reason = format!("the L1's image {name} is not there: {why}");
                return refuse(ledger, Trouble { help, ..unusable(reason) });
            }
        };
        let used = |name: &str| self.plan.images.iter().any(|image| image.from == name);
        let images = prepared.iter().filter(|(name, _)| used(name));
        let images = images
            .filter_map(|(name, image)| Some((name.clone(), BootImage::of(Arc::clone(image.as_ref().ok()?)).ok()?)))
            .collect();
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
                    let reason = limits::l1_too_large(error, spare).to_string();
                    return refuse(ledger, unusable(reason));
                }
            };
            if let Some(message) = size.warning.clone() {
                to.events.send(EventKind::Warning { cell: None, message });
            }
            let key = format!(
                "{} | {:?} | {accelerator} | qemu {} | {} | {}",
                image.digest, self.plan.runner.kernel_args, self.qemu.words, self.machine.kernel, self.machine.cpu
            );
            let campaign = Campaign {
                blueprint: Blueprint {
                    plan: self.plan,
                    size: &size,
                    image,
                    image_name: name,
                    images: &images,
                    qemu: self.qemu,
                    speed: if emulated { to.proof.speed.max(EMULATION) } else { to.proof.speed },
                    nesting,
                    accelerator,
                    host_kernel: &self.machine.kernel,
                },
                reason,
                spawner: to.spawner,
                events: to.events,
                stop: to.stop,
                scratch: to.scratch,
                run: to.run,
                jobs: self.options.jobs,
                cold: self.options.cold,
                freezing: self.freezing(&to, accelerator),
                proofs: Proofs::new(to.store, key),
                depth: self.depth(),
            };
            match campaign.run(number, kinds.is_empty(), ledger).await {
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
