//! Which packages a locked guest asked for and could not have, because others are pinned.

use std::collections::BTreeMap;

use reports::{NetworkRequest, RequestOutcome};

/// Most packages that are remembered.
const MOST: usize = 20;

/// By the names of their files, as mirrors share them: where one refuses, another may have the pinned one.
#[derive(Debug)]
pub(super) struct Differences<T>(BTreeMap<String, T>);

impl<T> Default for Differences<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Differences<T> {
    /// `described`: from the reason why the request was refused; `None`: it does not count here.
    pub(super) fn take(&mut self, request: &NetworkRequest, described: impl FnOnce(String) -> Option<T>) {
        let file = request.path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let file = reports::clean::line(file);
        match &request.outcome {
            RequestOutcome::Failed { reason } if egress::is_difference(reason) && self.0.len() < MOST => {
                if let Some(what) = described(reports::clean::line(reason)) {
                    self.0.entry(file).or_insert(what);
                }
            }
            RequestOutcome::Served { digest: Some(_), .. } => drop(self.0.remove(&file)),
            _ => {}
        }
    }

    /// The first of those that no mirror had as they are pinned.
    pub(super) fn first(&self) -> Option<&T> {
        self.0.first_key_value().map(|(_, what)| what)
    }
}
