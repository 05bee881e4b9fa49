//! A guest's way out: what it may reach at which step, and what is said of what it asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use matrix::{Cell, CellId, Dependencies, Digest, HostPattern, Network, NetworkRules, Plan, Repository, Unexpected};
use reports::{EventKind, NetworkRequest, Phase, RequestOutcome, Trouble, TroubleKind};

use super::{context::RunContext, differences::Differences};
use crate::events::Events;

/// Most requests of an attempt that are told one by one.
pub(crate) const MOST_TOLD: u64 = 2_000;
/// Most hosts that are told apart when it is said what was refused, or failed.
const MOST_HOSTS: usize = 20;
/// Most failures that the reason of a cell names.
const MOST_NAMED: usize = 3;

/// Whether a proxy is on the network of the cell's guest.
pub(super) fn is_wanted(cell: &Cell) -> bool {
    cell.guest.network == Network::Repositories || cell.installs() && cell.dependencies == Dependencies::Repositories
}

/// Whether a guest of the plan is to have one.
pub(crate) fn reaches_repositories(plan: &Plan) -> bool {
    let prepares = plan.images.iter().filter_map(|image| image.prepare.as_ref());
    plan.cells.iter().any(is_wanted) || prepares.into_iter().any(|prepare| prepare.network == Network::Repositories)
}

/// Whether guests of this image may get something from repositories.
pub(crate) fn image_reaches_repositories(plan: &Plan, image: &str) -> bool {
    is_prepared_with_repositories(plan, image) || plan.cells.iter().any(|cell| cell.image == image && is_wanted(cell))
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
    egress::Policy { others: true, ..named_by(plan) }
}

/// What the matrix names.
pub(crate) fn named_by(plan: &Plan) -> egress::Policy {
    policy(plan, Vec::new())
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
    /// The packages that it gets, and no others; `None`: any.
    pins: Option<egress::Pins>,
    state: Mutex<State>,
}

/// What was asked for in the step that is under way.
struct State {
    phase: Phase,
    /// Something of the package or the suite may run: what is refused now is theirs, and not the image's.
    is_packages: bool,
    told: u64,
    untold: u64,
    /// How often, by host and port, and why.
    refused: BTreeMap<String, (u64, String)>,
    /// Each reason by itself: of packages that are not the pinned ones, each has its own.
    failed: BTreeMap<(String, String), u64>,
    /// Hosts and ports of https servers: what comes from there is compared with no pin.
    unseen: BTreeSet<String>,
    /// Lists of packages that are others than the pinned ones.
    replaced: BTreeSet<String>,
    /// Packages that were refused after the installation because others are pinned.
    differences: Differences<(Phase, String)>,
    /// The first request of the package or the suite that was refused.
    first_refused: Option<(Phase, String)>,
    closed: bool,
}

impl Outbound {
    /// The guest with this network card, which may reach nothing yet.
    pub(super) fn open(
        proxy: &egress::Proxy,
        card: egress::Card,
        pins: Option<egress::Pins>,
        events: Events,
        (cell, attempt): (CellId, u32),
    ) -> Self {
        let record = Arc::new(Record::new(events, (cell, attempt), pins.clone()));
        let recorder = Arc::clone(&record);
        let guest = proxy.serve(card, pins, Box::new(move |request| recorder.take(request)));
        Self { guest, record, repositories: Mutex::default() }
    }

    /// Where the repositories of its system are, as its image says.
    pub(super) fn learn(&self, repositories: Vec<HostPattern>) {
        *self.repositories.lock().unwrap_or_else(PoisonError::into_inner) = repositories;
    }

    /// The guest's package manager gets what the package depends on. Nothing of the package runs meanwhile.
    pub(super) fn get_dependencies(&self, plan: &Plan) {
        self.record.state().is_packages = false;
        self.allow(plan);
    }

    /// The guest may reach its repositories from now on.
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
        self.record.failures()
    }

    /// Whether it gets pinned packages only.
    pub(super) fn is_locked(&self) -> bool {
        self.record.pins.is_some()
    }

    /// What replaced pinned lists in this step, in words; `None`: nothing.
    pub(super) fn other_lists(&self) -> Option<String> {
        let state = self.record.state();
        let first = state.replaced.first()?;
        let more = match state.replaced.len() - 1 {
            0 => String::new(),
            more => format!(", as {more} more"),
        };
        Some(format!("{first} is not the list that repositories.lock pins{more}; --lock renews it"))
    }

    /// A package that the guest got after the installation, or would have, is not the pinned one: what came of that says nothing.
    pub(super) fn difference(&self) -> Option<Trouble> {
        let (phase, what) = self.record.state().differences.first()?.clone();
        let reason = format!("the repositories offer other packages than are pinned: {what}");
        let help = "`--lock` pins what they have now; without `--locked` guests get what they offer";
        Some(Trouble::new(TroubleKind::RepositoryFailed, phase, reason).with_help(help))
    }

    /// Whether the guest asked for a package in this step that is not pinned.
    pub(super) fn differs(&self) -> bool {
        self.record.differs()
    }

    /// Ends it; nothing is recorded of the guest afterwards.
    pub(super) async fn close(self) {
        self.guest.close().await;
        self.record.enter(Phase::Collect);
        self.record.state().closed = true;
    }

    /// The cell has failed, although its suite has passed, if it asked for what is not allowed and the matrix says so.
    pub(super) fn judged(&self, rules: &NetworkRules) -> Result<(), Trouble> {
        match (&self.record.state().first_refused, rules.unexpected) {
            (Some((phase, what)), Unexpected::Fail) => {
                let reason = format!("{what}, and `network.unexpected` is \"fail\"");
                Err(Trouble::new(TroubleKind::UnexpectedRequest, *phase, reason))
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    fn new(events: Events, (cell, attempt): (CellId, u32), pins: Option<egress::Pins>) -> Self {
        let (refused, failed, unseen, replaced, differences) = Default::default();
        let (phase, is_packages, told, untold, closed) = (Phase::Boot, false, 0, 0, false);
        let first_refused = None;
        let state = State {
            phase,
            is_packages,
            told,
            untold,
            refused,
            failed,
            unseen,
            replaced,
            differences,
            first_refused,
            closed,
        };
        Self { events, cell, attempt, pins, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, request: NetworkRequest) {
        let mut state = self.state();
        let at = format!("{}:{}", reports::clean::line(&request.host), request.port);
        let phase = state.phase;
        if state.closed {
            return;
        }
        if self.pins.is_some() {
            // The installation says itself what it makes of a difference, and before it what is asked for is the image's affair.
            let counts = state.is_packages && phase != Phase::Install;
            state.differences.take(&request, |reason| counts.then(|| (phase, format!("{at}: {reason}"))));
        }
        match &request.outcome {
            RequestOutcome::Refused { reason } => {
                if state.is_packages && state.first_refused.is_none() {
                    state.first_refused = Some((phase, format!("the guest tried to reach {at}: {reason}")));
                }
                count(&mut state.refused, at, reason);
            }
            RequestOutcome::Failed { reason } => {
                let key = (at, reports::clean::line(reason));
                if state.failed.len() < MOST_HOSTS || state.failed.contains_key(&key) {
                    *state.failed.entry(key).or_default() += 1;
                } else {
                    *state.failed.entry(("other hosts".to_owned(), "other reasons".to_owned())).or_default() += 1;
                }
            }
            RequestOutcome::Served { digest: Some(digest), .. } => {
                let url = request.path.as_ref().map(|path| egress::file_url(&request.host, request.port, path));
                let lists = self.pins.as_ref().zip(url).filter(|(_, url)| egress::is_list(url));
                match lists
                    .and_then(|(pins, url)| Some((pins.metadata.get(&url)? == digest, reports::clean::line(&url))))
                {
                    Some((true, url)) => drop(state.replaced.remove(&url)),
                    Some((false, url)) if state.replaced.len() < MOST_HOSTS => drop(state.replaced.insert(url)),
                    _ => {}
                }
            }
            RequestOutcome::Tunnelled if self.pins.is_some() && state.unseen.len() < MOST_HOSTS => {
                state.unseen.insert(at);
            }
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

    fn failures(&self) -> String {
        let state = self.state();
        let mut keys: Vec<_> = state.failed.keys().collect();
        // Package managers say the rest themselves.
        keys.sort_by_key(|(_, reason)| !self.is_difference(reason));
        let mut failed: Vec<_> = keys.into_iter().map(|(host, reason)| format!("{host}: {reason}")).collect();
        let more = failed.len().saturating_sub(MOST_NAMED);
        failed.truncate(MOST_NAMED);
        failed.extend((more > 0).then(|| format!("and {more} more")));
        failed.join("; ")
    }

    fn differs(&self) -> bool {
        let state = self.state();
        state.failed.keys().any(|(_, reason)| self.is_difference(reason))
    }

    fn is_difference(&self, reason: &str) -> bool {
        self.pins.is_some() && egress::is_difference(reason)
    }

    /// Says what there is to be said of the step before.
    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.phase, phase);
        state.is_packages = !matches!(phase, Phase::Boot | Phase::Prepare);
        if state.untold > 0 {
            let (cell, attempt, count) = (self.cell.clone(), self.attempt, std::mem::take(&mut state.untold));
            self.events.send(EventKind::NetworkNotRecorded { cell, attempt, phase: before, count });
        }
        for (at, (count, reason)) in std::mem::take(&mut state.refused) {
            let attempts = if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") };
            let were = if count == 1 { "was" } else { "were" };
            self.warn(format!("{attempts} to reach {at} in phase {before} {were} refused: {reason}"));
        }
        for list in std::mem::take(&mut state.replaced) {
            self.warn(format!(
                "{list} in phase {before} is not the list that repositories.lock pins: that one is not to be had any more"
            ));
        }
        for at in std::mem::take(&mut state.unseen) {
            self.warn(format!(
                "what came from {at} over https in phase {before} is not compared with repositories.lock"
            ));
        }
        for ((at, reason), count) in std::mem::take(&mut state.failed) {
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

/// What records the requests of a guest that is prepared to be a template. `differs`: also there; `None`: no package is pinned.
pub(super) fn template_recorder(
    context: &RunContext,
    template: Digest,
    image: &str,
    differs: Option<Arc<Mutex<Differences<String>>>>,
) -> egress::Recorder {
    let (events, runner, image, told) = (context.events.clone(), context.runner, image.to_owned(), AtomicU64::new(0));
    Box::new(move |request| {
        if let Some(differs) = &differs {
            differs.lock().unwrap_or_else(PoisonError::into_inner).take(&request, Some);
        }
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
            RequestOutcome::Tunnelled if differs.is_some() => events.warn_once(format!(
                "what a guest of {image} got from {at} over https while it was prepared is not compared with repositories.lock"
            )),
            RequestOutcome::Served { .. } | RequestOutcome::Tunnelled => {}
        }
        events.send(EventKind::TemplateRequested { runner, template, request });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(is_locked: bool) -> (Record, tokio::sync::mpsc::UnboundedReceiver<reports::Event>) {
        let (events, received) = Events::channel();
        let pins = is_locked.then(|| egress::Pins {
            metadata: [("http://a/InRelease".to_owned(), Digest::of(b"pinned"))].into(),
            ..egress::Pins::default()
        });
        let record = Record::new(events, ("a.s".to_owned().try_into().unwrap(), 1), pins);
        record.enter(Phase::Install);
        (record, received)
    }

    fn asked(host: &str, outcome: RequestOutcome) -> NetworkRequest {
        let (method, host) = ("GET".to_owned(), host.to_owned());
        NetworkRequest { method, host, port: 80, path: Some("/".to_owned()), outcome, bytes: 0, elapsed_ms: 0 }
    }

    fn failed(host: &str, reason: &str) -> NetworkRequest {
        asked(host, RequestOutcome::Failed { reason: reason.to_owned() })
    }

    const DIFFERENCE: &str = "z: repositories.lock pins 1, the repository offers 2; --lock renews it";

    #[test]
    fn each_reason_of_a_failure_is_named_once_and_packages_that_are_not_pinned_come_first() {
        let (record, _events) = record(true);
        for (host, reason) in
            [("a", "timeout"), ("a", "timeout"), ("a", "reset"), ("b", "timeout"), ("b", DIFFERENCE), ("c", "reset")]
        {
            record.take(failed(host, reason));
        }
        assert!(record.differs());
        let expected = format!("b:80: {DIFFERENCE}; a:80: reset; a:80: timeout; and 2 more");
        assert_eq!(record.failures(), expected);
        record.enter(Phase::Test);
        assert_eq!((record.failures().as_str(), record.differs()), ("", false), "the next step has its own");
    }

    #[test]
    fn nothing_that_a_server_says_counts_as_a_difference_where_nothing_is_pinned() {
        let (record, _events) = record(false);
        record.take(failed("b", DIFFERENCE));
        assert!(!record.differs());
    }

    #[test]
    fn what_is_not_compared_with_the_pins_is_said_of_a_locked_guest_only() {
        let said = |is_locked| {
            let (record, mut events) = record(is_locked);
            record.take(asked("a", RequestOutcome::Tunnelled));
            record.enter(Phase::Test);
            let events = std::iter::from_fn(|| events.try_recv().ok());
            events.filter(|event| matches!(&event.kind, EventKind::Warning { message, .. } if message.contains("over https in phase install is not compared"))).count()
        };
        assert_eq!((said(true), said(false)), (1, 0));
    }

    #[test]
    fn a_package_that_is_not_the_pinned_one_is_told_after_the_installation_and_a_list_at_once() {
        let (record, mut events) = record(true);
        record.take(failed("b", DIFFERENCE));
        assert!(record.state().differences.first().is_none(), "the installation says itself what it makes of that");
        let list = |content: &[u8]| {
            let (status, source) = (200, reports::ContentSource::Server);
            let outcome = RequestOutcome::Served { status, source, digest: Some(Digest::of(content)) };
            record.take(NetworkRequest { path: Some("/InRelease".to_owned()), ..asked("a", outcome) });
            record.state().replaced.len()
        };
        assert_eq!((list(b"another"), list(b"pinned"), list(b"another")), (1, 0, 1));
        record.enter(Phase::Test);
        let package = |host: &str, path: &str, outcome| {
            record.take(NetworkRequest { path: Some(path.to_owned()), ..asked(host, outcome) });
            record.state().differences.first().cloned()
        };
        let differs = || RequestOutcome::Failed { reason: DIFFERENCE.to_owned() };
        let found = Some((Phase::Test, format!("b:80: {DIFFERENCE}")));
        assert_eq!(package("b", "/b/z_2_all.deb", differs()), found);
        assert_eq!(package("c", "/c/z_2_all.deb", differs()), found, "one of them is told");
        let (status, source, digest) = (200, reports::ContentSource::Server, Some(Digest::of(b"z")));
        let served = RequestOutcome::Served { status, source, digest };
        assert_eq!(package("d", "/d/z_2_all.deb", served), None, "another mirror had the pinned one");
        let told = std::iter::from_fn(|| events.try_recv().ok())
            .any(|event| matches!(&event.kind, EventKind::Warning { message, .. } if message.contains("http://a/InRelease in phase install is not the list")));
        assert!(told);
    }

    #[test]
    fn a_refused_request_is_the_packages_only_while_something_of_it_may_run() {
        let (events, _received) = Events::channel();
        let record = Record::new(events, ("a.s".to_owned().try_into().unwrap(), 1), None);
        let refuse = |host: &str| {
            record.take(asked(host, RequestOutcome::Refused { reason: "not allowed".to_owned() }));
            record.state().first_refused.clone()
        };
        assert_eq!(refuse("boot.example"), None);
        record.enter(Phase::Prepare);
        assert_eq!(refuse("prepare.example"), None);
        record.enter(Phase::Install);
        record.state().is_packages = false;
        assert_eq!(refuse("mirror.example"), None, "the package manager gets dependencies");
        record.enter(Phase::Install);
        let what = "the guest tried to reach telemetry.example:80: not allowed".to_owned();
        assert_eq!(refuse("telemetry.example"), Some((Phase::Install, what)));
    }
}
