//! What is done in a guest once SSH stands: upload, install, run, collect.
//!
//! Everything is plain `sh` over one SSH session and needs nothing in the guest but a POSIX shell and `tar`. Everything that
//! comes back is untrusted: sizes are bounded, and nothing a guest sends can name a place outside the folder it is
//! collected into.

mod collect;
mod deb;
mod first_boot;
mod guarded;
mod install;
mod quote;
mod suite;
mod unpack;
mod upload;
mod words;

pub use collect::{CollectError, Collected, Collection, Limits, ResultFiles, collect, collect_results};
pub use first_boot::{FirstBootError, complaint, first_boot};
pub use install::{Install, InstallError, PackageFamily, install, install_by_name, rehearsal};
pub use quote::script_with as script;
pub use suite::{Suite, SuiteOutcome, SuiteRun, run};
pub use upload::{Upload, UploadError, upload};
