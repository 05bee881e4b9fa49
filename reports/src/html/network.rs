//! What a guest fetched, on the page.

use serde::Serialize;

use super::budget::{beginning, cost};
use crate::{
    ContentSource, NetworkRequest, NetworkRun, RequestOutcome, RequestRun, Run, human,
    network::{NetworkTotal, address, sized},
};

/// Maximum number of requests in one table.
const MAX_ROWS: usize = 200;
/// Maximum bytes of a host, a path and a reason in the table.
const MAX_HOST: usize = 120;
const MAX_TEXT: usize = 300;
/// Maximum bytes of the line of a phase.
const MAX_LINE: usize = 1_500;
/// Bytes of a row besides its text: its cells, and the whole digest.
const ROW: usize = 250;

/// The template's data of what one guest asked for.
#[derive(Debug, Serialize)]
pub(super) struct NetworkView {
    /// One line for each phase.
    phases: Vec<String>,
    rows: Vec<RowView>,
    /// Requests that are only in the journal.
    more: usize,
}

#[derive(Debug, Serialize)]
struct RowView {
    phase: &'static str,
    method: String,
    address: String,
    path: String,
    outcome: String,
    bad: bool,
    source: &'static str,
    size: String,
    digest: String,
    digest_short: String,
    duration: String,
}

/// What all guests asked for together.
#[derive(Debug, Serialize)]
pub(super) struct TotalView {
    facts: Vec<FactView>,
}

#[derive(Debug, Serialize)]
struct FactView {
    name: &'static str,
    value: String,
}

impl NetworkView {
    /// `None` if it asked for nothing. Its table takes about `budget` bytes.
    pub(super) fn new(network: &NetworkRun, mut budget: usize) -> Option<Self> {
        if network.requests.is_empty() && network.only_counted.is_empty() {
            return None;
        }
        let mut requests: Vec<&RequestRun> = network.requests.iter().collect();
        // What is left out must not be what was refused.
        requests.sort_by_key(|run| urgency(&run.request.outcome));
        let rows = requests.iter().take(MAX_ROWS).map_while(|run| {
            let row = RowView::new(run);
            budget = budget.checked_sub(row.cost())?;
            Some(row)
        });
        let rows: Vec<RowView> = rows.collect();
        Some(Self {
            phases: network.summaries().iter().map(|summary| cut(&summary.sentences().join("; "), MAX_LINE)).collect(),
            more: requests.len() - rows.len(),
            rows,
        })
    }
}

/// What comes first in the table.
const fn urgency(outcome: &RequestOutcome) -> u8 {
    match outcome {
        RequestOutcome::Refused { .. } => 0,
        RequestOutcome::Failed { .. } => 1,
        RequestOutcome::Served { .. } | RequestOutcome::Tunnelled => 2,
    }
}

impl RowView {
    fn new(run: &RequestRun) -> Self {
        let NetworkRequest { method, host, port, path, outcome, bytes, elapsed_ms } = &run.request;
        let (said, source, digest) = match outcome {
            RequestOutcome::Served { status, source, digest } => (format!("served {status}"), words(*source), *digest),
            RequestOutcome::Tunnelled => ("connected".to_owned(), "not seen", None),
            RequestOutcome::Refused { reason } => (format!("refused: {reason}"), "", None),
            RequestOutcome::Failed { reason } => (format!("failed: {reason}"), "", None),
        };
        Self {
            phase: run.phase.name(),
            method: method.clone(),
            address: address(&cut(host, MAX_HOST), *port),
            path: path.as_deref().map(|path| cut(path, MAX_TEXT)).unwrap_or_default(),
            outcome: cut(&said, MAX_TEXT),
            bad: urgency(outcome) < 2,
            source,
            size: human::bytes(*bytes),
            digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
            digest_short: digest.map(|digest| digest.short()).unwrap_or_default(),
            duration: human::duration(*elapsed_ms),
        }
    }

    /// Its bytes in the page, about.
    fn cost(&self) -> usize {
        let texts = [&self.method, &self.address, &self.path, &self.outcome];
        ROW + texts.iter().map(|text| cost(text)).sum::<usize>()
    }
}

const fn words(source: ContentSource) -> &'static str {
    match source {
        ContentSource::Cache => "cache",
        ContentSource::Revalidated => "cache, confirmed",
        ContentSource::Server => "server",
        ContentSource::Snapshot => "snapshot service",
    }
}

/// Its beginning, with a mark if that is not all; counted as escaped for HTML.
fn cut(text: &str, max: usize) -> String {
    match beginning(text, max) {
        whole if whole.len() == text.len() => whole.to_owned(),
        start => format!("{start}…"),
    }
}

impl TotalView {
    /// `None` if nothing was fetched or refused.
    pub(super) fn new(run: &Run) -> Option<Self> {
        let total = NetworkTotal::of(run);
        total.line()?;
        let files = total.files();
        let of_files = |traffic| (files.count > 0).then(|| sized(traffic, "file"));
        let facts = [
            ("fetched", of_files(files)),
            ("from servers", of_files(total.from_server)),
            ("from the cache", of_files(total.from_cache)),
            ("https", total.connected().map(|text| format!("{text}, not seen and not cached"))),
            ("failed", (total.failed > 0).then(|| total.failed.to_string())),
            ("only counted", (total.only_counted > 0).then(|| total.only_counted.to_string())),
            ("refused", total.refused()),
        ];
        let facts = facts.into_iter().filter_map(|(name, value)| Some(FactView { name, value: value? }));
        Some(Self { facts: facts.collect() })
    }
}
