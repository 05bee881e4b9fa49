//! The image phase: every image is in the store before a cell of it starts.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use images::{Control, Entry, PreparedImage, Source, Start, Store};
use matrix::Firmware;
use reports::{EventKind, Phase, Trouble, TroubleKind};
use tokio_util::sync::CancellationToken;

use crate::{events::Events, host};

/// An image is not there, for this reason.
pub(super) fn missing(reason: impl Into<String>) -> Trouble {
    Trouble::new(TroubleKind::ImageMissing, Phase::Image, reason)
}

fn defect(error: &tokio::task::JoinError) -> Trouble {
    let reason = format!("preparing it failed inside nestmatrix: {error}");
    Trouble { phase: Phase::Image, ..Trouble::new(TroubleKind::Defect, Phase::Image, reason) }
}

/// Every image by its catalog name, or why it is unavailable.
pub type Prepared = HashMap<String, Result<Arc<PreparedImage>, Trouble>>;

/// How images are come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPolicy {
    /// What is in the store, else what is downloaded or built.
    Usual,
    /// Built again, whatever is in the store.
    Refresh,
    /// What is in the store, and nothing else.
    Offline,
}

/// Images that are being prepared side by side, as many at once as there are CPUs.
///
/// They are returned one by one, so that guests of one image do not wait for the others. Dropping this aborts what has not begun;
/// a preparation that has begun runs to its end.
#[derive(Debug, Default)]
pub struct Preparing {
    tasks: tokio::task::JoinSet<Result<Arc<PreparedImage>, Trouble>>,
    names: HashMap<tokio::task::Id, String>,
}

impl Preparing {
    /// Starts to prepare `entries`, each under the name its cells know it by; each is tried `retries` times more.
    pub fn start(
        store: &Arc<Store>,
        entries: &[(String, Entry)],
        retries: u32,
        way: FetchPolicy,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Self {
        let builds = std::thread::available_parallelism().map_or(1, usize::from);
        // A fair queue: they begin in the order of the entries.
        let turns = Arc::new(tokio::sync::Semaphore::new(builds));
        let mut preparing = Self::default();
        for (name, entry) in entries {
            let (store, image, entry) = (Arc::clone(store), name.clone(), entry.clone());
            let (events, cancel, turns) = (events.clone(), cancel.clone(), Arc::clone(&turns));
            let task = preparing.tasks.spawn(async move {
                let _turn = turns.acquire_owned().await;
                let cancelled = Arc::new(AtomicBool::new(cancel.is_cancelled()));
                let flag = Arc::clone(&cancelled);
                let watch = tokio::spawn(async move {
                    cancel.cancelled().await;
                    flag.store(true, Ordering::Relaxed);
                });
                let work = tokio::task::spawn_blocking(move || {
                    prepare(&store, (&image, &entry), retries, way, &events, &cancelled)
                });
                let result = work.await.unwrap_or_else(|error| Err(defect(&error)));
                watch.abort();
                result
            });
            preparing.names.insert(task.id(), name.clone());
        }
        preparing
    }

    /// The next one that is there or unavailable; `None`: all have been returned. Cancel safe.
    pub async fn next(&mut self) -> Option<(String, Result<Arc<PreparedImage>, Trouble>)> {
        let (task, result) = match self.tasks.join_next_with_id().await? {
            Ok(done) => done,
            Err(error) => (error.id(), Err(defect(&error))),
        };
        // Each task was given its name before anybody could wait for it.
        Some((self.names.remove(&task)?, result))
    }

    /// None is to come.
    pub fn is_over(&self) -> bool {
        self.tasks.is_empty()
    }

    /// All that are still to come.
    pub async fn all(mut self) -> Prepared {
        let mut prepared = Prepared::new();
        while let Some((name, result)) = self.next().await {
            prepared.insert(name, result);
        }
        prepared
    }
}

/// A build that failed may have met a mirror in a bad moment; what is missing or full stays so.
fn may_pass(entry: &Entry, error: &images::PrepareError) -> bool {
    matches!((&entry.source, &error.kind), (Source::Bootstrap(_), images::PrepareErrorKind::ToolFailed { .. }))
}

/// Whether this machine has what guests of the image are started with; the error says what is missing, and the remedy.
fn can_be_started(image: &PreparedImage) -> Result<(), String> {
    match &image.start {
        Start::Firmware(firmware @ (Firmware::Uefi | Firmware::UefiSecure)) => {
            let uefi = host::uefi(image.arch, *firmware == Firmware::UefiSecure);
            uefi.map(drop).map_err(|error| error.to_string())
        }
        Start::Firmware(Firmware::Bios) | Start::Kernel(_) => Ok(()),
    }
}

fn prepare(
    store: &Store,
    (name, entry): (&str, &Entry),
    retries: u32,
    way: FetchPolicy,
    events: &Events,
    cancel: &AtomicBool,
) -> Result<Arc<PreparedImage>, Trouble> {
    let image = || name.to_owned();
    let started = Instant::now();
    events.send(EventKind::ImageStarted { image: image() });
    let progress =
        |message: &str| events.send(EventKind::ImageProgress { image: image(), message: message.to_owned() });
    let mut tried = 0;
    loop {
        let control = Control { refresh: way == FetchPolicy::Refresh, cancel, progress: &progress };
        let prepared = match way {
            FetchPolicy::Offline => store.prepare_offline(entry, &control),
            FetchPolicy::Usual | FetchPolicy::Refresh => store.prepare(entry, &control),
        };
        let error = match prepared {
            Ok(prepared) => {
                if let Err(reason) = can_be_started(&prepared) {
                    let trouble = missing(reason);
                    events.send(EventKind::ImageFailed { image: image(), trouble: trouble.clone() });
                    return Err(trouble);
                }
                events.send(EventKind::ImageReady {
                    image: image(),
                    digest: prepared.digest,
                    cached: prepared.cached,
                    elapsed_ms: started.elapsed().as_millis() as u64,
                });
                return Ok(Arc::new(prepared));
            }
            Err(error) => error,
        };
        tried += 1;
        if tried <= retries && may_pass(entry, &error) && !cancel.load(Ordering::Relaxed) {
            progress(&format!("try {tried} failed: {error}; trying again"));
            continue;
        }
        let trouble = Trouble { help: error.help.clone(), ..missing(error.to_string()) };
        let trouble = trouble.with_evidence(error.tail.clone());
        events.send(EventKind::ImageFailed { image: image(), trouble: trouble.clone() });
        return Err(trouble);
    }
}
