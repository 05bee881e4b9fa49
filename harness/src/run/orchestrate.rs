//! The order of things in a run.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use images::Store;
use matrix::{ByteSize, Cell, Plan, RunnerKind};
use reports::{EventKind, Phase, RunnerFacts, Verdict};

use super::{
    folder::RunFolder,
    image_phase::{Prepared, prepare_all},
    recorder::{MessageFormat, Recorder},
    signals,
};
use crate::{
    events::Events,
    fanout::{Budget, Cost, Keep, Purpose, Station, Stop, dispatch},
    guest::Spawner,
    host::{self, Machine, ProbeError, Proof, Qemu, ToolError},
    scratch::{self, Scratch, ScratchError},
    ssh::Keypair,
};

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for the results; `None`: a new one.
    pub out: Option<PathBuf>,
    /// The store.
    pub store: PathBuf,
    /// At most so many guests at once; `None`: as many as fit.
    pub jobs: Option<usize>,
    /// Which guests are kept.
    pub keep: Keep,
    /// How far a cell goes.
    pub purpose: Purpose,
    /// What is printed.
    pub format: MessageFormat,
}

/// The run could not be started, or its results could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A program is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A guest of the plan is larger than what guests may take.
    #[error(
        "cell {cell} needs {} MiB with QEMU's own, but all guests together may take {} MiB: lower the guest's `memory`, or \
         raise `runner.memory` (this machine can spare {} MiB)",
        needed.mib(), budget.mib(), spare.mib()
    )]
    TooLarge {
        /// The cell.
        cell: String,
        /// What it needs.
        needed: ByteSize,
        /// What there is.
        budget: ByteSize,
        /// What the machine could give.
        spare: ByteSize,
    },
    /// The matrix asks for more memory than there is.
    #[error("`runner.memory` asks for {} MiB, but this machine can spare {} MiB", asked.mib(), spare.mib())]
    Budget {
        /// What the matrix says.
        asked: ByteSize,
        /// What there is.
        spare: ByteSize,
    },
    /// A guest's disk would cut its image short.
    #[error(
        "cell {cell} gives its guest a disk of {asked}, but the image itself has {least}: raise `disk`, or leave it out"
    )]
    SmallDisk {
        /// The cell.
        cell: String,
        /// What the matrix says.
        asked: ByteSize,
        /// Size of the image's disk.
        least: ByteSize,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] images::StoreError),
    /// The scratch folder cannot be had.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The run's folder cannot be had.
    #[error("no folder for the results: {0}")]
    Folder(std::io::Error),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] reports::JournalError),
    /// The plan cannot be written.
    #[error(transparent)]
    Plan(#[from] matrix::PlanFileError),
    /// The reports cannot be written.
    #[error(transparent)]
    Render(#[from] reports::render::RenderError),
    /// Keys, threads, signals: something of the machine that never fails.
    #[error("could not {what}: {why}")]
    Machine {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Guests were started, but what became of them is not on record or not reported.
    #[error("could not {what}: {why}; `nestmatrix report` may still rebuild the reports")]
    Lost {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl RunError {
    /// 2 where nothing was started, 3 where verdicts were lost.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Journal(_) | Self::Render(_) | Self::Lost { .. } => 3,
            _ => 2,
        }
    }
}

/// A run that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// Everything that happened.
    pub run: reports::Run,
}

/// Runs a plan to its reports.
///
/// `spawner` must live for as long as guests are meant to.
pub async fn run(plan: Plan, spawner: &Spawner, options: &Options) -> Result<Finished, RunError> {
    let started = Instant::now();
    let machine_error = |what| move |error: std::io::Error| RunError::Machine { what, why: error.to_string() };
    let qemu = Qemu::find().await?;
    let machine = Machine::read().map_err(machine_error("read the size of this machine"))?;
    let limits = limits(&plan, &machine)?;
    let store = open_store(&options.store).await?;
    let swept = scratch::sweep(store.root());

    let name = RunFolder::new_name();
    let scratch = Scratch::create(store.root(), &name)?;
    let login = Keypair::generate("nestmatrix login")
        .map_err(|error| RunError::Machine { what: "make a login key", why: error.to_string() })?;
    // Last, so that whatever cannot be had leaves no folder that looks like a run.
    let folder = RunFolder::create(name, options.out.as_deref()).map_err(RunError::Folder)?;
    plan.write(&folder.path.join("plan.json"))?;

    let stop = Stop::default();
    let (events, received) = Events::channel();
    let recorder = Recorder::create(&folder.path, &plan, options.format)?;
    let broken = stop.clone();
    let recording = tokio::task::spawn_blocking(move || recorder.record(received, &broken));
    signals::listen(stop.clone(), events.clone()).map_err(machine_error("listen for signals"))?;

    events.send(EventKind::RunStarted {
        run: folder.name.clone(),
        plan: plan.digest,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    for message in swept.into_iter().chain(store.swept().iter().cloned()) {
        events.send(EventKind::Warning { cell: None, message });
    }
    let plan = Arc::new(plan);
    let prepared = prepare_all(&store, &image_names(&plan), plan.runner.retries, false, &events, &stop.drain).await;
    let proof = tokio::select! {
        biased;
        // It may take minutes, and no cell starts any more: all are settled as interrupted.
        () = stop.drain.cancelled() => Err(None),
        proof = prove(&plan, &prepared, &store, &qemu, &machine, spawner, scratch.path()) => proof,
    };
    let cells = settle_early(&plan, &prepared, &proof, &events, &stop);
    if let Ok(proof) = proof {
        events.send(EventKind::RunnerReady { runner: facts(&proof, &qemu, &machine, &limits, &plan) });
        let station = Station {
            plan: Arc::clone(&plan),
            images: prepared.into_iter().filter_map(|(name, image)| Some((name, image.ok()?))).collect(),
            spawner: spawner.clone(),
            qemu,
            accelerator: proof.accelerator,
            speed: proof.speed,
            scratch: scratch.path().to_owned(),
            cells: folder.path.join("cells"),
            login,
            purpose: options.purpose,
            keep: options.keep,
            events: events.clone(),
        };
        let budget = Budget::new(limits.memory, limits.cpus, options.jobs.unwrap_or(usize::MAX));
        dispatch(&Arc::new(station), cells, budget, &stop).await;
    }
    drop(scratch);
    events.send(EventKind::RunFinished { elapsed_ms: started.elapsed().as_millis() as u64 });
    let (recorder, recorded) =
        recording.await.map_err(|error| RunError::Lost { what: "record the run", why: error.to_string() })?;
    recorded?;
    let path = folder.path.clone();
    let run = tokio::task::spawn_blocking(move || reports::render::all(&path))
        .await
        .map_err(|error| RunError::Lost { what: "render the reports", why: error.to_string() })??
        .run;
    if options.purpose == Purpose::Test {
        recorder.finish(&run, &folder.path);
    }
    Ok(Finished { run })
}

/// What guests may take together.
struct Limits {
    memory: ByteSize,
    cpus: u32,
}

fn limits(plan: &Plan, machine: &Machine) -> Result<Limits, RunError> {
    let spare = machine.spare();
    let memory = plan.runner.memory.unwrap_or(spare);
    if memory > spare {
        return Err(RunError::Budget { asked: memory, spare });
    }
    let limits = Limits { memory, cpus: plan.runner.cpus.unwrap_or(machine.cpus) };
    let budget = Budget::new(limits.memory, limits.cpus, usize::MAX);
    if let Some(cell) = plan.cells.iter().find(|cell| cell.guest.disk.bytes() < images::DISK_BYTES) {
        let least = ByteSize::from_bytes(images::DISK_BYTES);
        return Err(RunError::SmallDisk { cell: cell.id.to_string(), asked: cell.guest.disk, least });
    }
    match plan.cells.iter().map(|cell| (cell, Cost::of(&cell.guest))).find(|(_, cost)| !budget.allows(*cost)) {
        Some((cell, cost)) => {
            Err(RunError::TooLarge { cell: cell.id.to_string(), needed: cost.memory(), budget: memory, spare })
        }
        None => Ok(limits),
    }
}

async fn open_store(root: &Path) -> Result<Arc<Store>, RunError> {
    let root = root.to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&root))
        .await
        .map_err(|error| RunError::Machine { what: "open the store", why: error.to_string() })??;
    Ok(Arc::new(store))
}

/// Every catalog image the plan needs, once, in its order.
fn image_names(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for image in &plan.images {
        if !names.contains(&image.from) {
            names.push(image.from.clone());
        }
    }
    names
}

/// The accelerator, from memory or by a proof with the first image there is; `None`: there is no image to prove it with.
async fn prove(
    plan: &Plan,
    prepared: &Prepared,
    store: &Store,
    qemu: &Qemu,
    machine: &Machine,
    spawner: &Spawner,
    scratch: &Path,
) -> Result<Proof, Option<ProbeError>> {
    let names = image_names(plan);
    let ready = names.iter().find_map(|name| prepared.get(name)?.as_ref().ok());
    let Some(image) = ready else { return Err(None) };
    if let Some(proof) = host::known(store.root(), qemu, machine) {
        return Ok(proof);
    }
    let target = host::Target { kernel: &image.kernel, initrd: &image.initrd, scratch };
    host::prove(store.root(), qemu, machine, spawner, &target).await.map_err(Some)
}

/// Reports the cells that no guest can be started for; the others are returned.
fn settle_early(
    plan: &Plan,
    prepared: &Prepared,
    proof: &Result<Proof, Option<ProbeError>>,
    events: &Events,
    stop: &Stop,
) -> Vec<Cell> {
    let mut ready = Vec::new();
    for cell in &plan.cells {
        if stop.drain.is_cancelled() {
            let verdict = Verdict::NotRun { reason: "interrupted before it started".to_owned() };
            events.send(EventKind::CellFinished { cell: cell.id.clone(), verdict });
            continue;
        }
        let from = plan.images.iter().find(|image| image.name == cell.image).map(|image| &image.from);
        let missing = from.and_then(|from| prepared.get(from)).map(|image| image.as_ref().err());
        let (phase, reason, help) = match (missing, proof) {
            (Some(None), Ok(_)) => {
                ready.push(cell.clone());
                continue;
            }
            (Some(Some(missing)), _) => (Phase::Image, missing.reason.clone(), missing.help.clone()),
            (Some(None), Err(Some(error))) => (Phase::Runner, error.to_string(), None),
            _ => (Phase::Image, "its image was never prepared".to_owned(), None),
        };
        let verdict = Verdict::Error { phase, reason };
        let (id, attempt) = (|| cell.id.clone(), 1);
        events.send(EventKind::AttemptStarted { cell: id(), attempt });
        events.send(EventKind::AttemptFinished {
            cell: id(),
            attempt,
            verdict: verdict.clone(),
            retried: false,
            console_tail: Vec::new(),
            help,
        });
        events.send(EventKind::CellFinished { cell: id(), verdict });
    }
    ready
}

fn facts(proof: &Proof, qemu: &Qemu, machine: &Machine, limits: &Limits, plan: &Plan) -> RunnerFacts {
    let reason = match plan.runner.kind {
        RunnerKind::Host => "the matrix says so",
        RunnerKind::Auto if machine.is_virtual() => "this machine is a virtual machine already",
        RunnerKind::Auto => "guests run directly on this machine",
    };
    RunnerFacts {
        kind: "host".to_owned(),
        reason: reason.to_owned(),
        accelerator: proof.accelerator.to_string(),
        accelerator_reason: proof.reason.clone(),
        qemu: qemu.words.clone(),
        kernel: machine.kernel.clone(),
        speed: proof.speed,
        memory: limits.memory.bytes(),
        cpus: limits.cpus,
    }
}
