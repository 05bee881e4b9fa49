//! What the dispatcher needs to run cells: `RunContext` implements it, tests have a fake.

use std::{path::Path, sync::Arc};

use matrix::{ByteSize, Cell, Digest};
use reports::Trouble;
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Attempt, AttemptOutcome},
    budget::Admission,
    context::{Keep, RunContext},
    disk_space,
    start::Qemu,
};
use crate::{events::Events, template::Template};

/// One attempt at a cell.
pub(super) struct Try<'a> {
    pub(super) cell: &'a Cell,
    /// From 1.
    pub(super) number: u32,
    /// Number of the last one there may be.
    pub(super) last: u32,
    /// It follows one that failed for no fault of the package.
    pub(super) again: bool,
    /// What the cell was admitted with.
    pub(super) admission: &'a Admission,
    /// Ends everything at once.
    pub(super) kill: &'a CancellationToken,
}

/// What a cell's guest comes from.
pub(super) enum Origin {
    /// Nobody has looked for its template yet.
    Unknown,
    /// It is booted.
    Boot,
    /// It is forked from this.
    Fork(Arc<dyn Forkable>),
}

/// What guests are forked from, as far as their memory goes.
pub(super) trait Forkable: Send + Sync {
    /// Memory a fork is expected to take.
    fn cost(&self) -> ByteSize;

    /// A fork was seen to take so many bytes.
    fn took(&self, bytes: u64);
}

impl Forkable for Template {
    fn cost(&self) -> ByteSize {
        Self::cost(self)
    }

    fn took(&self, bytes: u64) {
        Self::took(self, bytes);
    }
}

/// Runs cells and makes templates.
pub(super) trait Crew: Send + Sync + 'static {
    /// Number of the machine they run on.
    fn runner(&self) -> u32;

    /// The way out.
    fn events(&self) -> &Events;

    /// Which guests are kept.
    fn keep(&self) -> Keep;

    /// Where guests' disks are.
    fn folder(&self) -> &Path;

    /// Room for their disks, where there is too little for another guest.
    fn shortage(&self) -> impl Future<Output = Option<ByteSize>> + Send;

    /// There is no room for any other guest.
    fn give_up_disk(&self);

    /// No guest of the cell's image may run that was not prepared.
    fn prepares(&self, cell: &Cell) -> bool;

    /// Key of the template that the cell's guest is forked from, or whose disk it is booted from; `None`: it needs none.
    fn template_key(&self, cell: &Cell) -> Option<Digest>;

    /// What the cell's guest comes from, as far as is known of the template of this key.
    fn origin(&self, cell: &Cell, key: Digest) -> Origin;

    /// Finds the template of this cell's guest, or makes it.
    fn obtain(&self, key: Digest, cell: &Cell, cancel: &CancellationToken) -> impl Future<Output = ()> + Send;

    /// Nobody will make that template.
    fn learn(&self, key: Digest, trouble: Trouble);

    /// One attempt, to its end. Its guest is gone afterwards, or kept.
    fn attempt(&self, what: Try<'_>) -> impl Future<Output = AttemptOutcome> + Send;
}

impl Crew for RunContext {
    fn runner(&self) -> u32 {
        self.runner
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn keep(&self) -> Keep {
        self.keep
    }

    fn folder(&self) -> &Path {
        &self.scratch
    }

    async fn shortage(&self) -> Option<ByteSize> {
        let folder = self.scratch.clone();
        tokio::task::spawn_blocking(move || disk_space::shortage(&folder)).await.ok().flatten()
    }

    fn give_up_disk(&self) {
        self.disk_full.cancel();
    }

    fn prepares(&self, cell: &Cell) -> bool {
        Self::prepares(self, cell)
    }

    fn template_key(&self, cell: &Cell) -> Option<Digest> {
        Self::template_key(self, cell)
    }

    fn origin(&self, cell: &Cell, key: Digest) -> Origin {
        match self.template_cache.known(key) {
            None => Origin::Unknown,
            Some(Ok(template)) if self.forks(cell) && template.unfrozen().is_none() => Origin::Fork(template),
            Some(_) => Origin::Boot,
        }
    }

    async fn obtain(&self, key: Digest, cell: &Cell, cancel: &CancellationToken) {
        Self::obtain(self, key, cell, cancel).await;
    }

    fn learn(&self, key: Digest, trouble: Trouble) {
        self.template_cache.learn(key, Err(trouble));
    }

    async fn attempt(&self, Try { cell, number, last, again, admission, kill }: Try<'_>) -> AttemptOutcome {
        let world = Qemu { context: self, cell, number, last, again };
        Attempt { world, context: self, cell, number, last, again, admission, kill }.run().await
    }
}
