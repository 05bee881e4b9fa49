//! What one guest may reach, has received and has under way; and each of its requests until that is recorded.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use matrix::Digest;
use reports::{NetworkRequest, RequestOutcome};
use tokio::sync::watch;

use crate::{fetch::Fetches, pins::Pins, policy::Policy};

/// Most bytes that one guest receives.
const BYTES: u64 = 16 << 30;

/// Told of each request when it is over.
pub type Recorder = Box<dyn Fn(NetworkRequest) + Send + Sync>;

pub(crate) struct State {
    pub(crate) fetches: Arc<Fetches>,
    /// `None`: nothing may be reached.
    pub(crate) policy: watch::Sender<Option<Arc<Policy>>>,
    /// The packages that it may get; `None`: any.
    pub(crate) pins: Option<Pins>,
    pub(crate) record: Recorder,
    /// Files that it has had.
    pub(crate) had: Mutex<HashSet<Digest>>,
    pub(crate) requests: AtomicU64,
    bytes: AtomicU64,
    /// How many requests are not over.
    pub(crate) under_way: watch::Sender<usize>,
}

/// What a request is recorded with once it is over.
pub(crate) struct Asked {
    pub(crate) state: Arc<State>,
    method: String,
    host: String,
    port: u16,
    path: Option<String>,
    began: Instant,
    recorded: bool,
}

impl Asked {
    pub(crate) fn over(mut self, outcome: RequestOutcome, bytes: u64) {
        self.record(outcome, bytes);
    }

    fn record(&mut self, outcome: RequestOutcome, bytes: u64) {
        self.recorded = true;
        let Self { state, method, host, port, path, began, .. } = self;
        let (method, host, path) = (std::mem::take(method), std::mem::take(host), path.take());
        let elapsed_ms = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        (state.record)(NetworkRequest { method, host, port: *port, path, outcome, bytes, elapsed_ms });
    }

    /// Takes these bytes from what the guest may receive.
    ///
    /// # Errors
    ///
    /// It has received so much.
    pub(crate) fn takes(&self, bytes: u64) -> Result<(), String> {
        match self.state.bytes.fetch_add(bytes, Ordering::Relaxed) {
            sum if sum + bytes <= BYTES => Ok(()),
            _ => Err(format!("the guest has received the {BYTES} bytes that one guest may")),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.recorded {
            self.record(RequestOutcome::Failed { reason: "the guest's connection ended".to_owned() }, 0);
        }
        self.state.under_way.send_modify(|count| *count -= 1);
    }
}

impl State {
    pub(crate) fn new(fetches: Arc<Fetches>, pins: Option<Pins>, record: Recorder) -> Self {
        let (had, requests, bytes) = Default::default();
        let under_way = watch::Sender::new(0);
        Self { fetches, policy: watch::Sender::new(None), pins, record, had, requests, bytes, under_way }
    }

    /// Bytes that it has received, or that were downloaded for it.
    #[cfg(test)]
    pub(crate) fn received(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn asked(self: &Arc<Self>, method: String, host: String, port: u16, path: Option<String>) -> Asked {
        self.under_way.send_modify(|count| *count += 1);
        Asked { state: Arc::clone(self), method, host, port, path, began: Instant::now(), recorded: false }
    }
}
