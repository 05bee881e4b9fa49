//! What a run does with `repositories.lock`, as every place that runs guests is told.

use std::collections::BTreeMap;

use egress::Pins;
use matrix::{Digest, Plan};
use serde::{Deserialize, Serialize};

use super::file::LockFile;

/// Whether the packages of guests are pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Locking {
    /// They are not.
    #[default]
    Off,
    /// What they get is to be pinned after the run.
    Record {
        /// Different in each run: images are prepared anew, because what an earlier run got for a template is not on record in this one.
        run: String,
    },
    /// They get what is pinned, and no other packages.
    Keep {
        /// The pins, by the image's name in the matrix. Of an image without, no package is pinned.
        images: BTreeMap<String, Pins>,
    },
}

impl Locking {
    /// Keeps what is pinned for the images of this plan.
    pub fn keep(file: &LockFile, plan: &Plan) -> Self {
        let pinned =
            plan.images.iter().filter_map(|image| Some((image.name.clone(), file.get(&image.name)?.pins.clone())));
        Self::Keep { images: pinned.collect() }
    }

    /// What guests of this image may get; `None`: anything.
    pub fn pins(&self, image: &str) -> Option<Pins> {
        match self {
            Self::Off | Self::Record { .. } => None,
            Self::Keep { images } => Some(images.get(image).cloned().unwrap_or_default()),
        }
    }

    /// What tells a template of this image that was prepared from repositories from those that were prepared with other packages;
    /// `None`: nothing.
    pub(crate) fn key(&self, image: &str) -> Option<String> {
        match self {
            Self::Off => None,
            Self::Record { run } => Some(format!("recorded by {run}")),
            // It fails for maps whose keys are no text, and there are none here.
            Self::Keep { .. } => serde_json::to_vec(&self.pins(image)).ok().map(|pins| Digest::of(&pins).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_of_an_image_without_pins_get_no_package_where_others_are_kept() {
        let keep = Locking::Keep { images: BTreeMap::new() };
        assert_eq!(keep.pins("debian-12"), Some(Pins::default()));
        assert_eq!(Locking::Off.pins("debian-12"), None);
        assert_eq!(Locking::Record { run: "1".to_owned() }.pins("debian-12"), None);
    }

    #[test]
    fn a_template_is_shared_only_by_runs_with_the_same_pins_of_its_image() {
        let pins = |content: &[u8]| Pins {
            metadata: [("http://d.test/Packages".to_owned(), Digest::of(content))].into(),
            ..Pins::default()
        };
        let keep = |of: &str, content: &[u8]| Locking::Keep { images: [(of.to_owned(), pins(content))].into() };
        let key = |locking: Locking| locking.key("a");
        assert_eq!(key(Locking::Off), None);
        assert_eq!(key(keep("a", b"1")), key(keep("a", b"1")));
        assert_ne!(key(keep("a", b"1")), key(keep("a", b"2")));
        assert_eq!(key(keep("b", b"1")), key(keep("b", b"2")));
        let record = |run: &str| key(Locking::Record { run: run.to_owned() });
        assert_ne!(record("1"), record("2"));
    }
}
