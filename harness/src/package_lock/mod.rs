//! `repositories.lock`: which packages guests got from repositories, and are to get again.
//!
//! ```text
//! file       the file beside the matrix: read, sorted, written
//! locking    what a run does with it, as every place is told: nothing, record, keep
//! snapshots  who has its repositories as they were                   (pure)
//! changes    what is different between two locks, in a line          (pure)
//! ```
//!
//! What a guest may get is decided in its proxy (`egress::Pins`), and what it got is seen by `run`; nothing here knows of either.

mod changes;
mod file;
mod locking;
mod snapshots;

pub(crate) use changes::words as changes;
pub use file::{LockFile, LockedImage};
pub use locking::Locking;
pub(crate) use snapshots::{is_allowed, is_release, snapshots};
