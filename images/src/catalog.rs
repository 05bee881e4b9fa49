//! The catalog: which operating systems there are by name.
//!
//! It is data (`images/catalog/*.toml`), compiled in, so that a binary copied to another machine knows the same systems.

use std::sync::LazyLock;

use matrix::{Arch, PackageFamily};
use serde::Deserialize;

use crate::{Bootstrap, Entry, Source, Suite};

/// Every operating system that can be asked for by name.
#[derive(Clone, Debug)]
pub struct Catalog {
    entries: Vec<Entry>,
}

/// An entry as it is written down.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    name: String,
    title: String,
    #[serde(default = "usual_arch")]
    arch: Arch,
    family: PackageFamily,
    release: String,
    suites: Vec<Suite>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    end_of_life: Option<String>,
}

/// What an entry that does not say it is made for.
fn usual_arch() -> Arch {
    Arch::X86_64
}

impl From<Written> for Entry {
    fn from(written: Written) -> Self {
        let Written { name, title, arch, family, release, suites, packages, end_of_life } = written;
        Self {
            name,
            title,
            arch,
            family: Some(family),
            login_user: "root".to_owned(),
            end_of_life,
            source: Source::Bootstrap(Bootstrap { release, suites, packages }),
        }
    }
}

impl Catalog {
    /// The catalog this program was built with.
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Catalog> = LazyLock::new(|| {
            Catalog::parse(include_str!("../catalog/debian.toml")).expect("the shipped catalog is tested to parse")
        });
        &SHIPPED
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            image: Vec<Written>,
        }
        let File { image } = toml::from_str(text)?;
        Ok(Self { entries: image.into_iter().map(Entry::from).collect() })
    }

    /// All names, in the order of the catalog.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// All entries, in the order of the catalog.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_catalog_names_debian_systems_for_two_kinds_of_cpus_and_the_machine_they_run_on() {
        insta::assert_snapshot!(
            Catalog::shipped().names().join(" "),
            @"debian-11-minimal debian-12-minimal debian-13-minimal debian-testing-minimal debian-sid-minimal debian-12-minimal-aarch64 debian-13-minimal-aarch64 debian-13-runner"
        );
    }

    #[test]
    fn names_are_safe_as_file_names_and_releases_as_arguments() {
        for entry in Catalog::shipped().entries() {
            let Source::Bootstrap(Bootstrap { release, .. }) = &entry.source else { continue };
            for word in [&entry.name, release] {
                assert!(!word.is_empty() && !word.starts_with('-'), "{word}");
                assert!(word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{word}");
            }
            assert_eq!(entry.name.ends_with("-aarch64"), entry.arch == Arch::Aarch64, "{}", entry.name);
        }
    }

    #[test]
    fn a_key_nobody_knows_is_an_error_and_not_ignored() {
        let text = "[[image]]\nname='x'\ntitle='x'\nfamily='deb'\nrelease='x'\nsuites=[]\nmirror='y'\n";
        let error = Catalog::parse(text).expect_err("unknown key");
        assert!(error.to_string().contains("mirror"), "{error}");
    }
}
