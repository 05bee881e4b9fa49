//! All cells of a plan: started when they fit, tried again when the machine and not the package was at fault.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::{ByteSize, Cell, CellId, Digest};
use reports::{EventKind, Verdict};
use tokio::{
    sync::{mpsc, oneshot},
    task::{self, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Attempt, Conclusion},
    budget::{Budget, Cost, Gauge, Request, Slot, making_room},
    station::{Keep, Station},
};
use crate::template::{self, Template};

/// The two ways to stop a run early.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Start nothing new; what runs comes to its end.
    pub drain: CancellationToken,
    /// End everything at once.
    pub kill: CancellationToken,
}

/// A cell and the attempts it may have: an earlier runner, or an earlier process, may have made some already.
#[derive(Clone, Debug)]
pub struct Todo {
    /// The cell.
    pub cell: Cell,
    /// Number of the next attempt.
    pub next: u32,
    /// Number of the last attempt there may be.
    pub last: u32,
}

/// How often it is looked at what running guests take.
const LOOK: Duration = Duration::from_millis(500);

/// What has come to an end.
enum Done {
    /// A cell; whether its guest was left running.
    Cell { kept: bool },
    /// The making of a template, or the search for it.
    Template,
}

/// Something that runs, and what it takes.
struct Running {
    /// `None`: it has given back what it had and waits until its guest can be booted.
    cost: Option<Cost>,
    guest: matrix::Guest,
    /// Told when its guest can be booted.
    fits: Option<oneshot::Sender<bool>>,
    gauge: Arc<Gauge>,
    /// What its guest is a fork of, and the way to have that make room for others.
    fork: Option<(Arc<Template>, CancellationToken)>,
    since: Instant,
}

impl Running {
    fn new(cost: Cost, guest: matrix::Guest) -> Self {
        Self { cost: Some(cost), guest, fits: None, gauge: Arc::default(), fork: None, since: Instant::now() }
    }
}

/// Cells as they come in, each when its image is there; the end of the stream: there will be no more.
pub type Incoming = mpsc::UnboundedReceiver<Vec<Todo>>;

/// The cells that are there already, and no others.
pub fn at_once(todo: Vec<Todo>) -> Incoming {
    let (arrive, arriving) = mpsc::unbounded_channel();
    // Its other end is in our hands.
    let _ = arrive.send(todo);
    arriving
}

/// Runs the cells and returns when all have come in and every one has had its `CellFinished` event.
pub async fn dispatch(station: &Arc<Station>, arriving: Incoming, budget: Budget, stop: &Stop) {
    run(station, arriving, Wanted::default(), budget, stop).await;
}

/// Makes the templates these cells want, and runs none of them.
pub async fn freeze(station: &Arc<Station>, cells: &[Cell], budget: Budget, stop: &Stop) {
    let mut templates = Wanted::default();
    templates.add(station, cells);
    run(station, at_once(Vec::new()), templates, budget, stop).await;
}

async fn run(station: &Arc<Station>, mut arriving: Incoming, mut templates: Wanted, mut budget: Budget, stop: &Stop) {
    let mut waiting: VecDeque<Todo> = VecDeque::new();
    let mut all_are_here = false;
    let mut tasks = JoinSet::new();
    let mut running: HashMap<task::Id, Running> = HashMap::new();
    let (requests, mut requested) = mpsc::unbounded_channel();
    // Nobody needs a template any more when nothing starts any more.
    let making = stop.kill.child_token();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if stop.drain.is_cancelled() || stop.kill.is_cancelled() {
            for todo in waiting.drain(..) {
                let verdict = Verdict::NotRun { reason: "interrupted before it started".into() };
                station.events.send(EventKind::CellFinished { cell: todo.cell.id, verdict });
            }
            templates.wanted.clear();
            making.cancel();
        }
        // Those that have begun and have to boot go first.
        for waiting in running.values_mut() {
            let whole = Cost::of(&waiting.guest);
            if waiting.fits.is_some() && budget.take(whole) {
                waiting.cost = Some(whole);
                let _ = waiting.fits.take().map(|fits| fits.send(true));
            }
        }
        // Nothing runs that could make room for them.
        if running.values().all(|its| its.fits.is_some()) {
            running.values_mut().filter_map(|its| its.fits.take()).for_each(|fits| {
                let _ = fits.send(false);
            });
        }
        // Templates first: cells wait for them. A template is a guest that is booted once for all of its cells.
        templates.wanted.retain(|(key, cell)| {
            let cost = Cost::of(&cell.guest);
            let taken = budget.take(cost);
            if taken {
                let guest = cell.guest.clone();
                let (station, cancel, key, cell) = (Arc::clone(station), making.clone(), *key, cell.clone());
                let task = tasks.spawn(async move {
                    station.obtain(key, &cell, &cancel).await;
                    Done::Template
                });
                running.insert(task.id(), Running::new(cost, guest));
            }
            !taken
        });
        // In the plan's order, but a large guest that must wait does not hold up small ones behind it.
        let mut still = VecDeque::new();
        for todo in waiting.drain(..) {
            let template = match templates.of.get(&todo.cell.id).map(|key| (key, station.warmth.known(*key))) {
                // Being made, unless nothing runs any more that could make it.
                Some((_, None)) if !running.is_empty() || !templates.wanted.is_empty() => {
                    still.push_back(todo);
                    continue;
                }
                Some((_, Some(Ok(template)))) if station.forks(&todo.cell) && template.unfrozen().is_none() => {
                    Some(template)
                }
                _ => None,
            };
            let cost = match &template {
                Some(template) => Cost::of_fork(&todo.cell.guest, template.cost()),
                None => Cost::of(&todo.cell.guest),
            };
            let taken = match &template {
                Some(_) => budget.take_fork(cost, &todo.cell.guest),
                None => budget.take(cost),
            };
            if taken {
                let slot = Slot::new(template.is_some(), requests.clone());
                let its = Running {
                    gauge: Arc::clone(&slot.gauge),
                    fork: template.map(|template| (template, slot.make_room.clone())),
                    ..Running::new(cost, todo.cell.guest.clone())
                };
                let (station, stop) = (Arc::clone(station), stop.clone());
                let task =
                    tasks.spawn(async move { Done::Cell { kept: run_cell(&station, &todo, &stop, &slot).await } });
                running.insert(task.id(), its);
            } else {
                still.push_back(todo);
            }
        }
        waiting = still;
        let finished = tokio::select! {
            finished = tasks.join_next_with_id(), if all_are_here || !tasks.is_empty() => finished,
            more = arriving.recv(), if !all_are_here => {
                match more {
                    Some(todo) => {
                        templates.add(station, todo.iter().map(|todo| &todo.cell));
                        waiting.extend(todo);
                    }
                    None => all_are_here = true,
                }
                continue;
            }
            () = first(stop), if !waiting.is_empty() || !making.is_cancelled() => continue,
            Some(Request { gauge, fits }) = requested.recv() => {
                if let Some(its) = running.values_mut().find(|running| Arc::ptr_eq(&running.gauge, &gauge)) {
                    its.cost.take().into_iter().for_each(|cost| budget.give_back(cost));
                    (its.fits, its.fork) = (Some(fits), None);
                }
                continue;
            }
            _ = looks.tick(), if !running.is_empty() => {
                look(&mut running, &mut budget);
                continue;
            }
        };
        let (finished, done) = match finished {
            // A task that panicked is a defect of ours; its cell stays unreported and is therefore red.
            Some(finished) => finished.unwrap_or_else(|error| (error.id(), Done::Template)),
            None => break,
        };
        match (running.remove(&finished), done) {
            (Some(Running { cost: Some(mut cost), guest, .. }), Done::Cell { kept: true }) => {
                // Nobody looks at it any more: it may grow to all it can take.
                budget.correct(&mut cost, Cost::of(&guest).memory());
                budget.leave(cost);
            }
            (Some(Running { cost: Some(cost), .. }), _) => budget.give_back(cost),
            (Some(Running { cost: None, .. }) | None, _) => {}
        }
    }
    // Nothing runs any more, and still they do not fit.
    for todo in waiting {
        let reason = match station.keep {
            Keep::Never => {
                "it needs more memory than guests may take here: lower its `memory`, or raise `runner.memory`"
            }
            _ => "guests that were kept take the memory it needs: keep fewer, or run it by itself with --cell",
        };
        let verdict = Verdict::NotRun { reason: reason.into() };
        station.events.send(EventKind::CellFinished { cell: todo.cell.id, verdict });
    }
}

/// Corrects the costs of what runs by what it is seen to take; a guest that has ended keeps its last one. Where that is more than
/// there is, the youngest forks make room.
fn look(running: &mut HashMap<task::Id, Running>, budget: &mut Budget) {
    for Running { cost, gauge, fork, .. } in running.values_mut() {
        let (Some(cost), Some(taken)) = (cost, gauge.pid().and_then(template::own_memory)) else { continue };
        if let Some((template, _)) = fork {
            template.took(taken);
        }
        if taken > cost.memory().bytes() {
            budget.correct(cost, ByteSize::from_bytes(taken));
        }
    }
    let mut forks: Vec<_> = running
        .values()
        .filter_map(|its| Some((its.since, its.cost?.memory().bytes(), &its.fork.as_ref()?.1)))
        .collect();
    forks.sort_by_key(|(since, ..)| *since);
    let something_else = running.values().any(|its| its.cost.is_some() && its.fork.is_none());
    // What has been told to go has not gone yet.
    let (going, staying): (Vec<_>, Vec<_>) = forks.into_iter().partition(|(_, _, make_room)| make_room.is_cancelled());
    let excess = budget.excess().saturating_sub(going.iter().map(|(_, bytes, _)| bytes).sum());
    let taken: Vec<u64> = staying.iter().map(|(_, bytes, _)| *bytes).collect();
    let many = making_room(excess, &taken, !something_else);
    staying.iter().rev().take(many).for_each(|(_, _, make_room)| make_room.cancel());
}

/// The templates that cells want.
#[derive(Default)]
struct Wanted {
    of: HashMap<CellId, Digest>,
    /// Those that nobody makes yet, each once, with the first cell that wants it.
    wanted: Vec<(Digest, Cell)>,
}

impl Wanted {
    fn add<'a>(&mut self, station: &Station, cells: impl IntoIterator<Item = &'a Cell>) {
        for cell in cells {
            let Some(key) = station.template_key(cell) else { continue };
            // Somebody else of this run may have wanted it before.
            if !self.of.values().any(|known| *known == key) {
                self.wanted.push((key, cell.clone()));
            }
            self.of.insert(cell.id.clone(), key);
        }
    }
}

async fn first(stop: &Stop) {
    tokio::select! {
        () = stop.drain.cancelled() => {}
        () = stop.kill.cancelled() => {}
    }
}

/// Whether the cell's guest was left running.
async fn run_cell(station: &Station, Todo { cell, next, last }: &Todo, stop: &Stop, slot: &Slot) -> bool {
    let mut last = *last;
    for number in *next.. {
        station.events.send(EventKind::AttemptStarted { cell: cell.id.clone(), attempt: number });
        let again = number > *next;
        let attempt = Attempt { station, cell, number, last, again, slot, kill: &stop.kill };
        let Conclusion { verdict, help, console_tail, kept } = attempt.run().await;
        let infrastructure = super::attempt::may_do_better(&verdict);
        // A fork that comes to nothing costs no attempt: with guests that are booted there would be as many. The next one is.
        last = last.saturating_add(u32::from(infrastructure && !again && slot.is_of_fork()));
        let retried = infrastructure && number < last && !stop.drain.is_cancelled() && !stop.kill.is_cancelled();
        station.events.send(EventKind::AttemptFinished {
            cell: cell.id.clone(),
            attempt: number,
            verdict: verdict.clone(),
            retried,
            console_tail,
            help,
        });
        if !retried {
            station.events.send(EventKind::CellFinished { cell: cell.id.clone(), verdict });
            return kept;
        }
    }
    false
}
