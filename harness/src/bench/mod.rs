//! What nesting costs: the same work on this machine, in a guest on it, and in a guest inside a guest.
//!
//! `work` is what is done, by this very program in all three places; `nesting` has it done there; `ratio` says what came of it.

mod nesting;
mod ratio;
mod work;

pub(crate) use nesting::{Request, compare};
pub(crate) use ratio::Comparison;
pub(crate) use work::work;
