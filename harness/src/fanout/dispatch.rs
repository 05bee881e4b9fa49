//! All cells of a plan: started when they fit, tried again when the machine and not the package was at fault.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use matrix::Cell;
use reports::{EventKind, Verdict};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Attempt, Conclusion},
    budget::{Budget, Cost},
    station::{Keep, Station},
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
pub struct Todo {
    /// The cell.
    pub cell: Cell,
    /// Number of the next attempt.
    pub next: u32,
    /// Number of the last attempt there may be.
    pub last: u32,
}

/// Runs the cells (all of whose images are there) and returns when every one has had its `CellFinished` event.
pub async fn dispatch(station: &Arc<Station>, todo: Vec<Todo>, mut budget: Budget, stop: &Stop) {
    let mut waiting: VecDeque<Todo> = todo.into();
    let mut running = JoinSet::new();
    let mut costs: HashMap<task::Id, Cost> = HashMap::new();
    loop {
        if stop.drain.is_cancelled() || stop.kill.is_cancelled() {
            for todo in waiting.drain(..) {
                let verdict = Verdict::NotRun { reason: "interrupted before it started".into() };
                station.events.send(EventKind::CellFinished { cell: todo.cell.id, verdict });
            }
        }
        // In the plan's order, but a large guest that must wait does not hold up small ones behind it.
        let mut still = VecDeque::new();
        for todo in waiting.drain(..) {
            let cost = Cost::of(&todo.cell.guest);
            if budget.take(cost) {
                let (station, stop) = (Arc::clone(station), stop.clone());
                let task = running.spawn(async move { run_cell(&station, &todo, &stop).await });
                costs.insert(task.id(), cost);
            } else {
                still.push_back(todo);
            }
        }
        waiting = still;
        let finished = tokio::select! {
            finished = running.join_next_with_id() => finished,
            () = first(stop), if !waiting.is_empty() => continue,
        };
        let (finished, kept) = match finished {
            // A task that panicked is a defect of ours; its cell stays unreported and is therefore red.
            Some(finished) => finished.unwrap_or_else(|error| (error.id(), false)),
            None => break,
        };
        match costs.remove(&finished) {
            Some(cost) if kept => budget.leave(cost),
            Some(cost) => budget.give_back(cost),
            None => {}
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

async fn first(stop: &Stop) {
    tokio::select! {
        () = stop.drain.cancelled() => {}
        () = stop.kill.cancelled() => {}
    }
}

/// Whether the cell's guest was left running.
async fn run_cell(station: &Station, Todo { cell, next, last }: &Todo, stop: &Stop) -> bool {
    for number in *next..=*last {
        station.events.send(EventKind::AttemptStarted { cell: cell.id.clone(), attempt: number });
        let attempt = Attempt { station, cell, number, last: *last, kill: &stop.kill };
        let Conclusion { verdict, help, console_tail, kept } = attempt.run().await;
        let infrastructure = matches!(&verdict, Verdict::Error { phase, .. } if phase.is_infrastructure());
        let retried = infrastructure && number < *last && !stop.drain.is_cancelled() && !stop.kill.is_cancelled();
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
