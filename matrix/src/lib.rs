//! What to run: the matrix file, validated and expanded into a [`Plan`].
//!
//! This crate reads the matrix file and the files it names (scripts, artifacts), unpacks the shipped matrices, and does nothing
//! else: it starts no process, opens no socket, and knows nothing of QEMU, SSH or reports. A [`Plan`] contains no invalid cell.
//!
//! [`load`] runs all steps: `parse` (text to the types of `file`, which keep every value's place), `validate` (to a matrix that
//! is correct in itself), `payload` (the files it names), `expand` (to cells). All mistakes are collected on the way, so that one
//! [`LoadError`] reports all of them.

// First, because the others use its macro.
#[macro_use]
mod written;

mod checksum;
mod deb;
mod digest;
mod disks;
mod error;
mod exclude;
mod expand;
mod file;
mod find;
mod fingerprint;
mod gce;
mod gce_runner;
pub mod gce_value;
mod guest;
mod host_pattern;
mod id;
mod key;
mod load;
mod located;
mod near;
mod network;
mod parse;
mod payload;
mod plan;
mod prepare;
mod quantity;
mod read;
mod repositories;
mod repository;
mod rules;
mod runner;
mod scalar;
mod schema;
mod script;
mod select;
mod shipped;
mod size;
mod snippet;
mod source;
mod ssh_host;
mod ssh_runner;
mod step;
mod steps;
mod stored;
mod system;
mod template;
mod text;
mod validate;

pub use checksum::{Checksum, ChecksumParseError};
pub use digest::{Digest, DigestParseError};
pub use error::{LoadError, LoadWarning, Problem};
pub use gce::{GceImage, GceOverrides, GceRunner};
pub use gce_value::GceValueError;
pub use host_pattern::{HostPattern, HostPatternError};
pub use id::CellIdParseError;
pub use load::{Loaded, load};
pub use near::help as near_help;
pub use network::{Network, NetworkRules, Unexpected};
pub use plan::{
    Artifact, Boot, Cell, CellId, DataDisk, Dependencies, Guest, Identity, Image, ImageSource, InstallFrom, Location,
    Package, Plan, Prepare, Results, Runner, RunnerKind, SuiteOptions, Timeouts, UploadFile,
};
pub use repository::{Repository, RepositoryKey};
pub use schema::schema;
pub use select::SelectError;
pub use shipped::{shipped, unpack_shipped};
pub use size::{ByteSize, ByteSizeParseError};
pub use ssh_host::{SshHost, SshHostError};
pub use step::Step;
pub use stored::{PlanFileError, PlanFileErrorKind};
pub use system::{Arch, DiskInterface, Firmware, PackageFamily};
