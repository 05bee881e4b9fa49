//! Which disk: the catalog of operating-system images, and their store.
//!
//! This crate makes an image exist and proves that it is what it should be. It boots nothing and knows nothing of cells, suites
//! or SSH. It stores the files of frozen guests ([`Templates`]) without knowing their content; [`seed`] specifies what a booted
//! guest needs from its image.
//!
//! ```text
//! Catalog -> Entry -> Store::prepare -> PreparedImage
//!                       |-- build      which maker, and the digest of everything that decides the result
//!                       |-- bootstrap  builds a system from packages (recipe: what is added; mirror: from where)
//!                       |-- published  takes a disk that others made (fetch: downloads it; disk: inspects it before QEMU does)
//!                       |-- rootfs     makes a system without a kernel bootable (boot_files: with what)
//!                       `-- prepared   its record, checked each time (build_dir: where it is made; tool: with what)
//! ```

#[cfg(test)]
mod alone;
mod bootstrap;
mod build;
mod build_dir;
mod catalog;
pub mod committed;
mod disk;
mod entry;
mod error;
pub mod fetch;
mod foreign;
pub mod gc;
mod lock;
mod mirror;
mod packages;
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
pub use packages::packages;
pub use pins::{Change, Pin, Pins};
pub use prepared::{Kernel, PreparedImage, Start};
pub use recipe::DISK_BYTES;
pub use store::{Control, PresentImage, Store};
pub use templates::{Begun, Template, TemplateError, Templates, Unfinished};
pub use verify::Verified;
