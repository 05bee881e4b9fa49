//! Fan-out: every cell of a plan on a guest of its own, as many at once as the machine can carry.
//!
//! This code always runs on the L1, beside its guests. `budget` decides who may start, `attempt` takes one cell through its
//! steps on one fresh guest (`arrive` boots it to a session, `deliver` brings the payload into it, `suite` runs it; `power` makes it, a fork where it can: `warm` knows the templates,
//! `machine` what both are (`image`: what an image makes of them), `emulation` what runs guests of another kind of CPU; `harvest` fetches what is left in it, `judge` says what
//! it means; `answers` notices guests that no longer answer; `world` is what all of them need of QEMU and SSH), `dispatch` does that for all cells. All results leave as events.

mod answers;
mod arrive;
mod attempt;
mod budget;
mod context;
mod crew;
mod disk;
mod disk_space;
mod dispatch;
mod emulation;
mod image;
mod install;
mod machine;
mod panicked;
mod plan_templates;
mod results;
mod start;
mod suite;
mod template_cache;
#[cfg(test)]
mod tests;
mod verdict;
mod world;

pub use attempt::AttemptOutcome;
pub use budget::{Budget, Cost};
pub use context::{BootImages, Emulation, Keep, Purpose, RunContext};
pub use disk_space::LEAST_ROOM;
pub use dispatch::{Incoming, QueuedCell, Stop, at_once, dispatch, freeze};
pub use image::{BootImage, ImageFacts};
pub(crate) use panicked::words as panic_words;
pub use template_cache::TemplateCache;
