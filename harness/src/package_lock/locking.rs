//! What a run does with `repositories.lock`, as every place that runs guests is told.

use std::{collections::BTreeMap, fs, io, path::Path};

use egress::{Pins, Policy};
use matrix::{Digest, Plan};
use serde::{Deserialize, Serialize};

use super::{
    file::{LockFile, LockedImage},
    snapshots::is_allowed,
};

/// What a run began with, in its folder; a run without a lock has no such file.
const FILE: &str = "locking.json";

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
        /// What is pinned, by the image's name in the matrix. Of an image without, no package is.
        images: BTreeMap<String, LockedImage>,
    },
}

impl Locking {
    /// Keeps what is pinned for the images of this plan, whose guests may reach this.
    pub fn keep(file: &LockFile, plan: &Plan, policy: &Policy) -> Self {
        let pinned = plan.images.iter().filter_map(|image| {
            let mut locked = file.get(&image.name)?.clone();
            locked.pins.snapshots.retain(|snapshot| is_allowed(snapshot, policy));
            Some((image.name.clone(), locked))
        });
        Self::Keep { images: pinned.collect() }
    }

    /// What the run in this folder began with.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn of_run(run: &Path) -> io::Result<Self> {
        match fs::read(run.join(FILE)) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Off),
            Err(error) => Err(error),
        }
    }

    /// Writes it into the run's folder, from where `--resume` reads it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, run: &Path) -> io::Result<()> {
        match self {
            Self::Off => Ok(()),
            _ => fs::write(run.join(FILE), serde_json::to_vec(self)?),
        }
    }

    /// What is to be said of images that are others than those that were locked. `now`: their digests, by catalog name.
    pub fn other_images(&self, plan: &Plan, now: impl Fn(&str) -> Option<Digest>) -> Vec<String> {
        let Self::Keep { images } = self else { return Vec::new() };
        let others = plan.images.iter().filter_map(|image| {
            let (locked, now) = (images.get(&image.name)?.image, now(&image.from)?);
            (locked != now).then(|| {
                let (name, then, now) = (&image.name, locked.short(), now.short());
                format!("repositories.lock was written for another {name} ({then}, it is {now} now): what is installed there may differ; --lock renews it")
            })
        });
        others.collect()
    }

    /// What guests of this image may get; `None`: anything.
    pub fn pins(&self, image: &str) -> Option<Pins> {
        match self {
            Self::Off | Self::Record { .. } => None,
            Self::Keep { images } => Some(images.get(image).map(|locked| locked.pins.clone()).unwrap_or_default()),
        }
    }

    /// Digest of what is pinned; `None`: guests get what repositories offer.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Off | Self::Record { .. } => None,
            // It fails for maps whose keys are no text, and there are none here.
            Self::Keep { images } => serde_json::to_vec(images).ok().map(|text| Digest::of(&text)),
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
    fn a_run_that_is_resumed_keeps_to_what_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Locking::of_run(folder.path()).unwrap(), Locking::Off);
        Locking::Off.write(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let locked = LockedImage { image: Digest::of(b"image"), pins: Pins::default() };
        let keep = Locking::Keep { images: [("debian-12".to_owned(), locked)].into() };
        for locking in [Locking::Record { run: "1".to_owned() }, keep] {
            locking.write(folder.path()).unwrap();
            assert_eq!(Locking::of_run(folder.path()).unwrap(), locking);
        }
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Locking::of_run(folder.path()).is_err(), "it is not the same as none");
    }

    #[test]
    fn a_template_is_shared_only_by_runs_with_the_same_pins_of_its_image() {
        let locked = |content: &[u8]| {
            let metadata = [("http://d.test/Packages".to_owned(), Digest::of(content))].into();
            LockedImage { image: Digest::of(b"image"), pins: Pins { metadata, ..Pins::default() } }
        };
        let keep = |of: &str, content: &[u8]| Locking::Keep { images: [(of.to_owned(), locked(content))].into() };
        let key = |locking: Locking| locking.key("a");
        assert_eq!(key(Locking::Off), None);
        assert_eq!(key(keep("a", b"1")), key(keep("a", b"1")));
        assert_ne!(key(keep("a", b"1")), key(keep("a", b"2")));
        assert_eq!(key(keep("b", b"1")), key(keep("b", b"2")));
        let record = |run: &str| key(Locking::Record { run: run.to_owned() });
        assert_ne!(record("1"), record("2"));
    }
}
