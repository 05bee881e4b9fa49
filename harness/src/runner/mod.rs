//! Where guests run: on this machine, or in an L1 that is booted on it.
//!
//! `size` decides how large an L1 is, `qemu` boots one and starts the agent in it, `frozen` forks one instead, `campaign` gives it the cells and replaces it
//! when it is lost, `conduct` judges what its agent says, `ledger` knows which cells still have to report; `proof` remembers that KVM works in an L1.

mod campaign;
mod conduct;
mod frozen;
mod ledger;
mod proof;
mod qemu;
mod size;

/// Catalog name of the image that is made for L1s.
pub(crate) const L1_IMAGE: &str = "debian-13-runner";

pub(crate) use campaign::{Campaign, Freezing};
pub(crate) use ledger::Ledger;
pub(crate) use proof::Proofs;
pub(crate) use qemu::Blueprint;
pub(crate) use size::{Supply, TooLarge, size};
