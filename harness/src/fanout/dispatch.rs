//! All cells of a plan: started when they fit, tried again when the machine and not the package was at fault.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use matrix::{ByteSize, Cell, CellId, Digest};
use reports::{Ending, EventKind, Phase, Trouble, TroubleKind, Verdict};
use tokio::{
    sync::{mpsc, oneshot},
    task::{self, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::AttemptOutcome,
    budget::{Admission, Budget, Cost, GuestProcess, Request, making_room},
    context::{Keep, RunContext},
    crew::{Crew, Forkable, Origin, Try},
    disk_space::{self, DiskShortage, LEAST_ROOM},
    panicked::{self, What},
};

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
pub struct QueuedCell {
    /// The cell.
    pub cell: Cell,
    /// Number of the next attempt.
    pub next: u32,
    /// Number of the last attempt there may be.
    pub last: u32,
}

/// How often it is looked at what running guests take, and what room there is for their disks.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// What has come to an end.
enum Done {
    /// A cell; whether its guest was left running.
    Cell { kept: bool },
    /// The making of a template, or the search for it.
    Template,
}

/// Something that runs, and what it takes.
struct Running {
    what: What,
    /// `None`: it has given back what it had and waits until its guest can be booted.
    cost: Option<Cost>,
    guest: matrix::Guest,
    /// Completed when its guest can be booted.
    fits: Option<oneshot::Sender<bool>>,
    process: Arc<GuestProcess>,
    /// What its guest is a fork of, and the way to have that make room for others.
    fork: Option<(Arc<dyn Forkable>, CancellationToken)>,
    since: Instant,
}

impl Running {
    fn new(what: What, cost: Cost, guest: matrix::Guest) -> Self {
        Self { what, cost: Some(cost), guest, fits: None, process: Arc::default(), fork: None, since: Instant::now() }
    }
}

/// Cells as they come in, each when its image is there; the end of the stream: there will be no more.
pub type Incoming = mpsc::UnboundedReceiver<Vec<QueuedCell>>;

/// The cells that are there already, and no others.
pub fn at_once(todo: Vec<QueuedCell>) -> Incoming {
    let (arrive, arriving) = mpsc::unbounded_channel();
    // Its other end is in our hands.
    let _ = arrive.send(todo);
    arriving
}

/// Runs the cells and returns when all have come in and every one has had its `CellFinished` event.
pub async fn dispatch(context: &Arc<RunContext>, arriving: Incoming, budget: Budget, stop: &Stop) {
    run(context, arriving, Wanted::default(), budget, stop).await;
}

/// Makes the templates these cells want, and runs none of them.
pub async fn freeze(context: &Arc<RunContext>, cells: &[Cell], budget: Budget, stop: &Stop) {
    let mut templates = Wanted::default();
    templates.add(&**context, cells);
    run(context, at_once(Vec::new()), templates, budget, stop).await;
}

pub(super) async fn run<C: Crew>(
    crew: &Arc<C>,
    mut arriving: Incoming,
    mut templates: Wanted,
    mut budget: Budget,
    stop: &Stop,
) {
    let mut waiting: VecDeque<QueuedCell> = VecDeque::new();
    let mut all_are_here = false;
    let mut tasks = JoinSet::new();
    let mut running: HashMap<task::Id, Running> = HashMap::new();
    let (requests, mut requested) = mpsc::unbounded_channel();
    // Nobody needs a template any more when nothing starts any more.
    let making = stop.kill.child_token();
    let mut looks = tokio::time::interval(SAMPLE_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut measuring: Option<JoinHandle<Measured>> = None;
    let mut short = crew.shortage().await;
    loop {
        if stop.drain.is_cancelled() || stop.kill.is_cancelled() {
            for todo in waiting.drain(..) {
                let verdict = Verdict::NotRun { reason: "interrupted before it started".into() };
                crew.events().send(EventKind::CellFinished { cell: todo.cell.id, verdict });
            }
            templates.wanted.clear();
            making.cancel();
        }
        let wanted = !waiting.is_empty() || !templates.wanted.is_empty();
        if short.is_some() && wanted && disk_space::while_short(running.len()) == DiskShortage::Refuse {
            // What ended last may have given room back.
            short = crew.shortage().await;
            if let Some(free) = short {
                crew.give_up_disk();
                waiting
                    .drain(..)
                    .flat_map(|todo| no_room(crew.folder(), &todo, free))
                    .for_each(|event| crew.events().send(event));
                templates.wanted.clear();
            }
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
            let taken = short.is_none() && budget.take(cost);
            if taken {
                let (what, guest) = (What::Template { key: *key, needed: crew.prepares(cell) }, cell.guest.clone());
                let (crew, cancel, key, cell) = (Arc::clone(crew), making.clone(), *key, cell.clone());
                let task = tasks.spawn(async move {
                    crew.obtain(key, &cell, &cancel).await;
                    Done::Template
                });
                running.insert(task.id(), Running::new(what, cost, guest));
            }
            !taken
        });
        // In the plan's order, but a large guest that must wait does not hold up small ones behind it.
        let mut still = VecDeque::new();
        for todo in waiting.drain(..) {
            let origin = templates.of.get(&todo.cell.id).map(|key| crew.origin(&todo.cell, *key));
            let template = match origin {
                // Being made, unless nothing runs any more that could make it.
                Some(Origin::Unknown) if !running.is_empty() || !templates.wanted.is_empty() => {
                    still.push_back(todo);
                    continue;
                }
                Some(Origin::Fork(template)) => Some(template),
                Some(Origin::Unknown | Origin::Boot) | None => None,
            };
            let cost = match &template {
                Some(template) => Cost::of_fork(&todo.cell.guest, template.cost()),
                None => Cost::of(&todo.cell.guest),
            };
            let taken = match &template {
                _ if short.is_some() => false,
                Some(_) => budget.take_fork(cost, &todo.cell.guest),
                None => budget.take(cost),
            };
            if taken {
                let admission = Admission::new(template.is_some(), requests.clone());
                let attempt = Arc::<AtomicU32>::default();
                let what = What::Cell { id: todo.cell.id.clone(), attempt: Arc::clone(&attempt) };
                let its = Running {
                    process: Arc::clone(&admission.process),
                    fork: template.map(|template| (template, admission.make_room.clone())),
                    ..Running::new(what, cost, todo.cell.guest.clone())
                };
                let (crew, stop) = (Arc::clone(crew), stop.clone());
                let task = tasks.spawn(async move {
                    Done::Cell { kept: run_cell(&*crew, &todo, &stop, &admission, &attempt).await }
                });
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
                        templates.add(&**crew, todo.iter().map(|todo| &todo.cell));
                        waiting.extend(todo);
                    }
                    None => all_are_here = true,
                }
                continue;
            }
            () = first(stop), if !waiting.is_empty() || !making.is_cancelled() => continue,
            Some(Request { process, fits }) = requested.recv() => {
                if let Some(its) = running.values_mut().find(|running| Arc::ptr_eq(&running.process, &process)) {
                    its.cost.take().into_iter().for_each(|cost| budget.give_back(cost));
                    (its.fits, its.fork) = (Some(fits), None);
                }
                continue;
            }
            _ = looks.tick(), if measuring.is_none() && !running.is_empty() => {
                measuring = Some(measure(crew.folder().to_owned(), &running));
                continue;
            }
            measured = finished(&mut measuring) => {
                measuring = None;
                if let Some(Measured { taken, short: room }) = measured {
                    short = room;
                    look(&mut running, &taken, &mut budget);
                }
                continue;
            }
        };
        let (finished, done) = match finished {
            Some(Ok(finished)) => finished,
            Some(Err(error)) => {
                let id = error.id();
                if let Some(Running { what, .. }) = running.get(&id) {
                    panicked(&**crew, what, &panicked::words(error));
                }
                (id, Done::Template)
            }
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
        let reason = match crew.keep() {
            Keep::Never => {
                "it needs more memory than guests may take here: lower its `memory`, or raise `runner.memory`"
            }
            _ => "guests that were kept take the memory it needs: keep fewer, or run it by itself with --cell",
        };
        let verdict = Verdict::NotRun { reason: reason.into() };
        crew.events().send(EventKind::CellFinished { cell: todo.cell.id, verdict });
    }
}

/// What was seen of what runs.
struct Measured {
    /// Memory that each takes for itself, in bytes.
    taken: HashMap<task::Id, u64>,
    /// The room that is left for disks, if that is too little.
    short: Option<ByteSize>,
}

/// On a thread of its own: the kernel counts every page of every guest, and a disk may be slow to answer.
fn measure(folder: PathBuf, running: &HashMap<task::Id, Running>) -> JoinHandle<Measured> {
    let gauges: Vec<_> = running.iter().map(|(id, its)| (*id, Arc::clone(&its.process))).collect();
    task::spawn_blocking(move || Measured {
        taken: gauges.into_iter().filter_map(|(id, process)| Some((id, process.taken()?))).collect(),
        short: disk_space::shortage(&folder),
    })
}

/// `None`: it panicked. Never, while nothing is measured.
async fn finished(measuring: &mut Option<JoinHandle<Measured>>) -> Option<Measured> {
    match measuring {
        Some(measuring) => measuring.await.ok(),
        None => std::future::pending().await,
    }
}

/// What is said of a cell that finds a full disk.
fn no_room(folder: &Path, todo: &QueuedCell, free: ByteSize) -> [EventKind; 3] {
    let (cell, attempt, folder) = (todo.cell.id.clone(), todo.next, folder.display());
    let reason = format!(
        "the host's disk is full: {} MiB are free below {folder}, a guest needs {} MiB at least",
        free.mib(),
        LEAST_ROOM.mib()
    );
    let trouble =
        Trouble::new(TroubleKind::HostDiskFull, Phase::Runner, reason).with_help(format!("make room below {folder}"));
    let verdict = trouble.verdict();
    [
        EventKind::AttemptStarted { cell: cell.clone(), attempt },
        EventKind::AttemptFinished { cell: cell.clone(), attempt, ending: Ending::Troubled(trouble), retried: false },
        EventKind::CellFinished { cell, verdict },
    ]
}

/// A task of ours panicked.
fn panicked(crew: &impl Crew, what: &What, words: &str) {
    if let What::Template { key, .. } = what {
        // First, so that nobody goes on waiting for it.
        crew.learn(*key, Trouble::new(TroubleKind::Defect, Phase::Prepare, words));
    }
    panicked::reported(what, crew.runner(), words).into_iter().for_each(|event| crew.events().send(event));
}

/// Corrects the costs of what runs by what it is seen to take; a guest that has ended keeps its last one. Where that is more than
/// there is, the youngest forks make room.
fn look(running: &mut HashMap<task::Id, Running>, taken: &HashMap<task::Id, u64>, budget: &mut Budget) {
    for (id, Running { cost, fork, .. }) in running.iter_mut() {
        let (Some(cost), Some(&taken)) = (cost, taken.get(id)) else { continue };
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
pub(super) struct Wanted {
    of: HashMap<CellId, Digest>,
    /// Those that nobody makes yet, each once, with the first cell that wants it.
    wanted: Vec<(Digest, Cell)>,
}

impl Wanted {
    pub(super) fn add<'a>(&mut self, crew: &impl Crew, cells: impl IntoIterator<Item = &'a Cell>) {
        for cell in cells {
            let Some(key) = crew.template_key(cell) else { continue };
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

/// Whether the cell's guest was left running. `running` is the number of the attempt that runs.
async fn run_cell(
    crew: &impl Crew,
    QueuedCell { cell, next, last }: &QueuedCell,
    stop: &Stop,
    admission: &Admission,
    running: &AtomicU32,
) -> bool {
    let mut last = *last;
    for number in *next.. {
        crew.events().send(EventKind::AttemptStarted { cell: cell.id.clone(), attempt: number });
        running.store(number, Ordering::Relaxed);
        let again = number > *next;
        let AttemptOutcome { ending, kept } =
            crew.attempt(Try { cell, number, last, again, admission, kill: &stop.kill }).await;
        let retry = ending.trouble().is_some_and(Trouble::may_pass);
        // A fork that fails costs no attempt: a booted guest would have had them all. The next guest is booted.
        last = last.saturating_add(u32::from(retry && !again && admission.is_of_fork()));
        let stopped = stop.drain.is_cancelled() || stop.kill.is_cancelled();
        let retried = retry && number < last && !stopped && crew.shortage().await.is_none();
        running.store(0, Ordering::Relaxed);
        let verdict = ending.verdict();
        crew.events().send(EventKind::AttemptFinished { cell: cell.id.clone(), attempt: number, ending, retried });
        if !retried {
            crew.events().send(EventKind::CellFinished { cell: cell.id.clone(), verdict });
            return kept;
        }
    }
    false
}
