//! A plan on disk (`plan.json`): what a later report or a resumed run starts from.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use crate::{CellId, Digest, GceValueError, Plan, RunnerKind, read::read_file, step, text};

/// Maximum length of `plan.json`, in bytes.
const MAX_PLAN_BYTES: u64 = 4 << 30;

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
    /// A script that a cell or an image refers to is missing.
    #[error("the text of the script {0} is missing")]
    Script(Digest),
    /// Its steps are invalid.
    #[error("cell {0}: {1}")]
    Steps(CellId, String),
    /// A package to install has an invalid name: it could be an option of the package manager.
    #[error("{0:?} is not the name of a package")]
    Package(String),
    /// A third-party repository could not be given to a guest as it is: its name and that of its key become names of files.
    #[error("the repository {0:?}: {1}")]
    Repository(String, &'static str),
    /// Its runner `gce` is described for another kind, or not at all.
    #[error("`runner.gce` and `runner.kind` contradict each other")]
    Runner,
    /// A value of its runner `gce` is invalid: it could end up in another request than the one meant.
    #[error("`runner.gce`: {0}")]
    Gce(#[from] GceValueError),
}

impl Plan {
    /// Writes the plan as JSON, under a temporary name first: no half plan is ever visible.
    pub fn write(&self, path: &Path) -> Result<(), PlanFileError> {
        write(self, path).map_err(|kind| PlanFileError { path: path.to_owned(), kind })
    }

    /// Reads a plan back, and verifies its digest.
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
        // The first error is the relevant one.
        let _ = fs::remove_file(&temporary);
    }
    Ok(written?)
}

fn read(path: &Path) -> Result<Plan, PlanFileErrorKind> {
    let plan: Plan = serde_json::from_slice(&read_file(path, MAX_PLAN_BYTES)?)?;
    match plan.fingerprint() {
        found if found == plan.digest => check(&plan).map(|()| plan),
        found => Err(PlanFileErrorKind::Digest { said: plan.digest, found }),
    }
}

/// Checks what the types alone do not guarantee for a plan that was read.
fn check(plan: &Plan) -> Result<(), PlanFileErrorKind> {
    let is_text = |digest: &Digest| plan.scripts.get(digest).is_some_and(|text| Digest::of(text.as_bytes()) == *digest);
    if let Some(missing) = plan.script_uses().collect::<BTreeSet<_>>().into_iter().find(|digest| !is_text(digest)) {
        return Err(PlanFileErrorKind::Script(missing));
    }
    if let Some((cell, fault)) = plan.cells.iter().find_map(|cell| Some((cell, step::fault(&cell.options.steps)?))) {
        return Err(PlanFileErrorKind::Steps(cell.id.clone(), fault.message));
    }
    if plan.runner.gce.is_some() != (plan.runner.kind == RunnerKind::Gce) {
        return Err(PlanFileErrorKind::Runner);
    }
    plan.runner.gce.as_ref().map_or(Ok(()), |gce| gce.check())?;
    if let Some((repository, fault)) = plan.repositories.iter().find_map(|it| Some((it, it.fault()?))) {
        return Err(PlanFileErrorKind::Repository(repository.name.clone(), fault));
    }
    let mut packages =
        plan.images.iter().filter_map(|image| image.prepare.as_ref()).flat_map(|prepare| &prepare.packages);
    match packages.find(|name| !text::is_package(name)) {
        Some(bad) => Err(PlanFileErrorKind::Package(bad.clone())),
        None => Ok(()),
    }
}
