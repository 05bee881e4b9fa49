//! The agent on a machine that is not its own: other users, other runs, and what earlier runs have left for this one.
//!
//! ```text
//! programs/<digest>/   the agent's program           images/<digest>/   disk, kernel and initial file system of an image
//! store/               a store: templates, the proof that guests run; store/scratch/<run>/ goes with its run
//! ```

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use images::{Kernel, Store};
use matrix::Arch;
use reports::{Phase, StepTime, Trouble, TroubleKind};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::{
    job_bundle::JobBundle,
    orders::Orders,
    protocol::{FromAgent, GuestProof, Ready, Work},
    proxy::proxy,
    say::Say,
    worker::{Obeying, Results, TakeImage, Worker},
};
use crate::{
    blocking::blocking,
    events::Events,
    fanout::{BootImage, BootImages, Budget, Cost, Keep, Purpose, RunContext, Stop, TemplateCache},
    guest::{Accelerator, Spawner},
    host::{self, Machine, Proof, Qemu},
    scratch::{self, Scratch},
    ssh::Keys,
    template::{Freezing, HostFingerprint},
};

/// Names below the folder that a user's runs share.
pub(crate) const PROGRAMS: &str = "programs";
pub(crate) const IMAGES: &str = "images";
const STORE: &str = "store";
/// Name below the run's own folder.
const JOB: &str = "bundle";

const DISK_HELP: &str =
    "make room on that machine's disk, below ~/.cache/nestmatrix, or run fewer guests at once (`--jobs`)";

/// The store below this folder.
pub(super) fn store(root: &Path) -> PathBuf {
    root.join(STORE)
}

/// Where the bundle of a run is unpacked.
pub(super) fn bundle(root: &Path, run: &str) -> PathBuf {
    store(root).join("scratch").join(run).join(JOB)
}

/// The run's place on the machine. Dropping it removes all that the run has here.
pub(super) struct Shared {
    store: Store,
    scratch: Scratch,
    swept: Vec<String>,
}

impl Shared {
    /// Removes what dead runs left, and makes the folder of this one.
    pub(super) fn open(root: &Path, run: &str) -> io::Result<Self> {
        let store = Store::open(&store(root)).map_err(io::Error::other)?;
        let swept = scratch::sweep(store.root());
        let scratch = Scratch::create(store.root(), run).map_err(io::Error::other)?;
        Ok(Self { store, scratch, swept })
    }

    /// Ends the run's guests, and removes all that it has here.
    pub(super) fn end(self) {
        scratch::end_guests(self.scratch.path());
    }

    /// Runs what the orchestrator orders.
    pub(super) async fn run(
        &self,
        work: Work,
        orders: Orders,
        spawner: &Spawner,
        say: &Say,
        stop: &Stop,
    ) -> Result<(), Trouble> {
        let own = self.scratch.path();
        for message in &self.swept {
            say.message(FromAgent::Progress { message: message.clone() }).await;
        }
        let bundle = JobBundle::read(&own.join(JOB)).map_err(|error| unusable(format!("no bundle: {error}")))?;
        let plan = Arc::new(bundle.plan);
        let (arrive, arriving) = unbounded_channel();
        let boot_images = Arc::new(BootImages::of(&plan));
        let (arrival, mut came) = unbounded_channel();
        let take: TakeImage = {
            let boot_images = Arc::clone(&boot_images);
            Box::new(move |name, image| {
                boot_images.add(name, image.here());
                // Once guests are proved to run, nobody waits for one.
                let _ = arrival.send(image.here());
            })
        };
        let _obeying = Obeying::start(orders, Arc::clone(&plan), arrive, Some(take), stop.clone());
        let qemu = Qemu::find().await.map_err(|error| unusable(error.to_string()))?;
        let machine = Machine::read().map_err(|error| unusable(format!("the size of the machine: {error}")))?;
        let (scratch, cells) = (own.join("guests"), own.join("cells"));
        for folder in [&scratch, &cells] {
            std::fs::create_dir_all(folder).map_err(|error| unusable(format!("{}: {error}", folder.display())))?;
        }

        let spare = machine.spare();
        let memory = plan.runner.memory.map_or(spare, |asked| asked.min(spare));
        let budget = Budget::new(memory, work.cpus.min(machine.cpus), work.jobs.unwrap_or(usize::MAX));
        let mut costs = plan.cells.iter().map(|cell| (cell, Cost::of(&cell.guest)));
        if let Some((cell, cost)) = costs.find(|(_, cost)| !budget.allows(*cost)) {
            let (needed, budget, spare) = (cost.memory().mib(), memory.mib(), spare.mib());
            let reason = format!(
                "cell {} needs {needed} MiB with QEMU's own, but all guests together may take {budget} MiB ({spare} MiB can be spared there)",
                cell.id
            );
            return Err(unusable(reason).with_help("lower the guest's `memory`, or raise `runner.memory`"));
        }

        let began = Instant::now();
        let known = host::known(self.store.root(), &qemu, &machine);
        let proof = match known.filter(|proof| !work.kvm || proof.accelerator == Accelerator::Kvm) {
            Some(proof) => proof,
            None => {
                let prover = Prover { qemu: &qemu, machine: &machine, spawner, scratch: &scratch, say };
                let proof = async {
                    match work.kvm {
                        true => prover.prove_kvm(&mut came).await,
                        false => prover.prove(self.store.root(), &mut came).await,
                    }
                };
                tokio::select! {
                    biased;
                    () = stop.drain.cancelled() => {
                        say.message(FromAgent::Done).await;
                        return Ok(());
                    }
                    proof = proof => proof?,
                }
            }
        };
        let ready = Ready {
            accelerator: proof.accelerator,
            proof: GuestProof { reason: proof.reason.clone(), speed: proof.speed },
            qemu: qemu.words.clone(),
            kernel: machine.kernel.clone(),
            memory: budget.memory().bytes(),
            cpus: budget.cpus(),
            steps: vec![StepTime {
                step: "proof of the accelerator".to_owned(),
                elapsed_ms: began.elapsed().as_millis() as u64,
            }],
        };
        say.message(FromAgent::Ready(ready)).await;
        let (events, received) = Events::channel();
        let context = RunContext {
            runner: work.runner,
            plan,
            images: boot_images,
            spawner: spawner.clone(),
            template_cache: TemplateCache::new(
                self.templates(&qemu, &machine, &proof, &work),
                work.cold,
                own.join("templates"),
            ),
            proxy: proxy(self.store.root(), &work),
            locking: Arc::new(work.locking),
            qemu,
            accelerator: proof.accelerator,
            // Guests of other kinds are not sent here.
            emulations: BTreeMap::new(),
            terse: false,
            speed: proof.speed,
            scratch,
            cells,
            login: Keys::generate("nestmatrix login").map_err(|error| unusable(format!("a login key: {error}")))?,
            purpose: Purpose::Test,
            keep: Keep::Never,
            disk_full: CancellationToken::new(),
            events,
        };
        let worker = Worker { context, events: received, budget, results: Results::Sent(own.to_owned(), DISK_HELP) };
        worker.run(arriving, false, say, stop).await;
        Ok(())
    }

    fn templates(&self, qemu: &Qemu, machine: &Machine, proof: &Proof, work: &Work) -> Freezing {
        let templates = blocking(|| self.store.templates(work.templates)).map_err(|error| error.to_string())?;
        let host_fingerprint = HostFingerprint::new(qemu, machine, proof.accelerator);
        Ok((templates, host_fingerprint.map_err(|error| format!("{}: {error}", qemu.system.display()))?))
    }
}

/// What it takes to prove that guests run.
struct Prover<'a> {
    qemu: &'a Qemu,
    machine: &'a Machine,
    spawner: &'a Spawner,
    /// A folder for its logs.
    scratch: &'a Path,
    say: &'a Say,
}

impl Prover<'_> {
    /// With the first image there is, under whatever works.
    async fn prove(&self, store: &Path, came: &mut UnboundedReceiver<BootImage>) -> Result<Proof, Trouble> {
        let kernel = first_kernel(came).await?;
        self.tell("proving that guests run there").await;
        let target = host::Target { kernel: &kernel, scratch: self.scratch };
        let proof = host::prove(store, self.qemu, self.machine, self.spawner, &target).await;
        proof.map_err(|error| unusable(error.to_string()))
    }

    /// Under KVM and nothing else, with the machine's own kernel where it can be read: nothing need be sent for that.
    async fn prove_kvm(&self, came: &mut UnboundedReceiver<BootImage>) -> Result<Proof, Trouble> {
        let no_kvm = |why| {
            let reason = format!("guests cannot run under KVM there: {why}");
            Trouble::new(TroubleKind::KvmUnusable, Phase::Runner, reason)
        };
        host::kvm_opens().map_err(no_kvm)?;
        let kernel = match own_kernel(&self.machine.kernel) {
            Some(kernel) => kernel,
            None => first_kernel(came).await?,
        };
        self.tell("proving that guests run under KVM there").await;
        let target = host::Target { kernel: &kernel, scratch: self.scratch };
        host::prove_kvm(self.qemu, self.machine, self.spawner, &target).await.map_err(no_kvm)
    }

    async fn tell(&self, message: &str) {
        self.say.message(FromAgent::Progress { message: message.to_owned() }).await;
    }
}

/// The machine's own kernel and initial file system, where distributions have them.
fn own_kernel(release: &str) -> Option<Kernel> {
    let boot = Path::new("/boot");
    let places = [
        (boot.join(format!("vmlinuz-{release}")), boot.join(format!("initrd.img-{release}"))),
        (PathBuf::from("/vmlinuz"), PathBuf::from("/initrd.img")),
    ];
    let readable = |path: &Path| std::fs::File::open(path).is_ok();
    let (kernel, initrd) = places.into_iter().find(|(kernel, initrd)| readable(kernel) && readable(initrd))?;
    Some(Kernel { kernel, initrd })
}

/// That of the first image that has one of its own.
async fn first_kernel(came: &mut UnboundedReceiver<BootImage>) -> Result<Kernel, Trouble> {
    loop {
        let Some(image) = came.recv().await else {
            let help = "add one that nestmatrix builds, such as `debian-12-minimal`, to the matrix";
            let reason = "none of the images has a kernel of its own to prove with that guests run";
            return Err(unusable(reason).with_help(help));
        };
        if let Some(kernel) = image.kernel.filter(|_| image.facts.arch == Arch::here()) {
            return Ok(kernel);
        }
    }
}

fn unusable(reason: impl Into<String>) -> Trouble {
    Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason)
}
