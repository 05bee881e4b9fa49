//! Part of a plan: the cells whose id matches `--cell GLOB`.

use std::collections::HashSet;

use crate::{Cell, CellId, Digest, Plan, near, text};

/// No plan can be made of the selected cells.
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
    /// No cell matches some of the patterns.
    #[error("no cell of the plan matches {}", .globs.join(" or "))]
    Nothing {
        /// These patterns.
        globs: Vec<String>,
        /// Similar ids, nearest first; may be empty.
        near: Vec<String>,
    },
}

impl Plan {
    /// The cell of this id.
    pub fn cell(&self, id: &CellId) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.id == *id)
    }

    /// The plan with only the cells whose id matches any of these globs (`debian-12*`, `*.smoke*`), under its own digest.
    ///
    /// # Errors
    ///
    /// One of them is not a glob, or matches no cell: the user would miss a verdict.
    pub fn select<S: AsRef<str>>(&self, globs: &[S]) -> Result<Self, SelectError> {
        let compile = |glob: &S| {
            let glob = glob.as_ref();
            text::name_glob(glob).map_err(|reason| SelectError::Glob { glob: glob.to_owned(), reason })
        };
        let matchers = globs.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<_> = self.cells.iter().map(|cell| cell.id.as_str()).collect();
        let in_vain = globs.iter().zip(&matchers).filter(|(_, matcher)| !ids.iter().any(|id| matcher.is_match(id)));
        let in_vain: Vec<_> = in_vain.map(|(glob, _)| glob.as_ref().to_owned()).collect();
        if !in_vain.is_empty() || globs.is_empty() {
            let mut near =
                in_vain.iter().flat_map(|glob| near::names(glob.trim_matches('*'), &ids)).collect::<Vec<_>>();
            near.dedup();
            return Err(SelectError::Nothing { globs: in_vain, near });
        }
        let is_wanted = |cell: &&Cell| matchers.iter().any(|matcher| matcher.is_match(cell.id.as_str()));
        let mut plan = Self { cells: self.cells.iter().filter(is_wanted).cloned().collect(), ..self.clone() };
        plan.keep_what_is_used();
        Ok(plan)
    }

    /// The key of the script of every cell and of every image that has one, with repetitions.
    pub(crate) fn script_uses(&self) -> impl Iterator<Item = Digest> {
        let prepares = self.images.iter().filter_map(|image| image.prepare.as_ref()?.script);
        self.cells.iter().map(|cell| cell.script).chain(prepares)
    }

    /// Drops unused images, repositories and scripts, and stamps the plan with its digest.
    pub(crate) fn keep_what_is_used(&mut self) {
        let images: HashSet<_> = self.cells.iter().map(|cell| cell.image.as_str()).collect();
        self.images.retain(|image| images.contains(image.name.as_str()));
        for repository in &mut self.repositories {
            repository.images.retain(|image| images.contains(image.as_str()));
        }
        self.repositories.retain(|repository| !repository.images.is_empty());
        let scripts: HashSet<_> = self.script_uses().collect();
        self.scripts.retain(|digest, _| scripts.contains(digest));
        self.digest = self.fingerprint();
    }
}
