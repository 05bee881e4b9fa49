//! The order of things in a run.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use images::{Catalog, Entry, PreparedImage, Source, Store};
use matrix::{Arch, Digest, Plan};
use reports::{EventKind, ImageState, StepTime};

use super::{
    arriving::Arriving,
    error::RunError,
    folder::{RunFolder, locate},
    foreign::{Emulations, Emulators},
    image_phase::{FetchPolicy, Prepared, Preparing},
    options::Options,
    place::{Place, Where},
    recorder::Recorder,
    settle::{PROVING, settle},
    signals,
};
use crate::{
    blocking::blocking,
    events::Events,
    fanout::{Purpose, QueuedCell, Stop},
    guest::Spawner,
    host::{self, Machine, Nesting, ProbeError, Proof, Qemu},
    runner::Ledger,
    scratch::{self, Scratch},
};

/// What is to be run.
#[derive(Debug)]
pub enum Start {
    /// A plan, from its beginning.
    Plan(Box<Plan>),
    /// What has no verdict yet of the run in this folder (or of this name).
    Resume(PathBuf),
}

/// A run that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// Everything that happened.
    pub run: reports::Run,
    /// The folder with its results.
    pub folder: PathBuf,
}

/// A run whose plan is known and whose folder is not made yet.
struct Begun {
    plan: Plan,
    /// The folder of a run that is resumed.
    resumed: Option<PathBuf>,
}

/// Runs a plan to its reports.
///
/// `spawner` must live for as long as guests are meant to.
pub async fn run(start: Start, spawner: &Spawner, options: &Options) -> Result<Finished, RunError> {
    let started = Instant::now();
    let machine_error = |what| move |error: std::io::Error| RunError::Machine { what, why: error.to_string() };
    let Begun { plan, resumed } = begin(start)?;
    // Guests on another machine need none here.
    let qemu = if plan.runner.kind.is_elsewhere() { None } else { Some(Qemu::find().await?) };
    let machine = Machine::read().map_err(machine_error("read the size of this machine"))?;
    let nesting = Nesting::read(Path::new("/")).map_err(machine_error("read what this machine can virtualize"))?;
    let place = Place { plan: &plan, options, qemu: qemu.as_ref(), machine: &machine, nesting: &nesting };
    place.check()?;
    let store = open_store(&options.store).await?;
    let swept = blocking(|| scratch::sweep(store.root()));

    let name = RunFolder::new_name();
    let scratch = Scratch::create(store.root(), &name)?;
    let stop = Stop::default();
    let (events, received) = Events::channel();
    // Last, so that an error before this leaves no folder that looks like a run.
    let mut began_with = HashMap::new();
    let (folder, recorder, runners, mut ledger) = match &resumed {
        None => {
            let folder = RunFolder::create(name, options.out.as_deref()).map_err(RunError::Folder)?;
            // Before the plan, by which a run is found: one that is resumed never lacks its lock.
            options.locking.write(&folder.path).map_err(RunError::Folder)?;
            plan.write(&folder.path.join("plan.json"))?;
            let recorder = Recorder::create(&folder.path, &plan, options.format)?;
            events.send(EventKind::RunStarted {
                run: folder.name.clone(),
                plan: plan.digest,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                locked: options.locking.digest(),
            });
            (folder, recorder, 0, Ledger::new(&plan))
        }
        Some(path) => {
            let recorder = Recorder::resume(path, &plan, options.format)?;
            // Retry, now that nobody else can write to the journal.
            let run = reports::render::fold(path).map_err(RunError::Unreadable)?;
            let version = env!("CARGO_PKG_VERSION").to_owned();
            events.send(match &run.run {
                Some(_) => EventKind::RunResumed { version },
                // It died before it could even say that it had started.
                None => EventKind::RunStarted {
                    run: name.clone(),
                    plan: plan.digest,
                    version,
                    locked: options.locking.digest(),
                },
            });
            began_with.extend(run.images.iter().filter_map(|image| match image.state {
                ImageState::Ready { digest, .. } => Some((image.from.clone(), digest)),
                _ => None,
            }));
            let (ledger, said) = Ledger::resume(&plan, &run);
            said.into_iter().for_each(|event| events.send(event));
            let runners = run.runners.last().map_or(0, |runner| runner.number);
            (RunFolder { name, path: path.clone() }, recorder, runners, ledger)
        }
    };
    let broken = stop.clone();
    let recording = tokio::task::spawn_blocking(move || recorder.record(received, &broken));
    signals::listen(stop.clone(), events.clone()).map_err(machine_error("listen for signals"))?;
    for message in swept.into_iter().chain(store.swept().iter().cloned()).chain(options.notes.iter().cloned()) {
        events.send(EventKind::Warning { cell: None, message });
    }

    let proof_is_known = qemu.as_ref().is_some_and(|qemu| host::known(store.root(), qemu, &machine).is_some());
    let mut entries = entries(&ledger, &plan, &options.catalog, place.l1_image(), proof_is_known);
    let emulators = Emulators::find(&entries).await;
    let refused = emulators.refuse(&mut entries, &events);
    let way = if options.offline { FetchPolicy::Offline } else { FetchPolicy::Usual };
    let preparing = Preparing::start(&store, &entries, plan.runner.retries, way, &events, &stop.drain);
    let mut images = Arriving::new(preparing, &entries, refused, began_with);
    // An L1 is started with all of them, and guests of other kinds of CPU are measured with theirs; else guests of the first one need not
    // wait for the last.
    let at_once = place.l1_image().is_none() && emulators.are_unneeded();
    let own = |image: &PreparedImage| image.arch == Arch::here() && (proof_is_known || image.kernel.is_some());
    while !(qemu.is_none() || at_once && images.prepared().values().flatten().any(|image| own(image)))
        && images.next().await.is_some()
    {}
    let (mut emulations, mut proved) = (Emulations::new(), Vec::new());
    let proofs = async {
        let began = Instant::now();
        let mut took = |step: &str, since: Instant| {
            proved.push(StepTime { step: step.to_owned(), elapsed_ms: since.elapsed().as_millis() as u64 });
        };
        let Some(qemu) = &qemu else { return Ok(Proof::unneeded()) };
        let proof = prove(images.prepared(), &store, qemu, &machine, spawner, scratch.path()).await;
        took("proof of the accelerator", began);
        let (began, own) = (Instant::now(), proof.as_ref().map_or(1.0, |proof| proof.speed));
        emulations = emulators.measure(images.prepared(), &store, &machine, spawner, (scratch.path(), own)).await;
        if !emulations.is_empty() {
            took("speed of emulated guests", began);
        }
        let speeds = emulations.values().flatten().map(|emulation| emulation.speed);
        proof.map(|proof| proof.told_of_emulated(speeds))
    };
    let proof = tokio::select! {
        biased;
        // It may take minutes, and no cell starts any more: all are settled as interrupted.
        () = stop.drain.cancelled() => Err(None),
        proof = proofs => proof,
    };
    if stop.drain.is_cancelled() || proof.is_err() {
        // Nothing runs meanwhile.
        while images.next().await.is_some() {}
    }
    if stop.drain.is_cancelled() {
        ledger.interrupt().into_iter().for_each(|event| events.send(event));
    }
    let proved_or_not = proof.as_ref().map(drop).map_err(Option::as_ref);
    settle(&plan, &images, (proved_or_not, &emulations), &mut ledger, &events);
    if let Ok(proof) = &proof
        && !ledger.todo().is_empty()
    {
        let to = Where {
            number: runners + 1,
            spawner,
            events: &events,
            stop: &stop,
            store: store.root(),
            templates: store.templates(options.templates).map_err(|error| error.to_string()),
            scratch: scratch.path(),
            run: &folder.path,
            proof,
            emulations: emulations.into_iter().filter_map(|(arch, emulation)| Some((arch, emulation.ok()?))).collect(),
            proved,
        };
        place.run_cells(&to, &mut images, &mut ledger).await;
        // What is being built after an interrupt ends its tools and removes its traces before we go.
        while images.next().await.is_some() {}
    }
    let digest = |image: &str| images.prepared().get(image)?.as_ref().ok().map(|image| image.digest);
    for message in options.locking.other_images(&plan, digest) {
        events.send(EventKind::Warning { cell: None, message });
    }
    blocking(|| drop(scratch));
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
    Ok(Finished { run, folder: folder.path })
}

fn begin(start: Start) -> Result<Begun, RunError> {
    let named = match start {
        Start::Plan(plan) => return Ok(Begun { plan: *plan, resumed: None }),
        Start::Resume(named) => named,
    };
    let folder = locate(&named).ok_or(RunError::NoSuchRun(named))?;
    let folder = folder.canonicalize().map_err(RunError::Folder)?;
    let plan = Plan::read(&folder.join("plan.json"))?;
    let run = reports::render::fold(&folder).map_err(RunError::Unreadable)?;
    let todo = Ledger::resume(&plan, &run).0.todo();
    if todo.is_empty() && run.elapsed_ms.is_some() {
        return Err(RunError::NothingToResume(folder));
    }
    if let Some(path) = blocking(|| changed(&plan, &todo)) {
        return Err(RunError::ChangedSince(path));
    }
    Ok(Begun { plan, resumed: Some(folder) })
}

/// The first file that open cells need which is not what it was when the plan was made.
fn changed(plan: &Plan, todo: &[QueuedCell]) -> Option<PathBuf> {
    let installed = todo.iter().any(|todo| todo.cell.installs());
    let package = plan.package.iter().filter(|_| installed).flat_map(|package| &package.artifacts);
    let package = package.map(|file| (&file.path, file.digest));
    let beside = todo.iter().flat_map(|todo| &todo.cell.files).map(|file| (&file.path, file.digest));
    let files: BTreeMap<_, _> = package.chain(beside).collect();
    let is_same = |path: &Path, digest| Digest::of_file(path).is_ok_and(|now| now == digest);
    files.into_iter().find(|(path, digest)| !is_same(path, *digest)).map(|(path, _)| path.clone())
}

async fn open_store(root: &Path) -> Result<Arc<Store>, RunError> {
    let root = root.to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&root))
        .await
        .map_err(|error| RunError::Machine { what: "open the store", why: error.to_string() })??;
    Ok(Arc::new(store))
}

/// Every image that the open cells need, once, in the plan's order, under the name its cells know it by; then that of an L1, if one
/// may be booted; then one to prove the accelerator with, if that has to be done and none of them has a kernel.
fn entries(
    ledger: &Ledger,
    plan: &Plan,
    catalog: &Catalog,
    l1: Option<&str>,
    proof_is_known: bool,
) -> Vec<(String, Entry)> {
    let todo = ledger.todo();
    let used = plan.images.iter().filter(|image| todo.iter().any(|todo| todo.cell.image == image.name));
    let mut entries: Vec<(String, Entry)> = Vec::new();
    let mut add = |name: &str, entry: Option<Entry>| {
        let entry = entry.or_else(|| catalog.get(name).cloned());
        if let Some(entry) = entry.filter(|_| !entries.iter().any(|(known, _)| known == name)) {
            entries.push((name.to_owned(), entry));
        }
    };
    used.for_each(|image| add(&image.from, Entry::of_matrix(&image.name, &image.source)));
    if !todo.is_empty() {
        l1.into_iter().for_each(|name| add(name, None));
    }
    // Guests of another kind of CPU run without it.
    let mut own = entries.iter().filter(|(_, entry)| entry.arch == Arch::here()).peekable();
    if !proof_is_known && own.peek().is_some() && own.all(|(_, entry)| matches!(entry.source, Source::Disk { .. })) {
        entries.extend(Catalog::shipped().get(PROVING).map(|entry| (PROVING.to_owned(), entry.clone())));
    }
    entries
}

/// The accelerator, from memory or by a proof with the first image there is of this machine's own kind; `None`: there is no image to
/// prove it with.
async fn prove(
    prepared: &Prepared,
    store: &Store,
    qemu: &Qemu,
    machine: &Machine,
    spawner: &Spawner,
    scratch: &Path,
) -> Result<Proof, Option<ProbeError>> {
    if prepared.values().all(Result::is_err) {
        return Err(None);
    }
    if let Some(proof) = host::known(store.root(), qemu, machine) {
        return Ok(proof);
    }
    let mut own = prepared.values().flatten().filter(|image| image.arch == Arch::here()).peekable();
    if own.peek().is_none() {
        return Ok(Proof::unneeded());
    }
    let Some(kernel) = own.find_map(|image| image.kernel.as_ref()) else { return Err(None) };
    let target = host::Target { kernel, scratch };
    host::prove(store.root(), qemu, machine, spawner, &target).await.map_err(Some)
}
