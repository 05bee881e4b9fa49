//! Runs cells on the machine it is on: the very fan-out, whatever is at the other end of the link.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use matrix::{CellId, Plan};
use reports::{Event, EventKind, Phase, Trouble, TroubleKind};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    files,
    job_bundle::StoredImage,
    orders::Orders,
    protocol::{FromAgent, ToAgent},
    say::Say,
};
use crate::{
    fanout::{Budget, Incoming, LEAST_ROOM, QueuedCell, RunContext, Stop, dispatch, freeze},
    host,
};

/// How often the room is looked at.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

/// Where logs and artifacts of attempts go.
#[derive(Clone, Debug)]
pub(crate) enum Results {
    /// The run's own folder is on this machine: nothing has to be sent, and a full disk ends the cells it concerns.
    Here,
    /// They are sent from this folder. The machine is of no more use when its disk is full; with what helps then.
    Sent(PathBuf, &'static str),
}

/// What cells are run with.
pub(crate) struct Worker {
    pub(crate) context: RunContext,
    /// What the context's events come out of.
    pub(crate) events: UnboundedReceiver<Event>,
    pub(crate) budget: Budget,
    pub(crate) results: Results,
}

/// Makes an image known, before the cells are that are run with it.
pub(super) type TakeImage = Box<dyn FnMut(&str, &StoredImage) + Send>;

/// Does what the orchestrator says, until it is dropped.
pub(super) struct Obeying(JoinHandle<()>);

impl Obeying {
    /// Hands out cells of the plan as they come. Without an orchestrator everything ends.
    pub(super) fn start(
        orders: Orders,
        plan: Arc<Plan>,
        arrive: UnboundedSender<Vec<QueuedCell>>,
        images: Option<TakeImage>,
        stop: Stop,
    ) -> Self {
        Self(tokio::spawn(obey(orders, plan, arrive, images, stop)))
    }
}

impl Drop for Obeying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn obey(
    mut orders: Orders,
    plan: Arc<Plan>,
    arrive: UnboundedSender<Vec<QueuedCell>>,
    mut images: Option<TakeImage>,
    stop: Stop,
) {
    let mut arrive = Some(arrive);
    loop {
        match orders.next().await {
            Some(ToAgent::Cells { cells }) => {
                let known = cells.into_iter().filter_map(|work| {
                    Some(QueuedCell { cell: plan.cell(&work.id)?.clone(), next: work.next, last: work.last })
                });
                let _ = arrive.as_ref().map(|arrive| arrive.send(known.collect()));
            }
            Some(ToAgent::Image { name, image }) => {
                if let Some(take) = &mut images {
                    take(&name, &image);
                }
            }
            Some(ToAgent::Complete) => (arrive, images) = (None, None),
            Some(ToAgent::Stop { kill }) => {
                stop.drain.cancel();
                if kill {
                    stop.kill.cancel();
                }
            }
            Some(ToAgent::Heartbeat | ToAgent::Hello(_) | ToAgent::Work(_)) => {}
            None => {
                stop.drain.cancel();
                stop.kill.cancel();
                return;
            }
        }
    }
}

impl Worker {
    /// Runs what the orchestrator orders until it says that this was all; on this machine.
    pub(crate) async fn obey(self, orders: Orders, say: &Say, stop: &Stop) {
        let (arrive, arriving) = unbounded_channel();
        // That the orchestrator is gone stops this worker, and not the caller's own tokens.
        let stop = Stop { drain: stop.drain.child_token(), kill: stop.kill.child_token() };
        let _obeying = Obeying::start(orders, Arc::clone(&self.context.plan), arrive, None, stop.clone());
        self.run(arriving, false, say, &stop).await;
    }

    /// Runs these cells, or only makes the templates they want.
    pub(crate) async fn run(self, mut arriving: Incoming, only_freeze: bool, say: &Say, stop: &Stop) {
        let Self { context, events, budget, results } = self;
        let (disk_full, context) = (context.disk_full.clone(), Arc::new(context));
        let passing_on = match results.clone() {
            Results::Here => tokio::spawn(pass_on(events, say.clone())),
            Results::Sent(folder, _) => {
                let (say, disk_full) = (say.clone(), disk_full.clone());
                tokio::task::spawn_blocking(move || pass_on_with_files(events, &folder, &say, &disk_full))
            }
        };
        let dispatched = async {
            if only_freeze {
                let mut cells = Vec::new();
                while let Some(more) = arriving.recv().await {
                    cells.extend(more.into_iter().map(|todo| todo.cell));
                }
                freeze(&context, &cells, budget, stop).await;
            } else {
                dispatch(&context, arriving, budget, stop).await;
            }
        };
        let no_room = async {
            match &results {
                Results::Here => std::future::pending().await,
                Results::Sent(folder, _) => watch_room(folder.clone(), disk_full.clone()).await,
            }
        };
        tokio::select! {
            () = dispatched => {}
            () = no_room => {}
        }
        // Not which of the two was first: the last cell may have met the full disk.
        let full = match results {
            Results::Sent(_, help) if disk_full.is_cancelled() => Some(help),
            _ => None,
        };
        // With the last sender the stream of events ends.
        drop(context);
        if let Some(help) = full {
            let reason = "its scratch disk is full: the guests' overlays cannot grow";
            let trouble = Trouble::new(TroubleKind::HostDiskFull, Phase::Runner, reason).with_help(help);
            say.message(FromAgent::Failed { trouble }).await;
        } else {
            let _ = passing_on.await;
            say.message(FromAgent::Done).await;
        }
    }
}

/// Passes events on as they come.
async fn pass_on(mut events: UnboundedReceiver<Event>, say: Say) {
    while let Some(Event { kind, .. }) = events.recv().await {
        if !say.message(FromAgent::Event { event: kind }).await {
            return;
        }
    }
}

/// Passes events on as they come. The files of an attempt go before the event that it has finished, and what follows of its cell
/// waits for them; other cells do not.
fn pass_on_with_files(mut events: UnboundedReceiver<Event>, folder: &Path, say: &Say, disk_full: &CancellationToken) {
    std::thread::scope(|scope| {
        let mut couriers: HashMap<CellId, mpsc::Sender<EventKind>> = HashMap::new();
        while let Some(Event { kind, .. }) = events.blocking_recv() {
            // What ended because the disk is full says nothing about a cell.
            if disk_full.is_cancelled() {
                return;
            }
            let Some(cell) = about(&kind).cloned() else {
                say.message_blocking(FromAgent::Event { event: kind });
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
                None => drop(say.message_blocking(FromAgent::Event { event: kind })),
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
        let sent = files::send(&files, cell, *attempt, &mut |message| say.message_blocking(message));
        if let Err(error) = sent
            && files.exists()
        {
            let message = format!("not all files of attempt {attempt} could be fetched from the L1: {error}");
            let cell = Some(cell.clone());
            say.message_blocking(FromAgent::Event { event: EventKind::Warning { cell, message } });
        }
        // Its room is needed by those that follow.
        let _ = std::fs::remove_dir_all(&files);
    }
    say.message_blocking(FromAgent::Event { event })
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
        | EventKind::NetworkRequested { cell, .. }
        | EventKind::NetworkNotRecorded { cell, .. }
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
