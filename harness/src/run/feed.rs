//! The images of a run as what cells wait for.

use std::collections::HashSet;

use matrix::{Cell, Plan};

use super::{arriving::Arriving, foreign::Emulations, settle::settle};
use crate::{
    events::Events,
    fanout::BootImage,
    runner::{Feed, Ledger},
};

/// Images, some of which may still be on their way.
pub(super) struct Images<'a> {
    pub(super) plan: &'a Plan,
    pub(super) arriving: &'a mut Arriving,
    pub(super) events: &'a Events,
}

impl Feed for Images<'_> {
    fn images(&self) -> Vec<(String, BootImage)> {
        self.arriving.boot_images().collect()
    }

    fn is_in(&self, cell: &Cell, brought: &HashSet<String>) -> bool {
        let Some(image) = self.plan.image(cell) else { return false };
        match self.arriving.prepared().get(&image.from) {
            Some(Ok(_)) => brought.contains(&image.from),
            Some(Err(_)) => true,
            None => false,
        }
    }

    fn settle(&self, ledger: &mut Ledger) {
        settle(self.plan, self.arriving, (Ok(()), &Emulations::new()), ledger, self.events);
    }

    async fn next(&mut self) -> bool {
        self.arriving.next().await.is_some()
    }
}
