//! From what was typed to a plan.

use std::path::{Path, PathBuf};

use matrix::Plan;

use super::{
    Failure,
    args::Which,
    catalog::{self, Known},
};

/// Matrices that come with the source.
fn definitions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../matrix/definitions")
}

/// The file that `matrix` means: a path as it stands, else the name of a shipped definition.
fn resolve(matrix: &Path) -> PathBuf {
    let is_name = matrix.extension().is_none() && matrix.components().count() == 1;
    let shipped = definitions().join(matrix).with_extension("toml");
    if is_name && !matrix.exists() && shipped.is_file() {
        shipped.canonicalize().unwrap_or(shipped)
    } else {
        matrix.to_owned()
    }
}

/// Names of the shipped definitions.
fn shipped() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(definitions())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// A matrix, expanded, and the catalog its images are from.
pub(super) struct Loaded {
    pub(super) plan: Plan,
    pub(super) known: Known,
}

/// The same of a matrix whose guests are to run: all of its images can be had.
pub(super) fn load_to_run(which: &Which) -> Result<Loaded, Failure> {
    let loaded = load(which)?;
    loaded.known.refuse_undigested(&loaded.plan)?;
    Ok(loaded)
}

/// Loads the matrix, prints its warnings, and selects the cells asked for.
pub(super) fn load(which: &Which) -> Result<Loaded, Failure> {
    let file = resolve(&which.matrix);
    if !file.exists() {
        let names = shipped().join("`, `");
        let report = miette::miette!(
            help = format!("name a matrix file, or one of the shipped matrices: `{names}`"),
            "there is no matrix file {}",
            file.display()
        );
        return Err(Failure::usage(report));
    }
    let known = catalog::read(&which.catalog, Some(&file))?;
    let loaded = matrix::load(&file, &known.catalog.names()).map_err(Failure::usage)?;
    for warning in loaded.warnings {
        eprintln!("{:?}", miette::Report::new(warning));
    }
    let plan = match which.cells.is_empty() {
        true => loaded.plan,
        false => loaded.plan.select(&which.cells).map_err(|error| Failure::message(2, error))?,
    };
    Ok(Loaded { plan, known })
}
