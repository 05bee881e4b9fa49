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
mod crew;
mod deliver;
mod disk;
mod dispatch;
mod emulation;
mod harvest;
mod image;
mod judge;
mod machine;
mod panicked;
mod power;
mod room;
mod station;
mod suite;
#[cfg(test)]
mod tests;
mod warm;
mod warmth;
mod world;

pub use attempt::Conclusion;
pub use budget::{Budget, Cost};
pub use dispatch::{Incoming, Stop, Todo, at_once, dispatch, freeze};
pub use image::{BootImage, ImageFacts};
pub(crate) use panicked::words as panic_words;
pub use room::LEAST_ROOM;
pub use station::{BootImages, Emulation, Keep, Purpose, Station};
pub use warmth::Warmth;
