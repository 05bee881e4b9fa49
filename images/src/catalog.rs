//! The catalog: the known operating systems, by name.
//!
//! It is data (`images/catalog/*.toml`), compiled in, so that a binary copied to another machine knows the same systems. A user's
//! catalog adds to it, and `images.lock` pins the files of publishers.

mod written;

use std::{path::Path, sync::LazyLock};

use matrix::Arch;

use crate::{Entry, Origin, Pins, Source};

pub use written::CatalogError;

/// All known operating systems.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    entries: Vec<Entry>,
    /// All valid names: those for this machine's architecture first, then those with an architecture.
    names: Vec<String>,
}

/// The files of the shipped catalog.
const SHIPPED: [(&str, &str); 11] = [
    ("debian.toml", include_str!("../catalog/debian.toml")),
    ("ubuntu.toml", include_str!("../catalog/ubuntu.toml")),
    ("fedora.toml", include_str!("../catalog/fedora.toml")),
    ("centos.toml", include_str!("../catalog/centos.toml")),
    ("almalinux.toml", include_str!("../catalog/almalinux.toml")),
    ("rocky.toml", include_str!("../catalog/rocky.toml")),
    ("oracle.toml", include_str!("../catalog/oracle.toml")),
    ("opensuse.toml", include_str!("../catalog/opensuse.toml")),
    ("archlinux.toml", include_str!("../catalog/archlinux.toml")),
    ("alpine.toml", include_str!("../catalog/alpine.toml")),
    ("freebsd.toml", include_str!("../catalog/freebsd.toml")),
];

impl Catalog {
    /// File name of a user's catalog beside a matrix file.
    pub const FILE: &str = "images.toml";

    /// The catalog this program was built with.
    pub fn shipped() -> &'static Self {
        static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
            let parse =
                |(file, text)| written::parse(Path::new(file), text).expect("the shipped catalog is tested to parse");
            Catalog::of(SHIPPED.into_iter().flat_map(parse).collect())
        });
        &CATALOG
    }

    fn of(entries: Vec<Entry>) -> Self {
        let here = entries.iter().filter(|entry| entry.arch == Arch::here()).map(|entry| entry.name.clone());
        let certain = entries.iter().map(full_name);
        let names = here.chain(certain).collect();
        Self { entries, names }
    }

    /// This catalog with the entries of a file: they replace those of the same name and architecture.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or there is a mistake in it.
    pub fn with_file(&self, file: &Path) -> Result<Self, CatalogError> {
        let own = written::read(file)?;
        let mut entries = self.entries.clone();
        for entry in own {
            match entries.iter_mut().find(|known| (&known.name, known.arch) == (&entry.name, entry.arch)) {
                Some(known) => *known = entry,
                None => entries.push(entry),
            }
        }
        Ok(Self::of(entries))
    }

    /// This catalog with the pinned addresses and digests.
    pub fn pinned(&self, pins: &Pins) -> Self {
        let mut pinned = self.clone();
        for entry in &mut pinned.entries {
            let Some(pin) = pins.get(&entry.name, entry.arch) else { continue };
            let Source::Disk { file, .. } = &mut entry.source else { continue };
            file.digest = Some(pin.digest);
            // Mirrors of another file are useless.
            match &mut file.origin {
                Origin::Urls(urls) if urls.contains(&pin.url) => {}
                origin => *origin = Origin::Urls(vec![pin.url.clone()]),
            }
        }
        pinned
    }

    /// All valid names: `name` for this machine's architecture, `name-x86_64` and `name-aarch64` for a certain one.
    pub fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// All entries, in the order of the catalog.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of this name: for this machine's architecture, unless the name ends in one.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        let certain = Arch::ALL.into_iter().find_map(|arch| Some((name.strip_suffix(&format!("-{arch}"))?, arch)));
        let (name, arch) = certain.unwrap_or((name, Arch::here()));
        self.entries.iter().find(|entry| entry.name == name && entry.arch == arch)
    }
}

/// The name that means the same entry on every machine.
fn full_name(entry: &Entry) -> String {
    format!("{}-{}", entry.name, entry.arch)
}

#[cfg(test)]
mod tests;
