//! The images of a run as they come in.

use std::{collections::HashMap, sync::Arc};

use images::{Entry, PreparedImage};
use matrix::Digest;
use reports::Trouble;

use super::image_phase::{Prepared, Preparing, missing};
use crate::fanout::{BootImage, FetchSource};

/// Images that are there or unavailable, and those that are still being prepared.
pub(super) struct Arriving {
    preparing: Preparing,
    prepared: Prepared,
    /// What a run that is resumed began with.
    began_with: HashMap<String, Digest>,
    /// Where others can fetch them.
    sources: HashMap<String, FetchSource>,
}

impl Arriving {
    /// `refused` are unavailable, whatever is prepared of `entries`.
    pub(super) fn new(
        preparing: Preparing,
        entries: &[(String, Entry)],
        refused: Prepared,
        began_with: HashMap<String, Digest>,
    ) -> Self {
        let sources =
            entries.iter().filter_map(|(name, entry)| Some((name.clone(), FetchSource::of(entry)?))).collect();
        Self { preparing, prepared: refused, began_with, sources }
    }

    /// Waits for the next one, by name; `None`: all are in. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        let (name, image) = self.preparing.next().await?;
        let image = image.and_then(|image| self.same(&name, image));
        self.prepared.insert(name.clone(), image);
        Some(name)
    }

    /// None is to come.
    pub(super) fn all_are_in(&self) -> bool {
        self.preparing.is_over()
    }

    /// Those that are in.
    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Those that are there, as guests are started from them.
    pub(super) fn boot_images(&self) -> impl Iterator<Item = (String, BootImage)> {
        self.prepared.iter().filter_map(|(name, image)| {
            let image = Arc::clone(image.as_ref().ok()?);
            Some((name.clone(), BootImage::of(image, self.sources.get(name).cloned())))
        })
    }

    /// Not an image that the run did not begin with: verdicts of two systems must not stand in one report as if of one.
    fn same(&self, name: &str, image: Arc<PreparedImage>) -> Result<Arc<PreparedImage>, Trouble> {
        match self.began_with.get(name) {
            Some(then) if *then != image.digest => {
                let (then, now) = (then.short(), image.digest.short());
                Err(missing(format!("digest mismatch: {name} was {then} when the run began, and is {now} now"))
                    .with_help("start a new run; or put back the file, or the `images.lock`, that it began with"))
            }
            _ => Ok(image),
        }
    }
}
