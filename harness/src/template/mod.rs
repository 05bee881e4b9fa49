//! Guests that are forked instead of booted.
//!
//! A *template* is a guest that was booted once, made ready, left alone until it was idle, and frozen: its memory, the state of its
//! devices and its disk are files in the store ([`images::Templates`]). A *fork* goes on from there, on a copy of its own that is
//! made page by page as it writes. Where a guest can be prepared, but not frozen, its template is its disk alone: guests are booted
//! from that.
//!
//! ```text
//! key      what decides a template, as one digest
//! obtain   finds one in the store, or has one made and put there    (spec: what it is to be)
//! freeze   makes one                                                (idle: when a guest is at rest)
//! fork     resumes a guest from one    (resume_agent: runs first in it: sets clock and randomness, then starts SSH)
//! failure_counter   when a template is given up because its forks fail
//! ```

mod failure_counter;
mod fork;
mod freeze;
mod idle;
mod key;
mod memory;
mod obtain;
#[cfg(test)]
mod quiesce_tests;
mod resume_agent;
#[cfg(test)]
mod resume_agent_tests;
mod spec;

pub use fork::{ForkError, Forked, With, fork};
pub use freeze::LONGEST;
pub use key::{HostFingerprint, file_stamp, key};
pub use memory::own_memory;
pub use obtain::obtain;
pub use spec::{
    Outbound, OwnWork, Preparation, TemplateBuilder, TemplateProgress, TemplateSpec, Work, Writer, no_template,
};

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use matrix::{ByteSize, Digest};
use reports::SystemFacts;
use serde::{Deserialize, Serialize};

use self::failure_counter::FailureCounter;
use crate::{
    guest::{self, DiskFile, DiskFormat},
    ssh::{self, Keys},
};

/// Where templates are kept, and what decides them here; else why there are none.
pub type Freezing = Result<(images::Templates, HostFingerprint), String>;

const RAM: &str = "ram";
const STATE: &str = "state";
/// What forks of this template are expected to take, after what they were seen to take.
const COST: &str = "cost";

/// What is noted of a template when it is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Memory of its own that the first fork took, in bytes.
    cost: u64,
    /// Why only its disk was kept; `None`: it is whole.
    unfrozen: Option<String>,
    /// What the system in it said it is, and so every fork would. `None`: it did not say.
    system: Option<SystemFacts>,
}

/// A frozen guest that forks can be made of.
#[derive(Debug)]
pub struct Template {
    kept: images::Template<Note>,
    key: Digest,
    login: Keys,
    host_keys: Keys,
    /// What a fork is expected to take.
    cost: AtomicU64,
    /// The most that one took since this value was made.
    peak: AtomicU64,
    failures: FailureCounter,
    /// Why it is used no more.
    given_up: OnceLock<String>,
    store: images::Templates,
}

impl Template {
    fn new(key: Digest, kept: images::Template<Note>, templates: &images::Templates) -> Result<Self, String> {
        match Self::read(&kept) {
            Ok([login, host_keys]) => {
                // Of no more use than a guess is wrong, so whatever stands there is taken for one.
                let seen =
                    std::fs::read_to_string(kept.folder.join(COST)).ok().and_then(|text| text.trim().parse().ok());
                let cost = AtomicU64::new(kept.note.cost.max(seen.unwrap_or(0)));
                let (peak, failures, store) = (AtomicU64::new(0), FailureCounter::default(), templates.clone());
                Ok(Self { kept, key, login, host_keys, cost, peak, failures, given_up: OnceLock::new(), store })
            }
            Err(reason) => {
                // Every byte is what was put there, and still we can do nothing with it.
                templates.discard(&kept);
                Err(reason)
            }
        }
    }

    fn read(kept: &images::Template<Note>) -> Result<[Keys; 2], String> {
        let read = |names| Keys::read(&kept.folder, names).map_err(|error| error.to_string());
        Ok([read(ssh::LOGIN_FILES)?, read(guest::HOST_KEY_FILES)?])
    }

    /// The digest of everything that decides it.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// Why no fork can be made of it: only its disk was kept, or forks of it do not work. `None`: one can.
    pub fn unfrozen(&self) -> Option<&str> {
        self.given_up.get().or(self.kept.note.unfrozen.as_ref()).map(String::as_str)
    }

    /// Gives it up: no fork is made of it any more, and it is gone when nobody needs its disk either. False: it was already.
    pub fn give_up(&self, reason: &str) -> bool {
        self.given_up.set(reason.to_owned()).is_ok()
    }

    /// A fork of it did its work.
    pub fn worked(&self) {
        self.failures.earned();
    }

    /// A fork of it failed. True: so many did, and no fork ever worked, that the template must be to blame.
    pub fn failed(&self) -> bool {
        self.failures.failed_too_often()
    }

    /// Whether its files are still there under their names.
    pub(super) fn is_in_place(&self) -> bool {
        self.kept.is_in_place()
    }

    /// What the system in its forks is, if that is known.
    pub fn system(&self) -> Option<&SystemFacts> {
        self.kept.note.system.as_ref()
    }

    /// The keys that open its forks.
    pub fn login(&self) -> &Keys {
        &self.login
    }

    /// The host keys of its forks.
    pub fn host_keys(&self) -> &Keys {
        &self.host_keys
    }

    /// Where it lies.
    pub fn folder(&self) -> &std::path::Path {
        &self.kept.folder
    }

    /// Its disk: what its forks' disks lie above.
    pub fn disk(&self) -> DiskFile {
        disk(self.folder())
    }

    /// Memory a fork is expected to take, what all of them share not counted: what forks were measured to take.
    pub fn cost(&self) -> ByteSize {
        ByteSize::from_bytes(self.cost.load(Ordering::Relaxed).max(self.peak.load(Ordering::Relaxed)))
    }

    /// Learns what a fork took.
    pub fn took(&self, bytes: u64) {
        self.peak.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// The disk of what lies in this folder.
fn disk(folder: &std::path::Path) -> DiskFile {
    DiskFile { file: folder.join(guest::ROOT_DISK), format: DiskFormat::Qcow2 }
}

impl Drop for Template {
    fn drop(&mut self) {
        if self.given_up.get().is_some() {
            return self.store.discard(&self.kept);
        }
        // One greedy suite is forgotten in time, and what all of them do is learned.
        let (peak, cost) = (*self.peak.get_mut(), *self.cost.get_mut());
        if peak > 0 && self.kept.is_in_place() {
            let _ = std::fs::write(self.kept.folder.join(COST), u64::midpoint(peak, cost).to_string());
        }
    }
}
