//! What all guests of a run fetched together. Pure.

use std::{cmp::Reverse, collections::HashSet};

use indexmap::IndexMap;

use super::{
    NetworkRun, Traffic,
    summary::{address, count, counted},
};
use crate::{Run, human};

/// Maximum number of refused hosts that are named.
const MAX_REFUSED: usize = 3;

/// The requests of all attempts and templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkTotal {
    /// Files from the cache, also those that the servers confirmed.
    pub(crate) from_cache: Traffic,
    /// Files from the servers.
    pub(crate) from_server: Traffic,
    /// Connections to https servers.
    pub(crate) connections: Traffic,
    /// Requests that were allowed and failed.
    pub(crate) failed: u64,
    /// Requests that are in none of these numbers.
    pub(crate) only_counted: u64,
    refused: Vec<Refused>,
}

/// A host that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    address: String,
    attempts: u64,
    cells: usize,
    templates: usize,
}

/// Whose guest made a request: an index in the run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Cell(usize),
    Template(usize),
}

impl NetworkTotal {
    /// The total of a run.
    pub(crate) fn of(run: &Run) -> Self {
        let cells = run.cells.iter().enumerate();
        let of_cells =
            cells.flat_map(|(at, cell)| cell.attempts.iter().map(move |attempt| (Whose::Cell(at), &attempt.network)));
        let of_templates = run.templates.iter().enumerate();
        let of_templates = of_templates.map(|(at, template)| (Whose::Template(at), &template.network));
        Self::sum(of_cells.chain(of_templates))
    }

    fn sum<'a>(networks: impl Iterator<Item = (Whose, &'a NetworkRun)>) -> Self {
        let mut total = Self::default();
        let mut refused = IndexMap::<String, (u64, HashSet<Whose>)>::new();
        for (whose, network) in networks {
            for summary in network.summaries() {
                total.from_cache.add(summary.from_cache);
                total.from_cache.add(summary.revalidated);
                total.from_server.add(summary.from_server);
                total.connections.add(summary.connections);
                total.failed = total.failed.saturating_add(summary.failed);
                total.only_counted = total.only_counted.saturating_add(summary.only_counted);
                for host in &summary.refused {
                    let (attempts, by) = refused.entry(address(&host.host, host.port)).or_default();
                    *attempts = attempts.saturating_add(host.attempts);
                    by.insert(whose);
                }
            }
        }
        let refused = refused.into_iter().map(|(address, (attempts, by))| {
            let cells = by.iter().filter(|whose| matches!(whose, Whose::Cell(_))).count();
            Refused { address, attempts, cells, templates: by.len() - cells }
        });
        total.refused = refused.collect();
        total.refused.sort_by_key(|refused| Reverse(refused.attempts));
        total
    }

    /// All files.
    pub(crate) fn files(&self) -> Traffic {
        let mut files = self.from_cache;
        files.add(self.from_server);
        files
    }

    /// `42 files (60.0 MiB) fetched, 40 of them from the cache; refused: telemetry.example.com:443 (3 attempts in 2 cells)`; `None`
    /// if nothing was fetched or refused.
    pub(crate) fn line(&self) -> Option<String> {
        let failed = (self.failed > 0).then(|| format!("{} failed", count(self.failed, "request")));
        let only_counted = (self.only_counted > 0).then(|| {
            let (requests, was) = counted(self.only_counted, "more request");
            format!("{requests} {was} only counted")
        });
        let refused = self.refused().map(|refused| format!("refused: {refused}"));
        let parts = [self.fetched(), self.connected(), failed, only_counted, refused];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn fetched(&self) -> Option<String> {
        let files = self.files();
        let sources = match (files.count, self.from_cache.count) {
            (0, _) => return None,
            (1, 1) => " from the cache".to_owned(),
            (1, _) => " from a server".to_owned(),
            (_, 0) => ", none of them from the cache".to_owned(),
            (all, cached) if cached == all => ", all of them from the cache".to_owned(),
            (_, cached) => format!(", {cached} of them from the cache"),
        };
        Some(format!("{} fetched{sources}", sized(files, "file")))
    }

    /// `2 connections (3.0 MiB) to https servers`.
    pub(crate) fn connected(&self) -> Option<String> {
        let to = if self.connections.count == 1 { "an https server" } else { "https servers" };
        (self.connections.count > 0).then(|| format!("{} to {to}", sized(self.connections, "connection")))
    }

    /// `telemetry.example.com:443 (3 attempts in 2 cells)`, the most frequent hosts first.
    pub(crate) fn refused(&self) -> Option<String> {
        let mut hosts: Vec<String> = self.refused.iter().take(MAX_REFUSED).map(Refused::words).collect();
        let more = self.refused.len().saturating_sub(MAX_REFUSED);
        hosts.extend((more > 0).then(|| human::count(more, "more host")));
        (!hosts.is_empty()).then(|| hosts.join(", "))
    }
}

impl Refused {
    fn words(&self) -> String {
        let places = [(self.cells, "cell"), (self.templates, "template")];
        let places = places.into_iter().filter(|(number, _)| *number > 0);
        let places: Vec<String> = places.map(|(number, noun)| human::count(number, noun)).collect();
        format!("{} ({} in {})", self.address, count(self.attempts, "attempt"), places.join(" and "))
    }
}

/// `2 files (3.0 MiB)`.
pub(crate) fn sized(traffic: Traffic, noun: &str) -> String {
    format!("{} ({})", count(traffic.count, noun), human::bytes(traffic.bytes))
}
