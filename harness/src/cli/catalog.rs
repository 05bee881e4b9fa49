//! The catalog a verb works with: the shipped one, one of the user's own on top of it, and what is pinned beside the matrix.

use std::path::{Path, PathBuf};

use images::{Catalog, Entry, Origin, Pins, Published, Source};
use matrix::{ImageSource, Plan};

use super::{Failure, args::CatalogFile};

/// What can be asked for by name.
pub(super) struct Known {
    /// The shipped catalog with the user's own, as they are written.
    pub(super) plain: Catalog,
    /// The same with what is pinned.
    pub(super) catalog: Catalog,
    /// What is pinned; `None`: there is no `images.lock`.
    pub(super) pins: Option<Pins>,
    /// Where `images.lock` is or would be.
    pub(super) lock: PathBuf,
}

/// Reads what there is beside this matrix file, or, without one, in the current folder.
pub(super) fn read(own: &CatalogFile, matrix: Option<&Path>) -> Result<Known, Failure> {
    let beside = |name: &str| matrix.map_or_else(|| PathBuf::from(name), |matrix| matrix.with_file_name(name));
    let file = match &own.catalog {
        Some(file) => Some(file.clone()),
        None => Some(beside(Catalog::FILE)).filter(|file| is_there(file)),
    };
    let plain = match file {
        Some(file) => Catalog::shipped().with_file(&file).map_err(|error| with_help(&error, &error.help))?,
        None => Catalog::shipped().clone(),
    };
    let lock = beside(Pins::FILE);
    // A pipe of that name would be waited for, and a link to nowhere is not the same as no lock: other images would run.
    if is_there(&lock) && !lock.is_file() {
        let message = format!("{}: cannot be read: not a file", lock.display());
        return Err(with_help(
            &message,
            "remove it, or put the lock back; `nestmatrix images update MATRIX` writes a new one",
        ));
    }
    let pins = Pins::read(&lock).map_err(|error| with_help(&error, &error.help))?;
    let catalog = pins.as_ref().map_or_else(|| plain.clone(), |pins| plain.pinned(pins));
    Ok(Known { plain, catalog, pins, lock })
}

/// Something has this name, whether it can be read or not: what cannot be read must not count as absent.
fn is_there(file: &Path) -> bool {
    !matches!(file.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// A mistake of the user's, with its remedy.
pub(super) fn with_help(error: &dyn std::fmt::Display, help: &str) -> Failure {
    Failure::usage(miette::miette!(help = help.to_owned(), "{error}"))
}

impl Known {
    /// Refuses a plan with an image of which nobody says what should come: no guest of it could ever be started.
    pub(super) fn refuse_undigested(&self, plan: &Plan) -> Result<(), Failure> {
        let names = downloads(&self.catalog, plan, |_, file| file.digest.is_none());
        if names.is_empty() {
            return Ok(());
        }
        let (matrix, names) = (plan.matrix.display(), names.join(", "));
        let error = format!("{matrix}: no digest in the catalog for {names}: what is downloaded could not be checked");
        let lock = self.lock.display();
        let help = format!("`nestmatrix images update {matrix}` pins what their publisher states, in {lock}");
        Err(with_help(&error, &help))
    }

    /// Published images of the plan that are missing in a lock that is there, said in one line; `None`: there are none.
    pub(super) fn unpinned(&self, plan: &Plan) -> Option<String> {
        let pins = self.pins.as_ref()?;
        let names = downloads(&self.plain, plan, |entry, _| pins.get(&entry.name, entry.arch).is_none());
        (!names.is_empty()).then(|| {
            format!(
                "not in {}, so taken as the catalog has them: {}; `nestmatrix images update {}` pins them",
                self.lock.display(),
                names.join(", "),
                plan.matrix.display()
            )
        })
    }
}

/// Names of the plan's images that are downloaded as the catalog says, and are `so`: sorted, each once.
fn downloads<'a>(catalog: &Catalog, plan: &'a Plan, so: impl Fn(&Entry, &Published) -> bool) -> Vec<&'a str> {
    let used = plan.images.iter().filter(|image| image.source == ImageSource::Catalog);
    let is_meant = |name: &str| {
        catalog.get(name).is_some_and(|entry| match &entry.source {
            Source::Disk { file, .. } => matches!(file.origin, Origin::Urls(_)) && so(entry, file),
            Source::Bootstrap(_) | Source::Rootfs(_) => false,
        })
    };
    let mut names: Vec<&str> = used.map(|image| image.from.as_str()).filter(|name| is_meant(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}
