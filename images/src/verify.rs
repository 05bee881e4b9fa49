//! Verifies the store: reads every byte and compares it with what was put there.

use matrix::Digest;
use rayon::prelude::*;

use crate::{
    Entry, Store, build,
    error::{Failure, PrepareError, PrepareErrorKind},
    gc::files,
    prepared::Unusable,
};

/// An image that was read, and its content's digest.
#[derive(Debug)]
pub struct Verified {
    /// The name it was made under.
    pub name: String,
    /// The result.
    pub found: Result<Digest, PrepareError>,
}

impl Store {
    /// Reads every byte of an image in the store and compares it with what was put there.
    ///
    /// # Errors
    ///
    /// It is not there, or damaged.
    pub fn verify(&self, entry: &Entry) -> Result<Digest, PrepareError> {
        self.read_all_of(build::recipe(entry), &entry.name)
    }

    /// The same for all images in the store, in parallel. Each is reported as soon as it is read. One whose name is lost, because
    /// its record is damaged, is reported by its recipe's digest.
    pub fn verify_all(&self, tell: &(dyn Fn(&Verified) + Sync)) -> Vec<Verified> {
        let pointers = files(&self.root().join("recipes"), "json");
        let verified = pointers.into_par_iter().filter_map(|path| {
            let recipe: Digest = format!("sha256:{}", path.file_stem()?.to_str()?).parse().ok()?;
            let name = self.pointer(recipe).map_or_else(|_| recipe.short(), |pointer| pointer.name);
            let verified = Verified { found: self.read_all_of(recipe, &name), name };
            tell(&verified);
            Some(verified)
        });
        verified.collect()
    }

    fn read_all_of(&self, recipe: Digest, name: &str) -> Result<Digest, PrepareError> {
        let read = || {
            let (record, folder, _lease) = self.find(recipe).map_err(|why| match why {
                None => PrepareErrorKind::Absent,
                Some(why) => PrepareErrorKind::Broken { why },
            })?;
            match record.check(&folder, true) {
                Ok(()) => Ok(record.content),
                Err(Unusable::Damaged(kind)) => Err(kind),
                // A user's own file: changing it is not damage.
                Err(Unusable::Rebuild(_)) if record.files.iter().any(|file| file.at.is_some()) => {
                    Err(PrepareErrorKind::Absent)
                }
                Err(Unusable::Rebuild(why)) => Err(PrepareErrorKind::Broken { why }),
            }
        };
        read().map_err(|kind: PrepareErrorKind| Failure::from(kind).about(name))
    }
}
