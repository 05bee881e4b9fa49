//! `images.lock`: pins names of the catalog to files of publishers.
//!
//! It lies beside the matrix file and belongs into its repository, so that later and other runs use the same bytes. Its format is
//! meant for diffs: sorted, one value per line, and unchanged as long as nothing changes.

use std::{collections::BTreeMap, path::Path};

use matrix::{Arch, Checksum};
use serde::{Deserialize, Serialize};

use crate::committed::{Committed, LockError};

const KIND: Committed = Committed { version: 1, written_by: "nestmatrix images update MATRIX" };
const HEAD: &str = "# Which published images this matrix runs on. Written by `nestmatrix images update`; commit it.\n";

/// All pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins(BTreeMap<(String, Arch), Pin>);

/// A pinned file of a publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Name of the catalog's entry.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// Where the file is.
    pub url: String,
    /// Its digest, as it lies there.
    pub digest: Checksum,
    /// Its size in bytes, if its publisher states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The day it was pinned (`YYYY-MM-DD`).
    pub resolved: jiff::civil::Date,
}

/// The change of a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added(Pin),
    /// It is unchanged.
    Unchanged(Pin),
    /// It is another file.
    Replaced {
        /// The old pin.
        old: Box<Pin>,
        /// The new pin.
        new: Box<Pin>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    #[serde(default)]
    image: Vec<Pin>,
}

impl Pins {
    /// Its file name, beside its matrix file.
    pub const FILE: &str = "images.lock";

    /// The pins of a file; `None`: the file does not exist.
    ///
    /// # Errors
    ///
    /// It cannot be read, or was not written by nestmatrix.
    pub fn read(file: &Path) -> Result<Option<Self>, LockError> {
        KIND.read(file)?.map(|text| Self::parse(file, &text)).transpose()
    }

    fn parse(file: &Path, text: &str) -> Result<Self, LockError> {
        let Written { version: _, image } = KIND.parse(file, text)?;
        let wrong = |message| KIND.wrong(file, None, message);
        let mut pins = Self::default();
        for pin in image {
            if !pin.url.starts_with("https://") && !pin.url.starts_with("http://") {
                return Err(wrong(format!("the url of `{}` is not an address", pin.name)));
            }
            if let Some(twice) = pins.insert(pin) {
                return Err(wrong(format!("`{}` is pinned twice for {}", twice.name, twice.arch)));
            }
        }
        Ok(pins)
    }

    /// Its text.
    fn text(&self) -> Result<String, toml::ser::Error> {
        let written = Written { version: KIND.version, image: self.0.values().cloned().collect() };
        Ok(format!("{HEAD}{}", toml::to_string(&written)?))
    }

    /// Replaces the file atomically.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), LockError> {
        KIND.write(file, self.text())
    }

    /// The pin of a name and an architecture.
    pub fn get(&self, name: &str, arch: Arch) -> Option<&Pin> {
        self.0.get(&(name.to_owned(), arch))
    }

    /// Pins a file; returns the replaced pin.
    pub fn insert(&mut self, pin: Pin) -> Option<Pin> {
        self.0.insert((pin.name.clone(), pin.arch), pin)
    }

    /// Pins a file, unless it is pinned already: then the day stays.
    pub fn update(&mut self, pin: Pin) -> Change {
        match self.get(&pin.name, pin.arch) {
            Some(old) if (&old.url, old.digest) == (&pin.url, pin.digest) => Change::Unchanged(old.clone()),
            _ => match self.insert(pin.clone()) {
                Some(old) => Change::Replaced { old: Box::new(old), new: Box::new(pin) },
                None => Change::Added(pin),
            },
        }
    }
}

impl Change {
    /// True if the same address has other bytes now: reliable publishers use a new address.
    pub fn is_suspicious(&self) -> bool {
        matches!(self, Self::Replaced { old, new } if old.url == new.url)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use proptest::prelude::*;

    use super::*;

    fn pin(name: &str, arch: Arch, byte: u8) -> Pin {
        Pin {
            name: name.to_owned(),
            arch,
            url: format!("https://mirror.test/{name}.qcow2"),
            digest: format!("sha256:{}", format!("{byte:02x}").repeat(32)).parse().expect("a digest"),
            bytes: (byte > 9).then_some(u64::from(byte)),
            resolved: jiff::civil::date(2026, 8, 1),
        }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join(Pins::FILE);
        (folder, file)
    }

    #[test]
    fn it_is_written_sorted_and_for_people_to_compare() {
        let mut pins = Pins::default();
        pins.insert(pin("rocky-9", Arch::X86_64, 1));
        pins.insert(pin("debian-12", Arch::Aarch64, 2));
        pins.insert(pin("debian-12", Arch::X86_64, 10));
        insta::assert_snapshot!(pins.text().expect("text"), @r#"
        # Which published images this matrix runs on. Written by `nestmatrix images update`; commit it.
        version = 1

        [[image]]
        name = "debian-12"
        arch = "x86_64"
        url = "https://mirror.test/debian-12.qcow2"
        digest = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
        bytes = 10
        resolved = "2026-08-01"

        [[image]]
        name = "debian-12"
        arch = "aarch64"
        url = "https://mirror.test/debian-12.qcow2"
        digest = "sha256:0202020202020202020202020202020202020202020202020202020202020202"
        resolved = "2026-08-01"

        [[image]]
        name = "rocky-9"
        arch = "x86_64"
        url = "https://mirror.test/rocky-9.qcow2"
        digest = "sha256:0101010101010101010101010101010101010101010101010101010101010101"
        resolved = "2026-08-01"
        "#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(images in proptest::collection::vec(("[a-z]{1,8}", any::<bool>(), any::<u8>()), 0..20)) {
            let mut pins = Pins::default();
            for (name, arm, byte) in images {
                pins.insert(pin(&name, if arm { Arch::Aarch64 } else { Arch::X86_64 }, byte));
            }
            let text = pins.text().expect("text");
            prop_assert_eq!(Pins::parse(Path::new("images.lock"), &text).expect("written by us"), pins);
        }

        #[test]
        fn what_a_changed_lock_pins_has_an_address_and_a_digest_or_is_a_mistake(place in any::<prop::sample::Index>(), byte in b' '..b'~') {
            let mut pins = Pins::default();
            pins.insert(pin("debian-12", Arch::X86_64, 11));
            pins.insert(pin("rocky-9", Arch::Aarch64, 12));
            let mut text = pins.text().expect("text").into_bytes();
            let at = place.index(text.len());
            text[at] = byte;
            if let Ok(read) = Pins::parse(Path::new("images.lock"), &String::from_utf8(text).expect("ASCII")) {
                for pin in read.0.values() {
                    prop_assert!(pin.url.starts_with("http") && !pin.name.is_empty() && pin.digest.hex().len() == 64, "{pin:?}");
                }
            }
        }

        #[test]
        fn no_text_is_too_odd_to_be_refused(text in ".{0,400}") {
            let _ = Pins::parse(Path::new("images.lock"), &text);
        }
    }

    #[test]
    fn a_file_that_is_not_there_pins_nothing_and_one_that_is_replaced_is_whole() {
        let (folder, file) = folder();
        assert_eq!(Pins::read(&file).expect("absent"), None);
        let mut pins = Pins::default();
        pins.insert(pin("debian-12", Arch::X86_64, 1));
        pins.write(&file).expect("written");
        assert_eq!(Pins::read(&file).expect("there"), Some(pins.clone()));
        pins.insert(pin("debian-13", Arch::X86_64, 1));
        pins.write(&file).expect("replaced");
        assert_eq!(Pins::read(&file).expect("there"), Some(pins));
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_lock_that_is_wrong_says_where_and_what_to_do() {
        let said = |text: &str| Pins::parse(Path::new("images.lock"), text).expect_err("wrong").to_string();
        insta::assert_snapshot!(said("version = 2\n"), @"images.lock: its version is 2, this nestmatrix supports 1");
        insta::assert_snapshot!(said("version = 1\ncolour = 1\n"), @"images.lock:2: unknown field `colour`, expected `version` or `image`");
        let one = "[[image]]\nname = \"a\"\narch = \"x86_64\"\nurl = \"https://m.test/a\"\nresolved = \"2026-08-01\"\n";
        let one = format!("{one}digest = \"sha256:{}\"\n", "00".repeat(32));
        insta::assert_snapshot!(said(&format!("version = 1\n{one}{one}")), @"images.lock: `a` is pinned twice for x86_64");
        insta::assert_snapshot!(
            said(&format!("version = 1\n{}", one.replace("https:", "file:"))),
            @"images.lock: the url of `a` is not an address"
        );
    }

    #[test]
    fn the_same_file_keeps_its_day_and_other_bytes_at_the_same_address_are_suspicious() {
        let mut pins = Pins::default();
        let first = pin("debian-12", Arch::X86_64, 1);
        assert_eq!(pins.update(first.clone()), Change::Added(first.clone()));
        let later = Pin { resolved: jiff::civil::date(2026, 9, 1), ..first.clone() };
        assert_eq!(pins.update(later), Change::Unchanged(first.clone()));
        let moved = Pin { url: "https://mirror.test/newer.qcow2".to_owned(), ..pin("debian-12", Arch::X86_64, 2) };
        let change = pins.update(moved.clone());
        assert!(matches!(&change, Change::Replaced { .. }) && !change.is_suspicious(), "{change:?}");
        let swapped = Pin { digest: first.digest, ..moved };
        assert!(pins.update(swapped).is_suspicious());
    }
}
