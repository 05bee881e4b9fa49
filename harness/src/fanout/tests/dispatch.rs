//! Who starts when, who is tried again and what is said of those that never start: with a crew that has no machine, in milliseconds.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use matrix::{ByteSize, Cell, Digest, Plan};
use reports::{Ending, Event, EventKind, Phase, Trouble, TroubleKind};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::fanout::{
    attempt::AttemptOutcome,
    budget::Budget,
    context::Keep,
    crew::{Crew, Forkable, Origin, Try},
    dispatch::{Incoming, QueuedCell, Stop, Wanted, at_once, run},
};

/// What an attempt does.
#[derive(Clone)]
enum Does {
    Ends(Ending),
    /// Its guest is left running.
    IsKept,
    /// It waits until everything is to end.
    WaitsForKill,
    /// Its fork fails, so a guest is booted; then it passes.
    Boots,
    Panics,
}

type Script = Box<dyn Fn(&Cell, u32) -> Does + Send + Sync>;

struct FakeCrew {
    events: Events,
    script: Script,
    keep: Keep,
    /// Room for disks that is said to be left; `None`: there is enough.
    short: Arc<Mutex<Option<ByteSize>>>,
    /// The templates that cells want, by suite.
    wanted: HashMap<String, Digest>,
    /// What is known of templates: `true`, they can be forked.
    known: Mutex<HashMap<Digest, bool>>,
    /// What making a template comes to; `None`: it panics.
    makes: Option<bool>,
    obtained: AtomicUsize,
    /// Attempts that run, and the most that ran at once.
    running: AtomicUsize,
    most: AtomicUsize,
    /// Guests that are booted where forks were to run.
    booted: AtomicUsize,
}

struct FakeTemplate;

impl Forkable for FakeTemplate {
    fn cost(&self) -> ByteSize {
        ByteSize::from_mib(64)
    }

    fn took(&self, _bytes: u64) {}
}

impl Crew for FakeCrew {
    fn runner(&self) -> u32 {
        1
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn keep(&self) -> Keep {
        self.keep
    }

    fn folder(&self) -> &Path {
        Path::new("/scratch")
    }

    async fn shortage(&self) -> Option<ByteSize> {
        *self.short.lock().unwrap()
    }

    fn give_up_disk(&self) {}

    fn prepares(&self, _cell: &Cell) -> bool {
        false
    }

    fn template_key(&self, cell: &Cell) -> Option<Digest> {
        self.wanted.get(&cell.suite).copied()
    }

    fn origin(&self, _cell: &Cell, key: Digest) -> Origin {
        match self.known.lock().unwrap().get(&key) {
            None => Origin::Unknown,
            Some(true) => Origin::Fork(Arc::new(FakeTemplate)),
            Some(false) => Origin::Boot,
        }
    }

    async fn obtain(&self, key: Digest, _cell: &Cell, _cancel: &CancellationToken) {
        self.obtained.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let makes = self.makes.expect("boom");
        self.known.lock().unwrap().insert(key, makes);
    }

    fn learn(&self, key: Digest, _trouble: Trouble) {
        self.known.lock().unwrap().insert(key, false);
    }

    async fn attempt(&self, Try { cell, number, admission, kill, .. }: Try<'_>) -> AttemptOutcome {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(running, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let does = (self.script)(cell, number);
        let kept = matches!(does, Does::IsKept);
        let ending = match does {
            Does::Ends(ending) => ending,
            Does::IsKept => Ending::Passed,
            Does::WaitsForKill => {
                kill.cancelled().await;
                troubled(TroubleKind::Interrupted, Phase::Test)
            }
            Does::Boots => {
                assert!(admission.for_boot().await);
                let booted = self.booted.fetch_add(1, Ordering::Relaxed) + 1;
                assert_eq!(booted, 1, "guests that are booted while there is room for one");
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                self.booted.fetch_sub(1, Ordering::Relaxed);
                Ending::Passed
            }
            Does::Panics => panic!("boom"),
        };
        self.running.fetch_sub(1, Ordering::Relaxed);
        AttemptOutcome { ending, kept }
    }
}

fn troubled(kind: TroubleKind, phase: Phase) -> Ending {
    Ending::Troubled(Trouble::new(kind, phase, "why"))
}

/// Cells `s0`, `s1` ... of 512 MiB each, on a machine with so much memory for guests.
struct Stage {
    plan: Plan,
    crew: FakeCrew,
    received: UnboundedReceiver<Event>,
    stop: Stop,
    jobs: usize,
    memory: ByteSize,
    retries: u32,
    /// Cells as they come in; `None`: all are there.
    arriving: Option<Incoming>,
}

impl Stage {
    fn new(cells: usize, script: impl Fn(&Cell, u32) -> Does + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let suites: String =
            (0..cells).map(|number| format!("[[suite]]\nname = 's{number}'\ninline = 'true'\n")).collect();
        std::fs::write(&file, format!("images = ['a']\n[guest]\nmemory = '512MiB'\n{suites}")).unwrap();
        let (events, received) = Events::channel();
        let crew = FakeCrew {
            events,
            script: Box::new(script),
            keep: Keep::Never,
            short: Arc::default(),
            wanted: HashMap::new(),
            known: Mutex::default(),
            makes: Some(true),
            obtained: AtomicUsize::default(),
            running: AtomicUsize::default(),
            most: AtomicUsize::default(),
            booted: AtomicUsize::default(),
        };
        let plan = matrix::load(&file, &["a"]).unwrap().plan;
        let (jobs, memory) = (usize::MAX, ByteSize::from_mib(16 << 10));
        Self { plan, crew, received, stop: Stop::default(), jobs, memory, retries: 2, arriving: None }
    }

    /// They are forked from one template, which nobody has made yet.
    fn forked(mut self) -> Self {
        let key = Digest::of(b"template");
        self.crew.wanted = self.plan.cells.iter().map(|cell| (cell.suite.clone(), key)).collect();
        self
    }

    async fn play(mut self) -> Played {
        let todo =
            self.plan.cells.iter().map(|cell| QueuedCell { cell: cell.clone(), next: 1, last: 1 + self.retries });
        let arriving = self.arriving.take().unwrap_or_else(|| at_once(todo.collect()));
        let budget = Budget::new(self.memory, 64, self.jobs);
        let mut templates = Wanted::default();
        templates.add(&self.crew, &self.plan.cells);
        let crew = Arc::new(self.crew);
        run(&crew, arriving, templates, budget, &self.stop).await;
        let crew = Arc::into_inner(crew).expect("nobody works any more");
        let (obtained, most) = (crew.obtained.into_inner(), crew.most.into_inner());
        drop(crew.events);
        let mut events = Vec::new();
        while let Some(event) = self.received.recv().await {
            events.push(event.kind);
        }
        Played { suites: self.plan.cells.iter().map(|cell| cell.suite.clone()).collect(), events, obtained, most }
    }
}

struct Played {
    suites: Vec<String>,
    events: Vec<EventKind>,
    obtained: usize,
    most: usize,
}

impl Played {
    /// `s0 error(boot)*, error(boot)*, passed` ...: each attempt, with a star where it is tried again, and the cell's verdict.
    fn told(&self) -> String {
        let of = |suite: &String| {
            let id = format!("a.{suite}");
            let told = self.events.iter().filter_map(|event| match event {
                EventKind::AttemptFinished { cell, ending, retried, .. } if cell.as_str() == id => {
                    let verdict = ending.verdict();
                    let phase = verdict.phase().map(|phase| format!("({phase})")).unwrap_or_default();
                    Some(format!("{}{phase}{}", verdict.name(), if *retried { "*" } else { "" }))
                }
                EventKind::CellFinished { cell, verdict } if cell.as_str() == id => {
                    let reason = verdict.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
                    Some(format!("= {}{reason}", verdict.name()))
                }
                _ => None,
            });
            format!("{suite} {}", told.collect::<Vec<_>>().join(" "))
        };
        self.suites.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test(start_paused = true)]
async fn every_cell_has_one_attempt_where_that_comes_to_a_verdict() {
    let played = Stage::new(3, |cell, _| {
        Does::Ends(match &*cell.suite {
            "s0" => Ending::Passed,
            "s1" => Ending::Skipped { reason: "no printer".into() },
            _ => troubled(TroubleKind::TestFailed, Phase::Test),
        })
    })
    .play()
    .await;
    assert_eq!(played.told(), "s0 passed = passed\ns1 skipped = skipped: no printer\ns2 failed(test) = failed: why");
}

/// Every kind of trouble that an attempt may come to.
const KINDS: [TroubleKind; 33] = [
    TroubleKind::GuestPanicked,
    TroubleKind::GuestPoweredOff,
    TroubleKind::GuestRebooted,
    TroubleKind::GuestHalted,
    TroubleKind::GuestUnreachable,
    TroubleKind::RebootLoop,
    TroubleKind::Timeout,
    TroubleKind::Unexpected,
    TroubleKind::ImageMissing,
    TroubleKind::ImageUnusable,
    TroubleKind::NotInstalled,
    TroubleKind::InstallUnknown,
    TroubleKind::RepositoryFailed,
    TroubleKind::PackageManagerLocked,
    TroubleKind::SuiteNotStarted,
    TroubleKind::TestFailed,
    TroubleKind::UnexpectedRequest,
    TroubleKind::ResultsMissing,
    TroubleKind::ResultsUnreadable,
    TroubleKind::Host,
    TroubleKind::QemuGone,
    TroubleKind::QemuSilent,
    TroubleKind::HostDiskFull,
    TroubleKind::HostDiskBroken,
    TroubleKind::ConnectionBroken,
    TroubleKind::MemoryReclaimed,
    TroubleKind::NoMemory,
    TroubleKind::RunnerLost,
    TroubleKind::NoTemplate,
    TroubleKind::TemplateBroken,
    TroubleKind::ForkFailed,
    TroubleKind::Defect,
    TroubleKind::Interrupted,
];

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_as_often_as_it_may_be_and_nothing_else_is() {
    for (kind, phase) in KINDS.into_iter().flat_map(|kind| Phase::ALL.map(|phase| (kind, phase))) {
        let attempts = Arc::new(AtomicUsize::default());
        let counted = Arc::clone(&attempts);
        let played = Stage::new(1, move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Does::Ends(troubled(kind, phase))
        })
        .play()
        .await;
        let expected = if Trouble::new(kind, phase, "why").may_pass() { 3 } else { 1 };
        assert_eq!(attempts.load(Ordering::Relaxed), expected, "{kind:?} in {phase}: {}", played.told());
        let green = played.told().contains("= passed") || played.told().contains("= skipped");
        assert!(!green, "{kind:?} in {phase}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_attempt_that_comes_to_a_verdict_decides() {
    let played = Stage::new(1, |_, number| {
        Does::Ends(if number == 1 { troubled(TroubleKind::QemuGone, Phase::Test) } else { Ending::Passed })
    })
    .play()
    .await;
    assert_eq!(played.told(), "s0 error(test)* passed = passed");
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_comes_to_nothing_costs_no_attempt() {
    let played = Stage { retries: 0, ..Stage::new(1, |_, _| Does::Ends(troubled(TroubleKind::Timeout, Phase::Boot))) }
        .forked()
        .play()
        .await;
    assert_eq!(played.told(), "s0 error(boot)* error(boot) = error: why");
}

#[tokio::test(start_paused = true)]
async fn a_template_is_made_once_for_all_of_its_cells_which_wait_for_it() {
    let played = Stage::new(5, |_, _| Does::Ends(Ending::Passed)).forked().play().await;
    assert_eq!((played.obtained, played.told().matches("= passed").count()), (1, 5));
    let mut stage = Stage::new(2, |_, _| Does::Ends(Ending::Passed)).forked();
    stage.crew.makes = Some(false);
    assert_eq!(stage.play().await.told().matches("= passed").count(), 2, "without one they are booted");
}

#[tokio::test(start_paused = true)]
async fn a_template_whose_making_panics_is_said_to_have_failed_and_its_cells_are_booted() {
    let mut stage = Stage::new(2, |_, _| Does::Ends(Ending::Passed)).forked();
    stage.crew.makes = None;
    let played = stage.play().await;
    assert_eq!(played.told(), "s0 passed = passed\ns1 passed = passed");
    let failed = played.events.iter().find_map(|event| match event {
        EventKind::TemplateFailed { trouble, bootable: true, .. } => Some(trouble),
        _ => None,
    });
    let trouble = failed.unwrap();
    assert!(trouble.kind == TroubleKind::Defect && trouble.reason.contains("boom"), "{trouble:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cell_whose_task_panics_is_an_error_with_its_words_and_the_others_go_on() {
    let played = Stage::new(2, |cell, _| if cell.suite == "s0" { Does::Panics } else { Does::Ends(Ending::Passed) })
        .play()
        .await;
    assert_eq!(played.told(), "s0 error(runner) = error: nestmatrix panicked: boom\ns1 passed = passed");
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_may() {
    for jobs in [1, 3] {
        let played = Stage { jobs, ..Stage::new(8, |_, _| Does::Ends(Ending::Passed)) }.play().await;
        assert_eq!((played.most, played.told().matches("= passed").count()), (jobs, 8));
    }
    // 512 MiB and QEMU's own 128.
    let memory = ByteSize::from_mib(640 * 2 + 100);
    let played = Stage { memory, ..Stage::new(8, |_, _| Does::Ends(Ending::Passed)) }.play().await;
    assert_eq!((played.most, played.told().matches("= passed").count()), (2, 8));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_fits_is_not_run_and_why_is_said() {
    let memory = ByteSize::from_mib(600);
    let played = Stage { memory, ..Stage::new(1, |_, _| Does::Ends(Ending::Passed)) }.play().await;
    assert!(played.told().contains("s0 = not-run: it needs more memory than guests may take"), "{}", played.told());
    let memory = ByteSize::from_mib(700);
    let mut stage = Stage { memory, ..Stage::new(2, |_, _| Does::IsKept) };
    stage.crew.keep = Keep::Always;
    let told = stage.play().await.told();
    assert!(told.starts_with("s0 passed = passed\ns1 = not-run: guests that were kept take the memory"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_has_to_be_booted_waits_until_a_whole_guest_fits() {
    // Forks of 64 MiB: all run at once, and then a guest of 640 MiB fits only when the others are gone.
    let memory = ByteSize::from_mib(64 + 640 + 100);
    let played = Stage { memory, ..Stage::new(4, |_, _| Does::Boots) }.forked().play().await;
    assert_eq!(played.told().matches("= passed").count(), 4, "{}", played.told());
}

#[tokio::test(start_paused = true)]
async fn after_a_drain_what_runs_comes_to_its_end_and_nothing_starts_or_is_tried_again() {
    let stop = Stop::default();
    let drain = stop.drain.clone();
    let stage = Stage::new(3, move |_, _| {
        drain.cancel();
        Does::Ends(troubled(TroubleKind::QemuGone, Phase::Boot))
    });
    let told = Stage { stop, jobs: 1, ..stage }.play().await.told();
    let not_run = "= not-run: interrupted before it started";
    assert_eq!(told, format!("s0 error(boot) = error: why\ns1 {not_run}\ns2 {not_run}"));
}

#[tokio::test(start_paused = true)]
async fn a_kill_ends_what_runs() {
    let stop = Stop::default();
    let kill = stop.kill.clone();
    let stage = Stage::new(3, move |_, _| {
        kill.cancel();
        Does::WaitsForKill
    });
    let told = Stage { stop, jobs: 2, ..stage }.play().await.told();
    let not_run = "= not-run: interrupted before it started";
    assert_eq!(told, format!("s0 not-run = not-run: why\ns1 not-run = not-run: why\ns2 {not_run}"));
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_no_cell_starts_and_each_says_how_much_room_there_is() {
    let stage = Stage::new(2, |_, _| Does::Ends(Ending::Passed));
    *stage.crew.short.lock().unwrap() = Some(ByteSize::from_mib(3));
    let told = stage.play().await.told();
    let full =
        "error(runner) = error: the host's disk is full: 3 MiB are free below /scratch, a guest needs 24 MiB at least";
    assert_eq!(told, format!("s0 {full}\ns1 {full}"));
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_not_tried_again_on_a_disk_that_is_full_by_then() {
    let short = Arc::new(Mutex::new(None));
    let fills = Arc::clone(&short);
    let mut stage = Stage::new(1, move |_, _| {
        *fills.lock().unwrap() = Some(ByteSize::from_mib(3));
        Does::Ends(troubled(TroubleKind::HostDiskFull, Phase::Test))
    });
    stage.crew.short = short;
    assert_eq!(stage.play().await.told(), "s0 error(test) = error: why");
}

#[tokio::test(start_paused = true)]
async fn cells_that_come_in_later_are_run_and_the_last_one_is_waited_for() {
    let (arrive, arriving) = unbounded_channel();
    let later = Arc::new(Mutex::new(None));
    let arrives = Arc::clone(&later);
    let stage = Stage::new(2, move |cell, _| {
        // The second comes in while the first one runs, and there will be no more.
        if cell.suite == "s0" {
            let (arrive, todo): (UnboundedSender<Vec<QueuedCell>>, QueuedCell) =
                arrives.lock().unwrap().take().unwrap();
            arrive.send(vec![todo]).unwrap();
        }
        Does::Ends(Ending::Passed)
    });
    let todo = |cell: usize| QueuedCell { cell: stage.plan.cells[cell].clone(), next: 1, last: 1 };
    arrive.send(vec![todo(0)]).unwrap();
    *later.lock().unwrap() = Some((arrive, todo(1)));
    let played = Stage { arriving: Some(arriving), ..stage }.play().await;
    assert_eq!(played.told(), "s0 passed = passed\ns1 passed = passed");
}
