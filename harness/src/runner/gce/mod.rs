//! A machine on Compute Engine as the place where guests run: that of `ssh`, and before and after it: check, create, prove, delete.
//!
//! ```text
//! intended what is to be created, from the plan     check    what is looked at before anything is created
//! place    opens it and closes it                   await_l1 until it can be logged in to (host_key, startup.sh)
//! bake     an image family for such machines
//! census   what there is of ours, and what dead runs left (owner)
//! held     an instance, its beginning and its end   findings why guests do not run on it, in Google's order
//! ```

mod await_l1;
mod bake;
mod census;
mod check;
mod findings;
mod held;
mod host_key;
mod intended;
mod owner;
mod place;

pub(crate) use bake::{Baked, Recipe, bake};
pub(crate) use census::{Found, census, delete, sweep};
pub(crate) use held::{Cloud, still_held};
pub(crate) use intended::{CacheDisk, Mark, intend};
pub(crate) use owner::{Whose, note, owner};
pub(crate) use place::GcePlace;
