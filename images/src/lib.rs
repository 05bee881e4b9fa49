//! Which disk: the catalog of operating-system images and the store they are kept in.
//!
//! This crate makes an image exist and proves that it is what it should be. It boots nothing and knows nothing of cells,
//! suites or SSH; of frozen guests it only keeps the files ([`Templates`]); what a booted guest needs from its image is written down in [`seed`].
//!
//! ```text
//! Catalog -> Entry -> Store::prepare -> PreparedImage
//!                       |-- build      which maker, and the digest of all that decides what it makes
//!                       |-- bootstrap  builds a system of packages (recipe: what is added to it; mirror: from where)
//!                       |-- published  takes what somebody else made (fetch: downloads it; disk: looks at it before QEMU does)
//!                       |-- rootfs     makes a system without a kernel bootable (boot_files: with what)
//!                       `-- prepared   what is recorded of it, checked each time (build_dir: made in which folder; tool: with what)
//! ```

#[cfg(test)]
mod alone;
mod bootstrap;
mod build;
mod build_dir;
mod catalog;
mod disk;
mod entry;
mod error;
pub mod fetch;
mod foreign;
pub mod gc;
mod lock;
mod mirror;
mod packed;
mod pins;
mod prepared;
mod published;
mod recipe;
mod rootfs;
pub mod seed;
mod space;
mod store;
mod templates;
mod tool;
pub mod update;
mod verify;

pub use catalog::{Catalog, CatalogError};
pub use disk::DiskFormat;
pub use entry::{Bootstrap, ChecksumFile, Entry, Origin, Published, Signature, Source, Suite, Upstream};
pub use error::{Mismatch, PrepareError, PrepareErrorKind, StoreError, StoreErrorKind};
pub use pins::{Change, Pin, Pins, PinsError};
pub use prepared::{Kernel, PreparedImage, Start};
pub use recipe::DISK_BYTES;
pub use store::{Control, PresentImage, Store};
pub use templates::{Begun, Template, TemplateError, Templates, Unfinished};
pub use verify::Verified;
