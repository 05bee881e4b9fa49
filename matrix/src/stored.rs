//! A plan on disk (`plan.json`): what a later report or a resumed run starts from.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use crate::{Digest, Plan};

/// `plan.json` could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("plan {}: {kind}", .path.display())]
pub struct PlanFileError {
    /// The file.
    pub path: PathBuf,
    /// What happened.
    pub kind: PlanFileErrorKind,
}

/// What happened to a plan file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFileErrorKind {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a plan of this version of nestmatrix.
    #[error("not a plan written by this version of nestmatrix: {0}")]
    Format(#[from] serde_json::Error),
    /// It was changed after it was written.
    #[error("changed after it was written: it says {said}, its content is {found}")]
    Digest {
        /// The digest it carries.
        said: Digest,
        /// The digest of its content.
        found: Digest,
    },
}

impl Plan {
    /// Writes the plan as JSON, under a temporary name first: half a plan is never seen.
    pub fn write(&self, path: &Path) -> Result<(), PlanFileError> {
        write(self, path).map_err(|kind| PlanFileError { path: path.to_owned(), kind })
    }

    /// Reads a plan back, and checks that it is the one that was written.
    pub fn read(path: &Path) -> Result<Self, PlanFileError> {
        read(path).map_err(|kind| PlanFileError { path: path.to_owned(), kind })
    }
}

fn write(plan: &Plan, path: &Path) -> Result<(), PlanFileErrorKind> {
    let temporary = path.with_extension("json.part");
    let mut file = BufWriter::new(File::create(&temporary)?);
    let written = serde_json::to_writer_pretty(&mut file, plan)
        .map_err(io::Error::from)
        .and_then(|()| file.flush())
        .and_then(|()| file.get_ref().sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one worth telling.
        let _ = fs::remove_file(&temporary);
    }
    Ok(written?)
}

fn read(path: &Path) -> Result<Plan, PlanFileErrorKind> {
    let plan: Plan = serde_json::from_slice(&fs::read(path)?)?;
    match plan.fingerprint() {
        found if found == plan.digest => Ok(plan),
        found => Err(PlanFileErrorKind::Digest { said: plan.digest, found }),
    }
}
