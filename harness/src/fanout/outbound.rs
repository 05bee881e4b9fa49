//! A guest's way out: what it may reach at which step, and what is said of what it asked for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use matrix::{Cell, CellId, Dependencies, Digest, HostPattern, Network, NetworkRules, Plan, Repository, Unexpected};
use reports::{EventKind, NetworkRequest, Phase, RequestOutcome, Trouble, TroubleKind};

use super::context::RunContext;
use crate::events::Events;

/// Most requests of an attempt that are told one by one.
const MOST_TOLD: u64 = 2_000;
/// Most hosts that are told apart when it is said what was refused, or failed.
const MOST_HOSTS: usize = 20;

/// Whether a proxy is on the network of the cell's guest.
pub(super) fn is_wanted(cell: &Cell) -> bool {
    cell.guest.network == Network::Repositories || cell.installs() && cell.dependencies == Dependencies::Repositories
}

/// Whether a guest of the plan is to have one.
pub(crate) fn reaches_repositories(plan: &Plan) -> bool {
    let prepares = plan.images.iter().filter_map(|image| image.prepare.as_ref());
    plan.cells.iter().any(is_wanted) || prepares.into_iter().any(|prepare| prepare.network == Network::Repositories)
}

/// The repositories that the matrix has for guests of this image.
pub(super) fn added<'a>(plan: &'a Plan, image: &str) -> Vec<&'a Repository> {
    plan.repositories.iter().filter(|added| added.images.iter().any(|name| name == image)).collect()
}

/// Whether guests of this image are prepared with these.
pub(super) fn is_prepared_with_repositories(plan: &Plan, image: &str) -> bool {
    let image = plan.images.iter().find(|known| known.name == image);
    let prepare = image.and_then(|image| image.prepare.as_ref());
    prepare.is_some_and(|prepare| prepare.network == Network::Repositories)
}

/// What an L1 may reach for its guests, each of which has a policy of its own.
pub(crate) fn policy_of_l1(plan: &Plan) -> egress::Policy {
    egress::Policy { others: true, ..policy(plan, Vec::new()) }
}

/// What a guest may reach: the repositories of its system, and what the matrix names.
pub(super) fn policy(plan: &Plan, repositories: Vec<HostPattern>) -> egress::Policy {
    let (rules, added) = (&plan.network, plan.repositories.iter().flat_map(|added| &added.hosts));
    let named = rules.allow.iter().chain(added).cloned().collect();
    egress::Policy { repositories, named, private: rules.private.clone(), others: false }
}

/// The proxy as one guest sees it.
pub(super) struct Outbound {
    guest: egress::Guest,
    record: Arc<Record>,
    repositories: Mutex<Vec<HostPattern>>,
}

struct Record {
    events: Events,
    cell: CellId,
    attempt: u32,
    state: Mutex<State>,
}

/// What was asked for in the step that is under way.
struct State {
    phase: Phase,
    told: u64,
    untold: u64,
    /// How often, by host and port, and why.
    refused: BTreeMap<String, (u64, String)>,
    failed: BTreeMap<String, (u64, String)>,
    /// The first thing that was refused, whenever that was.
    first_refused: Option<(Phase, String)>,
    closed: bool,
}

impl Outbound {
    /// The guest with this network card, which may reach nothing yet.
    pub(super) fn open(
        proxy: &egress::Proxy,
        card: egress::Card,
        events: Events,
        (cell, attempt): (CellId, u32),
    ) -> Self {
        let (refused, failed) = (BTreeMap::new(), BTreeMap::new());
        let state =
            State { phase: Phase::Boot, told: 0, untold: 0, refused, failed, first_refused: None, closed: false };
        let record = Arc::new(Record { events, cell, attempt, state: Mutex::new(state) });
        let recorder = Arc::clone(&record);
        let guest = proxy.serve(card, None, Box::new(move |request| recorder.take(request)));
        Self { guest, record, repositories: Mutex::default() }
    }

    /// Where the repositories of its system are, as its image says.
    pub(super) fn learn(&self, repositories: Vec<HostPattern>) {
        *self.repositories.lock().unwrap_or_else(PoisonError::into_inner) = repositories;
    }

    /// What a cell may reach while its package is installed, if what it depends on may come from repositories.
    pub(super) fn allow(&self, plan: &Plan) {
        let repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.guest.allow(Some(policy(plan, repositories)));
    }

    /// A step of the cell begins: its suite may reach what the cell's network says.
    pub(super) fn enter(&self, phase: Phase, plan: &Plan, cell: &Cell) {
        self.record.enter(phase);
        match cell.guest.network {
            Network::Repositories => self.allow(plan),
            Network::Isolated | Network::Open => self.guest.allow(None),
        }
    }

    /// What went wrong at the servers in this step, in one line; empty: nothing.
    pub(super) fn failures(&self) -> String {
        let state = self.record.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = state.failed.iter().map(|(host, (_, reason))| format!("{host}: {reason}"));
        failed.take(3).collect::<Vec<_>>().join("; ")
    }

    /// Ends it; nothing is recorded of the guest afterwards.
    pub(super) async fn close(self) {
        self.guest.close().await;
        self.record.enter(Phase::Collect);
        self.record.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// The cell has failed, although its suite has passed, if it asked for what is not allowed and the matrix says so.
    pub(super) fn judged(&self, rules: &NetworkRules) -> Result<(), Trouble> {
        let state = self.record.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&state.first_refused, rules.unexpected) {
            (Some((phase, what)), Unexpected::Fail) => {
                let reason = format!("{what}, and `network.unexpected` is \"fail\"");
                Err(Trouble::new(TroubleKind::UnexpectedRequest, *phase, reason))
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    fn take(&self, request: NetworkRequest) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = format!("{}:{}", reports::clean::line(&request.host), request.port);
        let phase = state.phase;
        if state.closed {
            return;
        }
        match &request.outcome {
            RequestOutcome::Refused { reason } => {
                if state.first_refused.is_none() {
                    state.first_refused = Some((phase, format!("the guest tried to reach {at}: {reason}")));
                }
                count(&mut state.refused, at, reason);
            }
            RequestOutcome::Failed { reason } => count(&mut state.failed, at, reason),
            RequestOutcome::Served { .. } | RequestOutcome::Tunnelled => {}
        }
        if state.told >= MOST_TOLD {
            state.untold += 1;
            return;
        }
        state.told += 1;
        let (cell, attempt) = (self.cell.clone(), self.attempt);
        self.events.send(EventKind::NetworkRequested { cell, attempt, phase, request });
    }

    /// Says what there is to be said of the step before.
    fn enter(&self, phase: Phase) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut state.phase, phase);
        if state.untold > 0 {
            let (cell, attempt, count) = (self.cell.clone(), self.attempt, std::mem::take(&mut state.untold));
            self.events.send(EventKind::NetworkNotRecorded { cell, attempt, phase: before, count });
        }
        for (at, (count, reason)) in std::mem::take(&mut state.refused) {
            let attempts = if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") };
            let were = if count == 1 { "was" } else { "were" };
            self.warn(format!("{attempts} to reach {at} in phase {before} {were} refused: {reason}"));
        }
        for (at, (count, reason)) in std::mem::take(&mut state.failed) {
            let requests = if count == 1 { "a request".to_owned() } else { format!("{count} requests") };
            self.warn(format!("{requests} to {at} in phase {before} failed: {reason}"));
        }
    }

    fn warn(&self, message: String) {
        self.events.send(EventKind::Warning { cell: Some(self.cell.clone()), message });
    }
}

/// Counts one more; what does not fit is counted together.
fn count(hosts: &mut BTreeMap<String, (u64, String)>, at: String, reason: &str) {
    let at = if hosts.len() < MOST_HOSTS || hosts.contains_key(&at) { at } else { "other hosts".to_owned() };
    hosts.entry(at).or_insert_with(|| (0, reports::clean::line(reason))).0 += 1;
}

/// What records the requests of a guest that is prepared to be a template.
pub(super) fn template_recorder(context: &RunContext, template: Digest, image: &str) -> egress::Recorder {
    let (events, runner, image, told) = (context.events.clone(), context.runner, image.to_owned(), AtomicU64::new(0));
    Box::new(move |request| {
        if told.fetch_add(1, Ordering::Relaxed) >= MOST_TOLD {
            return;
        }
        let at = format!("{}:{}", reports::clean::line(&request.host), request.port);
        match &request.outcome {
            RequestOutcome::Refused { reason } => {
                events.warn_once(format!("the guest of {image} tried to reach {at} while it was prepared: {reason}"));
            }
            RequestOutcome::Failed { reason } => {
                events.warn_once(format!("a request to {at} failed while a guest of {image} was prepared: {reason}"));
            }
            RequestOutcome::Served { .. } | RequestOutcome::Tunnelled => {}
        }
        events.send(EventKind::TemplateRequested { runner, template, request });
    })
}
