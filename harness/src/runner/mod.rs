//! Where guests run, and what becomes of their cells when such a machine is lost.
//!
//! ```text
//! place    what every kind of machine can do: open, engine, close
//! host     this machine            qemu    an L1 that is booted on it (size: how large it is)
//! ssh      a machine that one can log in to           gce   one that is created on Compute Engine
//! frozen   any place whose machines can be frozen: forked instead of booted
//! pool     all cells on one machine after another     session  the time with one machine's agent
//! conduct  judges what an agent says                  ledger   knows which cells still have to report
//! proof    remembers that guests run on a kind of machine
//! ```

mod conduct;
mod frozen;
mod gce;
mod host;
mod ledger;
mod place;
mod pool;
mod proof;
mod qemu;
mod session;
mod size;
mod ssh;
#[cfg(test)]
mod tests;

/// Catalog name of the image that is made for L1s.
pub(crate) const L1_IMAGE: &str = "debian-13-runner";

pub(crate) use frozen::Forked;
pub(crate) use gce::{
    Baked, CacheDisk, Cloud, Found as FoundInstance, GcePlace, Mark, Recipe, Whose, bake, census,
    delete as delete_instance, intend, note, owner, still_held, sweep,
};
pub(crate) use host::HostPlace;
pub(crate) use ledger::Ledger;
pub(crate) use place::Feed;
pub(crate) use pool::RunnerPool;
pub(crate) use proof::Proofs;
pub(crate) use qemu::{L1Spec, QemuPlace};
pub(crate) use session::longest_silence;
pub(crate) use size::{Supply, TooLarge, size};
pub(crate) use ssh::{Found, Kvm, SshPlace, Way, look};
