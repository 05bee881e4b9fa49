//! Part of a plan: the cells whose id matches what was asked for (`--cell GLOB`).

use std::collections::HashSet;

use globset::{Glob, GlobSetBuilder};

use crate::{Cell, CellId, Digest, Plan, near};

/// The cells asked for cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A pattern is not a glob.
    #[error("`{glob}` is not a glob: {reason}")]
    Glob {
        /// The pattern.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No cell matches any pattern.
    #[error("no cell of the plan matches {}", .globs.join(" or "))]
    Nothing {
        /// The patterns.
        globs: Vec<String>,
        /// Ids that look like what was meant, nearest first; may be empty.
        near: Vec<String>,
    },
}

impl Plan {
    /// The cell of this id.
    pub fn cell(&self, id: &CellId) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.id == *id)
    }

    /// The plan of those cells alone whose id matches any of these globs (`debian-12*`, `*.smoke*`), under its own digest.
    pub fn select<S: AsRef<str>>(&self, globs: &[S]) -> Result<Self, SelectError> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let bad = |error: globset::Error| SelectError::Glob {
                glob: glob.as_ref().to_owned(),
                reason: error.kind().to_string(),
            };
            set.add(Glob::new(glob.as_ref()).map_err(bad)?);
        }
        let all = || globs.iter().map(|glob| glob.as_ref().to_owned()).collect::<Vec<_>>();
        let set = set
            .build()
            .map_err(|error| SelectError::Glob { glob: all().join(" "), reason: error.kind().to_string() })?;
        let cells: Vec<_> = self.cells.iter().filter(|cell| set.is_match(cell.id.as_str())).cloned().collect();
        if cells.is_empty() {
            let ids: Vec<_> = self.cells.iter().map(|cell| cell.id.as_str()).collect();
            let mut near = all().iter().flat_map(|glob| near::names(glob.trim_matches('*'), &ids)).collect::<Vec<_>>();
            near.dedup();
            return Err(SelectError::Nothing { globs: all(), near });
        }
        let mut plan = Self { cells, ..self.clone() };
        plan.keep_what_is_used();
        Ok(plan)
    }

    /// The key of the script of every cell and of every image that has one, with repetitions.
    pub(crate) fn script_uses(&self) -> impl Iterator<Item = Digest> {
        let prepares = self.images.iter().filter_map(|image| image.prepare.as_ref()?.script);
        self.cells.iter().map(|cell| cell.script).chain(prepares)
    }

    /// Drops images that no cell uses and scripts that nothing uses, and stamps the plan with its digest.
    pub(crate) fn keep_what_is_used(&mut self) {
        let images: HashSet<_> = self.cells.iter().map(|cell| cell.image.as_str()).collect();
        self.images.retain(|image| images.contains(image.name.as_str()));
        let scripts: HashSet<_> = self.script_uses().collect();
        self.scripts.retain(|digest, _| scripts.contains(digest));
        self.digest = self.fingerprint();
    }
}
