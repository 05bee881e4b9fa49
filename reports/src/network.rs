//! What a guest asked the proxy of its runner for: the record that the report shows and the cell is judged by.

mod summary;
mod total;

use std::collections::BTreeMap;

use matrix::Digest;
use serde::{Deserialize, Serialize, Serializer};

use crate::Phase;

pub(crate) use summary::address;
pub use summary::{NetworkSummary, RefusedHost, Traffic};
pub(crate) use total::{NetworkTotal, sized};

/// Maximum number of requests that are kept of one attempt or template.
pub(crate) const MAX_REQUESTS: usize = 2_000;

/// One request of a guest, allowed or not. Text in it comes from the guest or a server and is untrusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRequest {
    /// `GET`, `HEAD` or `CONNECT`; what else was asked for, if it was refused.
    pub method: String,
    /// The host, as the guest named it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query; `None` for https, of which only the host is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: RequestOutcome,
    /// Bytes of content that the guest received; for https the bytes of the connection, both ways.
    pub bytes: u64,
    /// From the request to its end, in milliseconds.
    pub elapsed_ms: u64,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum RequestOutcome {
    /// It was answered with what the server or the cache has.
    Served {
        /// The HTTP status.
        status: u16,
        /// Where the content came from.
        source: ContentSource,
        /// Digest of the content, if the guest has all of it: it was sent, or the guest had it already (status 304).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
    },
    /// A connection to an https server: its content is not seen, and not cached.
    Tunnelled,
    /// The policy does not allow it.
    Refused {
        /// Why not, in one line.
        reason: String,
    },
    /// It was allowed, and failed: at the server, on the way there, or at a limit.
    Failed {
        /// Why, in one line.
        reason: String,
    },
}

/// Where content came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentSource {
    /// The cache; the server was not asked.
    Cache,
    /// The cache; the server was asked, and has nothing newer.
    Revalidated,
    /// The server.
    Server,
    /// A service that has the server's repository as it was when it was pinned.
    Snapshot,
}

/// What one guest asked for: the requests of an attempt, or of what is frozen as a template.
///
/// In `run.json` it is one [`NetworkSummary`] for each phase: the requests themselves are in `events.jsonl`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkRun {
    /// The requests in the order they ended, at most 2,000.
    pub requests: Vec<RequestRun>,
    /// The number of all other requests, by phase.
    pub only_counted: BTreeMap<Phase, u64>,
}

/// One request, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRun {
    /// The phase it began in.
    pub phase: Phase,
    /// The request. Its text is cleaned and shortened.
    pub request: NetworkRequest,
}

impl NetworkRun {
    /// One for each phase with a request, in the order of the phases.
    pub fn summaries(&self) -> Vec<NetworkSummary> {
        NetworkSummary::by_phase(self)
    }
}

impl Serialize for NetworkRun {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.summaries().serialize(serializer)
    }
}
