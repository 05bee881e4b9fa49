//! The agent on another machine than the orchestrator's: makes it ready, and runs cells there.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use images::Store;
use matrix::{Arch, ByteSize};
use reports::{EventKind, Phase, StepTime, Trouble, TroubleKind};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

use super::{
    job_bundle::{self, JobBundle},
    orders::Orders,
    protocol::{FromAgent, GuestProof, Hello, Ready, ToAgent, Work},
    proxy::proxy,
    say::Say,
    shared::Shared,
    worker::{Obeying, Results, Worker},
};
use crate::{
    events::Events,
    fanout::{BootImages, Budget, Keep, Purpose, RunContext, Stop, TemplateCache},
    guest::{Accelerator, Spawner},
    host::{self, Machine, Qemu},
    ssh::Keys,
    template::{Freezing, HostFingerprint},
};

/// How often the agent says that it is there.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long an agent may take to end that was told to, or whose orchestrator is gone: there may be nobody who reads its last words.
const END_TIMEOUT: Duration = Duration::from_secs(60);
const DISK_HELP: &str = "raise `runner.disk`, or run fewer guests at once (`--jobs`)";

/// How the agent is to be on a machine.
#[derive(Clone, Copy, Debug)]
pub enum Ground<'a> {
    /// An L1 that was booted for one run: this folder holds the unpacked bundle, everything else goes beside it.
    Own(&'a Path),
    /// A machine that has other users and other runs: all is below a folder that this user's runs share.
    Shared {
        /// That folder.
        root: &'a Path,
        /// The run's name.
        run: &'a str,
    },
}

/// Serves until the work is done or the orchestrator is gone.
pub async fn serve(ground: Ground<'_>) -> io::Result<()> {
    let spawner = Spawner::start()?;
    let (say, writer) = Say::to_stdout()?;
    let mut orders = Orders::from_stdin()?;
    // Before the greeting: then there is a folder for the bundle.
    let shared = match ground {
        Ground::Own(_) => None,
        Ground::Shared { root, run } => Some(Shared::open(root, run)?),
    };
    say.message(FromAgent::Hello(Hello::ours())).await;
    match orders.next().await {
        Some(ToAgent::Hello(hello)) if hello.check().is_ok() => {}
        _ => return Ok(()),
    }
    let heart = tokio::spawn(beat(say.clone()));
    let work = loop {
        match orders.next().await {
            Some(ToAgent::Work(work)) => break work,
            Some(ToAgent::Heartbeat) => {}
            _ => return Ok(()),
        }
    };
    let stop = Stop::default();
    let serving = async {
        match (ground, &shared) {
            (Ground::Own(folder), _) => {
                Agent { folder, spawner: &spawner, say: &say, stop: &stop }.run(work, orders).await
            }
            (_, Some(shared)) => shared.run(work, orders, &spawner, &say, &stop).await,
            _ => Ok(()),
        }
    };
    let overdue = async {
        stop.kill.cancelled().await;
        tokio::time::sleep(END_TIMEOUT).await;
    };
    let served = tokio::select! {
        served = serving => served,
        () = overdue => {
            crate::blocking::blocking(|| shared.map(Shared::end));
            let reason = format!("timeout: the agent did not end within {} s of its stop", END_TIMEOUT.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
    };
    if let Err(trouble) = served {
        say.message(FromAgent::Failed { trouble }).await;
    }
    heart.abort();
    drop(say);
    writer.flush().await;
    // With all that the run has here.
    crate::blocking::blocking(|| drop(shared));
    Ok(())
}

struct Agent<'a> {
    folder: &'a Path,
    spawner: &'a Spawner,
    say: &'a Say,
    stop: &'a Stop,
}

impl Agent<'_> {
    async fn run(&self, work: Work, orders: Orders) -> Result<(), Trouble> {
        let unusable = |reason: String| Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason);
        let broken = |error: &dyn std::fmt::Display| {
            let help = "this is a defect of nestmatrix or of the L1's image: rebuild it with `nestmatrix images prepare \
                        --refresh debian-13-runner`";
            unusable(error.to_string()).with_help(help)
        };
        let bundle = JobBundle::read(self.folder).map_err(|error| broken(&error))?;
        let plan = Arc::new(bundle.plan);
        let (arrive, arriving) = unbounded_channel();
        let _obeying = Obeying::start(orders, Arc::clone(&plan), arrive, None, self.stop.clone());
        let qemu = Qemu::find().await.map_err(|error| {
            let help = "leave out `runner.image`, or name one that has QEMU in it, such as `debian-13-runner`";
            unusable(format!("the L1's image cannot run guests: {error}")).with_help(help)
        })?;
        let machine = Machine::read().map_err(|error| broken(&error))?;
        let mut images = HashMap::new();
        for (name, image) in &bundle.images {
            match job_bundle::here(self.folder, image) {
                Ok(image) => drop(images.insert(name.clone(), image)),
                // The cells of this one are errors; others have theirs.
                Err(error) => {
                    let message = format!("guests of {name} cannot be started in the L1: {error}");
                    let event = EventKind::Warning { cell: None, message };
                    self.say.message(FromAgent::Event { event }).await;
                }
            }
        }

        let beside = self.folder.parent().unwrap_or(self.folder);
        let (scratch, cells) = (beside.join("guests"), beside.join("cells"));
        for folder in [&scratch, &cells] {
            std::fs::create_dir_all(folder).map_err(|error| broken(&error))?;
        }
        let began = Instant::now();
        let proof = match &work.known {
            Some(known) => {
                host::kvm_opens().map_err(no_kvm)?;
                GuestProof { reason: format!("{} (in an earlier L1 of this kind)", known.reason), ..known.clone() }
            }
            None => {
                let message = "proving that guests run under KVM in it".to_owned();
                self.say.message(FromAgent::Progress { message }).await;
                let ours = images::Kernel { kernel: "/vmlinuz".into(), initrd: "/initrd.img".into() };
                let own = images.values().filter(|image| image.facts.arch == Arch::here());
                let kernel = own.into_iter().find_map(|image| image.kernel.as_ref()).unwrap_or(&ours);
                let target = host::Target { kernel, scratch: &scratch };
                let proof = tokio::select! {
                    proof = host::prove_kvm(&qemu, &machine, self.spawner, &target) => proof,
                    () = self.stop.drain.cancelled() => {
                        self.say.message(FromAgent::Done).await;
                        return Ok(());
                    }
                };
                let proof = proof.map_err(no_kvm)?;
                GuestProof { reason: proof.reason, speed: proof.speed }
            }
        };
        let spare = machine.spare();
        let memory = plan.runner.memory.map_or(spare, |asked| asked.min(spare));
        self.say.message(FromAgent::Ready(ready(&proof, &qemu, &machine, (memory, work.cpus), began.elapsed()))).await;

        let template_cache =
            TemplateCache::new(templates(beside, &qemu, &machine, &work), work.cold, beside.join("templates"));
        let proxy = proxy(&beside.join("store"), &work);
        let (events, received) = Events::channel();
        let boot_images = BootImages::of(&plan);
        images.into_iter().for_each(|(name, image)| boot_images.add(&name, image));
        let context = RunContext {
            runner: work.runner,
            plan,
            images: Arc::new(boot_images),
            spawner: self.spawner.clone(),
            qemu,
            accelerator: Accelerator::Kvm,
            // Nothing in it emulates others: what needs that is not sent here.
            emulations: BTreeMap::new(),
            terse: work.emulated,
            speed: proof.speed,
            scratch,
            cells,
            proxy,
            locking: Arc::new(work.locking),
            template_cache,
            login: Keys::generate("nestmatrix login").map_err(|error| broken(&error))?,
            purpose: Purpose::Test,
            keep: Keep::Never,
            disk_full: CancellationToken::new(),
            events,
        };
        let budget = Budget::new(memory, work.cpus, work.jobs.unwrap_or(usize::MAX));
        let worker = Worker { context, events: received, budget, results: Results::Sent(beside.to_owned(), DISK_HELP) };
        worker.run(arriving, work.freeze, self.say, self.stop).await;
        Ok(())
    }
}

/// Where guests are forked from here.
fn templates(beside: &Path, qemu: &Qemu, machine: &Machine, work: &Work) -> Freezing {
    let store = Store::open(&beside.join("store")).map_err(|error| error.to_string())?;
    let templates = store.templates(work.templates).map_err(|error| error.to_string())?;
    let templates = if work.checked { templates.trusting() } else { templates };
    let host_fingerprint = HostFingerprint::new(qemu, machine, Accelerator::Kvm);
    Ok((templates, host_fingerprint.map_err(|error| format!("{}: {error}", qemu.system.display()))?))
}

fn ready(proof: &GuestProof, qemu: &Qemu, machine: &Machine, (memory, cpus): (ByteSize, u32), took: Duration) -> Ready {
    Ready {
        accelerator: Accelerator::Kvm,
        proof: proof.clone(),
        qemu: qemu.words.clone(),
        kernel: machine.kernel.clone(),
        memory: memory.bytes(),
        cpus,
        steps: vec![StepTime { step: "proof of KVM".to_owned(), elapsed_ms: took.as_millis() as u64 }],
    }
}

fn no_kvm(why: String) -> Trouble {
    let help = "an L1 needs a kernel with KVM (leave out `runner.image` and `runner.kernel_args`) and a host that nests (see \
                `nestmatrix doctor`); `--runner host` runs the guests without an L1";
    let reason = format!("guests cannot run under KVM in the L1: {why}");
    Trouble::new(TroubleKind::KvmUnusable, Phase::Runner, reason).with_help(help)
}

async fn beat(say: Say) {
    let mut interval = tokio::time::interval(HEARTBEAT);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        say.beat();
    }
}
