//! From what was typed to a plan.

use std::{collections::BTreeMap, path::PathBuf};

use matrix::{Plan, SelectError};

use super::{
    Failure,
    args::Which,
    catalog::{self, Known},
};

/// Where the shipped matrices are unpacked, below the store.
const SHIPPED: &str = "matrices";

/// The file that `which` means: a file as it stands, else a matrix that is shipped, unpacked into the store.
fn resolve(which: &Which) -> Result<PathBuf, Failure> {
    let matrix = &which.matrix;
    // A folder of that name is no matrix.
    let name = matrix.to_str().filter(|name| !name.contains(['/', '.']) && !matrix.is_file());
    let Some(name) = name.filter(|name| matrix::shipped().any(|shipped| shipped == *name)) else {
        return Ok(matrix.clone());
    };
    let store = which.store.path()?.join(SHIPPED);
    let unpacked = std::path::absolute(&store).and_then(|store| matrix::unpack_shipped(name, &store));
    match unpacked {
        Ok(file) => {
            // Without a file name this is the default, and its green says nothing about the user's package.
            say!("`{name}` is a sample matrix that nestmatrix ships; to test a package of yours, name its matrix file");
            Ok(file.unwrap_or_else(|| matrix.clone()))
        }
        Err(error) => {
            let help = "name a store that can be written to: `--store DIR`, or NESTMATRIX_STORE";
            let message = format!("cannot unpack the matrix {name} into {}: {error}", store.display());
            Err(catalog::with_help(&message, help))
        }
    }
}

/// A matrix, expanded, and the catalog its images are from.
pub(super) struct Loaded {
    pub(super) plan: Plan,
    pub(super) known: Known,
    /// Images of which some cells were selected and others were not.
    pub(super) in_part: Vec<String>,
}

/// The same of a matrix whose guests are to run: all of its images are available on this machine.
pub(super) fn load_to_run(which: &Which) -> Result<Loaded, Failure> {
    let loaded = load(which)?;
    loaded.known.refuse_undigested(&loaded.plan)?;
    Ok(loaded)
}

/// Loads the matrix, prints its warnings, and selects the cells asked for.
pub(super) fn load(which: &Which) -> Result<Loaded, Failure> {
    let file = resolve(which)?;
    if !file.exists() {
        let names = matrix::shipped().collect::<Vec<_>>().join("`, `");
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
        say!("{:?}", miette::Report::new(warning));
    }
    let whole = cells_by_image(&loaded.plan);
    let plan = match which.cells.is_empty() {
        true => loaded.plan,
        false => loaded.plan.select(&which.cells).map_err(not_selected)?,
    };
    let in_part = cells_by_image(&plan).into_iter().filter(|(image, cells)| whole.get(image) != Some(cells));
    let in_part = in_part.map(|(image, _)| image).collect();
    Ok(Loaded { plan, known, in_part })
}

fn cells_by_image(plan: &Plan) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    plan.cells.iter().for_each(|cell| *counts.entry(cell.image.clone()).or_default() += 1);
    counts
}

fn not_selected(error: SelectError) -> Failure {
    let help = match &error {
        SelectError::Nothing { near, .. } if !near.is_empty() => format!("did you mean `{}`?", near.join("` or `")),
        _ => "`nestmatrix plan MATRIX` lists the cells; write `*` for any characters".to_owned(),
    };
    catalog::with_help(&error, &help)
}
