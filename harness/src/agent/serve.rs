//! The agent: runs cells on the machine it was started on, for an orchestrator at the other end of its standard streams.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use images::{Store, Templates};
use matrix::{Arch, ByteSize, CellId};
use reports::{Event, EventKind, Phase, StepTime, Trouble, TroubleKind};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::{
    brief::Brief,
    files,
    protocol::{FromAgent, Hello, KvmProof, Ready, ToAgent, Work},
};
use crate::{
    blocking::blocking,
    events::Events,
    fanout::{
        BootImage, BootImages, Budget, Keep, LEAST_ROOM, Purpose, Station, Stop, Todo, Warmth, at_once, dispatch,
        freeze,
    },
    guest::{Accelerator, Spawner},
    host::{self, Machine, Qemu},
    ssh::Keys,
    template::Birthplace,
};

/// How often the agent says that it is there.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// An orchestrator that has said nothing for so long is gone.
const ORCHESTRATOR_SILENCE: Duration = Duration::from_secs(120);
/// A machine with an emulated CPU is slow; one whose nested virtualization hangs does not come to an end at all.
const PROOF_LIMIT: Duration = Duration::from_secs(240);
/// How often the room is looked at.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);
/// Messages that wait for the orchestrator; more, and whoever has something to say waits too.
const OUTBOX: usize = 16;

/// Serves until the work is done or the orchestrator is gone; `folder` holds the unpacked brief, everything else goes beside it.
pub async fn serve(folder: &Path) -> io::Result<()> {
    let spawner = Spawner::start()?;
    let say = Say::start()?;
    let mut orders = listen()?;
    say.message(FromAgent::Hello(Hello::ours()));
    match next(&mut orders).await {
        Some(ToAgent::Hello(hello)) if hello.check().is_ok() => {}
        _ => return Ok(()),
    }
    let work = loop {
        match next(&mut orders).await {
            Some(ToAgent::Run(work)) => break work,
            Some(ToAgent::Heartbeat) => {}
            _ => return Ok(()),
        }
    };
    let stop = Stop::default();
    let heart = tokio::spawn(beat(say.clone()));
    let obeying = tokio::spawn(obey(orders, stop.clone()));
    let served = Agent { folder, spawner: &spawner, say: &say, stop: &stop }.run(work).await;
    if let Err(trouble) = served {
        say.message(FromAgent::Failed { trouble });
    }
    heart.abort();
    obeying.abort();
    say.flush().await;
    Ok(())
}

struct Agent<'a> {
    folder: &'a Path,
    spawner: &'a Spawner,
    say: &'a Say,
    stop: &'a Stop,
}

impl Agent<'_> {
    async fn run(&self, work: Work) -> Result<(), Trouble> {
        let unusable = |reason: String| Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason);
        let broken = |error: &dyn std::fmt::Display| {
            let help = "this is a defect of nestmatrix or of the L1's image: build it anew with `nestmatrix images prepare \
                        --refresh debian-13-runner`";
            unusable(error.to_string()).with_help(help)
        };
        let brief = Brief::read(self.folder).map_err(|error| broken(&error))?;
        let qemu = Qemu::find().await.map_err(|error| {
            let help = "leave out `runner.image`, or name one that has QEMU in it, such as `debian-13-runner`";
            unusable(format!("the L1's image cannot run guests: {error}")).with_help(help)
        })?;
        let machine = Machine::read().map_err(|error| broken(&error))?;
        let mut images = HashMap::new();
        for (name, image) in &brief.images {
            match image.here(self.folder) {
                Ok(image) => drop(images.insert(name.clone(), image)),
                // The cells of this one are errors; others have theirs.
                Err(error) => {
                    self.say.message(FromAgent::Event {
                        event: EventKind::Warning {
                            cell: None,
                            message: format!("guests of {name} cannot be started in the L1: {error}"),
                        },
                    });
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
                KvmProof { reason: format!("{} (in an earlier L1 of this kind)", known.reason), ..known.clone() }
            }
            None => {
                self.say.message(FromAgent::Progress { message: "proving that guests run under KVM in it".to_owned() });
                let (kernel, initrd) = (Path::new("/vmlinuz"), Path::new("/initrd.img"));
                let own = images.values().filter(|image| image.arch == Arch::here());
                let (kernel, initrd) = own.into_iter().find_map(BootImage::kernel).unwrap_or((kernel, initrd));
                let target = host::Target { kernel, initrd, scratch: &scratch };
                let proof = tokio::select! {
                    proof = host::prove_kvm(&qemu, &machine, self.spawner, &target, PROOF_LIMIT) => proof,
                    () = self.stop.drain.cancelled() => return self.drained(&work),
                };
                let proof = proof.map_err(no_kvm)?;
                KvmProof { reason: proof.reason, speed: proof.speed }
            }
        };
        let spare = machine.spare();
        let memory = brief.plan.runner.memory.map_or(spare, |asked| asked.min(spare));
        self.say.message(FromAgent::Ready(ready(&proof, &qemu, &machine, memory, began.elapsed())));

        let plan = Arc::new(brief.plan);
        let cells_wanted: Vec<_> = work.cells.iter().filter_map(|work| plan.cell(&work.id).cloned()).collect();
        let todo = work
            .cells
            .iter()
            .filter_map(|work| Some(Todo { cell: plan.cell(&work.id)?.clone(), next: work.next, last: work.last }));
        let todo = todo.collect();
        let warmth = Warmth::new(templates(beside, &qemu, &machine, work.checked), work.cold, beside.join("templates"));
        let (events, received) = Events::channel();
        let disk_full = CancellationToken::new();
        let boot_images = BootImages::of(&plan);
        images.into_iter().for_each(|(name, image)| boot_images.add(&name, image));
        let station = Station {
            runner: work.runner,
            plan,
            images: boot_images,
            spawner: self.spawner.clone(),
            qemu,
            accelerator: Accelerator::Kvm,
            // Nothing in it emulates others: what needs that is not sent here.
            emulations: BTreeMap::new(),
            terse: work.emulated,
            speed: proof.speed,
            scratch,
            cells,
            warmth,
            login: Keys::generate("nestmatrix login").map_err(|error| broken(&error))?,
            purpose: Purpose::Test,
            keep: Keep::Never,
            disk_full: disk_full.clone(),
            events,
        };
        let (say, full) = (self.say.clone(), disk_full.clone());
        let results = beside.to_owned();
        let passing_on = tokio::task::spawn_blocking(move || pass_on(received, &results, &say, &full));
        let budget = Budget::new(memory, work.cpus, work.jobs.unwrap_or(usize::MAX));
        let station = Arc::new(station);
        let dispatched = async {
            if work.freeze {
                freeze(&station, &cells_wanted, budget, self.stop).await;
            } else {
                dispatch(&station, at_once(todo), budget, self.stop).await;
            }
        };
        tokio::select! {
            () = dispatched => {}
            () = watch_room(beside.to_owned(), disk_full.clone()) => {}
        }
        // Not which of the two was first: the last cell may have met the full disk.
        let is_full = disk_full.is_cancelled();
        // With the last sender the stream of events ends.
        drop(station);
        if is_full {
            let reason = "its scratch disk is full: the guests' overlays cannot grow";
            let trouble = Trouble::new(TroubleKind::HostDiskFull, Phase::Runner, reason)
                .with_help("raise `runner.disk`, or run fewer guests at once (`--jobs`)");
            self.say.message(FromAgent::Failed { trouble });
        } else {
            let _ = passing_on.await;
            self.say.message(FromAgent::Done);
        }
        Ok(())
    }

    /// Stopped before anything ran.
    fn drained(&self, work: &Work) -> Result<(), Trouble> {
        for cell in &work.cells {
            let verdict = reports::Verdict::NotRun { reason: "interrupted before it started".to_owned() };
            self.say.message(FromAgent::Event { event: EventKind::CellFinished { cell: cell.id.clone(), verdict } });
        }
        self.say.message(FromAgent::Done);
        Ok(())
    }
}

/// Where guests are forked from here.
fn templates(beside: &Path, qemu: &Qemu, machine: &Machine, checked: bool) -> Result<(Templates, Birthplace), String> {
    let store = Store::open(&beside.join("store")).map_err(|error| error.to_string())?;
    // What there is room for is looked at each time one is made; and what was made here ends with this machine.
    let templates = store.templates(ByteSize::from_bytes(u64::MAX)).map_err(|error| error.to_string())?;
    let templates = if checked { templates.trusting() } else { templates };
    let birthplace = Birthplace::new(qemu, machine, Accelerator::Kvm);
    Ok((templates, birthplace.map_err(|error| format!("{}: {error}", qemu.system.display()))?))
}

fn ready(proof: &KvmProof, qemu: &Qemu, machine: &Machine, memory: ByteSize, took: Duration) -> Ready {
    Ready {
        proof: proof.clone(),
        qemu: qemu.words.clone(),
        kernel: machine.kernel.clone(),
        memory: memory.bytes(),
        steps: vec![StepTime { step: "proof of KVM".to_owned(), elapsed_ms: took.as_millis() as u64 }],
    }
}

fn no_kvm(why: String) -> Trouble {
    let help = "an L1 needs a kernel with KVM (leave out `runner.image` and `runner.kernel_args`) and a host that nests (see \
                `nestmatrix doctor`); `--runner host` runs the guests without an L1";
    let reason = format!("guests cannot run under KVM in the L1: {why}");
    Trouble::new(TroubleKind::KvmUnusable, Phase::Runner, reason).with_help(help)
}

/// Passes events on as they come. The files of an attempt go before the event that it has finished, and what follows of its cell
/// waits for them; other cells do not.
fn pass_on(mut events: UnboundedReceiver<Event>, folder: &Path, say: &Say, disk_full: &CancellationToken) {
    std::thread::scope(|scope| {
        let mut couriers: HashMap<CellId, mpsc::Sender<EventKind>> = HashMap::new();
        while let Some(Event { kind, .. }) = events.blocking_recv() {
            // What ended because the disk is full says nothing about a cell.
            if disk_full.is_cancelled() {
                return;
            }
            let Some(cell) = about(&kind).cloned() else {
                say.message(FromAgent::Event { event: kind });
                continue;
            };
            let last = matches!(kind, EventKind::CellFinished { .. });
            if matches!(kind, EventKind::AttemptFinished { .. }) && !couriers.contains_key(&cell) {
                let (sender, parcels) = mpsc::channel();
                scope.spawn(move || {
                    for event in parcels {
                        if disk_full.is_cancelled() || !deliver(event, folder, say) {
                            return;
                        }
                    }
                });
                couriers.insert(cell.clone(), sender);
            }
            match couriers.get(&cell) {
                Some(courier) => drop(courier.send(kind)),
                None => drop(say.message(FromAgent::Event { event: kind })),
            }
            if last {
                couriers.remove(&cell);
            }
        }
    });
}

/// One event, with the files that belong to it before it; false: nobody takes them any more.
fn deliver(event: EventKind, folder: &Path, say: &Say) -> bool {
    if let EventKind::AttemptFinished { cell, attempt, .. } = &event {
        let files = folder.join(reports::attempt_folder(cell, *attempt));
        let sent = files::send(&files, cell, *attempt, &mut |message| say.message(message));
        if let Err(error) = sent
            && files.exists()
        {
            let message = format!("not all files of attempt {attempt} could be fetched from the L1: {error}");
            let cell = Some(cell.clone());
            say.message(FromAgent::Event { event: EventKind::Warning { cell, message } });
        }
        // Its room is needed by those that follow.
        let _ = std::fs::remove_dir_all(&files);
    }
    say.message(FromAgent::Event { event })
}

/// The cell an event is about, if it is about one.
fn about(event: &EventKind) -> Option<&CellId> {
    match event {
        EventKind::Warning { cell, .. } => cell.as_ref(),
        EventKind::AttemptStarted { cell, .. }
        | EventKind::PhaseStarted { cell, .. }
        | EventKind::PhaseFinished { cell, .. }
        | EventKind::GuestStarted { cell, .. }
        | EventKind::SystemSeen { cell, .. }
        | EventKind::PackagesInstalled { cell, .. }
        | EventKind::TestStarted { cell, .. }
        | EventKind::TestFinished { cell, .. }
        | EventKind::ArtifactCollected { cell, .. }
        | EventKind::GuestKept { cell, .. }
        | EventKind::AttemptFinished { cell, .. }
        | EventKind::CellFinished { cell, .. } => Some(cell),
        _ => None,
    }
}

/// Returns when there is no room for guests any more.
async fn watch_room(folder: PathBuf, disk_full: CancellationToken) {
    let mut interval = tokio::time::interval(ROOM_INTERVAL);
    loop {
        tokio::select! {
            () = disk_full.cancelled() => return,
            _ = interval.tick() => {}
        }
        if host::free_bytes(&folder).is_ok_and(|free| free < LEAST_ROOM) {
            disk_full.cancel();
        }
    }
}

async fn beat(say: Say) {
    let mut interval = tokio::time::interval(HEARTBEAT);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        say.beat();
    }
}

/// Does what the orchestrator says; without one everything ends.
async fn obey(mut orders: UnboundedReceiver<ToAgent>, stop: Stop) {
    loop {
        match next(&mut orders).await {
            Some(ToAgent::Stop { kill }) => {
                stop.drain.cancel();
                if kill {
                    stop.kill.cancel();
                }
            }
            Some(ToAgent::Heartbeat | ToAgent::Hello(_) | ToAgent::Run(_)) => {}
            None => {
                stop.drain.cancel();
                stop.kill.cancel();
                return;
            }
        }
    }
}

/// The next order; `None`: the orchestrator is gone.
async fn next(orders: &mut UnboundedReceiver<ToAgent>) -> Option<ToAgent> {
    tokio::time::timeout(ORCHESTRATOR_SILENCE, orders.recv()).await.ok().flatten()
}

/// Reads standard input on a thread; the channel ends with it, or with a line that is no order.
fn listen() -> io::Result<UnboundedReceiver<ToAgent>> {
    let (sender, orders): (UnboundedSender<ToAgent>, _) = unbounded_channel();
    std::thread::Builder::new().name("orders".into()).spawn(move || {
        for line in io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
            if sender.send(order).is_err() {
                return;
            }
        }
    })?;
    Ok(orders)
}

/// The way out: one thread writes, so that messages never mix.
#[derive(Clone)]
struct Say {
    outbox: mpsc::SyncSender<FromAgent>,
    written: tokio::sync::watch::Receiver<()>,
}

impl Say {
    fn start() -> io::Result<Self> {
        let (outbox, messages) = mpsc::sync_channel::<FromAgent>(OUTBOX);
        let (done, written) = tokio::sync::watch::channel(());
        std::thread::Builder::new().name("say".into()).spawn(move || {
            // Dropped when the last message is written, which is how others know.
            let _done = done;
            let mut stdout = io::stdout().lock();
            while let Ok(message) = messages.recv() {
                let Ok(mut line) = serde_json::to_vec(&message) else { continue };
                line.push(b'\n');
                if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { outbox, written })
    }

    /// Says it, waiting while there is much to say; false: nobody listens.
    fn message(&self, message: FromAgent) -> bool {
        blocking(|| self.outbox.send(message).is_ok())
    }

    /// A sign of life; whatever waits in the outbox is one as well.
    fn beat(&self) {
        let _ = self.outbox.try_send(FromAgent::Heartbeat);
    }

    /// Waits until everything is written (all other clones must be gone), or not for long.
    async fn flush(self) {
        let Self { outbox, mut written } = self;
        drop(outbox);
        let _ = tokio::time::timeout(Duration::from_secs(10), async { while written.changed().await.is_ok() {} }).await;
    }
}
