//! Folds the requests of guests: their text is cleaned and cut, their number is bounded.

use super::MAX_ELAPSED_MS;
use crate::{NetworkRequest, NetworkRun, Phase, RequestOutcome, RequestRun, clean, network::MAX_REQUESTS};

/// Maximum length of a method, a host, a path and a reason, in bytes. A host name has at most 253.
const MAX_METHOD: usize = 16;
const MAX_HOST: usize = 253;
const MAX_PATH: usize = 1_000;
const MAX_REASON: usize = 300;
/// Maximum size of one answer: a PiB. Keeps hostile numbers out of the sums.
const MAX_BYTES: u64 = 1 << 50;

impl NetworkRun {
    /// Adds a request.
    pub(super) fn record(&mut self, phase: Phase, request: &NetworkRequest) {
        if self.requests.len() < MAX_REQUESTS {
            self.requests.push(RequestRun { phase, request: cleaned(request) });
        } else {
            self.count(phase, 1);
        }
    }

    /// Adds requests of which only the number is known.
    pub(super) fn count(&mut self, phase: Phase, requests: u64) {
        let counted = self.only_counted.entry(phase).or_default();
        *counted = counted.saturating_add(requests);
    }
}

fn cleaned(request: &NetworkRequest) -> NetworkRequest {
    NetworkRequest {
        method: short(&request.method, MAX_METHOD),
        host: short(&request.host, MAX_HOST),
        port: request.port,
        path: request.path.as_deref().map(|path| short(path, MAX_PATH)),
        outcome: match &request.outcome {
            RequestOutcome::Refused { reason } => RequestOutcome::Refused { reason: short(reason, MAX_REASON) },
            RequestOutcome::Failed { reason } => RequestOutcome::Failed { reason: short(reason, MAX_REASON) },
            outcome @ (RequestOutcome::Served { .. } | RequestOutcome::Tunnelled) => outcome.clone(),
        },
        bytes: request.bytes.min(MAX_BYTES),
        elapsed_ms: request.elapsed_ms.min(MAX_ELAPSED_MS),
    }
}

/// One clean line of at most `max` bytes, and a mark where it was cut.
fn short(raw: &str, max: usize) -> String {
    let line = clean::line(raw);
    match clean::prefix(&line, max) {
        whole if whole.len() == line.len() => line,
        start => format!("{start}…"),
    }
}
