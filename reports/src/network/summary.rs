//! What a guest fetched in one phase, in numbers and in sentences. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use indexmap::IndexMap;
use serde::Serialize;

use super::{ContentSource, NetworkRequest, NetworkRun, RequestOutcome};
use crate::{Phase, human};

/// Maximum number of refused hosts with a sentence of their own.
const MAX_REFUSED: usize = 5;

/// A number of files or connections, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// How many.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What a guest asked for in one phase. A file is the content of a `GET` that was answered with a status of 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkSummary {
    /// The phase.
    pub phase: Phase,
    /// The hosts that files came from, as the guest named them.
    pub hosts: BTreeSet<String>,
    /// Files from the cache; the servers were not asked.
    pub from_cache: Traffic,
    /// Files from the cache; the servers were asked, and have nothing newer.
    pub revalidated: Traffic,
    /// Files from the servers.
    pub from_server: Traffic,
    /// Connections to https servers. Their bytes are counted both ways.
    pub connections: Traffic,
    /// Requests that were answered with a status of 400 or more, by a server or from the cache.
    pub answered_with_error: u64,
    /// Hosts that the policy does not allow, the most frequent first.
    pub refused: Vec<RefusedHost>,
    /// Requests that were allowed and failed.
    pub failed: u64,
    /// Further requests, which are in none of these numbers.
    pub only_counted: u64,
}

/// A host that a guest asked for, and that the policy does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedHost {
    /// Its name, as the guest wrote it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How often it was asked for.
    pub attempts: u64,
}

impl Traffic {
    /// Adds what others are.
    pub(super) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// `host:port`.
impl fmt::Display for RefusedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&address(&self.host, self.port))
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn address(host: &str, port: u16) -> String {
    match host {
        "" => format!("(no host):{port}"),
        _ if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// A number with its noun.
pub(super) fn count(number: u64, noun: &str) -> String {
    human::count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

impl NetworkSummary {
    fn new(phase: Phase) -> Self {
        Self {
            phase,
            hosts: BTreeSet::new(),
            from_cache: Traffic::default(),
            revalidated: Traffic::default(),
            from_server: Traffic::default(),
            connections: Traffic::default(),
            answered_with_error: 0,
            refused: Vec::new(),
            failed: 0,
            only_counted: 0,
        }
    }

    /// One for each phase with a request, in the order of the phases.
    pub(super) fn by_phase(network: &NetworkRun) -> Vec<Self> {
        let mut by_phase = BTreeMap::<Phase, Self>::new();
        let mut refused = IndexMap::<(Phase, &str, u16), u64>::new();
        for run in &network.requests {
            by_phase.entry(run.phase).or_insert_with(|| Self::new(run.phase)).add(&run.request);
            if matches!(run.request.outcome, RequestOutcome::Refused { .. }) {
                *refused.entry((run.phase, &run.request.host, run.request.port)).or_default() += 1;
            }
        }
        for (phase, requests) in &network.only_counted {
            by_phase.entry(*phase).or_insert_with(|| Self::new(*phase)).only_counted = *requests;
        }
        for ((phase, host, port), attempts) in refused {
            let refused = RefusedHost { host: host.to_owned(), port, attempts };
            by_phase.entry(phase).or_insert_with(|| Self::new(phase)).refused.push(refused);
        }
        let mut summaries: Vec<Self> = by_phase.into_values().collect();
        summaries.iter_mut().for_each(|summary| summary.refused.sort_by_key(|refused| Reverse(refused.attempts)));
        summaries
    }

    fn add(&mut self, request: &NetworkRequest) {
        let one = Traffic { count: 1, bytes: request.bytes };
        match &request.outcome {
            RequestOutcome::Served { status: 200..=299, source, .. } if request.method == "GET" => {
                self.hosts.insert(request.host.clone());
                match source {
                    ContentSource::Cache => self.from_cache.add(one),
                    ContentSource::Revalidated => self.revalidated.add(one),
                    ContentSource::Server | ContentSource::Snapshot => self.from_server.add(one),
                }
            }
            RequestOutcome::Served { status: 400.., .. } => self.answered_with_error += 1,
            RequestOutcome::Served { .. } => {}
            RequestOutcome::Tunnelled => self.connections.add(one),
            // The hosts are counted by the caller.
            RequestOutcome::Refused { .. } => {}
            RequestOutcome::Failed { .. } => self.failed += 1,
        }
    }

    /// All files.
    pub fn files(&self) -> Traffic {
        let mut files = self.from_cache;
        files.add(self.revalidated);
        files.add(self.from_server);
        files
    }

    /// The phase in sentences, the first of which names it; empty if there is nothing to say.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences: Vec<String> = self.fetched().into_iter().chain(self.connected()).collect();
        if self.answered_with_error > 0 {
            let (requests, was) = counted(self.answered_with_error, "request");
            sentences.push(format!("{requests} {was} answered with an error"));
        }
        sentences.extend(self.refused.iter().take(MAX_REFUSED).map(|refused| {
            let (attempts, was) = counted(refused.attempts, "attempt");
            format!("{attempts} to reach {refused} {was} refused")
        }));
        if let Some(others) = self.refused.get(MAX_REFUSED..).filter(|others| !others.is_empty()) {
            let attempts = others.iter().fold(0_u64, |sum, refused| sum.saturating_add(refused.attempts));
            let (attempts, was) = counted(attempts, "attempt");
            let hosts = human::count(others.len(), "other host");
            sentences.push(format!("{attempts} to reach {hosts} {was} refused"));
        }
        if self.failed > 0 {
            sentences.push(format!("{} failed", count(self.failed, "request")));
        }
        if self.only_counted > 0 {
            let (requests, was) = counted(self.only_counted, "more request");
            sentences.push(format!("{requests} {was} only counted"));
        }
        if let Some(first) = sentences.first_mut() {
            *first = format!("{}, {first}", during(self.phase));
        }
        sentences
    }

    /// `it fetched 14 files (12.0 MiB) from 2 hosts: 12 from the cache, 2 from the servers`.
    fn fetched(&self) -> Option<String> {
        let files = self.files();
        if files.count == 0 {
            return None;
        }
        // A single host is named.
        let from = match (self.hosts.len(), self.hosts.first()) {
            (1, Some(host)) if !host.is_empty() => host.clone(),
            (hosts, _) => human::count(hosts, "host"),
        };
        let server = if self.hosts.len() == 1 { "server" } else { "servers" };
        let confirmed = format!("from the cache (confirmed by the {server})");
        let parts = [
            (self.from_cache.count, "from the cache".to_owned()),
            (self.revalidated.count, confirmed.clone()),
            (self.from_server.count, format!("from the {server}")),
        ];
        let sources = match (files.count, parts.each_ref().map(|(number, _)| *number)) {
            (1, [1, 0, 0]) => ", from the cache".to_owned(),
            (1, [0, 1, 0]) => format!(", {confirmed}"),
            (1, _) => ", not from the cache".to_owned(),
            (_, [_, 0, 0]) => ", all of them from the cache".to_owned(),
            (_, [0, _, 0]) => format!(", all of them {confirmed}"),
            (_, [0, 0, _]) => ", none of them from the cache".to_owned(),
            _ => {
                let parts = parts.iter().filter(|(number, _)| *number > 0);
                let parts: Vec<String> = parts.map(|(number, source)| format!("{number} {source}")).collect();
                format!(": {}", parts.join(", "))
            }
        };
        let (number, size) = (count(files.count, "file"), human::bytes(files.bytes));
        Some(format!("it fetched {number} ({size}) from {from}{sources}"))
    }

    /// `it made 2 connections to https servers (3.0 MiB): their content is not seen and not cached`.
    fn connected(&self) -> Option<String> {
        let Traffic { count: number, bytes } = self.connections;
        let (to, whose) = if number == 1 { ("an https server", "its") } else { ("https servers", "their") };
        let (number, size) = (count(number, "connection"), human::bytes(bytes));
        let sentence = format!("it made {number} to {to} ({size}): {whose} content is not seen and not cached");
        (self.connections.count > 0).then_some(sentence)
    }
}

/// A number with its noun, and the verb that follows it.
pub(super) fn counted(number: u64, noun: &str) -> (String, &'static str) {
    (count(number, noun), if number == 1 { "was" } else { "were" })
}

/// When it happened, as the beginning of a sentence.
const fn during(phase: Phase) -> &'static str {
    match phase {
        Phase::Image => "while its image was made",
        Phase::Runner => "while its runner was made ready",
        Phase::Boot => "while it booted",
        Phase::Connect => "while nestmatrix connected to it",
        Phase::Prepare => "while it was prepared",
        Phase::Install => "while it was installed",
        Phase::Reboot => "while it rebooted",
        Phase::Test => "while it was tested",
        Phase::Collect => "while results were collected",
    }
}
