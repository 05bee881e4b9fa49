//! This machine as the place where guests run: the agent is a task of this process.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use matrix::{Arch, Plan};
use reports::{Phase, StepTime, Trouble, TroubleKind};
use tokio_util::sync::CancellationToken;

use super::place::{About, Engine, Opened, Opening, Place};
use crate::{
    agent::{
        Broken, Link, Results, Worker,
        protocol::{FromAgent, GuestProof, Ready, ToAgent},
    },
    events::Events,
    fanout::{BootImage, BootImages, Budget, Emulation, Keep, Purpose, RunContext, Stop, TemplateCache},
    guest::Spawner,
    host::{Machine, Proof, Qemu},
    package_lock::Locking,
    ssh::Keys,
    template::Freezing,
};

/// This machine, and what guests may take of it.
pub(crate) struct HostPlace<'a> {
    pub(crate) plan: &'a Plan,
    /// Why guests run here.
    pub(crate) reason: &'a str,
    pub(crate) qemu: &'a Qemu,
    pub(crate) machine: &'a Machine,
    pub(crate) spawner: &'a Spawner,
    /// That guests run here.
    pub(crate) proof: &'a Proof,
    /// How guests of other kinds of CPU are run.
    pub(crate) emulations: &'a BTreeMap<Arch, Emulation>,
    /// What the proofs took.
    pub(crate) proved: &'a [StepTime],
    /// Where templates are kept; else why there are none.
    pub(crate) freezing: Freezing,
    /// How guests get to repositories; else why not.
    pub(crate) proxy: Result<egress::Proxy, String>,
    /// Which packages they may get there.
    pub(crate) locking: Arc<Locking>,
    /// Every guest is booted, none forked.
    pub(crate) cold: bool,
    /// What guests may take together.
    pub(crate) budget: Budget,
    pub(crate) keep: Keep,
    pub(crate) purpose: Purpose,
    pub(crate) stop: &'a Stop,
    /// The run's own scratch folder: guests that are kept have their disks there.
    pub(crate) scratch: &'a Path,
    /// The run's folder.
    pub(crate) run: &'a Path,
    /// How many virtual machines this machine lies in.
    pub(crate) depth: u32,
}

/// This machine at work.
pub(crate) struct HostEngine {
    images: Arc<BootImages>,
}

impl Place for HostPlace<'_> {
    type Engine = HostEngine;

    fn about(&self) -> About<'_> {
        About {
            kind: "host",
            reason: self.reason,
            depth: self.depth + 1,
            needs_all_images: false,
            is_one_machine: false,
            proofs: None,
        }
    }

    async fn open(&self, opening: Opening<'_>) -> Result<Opened<HostEngine>, Trouble> {
        let login = Keys::generate("nestmatrix login").map_err(|error| {
            let reason = format!("could not make a login key: {error}");
            Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason)
        })?;
        let images = Arc::new(BootImages::of(self.plan));
        let (events, received) = Events::channel();
        let context = RunContext {
            runner: opening.number,
            plan: Arc::new(self.plan.clone()),
            images: Arc::clone(&images),
            spawner: self.spawner.clone(),
            qemu: self.qemu.clone(),
            accelerator: self.proof.accelerator,
            emulations: self.emulations.clone(),
            terse: false,
            speed: self.proof.speed,
            scratch: self.scratch.to_owned(),
            cells: self.run.join("cells"),
            proxy: self.proxy.clone(),
            locking: Arc::clone(&self.locking),
            template_cache: TemplateCache::new(self.freezing.clone(), self.cold, self.run.join("templates")),
            login,
            purpose: self.purpose,
            keep: self.keep,
            disk_full: CancellationToken::new(),
            events,
        };
        let ready = Ready {
            accelerator: self.proof.accelerator,
            proof: GuestProof { reason: self.proof.reason.clone(), speed: self.proof.speed },
            qemu: self.qemu.words.clone(),
            kernel: self.machine.kernel.clone(),
            memory: self.budget.memory().bytes(),
            cpus: self.budget.cpus(),
            steps: Vec::new(),
        };
        let worker = Worker { context, events: received, budget: self.budget.clone(), results: Results::Here };
        let stop = self.stop.clone();
        let link = Link::local(move |orders, say| async move {
            say.message(FromAgent::Ready(ready)).await;
            worker.obey(orders, &say, &stop).await;
        });
        Ok(Opened { engine: HostEngine { images }, link, l1: None, steps: self.proved.to_vec(), give_up: None })
    }
}

impl Engine for HostEngine {
    async fn ended(&self) -> Trouble {
        std::future::pending().await
    }

    async fn explained(&self, broken: &Broken) -> Trouble {
        Trouble::new(TroubleKind::Defect, Phase::Runner, broken.to_string())
    }

    fn evidence(&self) -> Vec<String> {
        Vec::new()
    }

    async fn bring(
        &self,
        name: &str,
        image: &BootImage,
        _progress: &(dyn Fn(String) + Sync),
    ) -> Result<Option<ToAgent>, Trouble> {
        self.images.add(name, image.clone());
        Ok(None)
    }

    async fn close(self) -> Option<String> {
        None
    }
}
