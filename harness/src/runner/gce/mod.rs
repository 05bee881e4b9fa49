//! A machine on Compute Engine as the place where guests run: that of `ssh`, and before and after it: check, create, prove, delete.
//!
//! ```text
//! intended what is to be created, from the plan     check    what is looked at before anything is created
//! place    opens it and closes it                   await_l1 until it can be logged in to (host_key, startup.sh)
//! bake     an image family for such machines
//! census   what there is of ours, and what dead runs left
//! held     an instance, and its end                 findings why guests do not run on it, in Google's order
//! ```

mod await_l1;
mod bake;
mod census;
mod check;
mod findings;
mod held;
mod host_key;
mod intended;
mod place;

pub(crate) use bake::{Recipe, bake};
pub(crate) use census::{Found, Whose, census, delete, sweep};
pub(crate) use held::{Cloud, owner};
pub(crate) use intended::{CacheDisk, Mark, intend};
pub(crate) use place::GcePlace;
