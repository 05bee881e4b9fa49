//! Fan-out: every cell of a plan on a guest of its own, as many at once as the machine can carry.
//!
//! This code always runs on the L1, beside its guests. All results leave as events.
//!
//! ```text
//! dispatch   all cells of a plan      (budget: which may start; disk_space: is there room; crew: what it needs to run them)
//! attempt    one cell on one guest, step by step
//!   start    makes the guest, a fork where possible        arrive     from power-on to a session, after reboots too
//!   install  sends the payload, installs the package       suite      runs the suite
//!   results  fetches results and artifacts                 verdict    decides what they mean
//!   answers  guests that no longer answer                  world      what all of these need of QEMU and SSH
//! context    what is the same for every cell of a run
//! plan_templates, template_cache   which templates there are       machine, image   which machine a guest is
//! emulation  guests of another kind of CPU                         panicked         tasks that panicked
//! ```

mod answers;
mod arrive;
mod attempt;
mod budget;
mod context;
mod crew;
mod differences;
mod disk;
mod disk_space;
mod dispatch;
mod emulation;
mod image;
mod install;
mod machine;
mod outbound;
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
pub use image::{BootImage, FetchSource, ImageFacts};
pub(crate) use outbound::{MOST_TOLD, image_reaches_repositories, named_by, policy_of_l1, reaches_repositories};
pub(crate) use panicked::words as panic_words;
pub use template_cache::TemplateCache;
