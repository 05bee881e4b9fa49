//! A place without a machine: what its agents say is written in a test.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use matrix::{CellId, Plan};
use reports::{Ending, Event, EventKind, Phase, Trouble, TroubleKind};
use tokio::sync::{mpsc::UnboundedReceiver, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{
        Broken, Link, Orders, Say,
        protocol::{CellWork, FromAgent, GuestProof, Ready, ToAgent},
    },
    events::Events,
    fanout::{BootImage, Stop},
    guest::Accelerator,
    runner::{
        Ledger,
        place::{About, Engine, Feed, Opened, Opening, Place},
        pool::RunnerPool,
        proof::Proofs,
    },
};

/// A plan of so many cells of one image, `s0`, `s1` ...
pub(super) fn plan(cells: usize, retries: u32) -> Plan {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let suites: String = (0..cells).map(|number| format!("[[suite]]\nname = 's{number}'\ninline = 'true'\n")).collect();
    std::fs::write(&file, format!("images = ['a']\nrunner = {{ retries = {retries} }}\n{suites}")).unwrap();
    matrix::load(&file, &["a"]).unwrap().plan
}

/// What an agent does, until it returns.
pub(super) type Script = Box<dyn FnOnce(FakeAgent) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What comes of opening a machine.
pub(super) enum Next {
    /// It opens; its agent does this.
    Opens(Script),
    /// It does not.
    Fails(Trouble),
    /// It is stopped meanwhile.
    Interrupted(CancellationToken),
}

/// An agent that does this.
pub(super) fn opens<A>(script: impl FnOnce(FakeAgent) -> A + Send + 'static) -> Next
where
    A: Future<Output = ()> + Send + 'static,
{
    Next::Opens(Box::new(|agent| Box::pin(script(agent))))
}

/// The agent's end of the line, and its machine.
pub(super) struct FakeAgent {
    pub(super) orders: Orders,
    pub(super) say: Say,
    /// Ends the machine.
    pub(super) machine: watch::Sender<Option<Trouble>>,
}

impl FakeAgent {
    pub(super) async fn ready(&self) {
        self.message(FromAgent::Ready(ready(1.0))).await;
    }

    pub(super) async fn message(&self, message: FromAgent) {
        self.say.message(message).await;
    }

    pub(super) async fn event(&self, event: EventKind) {
        self.message(FromAgent::Event { event }).await;
    }

    /// The next cells it is given; none: there will be no more.
    pub(super) async fn cells(&mut self) -> Vec<CellWork> {
        loop {
            match self.orders.next().await {
                Some(ToAgent::Cells { cells }) => return cells,
                Some(ToAgent::Complete) | None => return Vec::new(),
                Some(_) => {}
            }
        }
    }

    pub(super) async fn start(&self, work: &CellWork) {
        self.event(EventKind::AttemptStarted { cell: work.id.clone(), attempt: work.next }).await;
    }

    /// A whole attempt, and the cell's verdict if it is not tried again.
    pub(super) async fn attempt(&self, work: &CellWork, ending: Ending, retried: bool) {
        self.start(work).await;
        let (cell, attempt, verdict) = (work.id.clone(), work.next, ending.verdict());
        self.event(EventKind::AttemptFinished { cell: cell.clone(), attempt, ending, retried }).await;
        if !retried {
            self.event(EventKind::CellFinished { cell, verdict }).await;
        }
    }

    /// Skips every cell it is given, and is done.
    pub(super) async fn does_its_work(mut self) {
        self.ready().await;
        loop {
            let cells = self.cells().await;
            if cells.is_empty() {
                break;
            }
            for work in cells {
                self.attempt(&work, skipped(), false).await;
            }
        }
        self.message(FromAgent::Done).await;
        // Its process ends with the line.
        std::future::pending::<()>().await;
    }

    /// Its machine goes down.
    pub(super) async fn dies(self, trouble: Trouble) {
        self.machine.send_replace(Some(trouble));
        std::future::pending::<()>().await;
    }
}

pub(super) fn ready(speed: f64) -> Ready {
    Ready {
        accelerator: Accelerator::Kvm,
        proof: GuestProof { reason: "a guest ran".into(), speed },
        qemu: "10.0".into(),
        kernel: "6.1".into(),
        memory: 1 << 30,
        cpus: 1,
        steps: Vec::new(),
    }
}

pub(super) fn skipped() -> Ending {
    Ending::Skipped { reason: "no printer".into() }
}

pub(super) fn trouble(kind: TroubleKind) -> Trouble {
    Trouble::new(kind, Phase::Runner, "why")
}

pub(super) fn about(proofs: Option<&Proofs>) -> About<'_> {
    About {
        kind: "fake",
        reason: "a test asked for it",
        depth: 1,
        needs_all_images: false,
        is_one_machine: false,
        proofs,
    }
}

/// Opens one machine after another as the test says.
pub(super) struct FakePlace {
    pub(super) next: Mutex<VecDeque<Next>>,
    pub(super) proofs: Option<Proofs>,
    /// Its agents are part of this process.
    pub(super) is_ours: bool,
    /// Numbers of the machines that were opened, and of those that were closed.
    pub(super) opened: Arc<Mutex<Vec<u32>>>,
    pub(super) closed: Arc<Mutex<Vec<u32>>>,
    /// Images arrive on a machine once this is true.
    pub(super) way: watch::Receiver<bool>,
}

pub(super) struct FakeEngine {
    number: u32,
    machine: watch::Receiver<Option<Trouble>>,
    closed: Arc<Mutex<Vec<u32>>>,
    way: watch::Receiver<bool>,
}

impl FakePlace {
    pub(super) fn new(next: impl IntoIterator<Item = Next>) -> Self {
        let next = Mutex::new(next.into_iter().collect());
        let way = watch::channel(true).1;
        Self { next, proofs: None, is_ours: false, opened: Arc::default(), closed: Arc::default(), way }
    }

    pub(super) fn take(&self, number: u32) -> Result<Opened<FakeEngine>, Trouble> {
        self.opened.lock().unwrap().push(number);
        match self.next.lock().unwrap().pop_front().expect("one more machine") {
            Next::Fails(trouble) => Err(trouble),
            Next::Interrupted(stop) => {
                stop.cancel();
                Err(trouble(TroubleKind::Interrupted))
            }
            Next::Opens(script) => {
                let (ended, machine) = watch::channel(None);
                let agent = |orders, say| script(FakeAgent { orders, say, machine: ended });
                let link = if self.is_ours { Link::local(agent) } else { Link::fake(agent) };
                let engine = FakeEngine { number, machine, closed: Arc::clone(&self.closed), way: self.way.clone() };
                Ok(Opened { engine, link, l1: None, steps: Vec::new(), give_up: None })
            }
        }
    }
}

impl Place for FakePlace {
    type Engine = FakeEngine;

    fn about(&self) -> About<'_> {
        about(self.proofs.as_ref())
    }

    async fn open(&self, opening: Opening<'_>) -> Result<Opened<FakeEngine>, Trouble> {
        self.take(opening.number)
    }
}

impl Engine for FakeEngine {
    async fn ended(&self) -> Trouble {
        let mut machine = self.machine.clone();
        let ended = machine.wait_for(Option::is_some).await.ok().and_then(|trouble| trouble.clone());
        match ended {
            Some(trouble) => trouble,
            None => std::future::pending().await,
        }
    }

    async fn explained(&self, broken: &Broken) -> Trouble {
        Trouble::new(TroubleKind::RunnerLost, Phase::Runner, broken.to_string())
    }

    fn evidence(&self) -> Vec<String> {
        vec!["last words".into()]
    }

    async fn bring(
        &self,
        _name: &str,
        _image: &BootImage,
        _progress: &(dyn Fn(String) + Sync),
    ) -> Result<Option<ToAgent>, Trouble> {
        let mut way = self.way.clone();
        let _ = way.wait_for(|is_free| *is_free).await;
        Ok(Some(ToAgent::Heartbeat))
    }

    async fn close(self) -> Option<String> {
        self.closed.lock().unwrap().push(self.number);
        None
    }
}

/// Images that come in when the test says so.
pub(super) struct FakeFeed {
    /// How many more times something comes in.
    pub(super) later: watch::Receiver<bool>,
    is_in: bool,
    /// An image that has to be brought.
    image: Option<(String, BootImage)>,
}

impl FakeFeed {
    /// All are in.
    pub(super) fn all() -> Self {
        Self { later: watch::channel(true).1, is_in: true, image: None }
    }

    /// This one is in, and cells wait until it was brought.
    pub(super) fn of(name: &str, image: BootImage) -> Self {
        Self { image: Some((name.to_owned(), image)), ..Self::all() }
    }

    /// They are in once the test says so.
    pub(super) fn later() -> (watch::Sender<bool>, Self) {
        let (arrive, later) = watch::channel(false);
        (arrive, Self { later, is_in: false, image: None })
    }
}

impl Feed for FakeFeed {
    fn images(&self) -> Vec<(String, BootImage)> {
        self.image.clone().into_iter().collect()
    }

    fn is_in(&self, _cell: &matrix::Cell, brought: &HashSet<String>) -> bool {
        self.is_in && self.image.as_ref().is_none_or(|(name, _)| brought.contains(name))
    }

    fn settle(&self, _ledger: &mut Ledger) {}

    async fn next(&mut self) -> bool {
        if self.is_in {
            return false;
        }
        let _ = self.later.wait_for(|is_in| *is_in).await;
        self.is_in = true;
        true
    }
}

/// A run of a plan on fake machines.
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) stop: Stop,
    /// The run's folder; it goes with the last that holds it.
    pub(super) folder: Arc<tempfile::TempDir>,
    events: Events,
    received: UnboundedReceiver<Event>,
}

/// What came of it.
pub(super) struct Played {
    /// Number of the next machine, if one of another kind may do.
    pub(super) next: Option<u32>,
    pub(super) run: reports::Run,
    pub(super) events: Vec<EventKind>,
}

impl Stage {
    pub(super) fn new(cells: usize, retries: u32) -> Self {
        let (events, received) = Events::channel();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self { plan: plan(cells, retries), stop: Stop::default(), folder, events, received }
    }

    pub(super) async fn play<P: Place>(self, place: P) -> Played {
        self.play_with(place, true, FakeFeed::all()).await
    }

    pub(super) async fn play_with<P: Place>(mut self, place: P, last_resort: bool, mut feed: FakeFeed) -> Played {
        let mut ledger = Ledger::new(&self.plan);
        let pool = RunnerPool {
            place,
            events: &self.events,
            stop: &self.stop,
            scratch: &self.folder.path().join("scratch"),
            run: self.folder.path(),
            retries: self.plan.runner.retries,
            longest_silence: Duration::from_secs(1000),
        };
        let (run, plan) = ("r".to_owned(), self.plan.digest);
        self.events.send(EventKind::RunStarted { run, plan, version: "0".into(), locked: None });
        let next = pool.run(1, last_resort, &mut ledger, &mut feed).await;
        self.events.send(EventKind::RunFinished { elapsed_ms: 0 });
        drop(pool);
        drop(self.events);
        let mut events = Vec::new();
        while let Some(event) = self.received.recv().await {
            events.push(event);
        }
        let run = reports::Run::fold(&self.plan, &events);
        Played { next, run, events: events.into_iter().map(|event| event.kind).collect() }
    }
}

impl Played {
    /// `s0 passed, s1 error(runner): why` ...
    pub(super) fn verdicts(&self) -> String {
        let told = self.run.cells.iter().map(|cell| {
            let verdict = &cell.verdict;
            let phase = verdict.phase().map(|phase| format!("({phase})")).unwrap_or_default();
            let reason = verdict.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{} {}{phase}{reason}", cell.suite, verdict.name())
        });
        told.collect::<Vec<_>>().join("\n")
    }

    /// How many attempts each cell had.
    pub(super) fn attempts(&self) -> Vec<usize> {
        self.run.cells.iter().map(|cell| cell.attempts.len()).collect()
    }

    /// Why machines were lost.
    pub(super) fn losses(&self) -> Vec<&Trouble> {
        let lost = self.events.iter().filter_map(|event| match event {
            EventKind::RunnerLost { trouble, .. } => Some(trouble),
            _ => None,
        });
        lost.collect()
    }

    /// Warnings about the run.
    pub(super) fn warnings(&self) -> Vec<&str> {
        let warned = self.events.iter().filter_map(|event| match event {
            EventKind::Warning { message, .. } => Some(&**message),
            _ => None,
        });
        warned.collect()
    }
}

/// A store for proofs.
pub(super) fn proofs(store: &Path) -> Proofs {
    Proofs::new(store, "a machine".into())
}

/// An id of no cell of any plan.
pub(super) fn stranger() -> CellId {
    serde_json::from_str("\"other.cell\"").unwrap()
}
