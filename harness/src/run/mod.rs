//! One run, from plan to exit code.
//!
//! The run's folder holds what people read (`folder`). Everything that happens goes through the one `recorder`; `signals`
//! turns Ctrl-C into a stop; images come in one by one (`arriving`, handed on by `feed`), and `settle` reports the cells of those that do not; `foreign` sees to guests of another kind of CPU; `place` decides where the guests run, within the `limits` of this machine; `renew_lock` pins what they got (`resolved`).

mod arriving;
mod error;
mod feed;
mod folder;
mod foreign;
mod image_phase;
mod limits;
mod options;
mod orchestrate;
mod place;
mod recorder;
mod renew_lock;
mod resolved;
mod settle;
mod signals;

pub use error::RunError;
pub use folder::{RunFolder, locate};
pub use image_phase::{FetchPolicy, Prepared, Preparing};
pub use options::Options;
pub use orchestrate::{Finished, Start, run};
pub use recorder::{MessageFormat, Recorder, style as terminal_style};
pub(crate) use renew_lock::renew_lock;
pub(crate) use signals::interruption;
pub use signals::listen;
