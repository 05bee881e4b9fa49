//! Which disk: the catalog of operating-system images and the store they are kept in.
//!
//! This crate makes an image exist and proves that it is what it should be. It boots nothing and knows nothing of cells,
//! suites or SSH; of frozen guests it only keeps the files ([`Templates`]); what a booted guest needs from its image is written down in [`seed`].
//!
//! ```text
//! Catalog -> Entry -> Store::prepare -> PreparedImage
//!                       |-- fetch      downloads a published one, in place of building it
//!                       |-- recipe     what is added to an unmodified system, and the digest of it
//!                       |-- bootstrap  builds it (mirror: from where; tool: with what; site: in which folder)
//!                       `-- prepared   what is recorded of it, checked each time
//! ```

#[cfg(test)]
mod alone;
mod bootstrap;
mod catalog;
mod checksum;
mod error;
pub mod fetch;
mod lock;
mod mirror;
mod prepared;
mod recipe;
pub mod seed;
mod site;
mod space;
mod store;
mod templates;
mod tool;

pub use catalog::{Catalog, Entry, PackageFamily, Suite};
pub use checksum::{Checksum, ChecksumParseError};
pub use error::{Mismatch, PrepareError, PrepareErrorKind, StoreError, StoreErrorKind};
pub use prepared::PreparedImage;
pub use recipe::DISK_BYTES;
pub use store::{Control, ImageStatus, PresentImage, Store};
pub use templates::{Begun, Template, TemplateError, Templates, Unfinished};
