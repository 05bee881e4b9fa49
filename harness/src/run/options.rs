//! What the command line asks of a run besides its plan.

use std::{path::PathBuf, sync::Arc};

use images::Catalog;
use matrix::ByteSize;

use super::recorder::MessageFormat;
use crate::{
    fanout::{Keep, Purpose},
    package_lock::Locking,
};

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for the results; `None`: a new one.
    pub out: Option<PathBuf>,
    /// The store.
    pub store: PathBuf,
    /// What can be asked for by name.
    pub catalog: Catalog,
    /// What is odd about that, to be said once.
    pub notes: Vec<String>,
    /// No image is downloaded or built.
    pub offline: bool,
    /// Which packages guests may get from repositories.
    pub locking: Arc<Locking>,
    /// At most so many guests at once; `None`: as many as fit.
    pub jobs: Option<usize>,
    /// Every guest is booted, none forked.
    pub cold: bool,
    /// What templates may take on the disk together.
    pub templates: ByteSize,
    /// Which guests are kept.
    pub keep: Keep,
    /// How far a cell goes.
    pub purpose: Purpose,
    /// What is printed.
    pub format: MessageFormat,
}
