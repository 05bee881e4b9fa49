//! What is done in a guest once SSH stands: upload, install, run, collect.
//!
//! Everything is plain `sh` over one SSH session and needs nothing in the guest but a POSIX shell, `cat`, `chmod`, `ls`, `mkdir` and
//! `rm`. Everything that comes back is untrusted: sizes are bounded, and nothing a guest sends can name a place outside the folder it is
//! collected into. What differs between package managers is in `family`.

mod boot_over;
mod collect;
mod facts;
mod family;
mod file_name;
mod first_boot;
mod frames;
mod guarded;
mod install;
mod installed;
mod interpreter;
mod inventory;
mod network;
mod own_repository;
mod quote;
mod reboot;
mod repositories;
mod signer;
mod suite;
mod upload;
#[cfg(test)]
mod upload_tests;
mod version;
mod warnings;
mod words;

pub use boot_over::{AfterBoot, STARTING, boot_over};
pub use collect::{CollectError, Collected, Collection, Limits, ResultFiles, collect, collect_results, remove_results};
pub use facts::{read as read_facts, script as facts_script};
pub use family::{UNKNOWN_FAMILY, detect_family, install_by_name, left_out, rehearsal, rehearsals};
pub use first_boot::{FirstBootError, complaint, first_boot};
pub use install::{Install, InstallError, Survey, failed_script, get_dependencies, install, survey};
pub use installed::{Installed, another_version};
pub use own_repository::serve_artifacts;
pub use quote::script_with as script;
pub(crate) use quote::word;
pub use reboot::{NO_REBOOT, announced, reboot};
pub use repositories::{add_repository, proxy_environment, repositories};
pub use suite::{Suite, SuiteOutcome, SuiteRun, run};
pub use upload::{Upload, UploadError, survives, upload};
