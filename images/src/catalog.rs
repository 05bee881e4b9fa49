//! The catalog: which operating systems there are by name.
//!
//! It is data (`images/catalog/*.toml`), compiled in, so that a binary copied to another machine knows the same systems.

use std::sync::LazyLock;

use matrix::PackageFamily;
use serde::Deserialize;

/// Every operating system that can be asked for by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    #[serde(rename = "image")]
    entries: Vec<Entry>,
}

/// One operating system.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// The name it is asked for by, for example `debian-12-minimal`.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// What kind of packages it installs.
    pub family: PackageFamily,
    /// The distribution's own word for the release: a Debian suite.
    pub release: String,
    /// What is added to the release itself.
    pub suites: Vec<Suite>,
    /// Packages on top of the minimal system and of what every image has.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Last day it is looked after (`YYYY-MM-DD`), if there is one.
    #[serde(default)]
    pub end_of_life: Option<String>,
}

/// A part of a distribution's archive with what changed since the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// Changes that do not wait for the next point release.
    Updates,
    /// Security fixes.
    Security,
}

impl Suite {
    /// What its name ends in, after the release's.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Security => "security",
        }
    }
}

impl Catalog {
    /// The catalog this program was built with.
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Catalog> = LazyLock::new(|| {
            toml::from_str(include_str!("../catalog/debian.toml")).expect("the shipped catalog is tested to parse")
        });
        &SHIPPED
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
    fn the_shipped_catalog_names_five_debian_systems_and_the_machine_they_run_on() {
        insta::assert_snapshot!(
            Catalog::shipped().names().join(" "),
            @"debian-11-minimal debian-12-minimal debian-13-minimal debian-testing-minimal debian-sid-minimal debian-13-runner"
        );
    }

    #[test]
    fn names_are_safe_as_file_names_and_releases_as_arguments() {
        for entry in Catalog::shipped().entries() {
            for word in [&entry.name, &entry.release] {
                assert!(!word.is_empty() && !word.starts_with('-'), "{word}");
                assert!(word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{word}");
            }
        }
    }

    #[test]
    fn a_key_nobody_knows_is_an_error_and_not_ignored() {
        let text = "[[image]]\nname='x'\ntitle='x'\nfamily='deb'\nrelease='x'\nsuites=[]\nmirror='y'\n";
        let error = toml::from_str::<Catalog>(text).expect_err("unknown key");
        assert!(error.to_string().contains("mirror"), "{error}");
    }
}
